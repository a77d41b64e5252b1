package carry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// chunkSize is one read or write.
const chunkSize = 1 << 20

// A layer is a medium's file system as a run uses it; tests put a broken stick
// in its place.
type layer interface {
	space(root *os.Root) (space, error)
	create(root *os.Root, name string) (output, error)
	// reread opens a file so that its bytes come from the device, and gives
	// its size. Each read is into the start of an aligned buffer.
	reread(root *os.Root, name string) (io.ReadCloser, int64, error)
}

// An output is a file that is being written.
type output interface {
	io.Writer
	Sync() error
	Close() error
}

// space is what a file system says of itself.
type space struct {
	free    int64
	block   int64 // what a file's size is rounded up to
	maxFile int64
	kind    string // for people, where maxFile is a limit
}

// put writes one file under its name: data, or the item of the source. Errors
// that are the medium's are of type *fault.
func (m *medium) put(ctx context.Context, it item, data []byte) error {
	if err := m.root.MkdirAll(path.Dir(m.path(it.name)), dirMode); err != nil {
		return m.fails("make a folder for "+it.name, err)
	}
	tmp := tempName(it.name)
	if err := m.write(ctx, tmp, it, data); err != nil {
		// Where this fails too, the next run sweeps.
		_ = m.root.Remove(m.path(tmp))
		return err
	}
	if err := m.root.Rename(m.path(tmp), m.path(it.name)); err != nil {
		return m.fails("rename "+tmp, err)
	}
	failpoint.Here("carry.renamed")
	if err := m.syncDirs(path.Dir(it.name)); err != nil {
		return err
	}
	failpoint.Here("carry.folder-synced")
	return nil
}

// write fills and checks the temporary file.
func (m *medium) write(ctx context.Context, tmp string, it item, data []byte) error {
	if err := m.remove(tmp); err != nil {
		return err
	}
	f, err := m.layer.create(m.root, m.path(tmp))
	if err != nil {
		return m.fails("create "+it.name, err)
	}
	failpoint.Here("carry.created")
	err = m.fill(ctx, f, it, data)
	failpoint.Here("carry.written")
	if err == nil {
		if serr := f.Sync(); serr != nil {
			err = m.fails("sync "+it.name, serr)
		}
	}
	failpoint.Here("carry.synced")
	if cerr := f.Close(); cerr != nil && err == nil {
		err = m.fails("close "+it.name, cerr)
	}
	if err != nil || !m.verify {
		return err
	}
	if err := m.reread(ctx, tmp, it); err != nil {
		return err
	}
	failpoint.Here("carry.verified")
	return nil
}

func (m *medium) fill(ctx context.Context, f output, it item, data []byte) error {
	use := func(p []byte) error {
		if m.pace != nil {
			if err := m.pace.WaitN(ctx, len(p)); err != nil {
				return err
			}
		}
		if _, err := f.Write(p); err != nil {
			return m.fails("write "+it.name, err)
		}
		return nil
	}
	if data != nil {
		for len(data) > 0 {
			n := min(len(data), chunkSize)
			if err := use(data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
		return nil
	}
	return m.src.read(ctx, it, m.buf, func(p []byte) error {
		m.event(artifact.Event{Stage: "carry", Item: it.name, Bytes: int64(len(p))})
		return use(p)
	})
}

// reread compares a file on the medium with an item, past the page cache.
func (m *medium) reread(ctx context.Context, name string, it item) (err error) {
	f, size, err := m.layer.reread(m.root, m.path(name))
	if err != nil {
		return m.fails("read back "+it.name, err)
	}
	defer func() {
		if cerr := f.Close(); cerr != nil && err == nil {
			err = m.fails("read back "+it.name, cerr)
		}
	}()
	h := sha256.New()
	for got := int64(0); size == it.size && got < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(m.buf)
		if n == 0 && err == nil {
			err = io.ErrNoProgress
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return m.fails("read back "+it.name, err)
		}
		if n == 0 {
			break // shorter than it says; the digest will differ
		}
		_, _ = h.Write(m.buf[:n]) // a hash does not fail
		got += int64(n)
		m.event(artifact.Event{Stage: "reread", Item: it.name, Bytes: int64(n)})
	}
	if size != it.size || artifact.Digest(h.Sum(nil)) != it.sum {
		return m.fails(it.name, errDiffers)
	}
	return nil
}

// syncDirs syncs a folder of the bundle and those above it, so that the names
// survive a power loss.
func (m *medium) syncDirs(dir string) error {
	dirs := []string{m.path(dir)}
	if dir != "." {
		dirs = append(dirs, m.folder)
	}
	for _, d := range append(dirs, ".") {
		if err := m.syncOpen(d, (*os.File).Sync); err != nil {
			return m.fails("sync folder "+d, err)
		}
	}
	return nil
}

// syncAll hands the whole file system to the device: whoever pulls the stick
// now loses nothing.
func (m *medium) syncAll() error {
	if err := m.syncOpen(".", syncFS); err != nil {
		return m.fails("sync", err)
	}
	failpoint.Here("carry.all-synced")
	return nil
}

func (m *medium) syncOpen(dir string, sync func(*os.File) error) error {
	d, err := m.root.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(sync(d), d.Close()); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
