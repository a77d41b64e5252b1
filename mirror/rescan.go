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

// ScanPublished judges again what clients see now. With withdraw, what the
// policy holds is taken out of the publications; the store keeps it. The
// report's [scan.Report.Err] says what was found; the error is what stopped
// the run or a target that could not be changed.
func (i *Importer) ScanPublished(ctx context.Context, withdraw bool, now time.Time) (*scan.Report, []Published, error) {
	recs, err := i.Ledger.Published()
	if err != nil {
		return nil, nil, err
	}
	var snaps []*artifact.Snapshot
	at := make(map[string]ledger.Published)
	for _, rec := range recs {
		if _, ok := i.publisher(rec.Source); !ok {
			continue
		}
		snap, err := loadSnapshot(i.Store, rec.Snapshot)
		if err != nil {
			return nil, nil, err
		}
		snaps, at[rec.Source] = append(snaps, snap), rec
	}
	rep, err := i.judge(ctx, snaps, now)
	if err != nil || !withdraw {
		return rep, nil, err
	}
	var done []Published
	var errs []error
	for _, snap := range snaps {
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
