package provenance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func realFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "real", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func realRoot(t testing.TB) *Root {
	t.Helper()
	r, err := ParseRoot(realFile(t, "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func hexDigest(t testing.TB, s string) artifact.Digest {
	t.Helper()
	d, err := artifact.ParseHex(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A realCase is an object that an index served, with the file it is about.
type realCase struct {
	object    []byte
	file      string
	sha256    string
	predicate string
	publisher Publisher
	identity  string
	time      string
	commit    string
}

func realCases(t testing.TB) map[string]realCase {
	t.Helper()
	// wrap puts an attestation, as twine uploads it, into an object.
	wrap := func(name, publisher string) []byte {
		b, err := json.Marshal(map[string]any{
			"version": 1,
			"attestation_bundles": []any{map[string]any{
				"publisher":    json.RawMessage(publisher),
				"attestations": []any{json.RawMessage(realFile(t, name))},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	github := realCase{
		object:    realFile(t, "pypi_attestations-0.0.19.tar.gz.provenance"),
		file:      "pypi_attestations-0.0.19.tar.gz",
		sha256:    "9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3",
		predicate: PredicatePublish,
		publisher: Publisher{Kind: KindGitHub, Repository: "trailofbits/pypi-attestations", Workflow: "release.yml"},
		identity:  "https://github.com/trailofbits/pypi-attestations/.github/workflows/release.yml@refs/tags/v0.0.19",
		time:      "2024-12-04T23:14:01Z",
		commit:    "08802efe1f8e5fec4ad842d6b8ce97656092ee72",
	}
	slsa := github
	slsa.object = wrap("pypi_attestations-0.0.19.tar.gz.slsa.attestation",
		`{"kind":"GitHub","claims":null,"repository":"trailofbits/pypi-attestations","workflow":"release.yml","environment":null}`)
	slsa.predicate, slsa.time = PredicateSLSA, "2024-12-04T23:13:46Z"
	return map[string]realCase{
		"GitHub": github,
		"SLSA":   slsa,
		"GitLab": {
			object: wrap("gitlab_oidc_project-0.0.3.tar.gz.publish.attestation",
				`{"kind":"GitLab","repository":"facutuesca/gitlab-oidc-project","workflow_filepath":".gitlab-ci.yml"}`),
			file:      "gitlab_oidc_project-0.0.3.tar.gz",
			sha256:    "c1ca9b0d85df1606451098233018534497bf584362e10e4a8c21dfaea92c02a8",
			predicate: PredicatePublish,
			publisher: Publisher{Kind: KindGitLab, Repository: "facutuesca/gitlab-oidc-project", Workflow: ".gitlab-ci.yml"},
			identity:  "https://gitlab.com/facutuesca/gitlab-oidc-project//.gitlab-ci.yml@refs/heads/main",
			time:      "2024-11-19T17:37:00Z",
			commit:    "72f7c63b75eb55ea80864962f0e645c93414da34",
		},
		"Google": {
			object:    realFile(t, "gcb_attestation_test-0.0.0.tar.gz.provenance"),
			file:      "gcb_attestation_test-0.0.0.tar.gz",
			sha256:    "461317362419124b6012e855423a9078d6de8aed3e74fa78cc74d669b23dc6cf",
			predicate: PredicatePublish,
			publisher: Publisher{Kind: KindGoogle, Email: "919436158236-compute@developer.gserviceaccount.com"},
			identity:  "919436158236-compute@developer.gserviceaccount.com",
			time:      "2025-04-21T15:02:27Z",
		},
		"CircleCI": {
			object:    realFile(t, "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl.provenance"),
			file:      "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl",
			sha256:    "8cb34da1e27336f11a2c43f3f9c7433bd76f24f470c904724f06ad7f131d9e9f",
			predicate: PredicatePublish,
			publisher: Publisher{
				Kind: KindCircleCI, ProjectID: "fdd9283f-e619-46af-8f9c-851f7d3e8b2b", PipelineID: "8e4f8ab2-8d7c-4827-9f15-de076d6d647f",
				Origin: "github.com/CircleCI-Public/sign-and-publish-examples", OriginRef: "refs/heads/pypi",
			},
			identity: "https://circleci.com/api/v2/projects/fdd9283f-e619-46af-8f9c-851f7d3e8b2b/pipeline-definitions/8e4f8ab2-8d7c-4827-9f15-de076d6d647f",
			time:     "2026-02-05T22:59:42Z",
		},
	}
}

func TestRealObjects(t *testing.T) {
	root := realRoot(t)
	for name, c := range realCases(t) {
		t.Run(name, func(t *testing.T) {
			as, err := root.Verify(c.object, Subject{Filename: c.file, SHA256: hexDigest(t, c.sha256)})
			if err != nil {
				t.Fatal(err)
			}
			if len(as) != 1 {
				t.Fatalf("%d attestations, want 1", len(as))
			}
			got := as[0]
			want := realCase{
				object: c.object, file: c.file, sha256: c.sha256, predicate: got.Predicate, publisher: got.Publisher,
				identity: got.Identity, time: got.IntegratedTime.Format(time.RFC3339), commit: got.Commit,
			}
			if diff := cmp.Diff(c, want, cmp.AllowUnexported(realCase{})); diff != "" {
				t.Error(diff)
			}
			if err := (Require{Publisher: c.publisher.String()}).Check(as); err != nil {
				t.Error(err)
			}
		})
	}
}

// The public root has no end but that of its certificates.
func TestRealRoot(t *testing.T) {
	b := realFile(t, "trusted_root.json")
	r := realRoot(t)
	if got, want := r.ValidUntil(), time.Date(2031, 10, 5, 13, 56, 58, 0, time.UTC); !got.Equal(want) {
		t.Errorf("valid until %v, want %v", got, want)
	}
	if got, want := r.Digest(), artifact.Sum(b); got != want {
		t.Errorf("digest %v, want %v", got, want)
	}
}
