//go:build failpoint

package store

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// work is a run that passes every fail point of this package; it may be
// repeated after a kill anywhere.
func work(t *testing.T, dir string) {
	s := reopen(t, filepath.Join(dir, "store"))
	must(t, s.Sweep(func(artifact.Digest) bool { return true }))
	put(t, s, noise(1000, 1))
	if _, err := s.PutBytes([]byte("bytes")); err != nil {
		t.Fatal(err)
	}
	b := noise(2000, 2)
	if d := artifact.Sum(b); !s.Has(d) {
		p := partial(t, s, b)
		must(t, p.Reset())
		write(t, p, b[:500])
		must(t, p.SetValidator(`"v1"`))
		must(t, p.Close())
		p = partial(t, s, b)
		write(t, p, b[500:])
		must(t, p.Commit())
	}
	b = noise(2500, 4)
	if d := artifact.Sum(b); !s.Has(d) {
		p := parts(t, s, b, 1000)
		must(t, p.Reset())
		complete(t, p, b, 300)
		must(t, p.Commit())
	}
	bad := noise(3000, 3)
	if _, err := os.Stat(filepath.Join(dir, "spoilt")); errors.Is(err, os.ErrNotExist) {
		d := put(t, s, bad)
		must(t, os.WriteFile(s.path(d), []byte("spoilt"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "spoilt"), nil, 0o600))
	}
	d := artifact.Sum(bad)
	if f, err := s.File(d); err == nil {
		must(t, f.Close())
	} else if !errors.Is(err, artifact.ErrIntegrity) && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	put(t, s, bad)
	must(t, s.Link(d, filepath.Join(dir, "linked")))
	f, err := s.File(d)
	must(t, err)
	if _, err := os.Lstat(filepath.Join(dir, "copied")); errors.Is(err, os.ErrNotExist) {
		must(t, s.copyTo(d, f, filepath.Join(dir, "copied")))
	}
	must(t, f.Close())
}

// end is what lies there afterwards: each blob's digest, checked.
func end(t *testing.T, dir string) []string {
	s := reopen(t, filepath.Join(dir, "store"))
	must(t, s.Check(t.Context(), func(err error) { t.Error(err) }))
	for _, name := range []string{"linked", "copied"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, noise(3000, 3)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	// Evidence of damage may be there twice: a kill may fall between its
	// name and its move.
	return slices.DeleteFunc(files(t, s), func(n string) bool { return strings.HasPrefix(n, "quarantine/") })
}

// TestKill kills -9 a run at every passage of every fail point, runs it again,
// and compares the end with that of an undisturbed run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("STORE_KILL_DIR"); dir != "" {
		work(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "STORE_KILL_DIR="+dir)...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) > 0 {
			t.Logf("%s", out)
		}
		return err
	}
	calm, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	must(t, run(calm, "DARKMIRROR_FAILPOINT_TRACE="+trace))
	want := end(t, calm)
	passed, err := os.ReadFile(trace)
	must(t, err)
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		points[name]++
	}
	if points["store.renamed"] < 4 || points["store.quarantine-moved"] != 1 {
		t.Fatalf("passed: %v", points)
	}
	for name, times := range points {
		for n := range times {
			dir := t.TempDir()
			at := name + ":" + strconv.Itoa(n+1)
			err := run(dir, "DARKMIRROR_FAILPOINT="+at)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: not killed: %v", at, err)
			}
			must(t, run(dir))
			if diff := cmp.Diff(want, end(t, dir)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}
