package mirror

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/scan"
)

// EvidenceSource is the source under which a bundle carries what was found
// out about its artifacts: verdicts, bills of material, statements. It has no
// artifacts, only documents, which are signed, carried as changes and kept
// like everything else; nobody publishes it.
const EvidenceSource = "scan/evidence"

// VerdictsPath is the document of verdicts among the evidence.
const VerdictsPath = "verdicts.json"

// contentOf reads blobs of a store for the scanners.
func contentOf(st *store.Store) func(artifact.Digest) (scan.Content, error) {
	return func(d artifact.Digest) (scan.Content, error) {
		f, err := st.File(d)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}

// keepEvidence adds the run's documents to its plan. They have no time of
// their own: the same verdicts give the same source, so that a run in which
// nothing changed makes no bundle.
func (e *Exporter) keepEvidence(ctx context.Context, run *Run) error {
	docs := make(map[string][]byte)
	if e.Documents != nil {
		var err error
		if docs, err = e.Documents(ctx, run.Scan); err != nil {
			return err
		}
	}
	var err error
	if docs[VerdictsPath], err = run.Scan.Verdicts(); err != nil {
		return err
	}
	snap := artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: EvidenceSource, Artifacts: []artifact.Artifact{}}
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		d, err := e.Store.PutBytes(docs[name])
		if err != nil {
			return err
		}
		snap.Meta = append(snap.Meta, artifact.File{Path: name, Digest: d, Size: int64(len(docs[name]))})
	}
	run.Plan.Sources = append(run.Plan.Sources, PlannedSource{Snapshot: snap, Notes: []string{}})
	return nil
}

// scannersOf names the engines in a manifest.
func scannersOf(r *scan.Report) ([]bundle.Scanner, error) {
	var list []bundle.Scanner
	for _, e := range r.Engines {
		s := bundle.Scanner{Name: e.Name, Version: e.Version}
		if e.Database != "" {
			d, err := artifact.ParseDigest(e.Database)
			if err != nil {
				return nil, fmt.Errorf("engine %s: %w", e.Name, err)
			}
			s.Database = d
		}
		if e.Dated != nil {
			s.DatabaseDate = e.Dated.UTC().Format(time.RFC3339)
		}
		list = append(list, s)
	}
	return list, nil
}
