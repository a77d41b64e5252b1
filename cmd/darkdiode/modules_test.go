package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestModules lists what the program that faces the link is made of. A module
// more is a decision.
func TestModules(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}} {{.ImportPath}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"github.com/darkmirror/darkmirror",
		"github.com/elastic/go-seccomp-bpf", // tables of system calls
		"github.com/google/nftables",        // rules that drop what the host would send
		"github.com/klauspost/cpuid/v2",     // of reedsolomon
		"github.com/klauspost/reedsolomon",  // the code's arithmetic
		"github.com/mdlayher/netlink",       // of nftables
		"github.com/mdlayher/socket",        // of netlink
		"golang.org/x/net",                  // BPF
		"golang.org/x/sync",                 // errgroup
		"golang.org/x/sys",                  // system calls
	}
	var got, ours []string
	for line := range strings.Lines(string(out)) {
		module, pkg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if module != "" && !slices.Contains(got, module) {
			got = append(got, module)
		}
		if rest, ok := strings.CutPrefix(pkg, "github.com/darkmirror/darkmirror/"); ok {
			ours = append(ours, rest)
		}
		if pkg == "net/http" || pkg == "os/exec" {
			t.Errorf("%s is linked", pkg)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("modules %q, want %q", got, want)
	}
	for _, p := range ours {
		if p != "cmd/darkdiode" && p != "diode" && !strings.HasPrefix(p, "diode/") {
			t.Errorf("%s is linked; want nothing but diode", p)
		}
	}
}
