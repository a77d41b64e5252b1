package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/scan"
)

// An Importer is the inside half. The caller holds the run lock (the ledger)
// for its whole life. It only reads from the inboxes, which may be read-only
// mounts.
type Importer struct {
	Store      *store.Store
	Ledger     *ledger.Ledger
	Publishers []Publisher
	Trust      bundle.Trust
	// TrustOf, if set, decides instead of Trust, from the chain of keys that
	// the bundle brings.
	TrustOf func(*bundle.Reader) (bundle.Trust, error)
	// Decrypter reads encrypted bundles; nil for none.
	Decrypter bundle.Decrypter
	Inboxes   []string
	StateDir  string
	AcceptGap bool
	// Scanner judges again what was judged outside, when Rescan says so; nil
	// for never.
	Scanner *scan.Runner
	Rescan  string

	OnEvent func(artifact.Event)
}

// An Outcome is what became of one bundle.
type Outcome struct {
	Name       string // folder name
	Stream     string
	Seq        uint64
	ID         artifact.Digest
	SignedBy   []string // exporters
	ApprovedBy []string
	Verdict    bundle.Verdict
	Volumes    int
	Healed     int              // blobs of an imported bundle that were missing
	Missing    []bundle.LeftOut // what the manifest says was left out outside
	Rescan     *scan.Report     // of the scan inside; nil where there was none
	Published  []Published
	Failed     []*ItemError
	Err        error

	genuine bool // its signature is good and it is not older than the ledger
}

// Published is what became of one source.
type Published struct {
	Source string
	Text   string
}

// verifyEnvelope verifies with the keys that are trusted for this bundle.
func (i *Importer) verifyEnvelope(r *bundle.Reader) (*bundle.Manifest, *bundle.Report, error) {
	t := i.Trust
	if i.TrustOf != nil {
		var err error
		if t, err = i.TrustOf(r); err != nil {
			return nil, nil, err
		}
	}
	return r.Verify(t)
}

// open opens a bundle, with what decrypts it.
func (i *Importer) open(c bundle.Candidate) (*bundle.Reader, error) {
	r, err := bundle.Open(c.Dirs...)
	if err == nil && i.Decrypter != nil {
		r.UseDecrypter(i.Decrypter)
	}
	return r, err
}

func (i *Importer) event(ev artifact.Event) {
	if i.OnEvent != nil {
		i.OnEvent(ev)
	}
}

