package fetch

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGet(t *testing.T) {
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{
		"https://index.example": j.steps(redirect("https://files.example/b?sig=s1gned")),
		"https://files.example": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("ETag", `W/"weak"`)
			_, _ = w.Write([]byte("<html>"))
		},
	})
	c := w.client(func(c *Config) { c.UserAgent = "darkmirror/1" })
	resp, err := c.Get(t.Context(), "https://index.example/a", GetOptions{Accept: "text/html", Limit: 6})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status != 200 || resp.URL != "https://files.example/b" || string(resp.Body) != "<html>" || resp.Header.Get("ETag") != `W/"weak"` {
		t.Errorf("%+v", resp)
	}
	r := j.all()[0]
	got := []string{r.Header.Get("Accept"), r.Header.Get("Accept-Encoding"), r.Header.Get("User-Agent")}
	if diff := cmp.Diff([]string{"text/html", "gzip", "darkmirror/1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestGetConditional(t *testing.T) {
	const date = "Sun, 22 Nov 2026 20:00:00 GMT"
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(status(http.StatusNotModified))})
	c := w.client()
	for _, o := range []GetOptions{{ETag: `W/"a"`}, {LastModified: date}} {
		resp, err := c.Get(t.Context(), "https://index.example/", o)
		if err != nil || resp.Status != http.StatusNotModified || len(resp.Body) != 0 {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if a, b := j.all()[0].Header.Get("If-None-Match"), j.all()[1].Header.Get("If-Modified-Since"); a != `W/"a"` || b != date {
		t.Errorf("sent %q and %q", a, b)
	}
	_, err := c.Get(t.Context(), "https://index.example/", GetOptions{})
	unavailable(t, err, http.StatusNotModified) // nobody asked for that
}

// TestGetLimit: by the header, by counting, and after decompression.
func TestGetLimit(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 16 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	const limit = 64 << 10
	if bomb.Len() > limit {
		t.Fatalf("the bomb has %d bytes", bomb.Len())
	}
	for name, h := range map[string]http.HandlerFunc{
		"announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(limit+1))
			_, _ = w.Write(make([]byte, limit+1))
		},
		"counted": func(w http.ResponseWriter, _ *http.Request) {
			for range limit/1024 + 1 {
				_, _ = w.Write(make([]byte, 1024))
			}
		},
		"gzip bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		},
	} {
		var j journal
		w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(h)})
		_, err := w.client().Get(t.Context(), "https://index.example/x?sig=s1gned", GetOptions{Limit: limit})
		refused(t, err, "FETCH-LIMIT")
		contains(t, err.Error(), "pypi/main: https://index.example/x:", "65536 bytes")
		if len(j.all()) != 1 || strings.Contains(err.Error(), "s1gned") {
			t.Errorf("%s: %d requests: %v", name, len(j.all()), err)
		}
	}
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": text(strings.Repeat("x", limit))})
	if resp, err := w.client().Get(t.Context(), "https://index.example/", GetOptions{Limit: limit}); err != nil || len(resp.Body) != limit {
		t.Errorf("exactly the limit: %v", err)
	}
}

func TestGetBrokenGzip(t *testing.T) {
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte("no gzip at all"))
	})})
	_, err := w.client().Get(t.Context(), "https://index.example/", GetOptions{})
	unavailable(t, err, 0)
	if len(j.all()) != 4 {
		t.Errorf("%d requests", len(j.all()))
	}
}

func TestHead(t *testing.T) {
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(file(noise(12345), `"v"`))})
	resp, err := w.client().Head(t.Context(), "https://index.example/x?q")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Content-Length") != "12345" || resp.URL != "https://index.example/x" || resp.Body != nil {
		t.Errorf("%+v", resp)
	}
	if r := j.all()[0]; r.Method != http.MethodHead || r.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("%s, %v", r.Method, r.Header)
	}
}
