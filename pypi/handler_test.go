package pypi

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/blake2b"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// serve publishes the sample and serves it below a prefix.
func serve(t *testing.T) (*inside, *httptest.Server) {
	t.Helper()
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	h := http.StripPrefix("/pypi/main", NewHandler(in.dir, in.store, nil))
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return in, srv
}

func (in *inside) publish(t *testing.T, seq uint64) {
	t.Helper()
	if _, err := in.pub.Publish(t.Context(), in.snap, seq, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// packagesPath is where the large public index has a file.
func packagesPath(f pypitest.File) string {
	d := blake2b.Sum256(f.Body)
	h := hex.EncodeToString(d[:])
	return "packages/" + h[:2] + "/" + h[2:4] + "/" + h[4:] + "/" + f.Name
}

type reply struct {
	status int
	header http.Header
	body   string
}

// ask makes one request without following redirects. headers are pairs.
func ask(ctx context.Context, t *testing.T, method, url string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func get(t *testing.T, url string, headers ...string) reply {
	t.Helper()
	return ask(t.Context(), t, http.MethodGet, url, headers...)
}

func TestHandlerJSON(t *testing.T) {
	in, srv := serve(t)
	base := srv.URL + "/pypi/main/simple/"
	r := get(t, base, "Accept", acceptPage)
	if want := `{"meta":{"api-version":"1.4"},"projects":[{"name":"baz"},{"name":"foo-bar"}]}`; r.body != want || r.header.Get("Content-Type") != typeJSON {
		t.Errorf("got %s %s", r.header.Get("Content-Type"), r.body)
	}
	r = get(t, base+"foo-bar/", "Accept", acceptPage)
	var got map[string]any
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatal(err)
	}
	files := sample()
	hash := func(b []byte) map[string]any { return map[string]any{"sha256": artifact.Sum(b).Hex()} }
	want := map[string]any{
		"meta": map[string]any{"api-version": "1.4"}, "name": "foo-bar", "project-status": map[string]any{"status": "active"},
		"versions": []any{"0.9", "1.0+cu130"},
		"files": []any{
			map[string]any{
				"filename": files[1].Name, "url": "../../" + packagesPath(files[1]), "hashes": hash(files[1].Body),
				"size": float64(len(files[1].Body)), "yanked": files[1].YankedReason, "core-metadata": hash(files[1].Metadata),
			},
			map[string]any{
				"filename": files[0].Name, "url": "../../" + strings.ReplaceAll(packagesPath(files[0]), "+", "%2B"), "hashes": hash(files[0].Body),
				"size": float64(len(files[0].Body)), "yanked": false, "core-metadata": hash(files[0].Metadata), "requires-python": ">=3.9,<4", "upload-time": files[0].UploadTime,
			},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// A source archive has no metadata key at all.
	if r := get(t, base+"baz/", "Accept", typeJSON); strings.Contains(r.body, "metadata") || !strings.Contains(r.body, `"versions":["2.0"]`) {
		t.Errorf("got %s", r.body)
	}
	_ = in
}

func TestHandlerHTML(t *testing.T) {
	_, srv := serve(t)
	r := get(t, srv.URL+"/pypi/main/simple/foo-bar/")
	files := sample()
	want := `<!DOCTYPE html>
<html>
  <head>
    <meta charset="utf-8">
    <meta name="pypi:repository-version" content="1.4">
    <title>Links for foo-bar</title>
  </head>
  <body>
    <h1>Links for foo-bar</h1>
` + fmt.Sprintf(`    <a href="../../%[3]s#sha256=%[1]s" data-core-metadata="sha256=%[2]s" data-dist-info-metadata="sha256=%[2]s" data-yanked="broken &#34;quotes&#34; &amp; &lt;script&gt;">foo_bar-0.9-py3-none-any.whl</a><br>
`, files[1].SHA256(), artifact.Sum(files[1].Metadata).Hex(), packagesPath(files[1])) +
		fmt.Sprintf(`    <a href="../../%[3]s#sha256=%[1]s" data-requires-python="&gt;=3.9,&lt;4" data-core-metadata="sha256=%[2]s" data-dist-info-metadata="sha256=%[2]s">foo_bar-1.0+cu130-py3-none-any.whl</a><br>
`, files[0].SHA256(), artifact.Sum(files[0].Metadata).Hex(), strings.ReplaceAll(packagesPath(files[0]), "+", "%2B")) + `  </body>
</html>
`
	if d := cmp.Diff(want, r.body); d != "" {
		t.Error(d)
	}
	if ct := r.header.Get("Content-Type"); ct != "text/html; charset=utf-8" {
		t.Error(ct)
	}
	if r := get(t, srv.URL+"/pypi/main/simple/", "Accept", typeHTML); !strings.Contains(r.body, `<a href="baz/">baz</a>`) || r.header.Get("Content-Type") != typeHTML+"; charset=utf-8" {
		t.Errorf("got %v %s", r.header, r.body)
	}
}

// What the handler serves is what the client of this package reads, in both
// forms.
func TestHandlerReadBack(t *testing.T) {
	_, srv := serve(t)
	for _, kind := range []string{typeJSON, typeHTML, typePlain} {
		u := srv.URL + "/pypi/main/simple/foo-bar/"
		r := get(t, u, "Accept", kind)
		base, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		pg, err := parsePage(r.header.Get("Content-Type"), []byte(r.body), base, func(string) bool { return true })
		if err != nil || len(pg.Files) != 2 {
			t.Fatalf("%s: %v", kind, err)
		}
		for i, want := range []pypitest.File{sample()[1], sample()[0]} {
			f := pg.Files[i]
			if f.Filename != want.Name || f.urlName != want.Name || f.Digest.Hex() != want.SHA256() || f.RequiresPython != want.RequiresPython || f.Yanked != want.Yanked || f.YankedReason != want.YankedReason || f.CoreMetadata != artifact.Sum(want.Metadata) {
				t.Errorf("%s: got %+v", kind, f)
			}
			if r := get(t, f.URL); r.status != http.StatusOK || r.body != string(want.Body) {
				t.Errorf("%s: %s: status %d", kind, f.URL, r.status)
			}
			if r := get(t, f.URL+".metadata"); r.status != http.StatusOK || r.body != string(want.Metadata) {
				t.Errorf("%s: metadata: status %d", kind, r.status)
			}
		}
	}
}

func TestHandlerRedirects(t *testing.T) {
	_, srv := serve(t)
	for path, want := range map[string]string{
		"/simple": "/pypi/main/simple/", "/simple/foo-bar": "/pypi/main/simple/foo-bar/", "/simple/Foo_Bar": "/pypi/main/simple/foo-bar/",
		"/simple/Foo._-Bar/": "/pypi/main/simple/foo-bar/",
	} {
		r := get(t, srv.URL+"/pypi/main"+path)
		at, err := url.Parse(srv.URL + "/pypi/main" + path)
		if err != nil {
			t.Fatal(err)
		}
		to, err := at.Parse(r.header.Get("Location"))
		if err != nil || r.status != http.StatusMovedPermanently || to.Path != want {
			t.Errorf("%s: %d to %v, %v", path, r.status, to, err)
		}
	}
	for _, path := range []string{"", "/", "/simple/none/", "/simple/None", "/simple/foo-bar/x", "/simple/foo-bar//", "/simple/..%2f/", "/files/", "/files/x/y", "/simple/f%00o/"} {
		if r := get(t, srv.URL+"/pypi/main"+path); r.status != http.StatusNotFound {
			t.Errorf("%q: status %d", path, r.status)
		}
	}
	f := sample()[0]
	for _, path := range []string{f.SHA256() + "/other.whl", sample()[1].SHA256() + "/" + f.Name, f.SHA256() + "/../" + f.SHA256() + "/" + f.Name, f.SHA256() + "/" + f.Name + ".metadata.metadata"} {
		if r := get(t, srv.URL+"/pypi/main/files/"+path); r.status == http.StatusOK {
			t.Errorf("%q: served", path)
		}
	}
	if r := get(t, srv.URL+"/pypi/main/files/"+sample()[2].SHA256()+"/baz-2.0.tar.gz.metadata"); r.status != http.StatusNotFound {
		t.Errorf("metadata of a source archive: status %d", r.status)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if r := ask(t.Context(), t, method, srv.URL+"/pypi/main/simple/"); r.status != http.StatusMethodNotAllowed || r.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d", method, r.status)
		}
	}
}

func TestHandlerPageHeaders(t *testing.T) {
	_, srv := serve(t)
	u := srv.URL + "/pypi/main/simple/foo-bar/"
	r := get(t, u)
	tag := r.header.Get("ETag")
	if tag == "" || strings.HasPrefix(tag, "W/") || r.header.Get("Vary") != "Accept, Accept-Encoding" || r.header.Get("Cache-Control") != "max-age=600" {
		t.Errorf("got %v", r.header)
	}
	if r := get(t, u, "If-None-Match", `"x", `+tag); r.status != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != tag {
		t.Errorf("revalidation: %d %q", r.status, r.body)
	}
	if j := get(t, u, "Accept", typeJSON, "If-None-Match", tag); j.status != http.StatusOK || j.header.Get("ETag") == tag {
		t.Errorf("another form has the same tag: %d", j.status)
	}
	h := ask(t.Context(), t, http.MethodHead, u)
	if h.status != http.StatusOK || h.body != "" || h.header.Get("Content-Length") != fmt.Sprint(len(r.body)) {
		t.Errorf("HEAD: %v", h)
	}
	z := get(t, u, "Accept-Encoding", "br;q=1.0, gzip;q=0.8")
	if z.header.Get("Content-Encoding") != "gzip" || z.header.Get("ETag") == tag {
		t.Fatalf("got %v", z.header)
	}
	gz, err := gzip.NewReader(strings.NewReader(z.body))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(gz); err != nil || string(b) != r.body {
		t.Errorf("gzip: %v", err)
	}
	if z := get(t, u, "Accept-Encoding", "gzip;q=0, *"); z.header.Get("Content-Encoding") != "" {
		t.Error("gzip though refused")
	}
}

func TestHandlerFileHeaders(t *testing.T) {
	_, srv := serve(t)
	f := sample()[1]
	u := srv.URL + "/pypi/main/files/" + f.SHA256() + "/" + f.Name
	r := get(t, u)
	if r.header.Get("ETag") != `"`+f.SHA256()+`"` || !strings.Contains(r.header.Get("Cache-Control"), "immutable") || r.header.Get("X-Content-Type-Options") != "nosniff" || r.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("got %v", r.header)
	}
	if r := get(t, u, "If-None-Match", r.header.Get("ETag")); r.status != http.StatusNotModified {
		t.Errorf("revalidation: %d", r.status)
	}
	body := string(f.Body)
	for spec, want := range map[string]string{"bytes=0-3": body[:4], "bytes=10-": body[10:], "bytes=-22": body[len(body)-22:], "bytes=5-5": body[5:6]} {
		if r := get(t, u, "Range", spec); r.status != http.StatusPartialContent || r.body != want {
			t.Errorf("%s: status %d, %d bytes", spec, r.status, len(r.body))
		}
	}
	if r := get(t, u, "Range", fmt.Sprintf("bytes=%d-", len(body))); r.status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %d", r.status)
	}
	if h := ask(t.Context(), t, http.MethodHead, u); h.status != http.StatusOK || h.body != "" || h.header.Get("Content-Length") != fmt.Sprint(len(body)) {
		t.Errorf("HEAD: %v", h)
	}
}

func TestNegotiate(t *testing.T) {
	for accept, want := range map[string]string{
		"":         typePlain,
		"*/*":      typePlain,
		"text/*":   typePlain,
		acceptPage: typeJSON,
		"application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01": typeJSON,
		"application/vnd.pypi.simple.latest+json":                                                          typeJSON,
		"application/vnd.pypi.simple.latest+html;q=0.5":                                                    typeHTML,
		"text/html, application/vnd.pypi.simple.v1+json;q=0.5":                                             typePlain,
		"text/html;q=0, */*": typeJSON,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8":     typePlain,
		"application/vnd.pypi.simple.v1+json;q=0, text/html":                             typePlain,
		"application/vnd.pypi.simple.v2+json, application/vnd.pypi.simple.v1+html;q=0.1": typeHTML,
		"TEXT/HTML ; Q=0.3, application/vnd.pypi.simple.v1+json;q=0.2":                   typePlain,
		"application/*":    typeJSON,
		"application/json": "",
		"text/html;q=0":    "",
		"application/vnd.pypi.simple.v1+json;q=2": "",
	} {
		got, ok := negotiate(accept)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q %v, want %q", accept, got, ok, want)
		}
	}
	_, srv := serve(t)
	if r := get(t, srv.URL+"/pypi/main/simple/", "Accept", "image/png"); r.status != http.StatusNotAcceptable || r.header.Get("Vary") == "" {
		t.Errorf("got %d", r.status)
	}
}

