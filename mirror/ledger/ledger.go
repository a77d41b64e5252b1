// Package ledger is the record of what was sealed, carried, imported and
// published: one bbolt file, whose lock is also the lock that keeps two runs
// apart.
//
// Layout, version 2. Sequence numbers are eight bytes, big-endian; values are
// JSON and are read strictly.
//
//	meta       version → decimal, floor → RFC 3339
//	sealed     STREAM → sequence → Sealed
//	carried    STREAM → digest (32 bytes) → sequences that carried it, ascending
//	imported   STREAM → sequence → Imported
//	published  SOURCE → Published
//	runs       counter → Run
//
// Invariants:
//   - Every Record method is one transaction, durable when it returns. The
//     caller has made durable what the record speaks of before it calls.
//   - Sealed sequences of a stream have no gap, and each names the one before.
//   - A digest is under carried exactly if a bundle that is not lost brought
//     it, from the transaction that recorded that bundle on.
//   - The floor, the greatest time of issue ever imported, never falls.
//   - A file of a newer version is refused, not guessed at. Version 1, which
//     knew only the first sequence of a digest, is read and becomes version 2
//     when it is opened to be written.
//
// Limits: a bundle's digests are written in one transaction, which holds
// about 250 bytes for each in memory while it lasts (measured with 200,000).
package ledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// version is the layout that this package writes, and the newest it reads.
	version = 2
	// oldest is the first that is still read.
	oldest = 1
)

// atOnce asks bbolt for the lock without waiting: its zero waits for ever.
const atOnce = time.Nanosecond

var (
	bucketMeta      = []byte("meta")
	bucketSealed    = []byte("sealed")
	bucketCarried   = []byte("carried")
	bucketImported  = []byte("imported")
	bucketPublished = []byte("published")
	bucketRuns      = []byte("runs")

	keyVersion = []byte("version")
	keyFloor   = []byte("floor")
)

// ErrLocked says that another run holds the ledger.
var ErrLocked = errors.New("the ledger is locked")

// A LockedError names the ledger that another run holds. It matches
// [ErrLocked].
type LockedError struct {
	Path string
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("ledger %s: another run holds the lock", e.Path)
}

// Is makes errors.Is(err, ErrLocked) match.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// A Ledger is an open ledger file. Its methods may be called concurrently.
type Ledger struct {
	db *bolt.DB
}

// Open opens the ledger for a run and creates it if it is absent. It waits up
// to timeout for another run to end, not at all if timeout is zero, and then
// returns a *[LockedError]. The lock is held until Close.
func Open(path string, timeout time.Duration) (*Ledger, error) {
	_, statErr := os.Stat(path) //nolint:gosec // the configured file
	l, err := open(path, timeout, false)
	if err != nil {
		return nil, err
	}
	if err := l.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", path, err), l.Close())
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		// The file has its content; now its name survives a power loss too.
		if err := durable.SyncDir(filepath.Dir(path)); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		failpoint.Here("ledger.folder-synced")
	}
	return l, nil
}

// OpenReadOnly opens an existing ledger to look at it, beside other readers.
// While a run holds it, it returns a *[LockedError] at once; while it is open,
// no run can start, so the caller closes it soon. An absent ledger is
// fs.ErrNotExist.
func OpenReadOnly(path string) (*Ledger, error) {
	// A killed run may have left an empty file, which bbolt would initialise,
	// and cannot through a read-only descriptor.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("ledger %s: never written to: %w", path, fs.ErrNotExist)
	}
	l, err := open(path, 0, true)
	if err != nil {
		return nil, err
	}
	if err := l.db.View(checkVersion); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", path, err), l.Close())
	}
	return l, nil
}

func open(path string, timeout time.Duration, readOnly bool) (*Ledger, error) {
	// InitialMmapSize stays at its default: the map grows with the file, so
	// that a young ledger costs a few pages.
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      max(timeout, atOnce),
		ReadOnly:     readOnly,
		NoStatistics: true,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, &LockedError{Path: path}
	case err != nil:
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	return &Ledger{db: db}, nil
}

