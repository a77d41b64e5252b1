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
	// StateLost: the bundle will never arrive. What it was the first to carry
	// counts as not carried.
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

// Carried tells which bundle of the stream was the first to carry a blob.
func (l *Ledger) Carried(name string, d artifact.Digest) (seq uint64, ok bool, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		b := stream(tx, bucketCarried, name)
		if b == nil {
			return nil
		}
		v := b.Get(d[:])
		if v == nil {
			return nil
		}
		ok = true
		seq, err = seqOf(v)
		return err
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
			if carried.Get(d[:]) != nil {
				continue // the first bundle stays the one to require
			}
			if err := carried.Put(d[:], seq); err != nil {
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
// again what this one was the first to carry. Marking twice changes nothing.
func (l *Ledger) MarkLost(name string, seq uint64) error {
	failpoint.Here("ledger.lost-begin")
	err := l.db.Update(func(tx *bolt.Tx) error {
		sealed := stream(tx, bucketSealed, name)
		rec, ok, err := get[Sealed](sealed, seqKey(seq))
		if err != nil {
			return err
		}
		if !ok {
			return ErrUnknownBundle
		}
		rec.State = StateLost
		if err := put(sealed, seqKey(seq), &rec); err != nil {
			return err
		}
		if err := forget(stream(tx, bucketCarried, name), seqKey(seq)); err != nil {
			return err
		}
		failpoint.Here("ledger.lost-before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark bundle %06d of stream %s as lost: %w", seq, name, err)
	}
	failpoint.Here("ledger.lost-committed")
	return nil
}

// forget removes every digest that seq was the first to carry.
func forget(carried *bolt.Bucket, seq []byte) error {
	// Gathered first: a cursor skips entries while its bucket is deleted from.
	var gone [][]byte
	if err := carried.ForEach(func(k, v []byte) error {
		if bytes.Equal(v, seq) {
			gone = append(gone, bytes.Clone(k)) // deleting may move the page it lies in
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range gone {
		if err := carried.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
