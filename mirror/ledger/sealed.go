package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// States of a sealed bundle.
const (
	StateSealed = "sealed"
	// StateSent: it left over the link or on a medium. Whether it arrived is
	// not known.
	StateSent = "sent"
	// StateConfirmed: a receipt of the inside says that it was imported.
	StateConfirmed = "confirmed"
	// StateLost: the bundle will never arrive. It counts as if it had carried
	// nothing.
	StateLost = "lost"
)

// A SourceState is the state in which a bundle leaves a source.
type SourceState struct {
	Name     string          `json:"name"` // "pypi/main"
	Snapshot artifact.Digest `json:"snapshot"`
}

// Sealed records a bundle outside.
type Sealed struct {
	Stream string `json:"stream"`
	Seq    uint64 `json:"seq"`
	// ID is the digest of the manifest, Prev that of the bundle before, zero
	// for the first.
	ID           artifact.Digest `json:"id"`
	Prev         artifact.Digest `json:"prev"`
	Base         uint64          `json:"base"`
	Issued       time.Time       `json:"issued"`
	Expires      time.Time       `json:"expires"`
	Bytes        int64           `json:"bytes"` // of the volumes
	PayloadBytes int64           `json:"payload_bytes"`
	Blobs        int             `json:"blobs"`
	Volumes      int             `json:"volumes"`
	Dir          string          `json:"dir"`
	Held         int             `json:"held"`
	Missing      int             `json:"missing"`
	Sources      []SourceState   `json:"sources"`
	State        string          `json:"state"`
	// Sent and Confirmed are when that was recorded, last.
	Sent      time.Time `json:"sent,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"`
}

// Sealed lists the bundles of a stream by sequence.
func (l *Ledger) Sealed(name string) (all []Sealed, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		all, err = list[Sealed](stream(tx, bucketSealed, name))
		return err
	})
	return all, err
}

// LastSealed is the bundle of the highest sequence, lost or not.
func (l *Ledger) LastSealed(name string) (rec Sealed, ok bool, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		rec, ok, err = last[Sealed](stream(tx, bucketSealed, name))
		return err
	})
	return rec, ok, err
}

// Carried tells which bundle of the stream was the first to carry a blob,
// among those that are not lost.
func (l *Ledger) Carried(name string, d artifact.Digest) (seq uint64, ok bool, err error) {
	return l.CarriedBy(name, d, func(uint64) bool { return true })
}

// CarriedBy is the same among those bundles that count.
func (l *Ledger) CarriedBy(name string, d artifact.Digest, counts func(seq uint64) bool) (seq uint64, ok bool, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		b := stream(tx, bucketCarried, name)
		if b == nil {
			return nil
		}
		v := b.Get(d[:])
		if v == nil {
			return nil
		}
		all, err := seqsOf(v)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, counts); i >= 0 {
			seq, ok = all[i], true
		}
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	return seq, ok, nil
}

