package hubserver

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/models/hub"
)

// Every error has the status and the words by which clients tell it.
func TestErrors(t *testing.T) {
	w := newWorld(t)
	commit := w.model.Head()
	const bearer, bad = "Bearer " + secret, "Bearer wrong"
	for _, c := range []struct {
		name, method, path, auth string
		status                   int
		code, message            string // message: a part
	}{
		{"no repository", "GET", "/api/models/team/nothing/revision/main", "", 401, hub.CodeRepoNotFound, "no repository team/nothing"},
		{"no repository, token", "GET", "/api/models/team/nothing", bearer, 404, hub.CodeRepoNotFound, "no repository team/nothing"},
		{"no repository, file", "HEAD", "/team/nothing/resolve/main/config.json", "", 401, hub.CodeRepoNotFound, ""},
		{"no repository, dataset of a model's name", "GET", "/api/datasets/team/model", "", 401, hub.CodeRepoNotFound, "datasets/team/model"},
		{"no repository, refs", "GET", "/api/models/team/nothing/refs", "", 401, hub.CodeRepoNotFound, ""},
		{"no repository that is called as a part", "GET", "/api/models/team/tree", "", 401, hub.CodeRepoNotFound, "team/tree"},
		{"not a name", "GET", "/api/models/..%2F../revision/main", "", 401, hub.CodeRepoNotFound, ""},
		{"no revision", "GET", "/api/models/team/model/revision/nothing", "", 404, hub.CodeRevisionNotFound, "there are: main, refs/pr/1, v1.0"},
		{"no revision, tree", "GET", "/api/models/team/model/tree/nothing", "", 404, hub.CodeRevisionNotFound, ""},
		{"no revision, file", "HEAD", "/team/model/resolve/nothing/config.json", "", 404, hub.CodeRevisionNotFound, ""},
		{"short commit", "GET", "/api/models/team/model/revision/" + commit[:12], "", 404, hub.CodeRevisionNotFound, ""},
		{"commit of another", "HEAD", "/gpt2/resolve/" + commit + "/config.json", "", 404, hub.CodeRevisionNotFound, ""},
		{"no file", "HEAD", "/team/model/resolve/main/adapter_config.json", "", 404, hub.CodeEntryNotFound, "adapter_config.json"},
		{"no file, raw", "HEAD", "/team/model/raw/main/nothing", "", 404, hub.CodeEntryNotFound, ""},
		{"a folder is no file", "GET", "/team/model/resolve/main/a%20folder", "", 404, hub.CodeEntryNotFound, ""},
		{"a path that climbs", "GET", "/team/model/resolve/main/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "", 404, hub.CodeEntryNotFound, ""},
		{"a plus is no space", "GET", "/team/model/resolve/main/a+folder/x%2By%2520z.txt", "", 404, hub.CodeEntryNotFound, ""},
		{"no folder", "GET", "/api/models/team/model/tree/main/additional_chat_templates?recursive=false&expand=false", "", 404, hub.CodeEntryNotFound, ""},
		{"closed", "GET", "/api/models/team/closed/revision/main", "", 401, hub.CodeGatedRepo, "ask " + ask},
		{"closed, the document", "GET", "/api/models/team/closed", "", 401, hub.CodeGatedRepo, "ask " + ask},
		{"closed, refs", "GET", "/api/models/team/closed/refs", "", 401, hub.CodeGatedRepo, ""},
		{"closed, may I", "GET", "/api/models/team/closed/auth-check", "", 401, hub.CodeGatedRepo, "ask " + ask},
		{"closed, file", "HEAD", "/team/closed/resolve/main/config.json", "", 401, hub.CodeGatedRepo, ""},
		{"closed, no file", "HEAD", "/team/closed/resolve/main/nothing", "", 401, hub.CodeGatedRepo, ""},
		{"closed, no revision", "HEAD", "/team/closed/resolve/nothing/config.json", "", 401, hub.CodeGatedRepo, ""},
		{"closed, another's token", "GET", "/team/closed/resolve/main/config.json", "Bearer " + other, 403, hub.CodeGatedRepo, "ask " + ask},
		{"wrong token", "GET", "/api/models/team/model", bad, 401, "", "Invalid credentials in Authorization header"},
		{"wrong token, file", "HEAD", "/team/model/resolve/main/config.json", bad, 401, "", "Invalid credentials in Authorization header"},
		{"no bearer", "GET", "/api/models/team/model", "Basic " + secret, 401, "", "Invalid credentials in Authorization header"},
		{"no token at all", "GET", "/api/models/team/model", "Bearer ", 401, "", "Invalid credentials in Authorization header"},
		{"who is nobody", "GET", "/api/whoami-v2", "", 401, "", "Invalid username or password."},
		{"no cursor", "GET", "/api/models/team/model/tree/main?cursor=x", "", 400, "", "cursor"},
		{"negative cursor", "GET", "/api/models/team/model/tree/main?cursor=-1", "", 400, "", "cursor"},
		{"xet", "GET", "/api/models/team/model/xet-read-token/" + commit, "", 404, hub.CodeEntryNotFound, "no such address"},
		{"root", "GET", "/", "", 404, hub.CodeEntryNotFound, ""},
		{"no such API", "GET", "/api/spaces/team/x", "", 404, hub.CodeEntryNotFound, ""},
		{"no such part", "GET", "/api/models/team/model/discussions", "", 404, hub.CodeEntryNotFound, ""},
		{"a page for people", "GET", "/team/model", "", 404, hub.CodeEntryNotFound, ""},
		{"resolve without a file", "GET", "/team/model/resolve/main", "", 404, hub.CodeEntryNotFound, ""},
		{"paths-info by GET", "GET", "/api/models/team/model/paths-info/main", "", 405, "", "GET is not for this address"},
		{"upload", "POST", "/api/models/team/model/commit/main", "", 404, hub.CodeEntryNotFound, ""},
		{"create", "POST", "/api/models/team/model", "", 405, "", ""},
		{"put", "PUT", "/team/model/resolve/main/config.json", "", 405, "", "PUT"},
		{"delete", "DELETE", "/api/models/team/model", "", 405, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.auth != "" {
				headers = []string{"Authorization", c.auth}
			}
			r := w.do(c.method, c.path, headers...)
			if r.status != c.status || r.header.Get("X-Error-Code") != c.code || !strings.Contains(r.header.Get("X-Error-Message"), c.message) {
				t.Fatalf("got %d, %q, %q; want %d, %q, %q", r.status, r.header.Get("X-Error-Code"), r.header.Get("X-Error-Message"), c.status, c.code, c.message)
			}
			if strings.HasPrefix(c.message, "Inv") && r.header.Get("X-Error-Message") != c.message {
				t.Errorf("the message is %q", r.header.Get("X-Error-Message"))
			}
			if (r.header.Get("X-Repo-Commit") != "") != (c.code == hub.CodeEntryNotFound && strings.Contains(c.path, "/main") && c.name != "resolve without a file" && c.name != "upload") {
				t.Errorf("X-Repo-Commit %q", r.header.Get("X-Repo-Commit"))
			}
			if (c.status == 405) != (r.header.Get("Allow") != "") {
				t.Errorf("Allow %q", r.header.Get("Allow"))
			}
			if r.header.Get("Content-Type") != "application/json; charset=utf-8" || c.method != http.MethodHead && !strings.HasPrefix(string(r.body), `{"error":"`) {
				t.Errorf("body %q", r.body)
			}
		})
	}
}

