package hubserver

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

func sum(b []byte) artifact.Digest { return artifact.Sum(b) }

// A new publication is served without a restart; a branch that moved leaves
// its former commit; a repository that is gone is gone.
func TestReload(t *testing.T) {
	w := emptyWorld(t)
	w.serve(Source{Name: "llm", Dir: w.folder("llm")})
	const address = "/team/model/resolve/main/config.json"
	if r := w.get(address); r.header.Get("X-Error-Code") != hub.CodeRepoNotFound {
		t.Fatalf("before anything is published: %d %s", r.status, r.body)
	}
	w.model = w.hub.AddModel("team/model")
	var commits []string
	for i := range 3 {
		commits = append(commits, w.model.Commit(map[string][]byte{"config.json": fmt.Appendf(nil, `{"n":%d}`, i)}))
		w.carry("llm", "team/model")
		w.publish("llm")
		if r := w.get(address); string(r.body) != fmt.Sprintf(`{"n":%d}`, i) || r.header.Get("X-Repo-Commit") != commits[i] {
			t.Fatalf("publication %d: %d %s", i, r.status, r.body)
		}
		for j, c := range commits {
			want := http.StatusOK
			if j < i-1 {
				want = http.StatusNotFound
			}
			if r := w.get("/team/model/resolve/" + c + "/config.json"); r.status != want {
				t.Errorf("publication %d: commit %d is answered by %d, want %d", i, j, r.status, want)
			}
		}
		var doc struct{ Sha string }
		if w.get("/api/models/team/model").into(&doc); doc.Sha != commits[i] {
			t.Errorf("publication %d: HEAD is %s", i, doc.Sha)
		}
	}
	if n := len(w.log.lines(t, "publication loaded")); n != 3 {
		t.Errorf("loaded %d times", n)
	}
	w.carry("llm", "datasets/team/none"[:0]+"team/model@"+commits[2])
	w.publish("llm")
	if r := w.do(http.MethodHead, "/team/model/resolve/main/config.json"); r.header.Get("X-Error-Code") != hub.CodeRevisionNotFound {
		t.Errorf("main of a repository that is pinned by commit: %d", r.status)
	}
	if r := w.do(http.MethodHead, "/team/model/resolve/HEAD/config.json"); r.header.Get("X-Repo-Commit") != commits[2] {
		t.Errorf("HEAD of it: %v", r.header)
	}
}

// A pointer or a set that cannot be read leaves the former publication; where
// there is none, nobody learns that a repository does not exist.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	pointer := filepath.Join(w.folder("llm"), models.CurrentName)
	good, err := os.ReadFile(pointer)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(pointer+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(pointer+".new", pointer); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("{"))
	for range 3 {
		if r := w.get("/team/model/resolve/main/config.json"); r.status != http.StatusOK {
			t.Fatalf("got %d %s", r.status, r.body)
		}
	}
	if n := len(w.log.lines(t, "publication cannot be read; if there was one before, it is served")); n != 1 {
		t.Errorf("logged %d times", n)
	}
	w.serve(Source{Name: "llm", Dir: w.folder("llm")})
	if r := w.get("/team/model/resolve/main/config.json"); r.status != http.StatusServiceUnavailable || r.header.Get("X-Error-Code") != "" {
		t.Fatalf("after a restart: %d %s", r.status, r.body)
	}
	write(good)
	if r := w.get("/team/model/resolve/main/config.json"); r.status != http.StatusOK {
		t.Fatalf("repaired: %d %s", r.status, r.body)
	}
	if err := os.Remove(pointer); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/team/model/resolve/main/config.json"); r.header.Get("X-Error-Code") != hub.CodeRepoNotFound {
		t.Fatalf("taken away: %d %s", r.status, r.body)
	}
}

