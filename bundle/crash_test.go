//go:build failpoint

package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/internal/durable"
)

// crashOutbox tells the test binary, started again as a child, where to seal.
const crashOutbox = "BUNDLE_TEST_OUTBOX"

func TestMain(m *testing.M) {
	outbox := os.Getenv(crashOutbox)
	if outbox == "" {
		os.Exit(m.Run())
	}
	// The child.
	c, man := smallContent()
	signer, _ := testSigner(quiet{}, "exporter-a")
	if _, err := seal(context.Background(), outbox, man, c.open, signer, SealOptions{VolumeSize: small.volume}, small); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, outbox, point, trace string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashOutbox+"="+outbox, "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
	cmd.Stderr = t.Output()
	return cmd.Run()
}

// B1: a kill at any step leaves no half bundle that is found, and a rerun
// gives the same bytes as an undisturbed run.
func TestKillAnywhere(t *testing.T) {
	whole := sealSmall(t, t.TempDir())
	want := tree(t, whole.sealed.Dir)
	trace := filepath.Join(t.TempDir(), "trace")
	if err := child(t, filepath.Join(t.TempDir(), "o"), "", trace); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(map[string]int)
	var points []string
	for name := range strings.Lines(string(b)) {
		name = strings.TrimSpace(name)
		passed[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, passed[name]))
	}
	for _, name := range []string{
		"bundle.tmpdir", "bundle.volume-created", "bundle.volume-written", "bundle.volume-flushed", "bundle.volume-synced", "bundle.volumes-synced",
		"bundle.signed", "bundle.document-written", "bundle.volumes-json", "bundle.envelope-written", "bundle.folder-synced", "bundle.renamed", "bundle.outbox-synced",
	} {
		if passed[name] == 0 {
			t.Errorf("%s was not passed", name)
		}
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			outbox := filepath.Join(t.TempDir(), "outbox")
			err := child(t, outbox, point, "")
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			found, err := Find(outbox)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range found {
				if diff := cmp.Diff(want, tree(t, c.Dirs[0])); diff != "" {
					t.Fatalf("a half bundle: %s", diff)
				}
			}
			if err := durable.Sweep(outbox); err != nil {
				t.Fatal(err)
			}
			if err := child(t, outbox, "", ""); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(outbox)
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			if diff := cmp.Diff(want, tree(t, filepath.Join(outbox, entries[0].Name()))); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// quiet stands in for the test that a child does not have.
type quiet struct{ testing.TB }

func (quiet) Helper() {}
