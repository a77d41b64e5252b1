package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A world is an upstream registry, a store outside, and what is made of them.
type world struct {
	t   *testing.T
	reg *ocitest.Registry
	url string
	st  *store.Store
	cfg Config
}

func newWorld(t *testing.T, images ...string) *world {
	t.Helper()
	reg := ocitest.New()
	srv := httptest.NewServer(reg)
	t.Cleanup(srv.Close)
	return &world{t: t, reg: reg, url: srv.URL, st: openStore(t), cfg: Config{
		Name: "platform", Registry: srv.URL, Host: "registry.example", AllowHTTP: true, Images: images,
	}}
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func newClient(t *testing.T, fc fetch.Config, addresses ...string) *fetch.Client {
	t.Helper()
	for _, a := range addresses {
		host, err := fetch.Host(a)
		if err != nil {
			t.Fatal(err)
		}
		fc.Hosts = append(fc.Hosts, host)
	}
	fc.RetryWait = time.Millisecond
	c, err := fetch.New(fetch.NewPool(0, 0), fc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) source() *Source {
	w.t.Helper()
	var c *fetch.Client
	if w.cfg.Address() != "" {
		c = newClient(w.t, w.cfg.Fetch("oci/platform"), w.cfg.Address())
	}
	s, err := NewSource(w.cfg, "oci/platform", c, w.st, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// resolve resolves and fetches everything.
func (w *world) resolve(prev *artifact.Snapshot) (*artifact.Snapshot, []string) {
	w.t.Helper()
	s := w.source()
	snap, notes, err := s.Resolve(w.t.Context(), prev)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fetch(s, snap)
	return snap, notes
}

func (w *world) fetch(s *Source, snap *artifact.Snapshot) {
	w.t.Helper()
	if _, err := snap.Encode(); err != nil {
		w.t.Fatal(err)
	}
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			if err := s.Fetch(w.t.Context(), f); err != nil {
				w.t.Fatal(err)
			}
			if n, err := w.st.Size(f.Digest); err != nil || n != f.Size {
				w.t.Fatalf("%s: %d bytes in the store, %v; want %d", f.Path, n, err, f.Size)
			}
		}
	}
}

// lost resolves where something must be missing.
func (w *world) lost(prev *artifact.Snapshot) (*artifact.Snapshot, []artifact.Lost) {
	w.t.Helper()
	snap, _, err := w.source().Resolve(w.t.Context(), prev)
	part, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok {
		w.t.Fatalf("want an Incomplete, got %v", err)
	}
	return snap, part.Items
}

// wantCode checks the code of a refusal.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code {
		t.Errorf("got %v, want code %s", err, code)
	}
}

func (w *world) set(snap *artifact.Snapshot) *Set {
	w.t.Helper()
	set, err := ReadSet(snap, w.st)
	if err != nil {
		w.t.Fatal(err)
	}
	return set
}

// checkOrder holds that a registry would take the manifests in their order.
func checkOrder(t *testing.T, r *Repository, st *store.Store) {
	t.Helper()
	done := make(map[spec.Digest]bool)
	for _, m := range r.Manifests {
		raw, err := st.ReadAll(m.Blob, spec.MaxManifest)
		if err != nil {
			t.Fatal(err)
		}
		view, err := spec.ParseManifest(raw, m.MediaType)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range view.Manifests {
			if d.IsManifest() && !done[d.Digest] {
				t.Errorf("%s comes before its child %s", m.Digest, d.Digest)
			}
		}
		if view.Subject != nil && slices.ContainsFunc(r.Manifests, func(o Member) bool { return o.Digest == view.Subject.Digest }) && !done[view.Subject.Digest] {
			t.Errorf("%s comes before its subject %s", m.Digest, view.Subject.Digest)
		}
		done[m.Digest] = true
	}
}

// signed is an index of two platforms with an SBOM, a signature of the SBOM
// and a signature in cosign's manner: one of everything.
type signed struct {
	index, amd64, arm64, sbom, sbomSig, cosign *ocitest.Object
}

func (w *world) signed(repo, tag string, seed uint64) signed {
	shared := ocitest.Noise(3000, 7)
	s := signed{
		amd64: ocitest.ImageFor("linux/amd64", shared, ocitest.Noise(5000, seed)),
		arm64: ocitest.ImageFor("linux/arm64", shared, ocitest.Noise(4000, seed+1)),
	}
	s.index = ocitest.Index(s.amd64, s.arm64)
	s.sbom = ocitest.Artifact("application/spdx+json", s.index, []byte(fmt.Sprintf(`{"spdxVersion":"SPDX-2.3","seed":%d}`, seed)))
	s.sbomSig = ocitest.Artifact("application/vnd.example.signature", s.sbom, []byte("signed"))
	w.reg.Put(repo, tag, s.index)
	w.reg.Put(repo, "", s.sbom)
	w.reg.Put(repo, "", s.sbomSig)
	s.cosign = w.reg.Sign(repo, s.index)
	return s
}

// fallback lists a referrer under its subject's tag.
func (w *world) fallback(repo string, subject, referrer *ocitest.Object) {
	w.t.Helper()
	m, err := spec.ParseManifest(referrer.Raw, referrer.MediaType)
	if err != nil {
		w.t.Fatal(err)
	}
	d := referrer.Descriptor
	d.ArtifactType = m.Type()
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": spec.OCIIndex, "manifests": []spec.Descriptor{d}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.reg.AddManifest(repo, spec.ReferrersTag(subject.Digest), spec.OCIIndex, raw)
}

func digestsOf(ms []Member) []string {
	var list []string
	for _, m := range ms {
		list = append(list, string(m.Digest))
	}
	slices.Sort(list)
	return list
}

func contains(list []string, part string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, part) })
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// refuse answers 500 to what would be written below a path.
func refuse(part string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPut || !strings.Contains(q.URL.Path, part) {
			return false
		}
		http.Error(w, "no", http.StatusForbidden)
		return true
	}
}

// drop takes the first file of a kind out of a snapshot.
func drop(s *artifact.Snapshot, kind string) {
	a := &s.Artifacts[0]
	i := slices.IndexFunc(a.Files, func(f artifact.File) bool { return strings.Contains(f.Path, kind) })
	a.Files = slices.Delete(a.Files, i, i+1)
}
