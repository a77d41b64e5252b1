package registry

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// Each defect of a manifest is refused and leaves no name behind.
func TestManifestRefused(t *testing.T) {
	const repo = "platform/app"
	w := newWorld(t, Options{PushToken: secret})
	config, layer := w.pushBlob(repo, noise(100, 1)), w.pushBlob(repo, noise(1000, 2))
	child := w.pushImage(repo, "child", 3)
	elsewhere := w.pushBlob("platform/elsewhere", noise(1000, 4))
	change := func(d spec.Descriptor, f func(*spec.Descriptor)) spec.Descriptor { f(&d); return d }
	foreign := change(describe(noise(10, 9)), func(d *spec.Descriptor) {
		d.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	})
	for _, c := range []struct {
		name   string
		m      *spec.Manifest
		ct     string // of the request; empty: the manifest's
		status int
		code   string
	}{
		{"whole image", imageOf(config, layer), "", 201, ""},
		{"whole index", indexOf(child), "", 201, ""},
		{"empty index", indexOf([]spec.Descriptor{}...), "", 201, ""},
		{"parameters of the media type", imageOf(config, layer), spec.OCIManifest + "; charset=utf-8", 201, ""},
		{"config missing", imageOf(describe(noise(10, 5)), layer), "", 400, codeManifestBlobUnknown},
		{"layer missing", imageOf(config, describe(noise(10, 5))), "", 400, codeManifestBlobUnknown},
		{"layer of another repository", imageOf(config, elsewhere), "", 400, codeManifestBlobUnknown},
		{"layer too small", imageOf(config, change(layer, func(d *spec.Descriptor) { d.Size-- })), "", 400, codeSizeInvalid},
		{"layer too large", imageOf(config, change(layer, func(d *spec.Descriptor) { d.Size++ })), "", 400, codeSizeInvalid},
		{"config of another size", imageOf(change(config, func(d *spec.Descriptor) { d.Size = 0 })), "", 400, codeSizeInvalid},
		{"layer is a manifest", imageOf(config, child), "", 400, codeManifestBlobUnknown},
		{"sparse index", indexOf(child, change(describe(noise(10, 6)), func(d *spec.Descriptor) { d.MediaType = spec.OCIManifest })), "", 400, codeManifestBlobUnknown},
		{"child of another size", indexOf(change(child, func(d *spec.Descriptor) { d.Size++ })), "", 400, codeSizeInvalid},
		{"child of another media type", indexOf(change(child, func(d *spec.Descriptor) { d.MediaType = spec.DockerManifest })), "", 400, codeManifestInvalid},
		{"child is a blob", indexOf(layer), "", 201, ""},
		{"child is a missing blob", indexOf(describe(noise(10, 7))), "", 400, codeManifestBlobUnknown},
		{"sent as docker", imageOf(config, layer), spec.DockerManifest, 400, codeManifestInvalid},
		{"sent as an index", imageOf(config, layer), spec.OCIIndex, 400, codeManifestInvalid},
		{"sent as JSON", imageOf(config, layer), "application/json", 400, codeManifestInvalid},
		{"sent as nonsense", imageOf(config, layer), "a/b/c", 400, codeManifestInvalid},
		{"foreign layer without URLs", imageOf(config, foreign), "", 400, codeManifestBlobUnknown},
		{"foreign layer with a URL", imageOf(config, change(foreign, func(d *spec.Descriptor) { d.URLs = []string{"https://files.example/x"} })), "", 201, ""},
		{"data as described", imageOf(config, change(layer, func(d *spec.Descriptor) { d.Data = noise(1000, 2) })), "", 201, ""},
		{"other data", imageOf(config, change(layer, func(d *spec.Descriptor) { d.Data = noise(1000, 3) })), "", 400, codeManifestInvalid},
		{"negative size", imageOf(config, change(layer, func(d *spec.Descriptor) { d.Size = -1 })), "", 400, codeManifestInvalid},
		{"schema 1", &spec.Manifest{SchemaVersion: 1}, spec.DockerSchema1, 400, codeManifestInvalid},
		{"schema 1 in disguise", &spec.Manifest{SchemaVersion: 1}, spec.OCIManifest, 400, codeManifestInvalid},
		{"unknown kind", &spec.Manifest{SchemaVersion: 2, MediaType: "application/x"}, "application/x", 400, codeManifestInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := encode(t, c.m)
			ct := c.ct
			if ct == "" {
				ct = c.m.MediaType
			}
			r := w.do(http.MethodPut, "/v2/"+repo+"/manifests/v1", bytes.NewReader(raw), "Content-Type", ct)
			if r.status != c.status || c.code != "" && r.code() != c.code {
				t.Fatalf("got %d %s, want %d %s", r.status, r.body, c.status, c.code)
			}
			known := http.StatusNotFound
			if c.status == http.StatusCreated {
				known = http.StatusOK
			}
			for _, ref := range []string{"v1", string(digestOf(raw))} {
				if r := w.do(http.MethodGet, "/v2/"+repo+"/manifests/"+ref, nil); r.status != known {
					t.Errorf("%s: got %d, want %d", ref, r.status, known)
				}
			}
			if known == http.StatusOK {
				w.want(w.do(http.MethodDelete, "/v2/"+repo+"/manifests/"+string(digestOf(raw)), nil), http.StatusAccepted, "")
			}
		})
	}
	raw := encode(t, imageOf(config, layer))
	for _, c := range []struct {
		name, ref string
		raw       []byte
		status    int
		code      string
	}{
		{"garbage", "v1", []byte("garbage"), 400, codeManifestInvalid},
		{"nothing", "v1", nil, 400, codeManifestInvalid},
		{"a field twice", "v1", bytes.Replace(raw, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":2,"SchemaVersion":2`), 1), 400, codeManifestInvalid},
		{"too large", "v1", bytes.Repeat([]byte(" "), spec.MaxManifest+1), 413, codeManifestInvalid},
		{"another digest", string(digestOf([]byte("x"))), raw, 400, codeDigestInvalid},
		{"no digest", "sha256:abc", raw, 400, codeDigestInvalid},
		{"no tag", ".v1", raw, 400, codeManifestInvalid},
		{"tag parameter beside a tag", "v1?tag=v2", raw, 400, codeManifestInvalid},
		{"bad tag parameter", string(digestOf(raw)) + "?tag=v2&tag=-", raw, 400, codeManifestInvalid},
		{"too many tag parameters", string(digestOf(raw)) + "?" + strings.Repeat("tag=a&", maxTagParams+1), raw, 400, codeManifestInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.do(http.MethodPut, "/v2/"+repo+"/manifests/"+c.ref, bytes.NewReader(c.raw), "Content-Type", spec.OCIManifest)
			if r.status != c.status || r.code() != c.code {
				t.Fatalf("got %d %s, want %d %s", r.status, r.body, c.status, c.code)
			}
		})
	}
	if diff := cmp.Diff([]string{"child"}, w.tags("/v2/"+repo)); diff != "" {
		t.Error(diff)
	}
	// A refused push makes no repository.
	w.want(w.put("platform/never", "v1", imageOf(config)), http.StatusBadRequest, codeManifestBlobUnknown)
	w.want(w.do(http.MethodGet, "/v2/platform/never/tags/list", nil), http.StatusNotFound, codeNameUnknown)
}

