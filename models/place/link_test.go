package place

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const content, spoilt = "the right bytes", "the wrong bytes"

// A world is a place and the store beside it.
type world struct {
	*Place
	dir, stored string // folders
	d           artifact.Digest
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{dir: filepath.Join(dir, "place"), stored: filepath.Join(dir, "store")}
	st := w.store(t)
	var err error
	if w.d, err = st.PutBytes([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if w.Place, err = Open(t.Context(), w.dir, st); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, w.Prepare())
	return w
}

// store opens the store as another process would, which remembers nothing.
func (w *world) store(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(w.stored)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (w *world) blob() string {
	return filepath.Join(w.stored, "blobs", "sha256", w.d.Hex()[:2], w.d.Hex())
}

// link publishes the blob as another process would.
func (w *world) link(t *testing.T, was Identity) Identity {
	t.Helper()
	w.st = w.store(t)
	is, err := w.Link(w.d, "file", was)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func (w *world) expect(t *testing.T, rel, want string) fs.FileInfo {
	t.Helper()
	name := filepath.Join(w.dir, rel)
	b, err := os.ReadFile(name)
	if err != nil || string(b) != want {
		t.Fatalf("%s: %q, %v, want %q", rel, b, err, want)
	}
	fi, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spoil changes bytes as a disk does: no time stamp tells.
func spoil(t *testing.T, name string) {
	t.Helper()
	fi, err := os.Stat(name)
	must(t, err)
	must(t, os.WriteFile(name, []byte(spoilt), 0o600))
	must(t, os.Chtimes(name, time.Time{}, fi.ModTime()))
}

func TestLink(t *testing.T) {
	w := newWorld(t)
	is := w.link(t, "")
	fi := w.expect(t, "file", content)
	if !w.st.Is(w.d, fi) {
		t.Error("not the store's file")
	}
	for _, was := range []Identity{is, "", "1 2 3"} {
		if got := w.link(t, was); got != is {
			t.Errorf("%q became %q", is, got)
		}
		if again := w.expect(t, "file", content); !os.SameFile(fi, again) {
			t.Error("replaced without need")
		}
	}
}

// A damaged blob is quarantined and brought again: its links are the damaged
// file, whose inode, size and time are what they were.
func TestLinkOfABlobThatWasHealed(t *testing.T) {
	w := newWorld(t)
	is := w.link(t, "")
	spoil(t, w.blob())
	w.expect(t, "file", spoilt)
	st := w.store(t)
	var damage error
	must(t, st.Check(t.Context(), func(err error) { damage = errors.Join(damage, err) }))
	if !errors.Is(damage, artifact.ErrIntegrity) || st.Has(w.d) {
		t.Fatalf("the damage is not found: %v", damage)
	}
	if _, err := w.Link(w.d, "file", is); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a link without its blob: %v", err)
	}
	must(t, st.Put(t.Context(), bytes.NewReader([]byte(content)), w.d, int64(len(content))))
	is = w.link(t, is)
	fi := w.expect(t, "file", content)
	if !w.st.Is(w.d, fi) {
		t.Error("not the store's file")
	}
	if got := w.link(t, is); got != is {
		t.Errorf("%q became %q", is, got)
	}
}

// A store that was restored has other files with the same bytes.
func TestLinkOfABlobThatWasRestored(t *testing.T) {
	w := newWorld(t)
	is := w.link(t, "")
	before := w.expect(t, "file", content)
	must(t, os.Remove(w.blob()))
	must(t, os.WriteFile(w.blob(), []byte(content), 0o600))
	w.link(t, is)
	if after := w.expect(t, "file", content); os.SameFile(before, after) || !w.st.Is(w.d, after) {
		t.Error("still the former file")
	}
}

// A copy, as on another file system, is compared once and then trusted.
func TestLinkOfACopy(t *testing.T) {
	w := newWorld(t)
	name := filepath.Join(w.dir, "file")
	must(t, os.WriteFile(name, []byte(content), 0o600))
	before := w.expect(t, "file", content)
	is := w.link(t, "")
	if after := w.expect(t, "file", content); !os.SameFile(before, after) {
		t.Error("a right file was replaced")
	}
	spoil(t, name) // tells whether it is read again
	if got := w.link(t, is); got != is {
		t.Errorf("%q became %q", is, got)
	}
	w.expect(t, "file", spoilt)
	must(t, os.Chtimes(name, time.Time{}, time.Unix(1, 0)))
	w.link(t, is)
	w.expect(t, "file", content)
}

func TestLinkReplaces(t *testing.T) {
	for what, lies := range map[string]func(name string) error{
		"other bytes": func(name string) error { return os.WriteFile(name, []byte(spoilt), 0o600) },
		"a link":      func(name string) error { return os.Symlink("/etc/passwd", name) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			must(t, lies(filepath.Join(w.dir, "file")))
			w.link(t, "")
			if fi := w.expect(t, "file", content); !w.st.Is(w.d, fi) {
				t.Error("not the store's file")
			}
		})
	}
	w := newWorld(t)
	must(t, w.Mkdir("file/kept"))
	if _, err := w.Link(w.d, "file", ""); err == nil {
		t.Error("a folder was replaced")
	}
	if left, err := w.Entries(Corner); err != nil || len(left) != 0 {
		t.Errorf("left in the corner: %v, %v", left, err)
	}
}
