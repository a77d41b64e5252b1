// Package scan runs scanners over artifacts and applies the site's policy to
// what they find: which artifacts are held back, and which findings are
// waived, by whom and until when.
//
// Invariants:
//   - It fails closed. Whatever a scanner reports holds its artifact back
//     unless a waiver that names exactly this artifact and this finding is in
//     force; a scanner that errors holds it back too, and no waiver lifts that.
//   - A blocked artifact is held back whatever the scanners say.
//   - An artifact that is held leaves the snapshot whole, in all its files.
//   - The same snapshots, policy, findings and time give the same report.
//
// Limits: text of scanners is clipped to [MaxText] bytes.
package scan

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// MaxText bounds text of a scanner in a report, in bytes: it enters the
	// signed manifest.
	MaxText = 300
	// parallel is how many artifacts are scanned at once: a small bastion has
	// two cores.
	parallel = 2
)

// Codes of what is held back. They are stable.
const (
	CodeBlocked = "POLICY-BLOCK" // the configuration blocks it
	CodeError   = "SCAN-ERROR"   // a scanner could not judge it
	CodeFinding = "SCAN-FINDING" // a scanner found something
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
	ID       string `json:"id"` // stable, so that a waiver can name it
	Severity string `json:"severity"`
	Text     string `json:"text"`
}

// A Scanner judges artifacts. Scan is called from several goroutines at once,
// for different subjects, and is not called again for a subject that failed:
// a scanner retries within itself what is worth retrying. It opens files by
// digest with open, which verifies while it reads; it must not use bytes
// before the end was read without an error. An error, of open as well, means
// that it could not judge, and holds the subject back; findings beside an
// error are ignored. Scan must end soon after ctx does.
type Scanner interface {
	Name() string
	Version() string
	Scan(ctx context.Context, s Subject, open func(artifact.Digest) (io.ReadCloser, error)) ([]Finding, error)
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

// A Report is what came of a run, sorted.
type Report struct {
	Held    []Held   `json:"held"`
	Waived  []Waived `json:"waived"`
	Scanned int      `json:"scanned"` // artifacts judged, held ones included
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

// Run judges every artifact of the snapshots at the time now. The scanners
// may be none: the policy's blocks hold all the same. The error is what
// stopped the run; held artifacts are no error here, see [Report.Err].
func Run(ctx context.Context, p Policy, scanners []Scanner, snaps []*artifact.Snapshot,
	open func(artifact.Digest) (io.ReadCloser, error), now time.Time, onEvent func(artifact.Event),
) (*Report, error) {
	if onEvent == nil {
		onEvent = func(artifact.Event) {}
	}
	var subjects []Subject
	for _, snap := range snaps {
		for _, a := range snap.Artifacts {
			subjects = append(subjects, Subject{Source: snap.Source, Artifact: a})
		}
	}
	onEvent(artifact.Event{Stage: "scan", TotalItems: len(subjects)})
	rep := &Report{Held: []Held{}, Waived: []Waived{}, Scanned: len(subjects)}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, s := range subjects {
		g.Go(func() error {
			held, waived := p.judge(gctx, scanners, s, open, now)
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			mu.Lock()
			defer mu.Unlock()
			rep.Waived = append(rep.Waived, waived...)
			if held != nil {
				rep.Held = append(rep.Held, *held)
			}
			onEvent(artifact.Event{Stage: "scan", Source: s.Source, Item: s.Artifact.Name, Items: 1})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	rep.sort()
	return rep, nil
}

// judge asks the policy and every scanner about one subject.
func (p Policy) judge(ctx context.Context, scanners []Scanner, s Subject, open func(artifact.Digest) (io.ReadCloser, error), now time.Time) (*Held, []Waived) {
	a := s.Artifact
	hold := func(code, reason string) *Held {
		return &Held{Source: s.Source, Name: a.Name, Version: a.Version, Code: code, Reason: clean(reason)}
	}
	if b, ok := p.blocked(s); ok {
		return hold(CodeBlocked, b.Reason), nil
	}
	var findings []Finding
	var waived []Waived
	var failed *Held
	for _, sc := range scanners {
		found, err := sc.Scan(ctx, s, open)
		if err != nil {
			if failed == nil {
				failed = hold(CodeError, fmt.Sprintf("%s %s could not judge it: %v", sc.Name(), sc.Version(), err))
			}
			continue
		}
		for _, f := range found {
			f.Scanner = cmp.Or(f.Scanner, sc.Name())
			w, ok := p.waived(s, f, now)
			if !ok {
				findings = append(findings, f)
				continue
			}
			waived = append(waived, Waived{
				Source: s.Source, Name: a.Name, Version: a.Version, Scanner: clean(f.Scanner), Finding: clean(f.ID),
				Severity: clean(f.Severity), Owner: w.Owner, Reason: w.Reason, Expires: w.Expires,
			})
		}
	}
	switch {
	case failed != nil:
		return failed, waived
	case len(findings) > 0:
		return hold(CodeFinding, describe(findings)), waived
	}
	return nil, waived
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
func clean(s string) string {
	s = strings.ToValidUTF8(clip(s, MaxText), "?")
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

func (r *Report) sort() {
	slices.SortFunc(r.Held, func(a, b Held) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Code, b.Code), strings.Compare(a.Reason, b.Reason))
	})
	// Two artifacts of one name and version are one to the user.
	r.Held = slices.CompactFunc(r.Held, func(a, b Held) bool {
		return a.Source == b.Source && a.Name == b.Name && a.Version == b.Version
	})
	slices.SortFunc(r.Waived, func(a, b Waived) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Finding, b.Finding), strings.Compare(a.Scanner, b.Scanner))
	})
	r.Waived = slices.Compact(r.Waived)
}

// Err is a *[BlockedError] if something is held back, otherwise nil.
func (r *Report) Err() error {
	if len(r.Held) == 0 {
		return nil
	}
	return &BlockedError{Held: r.Held}
}

// Strip returns the snapshot without the artifacts that are held back. It
// does not change snap.
func (r *Report) Strip(snap *artifact.Snapshot) *artifact.Snapshot {
	type id struct{ name, version string }
	held := make(map[id]bool)
	for _, h := range r.Held {
		if h.Source == snap.Source {
			held[id{h.Name, h.Version}] = true
		}
	}
	c := *snap
	if len(held) > 0 {
		c.Artifacts = slices.DeleteFunc(slices.Clone(snap.Artifacts), func(a artifact.Artifact) bool {
			return held[id{a.Name, a.Version}]
		})
	}
	return &c
}
