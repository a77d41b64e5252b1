package mirror

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/scan"
)

// An Exporter is the outside half. The caller holds the run lock (the ledger)
// for its whole life.
type Exporter struct {
	Store   *store.Store
	Ledger  *ledger.Ledger
	Sources []Source
	Keep    []string // sources that stay as they were sealed last
	// Scanner judges what was fetched; nil has only what its zero value does.
	Scanner *scan.Runner
	// Documents makes further evidence of a scan, such as bills of material,
	// by file name; nil for none. The same report gives the same bytes.
	Documents func(context.Context, *scan.Report) (map[string][]byte, error)

	Stream     string
	StateDir   string // holds the store; for the look at free space
	Outbox     string
	VolumeSize int64
	Expires    time.Duration
	Signer     bundle.Signer
	Base       Base
	// Root are the files of the chain of keys, by name; every bundle brings
	// them.
	Root map[string][]byte
	// Fetches is how many files are fetched at once over all sources.
	Fetches int

	OnEvent func(artifact.Event)

	counted map[uint64]bool // what base decided; nil: not yet
	newest  uint64
}

// A Run is a plan and what has been done of it.
type Run struct {
	Plan *Plan
	// Failed are the sources and artifacts that could not be had.
	Failed []*ItemError
	Scan   *scan.Report
}

// NewRun begins a run of a plan.
func NewRun(p *Plan) *Run {
	run := &Run{Plan: p, Failed: slices.Clone(p.errs)}
	if p.errs == nil {
		for _, m := range p.Failed {
			run.Failed = append(run.Failed, m.Error())
		}
	}
	return run
}

func (e *Exporter) event(ev artifact.Event) {
	if e.OnEvent != nil {
		e.OnEvent(ev)
	}
}

func (e *Exporter) source(name string) (Source, bool) {
	for _, s := range e.Sources {
		if s.Name() == name {
			return s, true
		}
	}
	return nil, false
}

// room looks for space for so many bytes in the store and in the outbox.
func (e *Exporter) room(fetch, carry int64) (SpaceError, error) {
	if e.StateDir == e.Outbox {
		return room(map[string]int64{e.Outbox: fetch + carry})
	}
	return room(map[string]int64{e.StateDir: fetch, e.Outbox: carry})
}