// Chunked bodies have no length to refuse before they are read.
func TestManifestTooLargeChunked(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	body := io.MultiReader(bytes.NewReader(bytes.Repeat([]byte(" "), spec.MaxManifest+2))) // hides the length
	w.want(w.do(http.MethodPut, "/v2/platform/app/manifests/v1", body, "Content-Type", spec.OCIManifest), http.StatusRequestEntityTooLarge, codeManifestInvalid)
}

func sha512Of(b []byte) spec.Digest {
	sum := sha512.Sum512(b)
	return spec.Digest("sha512:" + hex.EncodeToString(sum[:]))
}

func TestSHA512(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	const repo = "/v2/platform/app"
	push := func(b []byte, pieces int) spec.Descriptor {
		at := w.want(w.do(http.MethodPost, repo+"/blobs/uploads/", nil), http.StatusAccepted, "").header.Get("Location")
		last := b
		if pieces > 1 {
			at = w.want(w.do(http.MethodPatch, at, bytes.NewReader(b[:len(b)/2])), http.StatusAccepted, "").header.Get("Location")
			last = b[len(b)/2:]
		}
		w.want(w.do(http.MethodPut, at+"?digest="+string(sha512Of(b)), bytes.NewReader(last)), http.StatusCreated, "")
		return spec.Descriptor{MediaType: spec.OCILayer, Digest: sha512Of(b), Size: int64(len(b))}
	}
	m := imageOf(push(noise(100, 1), 1), push(noise(2000, 2), 2))
	raw := encode(t, m)
	r := w.want(w.do(http.MethodPut, repo+"/manifests/"+string(sha512Of(raw))+"?tag=v1&tag=v2", bytes.NewReader(raw), "Content-Type", spec.OCIManifest), http.StatusCreated, "")
	if diff := cmp.Diff([]string{"v1", "v2"}, r.header.Values("OCI-Tag")); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{"/manifests/v2", "/manifests/" + string(sha512Of(raw)), "/blobs/" + string(m.Layers[0].Digest)} {
		r := w.want(w.do(http.MethodGet, repo+path, nil), http.StatusOK, "")
		if got := r.header.Get("Docker-Content-Digest"); sha512Of(r.body) != spec.Digest(got) {
			t.Errorf("%s: %s for %s", path, got, sha512Of(r.body))
		}
	}
	// The same bytes under sha256 were not pushed.
	w.want(w.do(http.MethodGet, repo+"/blobs/"+string(digestOf(noise(2000, 2))), nil), http.StatusNotFound, codeBlobUnknown)
	// Wrong bytes under sha512 are no blob.
	at := w.want(w.do(http.MethodPost, repo+"/blobs/uploads/", nil), http.StatusAccepted, "").header.Get("Location")
	w.want(w.do(http.MethodPut, at+"?digest="+string(sha512Of([]byte("a"))), strings.NewReader("b")), http.StatusBadRequest, codeDigestInvalid)
}

