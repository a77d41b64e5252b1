// Package store keeps blobs by their SHA-256: each once, whole, and verified
// on the way in and on the way out. The layout below the store's folder is
//
//	blobs/sha256/ab/<64 hex digits>   finished blobs
//	partial/<64 hex digits>           downloads to be resumed, with .validator and .parts files
//	uploads/<32 hex digits>           what clients send, with .state files
//	alias/<2 characters>/<name>       other names of blobs, hints that may be gone
//	quarantine/<64 hex digits>-<n>    damaged blobs, kept as evidence
//
// Invariants:
//   - A name below blobs appears by rename, after length and digest were
//     found right and the bytes were fsynced; the folder is fsynced after it.
//     A call that reports a blob as present does so only when that is done.
//   - Bytes leave the store only if their digest was computed again. A damaged
//     blob is moved to quarantine and named in a STORE-DAMAGED refusal, and is
//     absent from then on, so that it is fetched again.
//   - Bytes are hashed once, while they are copied; the hash state of a
//     [Partial] is rebuilt from its bytes when it is opened.
//   - A process may be killed anywhere: what it leaves is a temporary file, a
//     partial file or a finished blob, and [Store.Sweep] knows them apart.
//
// A Store may be used by several goroutines at once, and its folder by several
// processes, except for [Store.Sweep]. All of the folder lies on one file
// system.
//
// Limits: files are copied through pooled buffers of [bufferSize]; what is
// remembered as verified is bounded by [maxVerified], the evidence kept of one
// blob by [maxQuarantined], a validator by [maxValidator].
package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// bufferSize is what one copy loop holds. Above 256 KiB neither the disk
	// nor SHA-256 gets faster.
	bufferSize = 256 << 10
	// dirMode and blobMode let a group read the store: an index server may run
	// under another user than the importer.
	dirMode  = 0o750
	blobMode = 0o640
	// shards is the number of folders below blobs/sha256, one a first byte.
	shards = 256
)

// A Store is a folder of blobs.
type Store struct {
	dir        string
	blobs      string // dir/blobs/sha256
	partial    string
	quarantine string

	buffers sync.Pool // *[]byte of bufferSize

	// shard[b] guards names and cached proofs of blobs whose first byte is b.
	// It is held for a rename and its folder's fsync, never for a copy.
	shard [shards]shard
	// flight joins verifications of one blob that are wanted at once.
	flight singleflight.Group
}

type shard struct {
	mu       sync.Mutex
	durable  bool // the folder is there and its parent was fsynced
	verified map[artifact.Digest]identity
}

// Open prepares the store in dir, creating what is missing.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		dir:        dir,
		blobs:      filepath.Join(dir, "blobs", "sha256"),
		partial:    filepath.Join(dir, "partial"),
		quarantine: filepath.Join(dir, "quarantine"),
	}
	s.buffers.New = func() any {
		b := make([]byte, bufferSize)
		return &b
	}
	for _, d := range []string{s.blobs, s.partial, s.quarantine} {
		if err := mkdirAll(d); err != nil {
			return nil, fmt.Errorf("open store: %w", s.spaced(err, 0))
		}
	}
	if err := s.findShards(); err != nil {
		return nil, fmt.Errorf("open store: %w", s.spaced(err, 0))
	}
	return s, nil
}

// findShards notes which folders below blobs exist, and makes them durable
// with one fsync: a killed run may not have got to that.
func (s *Store) findShards() error {
	names, err := sortedNames(s.blobs)
	if err != nil {
		return err
	}
	for _, n := range names {
		if b, err := strconv.ParseUint(n, 16, 8); err == nil && n == fmt.Sprintf("%02x", b) {
			s.shard[b].durable = true
		}
	}
	return durable.SyncDir(s.blobs)
}

// Has reports whether d is present. It does not look at the bytes.
func (s *Store) Has(d artifact.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Size is the length of d, or an error matching fs.ErrNotExist.
func (s *Store) Size(d artifact.Digest) (int64, error) {
	sh := s.lock(d)
	defer sh.mu.Unlock()
	return s.size(d)
}

// size is [Store.Size] under the shard's lock.
func (s *Store) size(d artifact.Digest) (int64, error) {
	fi, err := os.Lstat(s.path(d))
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file: %w", s.path(d), fs.ErrNotExist)
	}
	return fi.Size(), nil
}

