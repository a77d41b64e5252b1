package provenance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stricter names what pypi-attestations 0.0.30 takes and this package does
// not, each with the reason.
var stricter = map[string]string{
	"a good entry and one of another log": "it looks at the first entry only",
	"key twice in the statement":          "it takes the last one",
	"key twice in the predicate":          "it takes the last one",
	"archive of another kind":             "it parses .zip and .tar.gz to the same name",
	"proof for another tree":              "it does not compare the proof's size of the tree with the checkpoint's",
}

// TestPeers gives every object of the other tests to pypi-attestations, with
// the same trust root, and compares the answers. testdata/peers.sh installs it
// and sets the variable.
func TestPeers(t *testing.T) {
	python := os.Getenv("DARKMIRROR_PYPI_ATTESTATIONS")
	if python == "" {
		t.Skip("NOT RUN: DARKMIRROR_PYPI_ATTESTATIONS names no Python that has pypi-attestations; testdata/peers.sh runs this test")
	}
	type question struct {
		Object string `json:"object"`
		File   string `json:"file"`
		SHA256 string `json:"sha256"`
	}
	f := newForge(t)
	root := f.pinned()
	questions := make(map[string]question)
	want := make(map[string]bool)
	ask := func(name string, object []byte, file string) {
		if _, twice := questions[name]; twice {
			t.Fatalf("%s is there twice", name)
		}
		questions[name] = question{string(object), file, forgedDigest.Hex()}
		_, err := root.Verify(object, Subject{Filename: file, SHA256: forgedDigest})
		want[name] = err == nil || stricter[name] != ""
		if err == nil && stricter[name] != "" {
			t.Errorf("%s: accepted here too", name)
		}
	}
	for _, c := range refusals(t, f) {
		ask(c.name, c.object, forgedFile)
	}
	for _, c := range publisherCases() {
		ask(c.name, object(t, c.publisher, f.sign(c.order)), forgedFile)
	}
	signedAs := func(name string) []byte {
		o := github()
		o.statement = forgedStatement(PredicatePublish, name, forgedDigest)
		return object(t, githubPublisher, f.sign(o))
	}
	for _, name := range []string{"Demo.Pkg-1.0-py3-none-any.whl", "demo_pkg-1-py3-none-any.whl", "demo_pkg-1.0-py2.py3-none-any.whl", "demo_pkg-1.0.tar.gz"} {
		ask("signed as "+name, signedAs(name), forgedFile)
	}
	ask("archive of another kind", signedAs("demo_pkg-1.0.zip"), "demo_pkg-1.0.tar.gz")
	for name := range stricter {
		if _, ok := questions[name]; !ok {
			t.Errorf("%s: no such case", name)
		}
	}

	dir := t.TempDir()
	rootFile := filepath.Join(dir, "root.json")
	if err := os.WriteFile(rootFile, marshal(t, f.root()), 0o600); err != nil {
		t.Fatal(err)
	}
	questionsFile := filepath.Join(dir, "questions.json")
	if err := os.WriteFile(questionsFile, marshal(t, questions), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "peers.py"), rootFile, questionsFile)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers map[string]struct {
		OK  bool   `json:"ok"`
		Why string `json:"why"`
	}
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for name, a := range answers {
		got[name] = a.OK
		if a.OK != want[name] {
			t.Logf("%s: %s", name, a.Why)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-ours +theirs)\n%s", diff)
	}
}
