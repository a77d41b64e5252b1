package ledger

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Imported records a bundle inside, of which everything is published.
type Imported struct {
	Stream     string          `json:"stream"`
	Seq        uint64          `json:"seq"`
	ID         artifact.Digest `json:"id"` // of the manifest
	Issued     time.Time       `json:"issued"`
	Expires    time.Time       `json:"expires"`
	Time       time.Time       `json:"time"` // of the import
	SignedBy   []string        `json:"signed_by"`
	ApprovedBy []string        `json:"approved_by,omitempty"`
	Missing    int             `json:"missing"` // left out outside
	Sources    []SourceState   `json:"sources"`
}

// Published records what clients of one source see.
type Published struct {
	Source   string          `json:"source"`
	Snapshot artifact.Digest `json:"snapshot"`
	Stream   string          `json:"stream"`
	Seq      uint64          `json:"seq"`
	Time     time.Time       `json:"time"`
}

// Imported is the record of one bundle.
func (l *Ledger) Imported(name string, seq uint64) (rec Imported, ok bool, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		rec, ok, err = get[Imported](stream(tx, bucketImported, name), seqKey(seq))
		return err
	})
	return rec, ok, err
}

// AllImported lists the imported bundles of a stream by sequence.
func (l *Ledger) AllImported(name string) (all []Imported, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		all, err = list[Imported](stream(tx, bucketImported, name))
		return err
	})
	return all, err
}

// LastImported is the imported bundle of the highest sequence.
func (l *Ledger) LastImported(name string) (rec Imported, ok bool, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		rec, ok, err = last[Imported](stream(tx, bucketImported, name))
		return err
	})
	return rec, ok, err
}

// RecordImported records a bundle and raises the floor to its time of issue,
// in one transaction. Recording the same bundle again changes nothing but the
// record's own time; another bundle of a recorded sequence is refused.
func (l *Ledger) RecordImported(rec Imported) error {
	if err := checkStream(rec.Stream); err != nil {
		return err
	}
	if rec.Seq == 0 {
		return refuse(rec.Stream, "sequences start at 000001", "", "000000")
	}
	rec.Issued, rec.Expires, rec.Time = rec.Issued.UTC(), rec.Expires.UTC(), rec.Time.UTC()
	rec.SignedBy = append([]string{}, rec.SignedBy...)
	rec.Sources = append([]SourceState{}, rec.Sources...)

	failpoint.Here("ledger.imported-begin")
	err := l.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.Bucket(bucketImported).CreateBucketIfNotExists([]byte(rec.Stream))
		if err != nil {
			return err
		}
		old, ok, err := get[Imported](b, seqKey(rec.Seq))
		if err != nil {
			return err
		}
		if ok && old.ID != rec.ID {
			return refuse(rec.Stream, fmt.Sprintf("another bundle %06d was imported", rec.Seq), old.ID.String(), rec.ID.String())
		}
		if err := put(b, seqKey(rec.Seq), &rec); err != nil {
			return err
		}
		if err := raiseFloor(tx, rec.Issued); err != nil {
			return err
		}
		failpoint.Here("ledger.imported-before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("record import of bundle %06d: %w", rec.Seq, err)
	}
	failpoint.Here("ledger.imported-committed")
	return nil
}

// Floor is the greatest time of issue of all imported bundles: no clock of
// this host that shows less can be right. It is zero before the first import.
func (l *Ledger) Floor() (t time.Time, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		t, err = readFloor(tx)
		return err
	})
	return t, err
}

func readFloor(tx *bolt.Tx) (time.Time, error) {
	data := tx.Bucket(bucketMeta).Get(keyFloor)
	if data == nil {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(data))
	if err != nil {
		return time.Time{}, fmt.Errorf("ledger %s: floor: %w", tx.DB().Path(), err)
	}
	return t, nil
}

func raiseFloor(tx *bolt.Tx, issued time.Time) error {
	floor, err := readFloor(tx)
	if err != nil || !issued.After(floor) {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyFloor, issued.AppendFormat(nil, time.RFC3339Nano))
}

// PublishedSnapshot is what clients of a source see, if anything.
func (l *Ledger) PublishedSnapshot(source string) (rec Published, ok bool, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		rec, ok, err = get[Published](tx.Bucket(bucketPublished), []byte(source))
		return err
	})
	return rec, ok, err
}

// Published lists what clients see, by source.
func (l *Ledger) Published() (all []Published, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		all, err = list[Published](tx.Bucket(bucketPublished))
		return err
	})
	return all, err
}

// RecordPublished records what clients of a source see from now on; an older
// sequence is allowed, for a mirror that is pointed back.
func (l *Ledger) RecordPublished(rec Published) error {
	if err := artifact.CheckSource(rec.Source); err != nil {
		return err
	}
	rec.Time = rec.Time.UTC()
	failpoint.Here("ledger.published-begin")
	err := l.db.Update(func(tx *bolt.Tx) error {
		if err := put(tx.Bucket(bucketPublished), []byte(rec.Source), &rec); err != nil {
			return err
		}
		failpoint.Here("ledger.published-before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("record publication of %s: %w", rec.Source, err)
	}
	failpoint.Here("ledger.published-committed")
	return nil
}

// Streams lists the streams that have a sealed or an imported bundle.
func (l *Ledger) Streams() (names []string, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		for _, top := range [][]byte{bucketSealed, bucketImported} {
			if err := tx.Bucket(top).ForEachBucket(func(k []byte) error {
				names = append(names, string(k))
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
