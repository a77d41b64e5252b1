package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxEntries bounds what is looked at in one folder, chosen or not.
	maxEntries = 1_000_000
	// maxRounds is how often a folder is looked at that changes meanwhile:
	// an updater replaces a file in a moment, a copy that goes on is not
	// waited for.
	maxRounds = 5
	// roundPause lies between two rounds.
	roundPause = 200 * time.Millisecond
)

// An identity tells a file from every other, and from itself before a change.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func identify(fi fs.FileInfo) (identity, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, fmt.Errorf("%s: no status", fi.Name())
	}
	return identity{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// A folder is one folder of this host on its way to being one state.
type folder struct {
	root    *os.Root
	subject string
	want    patterns
	entries int
}

// A hashed is a file as it was when it was read.
type hashed struct {
	is     identity
	digest artifact.Digest
}

// read lists and hashes the files. It looks at the folder again afterwards,
// and reads again what has changed, until nothing has. newest is the time of
// the newest file.
func (f *folder) read(ctx context.Context) (list []setFile, newest time.Time, err error) {
	known := make(map[string]hashed)
	var names map[string]identity
	for round := range maxRounds {
		if names, err = f.list(ctx); err != nil {
			return nil, newest, err
		}
		read := false
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if known[name].is == names[name] {
				continue
			}
			read = true
			if known[name], err = f.hash(ctx, name); err != nil {
				return nil, newest, err
			}
		}
		if !read {
			break
		}
		if round == maxRounds-1 {
			return nil, newest, f.refuse(CodeChanging, fmt.Sprintf("it changed each of the %d times that it was read", maxRounds), nil)
		}
		if round > 0 {
			if err := pause(ctx, roundPause); err != nil {
				return nil, newest, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		h := known[name]
		list = append(list, setFile{path: name, digest: h.digest, size: h.is.size})
		if t := time.Unix(0, h.is.mtime); t.After(newest) {
			newest = t
		}
	}
	return list, newest, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// list names the chosen files of the folder.
func (f *folder) list(ctx context.Context) (map[string]identity, error) {
	f.entries = 0
	names := make(map[string]identity)
	return names, f.walk(ctx, ".", names)
}

func (f *folder) walk(ctx context.Context, dir string, names map[string]identity) error {
	entries, err := fs.ReadDir(f.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) && dir != "." {
		return nil // it went while we looked; the next round sees that
	}
	if err != nil {
		return f.refuse(CodeFile, "the folder cannot be read", err)
	}
	if f.entries += len(entries); f.entries > maxEntries {
		return f.refuse(CodeLimit, fmt.Sprintf("over %d entries are in it", maxEntries), nil)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := e.Name()
		if dir != "." {
			name = dir + "/" + name
		}
		if err := f.entry(ctx, name, e, names); err != nil {
			return err
		}
		if len(names) > maxSetFiles {
			return f.refuse(CodeLimit, fmt.Sprintf("over %d files; match chooses among them, or make it several sets", maxSetFiles), nil)
		}
	}
	return nil
}

// entry looks at one name. A link counts as the file that it leads to inside
// of the folder; one to a folder is refused where files below it are wanted,
// since what is reached on two ways could have no end.
func (f *folder) entry(ctx context.Context, name string, e fs.DirEntry, names map[string]identity) error {
	if e.IsDir() {
		if f.want.below(name) {
			return f.walk(ctx, name, names)
		}
		return nil
	}
	wanted := f.want.match(name)
	link := e.Type()&fs.ModeSymlink != 0
	if !wanted && (!link || !f.want.below(name)) {
		return nil
	}
	fi, err := f.root.Stat(name)
	switch {
	case err != nil && !link && errors.Is(err, fs.ErrNotExist):
		return nil // as above
	case err != nil && link && wanted:
		return f.refuse(CodeLink, fmt.Sprintf("the link %q leads out of it, or nowhere", clip(name)), err)
	case err != nil && link:
		return nil // whatever it is, it is not a folder in here
	case err != nil:
		return f.refuse(CodeFile, fmt.Sprintf("%q cannot be read", clip(name)), err)
	case fi.IsDir():
		return f.refuse(CodeLink, fmt.Sprintf("the link %q leads to a folder, which is not followed", clip(name)), nil)
	case !wanted:
		return nil
	case !fi.Mode().IsRegular():
		return f.refuse(CodeFile, fmt.Sprintf("%q is no regular file; match leaves it out", clip(name)), nil)
	}
	if err := artifact.CheckPath(name); err != nil {
		return f.refuse(CodePath, "a name that cannot be carried", err)
	}
	id, err := identify(fi)
	names[name] = id
	return err
}

// hash reads a file. Where it changes meanwhile, the identity is that of no
// file.
func (f *folder) hash(ctx context.Context, name string) (h hashed, err error) {
	file, err := openRegular(f.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return hashed{}, nil
	}
	if err != nil {
		return hashed{}, f.refuse(CodeFile, fmt.Sprintf("%q cannot be read", clip(name)), err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	before, err := stat(file)
	if err != nil {
		return hashed{}, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(until(ctx, file), before.size+1))
	if ctx.Err() != nil {
		return hashed{}, ctx.Err()
	}
	if err != nil {
		return hashed{}, f.refuse(CodeFile, fmt.Sprintf("%q cannot be read", clip(name)), err)
	}
	after, err := stat(file)
	if err != nil || after != before || n != before.size {
		return hashed{}, err
	}
	return hashed{is: before, digest: artifact.Digest(sum.Sum(nil))}, nil
}

func (f *folder) refuse(code, reason string, err error) error {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: f.subject, Reason: reason, Err: err}
}

// openRegular opens a regular file, and does not wait for the other end of
// anything else.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func stat(f *os.File) (identity, error) {
	fi, err := f.Stat()
	if err != nil {
		return identity{}, err
	}
	return identify(fi)
}

// A readerFunc reads.
type readerFunc func([]byte) (int, error)

func (r readerFunc) Read(p []byte) (int, error) { return r(p) }

// until reads r as long as the context lasts.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
