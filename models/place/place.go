package place

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	// Corner is the folder, below a place, for what is ours alone: records
	// and what is not finished.
	Corner = ".darkmirror"
	// FileMode lets those read who may read the store's blobs, whose mode a
	// hard link shares.
	FileMode = 0o640

	dirMode = 0o750 // as FileMode
	// lockPoll is how often a folder is asked for that another source writes.
	lockPoll = 200 * time.Millisecond
)

// A Place is a folder. Names in it are relative and have slashes.
type Place struct {
	root *os.Root
	st   *store.Store
	lock *os.File // nil: the lock is that of the place around it
}

// Open opens a folder, which it makes where there is none, and keeps every
// other writer of ours away from it until Close. It waits for one that is
// there.
func Open(ctx context.Context, dir string, st *store.Store) (*Place, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f, err := lock(ctx, root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Place{root, st, f}, nil
}

// Sub opens a folder of the place, which it makes where there is none, as one
// with a corner of its own. The lock stays that of p.
func (p *Place) Sub(rel string) (*Place, error) {
	if err := p.Mkdir(rel); err != nil {
		return nil, err
	}
	root, err := p.root.OpenRoot(rel)
	if err != nil {
		return nil, err
	}
	return &Place{root: root, st: p.st}, nil
}

// Close ends the work on a folder.
func (p *Place) Close() error {
	err := p.root.Close()
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// lock locks the folder itself, which is never removed, until the file is
// closed.
func lock(ctx context.Context, root *os.Root) (*os.File, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOSYS):
			// A file system that cannot lock a folder (NFS) has one writer, or
			// its operator's care.
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", root.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}

// Prepare makes the corner and takes away what a killed run left in it.
func (p *Place) Prepare() error {
	if err := p.Mkdir(Corner); err != nil {
		return err
	}
	entries, err := p.Entries(Corner)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			if err := p.root.RemoveAll(Corner + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Root is the folder itself, to look at what is there. Writing through it is
// for what needs no corner.
func (p *Place) Root() *os.Root { return p.root }

// Path names what lies there for people.
func (p *Place) Path(rel string) string {
	return filepath.Join(p.root.Name(), filepath.FromSlash(rel))
}

// Entries lists a folder; one that is not there has none.
func (p *Place) Entries(rel string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(p.root.FS(), rel)
	if Gone(err) {
		return nil, nil
	}
	return list, err
}

// Read returns the content of a file of at most limit bytes.
func (p *Place) Read(rel string, limit int64) ([]byte, error) {
	fi, err := p.root.Lstat(rel)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > limit {
		return nil, fmt.Errorf("not a file of up to %d bytes", limit)
	}
	return p.root.ReadFile(rel)
}

// Holds reports whether the file at rel holds b.
func (p *Place) Holds(rel string, b []byte) bool {
	is, err := p.Read(rel, int64(len(b)))
	return err == nil && bytes.Equal(is, b)
}

// ReadRecord reads a record, which is JSON of at most limit bytes. It returns
// an error for which [Gone] is true where there is none.
func (p *Place) ReadRecord(rel string, limit int64, record any) error {
	b, err := p.Read(rel, limit)
	if err == nil {
		err = strictjson.Unmarshal(b, record)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.Path(rel), err)
	}
	return nil
}

// EncodeRecord is the inverse of [Place.ReadRecord]; [Place.Write] puts it
// there.
func EncodeRecord(record any, limit int) ([]byte, error) {
	b, err := json.Marshal(record)
	if err == nil && len(b) > limit {
		err = fmt.Errorf("record of %d bytes, at most %d", len(b), limit)
	}
	return b, err
}

// Gone reports that there is nothing of that name.
func Gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// Stops reports that after this error nothing else would fare better.
func Stops(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}
