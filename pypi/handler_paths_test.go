package pypi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// edit changes current.json behind the publisher's back.
func (in *inside) edit(t *testing.T, change func(*current)) {
	t.Helper()
	cur, err := in.pub.previous()
	if err != nil {
		t.Fatal(err)
	}
	change(cur)
	if err := in.pub.write(cur); err != nil {
		t.Fatal(err)
	}
}

// do asks h itself, without a network.
func do(t *testing.T, h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://mirror.example/", nil)
	r.URL.Path = path
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Both shapes of a file's URL lead to the same bytes, with the same headers.
func TestHandlerPackagesPath(t *testing.T) {
	_, srv := serve(t)
	base := srv.URL + "/pypi/main/"
	for _, f := range sample() {
		old := get(t, base+"files/"+f.SHA256()+"/"+strings.ReplaceAll(f.Name, "+", "%2B"))
		for _, u := range []string{packagesPath(f), strings.ReplaceAll(packagesPath(f), "+", "%2B")} {
			r := get(t, base+u)
			if r.status != http.StatusOK || r.body != string(f.Body) || r.header.Get("ETag") != old.header.Get("ETag") || !strings.Contains(r.header.Get("Cache-Control"), "immutable") {
				t.Errorf("%s: %d %v", u, r.status, r.header)
			}
		}
		m := get(t, base+packagesPath(f)+".metadata")
		switch {
		case f.Metadata == nil && m.status != http.StatusNotFound:
			t.Errorf("%s has metadata: %d", f.Name, m.status)
		case f.Metadata != nil && (m.body != string(f.Metadata) || !strings.HasPrefix(m.header.Get("Content-Type"), "text/plain")):
			t.Errorf("%s: metadata: %d %q", f.Name, m.status, m.body)
		}
		if p := get(t, base+packagesPath(f)+".provenance"); p.status != http.StatusNotFound {
			t.Errorf("%s has provenance: %d", f.Name, p.status)
		}
	}
}

func TestHandlerPackagesPathRefused(t *testing.T) {
	in, _ := serve(t)
	h := NewHandler(in.dir, in.store, nil)
	f, g := sample()[1], sample()[2]
	right := packagesPath(f)
	if w := do(t, h, "/"+right); w.Code != http.StatusOK {
		t.Fatalf("the right path: %d", w.Code)
	}
	for _, path := range []string{
		strings.Replace(right, f.Name, g.Name, 1),
		strings.ToUpper(right[:len("packages/aa")])[:0] + "packages/" + strings.ToUpper(right[9:75]) + f.Name,
		strings.Replace(right, "packages/", "packages//", 1),
		strings.Replace(right, "packages/", "files/", 1),
		"packages/" + f.SHA256()[:2] + "/" + f.SHA256()[2:4] + "/" + f.SHA256()[4:] + "/" + f.Name, // another hash
		right + "/", right + ".metadata.metadata", right + ".metadata.provenance", right + "/../" + f.Name,
		"packages/", "packages/aa/bb/", "packages/aa/bb/cc/" + f.Name, right[:75], right[:74],
		"packages/zz" + right[11:], "./" + right,
	} {
		if w := do(t, h, "/"+path); w.Code != http.StatusNotFound {
			t.Errorf("%q: %d", path, w.Code)
		}
	}
}

// A page that an older program published links to what that program served.
func TestHandlerOldPublication(t *testing.T) {
	in, srv := serve(t)
	in.edit(t, func(c *current) {
		c.Serial = 0
		for i := range c.Projects {
			for j := range c.Projects[i].Files {
				c.Projects[i].Files[j].Blake2b = ""
			}
		}
	})
	r := get(t, srv.URL+"/pypi/main/simple/foo-bar/", "Accept", typeJSON)
	f := sample()[1]
	if !strings.Contains(r.body, `"url":"../../files/`+f.SHA256()+"/"+f.Name+`"`) || r.header.Get("X-PyPI-Last-Serial") != "" {
		t.Errorf("%v %s", r.header, r.body)
	}
	if r := get(t, srv.URL+"/pypi/main/files/"+f.SHA256()+"/"+f.Name); r.body != string(f.Body) {
		t.Errorf("got %d", r.status)
	}
	in.publish(t, 2) // heals it
	if r := get(t, srv.URL+"/pypi/main/"+packagesPath(f)); r.body != string(f.Body) {
		t.Errorf("published again: %d", r.status)
	}
}

func TestHandlerProvenance(t *testing.T) {
	in, srv := serve(t)
	object := []byte(`{"version":1,"attestation_bundles":[]}`)
	d, err := in.store.PutBytes(object)
	if err != nil {
		t.Fatal(err)
	}
	in.edit(t, func(c *current) { c.Projects[0].Files[0].Provenance = d.String() })
	f := sample()[2]
	want := "../../" + packagesPath(f) + ".provenance"
	if r := get(t, srv.URL+"/pypi/main/simple/baz/", "Accept", typeJSON); !strings.Contains(r.body, `"provenance":"`+want+`"`) {
		t.Error(r.body)
	}
	if r := get(t, srv.URL+"/pypi/main/simple/baz/", "Accept", typeHTML); !strings.Contains(r.body, ` data-provenance="`+want+`"`) {
		t.Error(r.body)
	}
	r := get(t, srv.URL+"/pypi/main/"+packagesPath(f)+".provenance")
	if r.body != string(object) || r.header.Get("Content-Type") != typeIntegrity || r.header.Get("Cache-Control") != pageAge {
		t.Errorf("%d %v", r.status, r.header)
	}
	if r := get(t, srv.URL+"/pypi/main/simple/foo-bar/", "Accept", typeJSON); strings.Contains(r.body, "provenance") {
		t.Error(r.body)
	}
}

func TestHandlerStatus(t *testing.T) {
	in, srv := serve(t)
	in.edit(t, func(c *current) {
		c.Projects[0].Status, c.Projects[0].StatusReason = "archived", `no "more"`
		c.Projects[1].Status, c.Projects[1].StatusReason = quarantined, "malware"
	})
	base := srv.URL + "/pypi/main/"
	if r := get(t, base+"simple/baz/", "Accept", typeJSON); !strings.Contains(r.body, `"project-status":{"status":"archived","reason":"no \"more\""}`) || !strings.Contains(r.body, "baz-2.0.tar.gz") {
		t.Error(r.body)
	}
	if r := get(t, base+"simple/baz/"); !strings.Contains(r.body, `<meta name="pypi:project-status" content="archived">`) || !strings.Contains(r.body, `<meta name="pypi:project-status-reason" content="no &#34;more&#34;">`) {
		t.Error(r.body)
	}
	// In quarantine: a page that says so, without files, and no file.
	r := get(t, base+"simple/foo-bar/", "Accept", typeJSON)
	if r.status != http.StatusOK || !strings.Contains(r.body, `"project-status":{"status":"quarantined","reason":"malware"},"versions":[],"files":[]}`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := get(t, base+"simple/foo-bar/"); !strings.Contains(r.body, `content="quarantined"`) || strings.Contains(r.body, "<a ") {
		t.Error(r.body)
	}
	f := sample()[1]
	for _, path := range []string{packagesPath(f), packagesPath(f) + ".metadata", "files/" + f.SHA256() + "/" + f.Name} {
		if r := get(t, base+path); r.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, r.status)
		}
	}
}

