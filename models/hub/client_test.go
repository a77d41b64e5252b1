package hub_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/hubtest"
)

var model = hub.Repo{Kind: hub.Model, ID: "team/model"}

// files of a small model.
func files() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"model_type":"bert"}`), "model.safetensors": []byte("weights"),
		"README.md": []byte("# Card\n"), "a folder/x+y.txt": []byte("z"),
	}
}

// client makes a hub with one model and a client of it.
func client(t *testing.T, o hubtest.Options, token string) (*hubtest.Hub, *hubtest.Repo, *hub.Client) {
	t.Helper()
	h := hubtest.Start(t, o)
	r := h.AddModel("team/model")
	r.Commit(files())
	var hosts []string
	for _, u := range []string{h.URL, h.CDN} {
		host, err := fetch.Host(u)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, host)
	}
	fc, err := fetch.New(fetch.NewPool(0, 0), fetch.Config{Name: "models/llm", Hosts: hosts, AllowHTTP: true, RetryWait: time.Millisecond, MaxRetries: 2})
	if err != nil {
		t.Fatal(err)
	}
	c, err := hub.NewClient("models/llm", h.URL+"/", token, fc)
	if err != nil {
		t.Fatal(err)
	}
	return h, r, c
}

func TestResolveAndTree(t *testing.T) {
	_, r, c := client(t, hubtest.Options{Page: 1, Xet: true, Gzip: true}, "")
	r.SetRef("refs/tags/v1.0", r.Head())
	for _, revision := range []string{"main", "v1.0", r.Head()} {
		got, err := c.Resolve(t.Context(), model, revision)
		if err != nil || got.SHA != r.Head() || got.Gated != "" {
			t.Fatalf("%s: %+v %v", revision, got, err)
		}
	}
	tree, err := c.Tree(t.Context(), model, r.Head())
	if err != nil {
		t.Fatal(err)
	}
	if len(tree) != len(files()) || !slices.IsSortedFunc(tree, func(a, b hub.Entry) int { return strings.Compare(a.Path, b.Path) }) {
		t.Fatalf("got %+v", tree)
	}
	for _, e := range tree {
		want, ok := r.Entry("main", e.Path)
		if !ok || e.Size != want.Size || e.ETag() != want.ETag() || (e.LFS != nil) != (want.SHA256 != "" && e.Path == "model.safetensors") {
			t.Errorf("%+v, want %+v", e, want)
		}
		if e.LFS != nil {
			continue
		}
		b, err := c.Content(t.Context(), model, r.Head(), &e)
		if err != nil || string(b) != string(files()[e.Path]) {
			t.Errorf("%s: %q %v", e.Path, b, err)
		}
	}
}

// code is the code of a refusal, and whether its class is integrity.
func code(err error) string {
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		return fmt.Sprintf("no refusal: %v", err)
	}
	if errors.Is(err, artifact.ErrIntegrity) {
		return r.Code + " integrity"
	}
	return r.Code
}

func TestWhatIsNotThere(t *testing.T) {
	for _, c := range []struct {
		name     string
		spoil    func(*hubtest.Hub, *hubtest.Repo)
		repo     string
		revision string
		token    string
		code     string
		says     string
	}{
		{"no repository", nil, "team/other", "main", "", hub.CodeNoRepo, ""},
		{"no revision", nil, "team/model", "v9", "", hub.CodeNoRevision, "there are main"},
		{"short commit", nil, "team/model", "abcdef1", "", hub.CodeNoRevision, ""},
		{"hidden", func(_ *hubtest.Hub, r *hubtest.Repo) { r.Hide("someone") }, "team/model", "main", "", hub.CodeNoRepo, ""},
		{"disabled", func(_ *hubtest.Hub, r *hubtest.Repo) { r.Disable() }, "team/model", "main", "", hub.CodeDisabled, ""},
		{"wrong token", nil, "team/model", "main", "hf_wrong", hub.CodeDenied, "token_file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, r, cl := client(t, hubtest.Options{}, c.token)
			if c.spoil != nil {
				c.spoil(h, r)
			}
			name, err := hub.ParseRepo(c.repo)
			if err != nil {
				t.Fatal(err)
			}
			_, err = cl.Resolve(t.Context(), name, c.revision)
			if got := code(err); got != c.code || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("want %s and %q, got %s: %v", c.code, c.says, got, err)
			}
		})
	}
}

func TestGated(t *testing.T) {
	_, r, c := client(t, hubtest.Options{}, "")
	r.Gate("manual", "friend")
	tree := r.Entries("main")
	e := hub.Entry{Path: "config.json"}
	for _, want := range tree {
		if want.Path == e.Path {
			e.Size, e.OID = want.Size, hub.OID(want.OID)
		}
	}
	at, err := c.Resolve(t.Context(), model, "main")
	if err != nil || at.Gated != "manual" {
		t.Fatalf("%+v %v", at, err)
	}
	_, err = c.Content(t.Context(), model, r.Head(), &e)
	if code(err) != hub.CodeGated || !strings.Contains(err.Error(), "/team/model") {
		t.Fatalf("got %v", err)
	}

	h, r, c := client(t, hubtest.Options{}, "hf_secret")
	h.AddToken("hf_secret", "friend")
	r.Gate("auto", "friend")
	if _, err := c.Content(t.Context(), model, r.Head(), &e); err != nil {
		t.Fatal(err)
	}
}

func TestDefectiveTrees(t *testing.T) {
	for name, f := range map[string]hubtest.TreeFault{
		"no id":           hubtest.WithoutField("config.json", "oid"),
		"no size":         hubtest.WithField("config.json", "size", -1),
		"no LFS digest":   hubtest.WithoutField("model.safetensors", "lfs.oid"),
		"LFS size":        hubtest.WithField("model.safetensors", "lfs.size", 1),
		"pointer size":    hubtest.WithField("model.safetensors", "lfs.pointerSize", 0),
		"type":            hubtest.WithField("config.json", "type", "link"),
		"twice":           hubtest.Duplicate("config.json"),
		"case":            hubtest.CaseClash("config.json"),
		"escapes":         hubtest.CopyAs("config.json", "../config.json"),
		"absolute":        hubtest.CopyAs("config.json", "/etc/passwd"),
		"file and folder": hubtest.CopyAs("config.json", "README.md/x"),
		"loops":           hubtest.LoopPages(),
		"endless":         hubtest.EndlessPages(),
		"leads away":      hubtest.LeadAway("http://elsewhere.example/x"),
		"huge":            hubtest.HugePage(hub.MaxDocument + 1),
	} {
		t.Run(name, func(t *testing.T) {
			h, r, c := client(t, hubtest.Options{}, "")
			h.BreakTree("team/model", f)
			entries, err := c.Tree(t.Context(), model, r.Head())
			if _, ok := errors.AsType[*artifact.Refusal](err); !ok {
				t.Fatalf("got %d entries and %v", len(entries), err)
			}
		})
	}
}

// The wrong file of the right size is asked for once more and then refused;
// the hub's own client accepts it.
func TestContentIsVerified(t *testing.T) {
	h, r, c := client(t, hubtest.Options{}, "")
	var e hub.Entry
	for _, want := range r.Entries("main") {
		if want.Path == "README.md" {
			e = hub.Entry{Path: want.Path, Size: want.Size, OID: hub.OID(want.OID)}
		}
	}
	h.Break("team/model", "README.md", hubtest.Corrupt(-1).Times(1))
	if b, err := c.Content(t.Context(), model, r.Head(), &e); err != nil || string(b) != "# Card\n" {
		t.Fatalf("wrong once: %q %v", b, err)
	}
	h.Break("team/model", "README.md", hubtest.Corrupt(-1))
	if _, err := c.Content(t.Context(), model, r.Head(), &e); code(err) != hub.CodeContent+" integrity" {
		t.Fatalf("wrong for ever: %v", err)
	}
}

// The token is for the hub's host; neither the server of the large files nor
// an error message learns it.
func TestTokenStaysAtTheHub(t *testing.T) {
	const token = "hf_a_secret_that_must_not_show"
	h, r, c := client(t, hubtest.Options{}, token)
	h.AddToken(token, "friend")
	saw := map[string]bool{}
	h.Before(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.Header.Get("Authorization"), token) || strings.Contains(q.URL.String(), token) {
			saw[q.Host] = true
		}
		return false
	})
	if _, err := c.Resolve(t.Context(), model, "main"); err != nil {
		t.Fatal(err)
	}
	e := hub.Entry{Path: "model.safetensors", Size: 7}
	_, err := c.Content(t.Context(), model, r.Head(), &e) // redirected to the CDN; its id is no git id, so it is refused
	if err == nil || strings.Contains(err.Error(), token) {
		t.Fatalf("got %v", err)
	}
	_, err = c.Resolve(t.Context(), model, "nothing")
	if err == nil || strings.Contains(err.Error(), token) {
		t.Fatalf("got %v", err)
	}
	if h.Count(hubtest.OnCDN, "GET", "") == 0 {
		t.Fatal("the CDN was not asked, so nothing is shown")
	}
	if !saw[strings.TrimPrefix(h.URL, "http://")] || saw[strings.TrimPrefix(h.CDN, "http://")] || len(saw) != 1 {
		t.Fatalf("the token was seen by %v", saw)
	}
}
