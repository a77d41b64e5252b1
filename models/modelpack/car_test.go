package modelpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// unpack reads the layers of an image one over the other, as a runtime does.
func (w *world) unpack(repository string, m *spec.Manifest) map[string]string {
	w.t.Helper()
	tree := make(map[string]string)
	for _, l := range m.Layers {
		if l.MediaType != "application/vnd.oci.image.layer.v1.tar" {
			w.t.Errorf("a layer of type %s", l.MediaType)
		}
		tr := tar.NewReader(bytes.NewReader(w.blob(repository, l)))
		here := make(map[string]bool)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				w.t.Fatal(err)
			}
			b, err := io.ReadAll(tr)
			if err != nil {
				w.t.Fatal(err)
			}
			if here[h.Name] {
				w.t.Errorf("%s stands twice in a layer", h.Name)
			}
			here[h.Name] = true
			if i := strings.LastIndexByte(strings.TrimSuffix(h.Name, "/"), '/'); i > 0 && !here[h.Name[:i+1]] {
				w.t.Errorf("%s comes before its folder", h.Name)
			}
			if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 {
				w.t.Errorf("%s: %+v", h.Name, h)
			}
			tree[h.Name] = fmt.Sprintf("%c %o %s", h.Typeflag, h.Mode, b)
		}
	}
	return tree
}

func TestModelcar(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	files := small(1)
	files["large.safetensors"] = noise(ownLayer, 8)
	long := strings.Repeat("long name/", 15) + "f.json"
	files[long] = []byte("long")
	r := w.revision("team/Model", "a", "main", files)
	w.publish(r)
	const at = "team/model-modelcar"
	index := w.manifest(at, "main")
	if !index.IsIndex() || index.Annotations[noteRevision] != r.Commit {
		t.Fatalf("%+v", index)
	}
	want := map[string]string{"models/": "5 755 ", "models/sub folder/": "5 755 "}
	for n := range strings.Count(long, "/") {
		want["models/"+strings.Repeat("long name/", n+1)] = "5 755 "
	}
	for p, b := range files {
		want["models/"+p] = "0 644 " + string(b)
	}
	var layers []spec.Descriptor
	var platforms []string
	for _, child := range index.Manifests {
		platforms = append(platforms, child.Platform.String())
		m := w.manifest(at, string(child.Digest))
		if d := cmp.Diff(want, w.unpack(at, m)); d != "" {
			t.Error(d)
		}
		if layers != nil && !slices.EqualFunc(layers, m.Layers, func(a, b spec.Descriptor) bool { return a.Digest == b.Digest }) {
			t.Error("the platforms have different layers")
		}
		layers = m.Layers
		var c imageConfig
		w.decode(at, *m.Config, &c)
		var ids []spec.Digest
		for _, l := range m.Layers {
			ids = append(ids, l.Digest)
		}
		if d := cmp.Diff(imageConfig{Architecture: child.Platform.Architecture, OS: "linux", RootFS: rootFS{"layers", ids}}, c); d != "" {
			t.Error(d)
		}
	}
	if d := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); d != "" {
		t.Error(d)
	}
	if len(layers) != 2 {
		t.Errorf("%d layers, want one of the small files and one of the large", len(layers))
	}
	// The next revision has the layer of the weights that stay.
	files["config.json"] = []byte(`{"model_type":"roberta"}`)
	w.publish(w.revision("team/Model", "b", "main", files))
	next := w.manifest(at, string(w.manifest(at, "main").Manifests[0].Digest))
	if next.Layers[1].Digest != layers[1].Digest || next.Layers[0].Digest == layers[0].Digest {
		t.Errorf("layers of the next revision: %v, before: %v", next.Layers, layers)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct{ small, large, layers, most int }{
		{1, 0, 1, 1}, {0, 1, 1, 1}, {500, 0, 1, 500}, {3, 99, 100, 3}, {3, 100, 51, 3}, {0, 1000, 91, 11}, {7, 98, 99, 7},
	} {
		var files []models.File
		for i := range c.small + c.large {
			f := models.File{}
			f.Path, f.Size = fmt.Sprintf("%04d", i), ownLayer-1
			if i >= c.small {
				f.Size = ownLayer
			}
			files = append(files, f)
		}
		list := split(files)
		most := 0
		var all []models.File
		for _, l := range list {
			most = max(most, len(l))
			all = append(all, l...)
		}
		if len(list) != c.layers || most != c.most || len(list) > maxLayers {
			t.Errorf("%d small, %d large: %d layers of at most %d files, want %d, %d", c.small, c.large, len(list), most, c.layers, c.most)
		}
		if d := cmp.Diff(files, all); d != "" {
			t.Error(d)
		}
	}
}

// A name that takes other files away would do so when the image is unpacked.
func TestWhiteout(t *testing.T) {
	for _, p := range []string{".wh.config.json", "sub/.wh..wh..opq", ".wh.x/y"} {
		w := newWorld(t, Options{ModelPack: true, Modelcar: true})
		files := small(1)
		files[p] = []byte("x")
		r := w.revision("team/model", "a", "main", files)
		list := w.lost(r)
		if err := list["team/model "+r.Commit]; len(list) != 1 || err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: lost %v", p, list)
		}
		if w.tags("team/model-modelcar") != nil || w.tags("team/model") == nil {
			t.Errorf("%s: the modelcar is there, or the artifact is not", p)
		}
	}
}

// A file that is damaged on disk gets into no layer.
func TestDamagedFile(t *testing.T) {
	w := newWorld(t, Options{Modelcar: true})
	bad, good := w.revision("team/bad", "a", "main", small(1)), w.revision("team/good", "a", "main", small(3))
	f := weights(bad)
	if err := os.WriteFile(w.blobFile(f.Blob), noise(int(f.Size), 99), 0o600); err != nil {
		t.Fatal(err)
	}
	list := w.lost(bad, good)
	if err := list["team/bad "+bad.Commit]; len(list) != 1 || !errors.Is(err, artifact.ErrIntegrity) || !strings.Contains(err.Error(), f.Path) {
		t.Errorf("lost: %v", list)
	}
	if w.tags("team/bad-modelcar") != nil || w.tags("team/good-modelcar") == nil {
		t.Error("the wrong one is there")
	}
}

// A layer that the store remembers and has lost, or has cut short, is made
// again, the same.
func TestLayerMadeAgain(t *testing.T) {
	w := newWorld(t, Options{Modelcar: true})
	r := w.revision("team/model", "a", "main", small(1))
	w.publish(r)
	l := split(r.Files)[0]
	d, ok := w.st.Alias(l.alias())
	if !ok {
		t.Fatal("the layer is not remembered")
	}
	size, err := w.st.Size(d)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(string) error{
		"lost": os.Remove, "cut short": func(name string) error { return os.Truncate(name, size-1024) },
	} {
		if err := spoil(w.blobFile(d)); err != nil {
			t.Fatal(err)
		}
		w.publish(r)
		if n, err := w.st.Size(d); err != nil || n != size {
			t.Errorf("%s: the layer has %d bytes, %v, want %d", name, n, err, size)
		}
	}
	other := slices.Clone(l)
	other[0].Path += "x"
	if other.alias() == l.alias() {
		t.Error("two layers, one name")
	}
}
