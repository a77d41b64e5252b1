package layout

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxEntries bounds the entries of an archive: a few for each layer.
const maxEntries = 200_000

// A tarFile is a tar whose entries are known by name: where each lies, so that
// layers are read in place. It stays open; its reads do not share an offset.
type tarFile struct {
	name    string
	f       *os.File
	entries map[string]section
}

type section struct {
	off, size int64
	link      string // of a symbolic link: old archives share layers so
}

// compressed are the first bytes of what would have to be unpacked first.
var compressed = []struct {
	magic, name string
}{{"\x1f\x8b", "gzip"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"\xfd7zXZ\x00", "xz"}, {"BZh", "bzip2"}}

func openTar(name string) (_ *tarFile, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	t := &tarFile{name: name, f: f, entries: make(map[string]section)}
	if err := t.scan(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// scan lists the entries. A name that stands twice is refused: two readers
// would see two images.
func (t *tarFile) scan() error {
	head := make([]byte, 6)
	n, err := io.ReadFull(t.f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(t.name, "is no archive", err)
	}
	for _, c := range compressed {
		if bytes.HasPrefix(head[:n], []byte(c.magic)) {
			return refuse(t.name, "is compressed with "+c.name+": unpack it first, layers are read in place", nil)
		}
	}
	fi, err := t.f.Stat()
	if err != nil {
		return err
	}
	if _, err := t.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := tar.NewReader(t.f)
	for count := 0; ; count++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse(t.name, "is no tar, or a broken one", err)
		}
		if count >= maxEntries {
			return refuse(t.name, fmt.Sprintf("has more than %d entries", maxEntries), nil)
		}
		if err := t.entry(h, fi.Size()); err != nil {
			return err
		}
	}
}

// entry notes one entry: the reader stands at its first byte.
func (t *tarFile) entry(h *tar.Header, size int64) error {
	name := path.Clean(strings.TrimSuffix(h.Name, "/"))
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, tar.TypeSymlink:
	default:
		return refuse(t.name, fmt.Sprintf("%q is neither a file nor a folder", clip(h.Name)), nil)
	}
	if err := artifact.CheckPath(name); err != nil {
		return refuse(t.name, "an entry's name cannot be used", err)
	}
	if _, dup := t.entries[name]; dup {
		return refuse(t.name, fmt.Sprintf("%q stands twice", clip(name)), nil)
	}
	if h.Typeflag == tar.TypeSymlink {
		t.entries[name] = section{link: path.Join(path.Dir(name), h.Linkname)}
		return nil
	}
	off, err := t.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if h.Size < 0 || off+h.Size > size {
		return refuse(t.name, fmt.Sprintf("ends within %q", clip(name)), nil)
	}
	t.entries[name] = section{off: off, size: h.Size}
	return nil
}

func (t *tarFile) has(name string) bool {
	_, ok := t.entries[name]
	return ok
}

// find follows at most one link: docker writes a link to the layer that an
// earlier image of the archive has.
func (t *tarFile) find(name string) (section, error) {
	s, ok := t.entries[name]
	if ok && s.link != "" {
		s, ok = t.entries[s.link]
		if ok && s.link != "" {
			return s, fmt.Errorf("%s is a link to a link", name)
		}
	}
	if !ok {
		return s, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return s, nil
}

func (t *tarFile) open(name string) (io.ReadCloser, int64, error) {
	s, err := t.find(name)
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(io.NewSectionReader(t.f, s.off, s.size)), s.size, nil
}

func (t *tarFile) Close() error { return t.f.Close() }
