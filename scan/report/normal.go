package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/scan"
)

// An artifactID names an artifact.
type artifactID struct{ source, name, version string }

func (f *Finding) id() artifactID { return artifactID{f.Source, f.Name, f.Version} }
func (h *Held) id() artifactID    { return artifactID{h.Source, h.Name, h.Version} }

// normal returns a copy in which every list is sorted and every computed
// field is filled. It refuses a document that contradicts itself: a page
// that is wrong about what stays outside is worse than none.
func (d *Document) normal() (*Document, error) {
	n := *d
	n.Schema, n.At = Schema, whole(d.At)
	n.Bundle.Made, n.Bundle.Expires = whole(d.Bundle.Made), whole(d.Bundle.Expires)
	n.Bundle.SignedBy, n.Bundle.ApprovedBy = sortedKeys(d.Bundle.SignedBy), sortedKeys(d.Bundle.ApprovedBy)
	n.NotScannedFor = append([]string{}, d.NotScannedFor...)
	slices.Sort(n.NotScannedFor)
	n.NotScannedFor = slices.Compact(n.NotScannedFor)
	n.normalEngines()
	n.normalLists()
	n.normalWaived()
	held := make(map[artifactID]bool, len(n.Held))
	for i := range n.Held {
		held[n.Held[i].id()] = true
	}
	n.Findings = append([]Finding{}, d.Findings...)
	for i := range n.Findings {
		f := &n.Findings[i]
		switch f.Action {
		case scan.ActionHold:
			if !held[f.id()] {
				return nil, fmt.Errorf("report: %s %s %s: %s holds it back, but it is not listed as held", f.Source, f.Name, f.Version, f.ID)
			}
		case scan.ActionWarn, scan.ActionAllow, scan.ActionWaived:
		default:
			return nil, fmt.Errorf("report: %s %s %s: %s: unknown action %q", f.Source, f.Name, f.Version, f.ID, f.Action)
		}
		f.Do = cmp.Or(f.Do, advice(f.Finding))
	}
	slices.SortStableFunc(n.Findings, compareFindings)
	for _, c := range n.Changes {
		if c.Kind != New && c.Kind != Changed && c.Kind != Gone {
			return nil, fmt.Errorf("report: %s %s %s: unknown kind of change %q", c.Source, c.Name, c.Version, c.Kind)
		}
	}
	n.Verdict = verdict(&n)
	return &n, nil
}

func (d *Document) normalEngines() {
	d.Engines = append([]Engine{}, d.Engines...)
	for i := range d.Engines {
		e := &d.Engines[i]
		e.Dated, e.Age = whole(e.Dated), 0
		if !e.Dated.IsZero() {
			e.Age = int64(d.At.Sub(e.Dated) / time.Second)
		}
	}
	slices.SortStableFunc(d.Engines, func(a, b Engine) int {
		return cmp.Or(strings.Compare(a.For, b.For), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Database, b.Database))
	})
}

// normalLists sorts the lists that have nothing to compute.
func (d *Document) normalLists() {
	d.Held = append([]Held{}, d.Held...)
	slices.SortFunc(d.Held, func(a, b Held) int {
		return cmp.Or(byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version), strings.Compare(a.Code, b.Code), strings.Compare(a.Reason, b.Reason))
	})
	// Two artifacts of one name and version are one to the reader.
	d.Held = slices.CompactFunc(d.Held, func(a, b Held) bool { return a.id() == b.id() })
	d.Missing = append([]Missing{}, d.Missing...)
	slices.SortFunc(d.Missing, func(a, b Missing) int {
		return cmp.Or(byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version), strings.Compare(a.Code, b.Code), strings.Compare(a.Reason, b.Reason))
	})
	d.Changes = append([]Change{}, d.Changes...)
	slices.SortStableFunc(d.Changes, func(a, b Change) int {
		return cmp.Or(byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version), strings.Compare(a.Kind, b.Kind), strings.Compare(a.From, b.From), strings.Compare(a.Why, b.Why), cmp.Compare(a.Size, b.Size))
	})
	d.Sources = append([]Source{}, d.Sources...)
	slices.SortStableFunc(d.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	d.Everything = append([]Item{}, d.Everything...)
	slices.SortStableFunc(d.Everything, func(a, b Item) int {
		return cmp.Or(byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version), strings.Compare(a.Why, b.Why), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Files, b.Files), strings.Compare(a.Verdict, b.Verdict))
	})
	d.Withdrawn = append([]Withdrawal{}, d.Withdrawn...)
	slices.SortStableFunc(d.Withdrawn, func(a, b Withdrawal) int {
		return cmp.Or(byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version), strings.Compare(a.Digest, b.Digest), strings.Compare(a.Advisory, b.Advisory))
	})
}

func (d *Document) normalWaived() {
	d.Waived = append([]Waived{}, d.Waived...)
	for i := range d.Waived {
		d.Waived[i].DaysLeft = daysLeft(d.Waived[i].Expires, d.At)
	}
	// What has run out or soon will comes first.
	slices.SortStableFunc(d.Waived, func(a, b Waived) int {
		return cmp.Or(
			cmp.Compare(a.DaysLeft, b.DaysLeft), byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version),
			strings.Compare(a.Finding, b.Finding), strings.Compare(a.Scanner, b.Scanner), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Reason, b.Reason),
		)
	})
}

// byName compares artifacts by source, name and version, given in pairs.
func byName(pairs ...string) int {
	for ; len(pairs) >= 2; pairs = pairs[2:] {
		if c := strings.Compare(pairs[0], pairs[1]); c != 0 {
			return c
		}
	}
	return 0
}

// compareFindings puts what holds first, then the gravest. It is called some
// millions of times, so it stops at the first difference.
func compareFindings(a, b Finding) int {
	if c := cmp.Compare(actionRank(a.Action), actionRank(b.Action)); c != 0 {
		return c
	}
	if c := byName(a.Source, b.Source, a.Name, b.Name, a.Version, b.Version); c != 0 {
		return c
	}
	if c := cmp.Compare(severityRank(a.Severity), severityRank(b.Severity)); c != 0 {
		return c
	}
	return byName(a.ID, b.ID, a.Path, b.Path, a.Package, b.Package, a.Scanner, b.Scanner, a.Text, b.Text)
}

func actionRank(action string) int {
	switch action {
	case scan.ActionHold:
		return 0
	case scan.ActionWarn:
		return 1
	case scan.ActionWaived:
		return 2
	}
	return 3
}

// severityRank puts unknown after high: it is not harmless, and nobody called
// it grave. A word that is no severity comes first.
func severityRank(severity string) int {
	return slices.Index([]string{scan.Critical, scan.High, scan.Unknown, scan.Medium, scan.Low}, strings.ToLower(severity))
}

func sortedKeys(list []Key) []Key {
	list = append([]Key{}, list...)
	slices.SortFunc(list, func(a, b Key) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	return list
}

// whole is the time in UTC without fractions of a second.
func whole(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// daysLeft counts from at to the last day of a waiver, both in UTC.
func daysLeft(last string, at time.Time) int {
	day, err := time.Parse(time.DateOnly, last)
	if err != nil {
		return -1
	}
	today := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	return int(day.Sub(today) / (24 * time.Hour))
}
