package mirror

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// PlanSchema names the encoding of a [Plan].
const PlanSchema = "darkmirror.plan/v1"

// maxPlan bounds a plan file: a few snapshots.
const maxPlan = 2 * artifact.MaxSnapshot

// A Plan is what a run would carry, every digest fixed. Made is the only
// clock reading that enters a bundle, so that the same plan, base and key
// give the same bytes.
type Plan struct {
	Schema  string          `json:"schema"`
	Stream  string          `json:"stream"`
	Made    time.Time       `json:"made"`
	Sources []PlannedSource `json:"sources"`
	// Failed lists the sources that could not be resolved.
	Failed []Missing `json:"failed"`

	errs []*ItemError // of Failed, in this process only
}

// A PlannedSource is one source of a plan.
type PlannedSource struct {
	Snapshot artifact.Snapshot `json:"snapshot"`
	Notes    []string          `json:"notes"`
	// Kept says that the source could not be resolved and that the snapshot
	// is the one sealed before.
	Kept bool `json:"kept"`
}

// Missing names something that a run could not have, and why.
type Missing struct {
	Source   string `json:"source"`
	Artifact string `json:"artifact"` // empty: the whole source
	Version  string `json:"version"`
	Code     string `json:"code"`
	Reason   string `json:"reason"`
}

// MissingOf describes an item's error for a manifest or a report.
func MissingOf(e *ItemError) Missing {
	return Missing{Source: e.Source, Artifact: e.Artifact, Version: e.Version, Code: code(e.Err), Reason: strings.TrimPrefix(firstLine(e.Err.Error()), e.Source+": ")}
}

