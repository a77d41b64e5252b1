package modelpack

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// into lets the world publish into a registry besides.
func (w *world) into(reg *ocitest.Registry) {
	w.t.Helper()
	srv := httptest.NewServer(reg)
	w.t.Cleanup(srv.Close)
	cfg := oci.PublishConfig{Name: "models", Models: "llm", Modelcar: true, Registry: srv.URL + "/mirror", AllowHTTP: true}
	fc := cfg.Fetch("oci/models")
	fc.Hosts = []string{strings.TrimPrefix(srv.URL, "http://")}
	client, err := fetch.New(fetch.NewPool(0, 0), fc)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.tg.p, err = oci.NewPublisher(cfg, "oci/models", client, w.st, w.dir, nil, nil); err != nil {
		w.t.Fatal(err)
	}
}

func TestPush(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true, Modelcar: true})
	reg := ocitest.New()
	w.into(reg)
	files := small(1)
	r := w.revision("team/model", "a", "main", files)
	if text := w.publish(r); !strings.Contains(text, "4 pushed, 0 unchanged") {
		t.Errorf("text: %q", text)
	}
	raw, mediaType, _, ok := reg.Manifest("mirror/team/model", "main")
	if !ok {
		t.Fatal("the artifact is not there")
	}
	m, err := spec.ParseManifest(raw, mediaType)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		p := l.Annotations[noteFilepath]
		if b, ok := reg.Blob("mirror/team/model", l.Digest); !ok || string(b) != string(files[p]) {
			t.Errorf("%s: there %v, %d bytes", p, ok, len(b))
		}
	}
	if tags := reg.Tags("mirror/team/model-modelcar"); len(tags) != 2 || tags["main"] != tags[r.Commit] {
		t.Errorf("tags of the modelcar: %v", tags)
	}
	reg.ResetLog()
	if text := w.publish(r); !strings.Contains(text, "0 pushed, 4 unchanged") || reg.Writes() != 0 {
		t.Errorf("again: %q, %d requests changed something", text, reg.Writes())
	}
}

// What the registry refuses stands beside what no registry could take.
func TestPushRefused(t *testing.T) {
	w := newWorld(t, Options{ModelPack: true})
	w.into(ocitest.New(ocitest.Before(func(rw http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPut || !strings.Contains(q.URL.Path, "/team/closed/manifests/") {
			return false
		}
		http.Error(rw, "no", http.StatusForbidden)
		return true
	})))
	closed := w.revision("team/closed", "a", "", small(1))
	text, err := w.tg.Publish(t.Context(), set(closed, w.revision("team/a._b", "a", "", small(1)), w.revision("team/open", "a", "", small(1))), 7, published)
	if err == nil || !strings.Contains(text, "1 pushed") || !strings.Contains(err.Error(), "team/closed "+closed.Commit) || !strings.Contains(err.Error(), "team/a._b") {
		t.Errorf("got %q, %v", text, err)
	}
	if w.tags("team/open") == nil || w.tags("team/closed") == nil {
		t.Error("the embedded registry has not what it could have")
	}
}
