//go:build failpoint

package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// uploadWork passes every fail point of uploads and may be repeated after a
// kill anywhere: it goes on with the upload whose name it wrote down, as a
// client does.
func uploadWork(t *testing.T, dir string) {
	s := reopen(t, filepath.Join(dir, "store"))
	b := noise(3000, 1)
	if s.Has(artifact.Sum(b)) {
		must(t, s.SweepUploads(0, time.Now().Add(time.Hour)))
		return
	}
	note := filepath.Join(dir, "upload")
	id, _ := os.ReadFile(note)
	u, err := s.ResumeUpload(string(id))
	if errors.Is(err, os.ErrNotExist) {
		u, err = s.NewUpload()
	}
	must(t, err)
	must(t, os.WriteFile(note, []byte(u.ID()), 0o600))
	for u.Size() < int64(len(b)) {
		if got := u.Sum(); got != artifact.Sum(b[:u.Size()]) {
			t.Fatalf("at %d: sum %s", u.Size(), got)
		}
		_, err = u.Write(b[u.Size():min(u.Size()+1000, int64(len(b)))])
		must(t, err)
		must(t, u.Close())
		u, err = s.ResumeUpload(u.ID())
		must(t, err)
	}
	_, err = u.Commit()
	must(t, err)
	// One that was given up, beside one that is fresh.
	given, err := s.NewUpload()
	must(t, err)
	must(t, given.Close())
	must(t, s.SweepUploads(0, time.Now().Add(time.Hour)))
}

func TestKillUpload(t *testing.T) {
	if dir := os.Getenv("STORE_KILL_UPLOAD"); dir != "" {
		uploadWork(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillUpload$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "STORE_KILL_UPLOAD="+dir)...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) > 0 {
			t.Logf("%s", out)
		}
		return err
	}
	end := func(dir string) []string {
		s := reopen(t, filepath.Join(dir, "store"))
		must(t, s.Check(t.Context(), func(err error) { t.Error(err) }))
		return files(t, s)
	}
	calm, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	must(t, run(calm, "DARKMIRROR_FAILPOINT_TRACE="+trace))
	want := end(calm)
	if diff := cmp.Diff([]string{blobName(artifact.Sum(noise(3000, 1)))}, want); diff != "" {
		t.Fatal(diff)
	}
	passed, err := os.ReadFile(trace)
	must(t, err)
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		points[name]++
	}
	for _, name := range []string{"upload-created", "upload-state-written", "upload-state-renamed", "upload-complete", "upload-published", "upload-expired", "synced", "renamed"} {
		if points["store."+name] == 0 {
			t.Errorf("store.%s was not passed", name)
		}
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
			// A second run, as of another client later, leaves nothing but
			// the blob.
			must(t, run(dir))
			if diff := cmp.Diff(want, end(dir)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}
