package files

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// serve mounts the handler as the program does.
func (w *world) serve(t testing.TB) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/files/db/", http.StripPrefix("/files/db", NewHandler(w.state, w.st, nil)))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// ask sends a request; headers are "NAME: VALUE". Redirects are not followed.
func ask(t testing.TB, method, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	return resp, string(b)
}

func TestHandler(t *testing.T) {
	w := newWorld(t)
	srv := w.serve(t)
	root := srv.URL + "/files/db/"
	if resp, body := ask(t, http.MethodGet, root+"index.json"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"sets":[]`) {
		t.Errorf("nothing published: %s %s", resp.Status, body)
	}
	w.mustPublish(t, PublishConfig{}, map[string]tree{"clamav": {"main.cvd": "0123456789", "a b/ü%2f+#?<&.ndb": "odd"}, "tool 1.0": {"SHA256SUMS": "their own", "x": ""}})
	tag := `"` + artifact.Sum([]byte("0123456789")).Hex() + `"`
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		body         string
	}{
		{"GET", "clamav/main.cvd", nil, 200, "0123456789"},
		{"HEAD", "clamav/main.cvd", nil, 200, ""},
		{"GET", "clamav/main.cvd", []string{"Range: bytes=2-4"}, 206, "234"},
		{"GET", "clamav/main.cvd", []string{"Range: bytes=-2"}, 206, "89"},
		{"GET", "clamav/main.cvd", []string{"Range: bytes=2-4", "If-Range: " + tag}, 206, "234"},
		{"GET", "clamav/main.cvd", []string{"Range: bytes=2-4", `If-Range: "other"`}, 200, "0123456789"},
		{"GET", "clamav/main.cvd", []string{"Range: bytes=20-"}, 416, "*"},
		{"GET", "clamav/main.cvd", []string{"If-None-Match: " + tag}, 304, ""},
		{"GET", "clamav/main.cvd", []string{`If-None-Match: "other"`}, 200, "0123456789"},
		{"GET", "clamav/a%20b/%C3%BC%252f+%23%3F%3C&.ndb", nil, 200, "odd"},
		{"GET", "tool/x", nil, 200, ""},
		{"GET", "tool/SHA256SUMS", nil, 200, "their own"},
		{"GET", "tool", nil, 301, ""},
		{"POST", "clamav/main.cvd", nil, 405, "*"},
		{"PUT", "clamav/new", nil, 405, "*"},
		{"DELETE", "clamav/main.cvd", nil, 405, "*"},
		{"GET", "clamav/other.cvd", nil, 404, "*"},
		{"GET", "clamav/MAIN.cvd", nil, 404, "*"},
		{"GET", "clamav/main.cvd/", nil, 404, "*"},
		{"GET", "clamav//main.cvd", nil, 307, "*"}, // http.ServeMux cleans it
		{"GET", "clamav/a%20b", nil, 404, "*"},
		{"GET", "none/main.cvd", nil, 404, "*"},
		{"GET", "current.json", nil, 404, "*"},
		{"GET", "%2e%2e/current.json", nil, 404, "*"},
		{"GET", "clamav/%2e%2e%2f%2e%2e%2fcurrent.json", nil, 404, "*"},
		{"GET", "clamav/..%5c..%5ccurrent.json", nil, 404, "*"},
		{"GET", "%2fetc/passwd", nil, 404, "*"},
	} {
		resp, body := ask(t, c.method, root+c.path, c.headers...)
		if resp.StatusCode != c.status || c.body != "*" && body != c.body {
			t.Errorf("%s %s %v: %s %q", c.method, c.path, c.headers, resp.Status, body)
		}
		if c.path == "clamav/main.cvd" && resp.StatusCode < 300 {
			if resp.Header.Get("ETag") != tag || resp.Header.Get("Content-Type") != "application/octet-stream" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %v: headers %v", c.method, c.headers, resp.Header)
			}
		}
		if c.method == http.MethodHead && resp.ContentLength != 10 {
			t.Errorf("HEAD says %d bytes", resp.ContentLength)
		}
		if c.path == "tool" && resp.Header.Get("Location") != "tool/" {
			t.Errorf("location %s", resp.Header.Get("Location"))
		}
	}
}

// The listing is what sha256sum checks, and every link leads to its file.
func TestListings(t *testing.T) {
	w := newWorld(t)
	root := w.serve(t).URL + "/files/db/"
	sets := map[string]tree{"clamav": {"main.cvd": "1", "a b/<i>&.ndb": "2", "c:d": "3"}, "tool 1.0": {"x": "4"}}
	w.mustPublish(t, PublishConfig{Folder: w.dir, Sets: []PublishSet{{Name: "tool", Folder: w.dir + "-tool"}}}, sets)

	_, sums := ask(t, http.MethodGet, root+"clamav/SHA256SUMS")
	cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict")
	cmd.Dir, cmd.Stdin = w.dir, strings.NewReader(sums)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 3 {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	_, all := ask(t, http.MethodGet, root+"SHA256SUMS")
	if strings.Count(all, "\n") != 4 || !strings.Contains(all, "  clamav/a b/<i>&.ndb\n") || !strings.Contains(all, "  tool/x\n") {
		t.Errorf("got %s", all)
	}

	var index jsonIndex
	_, body := ask(t, http.MethodGet, root, "Accept: application/json")
	must(t, json.Unmarshal([]byte(body), &index))
	_, body2 := ask(t, http.MethodGet, root+"index.json")
	same(t, body, body2)
	if index.Schema != pageSchema || index.Source != sourceName || index.Bundle != 1 || len(index.Sets) != 2 {
		t.Errorf("got %s", body)
	}
	files := 0
	for _, page := range []string{"", "clamav/", "tool/"} {
		var index jsonIndex
		_, body := ask(t, http.MethodGet, root+page, "Accept: text/x, application/json;q=0.9")
		must(t, json.Unmarshal([]byte(body), &index))
		for _, s := range index.Sets {
			for _, f := range s.Files {
				files++
				base, err := url.Parse(root + page)
				must(t, err)
				at, err := base.Parse(f.Href)
				must(t, err)
				_, got := ask(t, http.MethodGet, at.String())
				if artifact.Sum([]byte(got)).Hex() != f.SHA256 || int64(len(got)) != f.Size {
					t.Errorf("%s: %s is %q", page, f.Href, got)
				}
			}
		}
	}
	same(t, 8, files)

	for _, page := range []string{"", "clamav/"} {
		resp, body := ask(t, http.MethodGet, root+page, "Accept: text/html,*/*")
		if strings.Contains(body, "<i>") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || resp.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%v %s", resp.Header, body)
		}
		again, _ := ask(t, http.MethodGet, root+page, "If-None-Match: "+resp.Header.Get("ETag"))
		same(t, http.StatusNotModified, again.StatusCode)
		head, none := ask(t, http.MethodHead, root+page)
		same(t, fmt.Sprint(len(body)), head.Header.Get("Content-Length"))
		same(t, "", none)
	}
	_, page := ask(t, http.MethodGet, root+"clamav/")
	if !strings.Contains(page, `href="./a%20b/%3Ci%3E&amp;.ndb"`) || !strings.Contains(page, "a b/&lt;i&gt;&amp;.ndb") {
		t.Errorf("got %s", page)
	}
}

// A publication is picked up without a restart; one that cannot be read
// leaves the one before.
func TestHandlerPicksUp(t *testing.T) {
	w := newWorld(t)
	root := w.serve(t).URL + "/files/db/"
	get := func() string {
		resp, body := ask(t, http.MethodGet, root+"db/a")
		return fmt.Sprint(resp.StatusCode, " ", body)
	}
	if got := get(); !strings.HasPrefix(got, "404") {
		t.Errorf("got %s", got)
	}
	w.mustPublish(t, PublishConfig{}, map[string]tree{"db": {"a": "1"}})
	same(t, "200 1", get())
	w.mustPublish(t, PublishConfig{}, map[string]tree{"db": {"a": "2"}})
	same(t, "200 2", get())
	name := filepath.Join(w.state, currentName)
	good, err := os.ReadFile(name)
	must(t, err)
	for _, bad := range []string{"", "{}", strings.Replace(string(good), sourceName, "files/other", 1), strings.Replace(string(good), "sha256:", "sha256:00", 1)} {
		must(t, os.WriteFile(name, []byte(bad), 0o600))
		same(t, "200 2", get())
	}
	fresh := httptest.NewRecorder()
	NewHandler(w.state, w.st, nil).ServeHTTP(fresh, httptest.NewRequest(http.MethodGet, "/", nil))
	same(t, http.StatusInternalServerError, fresh.Code)
	must(t, os.Remove(name))
	w.mustPublish(t, PublishConfig{}, map[string]tree{"db": {"a": "3"}})
	same(t, "200 3", get())
	w.mustPublish(t, PublishConfig{}, nil)
	if got := get(); !strings.HasPrefix(got, "404") {
		t.Errorf("got %s", got)
	}
}

// A damaged blob is never sent.
func TestHandlerDamage(t *testing.T) {
	w := newWorld(t)
	root := w.serve(t).URL + "/files/db/"
	w.mustPublish(t, PublishConfig{}, map[string]tree{"db": {"a": "right"}})
	h := artifact.Sum([]byte("right")).Hex()
	blob := filepath.Join(filepath.Dir(w.state), "store", "blobs", "sha256", h[:2], h)
	must(t, os.Chmod(blob, 0o600))
	must(t, os.WriteFile(blob, []byte("WRONG"), 0o600))
	for range 2 {
		resp, body := ask(t, http.MethodGet, root+"db/a")
		if resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "WRONG") {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
}
