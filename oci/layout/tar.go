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

const (
	// maxEntries bounds the entries of an archive: a few for each layer.
	maxEntries = 100_000
	// maxNames bounds the bytes of their names, which are held in memory. A
	// blob's name has 77.
	maxNames = 16 << 20
	// block is the unit of a tar; two empty ones end it.
	block = 512
	// paxSparse begins what a PAX header says of a sparse file.
	paxSparse = "GNU.sparse."
)

// A tarFile is a tar whose entries are known by name: where each lies, so that
// layers are read in place. It stays open; its reads do not share an offset.
type tarFile struct {
	name    string
	f       *os.File
	size    int64
	entries map[string]section
	names   int   // bytes of names
	end     int64 // of the last entry
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
	f, err := os.OpenFile(name, readOnly, 0)
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
	if err := t.begin(); err != nil {
		return err
	}
	r := tar.NewReader(t.f)
	for count := 0; ; count++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t.checkEnd()
		}
		if err != nil {
			return refuse(t.name, "is no tar, or a broken one", err)
		}
		if count >= maxEntries {
			return refuse(t.name, fmt.Sprintf("has more than %d entries", maxEntries), nil)
		}
		if err := t.entry(h); err != nil {
			return err
		}
	}
}

// begin looks at what kind of file it is.
func (t *tarFile) begin() error {
	fi, err := t.f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return refuse(t.name, "is no archive but "+fi.Mode().Type().String(), nil)
	}
	t.size = fi.Size()
	head := make([]byte, 6)
	n, err := t.f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) || n == 0 {
		return refuse(t.name, "is no archive", err)
	}
	for _, c := range compressed {
		if bytes.HasPrefix(head[:n], []byte(c.magic)) {
			return refuse(t.name, "is compressed with "+c.name+": unpack it first, layers are read in place", nil)
		}
	}
	return nil
}

// checkEnd wants the two empty blocks behind the last entry: without them the
// tar was cut, and nobody knows what else it held.
func (t *tarFile) checkEnd() error {
	var end [2 * block]byte
	if _, err := t.f.ReadAt(end[:], t.end); err != nil || end != [2 * block]byte{} {
		return refuse(t.name, "is cut: the two empty blocks that end a tar are missing", nil)
	}
	return nil
}

// entry notes one entry: the file stands at its first byte.
func (t *tarFile) entry(h *tar.Header) error {
	off, err := t.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	t.end = off
	name := path.Clean(strings.TrimSuffix(h.Name, "/"))
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, tar.TypeSymlink:
	default:
		return refuse(t.name, fmt.Sprintf("%q is neither a file nor a folder", clip(h.Name)), nil)
	}
	if err := t.checkName(name, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		link := h.Linkname
		if !path.IsAbs(link) { // an absolute one names no entry
			link = path.Join(path.Dir(name), link) //nolint:gosec // a name to look up among the entries; nothing is unpacked
		}
		t.entries[name] = section{link: link}
		return nil
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, paxSparse) {
			return refuse(t.name, fmt.Sprintf("%q is a sparse file: its bytes do not lie in one piece", clip(name)), nil)
		}
	}
	if h.Size < 0 || h.Size > t.size-off {
		return refuse(t.name, fmt.Sprintf("ends within %q", clip(name)), nil)
	}
	t.entries[name] = section{off: off, size: h.Size}
	t.end = off + (h.Size+block-1)/block*block
	return nil
}

func (t *tarFile) checkName(name string, h *tar.Header) error {
	if err := artifact.CheckPath(name); err != nil {
		return refuse(t.name, "an entry's name cannot be used", err)
	}
	if _, dup := t.entries[name]; dup {
		return refuse(t.name, fmt.Sprintf("%q stands twice", clip(name)), nil)
	}
	if t.names += len(name) + len(h.Linkname); t.names > maxNames {
		return refuse(t.name, fmt.Sprintf("has more than %d bytes of names", maxNames), nil)
	}
	return nil
}

func (t *tarFile) has(name string) bool {
	_, ok := t.entries[name]
	return ok
}

// resolve follows at most one link: docker and podman write a link to the layer
// that the archive has under another name. The result is the name of a file.
func (t *tarFile) resolve(name string) (string, error) {
	s, ok := t.entries[name]
	if ok && s.link != "" {
		name = s.link
		if s, ok = t.entries[name]; ok && s.link != "" {
			return "", fmt.Errorf("%s is a link to a link", clip(name))
		}
	}
	if !ok {
		return "", fmt.Errorf("%s: %w", clip(name), fs.ErrNotExist)
	}
	return name, nil
}

func (t *tarFile) open(name string) (io.ReadCloser, int64, error) {
	name, err := t.resolve(name)
	if err != nil {
		return nil, 0, err
	}
	s := t.entries[name]
	return io.NopCloser(io.NewSectionReader(t.f, s.off, s.size)), s.size, nil
}

func (t *tarFile) Close() error { return t.f.Close() }
