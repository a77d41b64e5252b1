package trivy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

const (
	// schema is the only one that the detectors read.
	schema = 2
	// maxMetadataJSON bounds metadata.json, which has four fields.
	maxMetadataJSON = 64 << 10
	// maxAhead is how far ahead of the clock a database's date may be: clocks
	// differ, and a date from the future would never grow too old.
	maxAhead = 24 * time.Hour
	// lockWait is how long opening may wait for another process's lock on the
	// copy; nobody else knows of the copy.
	lockWait = 2 * time.Second
	dbFile   = "trivy.db"
	metaFile = "metadata.json"
)

// shared guards Trivy's database handle, of which there is one a process, in
// a variable of its package db. Readers judge; a writer opens or closes.
var shared struct {
	sync.RWMutex
	by *Scanner
}

// Start opens the database, or opens it again after it was replaced; nobody
// judges meanwhile. Its errors are [scan.ErrEngine], and leave the Scanner
// without a database.
func (s *Scanner) Start(ctx context.Context, now time.Time) error {
	if s.config.Database == "" {
		return nil
	}
	if err := s.start(ctx, now); err != nil {
		if cause := ended(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("%w: vulnerability database %s: %w", scan.ErrEngine, s.config.Database, err)
	}
	return nil
}

func (s *Scanner) start(ctx context.Context, now time.Time) (err error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.by != nil {
		if err := shared.by.drop(); err != nil {
			return err
		}
	}
	dated, err := s.checkMetadata(now)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.config.Scratch, "trivy-db-")
	if err != nil {
		return err
	}
	// The open file needs no name.
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	digest, size, err := private(ctx, filepath.Join(s.config.Database, dbFile), filepath.Join(dir, dbFile))
	if err != nil {
		return err
	}
	pinned := !s.config.Digest.IsZero()
	if pinned && digest != s.config.Digest {
		return fmt.Errorf("%s is %s, want %s as pinned", dbFile, digest, s.config.Digest)
	}
	if err := open(dir, size, !pinned); err != nil {
		return fmt.Errorf("%s: %w", dbFile, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	shared.by = s
	s.opened, s.now, s.digest, s.dated = true, now, digest, dated
	return nil
}

// drop closes the handle that s has. The caller holds shared's lock.
func (s *Scanner) drop() error {
	shared.by = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened, s.digest, s.dated = false, artifact.Digest{}, time.Time{}
	return safely(db.Close)
}

// checkMetadata checks schema and age, and answers the date.
func (s *Scanner) checkMetadata(now time.Time) (time.Time, error) {
	f, err := os.Open(filepath.Join(s.config.Database, metaFile))
	if err != nil {
		return time.Time{}, err
	}
	// It is only read.
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxMetadataJSON+1))
	if err != nil {
		return time.Time{}, err
	}
	var m struct {
		Version   int
		UpdatedAt time.Time
	}
	if len(b) > maxMetadataJSON {
		return time.Time{}, fmt.Errorf("%s: more than %d bytes", metaFile, maxMetadataJSON)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", metaFile, err)
	}
	switch age := now.Sub(m.UpdatedAt); {
	case m.Version != schema:
		return time.Time{}, fmt.Errorf("%s: schema %d, want %d", metaFile, m.Version, schema)
	case m.UpdatedAt.IsZero():
		return time.Time{}, fmt.Errorf("%s: UpdatedAt is missing", metaFile)
	case age < -maxAhead:
		return time.Time{}, fmt.Errorf("%s: UpdatedAt %s is %s ahead of the clock", metaFile, stamp(m.UpdatedAt), (-age).Round(time.Hour))
	case s.config.MaxAge > 0 && age > s.config.MaxAge:
		return time.Time{}, fmt.Errorf("%s: of %s, %s old, at most %s is allowed", metaFile, stamp(m.UpdatedAt), age.Round(time.Minute), s.config.MaxAge)
	}
	return m.UpdatedAt.UTC(), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// private makes a read-only copy that nobody else writes, and digests the
// copy: what was digested is what is opened.
func private(ctx context.Context, from, to string) (digest artifact.Digest, size int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return digest, 0, err
	}
	// It is only read.
	defer func() { _ = in.Close() }()
	if fi, err := in.Stat(); err != nil {
		return digest, 0, err
	} else if !fi.Mode().IsRegular() {
		return digest, 0, fmt.Errorf("%s is no regular file", dbFile)
	}
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return digest, 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	// A file system that shares blocks makes the copy for nothing.
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		size, err = io.CopyBuffer(h, plain{ctx, out}, buf)
	} else {
		size, err = io.CopyBuffer(io.MultiWriter(out, h), plain{ctx, in}, buf)
	}
	if err != nil {
		return digest, 0, err
	}
	return artifact.Digest(h.Sum(nil)), size, nil
}

// plain is a reader that ends with its context and offers no shortcuts, so
// that io.CopyBuffer uses its buffer.
type plain struct {
	ctx context.Context
	r   io.Reader
}

func (p plain) Read(b []byte) (int, error) {
	if err := ended(p.ctx); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// open opens the copy and looks into it. Without a pinned digest nothing but
// the structure tells whether the bytes are right, so all of that is checked.
func open(dir string, size int64, whole bool) error {
	if size == 0 {
		return errors.New("is empty")
	}
	err := safely(func() error {
		if err := db.Init(dir, db.WithBoltOptions(&bolt.Options{ReadOnly: true, Timeout: lockWait})); err != nil {
			return err
		}
		return db.Config{}.Connection().View(func(tx *bolt.Tx) error { return look(tx, size, whole) })
	})
	if err != nil {
		return errors.Join(err, safely(db.Close))
	}
	return nil
}

// look refuses a database that lacks what every real one has.
func look(tx *bolt.Tx, size int64, whole bool) error {
	if tx.Size() > size {
		return fmt.Errorf("has %d bytes, its header says %d: truncated", size, tx.Size())
	}
	if whole {
		for err := range tx.Check() {
			return fmt.Errorf("damaged: %w", err)
		}
	}
	for _, want := range []string{"data-source", "vulnerability"} {
		b := tx.Bucket([]byte(want))
		if b == nil {
			return fmt.Errorf("has no bucket %q: not a vulnerability database", want)
		}
		c := b.Cursor()
		for _, step := range []func() ([]byte, []byte){c.First, c.Last} {
			if k, v := step(); k == nil || !json.Valid(v) {
				return fmt.Errorf("bucket %q: empty or damaged", want)
			}
		}
	}
	return nil
}

// safely turns a panic, and a fault in the mapped file, into an error.
func safely(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return f()
}

// has tells whether the database has advisories whose bucket has the name, or
// starts with it if it ends in "::".
func has(bucket string) (bool, error) {
	found := false
	err := db.Config{}.Connection().View(func(tx *bolt.Tx) error {
		k, _ := tx.Cursor().Seek([]byte(bucket))
		found = bytes.Equal(k, []byte(bucket)) || bytes.HasSuffix([]byte(bucket), []byte("::")) && bytes.HasPrefix(k, []byte(bucket))
		return nil
	})
	return found, err
}