// Import takes the named bundles, or sweeps the inboxes for all of them, in
// order of stream and sequence. A genuine bundle that cannot be imported stops
// its stream and no other: the next ones build on it. A folder that is not
// genuine stops nothing. It calls report for each bundle when it is done with
// it; the returned error joins those of the outcomes.
func (i *Importer) Import(ctx context.Context, named []bundle.Candidate, now time.Time, dryRun bool, report func(*Outcome)) error {
	found := named
	if len(found) == 0 {
		var err error
		if found, err = bundle.Find(i.Inboxes...); err != nil {
			return err
		}
	}
	slices.SortStableFunc(found, func(a, b bundle.Candidate) int {
		return cmp.Or(strings.Compare(a.Stream, b.Stream), cmp.Compare(a.Seq, b.Seq))
	})
	var errs []error
	stopped := make(map[string]bool)
	for _, c := range found {
		if stopped[c.Stream] {
			continue
		}
		out := &Outcome{Name: c.Name, Stream: c.Stream, Seq: c.Seq}
		out.Err = i.one(ctx, c, out, now, len(named) == 0, dryRun)
		report(out)
		if out.Err != nil {
			errs = append(errs, out.Err)
			// What the scan here holds back is left out of what is published;
			// the bundle is imported all the same.
			stopped[c.Stream] = out.genuine && !isA[*scan.BlockedError](out.Err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// one takes one bundle through verification, staging and publication.
func (i *Importer) one(ctx context.Context, c bundle.Candidate, out *Outcome, now time.Time, swept, dryRun bool) (err error) {
	r, err := i.open(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	m, rep, err := i.verifyEnvelope(r)
	if err != nil {
		return err
	}
	failpoint.Here("import.verified")
	out.Stream, out.Seq, out.ID, out.SignedBy, out.ApprovedBy, out.Missing = m.Stream, m.Seq, rep.ID, rep.SignedBy, rep.ApprovedBy, append(m.Held, m.Missing...)
	state, err := i.state(m.Stream)
	if err != nil {
		return err
	}
	out.Verdict, err = bundle.CheckSequence(m, rep.ID, state, now, bundle.SequencePolicy{AcceptGap: i.AcceptGap, Swept: swept})
	out.genuine = m.Seq > state.Last
	if err != nil {
		return err
	}
	if out.Verdict != bundle.Import {
		return i.heal(ctx, r, m, out, dryRun)
	}
	if err := bundle.CheckRequires(m, i.Store.Has); err != nil {
		return err
	}
	var need int64
	for _, b := range m.Blobs {
		if !i.Store.Has(b.Digest) {
			need += b.Size
		}
	}
	if _, err := room(map[string]int64{i.StateDir: need}); err != nil {
		return err
	}
	out.Volumes, err = i.volumes(r)
	if dryRun {
		return err
	}
	r.UseDictionaries(i.Store.ReadAll)
	if err := i.complete(ctx, r, m); err != nil {
		return err
	}
	if err := i.announce(ctx, m); err != nil {
		return err
	}
	// What arrived is staged even when a volume is missing: the next run
	// then needs that volume only.
	if err := errors.Join(err, newVolumes(err, i.stage(ctx, r, m, need))); err != nil {
		return err
	}
	failpoint.Here("import.staged")
	snaps, err := i.snapshots(m)
	if err != nil {
		return err
	}
	if err := i.verify(ctx, snaps); err != nil {
		return err
	}
	failpoint.Here("import.proved")
	data, rest := dataFirst(snaps)
	dataErr := i.publish(ctx, m, data, out, now)
	if dataErr != nil && !isA[*PartialError](dataErr) {
		return dataErr
	}
	if rest, out.Rescan, err = i.rescan(ctx, m, rest, now); err != nil {
		return errors.Join(dataErr, err)
	}
	if err := i.publish(ctx, m, rest, out, now); err != nil {
		return err
	}
	failpoint.Here("import.published")
	rec := ledger.Imported{Stream: m.Stream, Seq: m.Seq, ID: rep.ID, Issued: m.Issued, Expires: m.Expires, Time: now.UTC().Truncate(time.Second), SignedBy: rep.SignedBy, ApprovedBy: rep.ApprovedBy, Missing: len(m.Missing) + len(m.Held)}
	for _, s := range m.Sources {
		rec.Sources = append(rec.Sources, ledger.SourceState{Name: s.Name, Snapshot: s.Snapshot})
	}
	if out.Rescan != nil {
		rec.Missing += len(out.Rescan.Held)
	}
	if err := i.Ledger.RecordImported(rec); err != nil {
		return err
	}
	failpoint.Here("import.recorded")
	if out.Rescan != nil {
		return out.Rescan.Err()
	}
	return nil
}

// heal brings back blobs of an imported bundle that the store has lost, to
// quarantine say. They are named by signed digests, so nothing can be slipped
// in that was not imported once.
func (i *Importer) heal(ctx context.Context, r *bundle.Reader, m *bundle.Manifest, out *Outcome, dryRun bool) error {
	r.UseDictionaries(i.Store.ReadAll)
	for _, b := range m.Blobs {
		if i.Store.Has(b.Digest) || dryRun {
			continue
		}
		if err := i.stageOne(ctx, r, b); err != nil {
			return err
		}
		out.Healed++
	}
	return nil
}

// state is what the sequence rules need to know of a stream.
func (i *Importer) state(stream string) (bundle.StreamState, error) {
	var st bundle.StreamState
	last, ok, err := i.Ledger.LastImported(stream)
	if err != nil {
		return st, err
	}
	if ok {
		st.Last, st.LastID = last.Seq, last.ID
	}
	if st.Floor, err = i.Ledger.Floor(); err != nil {
		return st, err
	}
	st.Imported = func(seq uint64) (artifact.Digest, bool) {
		rec, ok, err := i.Ledger.Imported(stream, seq)
		return rec.ID, ok && err == nil
	}
	return st, nil
}

// volumes counts the volumes and refuses, all at once, those that are
// missing or cannot be right.
func (i *Importer) volumes(r *bundle.Reader) (int, error) {
	vols, err := r.Volumes()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, v := range vols {
		if err := v.Err(len(vols)); err != nil {
			errs = append(errs, err)
		}
	}
	return len(vols), errors.Join(errs...)
}

// complete looks, before any package file is copied, whether every file of the
// bundle's snapshots is in it or inside. The snapshots come first in the
// volumes and are staged for that; a volume that is missing is not yet its
// business.
func (i *Importer) complete(ctx context.Context, r *bundle.Reader, m *bundle.Manifest) error {
	carried := make(map[artifact.Digest]bool, len(m.Blobs))
	for _, b := range m.Blobs {
		carried[b.Digest] = true
	}
	var missing []string
	n := 0
	for _, ref := range m.Sources {
		if !i.Store.Has(ref.Snapshot) {
			at := slices.IndexFunc(m.Blobs, func(b bundle.Blob) bool { return b.Digest == ref.Snapshot })
			if err := i.stageOne(ctx, r, m.Blobs[at]); err != nil {
				if isA[*bundle.VolumeError](err) {
					continue
				}
				return err
			}
			failpoint.Here("import.staged-snapshot")
		}
		snap, err := loadSnapshot(i.Store, ref.Snapshot)
		if err != nil {
			return err
		}
		for f := range snap.Files {
			if carried[f.Digest] || i.Store.Has(f.Digest) {
				continue
			}
			if n++; n <= maxListed {
				missing = append(missing, f.Digest.String()+" "+f.Path)
			}
		}
	}
	if n == 0 {
		return nil
	}
	if more := n - maxListed; more > 0 {
		missing = append(missing, fmt.Sprintf("and %d more", more))
	}
	return &artifact.Refusal{
		Class: artifact.ErrSequence, Code: bundle.CodeRequires, Subject: m.String(),
		Reason: fmt.Sprintf("%d of the files that its snapshots name are neither in it nor inside; not imported: %s", n, i.absent(m)),
		Err:    errors.New(strings.Join(missing, ", ")),
	}
}

// announce lets publishers say what is on its way.
func (i *Importer) announce(ctx context.Context, m *bundle.Manifest) error {
	for _, ref := range m.Sources {
		pub, ok := i.publisher(ref.Name)
		if !ok || !i.Store.Has(ref.Snapshot) {
			continue
		}
		a, ok := pub.(Announcer)
		if !ok {
			continue
		}
		if _, now, err := i.published(ref.Name); err != nil || now == ref.Snapshot {
			if err != nil {
				return err
			}
			continue
		}
		snap, err := loadSnapshot(i.Store, ref.Snapshot)
		if err != nil {
			return err
		}
		if err := a.Announce(ctx, snap); err != nil {
			return err
		}
		failpoint.Here("import.announced")
	}
	return nil
}

// maxListed bounds the files in the text of a refusal.
const maxListed = 50

// absent names the bundles before m that were never imported.
func (i *Importer) absent(m *bundle.Manifest) string {
	var list []string
	for seq := m.Seq - 1; seq > 0 && len(list) < 10; seq-- {
		if _, ok, err := i.Ledger.Imported(m.Stream, seq); err == nil && !ok {
			list = append(list, fmt.Sprintf("%06d", seq))
		}
	}
	if len(list) == 0 {
		return "none; the store has lost them"
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// newVolumes drops refusals of volumes that known names already.
func newVolumes(known, err error) error {
	seen := make(map[string]bool)
	var keep []error
	for n, list := range [][]error{joined(known), joined(err)} {
		for _, e := range list {
			v, ok := errors.AsType[*bundle.VolumeError](e)
			if ok {
				key := v.Name + v.Refusal.Code
				if v.Refusal.Code == bundle.CodeVolume && seen[key] {
					continue
				}
				seen[key] = true
				e = v
			}
			if n == 1 {
				keep = append(keep, e)
			}
		}
	}
	return errors.Join(keep...)
}

func joined(err error) []error {
	if m, ok := err.(interface{ Unwrap() []error }); ok {
		return m.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// stage copies every blob that the store lacks, in volume order.
func (i *Importer) stage(ctx context.Context, r *bundle.Reader, m *bundle.Manifest, need int64) error {
	i.event(artifact.Event{Stage: "stage", TotalBytes: need, TotalItems: len(m.Blobs)})
	var errs []error
	for _, b := range m.Blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if i.Store.Has(b.Digest) {
			i.event(artifact.Event{Stage: "stage", Items: 1})
			continue
		}
		failpoint.Here("import.stage-blob")
		if err := i.stageOne(ctx, r, b); err != nil {
			if stopsRun(err) {
				return err
			}
			errs = append(errs, err)
			continue
		}
		i.event(artifact.Event{Stage: "stage", Items: 1, Bytes: b.Size})
	}
	return errors.Join(errs...)
}

func (i *Importer) stageOne(ctx context.Context, r *bundle.Reader, b bundle.Blob) (err error) {
	src, err := r.Blob(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return i.Store.Put(ctx, src, b.Digest, b.Size)
}

// snapshots reads the snapshots that the manifest names and checks that they
// agree with it and that every blob of theirs is inside.
func (i *Importer) snapshots(m *bundle.Manifest) ([]*artifact.Snapshot, error) {
	var snaps []*artifact.Snapshot
	for _, ref := range m.Sources {
		snap, err := loadSnapshot(i.Store, ref.Snapshot)
		if err != nil {
			return nil, err
		}
		refuse := func(reason, want, got string) error {
			return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "ERR_SNAPSHOT", Subject: fmt.Sprintf("bundle %06d, %s", m.Seq, ref.Name), Reason: reason, Want: want, Got: got}
		}
		if snap.Source != ref.Name {
			return nil, refuse("the snapshot is of another source", ref.Name, snap.Source)
		}
		var files, bytes int64
		for f := range snap.Files {
			files++
			bytes += f.Size
			size, err := i.Store.Size(f.Digest)
			if err != nil {
				return nil, refuse("a file of the snapshot is neither in the bundle nor inside", f.Path+" "+f.Digest.String(), "")
			}
			if size != f.Size {
				return nil, refuse("a file has another size than its blob: "+f.Path, fmt.Sprint(f.Size), fmt.Sprint(size))
			}
		}
		if files != ref.Files || bytes != ref.Bytes || int64(len(snap.Artifacts)) != ref.Artifacts {
			return nil, refuse("the snapshot's counts differ from the manifest's", fmt.Sprintf("%d artifacts, %d files, %d bytes", ref.Artifacts, ref.Files, ref.Bytes), fmt.Sprintf("%d, %d, %d", len(snap.Artifacts), files, bytes))
		}
		snaps = append(snaps, snap)
	}
	return snaps, nil
}

func (i *Importer) publisher(source string) (Publisher, bool) {
	for _, p := range i.Publishers {
		if p.Name() == source {
			return p, true
		}
	}
	return nil, false
}

// published is the snapshot of a source that clients see now, or nil.
func (i *Importer) published(source string) (*artifact.Snapshot, artifact.Digest, error) {
	rec, ok, err := i.Ledger.PublishedSnapshot(source)
	if err != nil || !ok {
		return nil, artifact.Digest{}, err
	}
	snap, err := loadSnapshot(i.Store, rec.Snapshot)
	return snap, rec.Snapshot, err
}

// verify lets each publisher check upstream's own proof of every source that
// is published here, before any of them is published.
func (i *Importer) verify(ctx context.Context, snaps []*artifact.Snapshot) error {
	i.event(artifact.Event{Stage: "verify", TotalItems: len(snaps)})
	var errs []error
	taken := make(map[string]string) // by place in a target
	for _, snap := range snaps {
		p, ok := i.publisher(snap.Source)
		if !ok {
			continue
		}
		prev, _, err := i.published(snap.Source)
		if err != nil {
			return err
		}
		if err := p.Verify(ctx, snap, prev); err != nil {
			errs = append(errs, fmt.Errorf("%s: upstream's proof: %w", snap.Source, err))
		}
		if c, ok := p.(Claimer); ok {
			errs = append(errs, clashes(c, snap, taken))
		}
		i.event(artifact.Event{Stage: "verify", Source: snap.Source, Items: 1})
	}
	return errors.Join(errs...)
}

// clashes compares a source's places in its target with those of the sources
// before it.
func clashes(c Claimer, snap *artifact.Snapshot, taken map[string]string) error {
	var errs []error
	claims := c.Claims(snap)
	for _, place := range slices.Sorted(maps.Keys(claims)) {
		if other, ok := taken[place]; ok {
			errs = append(errs, c.Clash(place, other, claims[place]))
			continue
		}
		taken[place] = claims[place]
	}
	return errors.Join(errs...)
}

// publish hands every source to its publisher. A target that fails does not
// keep the others from being published; the bundle then counts as not
// imported, and a rerun finds the finished ones done.
func (i *Importer) publish(ctx context.Context, m *bundle.Manifest, snaps []*artifact.Snapshot, out *Outcome, now time.Time) error {
	for _, snap := range snaps {
		if snap.Source == EvidenceSource {
			continue // documents for people; they stay in the store
		}
		p, ok := i.publisher(snap.Source)
		if !ok {
			out.Published = append(out.Published, Published{snap.Source, "kept in the store; not configured here"})
			continue
		}
		failpoint.Here("import.publish-source")
		text, err := p.Publish(ctx, snap, m.Seq, now)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if stopsRun(err) {
				return err
			}
			if part, ok := errors.AsType[*artifact.Incomplete](err); ok {
				out.Failed = append(out.Failed, itemsOf(snap.Source, part)...)
			} else {
				out.Failed = append(out.Failed, &ItemError{Source: snap.Source, Err: err})
			}
			continue
		}
		failpoint.Here("import.published-source")
		if err := i.recordPublished(snap, m.Stream, m.Seq, now); err != nil {
			return err
		}
		failpoint.Here("import.recorded-source")
		out.Published = append(out.Published, Published{snap.Source, text})
	}
	if len(out.Failed) > 0 {
		return &PartialError{Items: out.Failed, Total: len(m.Sources)}
	}
	return nil
}

// Check verifies bundles without changing anything: signature, sequence,
// every volume, segment and blob. Warnings are bytes that no signature
// covers and that were not read into anything.
func (i *Importer) Check(ctx context.Context, c bundle.Candidate, now time.Time, sequence bool) (out *Outcome, m *bundle.Manifest, warnings []string, err error) {
	out = &Outcome{Name: c.Name, Stream: c.Stream, Seq: c.Seq}
	r, err := i.open(c)
	if err != nil {
		return out, nil, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	m, rep, err := i.verifyEnvelope(r)
	if err != nil {
		return out, nil, nil, err
	}
	out.Stream, out.Seq, out.ID, out.SignedBy, out.ApprovedBy = m.Stream, m.Seq, rep.ID, rep.SignedBy, rep.ApprovedBy
	out.Missing = append(m.Held, m.Missing...)
	if i.Store != nil {
		r.UseDictionaries(i.Store.ReadAll)
	}
	var errs []error
	if sequence {
		state, err := i.state(m.Stream)
		if err != nil {
			return out, m, nil, err
		}
		if out.Verdict, err = bundle.CheckSequence(m, rep.ID, state, now, bundle.SequencePolicy{AcceptGap: i.AcceptGap, Swept: true}); err != nil {
			errs = append(errs, err)
		} else if out.Verdict == bundle.Import {
			errs = append(errs, bundle.CheckRequires(m, i.Store.Has))
		}
	}
	if out.Volumes, err = i.volumes(r); err != nil {
		return out, m, nil, errors.Join(append(errs, err)...)
	}
	warnings, err = r.Check(ctx, i.OnEvent)
	return out, m, warnings, errors.Join(append(errs, err)...)
}

// Recover sweeps what a killed run left in the store.
func (i *Importer) Recover() error {
	return i.Store.Sweep(func(artifact.Digest) bool { return false })
}

// sweepOutbox removes half-written bundle folders.
func sweepOutbox(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return durable.Sweep(filepath.Clean(dir))
}

// ReadSnapshots returns the snapshots that a manifest names, from the
// bundle or, where it did not bring them, from the store; st may be nil. A
// snapshot that neither has is nil.
func ReadSnapshots(ctx context.Context, r *bundle.Reader, m *bundle.Manifest, st *store.Store) ([]*artifact.Snapshot, error) {
	if st != nil {
		r.UseDictionaries(st.ReadAll)
	}
	snaps := make([]*artifact.Snapshot, len(m.Sources))
	for n, ref := range m.Sources {
		at := slices.IndexFunc(m.Blobs, func(b bundle.Blob) bool { return b.Digest == ref.Snapshot })
		switch {
		case at >= 0:
			data, err := readBlob(ctx, r, m.Blobs[at])
			if errors.Is(err, artifact.ErrSequence) {
				continue // a change of a snapshot that is not here
			}
			if err != nil {
				return nil, err
			}
			if snaps[n], err = artifact.DecodeSnapshot(data); err != nil {
				return nil, err
			}
		case st != nil && st.Has(ref.Snapshot):
			snap, err := loadSnapshot(st, ref.Snapshot)
			if err != nil {
				return nil, err
			}
			snaps[n] = snap
		}
	}
	return snaps, nil
}

// ReadMeta reads a metadata file of a snapshot, of at most limit bytes, from
// the bundle that brings it or from the store, which may be nil; false where
// neither has it.
func ReadMeta(ctx context.Context, r *bundle.Reader, m *bundle.Manifest, st *store.Store, f artifact.File, limit int64) ([]byte, bool, error) {
	if f.Size > limit {
		return nil, false, fmt.Errorf("%s has %d bytes, at most %d are read", f.Path, f.Size, limit)
	}
	if at := slices.IndexFunc(m.Blobs, func(b bundle.Blob) bool { return b.Digest == f.Digest }); at >= 0 {
		data, err := readBlob(ctx, r, m.Blobs[at])
		if !errors.Is(err, artifact.ErrSequence) {
			return data, err == nil, err
		}
	}
	if st == nil || !st.Has(f.Digest) {
		return nil, false, nil
	}
	data, err := st.ReadAll(f.Digest, limit)
	return data, err == nil, err
}

func readBlob(ctx context.Context, r *bundle.Reader, b bundle.Blob) (data []byte, err error) {
	if b.Size > artifact.MaxSnapshot {
		return nil, fmt.Errorf("blob %s has %d bytes, at most %d are read", b.Digest.Short(), b.Size, artifact.MaxSnapshot)
	}
	rc, err := r.Blob(ctx, b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	return io.ReadAll(io.LimitReader(rc, b.Size+1))
}
