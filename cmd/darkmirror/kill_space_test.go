//go:build failpoint

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestKillSpace fills the file system of an export: before it, under a
// download, and of the names that it may still create, one more each time. It
// ends with exit code 9 and, once there is room, completes as if nothing had
// been.
func TestKillSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	w := newKillWorld(t)
	w.outside(t)
	w.inside(t)
	scenario := func(name string) *killScenario {
		return w.scenarios[slices.IndexFunc(w.scenarios, func(s *killScenario) bool { return s.name == name })]
	}
	t.Run("before", func(t *testing.T) {
		s := scenario("export")
		dir, enlarge := w.mount(t, s.template, "size=12m")
		before := killState(t, dir)
		w.full(t, s, dir)
		after := killState(t, dir)
		delete(before, "state/ledger.db") // the run is recorded
		delete(after, "state/ledger.db")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("a run that is refused for want of room writes all the same:\n%s", diff)
		}
		enlarge("size=96m")
		w.completes(t, s, dir)
	})
	t.Run("download", func(t *testing.T) {
		s := scenario("export")
		dir, enlarge := w.mount(t, s.template, "size=32m")
		w.mu.Lock()
		w.ranges, w.onBig = nil, func() { killFill(t, filepath.Dir(dir), 1<<20) }
		w.mu.Unlock()
		w.full(t, s, dir)
		w.mu.Lock()
		w.onBig = nil
		w.mu.Unlock()
		enlarge("size=96m")
		w.completes(t, s, dir)
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := len(w.ranges); n < 2 || !strings.HasPrefix(w.ranges[n-1], "bytes=") || w.ranges[n-1] == "bytes=0-" {
			t.Errorf("the big wheel was asked for with %q, want the last to resume", w.ranges)
		}
	})
	step := uint64(1)
	if os.Getenv(killEnv) != "all" {
		step = 4
	}
	for _, name := range []string{"export", "import", "late"} {
		t.Run("names-"+name, func(t *testing.T) {
			t.Parallel()
			w.slots <- struct{}{}
			defer func() { <-w.slots }()
			refused := 0
			for left := uint64(0); w.names(t, scenario(name), left); left += step {
				refused++
			}
			if refused < 3 {
				t.Errorf("only %d runs were refused", refused)
			}
		})
	}
}

// names runs a scenario where so many files and folders can still be made, and
// again with enough. It reports whether there were too few.
func (w *killWorld) names(t *testing.T, s *killScenario, left uint64) (refused bool) {
	t.Helper()
	dir, limit := w.mount(t, s.template, "size=96m")
	var vfs unix.Statfs_t
	if err := unix.Statfs(dir, &vfs); err != nil {
		t.Fatal(err)
	}
	limit(fmt.Sprintf("nr_inodes=%d", vfs.Files-vfs.Ffree+left))
	status, out := w.program(t, dir, nil, s.args...)
	if status != 9 && status != 0 {
		t.Errorf("room for %d names: exit %d, want 9\n%s", left, status, out)
	}
	s.check(t, dir)
	limit("nr_inodes=100000")
	w.completes(t, s, dir)
	if err := unix.Unmount(filepath.Dir(dir), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	return status != 0
}

// mount copies a template into a small file system of its own. The function
// changes its limits.
func (w *killWorld) mount(t *testing.T, template, limits string) (dir string, remount func(string)) {
	t.Helper()
	at := w.path("mount-" + filepath.Base(t.Name()))
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("tmpfs", at, "tmpfs", 0, limits)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("this root may not mount: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	w.copy(t, template, filepath.Base(at)+"/work")
	return filepath.Join(at, "work"), func(limits string) {
		t.Helper()
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_REMOUNT, limits); err != nil {
			t.Fatal(err)
		}
	}
}

// killFill leaves so many bytes free in dir.
func killFill(t testing.TB, dir string, left int64) {
	var vfs unix.Statfs_t
	if err := unix.Statfs(dir, &vfs); err != nil {
		t.Error(err)
		return
	}
	n := int64(vfs.Bavail)*vfs.Bsize - left
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, max(n, 0)), 0o600); err != nil {
		t.Error(err)
	}
}

// full runs a command for which there is no room.
func (w *killWorld) full(t testing.TB, s *killScenario, dir string) {
	t.Helper()
	if status, out := w.program(t, dir, nil, s.args...); status != 9 {
		t.Errorf("exit %d, want 9\n%s", status, out)
	}
	s.check(t, dir)
}

// completes runs a scenario to its end.
func (w *killWorld) completes(t testing.TB, s *killScenario, dir string) {
	t.Helper()
	if status, out := w.program(t, dir, nil, s.args...); status != 0 {
		t.Errorf("with room again: exit %d\n%s", status, out)
	}
	s.check(t, dir)
	if diff := cmp.Diff(s.want, killState(t, dir)); diff != "" {
		t.Errorf("with room again (-undisturbed +full):\n%s", diff)
	}
}
