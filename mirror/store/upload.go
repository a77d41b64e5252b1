package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// uploadDir lies beside partial; it is made when it is first needed.
	uploadDir = "uploads"
	// uploadID is the length of an upload's name in bytes: nobody guesses it.
	uploadID = 16
	// flushEvery is after how many bytes the kernel is asked to begin writing
	// them to the disk, so that the fsync at the end has little left to do.
	flushEvery = 8 << 20
)

// An Upload is a blob on its way in whose digest the sender tells last. It
// lies in uploads/<32 hex digits>. What was written survives [Upload.Close]
// and a kill of the process; its hash state is kept by Close, so that an
// upload in N pieces is hashed once. One goroutine uses it.
type Upload struct {
	s       *Store
	id      string
	f       *os.File // nil after Close, Discard or a successful Commit
	h       hash.Hash
	n       int64 // bytes in the file and in h
	saved   int64 // bytes in the kept hash state
	flushed int64 // bytes that the kernel was asked to write
}

// NewUpload begins one.
func (s *Store) NewUpload() (*Upload, error) {
	if err := mkdirAll(filepath.Join(s.dir, uploadDir)); err != nil {
		return nil, fmt.Errorf("upload: %w", s.spaced(err, 0))
	}
	var b [uploadID]byte
	_, _ = rand.Read(b[:]) // never fails
	u := &Upload{s: s, id: hex.EncodeToString(b[:]), h: sha256.New()}
	f, err := os.OpenFile(u.name(), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("upload: %w", s.spaced(err, 0))
	}
	failpoint.Here("store.upload-created")
	u.f = f
	if ours, err := tryLock(f); err != nil || !ours {
		return nil, errors.Join(fmt.Errorf("upload %s: cannot be locked", u.id), err, u.Discard())
	}
	return u, nil
}

// ResumeUpload opens an upload again, with everything that was written to it.
// The error matches fs.ErrNotExist if there is none of that name, and
// [ErrBusy] if somebody has it open.
func (s *Store) ResumeUpload(id string) (*Upload, error) {
	if !uploadIDOK(id) {
		return nil, fmt.Errorf("upload: not an upload's name: %w", fs.ErrNotExist)
	}
	u := &Upload{s: s, id: id, h: sha256.New()}
	f, err := os.OpenFile(u.name(), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	ours, err := tryLock(f)
	if err == nil && !ours {
		err = fs.ErrNotExist // finished or given up between the two calls
	}
	if err == nil {
		u.f = f
		err = u.recover()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("upload %s: %w", id, err), f.Close())
	}
	return u, nil
}

// uploadIDOK accepts what NewUpload makes: the name of a file comes from
// outside.
func uploadIDOK(id string) bool {
	return len(id) == 2*uploadID && strings.Trim(id, "0123456789abcdef") == ""
}

