package trivy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// heavy are packages of Trivy that pull in its whole engine, the network or
// an experiment of the compiler.
var heavy = []string{
	"fanal/image", "fanal/analyzer", "fanal/applier", "fanal/artifact", "javadb", "vex", "result", "report", "scan/local", "commands", "cache",
	"oci", "remote", "downloader", "db", "rpc", "flag", "policy", "rekor", "notification", "x/json",
}

// alone are those of which small packages below are wanted.
var alone = []string{"db", "oci", "fanal/image"}

// never are packages of Trivy's relatives that no binary may have.
var never = []string{
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc", "github.com/aquasecurity/trivy-db/pkg/vulndb", "github.com/aquasecurity/trivy-db/pkg/vulnsrc/ghsa",
	"encoding/json/jsontext", "encoding/json/v2",
}

func TestOnlyLeanPackagesAreLinked(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-mod=readonly", "-deps", ".")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	list := strings.Fields(string(out))
	if len(list) < 300 || !slices.Contains(list, "github.com/aquasecurity/trivy/pkg/detector/library") {
		t.Fatalf("%d packages, want at least 300 and Trivy's detector among them", len(list))
	}
	const pkg = "github.com/aquasecurity/trivy/pkg/"
	for _, p := range list {
		for _, h := range heavy {
			if p == pkg+h || !slices.Contains(alone, h) && strings.HasPrefix(p, pkg+h+"/") {
				t.Errorf("links %s", p)
			}
		}
		if slices.Contains(never, p) {
			t.Errorf("links %s", p)
		}
	}
}

func TestVersionIsThatOfTheModule(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(tree(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*github\.com/aquasecurity/trivy v(\S+)`).FindSubmatch(b)
	if m == nil || string(m[1]) != version {
		t.Errorf("go.mod has Trivy %q, want %s", m, version)
	}
}
