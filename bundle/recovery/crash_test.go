//go:build failpoint

package recovery

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
)

// crashTask tells the test binary, started again as a child, what to do: the
// folder to make recovery files for, or the output and the medium of a repair.
const crashTask = "RECOVERY_TEST_TASK"

// crashOptions make two recovery files.
var crashOptions = Options{Percent: 100, MaxFile: 10_000}

func TestMain(m *testing.M) {
	task := os.Getenv(crashTask)
	if task == "" {
		os.Exit(m.Run())
	}
	// The child.
	var err error
	if lines := strings.Split(task, "\n"); len(lines) == 1 {
		_, err = createWith(context.Background(), lines[0], crashOptions, realDisk())
	} else {
		_, err = Repair(context.Background(), lines[0], lines[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, point, trace string, task ...string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashTask+"="+strings.Join(task, "\n"), "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
	cmd.Stderr = t.Output()
	return cmd.Run()
}

// steps runs a child undisturbed and gives the steps that it passed, each of
// which must be among those named, and each of those passed.
func steps(t *testing.T, names []string, task ...string) []string {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	if err := child(t, "", trace, task...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(map[string]int)
	var points []string
	for _, name := range strings.Fields(string(b)) {
		passed[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, passed[name]))
	}
	want := make(map[string]bool)
	for _, name := range names {
		want[name] = true
	}
	got := make(map[string]bool)
	for name := range passed {
		got[name] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	return points
}

func killed(t *testing.T, err error) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v", err)
	}
}

// A kill at any step leaves all recovery files or none, and a rerun gives what
// an undisturbed run gives.
func TestKillCreate(t *testing.T) {
	dir := fake(t, few())
	plain := tree(t, dir)
	points := steps(t, []string{
		"recovery.tmpdir", "recovery.file-created", "recovery.column-written", "recovery.trailer-written", "recovery.header-written",
		"recovery.file-synced", "recovery.folder-synced", "recovery.renamed", "recovery.bundle-synced",
	}, dir)
	want := tree(t, dir)
	if len(want) < len(plain)+2 {
		t.Fatalf("made %v", sorted(want))
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			dir := copyTree(t, filepath.Base(dir), plain)
			killed(t, child(t, point, "", dir))
			left := tree(t, dir)
			for name := range left {
				if strings.HasPrefix(name, tempDir) {
					delete(left, name)
				}
			}
			if !cmp.Equal(left, plain) && !cmp.Equal(left, want) {
				t.Fatalf("left %v", sorted(left))
			}
			if err := child(t, "", "", dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Fatal(clipDiff(diff))
			}
		})
	}
}

// A kill at any step of a repair leaves all files or none under the bundle's
// name, and the medium as it was; a rerun gives what an undisturbed run gives.
func TestKillRepair(t *testing.T) {
	medium := fake(t, few())
	createFake(t, medium, crashOptions)
	for _, name := range []string{"volumes/volume-00001.tar", "recovery/recovery-00002.rs"} {
		flipAt(t, filepath.Join(medium, name), 1000)
	}
	before := tree(t, medium)
	out := t.TempDir()
	points := steps(t, []string{
		"recovery.repair-tmpdir", "recovery.repair-file-created", "recovery.repair-file-copied", "recovery.repair-column-written",
		"recovery.trailer-written", "recovery.header-written", "recovery.file-synced", "recovery.repair-file-synced",
		"recovery.repair-folders-synced", "recovery.repair-renamed", "recovery.repair-out-synced",
	}, out, medium)
	want := tree(t, out)
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			out := t.TempDir()
			killed(t, child(t, point, "", out, medium))
			left := tree(t, out)
			for name := range left {
				if strings.HasPrefix(name, tempDir) {
					delete(left, name)
				}
			}
			if len(left) > 0 && !cmp.Equal(left, want) {
				t.Fatalf("left %v", sorted(left))
			}
			if err := child(t, "", "", out, medium); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, tree(t, out)); diff != "" {
				t.Fatal(clipDiff(diff))
			}
			if diff := cmp.Diff(before, tree(t, medium)); diff != "" {
				t.Fatal(clipDiff(diff))
			}
		})
	}
}
