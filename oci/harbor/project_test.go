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
)

func TestEnsureProject(t *testing.T) {
	w := newWorld(t)
	c := w.robot(RobotOptions{Create: true})
	refused(t, c.EnsureProject(t.Context(), ProjectOptions{}), CodeProject)
	if w.harbor.Project("platform") != nil {
		t.Fatal("the project was made without leave")
	}
	o := ProjectOptions{Create: true, Public: true, StorageLimit: 5000}
	for range 2 {
		if err := c.EnsureProject(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	p := w.harbor.Project("platform")
	if p == nil || p.Metadata["public"] != "true" || p.Quota != 5000 {
		t.Errorf("the project is %+v", p)
	}
	if n := w.harbor.Count(http.MethodPost, "/projects"); n != 1 {
		t.Errorf("%d projects were made, want 1", n)
	}
	notes(t, c, 0)
}

func TestEnsureProjectPrivate(t *testing.T) {
	w := newWorld(t)
	if err := w.admin().EnsureProject(t.Context(), ProjectOptions{Create: true}); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(w.harbor.Requests(), func(q harbortest.Request) bool { return q.Method == http.MethodPost })
	if want, got := `{"project_name":"platform","metadata":{"public":"false"}}`, w.harbor.Requests()[i].Body; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

// TestEnsureProjectRace: somebody makes it between the look and the call.
func TestEnsureProjectRace(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	blind := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		w.harbor.ServeHTTP(rw, r)
	}))
	c := connect(t, Config{Name: "oci/platform", URL: blind, Project: "platform", User: "admin", Password: adminPassword})
	if err := c.EnsureProject(t.Context(), ProjectOptions{Create: true, StorageLimit: 10}); err != nil {
		t.Error(err)
	}
	if w.harbor.Count(http.MethodPost, "/projects") != 1 {
		t.Error("the call was not made")
	}
}

func TestEnsureProjectForbidden(t *testing.T) {
	w := newWorld(t)
	c := w.robot(RobotOptions{Project: "platform"})
	err := c.EnsureProject(t.Context(), ProjectOptions{Create: true})
	refused(t, err, CodeForbidden)
	hasID(t, err)
	if !strings.Contains(err.Error(), "Only system level robot can create project") || !strings.Contains(err.Error(), "project:create") {
		t.Errorf("%v does not say what is lacking", err)
	}
	refused(t, w.as("admin", "wrong").EnsureProject(t.Context(), ProjectOptions{Create: true}), CodeLogin)
}

// TestStorageLimitIgnored: Harbor takes its own setting from who may set none.
func TestStorageLimitIgnored(t *testing.T) {
	w := newWorld(t)
	deaf := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.harbor.ServeHTTP(rw, r)
		if r.Method == http.MethodPost {
			w.harbor.Change("platform", func(p *harbortest.Project) { p.Quota = -1 })
		}
	}))
	c := connect(t, Config{Name: "oci/platform", URL: deaf, Project: "platform", User: "admin", Password: adminPassword})
	if err := c.EnsureProject(t.Context(), ProjectOptions{Create: true, StorageLimit: 10}); err != nil {
		t.Fatal(err)
	}
	if got, want := notes(t, c, 1), "the quota none of harbor's settings, not 10 bytes"; !strings.Contains(got, want) {
		t.Errorf("noted %q, want %q", got, want)
	}
}

func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	w.harbor.SetReadOnly(true)
	err := w.admin().EnsureProject(t.Context(), ProjectOptions{Create: true})
	refused(t, err, CodeReadOnly)
	hasID(t, err)
}

func TestQuota(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", 1000)
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Used = 400 })
	c := w.robot(RobotOptions{Project: "platform"})
	hard, used, err := c.Quota(t.Context())
	if err != nil || hard != 1000 || used != 400 {
		t.Errorf("quota %d of %d, %v", used, hard, err)
	}
	for _, need := range []int64{0, 1, 600} {
		if err := c.CheckQuota(t.Context(), need); err != nil {
			t.Errorf("%d bytes: %v", need, err)
		}
	}
	r := refused(t, c.CheckQuota(t.Context(), 601), CodeQuota)
	if r.Want != "601 bytes free" || r.Got != "600" {
		t.Errorf("want %q, got %q", r.Want, r.Got)
	}
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Used = 1400 }) // lowered afterwards
	refused(t, c.CheckQuota(t.Context(), 1), CodeQuota)
	if err := c.CheckQuota(t.Context(), 0); err != nil {
		t.Errorf("nothing is needed: %v", err)
	}
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Quota = -1 })
	if err := c.CheckQuota(t.Context(), 1<<60); err != nil {
		t.Errorf("there is no quota: %v", err)
	}
}

