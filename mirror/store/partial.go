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

const (
	// maxValidator bounds an ETag or date. Real ones are below 100 bytes; a
	// longer one is worth less than the request header that it would fill.
	maxValidator = 1024
	// validatorExt names the file beside a partial one.
	validatorExt = ".validator"
)

// ErrBusy reports that another process, or goroutine, has a partial download
// open.
var ErrBusy = errors.New("this download is already under way")

// A Partial is a blob on its way in. What was written survives [Partial.Close]
// and a kill, and is hashed again when the download is opened again, so that
// [Partial.Commit] reads nothing. One goroutine uses it.
type Partial struct {
	s         *Store
	want      artifact.Digest
	size      int64
	f         *os.File // nil after Close or a successful Commit
	h         hash.Hash
	n         int64 // bytes in the file and in h
	validator string
}

// Partial opens the download of want, of which size bytes are expected, with
// whatever an earlier run left. Only one opener at a time has it; another gets
// an error matching [ErrBusy].
func (s *Store) Partial(want artifact.Digest, size int64) (_ *Partial, err error) {
	if size < 0 {
		return nil, fmt.Errorf("partial %s: size %d is negative", want, size)
	}
	p := &Partial{s: s, want: want, size: size, h: sha256.New()}
	if p.f, err = lockFile(p.name()); err != nil {
		return nil, fmt.Errorf("partial %s: %w", want, s.spaced(err, size))
	}
	failpoint.Here("store.partial-opened")
	if err := p.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("partial %s: %w", want, err), p.f.Close())
	}
	return p, nil
}

// lockFile opens name, creating it, and locks it for this opener alone.
func lockFile(name string) (*os.File, error) {
	// The holder may rename or remove the file between our open and our lock;
	// each such event is somebody else's progress, so a few rounds are enough.
	const rounds = 10
	for range rounds {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		ours, err := tryLock(f)
		if ours {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, ErrBusy
}

// tryLock locks f and reports whether its name still refers to it.
func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, ErrBusy
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	fi, err := f.Stat()
	if err != nil {
		return false, err
	}
	at, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(fi, at), err
}

// recover hashes the bytes that are there and reads their validator.
func (p *Partial) recover() error {
	fi, err := p.f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() == 0 || fi.Size() > p.size {
		return p.Reset()
	}
	if _, err := os.Lstat(p.name() + partsExt); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, p.Reset()) // in parts, with gaps between them
	}
	if p.n, err = p.s.hashInto(p.h, p.f); err != nil {
		return err
	}
	if _, err := p.f.Seek(p.n, io.SeekStart); err != nil {
		return err
	}
	p.validator, err = readValidator(p.name() + validatorExt)
	return err
}

func (p *Partial) name() string { return p.s.partialName(p.want) }

// partialName is where a download of d lies.
func (s *Store) partialName(d artifact.Digest) string { return filepath.Join(s.partial, d.Hex()) }

// Size is the number of bytes that are there.
func (p *Partial) Size() int64 { return p.n }

// Total is the number of bytes that are expected.
func (p *Partial) Total() int64 { return p.size }

// Write appends b. Bytes beyond the expected size are refused (STORE-SIZE) and
// none of b is written.
func (p *Partial) Write(b []byte) (int, error) {
	if p.f == nil {
		return 0, os.ErrClosed
	}
	if int64(len(b)) > p.size-p.n {
		return 0, wrongSize(p.want, p.size, "more")
	}
	n, err := p.f.Write(b)
	_, _ = p.h.Write(b[:n]) // hash.Hash never fails
	p.n += int64(n)
	if err != nil {
		return n, fmt.Errorf("partial %s: %w", p.want, p.s.spaced(err, p.size-p.n))
	}
	return n, nil
}

// Reset drops what is there, and its validator.
func (p *Partial) Reset() error {
	if p.f == nil {
		return os.ErrClosed
	}
	// The validator goes first: without one the bytes are merely suspect,
	// with that of other bytes they would be trusted wrongly.
	p.validator = ""
	if err := removeIfThere(p.name() + validatorExt); err != nil {
		return err
	}
	failpoint.Here("store.partial-reset")
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	if err := removeIfThere(p.name() + partsExt); err != nil {
		return err
	}
	if _, err := p.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	p.h.Reset()
	p.n = 0
	return nil
}

