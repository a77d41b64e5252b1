package harbor

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/harbortest"
	"github.com/darkmirror/darkmirror/oci/ocitest"
)

const app = "platform/registry.example/team/app"

func TestArtifact(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	one, two := ocitest.ImageFor("linux/amd64", []byte("one")), ocitest.ImageFor("linux/arm64", []byte("two"))
	index := ocitest.Index(one, two)
	d := string(w.harbor.Registry.Put(app, "1.0", index))
	sig := string(w.harbor.Registry.Sign(app, index).Digest)
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Rules = []harbortest.Rule{{Excludes: true, Tags: "sha256-*"}} })
	c := w.robot(RobotOptions{Project: "platform"})
	for _, ref := range []string{"1.0", d} {
		a, err := c.Artifact(t.Context(), app, ref)
		if err != nil {
			t.Fatal(err)
		}
		if a.Digest != d || a.Type != "IMAGE" || !a.Tagged("1.0") || a.Tagged("2.0") || a.ManifestMediaType != index.MediaType || a.Size < int64(len(index.Raw)) {
			t.Errorf("%s: got %+v", ref, a)
		}
		if diff := cmp.Diff([]Reference{{string(one.Digest)}, {string(two.Digest)}}, a.References); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]Accessory{{sig, "signature.cosign", d}}, a.Accessories); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]Tag{{"1.0", true}}, a.Tags); diff != "" {
			t.Error(diff)
		}
		if _, ok := a.Scan(); ok {
			t.Error("a scan out of nowhere")
		}
	}
	for _, ref := range []string{"2.0", "sha256:" + strings.Repeat("0", 64)} {
		if a, err := c.Artifact(t.Context(), app, ref); a != nil || err != nil {
			t.Errorf("%s: %+v, %v; want nothing", ref, a, err)
		}
	}
}

// TestDoubleEscape: slashes in a repository's name are escaped twice, which
// survives a proxy that undoes one escape.
func TestDoubleEscape(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	d := w.image(app)
	if a, err := w.admin().Artifact(t.Context(), app, d); a == nil || err != nil {
		t.Fatal(err)
	}
	want := "/api/v2.0/projects/platform/repositories/registry.example%252Fteam%252Fapp/artifacts/" + d
	if got := w.harbor.Requests()[0].Path; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	proxy := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.URL.RawPath = strings.ReplaceAll(r.URL.EscapedPath(), "%25", "%")
		r.URL.Path = strings.ReplaceAll(r.URL.RawPath, "%2F", "/")
		w.harbor.ServeHTTP(rw, r)
	}))
	c := connect(t, Config{Name: "oci/platform", URL: proxy, Project: "platform", User: "admin", Password: adminPassword})
	if a, err := c.Artifact(t.Context(), app, d); a == nil || err != nil {
		t.Errorf("through a proxy: %+v, %v", a, err)
	}
}

