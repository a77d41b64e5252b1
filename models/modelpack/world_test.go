package modelpack

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/repo"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/registry"
	"github.com/darkmirror/darkmirror/oci/spec"
)

var published = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A world is a store, a target, and the embedded registry over both.
type world struct {
	t   *testing.T
	dir string // of the publisher
	st  *store.Store
	tg  *Target
	url string
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	return openWorld(t, t.TempDir(), o)
}

func openWorld(t *testing.T, dir string, o Options) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(dir, "published")}
	var err error
	if w.st, err = store.Open(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	p, err := oci.NewPublisher(oci.PublishConfig{Name: "models", Models: "llm"}, "oci/models", nil, w.st, w.dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Source = "oci/models"
	if w.tg, err = New(o, p, w.st, nil); err != nil {
		t.Fatal(err)
	}
	h, err := registry.New([]registry.Source{{Name: "models", Dir: w.dir}}, w.st, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	w.url = srv.URL + "/v2/models/"
	return w
}

// revision makes a revision whose files are in the store. commit is repeated
// to make 40 digits.
func (w *world) revision(name, commit, refs string, files map[string][]byte) models.Revision {
	w.t.Helper()
	r, err := hub.ParseRepo(name)
	if err != nil {
		w.t.Fatal(err)
	}
	rev := models.Revision{Repo: r, Commit: strings.Repeat(commit, 40), Refs: strings.Fields(refs), Profile: "all"}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		d, err := w.st.PutBytes(files[p])
		if err != nil {
			w.t.Fatal(err)
		}
		e := hub.Entry{Path: p, Size: int64(len(files[p])), OID: hub.SumBlob(files[p])}
		if repo.KindOf(p) == repo.Weight {
			e.LFS = &hub.LFS{SHA256: d, PointerSize: 130}
		}
		rev.Files = append(rev.Files, models.File{Entry: e, Blob: d})
	}
	return rev
}

func set(revs ...models.Revision) *models.Set { return &models.Set{Revisions: revs} }

func (w *world) publish(revs ...models.Revision) string {
	w.t.Helper()
	text, err := w.tg.Publish(w.t.Context(), set(revs...), 7, published)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// lost publishes a set of which something is refused, and says what.
func (w *world) lost(revs ...models.Revision) map[string]error {
	w.t.Helper()
	_, err := w.tg.Publish(w.t.Context(), set(revs...), 7, published)
	in, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok {
		w.t.Fatalf("want an Incomplete, got %v", err)
	}
	list := make(map[string]error)
	for _, l := range in.Items {
		list[l.Name+" "+l.Version] = l.Err
		if r, ok := errors.AsType[*artifact.Refusal](l.Err); !ok || r.Code == "" {
			w.t.Errorf("%s %s: no refusal: %v", l.Name, l.Version, l.Err)
		}
	}
	return list
}

// get asks the registry; a status that is not 200 gives nothing.
func (w *world) get(path string) []byte {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", spec.Accept)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil
	}
	return b
}

func (w *world) manifest(repository, ref string) *spec.Manifest {
	w.t.Helper()
	raw := w.get(repository + "/manifests/" + ref)
	if raw == nil {
		w.t.Fatalf("%s:%s is not there", repository, ref)
	}
	m, err := spec.ParseManifest(raw, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// blob reads a blob and checks its digest.
func (w *world) blob(repository string, d spec.Descriptor) []byte {
	w.t.Helper()
	b := w.get(repository + "/blobs/" + string(d.Digest))
	if got := spec.FromSHA256(artifact.Sum(b)); got != d.Digest || int64(len(b)) != d.Size {
		w.t.Fatalf("%s: blob %s of %d bytes: got %s, %d bytes", repository, d.Digest, d.Size, got, len(b))
	}
	return b
}

func (w *world) decode(repository string, d spec.Descriptor, v any) {
	w.t.Helper()
	dec := json.NewDecoder(bytes.NewReader(w.blob(repository, d)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		w.t.Fatal(err)
	}
}

// tags lists the tags of a repository; none where it is not there.
func (w *world) tags(repository string) []string {
	w.t.Helper()
	var list struct{ Tags []string }
	if b := w.get(repository + "/tags/list"); b != nil {
		if err := json.Unmarshal(b, &list); err != nil {
			w.t.Fatal(err)
		}
	}
	return list.Tags
}

// stored lists the blobs of the store with their sizes.
func (w *world) stored() map[artifact.Digest]int64 {
	all := make(map[artifact.Digest]int64)
	for d, size := range w.st.All {
		all[d] = size
	}
	return all
}

func (w *world) blobFile(d artifact.Digest) string {
	return filepath.Join(filepath.Dir(w.dir), "store", "blobs", "sha256", d.Hex()[:2], d.Hex())
}

// weights is the first large file of a revision.
func weights(r models.Revision) models.File {
	return r.Files[slices.IndexFunc(r.Files, func(f models.File) bool { return f.LFS != nil })]
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// small is a model of a few files, two of which are the same bytes and one is
// empty.
func small(seed byte) map[string][]byte {
	return map[string][]byte{
		"README.md": []byte("# Card\n"), "LICENSE": []byte("text"), "config.json": []byte(`{"model_type":"bert"}`), "modeling.py": []byte("pass\n"),
		"model-00001-of-00002.safetensors": noise(300_000, seed), "model-00002-of-00002.safetensors": noise(200_000, seed+1),
		"sub folder/ünicode+x.txt": []byte("z"), "sub folder/twin.json": []byte(`{"model_type":"bert"}`), "__init__.py": {},
	}
}