func TestDelete(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	const repo = "platform/app"
	child := w.pushImage(repo, "child", 1)
	w.want(w.put(repo, "one", indexOf(child)), http.StatusCreated, "")
	index := digestOf(encode(t, indexOf(child)))
	w.want(w.put(repo, "two", indexOf(child)), http.StatusCreated, "")
	del := func(path string, status int, code string) {
		t.Helper()
		w.want(w.do(http.MethodDelete, "/v2/"+repo+path, nil), status, code)
	}
	layer := "/blobs/" + string(digestOf(noise(5000, 101)))
	// What a manifest names stays while it does.
	del(layer, http.StatusMethodNotAllowed, codeUnsupported)
	del("/manifests/"+string(child.Digest), http.StatusMethodNotAllowed, codeUnsupported)
	// A tag goes alone; a manifest takes its tags with it.
	del("/manifests/two", http.StatusAccepted, "")
	del("/manifests/two", http.StatusNotFound, codeManifestUnknown)
	if diff := cmp.Diff([]string{"child", "one"}, w.tags("/v2/"+repo)); diff != "" {
		t.Error(diff)
	}
	del("/manifests/"+string(index), http.StatusAccepted, "")
	del("/manifests/"+string(index), http.StatusNotFound, codeManifestUnknown)
	if diff := cmp.Diff([]string{"child"}, w.tags("/v2/"+repo)); diff != "" {
		t.Error(diff)
	}
	del("/manifests/"+string(child.Digest), http.StatusAccepted, "")
	if diff := cmp.Diff([]string{}, w.tags("/v2/"+repo)); diff != "" {
		t.Error(diff)
	}
	del(layer, http.StatusAccepted, "")
	del(layer, http.StatusNotFound, codeBlobUnknown)
	w.want(w.do(http.MethodHead, "/v2/"+repo+layer, nil), http.StatusNotFound, "")
	// Deleted names may be pushed again.
	w.pushImage(repo, "child", 1)
	w.want(w.do(http.MethodGet, "/v2/"+repo+"/manifests/child", nil), http.StatusOK, "")
}

