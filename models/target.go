package models

import (
	"context"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Codes of refusals.
const (
	// CodeRecord: models.json cannot be read, or disagrees with the snapshot.
	CodeRecord = "MODELS-RECORD"
	// CodeFile: a file is not what the hub's tree says.
	CodeFile = "MODELS-FILE"
	// CodeProfile: a profile finds no weights that it could carry.
	CodeProfile = "MODELS-PROFILE"
	// CodeLocal: a folder or cache does not hold what is asked for.
	CodeLocal = "MODELS-LOCAL"
	// CodeIndex: an index of weights names files that are not there.
	CodeIndex = "MODELS-INDEX"
	// CodeTarget: a further target inside does not take it.
	CodeTarget = "MODELS-TARGET"
)

// A Target is a further place inside where a set is published: a folder, an
// object store, a registry. It has no state of its own that it could not read
// back from the place itself.
type Target interface {
	// Publish makes the place hold the set: what is new is put there, what an
	// earlier set brought and this one has not is taken away, and what others
	// put there stays. It is idempotent, and may be killed anywhere: a reader
	// never sees a revision that is not whole. The string tells the operator
	// what is where: "2 models   /srv/hf". An *artifact.Incomplete lists the
	// revisions that the target did not take; the others are published.
	Publish(ctx context.Context, set *Set, seq uint64, now time.Time) (string, error)
}

func refuse(code, subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: subject, Reason: reason, Err: err}
}