// FetchStats says what a fetch did.
type FetchStats struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Fetch brings every file that the stream has not carried yet into the store,
// and checks it. Space is looked at
// before the first byte. A file that cannot be had takes its artifact out of
// the run; a file that is not what it should be takes its whole source out,
// which then keeps the state sealed before. Either is recorded in run.Failed;
// the error is what stopped the run altogether.
func (e *Exporter) Fetch(ctx context.Context, run *Run) (*FetchStats, error) {
	type job struct {
		src  Source
		item *artifact.Artifact // nil for metadata
		file artifact.File
	}
	sum, err := e.Summarize(run.Plan)
	if err != nil {
		return nil, err
	}
	if _, err := e.room(sum.FetchBytes, sum.CarryBytes); err != nil {
		return nil, err
	}
	stats := &FetchStats{}
	var jobs []job
	seen := make(map[artifact.Digest]bool)
	for i := range run.Plan.Sources {
		if run.Plan.Sources[i].Kept {
			continue // sealed before: nothing of it is new
		}
		snap := &run.Plan.Sources[i].Snapshot
		src, ok := e.source(snap.Source)
		if !ok {
			return nil, fmt.Errorf("%s is in the plan but not in the configuration", snap.Source)
		}
		add := func(a *artifact.Artifact, f artifact.File) error {
			_, carried, err := e.carried(f.Digest)
			if err != nil || carried || seen[f.Digest] {
				return err
			}
			seen[f.Digest] = true
			if !e.Store.Has(f.Digest) {
				stats.Files++
				stats.Bytes += f.Size
			}
			jobs = append(jobs, job{src, a, f})
			return nil
		}
		for _, f := range snap.Meta {
			if err := add(nil, f); err != nil {
				return nil, err
			}
		}
		for j := range snap.Artifacts {
			for _, f := range snap.Artifacts[j].Files {
				if err := add(&snap.Artifacts[j], f); err != nil {
					return nil, err
				}
			}
		}
	}
	e.event(artifact.Event{Stage: "fetch", TotalItems: stats.Files, TotalBytes: stats.Bytes})

	var mu sync.Mutex
	var failed []*ItemError // here, beside those of the plan
	gone := make(map[artifact.Digest]bool)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, e.Fetches))
	for _, j := range jobs {
		g.Go(func() error {
			had := e.Store.Has(j.file.Digest)
			if had && j.item == nil {
				return nil // metadata was verified when Resolve stored it
			}
			failpoint.Here("export.fetch-file")
			err := j.src.Fetch(gctx, j.file)
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			if err == nil {
				if !had {
					failpoint.Here("export.fetched-file")
					e.event(artifact.Event{Stage: "fetch", Source: j.src.Name(), Item: j.file.Path, Items: 1})
				}
				return nil
			}
			if stopsRun(err) {
				return err
			}
			it := &ItemError{Source: j.src.Name(), Err: fmt.Errorf("%s: %w", j.file.Path, err)}
			if j.item != nil {
				it.Artifact, it.Version = j.item.Name, j.item.Version
			}
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, it)
			gone[j.file.Digest] = true
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	failpoint.Here("export.fetched")
	failed = append(failed, alsoLost(run.Plan, failed, gone)...)
	slices.SortFunc(failed, compareItems)
	run.Failed = append(run.Failed, failed...) // behind those of the plan
	return stats, e.settle(run, failed)
}

// alsoLost are the artifacts that share a file which could not be had with the
// artifact that it was fetched for.
func alsoLost(p *Plan, failed []*ItemError, gone map[artifact.Digest]bool) []*ItemError {
	known := make(map[string]bool)
	for _, it := range failed {
		known[it.Source+" "+it.Artifact+" "+it.Version] = true
	}
	var more []*ItemError
	for i := range p.Sources {
		s := &p.Sources[i]
		if s.Kept {
			continue
		}
		for _, a := range s.Snapshot.Artifacts {
			id := s.Snapshot.Source + " " + a.Name + " " + a.Version
			at := slices.IndexFunc(a.Files, func(f artifact.File) bool { return gone[f.Digest] })
			if at >= 0 && !known[id] {
				more = append(more, &ItemError{
					Source: s.Snapshot.Source, Artifact: a.Name, Version: a.Version,
					Err: fmt.Errorf("%s: could not be had, see above", a.Files[at].Path),
				})
			}
		}
	}
	return more
}

// stopsRun tells errors of this host from errors of an item.
func stopsRun(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, context.Canceled)
}

// settle takes what could not be fetched out of the plan's snapshots. What
// failed before that is not in them.
func (e *Exporter) settle(run *Run, failed []*ItemError) error {
	for i := range run.Plan.Sources {
		s := &run.Plan.Sources[i]
		lost := make(map[string]bool)
		whole := false
		for _, it := range failed {
			if it.Source != s.Snapshot.Source || s.Kept {
				continue
			}
			if it.Artifact == "" || errors.Is(it.Err, artifact.ErrIntegrity) {
				whole = true
			}
			lost[it.Artifact+" "+it.Version] = true
		}
		switch {
		case whole:
			prev, err := e.previous(s.Snapshot.Source)
			if err != nil {
				return err
			}
			s.Kept = true
			if prev != nil {
				s.Snapshot = *prev
			} else {
				s.Snapshot.Artifacts, s.Snapshot.Meta = nil, nil
			}
		case len(lost) > 0:
			if err := e.without(s, lost); err != nil {
				return err
			}
		}
	}
	// A source that was never sealed and failed as a whole has no state yet.
	run.Plan.Sources = slices.DeleteFunc(run.Plan.Sources, func(s PlannedSource) bool {
		return s.Kept && s.Snapshot.Meta == nil && s.Snapshot.Artifacts == nil
	})
	return nil
}