func TestTagPages(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	const repo = "platform/app"
	m := imageOf(w.pushBlob(repo, noise(10, 1)))
	w.publish("platform", 1, upstream(t, "app", "published-b", 1, nil), upstream(t, "app", "a-published", 2, nil))
	want := []string{"published-b", "a-published"}
	for _, tag := range []string{"v10", "v2", "V1", "_x", "latest", "0"} {
		w.want(w.put(repo, tag, m), http.StatusCreated, "")
		want = append(want, tag)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, w.tags("/v2/"+repo)); diff != "" {
		t.Fatal(diff)
	}
	for n := 1; n <= len(want)+1; n++ {
		var got []string
		next := fmt.Sprintf("/v2/%s/tags/list?n=%d", repo, n)
		for pages := 0; next != ""; pages++ {
			if pages > len(want) {
				t.Fatal("the pages do not end")
			}
			r := w.want(w.do(http.MethodGet, next, nil), http.StatusOK, "")
			var list struct{ Tags []string }
			if err := json.Unmarshal(r.body, &list); err != nil || len(list.Tags) > n || len(list.Tags) == 0 {
				t.Fatalf("n=%d: %s, %v", n, r.body, err)
			}
			got = append(got, list.Tags...)
			next, _, _ = strings.Cut(strings.TrimPrefix(r.header.Get("Link"), "<"), ">")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("n=%d: %s", n, diff)
		}
	}
	for query, want := range map[string]string{
		"?n=0":             `{"name":"platform/app","tags":[]}`,
		"?last=v10":        `{"name":"platform/app","tags":["v2"]}`,
		"?last=v1":         `{"name":"platform/app","tags":["v10","v2"]}`,
		"?last=zzz":        `{"name":"platform/app","tags":[]}`,
		"?n=1&last=latest": `{"name":"platform/app","tags":["published-b"]}`,
		"?n=99999999":      "",
	} {
		r := w.want(w.do(http.MethodGet, "/v2/"+repo+"/tags/list"+query, nil), http.StatusOK, "")
		if want != "" && string(r.body) != want {
			t.Errorf("%s: %s", query, r.body)
		}
		if query == "?n=0" && r.header.Get("Link") != "" {
			t.Errorf("n=0 has a next page: %s", r.header.Get("Link"))
		}
	}
	for _, query := range []string{"?n=-1", "?n=x", "?n=1e3"} {
		w.want(w.do(http.MethodGet, "/v2/"+repo+"/tags/list"+query, nil), http.StatusBadRequest, codePageNumber)
	}
}

// Many referrers come in pages, each at most as large as a manifest.
func TestReferrersPages(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	const repo = "platform/app"
	subject := w.pushImage(repo, "v1", 1)
	config := w.pushBlob(repo, noise(10, 2))
	var want, wantA []spec.Digest
	for i := range 5 {
		m := imageOf(config)
		m.Subject = &subject
		m.ArtifactType = "application/" + string(rune('a'+i%2))
		m.Annotations = map[string]string{"i": fmt.Sprint(i), "long": strings.Repeat("<", 1<<20)}
		// Escaped for HTML, the list would be six times as large.
		raw := compact(t, m)
		d := digestOf(raw)
		w.want(w.do(http.MethodPut, "/v2/"+repo+"/manifests/"+string(d), bytes.NewReader(raw), "Content-Type", m.MediaType), http.StatusCreated, "")
		want = append(want, d)
		if i%2 == 0 {
			wantA = append(wantA, d)
		}
	}
	slices.Sort(want)
	slices.Sort(wantA)
	for query, want := range map[string][]spec.Digest{"": want, "?artifactType=application%2Fa": wantA, "?artifactType=none": nil} {
		var got []spec.Digest
		next := "/v2/" + repo + "/referrers/" + string(subject.Digest) + query
		pages := 0
		for ; next != ""; pages++ {
			r := w.want(w.do(http.MethodGet, next, nil), http.StatusOK, "")
			var index spec.Manifest
			if err := json.Unmarshal(r.body, &index); err != nil || len(r.body) > maxReferrersPage {
				t.Fatalf("%d bytes, %v", len(r.body), err)
			}
			if (query != "") != (r.header.Get("OCI-Filters-Applied") == "artifactType") {
				t.Errorf("%s: filters applied: %q", query, r.header.Get("OCI-Filters-Applied"))
			}
			for _, m := range index.Manifests {
				if m.Annotations["i"] == "" || m.ArtifactType == "" || m.Size == 0 || m.MediaType != spec.OCIManifest {
					t.Errorf("descriptor %v", m.Digest)
				}
				got = append(got, m.Digest)
			}
			next, _, _ = strings.Cut(strings.TrimPrefix(r.header.Get("Link"), "<"), ">")
			if pages > len(want) {
				t.Fatal("the pages do not end")
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", query, diff)
		}
		if query == "" && pages < 2 {
			t.Errorf("%d pages of 5 MiB", pages)
		}
	}
	w.want(w.do(http.MethodDelete, "/v2/"+repo+"/manifests/"+string(want[0]), nil), http.StatusAccepted, "")
	got := w.referrers("/v2/"+repo, subject.Digest, "?artifactType=application%2Fa&last="+string(want[0]))
	if slices.Contains(got, want[0]) {
		t.Error("a deleted referrer is listed")
	}
}

// compact writes a manifest without HTML escapes.
func compact(t *testing.T, m *spec.Manifest) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
