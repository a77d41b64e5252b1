package provenance

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func gitlab() order {
	const config = "https://gitlab.com/group/sub/pkg//ci/release.yml@refs/heads/main"
	o := github()
	o.san = config
	o.claims = map[int]string{8: issuerGitLab, 9: config, 12: "https://gitlab.com/group/sub/pkg", 13: forgedCommit, 14: "refs/heads/main", 18: config}
	return o
}

func google() order {
	o := github()
	o.san, o.claims = "builder@forge.example", map[int]string{8: issuerGoogle}
	return o
}

func circleci() order {
	const pipeline = "https://circleci.com/api/v2/projects/p-1/pipeline-definitions/d-1"
	o := github()
	o.san = pipeline
	o.claims = map[int]string{8: issuerCircleCI, 9: pipeline, 12: "github.com/demo/pkg", 14: "refs/heads/main"}
	return o
}

// with returns the publisher with one key changed; nil takes it away.
func with(p map[string]any, key string, v any) map[string]any {
	p = maps.Clone(p)
	if v == nil {
		delete(p, key)
	} else {
		p[key] = v
	}
	return p
}

// claiming returns the order with one extension changed; "" takes it away.
func claiming(o order, n int, v string) order {
	o.claims = maps.Clone(o.claims)
	if v == "" {
		delete(o.claims, n)
	} else {
		o.claims[n] = v
	}
	return o
}

// A publisherCase is a publisher as an index names it and an order as a
// workflow places it.
type publisherCase struct {
	name      string
	publisher map[string]any
	order     order
	who       string // accepted as
	text      string // or refused with
}

func publisherCases() []publisherCase {
	gl := map[string]any{"kind": "GitLab", "repository": "group/sub/pkg", "workflow_filepath": "ci/release.yml", "environment": nil}
	gg := map[string]any{"kind": "Google", "email": "builder@forge.example"}
	cc := map[string]any{"kind": "CircleCI", "project_id": "p-1", "pipeline_definition_id": "d-1", "vcs_origin": "github.com/demo/pkg", "vcs_ref": "refs/heads/main"}
	const byCommit = "https://github.com/demo/pkg/.github/workflows/release.yml@" + forgedCommit
	return []publisherCase{
		{"GitHub", githubPublisher, github(), "github.com/demo/pkg", ""},
		{"GitHub by commit", githubPublisher, claiming(github(), 18, byCommit), "github.com/demo/pkg", ""},
		{"GitHub without the ref", githubPublisher, claiming(claiming(github(), 18, byCommit), 14, ""), "github.com/demo/pkg", ""},
		{"GitHub, signed by a workflow of another repository", githubPublisher, claiming(github(), 9, "https://github.com/other/x/.github/workflows/y.yml@main"), "github.com/demo/pkg", ""},
		{"GitHub, other repository", with(githubPublisher, "repository", "evil/pkg"), github(), "", "its repository differs (want https://github.com/evil/pkg, got https://github.com/demo/pkg)"},
		{"GitHub, other letter case", with(githubPublisher, "repository", "Demo/pkg"), github(), "", "repository differs"},
		{"GitHub, no repository", with(githubPublisher, "repository", nil), github(), "", "repository differs"},
		{"GitHub, other workflow", with(githubPublisher, "workflow", "test.yml"), github(), "", "its workflow differs"},
		{"GitHub, workflow with the ref in it", with(githubPublisher, "workflow", "release.yml@refs/tags/v1"), github(), "", "workflow differs"},
		{"GitHub, no ref and no commit", githubPublisher, claiming(claiming(github(), 13, ""), 14, ""), "", "workflow differs"},
		{"GitHub, workflow at no ref", githubPublisher, claiming(claiming(claiming(github(), 13, ""), 14, ""), 18, "https://github.com/demo/pkg/.github/workflows/release.yml@"), "", "workflow differs"},
		{"GitHub, no workflow in the certificate", githubPublisher, claiming(github(), 18, ""), "", "got none"},
		{"GitHub, workflow of another ref", githubPublisher, claiming(github(), 14, "refs/heads/main"), "", "workflow differs"},
		{"GitHub, other issuer", githubPublisher, claiming(github(), 8, "https://issuer.example"), "", "its issuer differs"},
		{"GitHub, no issuer", githubPublisher, claiming(github(), 8, ""), "", "got none"},
		{"GitHub, GitLab's certificate", githubPublisher, gitlab(), "", "issuer differs"},

		{"GitLab", gl, gitlab(), "gitlab.com/group/sub/pkg", ""},
		{"GitLab, other repository", with(gl, "repository", "group/pkg"), gitlab(), "", "repository differs"},
		{"GitLab, other configuration", with(gl, "workflow_filepath", ".gitlab-ci.yml"), gitlab(), "", "workflow differs"},
		{"GitLab, GitHub's key for the workflow", with(with(gl, "workflow_filepath", nil), "workflow", "ci/release.yml"), gitlab(), "", "workflow differs"},
		{"GitLab, GitHub's certificate", gl, github(), "", "issuer differs"},

		{"Google", gg, google(), "accounts.google.com/builder@forge.example", ""},
		{"Google, other account", with(gg, "email", "other@forge.example"), google(), "", "its identity differs"},
		{"Google, no account", with(gg, "email", nil), google(), "", "identity differs"},
		{"Google, other issuer", gg, claiming(google(), 8, "https://issuer.example"), "", "issuer differs"},

		{"CircleCI", cc, circleci(), "circleci.com/p-1", ""},
		{"CircleCI without its optional keys", with(with(cc, "vcs_origin", nil), "vcs_ref", nil), circleci(), "circleci.com/p-1", ""},
		{"CircleCI, other project", with(cc, "project_id", "p-2"), circleci(), "", "its pipeline differs"},
		{"CircleCI, other definition", with(cc, "pipeline_definition_id", "d-2"), circleci(), "", "pipeline differs"},
		{"CircleCI, other origin", with(cc, "vcs_origin", "github.com/evil/pkg"), circleci(), "", "repository differs"},
		{"CircleCI, other ref", with(cc, "vcs_ref", "refs/heads/evil"), circleci(), "", "its ref differs"},
		{"CircleCI, other issuer", cc, claiming(circleci(), 8, "https://issuer.example"), "", "issuer differs"},

		{"ActiveState", map[string]any{"kind": "ActiveState", "organization": "demo"}, github(), "", "got ActiveState"},
		{"empty kind", with(githubPublisher, "kind", ""), github(), "", "cannot be verified"},
	}
}

