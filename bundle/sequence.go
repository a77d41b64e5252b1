package bundle

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A StreamState is what the ledger knows of a stream.
type StreamState struct {
	Last   uint64          // highest imported seq; 0: none
	LastID artifact.Digest // its id
	// Imported gives the id of an imported bundle.
	Imported func(seq uint64) (artifact.Digest, bool)
	// Floor is the greatest issued time seen. Time never falls below it, so
	// that a clock set back does not revive an expired bundle.
	Floor time.Time
}

// A SequencePolicy is the choice of the site and of the run.
type SequencePolicy struct {
	// Stream, where not empty, is the only stream that is taken.
	Stream string
	// AcceptGap lets a bundle skip others. [CheckRequires] then says
	// whether anything is lacking.
	AcceptGap bool
	// Swept says that the bundle was met in the inbox and not named by the
	// user: old ones are then skipped.
	Swept bool
}

// A Verdict says what to do with a bundle. It is empty beside an error.
type Verdict string

// Verdicts.
const (
	Import          Verdict = "import"
	AlreadyImported Verdict = "already imported"
	Skip            Verdict = "skip"
)

// maxAhead is how far the outside's clock may be ahead of ours. Beyond it a
// bundle would raise the floor of time, and all later ones would expire.
const maxAhead = 24 * time.Hour

// CheckSequence holds the table "Sequence rules" of docs/bundle-format.md. It
// reads no clock and no file.
func CheckSequence(m *Manifest, id artifact.Digest, st StreamState, now time.Time, o SequencePolicy) (Verdict, error) {
	refuse := func(code, reason, want, got string) (Verdict, error) {
		return "", &artifact.Refusal{Class: artifact.ErrSequence, Code: code, Subject: m.String(), Reason: reason, Want: want, Got: got}
	}
	if o.Stream != "" && m.Stream != o.Stream {
		return refuse(CodeStream, "the bundle belongs to another stream", o.Stream, m.Stream)
	}
	if m.Seq <= st.Last {
		known, ok := imported(st, m.Seq)
		switch {
		case ok && known != id:
			return refuse(CodeFork, "another bundle of this number was imported: somebody else may be signing", known.String(), id.String())
		case ok && m.Seq == st.Last:
			return AlreadyImported, nil
		case ok && o.Swept:
			return Skip, nil
		case ok:
			return refuse(CodeReplay, "imported long ago", fmt.Sprintf("%06d", st.Last+1), fmt.Sprintf("%06d", m.Seq))
		}
		return refuse(CodeReplay, "older than what was imported, and never imported itself", fmt.Sprintf("%06d", st.Last+1), fmt.Sprintf("%06d", m.Seq))
	}
	if st.Last > 0 && m.Seq == st.Last+1 && m.Prev != st.LastID.String() {
		return refuse(CodeFork, "it follows another bundle than the one that was imported: somebody else may be signing", st.LastID.String(), m.Prev)
	}
	if now.Before(st.Floor) {
		now = st.Floor
	}
	if !now.Before(m.Expires) {
		return refuse(CodeExpired, "the bundle has expired", "time before "+m.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if limit := now.Add(maxAhead); m.Issued.After(limit) {
		return refuse(CodeFuture, "issued in the future: a clock is wrong", "at most "+limit.UTC().Format(time.RFC3339), m.Issued.UTC().Format(time.RFC3339))
	}
	if m.Seq > st.Last+1 && !m.Full() && !o.AcceptGap {
		return refuse(CodeGap, "not imported yet: "+numbers(st.Last+1, m.Seq-1), fmt.Sprintf("%06d", st.Last+1), fmt.Sprintf("%06d", m.Seq))
	}
	return Import, nil
}

func imported(st StreamState, seq uint64) (artifact.Digest, bool) {
	if seq == st.Last {
		return st.LastID, true
	}
	if st.Imported == nil {
		return artifact.Digest{}, false
	}
	return st.Imported(seq)
}

// numbers writes a range of bundles for people.
func numbers(from, to uint64) string {
	switch to - from {
	case 0:
		return fmt.Sprintf("%06d", from)
	case 1:
		return fmt.Sprintf("%06d and %06d", from, to)
	}
	return fmt.Sprintf("%06d to %06d", from, to)
}

// A RequiresError lists what should be inside and is not, with the bundles
// that carried it; it is the cause of an ERR_REQUIRES refusal.
type RequiresError struct {
	Missing []Require
}

// maxListed bounds the digests in the text; Missing holds all.
const maxListed = 50

func (e *RequiresError) Error() string {
	var parts []string
	more := 0
	for _, r := range e.Missing {
		for _, d := range r.Blobs {
			if len(parts) < maxListed {
				parts = append(parts, fmt.Sprintf("%s of bundle %06d", d, r.Seq))
			} else {
				more++
			}
		}
	}
	text := strings.Join(parts, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// CheckRequires looks, before anything is copied, whether the documents that
// the bundle builds on are inside.
func CheckRequires(m *Manifest, has func(artifact.Digest) bool) error {
	var missing []Require
	n, of := 0, 0
	for _, r := range m.Requires {
		var lacking []artifact.Digest
		for _, d := range r.Blobs {
			of++
			if !has(d) {
				lacking = append(lacking, d)
			}
		}
		if len(lacking) > 0 {
			n += len(lacking)
			missing = append(missing, Require{Seq: r.Seq, Blobs: lacking})
		}
	}
	if n == 0 {
		return nil
	}
	return &artifact.Refusal{
		Class: artifact.ErrSequence, Code: CodeRequires, Subject: m.String(),
		Reason: fmt.Sprintf("%d of %d blobs of earlier bundles are not inside", n, of),
		Err:    &RequiresError{Missing: missing},
	}
}

// MissingBlobs gives the list behind an ERR_REQUIRES refusal.
func MissingBlobs(err error) []Require {
	if e, ok := errors.AsType[*RequiresError](err); ok {
		return e.Missing
	}
	return nil
}
