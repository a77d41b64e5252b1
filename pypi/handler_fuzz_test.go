package pypi

import (
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

// fuzzIndex is a handler with one wheel.
func fuzzIndex(f *testing.F) (*Handler, pypitest.File) {
	f.Helper()
	st, err := store.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	dir, folder := filepath.Join(f.TempDir(), "state"), f.TempDir()
	pub, err := NewPublisher(PublishConfig{}, "pypi/main", st, dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	file := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	if err := os.WriteFile(filepath.Join(folder, file.Name), file.Body, 0o600); err != nil {
		f.Fatal(err)
	}
	if _, err := pub.PublishFolder(f.Context(), folder, time.Now()); err != nil {
		f.Fatal(err)
	}
	return NewHandler(dir, st, nil), file
}

// FuzzRange: whatever the header says, the answer is the whole file, the
// range that Content-Range names, or a refusal.
func FuzzRange(f *testing.F) {
	h, file := fuzzIndex(f)
	seed(f, "bytes=0-3", "bytes=-5", "bytes=10-", "bytes=0-0,5-6", "bytes=9999999999-", "bytes=5-2", "bytes", "bytes=-", "bytes=-0", "bytes= 1 - 2", "items=0-1", "bytes=0-99999999999999999999")
	f.Fuzz(func(t *testing.T, spec string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/"+packagesPath(file), nil)
		r.Header.Set("Range", spec)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.String()
		switch w.Code {
		case http.StatusOK:
			if body != string(file.Body) {
				t.Fatalf("%q: another file", spec)
			}
		case http.StatusPartialContent:
			span, total, _ := strings.Cut(strings.TrimPrefix(w.Header().Get("Content-Range"), "bytes "), "/")
			from, to, _ := strings.Cut(span, "-")
			a, err1 := strconv.Atoi(from)
			b, err2 := strconv.Atoi(to)
			if err1 != nil || err2 != nil || total != strconv.Itoa(len(file.Body)) || a > b || b >= len(file.Body) || body != string(file.Body[a:b+1]) {
				t.Fatalf("%q: %q, %d bytes", spec, w.Header().Get("Content-Range"), len(body))
			}
		case http.StatusRequestedRangeNotSatisfiable:
			if strings.Contains(body, "PK") {
				t.Fatalf("%q: refused, and sent", spec)
			}
		default:
			t.Fatalf("%q: status %d", spec, w.Code)
		}
	})
}

// FuzzPath: no path but the right ones leads to a file, and none has the
// handler panic or answer with an error of its own.
func FuzzPath(f *testing.F) {
	h, file := fuzzIndex(f)
	right := packagesPath(file)
	other := "files/" + file.SHA256() + "/" + file.Name
	seed(f, right, other, right+".metadata", "simple/foo/", "simple/Foo", "simple//", "simple/../files/", "packages/aa/bb/../../"+file.Name, strings.ToUpper(right), "files/"+file.SHA256(), "\x00", "simple/f\x00o/")
	f.Fuzz(func(t *testing.T, path string) {
		w := do(t, h, "/"+path)
		switch w.Code {
		case http.StatusOK:
			if strings.HasPrefix(w.Body.String(), "PK") && path != right && path != other && "/"+path != "//"+right {
				t.Fatalf("%q leads to the file", path)
			}
		case http.StatusMovedPermanently:
			if l := w.Header().Get("Location"); strings.Contains(l, "//") || strings.HasPrefix(l, "/") || strings.ContainsAny(l, "\r\n\\:") {
				t.Fatalf("%q: sent to %q", path, l)
			}
		case http.StatusNotFound:
		default:
			t.Fatalf("%q: status %d", path, w.Code)
		}
	})
}

// FuzzAccept: the form that is chosen is one that the client takes, and JSON
// whenever it wants nothing more than that.
func FuzzAccept(f *testing.F) {
	seed(f, acceptPage, "*/*", "text/html;q=0.3, application/*;q=1", "", ";;,q=,", "text/html;q=0.5;q=0, a/b", "application/vnd.pypi.simple.v1+json;q=1.001", "APPLICATION/*;q=0.1,*/*;q=0")
	f.Fuzz(func(t *testing.T, accept string) {
		kind, ok := negotiate(accept)
		if ok != (kind == typeJSON || kind == typeHTML || kind == typePlain) {
			t.Fatalf("%q: %q %v", accept, kind, ok)
		}
		if strings.ContainsAny(accept, "*,;") || len(accept) > maxAccept || strings.TrimSpace(accept) == "" {
			return
		}
		if want := strings.EqualFold(strings.TrimSpace(accept), kind) || strings.Contains(strings.ToLower(accept), ".latest+"); ok && !want {
			t.Fatalf("%q: sent %q", accept, kind)
		}
	})
}
