package store

import (
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

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxVerified bounds what a shard remembers as verified; a server of a
// million blobs remembers some ten thousand a shard and hashes the rest again.
const maxVerified = 16 << 10

// An identity is what changes when a file's bytes may have changed.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// sameContent ignores the change time, which moves with the link count too.
func (a identity) sameContent(b identity) bool {
	a.ctime, b.ctime = unix.Timespec{}, unix.Timespec{}
	return a == b
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil { //nolint:gosec // a descriptor is a small number
		return identity{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return identity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}

// open opens d's file without following a link.
func (s *Store) open(d artifact.Digest) (*os.File, error) {
	f, err := os.OpenFile(s.path(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return f, nil
}

// hashFile reads f to its end and returns digest and length.
func (s *Store) hashFile(f *os.File) (artifact.Digest, int64, error) {
	buf, release := s.buffer()
	defer release()
	h := sha256.New()
	// The wrapper hides WriterTo, which would bring its own buffer.
	n, err := io.CopyBuffer(h, struct{ io.Reader }{f}, buf)
	if err != nil {
		return artifact.Digest{}, 0, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return artifact.Digest(h.Sum(nil)), n, nil
}

// File opens d for serving or linking. All of it was hashed by this process,
// now or while the file was the very same (device, inode, size, mtime, ctime).
// A damaged blob is quarantined and refused (STORE-DAMAGED).
func (s *Store) File(d artifact.Digest) (*os.File, error) {
	f, err := s.open(d)
	if err != nil {
		return nil, err
	}
	if err := s.verify(d, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// verify hashes f unless it is known; several callers at once share the work.
func (s *Store) verify(d artifact.Digest, f *os.File) error {
	id, err := identify(f)
	if err != nil {
		return err
	}
	sh := s.lock(d)
	known := sh.verified[d] == id
	sh.mu.Unlock()
	if known {
		return nil
	}
	_, err, _ = s.flight.Do(d.Hex()+strconv.FormatUint(id.ino, 16), func() (any, error) {
		// A descriptor of its own: those of the callers keep their offset.
		g, err := s.open(d)
		if err != nil {
			return nil, err
		}
		got, n, err := s.hashFile(g)
		if err := errors.Join(err, g.Close()); err != nil {
			return nil, err
		}
		if got != d {
			return nil, s.damaged(d, fmt.Sprintf("%s, %d bytes", got, n))
		}
		s.remember(d, id)
		return nil, nil
	})
	return err
}

func (s *Store) remember(d artifact.Digest, id identity) {
	sh := s.lock(d)
	defer sh.mu.Unlock()
	if sh.verified == nil || len(sh.verified) >= maxVerified {
		sh.verified = make(map[artifact.Digest]identity)
	}
	sh.verified[d] = id
}

// damaged moves d's file to quarantine and makes the refusal that names it.
func (s *Store) damaged(d artifact.Digest, got string) error {
	place, err := s.isolate(d)
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "STORE-DAMAGED", Subject: place,
		Reason: "a blob of the store is damaged and was quarantined", Want: d.String(), Got: got, Err: err,
	}
}

// isolate renames d's file into quarantine; somebody else may have been
// faster.
func (s *Store) isolate(d artifact.Digest) (string, error) {
	sh := s.lock(d)
	defer sh.mu.Unlock()
	delete(sh.verified, d)
	from := s.path(d)
	for n := 1; ; n++ {
		to := filepath.Join(s.quarantine, d.Hex()+"-"+strconv.Itoa(n))
		err := renameNew(from, to)
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case errors.Is(err, fs.ErrNotExist):
			return from, nil
		case err != nil:
			return from, fmt.Errorf("quarantine: %w", err)
		}
		failpoint.Here("store.quarantined")
		return to, errors.Join(durable.SyncDir(s.quarantine), durable.SyncDir(filepath.Dir(from)))
	}
}

// Open reads d and hashes it on the way out. Where the bytes are not d's, the
// read that would have ended with io.EOF, or the first beyond the blob's
// size, is an ErrIntegrity refusal (STORE-DAMAGED), and the blob is
// quarantined. A caller must not use the bytes before it has seen io.EOF.
func (s *Store) Open(d artifact.Digest) (io.ReadCloser, error) {
	f, err := s.open(d)
	if err != nil {
		return nil, err
	}
	return &reader{s: s, d: d, f: f, h: sha256.New()}, nil
}

type reader struct {
	s   *Store
	d   artifact.Digest
	f   *os.File
	h   hash.Hash
	n   int64
	end error
}

// Read hashes what it returns.
func (r *reader) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	n, err := r.f.Read(p)
	_, _ = r.h.Write(p[:n]) // hash.Hash never fails
	r.n += int64(n)
	if err == nil {
		return n, nil
	}
	r.end = err
	if errors.Is(err, io.EOF) {
		if got := artifact.Digest(r.h.Sum(nil)); got != r.d {
			r.end = r.s.damaged(r.d, fmt.Sprintf("%s, %d bytes", got, r.n))
		}
	}
	return n, r.end
}

// Close closes the file.
func (r *reader) Close() error { return r.f.Close() }

// ReadAll returns the verified bytes of a blob of at most limit bytes.
func (s *Store) ReadAll(d artifact.Digest, limit int64) (b []byte, err error) {
	size, err := s.Size(d)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, at most %d are read", d, size, limit)
	}
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b = make([]byte, 0, size+1) // one more, so that the end is seen without growing
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		case len(b) == cap(b):
			return nil, s.damaged(d, "more bytes than its file had")
		}
	}
}

// Check hashes every blob and calls report for those that are damaged, which
// it moves to quarantine.
func (s *Store) Check(ctx context.Context, report func(error)) error {
	for d := range s.All {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := s.open(d)
		if err != nil {
			return err
		}
		got, n, err := s.hashFile(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if got != d {
			report(s.damaged(d, fmt.Sprintf("%s, %d bytes", got, n)))
		}
	}
	return nil
}
