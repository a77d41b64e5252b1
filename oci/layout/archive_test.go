package layout

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

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
		"no archive":      {archive(t, entry{"readme", "x", ""}), "holds neither", artifact.ErrUnavailable},
		"twice":           {archive(t, entry{"a", "x", ""}, entry{"a", "y", ""}), `"a" stands twice`, artifact.ErrUnavailable},
		"escape":          {archive(t, entry{"../a", "x", ""}), "cannot be used", artifact.ErrUnavailable},
		"absolute":        {archive(t, entry{"/etc/passwd", "x", ""}), "cannot be used", artifact.ErrUnavailable},
		"no config":       {archive(t, list()), "c.json cannot be read", artifact.ErrUnavailable},
		"other layer":     {archive(t, config(good), list("l"), entry{"l", "y", ""}), "is not the one", artifact.ErrIntegrity},
		"layers missing":  {archive(t, config(good), list()), "names 1 layers, manifest.json 0", artifact.ErrUnavailable},
		"layer missing":   {archive(t, config(good), list("l")), "a layer cannot be read", artifact.ErrUnavailable},
		"link outside":    {archive(t, config(good), list("l"), entry{"l", "", "../../etc/passwd"}), "a layer cannot be read", artifact.ErrUnavailable},
		"link to a link":  {archive(t, config(good), list("l"), entry{"l", "", "m"}, entry{"m", "", "n"}, entry{"n", "x", ""}), "link to a link", artifact.ErrUnavailable},
		"broken gzip":     {archive(t, config(good), list("l"), entry{"l", "\x1f\x8bxxxx", ""}), "cannot be read", artifact.ErrUnavailable},
		"no images":       {archive(t, entry{"manifest.json", "[]", ""}), "lists no image", artifact.ErrUnavailable},
		"no JSON":         {archive(t, entry{"manifest.json", "{", ""}), "cannot be read", artifact.ErrUnavailable},
		"compressed":      {file(t, "\x1f\x8b\x08\x00rest"), "compressed with gzip", artifact.ErrUnavailable},
		"zstd":            {file(t, "\x28\xb5\x2f\xfdrest"), "compressed with zstd", artifact.ErrUnavailable},
		"text":            {file(t, strings.Repeat("text", 1000)), "is no tar", artifact.ErrUnavailable},
		"empty":           {file(t, ""), "is no archive", artifact.ErrUnavailable},
		"cut":             {file(t, string(archiveBytes(t, entry{"a", strings.Repeat("x", 2900), ""})[:3000])), `ends within "a"`, artifact.ErrUnavailable},
		"images with two": {archive(t, config(), entry{"manifest.json", `[{"Config":"c.json","config":"c.json"}]`, ""}), `key "config" stands twice`, artifact.ErrUnavailable},
		"two root file systems": {
			archive(t, entry{"c.json", `{"rootfs":{"diff_ids":[]},"RootFS":{}}`, ""}, list()), `key "rootfs" stands twice`, artifact.ErrUnavailable,
		},
		"label twice":      {archive(t, entry{"c.json", `{"config":{"Labels":{"a":"1","a":"2"}}}`, ""}, list()), `key "a" stands twice`, artifact.ErrUnavailable},
		"deep config":      {archive(t, entry{"c.json", `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, ""}, list()), "nested deeper than 32", artifact.ErrUnavailable},
		"two values":       {archive(t, entry{"manifest.json", "[] []", ""}), "more than one JSON value", artifact.ErrUnavailable},
		"absolute link":    {archive(t, config(good), list("l"), entry{"l", "", "/etc/passwd"}, entry{"etc/passwd", "x", ""}), "a layer cannot be read", artifact.ErrUnavailable},
		"link to itself":   {archive(t, config(good), list("l"), entry{"l", "", "l"}), "link to a link", artifact.ErrUnavailable},
		"a folder":         {t.TempDir(), "is no archive", artifact.ErrUnavailable},
		"too many layers":  {archive(t, config(good), list(slices.Repeat([]string{"l"}, maxLayers+1)...)), "lists 1 images with 50001 layers", artifact.ErrUnavailable},
		"too many images":  {archive(t, entry{"manifest.json", "[" + strings.Repeat("{},", spec.MaxMembers) + "{}]", ""}), "lists 10001 images", artifact.ErrUnavailable},
		"layers of one":    {archive(t, config(slices.Repeat([]string{good}, spec.MaxMembers+1)...), list(slices.Repeat([]string{"l"}, spec.MaxMembers+1)...), entry{"l", "x", ""}), "cannot be an OCI image", artifact.ErrUnavailable},
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

// Tars that archive/tar does not write, or that it would read.
func TestOpenArchiveRefusesTars(t *testing.T) {
	header := func(h tar.Header) []byte {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	join := func(parts ...[]byte) []byte { return slices.Concat(append(parts, make([]byte, 1024))...) }
	good := archiveBytes(t, entry{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, ""}, entry{"index.json", `{"schemaVersion":2,"manifests":[]}`, ""})
	// The writer ignores keys of sparse files, so they are put in afterwards.
	sparse := header(tar.Header{Name: "index.json", Mode: 0o644, Size: 1024, Typeflag: tar.TypeReg, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"XNU.sparse.major": "1", "XNU.sparse.minor": "0", "XNU.sparse.name": "index.json", "XNU.sparse.realsize": "512",
	}})
	sparse = bytes.ReplaceAll(sparse, []byte("XNU."), []byte("GNU."))
	data := make([]byte, 1024)
	copy(data, "1\n0\n512\n")
	link := func(i int) []byte {
		return header(tar.Header{Name: fmt.Sprint("l", i), Linkname: strings.Repeat("x", 1_000_000), Typeflag: tar.TypeSymlink, Format: tar.FormatPAX})
	}
	links := [][]byte{}
	for i := range 17 {
		links = append(links, link(i))
	}
	for name, c := range map[string]struct {
		tar  []byte
		text string
	}{
		"no end":           {good[:len(good)-1024], "is cut"},
		"half an end":      {good[:len(good)-512], "is cut"},
		"header of none":   {join(good[:len(good)-1024], header(tar.Header{Name: "a", Format: tar.FormatPAX, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"VENDOR.x": "y"}})[:1024]), "is cut"},
		"no end, a folder": {header(tar.Header{Name: "d/", Typeflag: tar.TypeDir}), "is cut"},
		"hard link":        {join(header(tar.Header{Name: "a", Linkname: "oci-layout", Typeflag: tar.TypeLink}), good), `"a" is neither`},
		"device":           {join(header(tar.Header{Name: "a", Typeflag: tar.TypeChar}), good), `"a" is neither`},
		"sparse":           {join(sparse, data), `"index.json" is a sparse file`},
		"huge":             {join(header(tar.Header{Name: "a", Size: 1<<63 - 1, Typeflag: tar.TypeReg, Format: tar.FormatGNU})), `ends within "a"`},
		"entries":          {bytes.Repeat(header(tar.Header{Name: "d/", Typeflag: tar.TypeDir}), maxEntries+1), "has more than 100000 entries"},
		"names":            {join(links...), "bytes of names"},
		"same by a dot":    {archiveBytes(t, entry{"a", "x", ""}, entry{"./a", "y", ""}), `"a" stands twice`},
		"link and file":    {archiveBytes(t, entry{"a", "x", ""}, entry{"a", "", "b"}), `"a" stands twice`},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := OpenArchive(file(t, string(c.tar)))
			if l != nil || !errors.Is(err, artifact.ErrUnavailable) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %.300v, want %q", err, c.text)
			}
		})
	}
	// The same without a defect.
	l, err := OpenArchive(file(t, string(good)))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// An image without layers has an empty list of them: the specification wants
// one.
func TestNoLayers(t *testing.T) {
	l, err := OpenArchive(archive(t, entry{"c.json", `{"rootfs":{"type":"layers","diff_ids":null}}`, ""}, entry{"manifest.json", `[{"Config":"c.json","RepoTags":null,"Layers":null}]`, ""}))
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Refs()) != 1 || l.Refs()[0].Name != "" {
		t.Fatalf("refs: %+v", l.Refs())
	}
	if b := open(t, l, l.Refs()[0].Descriptor); !bytes.Contains(b, []byte(`"layers":[]`)) {
		t.Errorf("manifest: %s", b)
	}
}

// Labels that differ in letter case are two labels.
func TestLabelsOfTwoCases(t *testing.T) {
	l, err := OpenArchive(archive(t, entry{"c.json", `{"config":{"Labels":{"A":"1","a":"2"}},"rootfs":{"diff_ids":[]}}`, ""}, entry{"manifest.json", `[{"Config":"c.json"}]`, ""}))
	if err != nil {
		t.Fatal(err)
	}
	if n := whole(t, l, l.Refs()[0].Descriptor); n != 1 {
		t.Errorf("%d blobs", n)
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

// A pipe must not make the program wait for a writer.
func TestOpenArchiveOfAPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := OpenArchive(name); l != nil || err == nil || !strings.Contains(err.Error(), "is no archive but p") {
		t.Errorf("got %v", err)
	}
}

// FuzzOpenArchive: never panics, and an old archive that is accepted has
// everything that the manifests made of it name.
func FuzzOpenArchive(f *testing.F) {
	layer := entry{"l", "x", ""}
	config := entry{"c.json", fmt.Sprintf(`{"rootfs":{"diff_ids":["%s"]}}`, artifact.Sum([]byte("x"))), ""}
	list := entry{"manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l"]}]`, ""}
	seeds := [][]byte{
		archiveBytes(f, entry{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, ""}, entry{"index.json", `{"schemaVersion":2,"manifests":[]}`, ""}),
		archiveBytes(f, config, layer, list),
		archiveBytes(f, config, entry{"l", "", "m"}, entry{"m", "x", ""}, list),
		archiveBytes(f, entry{"c.json", `{"rootfs":{}}`, ""}, entry{"manifest.json", `[{"Config":"c.json"}]`, ""}),
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(dir, "fuzz.tar")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenArchive(name)
		if err != nil {
			if l != nil {
				t.Error("a layout beside the error")
			}
			return
		}
		if l.made != nil {
			for _, r := range l.Refs() {
				whole(t, l, r.Descriptor)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzUnmarshal: never panics, and what is accepted has the same meaning when
// it is written and read again.
func FuzzUnmarshal(f *testing.F) {
	seeds := []string{`[{"Config":"c","Layers":["a","b"]}]`, `{"rootfs":{"diff_ids":["x"]},"config":{"Labels":{"A":"1","a":"2"}}}`, `{"a":1,"A":2}`, `[[[1e400]]]`, `"\ud800"`, ``}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second any
		if unmarshal(b, &first) != nil {
			return
		}
		text, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := unmarshal(text, &second); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if d := cmp.Diff(first, second); d != "" {
			t.Error(d)
		}
	})
}
