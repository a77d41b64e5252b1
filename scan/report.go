package scan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Verdict is what the engines say of an artifact, before the policy.
type Verdict int

// Verdicts. The zero value is the one that never passes.
const (
	Error      Verdict = iota // it could not be judged
	Clean                     // every engine looked at all of it and found nothing
	Findings                  // something was found
	Malicious                 // it is malware
	NotScanned                // a part of it could not be looked at
)

var verdicts = []string{"error", "clean", "findings", "malicious", "not-scanned"}

func (v Verdict) String() string {
	if v < 0 || int(v) >= len(verdicts) {
		return verdicts[Error]
	}
	return verdicts[v]
}

// MarshalText writes the verdict's word.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a verdict's word; one that it does not know is refused.
func (v *Verdict) UnmarshalText(b []byte) error {
	i := slices.Index(verdicts, string(b))
	if i < 0 {
		return fmt.Errorf("verdict %q: want one of %s", b, strings.Join(verdicts, ", "))
	}
	*v = Verdict(i)
	return nil
}

// ActionWaived is what a waiver makes of [ActionHold].
const ActionWaived = "waived"

// A Judged is a finding with what the policy makes of it.
type Judged struct {
	Finding
	Action string  `json:"action"`
	Waiver *Waiver `json:"waiver,omitempty"`
}

// An Item is one artifact's outcome.
type Item struct {
	Source   string   `json:"source"`
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Why      string   `json:"why"`
	Files    int      `json:"files"`
	Size     int64    `json:"size"`
	Packages int      `json:"packages"` // that it holds, as far as the scanners can tell
	Verdict  Verdict  `json:"verdict"`
	Findings []Judged `json:"findings,omitempty"`
	// Code and Reason say why it is held back; empty for what passes.
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`

	inventory *Inventory
}

// Inventory is what is known of the artifact's packages; nil for one that was
// not looked into, or was read from a document.
func (i *Item) Inventory() *Inventory { return i.inventory }

// Held reports whether the artifact stays outside.
func (i *Item) Held() bool { return i.Code != "" }

func (i *Item) hold(v Verdict, code, reason string) {
	i.Verdict, i.Code, i.Reason = v, code, clean(reason)
}

// An EngineInfo is an engine as reports and bundles name it.
type EngineInfo struct {
	Name     string     `json:"name"`
	Version  string     `json:"version"`
	Database string     `json:"database,omitempty"` // digest
	Dated    *time.Time `json:"dated,omitempty"`
	Settings string     `json:"settings,omitempty"`
}

// A Report is what came of a run, sorted.
type Report struct {
	Held    []Held       `json:"held"`
	Waived  []Waived     `json:"waived"`
	Scanned int          `json:"scanned"` // artifacts judged, held ones included
	Items   []Item       `json:"items"`
	Engines []EngineInfo `json:"engines"`
	// Lapsed are waivers that are no longer in force; Unused are in force and
	// met nothing.
	Lapsed []Waiver `json:"lapsed,omitempty"`
	Unused []Waiver `json:"unused,omitempty"`
	// Walked, Files and Bytes say what was unpacked in this run; what the
	// cache knew is not in them.
	Walked int   `json:"walked"`
	Files  int   `json:"files"`
	Bytes  int64 `json:"bytes"`
}

// finish fills in what follows from the items, and sorts.
func (s *session) finish(r *Report) {
	slices.SortFunc(r.Items, func(a, b Item) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Code, b.Code), strings.Compare(a.Reason, b.Reason))
	})
	used := make(map[Waiver]bool)
	for _, i := range r.Items {
		if i.Held() {
			r.Held = append(r.Held, Held{Source: i.Source, Name: i.Name, Version: i.Version, Code: i.Code, Reason: i.Reason})
		}
		for _, f := range i.Findings {
			if f.Waiver == nil {
				continue
			}
			used[*f.Waiver] = true
			r.Waived = append(r.Waived, Waived{
				Source: i.Source, Name: i.Name, Version: i.Version, Scanner: f.Scanner, Finding: f.ID,
				Severity: f.Severity, Owner: f.Waiver.Owner, Reason: f.Waiver.Reason, Expires: f.Waiver.Expires,
			})
		}
	}
	// Two artifacts of one name and version are one to the user.
	r.Held = slices.CompactFunc(r.Held, func(a, b Held) bool {
		return a.Source == b.Source && a.Name == b.Name && a.Version == b.Version
	})
	slices.SortFunc(r.Waived, func(a, b Waived) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Finding, b.Finding), strings.Compare(a.Scanner, b.Scanner))
	})
	r.Waived = slices.Compact(r.Waived)
	r.Lapsed = s.Policy.Lapsed(s.now)
	for _, w := range s.Policy.waivers {
		if s.now.Before(w.end) && !used[w.Waiver] {
			r.Unused = append(r.Unused, w.Waiver)
		}
	}
	r.Engines = s.engineInfos()
	r.Walked, r.Files, r.Bytes = s.walked, s.files, s.bytes
}

// engineInfos names every engine once, with what it compared with.
func (s *session) engineInfos() []EngineInfo {
	list := []EngineInfo{{Name: "archives", Version: recordSchema, Settings: s.limits()}}
	for _, e := range s.engines() {
		x := e.Engine()
		info := EngineInfo{Name: x.Name, Version: x.Version, Settings: x.Settings}
		if !x.Database.IsZero() {
			info.Database = x.Database.String()
		}
		if !x.Dated.IsZero() {
			t := x.Dated.UTC().Truncate(time.Second)
			info.Dated = &t
		}
		if !slices.ContainsFunc(list, func(o EngineInfo) bool { return o.Name == info.Name }) {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b EngineInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// VerdictsSchema names the encoding of the document that [Report.Verdicts]
// makes.
const VerdictsSchema = "darkmirror.verdicts/v1"

// Verdicts is the document of a run that travels with its bundle: what was
// said of every artifact that passed, by which engine with which data. It
// has no time of its own, so that the same judgement gives the same bytes.
type Verdicts struct {
	Schema  string       `json:"schema"`
	Engines []EngineInfo `json:"engines"`
	Held    []Held       `json:"held"`
	Items   []Item       `json:"items"`
}

// Verdicts makes the document.
func (r *Report) Verdicts() ([]byte, error) {
	d := Verdicts{Schema: VerdictsSchema, Engines: r.Engines, Held: r.Held, Items: r.Items}
	return json.Marshal(d)
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
