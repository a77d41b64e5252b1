package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan"
)

// sarifOK holds the rules of SARIF 2.1.0 that concern what is written here:
// the properties that the standard requires, and the enumerations.
func sarifOK(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var log map[string]any
	if err := json.Unmarshal(data, &log); err != nil {
		t.Fatal(err)
	}
	if log["version"] != "2.1.0" {
		t.Errorf("version %v", log["version"])
	}
	runs, ok := log["runs"].([]any)
	if !ok {
		t.Fatalf("runs is %T", log["runs"])
	}
	for _, r := range runs {
		run := object(t, r)
		driver := object(t, object(t, run["tool"])["driver"])
		if text(t, driver, "name") == "" {
			t.Error("a driver without a name")
		}
		var rules []string
		for _, r := range array(t, driver, "rules") {
			id := text(t, object(t, r), "id")
			if id == "" || slices.Contains(rules, id) {
				t.Errorf("rule %q is empty or there twice", id)
			}
			rules = append(rules, id)
		}
		used := make(map[string]bool)
		for _, r := range array(t, run, "results") {
			res := object(t, r)
			id := text(t, res, "ruleId")
			used[id] = true
			index, ok := res["ruleIndex"].(float64)
			if !ok || int(index) >= len(rules) || rules[int(index)] != id {
				t.Errorf("result %s: ruleIndex %v", id, res["ruleIndex"])
			}
			if text(t, object(t, res["message"]), "text") == "" {
				t.Errorf("result %s: no message", id)
			}
			if level := text(t, res, "level"); !slices.Contains([]string{"none", "note", "warning", "error"}, level) {
				t.Errorf("result %s: level %q", id, level)
			}
			if kind := text(t, res, "kind"); kind != "fail" {
				// Any other kind would need the level none.
				t.Errorf("result %s: kind %q", id, kind)
			}
			locations := array(t, res, "locations")
			if len(locations) == 0 {
				t.Errorf("result %s: no location", id)
			}
			for _, l := range locations {
				logical := array(t, object(t, l), "logicalLocations")
				if len(logical) == 0 {
					t.Errorf("result %s: no logical location", id)
				}
				for _, l := range logical {
					if text(t, object(t, l), "fullyQualifiedName") == "" {
						t.Errorf("result %s: no qualified name", id)
					}
				}
			}
			for _, s := range optional(res["suppressions"]) {
				sup := object(t, s)
				if k := text(t, sup, "kind"); k != "inSource" && k != "external" {
					t.Errorf("result %s: suppression of kind %q", id, k)
				}
				if s := text(t, sup, "status"); !slices.Contains([]string{"accepted", "underReview", "rejected"}, s) {
					t.Errorf("result %s: suppression with status %q", id, s)
				}
			}
		}
		for _, id := range rules {
			if !used[id] {
				t.Errorf("rule %s without a result", id)
			}
		}
	}
	return log
}

func object(t *testing.T, v any) map[string]any {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%v is no object", v)
	}
	return m
}

func array(t *testing.T, m map[string]any, key string) []any {
	t.Helper()
	a, ok := m[key].([]any)
	if !ok {
		t.Fatalf("%s is %T", key, m[key])
	}
	return a
}

func optional(v any) []any {
	a, _ := v.([]any)
	return a
}

func text(t *testing.T, m map[string]any, key string) string {
	t.Helper()
	s, ok := m[key].(string)
	if !ok {
		t.Fatalf("%s is %T", key, m[key])
	}
	return s
}

func sarif(t *testing.T, d *Document) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := d.SARIF(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSARIF(t *testing.T) {
	d := full()
	d.Findings = append(d.Findings, Finding{"pypi/main", "demo", "1.0", scan.Finding{Scanner: "elsewhere", ID: "X-1"}, scan.ActionWarn, ""})
	log := sarifOK(t, sarif(t, d))
	type result struct{ driver, id, level, where string }
	var got []result
	var drivers []string
	for _, r := range array(t, log, "runs") {
		run := object(t, r)
		driver := text(t, object(t, object(t, run["tool"])["driver"]), "name")
		drivers = append(drivers, driver)
		for _, r := range array(t, run, "results") {
			res := object(t, r)
			loc := object(t, array(t, object(t, array(t, res, "locations")[0]), "logicalLocations")[0])
			got = append(got, result{driver, text(t, res, "ruleId"), text(t, res, "level"), text(t, loc, "fullyQualifiedName")})
			if waived := res["suppressions"] != nil; waived != (text(t, res, "ruleId") == "CVE-0000-2") {
				t.Errorf("%s: suppressed: %t", text(t, res, "ruleId"), waived)
			} else if waived && !strings.Contains(text(t, object(t, optional(res["suppressions"])[0]), "justification"), "SEC-412") {
				t.Error("no reason")
			}
		}
	}
	// Engines that found nothing looked as well.
	if !slices.Equal(drivers, []string{"trivy", "clamav", "secrets", "elsewhere"}) {
		t.Errorf("drivers %q", drivers)
	}
	for _, want := range []result{
		{"clamav", "CLAMAV-EICAR", "error", "pypi/main examplelib 2.3.1 › examplelib.whl › data.tar.gz › inner.zip › eicar.com"},
		{"trivy", "CVE-0000-3", "warning", "pypi/main demo 1.0 › demo.whl › demo.dist-info/METADATA"},
		{"trivy", "CVE-0000-9", "note", "pypi/main demo 1.0"},
		{"trivy", "CVE-0000-2", "note", "pypi/main numpy 2.1.0 › numpy.whl"},
		{"elsewhere", "X-1", "warning", "pypi/main demo 1.0"},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("lacks %+v: %+v", want, got)
		}
	}
	if len(got) != len(d.Findings) {
		t.Errorf("%d results of %d findings", len(got), len(d.Findings))
	}
}

func TestSARIFOfOddities(t *testing.T) {
	for name, d := range map[string]*Document{"hostile": hostile(), "empty": {}, "unnamed": {Findings: []Finding{{Action: scan.ActionAllow}}}} {
		log := sarifOK(t, sarif(t, d))
		if runs := array(t, log, "runs"); len(runs) == 0 && name != "empty" {
			t.Errorf("%s: no run", name)
		}
	}
}
