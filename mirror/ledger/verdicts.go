package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// flushEntries and flushBytes bound what is held in memory before a
	// transaction: a run that dies loses no more than this, and scans it again.
	flushEntries = 256
	flushBytes   = 4 << 20
	// maxVerdict bounds one entry; a larger one is not kept, and its blob is
	// scanned again.
	maxVerdict = 16 << 20
)

var bucketVerdicts = []byte("verdicts")

// Verdicts is a file of scan verdicts, beside the ledger and not a part of it:
// it may be deleted at any time, and then costs a scan. A value is kept with
// its SHA-256, so that a damaged entry is a miss. It has one user, the holder
// of the run lock; its methods may be called concurrently.
type Verdicts struct {
	db *bolt.DB

	mu      sync.Mutex
	pending map[artifact.Digest][]byte
	bytes   int
}

// OpenVerdicts opens or creates the file. One that is damaged is an error of
// bbolt; the caller may remove it.
func OpenVerdicts(path string) (v *Verdicts, err error) {
	defer func() {
		if r := recover(); r != nil { // bbolt panics on some damage
			v, err = nil, fmt.Errorf("verdicts %s: damaged: %v", path, r)
		}
	}()
	// The entries can be had again, so a commit need not wait for the disk;
	// Close does.
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoStatistics: true, NoSync: true, NoFreelistSync: true})
	if err != nil {
		return nil, fmt.Errorf("verdicts %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketVerdicts)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("verdicts %s: %w", path, err), db.Close())
	}
	return &Verdicts{db: db, pending: make(map[artifact.Digest][]byte)}, nil
}

// Get gives the value that was put under the key, if it is there and whole.
func (v *Verdicts) Get(key artifact.Digest) (value []byte, ok bool) {
	v.mu.Lock()
	value, ok = v.pending[key]
	v.mu.Unlock()
	if ok {
		return value, true
	}
	defer func() {
		if recover() != nil { // a damaged page: the same as no entry
			value, ok = nil, false
		}
	}()
	err := v.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bucketVerdicts).Get(key[:]); len(b) >= sha256.Size {
			value = append([]byte{}, b[sha256.Size:]...)
			ok = artifact.Digest(b[:sha256.Size]) == artifact.Sum(value)
		}
		return nil
	})
	if err != nil || !ok {
		return nil, false
	}
	return value, true
}

// Put keeps a value. It is on its way to the disk when a later Put or Close
// returns.
func (v *Verdicts) Put(key artifact.Digest, value []byte) error {
	if len(value) > maxVerdict {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pending[key] = value
	v.bytes += len(value)
	if len(v.pending) < flushEntries && v.bytes < flushBytes {
		return nil
	}
	return v.flush()
}

// flush writes what is pending; the caller holds the lock.
func (v *Verdicts) flush() error {
	if len(v.pending) == 0 {
		return nil
	}
	err := v.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketVerdicts)
		for key, value := range v.pending {
			sum := artifact.Sum(value)
			if err := b.Put(key[:], append(sum[:], value...)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verdicts: %w", err)
	}
	clear(v.pending)
	v.bytes = 0
	return nil
}

// Close writes what is pending and closes the file.
func (v *Verdicts) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.flush(), v.db.Sync(), v.db.Close())
}
