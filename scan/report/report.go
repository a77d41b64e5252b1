// Package report writes down what a bundle brings and what scanners said of
// it: one self-contained HTML page for the person who approves a transfer and
// for the auditor who reads it years later, its JSON twin, and SARIF 2.1.0
// for other programs.
//
// Specification: the JSON twin is schema "darkmirror.report/v1", described by
// the types of this file; SARIF is the OASIS standard 2.1.0.
//
// Invariants:
//   - The verdict fails closed: a page says that a bundle may pass only if
//     scanners are named, none of their databases was too old, nothing is
//     listed as not scanned for, and nothing is held back.
//   - The page loads nothing: no script, no font, no image, no address that a
//     browser follows; its own Content-Security-Policy forbids all of that.
//   - All text may come from outside. It is escaped, characters that cannot
//     be seen are written out, and it cannot run over its neighbours.
//   - A severity, a verdict and an expiry are words; colour only repeats them.
//   - The same document gives the same bytes, in whatever order its lists
//     are.
//
// Limits: the page shows at most a few thousand rows, the gravest first, and
// says how many more are in the JSON twin, which has all of them.
package report

import (
	"time"

	"github.com/darkmirror/darkmirror/scan"
)

// Schema names the JSON twin.
const Schema = "darkmirror.report/v1"

// A Document is everything that a report says. A program fills it, apart from
// the fields that are marked as computed, and calls [Document.HTML],
// [Document.JSON] or [Document.SARIF]; none of them changes it. Lists may be
// in any order.
type Document struct {
	Schema string `json:"schema"` // computed
	// Tool is the program that wrote the report, with its version.
	Tool string `json:"tool"`
	// At is the moment from which the ages of databases and the days that are
	// left are counted: when the artifacts were scanned.
	At time.Time `json:"at"`
	// Verdict is computed; see the function [Verdict].
	Verdict Conclusion `json:"verdict"`
	Bundle  Bundle     `json:"bundle"`
	// NotScannedFor lists what nothing looked for, in words that follow
	// "not scanned for": "malware", "known vulnerabilities".
	NotScannedFor []string `json:"not_scanned_for"`
	Engines       []Engine `json:"engines"`
	Held          []Held   `json:"held"`
	// Missing is what was wanted and could not be fetched.
	Missing []Missing `json:"missing"`
	Waived  []Waived  `json:"waived"`
	// Findings are all findings, whatever became of them. Those with the
	// action hold belong to an artifact of Held.
	Findings []Finding `json:"findings"`
	// Changes compares with the bundle before.
	Changes []Change `json:"changes"`
	// Sources are all sources of the stream, with their state after this
	// bundle; Everything lists the artifacts of that state.
	Sources    []Source     `json:"sources"`
	Everything []Item       `json:"everything"`
	Withdrawn  []Withdrawal `json:"withdrawn"`
}

// A Conclusion is the verdict on a bundle.
type Conclusion struct {
	Outcome string `json:"outcome"` // one of the constants below
	// Headline is a few words, Text a few sentences that explain them.
	Headline string `json:"headline"`
	Text     string `json:"text"`
}

// Outcomes, the gravest first.
const (
	NotScanned = "not-scanned" // nothing looked for some kind of harm
	HeldBack   = "held-back"   // artifacts stay outside; the others may pass
	MayPass    = "may-pass"
)

// A Bundle says which bundle the report is about. A report about artifacts
// that are not sealed yet has none of it.
type Bundle struct {
	Stream string `json:"stream,omitempty"`
	Seq    uint64 `json:"seq,omitempty"`
	// ID is the digest of the manifest as it was signed, "sha256:..."; it is
	// what a reader compares with the bundle itself.
	ID string `json:"id,omitempty"`
	// Prev is the ID of the bundle before, empty for the first.
	Prev string `json:"prev,omitempty"`
	// Base is the number of the bundle that this one builds on, 0 if it
	// stands alone.
	Base    uint64    `json:"base,omitempty"`
	Made    time.Time `json:"made,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Volumes int       `json:"volumes,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"` // of what it carries
	// SignedBy are the exporters' keys, ApprovedBy the approvers'.
	SignedBy   []Key `json:"signed_by"`
	ApprovedBy []Key `json:"approved_by"`
	// Approvals is how many approvers the inside asks for, 0 for none.
	Approvals int `json:"approvals,omitempty"`
}

// A Key is a key that signed.
type Key struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"` // "7b1c 90e2"
}