// Validator is what SetValidator kept for the bytes that are there, or empty.
func (p *Partial) Validator() string { return p.validator }

// SetValidator keeps the ETag or Last-Modified that the server gave for the
// bytes to come. An empty one, or one that cannot be a header's value, forgets
// the last.
//
// It is not fsynced: after a power failure the digest decides alone.
func (p *Partial) SetValidator(v string) error {
	if p.f == nil {
		return os.ErrClosed
	}
	name := p.name() + validatorExt
	if !validatorOK(v) {
		p.validator = ""
		return removeIfThere(name)
	}
	if v == p.validator {
		return nil
	}
	temp := filepath.Join(p.s.partial, durable.TempPrefix+filepath.Base(name))
	if err := os.WriteFile(temp, []byte(v), 0o600); err != nil {
		return fmt.Errorf("partial %s: %w", p.want, p.s.spaced(err, int64(len(v))))
	}
	failpoint.Here("store.validator-written")
	if err := os.Rename(temp, name); err != nil {
		return fmt.Errorf("partial %s: %w", p.want, err)
	}
	failpoint.Here("store.validator-renamed")
	p.validator = v
	return nil
}

// Commit makes the finished download a blob. If length or digest is wrong the
// bytes are dropped and the refusal is STORE-DIGEST; the Partial may then be
// written anew. After a success only Close is left to call.
func (p *Partial) Commit() error {
	if p.f == nil {
		return os.ErrClosed
	}
	if err := p.check(); err != nil {
		return errors.Join(err, p.Reset())
	}
	failpoint.Here("store.partial-complete")
	if err := seal(p.f); err != nil {
		return fmt.Errorf("partial %s: %w", p.want, p.s.spaced(err, 0))
	}
	if _, err := p.s.publish(p.name(), p.want); err != nil {
		return fmt.Errorf("partial %s: %w", p.want, p.s.spaced(err, 0))
	}
	err := errors.Join(removeIfThere(p.name()+validatorExt), p.f.Close())
	p.f = nil
	return err
}

func (p *Partial) check() error {
	if p.n != p.size {
		err := wrongSize(p.want, p.size, strconv.FormatInt(p.n, 10))
		err.Code = "STORE-DIGEST"
		return err
	}
	if got := artifact.Digest(p.h.Sum(nil)); got != p.want {
		return wrongDigest(p.want, got)
	}
	return nil
}

// Close keeps the bytes for the next time. It may be called again.
func (p *Partial) Close() error {
	if p.f == nil {
		return nil
	}
	var err error
	if p.n == 0 {
		err = errors.Join(removeIfThere(p.name()+validatorExt), os.Remove(p.name()))
	}
	err = errors.Join(err, p.f.Close()) // and unlocks
	p.f = nil
	return err
}

// sweepPartials is the part of [Store.Sweep] for downloads.
func (s *Store) sweepPartials(keep func(artifact.Digest) bool) error {
	names, err := sortedNames(s.partial)
	if err != nil {
		return err
	}
	for _, name := range names {
		hexDigits, isValidator := strings.CutSuffix(name, validatorExt)
		hexDigits, isRecord := strings.CutSuffix(hexDigits, partsExt)
		d, err := artifact.ParseHex(hexDigits)
		if err != nil {
			continue // not ours
		}
		full := filepath.Join(s.partial, name)
		wanted := keep != nil && keep(d) && !s.Has(d)
		if wanted && (isValidator || isRecord) {
			_, err = os.Lstat(filepath.Join(s.partial, hexDigits))
			wanted = err == nil
		}
		if wanted {
			continue
		}
		if err := removeIfThere(full); err != nil {
			return err
		}
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readValidator reads the file beside a partial one; what cannot have been
// written by SetValidator counts as none.
func readValidator(name string) (v string, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxValidator+1))
	if err != nil {
		return "", err
	}
	if !validatorOK(string(b)) {
		return "", nil
	}
	return string(b), nil
}

// validatorOK accepts printable ASCII, which is what a header may carry.
func validatorOK(v string) bool {
	if v == "" || len(v) > maxValidator {
		return false
	}
	for _, c := range []byte(v) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
