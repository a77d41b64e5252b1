package walk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Kind is what a file is by its first bytes, never by its name.
type Kind string

// Kinds of containers, which are opened.
const (
	Zip      Kind = "zip"
	Tar      Kind = "tar"
	Ar       Kind = "ar" // a .deb among others
	SevenZip Kind = "7z"
	Gzip     Kind = "gzip"
	Bzip2    Kind = "bzip2"
	XZ       Kind = "xz"
	Zstd     Kind = "zstd"
	LZ4      Kind = "lz4"
)

// Kinds of files.
const (
	Empty       Kind = "empty"
	ELF         Kind = "elf"
	PE          Kind = "pe"
	MachO       Kind = "mach-o"
	Pickle      Kind = "pickle" // protocol 2 or later, or the magic of the older torch.save
	Safetensors Kind = "safetensors"
	GGUF        Kind = "gguf"
	NPY         Kind = "npy"
	HDF5        Kind = "hdf5"
	JSON        Kind = "json" // text that starts with { or [
	PDF         Kind = "pdf"
	Image       Kind = "image"
	Media       Kind = "media" // sound, video, fonts
	Database    Kind = "database"
	Class       Kind = "class" // Java
	PYC         Kind = "pyc"
	Wasm        Kind = "wasm"
	Script      Kind = "script" // text that starts with #!
	Text        Kind = "text"
	Data        Kind = "data" // nothing that is known
)

// A Member is one entry of a zip archive, as its central directory tells.
type Member struct {
	Name   string
	Size   int64
	Stored bool // not compressed
}

// A File is one file that a blob holds, the blob itself being the first. Its
// bytes may be read by several goroutines at once, until the last holder
// calls [File.Release].
type File struct {
	// Path leads to the file, outermost first: the name of the blob, then,
	// for each container on the way, the name of the entry in it. The only
	// entry of a compressed file has the name "".
	Path   []string
	Kind   Kind
	Size   int64
	Digest artifact.Digest // of the bytes
	// Mode and Link are of the archive's entry; zero for a blob. An entry
	// that is no regular file has no bytes.
	Mode fs.FileMode
	Link string
	// Opened says that it is a container whose entries are visited too.
	Opened bool
	// Members lists a zip archive's entries.
	Members []Member

	content io.ReaderAt
	holders atomic.Int64
	parent  *File     // held as long as its bytes are these bytes
	temp    io.Closer // what else holds the bytes
}

// NewFile is a file of the given bytes, for tests and for callers that have
// bytes of their own.
func NewFile(kind Kind, content []byte, path ...string) *File {
	f := &File{Path: path, Kind: kind, Size: int64(len(content)), Digest: artifact.Sum(content), content: bytes.NewReader(content)}
	f.holders.Store(1)
	return f
}

// Name is the last element of the path that is not empty.
func (f *File) Name() string {
	for i := len(f.Path) - 1; i > 0; i-- {
		if f.Path[i] != "" {
			return f.Path[i]
		}
	}
	return f.Path[0]
}

// Inner is the path below the blob as one text, "" for the blob itself.
func (f *File) Inner() string { return Join(f.Path[1:]) }

// Join makes one text of a path: elements that are not empty, " › " between
// them.
func Join(path []string) string {
	var parts []string
	for _, p := range path {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, " › ")
}

// Regular reports whether the file has bytes to look at.
func (f *File) Regular() bool { return f.Mode&fs.ModeType == 0 }

// Reader reads the bytes from the start, apart from other readers.
func (f *File) Reader() *io.SectionReader { return io.NewSectionReader(f.content, 0, f.Size) }

// Bytes are all the bytes, which must be at most limit.
func (f *File) Bytes(limit int64) ([]byte, error) {
	if f.Size > limit {
		return nil, fmt.Errorf("%s: has %d bytes, at most %d are read", f.Name(), f.Size, limit)
	}
	b := make([]byte, f.Size)
	if _, err := io.ReadFull(f.Reader(), b); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b, nil
}

// Retain lets the caller use the file until it calls Release, beyond the end
// of the visit.
func (f *File) Retain() { f.holders.Add(1) }

// Release ends the use of the file. The last one frees what holds its bytes.
func (f *File) Release() error {
	if f.holders.Add(-1) > 0 {
		return nil
	}
	var err error
	if f.temp != nil {
		err = f.temp.Close()
	}
	if f.parent != nil {
		err = errors.Join(err, f.parent.Release())
	}
	return err
}
