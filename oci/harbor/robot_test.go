package harbor

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var everything = RobotOptions{Name: "darkmirror", Project: "platform", Create: true, Labels: true, Scan: true, Immutable: true, Allowlist: true}

// TestRobotEnough: an account of exactly these permissions can do each step.
func TestRobotEnough(t *testing.T) {
	w := newWorld(t)
	c := w.robot(everything)
	if _, err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureProject(t.Context(), ProjectOptions{Create: true, StorageLimit: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckQuota(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	d := w.image(app)
	w.harbor.Scanner()
	if a, err := c.Artifact(t.Context(), app, d); err != nil || a == nil {
		t.Fatal(a, err)
	}
	id, err := c.EnsureLabel(t.Context(), Label{Name: "bundle"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddLabel(t.Context(), app, d, id); err != nil {
		t.Fatal(err)
	}
	if err := c.Scan(t.Context(), app, d); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureImmutableRule(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MergeAllowlist(t.Context(), []Exception{{"CVE-1", time.Now().Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	notes(t, c, 0)
}

func TestRobotPermissions(t *testing.T) {
	base := RobotPermissions(RobotOptions{Project: "platform"})
	if len(base) != 1 || base[0].Kind != "project" || base[0].Namespace != "platform" {
		t.Fatalf("got %+v", base)
	}
	for _, a := range base[0].Access {
		if a.Action == "delete" || a.Action == "update" || a.Resource == "robot" || a.Resource == "member" {
			t.Errorf("%s:%s is more than is needed", a.Resource, a.Action)
		}
	}
	all := RobotPermissions(RobotOptions{Project: "platform", Scanner: true})
	want := []Permission{{"system", "/", []Access{{"scanner", "list"}, {"scanner", "create"}, {"scanner", "update"}}}}
	if d := cmp.Diff(want, all[:1]); d != "" || all[1].Namespace != "platform" {
		t.Error(d, all[1].Namespace)
	}
}

func TestRobotBodyRefuses(t *testing.T) {
	for _, o := range []RobotOptions{
		{Project: "platform"},
		{Name: "Importer", Project: "platform"},
		{Name: `x"y`, Project: "platform"},
		{Name: "importer"},
		{Name: "importer", Project: "*"},
		{Name: "importer", Project: "*", Scanner: true},
	} {
		if b, err := RobotBody(o); err == nil {
			t.Errorf("%+v: got %s", o, b)
		}
	}
}

// TestRobotBodiesInManual: the manual shows exactly what the code makes.
func TestRobotBodiesInManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/harbor.md")
	if err != nil {
		t.Fatal(err)
	}
	project := everything
	project.Create = false
	for name, o := range map[string]RobotOptions{"project": project, "system": everything} {
		body, err := RobotBody(o)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(manual), string(body)) {
			t.Errorf("docs/harbor.md lacks the body of the %s account:\n%s", name, body)
		}
		if strings.Contains(string(body), "delete") {
			t.Errorf("the %s account may delete", name)
		}
	}
}
