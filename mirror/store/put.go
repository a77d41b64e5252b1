package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Put reads size bytes from r and keeps them as want. It does nothing, and
// does not read r, if want is present. Bytes of another length or digest are
// an ErrIntegrity refusal (STORE-SIZE, STORE-DIGEST) and leave nothing behind;
// an error of r is returned as it is, wrapped.
func (s *Store) Put(ctx context.Context, r io.Reader, want artifact.Digest, size int64) (err error) {
	if size < 0 {
		return fmt.Errorf("put %s: size %d is negative", want, size)
	}
	present, err := s.present(want, size)
	if present || err != nil {
		return err
	}
	return s.create(want, size, func(f *os.File) error {
		if p, ok := r.(Proven); ok && p.Proves() == want {
			return s.copyExactly(ctx, f, noHash{}, r, want, size)
		}
		h := sha256.New()
		if err := s.copyExactly(ctx, f, h, r, want, size); err != nil {
			return err
		}
		if got := artifact.Digest(h.Sum(nil)); got != want {
			return wrongDigest(want, got)
		}
		return nil
	})
}

// A Proven is a reader that hashes what it hands out itself, and gives io.EOF
// only where the whole is the digest that Proves names: otherwise the last of
// its reads fails. Its bytes are not hashed a second time.
type Proven interface {
	io.Reader
	Proves() artifact.Digest
}

// noHash is for bytes that are hashed elsewhere.
type noHash struct{ hash.Hash }

func (noHash) Write(p []byte) (int, error) { return len(p), nil }