// without takes lost artifacts, "NAME VERSION", out of a snapshot.
func (e *Exporter) without(s *PlannedSource, lost map[string]bool) error {
	var out, in []artifact.Artifact
	for _, a := range s.Snapshot.Artifacts {
		if lost[a.Name+" "+a.Version] {
			out = append(out, a)
		} else {
			in = append(in, a)
		}
	}
	s.Snapshot.Artifacts = in
	src, _ := e.source(s.Snapshot.Source)
	keeper, ok := src.(Keeper)
	if !ok {
		return nil
	}
	prev, err := e.previous(s.Snapshot.Source)
	if err != nil || prev == nil {
		return err
	}
	kept, err := keeper.Keep(&s.Snapshot, prev, out)
	if err == nil {
		s.Snapshot = *kept
	}
	return err
}

// Scan has the plan's artifacts judged, takes what is held back out of its
// snapshots and adds the evidence.
func (e *Exporter) Scan(ctx context.Context, run *Run, now time.Time) error {
	run.Plan.Sources = slices.DeleteFunc(run.Plan.Sources, func(s PlannedSource) bool { return s.Snapshot.Source == EvidenceSource })
	snaps := make([]*artifact.Snapshot, len(run.Plan.Sources))
	for i := range run.Plan.Sources {
		snaps[i] = &run.Plan.Sources[i].Snapshot
	}
	runner := e.Scanner
	if runner == nil {
		runner = &scan.Runner{}
	}
	runner.Open, runner.OnEvent = contentOf(e.Store), e.OnEvent
	rep, err := runner.Run(ctx, snaps, now)
	if err != nil {
		return err
	}
	failpoint.Here("export.scanned")
	run.Scan = rep
	for i := range run.Plan.Sources {
		s := &run.Plan.Sources[i]
		s.Snapshot = *rep.Strip(snaps[i])
		if src, ok := e.source(s.Snapshot.Source); ok && !s.Kept {
			if err := e.keepWaivers(src, &s.Snapshot, rep.Waived); err != nil {
				return err
			}
		}
	}
	return e.keepEvidence(ctx, run)
}

// keepWaivers puts what was waived of a source into its snapshot, for the
// sources whose publishers tell their targets.
func (e *Exporter) keepWaivers(src Source, snap *artifact.Snapshot, all []scan.Waived) error {
	if k, ok := src.(WaiverKeeper); !ok || !k.KeepsWaivers() {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(all), func(w scan.Waived) bool { return w.Source != snap.Source })
	if len(list) == 0 {
		return nil
	}
	b, err := json.Marshal(struct {
		Schema string        `json:"schema"`
		Waived []scan.Waived `json:"waived"`
	}{WaivedSchema, list})
	if err != nil {
		return err
	}
	d, err := e.Store.PutBytes(b)
	if err != nil {
		return err
	}
	meta := slices.DeleteFunc(slices.Clone(snap.Meta), func(f artifact.File) bool { return f.Path == WaivedPath })
	snap.Meta = append(meta, artifact.File{Path: WaivedPath, Digest: d, Size: int64(len(b))})
	return nil
}

// Sealed describes the bundle of a run.
type Sealed struct {
	ledger.Sealed
	Files []bundle.VolumeInfo
}

