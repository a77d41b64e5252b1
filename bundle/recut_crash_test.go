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

// crashRecut tells the test, started again as a child, what to cut and where:
// the folders FROM and TO, a line each.
const crashRecut = "BUNDLE_TEST_RECUT"

// A kill at any step of a re-cut leaves no half bundle that is found, the
// source as it was, and a rerun gives the bytes of an undisturbed run.
func TestKillRecut(t *testing.T) {
	if from, to, child := strings.Cut(os.Getenv(crashRecut), "\n"); child {
		if _, err := recutSmall(context.Background(), to, 8<<10, from); err != nil {
			t.Fatal(err)
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := sealSmall(t, t.TempDir())
	source := tree(t, f.sealed.Dir)
	want := tree(t, sealSized(t, 8<<10).sealed.Dir)
	run := func(t *testing.T, to, point, trace string) error {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestKillRecut$")
		cmd.Env = append(os.Environ(), crashRecut+"="+f.sealed.Dir+"\n"+to, "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
		cmd.Stderr = t.Output()
		return cmd.Run()
	}
	trace := filepath.Join(t.TempDir(), "trace")
	if err := run(t, filepath.Join(t.TempDir(), "o"), "", trace); err != nil {
		t.Fatal(err)
	}
	passed := make(map[string]int)
	var points []string
	for _, name := range strings.Fields(string(readFile(t, trace))) {
		passed[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, passed[name]))
	}
	for _, name := range []string{
		"bundle.recut-tmpdir", "bundle.volume-created", "bundle.volume-written", "bundle.volume-flushed", "bundle.volume-synced", "bundle.recut-volumes-synced",
		"bundle.document-written", "bundle.volumes-json", "bundle.envelope-written", "bundle.folder-synced", "bundle.renamed", "bundle.outbox-synced",
	} {
		if passed[name] == 0 {
			t.Errorf("%s was not passed", name)
		}
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			outbox := filepath.Join(t.TempDir(), "outbox")
			err := run(t, outbox, point, "")
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
			if err := run(t, outbox, "", ""); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(outbox)
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			if diff := cmp.Diff(want, tree(t, filepath.Join(outbox, entries[0].Name()))); diff != "" {
				t.Fatal(diff)
			}
			if diff := cmp.Diff(source, tree(t, f.sealed.Dir)); diff != "" {
				t.Fatalf("the source changed: %s", diff)
			}
		})
	}
}