// The serial grows with every change, stays without one, and never shrinks,
// even if the bundles are counted from 1 again.
func TestHandlerSerial(t *testing.T) {
	in, srv := serve(t)
	in.pub.hide = true
	serial := func() uint64 {
		t.Helper()
		list := get(t, srv.URL+"/pypi/main/simple/").header.Get("X-PyPI-Last-Serial")
		page := get(t, srv.URL+"/pypi/main/simple/baz/", "Accept", typeJSON).header.Get("X-PyPI-Last-Serial")
		n, err := strconv.ParseUint(list, 10, 64)
		if err != nil || list != page {
			t.Fatalf("%q %q %v", list, page, err)
		}
		return n
	}
	last := serial()
	for i, step := range []struct {
		seq    uint64
		drop   bool
		change int // of the serial: 1 grows, 0 stays
	}{{1, false, 0}, {2, false, 0}, {7, true, 1}, {1, false, 1}, {1, true, 1}, {900, false, 1}} {
		files := sample()
		if step.drop {
			files = files[1:]
		}
		in.load(t, files, nil)
		in.publish(t, step.seq)
		now := serial()
		if now < last || (now > last) != (step.change == 1) {
			t.Errorf("step %d: %d after %d", i, now, last)
		}
		last = now
	}
	if last != 900 {
		t.Errorf("the serial is %d, behind the bundle's number", last)
	}
}

