package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A medium is one folder that holds files of the bundle. It is hostile: it is
// opened through os.Root, so that no name leads outside, and only regular
// files are read, so that no pipe or device hangs the reader. Nothing is ever
// written to it.
type medium struct {
	dir  string
	root *os.Root
	vols *os.Root // nil where there is no folder of volumes
}

func openMedium(dir string) (*medium, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	m := &medium{dir: dir, root: root}
	if m.vols, err = m.sub(volumesDir); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return m, nil
}

// sub opens a folder of a medium; nil where there is none. A symlink is no
// folder.
func (m *medium) sub(name string) (*os.Root, error) {
	info, err := m.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.root.OpenRoot(name)
}

func (m *medium) close() error {
	var err error
	if m.vols != nil {
		err = m.vols.Close()
	}
	return errors.Join(err, m.root.Close())
}

// volumePath is for messages only; nothing is opened by it.
func (m *medium) volumePath(name string) string { return filepath.Join(m.dir, volumesDir, name) }

// errNotRegular refuses links, pipes, devices and folders.
var errNotRegular = errors.New("not a regular file")

// openRegular opens a file for reading. What is opened is what was looked
// at, even if the medium changes meanwhile.
func openRegular(root *os.Root, name string) (f *os.File, size int64, err error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !before.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %w", name, errNotRegular)
	}
	f, err = root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	after, err := f.Stat()
	if err == nil && (!after.Mode().IsRegular() || !os.SameFile(before, after)) {
		err = fmt.Errorf("%s: %w", name, errNotRegular)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, after.Size(), nil
}

// readDocument reads a JSON file from the first medium that has it.
func readDocument(media []*medium, name string, limit int64) ([]byte, error) {
	for _, m := range media {
		data, err := readSmall(m.root, name, limit)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(m.dir, name), err)
		}
		return data, nil
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func readSmall(root *os.Root, name string, limit int64) (data []byte, err error) {
	f, size, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > limit {
		return nil, fmt.Errorf("%d bytes, at most %d are read", size, limit)
	}
	data = make([]byte, size)
	// A file that grows meanwhile is read up to the size that it had.
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}

// A volumeSource is an open volume.
type volumeSource interface {
	io.ReaderAt
	io.Closer
}

// openVolume opens a volume of a medium.
func openVolume(m *medium, name string) (volumeSource, int64, error) {
	if m.vols == nil {
		return nil, 0, fs.ErrNotExist
	}
	f, size, err := openRegular(m.vols, name)
	if err != nil {
		return nil, 0, err
	}
	readAhead(f)
	return f, size, nil
}
