package modelpack

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/repo"
	"github.com/darkmirror/darkmirror/oci/spec"
)

func TestModelPack(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true})
	files := small(1)
	r := w.revision("Team/Model.1", "a", "main feature/x", files)
	r.Licence = repo.Licence{ID: "apache-2.0"}
	before := w.stored()
	if text := w.publish(r); !strings.Contains(text, "3 images   /v2/models/") {
		t.Errorf("text: %q", text)
	}
	const at = "team/model.1"
	if d := cmp.Diff([]string{r.Commit, "feature-x", "main"}, w.tags(at)); d != "" {
		t.Error(d)
	}
	m := w.manifest(at, "main")
	if m.MediaType != spec.OCIManifest || m.ArtifactType != "application/vnd.cncf.model.manifest.v1+json" || m.Config.MediaType != "application/vnd.cncf.model.config.v1+json" {
		t.Errorf("%s, %s, %s", m.MediaType, m.ArtifactType, m.Config.MediaType)
	}
	if d := cmp.Diff(map[string]string{"org.opencontainers.image.title": "Team/Model.1", "org.opencontainers.image.revision": r.Commit}, m.Annotations); d != "" {
		t.Error(d)
	}
	const prefix = "application/vnd.cncf.model."
	types := map[string]string{
		"README.md": "doc", "LICENSE": "doc", "config.json": "weight.config", "modeling.py": "code", "__init__.py": "code",
		"model-00001-of-00002.safetensors": "weight", "model-00002-of-00002.safetensors": "weight",
		"sub folder/ünicode+x.txt": "weight.config", "sub folder/twin.json": "weight.config",
	}
	if len(m.Layers) != len(files) {
		t.Fatalf("%d layers for %d files", len(m.Layers), len(files))
	}
	var ids []spec.Digest
	for i, l := range m.Layers {
		f := r.Files[i]
		ids = append(ids, l.Digest)
		if l.Annotations["org.cncf.model.filepath"] != f.Path || l.Annotations["org.opencontainers.image.title"] != f.Path {
			t.Errorf("layer %d: %v, want %s", i, l.Annotations, f.Path)
		}
		if want := prefix + types[f.Path] + ".v1.raw"; l.MediaType != want {
			t.Errorf("%s: %s, want %s", f.Path, l.MediaType, want)
		}
		// What the hub names is what the registry names.
		if f.LFS != nil && string(l.Digest) != "sha256:"+f.ETag() {
			t.Errorf("%s: digest %s, the hub's is %s", f.Path, l.Digest, f.ETag())
		}
		if got := w.blob(at, l); string(got) != string(files[f.Path]) {
			t.Errorf("%s: other bytes", f.Path)
		}
		var meta map[string]any
		if err := json.Unmarshal([]byte(l.Annotations["org.cncf.model.file.metadata+json"]), &meta); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"name": filepath.Base(f.Path), "mode": 420.0, "uid": 0.0, "gid": 0.0, "size": float64(f.Size), "mtime": "1970-01-01T00:00:00Z", "typeflag": 0.0,
		}
		if d := cmp.Diff(want, meta); d != "" {
			t.Error(d)
		}
	}
	var c modelConfig
	w.decode(at, *m.Config, &c)
	want := modelConfig{
		Descriptor: modelDescriptor{Name: "Model.1", Revision: r.Commit, Licenses: []string{"apache-2.0"}},
		ModelFS:    modelFS{Type: "layers", DiffIDs: ids}, Config: modelTraits{Format: "safetensors"},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	// No second copy of anything: what is new are documents about the files.
	var grown int64
	for d, size := range w.stored() {
		if _, old := before[d]; !old {
			grown += size
		}
	}
	if grown == 0 || grown > 20_000 {
		t.Errorf("the store has %d bytes more", grown)
	}
}