func TestHandlerRanges(t *testing.T) {
	_, srv := serve(t)
	f := sample()[1]
	u, body := srv.URL+"/pypi/main/"+packagesPath(f), string(f.Body)
	for spec, want := range map[string]int{
		"bytes=0-0,2-3":                       http.StatusOK, // several: the whole file
		"bytes=" + strings.Repeat("0-,", 99):  http.StatusOK,
		"bytes=-0":                            http.StatusOK,
		"lines=0-1":                           http.StatusRequestedRangeNotSatisfiable,
		fmt.Sprintf("bytes=-%d", len(body)+9): http.StatusPartialContent,
		fmt.Sprintf("bytes=%d-", len(body)):   http.StatusRequestedRangeNotSatisfiable,
		fmt.Sprintf("bytes=0-%d", 1<<40):      http.StatusPartialContent,
	} {
		r := get(t, u, "Range", spec)
		if r.status != want || want != http.StatusRequestedRangeNotSatisfiable && r.body != body {
			t.Errorf("%s: %d, %d bytes", spec, r.status, len(r.body))
		}
	}
	// If-Range: another version of the file is sent whole.
	if r := get(t, u, "Range", "bytes=1-2", "If-Range", `"old"`); r.status != http.StatusOK || r.body != body {
		t.Errorf("If-Range: %d", r.status)
	}
	if r := get(t, u, "Range", "bytes=1-2", "If-Range", `"`+f.SHA256()+`"`); r.status != http.StatusPartialContent || r.body != body[1:3] {
		t.Errorf("If-Range: %d", r.status)
	}
}

// A tag names one form only, compressed or not.
func TestHandlerTags(t *testing.T) {
	var files []pypitest.File
	for i := range 9 { // so that the JSON page is worth compressing
		files = append(files, pypitest.Wheel(fmt.Sprintf("foo_bar-%d.0-py3-none-any.whl", i), ""))
	}
	in := newInside(t, files, nil)
	in.publish(t, 1)
	h := NewHandler(in.dir, in.store, nil)
	seen := make(map[string]string)
	for _, kind := range []string{typeJSON, typeHTML, typePlain} {
		for _, coding := range []string{"", "gzip"} {
			w := do(t, h, "/simple/foo-bar/", "Accept", kind, "Accept-Encoding", coding)
			tag := w.Header().Get("ETag")
			if other, ok := seen[tag]; ok || w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != coding {
				t.Errorf("%s %q: %v; %q has its tag", kind, coding, w.Header(), other)
			}
			seen[tag] = kind + " " + coding
			n := do(t, h, "/simple/foo-bar/", "Accept", kind, "Accept-Encoding", coding, "If-None-Match", "W/"+tag).Result()
			if n.StatusCode != http.StatusNotModified || n.Header.Get("Vary") == "" || n.Header.Get("Cache-Control") != pageAge || n.Header.Get("Content-Encoding") != "" || n.Body.Close() != nil {
				t.Errorf("%s %s: %d %v", kind, coding, n.StatusCode, n.Header)
			}
		}
	}
}

// Pages beyond the room are right, and are not kept.
func TestHandlerPagesBeyondRoom(t *testing.T) {
	in, _ := serve(t)
	p := &publication{file: filepath.Join(in.dir, currentName), store: in.store}
	s, err := p.read()
	if err != nil {
		t.Fatal(err)
	}
	s.room.Store(10)
	one, err := s.page(s.projects["baz"], typeJSON)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.page(s.projects["baz"], typeJSON)
	if err != nil || one == two || string(one.body) != string(two.body) || s.room.Load() != 10 {
		t.Errorf("kept: %v, %v, room %d", one == two, err, s.room.Load())
	}
	s.room.Store(maxPages)
	if one, err = s.page(s.projects["baz"], typeJSON); err != nil {
		t.Fatal(err)
	}
	if two, err := s.page(s.projects["baz"], typeJSON); err != nil || one != two {
		t.Errorf("rendered twice: %v", err)
	}
}