// HEAD and GET of files by every name of a revision.
func TestResolve(t *testing.T) {
	w := newWorld(t)
	commit := w.model.Head()
	for _, revision := range []string{"main", "v1.0", "refs%2Fpr%2F1", "refs/pr/1", "refs%2Fheads%2Fmain", "refs%2Ftags%2Fv1.0", "HEAD", commit} {
		for name, want := range files() {
			e, ok := w.model.Entry("main", name)
			if !ok {
				t.Fatal(name)
			}
			segments := strings.Split(name, "/")
			for i, s := range segments {
				segments[i] = url.QueryEscape(s)
			}
			address := "/team/model/resolve/" + revision + "/" + strings.ReplaceAll(strings.Join(segments, "/"), "+", "%20")
			head, get := w.do(http.MethodHead, address), w.get(address)
			if get.status != http.StatusOK || !bytes.Equal(get.body, want) {
				t.Fatalf("%s: %d %.60s", address, get.status, get.body)
			}
			head.header.Del("Date")
			get.header.Del("Date")
			if diff := cmp.Diff(get.header, head.header); diff != "" || head.status != http.StatusOK {
				t.Fatalf("%s: HEAD is another answer: %d %s", address, head.status, diff)
			}
			for key, want := range map[string]string{
				"X-Repo-Commit": commit, "Etag": `"` + e.ETag() + `"`, "Content-Length": strconv.Itoa(len(want)), "Accept-Ranges": "bytes", "Content-Encoding": "",
			} {
				if got := head.header.Get(key); got != want {
					t.Errorf("%s: %s %q, want %q", address, key, got, want)
				}
			}
			if d := head.header.Get("Content-Disposition"); strings.ContainsFunc(d, func(r rune) bool { return r > '~' || r < ' ' }) || !strings.HasPrefix(d, "inline; filename*=UTF-8''") {
				t.Errorf("%s: %q", address, d)
			}
			if immutable := strings.Contains(head.header.Get("Cache-Control"), "immutable"); immutable != (revision == commit) {
				t.Errorf("%s: Cache-Control %q", address, head.header.Get("Cache-Control"))
			}
			if linked := head.header.Get("X-Linked-Size"); (linked == strconv.Itoa(len(want))) != (e.PointerSize > 0) {
				t.Errorf("%s: X-Linked-Size %q", address, linked)
			}
		}
	}
	for _, address := range []string{"/gpt2/resolve/main/config.json", "/datasets/team/data/resolve/main/train.csv"} {
		if r := w.get(address); r.status != http.StatusOK {
			t.Errorf("%s: %d %s", address, r.status, r.body)
		}
	}
}

