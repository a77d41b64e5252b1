package layout

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// whole reads everything that an image needs, and checks digests and sizes.
func whole(t *testing.T, l *Layout, d spec.Descriptor) (n int) {
	t.Helper()
	b := open(t, l, d)
	m, err := spec.ParseManifest(b, d.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Manifests {
		n += whole(t, l, c)
	}
	for _, c := range m.Blobs() {
		open(t, l, c)
		n++
	}
	return n
}

func open(t *testing.T, l *Layout, d spec.Descriptor) []byte {
	t.Helper()
	r, size, err := l.Open(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if size != d.Size || int64(len(b)) != d.Size || d.Digest.Sum(b) != d.Digest {
		t.Errorf("%s: %d bytes, said to be %d, want %d", d.Digest, len(b), size, d.Size)
	}
	return b
}

func ociLayout(t *testing.T) (string, v1.ImageIndex) {
	t.Helper()
	idx, err := random.Index(2000, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := gcrlayout.Write(dir, idx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, gcrlayout.WithAnnotations(map[string]string{refName: "1.0"})); err != nil {
		t.Fatal(err)
	}
	if err := p.AppendIndex(idx, gcrlayout.WithAnnotations(map[string]string{refName: "1.1", containerdName: "registry.example/team/app:1.1"})); err != nil {
		t.Fatal(err)
	}
	return dir, idx
}

func TestOpenLayout(t *testing.T) {
	dir, _ := ociLayout(t)
	check := func(l *Layout, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		blobs := 0
		for _, r := range l.Refs() {
			names = append(names, r.Name)
			blobs += whole(t, l, r.Descriptor)
		}
		want := []string{"", "", "", "1.0", "registry.example/team/app:1.1"}
		if d := cmp.Diff(want, names); d != "" {
			t.Error(d)
		}
		if blobs != 3*3+3+3*3 {
			t.Errorf("%d blobs", blobs)
		}
		_, _, err = l.Open(spec.Digest("sha256:" + strings.Repeat("0", 64)))
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a blob that is not there: %v", err)
		}
	}
	check(OpenLayout(dir))
	// The same in a tar.
	file := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(file, pack(t, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	check(OpenArchive(file))
}

// pack makes a tar of a folder.
func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An index without a name, all of whose children have names, is a list.
func TestNestedIndex(t *testing.T) {
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := gcrlayout.Write(dir, emptyIndex(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, gcrlayout.WithAnnotations(map[string]string{refName: "inner"})); err != nil {
		t.Fatal(err)
	}
	inner, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := spec.Descriptor{MediaType: spec.OCIIndex, Digest: spec.FromSHA256(artifact.Sum(inner)), Size: int64(len(inner))}
	write(t, dir, "blobs/sha256/"+d.Digest.Hex(), inner)
	outer, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []spec.Descriptor{d}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "index.json", outer)
	l, err := OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Refs()) != 1 || l.Refs()[0].Name != "inner" {
		t.Errorf("refs: %+v", l.Refs())
	}
}

func emptyIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	idx, err := random.Index(1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return idx
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFolderFollowsNoLink(t *testing.T) {
	// Each moves what a name stood for and puts something else there.
	for name, c := range map[string]struct {
		moved func(blob string) string // blobs/sha256/HEX, or a part of it
		put   func(name, was string) error
		text  string
	}{
		"a link":           {func(b string) string { return b }, func(n, r string) error { return os.Symlink(r, n) }, "no regular file"},
		"a relative link":  {func(b string) string { return b }, func(n, r string) error { return os.Symlink(filepath.Base(r), n) }, "no regular file"},
		"a linked folder":  {filepath.Dir, func(n, r string) error { return os.Symlink(filepath.Base(r), n) }, "no folder"},
		"a linked parent":  {func(b string) string { return filepath.Dir(filepath.Dir(b)) }, func(n, r string) error { return os.Symlink(filepath.Base(r), n) }, "no folder"},
		"a parent outside": {func(b string) string { return filepath.Dir(filepath.Dir(b)) }, func(n, r string) error { return os.Symlink(r, n) }, "escapes"},
		"a pipe":           {func(b string) string { return b }, func(n, _ string) error { return syscall.Mkfifo(n, 0o600) }, "no regular file"},
		"a folder":         {func(b string) string { return b }, func(n, _ string) error { return os.Mkdir(n, 0o700) }, "no regular file"},
		"a file as folder": {filepath.Dir, func(n, _ string) error { return os.WriteFile(n, nil, 0o600) }, "no folder"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := ociLayout(t)
			l, err := OpenLayout(dir)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(l.Refs(), func(r Ref) bool { return r.Name == "1.0" })
			d := l.Refs()[i].Descriptor
			at := c.moved(filepath.Join(dir, "blobs", "sha256", d.Digest.Hex()))
			if err := os.Rename(at, at+".real"); err != nil {
				t.Fatal(err)
			}
			if err := c.put(at, at+".real"); err != nil {
				t.Fatal(err)
			}
			if r, _, err := l.Open(d.Digest); err == nil || r != nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestOpenLayoutRefuses(t *testing.T) {
	const version = `{"imageLayoutVersion":"1.0.0"}`
	nested := `{"schemaVersion":2,"manifests":[{"mediaType":"` + spec.OCIIndex + `","digest":"` + artifact.Sum([]byte("x")).String() + `","size":1}]}`
	for name, c := range map[string]struct {
		files map[string]string
		class error
		text  string
	}{
		"nothing":        {nil, artifact.ErrUnavailable, "oci-layout cannot be read"},
		"no index":       {map[string]string{"oci-layout": version}, artifact.ErrUnavailable, "index.json cannot be read"},
		"version twice":  {map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0","ImageLayoutVersion":"1.0.0"}`}, artifact.ErrUnavailable, "stands twice"},
		"other version":  {map[string]string{"oci-layout": `{"imageLayoutVersion":"1.1.0"}`}, artifact.ErrUnavailable, `version "1.1.0"`},
		"large index":    {map[string]string{"oci-layout": version, "index.json": strings.Repeat(" ", spec.MaxManifest+1)}, artifact.ErrUnavailable, "at most 4194304 are read"},
		"nested missing": {map[string]string{"oci-layout": version, "index.json": nested}, artifact.ErrUnavailable, "cannot be read"},
		"nested other": {
			map[string]string{"oci-layout": version, "index.json": nested, "blobs/sha256/" + artifact.Sum([]byte("x")).Hex(): "y"}, artifact.ErrIntegrity, "another digest than its name",
		},
		"nested broken": {
			map[string]string{"oci-layout": version, "index.json": nested, "blobs/sha256/" + artifact.Sum([]byte("x")).Hex(): "x"}, artifact.ErrUnavailable, "cannot be read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range c.files {
				write(t, dir, name, []byte(text))
			}
			l, err := OpenLayout(dir)
			if l != nil || !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
	if l, err := OpenLayout(filepath.Join(t.TempDir(), "none")); l != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
