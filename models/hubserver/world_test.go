package hubserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/hubtest"
)

const (
	prefix = "/hub"
	secret = "a token of the team"
	other  = "a token of others"
	ask    = "platform@site.example"
)

var weights = bytes.Repeat([]byte("weights "), 4000)

// files of the model that most tests are about.
func files() map[string][]byte {
	return map[string][]byte{
		"README.md": []byte("---\nlicense: mit\npipeline_tag: fill-mask\n---\n# Card\n"), "config.json": []byte(`{"model_type":"bert"}`), "empty.txt": {},
		"model.safetensors": weights, "a folder/x+y%20z.txt": []byte("odd name"), "a folder/deep/er.txt": []byte("deeper"), "a folder.txt": []byte("beside"),
		"größe/naïve.txt": []byte("not ASCII"),
	}
}

// A world is a hub outside, what was carried of it, and the hub inside.
type world struct {
	t       testing.TB
	hub     *hubtest.Hub
	model   *hubtest.Repo
	store   *store.Store
	dir     string
	handler *Handler
	url     string
	log     *safeBuffer
	sources map[string]*models.Source
	snaps   map[string]*artifact.Snapshot
	seq     uint64
}

// newWorld carries team/model (main, v1.0, refs/pr/1), gpt2, team/closed and
// the dataset team/data.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := emptyWorld(t)
	w.model = w.hub.AddModel("team/model")
	first := w.model.Commit(files())
	w.model.SetRef("refs/tags/v1.0", first)
	w.model.SetRef("refs/pr/1", first)
	w.hub.AddModel("gpt2").Commit(map[string][]byte{"config.json": []byte("{}")})
	w.hub.AddModel("team/closed").Commit(map[string][]byte{"config.json": []byte("{}")})
	w.hub.AddDataset("team/data").Commit(map[string][]byte{"train.csv": []byte("a,b\n")})
	w.carry("llm", "team/model", "team/model@v1.0", "team/model@refs/pr/1", "gpt2", "team/closed", "datasets/team/data")
	w.publish("llm")
	w.serve(Source{Name: "llm", Dir: w.folder("llm"), Access: []Rule{
		{Repositories: []string{"team/clos*"}, Tokens: []Token{{"team", secret}}, Ask: ask},
		{Repositories: []string{"nobody/*"}, Tokens: []Token{{"others", other}}},
	}})
	return w
}

func emptyWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, hub: hubtest.Start(t, hubtest.Options{Xet: true}), dir: t.TempDir(), log: &safeBuffer{}, sources: make(map[string]*models.Source), snaps: make(map[string]*artifact.Snapshot)}
	st, err := store.Open(filepath.Join(w.dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	w.store = st
	return w
}

func (w *world) folder(name string) string { return filepath.Join(w.dir, "published", name) }

func (w *world) publisher(name string) *models.Publisher {
	w.t.Helper()
	p, err := models.NewPublisher(models.PublishConfig{Name: name}, "models/"+name, w.store, w.folder(name), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// resolve plans a source; these are its repositories where there are any.
func (w *world) resolve(name string, repos ...string) *artifact.Snapshot {
	w.t.Helper()
	if len(repos) > 0 {
		w.sources[name] = w.source(name, repos)
	}
	snap, _, err := w.sources[name].Resolve(w.t.Context(), w.snaps[name])
	if err != nil {
		w.t.Fatal(err)
	}
	w.snaps[name] = snap
	return snap
}

func (w *world) source(name string, repos []string) *models.Source {
	w.t.Helper()
	cfg := models.Config{Name: name, Hub: w.hub.URL, AllowHTTP: true, Repositories: repos}
	s, err := models.NewSource(cfg, "models/"+name, w.fetcher(w.hub.URL, w.hub.CDN), w.store, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) fetcher(urls ...string) *fetch.Client {
	w.t.Helper()
	c := fetch.Config{Name: "models/llm", AllowHTTP: true, RetryWait: time.Millisecond, MaxRetries: 1}
	for _, u := range urls {
		host, err := fetch.Host(u)
		if err != nil {
			w.t.Fatal(err)
		}
		c.Hosts = append(c.Hosts, host)
	}
	client, err := fetch.New(fetch.NewPool(0, 0), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return client
}

// carry brings all that a source plans into the store.
func (w *world) carry(name string, repos ...string) *artifact.Snapshot {
	w.t.Helper()
	snap := w.resolve(name, repos...)
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			w.fetch(name, f)
		}
	}
	return snap
}

func (w *world) fetch(name string, f artifact.File) {
	w.t.Helper()
	if err := w.sources[name].Fetch(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// publish makes what a source carried last what is served.
func (w *world) publish(name string) {
	w.t.Helper()
	w.seq++
	if _, err := w.publisher(name).Publish(w.t.Context(), w.snaps[name], w.seq, time.Unix(1_800_000_000, 0)); err != nil {
		w.t.Fatal(err)
	}
}

// serve starts the hub inside.
func (w *world) serve(sources ...Source) {
	w.t.Helper()
	h, err := New(sources, w.store, Options{Prefix: prefix, Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		w.t.Fatal(err)
	}
	h.look = 0 // tests do not wait
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
	srv := httptest.NewServer(mux)
	w.t.Cleanup(srv.Close)
	w.handler, w.url = h, srv.URL+prefix
}

// A reply is an answer, read to its end.
type reply struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   []byte
	err    error // of the body
}

// do makes a request; headers are pairs. Redirects are not followed.
func (w *world) do(method, path string, headers ...string) *reply {
	w.t.Helper()
	return w.send(method, w.url+path, "", headers...)
}

func (w *world) get(path string, headers ...string) *reply {
	w.t.Helper()
	return w.do(http.MethodGet, path, headers...)
}

func (w *world) send(method, url, body string, headers ...string) *reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body == "" {
		req.Body = nil
	}
	req.Header.Set("Accept-Encoding", "identity")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &reply{t: w.t, what: method + " " + url, status: resp.StatusCode, header: resp.Header}
	r.body, r.err = io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		w.t.Fatal(err)
	}
	for name := range resp.Header {
		if strings.Contains(strings.ToLower(name), "xet") && strings.HasPrefix(url, w.url) {
			w.t.Errorf("%s: header %s", r.what, name)
		}
	}
	if strings.HasPrefix(url, w.url) && resp.Header.Get("Content-Type") == "application/json; charset=utf-8" && bytes.Contains(bytes.ToLower(r.body), []byte("xethash")) {
		w.t.Errorf("%s: a word of Xet in %s", r.what, r.body)
	}
	return r
}

// into reads a document.
func (r *reply) into(v any) {
	r.t.Helper()
	if r.status != http.StatusOK {
		r.t.Fatalf("%s: %d %s", r.what, r.status, r.body)
	}
	if err := errors.Join(r.err, json.Unmarshal(r.body, v)); err != nil {
		r.t.Fatalf("%s: %v in %s", r.what, err, r.body)
	}
}

// safeBuffer is a log that is written and read at once.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// lines are the entries of one message.
func (s *safeBuffer) lines(t testing.TB, message string) (out []map[string]any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		if doc["msg"] == message {
			out = append(out, doc)
		}
	}
	return out
}

var modelName = hub.Repo{Kind: hub.Model, ID: "team/model"}
