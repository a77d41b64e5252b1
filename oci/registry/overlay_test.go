package registry

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/spec"
)

const nginx = "/v2/platform/registry.example/library/nginx"

// tags lists a repository.
func (w *world) tags(path string) []string {
	w.t.Helper()
	var list struct {
		Name string
		Tags []string
	}
	r := w.want(w.do(http.MethodGet, path+"/tags/list", nil), http.StatusOK, "")
	if err := json.Unmarshal(r.body, &list); err != nil {
		w.t.Fatal(err)
	}
	return list.Tags
}

// index reads a list of referrers.
func (w *world) referrers(path string, d spec.Digest, query string) []spec.Digest {
	w.t.Helper()
	r := w.want(w.do(http.MethodGet, path+"/referrers/"+string(d)+query, nil), http.StatusOK, "")
	var index spec.Manifest
	if err := json.Unmarshal(r.body, &index); err != nil || index.MediaType != spec.OCIIndex || index.SchemaVersion != 2 {
		w.t.Fatalf("%s: %v", r.body, err)
	}
	var out []spec.Digest
	for _, m := range index.Manifests {
		out = append(out, m.Digest)
	}
	return out
}

// What an import publishes is served as it came, and follows the pointer.
func TestPublished(t *testing.T) {
	w := newWorld(t, Options{})
	w.want(w.do(http.MethodGet, nginx+"/manifests/1.0", nil), http.StatusNotFound, codeNameUnknown)
	old := upstream(t, "registry.example/library/nginx", "1.0", 1, nil)
	desc := old.descriptor()
	sig := upstream(t, "registry.example/library/nginx", "", 2, &desc)
	w.publish("platform", 1, old, sig)
	for _, ref := range []string{"1.0", string(desc.Digest)} {
		r := w.want(w.do(http.MethodGet, nginx+"/manifests/"+ref, nil, "Accept", "application/json"), http.StatusOK, "")
		if !bytes.Equal(r.body, old.manifest) || r.header.Get("Content-Type") != spec.OCIManifest || r.header.Get("Docker-Content-Digest") != string(desc.Digest) {
			t.Errorf("%s: %v %s", ref, r.header, r.body)
		}
	}
	for _, b := range old.blobs {
		r := w.want(w.do(http.MethodGet, nginx+"/blobs/"+string(digestOf(b)), nil), http.StatusOK, "")
		if !bytes.Equal(r.body, b) {
			t.Errorf("blob of %d bytes", len(r.body))
		}
	}
	// Other bytes of the store are not in this repository.
	rec, err := w.store.PutBytes([]byte("of another ecosystem"))
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.do(http.MethodGet, nginx+"/blobs/"+rec.String(), nil), http.StatusNotFound, codeBlobUnknown)
	if diff := cmp.Diff([]spec.Digest{sig.descriptor().Digest}, w.referrers(nginx, desc.Digest, "")); diff != "" {
		t.Error(diff)
	}

	fresh := upstream(t, "registry.example/library/nginx", "2.0", 3, nil)
	w.publish("platform", 2, fresh)
	if diff := cmp.Diff([]string{"2.0"}, w.tags(nginx)); diff != "" {
		t.Error(diff)
	}
	w.want(w.do(http.MethodGet, nginx+"/manifests/1.0", nil), http.StatusNotFound, codeManifestUnknown)
	w.want(w.do(http.MethodGet, nginx+"/manifests/"+string(desc.Digest), nil), http.StatusNotFound, codeManifestUnknown)

	// A publication that cannot be read leaves the one before.
	w.want(w.do(http.MethodGet, nginx+"/manifests/2.0", nil), http.StatusOK, "")
	if err := os.WriteFile(filepath.Join(w.dir, "platform", "current.json"), []byte(`{"schema":"other"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.want(w.do(http.MethodGet, nginx+"/manifests/2.0", nil), http.StatusOK, "")
	}
	w.publish("platform", 3, old)
	w.want(w.do(http.MethodGet, nginx+"/manifests/1.0", nil), http.StatusOK, "")
	// One that never could be read is an error, and no empty registry.
	broken := openWorld(t, t.TempDir(), Options{})
	if err := os.MkdirAll(filepath.Join(broken.dir, "platform"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken.dir, "platform", "current.json"), []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := broken.h.source("platform").current(t.Context()); err == nil {
			t.Error("a broken publication is no error")
		}
	}
}

// Pushed content stands beside what is published, and cannot change it.
func TestOverlay(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	const repo = "platform/registry.example/library/nginx"
	up := upstream(t, "registry.example/library/nginx", "1.0", 1, nil)
	desc := up.descriptor()
	sig := upstream(t, "registry.example/library/nginx", "", 2, &desc)
	w.publish("platform", 1, up, sig)

	ours := w.pushImage(repo, "ours", 50)
	if diff := cmp.Diff([]string{"1.0", "ours"}, w.tags(nginx)); diff != "" {
		t.Error(diff)
	}
	// The tag may be pushed again as it is, and not moved.
	w.want(w.do(http.MethodPut, nginx+"/manifests/1.0", bytes.NewReader(up.manifest), "Content-Type", spec.OCIManifest), http.StatusCreated, "")
	other := imageOf(w.pushBlob(repo, noise(10, 60)))
	w.want(w.put(repo, "1.0", other), http.StatusForbidden, codeDenied)
	w.want(w.do(http.MethodPut, nginx+"/manifests/"+string(digestOf(encode(t, other)))+"?tag=new&tag=1.0", bytes.NewReader(encode(t, other)), "Content-Type", spec.OCIManifest), http.StatusForbidden, codeDenied)
	w.want(w.do(http.MethodGet, nginx+"/manifests/new", nil), http.StatusNotFound, codeManifestUnknown)
	w.want(w.do(http.MethodGet, nginx+"/manifests/"+string(digestOf(encode(t, other))), nil), http.StatusNotFound, codeManifestUnknown)
	// Nor deleted.
	for _, path := range []string{"/manifests/1.0", "/manifests/" + string(desc.Digest), "/blobs/" + string(digestOf(up.blobs[1]))} {
		w.want(w.do(http.MethodDelete, nginx+path, nil), http.StatusMethodNotAllowed, codeUnsupported)
		w.want(w.do(http.MethodHead, nginx+path, nil), http.StatusOK, "")
	}
	// A signature that is pushed here refers to what is published.
	m := imageOf(w.pushBlob(repo, noise(10, 61)))
	m.Subject = &desc
	r := w.want(w.put(repo, string(digestOf(encode(t, m))), m), http.StatusCreated, "")
	if got := r.header.Get("OCI-Subject"); got != string(desc.Digest) {
		t.Errorf("OCI-Subject %q", got)
	}
	if got := w.referrers(nginx, desc.Digest, ""); len(got) != 2 {
		t.Errorf("referrers: %v", got)
	}
	// An index over a published and a pushed image, and an image with a
	// published layer, stay whole when the import withdraws its own.
	both := indexOf(desc, ours)
	w.want(w.put(repo, "both", both), http.StatusCreated, "")
	mixed := imageOf(w.pushBlob(repo, noise(10, 62)), describe(up.blobs[1]))
	w.want(w.put(repo, "mixed", mixed), http.StatusCreated, "")
	w.publish("platform", 2, upstream(t, "registry.example/other", "1", 9, nil))
	if diff := cmp.Diff([]string{"both", "mixed", "ours"}, w.tags(nginx)); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{"/manifests/both", "/manifests/mixed", "/manifests/" + string(desc.Digest), "/blobs/" + string(digestOf(up.blobs[0])), "/blobs/" + string(digestOf(up.blobs[1]))} {
		w.want(w.do(http.MethodGet, nginx+path, nil), http.StatusOK, "")
	}
	if got := w.referrers(nginx, desc.Digest, ""); len(got) != 1 {
		t.Errorf("referrers: %v", got)
	}
	// Repositories of both kinds are in the catalogue.
	var list struct{ Repositories []string }
	r = w.want(w.do(http.MethodGet, "/v2/_catalog", nil), http.StatusOK, "")
	if err := json.Unmarshal(r.body, &list); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{repo, "platform/registry.example/other"}, list.Repositories); diff != "" {
		t.Error(diff)
	}
	// What was pushed outlives the server.
	again := openWorld(t, w.dir, Options{})
	v, err := again.h.source("platform").view(t.Context(), "registry.example/library/nginx")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := v.resolve("both"); err != nil || e.digest != digestOf(encode(t, both)) {
		t.Errorf("after a restart: %v, %v", e, err)
	}
}

// A nested published index that is pushed by digest is taken over whole.
func TestOverlayAdoptsNested(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	child := upstream(t, "app", "", 1, nil)
	inner := upstreamImage{manifest: encode(t, indexOf(child.descriptor())), mediaType: spec.OCIIndex, children: []upstreamImage{child}}
	outer := upstreamImage{repo: "app", tag: "1", manifest: encode(t, indexOf(inner.descriptor())), mediaType: spec.OCIIndex, children: []upstreamImage{inner}}
	w.publish("platform", 1, outer)
	w.want(w.do(http.MethodPut, "/v2/platform/app/manifests/mine", bytes.NewReader(outer.manifest), "Content-Type", spec.OCIIndex), http.StatusCreated, "")
	w.publish("platform", 2)
	for _, path := range []string{"manifests/mine", "manifests/" + string(inner.descriptor().Digest), "manifests/" + string(child.descriptor().Digest), "blobs/" + string(digestOf(child.blobs[0])), "blobs/" + string(digestOf(child.blobs[1]))} {
		w.want(w.do(http.MethodGet, "/v2/platform/app/"+path, nil), http.StatusOK, "")
	}
	w.want(w.do(http.MethodGet, "/v2/platform/app/manifests/1", nil), http.StatusNotFound, codeManifestUnknown)
}

func TestNew(t *testing.T) {
	w := openWorld(t, t.TempDir(), Options{})
	if _, err := os.Stat(filepath.Join(w.dir, "platform")); !os.IsNotExist(err) {
		t.Errorf("a read-only registry made a folder: %v", err)
	}
	for name, sources := range map[string][]Source{
		"slash":     {{"a/b", t.TempDir()}},
		"empty":     {{"", t.TempDir()}},
		"upper":     {{"A", t.TempDir()}},
		"traversal": {{"..", t.TempDir()}},
		"twice":     {{"a", t.TempDir()}, {"a", t.TempDir()}},
	} {
		if h, err := New(sources, w.store, Options{}); err == nil {
			t.Errorf("%s: no error, %v", name, h.Close())
		}
	}
}
