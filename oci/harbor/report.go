package harbor

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A severity is one of Harbor's, in ascending order of gravity.
type severity int

const (
	sevNone severity = iota // of a report without findings only
	sevUnknown
	sevNegligible
	sevLow
	sevMedium
	sevHigh
	sevCritical
)

func (s severity) String() string {
	return [...]string{"None", "Unknown", "Negligible", "Low", "Medium", "High", "Critical"}[s]
}

// severityOf reads a scanner's word. One that is not a rank, such as "malware",
// is critical: what we cannot rank must not pass for harmless.
func severityOf(s string) severity {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "critical":
		return sevCritical
	case "high", "important":
		return sevHigh
	case "medium", "moderate":
		return sevMedium
	case "low":
		return sevLow
	case "negligible", "unimportant":
		return sevNegligible
	case "unknown":
		return sevUnknown
	}
	return sevCritical
}

type reportItem struct {
	ID          string         `json:"id"`
	Package     string         `json:"package"`
	Version     string         `json:"version"`
	FixVersion  string         `json:"fix_version"`
	Severity    string         `json:"severity"`
	Description string         `json:"description"`
	Links       []string       `json:"links"`
	Attributes  map[string]any `json:"vendor_attributes"`
}

type reportArtifact struct {
	Digest string `json:"digest"`
}

type vulnReport struct {
	GeneratedAt string         `json:"generated_at"`
	Artifact    reportArtifact `json:"artifact"`
	Scanner     scannerName    `json:"scanner"`
	Severity    string         `json:"severity"`
	Items       []reportItem   `json:"vulnerabilities"`
}

// harborReport writes a verdict as HarborVulnerabilityReport. It is the same
// for the same verdict.
func (a *adapter) harborReport(v Verdict) vulnReport {
	rep := vulnReport{
		GeneratedAt: v.At.UTC().Format(time.RFC3339), Artifact: reportArtifact{v.Digest}, Scanner: a.name(), Items: []reportItem{},
	}
	gravest := sevNone
	for _, f := range v.Findings {
		s := severityOf(f.Severity)
		gravest = max(gravest, s)
		rep.Items = append(rep.Items, reportItem{
			ID:      cmp.Or(f.ID, "DARKMIRROR-UNNAMED"), // an empty one would be lost in Harbor
			Package: f.Package, Version: f.Version, FixVersion: f.FixedIn,
			Severity: s.String(), Description: f.Text, Links: append([]string{}, f.Links...),
			Attributes: map[string]any{"darkmirror": map[string]any{"stream": v.Stream, "bundle": v.Bundle, "policy": v.Policy}},
		})
	}
	rep.Severity = gravest.String()
	slices.SortStableFunc(rep.Items, func(x, y reportItem) int {
		return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Package, y.Package), cmp.Compare(x.Version, y.Version))
	})
	return rep
}
