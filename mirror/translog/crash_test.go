//go:build failpoint

package translog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
)

// crashDir tells the test binary, started again as a child, which log to
// append to.
const crashDir = "TRANSLOG_TEST_DIR"

// crashEntries is how many the child appends: the third completes no subtree,
// the fourth two.
const crashEntries = 4

func TestMain(m *testing.M) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	// The child.
	l, err := Open(dir, edSigner("exporter-a"))
	for n := uint64(1); err == nil && n <= crashEntries; n++ {
		_, err = l.Append(entry(n))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, dir, point, trace string) error {
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

// points runs a child to its end and lists the steps that it passed.
func points(t *testing.T, dir string) []string {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	if err := child(t, dir, "", trace); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(map[string]int)
	var list []string
	for name := range strings.Lines(string(b)) {
		name = strings.TrimSpace(name)
		passed[name]++
		list = append(list, fmt.Sprintf("%s:%d", name, passed[name]))
	}
	return list
}

func killed(t *testing.T, err error) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v", err)
	}
}

// A kill at any step, and one more at any step of the rerun, leaves a log that
// a reader without a key accepts, that has lost nothing which a checkpoint on
// the disk covered, and that ends like one that was never disturbed.
func TestKillAnywhere(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "log")
	list := points(t, whole)
	want := tree(t, whole)
	names := make(map[string]bool)
	for _, p := range list {
		name, _, _ := strings.Cut(p, ":")
		names[name] = true
	}
	for _, name := range []string{
		"translog.written", "translog.entry-synced", "translog.hashes-synced", "translog.signed",
		"durable.created", "durable.written", "durable.synced", "durable.renamed", "translog.checkpoint-written",
	} {
		if !names[name] {
			t.Errorf("%s was not passed", name)
		}
	}
	healing := make(map[string]bool)
	for _, point := range list {
		t.Run(point, func(t *testing.T) {
			base := t.TempDir()
			dir := filepath.Join(base, "log")
			killed(t, child(t, dir, point, ""))
			kept := checkLeft(t, dir)
			left := tree(t, dir)
			// The rerun is killed as well, at each of its own steps.
			rerun := points(t, dir)
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Fatal(diff)
			}
			for _, second := range rerun {
				name, _, _ := strings.Cut(second, ":")
				if !strings.HasPrefix(name, "translog.unfinished") && !strings.HasPrefix(name, "translog.cut") && !strings.HasPrefix(name, "translog.swept") {
					continue
				}
				healing[name] = true
				writeTree(t, dir, left)
				killed(t, child(t, dir, second, ""))
				checkLeft(t, dir)
				if err := child(t, dir, "", ""); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
					t.Fatal(diff)
				}
			}
			l := mustOpen(t, dir, edSigner("exporter-a"))
			if err := l.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if kept != nil {
				if err := l.Consistency(kept); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	for _, name := range []string{"translog.unfinished", "translog.cut", "translog.swept"} {
		if !healing[name] {
			t.Errorf("no rerun passed %s", name)
		}
	}
}

// checkLeft reads what a kill left, as a reader without a key does, and
// returns its checkpoint.
func checkLeft(t *testing.T, dir string) []byte {
	t.Helper()
	l := mustOpen(t, dir, bundle.Signer{})
	for i := range l.Size() {
		if e, err := l.Entry(i); err != nil || e.Seq != uint64(i)+1 {
			t.Fatalf("entry %d: %+v %v", i, e, err)
		}
	}
	return l.Checkpoint()
}
