package oci

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/oci/helm"
	"github.com/darkmirror/darkmirror/oci/ocitest"
)

func TestCharts(t *testing.T) {
	w := newWorld(t, "charts/web:1.2.3_b.1", "team/app:1.0")
	tgz := ocitest.Noise(500, 3)
	w.reg.Put("charts/web", "1.2.3_b.1", ocitest.Chart(map[string]string{"apiVersion": "v2", "name": "web", "version": "1.2.3+b.1"}, tgz))
	w.reg.Put("team/app", "1.0", ocitest.Image(ocitest.Noise(50, 1)))
	dir := t.TempDir()
	h := NewCharts(dir, w.st, slog.New(slog.DiscardHandler))
	ask := func(method, path string) (int, string) {
		t.Helper()
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		b, err := io.ReadAll(rec.Body)
		if err != nil {
			t.Fatal(err)
		}
		return rec.Code, string(b)
	}
	// Nothing is published yet: an index without entries.
	code, body := ask(http.MethodGet, "/index.yaml")
	if x, err := helm.ParseIndex([]byte(body)); code != http.StatusOK || err != nil || len(x.Names()) != 0 {
		t.Fatalf("%d, %v, %q", code, err, body)
	}
	snap, _ := w.resolve(nil)
	p, err := NewPublisher(PublishConfig{Name: "platform"}, "oci/platform", nil, w.st, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), snap, 7, published); err != nil {
		t.Fatal(err)
	}
	_, body = ask(http.MethodGet, "/index.yaml")
	x, err := helm.ParseIndex([]byte(body))
	if err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	list := x.Versions("web")
	if len(x.Names()) != 1 || len(list) != 1 || list[0].Version != "1.2.3+b.1" || len(list[0].URLs) != 1 {
		t.Fatalf("index: %s", body)
	}
	code, body = ask(http.MethodGet, "/"+list[0].URLs[0])
	if code != http.StatusOK || body != string(tgz) {
		t.Errorf("the chart: %d, %d bytes", code, len(body))
	}
	for path, want := range map[string]int{"/web-1.2.3+b.1.tgz.prov": http.StatusNotFound, "/": http.StatusNotFound, "/../index.yaml": http.StatusNotFound} {
		if code, _ := ask(http.MethodGet, path); code != want {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := ask(http.MethodPost, "/index.yaml"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	if strings.Contains(body, "app") {
		t.Error("an image is listed as a chart")
	}
}
