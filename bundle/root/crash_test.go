//go:build failpoint

package root

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
)

// crashStore tells the test binary, started again as a child, where to store
// what it finds in crashFiles.
const (
	crashStore = "ROOT_TEST_STORE"
	crashFiles = "ROOT_TEST_FILES"
)

func TestMain(m *testing.M) {
	dir, from := os.Getenv(crashStore), os.Getenv(crashFiles)
	if dir == "" {
		os.Exit(m.Run())
	}
	// The child.
	if err := keep(dir, from); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// keep pins version 1 and walks to 3.
func keep(dir, from string) error {
	s, err := OpenStore(dir)
	if err != nil {
		return err
	}
	files := make(map[int][]byte)
	for v := 1; v <= 3; v++ {
		if files[v], err = os.ReadFile(filepath.Join(from, fileName(v))); err != nil {
			return err
		}
	}
	r, err := Parse(files[1])
	if err != nil {
		return err
	}
	if err := s.Pin(files[1], r.digest.String(), now); err != nil {
		return err
	}
	_, err = s.Advance(files, now)
	return err
}

func child(t *testing.T, dir, from, point, trace string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashStore+"="+dir, crashFiles+"="+from, "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
	cmd.Stderr = t.Output()
	return cmd.Run()
}

// A kill at any step leaves a store that opens, at the version before or
// after, and a rerun gives what an undisturbed run gives.
func TestKillStore(t *testing.T) {
	from := t.TempDir()
	for v, data := range chain(t, 3) {
		if err := os.WriteFile(filepath.Join(from, fileName(v)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if err := child(t, whole, from, "", trace); err != nil {
		t.Fatal(err)
	}
	want := tree(t, whole)
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
	written := map[string]int{
		"root.folder-made": 2, "root.file-written": 3, "root.pinned": 2,
		"durable.created": 5, "durable.written": 5, "durable.synced": 5, "durable.renamed": 5,
	}
	if diff := cmp.Diff(written, passed); diff != "" {
		t.Fatal(diff)
	}
	ends := make(map[int]int)
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			err := child(t, dir, from, point, "")
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			at := version(openStore(t, dir))
			if at != 0 && at != 1 && at != 3 {
				t.Fatalf("half a walk: version %d", at)
			}
			ends[at]++
			if err := child(t, dir, from, "", ""); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	for _, at := range []int{0, 1, 3} {
		if ends[at] == 0 {
			t.Errorf("no kill left version %d", at)
		}
	}
}