// TestQuotaOff: Harbor can keep no quotas at all.
func TestQuotaOff(t *testing.T) {
	off := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"repo_count":3}`)) }))
	hard, used, err := connect(t, Config{Name: "oci/platform", URL: off, Project: "platform"}).Quota(t.Context())
	if hard != -1 || used != 0 || err != nil {
		t.Errorf("got %d, %d, %v; want none", hard, used, err)
	}
}

// TestQuotaAbsentProject: an administrator gets 404, a robot 403.
func TestQuotaAbsentProject(t *testing.T) {
	w := newWorld(t)
	if _, _, err := w.admin().Quota(t.Context()); !IsNotFound(err) || !errors.Is(err, artifact.ErrUnavailable) {
		t.Errorf("administrator: %v", err)
	}
	_, _, err := w.robot(RobotOptions{Create: true}).Quota(t.Context())
	if r := refused(t, err, CodeForbidden); !strings.Contains(r.Reason, "project:read") {
		t.Errorf("%v does not name the permission", err)
	}
}

func TestEnsureLabel(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	w.harbor.AddProject("other", -1)
	d := w.image("platform/registry.example/team/app")
	c := w.robot(RobotOptions{Project: "platform", Labels: true})
	longer, err := c.EnsureLabel(t.Context(), Label{Name: "bundle main-000042", Color: "#48960C"})
	if err != nil {
		t.Fatal(err)
	}
	l := Label{Name: "bundle main-00004"} // part of the other's name
	id, err := c.EnsureLabel(t.Context(), l)
	if err != nil || id == longer || id <= 0 {
		t.Fatalf("label %d, %v; want another than %d", id, err, longer)
	}
	if again, err := c.EnsureLabel(t.Context(), l); err != nil || again != id {
		t.Errorf("the second time label %d, %v; want %d", again, err, id)
	}
	for range 2 { // the second is answered with 409
		if err := c.AddLabel(t.Context(), "platform/registry.example/team/app", d, id); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"bundle main-00004"}, w.harbor.Labels("platform/registry.example/team/app", d)); diff != "" {
		t.Error(diff)
	}
	if n := w.harbor.Count(http.MethodPost, "/api/v2.0/labels"); n != 2 {
		t.Errorf("%d labels were made, want 2", n)
	}
	if _, err := c.EnsureLabel(t.Context(), Label{}); err == nil {
		t.Error("a label without a name was made")
	}
}

// TestEnsureLabelRace: it is made between the look and the call.
func TestEnsureLabelRace(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	blind := 1
	front := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/labels") && blind > 0 {
			blind--
			_, _ = rw.Write([]byte("[]"))
			return
		}
		w.harbor.ServeHTTP(rw, r)
	}))
	id, err := w.admin().EnsureLabel(t.Context(), Label{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, Config{Name: "oci/platform", URL: front, Project: "platform", User: "admin", Password: adminPassword})
	if got, err := c.EnsureLabel(t.Context(), Label{Name: "x"}); err != nil || got != id {
		t.Errorf("label %d, %v; want %d", got, err, id)
	}
}

func TestLabelForbidden(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	_, err := w.robot(RobotOptions{Project: "platform"}).EnsureLabel(t.Context(), Label{Name: "x"})
	if r := refused(t, err, CodeForbidden); !strings.Contains(r.Reason, "label:list") {
		t.Errorf("%v does not name the permission", err)
	}
}

func TestEnsureImmutableRule(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	c := w.robot(RobotOptions{Project: "platform", Immutable: true})
	for range 2 {
		if err := c.EnsureImmutableRule(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]harbortest.Rule{{Excludes: true, Tags: "sha256-*"}}, w.harbor.Project("platform").Rules); d != "" {
		t.Error(d)
	}
	notes(t, c, 0)
	w.harbor.Change("platform", func(p *harbortest.Project) {
		p.Rules[0].Disabled = true
		p.Rules = append(p.Rules, harbortest.Rule{Tags: "**"}, harbortest.Rule{Tags: "v*"})
	})
	if err := c.EnsureImmutableRule(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.harbor.Project("platform").Rules); n != 3 {
		t.Errorf("%d rules, want 3: one that somebody disabled is not made again", n)
	}
	got := notes(t, c, 2)
	if !strings.Contains(got, "rule 1 ") || !strings.Contains(got, "disabled") || !strings.Contains(got, "rule 2 ") || !strings.Contains(got, "second signature") {
		t.Errorf("noted %q", got)
	}
}

func TestHoldsAttached(t *testing.T) {
	one := func(decoration, pattern string) Rule {
		return Rule{Tags: []Selector{{Kind: "doublestar", Decoration: decoration, Pattern: pattern}}}
	}
	for _, tt := range []struct {
		rule Rule
		want bool
	}{
		{mirrorRule(), false},
		{one("matches", "**"), true},
		{one("matches", "*"), true},
		{one("matches", "sha256-*.sig"), true},
		{one("matches", "{v*,sha256-*}"), true},
		{one("matches", "{v*,w*}"), false},
		{one("matches", "v{1,2}*"), false},
		{one("matches", "["), false},
		{one("excludes", "v*"), true},
		{one("excludes", "sha256-**"), false},
		{one("excludes", "{latest,sha256-*}"), false},
		{Rule{}, false},
		{Rule{Disabled: true, Tags: []Selector{{Decoration: "matches", Pattern: "**"}}}, false},
		{Rule{Tags: []Selector{{Decoration: "matches", Pattern: "**"}, {Decoration: "excludes", Pattern: "sha256-*"}}}, false},
	} {
		if got := tt.rule.HoldsAttached(); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.rule.Tags, got, tt.want)
		}
	}
}
