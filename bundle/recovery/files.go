package recovery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxEntries bounds what is listed of one folder; a medium is hostile.
const maxEntries = 100_000

// errNotRegular refuses links, pipes, devices and folders.
var errNotRegular = errors.New("not a regular file")

// openRegular opens a file for reading, and gives its size. What is opened is
// what was looked at, even if the medium changes meanwhile: an [os.Root]
// follows links that stay inside.
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

// list gives the entries of a folder, sorted by name.
func list(root *os.Root, name string) (entries []fs.DirEntry, err error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	entries, err = f.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("%s: more than %d entries", name, maxEntries)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	return entries, nil
}

// maxDepth bounds folders within folders. A bundle has one level.
const maxDepth = 8

// listFiles gives the files of a bundle's folder that are covered, sorted by
// path.
func listFiles(root *os.Root) ([]entry, error) {
	var files []entry
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		if depth > maxDepth {
			return fmt.Errorf("%s: folders deeper than %d", dir, maxDepth)
		}
		entries, err := list(root, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			switch {
			case !covered(name):
			case e.IsDir():
				if err := walk(name, depth+1); err != nil {
					return err
				}
			case e.Type().IsRegular():
				info, err := root.Lstat(name)
				if err != nil {
					return err
				}
				if files = append(files, entry{name, info.Size()}); len(files) > maxFiles {
					return fmt.Errorf("more than %d files", maxFiles)
				}
			}
		}
		return nil
	}
	if err := walk(".", 0); err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b entry) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	for _, f := range files {
		if err := artifact.CheckPath(f.Path); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// maxOpen bounds the files that are open at once: a column has at most so many
// rows, and each may lie in a file of its own.
const maxOpen = 256

// openFiles keeps files open that are read here and there. It is safe for
// concurrent use.
type openFiles struct {
	mu    sync.Mutex
	files map[fileKey]*openFile
	clock int64
}

type fileKey struct {
	root *os.Root
	name string
}

type openFile struct {
	f    *os.File
	used int64 // when, by the clock
	busy int   // readers
}

func newOpenFiles() *openFiles { return &openFiles{files: make(map[fileKey]*openFile)} }

// readAt fills p, or says why not.
func (o *openFiles) readAt(root *os.Root, name string, p []byte, off int64) error {
	key := fileKey{root, name}
	of, err := o.take(key)
	if err != nil {
		return err
	}
	defer o.release(of)
	if n, err := of.f.ReadAt(p, off); n < len(p) {
		return fmt.Errorf("read %s at %d: %w", name, off, err)
	}
	return nil
}

func (o *openFiles) take(key fileKey) (*openFile, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clock++
	of := o.files[key]
	if of == nil {
		if err := o.makeRoom(); err != nil {
			return nil, err
		}
		f, _, err := openRegular(key.root, key.name)
		if err != nil {
			return nil, err
		}
		of = &openFile{f: f}
		o.files[key] = of
	}
	of.used = o.clock
	of.busy++
	return of, nil
}

func (o *openFiles) release(of *openFile) {
	o.mu.Lock()
	of.busy--
	o.mu.Unlock()
}

// makeRoom closes the file that was not used for longest.
func (o *openFiles) makeRoom() error {
	if len(o.files) < maxOpen {
		return nil
	}
	var old fileKey
	least := int64(-1)
	for key, of := range o.files {
		if of.busy == 0 && (least < 0 || of.used < least) {
			old, least = key, of.used
		}
	}
	if least < 0 {
		return nil // there are fewer readers than files
	}
	f := o.files[old].f
	delete(o.files, old)
	return f.Close()
}

func (o *openFiles) close() error {
	var errs []error
	for _, of := range o.files {
		errs = append(errs, of.f.Close())
	}
	clear(o.files)
	return errors.Join(errs...)
}

// An output is a file that is being written.
type output interface {
	io.WriterAt
	Sync() error
	Close() error
}

// A disk is where a run writes; tests put a full one in its place.
type disk struct {
	create  func(root *os.Root, name string) (output, error)
	syncDir func(dir string) error
}

func realDisk() disk {
	return disk{
		create: func(root *os.Root, name string) (output, error) {
			f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
			if err != nil {
				return nil, err // not a nil *os.File in an interface
			}
			return f, nil
		},
		syncDir: durable.SyncDir,
	}
}
