package registry

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

func digestArtifact(t *testing.T, text string) artifact.Digest {
	t.Helper()
	return artifact.Sum([]byte(text))
}

// HEAD is GET without a body, in every header, whatever is asked.
func TestHeadIsGet(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	const repo = "platform/app"
	subject := w.pushImage(repo, "v1", 1)
	m := imageOf(w.pushBlob(repo, noise(10, 3)))
	m.Subject = &subject
	w.want(w.put(repo, "sig", m), http.StatusCreated, "")
	w.publish("platform", 1, upstream(t, "app", "up", 9, nil))
	layer := string(digestOf(noise(5000, 101)))
	etag := `"` + layer + `"`
	for _, c := range []struct {
		path    string
		status  int
		headers []string
	}{
		{"/v2/", 200, nil},
		{"/v2/_catalog", 200, nil},
		{app + "/tags/list", 200, nil},
		{app + "/tags/list?n=1", 200, nil},
		{app + "/referrers/" + string(subject.Digest), 200, nil},
		{app + "/manifests/v1", 200, nil},
		{app + "/manifests/up", 200, nil},
		{app + "/manifests/" + string(subject.Digest), 200, nil},
		{app + "/manifests/" + string(subject.Digest), 200, []string{"Accept", "text/html"}},
		{app + "/manifests/v1", 304, []string{"If-None-Match", `"` + string(subject.Digest) + `"`}},
		{app + "/blobs/" + layer, 200, nil},
		{app + "/blobs/" + layer, 206, []string{"Range", "bytes=100-199"}},
		{app + "/blobs/" + layer, 206, []string{"Range", "bytes=-1"}},
		{app + "/blobs/" + layer, 206, []string{"Range", "bytes=4999-"}},
		{app + "/blobs/" + layer, 416, []string{"Range", "bytes=5000-"}},
		{app + "/blobs/" + layer, 416, []string{"Range", "bytes=9-3"}},
		{app + "/blobs/" + layer, 206, []string{"Range", "bytes=10-19", "If-Range", etag}},
		{app + "/blobs/" + layer, 200, []string{"Range", "bytes=10-19", "If-Range", `"other"`}},
		{app + "/blobs/" + layer, 304, []string{"If-None-Match", etag}},
		{app + "/blobs/" + string(digestOf(nil)), 404, nil},
		{app + "/manifests/none", 404, nil},
		{app + "/manifests/sha256:abc", 400, nil},
		{"/v2/nobody/x/tags/list", 404, nil},
	} {
		get, head := w.do(http.MethodGet, c.path, nil, c.headers...), w.do(http.MethodHead, c.path, nil, c.headers...)
		if get.status != c.status || head.status != c.status {
			t.Errorf("%s %v: GET %d, HEAD %d, want %d", c.path, c.headers, get.status, head.status, c.status)
		}
		for _, h := range []http.Header{get.header, head.header} {
			h.Del("Date")
		}
		if diff := cmp.Diff(get.header, head.header); diff != "" || len(head.body) != 0 {
			t.Errorf("%s %v: %d bytes for HEAD, headers -GET +HEAD:\n%s", c.path, c.headers, len(head.body), diff)
		}
	}
	r := w.do(http.MethodGet, app+"/blobs/"+layer, nil, "Range", "bytes=100-199")
	if !bytes.Equal(r.body, noise(5000, 101)[100:200]) || r.header.Get("Content-Range") != "bytes 100-199/5000" {
		t.Errorf("range: %v", r.header)
	}
	r = w.do(http.MethodGet, app+"/blobs/"+layer, nil)
	want := map[string]string{
		"Content-Length": "5000", "Content-Type": "application/octet-stream", "Docker-Content-Digest": layer, "Etag": etag, "Accept-Ranges": "bytes",
		"Cache-Control": forEver, "X-Content-Type-Options": "nosniff", "Docker-Distribution-Api-Version": "registry/2.0",
	}
	for k, v := range want {
		if got := r.header.Get(k); got != v {
			t.Errorf("%s: got %q, want %q", k, got, v)
		}
	}
}

