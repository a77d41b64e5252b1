//go:build failpoint

package files

import (
	"errors"
	"fmt"
	"io/fs"
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
	"github.com/darkmirror/darkmirror/mirror/store"
)

// killStates are published one after the other, plain and in versions. They
// have what a folder may go through: files that change, come, go, become
// folders, and a version with the name of another.
func killStates() []map[string]tree {
	return []map[string]tree{
		{"db 1": {"metadata.json": "1", "trivy.db": "1", "old/a": "1", "turn": "1", "same": "s"}},
		{"db 2": {"metadata.json": "2", "trivy.db": "2", "turn/into/folder": "2", "same": "s"}},
		{"db 2": {"metadata.json": "3", "trivy.db": "3", "turn": "3", "same": "s", "new/b": "3"}},
	}
}

func worldAt(t *testing.T, dir string) *world {
	t.Helper()
	st, err := store.Open(filepath.Join(dir, "store"))
	must(t, err)
	return &world{st: st, state: filepath.Join(dir, "state"), dir: filepath.Join(dir, "folder")}
}

// work carries a folder from outside to inside; it may be repeated after a
// kill anywhere.
func work(t *testing.T, dir string) {
	w := worldAt(t, dir)
	must(t, w.st.Sweep(func(artifact.Digest) bool { return true }))
	put(t, w.dir+"-outside", tree{"a.cvd": "carried"})
	s := newSource(t, clamav(w.dir+"-outside"), w.st, nil)
	snap, _, err := s.Resolve(t.Context(), nil)
	must(t, err)
	fetchAll(t, s, snap)

	c := w.plain()
	c.Sets = []PublishSet{{Name: "versions", Folder: w.dir + "-versions", Versioned: true}}
	for i, state := range killStates() {
		sets := make(map[string]tree)
		for key, files := range state {
			sets[key] = files
			sets["versions "+strings.TrimPrefix(key, "db ")] = files
		}
		if i == len(killStates())-1 {
			spoil(t, w.dir+"/same")
		}
		w.mustPublish(t, c, sets)
	}
	spoil(t, w.dir+"-versions/current/same")
	w.mustPublish(t, c, map[string]tree{"versions 2": killStates()[2]["db 2"]})
}

// spoil has somebody else write to a file, if it is there.
func spoil(t *testing.T, name string) {
	if _, err := os.Stat(name); err == nil {
		must(t, os.WriteFile(name, []byte("spoilt"), 0o600))
	}
}

// consistent says what a reader must never find: metadata of a database that
// is not there, or a link to less than a version.
func consistent(dir string) error {
	metadata, err := os.ReadFile(filepath.Join(dir, "folder", "metadata.json"))
	if errors.Is(err, fs.ErrNotExist) {
		metadata, err = []byte("0"), nil
	}
	if err != nil {
		return err
	}
	db, err := os.ReadFile(filepath.Join(dir, "folder", "trivy.db"))
	if err != nil && string(metadata) != "0" && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Data comes first, so it may be one ahead; it never lags behind. At the
	// end both go.
	if len(db) > 0 && string(db) < string(metadata) {
		return fmt.Errorf("metadata of %s with data of %s", metadata, db)
	}
	if _, err := os.Lstat(filepath.Join(dir, "folder-versions", "current")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	current := filepath.Join(dir, "folder-versions", "current")
	metadata, err = os.ReadFile(filepath.Join(current, "metadata.json"))
	if err != nil {
		return err
	}
	for _, state := range killStates() {
		for _, files := range state {
			if files["metadata.json"] != string(metadata) {
				continue
			}
			for name, text := range files {
				if b, err := os.ReadFile(filepath.Join(current, name)); err != nil || string(b) != text && string(b) != "spoilt" {
					return fmt.Errorf("version %s: %s is %q: %w", metadata, name, b, err)
				}
			}
		}
	}
	return nil
}

// end is everything that a run leaves, but for what tells one run's files
// from another's.
func end(t *testing.T, dir string) map[string]tree {
	w := worldAt(t, dir)
	all := map[string]tree{"plain": read(t, w.dir), "versions": read(t, w.dir+"-versions")}
	for _, d := range []string{w.dir, w.dir + "-versions"} {
		r, err := readRecord(w.state, sourceName, d)
		must(t, err)
		record := tree{"current": r.Current, "next": r.Next, "previous": r.Previous, "folders": fmt.Sprint(r.Folders)}
		for _, f := range r.Files {
			record[f.Path] = fmt.Sprint(f.Digests, f.Is == "")
		}
		for _, v := range r.Versions {
			record["version "+v.Folder] = v.Listing.String()
		}
		all["record of "+filepath.Base(d)] = record
	}
	c, err := readCurrent(filepath.Join(w.state, currentName), sourceName)
	must(t, err)
	all["pointer"] = tree{"snapshot": c.Snapshot.String(), "time": c.Time.Format(time.RFC3339)}
	if !w.st.Has(artifact.Sum([]byte("carried"))) {
		t.Error("the folder's file is not in the store")
	}
	return all
}

// TestKill kills -9 a run at every passage of every fail point of this
// package, looks at what readers find then, runs it again, and compares the
// end with that of an undisturbed run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("FILES_KILL_DIR"); dir != "" {
		work(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "FILES_KILL_DIR="+dir)...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) > 0 {
			t.Logf("%s", out)
		}
		return err
	}
	calm, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	must(t, run(calm, "DARKMIRROR_FAILPOINT_TRACE="+trace))
	passed, err := os.ReadFile(trace)
	must(t, err)
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		if strings.HasPrefix(name, "files.") || strings.HasPrefix(name, "durable.") {
			points[name]++
		}
	}
	for _, name := range []string{
		"files.copy", "files.publish", "files.published", "files.target-made", "files.intended", "files.corner-made", "files.folder-made",
		"files.staged", "files.placed", "files.data-durable", "files.version-named", "files.link-staged", "files.link-moved",
		"files.removed", "files.folder-removed", "files.settled", "files.swept",
	} {
		if points[name] == 0 {
			t.Errorf("%s is not passed: %v", name, points)
		}
	}
	want := end(t, calm)
	for name, times := range points {
		for n := range times {
			at := name + ":" + strconv.Itoa(n+1)
			t.Run(at, func(t *testing.T) {
				dir := t.TempDir()
				err := run(dir, "DARKMIRROR_FAILPOINT="+at)
				exit, ok := errors.AsType[*exec.ExitError](err)
				if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("not killed: %v", err)
				}
				if err := consistent(dir); err != nil {
					t.Error(err)
				}
				must(t, run(dir))
				got := end(t, dir)
				// The records name their folders, which are others here.
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}