// The same revision is the same bytes, whatever else there is.
func TestDeterministic(t *testing.T) {
	roots := make(map[string]bool)
	for _, refs := range []string{"main", "", "v1 v2"} {
		w := newWorld(t, Options{ModelPack: true, Modelcar: true})
		r := w.revision("team/model", "a", refs, small(1))
		w.publish(w.revision("team/aaa", "b", "main", small(9)), r)
		roots[artifact.Sum(w.get("team/model/manifests/"+r.Commit)).String()+artifact.Sum(w.get("team/model-modelcar/manifests/"+r.Commit)).String()] = true
	}
	if len(roots) != 1 {
		t.Errorf("%d different images of one revision", len(roots))
	}
}

func TestDataset(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	w.publish(w.revision("datasets/team/data", "a", "main", map[string][]byte{
		"README.md": []byte("# Card\n"), "data/train.parquet": noise(1000, 1), "info.json": []byte("{}"), "x.bin": noise(10, 2), "load.py": []byte("pass\n"),
	}))
	var got []string
	for _, l := range w.manifest("datasets/team/data", "main").Layers {
		got = append(got, l.Annotations[noteFilepath]+" "+strings.TrimSuffix(strings.TrimPrefix(l.MediaType, "application/vnd.cncf.model."), ".v1.raw"))
	}
	if d := cmp.Diff([]string{"README.md doc", "data/train.parquet dataset", "info.json dataset", "load.py code", "x.bin dataset"}, got); d != "" {
		t.Error(d)
	}
	if tags := w.tags("datasets/team/data-modelcar"); tags != nil {
		t.Errorf("a dataset has a modelcar: %v", tags)
	}
}

// A second run of the same changes nothing.
func TestPublishAgain(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	r := w.revision("team/model", "a", "main", small(1))
	first := w.publish(r)
	look := func() map[string]string {
		files := make(map[string]string)
		err := filepath.WalkDir(filepath.Dir(w.dir), func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				files[p] = info.ModTime().String()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	before := look()
	if again := w.publish(r); again != first {
		t.Errorf("%q, and then %q", first, again)
	}
	if d := cmp.Diff(before, look()); d != "" {
		t.Error(d)
	}
}

// A branch moves, a revision is kept by its commit alone, a repository goes.
func TestSecondSet(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	old := w.revision("team/model", "a", "main v1", small(1))
	w.publish(old, w.revision("team/gone", "c", "main", small(5)))
	if w.tags("team/gone") == nil || w.tags("team/gone-modelcar") == nil {
		t.Fatal("the first set is not there")
	}
	next := w.revision("team/model", "b", "main", small(3))
	old.Refs = nil
	w.publish(old, next)
	for _, suffix := range []string{"", "-modelcar"} {
		if tags := w.tags("team/gone" + suffix); tags != nil {
			t.Errorf("team/gone%s is still there: %v", suffix, tags)
		}
		if d := cmp.Diff([]string{old.Commit, next.Commit, "main"}, w.tags("team/model"+suffix)); d != "" {
			t.Error(d)
		}
		if got := w.manifest("team/model"+suffix, "main").Annotations[noteRevision]; got != next.Commit {
			t.Errorf("main of team/model%s is %s", suffix, got)
		}
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	list := w.lost(
		w.revision("Team/Model", "a", "main", small(1)),
		w.revision("team/model", "b", "main", small(3)),      // the same without capitals
		w.revision("team/x", "a", "main", small(1)),          // its modelcar ...
		w.revision("team/x-modelcar", "a", "main", small(1)), // ... would be this
		w.revision("team/a._b", "a", "main", small(1)),       // no name in a registry
		w.revision("team/good", "a", "main", small(1)),
		w.revision("team/branches", "a", "a/b v1+cu12 a-b", small(1)), // a/b and a-b: one tag, one commit
		w.revision("team/clash", "a", "a/b", small(1)),
		w.revision("team/clash", "b", "a-b main", small(3)), // one tag, two commits
	)
	forty := func(s string) string { return strings.Repeat(s, 40) }
	want := map[string]string{
		"Team/Model " + forty("a"): "Team/Model and team/model would both be team/model", "team/model " + forty("b"): "would both be team/model",
		"team/x " + forty("a"): "would both be team/x-modelcar", "team/x-modelcar " + forty("a"): "would both be team/x-modelcar",
		"team/a._b " + forty("a"): "no registry takes its name", "team/branches v1+cu12": "no tag can stand for it",
		"team/clash a/b": "would be the tag a-b too", "team/clash a-b": "would be the tag a-b too",
	}
	for key, err := range list {
		if text, ok := want[key]; !ok || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", key, err, text)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("taken: %v", want)
	}
	for at, tags := range map[string][]string{
		"team/model": nil, "team/x": nil, "team/x-modelcar": nil, "team/good": {forty("a"), "main"}, "team/branches": {"a-b", forty("a")},
		"team/clash": {forty("a"), forty("b"), "main"}, "team/good-modelcar": {forty("a"), "main"},
	} {
		if d := cmp.Diff(tags, w.tags(at)); d != "" {
			t.Errorf("%s: %s", at, d)
		}
	}
}

// A file that the store has lost takes its revision out, and no other.
func TestLostFile(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true})
	bad, good := w.revision("team/bad", "a", "main", small(1)), w.revision("team/good", "a", "main", small(3))
	w.publish(bad, good)
	f := weights(bad)
	if err := os.Remove(w.blobFile(f.Blob)); err != nil {
		t.Fatal(err)
	}
	list := w.lost(bad, good)
	if err := list["team/bad "+bad.Commit]; len(list) != 1 || err == nil || !strings.Contains(err.Error(), f.Path) {
		t.Errorf("lost: %v", list)
	}
	if w.tags("team/bad") != nil || w.tags("team/good") == nil {
		t.Error("the wrong one is there")
	}
}

// A revision that no manifest could hold.
func TestTooManyFiles(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true})
	one := w.revision("datasets/team/many", "a", "main", map[string][]byte{"x": []byte("x")})
	for range spec.MaxMembers {
		one.Files = append(one.Files, one.Files[0])
	}
	list := w.lost(one)
	if err := list["datasets/team/many "+one.Commit]; err == nil || !strings.Contains(err.Error(), "10001 files") {
		t.Errorf("lost: %v", list)
	}
}