// PutBytes keeps b and returns its digest.
func (s *Store) PutBytes(b []byte) (artifact.Digest, error) {
	d := artifact.Sum(b)
	size := int64(len(b))
	if s.intact(d, size) {
		return d, nil
	}
	err := s.create(d, size, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
	if err != nil {
		return artifact.Digest{}, err
	}
	return d, nil
}

// present reports whether d is there with the size that the caller was
// promised. Where the sizes differ, the blob's digest decides who is wrong:
// a damaged blob is quarantined, a wrong promise is refused.
func (s *Store) present(d artifact.Digest, size int64) (bool, error) {
	got, err := s.Size(d)
	if err != nil {
		return false, nil //nolint:nilerr // not there, or not to be read: it will be written
	}
	if got == size {
		return true, nil
	}
	f, err := s.File(d)
	if errors.Is(err, artifact.ErrIntegrity) {
		return false, nil // it has been moved away
	}
	if err != nil {
		return false, err
	}
	return false, errors.Join(wrongSize(d, size, strconv.FormatInt(got, 10)), f.Close())
}

// intact reports whether d is there, of the length that its bytes are known
// to have; a file of another length is moved to quarantine.
func (s *Store) intact(d artifact.Digest, size int64) bool {
	got, err := s.Size(d)
	if err != nil || got == size {
		return err == nil
	}
	f, err := s.File(d) // hashes, finds it damaged, moves it
	if err == nil {
		_ = f.Close() // opened for reading; nothing can be lost
	}
	return false
}

// create makes a temporary file, has fill write it, and publishes it as d.
func (s *Store) create(d artifact.Digest, size int64, fill func(*os.File) error) (err error) {
	f, err := os.CreateTemp(s.blobs, durable.TempPrefix)
	if err != nil {
		return fmt.Errorf("put %s: %w", d, s.spaced(err, size))
	}
	failpoint.Here("store.created")
	gone := false
	defer func() {
		if err != nil && !gone {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = fill(f)
	if err == nil {
		failpoint.Here("store.written")
		err = seal(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("put %s: %w", d, s.spaced(err, size))
	}
	gone, err = s.publish(f.Name(), d)
	if err != nil {
		return fmt.Errorf("put %s: %w", d, s.spaced(err, size))
	}
	return nil
}

// seal gives a finished file its mode and makes its bytes durable. It sets the
// modification time back by a second and an odd part of one: every later write
// then shows in it, however soon it comes, so that what was hashed on the way
// in need not be hashed again on the way out.
func seal(f *os.File) error {
	if err := f.Chmod(blobMode); err != nil {
		return err
	}
	now := time.Now()
	odd := time.Unix(now.Unix()-1, rand.Int64N(int64(time.Second))) //nolint:gosec // no secret
	if err := os.Chtimes(f.Name(), time.Time{}, odd); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	failpoint.Here("store.synced")
	return nil
}

// publish gives a sealed file the name of d, or removes it if somebody else
// was faster: both were verified. gone says that the old name is no more.
func (s *Store) publish(temp string, d artifact.Digest) (gone bool, err error) {
	sh := s.lock(d)
	defer sh.mu.Unlock()
	if s.sameSize(temp, d) {
		return true, os.Remove(temp)
	}
	dir := filepath.Dir(s.path(d))
	if !sh.durable {
		if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
			return false, err
		}
		failpoint.Here("store.folder-made")
		if err := durable.SyncDir(s.blobs); err != nil {
			return false, err
		}
		sh.durable = true
	}
	if err := os.Rename(temp, s.path(d)); err != nil {
		return false, err
	}
	delete(sh.verified, d)
	if id, err := identifyName(s.path(d)); err == nil {
		sh.remember(d, id) // every caller has hashed what it wrote
	}
	failpoint.Here("store.renamed")
	if err := durable.SyncDir(dir); err != nil {
		return true, err
	}
	failpoint.Here("store.committed")
	return true, nil
}

// sameSize reports whether d is there with the length of the file temp; with
// another length it is damaged, and about to be replaced.
func (s *Store) sameSize(temp string, d artifact.Digest) bool {
	there, err := s.size(d)
	if err != nil {
		return false
	}
	fi, err := os.Lstat(temp)
	return err == nil && fi.Size() == there
}

// copyExactly copies size bytes from r to w and h. One byte more or less is a
// refusal; nothing beyond size is written. While a piece is written the next
// one is read and hashed.
func (s *Store) copyExactly(ctx context.Context, w io.Writer, h hash.Hash, r io.Reader, d artifact.Digest, size int64) (err error) {
	buf, release := s.buffer()
	defer release()
	other, release2 := s.buffer()
	defer release2()
	behind := &behindWriter{w: w}
	defer func() { err = errors.Join(err, behind.wait()) }() // before the buffers are given back
	var n int64
	empty := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := r.Read(buf)
		if int64(m) > size-n {
			return wrongSize(d, size, "more")
		}
		if m > 0 {
			empty = 0
			_, _ = h.Write(buf[:m]) // hash.Hash never fails
			if err := behind.write(buf[:m]); err != nil {
				return err
			}
			buf, other = other, buf
			n += int64(m)
		} else if empty++; empty > maxEmptyReads {
			return fmt.Errorf("read: %w", io.ErrNoProgress)
		}
		switch {
		case errors.Is(err, io.EOF) && n < size:
			return wrongSize(d, size, strconv.FormatInt(n, 10))
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
	}
}

// A behindWriter writes one piece while its caller prepares the next, in
// another buffer.
type behindWriter struct {
	w    io.Writer
	done sync.WaitGroup
	p    []byte
	err  error // of the last write
}

// write takes p, which its caller must leave alone until the next call has
// returned. The error is that of the piece before.
func (b *behindWriter) write(p []byte) error {
	if err := b.wait(); err != nil {
		return err
	}
	b.p = p
	b.done.Add(1)
	go b.run()
	return nil
}

func (b *behindWriter) run() {
	defer b.done.Done()
	_, b.err = b.w.Write(b.p)
}

// wait ends with the last write and gives its error, once.
func (b *behindWriter) wait() error {
	b.done.Wait()
	err := b.err
	b.err = nil
	return err
}

// maxEmptyReads ends a reader that returns neither bytes nor an error.
const maxEmptyReads = 100

func wrongSize(d artifact.Digest, want int64, got string) *artifact.Refusal {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "STORE-SIZE", Subject: d.String(), Reason: "the number of bytes differs",
		Want: strconv.FormatInt(want, 10), Got: got,
	}
}

func wrongDigest(want, got artifact.Digest) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "STORE-DIGEST", Subject: want.String(), Reason: "the bytes have another digest",
		Want: want.String(), Got: got.String(),
	}
}

