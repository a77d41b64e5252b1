package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
)

// Bounds of the page, so that a browser opens it at once whatever a bundle
// holds. The JSON twin has everything.
const (
	// openGroups and openRows are shown; what follows is folded.
	openGroups = 25
	openRows   = 12
	// openFindings of one artifact are shown; what follows is folded. An
	// image may have hundreds.
	openFindings = 6
	// maxGroups and maxFindings bound the artifacts of a section and the
	// findings of one artifact.
	maxGroups   = 300
	maxFindings = 40
	// maxChanges and maxItems bound the rows of one source, and
	// maxRows those of a section, all sources together.
	maxChanges = 400
	maxItems   = 1000
	maxRows    = 3000
)

// A page is what the template shows: all of it text, for html/template to
// escape.
type page struct {
	CSP                  string
	CSS                  any // template.CSS
	Title                string
	About                string // "Bundle 000042 of stream main"
	Tool, At             string
	Verdict              Conclusion
	Figures              []figure
	Sealed               bool
	Identity             []fact
	Digest               string // of the manifest
	Engines              []engineRow
	Unscanned            []string
	Held, Warnings       *section
	Missing              *table
	Waived               []waivedRow
	Compared             string // with what the changes are
	Arrived, Left        *table
	Everything           *table
	Allowed              int
	Withdrawn            *table
	SignOff              bool
	Approvals, Approvers string
}

// A figure is one number that leads to a section.
type figure struct{ Number, Text, Anchor string }

// A fact is a line of the bundle's identity.
type fact struct {
	Name, Value string
	Mono        bool
	Flag        string // a word of warning
}

type engineRow struct {
	For, Engine, Version, Dated, Age, Limit, Digest, Note string
	Stale                                                 bool
}

type waivedRow struct {
	Artifact                                                       artifactView
	Finding, Scanner, Severity, Text, Path, Owner, Reason, Expires string
	Left                                                           string
	Expired, Unused                                                bool
}

type artifactView struct{ Source, Name, Version string }

// A section is a list of artifacts with their findings. More are those
// that only the JSON twin has.
type section struct {
	Count        string
	Open, Folded []group
	More         int
}

// A group is one artifact with its findings.
type group struct {
	Artifact     artifactView
	Reason, Code string // of what is held without a finding
	Open, Folded []findingView
	More         int
	Passing      int // findings of it that hold nothing

	worst int
}

type findingView struct {
	Severity, Class, ID, Kind, Scanner, Text, Package, Fixed, Do string
	Path                                                         []string
	NoFix                                                        bool // a vulnerability without a fixed version
}

// A table has a block of rows for each source.
type table struct {
	Count  string
	Blocks []block
}

// A block is one source's rows.
type block struct {
	Title, Count string
	Open, Folded []row
	More         int
}

// A row is an artifact in a table.
type row struct {
	Name, Version, From, Why, Size, Files, Verdict, Tag string
	Flagged                                             bool
}

func (b *Bundle) name() string { return fmt.Sprintf("%s-%06d", b.Stream, b.Seq) }

func (d *Document) page() *page {
	t := d.tally()
	b := &d.Bundle
	p := &page{
		About: "Scan of artifacts that are not sealed yet", Tool: d.Tool, At: moment(d.At), Verdict: d.Verdict,
		Sealed: b.ID != "", Digest: b.ID, Compared: "Compared with the last bundle.",
		Unscanned: d.notScanned(),
	}
	if p.Sealed {
		p.About = fmt.Sprintf("Bundle %06d of stream %s", b.Seq, b.Stream)
		p.Identity = d.identity()
		p.SignOff = len(b.ApprovedBy) < max(1, b.Approvals)
		switch {
		case b.Prev == "":
			p.Compared = "This is the first bundle of its stream."
		case b.Seq > 1:
			p.Compared = fmt.Sprintf("Compared with bundle %06d.", b.Seq-1)
		}
	}
	p.Title = d.Verdict.Headline + ": " + strings.ToLower(p.About[:1]) + p.About[1:]
	p.Engines = d.engineRows()
	p.Held, p.Warnings = d.heldSection(), d.warnings()
	p.Missing = d.missingTable()
	p.Waived = d.waivedRows()
	p.Arrived = d.changeTable(New, Changed)
	p.Left = d.changeTable(Gone)
	p.Everything = d.everything()
	p.Withdrawn = d.withdrawnTable()
	for i := range d.Findings {
		if d.Findings[i].Action == scan.ActionAllow {
			p.Allowed++
		}
	}
	p.Figures = d.figures(t)
	return p
}