func TestPublisher(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	for _, c := range publisherCases() {
		t.Run(c.name, func(t *testing.T) {
			as, err := root.Verify(object(t, c.publisher, f.sign(c.order)), forgedSubject)
			if c.who == "" {
				wantRefusal(t, err, CodePublisher, c.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := as[0].Publisher.String(); got != c.who {
				t.Errorf("got %s, want %s", got, c.who)
			}
		})
	}
}

func TestRequire(t *testing.T) {
	as := []Attestation{
		{Publisher: Publisher{Kind: KindGitLab, Repository: "demo/pkg"}},
		{Publisher: Publisher{Kind: KindGitHub, Repository: "demo/pkg"}},
	}
	for _, who := range []string{"", "github.com/demo/pkg", "gitlab.com/demo/pkg"} {
		if err := (Require{Publisher: who}).Check(as); err != nil {
			t.Errorf("%q: %v", who, err)
		}
	}
	for _, who := range []string{"github.com/demo", "github.com/demo/pkg2", "GitHub.com/demo/pkg", "demo/pkg", " "} {
		wantRefusal(t, Require{Publisher: who}.Check(as), CodePublisher, "gitlab.com/demo/pkg, github.com/demo/pkg")
	}
	wantRefusal(t, Require{}.Check(nil), CodePublisher, "got no attestation")
	wantRefusal(t, Require{Publisher: "github.com/demo/pkg"}.Check(nil), CodePublisher, "want github.com/demo/pkg, got no attestation")
}

func TestSameFile(t *testing.T) {
	type pair struct{ a, b string }
	var wrong []pair
	for _, p := range []pair{
		{"demo-1.0.tar.gz", "demo-1.0.tar.gz"},
		{"Demo.Pkg-1.0.tar.gz", "demo_pkg-1.0.tar.gz"},
		{"demo-1.0.0.tar.gz", "demo-1.tar.gz"},
		{"demo-1.0rc1.zip", "demo-1.0.RC1.zip"},
		{"Demo-1.0-py3-none-any.whl", "demo-1.0-py3-none-any.whl"},
		{"demo-1.0-py2.py3-none-any.whl", "demo-1.0-py3.py2-none-any.whl"},
		{"spt3g-1.0-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "spt3g-1.0-cp310-cp310-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"},
		{"demo-1.0-1-py3-none-any.whl", "demo-1.0-01-py3-none-any.whl"},
	} {
		if sameFile(p.a, p.b) != nil || sameFile(p.b, p.a) != nil {
			wrong = append(wrong, p)
		}
	}
	for _, p := range []pair{
		{"demo-1.0.tar.gz", "demo-1.1.tar.gz"},
		{"demo-1.0.tar.gz", "demo2-1.0.tar.gz"},
		{"demo-1.0.tar.gz", "demo-1.0.zip"},
		{"demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"},
		{"demo-1.0+cpu.tar.gz", "demo-1.0.tar.gz"},
		{"demo-1.0-py3-none-any.whl", "demo-1.0-1-py3-none-any.whl"},
		{"demo-1.0-py3-none-any.whl", "demo-1.0-py2.py3-none-any.whl"},
		{"demo-1.0-cp310-cp310-win32.whl", "demo-1.0-cp310-abi3-win32.whl"},
		{"demo-1.0-cp310-cp310-win32.whl", "demo-1.0-cp310-cp310-win_amd64.whl"},
		{"demo-1.0.tar.gz", "demo-1.0.TAR.GZ"},
		{"demo-1.0.tar.gz", "../demo-1.0.tar.gz"},
		{"demo-1.0.tar.gz", ""},
	} {
		if sameFile(p.a, p.b) == nil || sameFile(p.b, p.a) == nil {
			wrong = append(wrong, p)
		}
	}
	if diff := cmp.Diff([]pair(nil), wrong, cmp.AllowUnexported(pair{})); diff != "" {
		t.Error(diff)
	}
}