// PEP 700 wants UTC and six digits at most.
func TestUploadTime(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "2026-01-02T03:04:05Z": "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.1234567Z": "2026-01-02T03:04:05.123456Z",
		"2026-01-02T03:04:05+02:00": "2026-01-02T01:04:05Z",
	} {
		f := currentFile{File: indexFile{UploadTime: in}}
		if got := f.uploadTime(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// The one blob of two filenames is served under both.
func TestHandlerSameBytes(t *testing.T) {
	f := pypitest.Sdist("baz-2.0.tar.gz")
	in := newInside(t, []pypitest.File{f}, nil)
	in.publish(t, 1)
	in.edit(t, func(c *current) {
		again := c.Projects[0].Files[0]
		again.File.Filename = "baz-2.0.zip"
		c.Projects[0].Files = append(c.Projects[0].Files, again)
	})
	h := NewHandler(in.dir, in.store, nil)
	for _, name := range []string{"baz-2.0.tar.gz", "baz-2.0.zip"} {
		if w := do(t, h, "/"+strings.Replace(packagesPath(f), f.Name, name, 1)); w.Body.String() != string(f.Body) {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

func TestCurrentRefused(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	for name, change := range map[string]func(*currentFile){
		"blake2b": func(f *currentFile) { f.Blake2b = "../../x" }, "provenance": func(f *currentFile) { f.Provenance = "sha256:1" },
	} {
		cur, err := in.pub.previous()
		if err != nil {
			t.Fatal(err)
		}
		change(&cur.Projects[0].Files[0])
		b, err := json.Marshal(cur)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeCurrent(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// BenchmarkHandler counts what one request costs: a page, its revalidation, a
// file.
func BenchmarkHandler(b *testing.B) {
	st, err := store.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "state")
	pub, err := NewPublisher(PublishConfig{}, "pypi/main", st, dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	folder := b.TempDir()
	for i := range 50 {
		f := pypitest.Wheel(fmt.Sprintf("foo-%d.0-py3-none-any.whl", i), ">=3.9")
		if err := os.WriteFile(filepath.Join(folder, f.Name), f.Body, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := pub.PublishFolder(b.Context(), folder, time.Now()); err != nil {
		b.Fatal(err)
	}
	h := NewHandler(dir, st, nil)
	f := pypitest.Wheel("foo-1.0-py3-none-any.whl", ">=3.9")
	for name, c := range map[string]struct {
		path    string
		headers []string
		status  int
	}{
		"page":       {"/simple/foo/", []string{"Accept", acceptPage, "Accept-Encoding", "gzip, deflate"}, http.StatusOK},
		"revalidate": {"/simple/foo/", []string{"Accept", acceptPage, "If-None-Match", "*"}, http.StatusNotModified},
		"file":       {"/" + packagesPath(f), nil, http.StatusOK},
		"metadata":   {"/" + packagesPath(f) + ".metadata", nil, http.StatusOK},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "http://mirror.example"+c.path, nil)
			for i := 0; i < len(c.headers); i += 2 {
				r.Header.Set(c.headers[i], c.headers[i+1])
			}
			b.ReportAllocs()
			for b.Loop() {
				w := nowhere{http.Header{}, 0}
				h.ServeHTTP(&w, r)
				if w.status != c.status {
					b.Fatal(w.status)
				}
			}
		})
	}
}

// nowhere is a ResponseWriter that keeps the status only.
type nowhere struct {
	head   http.Header
	status int
}

func (n *nowhere) Header() http.Header { return n.head }

func (n *nowhere) Write(b []byte) (int, error) {
	if n.status == 0 {
		n.status = http.StatusOK
	}
	return len(b), nil
}

func (n *nowhere) WriteHeader(status int) { n.status = status }