func TestRanges(t *testing.T) {
	w := newWorld(t)
	const address = "/team/model/resolve/main/model.safetensors"
	n := strconv.Itoa(len(weights))
	etag := w.do(http.MethodHead, address).header.Get("Etag")
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		want       []byte
		contentR   string
	}{
		{"first byte", address, []string{"Range", "bytes=0-0"}, 206, weights[:1], "bytes 0-0/" + n},
		{"a part", address, []string{"Range", "bytes=8-15"}, 206, weights[8:16], "bytes 8-15/" + n},
		{"beyond the end", address, []string{"Range", "bytes=0-100000"}, 206, weights, "bytes 0-" + strconv.Itoa(len(weights)-1) + "/" + n},
		{"to the end", address, []string{"Range", "bytes=31992-"}, 206, weights[31992:], "bytes 31992-31999/" + n},
		{"suffix", address, []string{"Range", "bytes=-8"}, 206, weights[len(weights)-8:], "bytes 31992-31999/" + n},
		{"behind the end", address, []string{"Range", "bytes=32000-"}, 416, nil, "bytes */" + n},
		{"same file", address, []string{"Range", "bytes=0-0", "If-Range", etag}, 206, weights[:1], "bytes 0-0/" + n},
		{"another file", address, []string{"Range", "bytes=0-0", "If-Range", `"x"`}, 200, weights, ""},
		{"known", address, []string{"If-None-Match", etag}, 304, []byte{}, ""},
		{"small file", "/team/model/resolve/main/config.json", []string{"Range", "bytes=0-100000"}, 206, files()["config.json"], "bytes 0-20/21"},
		{"empty file", "/team/model/resolve/main/empty.txt", []string{"Range", "bytes=0-0"}, 200, []byte{}, ""},
		{"of a pointer", "/team/model/raw/main/model.safetensors", []string{"Range", "bytes=0-6"}, 206, []byte("version"), "bytes 0-6/130"},
	} {
		r := w.get(c.path, c.headers...)
		if r.status != c.status || c.want != nil && !bytes.Equal(r.body, c.want) || r.header.Get("Content-Range") != c.contentR {
			t.Errorf("%s: %d %q, %.40q", c.name, r.status, r.header.Get("Content-Range"), r.body)
		}
		if c.status < 400 && r.header.Get("X-Repo-Commit") != w.model.Head() {
			t.Errorf("%s: X-Repo-Commit %q", c.name, r.header.Get("X-Repo-Commit"))
		}
	}
}

func TestRaw(t *testing.T) {
	w := newWorld(t)
	e, _ := w.model.Entry("main", "model.safetensors")
	r := w.get("/team/model/raw/main/model.safetensors")
	if int64(len(r.body)) != e.PointerSize || string(hub.SumBlob(r.body)) != e.OID || r.header.Get("Etag") != `"`+e.OID+`"` || !strings.Contains(string(r.body), "oid sha256:"+e.SHA256) {
		t.Errorf("pointer %q, %v", r.body, r.header)
	}
	if r := w.get("/team/model/raw/main/config.json"); string(r.body) != string(files()["config.json"]) {
		t.Errorf("got %q", r.body)
	}
	if r := w.do(http.MethodHead, "/team/model/raw/main/model.safetensors"); r.status != http.StatusOK || r.header.Get("Content-Length") != strconv.FormatInt(e.PointerSize, 10) {
		t.Errorf("HEAD: %d %v", r.status, r.header)
	}
}

