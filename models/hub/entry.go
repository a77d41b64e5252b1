package hub

import (
	"crypto/sha1" // #nosec G505 -- git's object ids are SHA-1; large files have a SHA-256 beside it
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// MaxGitFile bounds a file that is not LFS. The hub refuses such files above
// 10 MiB; older repositories have some that are larger.
const MaxGitFile = 64 << 20

// An OID is the id of a git object: 40 lower-case hex digits.
type OID string

// CheckOID accepts 40 lower-case hex digits.
func CheckOID(s string) error {
	if !IsCommit(s) {
		return fmt.Errorf("%q is not a git object id (want 40 lower-case hex digits)", clip(s))
	}
	return nil
}

// NewBlobHash hashes a git blob of size bytes; [BlobOID] reads the result.
// The header with the size is hashed already.
func NewBlobHash(size int64) hash.Hash {
	h := sha1.New() // #nosec G401 -- see the import
	_, _ = io.WriteString(h, "blob "+strconv.FormatInt(size, 10)+"\x00")
	return h
}

// BlobOID is the id that h has computed.
func BlobOID(h hash.Hash) OID { return OID(hex.EncodeToString(h.Sum(nil))) }

// SumBlob is the id of b as a git blob.
func SumBlob(b []byte) OID {
	h := NewBlobHash(int64(len(b)))
	_, _ = h.Write(b)
	return BlobOID(h)
}

// An Entry is one file of a tree.
type Entry struct {
	Path string
	Size int64 // of the content
	// OID is the git id of the blob; of an LFS file, that of its pointer.
	OID OID
	LFS *LFS // nil: kept by git itself
}

// LFS says what a large file is.
type LFS struct {
	SHA256      artifact.Digest // of the content
	PointerSize int64
}

// ETag is the file's identity as clients see it, without quotes: the SHA-256
// of an LFS file, the git id of another one. A cache keeps the file by it.
func (e *Entry) ETag() string {
	if e.LFS != nil {
		return e.LFS.SHA256.Hex()
	}
	return string(e.OID)
}

// Check refuses an entry that cannot be carried.
func (e *Entry) Check() error {
	if err := CheckFile(e.Path); err != nil {
		return err
	}
	if err := CheckOID(string(e.OID)); err != nil {
		return fmt.Errorf("%s: %w", clip(e.Path), err)
	}
	switch {
	case e.Size < 0:
		return fmt.Errorf("%s: negative size", clip(e.Path))
	case e.LFS == nil && e.Size > MaxGitFile:
		return fmt.Errorf("%s: %d bytes in git itself, at most %d are carried", clip(e.Path), e.Size, MaxGitFile)
	case e.LFS != nil && e.LFS.SHA256.IsZero():
		return fmt.Errorf("%s: an LFS file without its digest", clip(e.Path))
	case e.LFS != nil && (e.LFS.PointerSize < 1 || e.LFS.PointerSize > maxPointer):
		return fmt.Errorf("%s: an LFS pointer of %d bytes", clip(e.Path), e.LFS.PointerSize)
	}
	return nil
}

// maxPointer bounds an LFS pointer: the specification's own 1,024 bytes.
const maxPointer = 1024

// CheckEntries refuses a tree that no folder could hold: an entry that cannot
// be carried, two of one path, two that differ in letter case alone, a file
// where another needs a folder.
func CheckEntries(entries []Entry) error {
	seen := make(map[string]string, len(entries)) // lower case -> path
	for i := range entries {
		e := &entries[i]
		if err := e.Check(); err != nil {
			return err
		}
		key := strings.ToLower(e.Path)
		if other, ok := seen[key]; ok {
			if other == e.Path {
				return fmt.Errorf("%s stands twice", clip(e.Path))
			}
			return fmt.Errorf("%s and %s differ in letter case alone", clip(other), clip(e.Path))
		}
		seen[key] = e.Path
	}
	for i := range entries {
		p := strings.ToLower(entries[i].Path)
		for j := strings.LastIndexByte(p, '/'); j > 0; j = strings.LastIndexByte(p[:j], '/') {
			if other, ok := seen[p[:j]]; ok {
				return fmt.Errorf("%s is a file, and %s lies in it", clip(other), clip(entries[i].Path))
			}
		}
	}
	return nil
}

// ErrNotThis says that bytes are not the file that the tree names.
var ErrNotThis = errors.New("not the file that the tree names")

// Verify reads r to its end and compares it with what the tree says of e.
// LFS files whose bytes come from the store by their digest need no second
// look.
func (e *Entry) Verify(r io.Reader) error {
	h := NewBlobHash(e.Size)
	n, err := io.Copy(h, io.LimitReader(r, e.Size+1))
	if err != nil {
		return err
	}
	if got := BlobOID(h); n != e.Size || got != e.OID {
		return fmt.Errorf("%s: %w: want %d bytes with git id %s, got %d with %s", clip(e.Path), ErrNotThis, e.Size, e.OID, n, got)
	}
	return nil
}

// Pointer is the text that git keeps in place of a large file.
func Pointer(d artifact.Digest, size int64) []byte {
	return fmt.Appendf(nil, "version %s\noid sha256:%s\nsize %d\n", pointerVersion, d.Hex(), size)
}

// pointerVersion names the specification in a pointer. It is a name, not an
// address: nothing is ever fetched from it.
const pointerVersion = "https://git-lfs.github.com/spec/v1"