// While a bundle arrives, clients learn how much of it is there; what is
// published stays as it is.
func TestArriving(t *testing.T) {
	w := newWorld(t)
	before := w.model.Head()
	next := w.model.Commit(map[string][]byte{"config.json": files()["config.json"], "new.bin": []byte("new"), "newer.bin": []byte("newer")})
	w.hub.AddModel("team/second").Commit(map[string][]byte{"a.bin": []byte("a"), "b.bin": []byte("b")})
	snap := w.resolve("llm", "team/model", "team/second", "team/closed")
	rec, ok := models.RecordOf(snap)
	if !ok {
		t.Fatal("no record")
	}
	b, err := snap.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.PutBytes(b); err != nil {
		t.Fatal(err)
	}
	if !w.store.Has(rec.Digest) {
		t.Fatal("the record is not inside")
	}
	if err := w.publisher("llm").Announce(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	check := func(path, want string) {
		t.Helper()
		r := w.get(path)
		if got := r.header.Get("X-Error-Message"); r.status != http.StatusNotFound || r.header.Get("X-Error-Code") != hub.CodeRevisionNotFound || got != want {
			t.Errorf("%s: %d %s %q, want %q", path, r.status, r.header.Get("X-Error-Code"), got, want)
		}
	}
	check("/team/model/resolve/"+next+"/config.json", "arriving: 1/3 files")
	check("/api/models/team/model/revision/"+next, "arriving: 1/3 files")
	for _, path := range []string{"/api/models/team/second", "/api/models/team/second/revision/main", "/api/models/team/second/refs", "/team/second/resolve/main/a.bin", "/api/models/team/second/tree/refs%2Fheads%2Fmain"} {
		check(path, "arriving: 0/2 files")
	}
	check("/api/models/team/second/revision/v2", "team/second has no revision v2 here; there are: none yet")
	if r := w.get("/team/model/resolve/main/config.json"); r.status != http.StatusOK || r.header.Get("X-Repo-Commit") != before {
		t.Errorf("main while it arrives: %d %v", r.status, r.header)
	}
	if r := w.get("/api/models/team/closed"); r.header.Get("X-Error-Code") != hub.CodeGatedRepo {
		t.Errorf("a closed one while it arrives: %d", r.status)
	}
	if got, _ := w.names("/api/models?author=team"); len(got) != 1 {
		t.Errorf("listed: %v", got)
	}
	var listed []string
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			if strings.HasSuffix(f.Path, "/a.bin") || strings.HasSuffix(f.Path, "/new.bin") {
				w.fetch("llm", f)
				listed = append(listed, f.Path)
			}
		}
	}
	if len(listed) != 2 {
		t.Fatalf("fetched %v", listed)
	}
	time.Sleep(2 * lookEvery) // a count holds so long
	check("/api/models/team/second", "arriving: 1/2 files")
	check("/team/model/resolve/"+next+"/new.bin", "arriving: 2/3 files")
	w.carry("llm")
	w.publish("llm")
	for path, want := range map[string]string{"/team/model/resolve/main/new.bin": "new", "/team/second/resolve/main/b.bin": "b"} {
		if r := w.get(path); string(r.body) != want {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

// What is announced before its record is inside is as if it were not there.
func TestArrivingWithoutRecord(t *testing.T) {
	w := newWorld(t)
	snap := *w.snaps["llm"]
	snap.Meta = []artifact.File{{Path: "models.json", Digest: sum([]byte("elsewhere")), Size: 9}}
	if err := w.publisher("llm").Announce(t.Context(), &snap); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/team/model/resolve/main/config.json"); r.status != http.StatusOK {
		t.Errorf("got %d %s", r.status, r.body)
	}
	if r := w.get("/api/models/team/second"); r.header.Get("X-Error-Code") != hub.CodeRepoNotFound {
		t.Errorf("got %d %s", r.status, r.body)
	}
}

// Several sources are one namespace: the first that has a revision answers,
// each with its own rules.
func TestSources(t *testing.T) {
	w := emptyWorld(t)
	m := w.hub.AddModel("team/model")
	old := m.Commit(map[string][]byte{"config.json": []byte("old")})
	w.hub.AddModel("team/b").Commit(map[string][]byte{"config.json": []byte("b")})
	w.carry("a", "team/model")
	w.publish("a")
	fresh := m.Commit(map[string][]byte{"config.json": []byte("new")})
	w.carry("b", "team/model", "team/b")
	w.publish("b")
	a, b := Source{Name: "a", Dir: w.folder("a")}, Source{Name: "b", Dir: w.folder("b")}
	closed := a
	closed.Access = []Rule{{Repositories: []string{"team/*"}, Tokens: []Token{{"team", secret}}, Ask: ask}}
	for _, c := range []struct {
		name    string
		sources []Source
		token   string
		main    string // of team/model: its content, or the error's code
		old     string // by its commit
		b       string
		list    int
	}{
		{"a first", []Source{a, b}, "", "old", "old", "b", 2},
		{"b first", []Source{b, a}, "", "new", "old", "b", 2},
		{"a alone", []Source{a}, "", "old", "old", hub.CodeRepoNotFound, 1},
		{"a is closed", []Source{closed, b}, "", "new", hub.CodeRevisionNotFound, "b", 2},
		{"a is closed, token", []Source{closed, b}, secret, "old", "old", "b", 2},
		{"a alone and closed", []Source{closed}, "", hub.CodeGatedRepo, hub.CodeGatedRepo, hub.CodeRepoNotFound, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.serve(c.sources...)
			var headers []string
			if c.token != "" {
				headers = []string{"Authorization", "Bearer " + c.token}
			}
			for path, want := range map[string]string{
				"/team/model/resolve/main/config.json": c.main, "/team/model/resolve/" + old + "/config.json": c.old, "/team/b/resolve/main/config.json": c.b,
			} {
				r := w.get(path, headers...)
				if got := r.header.Get("X-Error-Code"); got != want && string(r.body) != want {
					t.Errorf("%s: %d %s %s, want %s", path, r.status, got, r.body, want)
				}
			}
			if list, _ := w.names("/api/models", headers...); len(list) != c.list {
				t.Errorf("listed: %v", list)
			}
			if c.list == 2 {
				if r := w.get("/team/model/resolve/"+fresh+"/config.json", headers...); string(r.body) != "new" {
					t.Errorf("the commit of the second: %d %s", r.status, r.body)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	w := emptyWorld(t)
	for name, r := range map[string]Rule{
		"pattern":       {Repositories: []string{"team/["}},
		"empty pattern": {Repositories: []string{""}},
		"empty token":   {Repositories: []string{"*"}, Tokens: []Token{{"team", ""}}},
	} {
		if _, err := New([]Source{{Name: "llm", Dir: w.folder("llm"), Access: []Rule{r}}}, w.store, Options{}); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

// Which names a pattern closes: rather too many than too few.
func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "team/model", true},
		{"*", "datasets/team/data", true},
		{"team/*", "team/model", true},
		{"team/*", "datasets/team/data", false},
		{"datasets/*", "datasets/team/data", true},
		{"team/secret-*", "team/secret-7b", true},
		{"team/secret-*", "team/open", false},
		{"team/model", "team/model", true},
		{"team/model", "team/model2", false},
		{"team/[ab]?", "team/b7", true},
	} {
		r, err := newRule(&Rule{Repositories: []string{c.pattern}})
		if err != nil {
			t.Fatal(err)
		}
		name, err := hub.ParseRepo(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.closes(name); got != c.want {
			t.Errorf("%s and %s: %v", c.pattern, c.name, got)
		}
	}
}

// A hub without rules takes no notice of the token for another one.
func TestOpenHub(t *testing.T) {
	w := newWorld(t)
	w.serve(Source{Name: "llm", Dir: w.folder("llm")})
	if r := w.get("/team/closed/resolve/main/config.json", "Authorization", "Bearer of another hub"); r.status != http.StatusOK {
		t.Errorf("got %d %s", r.status, r.body)
	}
	if r := w.get("/api/models/team/nothing", "Authorization", "Bearer of another hub"); r.status != http.StatusNotFound || r.header.Get("X-Error-Code") != hub.CodeRepoNotFound {
		t.Errorf("got %d %s", r.status, r.body)
	}
}

// A rule without tokens closes to all.
func TestClosedToAll(t *testing.T) {
	w := newWorld(t)
	w.serve(Source{Name: "llm", Dir: w.folder("llm"), Access: []Rule{{Repositories: []string{"*"}}}})
	for _, token := range []string{"", "Bearer x"} {
		if r := w.get("/team/model/resolve/main/config.json", "Authorization", token); r.header.Get("X-Error-Code") != hub.CodeGatedRepo {
			t.Errorf("%q: %d %s", token, r.status, r.body)
		}
	}
}

// blob is where the store keeps a content.
func (w *world) blob(content []byte) string {
	h := sum(content).Hex()
	return filepath.Join(w.dir, "store", "blobs", "sha256", h[:2], h)
}

// A damaged file is never served, until it is brought again.
func TestDamage(t *testing.T) {
	w := newWorld(t)
	name := w.blob(weights)
	bad := bytes.Clone(weights)
	bad[len(bad)/2] ^= 1
	if err := os.Remove(name); err != nil { // it may be linked from elsewhere
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // the second finds it gone
		r := w.get("/team/model/resolve/main/model.safetensors", "Range", "bytes=0-7")
		if r.status != http.StatusServiceUnavailable || !strings.Contains(r.header.Get("X-Error-Message"), "damaged") || r.header.Get("Etag") != "" || r.header.Get("Content-Disposition") != "" || !strings.HasPrefix(string(r.body), `{"error"`) {
			t.Errorf("request %d: %d %v %s", i, r.status, r.header, r.body)
		}
	}
	if r := w.get("/team/model/resolve/main/config.json"); r.status != http.StatusOK {
		t.Errorf("another file: %d", r.status)
	}
	if n := len(w.log.lines(t, "request refused")); n < 2 {
		t.Errorf("%d lines in the log", n)
	}
	if _, err := w.store.PutBytes(weights); err != nil {
		t.Fatal(err)
	}
	if r := w.get("/team/model/resolve/main/model.safetensors"); !bytes.Equal(r.body, weights) {
		t.Errorf("brought again: %d", r.status)
	}
}

// A file that ends early under the server's hands cuts the connection.
func TestDamageInTheMiddle(t *testing.T) {
	w := emptyWorld(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	w.hub.AddModel("team/model").Commit(map[string][]byte{"model.safetensors": big})
	w.carry("llm", "team/model")
	w.publish("llm")
	w.serve(Source{Name: "llm", Dir: w.folder("llm")})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/team/model/resolve/main/model.safetensors", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(w.blob(big), 100); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	_, err = got.ReadFrom(resp.Body)
	if cerr := resp.Body.Close(); cerr != nil {
		t.Fatal(cerr)
	}
	if err == nil || got.Len() >= len(big) {
		t.Errorf("%d bytes of %d, error %v", got.Len(), len(big), err)
	}
}

// One line a download says who had what.
func TestLog(t *testing.T) {
	w := newWorld(t)
	w.get("/team/closed/resolve/main/config.json", "Authorization", "Bearer "+secret)
	w.get("/team/model/resolve/main/model.safetensors", "Range", "bytes=0-7")
	w.do(http.MethodHead, "/team/model/resolve/main/model.safetensors")
	w.get("/team/model/resolve/main/nothing")
	w.get("/api/models/team/model")
	got := w.log.lines(t, "download")
	if len(got) != 2 {
		t.Fatalf("lines %v", got)
	}
	for i, want := range []map[string]any{
		{"level": "INFO", "user": "team", "repository": "team/closed", "path": "config.json", "status": 200.0, "bytes": 2.0},
		{"level": "INFO", "user": "anonymous", "repository": "team/model", "path": "model.safetensors", "commit": w.model.Head(), "status": 206.0, "bytes": 8.0},
	} {
		for k, v := range want {
			if got[i][k] != v {
				t.Errorf("line %d: %s is %v, want %v", i, k, got[i][k], v)
			}
		}
	}
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	if strings.Contains(w.log.b.String(), secret) {
		t.Error("a token is in the log")
	}
}

// Requests go on while publications change under them; each sees one state.
func TestConcurrent(t *testing.T) {
	w := emptyWorld(t)
	m := w.hub.AddModel("team/model")
	content := map[string]string{}
	var snaps []*artifact.Snapshot
	for i := range 2 {
		c := fmt.Sprintf("content %d", i)
		content[m.Commit(map[string][]byte{"config.json": []byte(c)})] = c
		snaps = append(snaps, w.carry("llm", "team/model"))
	}
	w.publish("llm")
	w.serve(Source{Name: "llm", Dir: w.folder("llm")})
	p := w.publisher("llm")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				r := w.get("/team/model/resolve/main/config.json")
				if want := content[r.header.Get("X-Repo-Commit")]; want == "" || string(r.body) != want {
					t.Errorf("%d %s, want %q", r.status, r.body, want)
				}
			}
		})
	}
	for i := range 20 {
		if _, err := p.Publish(t.Context(), snaps[i%2], uint64(i+1), time.Now()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// BenchmarkHead is what a client asks for each file.
func BenchmarkHead(b *testing.B) {
	w := newWorld(b)
	w.handler.look = lookEvery
	req, err := http.NewRequestWithContext(b.Context(), http.MethodHead, "/team/model/resolve/main/model.safetensors", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		rec := &nullWriter{header: make(http.Header)}
		if w.handler.ServeHTTP(rec, req); rec.status != http.StatusOK {
			b.Fatal(rec.status)
		}
	}
}

type nullWriter struct {
	header http.Header
	status int
}

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) WriteHeader(status int)      { w.status = status }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }

// What is verified ahead is found damaged before anybody asks for it.
func TestWarm(t *testing.T) {
	w := newWorld(t)
	w.handler.warm(t.Context(), w.handler.current())
	if n := len(w.log.lines(t, "all that is published was verified")); n != 1 {
		t.Fatalf("%d lines of the log say that all was verified", n)
	}
	if err := os.WriteFile(w.blob(weights), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.handler.warm(t.Context(), w.handler.current())
	if w.store.Has(artifact.Sum(weights)) || len(w.log.lines(t, "published file cannot be served")) != 1 {
		t.Error("the damaged blob is still there, or nobody was told")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.handler.Warm(ctx) // ends
}