// What clients ask for beside their work.
func TestSmallEndpoints(t *testing.T) {
	w := newWorld(t)
	var harnesses struct {
		StandardEnvVars []string
		Harnesses       map[string]any
	}
	w.get("/api/agent-harnesses").into(&harnesses)
	if harnesses.StandardEnvVars == nil || harnesses.Harnesses == nil {
		t.Errorf("harnesses %+v", harnesses)
	}
	for _, path := range []string{"/api/telemetry/transformers", "/api/telemetry/a/b"} {
		if r := w.do(http.MethodHead, path, "Authorization", "Bearer of another hub"); r.status != http.StatusNoContent {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	var who struct{ Type, Name string }
	w.get("/api/whoami-v2", "Authorization", "Bearer "+secret).into(&who)
	if who.Name != "team" || who.Type != "user" {
		t.Errorf("who %+v", who)
	}
	var commits []struct {
		ID, Title, Message, Date string
		Authors                  []any
	}
	w.get("/api/models/team/model/commits/main?limit=100").into(&commits)
	if len(commits) != 1 || commits[0].ID != w.model.Head() || commits[0].Title == "" || commits[0].Authors == nil || commits[0].Date != "2027-01-15T08:00:00.000Z" {
		t.Errorf("commits %+v", commits)
	}
	w.get("/api/models/team/model/commits/main?p=1").into(&commits)
	if len(commits) != 0 {
		t.Errorf("second page %+v", commits)
	}
	var refs map[string][]hub.Ref
	w.get("/api/models/team/model/refs?include_prs=1").into(&refs)
	commit := w.model.Head()
	want := map[string][]hub.Ref{
		"branches": {{Name: "main", Ref: "refs/heads/main", TargetCommit: commit}}, "tags": {{Name: "v1.0", Ref: "refs/tags/v1.0", TargetCommit: commit}},
		"pullRequests": {{Name: "1", Ref: "refs/pr/1", TargetCommit: commit}}, "converts": {},
	}
	if diff := cmp.Diff(want, refs); diff != "" {
		t.Error(diff)
	}
	refs = nil
	w.get("/api/models/team/model/refs").into(&refs)
	if _, ok := refs["pullRequests"]; ok || len(refs["branches"]) != 1 {
		t.Errorf("refs %+v", refs)
	}
}

func TestFrontMatter(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"---\npipeline_tag: text-generation\nlibrary_name: 'transformers'\r\ntags:\n- x\n---\ntext\n": {"pipeline_tag": "text-generation", "library_name": "transformers"},
		"---\npipeline_tag: [a, b]\n  library_name: x\n---\n":                                         {},
		"---\npipeline_tag: text-generation\n":                                                        nil,
		"\n---\npipeline_tag: text-generation\n---\n":                                                 nil,
		"# Card\n":   nil,
		"":           nil,
		"---\n---\n": {},
	} {
		if diff := cmp.Diff(want, frontMatter(text)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestInfo(t *testing.T) {
	w := newWorld(t)
	commit := w.model.Head()
	for _, path := range []string{"", "/revision/main", "/revision/HEAD", "/revision/" + commit, "/revision/refs%2Fpr%2F1"} {
		var doc struct {
			ID, Sha, LastModified string
			Gated, Private        bool
			Siblings              []struct{ Rfilename, BlobID string }
			Tags                  []string
		}
		w.get("/api/models/team/model" + path).into(&doc)
		if doc.ID != "team/model" || doc.Sha != commit || len(doc.Siblings) != len(files()) || doc.Siblings[0].BlobID != "" || !slices.Contains(doc.Tags, "license:mit") || doc.LastModified == "" {
			t.Errorf("%s: %+v", path, doc)
		}
	}
	var few map[string]any
	w.get("/api/models/team/model?expand=sha&expand=gated").into(&few)
	if diff := cmp.Diff(map[string]any{"_id": stableID("team/model"), "id": "team/model", "sha": commit, "gated": false}, few); diff != "" {
		t.Error(diff)
	}
	var closed map[string]any
	w.get("/api/models/team/closed", "Authorization", "Bearer "+secret).into(&closed)
	if closed["gated"] != "manual" {
		t.Errorf("a closed one is gated %v", closed["gated"])
	}
	var named map[string]any
	w.get("/api/models/team/model/revision/HEAD?expand=pipeline_tag&expand=library_name").into(&named)
	if named["pipeline_tag"] != "fill-mask" || named["library_name"] != "transformers" {
		t.Errorf("got %v", named)
	}
	if r := w.get("/api/models/team/model/auth-check"); r.status != http.StatusOK {
		t.Errorf("auth-check: %d %s", r.status, r.body)
	}
	var old struct {
		ID          string
		LibraryName string `json:"library_name"`
	}
	w.get("/api/models/gpt2").into(&old)
	if old.ID != "gpt2" || old.LibraryName != "transformers" {
		t.Errorf("got %+v", old)
	}
}

// names lists repositories, through every page.
func (w *world) names(path string, headers ...string) (ids []string, pages int) {
	w.t.Helper()
	for next := w.url + path; next != ""; pages++ {
		var list []struct{ ID, Sha string }
		r := w.send(http.MethodGet, next, "", headers...)
		r.into(&list)
		for _, m := range list {
			if m.Sha == "" {
				w.t.Errorf("%s has no commit", m.ID)
			}
			ids = append(ids, m.ID)
		}
		next = ""
		if link := r.header.Get("Link"); link != "" {
			next = strings.TrimPrefix(strings.TrimSuffix(link, `>; rel="next"`), "<")
			if !strings.HasPrefix(next, w.url+"/api/") {
				w.t.Fatalf("the next page is %s", next)
			}
		}
	}
	return ids, pages
}

func TestList(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		path, token string
		want        []string
		pages       int
	}{
		{"/api/models", "", []string{"gpt2", "team/model"}, 1},
		{"/api/models", secret, []string{"gpt2", "team/closed", "team/model"}, 1},
		{"/api/models", other, []string{"gpt2", "team/model"}, 1},
		{"/api/models?limit=1", secret, []string{"gpt2", "team/closed", "team/model"}, 3},
		{"/api/models?search=MOD&limit=500", "", []string{"team/model"}, 1},
		{"/api/models?author=team", secret, []string{"team/closed", "team/model"}, 1},
		{"/api/models?author=te", secret, nil, 1},
		{"/api/models?expand=sha&expand=siblings", "", []string{"gpt2", "team/model"}, 1},
		{"/api/datasets?search=team", "", []string{"team/data"}, 1},
	} {
		var headers []string
		if c.token != "" {
			headers = []string{"Authorization", "Bearer " + c.token}
		}
		got, pages := w.names(c.path, headers...)
		if !slices.Equal(got, c.want) || pages != c.pages {
			t.Errorf("%s with %q: %v on %d pages, want %v on %d", c.path, c.token, got, pages, c.want, c.pages)
		}
	}
}

func TestPathsInfo(t *testing.T) {
	w := newWorld(t)
	const address = "/api/models/team/model/paths-info/main"
	const form, doc = "application/x-www-form-urlencoded", "application/json"
	for _, c := range []struct {
		name, contentType, body string
		want                    []string
		expand                  bool
	}{
		{"form", form, "paths=config.json&paths=nothing&paths=a+folder%2Fx%2By%2520z.txt&expand=False", []string{"config.json", "a folder/x+y%20z.txt"}, false},
		{"form, expanded", form + "; charset=utf-8", "paths=model.safetensors&expand=True", []string{"model.safetensors"}, true},
		{"document", doc, `{"paths":["a folder","a folder/","config.json","config.json"],"expand":true,"more":1}`, []string{"a folder", "config.json"}, true},
		{"nothing", form, "expand=true", nil, false},
		{"the root is no path", doc, `{"paths":["","/","."]}`, nil, false},
	} {
		r := w.send(http.MethodPost, w.url+address, c.body, "Content-Type", c.contentType)
		var list []treeItem
		r.into(&list)
		var got []string
		for _, e := range list {
			got = append(got, e.Path)
			if (e.LastCommit != nil) != c.expand || c.expand && (e.LastCommit.ID != w.model.Head() || e.LastCommit.Title == "" || e.LastCommit.Date == "") {
				t.Errorf("%s: last commit %+v", c.name, e.LastCommit)
			}
		}
		if !slices.Equal(got, c.want) || list == nil {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"too long", form, "paths=" + strings.Repeat("a", maxBody), 413},
		{"no document", doc, `{"paths":`, 400},
		{"another document", doc, `{"paths":"config.json"}`, 400},
		{"no form", form, "paths=%zz", 400},
	} {
		if r := w.send(http.MethodPost, w.url+address, c.body, "Content-Type", c.contentType); r.status != c.status || r.header.Get("X-Error-Message") == "" {
			t.Errorf("%s: %d %s, want %d", c.name, r.status, r.body, c.status)
		}
	}
}
