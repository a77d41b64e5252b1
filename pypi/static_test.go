package pypi

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// treeOf lists what clients can reach below dir, with its bytes.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, top := range []string{"simple", "packages", "files"} {
		root, err := filepath.EvalSymlinks(filepath.Join(dir, top))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(name)
			out[top+strings.TrimPrefix(name, root)] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// wantTree is the tree that h should be, made from h's own answers.
func wantTree(t *testing.T, h *Handler, files []pypitest.File, projects ...string) map[string]string {
	t.Helper()
	want := make(map[string]string)
	for _, p := range append(projects, "") {
		dir := "simple/" + p
		if p != "" {
			dir += "/"
		}
		want[dir+"index.html"] = do(t, h, "/"+dir).Body.String()
		want[dir+"index.json"] = do(t, h, "/"+dir, "Accept", typeJSON).Body.String()
	}
	for _, f := range files {
		want[packagesPath(f)] = string(f.Body)
		if f.Metadata != nil {
			want[packagesPath(f)+".metadata"] = string(f.Metadata)
		}
	}
	return want
}

func writeTree(t *testing.T, dir string, h *Handler) {
	t.Helper()
	if err := WriteTree(t.Context(), dir, "pypi/main", h); err != nil {
		t.Fatal(err)
	}
}

func TestWriteTree(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.pub.hide = true
	in.publish(t, 1)
	h := NewHandler(in.dir, in.store, nil)
	dir := filepath.Join(t.TempDir(), "tree")
	for range 2 {
		writeTree(t, dir, h)
		if d := cmp.Diff(wantTree(t, h, sample(), "baz", "foo-bar"), treeOf(t, dir)); d != "" {
			t.Fatal(d)
		}
	}
	link, err := os.Readlink(filepath.Join(dir, "simple"))
	if err != nil || !strings.HasPrefix(link, treeCorner+"/"+pagesPrefix) {
		t.Errorf("simple leads to %q, %v", link, err)
	}
	info, err := os.Lstat(filepath.Join(dir, packagesPath(sample()[0])))
	if err != nil || !in.store.Is(artifact.Sum(sample()[0].Body), info) {
		t.Errorf("not a hard link of the store: %v", err)
	}
	// A new publication: the pages change, what nobody lists goes.
	in.load(t, sample()[:2], nil)
	in.publish(t, 2)
	writeTree(t, dir, h)
	if d := cmp.Diff(wantTree(t, h, sample()[:2], "foo-bar"), treeOf(t, dir)); d != "" {
		t.Error(d)
	}
	if now, err := os.Readlink(filepath.Join(dir, "simple")); err != nil || now == link {
		t.Errorf("simple still leads to %q, %v", now, err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, treeCorner))
	if err != nil || len(entries) != 3 { // the lock, the owner and the pages
		t.Errorf("left: %v, %v", entries, err)
	}
	// And nothing at all.
	in.load(t, nil, nil)
	in.publish(t, 3)
	writeTree(t, dir, h)
	if d := cmp.Diff(wantTree(t, h, nil), treeOf(t, dir)); d != "" {
		t.Error(d)
	}
}

// What somebody put in the place of a file, and what a blob was before it was
// healed, is replaced.
func TestWriteTreeHeals(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	h := NewHandler(in.dir, in.store, nil)
	dir := t.TempDir()
	writeTree(t, dir, h)
	name := filepath.Join(dir, filepath.FromSlash(packagesPath(sample()[0])))
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("spoilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	same := filepath.Join(dir, filepath.FromSlash(packagesPath(sample()[1]))) // a right copy stays
	if err := os.Remove(same); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(same, sample()[1].Body, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, stray := range []string{filepath.Join(dir, "packages", "stray"), filepath.Join(filepath.Dir(name), ".tmp-stray")} {
		if err := os.WriteFile(stray, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, treeCorner, ".tmp-old", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeTree(t, dir, h)
	if d := cmp.Diff(wantTree(t, h, sample(), "baz", "foo-bar"), treeOf(t, dir)); d != "" {
		t.Error(d)
	}
	if _, err := os.Lstat(filepath.Join(dir, treeCorner, ".tmp-old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	damage(t, in.store, artifact.Sum(sample()[0].Body))
	if _, err := in.store.File(artifact.Sum(sample()[0].Body)); err == nil {
		t.Fatal("the damage was not found")
	}
	if err := WriteTree(t.Context(), dir, "pypi/main", h); err == nil {
		t.Error("a tree without a blob was written")
	}
	in.load(t, sample(), nil) // brings the blob again
	writeTree(t, dir, h)
	if d := cmp.Diff(wantTree(t, h, sample(), "baz", "foo-bar"), treeOf(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestWriteTreeLocked(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	h := NewHandler(in.dir, in.store, nil)
	dir := t.TempDir()
	writeTree(t, dir, h)
	lock, err := lockTree(filepath.Join(dir, treeCorner))
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, WriteTree(t.Context(), dir, "pypi/main", h), artifact.ErrUnavailable, "PYPI-TREE-LOCKED", "")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	writeTree(t, dir, h)
}

// The tree of a merged index holds no file that the index hides.
func TestWriteTreeMerged(t *testing.T) {
	outside := newInside(t, sample(), nil)
	outside.publish(t, 1)
	own := pypitest.Wheel("baz-0.1-py3-none-any.whl", "")
	local := newSite(t, own)
	h := newMerged(t, []*inside{local.inside}, []*inside{outside}, "foo-bar")
	dir := t.TempDir()
	writeTree(t, dir, h)
	if d := cmp.Diff(wantTree(t, h, []pypitest.File{own}, "baz"), treeOf(t, dir)); d != "" {
		t.Error(d)
	}
}

// A plain file server over the tree is an index that this package reads.
func TestWriteTreeServed(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	dir := t.TempDir()
	writeTree(t, dir, NewHandler(in.dir, in.store, nil))
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	base, err := url.Parse(srv.URL + "/simple/foo-bar/")
	if err != nil {
		t.Fatal(err)
	}
	r := get(t, base.String())
	pg, err := parsePage(r.header.Get("Content-Type"), []byte(r.body), base, func(string) bool { return true })
	if err != nil || len(pg.Files) != 2 {
		t.Fatalf("%v, %s", err, r.body)
	}
	for i, want := range []pypitest.File{sample()[1], sample()[0]} {
		if r := get(t, pg.Files[i].URL); r.body != string(want.Body) {
			t.Errorf("%s: %d", pg.Files[i].URL, r.status)
		}
		if r := get(t, pg.Files[i].URL+".metadata"); r.body != string(want.Metadata) {
			t.Errorf("%s: metadata: %d", pg.Files[i].URL, r.status)
		}
	}
}

// TestWriteTreeForeign: what a tree would remove or replace must be its own.
func TestWriteTreeForeign(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	h := NewHandler(in.dir, in.store, nil)
	for _, name := range []string{"packages/of/another.deb", "files/report.txt", "simple/index.html"} {
		dir := t.TempDir()
		at := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, WriteTree(t.Context(), dir, "pypi/main", h), artifact.ErrUnavailable, "PYPI-TREE-FOREIGN", "")
		if b, err := os.ReadFile(at); err != nil || string(b) != "theirs" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	dir := t.TempDir()
	writeTree(t, dir, h)
	wantRefusal(t, WriteTree(t.Context(), dir, "pypi/other", h), artifact.ErrUnavailable, "PYPI-TREE-FOREIGN", "")
	writeTree(t, dir, h)
}
