package report

import (
	"cmp"
	"io"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

// sarifVersion is the version of the standard that [Document.SARIF] writes.
const sarifVersion = "2.1.0"

// A sarifRun is one scanner's run, all but its results.
type sarifRun struct {
	Tool             sarifTool         `json:"tool"`
	AutomationDetail *sarifAutomation  `json:"automationDetails,omitempty"`
	Properties       map[string]string `json:"properties,omitempty"`

	findings []Finding
	rules    map[string]int // index of each id
}

type sarifAutomation struct {
	ID string `json:"id"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID         string            `json:"id"`
	Properties map[string]string `json:"properties,omitempty"`
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID       string             `json:"ruleId"`
	RuleIndex    int                `json:"ruleIndex"`
	Kind         string             `json:"kind"`
	Level        string             `json:"level"`
	Message      sarifMessage       `json:"message"`
	Locations    []sarifLocation    `json:"locations"`
	Fingerprints map[string]string  `json:"partialFingerprints"`
	Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	Properties   map[string]string  `json:"properties"`
}

type sarifLocation struct {
	Logical []sarifLogical `json:"logicalLocations"`
}

type sarifLogical struct {
	Name string `json:"name"`
	Full string `json:"fullyQualifiedName"`
	Kind string `json:"kind"`
}

type sarifSuppression struct {
	Kind          string `json:"kind"`
	Status        string `json:"status"`
	Justification string `json:"justification"`
}

// SARIF writes the findings as SARIF 2.1.0: one run for each scanner, those
// without findings included, since they looked as well. A level says what
// became of the artifact: error if it is held back, warning if it passes with
// one, note otherwise. Severities stand in the properties.
func (d *Document) SARIF(w io.Writer) error {
	n, err := d.normal()
	if err != nil {
		return err
	}
	out := newLines(w)
	out.text(`{"version": "` + sarifVersion + `", "runs": [`)
	reasons := n.waiverReasons()
	for i, run := range n.sarifRuns() {
		out.text(map[bool]string{true: "\n", false: ",\n"}[i == 0])
		head, err := encode(run)
		if err != nil {
			return err
		}
		// The results are written one by one where the object would end.
		out.text(strings.TrimSuffix(string(head), "}") + `,"results":[`)
		for j := range run.findings {
			f := &run.findings[j]
			out.text(map[bool]string{true: "\n ", false: ",\n "}[j == 0])
			out.value(sarifOf(f, run.rules[ruleID(f)], reasons[waiverKey{f.Source, f.Name, f.Version, f.Scanner, f.ID}]))
		}
		out.text("]}")
	}
	out.text("]}\n")
	return out.flush()
}

// A waiverKey names what a waiver is for.
type waiverKey struct{ source, name, version, scanner, finding string }

func (d *Document) waiverReasons() map[waiverKey]string {
	reasons := make(map[waiverKey]string, len(d.Waived))
	for _, w := range d.Waived {
		reasons[waiverKey{w.Source, w.Name, w.Version, w.Scanner, w.Finding}] = w.Owner + ", until " + w.Expires + ": " + w.Reason
	}
	return reasons
}

func (d *Document) sarifRuns() []*sarifRun {
	named := make(map[string]*sarifRun)
	var runs []*sarifRun
	add := func(driver sarifDriver) *sarifRun {
		driver.Rules = []sarifRule{}
		run := &sarifRun{Tool: sarifTool{driver}, rules: make(map[string]int)}
		if d.Bundle.ID != "" {
			run.AutomationDetail = &sarifAutomation{ID: d.Bundle.name() + "/" + d.Bundle.ID}
		}
		runs = append(runs, run)
		named[driver.Name] = run
		return run
	}
	for _, e := range d.Engines {
		if have := named[cmp.Or(e.Name, noName)]; have != nil {
			have.Properties["for"] += ", " + e.For
			continue
		}
		run := add(sarifDriver{Name: cmp.Or(e.Name, noName), Version: e.Version})
		run.Properties = map[string]string{"for": e.For}
		if e.Database != "" {
			run.Properties["database"] = e.Database
		}
		if !e.Dated.IsZero() {
			run.Properties["databaseDate"] = moment(e.Dated)
		}
	}
	for _, f := range d.Findings {
		run := named[cmp.Or(f.Scanner, noName)]
		if run == nil {
			run = add(sarifDriver{Name: cmp.Or(f.Scanner, noName)})
		}
		run.findings = append(run.findings, f)
		if id := ruleID(&f); !hasKey(run.rules, id) {
			driver := &run.Tool.Driver
			run.rules[id] = len(driver.Rules)
			driver.Rules = append(driver.Rules, sarifRule{ID: id, Properties: map[string]string{"kind": f.Kind}})
		}
	}
	return runs
}

// noName stands where SARIF needs a name and there is none.
const noName = "unnamed"

func ruleID(f *Finding) string { return cmp.Or(f.ID, noName) }

func hasKey(m map[string]int, key string) bool {
	_, ok := m[key]
	return ok
}

func sarifOf(f *Finding, rule int, reason string) sarifResult {
	where := strings.Join([]string{f.Source, f.Name, f.Version}, " ")
	full, name := where, f.Name
	if f.Path != "" {
		parts := strings.Split(f.Path, " › ")
		full, name = where+" › "+f.Path, parts[len(parts)-1]
	}
	r := sarifResult{
		RuleID: ruleID(f), RuleIndex: rule, Kind: "fail", Level: "note",
		Message:   sarifMessage{strings.TrimSuffix(cmp.Or(f.Text, ruleID(f)), ".") + ". " + f.Do},
		Locations: []sarifLocation{{[]sarifLogical{{Name: name, Full: full, Kind: "resource"}}}},
		Fingerprints: map[string]string{
			"darkmirror/v1": artifact.Sum([]byte(strings.Join([]string{f.Source, f.Name, f.Version, f.Scanner, f.ID, f.Path, f.Package}, "\x00"))).Hex(),
		},
		Properties: map[string]string{
			"severity": f.Severity, "kind": f.Kind, "action": f.Action, "source": f.Source, "name": f.Name, "version": f.Version,
		},
	}
	for key, value := range map[string]string{"package": f.Package, "fixed": f.Fixed} {
		if value != "" {
			r.Properties[key] = value
		}
	}
	switch f.Action {
	case scan.ActionHold:
		r.Level = "error"
	case scan.ActionWarn:
		r.Level = "warning"
	case scan.ActionWaived:
		r.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: cmp.Or(reason, "waived by policy")}}
	}
	return r
}