// Error is the inverse of [MissingOf], as far as the text goes: the class of
// the error is not kept.
func (m Missing) Error() *ItemError {
	return &ItemError{Source: m.Source, Artifact: m.Artifact, Version: m.Version, Err: errors.New(m.Reason)}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// Encode returns the plan file.
func (p *Plan) Encode() ([]byte, error) { return json.MarshalIndent(p, "", " ") }

// DecodePlan reads a plan file strictly.
func DecodePlan(b []byte) (*Plan, error) {
	if len(b) > maxPlan {
		return nil, fmt.Errorf("plan has %d bytes, at most %d are read", len(b), maxPlan)
	}
	var p Plan
	if err := strictjson.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	if p.Schema != PlanSchema {
		return nil, fmt.Errorf("plan has schema %q, want %q", p.Schema, PlanSchema)
	}
	for i := range p.Sources {
		if err := p.Sources[i].Snapshot.Check(); err != nil {
			return nil, fmt.Errorf("plan, source %d: %w", i, err)
		}
	}
	return &p, nil
}

// Plan resolves every source. A source that fails keeps the snapshot that was
// sealed before, where there is one, and is listed under Failed; so is each
// artifact that a source could not have beside the others. The error is a
// *PartialError where something failed, or what stopped the run; the plan is
// whole in the first case.
func (e *Exporter) Plan(ctx context.Context, now time.Time) (*Plan, error) {
	p := &Plan{Schema: PlanSchema, Stream: e.Stream, Made: now.UTC().Truncate(time.Second), Sources: []PlannedSource{}, Failed: []Missing{}}
	e.event(artifact.Event{Stage: "resolve", TotalItems: len(e.Sources)})
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(resolveLimit)
	for _, src := range e.Sources {
		g.Go(func() error {
			prev, err := e.previous(src.Name())
			if err != nil {
				return err
			}
			snap, notes, err := src.Resolve(gctx, prev)
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			mu.Lock()
			defer mu.Unlock()
			e.event(artifact.Event{Stage: "resolve", Source: src.Name(), Items: 1})
			part, items := errors.AsType[*artifact.Incomplete](err)
			switch {
			case err == nil:
			case items:
				p.errs = append(p.errs, itemsOf(src.Name(), part)...)
			default:
				p.errs = append(p.errs, &ItemError{Source: src.Name(), Err: err})
			}
			if err == nil || items && snap != nil {
				p.Sources = append(p.Sources, PlannedSource{Snapshot: *snap, Notes: notes})
				return nil
			}
			if prev != nil {
				p.Sources = append(p.Sources, PlannedSource{Snapshot: *prev, Notes: []string{"not resolved; kept as sealed before"}, Kept: true})
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, name := range e.Keep {
		prev, err := e.previous(name)
		if err != nil {
			return nil, err
		}
		if prev != nil {
			p.Sources = append(p.Sources, PlannedSource{Snapshot: *prev, Notes: []string{"not asked for; kept as sealed before"}, Kept: true})
		}
	}
	slices.SortFunc(p.Sources, func(a, b PlannedSource) int { return cmp.Compare(a.Snapshot.Source, b.Snapshot.Source) })
	slices.SortFunc(p.errs, compareItems)
	for i := range p.Sources {
		s := &p.Sources[i]
		s.Snapshot.Schema = artifact.SnapshotSchema
		if s.Notes == nil {
			s.Notes = []string{}
		}
		if err := s.Snapshot.Check(); err != nil {
			return nil, fmt.Errorf("%s: the source made a snapshot that cannot be used: %w", s.Snapshot.Source, err)
		}
	}
	if len(p.errs) == 0 {
		return p, nil
	}
	for _, it := range p.errs {
		p.Failed = append(p.Failed, MissingOf(it))
	}
	return p, &PartialError{Items: p.errs, Total: len(e.Sources)}
}

// itemsOf spreads what a source or a target could not do over its artifacts.
func itemsOf(source string, part *artifact.Incomplete) []*ItemError {
	items := make([]*ItemError, len(part.Items))
	for i, l := range part.Items {
		items[i] = &ItemError{Source: source, Artifact: l.Name, Version: l.Version, Err: l.Err}
	}
	return items
}

func compareItems(a, b *ItemError) int {
	return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Artifact, b.Artifact), strings.Compare(a.Version, b.Version))
}

// resolveLimit is how many sources are resolved at once. Each holds its
// parsed indexes in memory: one at a time keeps a bastion of 4 GiB flat.
const resolveLimit = 1

// previous is the snapshot of a source that was sealed last, or nil.
func (e *Exporter) previous(source string) (*artifact.Snapshot, error) {
	last, ok, err := e.Ledger.LastSealed(e.Stream)
	if err != nil || !ok {
		return nil, err
	}
	for _, s := range last.Sources {
		if s.Name == source {
			return loadSnapshot(e.Store, s.Snapshot)
		}
	}
	return nil, nil
}

// A SourceChange is how a planned source differs from what was sealed last.
type SourceChange struct {
	Source     string   `json:"source"`
	New        int      `json:"new"`
	Changed    int      `json:"changed"`
	Gone       int      `json:"gone"`
	FetchFiles int      `json:"fetch_files"`
	FetchBytes int64    `json:"fetch_bytes"`
	Notes      []string `json:"notes"`
}

// A PlanSummary is what a person wants to know of a plan before it is run.
type PlanSummary struct {
	Sources []SourceChange `json:"sources"`
	// FetchBytes come from upstream, CarryBytes would go into a bundle.
	FetchBytes int64 `json:"fetch_bytes"`
	CarryBytes int64 `json:"carry_bytes"`
	// DiskBytes is the room that the run needs, FreeBytes what there is in
	// the fuller of the store's and the outbox's file systems.
	DiskBytes int64 `json:"disk_bytes"`
	FreeBytes int64 `json:"free_bytes"`
	Changes   bool  `json:"changes"`
}

// Summarize compares a plan with the store and with what was sealed last.
func (e *Exporter) Summarize(p *Plan) (*PlanSummary, error) {
	sum := &PlanSummary{Sources: []SourceChange{}}
	seen := make(map[artifact.Digest]bool)
	for i := range p.Sources {
		s := &p.Sources[i]
		prev, err := e.previous(s.Snapshot.Source)
		if err != nil {
			return nil, err
		}
		c := SourceChange{Source: s.Snapshot.Source, Notes: s.Notes}
		d := Compare(prev, &s.Snapshot)
		c.New, c.Changed, c.Gone = len(d.New), len(d.Changed), len(d.Gone)
		sum.Changes = sum.Changes || d.Any()
		for f := range s.Snapshot.Files {
			_, carried, err := e.carried(f.Digest)
			if err != nil {
				return nil, err
			}
			if carried || seen[f.Digest] {
				continue
			}
			seen[f.Digest] = true
			sum.CarryBytes += f.Size
			if !e.Store.Has(f.Digest) {
				c.FetchFiles++
				c.FetchBytes += f.Size
			}
		}
		sum.FetchBytes += c.FetchBytes
		sum.Sources = append(sum.Sources, c)
	}
	need, err := e.room(sum.FetchBytes, sum.CarryBytes)
	if err != nil && !errors.As(err, new(*SpaceError)) {
		return nil, err
	}
	sum.DiskBytes, sum.FreeBytes = need.Needed, need.Free
	return sum, nil
}

// A Difference lists artifacts as "name version".
type Difference struct {
	New     []string `json:"new"`
	Changed []string `json:"changed"`
	Gone    []string `json:"gone"`
	// Meta says that upstream's proof or an index document changed.
	Meta bool `json:"meta"`
}

// Any reports whether there is any difference.
func (d *Difference) Any() bool { return len(d.New)+len(d.Changed)+len(d.Gone) > 0 || d.Meta }

// Compare tells how two snapshots of one source differ; either may be nil.
// An artifact whose version is new counts as changed when another version of
// the name was there, and as new otherwise.
func Compare(before, after *artifact.Snapshot) *Difference {
	d := &Difference{New: []string{}, Changed: []string{}, Gone: []string{}}
	type state struct{ files map[string]artifact.Digest }
	index := func(s *artifact.Snapshot) (map[string]state, map[string]int) {
		m, names := make(map[string]state), make(map[string]int)
		if s == nil {
			return m, names
		}
		for _, a := range s.Artifacts {
			st := state{files: make(map[string]artifact.Digest)}
			for _, f := range a.Files {
				st.files[f.Path] = f.Digest
			}
			m[a.Name+" "+a.Version] = st
			names[a.Name]++
		}
		return m, names
	}
	old, oldNames := index(before)
	cur, curNames := index(after)
	for id, st := range cur {
		name, _, _ := strings.Cut(id, " ")
		o, ok := old[id]
		switch {
		case ok && equalFiles(o.files, st.files):
		case ok || oldNames[name] > 0:
			d.Changed = append(d.Changed, id)
		default:
			d.New = append(d.New, id)
		}
	}
	for id := range old {
		name, _, _ := strings.Cut(id, " ")
		if _, ok := cur[id]; !ok && curNames[name] == 0 {
			d.Gone = append(d.Gone, id)
		}
	}
	slices.Sort(d.New)
	slices.Sort(d.Changed)
	slices.Sort(d.Gone)
	d.Meta = !equalFiles(metaOf(before), metaOf(after))
	return d
}

func metaOf(s *artifact.Snapshot) map[string]artifact.Digest {
	m := make(map[string]artifact.Digest)
	if s != nil {
		for _, f := range s.Meta {
			m[f.Path] = f.Digest
		}
	}
	return m
}

func equalFiles(a, b map[string]artifact.Digest) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}
