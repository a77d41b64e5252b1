package trivy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openvex/go-vex/pkg/vex"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

// document is an OpenVEX document of the given statements.
func document(statements ...string) string {
	return `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"urn:x","author":"a site","timestamp":"2026-11-01T00:00:00Z","version":1,"statements":[` +
		strings.Join(statements, ",") + `]}`
}

func saysOf(id, products, more string) string {
	return `{"vulnerability":{"name":"` + id + `"},"products":[` + products + `],` + more + `}`
}

const notAffected = `"status":"not_affected","justification":"vulnerable_code_not_in_execute_path"`

func TestVEXAnswersFindings(t *testing.T) {
	pip := `{"@id":"pkg:pypi/pip@18.1"}`
	for name, c := range map[string]struct {
		doc  []string
		want bool
	}{
		"not affected":        {[]string{document(saysOf("CVE-2019-20916", pip, notAffected))}, true},
		"fixed":               {[]string{document(saysOf("CVE-2019-20916", pip, `"status":"fixed"`))}, true},
		"any version":         {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:pypi/pip"}`, notAffected))}, true},
		"by an alias":         {[]string{document(`{"vulnerability":{"name":"PYSEC-1","aliases":["CVE-2019-20916"]},"products":[` + pip + `],` + notAffected + `}`)}, true},
		"by an identifier":    {[]string{document(saysOf("CVE-2019-20916", `{"@id":"x","identifiers":{"purl":"pkg:pypi/pip@18.1"}}`, notAffected))}, true},
		"other vulnerability": {[]string{document(saysOf("CVE-2019-20917", pip, notAffected))}, false},
		"other version":       {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:pypi/pip@18.0"}`, notAffected))}, false},
		"other package":       {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:pypi/pipp@18.1"}`, notAffected))}, false},
		"affected":            {[]string{document(saysOf("CVE-2019-20916", pip, `"status":"affected","action_statement":"update"`))}, false},
		"under investigation": {[]string{document(saysOf("CVE-2019-20916", pip, `"status":"under_investigation"`))}, false},
		"taken back later": {[]string{
			document(saysOf("CVE-2019-20916", pip, `"timestamp":"2026-11-03T00:00:00Z","status":"affected","action_statement":"update"`)),
			document(saysOf("CVE-2019-20916", pip, notAffected)),
		}, false},
		"found out later": {[]string{
			document(saysOf("CVE-2019-20916", pip, `"timestamp":"2026-11-03T00:00:00Z",`+notAffected)),
			document(saysOf("CVE-2019-20916", pip, `"status":"under_investigation"`)),
		}, true},
		"two at once": {[]string{document(
			saysOf("CVE-2019-20916", pip, `"status":"affected","action_statement":"update"`), saysOf("CVE-2019-20916", pip, notAffected),
		)}, false},
		"in this product":         {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:oci/app@1","subcomponents":[{"@id":"pkg:pypi/pip@18.1"}]}`, notAffected))}, true},
		"the whole product":       {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:oci/app@1"}`, notAffected))}, true},
		"other part of the same":  {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:oci/app@1","subcomponents":[{"@id":"pkg:pypi/x@18.1"}]}`, notAffected))}, false},
		"in another product":      {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:oci/other@1","subcomponents":[{"@id":"pkg:pypi/pip@18.1"}]}`, notAffected))}, false},
		"the package with a part": {[]string{document(saysOf("CVE-2019-20916", `{"@id":"pkg:pypi/pip@18.1","subcomponents":[{"@id":"pkg:pypi/x@1"}]}`, notAffected))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for i, d := range c.doc {
				f := filepath.Join(t.TempDir(), string(rune('a'+i)))
				if err := os.WriteFile(f, []byte(d), 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files, f)
			}
			s := newScanner(t, func(c *Config) { c.VEX = files })
			sub, inv := image(gather(t, s, metadata("pip", "18.1"), "l", "a/pip-18.1.dist-info/METADATA"))
			list := judge(t, s, sub, inv)
			if len(list) != 1 {
				t.Fatalf("findings %v, want one", list)
			}
			text := list[0].Answer
			ok := text != ""
			if ok != c.want {
				t.Errorf("answer %q, want one: %v", text, c.want)
			}
			if ok && !strings.Contains(text, "(VEX statement of a site, 2026-11-0") {
				t.Errorf("answer %q does not name its author and date", text)
			}
			if list[0].Severity != scan.High {
				t.Errorf("severity %q changed", list[0].Severity)
			}
		})
	}
}

// A finding that stands in two artifacts, one with an answer, has none.
func TestVEXAnswerOfOneArtifactIsNotAnothers(t *testing.T) {
	f := filepath.Join(t.TempDir(), "v.json")
	doc := document(saysOf("CVE-2019-20916", `{"@id":"pkg:oci/app@1"}`, notAffected))
	if err := os.WriteFile(f, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newScanner(t, func(c *Config) { c.VEX = []string{f} })
	sub, inv := image(gather(t, s, metadata("pip", "18.1"), "l", "a/pip-18.1.dist-info/METADATA"))
	list := judge(t, s, sub, inv)
	if list[0].Answer == "" {
		t.Fatal("no answer")
	}
	sub.Artifact.Name = "other"
	list = judge(t, s, sub, inv)
	if text := list[0].Answer; text != "" {
		t.Errorf("another artifact's finding is answered: %q", text)
	}
}

func TestVEXIsReadStrictly(t *testing.T) {
	pip := `{"@id":"pkg:pypi/pip@18.1"}`
	for name, doc := range map[string]string{
		"empty":            "",
		"no JSON":          "vex",
		"no context":       strings.Replace(document(saysOf("C", pip, notAffected)), "https://openvex.dev/ns/v0.2.0", "https://vex.example", 1),
		"no timestamp":     strings.Replace(document(saysOf("C", pip, notAffected)), "timestamp", "time", 1),
		"no statements":    document(),
		"no status":        document(`{"vulnerability":{"name":"C"},"products":[` + pip + `]}`),
		"unknown status":   document(saysOf("C", pip, `"status":"fine"`)),
		"no justification": document(saysOf("C", pip, `"status":"not_affected"`)),
		"no products":      document(saysOf("C", "", notAffected)),
		"no vulnerability": document(`{"products":[` + pip + `],` + notAffected + `}`),
	} {
		if list, err := parseVEX([]byte(doc)); err == nil {
			t.Errorf("%s: %+v, want an error", name, list)
		}
	}
}

// Our own document answers the advisory that names no fixed version.
func TestOwnDocument(t *testing.T) {
	a, err := loadVEX([]string{"darkmirror.openvex.json"})
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(tree(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	linked := ""
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "github.com/aquasecurity/trivy" {
			linked = f[1]
		}
	}
	if linked == "" || len(a.statements) != 1 || len(a.statements[0].Products) != 1 {
		t.Fatalf("Trivy %q, statements %+v", linked, a.statements)
	}
	purl := "pkg:golang/github.com/aquasecurity/trivy@" + linked
	if got := a.statements[0].Products[0].ID; got != purl {
		t.Errorf("the statement is about %s, want %s", got, purl)
	}
	for _, id := range []string{"CVE-2026-33634", "GO-2026-4919", "GHSA-69fq-xp46-6x23"} {
		f := scan.Finding{Kind: scan.KindVulnerability, ID: id, Package: purl}
		if text, ok := a.find(f, nil); !ok || !strings.HasPrefix(text, "not_affected: vulnerable_code_not_present") {
			t.Errorf("%s: %q, %v, want an answer", id, text, ok)
		}
		f.Package = "pkg:golang/github.com/aquasecurity/trivy@v0.69.4"
		if text, ok := a.find(f, nil); ok {
			t.Errorf("%s of the stolen release is answered: %q", id, text)
		}
	}
}

func TestWriteVEX(t *testing.T) {
	when := time.Date(2026, 11, 23, 13, 0, 0, 0, time.FixedZone("x", 3600))
	waived := []scan.Waived{
		{Source: "pypi/main", Name: "pip", Version: "18.1", Scanner: "trivy", Finding: "CVE-2019-20916", Severity: "high", Owner: "ops", Reason: "not reachable", Expires: "2026-12-31"},
		{Source: "apt/bookworm", Name: "jq", Version: "1.6-2", Scanner: "trivy", Finding: "CVE-1", Owner: "ops", Reason: "r", Expires: "2026-12-31"},
	}
	got, err := WriteVEX(t.Context(), "a site", when, waived)
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseVEX(got)
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	if len(list) != 2 || list[1].Products[0].ID != "pkg:pypi/pip@18.1" || list[1].Status != vex.StatusAffected ||
		list[1].ActionStatement != "accepted by ops until 2026-12-31: not reachable" || list[0].Products[0].ID != "pkg:deb/debian/jq@1.6-2" {
		t.Errorf("statements:\n%s", got)
	}
	slices.Reverse(waived)
	again, err := WriteVEX(t.Context(), "a site", when, append(waived, waived[0]))
	if err != nil || string(again) != string(got) {
		t.Errorf("not the same again (%v):\n%s", err, cmp.Diff(string(got), string(again)))
	}
	if s := string(got); !strings.Contains(s, `"timestamp": "2026-11-23T12:00:00Z"`) || !strings.Contains(s, `"@id": "urn:uuid:`) {
		t.Errorf("document:\n%s", s)
	}
	// A waiver is not a statement that nothing is the matter.
	a := &answers{statements: list}
	if text, ok := a.find(scan.Finding{Kind: scan.KindVulnerability, ID: "CVE-2019-20916", Package: "pkg:pypi/pip@18.1"}, nil); ok {
		t.Errorf("the waiver answers: %q", text)
	}
	empty, err := WriteVEX(t.Context(), "a site", when, nil)
	if err != nil || !json.Valid(empty) || !strings.Contains(string(empty), `"statements": []`) {
		t.Errorf("without waivers: %v\n%s", err, empty)
	}
}

func FuzzVEX(f *testing.F) {
	seeds := []string{document(saysOf("CVE-1", `{"@id":"pkg:pypi/pip@18.1"}`, notAffected)), document(), "{}"}
	own, err := os.ReadFile("darkmirror.openvex.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range append(seeds, string(own)) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseVEX(b)
		if err != nil {
			if list != nil {
				t.Errorf("%v beside %v", list, err)
			}
			return
		}
		a := &answers{statements: list}
		a.find(scan.Finding{Kind: scan.KindVulnerability, ID: "CVE-1", Package: "pkg:pypi/pip@18.1"}, subjectPURLs(scan.Subject{Source: "oci/x", Artifact: artifact.Artifact{Name: "a", Version: "1"}}))
	})
}
