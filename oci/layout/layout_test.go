package layout

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

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

// dockerArchive is an archive of docker save's old form.
func dockerArchive(t *testing.T) string {
	t.Helper()
	img, err := random.Image(3000, 3)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("registry.example/team/app:1.0")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "save.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOpenDockerArchive(t *testing.T) {
	file := dockerArchive(t)
	l, err := OpenArchive(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Refs()) != 1 || l.Refs()[0].Name != "registry.example/team/app:1.0" {
		t.Fatalf("refs: %+v", l.Refs())
	}
	if n := whole(t, l, l.Refs()[0].Descriptor); n != 4 {
		t.Errorf("%d blobs", n)
	}
	again, err := OpenArchive(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(l.Refs(), again.Refs()); d != "" {
		t.Errorf("made twice, the manifest differs: %s", d)
	}
}

// docker itself writes uncompressed layers, and links to those that an earlier
// image of the archive has.
func TestUncompressedAndLinkedLayers(t *testing.T) {
	layer := bytes.Repeat([]byte("layer "), 2000)
	config := fmt.Appendf(nil, `{"os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}`, artifact.Sum(layer))
	list := `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["one/layer.tar"]},{"Config":"c.json","RepoTags":["b:2"],"Layers":["two/layer.tar"]}]`
	file := archive(t, entry{"c.json", string(config), ""}, entry{"one/layer.tar", string(layer), ""}, entry{"two/layer.tar", "", "../one/layer.tar"}, entry{"manifest.json", list, ""})
	l, err := OpenArchive(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Refs()) != 2 || l.Refs()[0].Descriptor.Digest != l.Refs()[1].Descriptor.Digest {
		t.Fatalf("refs: %+v", l.Refs())
	}
	for _, r := range l.Refs() {
		whole(t, l, r.Descriptor)
	}
}

type entry struct{ name, content, link string }

func archive(t *testing.T, entries ...entry) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, archiveBytes(t, entries...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func archiveBytes(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.content)), Mode: 0o644, Typeflag: tar.TypeReg}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOpenArchiveRefuses(t *testing.T) {
	config := func(ids ...string) entry {
		b, err := json.Marshal(map[string]any{"rootfs": map[string]any{"diff_ids": ids}})
		if err != nil {
			t.Fatal(err)
		}
		return entry{"c.json", string(b), ""}
	}
	list := func(layers ...string) entry {
		b, err := json.Marshal([]dockerImage{{Config: "c.json", RepoTags: []string{"a:1"}, Layers: layers}})
		if err != nil {
			t.Fatal(err)
		}
		return entry{"manifest.json", string(b), ""}
	}
	good := artifact.Sum([]byte("x")).String()
	for name, c := range map[string]struct {
		file  string
		text  string
		class error
	}{
		"no archive":       {archive(t, entry{"readme", "x", ""}), "holds neither", artifact.ErrUnavailable},
		"twice":            {archive(t, entry{"a", "x", ""}, entry{"a", "y", ""}), `"a" stands twice`, artifact.ErrUnavailable},
		"escape":           {archive(t, entry{"../a", "x", ""}), "cannot be used", artifact.ErrUnavailable},
		"absolute":         {archive(t, entry{"/etc/passwd", "x", ""}), "cannot be used", artifact.ErrUnavailable},
		"no config":        {archive(t, list()), "c.json cannot be read", artifact.ErrUnavailable},
		"other layer":      {archive(t, config(good), list("l"), entry{"l", "y", ""}), "is not the one", artifact.ErrIntegrity},
		"layers missing":   {archive(t, config(good), list()), "names 1 layers, manifest.json 0", artifact.ErrUnavailable},
		"layer missing":    {archive(t, config(good), list("l")), "a layer cannot be read", artifact.ErrUnavailable},
		"link outside":     {archive(t, config(good), list("l"), entry{"l", "", "../../etc/passwd"}), "a layer cannot be read", artifact.ErrUnavailable},
		"link to a link":   {archive(t, config(good), list("l"), entry{"l", "", "m"}, entry{"m", "", "n"}, entry{"n", "x", ""}), "link to a link", artifact.ErrUnavailable},
		"broken gzip":      {archive(t, config(good), list("l"), entry{"l", "\x1f\x8bxxxx", ""}), "cannot be read", artifact.ErrUnavailable},
		"no images":        {archive(t, entry{"manifest.json", "[]", ""}), "lists no image", artifact.ErrUnavailable},
		"no JSON":          {archive(t, entry{"manifest.json", "{", ""}), "cannot be read", artifact.ErrUnavailable},
		"compressed":       {file(t, "\x1f\x8b\x08\x00rest"), "compressed with gzip", artifact.ErrUnavailable},
		"zstd":             {file(t, "\x28\xb5\x2f\xfdrest"), "compressed with zstd", artifact.ErrUnavailable},
		"text":             {file(t, strings.Repeat("text", 1000)), "is no tar", artifact.ErrUnavailable},
		"empty":            {file(t, ""), "is no archive", artifact.ErrUnavailable},
		"cut":              {file(t, string(archiveBytes(t, entry{"a", strings.Repeat("x", 5000), ""})[:3000])), "", artifact.ErrUnavailable},
		"version":          {archive(t, entry{"oci-layout", `{"imageLayoutVersion":"2.0.0"}`, ""}), `names version "2.0.0"`, artifact.ErrUnavailable},
		"no index":         {archive(t, entry{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, ""}), "index.json cannot be read", artifact.ErrUnavailable},
		"an image instead": {archive(t, entry{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, ""}, entry{"index.json", `{"schemaVersion":2,"config":{},"layers":[]}`, ""}), "index.json cannot be read", artifact.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := OpenArchive(c.file)
			if l != nil || !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func file(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFolderFollowsNoLink(t *testing.T) {
	dir, _ := ociLayout(t)
	l, err := OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(l.Refs(), func(r Ref) bool { return r.Name == "1.0" })
	d := l.Refs()[i].Descriptor
	blob := filepath.Join(dir, "blobs", "sha256", d.Digest.Hex())
	if err := os.Rename(blob, blob+".real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(blob+".real", blob); err != nil {
		t.Fatal(err)
	}
	if r, _, err := l.Open(d.Digest); err == nil || r != nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a link was followed: %v", err)
	}
}

// FuzzOpenArchive: never panics, and what is accepted can be opened.
func FuzzOpenArchive(f *testing.F) {
	f.Add(archiveBytes(f, entry{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, ""}, entry{"index.json", `{"schemaVersion":2,"manifests":[]}`, ""}))
	config := fmt.Sprintf(`{"rootfs":{"diff_ids":["%s"]}}`, artifact.Sum([]byte("x")))
	f.Add(archiveBytes(f, entry{"c.json", config, ""}, entry{"l", "x", ""}, entry{"manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l"]}]`, ""}))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(dir, "fuzz.tar")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenArchive(name)
		if err != nil {
			return
		}
		for d := range l.made {
			r, _, err := l.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
