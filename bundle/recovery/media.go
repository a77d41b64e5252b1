package recovery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A folder holds files of the bundle, on one medium. It is hostile: it is
// opened through os.Root, and only regular files are read.
type folder struct {
	root *os.Root
	sub  string // in root; "" for root itself
}

// name is a file's, below root.
func (f *folder) name(name string) string { return path.Join(f.sub, name) }

// String is for people.
func (f *folder) String() string { return filepath.Join(f.root.Name(), f.sub) }

// openMedia opens media and finds their recovery files' index.
func openMedia(media []string) (_ *set, folders []*folder, err error) {
	if len(media) == 0 {
		return nil, nil, errors.New("recovery: no medium is given")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeMedia(folders))
		}
	}()
	places := []*folder{}
	for _, dir := range media {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, folders, fmt.Errorf("open medium: %w", err)
		}
		f := &folder{root: root}
		folders = append(folders, f)
		if places, err = f.places(places); err != nil {
			return nil, folders, fmt.Errorf("open medium %s: %w", dir, err)
		}
	}
	s, err := findSet(places)
	if err != nil {
		return nil, folders, err
	}
	for _, f := range folders {
		// The medium is the bundle's folder, or holds it.
		if info, err := f.root.Lstat(s.Bundle); err == nil && info.IsDir() {
			f.sub = s.Bundle
		}
	}
	folders, err = withoutTwins(folders)
	return s, folders, err
}

func closeMedia(folders []*folder) error {
	var errs []error
	for _, f := range folders {
		errs = append(errs, f.root.Close())
	}
	return errors.Join(errs...)
}

// places adds where a medium may have recovery files: in the folder itself, or
// in those in it.
func (f *folder) places(to []*folder) ([]*folder, error) {
	to = append(to, f)
	entries, err := list(f.root, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && checkName(e.Name()) == nil { // of the entry itself: false for a symlink
			to = append(to, &folder{f.root, e.Name()})
		}
	}
	return to, nil
}

// withoutTwins closes folders that were given twice.
func withoutTwins(folders []*folder) ([]*folder, error) {
	var once []*folder
	var seen []os.FileInfo
	var errs []error
	for _, f := range folders {
		info, err := f.root.Stat(f.name("."))
		if err == nil && slices.ContainsFunc(seen, func(i os.FileInfo) bool { return os.SameFile(i, info) }) {
			errs = append(errs, f.root.Close())
			continue
		}
		once = append(once, f)
		errs = append(errs, err)
		seen = append(seen, info)
	}
	return once, errors.Join(errs...)
}

// recoveryFiles lists the recovery files in a folder.
func (f *folder) recoveryFiles() []string {
	entries, err := list(f.root, f.name(recoveryDir))
	if err != nil {
		return nil // what cannot be listed has none
	}
	var names []string
	for _, e := range entries {
		if _, ok := fileNumber(e.Name()); ok && e.Type().IsRegular() {
			names = append(names, f.name(path.Join(recoveryDir, e.Name())))
		}
	}
	return names
}

// findSet reads an index. Every copy has one digest, unless files of different
// makings are mixed, which is refused.
func findSet(places []*folder) (*set, error) {
	var s *set
	var from string
	files := 0
	var bad error
	for _, f := range places {
		for _, name := range f.recoveryFiles() {
			files++
			at := filepath.Join(f.root.Name(), filepath.FromSlash(name))
			other, err := readSet(f.root, name, s)
			switch {
			case err != nil:
				bad = fmt.Errorf("%s: %w", at, err)
			case s == nil:
				s, from = other, at
			case other != s:
				return nil, refusal(CodeFormat, at, fmt.Sprintf("it is of another making than %s, or for another bundle: name the bundle's folder, or remove one of them", from), nil)
			}
		}
	}
	if s == nil {
		subject := places[0].String()
		if len(places) > 1 {
			subject += " and others"
		}
		return nil, refusal(CodeFormat, subject, fmt.Sprintf("no usable index in %d recovery files", files), bad)
	}
	return s, nil
}

// readSet reads an index from one of the two places in a recovery file. Where
// it is the one that is known, it is not read again.
func readSet(root *os.Root, name string, known *set) (s *set, err error) {
	f, size, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, atEnd := range []bool{false, true} {
		var one error
		if s, one = readCopy(f, size, atEnd, known); one == nil {
			return s, nil
		}
		err = errors.Join(err, one)
	}
	return nil, err
}

func readCopy(f io.ReaderAt, size int64, atEnd bool, known *set) (*set, error) {
	off := int64(0)
	if atEnd {
		off = size - frameSize
	}
	var b [frameSize]byte
	if off < 0 {
		return nil, fmt.Errorf("%d bytes hold no frame", size)
	}
	if _, err := f.ReadAt(b[:], off); err != nil {
		return nil, err
	}
	fr, err := parseFrame(b[:])
	if err != nil {
		return nil, err
	}
	if known != nil && fr.id == known.id {
		return known, nil
	}
	if fr.size > size-frameSize {
		return nil, fmt.Errorf("an index of %d bytes in a file of %d", fr.size, size)
	}
	if off -= fr.size; !atEnd {
		off = frameSize
	}
	data := make([]byte, fr.size) // no more than the file has
	if _, err := f.ReadAt(data, off); err != nil {
		return nil, err
	}
	if got := artifact.Sum(data); got != fr.id {
		return nil, errors.New("the index is damaged: its digest differs")
	}
	ix, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	return newSet(ix, data), nil
}

// exists reports whether there is something of that name.
func exists(root *os.Root, name string) (bool, error) {
	_, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