// Link gives the verified blob d the name name as well: by a hard link, or by
// a durable copy where the file system of name does not allow that. It
// replaces nothing; a name that holds the very same bytes is left as it is,
// any other is refused (STORE-LINK). The folder of name is fsynced.
func (s *Store) Link(d artifact.Digest, name string) (err error) {
	f, err := s.File(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = s.hardLink(d, f, name)
	switch {
	case err == nil:
		failpoint.Here("store.linked")
		return durable.SyncDir(filepath.Dir(name))
	case errors.Is(err, os.ErrExist):
		return s.sameBytes(d, f, name)
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EMLINK),
		errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS):
		if err := s.copyTo(d, f, name); err != nil {
			if errors.Is(err, os.ErrExist) {
				return s.sameBytes(d, f, name)
			}
			return fmt.Errorf("link %s: %w", d, err)
		}
		return nil
	default:
		return fmt.Errorf("link %s: %w", d, spaceError(err, filepath.Dir(name), 0))
	}
}

// hardLink links the very file that f has open. Its change time moves with
// the link count, so what is known about it moves along.
func (s *Store) hardLink(d artifact.Digest, f *os.File, name string) error {
	sh := s.lock(d)
	defer sh.mu.Unlock()
	before, err := identify(f)
	if err != nil {
		return err
	}
	if now, err := os.Lstat(s.path(d)); err != nil {
		return err
	} else if fi, err := f.Stat(); err != nil || !os.SameFile(fi, now) {
		return errors.Join(fmt.Errorf("%s was replaced meanwhile", s.path(d)), err)
	}
	if err := os.Link(s.path(d), name); err != nil {
		return err
	}
	after, err := identify(f)
	if err != nil {
		return err
	}
	if sh.verified[d] == before && before.sameContent(after) {
		sh.verified[d] = after
	}
	return nil
}

// copyTo copies f to name, hashing what it writes.
func (s *Store) copyTo(d artifact.Digest, f *os.File, name string) (err error) {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	dir := filepath.Dir(name)
	t, err := os.CreateTemp(dir, durable.TempPrefix)
	if err != nil {
		return spaceError(err, dir, fi.Size())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(t.Name()))
		}
	}()
	failpoint.Here("store.copy-created")
	h := sha256.New()
	err = s.copyExactly(context.Background(), t, h, io.NewSectionReader(f, 0, fi.Size()), d, fi.Size())
	if err == nil && artifact.Digest(h.Sum(nil)) != d {
		err = wrongDigest(d, artifact.Digest(h.Sum(nil)))
	}
	if err == nil {
		err = seal(t)
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return spaceError(err, dir, fi.Size())
	}
	if err := renameNew(t.Name(), name); err != nil {
		return err
	}
	failpoint.Here("store.copied")
	return durable.SyncDir(dir)
}

// renameNew renames and replaces nothing.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	// A file system without that flag. Its folder belongs to one publisher,
	// so nobody creates the name between the two calls.
	if _, err := os.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: os.ErrExist}
	}
	return os.Rename(from, to)
}

// sameBytes accepts an existing name if it holds d.
func (s *Store) sameBytes(d artifact.Digest, f *os.File, name string) (err error) {
	refuse := func(got string) error {
		return &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "STORE-LINK", Subject: name, Reason: "the name is taken by other bytes",
			Want: d.String(), Got: got,
		}
	}
	at, err := os.Lstat(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", d, err)
	}
	if !at.Mode().IsRegular() {
		return refuse(at.Mode().Type().String())
	}
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("link %s: %w", d, err)
	}
	if os.SameFile(fi, at) {
		return nil
	}
	if fi.Size() != at.Size() {
		return refuse(strconv.FormatInt(at.Size(), 10) + " bytes")
	}
	g, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", d, err)
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	got, _, err := s.hashFile(g)
	if err != nil {
		return fmt.Errorf("link %s: %w", d, err)
	}
	if got != d {
		return refuse(got.String())
	}
	return nil
}