func TestArtifactNames(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	c := w.admin()
	for _, tt := range []struct{ repo, ref string }{
		{"other/app", "1.0"}, {"platform", "1.0"}, {"platform/", "1.0"}, {"platform/app", ""}, {"platform/app", "../../x"}, {"platform/app", "1%2F"}, {"platform/app", "1?x"},
	} {
		if _, err := c.Artifact(t.Context(), tt.repo, tt.ref); err == nil {
			t.Errorf("%s %s was asked for", tt.repo, tt.ref)
		}
		if err := c.AddLabel(t.Context(), tt.repo, tt.ref, 1); err == nil {
			t.Errorf("%s %s was labelled", tt.repo, tt.ref)
		}
		if err := c.Scan(t.Context(), tt.repo, tt.ref); err == nil {
			t.Errorf("%s %s was scanned", tt.repo, tt.ref)
		}
	}
	if n := len(w.harbor.Requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestArtifactOther(t *testing.T) {
	for _, body := range []string{`{}`, `{"digest":"sha256:x"}`, `{"digest":"sha256:` + strings.Repeat("b", 64) + `"}`} {
		liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		c := connect(t, Config{Name: "oci/platform", URL: liar, Project: "platform"})
		a, err := c.Artifact(t.Context(), app, "sha256:"+strings.Repeat("a", 64))
		if r := refused(t, err, CodeReply); a != nil || !errors.Is(err, artifact.ErrIntegrity) || r.Want == "" {
			t.Errorf("%s: %+v, %v", body, a, err)
		}
	}
}

// TestPullPrevention: the registry hides a vulnerable image from its own
// importer; the API shows it.
func TestPullPrevention(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	w.harbor.Scanner()
	d := w.image(app)
	w.harbor.Vulnerable(d, harbortest.Vulnerability{ID: "CVE-2026-1", Package: "zlib", Version: "1.2", Severity: "High"})
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Metadata["prevent_vul"], p.Metadata["severity"] = "true", "high" })
	c := w.robot(RobotOptions{Project: "platform", Scan: true})
	if err := c.Scan(t.Context(), app, d); err != nil {
		t.Fatal(err)
	}
	notes(t, c, 0)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req, err := http.NewRequestWithContext(t.Context(), method, w.url+"/v2/"+app+"/manifests/"+d, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("admin", adminPassword)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // only the status counts
		if err := c.Explain(OpRead, app+"@"+d, resp.StatusCode, nil, resp.Header.Get("X-Request-Id")); !IsPolicy(err) {
			t.Fatalf("%s: %d, %v; want the policy", method, resp.StatusCode, err)
		}
	}
	a, err := c.Artifact(t.Context(), app, d)
	if err != nil || a == nil || a.Digest != d {
		t.Fatalf("the API: %+v, %v", a, err)
	}
	if s, ok := a.Scan(); !ok || s.Status != "Success" || s.Severity != "High" || s.Summary.Total != 1 {
		t.Errorf("scan %+v, %v", s, ok)
	}
}

func TestScanWithoutScanner(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	d := w.image(app)
	c := w.robot(RobotOptions{Project: "platform", Scan: true})
	if err := c.Scan(t.Context(), app, d); err != nil {
		t.Fatal(err)
	}
	if got := notes(t, c, 1); !strings.Contains(got, "no available scanner") || !strings.Contains(got, "X-Request-Id") {
		t.Errorf("noted %q", got)
	}
	w.harbor.Scanner()
	chart := ocitest.Chart(map[string]string{"name": "app", "version": "1.0.0"}, []byte("chart"))
	if err := c.Scan(t.Context(), app, string(w.harbor.Registry.Put(app, "c", chart))); err != nil {
		t.Fatal(err)
	}
	if got := notes(t, c, 1); !strings.Contains(got, "no scanner for its kind") {
		t.Errorf("noted %q", got)
	}
	if err := c.Scan(t.Context(), app, "sha256:"+strings.Repeat("0", 64)); !IsNotFound(err) {
		t.Errorf("an absent artifact: %v", err)
	}
	refused(t, w.robot(RobotOptions{Project: "platform"}).Scan(t.Context(), app, d), CodeForbidden)
}

// TestScanRunning: 409 says that a scan is under way.
func TestScanRunning(t *testing.T) {
	busy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) }))
	c := connect(t, Config{Name: "oci/platform", URL: busy, Project: "platform"})
	if err := c.Scan(t.Context(), app, "sha256:"+strings.Repeat("0", 64)); err != nil {
		t.Error(err)
	}
	notes(t, c, 0)
}

func TestRequestBodies(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	w.harbor.Scanner()
	d := w.image(app)
	c := w.admin()
	if err := c.Scan(t.Context(), app, d); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureImmutableRule(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range w.harbor.Requests() {
		if q.Method != http.MethodGet {
			got = append(got, q.Body)
		}
	}
	want := []string{
		`{"scan_type":"vulnerability"}`,
		`{"disabled":false,"action":"immutable","template":"immutable_template",` +
			`"tag_selectors":[{"kind":"doublestar","decoration":"excludes","pattern":"sha256-*"}],` +
			`"scope_selectors":{"repository":[{"kind":"doublestar","decoration":"repoMatches","pattern":"**"}]}}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !slices.ContainsFunc(w.harbor.Requests(), func(q harbortest.Request) bool { return q.Status == http.StatusAccepted }) {
		t.Error("no scan was accepted")
	}
}
