package hubtest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1" // #nosec G505 -- git's object ids are SHA-1
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Content is the bytes of a file. Its methods may be called concurrently.
type Content interface {
	Size() int64
	Open() (io.ReadSeekCloser, error)
}

// Files are the files of a commit, by path.
type Files map[string]Content

// Memory makes files of what is in memory.
func Memory(files map[string][]byte) Files {
	out := make(Files, len(files))
	for name, b := range files {
		out[name] = Bytes(b)
	}
	return out
}

// Folder makes files of all regular files below dir, which are not read yet.
// Folders called .git and .cache are left out.
func Folder(dir string) (Files, error) {
	out := make(Files)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); name != dir && d.IsDir() && (base == ".git" || base == ".cache") {
			return filepath.SkipDir
		}
		// Stat follows links: a folder of links to a cache is a repository too.
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		out[filepath.ToSlash(rel)] = disk{name, info.Size()}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

type memory []byte

// Bytes is content in memory.
func Bytes(b []byte) Content { return memory(b) }

// Size is the length of the slice.
func (m memory) Size() int64 { return int64(len(m)) }

// Open reads the slice.
func (m memory) Open() (io.ReadSeekCloser, error) { return nopCloser{bytes.NewReader(m)}, nil }

type nopCloser struct{ io.ReadSeeker }

// Close does nothing.
func (nopCloser) Close() error { return nil }

type disk struct {
	name string
	size int64
}

// Disk is content in a file, which must not change.
func Disk(name string) (Content, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	return disk{name, info.Size()}, nil
}

// Size is what it was when the file was found.
func (d disk) Size() int64 { return d.size }

// Open opens the file itself, so that the kernel may copy from it.
func (d disk) Open() (io.ReadSeekCloser, error) { return os.Open(d.name) }

// Noise is size bytes that do not compress, always the same for a seed, made
// as they are read: neither memory nor disk holds them.
func Noise(size int64, seed string) Content {
	sum := sha256.Sum256([]byte(seed))
	block, err := aes.NewCipher(sum[:])
	must(err)
	return &noise{block: block, size: size}
}

type noise struct {
	block cipher.Block
	size  int64
}

// Size is as ordered.
func (n *noise) Size() int64 { return n.size }

// Open starts at the first byte.
func (n *noise) Open() (io.ReadSeekCloser, error) { return &noiseReader{n: n}, nil }

// A noiseReader is an AES-CTR key stream, which can begin at any block.
type noiseReader struct {
	n      *noise
	pos    int64
	stream cipher.Stream
}

// Read fills p from the key stream.
func (r *noiseReader) Read(p []byte) (int, error) {
	if r.pos >= r.n.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.n.size-r.pos)]
	if r.stream == nil {
		var iv [aes.BlockSize]byte
		binary.BigEndian.PutUint64(iv[8:], uint64(r.pos/aes.BlockSize)) //nolint:gosec // a position is not negative
		r.stream = cipher.NewCTR(r.n.block, iv[:])
		var skip [aes.BlockSize]byte
		r.stream.XORKeyStream(skip[:r.pos%aes.BlockSize], skip[:r.pos%aes.BlockSize])
	}
	clear(p)
	r.stream.XORKeyStream(p, p)
	r.pos += int64(len(p))
	return len(p), nil
}

// Seek moves to another place of the stream.
func (r *noiseReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.n.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	if offset != r.pos {
		r.pos, r.stream = offset, nil
	}
	return offset, nil
}

// Close does nothing.
func (r *noiseReader) Close() error { return nil }

// lfsSuffixes are the names that the hub's own .gitattributes gives to LFS in
// a new repository, those that models have.
var lfsSuffixes = []string{
	".safetensors", ".bin", ".gguf", ".onnx", ".onnx_data", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".npy", ".npz",
	".parquet", ".arrow", ".model", ".zip", ".7z", ".tar", ".gz", ".zst", ".pkl", ".pickle", ".joblib", ".tflite",
}

func isLFS(name string, size, above int64) bool {
	if size >= above {
		return true
	}
	for _, s := range lfsSuffixes {
		if strings.HasSuffix(strings.ToLower(name), s) {
			return true
		}
	}
	return false
}

// pointer is the text that git keeps in an LFS file's place.
func pointer(sha string, size int64) string {
	return "version https://git-lfs.github.com/spec/v1\noid sha256:" + sha + "\nsize " + strconv.FormatInt(size, 10) + "\n"
}

// gitID is the id of a git object.
func gitID(kind string, body []byte) string {
	h := sha1.New() // #nosec G401 -- see the import
	fmt.Fprintf(h, "%s %d\x00", kind, len(body))
	_, _ = h.Write(body) // a hash does not fail
	return hex.EncodeToString(h.Sum(nil))
}

// An Entry is a file of a commit, as the hub's tree names it.
type Entry struct {
	Path string
	Size int64
	OID  string // git's id of the blob, of an LFS file that of its pointer
	// SHA256 and PointerSize are of an LFS file alone.
	SHA256      string
	PointerSize int64
}

// ETag is the file's identity, without quotes.
func (e Entry) ETag() string {
	if e.SHA256 != "" {
		return e.SHA256
	}
	return e.OID
}

// describe reads content once and hashes it as git, or LFS, would.
func describe(name string, c Content, above int64) (Entry, error) {
	e := Entry{Path: name, Size: c.Size()}
	lfs := isLFS(name, e.Size, above)
	h := sha256.New()
	if !lfs {
		h = sha1.New() // #nosec G401 -- see the import
		fmt.Fprintf(h, "blob %d\x00", e.Size)
	}
	f, err := c.Open()
	if err != nil {
		return e, err
	}
	n, err := io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return e, fmt.Errorf("hash %s: %w", name, err)
	}
	if n != e.Size {
		return e, fmt.Errorf("hash %s: %d bytes, want %d", name, n, e.Size)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if !lfs {
		e.OID = sum
		return e, nil
	}
	text := pointer(sum, e.Size)
	e.SHA256, e.PointerSize, e.OID = sum, int64(len(text)), gitID("blob", []byte(text))
	return e, nil
}

// must is for what cannot fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