// RecordSealed records a bundle and the blobs it carries, in one transaction.
// The bundle's files are durable already. It refuses a bundle that does not
// follow the last one.
func (l *Ledger) RecordSealed(rec Sealed, blobs []artifact.Digest) error {
	if err := checkStream(rec.Stream); err != nil {
		return err
	}
	if rec.State == "" {
		rec.State = StateSealed
	}
	if rec.State != StateSealed {
		return fmt.Errorf("bundle %06d: state %q, want %q", rec.Seq, rec.State, StateSealed)
	}
	rec.Issued, rec.Expires = rec.Issued.UTC(), rec.Expires.UTC()
	rec.Sources = append([]SourceState{}, rec.Sources...)
	// In order of their keys, so that each page is touched once.
	blobs = slices.Clone(blobs)
	slices.SortFunc(blobs, func(a, b artifact.Digest) int { return bytes.Compare(a[:], b[:]) })

	failpoint.Here("ledger.sealed-begin")
	err := l.db.Update(func(tx *bolt.Tx) error {
		sealed, err := tx.Bucket(bucketSealed).CreateBucketIfNotExists([]byte(rec.Stream))
		if err != nil {
			return err
		}
		if err := follows(sealed, &rec); err != nil {
			return err
		}
		if err := put(sealed, seqKey(rec.Seq), &rec); err != nil {
			return err
		}
		carried, err := tx.Bucket(bucketCarried).CreateBucketIfNotExists([]byte(rec.Stream))
		if err != nil {
			return err
		}
		seq := seqKey(rec.Seq)
		for _, d := range blobs {
			// A bundle carries again what no bundle that counted had carried.
			if err := carried.Put(d[:], append(bytes.Clone(carried.Get(d[:])), seq...)); err != nil {
				return err
			}
		}
		failpoint.Here("ledger.sealed-before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("record bundle %06d: %w", rec.Seq, err)
	}
	failpoint.Here("ledger.sealed-committed")
	return nil
}

// follows checks that rec is the successor of the last bundle.
func follows(sealed *bolt.Bucket, rec *Sealed) error {
	before, _, err := last[Sealed](sealed)
	if err != nil {
		return err
	}
	if want := before.Seq + 1; rec.Seq != want {
		return refuse(rec.Stream, "the bundle does not follow the last one", fmt.Sprintf("%06d", want), fmt.Sprintf("%06d", rec.Seq))
	}
	if rec.Prev != before.ID {
		return refuse(rec.Stream, fmt.Sprintf("bundle %06d names another bundle before it", rec.Seq), before.ID.String(), rec.Prev.String())
	}
	return nil
}

// ErrUnknownBundle says that the ledger has no bundle of that sequence.
var ErrUnknownBundle = errors.New("no such bundle")

// MarkLost records that a bundle will never arrive: the next one carries
// again what no other has carried. Marking twice changes nothing.
func (l *Ledger) MarkLost(name string, seq uint64) error {
	return l.mark(name, seq, "lost", func(tx *bolt.Tx, rec *Sealed) error {
		rec.State = StateLost
		return forget(stream(tx, bucketCarried, name), seqKey(seq))
	})
}

// MarkSent records that a bundle has left. One that is confirmed or lost stays
// so.
func (l *Ledger) MarkSent(name string, seq uint64, at time.Time) error {
	return l.mark(name, seq, "sent", func(_ *bolt.Tx, rec *Sealed) error {
		rec.Sent = at.UTC()
		if rec.State == StateSealed {
			rec.State = StateSent
		}
		return nil
	})
}

// Confirm records that a bundle was imported. The id is what the inside saw:
// another one than was sealed is a fork and refused. One that was marked as
// lost has arrived after all; what carried its blobs again stays as it is.
func (l *Ledger) Confirm(name string, seq uint64, id artifact.Digest, at time.Time) error {
	return l.mark(name, seq, "confirmed", func(_ *bolt.Tx, rec *Sealed) error {
		if rec.ID != id {
			return refuse(name, fmt.Sprintf("the inside has another bundle %06d", seq), rec.ID.String(), id.String())
		}
		rec.Confirmed = at.UTC()
		if rec.State != StateLost {
			rec.State = StateConfirmed
		}
		return nil
	})
}

// mark changes the record of one bundle.
func (l *Ledger) mark(name string, seq uint64, what string, change func(tx *bolt.Tx, rec *Sealed) error) error {
	failpoint.Here("ledger.mark-begin")
	err := l.db.Update(func(tx *bolt.Tx) error {
		sealed := stream(tx, bucketSealed, name)
		rec, ok, err := get[Sealed](sealed, seqKey(seq))
		if err != nil {
			return err
		}
		if !ok {
			return ErrUnknownBundle
		}
		if err := change(tx, &rec); err != nil {
			return err
		}
		if err := put(sealed, seqKey(seq), &rec); err != nil {
			return err
		}
		failpoint.Here("ledger.mark-before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark bundle %06d of stream %s as %s: %w", seq, name, what, err)
	}
	failpoint.Here("ledger.mark-committed")
	return nil
}

// forget takes seq out of the list of every digest that it carried.
func forget(carried *bolt.Bucket, seq []byte) error {
	// Gathered first: a cursor skips entries while its bucket is changed.
	type change struct{ key, value []byte }
	var changes []change
	if err := carried.ForEach(func(k, v []byte) error {
		for at := 0; at+8 <= len(v); at += 8 {
			if bytes.Equal(v[at:at+8], seq) {
				rest := append(bytes.Clone(v[:at]), v[at+8:]...)
				changes = append(changes, change{bytes.Clone(k), rest})
				break
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, c := range changes {
		var err error
		if len(c.value) == 0 {
			err = carried.Delete(c.key)
		} else {
			err = carried.Put(c.key, c.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