// An Engine is a scanner that looked at every artifact.
type Engine struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// For is what it looks for, in words that follow "scanned for".
	For string `json:"for"`
	// Database is the digest of what it compares with, and Dated when that
	// was made; both are empty for an engine that has its rules built in.
	Database string    `json:"database,omitempty"`
	Dated    time.Time `json:"dated,omitzero"`
	// MaxAge is how old the database was allowed to be, in seconds; 0 if
	// there was no limit.
	MaxAge int64 `json:"max_age_seconds,omitempty"`
	// Age is computed: how old the database was, in seconds.
	Age int64 `json:"age_seconds,omitempty"`
	// Note is anything else that a reader should know, in one line.
	Note string `json:"note,omitempty"`
}

// Held is an artifact that stays outside, and the gravest reason.
type Held struct {
	Source  string `json:"source"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Code    string `json:"code"` // stable: "SCAN-FINDING", "POLICY-BLOCK"
	Reason  string `json:"reason"`
}

// Missing is an artifact, or with an empty name a whole source, that could
// not be fetched.
type Missing struct {
	Source  string `json:"source"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Code    string `json:"code"`
	Reason  string `json:"reason"`
}

// Waived is a waiver, and the finding that it lets pass.
type Waived struct {
	Source   string `json:"source"`
	Name     string `json:"name"`
	Version  string `json:"version"` // empty: every version
	Finding  string `json:"finding"` // the id
	Scanner  string `json:"scanner"`
	Severity string `json:"severity"`
	Owner    string `json:"owner"`
	Reason   string `json:"reason"`
	Expires  string `json:"expires"` // the last day, "2026-12-31"
	// Unused says that no finding needed the waiver.
	Unused bool `json:"unused,omitempty"`
	// DaysLeft is computed: 0 on the last day, negative once it has expired,
	// which is also what a date that cannot be read counts as.
	DaysLeft int `json:"days_left"`
}

// A Finding is what a scanner found in an artifact, and what became of it.
type Finding struct {
	Source  string `json:"source"`
	Name    string `json:"name"`
	Version string `json:"version"`
	scan.Finding
	// Action is [scan.ActionHold], [scan.ActionWarn], [scan.ActionAllow] or
	// [scan.ActionWaived].
	Action string `json:"action"`
	// Do is what a person should do about it, in one line. Where it is empty
	// it is computed from the kind of finding.
	Do string `json:"do"`
}

// A Change is an artifact that the bundle before did not have, or has in
// another form, or had and this one has not.
type Change struct {
	Kind    string `json:"kind"` // one of the constants below
	Source  string `json:"source"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// From is the version before, of a changed artifact.
	From string `json:"from,omitempty"`
	// Why is who asked for it: a line of a requirements file, another
	// package. For what is gone it is why it went, if that is known.
	Why  string `json:"why,omitempty"`
	Size int64  `json:"size,omitempty"`
}

// Kinds of changes.
const (
	New     = "new"
	Changed = "changed"
	Gone    = "gone"
)

// A Source is one source's state after the bundle.
type Source struct {
	Name      string `json:"name"`
	Snapshot  string `json:"snapshot,omitempty"` // digest
	Artifacts int    `json:"artifacts"`
	Files     int    `json:"files"`
	Bytes     int64  `json:"bytes"`
}

// An Item is one artifact of the state after the bundle.
type Item struct {
	Source  string `json:"source"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Why     string `json:"why,omitempty"`
	Size    int64  `json:"size"`
	Files   int    `json:"files"`
	// Verdict is a word or two for a person: "clean", "warning", "waived".
	Verdict  string `json:"verdict"`
	Findings int    `json:"findings"`
}

// A Withdrawal recalls bytes that an earlier bundle carried.
type Withdrawal struct {
	Digest   string `json:"digest"`
	Source   string `json:"source,omitempty"`
	Name     string `json:"name,omitempty"`
	Version  string `json:"version,omitempty"`
	Reason   string `json:"reason"`
	Advisory string `json:"advisory,omitempty"`
}