func (d *Document) figures(t tally) []figure {
	all := []struct {
		n            int
		text, anchor string
		always       bool
	}{
		{t.artifacts, "artifacts", "everything", true},
		{t.isNew, "new", "new", true},
		{t.changed, "changed", "new", true},
		{t.gone, "gone", "gone", true},
		{t.heldBack, "held back", "held", true},
		{t.absent, "not fetched", "missing", false},
		{len(d.Waived), "waived", "waived", false},
		{t.warned + t.unscanned, "with warnings", "warnings", true},
		{t.withdrawn, "withdrawn", "withdrawn", false},
	}
	var list []figure
	for _, f := range all {
		if f.n > 0 || f.always {
			list = append(list, figure{number(f.n), f.text, f.anchor})
		}
	}
	return list
}

func (d *Document) identity() []fact {
	b := &d.Bundle
	kind := "full, stands alone"
	if b.Base > 0 {
		kind = fmt.Sprintf("delta on bundle %06d", b.Base)
	}
	facts := []fact{
		{Name: "Stream", Value: b.Stream},
		{Name: "Number", Value: fmt.Sprintf("%06d", b.Seq)},
		{Name: "Kind", Value: kind},
		{Name: "Carries", Value: size(b.Bytes) + " in " + count(b.Volumes, "volume")},
		{Name: "Made", Value: moment(b.Made)},
		{Name: "Expires", Value: moment(b.Expires)},
		{Name: "Signed by", Value: keys(b.SignedBy)},
		{Name: "Approved by", Value: keys(b.ApprovedBy)},
		{Name: "Follows", Value: cmp.Or(b.Prev, "nothing: it is the first of its stream"), Mono: b.Prev != ""},
	}
	if left := b.Expires.Sub(d.At); left <= 0 {
		facts[5].Flag = "expired"
	} else {
		facts[5].Value += ", in " + span(left)
	}
	if len(b.SignedBy) == 0 {
		facts[6].Value, facts[6].Flag = "", "not signed"
	}
	switch n := len(b.ApprovedBy); {
	case n == 0 && b.Approvals > 0:
		facts[7].Flag = "nobody yet, " + count(b.Approvals, "approval") + " needed"
	case n < b.Approvals:
		facts[7].Flag = fmt.Sprintf("%d of %d approvals", n, b.Approvals)
	case n == 0:
		facts[7].Value = "nobody; none is asked for"
	}
	return facts
}