// Bytes that changed on the disk are never sent; the same push brings them
// back.
func TestDamaged(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"a byte":  func(b []byte) []byte { b[10] ^= 1; return b },
		"shorter": func(b []byte) []byte { return b[:len(b)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{PushToken: secret})
			desc := w.pushImage("platform/app", "v1", 1)
			layer := noise(5000, 101)
			manifest := w.want(w.do(http.MethodGet, app+"/manifests/v1", nil), http.StatusOK, "").body
			for path, b := range map[string][]byte{app + "/blobs/" + string(digestOf(layer)): layer, app + "/manifests/" + string(desc.Digest): manifest} {
				hex := digestOf(b).Hex()
				file := filepath.Join(w.dir, "store", "blobs", "sha256", hex[:2], hex)
				if err := os.WriteFile(file, spoil(bytes.Clone(b)), 0o600); err != nil {
					t.Fatal(err)
				}
				r := w.want(w.do(http.MethodGet, path, nil), http.StatusInternalServerError, codeUnknown)
				if r.header.Get("Docker-Content-Digest") != "" || r.header.Get("Etag") != "" || r.header.Get("Cache-Control") != "" {
					t.Errorf("%s: headers of a success: %v", path, r.header)
				}
				w.want(w.do(http.MethodGet, path, nil), http.StatusNotFound, "")
				w.want(w.do(http.MethodHead, path, nil), http.StatusNotFound, "")
			}
			// While the layer is gone, its image cannot be pushed.
			w.want(w.do(http.MethodPut, app+"/manifests/v2", bytes.NewReader(manifest), "Content-Type", spec.OCIManifest), http.StatusBadRequest, codeManifestBlobUnknown)
			w.pushImage("platform/app", "v1", 1)
			w.want(w.do(http.MethodGet, app+"/manifests/v1", nil), http.StatusOK, "")
			w.want(w.do(http.MethodGet, app+"/blobs/"+string(digestOf(layer)), nil), http.StatusOK, "")
		})
	}
}

// Names that somebody changed on the disk are an error, and lead nowhere.
func TestDamagedNames(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	desc := w.pushImage("platform/app", "v1", 1)
	w.pushImage("platform/app", "v2", 2)
	layer, other := digestOf(noise(5000, 101)), digestOf(noise(5000, 102))
	dir := filepath.Join(w.dir, "platform", "pushed", "app")
	outside := filepath.Join(w.dir, "outside")
	if err := os.WriteFile(outside, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, path string
		content    string
	}{
		"another blob":       {filepath.Join(dir, "_blobs", "sha256", layer.Hex()), app + "/blobs/" + string(layer), string(other)},
		"no digest":          {filepath.Join(dir, "_blobs", "sha256", layer.Hex()), app + "/blobs/" + string(layer), "../../x"},
		"huge":               {filepath.Join(dir, "_blobs", "sha256", layer.Hex()), app + "/blobs/" + string(layer), string(bytes.Repeat([]byte("a"), 1<<20))},
		"tag without digest": {filepath.Join(dir, "_tags", "v1"), app + "/manifests/v1", "v2"},
		"record of another":  {filepath.Join(dir, "_manifests", "sha256", desc.Digest.Hex()), app + "/manifests/" + string(desc.Digest), `{"schema":"` + recordSchema + `","blob":"` + string(other) + `","size":1,"media_type":"` + spec.OCIManifest + `"}`},
		"record with a key":  {filepath.Join(dir, "_manifests", "sha256", desc.Digest.Hex()), app + "/manifests/" + string(desc.Digest), `{"schema":"` + recordSchema + `","more":1}`},
		"link to outside":    {filepath.Join(dir, "_blobs", "sha256", layer.Hex()), app + "/blobs/" + string(layer), ""},
	} {
		was, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(c.file); err != nil {
			t.Fatal(err)
		}
		if c.content == "" {
			err = os.Symlink(outside, c.file)
		} else {
			err = os.WriteFile(c.file, []byte(c.content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := w.do(http.MethodGet, c.path, nil); r.status != http.StatusInternalServerError || r.code() != codeUnknown {
			t.Errorf("%s: got %d %s", name, r.status, r.body)
		}
		if err := os.Remove(c.file); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.file, was, 0o600); err != nil {
			t.Fatal(err)
		}
		w.want(w.do(http.MethodGet, c.path, nil), http.StatusOK, "")
	}
}