// Seal writes what the stream has not carried yet into a signed bundle and
// records it. Where nothing changed since the last bundle it returns nil,
// unless heartbeat asks for an empty one.
func (e *Exporter) Seal(ctx context.Context, run *Run, heartbeat bool) (*Sealed, error) {
	last, hasLast, err := e.Ledger.LastSealed(e.Stream)
	if err != nil {
		return nil, err
	}
	m := &bundle.Manifest{
		Stream:  e.Stream,
		Seq:     1,
		Issued:  run.Plan.Made,
		Expires: run.Plan.Made.Add(e.Expires),
	}
	if hasLast {
		m.Seq, m.Prev = last.Seq+1, last.ID.String()
	}
	if m.Base, err = e.base(); err != nil {
		return nil, err
	}
	w := &content{e: e, have: make(map[artifact.Digest]bool), requires: make(map[uint64][]artifact.Digest)}
	var states []ledger.SourceState
	for i := range run.Plan.Sources {
		ref, err := w.source(&run.Plan.Sources[i].Snapshot, last)
		if err != nil {
			return nil, err
		}
		m.Sources = append(m.Sources, *ref)
		states = append(states, ledger.SourceState{Name: ref.Name, Snapshot: ref.Snapshot})
	}
	for _, it := range slices.SortedStableFunc(slices.Values(run.Failed), compareItems) {
		m.Missing = append(m.Missing, bundle.LeftOut(MissingOf(it)))
	}
	if run.Scan != nil {
		for _, h := range run.Scan.Held {
			m.Held = append(m.Held, bundle.LeftOut{Source: h.Source, Artifact: h.Name, Version: h.Version, Code: h.Code, Reason: h.Reason})
		}
		if m.Scanners, err = scannersOf(run.Scan); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(m.Sources, func(s bundle.SourceRef) bool { return s.Name != EvidenceSource }) {
		return nil, nil
	}
	w.finish(m)
	// A blob to carry in an unchanged state means that no bundle that counts
	// has carried it: the one that had was lost, or this one is to stand alone.
	if hasLast && slices.Equal(states, last.Sources) && !heartbeat && !e.Base.Full {
		due, err := w.owed(m)
		if err != nil || !due {
			return nil, err
		}
	}
	if _, err := e.room(0, w.bytes); err != nil {
		return nil, err
	}
	e.event(artifact.Event{Stage: "seal", TotalBytes: w.bytes, TotalItems: len(m.Blobs)})
	failpoint.Here("export.seal")
	out, err := bundle.Seal(ctx, e.Outbox, m, e.Store.Open, e.Signer, bundle.SealOptions{VolumeSize: e.VolumeSize, Root: e.Root, OnEvent: e.OnEvent})
	if err != nil {
		return nil, fmt.Errorf("seal bundle %06d: %w", m.Seq, err)
	}
	failpoint.Here("export.sealed")
	rec := record(m, out.ID, out.Dir, volumeBytes(out.Volumes), len(out.Volumes))
	if err := e.Ledger.RecordSealed(rec, digests(m)); err != nil {
		return nil, err
	}
	e.counted = nil // there is one more
	failpoint.Here("export.recorded")
	return &Sealed{Sealed: rec, Files: out.Volumes}, nil
}

// content gathers what goes into a bundle and what it builds on.
type content struct {
	e        *Exporter
	have     map[artifact.Digest]bool
	snaps    []bundle.Blob
	blobs    []bundle.Blob
	requires map[uint64][]artifact.Digest
	bytes    int64
}

// source adds one source: its snapshot as a blob, and its files. The snapshot
// and the documents that darkmirror made itself change little from bundle to
// bundle, so they are carried as changes of what the stream carried last.
func (w *content) source(snap *artifact.Snapshot, last ledger.Sealed) (*bundle.SourceRef, error) {
	b, err := snap.Encode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", snap.Source, err)
	}
	d, err := w.e.Store.PutBytes(b)
	if err != nil {
		return nil, err
	}
	var before artifact.Digest
	for _, s := range last.Sources {
		if s.Name == snap.Source {
			before = s.Snapshot
		}
	}
	prev, err := w.e.previous(snap.Source)
	if err != nil {
		return nil, err
	}
	if snap.Source == EvidenceSource {
		// Its documents change with every bundle. As changes of the last ones
		// they would make each bundle need the one before.
		prev, before = nil, artifact.Digest{}
	}
	ref := &bundle.SourceRef{Name: snap.Source, Snapshot: d, Artifacts: int64(len(snap.Artifacts))}
	if err := w.add(d, int64(len(b)), &w.snaps, before); err != nil {
		return nil, err
	}
	for f := range snap.Files {
		ref.Files++
		ref.Bytes += f.Size
		var dict artifact.Digest
		if prev != nil && f.URL == "" {
			if old, ok := prev.MetaFile(f.Path); ok && old.Size <= bundle.MaxDict {
				dict = old.Digest
			}
		}
		if err := w.add(f.Digest, f.Size, &w.blobs, dict); err != nil {
			return nil, err
		}
	}
	return ref, nil
}

