package place

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
)

// tree lists what lies there: files with their content, links with their
// text, empty folders.
func (w *world) tree(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	must(t, fs.WalkDir(w.Root().FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if list, err := w.Entries(name); err != nil || len(list) == 0 {
				all[name+"/"] = ""
				return err
			}
			return nil
		case d.Type() == fs.ModeSymlink:
			text, err := w.Root().Readlink(name)
			all[name] = "-> " + text
			return err
		}
		b, err := w.Root().ReadFile(name)
		all[name] = string(b)
		return err
	}))
	return all
}

func TestOpenWaits(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, w.dir, w.st); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	other := make(chan error)
	go func() {
		p, err := Open(t.Context(), w.dir, w.st)
		if err == nil {
			err = p.Close()
		}
		other <- err
	}()
	must(t, w.lock.Close())
	must(t, <-other)
	w.lock = nil // Cleanup closes the rest
}

func TestPrepare(t *testing.T) {
	w := newWorld(t)
	must(t, os.MkdirAll(filepath.Join(w.dir, Corner, durable.TempPrefix+"killed", "run"), 0o700))
	must(t, w.Write(Corner+"/record.json", []byte("{}")))
	must(t, w.Prepare())
	if diff := cmp.Diff(map[string]string{Corner + "/record.json": "{}"}, w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteAndSymlink(t *testing.T) {
	w := newWorld(t)
	sub, err := w.Sub("sub")
	must(t, err)
	must(t, sub.Prepare())
	must(t, errors.Join(sub.Mkdir("a/b"), sub.Write("a/b/file", []byte("1")), sub.Symlink("b/file", "a/link")))
	before, err := sub.Root().Lstat("a/b/file")
	must(t, err)
	must(t, errors.Join(sub.Write("a/b/file", []byte("1")), sub.Symlink("b/file", "a/link")))
	if after, err := sub.Root().Lstat("a/b/file"); err != nil || !os.SameFile(before, after) {
		t.Errorf("written without need: %v", err)
	}
	must(t, errors.Join(sub.Write("a/link", []byte("2")), sub.Symlink("../x", "a/b/file"), sub.Close()))
	want := map[string]string{"sub/a/link": "2", "sub/a/b/file": "-> ../x", "sub/" + Corner + "/": "", Corner + "/": ""}
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

func TestFolder(t *testing.T) {
	w := newWorld(t)
	refused := errors.New("refused")
	fill := func(name string, result error) func(string) error {
		return func(at string) error {
			if _, err := w.Root().Lstat("in/folder/first"); err == nil != (at == "in/folder") {
				t.Errorf("filled at %s, the folder is there: %v", at, err == nil)
			}
			return errors.Join(w.Write(at+"/"+name, []byte(name)), result)
		}
	}
	if err := w.Folder("in/folder", fill("first", refused)); !errors.Is(err, refused) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(map[string]string{"in/": "", Corner + "/": ""}, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
	must(t, w.Folder("in/folder", fill("first", nil)))
	must(t, w.Folder("in/folder", fill("second", nil)))
	want := map[string]string{"in/folder/first": "first", "in/folder/second": "second", Corner + "/": ""}
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
}

func TestRemove(t *testing.T) {
	files := []string{"a", "deep/b"}
	for what, c := range map[string]struct {
		lies []string
		want map[string]string
	}{
		"alone":             {[]string{"in/folder/a", "in/folder/deep/b"}, map[string]string{}},
		"some of them":      {[]string{"in/folder/a"}, map[string]string{}},
		"something else":    {[]string{"in/folder/a", "in/folder/deep/b", "in/folder/x"}, map[string]string{"in/folder/x": ""}},
		"something outside": {[]string{"in/folder/a", "in/x"}, map[string]string{"in/x": ""}},
		"nothing":           {nil, map[string]string{}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			for _, name := range c.lies {
				must(t, w.Mkdir(name[:strings.LastIndexByte(name, '/')]))
				must(t, w.Write(name, nil))
			}
			must(t, w.RemoveFolder("in/folder", files))
			c.want[Corner+"/"] = ""
			if diff := cmp.Diff(c.want, w.tree(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
	w := newWorld(t)
	must(t, w.Mkdir("a/b"))
	must(t, errors.Join(w.Write("a/b/c", nil), w.Remove("a/b/c"), w.Remove("a/b/c")))
	if diff := cmp.Diff(map[string]string{Corner + "/": ""}, w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

// A link in place of a folder leads nothing out.
func TestLinksThatLeadOut(t *testing.T) {
	w, out := newWorld(t), t.TempDir()
	must(t, os.WriteFile(filepath.Join(out, "theirs"), []byte("kept"), 0o600))
	must(t, os.Symlink(out, filepath.Join(w.dir, "out")))
	_, sub := w.Sub("out")
	_, link := w.Link(w.d, "out/file", "")
	for what, err := range map[string]error{
		"Sub": sub, "Link": link, "Mkdir": w.Mkdir("out/x"), "Write": w.Write("out/x", nil), "Symlink": w.Symlink("y", "out/x"),
		"Folder": w.Folder("out/x", func(string) error { return nil }), "Remove": w.Remove("out/theirs"), "RemoveFolder": w.RemoveFolder("out", []string{"theirs"}),
	} {
		if err == nil {
			t.Errorf("%s goes out", what)
		}
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
}

func TestRecords(t *testing.T) {
	type record struct {
		Name string `json:"name"`
	}
	w := newWorld(t)
	const rel = Corner + "/record.json"
	var got record
	if err := w.ReadRecord(rel, 100, &got); !Gone(err) {
		t.Fatalf("got %v", err)
	}
	b, err := EncodeRecord(record{"x"}, 12)
	must(t, err)
	must(t, w.Write(rel, b))
	must(t, w.ReadRecord(rel, 12, &got))
	if got.Name != "x" {
		t.Errorf("got %+v", got)
	}
	if _, err := EncodeRecord(record{"x"}, 11); err == nil {
		t.Error("a record over its limit is written")
	}
	if err := w.ReadRecord(rel, 11, &got); err == nil || Gone(err) {
		t.Errorf("a record over its limit: %v", err)
	}
	must(t, w.Write(rel, []byte(`{"name":"x","nom":"y"}`)))
	if err := w.ReadRecord(rel, 100, &got); err == nil || !strings.Contains(err.Error(), w.Path(rel)) {
		t.Errorf("a field that is not known: %v", err)
	}
}

func TestStops(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want bool
	}{
		{t.Context(), &fs.PathError{Op: "write", Err: unix.ENOSPC}, true},
		{t.Context(), unix.EROFS, true},
		{t.Context(), unix.EACCES, false},
		{over, unix.EACCES, true},
	} {
		if got := Stops(c.ctx, c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