func TestHandlerDamagedBlob(t *testing.T) {
	in, srv := serve(t)
	f := sample()[0]
	damage(t, in.store, artifact.Sum(f.Body))
	for range 2 {
		r := get(t, srv.URL+"/pypi/main/files/"+f.SHA256()+"/"+strings.ReplaceAll(f.Name, "+", "%2B"))
		if r.status != http.StatusInternalServerError || strings.Contains(r.body, "PK") || r.header.Get("ETag") != "" || strings.Contains(r.header.Get("Cache-Control"), "immutable") {
			t.Errorf("got %d %v", r.status, r.header)
		}
	}
}

func TestHandlerReload(t *testing.T) {
	in := newInside(t, nil, nil)
	in.pub.hide = true
	h := NewHandler(in.dir, in.store, nil)
	srv := httptest.NewServer(h)
	defer srv.Close()
	if r := get(t, srv.URL+"/simple/", "Accept", typeJSON); r.status != http.StatusOK || !strings.Contains(r.body, `"projects":[]`) {
		t.Errorf("nothing published: %d %s", r.status, r.body)
	}
	// Readers see the old or the new publication whole while one is replaced.
	one := pypitest.Wheel("foo-1-py3-none-any.whl", "")
	two := pypitest.Wheel("foo-2-py3-none-any.whl", "")
	in.load(t, []pypitest.File{one}, nil)
	in.publish(t, 1)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/simple/foo/", nil))
				b := w.Body.String()
				if w.Code != http.StatusOK || strings.Contains(b, one.Name) == strings.Contains(b, two.Name) {
					t.Errorf("status %d: %s", w.Code, b)
					return
				}
			}
		})
	}
	for i := range 20 {
		in.load(t, [][]pypitest.File{{one}, {two}}[i%2], nil)
		in.publish(t, uint64(i+2))
	}
	stop()
	wg.Wait()
	if r := get(t, srv.URL+"/simple/foo/"); !strings.Contains(r.body, two.Name) {
		t.Errorf("the last publication is not served: %s", r.body)
	}
	// A damaged current.json leaves the old publication; a new process has none.
	if err := os.WriteFile(filepath.Join(in.dir, currentName), []byte(`{"schema":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := get(t, srv.URL+"/simple/foo/"); r.status != http.StatusOK || !strings.Contains(r.body, two.Name) {
		t.Errorf("damaged: %d %s", r.status, r.body)
	}
	w := httptest.NewRecorder()
	NewHandler(in.dir, in.store, nil).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/simple/foo/", nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("damaged, new process: %d", w.Code)
	}
}
