//go:build failpoint

package cachedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
)

// work publishes one set and then another; it may be repeated after a kill
// anywhere.
func work(t *testing.T, dir string) {
	w := worldIn(t, dir)
	if err := w.st.Sweep(func(artifact.Digest) bool { return true }); err != nil {
		t.Fatal(err)
	}
	first := w.rev(t, "team/model", c1, []string{"main", "v1"}, small())
	gone := w.rev(t, "team/gone", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	files := small()
	files["config.json"] = "{}"
	second := w.rev(t, "team/model", c2, []string{"main"}, files)
	delete(files, "a folder/x+y.txt")
	less := w.rev(t, "team/model", c2, []string{"main"}, files)
	linked, plain := w.target(t, Options{NoExist: true}), w.target(t, Options{Links: models.LinksNone, Name: "models/plain"})
	publish(t, linked, gone, first)
	publish(t, plain, w.rev(t, "team/plain", c1, []string{"main"}, small()))
	publish(t, linked, second)
	publish(t, plain)
	if err := os.WriteFile(filepath.Join(dir, "spoilt"), []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "spoilt"), filepath.Join(w.dir, "models--team--model", "blobs", oid("{}"))); err != nil {
		t.Fatal(err)
	}
	publish(t, linked, less)
}

// whole reports what a client would find incomplete: a ref without its
// revision, a listing without its files.
func whole(dir string) error {
	trees, err := filepath.Glob(filepath.Join(dir, "*", "trees", "*.json"))
	if err != nil {
		return err
	}
	for _, name := range trees {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var tree struct{ Files map[string]treeFile }
		if err := json.Unmarshal(b, &tree); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		at := filepath.Join(filepath.Dir(name), "..", "snapshots", strings.TrimSuffix(path.Base(name), ".json"))
		for file, f := range tree.Files {
			if fi, err := os.Stat(filepath.Join(at, file)); err != nil || fi.Size() != f.Size && fi.Size() != int64(len("spoilt")) {
				return fmt.Errorf("%s lists %s: %w", name, file, err)
			}
		}
	}
	refs, err := filepath.Glob(filepath.Join(dir, "*", "refs"))
	if err != nil {
		return err
	}
	for _, root := range refs {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			commit, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			_, err = os.Stat(filepath.Join(root, "..", "trees", string(commit)+".json"))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// TestKill kills -9 a run at every passage of every fail point, looks at what
// clients find then, runs it again, and compares the end with that of an
// undisturbed run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("CACHEDIR_KILL_DIR"); dir != "" {
		work(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "CACHEDIR_KILL_DIR="+dir)...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) > 0 {
			t.Logf("%s", out)
		}
		return err
	}
	calm, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if err := run(calm, "DARKMIRROR_FAILPOINT_TRACE="+trace); err != nil {
		t.Fatal(err)
	}
	want := worldIn(t, calm).tree(t)
	passed, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		if strings.HasPrefix(name, "cachedir.") || strings.HasPrefix(name, "models.place-") {
			points[name]++
		}
	}
	for _, name := range []string{"cachedir.announce", "cachedir.settle", "models.place-folder-filled", "models.place-folder-taken", "models.place-linked", "cachedir.blob-removed", "cachedir.ref-removed", "cachedir.vanish"} {
		if points[name] == 0 {
			t.Fatalf("%s is not passed: %v", name, points)
		}
	}
	for name, times := range points {
		for n := range times {
			dir, at := t.TempDir(), name+":"+strconv.Itoa(n+1)
			err := run(dir, "DARKMIRROR_FAILPOINT="+at)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: not killed: %v", at, err)
			}
			if err := whole(filepath.Join(dir, "hf")); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			if err := run(dir); err != nil {
				t.Fatal(at, err)
			}
			if diff := cmp.Diff(want, worldIn(t, dir).tree(t)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}
