package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/pypi"
)

func newInit(a *app) *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use:     "init --role {outside | inside}",
		GroupID: groupBoth,
		Short:   "Write a commented configuration from this host's own settings",
		Long: `Write a commented configuration from this host's own settings.

Reads the host's apt sources, pip's settings or pip's built-in default, uv's
and docker's settings, and HF_ENDPOINT. Contacts nothing. Logins are not copied. An existing file is
never overwritten.

` + codesLine(exitOK, exitUsage),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.init(cmd.Context(), role) },
	}
	cmd.Flags().StringVar(&role, "role", "", "outside or inside")
	return cmd
}

type initResult struct {
	Schema string      `json:"schema"`
	File   string      `json:"file"`
	Found  []initFound `json:"found"`
}

type initFound struct {
	Origin string `json:"origin"`
	Kind   string `json:"kind"` // "apt", "pypi", "oci", "models"
	URL    string `json:"url"`
	Note   string `json:"note"`
}

func (a *app) init(ctx context.Context, role string) error {
	if role != config.Outside && role != config.Inside {
		return usagef("--role is outside or inside")
	}
	name := a.configFile
	if name == "" {
		name = "darkmirror.yaml"
	}
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s exists; it is never overwritten", name)
	}
	h, err := lookAround(ctx, role)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(name, config.Template(role, h), 0o644); err != nil {
		return err
	}
	res := initResult{Schema: "darkmirror.init/v1", File: name, Found: foundOn(h)}
	return a.result(res, func() error {
		if err := table(a.out, func(w io.Writer) {
			for _, f := range res.Found {
				verb := "read"
				if f.URL == "" {
					verb = "none"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", verb, clean(f.Origin), f.Kind, clean(f.URL), clean(f.Note))
			}
		}); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "wrote %s; nothing was contacted\n", name)
		next := "darkmirror config check, then darkmirror key generate and darkmirror plan"
		if role == config.Inside {
			next = "darkmirror config check, then darkmirror key trust FILE and darkmirror import"
		}
		fmt.Fprintf(a.err, "hint: %s\n", next)
		return nil
	})
}

// lookAround reads what this host already uses. An inside host's indexes are
// of no interest: it fetches nothing.
func lookAround(ctx context.Context, role string) (config.Host, error) {
	h := config.Host{Codename: codename(), Architecture: debianArch(runtime.GOARCH)}
	h.Apt, h.Skipped = apt.Discover("")
	if role == config.Inside {
		return h, nil
	}
	var err error
	h.PyPI, err = pypi.Discover(ctx, os.Environ())
	if err != nil {
		// What could be read is used; what could not is told.
		h.PyPI = append(h.PyPI, pypi.Found{Origin: "pip", Note: firstOf(err)})
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // a service's account may have none
	}
	if h.OCI, err = oci.Discover("", home); err != nil {
		h.OCI = append(h.OCI, oci.Found{Origin: "docker", Note: firstOf(err)})
	}
	h.Models = models.Discover(os.Environ(), home)
	return h, nil
}

func foundOn(h config.Host) []initFound {
	list := []initFound{}
	for _, f := range h.PyPI {
		list = append(list, initFound{Origin: f.Origin, Kind: "pypi", URL: f.Index, Note: f.Note})
	}
	for _, f := range h.Apt {
		list = append(list, initFound{Origin: f.Origin, Kind: "apt", URL: f.URL, Note: strings.Join(f.Notes, "; ")})
	}
	for _, s := range h.Skipped {
		list = append(list, initFound{Origin: s.Origin, Kind: "apt", Note: s.Reason})
	}
	for _, f := range h.OCI {
		list = append(list, initFound{Origin: f.Origin, Kind: "oci", URL: f.Registry, Note: f.Note})
	}
	for _, f := range h.Models {
		list = append(list, initFound{Origin: f.Origin, Kind: "models", URL: f.Hub, Note: f.Note})
	}
	if len(h.PyPI) == 0 {
		list = append(list, initFound{Origin: "pip and uv", Kind: "pypi", Note: "no index known: fill in pypi by hand"})
	}
	return list
}

// codename is the release's name as os-release has it.
func codename() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	s := bufio.NewScanner(f)
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// debianArch gives Debian's name of an architecture.
func debianArch(goarch string) string {
	switch goarch {
	case "386":
		return "i386"
	case "arm":
		return "armhf"
	case "ppc64le":
		return "ppc64el"
	default:
		return goarch // amd64, arm64, riscv64, s390x
	}
}
