package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxVerified bounds how many blobs of one shard are remembered as
	// verified: 16,384 in all, about 2 MiB. One that was forgotten is hashed
	// again.
	maxVerified = 64
	// clockTick is more than the granularity of a file system's time stamps:
	// a file that changed less than this before it was verified may change
	// again within the same tick, so that is not remembered. File systems
	// without sub-second stamps need coarseTick.
	clockTick  = 50 * time.Millisecond
	coarseTick = 2 * time.Second
)

// An identity tells a file from every other, and from itself before a change.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return identity{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return identity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}

// identifyName is identify for a name of the store's own.
func identifyName(name string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return identity{}, fmt.Errorf("stat %s: %w", name, err)
	}
	return identity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}

// sameContent ignores the change time, which moves with the link count too.
func (a identity) sameContent(b identity) bool {
	b.ctime = a.ctime
	return a == b
}

// settled reports whether every later change will show in the time stamps.
func (a identity) settled(now time.Time) bool {
	tick := clockTick
	if a.ctime%int64(time.Second) == 0 {
		tick = coarseTick
	}
	return now.Sub(time.Unix(0, a.ctime)).Abs() > tick
}

// open opens d's file, and nothing that a link leads to.
func (s *Store) open(d artifact.Digest) (*os.File, error) {
	f, err := os.OpenFile(s.path(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return f, nil
}

// File opens d for serving, after its whole content was verified: now, or
// earlier by this process while the file's device, inode, size and times are
// what they were. A damaged blob is quarantined and refused (STORE-DAMAGED).
func (s *Store) File(d artifact.Digest) (*os.File, error) {
	// A second round is needed only if the blob was replaced between the two
	// calls of the first.
	const rounds = 3
	for range rounds {
		f, err := s.open(d)
		if err != nil {
			return nil, err
		}
		ok, err := s.verify(d, f)
		if ok && err == nil {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("blob %s: %s keeps being replaced", d, s.path(d))
}

// verify reports whether f, opened from d's name, holds d.
func (s *Store) verify(d artifact.Digest, f *os.File) (bool, error) {
	id, err := identify(f)
	if err != nil {
		return false, err
	}
	sh := s.lock(d)
	known := sh.verified[d] == id
	sh.mu.Unlock()
	if known {
		return true, nil
	}
	v, err, _ := s.flight.Do(string(d[:]), func() (any, error) { return s.rehash(d) })
	if err != nil {
		return false, err
	}
	proven, ok := v.(identity)
	return ok && proven.sameContent(id), nil
}

// rehash reads all of d and answers which file it proved to be whole.
func (s *Store) rehash(d artifact.Digest) (id identity, err error) {
	f, err := s.open(d)
	if err != nil {
		return identity{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	began := time.Now()
	before, err := identify(f)
	if err != nil {
		return identity{}, err
	}
	got, _, err := s.hashFile(f)
	if err != nil {
		return identity{}, fmt.Errorf("blob %s: %w", d, err)
	}
	if got != d {
		return identity{}, s.damaged(d, f, got.String())
	}
	after, err := identify(f)
	if err != nil {
		return identity{}, err
	}
	if before == after && before.settled(began) {
		sh := s.lock(d)
		sh.remember(d, after)
		sh.mu.Unlock()
	}
	return after, nil
}

// remember notes a verified blob; the caller holds the lock.
func (sh *shard) remember(d artifact.Digest, id identity) {
	if sh.verified == nil {
		sh.verified = make(map[artifact.Digest]identity)
	}
	if len(sh.verified) >= maxVerified {
		for old := range sh.verified { // any: the map's order is random
			delete(sh.verified, old)
			break
		}
	}
	sh.verified[d] = id
}

// hashFile hashes f from its beginning, without moving its offset.
func (s *Store) hashFile(f *os.File) (artifact.Digest, int64, error) {
	h := sha256.New()
	n, err := s.hashInto(h, f)
	return artifact.Digest(h.Sum(nil)), n, err
}

func (s *Store) hashInto(h hash.Hash, f *os.File) (int64, error) {
	advise(f)
	buf, release := s.buffer()
	defer release()
	var n int64
	for {
		m, err := f.ReadAt(buf, n)
		_, _ = h.Write(buf[:m]) // hash.Hash never fails
		n += int64(m)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("read: %w", err)
		}
	}
}

// advise asks for read-ahead. It is a wish; some file systems have none.
func advise(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
}

// Open reads d and hashes what it hands out. If the bytes are not d, a Read
// fails with an ErrIntegrity refusal (STORE-DAMAGED) before the last of them
// and before io.EOF, and the blob is quarantined.
func (s *Store) Open(d artifact.Digest) (io.ReadCloser, error) {
	f, err := s.open(d)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("blob %s: %w", d, err), f.Close())
	}
	advise(f)
	return &reader{s: s, d: d, f: f, h: sha256.New(), left: fi.Size()}, nil
}

// ReadAll returns the verified bytes of d, of which there are at most limit.
func (s *Store) ReadAll(d artifact.Digest, limit int64) (b []byte, err error) {
	size, err := s.Size(d)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if size > limit {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "STORE-LIMIT", Subject: d.String(), Reason: "the blob is larger than a document of its kind may be",
			Want: fmt.Sprintf("at most %d bytes", limit), Got: strconv.FormatInt(size, 10),
		}
	}
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var buf bytes.Buffer
	buf.Grow(int(size) + bytes.MinRead)
	// The file may have grown since: the reader stops at what it saw when it
	// was opened, and one byte over the limit is enough to know.
	if _, err := io.Copy(&buf, io.LimitReader(r, limit+1)); err != nil {
		return nil, err
	}
	if int64(buf.Len()) > limit {
		return nil, fmt.Errorf("blob %s: grew beyond %d bytes while it was read", d, limit)
	}
	return buf.Bytes(), nil
}

// A reader hands out a blob and withholds its end until the digest is right.
type reader struct {
	s    *Store
	d    artifact.Digest
	f    *os.File
	h    hash.Hash
	left int64 // bytes of the file as it was when opened
	err  error // sticky
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n := 0
	if len(p) > 0 {
		var err error
		n, err = r.f.Read(p)
		if err != nil && !errors.Is(err, io.EOF) {
			r.err = fmt.Errorf("blob %s: read: %w", r.d, err)
			return 0, r.err
		}
		_, _ = r.h.Write(p[:n]) // hash.Hash never fails
		r.left -= int64(n)
	}
	if n > 0 && r.left > 0 {
		return n, nil
	}
	// At the end, or where a file ends that became shorter.
	if got := artifact.Digest(r.h.Sum(nil)); got != r.d {
		r.err = r.s.damaged(r.d, r.f, got.String())
		return 0, r.err
	}
	r.left, r.err = 0, io.EOF
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// WriteTo lets io.Copy use a pooled buffer.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	buf, release := r.s.buffer()
	defer release()
	var n int64
	for {
		m, err := r.Read(buf)
		if m > 0 {
			k, werr := w.Write(buf[:m])
			n += int64(k)
			if werr != nil {
				return n, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Proves names the blob: reading it ends with an error where it is damaged.
func (r *reader) Proves() artifact.Digest { return r.d }

func (r *reader) Close() error {
	if r.err == nil {
		r.err = os.ErrClosed
	}
	return r.f.Close()
}

// damaged moves the file that f has open to quarantine, if d's name still
// refers to it, and returns the refusal.
func (s *Store) damaged(d artifact.Digest, f *os.File, got string) error {
	moved, err := s.setAside(d, f)
	ref := &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "STORE-DAMAGED", Subject: s.path(d),
		Reason: "the stored bytes have changed", Want: d.String(), Got: got, Err: err,
	}
	if moved != "" {
		ref.Reason += "; the file is now " + moved
	}
	return ref
}

// setAside is the move; moved is empty if another goroutine was faster.
func (s *Store) setAside(d artifact.Digest, f *os.File) (moved string, err error) {
	sh := s.lock(d)
	defer sh.mu.Unlock()
	bad, err := f.Stat()
	if err != nil {
		return "", err
	}
	now, err := os.Lstat(s.path(d))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !os.SameFile(bad, now)) {
		return "", nil // moved, perhaps fetched again, meanwhile
	}
	if err != nil {
		return "", err
	}
	delete(sh.verified, d)
	name, err := s.quarantineName(d)
	if err != nil {
		// Better no evidence than a damaged blob that looks present.
		return "", errors.Join(err, os.Remove(s.path(d)), durable.SyncDir(filepath.Dir(s.path(d))))
	}
	failpoint.Here("store.quarantine-named")
	if err := os.Rename(s.path(d), name); err != nil {
		return "", err
	}
	failpoint.Here("store.quarantine-moved")
	return name, errors.Join(durable.SyncDir(s.quarantine), durable.SyncDir(filepath.Dir(s.path(d))))
}

// maxQuarantined bounds the evidence kept of one blob: a disk that damages it
// again and again must not fill up with it.
const maxQuarantined = 16

// quarantineName creates the first free name; the blob is renamed over it. The
// last one is used again and again.
func (s *Store) quarantineName(d artifact.Digest) (string, error) {
	for n := 1; ; n++ {
		name := filepath.Join(s.quarantine, d.Hex()+"-"+strconv.Itoa(n))
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			return name, f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if n == maxQuarantined {
			return name, nil
		}
	}
}

// Check hashes every blob, whatever is remembered of it, and calls report for
// each that is damaged or cannot be read. Damaged ones are quarantined.
func (s *Store) Check(ctx context.Context, report func(error)) error {
	for d := range s.All {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.rehash(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			report(err)
		}
	}
	return nil
}
