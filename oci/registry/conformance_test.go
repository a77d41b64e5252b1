package registry

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// conformanceVersion is the program of the distribution-spec project that
// testdata/conformance/run.sh installs.
const conformanceVersion = "v0.0.0-20260831232431-97274622c111"

// conformanceProgram finds it: where the project keeps its tools, or in PATH.
func conformanceProgram(t *testing.T) string {
	t.Helper()
	ours, err := filepath.Abs(filepath.Join("..", "..", ".cache", "tools", "conformance-"+conformanceVersion))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ours); err == nil {
		return ours
	}
	found, err := exec.LookPath("conformance")
	if err != nil {
		t.Skip("NOT RUN: the conformance program is neither in .cache/tools nor in PATH; testdata/conformance/run.sh installs it")
	}
	return found
}

// TestConformance runs the unchanged program of the specification's project
// with every API and every kind of data that darkmirror supports: all but
// sparse manifests, which it refuses.
func TestConformance(t *testing.T) {
	program := conformanceProgram(t)
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"open for reading", Options{PushToken: "push secret"}},
		{"closed", Options{PushToken: "push secret", PullToken: "pull secret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.o)
			at, err := url.Parse(w.url)
			if err != nil {
				t.Fatal(err)
			}
			results := t.TempDir()
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Dir = results
			cmd.Env = append(os.Environ(),
				"OCI_REGISTRY="+at.Host, "OCI_TLS=disabled", "OCI_VERSION=1.1", "OCI_RESULTS_DIR="+results, "OCI_LOG=error",
				"OCI_REPO1=conformance/repo1", "OCI_REPO2=conformance/repo2", "OCI_USERNAME=anybody", "OCI_PASSWORD=push secret",
				"OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_TAG_PARAM=true",
			)
			out, err := cmd.CombinedOutput()
			if err != nil {
				if _, ok := errors.AsType[*exec.ExitError](err); !ok {
					t.Fatal(err)
				}
				t.Errorf("%v\n%s", err, out)
			}
			counts := make(map[string]int)
			for _, m := range regexp.MustCompile(`(?m)^  (Pass|FAIL|Error|Skip)\.+: +(\d+)$`).FindAllSubmatch(out, -1) {
				n, err := strconv.Atoi(string(m[2]))
				if err != nil {
					t.Fatal(err)
				}
				counts[string(m[1])] = n
			}
			t.Logf("conformance: %v", counts)
			if counts["Pass"] < 850 || counts["FAIL"] != 0 || counts["Error"] != 0 || len(counts) != 4 {
				t.Errorf("want at least 850 passed and none failed, got %v\n%s", counts, out)
			}
		})
	}
}