// add lists a blob as carried here, as a change of dict where the stream has
// carried that, unless an earlier bundle has carried the blob itself.
func (w *content) add(d artifact.Digest, size int64, list *[]bundle.Blob, dict artifact.Digest) error {
	if w.have[d] {
		return nil
	}
	w.have[d] = true
	seq, ok, err := w.e.carried(d)
	if err != nil {
		return err
	}
	if ok {
		// Only snapshots are required by name: each names its files itself.
		if list == &w.snaps {
			w.require(seq, d)
		}
		return nil
	}
	b := bundle.Blob{Digest: d, Size: size}
	if !dict.IsZero() && size >= bundle.MinDict && size <= bundle.MaxDict && w.e.Store.Has(dict) {
		seq, ok, err := w.e.carried(dict)
		if err != nil {
			return err
		}
		if ok {
			b.Dict = dict.String()
			w.require(seq, dict)
		}
	}
	*list = append(*list, b)
	w.bytes += size
	return nil
}

// owed reports whether a bundle must carry again what a lost one had. What
// merely is not confirmed yet waits for the next change.
func (w *content) owed(m *bundle.Manifest) (bool, error) {
	for _, b := range m.Blobs {
		if _, ok, err := w.e.Ledger.Carried(w.e.Stream, b.Digest); err != nil || !ok {
			return err == nil, err
		}
	}
	return false, nil
}

func (w *content) require(seq uint64, d artifact.Digest) {
	if !slices.Contains(w.requires[seq], d) {
		w.requires[seq] = append(w.requires[seq], d)
	}
}

func (w *content) finish(m *bundle.Manifest) {
	byDigest := func(a, b bundle.Blob) int { return slices.Compare(a.Digest[:], b.Digest[:]) }
	slices.SortFunc(w.snaps, byDigest)
	slices.SortFunc(w.blobs, byDigest)
	m.Blobs = append(w.snaps, w.blobs...)
	for seq, ds := range w.requires {
		slices.SortFunc(ds, func(a, b artifact.Digest) int { return slices.Compare(a[:], b[:]) })
		m.Requires = append(m.Requires, bundle.Require{Seq: seq, Blobs: ds})
	}
	slices.SortFunc(m.Requires, func(a, b bundle.Require) int { return cmp.Compare(a.Seq, b.Seq) })
	slices.SortFunc(m.Sources, func(a, b bundle.SourceRef) int { return strings.Compare(a.Name, b.Name) })
}

func digests(m *bundle.Manifest) []artifact.Digest {
	ds := make([]artifact.Digest, len(m.Blobs))
	for i, b := range m.Blobs {
		ds[i] = b.Digest
	}
	return ds
}