// Is reports whether fi is of d's very file: a hard link of it, on the same
// device with the same inode. It does not look at the bytes. A link that was
// made before d was found damaged, or before the store was restored, leads to
// another file.
func (s *Store) Is(d artifact.Digest, fi fs.FileInfo) bool {
	blob, err := os.Lstat(s.path(d))
	return err == nil && blob.Mode().IsRegular() && os.SameFile(blob, fi)
}

// Free is the number of bytes that this user may still write.
func (s *Store) Free() (int64, error) { return free(s.dir) }

// All calls yield for every blob and its size, sorted by digest. It looks at
// names only, and passes over what it cannot read.
func (s *Store) All(yield func(artifact.Digest, int64) bool) {
	for b := range shards {
		dir := filepath.Join(s.blobs, fmt.Sprintf("%02x", b))
		entries, err := os.ReadDir(dir) // sorted by name
		if err != nil {
			continue // most likely not there: folders are made when needed
		}
		for _, e := range entries {
			d, err := artifact.ParseHex(e.Name())
			if err != nil || int(d[0]) != b || !e.Type().IsRegular() {
				continue
			}
			fi, err := e.Info()
			if err != nil {
				continue
			}
			if !yield(d, fi.Size()) {
				return
			}
		}
	}
}

// Sweep removes what killed runs left: temporary files, and partial downloads
// that keepPartial (nil keeps none) does not want or that are finished. It
// also makes names durable that a killed run gave without an fsync of their
// folder. The caller holds the lock that keeps other writers away.
func (s *Store) Sweep(keepPartial func(artifact.Digest) bool) error {
	for _, dir := range []string{s.blobs, s.partial} {
		if err := durable.Sweep(dir); err != nil {
			return fmt.Errorf("sweep store: %w", err)
		}
	}
	for b := range shards {
		dir := filepath.Join(s.blobs, fmt.Sprintf("%02x", b))
		if err := durable.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep store: %w", err)
		}
	}
	if err := errors.Join(s.sweepPartials(keepPartial), s.sweepAliases()); err != nil {
		return fmt.Errorf("sweep store: %w", err)
	}
	return durable.SyncDir(s.blobs)
}

// path is where d lies.
func (s *Store) path(d artifact.Digest) string {
	h := d.Hex()
	return filepath.Join(s.blobs, h[:2], h)
}

// lock locks d's shard.
func (s *Store) lock(d artifact.Digest) *shard {
	sh := &s.shard[d[0]]
	sh.mu.Lock()
	return sh
}

// buffer takes a copy buffer; release gives it back.
func (s *Store) buffer() (buf []byte, release func()) {
	b, ok := s.buffers.Get().(*[]byte)
	if !ok { // cannot happen: New makes nothing else
		n := make([]byte, bufferSize)
		b = &n
	}
	return *b, func() { s.buffers.Put(b) }
}

// mkdirAll creates dir and its missing parents, each durable in its parent.
func mkdirAll(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s: %w", dir, unix.ENOTDIR)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if err := mkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(parent)
}

// A SpaceError says that a file system is full, or the user's quota.
type SpaceError struct {
	Path         string // what could not be written
	Needed, Free int64  // bytes; Needed is 0 where it is not known
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: no space left: %d bytes needed, %d free", e.Path, e.Needed, e.Free)
}

// Is makes errors.Is(err, syscall.ENOSPC) match, as for an error of the
// system itself.
func (e *SpaceError) Is(target error) bool { return target == error(unix.ENOSPC) }

// spaced turns "no space left" into a *SpaceError and leaves other errors
// alone.
func (s *Store) spaced(err error, needed int64) error {
	return spaceError(err, s.dir, needed)
}

func spaceError(err error, path string, needed int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	left, ferr := free(path)
	if ferr != nil {
		left = 0 // the figure is for people; the error stands without it
	}
	return &SpaceError{Path: path, Needed: max(needed, 0), Free: left}
}

// free asks the file system of path.
func free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	// 2^40 blocks is beyond every real disk and keeps the product in range.
	blocks := int64(min(st.Bavail, 1<<40))
	return blocks * st.Bsize, nil
}

// sortedNames lists a folder's entries; a missing folder has none.
func sortedNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.SortFunc(names, cmp.Compare[string])
	return names, nil
}
