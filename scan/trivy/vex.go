package trivy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openvex/go-vex/pkg/vex"
	"github.com/package-url/packageurl-go"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

// maxVEX bounds one document. A statement has about 500 bytes, so that this
// is some 30,000 of them.
const maxVEX = 16 << 20

// answers are the statements of all documents.
type answers struct {
	statements []statement
}

type statement struct {
	vex.Statement
	at     time.Time
	author string
}

func loadVEX(files []string) (*answers, error) {
	a := &answers{}
	for _, f := range files {
		b, err := readVEX(f)
		if err != nil {
			return nil, fmt.Errorf("VEX document: %w", err)
		}
		list, err := parseVEX(b)
		if err != nil {
			return nil, fmt.Errorf("VEX document %s: %w", f, err)
		}
		a.statements = append(a.statements, list...)
	}
	return a, nil
}

func readVEX(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	// It is only read.
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxVEX+1))
	if err == nil && len(b) > maxVEX {
		err = fmt.Errorf("%s: more than %d bytes", name, maxVEX)
	}
	return b, err
}

// parseVEX reads a document strictly: a statement that is not understood
// would answer nothing, and its author would think that it did.
func parseVEX(b []byte) ([]statement, error) {
	doc, err := vex.Parse(b)
	if err != nil {
		return nil, err
	}
	switch {
	case !strings.HasPrefix(doc.Context, vex.Context):
		return nil, fmt.Errorf("@context %q is not OpenVEX's", clip(doc.Context, 80))
	case doc.Timestamp == nil || doc.Timestamp.IsZero():
		return nil, errors.New("timestamp is missing")
	case len(doc.Statements) == 0:
		return nil, errors.New("has no statements")
	}
	var list []statement
	for i, s := range doc.Statements {
		if err := s.Validate(); err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
		if s.Vulnerability.Name == "" && s.Vulnerability.ID == "" {
			return nil, fmt.Errorf("statement %d: names no vulnerability", i+1)
		}
		if len(s.Products) == 0 {
			return nil, fmt.Errorf("statement %d: names no product", i+1)
		}
		at := doc.Timestamp
		for _, t := range []*time.Time{s.Timestamp, s.LastUpdated} {
			if t != nil && !t.IsZero() {
				at = t
			}
		}
		list = append(list, statement{s, *at, doc.Author})
	}
	return list, nil
}

// sift writes into the findings what answers them: that the product is not
// affected, or that it is fixed. What the policy makes of that is its own.
func (a *answers) sift(sub scan.Subject, list []scan.Finding) []scan.Finding {
	if len(a.statements) == 0 {
		return list
	}
	product := subjectPURLs(sub)
	for i := range list {
		list[i].Answer, _ = a.find(list[i], product)
	}
	return list
}

// find answers with the latest statement about the finding. Of two with the
// same time the one that does not exonerate counts.
func (a *answers) find(f scan.Finding, product []string) (string, bool) {
	if f.Kind != scan.KindVulnerability || f.Package == "" {
		return "", false
	}
	var last *statement
	for i := range a.statements {
		s := &a.statements[i]
		if !s.Vulnerability.Matches(f.ID) || !s.about(f.Package, product) {
			continue
		}
		if last == nil || s.at.After(last.at) || s.at.Equal(last.at) && !s.exonerates() {
			last = s
		}
	}
	if last == nil || !last.exonerates() {
		return "", false
	}
	text := string(last.Status)
	for _, more := range []string{string(last.Justification), last.ImpactStatement, last.StatusNotes} {
		if more != "" {
			text += ": " + oneLine(more)
		}
	}
	return text + " (VEX statement of " + oneLine(last.author) + ", " + last.at.UTC().Format(time.DateOnly) + ")", true
}

func (s *statement) exonerates() bool {
	return s.Status == vex.StatusNotAffected || s.Status == vex.StatusFixed
}

// about tells whether a statement speaks of the package: as its product, or
// as a subcomponent of the artifact. A statement about subcomponents says
// nothing of the product's other packages.
func (s *statement) about(pkg string, product []string) bool {
	for i := range s.Products {
		p := &s.Products[i]
		if len(p.Subcomponents) == 0 && p.Component.Matches(pkg) {
			return true
		}
		if !slices.ContainsFunc(product, p.Component.Matches) {
			continue
		}
		if len(p.Subcomponents) == 0 {
			return true
		}
		for j := range p.Subcomponents {
			if p.Subcomponents[j].Matches(pkg) {
				return true
			}
		}
	}
	return false
}

// subjectPURLs are the names by which a document may call an artifact.
func subjectPURLs(sub scan.Subject) []string {
	kind, _, _ := strings.Cut(sub.Source, "/")
	n, v := sub.Artifact.Name, sub.Artifact.Version
	var list []string
	add := func(typ, namespace, name, version string) {
		list = append(list, packageurl.NewPackageURL(typ, namespace, name, version, nil, "").String())
	}
	switch kind {
	case "pypi":
		add("pypi", "", n, v)
	case "apt":
		n, _, _ = strings.Cut(n, ":")
		add("deb", "debian", n, v)
		add("deb", "ubuntu", n, v)
	case "oci":
		base := n[strings.LastIndex(n, "/")+1:]
		add("oci", "", base, v)
		for _, f := range sub.Artifact.Files {
			if strings.Contains(f.Path, "manifests/") {
				add("oci", "", base, f.Digest.String())
			}
		}
	}
	add("generic", "", n, v)
	return list
}

// WriteVEX writes waivers as an OpenVEX document: each is the statement of its
// owner that the site accepts the vulnerability until it expires. A waiver
// does not say that a product is not affected, so the status is "affected"
// and the action is the waiver. The same arguments give the same bytes.
func WriteVEX(ctx context.Context, author string, when time.Time, waived []scan.Waived) ([]byte, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	when = when.UTC()
	doc := vex.VEX{
		Metadata:   vex.Metadata{Context: vex.Context + "/v" + vex.SpecVersion, Author: author, Timestamp: &when, Version: 1, Tooling: "darkmirror"},
		Statements: []vex.Statement{},
	}
	waived = slices.Clone(waived)
	slices.SortFunc(waived, func(a, b scan.Waived) int {
		return cmp.Or(
			strings.Compare(a.Finding, b.Finding), strings.Compare(a.Source, b.Source), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Version, b.Version), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Expires, b.Expires),
			strings.Compare(a.Reason, b.Reason),
		)
	})
	for _, w := range slices.Compact(waived) {
		sub := scan.Subject{Source: w.Source, Artifact: artifact.Artifact{Name: w.Name, Version: w.Version}}
		doc.Statements = append(doc.Statements, vex.Statement{
			Vulnerability:   vex.Vulnerability{Name: vex.VulnerabilityID(w.Finding)},
			Products:        []vex.Product{{Component: vex.Component{ID: subjectPURLs(sub)[0]}}},
			Status:          vex.StatusAffected,
			StatusNotes:     fmt.Sprintf("%s finding in %s %s %s, severity %s", w.Scanner, w.Source, w.Name, w.Version, cmp.Or(w.Severity, scan.Unknown)),
			ActionStatement: fmt.Sprintf("accepted by %s until %s: %s", w.Owner, w.Expires, w.Reason),
		})
	}
	raw, err := json.Marshal(&doc)
	if err != nil {
		return nil, err
	}
	doc.ID = urn(raw)
	var buf bytes.Buffer
	if err := doc.ToJSON(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
