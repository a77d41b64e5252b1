// Package mirror ties the engine together. Outside, an [Exporter] resolves
// the configured sources into a [Plan], fetches what the store lacks, has it
// scanned and seals a bundle. Inside, an [Importer] verifies bundles, stages
// their blobs and hands each source's snapshot to its publisher.
//
// It knows no ecosystem and no upstream: sources and publishers are handed in
// by the program. See docs/architecture.md for the whole picture.
//
// Invariants:
//   - A bundle's content follows from the plan, the base and the key alone.
//   - The ledger learns of a bundle after its files are durable, and of an
//     import after everything it brought is published.
//   - Every step may be killed and run again: finished work is found by
//     digest and not repeated.
//   - Nothing reaches a publisher before the whole bundle, what it requires
//     and upstream's own proof have been verified.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Source reads one configured upstream. Its methods may be called
// concurrently with those of other sources, and Fetch concurrently for
// different files. A source retries what is worth retrying; its errors are
// final.
type Source interface {
	// Name is "ECOSYSTEM/NAME".
	Name() string
	// Resolve reads indexes only and answers what a run would publish, every
	// digest fixed. Upstream's proof is put into the store and listed under
	// the snapshot's Meta. prev is the snapshot that was last sealed, nil for
	// the first run; an upstream that is older than prev is refused. The
	// strings are notes for the operator. An *artifact.Incomplete beside a
	// snapshot lists artifacts that could not be had; the snapshot holds the
	// others, and of those that prev had what is to stay published.
	Resolve(ctx context.Context, prev *artifact.Snapshot) (*artifact.Snapshot, []string, error)
	// Fetch brings one file of a snapshot into the store, resuming what an
	// earlier run left, and checks it as strictly as the ecosystem allows.
	Fetch(ctx context.Context, f artifact.File) error
}

// A WaiverKeeper is a Source whose publisher tells its target what was waived:
// its snapshots carry the list as [WaivedPath].
type WaiverKeeper interface {
	Source
	KeepsWaivers() bool
}

// A Keeper is a Source that can leave something as it was sealed before where
// what is new of it could not be had. Without that it would be gone inside.
type Keeper interface {
	Source
	// Keep answers snap, which lacks lost, with what prev had in their place.
	Keep(snap, prev *artifact.Snapshot, lost []artifact.Artifact) (*artifact.Snapshot, error)
}

// WaivedPath is the list of waived findings among a snapshot's metadata, and
// WaivedSchema names its encoding.
const (
	WaivedPath   = "waived.json"
	WaivedSchema = "darkmirror.waived/v1"
)

// A Publisher writes one source's snapshot to one inside target. All blobs of
// the snapshot are in the store before either method is called.
type Publisher interface {
	// Name is the source that it publishes.
	Name() string
	// Verify checks upstream's own proof again, with what is pinned inside.
	// prev is the snapshot that is published now, or nil. It writes nothing.
	Verify(ctx context.Context, snap, prev *artifact.Snapshot) error
	// Publish makes snap what clients see. It is idempotent, and readers see
	// the old or the new state whole. The string tells the operator what was
	// published and where. An *artifact.Incomplete lists the artifacts that
	// the target did not take; the others are published.
	Publish(ctx context.Context, snap *artifact.Snapshot, seq uint64, now time.Time) (string, error)
}

// An Announcer is a Publisher that can tell clients what is on its way.
type Announcer interface {
	Publisher
	// Announce is called when a bundle is genuine and the snapshot is inside,
	// before the files are; they may take several tries. Publish ends it.
	Announce(ctx context.Context, snap *artifact.Snapshot) error
}

// A Retainer is a Publisher that still serves files which the newest snapshot
// lacks, to those who have pinned them.
type Retainer interface {
	Publisher
	// Kept lists them.
	Kept() ([]artifact.Artifact, error)
	// Hide takes some of them away for good.
	Hide(ctx context.Context, files []artifact.Digest, reason string, now time.Time) error
}

// A Claimer is a Publisher whose target may be that of others too.
type Claimer interface {
	Publisher
	// Claims says what of a snapshot goes where: by a name that is the same
	// for whoever publishes there, what will be there.
	Claims(snap *artifact.Snapshot) map[string]string
	// Clash refuses what two sources would put into one place.
	Clash(place, one, other string) error
}

// An ItemError is why one item, or a whole source, is missing.
type ItemError struct {
	Source   string
	Artifact string // empty: the whole source
	Version  string
	Err      error
}

func (e *ItemError) Error() string {
	if e.Artifact == "" {
		return fmt.Sprintf("%s: %v", e.Source, e.Err)
	}
	return fmt.Sprintf("%s: %s %s: %v", e.Source, e.Artifact, e.Version, e.Err)
}

// Unwrap gives the cause.
func (e *ItemError) Unwrap() error { return e.Err }

// A PartialError says that the rest was done. It unwraps to its items, so a
// caller that asks for a class (integrity, say) sees theirs.
type PartialError struct {
	Items []*ItemError
	Total int // items of the run, for the message; 0 if not counted
}

func (e *PartialError) Error() string {
	if len(e.Items) == 1 {
		return e.Items[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d items missing", len(e.Items))
	for _, it := range e.Items {
		b.WriteString("\n  " + it.Error())
	}
	return b.String()
}

// Unwrap gives the items.
func (e *PartialError) Unwrap() []error {
	errs := make([]error, len(e.Items))
	for i, it := range e.Items {
		errs[i] = it
	}
	return errs
}

// code is the stable code of a refusal, or a general one.
func code(err error) string {
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r.Code
	}
	if errors.Is(err, artifact.ErrUnavailable) {
		return "UNAVAILABLE"
	}
	return "ERROR"
}