func TestFormat(t *testing.T) {
	for want, files := range map[string]string{
		"safetensors": "a.safetensors b.Safetensors config.json", "gguf": "a.gguf", "pt": "pytorch_model.bin x.pth", "": "a.safetensors a.onnx",
	} {
		r := &models.Revision{}
		for f := range strings.FieldsSeq(files) {
			r.Files = append(r.Files, models.File{})
			r.Files[len(r.Files)-1].Path = f
		}
		if got := format(r); got != want {
			t.Errorf("%s: %q, want %q", files, got, want)
		}
	}
	if got := format(&models.Revision{Files: []models.File{{}}}); got != "" {
		t.Errorf("no weights: %q", got)
	}
}

func TestLicences(t *testing.T) {
	for want, l := range map[string]repo.Licence{
		"mit": {ID: "MIT"}, "LicenseRef-llama3.1": {ID: "llama3.1"}, "LicenseRef-our-own-one": {ID: "other", Name: "Our own/one"},
		"": {ID: "unknown"},
	} {
		if got := strings.Join(licences(l), " "); !strings.EqualFold(got, want) {
			t.Errorf("%+v: %q, want %q", l, got, want)
		}
	}
	for _, l := range []repo.Licence{{}, {ID: "other"}, {ID: strings.Repeat("x", 100)}} {
		if got := licences(l); got != nil {
			t.Errorf("%+v: %q", l, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true})
	for name, o := range map[string]Options{
		"another publisher": {Source: "oci/other", ModelPack: true},
		"nothing":           {Source: "oci/models"},
	} {
		if tg, err := New(o, w.tg.p, w.st, nil); err == nil || tg != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// An error that is no refusal ends the run.
func TestCancelled(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	r := w.revision("team/model", "a", "main", small(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.tg.Publish(ctx, set(r), 7, published); !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v", err)
	}
	if w.tags("team/model") != nil {
		t.Error("published all the same")
	}
}