// prepare creates the buckets of a new ledger and checks the version of an
// old one.
func (l *Ledger) prepare() error {
	ready := false
	if err := l.db.View(func(tx *bolt.Tx) error {
		if err := checkVersion(tx); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		ready = meta != nil && string(meta.Get(keyVersion)) == strconv.Itoa(version)
		return nil
	}); err != nil || ready {
		return err
	}
	failpoint.Here("ledger.create")
	err := l.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketSealed, bucketCarried, bucketImported, bucketPublished, bucketRuns} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyVersion, []byte(strconv.Itoa(version)))
	})
	failpoint.Here("ledger.created")
	return err
}

// checkVersion refuses a layout that this program does not know. A file
// without any layout is a run killed before its first commit.
func checkVersion(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return nil
	}
	v, err := strconv.Atoi(string(meta.Get(keyVersion)))
	if err != nil {
		return fmt.Errorf("version %q is not a number", meta.Get(keyVersion))
	}
	if v < oldest || v > version {
		return fmt.Errorf("written in layout version %d, this program reads versions %d to %d", v, oldest, version)
	}
	return nil
}

// Close releases the lock.
func (l *Ledger) Close() error { return l.db.Close() }

// view reads. A file without a layout (see checkVersion) is empty: fn is not
// called, and the caller's results stay zero.
func (l *Ledger) view(fn func(tx *bolt.Tx) error) error {
	return l.db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(bucketMeta) == nil {
			return nil
		}
		return fn(tx)
	})
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// seqsOf reads the sequences that carried a digest.
func seqsOf(v []byte) ([]uint64, error) {
	if len(v) == 0 || len(v)%8 != 0 {
		return nil, fmt.Errorf("sequences of %d bytes, want a multiple of 8", len(v))
	}
	list := make([]uint64, 0, len(v)/8)
	for ; len(v) > 0; v = v[8:] {
		list = append(list, binary.BigEndian.Uint64(v))
	}
	return list, nil
}

// put writes a value, and refuses one that could not be read back: a record
// is worth nothing if the next run cannot open it.
func put[T any](b *bolt.Bucket, key []byte, v *T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := strictjson.Unmarshal(data, new(T)); err != nil {
		return fmt.Errorf("record %q cannot be kept: %w", data, err)
	}
	return b.Put(key, data)
}

// get reads a value; a nil bucket and an absent key are not errors.
func get[T any](b *bolt.Bucket, key []byte) (v T, ok bool, err error) {
	if b == nil {
		return v, false, nil
	}
	data := b.Get(key)
	if data == nil {
		return v, false, nil
	}
	v, err = decode[T](b, key, data)
	return v, err == nil, err
}

func decode[T any](b *bolt.Bucket, key, data []byte) (T, error) {
	var v T
	if err := strictjson.Unmarshal(data, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("ledger %s: record %q: %w", b.Tx().DB().Path(), key, err)
	}
	return v, nil
}

// last reads the record of the greatest key.
func last[T any](b *bolt.Bucket) (v T, ok bool, err error) {
	if b == nil {
		return v, false, nil
	}
	key, data := b.Cursor().Last()
	if key == nil {
		return v, false, nil
	}
	v, err = decode[T](b, key, data)
	return v, err == nil, err
}

// list reads all records in the order of their keys.
func list[T any](b *bolt.Bucket) ([]T, error) {
	if b == nil {
		return nil, nil
	}
	var all []T
	err := b.ForEach(func(k, data []byte) error {
		v, err := decode[T](b, k, data)
		if err != nil {
			return err
		}
		all = append(all, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// stream is a stream's bucket below a top-level one, or nil.
func stream(tx *bolt.Tx, top []byte, name string) *bolt.Bucket {
	return tx.Bucket(top).Bucket([]byte(name))
}

// checkStream accepts the names that a source's name may have.
func checkStream(name string) error {
	if err := artifact.CheckSource("stream/" + name); err != nil {
		return fmt.Errorf("stream %q: want lower-case letters, digits, '.', '_' and '-'", name)
	}
	return nil
}

// refuse is a sequence refusal of a stream's record.
func refuse(stream, reason, want, got string) error {
	return &artifact.Refusal{Class: artifact.ErrSequence, Code: "LEDGER-SEQUENCE", Subject: "ledger, stream " + stream, Reason: reason, Want: want, Got: got}
}
