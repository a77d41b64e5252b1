//go:build failpoint

package pypi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// crashDir tells the test binary, started again as a child, where to work.
const crashDir = "PYPI_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	// The child: publishes what lies in the store as bundle 2, and its tree.
	if err := crashChild(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func crashChild(dir string) error {
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	pub, err := NewPublisher(PublishConfig{}, "pypi/main", st, filepath.Join(dir, "state"), nil)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		return err
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		return err
	}
	if _, err := pub.Publish(context.Background(), snap, 2, time.Unix(1<<30, 0)); err != nil {
		return err
	}
	return WriteTree(context.Background(), filepath.Join(dir, "tree"), "pypi/main", NewHandler(filepath.Join(dir, "state"), st, nil))
}

// crashWorld is a published bundle 1 with its tree, and bundle 2 in the
// store: a file less, another one new.
func crashWorld(t *testing.T) (*inside, string) {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	in := &inside{store: st, dir: filepath.Join(dir, "state")}
	if in.pub, err = NewPublisher(PublishConfig{}, "pypi/main", st, in.dir, nil); err != nil {
		t.Fatal(err)
	}
	in.load(t, sample()[:2], nil)
	in.publish(t, 1)
	// One that is held back in bundle 2 leaves the tree.
	writeTree(t, filepath.Join(dir, "tree"), NewHandler(in.dir, st, nil))
	in.load(t, sample()[1:], nil)
	in.snap.Artifacts = in.snap.Artifacts[1:]
	b, err := in.snap.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "snapshot"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return in, dir
}

func crashRun(t *testing.T, dir, point, trace string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir, "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
	cmd.Stderr = t.Output()
	return cmd.Run()
}

// crashState is all that matters of a world: the publication, the record and
// the tree.
func crashState(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := treeOf(t, filepath.Join(dir, "tree"))
	for _, name := range []string{currentName, revocationsName} {
		b, err := os.ReadFile(filepath.Join(dir, "state", name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	return out
}

// A kill at any step leaves the old or the new pages whole, in the tree and
// in the publication, and a rerun gives what an undisturbed run gives.
func TestKillPublish(t *testing.T) {
	_, whole := crashWorld(t)
	before := treeOf(t, filepath.Join(whole, "tree"))
	trace := filepath.Join(t.TempDir(), "trace")
	if err := crashRun(t, whole, "", trace); err != nil {
		t.Fatal(err)
	}
	want := crashState(t, whole)
	pages := regexp.MustCompile(`^simple/`)
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
		"pypi.before-revocations", "pypi.revocations", "pypi.before-current", "pypi.published",
		"pypi.tree-folder", "pypi.tree-linked", "pypi.tree-pages-begun", "pypi.tree-pages-written", "pypi.tree-pages-synced",
		"pypi.tree-pages-named", "pypi.tree-link-made", "pypi.tree-turned", "pypi.tree-pages-removed", "pypi.tree-file-removed",
	} {
		if passed[name] == 0 {
			t.Errorf("%s was not passed", name)
		}
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			in, dir := crashWorld(t)
			err := crashRun(t, dir, point, "")
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			if _, err := (&publication{file: filepath.Join(in.dir, currentName), store: in.store}).read(); err != nil {
				t.Fatal(err)
			}
			got := treeOf(t, filepath.Join(dir, "tree"))
			old, new := true, true
			for name, b := range got {
				if pages.MatchString(name) {
					old, new = old && before[name] == b, new && want[name] == b
				}
			}
			if !old && !new {
				t.Error("half of the pages are new")
			}
			if err := crashRun(t, dir, "", ""); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, crashState(t, dir)); d != "" {
				t.Errorf("after a rerun (-want +got): %s", d)
			}
		})
	}
}
