// Package scan has artifacts looked at by scan engines and applies the site's
// policy to what they find: which artifacts are held back, which pass with a
// warning, and which findings are waived, by whom and until when.
//
// A [Runner] walks every blob once with package walk and shows each file to
// every [Inspector] and [Gatherer]; a [Judge] then looks at the artifact as a
// whole, by the packages that were gathered. What was found in a blob is kept
// in a [Cache] under everything that it depends on: the blob's digest and
// name, the limits, the engine's version, settings and database. docs/scan.md
// says what each engine looks for.
//
// Invariants:
//   - It fails closed. An engine that cannot work ends the run ([ErrEngine]);
//     one that cannot judge an artifact holds that back, and no waiver lifts
//     it. What was not looked at is a finding of its own kind, never nothing.
//   - The zero [Verdict] is [Error], and a finding of a kind or severity that
//     the policy does not know holds its artifact back.
//   - A blocked artifact is held back whatever the engines say. A package
//     that is known to be malicious cannot be waived.
//   - An artifact that is held leaves the snapshot whole, in all its files.
//   - The same snapshots, policy, findings and time give the same report, and
//     what the cache knew changes nothing in it but its counts.
//
// Limits: text of engines is clipped to [MaxText] bytes, a file's findings of
// one engine to [maxPerFile]; those of package walk for what is unpacked.
package scan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// MaxText bounds text of a scanner in a report, in bytes: it enters the signed
// manifest.
const MaxText = 300

// Codes of what is held back. They are stable.
const (
	CodeBlocked    = "POLICY-BLOCK"     // the configuration blocks it
	CodeError      = "SCAN-ERROR"       // a scanner could not judge it
	CodeMalicious  = "SCAN-MALICIOUS"   // it is malware
	CodeNotScanned = "SCAN-NOT-SCANNED" // a scanner could not look at all of it
	CodeFinding    = "SCAN-FINDING"     // a scanner found something that the policy holds
)

// A Subject is what a scanner judges: one artifact of one source.
type Subject struct {
	Source   string // "pypi/main"
	Artifact artifact.Artifact
}

// A Finding is one thing that a scanner holds against a subject. All of it
// may be text from outside.
type Finding struct {
	Scanner  string `json:"scanner"`
	Kind     string `json:"kind"`
	ID       string `json:"id"` // stable, so that a waiver can name it
	Severity string `json:"severity"`
	Text     string `json:"text"`
	// Path leads to the file, from the artifact inwards; empty if the whole
	// artifact is meant.
	Path string `json:"path,omitempty"`
	// Package is the package URL of what is vulnerable or refused, and Fixed
	// the version in which it is mended, if there is one.
	Package string `json:"package,omitempty"`
	Fixed   string `json:"fixed,omitempty"`
	// Answer is the statement of a VEX document that says why it does no harm
	// here; a finding with an answer holds nothing back.
	Answer string `json:"answer,omitempty"`
}

// Held is an artifact that is held back, and the gravest reason.
type Held struct {
	Source  string `json:"source"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Code    string `json:"code"`
	Reason  string `json:"reason"`
}

// Waived is a finding that a waiver allows to pass.
type Waived struct {
	Source   string `json:"source"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Scanner  string `json:"scanner"`
	Finding  string `json:"finding"`
	Severity string `json:"severity"`
	Owner    string `json:"owner"`
	Reason   string `json:"reason"`
	Expires  string `json:"expires"` // the last day, "2026-12-31"
}

// A BlockedError says that the policy held artifacts back.
type BlockedError struct {
	Held []Held
}

func (e *BlockedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy held %d artifacts back", len(e.Held))
	if len(e.Held) == 1 {
		b.Reset()
		b.WriteString("policy held 1 artifact back")
	}
	for _, h := range e.Held {
		fmt.Fprintf(&b, "\n  %s: %s %s: %s [%s]", h.Source, h.Name, h.Version, h.Reason, h.Code)
	}
	return b.String()
}

// describe puts findings on one line: the first of them, and how many more.
func describe(fs []Finding) string {
	slices.SortFunc(fs, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a.Severity), rank(b.Severity)), strings.Compare(a.ID, b.ID), strings.Compare(a.Scanner, b.Scanner))
	})
	f := fs[0]
	text := strings.Join(slices.DeleteFunc([]string{f.ID, strings.ToLower(f.Severity)}, func(s string) bool { return s == "" }), " ")
	if f.Text != "" {
		text += ", " + f.Text
	}
	if f.Path != "" {
		text += " in " + f.Path
	}
	// The tail must survive the clipping of a long text.
	tail := " (" + f.Scanner + ")"
	if n := len(fs) - 1; n > 0 {
		tail = fmt.Sprintf(" (%s, %d more)", f.Scanner, n)
	}
	return clip(clean(text), MaxText-min(len(tail), MaxText/2)) + tail
}

// rank orders severities, unknown words after the known ones.
func rank(severity string) int {
	order := []string{"critical", "high", "medium", "low"}
	if i := slices.Index(order, strings.ToLower(severity)); i >= 0 {
		return i
	}
	return len(order)
}

// clean makes outside text fit for a manifest and a terminal: valid, on one
// line, of bounded length.
func clean(s string) string { return cleanTo(s, MaxText) }

func cleanTo(s string, limit int) string {
	s = strings.ToValidUTF8(clip(s, limit), "?")
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.Join(strings.Fields(s), " "))
}

// clip shortens s to at most n bytes without cutting a rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const dots = "..."
	cut := max(0, n-len(dots))
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + dots
}

// cleaned is the finding with its text made fit for print; identifiers keep
// their bytes where they are fit already, so that waivers match.
func (f Finding) cleaned() Finding {
	for _, t := range []*string{&f.Scanner, &f.Kind, &f.ID, &f.Severity, &f.Text, &f.Package, &f.Fixed, &f.Answer} {
		*t = clean(*t)
	}
	f.Path = cleanTo(f.Path, maxPathText)
	return f
}

// maxPathText bounds a finding's path: archives in archives have long ones.
const maxPathText = 2000