func record(m *bundle.Manifest, id artifact.Digest, dir string, bytes int64, volumes int) ledger.Sealed {
	rec := ledger.Sealed{
		Stream: m.Stream, Seq: m.Seq, ID: id, Base: m.Base, Issued: m.Issued, Expires: m.Expires,
		Bytes: bytes, Blobs: len(m.Blobs), Volumes: volumes, Dir: dir,
		Held: len(m.Held), Missing: len(m.Missing), State: "sealed",
	}
	if m.Prev != "" {
		if d, err := artifact.ParseDigest(m.Prev); err == nil {
			rec.Prev = d
		}
	}
	for _, b := range m.Blobs {
		rec.PayloadBytes += b.Size
	}
	for _, s := range m.Sources {
		rec.Sources = append(rec.Sources, ledger.SourceState{Name: s.Name, Snapshot: s.Snapshot})
	}
	return rec
}

// Sweep removes the temporary files of killed runs from the store, and keeps
// downloads that can be resumed. The caller holds the run lock.
func (e *Exporter) Sweep() error {
	if err := e.Store.Sweep(func(artifact.Digest) bool { return true }); err != nil {
		return err
	}
	// Outside nobody pushes: an upload is a blob that a killed run was taking
	// in, and cannot be gone on with.
	return e.Store.SweepUploads(0, time.Now())
}

// Recover finishes what a killed run left behind: it sweeps temporary files,
// keeping downloads that can be resumed, and adopts bundles that were sealed
// but not recorded, since their files may already be on their way. It returns
// the numbers of those. The caller holds the run lock.
func (e *Exporter) Recover(trust bundle.Trust) ([]uint64, error) {
	if err := e.Sweep(); err != nil {
		return nil, err
	}
	if err := sweepOutbox(e.Outbox); err != nil {
		return nil, err
	}
	found, err := bundle.Find(e.Outbox)
	if err != nil {
		return nil, err
	}
	var adopted []uint64
	for _, c := range found {
		last, _, err := e.Ledger.LastSealed(e.Stream)
		if err != nil {
			return adopted, err
		}
		if c.Stream != e.Stream || c.Seq <= last.Seq {
			continue
		}
		if err := e.adopt(c, trust, last); err != nil {
			return adopted, err
		}
		adopted = append(adopted, c.Seq)
	}
	return adopted, nil
}

// adopt records one bundle of the outbox that follows last.
func (e *Exporter) adopt(c bundle.Candidate, trust bundle.Trust, last ledger.Sealed) (err error) {
	r, err := bundle.Open(c.Dirs...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	m, rep, err := r.Verify(trust)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Dirs[0], err)
	}
	prev := ""
	if last.Seq > 0 {
		prev = last.ID.String()
	}
	if m.Prev != prev || m.Seq != last.Seq+1 {
		return &artifact.Refusal{
			Class: artifact.ErrSequence, Code: "ERR_FORK", Subject: c.Dirs[0],
			Reason: "a bundle in the outbox does not follow the ledger",
			Want:   fmt.Sprintf("%06d after %q", last.Seq+1, prev), Got: fmt.Sprintf("%06d after %q", m.Seq, m.Prev),
		}
	}
	vols, err := r.Volumes()
	if err != nil {
		return err
	}
	var size int64
	for _, v := range vols {
		size += v.Size
	}
	if err := e.Ledger.RecordSealed(record(m, rep.ID, c.Dirs[0], size, len(vols)), digests(m)); err != nil {
		return err
	}
	failpoint.Here("export.adopted")
	return nil
}

// loadSnapshot reads a snapshot blob.
func loadSnapshot(st *store.Store, d artifact.Digest) (*artifact.Snapshot, error) {
	b, err := st.ReadAll(d, artifact.MaxSnapshot)
	if err != nil {
		return nil, fmt.Errorf("read snapshot %s: %w", d.Short(), err)
	}
	return artifact.DecodeSnapshot(b)
}

var _ func(artifact.Digest) (io.ReadCloser, error) = (*store.Store)(nil).Open

// volumeBytes is what a bundle's volumes hold in all.
func volumeBytes(vols []bundle.VolumeInfo) (n int64) {
	for _, v := range vols {
		n += v.Size
	}
	return n
}