func keys(list []Key) string {
	var parts []string
	for _, k := range list {
		s := show(k.Name)
		if k.Fingerprint != "" {
			s += " (" + show(k.Fingerprint) + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

func (d *Document) engineRows() []engineRow {
	rows := make([]engineRow, len(d.Engines))
	for i := range d.Engines {
		e := &d.Engines[i]
		rows[i] = engineRow{
			For: e.For, Engine: e.Name, Version: e.Version, Dated: moment(e.Dated), Digest: e.Database, Note: e.Note, Stale: e.stale(),
		}
		if !e.Dated.IsZero() {
			rows[i].Age = e.age() + " old"
		}
		if e.MaxAge > 0 {
			rows[i].Limit = "at most " + e.limit() + " allowed"
		}
	}
	return rows
}

// heldSection shows each held artifact with everything found in it.
func (d *Document) heldSection() *section {
	groups := make(map[artifactID]*group, len(d.Held))
	for i := range d.Held {
		h := &d.Held[i]
		groups[h.id()] = &group{Artifact: artifactView{h.Source, h.Name, h.Version}, Reason: h.Reason, Code: h.Code, worst: len(classes)}
	}
	for i := range d.Findings {
		if g := groups[d.Findings[i].id()]; g != nil {
			g.add(&d.Findings[i])
		}
	}
	return newSection(groups)
}

// warnings shows what is in the bundle in spite of a finding.
func (d *Document) warnings() *section {
	held := make(map[artifactID]bool, len(d.Held))
	for i := range d.Held {
		held[d.Held[i].id()] = true
	}
	groups := make(map[artifactID]*group)
	for i := range d.Findings {
		f := &d.Findings[i]
		if f.Action != scan.ActionWarn || held[f.id()] {
			continue
		}
		g := groups[f.id()]
		if g == nil {
			g = &group{Artifact: artifactView{f.Source, f.Name, f.Version}, worst: len(classes)}
			groups[f.id()] = g
		}
		g.add(f)
	}
	return newSection(groups)
}

func (g *group) add(f *Finding) {
	also := g.Code != "" && f.Action != scan.ActionHold
	if !also {
		g.worst = min(g.worst, severityRank(f.Severity))
		g.Reason = ""
	}
	switch {
	case also:
		g.Passing++
	case len(g.Open) < openFindings:
		g.Open = append(g.Open, viewFinding(f))
	case len(g.Open)+len(g.Folded) < maxFindings:
		g.Folded = append(g.Folded, viewFinding(f))
	default:
		g.More++
	}
}

// newSection orders artifacts by the gravest of their findings.
func newSection(groups map[artifactID]*group) *section {
	s := &section{Count: number(len(groups))}
	all := make([]*group, 0, len(groups))
	for _, g := range groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *group) int {
		x, y := a.Artifact, b.Artifact
		return cmp.Or(cmp.Compare(a.worst, b.worst), byName(x.Source, y.Source, x.Name, y.Name, x.Version, y.Version))
	})
	for i, g := range all {
		switch {
		case i < openGroups:
			s.Open = append(s.Open, *g)
		case i < maxGroups:
			s.Folded = append(s.Folded, *g)
		default:
			s.More++
		}
	}
	return s
}

// classes are the style of each severity.
var classes = [...]string{scan.Critical, scan.High, scan.Unknown, scan.Medium, scan.Low}

func class(severity string) string {
	if i := severityRank(severity); i >= 0 {
		return classes[i]
	}
	return "other"
}

func viewFinding(f *Finding) findingView {
	v := findingView{
		Severity: severityWord(f.Severity), Class: class(f.Severity), ID: f.ID, Kind: kindWord(f.Kind), Scanner: f.Scanner,
		Text: f.Text, Package: f.Package, Fixed: f.Fixed, Do: f.Do, NoFix: f.Kind == scan.KindVulnerability && f.Fixed == "",
	}
	if f.Path != "" {
		v.Path = strings.Split(f.Path, " › ")
	}
	return v
}

func severityWord(s string) string {
	if s == "" {
		return "No severity"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// kindWord says in plain words what kind of finding it is.
func kindWord(kind string) string {
	switch kind {
	case scan.KindMalware:
		return "malware"
	case scan.KindVulnerability:
		return "known vulnerability"
	case scan.KindSecret:
		return "secret in a file"
	case scan.KindLicence:
		return "licence"
	case scan.KindModel:
		return "model file"
	case scan.KindPackage:
		return "suspicious package"
	case scan.KindArchive:
		return "malformed archive"
	case scan.KindType:
		return "type of file"
	case scan.KindNotScanned:
		return "not scanned"
	}
	return kind
}

func (d *Document) waivedRows() []waivedRow {
	type key struct {
		artifactID
		scanner, finding string
	}
	found := make(map[key]*Finding)
	for i := range d.Findings {
		f := &d.Findings[i]
		k := key{f.id(), f.Scanner, f.ID}
		if f.Action == scan.ActionWaived && found[k] == nil {
			found[k] = f
		}
	}
	rows := make([]waivedRow, len(d.Waived))
	for i := range d.Waived {
		w := &d.Waived[i]
		r := waivedRow{
			Artifact: artifactView{w.Source, w.Name, w.Version}, Finding: w.Finding, Scanner: w.Scanner, Severity: severityWord(w.Severity),
			Owner: w.Owner, Reason: w.Reason, Expires: w.Expires, Unused: w.Unused, Expired: w.DaysLeft < 0, Left: left(w.DaysLeft),
		}
		if f := found[key{artifactID{w.Source, w.Name, w.Version}, w.Scanner, w.Finding}]; f != nil {
			r.Text, r.Path = f.Text, f.Path
		}
		rows[i] = r
	}
	return rows
}

func left(days int) string {
	switch {
	case days < -1:
		return "expired " + count(-days, "day") + " ago"
	case days < 0:
		return "expired"
	case days == 0:
		return "last day"
	}
	return count(days, "day") + " left"
}