// recover takes the kept hash state, if it is of this very file, and hashes
// the bytes that it does not cover.
func (u *Upload) recover() error {
	u.n = u.loadState()
	u.saved = u.n
	if _, err := u.f.Seek(u.n, io.SeekStart); err != nil {
		return err
	}
	buf, release := u.s.buffer()
	defer release()
	for {
		m, err := u.f.Read(buf)
		_, _ = u.h.Write(buf[:m]) // hash.Hash never fails
		u.n += int64(m)
		if errors.Is(err, io.EOF) {
			u.flushed = u.n
			return nil
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
}

func (u *Upload) name() string { return filepath.Join(u.s.dir, uploadDir, u.id) }

// ID names the upload for [Store.ResumeUpload].
func (u *Upload) ID() string { return u.id }

// Size is the number of bytes that are there.
func (u *Upload) Size() int64 { return u.n }

// Sum is the digest of the bytes that are there.
func (u *Upload) Sum() artifact.Digest { return artifact.Digest(u.h.Sum(nil)) }

// Reader reads the bytes that are there from the first one, for a second hash
// algorithm. It does not move where Write goes on.
func (u *Upload) Reader() io.Reader { return io.NewSectionReader(u.f, 0, u.n) }

// Write appends b.
func (u *Upload) Write(b []byte) (int, error) {
	if u.f == nil {
		return 0, os.ErrClosed
	}
	n, err := u.f.Write(b)
	_, _ = u.h.Write(b[:n]) // hash.Hash never fails
	u.n += int64(n)
	if err != nil {
		return n, fmt.Errorf("upload %s: %w", u.id, u.s.spaced(err, int64(len(b)-n)))
	}
	if u.n-u.flushed >= flushEvery {
		u.flush()
	}
	return n, nil
}

// flush begins to write what is dirty. It is a wish: the fsync of Commit
// counts, and finds less to do.
func (u *Upload) flush() {
	_ = unix.SyncFileRange(int(u.f.Fd()), u.flushed, u.n-u.flushed, unix.SYNC_FILE_RANGE_WRITE)
	u.flushed = u.n
}

// ReadFrom appends all of r, a full buffer at a time, and returns how many
// bytes of r are there. An error of r is returned as it is; everything that
// was read before it is kept.
func (u *Upload) ReadFrom(r io.Reader) (int64, error) {
	buf, release := u.s.buffer()
	defer release()
	var total int64
	for {
		n, rerr := fill(r, buf)
		m, err := u.Write(buf[:n])
		total += int64(m)
		if err != nil {
			return total, err
		}
		if errors.Is(rerr, io.EOF) {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// fill reads until buf is full or r ends; unlike io.ReadFull it tells an end
// (io.EOF) from a broken line (any other error), whatever was read before.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for empty := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return n, err
		}
		if m > 0 {
			empty = 0
		} else if empty++; empty > maxEmptyReads {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// Commit makes what was written a blob and returns its digest. The caller has
// compared [Upload.Sum] with what the sender promised. After a success only
// Close is left to call.
func (u *Upload) Commit() (artifact.Digest, error) {
	if u.f == nil {
		return artifact.Digest{}, os.ErrClosed
	}
	d := u.Sum()
	failpoint.Here("store.upload-complete")
	if err := seal(u.f); err != nil {
		return artifact.Digest{}, fmt.Errorf("upload %s: %w", u.id, u.s.spaced(err, 0))
	}
	if _, err := u.s.publish(u.name(), d); err != nil {
		return artifact.Digest{}, fmt.Errorf("upload %s: %w", u.id, u.s.spaced(err, 0))
	}
	failpoint.Here("store.upload-published")
	err := errors.Join(removeIfThere(u.name()+stateExt), u.f.Close())
	u.f = nil
	if err != nil {
		return artifact.Digest{}, fmt.Errorf("upload %s: %w", u.id, err)
	}
	return d, nil
}

// Discard drops the upload. It may be called instead of Close.
func (u *Upload) Discard() error {
	if u.f == nil {
		return nil
	}
	err := errors.Join(removeIfThere(u.name()), removeIfThere(u.name()+stateExt), u.f.Close())
	u.f = nil
	return err
}

// Close keeps the upload for the next time. It may be called again.
func (u *Upload) Close() error {
	if u.f == nil {
		return nil
	}
	var err error
	if u.n != u.saved {
		err = u.saveState()
	}
	err = errors.Join(err, u.f.Close()) // and unlocks
	u.f = nil
	return err
}

// UploadSize is the number of bytes that an upload has, whoever writes to it
// at the moment; the error matches fs.ErrNotExist if there is none.
func (s *Store) UploadSize(id string) (int64, error) {
	if !uploadIDOK(id) {
		return 0, fmt.Errorf("upload: not an upload's name: %w", fs.ErrNotExist)
	}
	fi, err := os.Lstat(filepath.Join(s.dir, uploadDir, id))
	if err != nil {
		return 0, fmt.Errorf("upload: %w", err)
	}
	return fi.Size(), nil
}

// Uploads counts the uploads that are not finished.
func (s *Store) Uploads() (int, error) {
	names, err := sortedNames(filepath.Join(s.dir, uploadDir))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		if uploadIDOK(name) {
			n++
		}
	}
	return n, nil
}

// SweepUploads removes uploads to which nothing was written for olderThan
// before now, and what killed processes left beside them. One that somebody
// has open stays, so it may run at any time.
func (s *Store) SweepUploads(olderThan time.Duration, now time.Time) error {
	dir := filepath.Join(s.dir, uploadDir)
	names, err := sortedNames(dir)
	if err != nil {
		return fmt.Errorf("sweep uploads: %w", err)
	}
	for _, name := range names {
		id, _ := strings.CutSuffix(name, stateExt)
		ours := uploadIDOK(id) || strings.HasPrefix(name, durable.TempPrefix)
		fi, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || !ours || err == nil && now.Sub(fi.ModTime()) < olderThan {
			continue
		}
		if err == nil && id == name && uploadIDOK(id) {
			err = s.expire(id, olderThan, now)
		} else if err == nil {
			err = s.removeOrphan(name, id)
		}
		if err != nil {
			return fmt.Errorf("sweep uploads: %w", err)
		}
	}
	return nil
}

// expire removes one upload, if nobody has it open or has written to it
// meanwhile.
func (s *Store) expire(id string, olderThan time.Duration, now time.Time) error {
	u := &Upload{s: s, id: id}
	f, err := os.OpenFile(u.name(), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	u.f = f
	ours, err := tryLock(f)
	if errors.Is(err, ErrBusy) || err == nil && !ours {
		return f.Close()
	}
	fi, serr := f.Stat()
	if err = errors.Join(err, serr); err != nil {
		return errors.Join(err, f.Close())
	}
	if now.Sub(fi.ModTime()) < olderThan {
		return f.Close()
	}
	failpoint.Here("store.upload-expired")
	return u.Discard()
}

// removeOrphan removes a temporary file, or a hash state without its upload.
func (s *Store) removeOrphan(name, id string) error {
	dir := filepath.Join(s.dir, uploadDir)
	if _, err := os.Lstat(filepath.Join(dir, id)); err == nil && id != name {
		return nil // its upload decides
	}
	return removeIfThere(filepath.Join(dir, name))
}
