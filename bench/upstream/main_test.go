package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testSize = 300_001 // not a multiple of a block

// get returns the body of an answer with the status want.
func get(t *testing.T, url, ranges string, want int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	if resp.StatusCode != want {
		t.Fatalf("GET %s: status %d, want %d", url, resp.StatusCode, want)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexSum(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// serve makes a mux and serves it as main does.
func serve(t *testing.T, fill func(*http.ServeMux, string) error) (url, out string, tl *tally) {
	t.Helper()
	mux, out := http.NewServeMux(), t.TempDir()
	if err := fill(mux, out); err != nil {
		t.Fatal(err)
	}
	tl = newTally(mux)
	srv := httptest.NewServer(tl)
	t.Cleanup(srv.Close)
	return srv.URL, out, tl
}

func TestWheel(t *testing.T) {
	url, out, tl := serve(t, func(mux *http.ServeMux, out string) error {
		return serveWheels(mux, "seed", spec{"big", 1, testSize}, out)
	})
	body := get(t, url+"/files/big-1.0-py3-none-any.whl", "", http.StatusOK)
	pins, err := os.ReadFile(filepath.Join(out, "requirements-big.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "big==1.0 --hash=sha256:" + hexSum(body) + "\n"; string(pins) != want {
		t.Errorf("requirements: %q, want %q", pins, want)
	}
	z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	noise := 0
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r) // the reader compares the checksum
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		if strings.HasSuffix(f.Name, ".bin") {
			noise += len(b)
		}
	}
	if noise != testSize {
		t.Errorf("%d bytes of noise, want %d", noise, testSize)
	}
	// From any offset the bytes are those of the whole.
	for _, c := range []struct {
		ranges     string
		start, end int
	}{{"bytes=0-99", 0, 100}, {"bytes=12345-", 12345, len(body)}, {"bytes=150001-150016", 150001, 150017}, {"bytes=-700", len(body) - 700, len(body)}} {
		if got := get(t, url+"/files/big-1.0-py3-none-any.whl", c.ranges, http.StatusPartialContent); !bytes.Equal(got, body[c.start:c.end]) {
			t.Errorf("range %s: other bytes", c.ranges)
		}
	}
	got := tl.counters().Paths["/files/big-1.0-py3-none-any.whl"]
	want := count{Requests: 5, Ranges: 4, Bytes: int64(len(body) + 100 + len(body) - 12345 + 16 + 700)}
	if got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestPage(t *testing.T) {
	url, _, _ := serve(t, func(mux *http.ServeMux, out string) error {
		return serveWheels(mux, "seed", spec{"many", 3, 100}, out)
	})
	var page struct {
		Files []struct {
			URL    string
			Size   int
			Hashes struct{ SHA256 string }
		}
	}
	if err := json.Unmarshal(get(t, url+"/simple/many-00002/", "", http.StatusOK), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Files) != 1 {
		t.Fatalf("%d files, want 1", len(page.Files))
	}
	f := page.Files[0]
	body := get(t, url+"/simple/many-00002/"+f.URL, "", http.StatusOK)
	if len(body) != f.Size || hexSum(body) != f.Hashes.SHA256 {
		t.Errorf("%d bytes %s, the page says %d bytes %s", len(body), hexSum(body), f.Size, f.Hashes.SHA256)
	}
}

func TestArchive(t *testing.T) {
	url, out, _ := serve(t, func(mux *http.ServeMux, out string) error {
		return serveArchive(mux, "seed", specs{{"deb", 4, testSize}}, 5, out)
	})
	packages := string(get(t, url+"/debian/dists/bench/main/binary-amd64/Packages", "", http.StatusOK))
	if release := string(get(t, url+"/debian/dists/bench/InRelease", "", http.StatusOK)); !strings.Contains(release, hexSum([]byte(packages))) {
		t.Error("InRelease does not list Packages")
	}
	if n := strings.Count(packages, "\nPackage: ") + 1; n != 9 {
		t.Errorf("%d packages, want 9", n)
	}
	if !strings.Contains(packages, "Package: deb-00001\n") || !strings.Contains(packages, "\nDepends: deb-00001 (>= 1.0), deb-00002 (>= 1.0)\n") {
		t.Errorf("no tree of dependencies in %.500q", packages)
	}
	body := get(t, url+"/debian/pool/main/deb-00003_1.0_amd64.deb", "", http.StatusOK)
	if !strings.Contains(packages, "SHA256: "+hexSum(body)+"\n") {
		t.Error("Packages has another digest than the file")
	}
	// The last member is a whole tar file: one entry, and its end.
	_, data, ok := bytes.Cut(body, []byte("`\n./usr/share/"))
	if !ok {
		t.Fatal("no data.tar")
	}
	r := tar.NewReader(io.MultiReader(strings.NewReader("./usr/share/"), bytes.NewReader(data)))
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n != testSize || h.Size != testSize {
		t.Errorf("data of %d bytes, %v, want %d", n, err, testSize)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the entry: %v, want EOF", err)
	}
	if _, err := os.Stat(filepath.Join(out, "keyring.asc")); err != nil {
		t.Error(err)
	}
}

func TestThrottle(t *testing.T) {
	var th throttle
	th.set(1_000_000)
	start := time.Now()
	for range 10 {
		th.wait(10_000)
	}
	if took := time.Since(start); took < 90*time.Millisecond {
		t.Errorf("100 kB at 1 MB/s took %v", took)
	}
}

func TestReset(t *testing.T) {
	url, _, tl := serve(t, func(mux *http.ServeMux, out string) error {
		return serveWheels(mux, "seed", spec{"one", 1, 100}, out)
	})
	get(t, url+"/simple/one/", "", http.StatusOK)
	get(t, url+"/simple/two/", "", http.StatusNotFound)
	if c := tl.counters(); c.Requests != 2 || len(c.Paths) != 2 {
		t.Errorf("counted %+v, want two requests", c)
	}
	get(t, url+"/-/reset", "", http.StatusNotFound) // GET changes nothing
	resp, err := http.Post(url+"/-/reset", "", nil) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if c := tl.counters(); c.Requests != 0 || len(c.Paths) != 0 {
		t.Errorf("counted %+v after a reset", c)
	}
}

func TestSpec(t *testing.T) {
	var s specs
	if err := s.Set("big:2:4096"); err != nil || len(s) != 1 || s[0] != (spec{"big", 2, 4096}) {
		t.Errorf("got %v, %v", s, err)
	}
	for _, bad := range []string{"", "big", "big:1", "Big:1:1", "b-g:1:1", "big:0:1", "big:x:1", "big:1:0", "big:1:-5", "big:1:99999999999999"} {
		if err := s.Set(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
