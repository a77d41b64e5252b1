package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/scan"
)

// When an import scans again what was scanned outside.
const (
	RescanAlways = "always"
	// RescanNewer scans where an engine inside has newer data than the bundle
	// was scanned with, or has data and the bundle was not scanned with it.
	RescanNewer = "newer"
	RescanNever = "never"
)

// dataFirst splits off the sources of plain files: what they bring, the
// scanners' databases among it, is published before anything is judged.
func dataFirst(snaps []*artifact.Snapshot) (data, rest []*artifact.Snapshot) {
	for _, s := range snaps {
		if strings.HasPrefix(s.Source, "files/") {
			data = append(data, s)
		} else {
			rest = append(rest, s)
		}
	}
	return data, rest
}

// rescan judges what a bundle brings once more, with what there is inside,
// and answers the snapshots without what is held back.
func (i *Importer) rescan(ctx context.Context, m *bundle.Manifest, snaps []*artifact.Snapshot, now time.Time) ([]*artifact.Snapshot, *scan.Report, error) {
	if i.Scanner == nil || i.Rescan == RescanNever {
		return snaps, nil, nil
	}
	if err := i.Scanner.Ready(ctx, now); err != nil {
		return nil, nil, err
	}
	if i.Rescan == RescanNewer && !i.newer(m) {
		return snaps, nil, nil
	}
	var judged []*artifact.Snapshot
	for _, snap := range snaps {
		if _, ok := i.publisher(snap.Source); ok {
			judged = append(judged, snap)
		}
	}
	rep, err := i.judge(ctx, judged, now)
	if err != nil {
		return nil, nil, err
	}
	failpoint.Here("import.rescanned")
	out := make([]*artifact.Snapshot, len(snaps))
	for n, snap := range snaps {
		out[n] = snap
		if slices.ContainsFunc(rep.Held, func(h scan.Held) bool { return h.Source == snap.Source }) {
			out[n] = rep.Strip(snap)
		}
	}
	return out, rep, nil
}

func (i *Importer) judge(ctx context.Context, snaps []*artifact.Snapshot, now time.Time) (*scan.Report, error) {
	i.Scanner.Open, i.Scanner.OnEvent = contentOf(i.Store), i.OnEvent
	return i.Scanner.Run(ctx, snaps, now)
}

// newer compares the data of the engines here with what the manifest names.
func (i *Importer) newer(m *bundle.Manifest) bool {
	for _, e := range i.Scanner.Engines() {
		if e.Database.IsZero() && e.Dated.IsZero() {
			continue // it compares with nothing that could be newer
		}
		at := slices.IndexFunc(m.Scanners, func(s bundle.Scanner) bool { return s.Name == e.Name })
		if at < 0 {
			return true
		}
		if m.Scanners[at].Database == e.Database {
			continue
		}
		then, err := time.Parse(time.RFC3339, m.Scanners[at].DatabaseDate)
		if err != nil || e.Dated.After(then) {
			return true
		}
	}
	return false
}

// record keeps a snapshot as what clients of its source see.
func (i *Importer) recordPublished(snap *artifact.Snapshot, stream string, seq uint64, now time.Time) error {
	b, err := snap.Encode()
	if err != nil {
		return fmt.Errorf("%s: %w", snap.Source, err)
	}
	d, err := i.Store.PutBytes(b)
	if err != nil {
		return err
	}
	return i.Ledger.RecordPublished(ledger.Published{Source: snap.Source, Snapshot: d, Stream: stream, Seq: seq, Time: now.UTC().Truncate(time.Second)})
}

// withKept adds what a publisher still serves to the snapshot that it serves.
func withKept(snap *artifact.Snapshot, kept []artifact.Artifact) *artifact.Snapshot {
	if len(kept) == 0 {
		return snap
	}
	all := *snap
	all.Artifacts = slices.Clone(snap.Artifacts)
	for _, a := range kept {
		n := slices.IndexFunc(all.Artifacts, func(b artifact.Artifact) bool { return a.Name == b.Name && a.Version == b.Version })
		if n < 0 {
			all.Artifacts = append(all.Artifacts, a)
			continue
		}
		all.Artifacts[n].Files = slices.Concat(all.Artifacts[n].Files, a.Files)
	}
	return &all
}

// hide takes away what is kept and was judged badly.
func (i *Importer) hide(ctx context.Context, rep *scan.Report, source string, kept []artifact.Artifact, now time.Time) error {
	left := rep.Strip(&artifact.Snapshot{Source: source, Artifacts: kept}).Artifacts
	if len(left) == len(kept) {
		return nil
	}
	var files []artifact.Digest
	for _, a := range kept {
		if slices.ContainsFunc(left, func(b artifact.Artifact) bool { return a.Name == b.Name && a.Version == b.Version }) {
			continue
		}
		for _, f := range a.Files {
			files = append(files, f.Digest)
		}
	}
	pub, _ := i.publisher(source)
	return pub.(Retainer).Hide(ctx, files, "held by the policy when it was judged again", now) //nolint:forcetypeassert // what is kept was told by one
}

// ScanPublished judges again what clients see now. With withdraw, what the
// policy holds is taken out of the publications; the store keeps it. The
// report's [scan.Report.Err] says what was found; the error is what stopped
// the run or a target that could not be changed.
func (i *Importer) ScanPublished(ctx context.Context, withdraw bool, now time.Time) (*scan.Report, []Published, error) {
	recs, err := i.Ledger.Published()
	if err != nil {
		return nil, nil, err
	}
	var snaps, judged []*artifact.Snapshot
	at := make(map[string]ledger.Published)
	kept := make(map[string][]artifact.Artifact)
	for _, rec := range recs {
		pub, ok := i.publisher(rec.Source)
		if !ok {
			continue
		}
		snap, err := loadSnapshot(i.Store, rec.Snapshot)
		if err != nil {
			return nil, nil, err
		}
		if k, ok := pub.(Retainer); ok {
			if kept[rec.Source], err = k.Kept(); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", rec.Source, err)
			}
		}
		snaps, judged = append(snaps, snap), append(judged, withKept(snap, kept[rec.Source]))
		at[rec.Source] = rec
	}
	rep, err := i.judge(ctx, judged, now)
	if err != nil || !withdraw {
		return rep, nil, err
	}
	var done []Published
	var errs []error
	for _, snap := range snaps {
		if err := i.hide(ctx, rep, snap.Source, kept[snap.Source], now); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", snap.Source, err))
		}
		left := rep.Strip(snap)
		if len(left.Artifacts) == len(snap.Artifacts) {
			continue
		}
		pub, _ := i.publisher(snap.Source)
		failpoint.Here("withdraw.publish")
		text, err := pub.Publish(ctx, left, at[snap.Source].Seq, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", snap.Source, err))
			continue
		}
		failpoint.Here("withdraw.published")
		if err := i.recordPublished(left, at[snap.Source].Stream, at[snap.Source].Seq, now); err != nil {
			return rep, done, err
		}
		done = append(done, Published{Source: snap.Source, Text: text})
	}
	return rep, done, errors.Join(errs...)
}
