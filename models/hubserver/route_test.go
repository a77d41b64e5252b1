package hubserver

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/models/hub"
)

// here are the repositories of the tests of routes: also some whose names are
// words of the API.
func here(name hub.Repo) bool {
	switch name.String() {
	case "team/model", "gpt2", "team/tree", "tree/resolve", "datasets/team/data", "datasets/squad", "refs/x":
		return true
	}
	return false
}

func model(id string) hub.Repo   { return hub.Repo{Kind: hub.Model, ID: id} }
func dataset(id string) hub.Repo { return hub.Repo{Kind: hub.Dataset, ID: id} }

var routes = map[string]route{
	"/api/agent-harnesses":                                  {do: doHarnesses},
	"/api/telemetry/a/b":                                    {do: doTelemetry},
	"/api/whoami-v2":                                        {do: doWhoami},
	"/api/models":                                           {do: doList, repo: model("")},
	"/api/datasets/":                                        {do: doList, repo: dataset("")},
	"/api/models/team/model":                                {do: doInfo, repo: model("team/model"), revision: "HEAD"},
	"/api/models/team%2Fmodel":                              {do: doInfo, repo: model("team/model"), revision: "HEAD"},
	"/api/models/team/unknown":                              {do: doInfo, repo: model("team/unknown"), revision: "HEAD"},
	"/api/models/unknown/refs":                              {do: doRefs, repo: model("unknown"), revision: "HEAD"},
	"/api/models/unknown/tree":                              {do: doInfo, repo: model("unknown/tree"), revision: "HEAD"},
	"/api/models/gpt2/auth-check":                           {do: doAuth, repo: model("gpt2"), revision: "HEAD"},
	"/api/models/unknown/tree/main":                         {do: doTree, repo: model("unknown"), revision: "main"},
	"/api/models/gpt2":                                      {do: doInfo, repo: model("gpt2"), revision: "HEAD"},
	"/api/models/gpt2/tree/main":                            {do: doTree, repo: model("gpt2"), revision: "main"},
	"/api/models/team/tree/tree/tree/tree":                  {do: doTree, repo: model("team/tree"), revision: "tree", path: "tree"},
	"/api/models/team/model/revision/refs%2Fpr%2F1":         {do: doInfo, repo: model("team/model"), revision: "refs/pr/1"},
	"/api/models/team/model/tree/main/a%2Fb%20c+d":          {do: doTree, repo: model("team/model"), revision: "main", path: "a/b c+d"},
	"/api/models/team/model/tree/main/a/b/":                 {do: doTree, repo: model("team/model"), revision: "main", path: "a/b"},
	"/api/models/team/model/paths-info/main":                {do: doPaths, repo: model("team/model"), revision: "main"},
	"/api/models/refs/x/refs":                               {do: doRefs, repo: model("refs/x"), revision: "HEAD"},
	"/api/datasets/squad/refs":                              {do: doRefs, repo: dataset("squad"), revision: "HEAD"},
	"/api/models/team/model/commits/main":                   {do: doCommits, repo: model("team/model"), revision: "main"},
	"/team/model/resolve/main/a/b.txt":                      {do: doResolve, repo: model("team/model"), revision: "main", path: "a/b.txt"},
	"/team/model/resolve/refs/pr/1/config.json":             {do: doResolve, repo: model("team/model"), revision: "refs/pr/1", path: "config.json"},
	"/team/model/resolve/refs%2Fconvert%2Fparquet/x%2By%25": {do: doResolve, repo: model("team/model"), revision: "refs/convert/parquet", path: "x+y%"},
	"/gpt2/raw/main/config.json":                            {do: doRaw, repo: model("gpt2"), revision: "main", path: "config.json"},
	"/tree/resolve/resolve/resolve/resolve":                 {do: doResolve, repo: model("tree/resolve"), revision: "resolve", path: "resolve"},
	"/unknown/resolve/main/x/y":                             {do: doResolve, repo: model("unknown"), revision: "main", path: "x/y"},
	"/datasets/team/data/resolve/main/train.csv":            {do: doResolve, repo: dataset("team/data"), revision: "main", path: "train.csv"},
	"/datasets/squad/resolve/main/train.csv":                {do: doResolve, repo: dataset("squad"), revision: "main", path: "train.csv"},
}

func TestRoute(t *testing.T) {
	for path, want := range routes {
		got, ok := parseRoute(path, here)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(route{})); diff != "" || !ok {
			t.Errorf("%s: %v %s", path, ok, diff)
		}
	}
	for _, path := range []string{
		"", "/", "/api", "/api/", "/api/spaces", "/api/models/team/model/refs/main", "/api/models/team/model/tree", "/api/models/team/model/revision/main/x",
		"/api/models/team/model/paths-info", "/api/models/team/model/list/x", "/api/models/team/model/whoami-v2/x", "/api/agent-harnesses/x", "/team/model", "/team/model/resolve", "/team/model/resolve/main",
		"/team/model/resolve/main/", "/team/model/blob/main/x", "/team/model/tree/main/x", "/datasets", "/%zz/x/resolve/main/y", "/team/model/telemetry/x/y",
	} {
		if got, ok := parseRoute(path, here); ok {
			t.Errorf("%q: got %+v, want nothing", path, got)
		}
	}
}

// Whatever a path is: no panic, and what is found can be written back.
func FuzzRoute(f *testing.F) {
	if len(routes) < 20 {
		f.Fatal("too few seeds")
	}
	for path := range routes {
		f.Add(path)
	}
	f.Add("/api/models/%2e%2e/%2e%2e/tree/%2F/..")
	f.Fuzz(func(t *testing.T, path string) {
		rt, ok := parseRoute(path, here)
		if !ok || rt.path == "" {
			return
		}
		if strings.HasSuffix(rt.path, "/") && !strings.HasSuffix(rt.path, "//") || rt.revision == "" && !strings.Contains(path, "//") {
			t.Errorf("%q became %+v", path, rt)
		}
		if rt.do != doResolve || !here(rt.repo) || strings.Contains(path, "//") {
			return
		}
		if hub.CheckFile(rt.path) != nil || hub.CheckRevision(rt.revision) != nil {
			return
		}
		again, ok := parseRoute("/"+rt.repo.ResolvePath(rt.revision, rt.path), here)
		if !ok || again != rt {
			t.Errorf("%q became %+v and then %+v", path, rt, again)
		}
	})
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{"paths=a&paths=b&expand=True", `{"paths":["a"],"expand":true}`, "paths=%2B+", `{"paths":null}`, "paths=a;b", "[]"} {
		f.Add("application/json", s)
		f.Add("application/x-www-form-urlencoded", s)
	}
	f.Fuzz(func(t *testing.T, contentType, body string) {
		paths, _, err := parsePaths(contentType, []byte(body))
		if err != nil {
			return
		}
		form := url.Values{"paths": paths}
		again, _, err := parsePaths("application/x-www-form-urlencoded", []byte(form.Encode()))
		if diff := cmp.Diff(paths, again); err != nil || len(paths) > 0 && diff != "" {
			t.Errorf("%q: %v %s", body, err, diff)
		}
	})
}
