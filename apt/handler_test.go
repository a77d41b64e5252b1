package apt

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestHandler(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	h := http.StripPrefix("/apt/main", NewHandler(w.publisher().Tree(), w.dir, w.st, nil))
	ask := func(method, name string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "/apt/main/"+name, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	body := func(r *httptest.ResponseRecorder) string { return r.Body.String() }
	if r := ask(http.MethodGet, "debian/dists/test/InRelease"); r.Code != http.StatusNotFound {
		t.Errorf("before the first publication: %d", r.Code)
	}
	snap := w.resolve(w.config("jq"))
	w.publish(snap, 1, time.Now())
	deb := snap.Artifacts[0].Files[0]

	for name, want := range map[string]string{
		"debian/dists/test/InRelease":                     cacheNever,
		"debian/dists/test/Release.gpg":                   cacheNever,
		"debian/dists/test/main/binary-amd64/Packages.xz": cacheNever,
		deb.Path:      cacheForEver,
		keyringBinary: cacheNever,
	} {
		r := ask(http.MethodGet, name)
		if r.Code != http.StatusOK || r.Header().Get("Cache-Control") != want || r.Header().Get("ETag") == "" {
			t.Errorf("%s: %d %v", name, r.Code, r.Header())
		}
		again := ask(http.MethodGet, name, "If-None-Match", r.Header().Get("ETag"))
		if again.Code != http.StatusNotModified {
			t.Errorf("%s again: %d", name, again.Code)
		}
		head := ask(http.MethodHead, name)
		if b := body(head); head.Code != http.StatusOK || b != "" || head.Header().Get("Content-Length") != r.Header().Get("Content-Length") {
			t.Errorf("HEAD %s: %d %v", name, head.Code, head.Header())
		}
	}
	if got := body(ask(http.MethodGet, deb.Path)); artifact.Sum([]byte(got)) != deb.Digest {
		t.Errorf("%d bytes of another digest", len(got))
	}
	if r := ask(http.MethodGet, deb.Path, "Range", "bytes=0-7"); r.Code != http.StatusPartialContent || body(r) != arMagic {
		t.Errorf("range: %d", r.Code)
	}
	modified := ask(http.MethodGet, "debian/dists/test/InRelease").Header().Get("Last-Modified")
	if want := published(t, w.publisher()).Date.UTC().Format(http.TimeFormat); modified != want {
		t.Errorf("InRelease last modified %s, want its Date %s", modified, want)
	}
	for _, name := range []string{
		"", "debian", "debian/", "debian/dists/test/", "debian/pool/none.deb", "../signing-key.asc", "debian/../../signing-key.asc",
		"debian/dists/test/../../../signing-key.asc", "publications/00000001.json", "debian/dists/test/.tmp-1", "debian/dists/none/InRelease",
		"debian//dists/test/InRelease",
	} {
		if r := ask(http.MethodGet, name); r.Code != http.StatusNotFound {
			t.Errorf("%q: %d", name, r.Code)
		}
	}
	if r := ask(http.MethodPost, deb.Path); r.Code != http.StatusMethodNotAllowed || r.Header().Get("Allow") == "" {
		t.Errorf("POST: %d", r.Code)
	}

	// A new publication is picked up.
	w.publish(w.resolve(w.config("jq", "other")), 2, time.Now())
	if r := ask(http.MethodGet, "debian/pool/main/other/other_3.0+x~1_all.deb"); r.Code != http.StatusOK {
		t.Errorf("new file: %d", r.Code)
	}

	// A damaged blob is never served.
	full := filepath.Join(w.publisher().Tree(), filepath.FromSlash(deb.Path))
	if err := os.Chmod(full, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(full, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("X"), 100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := ask(http.MethodGet, deb.Path); r.Code != http.StatusInternalServerError || strings.Contains(body(r), arMagic) {
			t.Errorf("damaged: %d", r.Code)
		}
	}
}
