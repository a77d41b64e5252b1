package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// validatorSuffix marks the file that keeps a partial's ETag or date.
const validatorSuffix = ".validator"

// maxValidator bounds it; real ones have some 40 bytes.
const maxValidator = 1 << 10

// A Partial is a download that outlives its process. One Partial of a blob is
// open at a time, over all processes.
type Partial struct {
	s    *Store
	d    artifact.Digest
	f    *os.File
	h    hash.Hash
	size int64 // bytes there
	all  int64 // bytes wanted
	val  string
	done bool
}

// Partial opens the download of want, of size bytes in all, where an earlier
// one stopped: it hashes what is there, so that Commit needs no second pass.
func (s *Store) Partial(want artifact.Digest, size int64) (_ *Partial, err error) {
	if size < 0 {
		return nil, fmt.Errorf("partial %s: size %d is negative", want, size)
	}
	name := filepath.Join(s.partial, want.Hex())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, blobMode)
	if err != nil {
		return nil, fmt.Errorf("partial %s: %w", want, s.spaced(err, size))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor is a small number
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("partial %s: another download of it is running", want)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	// Whoever had the lock before may have committed this very file.
	here, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := os.Lstat(name); err != nil || !os.SameFile(here, now) {
		return nil, fmt.Errorf("partial %s: another download of it has just ended", want)
	}
	p := &Partial{s: s, d: want, f: f, h: sha256.New(), all: size}
	if here.Size() > size {
		return p, p.Reset()
	}
	buf, release := s.buffer()
	defer release()
	if p.size, err = io.CopyBuffer(p.h, struct{ io.Reader }{f}, buf); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if p.size > 0 {
		if p.val, err = readValidator(name + validatorSuffix); err != nil {
			return nil, err
		}
	}
	failpoint.Here("store.partial-opened")
	return p, nil
}

func readValidator(name string) (v string, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxValidator))
	return string(b), err
}

// Size is the number of bytes that are there.
func (p *Partial) Size() int64 { return p.size }

// Total is the number of bytes that the blob has.
func (p *Partial) Total() int64 { return p.all }

// Validator is what SetValidator kept for the bytes that are there.
func (p *Partial) Validator() string { return p.val }

// SetValidator keeps the ETag or date of the bytes that follow. An empty or
// overlong one is forgotten.
func (p *Partial) SetValidator(v string) error {
	if len(v) > maxValidator || strings.ContainsAny(v, "\r\n") {
		v = ""
	}
	name := p.f.Name() + validatorSuffix
	p.val = v
	if v == "" {
		return remove(name)
	}
	// Losing it in a crash costs nothing but the comparison, so no fsync.
	if err := os.WriteFile(name, []byte(v), blobMode); err != nil { //nolint:gosec // see blobMode
		return fmt.Errorf("partial %s: %w", p.d, p.s.spaced(err, int64(len(v))))
	}
	failpoint.Here("store.partial-validator")
	return nil
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Write appends b. Bytes beyond the total are refused (STORE-SIZE) and not
// written.
func (p *Partial) Write(b []byte) (int, error) {
	if int64(len(b)) > p.all-p.size {
		return 0, wrongSize(p.d, p.all, "more")
	}
	n, err := p.f.Write(b)
	_, _ = p.h.Write(b[:n]) // hash.Hash never fails
	p.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("partial %s: %w", p.d, p.s.spaced(err, p.all-p.size))
	}
	return n, nil
}

// Reset forgets all bytes.
func (p *Partial) Reset() error {
	if err := p.f.Truncate(0); err != nil {
		return fmt.Errorf("partial %s: %w", p.d, err)
	}
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("partial %s: %w", p.d, err)
	}
	p.h.Reset()
	p.size = 0
	failpoint.Here("store.partial-reset")
	return p.SetValidator("")
}

// Commit makes the bytes a blob. Where length or digest are wrong the bytes
// are removed, and the error is an ErrIntegrity refusal (STORE-SIZE,
// STORE-DIGEST); p may then be filled again.
func (p *Partial) Commit() error {
	if p.size != p.all {
		return errors.Join(wrongSize(p.d, p.all, strconv.FormatInt(p.size, 10)), p.Reset())
	}
	if got := artifact.Digest(p.h.Sum(nil)); got != p.d {
		return errors.Join(wrongDigest(p.d, got), p.Reset())
	}
	failpoint.Here("store.partial-verified")
	if err := seal(p.f); err != nil {
		return fmt.Errorf("partial %s: %w", p.d, p.s.spaced(err, p.all))
	}
	failpoint.Here("store.partial-sealed")
	if _, err := p.s.publish(p.f.Name(), p.d); err != nil {
		return fmt.Errorf("partial %s: %w", p.d, p.s.spaced(err, 0))
	}
	p.done = true
	failpoint.Here("store.partial-committed")
	return remove(p.f.Name() + validatorSuffix)
}

// Close ends the download; what was not committed stays for the next one.
func (p *Partial) Close() error {
	if !p.done && p.size == 0 {
		// Nothing to resume: leave no empty file behind.
		return errors.Join(remove(p.f.Name()), remove(p.f.Name()+validatorSuffix), p.f.Close())
	}
	return p.f.Close()
}

// sweepPartials removes downloads that are not wanted or that are finished.
func (s *Store) sweepPartials(keep func(artifact.Digest) bool) error {
	names, err := sortedNames(s.partial)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		d, err := artifact.ParseHex(strings.TrimSuffix(name, validatorSuffix))
		if err == nil && keep != nil && keep(d) && !s.Has(d) {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(s.partial, name)))
	}
	return errors.Join(append(errs, durable.SyncDir(s.partial))...)
}
