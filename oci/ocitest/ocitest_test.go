package ocitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// A world is a registry with its server.
type world struct {
	t   *testing.T
	r   *Registry
	url string
}

func newWorld(t *testing.T, opts ...Option) *world {
	t.Helper()
	r := New(opts...)
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return &world{t: t, r: r, url: srv.URL}
}

// do sends a request; header is "Key: value" pairs.
func (w *world) do(method, path string, body []byte, header ...string) (*http.Response, []byte, error) {
	w.t.Helper()
	if !strings.Contains(path, "://") {
		path = w.url + path
	}
	q, err := http.NewRequestWithContext(w.t.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		q.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(resp.Body)
	return resp, b, errors.Join(err, resp.Body.Close())
}

// want sends a request and holds its status.
func (w *world) want(status int, method, path string, body []byte, header ...string) (*http.Response, []byte) {
	w.t.Helper()
	resp, b, err := w.do(method, path, body, header...)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != status {
		w.t.Fatalf("%s %s: want %d, got %d: %s", method, path, status, resp.StatusCode, b)
	}
	return resp, b
}

func TestPull(t *testing.T) {
	w := newWorld(t, PageSize(2))
	img := Index(ImageFor("linux/amd64", Noise(100, 1)), ImageFor("linux/arm64", Noise(100, 2)))
	d := w.r.Put("team/app", "1.0", img)
	w.r.Put("team/app", "1.1", img)
	w.r.Put("team/app", "1.2", img)
	sbom := Artifact("application/spdx+json", img, []byte("{}"))
	w.r.Put("team/app", "", sbom)
	sig := w.r.Sign("team/app", img)

	resp, b := w.want(http.StatusOK, "GET", "/v2/team/app/manifests/1.0", nil)
	if got := spec.Digest(resp.Header.Get("Docker-Content-Digest")); got != d || !bytes.Equal(b, img.Raw) {
		t.Errorf("manifest: got %s, %d bytes", got, len(b))
	}
	if _, err := spec.ParseManifest(b, resp.Header.Get("Content-Type")); err != nil {
		t.Errorf("the index is no manifest: %v", err)
	}
	for _, o := range append(img.All(), sbom, sig) {
		m, err := spec.ParseManifest(o.Raw, o.MediaType)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.Blobs() {
			resp, b := w.want(http.StatusOK, "GET", "/v2/team/app/blobs/"+string(e.Digest), nil)
			if int64(len(b)) != e.Size || resp.ContentLength != e.Size || e.Digest.Sum(b) != e.Digest {
				t.Errorf("blob %s: %d bytes", e.Digest, len(b))
			}
		}
	}
	resp, b = w.want(http.StatusOK, "GET", "/v2/team/app/tags/list", nil)
	if got := strings.TrimSpace(string(b)); got != `{"name":"team/app","tags":["1.0","1.1"]}` {
		t.Errorf("tags: %s", got)
	}
	if got, want := resp.Header.Get("Link"), `</v2/team/app/tags/list?last=1.1&n=2>; rel="next"`; got != want {
		t.Errorf("link: want %s, got %s", want, got)
	}
	_, b = w.want(http.StatusOK, "GET", "/v2/team/app/referrers/"+string(d), nil)
	var list spec.Manifest
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != sbom.Digest || list.Manifests[0].ArtifactType != "application/spdx+json" {
		t.Errorf("referrers: %s", b)
	}
	w.want(http.StatusNotFound, "GET", "/v2/team/app/manifests/none", nil)
	w.want(http.StatusNotFound, "GET", "/v2/team/app/blobs/"+string(digestOf(nil)), nil)
	if got := w.r.Count("GET", "/manifests/"); got != 2 {
		t.Errorf("log: want 2 manifests, got %d: %v", got, w.r.Requests())
	}
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	img := Image(Noise(1000, 1))
	config, layer := img.Blobs[0], img.Blobs[1]
	w.want(http.StatusBadRequest, "PUT", "/v2/app/manifests/1", img.Raw, "Content-Type: "+img.MediaType)
	w.want(http.StatusCreated, "POST", "/v2/app/blobs/uploads/?digest="+string(digestOf(config)), config)

	resp, _ := w.want(http.StatusAccepted, "POST", "/v2/app/blobs/uploads/", nil)
	at := resp.Header.Get("Location")
	w.want(http.StatusRequestedRangeNotSatisfiable, "PATCH", at, layer[500:], "Content-Range: 500-999")
	resp, _ = w.want(http.StatusAccepted, "PATCH", at, layer[:500], "Content-Range: 0-499")
	if got := resp.Header.Get("Range"); got != "0-499" {
		t.Errorf("range: want 0-499, got %s", got)
	}
	resp, _ = w.want(http.StatusNoContent, "GET", resp.Header.Get("Location"), nil)
	if got := resp.Header.Get("Range"); got != "0-499" {
		t.Errorf("status: want 0-499, got %s", got)
	}
	w.want(http.StatusCreated, "PUT", resp.Header.Get("Location")+"&digest="+string(digestOf(layer)), layer[500:])
	if b, ok := w.r.Blob("app", digestOf(layer)); !ok || !bytes.Equal(b, layer) {
		t.Error("the layer did not arrive")
	}
	w.want(http.StatusCreated, "PUT", "/v2/app/manifests/1", img.Raw, "Content-Type: "+img.MediaType)
	w.want(http.StatusCreated, "POST", "/v2/other/blobs/uploads/?mount="+string(digestOf(layer))+"&from=app", nil)
	if _, ok := w.r.Blob("other", digestOf(layer)); !ok {
		t.Error("the layer was not mounted")
	}
	w.r.Set(NoMount())
	w.want(http.StatusAccepted, "POST", "/v2/third/blobs/uploads/?mount="+string(digestOf(layer))+"&from=app", nil)
	w.r.Set(ImmutableTags())
	w.want(http.StatusPreconditionFailed, "PUT", "/v2/app/manifests/1", img.Raw, "Content-Type: "+img.MediaType)
	if got := w.r.Received("PATCH", "/uploads/"); got != 500 {
		t.Errorf("log: want 500 bytes of chunks, got %d", got)
	}
	if got := w.r.Writes(); got != 10 {
		t.Errorf("log: want 10 writes, got %d: %v", got, w.r.Requests())
	}
	w.want(http.StatusAccepted, "DELETE", "/v2/app/manifests/1", nil)
	if tags := w.r.Tags("app"); len(tags) != 0 {
		t.Errorf("deleted, but there is %v", tags)
	}
}

func TestCuts(t *testing.T) {
	w := newWorld(t)
	b := Noise(300_000, 1)
	d := w.r.AddBlob("app", b).Digest
	w.r.Set(CutDownload(d, 100_000, 1))
	_, got, err := w.do("GET", "/v2/app/blobs/"+string(d), nil)
	if err == nil || len(got) != 100_000 {
		t.Errorf("want a cut after 100000 bytes, got %d, %v", len(got), err)
	}
	resp, got := w.want(http.StatusPartialContent, "GET", "/v2/app/blobs/"+string(d), nil, "Range: bytes=100000-")
	if len(got) != 200_000 || resp.Header.Get("Content-Range") != "bytes 100000-299999/300000" {
		t.Errorf("range: got %d bytes, %s", len(got), resp.Header.Get("Content-Range"))
	}

	for _, lose := range []bool{false, true} {
		if lose {
			w.r.Set(LoseUploadOnCut())
		}
		resp, _ := w.want(http.StatusAccepted, "POST", "/v2/app/blobs/uploads/", nil)
		w.r.Set(CutUpload(70_000, 1))
		if _, _, err := w.do("PATCH", resp.Header.Get("Location"), b[:200_000], "Content-Range: 0-199999"); err == nil {
			t.Error("the upload was not cut")
		}
		status, _, err := w.do("GET", resp.Header.Get("Location"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if lose && status.StatusCode != http.StatusNotFound || !lose && status.Header.Get("Range") != "0-69999" {
			t.Errorf("after the cut: %d %s", status.StatusCode, status.Header.Get("Range"))
		}
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	tokens := httptest.NewServer(w.r.TokenServer())
	defer tokens.Close()
	w.r.Set(TokenAuth("me", "password", tokens.URL+"/token"), AnonymousPull(), TokenUses(2))
	w.r.Put("app", "1", Image())
	resp, _ := w.want(http.StatusUnauthorized, "GET", "/v2/app/manifests/1", nil)
	want := fmt.Sprintf(`Bearer realm="%s/token",service="registry.example",scope="repository:app:pull"`, tokens.URL)
	if got := resp.Header.Get("WWW-Authenticate"); got != want {
		t.Errorf("challenge: want %s, got %s", want, got)
	}
	get := func(status int, header ...string) string {
		t.Helper()
		_, b := w.want(status, "GET", tokens.URL+"/token?scope=repository:app:pull,push", nil, header...)
		var got struct{ Token string }
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + got.Token
	}
	anonymous := get(http.StatusOK)
	w.want(http.StatusOK, "GET", "/v2/app/manifests/1", nil, anonymous)
	w.want(http.StatusUnauthorized, "POST", "/v2/app/blobs/uploads/", nil, anonymous)
	w.want(http.StatusUnauthorized, "GET", "/v2/app/manifests/1", nil, anonymous) // used up
	get(http.StatusUnauthorized, "Authorization: Basic bWU6d3Jvbmc=")
	w.want(http.StatusAccepted, "POST", "/v2/app/blobs/uploads/", nil, get(http.StatusOK, "Authorization: Basic bWU6cGFzc3dvcmQ="))
	w.r.Set(EmptyTokens())
	w.want(http.StatusUnauthorized, "GET", "/v2/app/manifests/1", nil, get(http.StatusOK, "Authorization: Basic bWU6d3Jvbmc="))
}

func TestRedirect(t *testing.T) {
	w := newWorld(t)
	storage := httptest.NewServer(w.r.Storage())
	defer storage.Close()
	w.r.Set(Redirect(storage.URL))
	b := Noise(100, 1)
	d := w.r.AddBlob("app", b).Digest
	resp, _ := w.want(http.StatusTemporaryRedirect, "GET", "/v2/app/blobs/"+string(d), nil)
	_, got := w.want(http.StatusOK, "GET", resp.Header.Get("Location"), nil)
	if diff := cmp.Diff(b, got); diff != "" {
		t.Error(diff)
	}
	w.want(http.StatusBadRequest, "GET", resp.Header.Get("Location"), nil, "Authorization: Bearer x")
}

func TestLimits(t *testing.T) {
	w := newWorld(t, RateLimit(1), Busy(1, http.StatusServiceUnavailable, "3"))
	w.r.Put("app", "1", Image())
	resp, _ := w.want(http.StatusServiceUnavailable, "GET", "/v2/app/manifests/1", nil)
	if got := resp.Header.Get("Retry-After"); got != "3" {
		t.Errorf("retry-after: want 3, got %q", got)
	}
	resp, _ = w.want(http.StatusOK, "GET", "/v2/app/manifests/1", nil)
	if got := resp.Header.Get("RateLimit-Remaining"); got != "1;w=21600" {
		t.Errorf("remaining: want 1, got %q", got)
	}
	w.want(http.StatusTooManyRequests, "GET", "/v2/app/manifests/1", nil)
}

func TestDeterministic(t *testing.T) {
	one := Index(Image(Tar(map[string]string{"a": "1", "b": "2"})), ImageFor("linux/arm64/v8", Noise(10, 7)))
	two := Index(Image(Tar(map[string]string{"b": "2", "a": "1"})), ImageFor("linux/arm64/v8", Noise(10, 7)))
	if diff := cmp.Diff(one, two); diff != "" {
		t.Error(diff)
	}
	if one.Children[1].Platform.String() != "linux/arm64/v8" || bytes.Equal(Noise(10, 7), Noise(10, 8)) {
		t.Error("platform or noise is wrong")
	}
}

func TestBefore(t *testing.T) {
	seen := errors.New("not asked")
	w := newWorld(t, Before(func(w http.ResponseWriter, q *http.Request) bool {
		seen = nil
		if q.URL.Path != "/v2/odd" {
			return false
		}
		w.WriteHeader(http.StatusTeapot)
		return true
	}))
	w.want(http.StatusTeapot, "GET", "/v2/odd", nil)
	w.want(http.StatusOK, "GET", "/v2/", nil)
	if seen != nil {
		t.Error(seen)
	}
}
