package hubserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

// entries reads a tree, a page after the other, without what only one of the
// two hubs knows.
func (w *world) entries(url string) (list []map[string]any, pages int) {
	w.t.Helper()
	for ; url != ""; pages++ {
		var page []map[string]any
		r := w.send(http.MethodGet, url, "")
		r.into(&page)
		for _, e := range page {
			list = append(list, known(e))
		}
		url = strings.TrimPrefix(strings.TrimSuffix(r.header.Get("Link"), `>; rel="next"`), "<")
	}
	return list, pages
}

// known leaves out Xet, what scanners say, and whose commit a file came with.
func known(e map[string]any) map[string]any {
	delete(e, "xetHash")
	delete(e, "securityFileStatus")
	if last, ok := e["lastCommit"].(map[string]any); ok {
		e["lastCommit"] = slices.Sorted(maps.Keys(last))
	}
	return e
}

// The same questions to the hub outside and to the one inside.
func TestSameAsHub(t *testing.T) {
	w := newWorld(t)
	commit := w.model.Head()
	for _, path := range []string{
		"/api/models/team/model/tree/main?recursive=true&expand=false", "/api/models/team/model/tree/main?recursive=True&expand=False",
		"/api/models/team/model/tree/" + commit + "?recursive=true&expand=false", "/api/models/team/model/tree/main", "/api/models/team/model/tree/main?expand=true",
		"/api/models/team/model/tree/v1.0?recursive=true&expand=true", "/api/models/team/model/tree/HEAD/a%20folder?recursive=false", "/api/models/team/model/tree/main/a%20folder%2Fdeep",
		"/api/models/team/model/tree/main/a%20folder?recursive=1", "/api/models/team/model/tree/main/config.json", "/api/datasets/team/data/tree/main", "/api/models/gpt2/tree/main?recursive=true",
		"/api/models/team/model/tree/main?recursive=true&limit=2", "/api/models/team/model/tree/main?limit=1", "/api/models/team/model/tree/refs%2Fpr%2F1/gr%C3%B6%C3%9Fe?limit=1",
	} {
		want, wantPages := w.entries(w.hub.URL + path)
		got, pages := w.entries(w.url + path)
		if diff := cmp.Diff(want, got); diff != "" || pages != wantPages || len(got) == 0 {
			t.Errorf("%s: %d pages, want %d\n%s", path, pages, wantPages, diff)
		}
	}
	for _, path := range []string{"", "?blobs=true", "?expand=sha&expand=siblings"} {
		var want, got map[string]any
		w.send(http.MethodGet, w.hub.URL+"/api/models/team/model"+path, "").into(&want)
		w.get("/api/models/team/model" + path).into(&got)
		for _, key := range []string{"id", "modelId", "author", "sha", "siblings", "private", "gated", "disabled", "downloads", "likes", "tags", "cardData"} {
			if diff := cmp.Diff(want[key], got[key]); diff != "" {
				t.Errorf("%s: %s: %s", path, key, diff)
			}
		}
		if missing := slices.DeleteFunc(slices.Collect(maps.Keys(want)), func(k string) bool { _, ok := got[k]; return ok }); len(missing) > 0 {
			t.Errorf("%s: no %v", path, missing)
		}
	}
	for _, body := range []string{"paths=config.json&paths=model.safetensors&paths=a+folder&paths=x&expand=false", "paths=model.safetensors&expand=True"} {
		var want, got []map[string]any
		for u, to := range map[string]*[]map[string]any{w.hub.URL: &want, w.url: &got} {
			w.send(http.MethodPost, u+"/api/models/team/model/paths-info/main", body, "Content-Type", "application/x-www-form-urlencoded").into(to)
			for i := range *to {
				known((*to)[i])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) == 0 {
			t.Errorf("%s: %s", body, diff)
		}
	}
	var want, got map[string][]hub.Ref
	w.send(http.MethodGet, w.hub.URL+"/api/models/team/model/refs?include_prs=1", "").into(&want)
	w.get("/api/models/team/model/refs?include_prs=1").into(&got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	t.Run("heads", w.sameHeads)
}

// sameHeads compares what clients read of HEAD, and of errors.
func (w *world) sameHeads(t *testing.T) {
	commit := w.model.Head()
	for _, path := range []string{
		"/team/model/resolve/main/model.safetensors", "/team/model/resolve/" + commit + "/model.safetensors", "/team/model/resolve/main/config.json", "/team/model/resolve/main/nothing",
		"/team/model/resolve/nothing/config.json", "/team/nothing/resolve/main/config.json", "/team/model/raw/main/model.safetensors", "/team/model/raw/main/config.json",
		"/api/models/team/nothing", "/api/models/team/model/revision/nothing", "/api/models/team/model/tree/main/nothing",
	} {
		a, b := w.send(http.MethodHead, w.hub.URL+path, ""), w.do(http.MethodHead, path)
		for _, name := range []string{"X-Repo-Commit", "X-Error-Code", "X-Linked-Size", "X-Linked-Etag"} {
			if a.header.Get(name) != b.header.Get(name) {
				t.Errorf("%s: %s %q, want %q", path, name, b.header.Get(name), a.header.Get(name))
			}
		}
		// The identity and size, as clients find them: at the first reply, or
		// where that leads.
		if location := a.header.Get("Location"); strings.HasPrefix(location, "/") {
			a = w.send(http.MethodHead, w.hub.URL+location, "")
		}
		if a.status >= http.StatusBadRequest && a.status != b.status {
			t.Errorf("%s: %d, want %d", path, b.status, a.status)
		}
		etag := a.header.Get("X-Linked-Etag")
		if etag == "" {
			etag = a.header.Get("Etag")
		}
		if a.status < http.StatusBadRequest && (etag == "" || etag != b.header.Get("Etag")) {
			t.Errorf("%s: ETag %s, want %s", path, b.header.Get("Etag"), etag)
		}
	}
}

// What our own client reads of the inside hub is what was outside.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	c, err := hub.NewClient("models/again", w.url, secret, w.fetcher(w.url))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []hub.Repo{modelName, {Kind: hub.Model, ID: "gpt2"}, {Kind: hub.Model, ID: "team/closed"}, {Kind: hub.Dataset, ID: "team/data"}} {
		at, err := c.Resolve(t.Context(), name, "main")
		if err != nil {
			t.Fatal(err)
		}
		tree, err := c.Tree(t.Context(), name, at.SHA)
		if err != nil || len(tree) == 0 {
			t.Fatalf("%s: %d files, %v", name, len(tree), err)
		}
		for i := range tree {
			e := &tree[i]
			r := w.get("/"+name.ResolvePath(at.SHA, e.Path), "Authorization", "Bearer "+secret)
			if e.LFS == nil {
				err = e.Verify(bytes.NewReader(r.body))
			} else if d := sum(r.body); d != e.LFS.SHA256 {
				err = fmt.Errorf("digest %s", d)
			}
			if err != nil || r.status != http.StatusOK {
				t.Errorf("%s: %s: %d %v", name, e.Path, r.status, err)
			}
		}
	}
	// A second darkmirror may take the first for its hub.
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := models.NewSource(models.Config{Name: "again", Hub: w.url, AllowHTTP: true, Repositories: []string{"team/model"}}, "models/again", w.fetcher(w.url), st, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap, _, err := s.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range snap.Artifacts[0].Files {
		if err := s.Fetch(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if snap.Artifacts[0].Version != w.model.Head() || len(snap.Artifacts[0].Files) != len(files()) {
		t.Errorf("got %+v", snap.Artifacts[0])
	}
}

// A tree of many files, through pages, at every depth: each file once, in the
// same order, with the ids of folders as git has them.
func TestPages(t *testing.T) {
	w := emptyWorld(t)
	many := make(map[string][]byte)
	for i := range 1500 {
		many[fmt.Sprintf("data/part %d/shard+%04d.txt", i%7, i)] = fmt.Appendf(nil, "%d", i)
		many[fmt.Sprintf("data-%d.txt", i)] = []byte("x")
	}
	w.model = w.hub.AddModel("team/model")
	w.model.Commit(many)
	w.carry("llm", "team/model")
	w.publish("llm")
	w.serve(Source{Name: "llm", Dir: w.folder("llm")})
	for path, wantPages := range map[string]int{"?recursive=true": 4, "?recursive=true&limit=2000": 4, "": 2, "/data%2Fpart%203?limit=50": 5, "/data": 1, "?limit=700&expand=true": 3} {
		want, _ := w.entries(w.hub.URL + "/api/models/team/model/tree/main" + path)
		got, pages := w.entries(w.url + "/api/models/team/model/tree/main" + path)
		if diff := cmp.Diff(want, got); diff != "" || pages != wantPages {
			t.Errorf("%s: %d pages, want %d\n%.2000s", path, pages, wantPages, diff)
		}
	}
	// A branch that moves between two pages does not mix them.
	first := w.get("/api/models/team/model/tree/main?recursive=true")
	w.model.Commit(map[string][]byte{"other.txt": nil})
	w.carry("llm")
	w.publish("llm")
	next := strings.TrimPrefix(strings.TrimSuffix(first.header.Get("Link"), `>; rel="next"`), "<")
	got, _ := w.entries(next)
	var begin []map[string]any
	if err := json.Unmarshal(first.body, &begin); err != nil || len(begin)+len(got) != 3008+0 {
		t.Errorf("%d and %d entries, %v", len(begin), len(got), err)
	}
	if all, _ := w.entries(w.url + "/api/models/team/model/tree/main"); len(all) != 1 {
		t.Errorf("main has %d entries", len(all))
	}
}
