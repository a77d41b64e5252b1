package artifact

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/internal/strictjson"
)

const (
	// SnapshotSchema names the encoding of a [Snapshot].
	SnapshotSchema = "darkmirror.snapshot/v1"
	// MaxPath bounds a file's path in bytes; every target file system and
	// protocol takes at least so much.
	MaxPath = 512
	// MaxSnapshot bounds an encoded snapshot. A full Debian main for one
	// architecture is about 20 MiB.
	MaxSnapshot = 256 << 20
	// MaxFiles bounds the files of one snapshot; above it a source should be
	// split.
	MaxFiles = 1_000_000
)

// A File is named bytes: one file of an artifact, or one metadata file of a
// source, as the ecosystem publishes it.
type File struct {
	// Path is relative to the source's published root, slash-separated and
	// clean: "numpy-2.1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
	// "debian/pool/main/j/jq/jq_1.6-2.1_amd64.deb".
	Path   string `json:"path"`
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`
	// URL is where upstream offers it, without credentials, query or
	// fragment. It is evidence and the place to fetch from; empty for a file
	// that darkmirror made itself.
	URL string `json:"url,omitempty"`
}

// An Artifact is one thing that a user asks for by name.
type Artifact struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Why says who asked for it: "requirements.txt:12" or "jq: Depends:
	// libjq1 (= 1.6-2.1)".
	Why   string `json:"why"`
	Files []File `json:"files"`
}

// A Snapshot is the whole state of one source at one time: every artifact and
// the metadata that is needed to publish it again. It is itself kept as a
// blob, so a snapshot is named by its digest.
type Snapshot struct {
	Schema string `json:"schema"`
	Source string `json:"source"` // "pypi/main"
	// Meta holds upstream's own proof, byte for byte (InRelease, Packages
	// indices), and the documents of the ecosystem's own package.
	Meta      []File     `json:"meta"`
	Artifacts []Artifact `json:"artifacts"`
}

// Encode returns the snapshot's canonical bytes: sorted, without white space.
// Two snapshots of the same content give the same bytes. It fails where
// [Snapshot.Check] would.
func (s *Snapshot) Encode() ([]byte, error) {
	c := *s
	c.Schema = SnapshotSchema
	c.Meta = append([]File{}, s.Meta...)
	c.Artifacts = append([]Artifact{}, s.Artifacts...)
	byPath := func(a, b File) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(c.Meta, byPath)
	slices.SortFunc(c.Artifacts, func(a, b Artifact) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	})
	for i := range c.Artifacts {
		c.Artifacts[i].Files = append([]File{}, c.Artifacts[i].Files...)
		slices.SortFunc(c.Artifacts[i].Files, byPath)
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return json.Marshal(&c)
}

// DecodeSnapshot reads what [Snapshot.Encode] wrote: strictly, within limits,
// and checked. Every error is an ErrIntegrity refusal.
func DecodeSnapshot(b []byte) (*Snapshot, error) {
	refuse := func(err error) (*Snapshot, error) {
		return nil, &Refusal{Class: ErrIntegrity, Code: "SNAPSHOT-FORMAT", Subject: "snapshot", Reason: "not a valid snapshot", Err: err}
	}
	if len(b) > MaxSnapshot {
		return refuse(fmt.Errorf("%d bytes, at most %d are read", len(b), MaxSnapshot))
	}
	var s Snapshot
	if err := strictjson.Unmarshal(b, &s); err != nil {
		return refuse(err)
	}
	if err := s.Check(); err != nil {
		return refuse(err)
	}
	return &s, nil
}

// Check holds the invariants of a snapshot: schema, a well-formed source name,
// safe and unique paths (also when letter case is ignored), sizes, and one
// size for each digest. Artifacts may share a file, as two images share a
// layer: the same path then names the same bytes in both.
func (s *Snapshot) Check() error {
	if s.Schema != SnapshotSchema {
		return fmt.Errorf("schema %q, want %q", clip(s.Schema), SnapshotSchema)
	}
	if err := CheckSource(s.Source); err != nil {
		return err
	}
	n := 0
	seen := make(map[string]File)
	sizes := make(map[Digest]int64)
	check := func(kind string, f File) error {
		if n++; n > MaxFiles {
			return fmt.Errorf("more than %d files", MaxFiles)
		}
		if err := CheckPath(f.Path); err != nil {
			return err
		}
		key := kind + strings.ToLower(f.Path)
		if other, dup := seen[key]; dup && (other.Path != f.Path || other.Digest != f.Digest) {
			return fmt.Errorf("path %q clashes with %q", f.Path, other.Path)
		}
		seen[key] = f
		if f.Digest.IsZero() || f.Size < 0 {
			return fmt.Errorf("%q: digest or size missing", f.Path)
		}
		if old, ok := sizes[f.Digest]; ok && old != f.Size {
			return fmt.Errorf("%q: one digest with two sizes, %d and %d", f.Path, old, f.Size)
		}
		sizes[f.Digest] = f.Size
		return nil
	}
	for _, f := range s.Meta {
		if err := check("meta/", f); err != nil {
			return fmt.Errorf("meta: %w", err)
		}
	}
	for _, a := range s.Artifacts {
		if a.Name == "" || a.Version == "" || len(a.Files) == 0 {
			return fmt.Errorf("artifact %q: name, version or files missing", clip(a.Name))
		}
		for _, f := range a.Files {
			if err := check("", f); err != nil {
				return fmt.Errorf("artifact %s %s: %w", clip(a.Name), clip(a.Version), err)
			}
		}
	}
	return nil
}

// Files calls yield for every file, metadata first, in the snapshot's order.
func (s *Snapshot) Files(yield func(File) bool) {
	for _, f := range s.Meta {
		if !yield(f) {
			return
		}
	}
	for _, a := range s.Artifacts {
		for _, f := range a.Files {
			if !yield(f) {
				return
			}
		}
	}
}

// MetaFile returns the metadata file of that path.
func (s *Snapshot) MetaFile(name string) (File, bool) {
	for _, f := range s.Meta {
		if f.Path == name {
			return f, true
		}
	}
	return File{}, false
}

// CheckPath accepts a relative, clean, slash-separated path that is safe to
// create under a folder on any file system: no empty, "." or ".." segment, no
// backslash, control byte, leading "-" or "~" in a segment, at most [MaxPath]
// bytes and 255 a segment, valid UTF-8.
func CheckPath(p string) error {
	bad := func(why string) error { return fmt.Errorf("path %q: %s", clip(p), why) }
	switch {
	case p == "":
		return bad("empty")
	case len(p) > MaxPath:
		return bad("too long")
	case !utf8.ValidString(p):
		return bad("not UTF-8")
	case strings.HasPrefix(p, "/"):
		return bad("absolute")
	case path.Clean(p) != p:
		return bad("not clean")
	}
	for seg := range strings.SplitSeq(p, "/") {
		switch {
		case seg == ".." || seg == ".":
			return bad("escapes its folder")
		case len(seg) > 255:
			return bad("a segment is over 255 bytes")
		case seg[0] == '-' || seg[0] == '~':
			return bad("a segment starts with - or ~")
		}
	}
	for _, r := range p {
		if r < 0x20 || r == 0x7f || r == '\\' || r == utf8.RuneError {
			return bad("forbidden character")
		}
	}
	return nil
}

// CheckSource accepts ECOSYSTEM/NAME, each of lower-case letters, digits, ".",
// "_" and "-", starting with a letter or digit, at most 64 bytes.
func CheckSource(s string) error {
	eco, name, ok := strings.Cut(s, "/")
	if !ok || !wordOK(eco) || !wordOK(name) {
		return fmt.Errorf("source %q: want ECOSYSTEM/NAME in lower-case letters, digits, '.', '_' and '-'", clip(s))
	}
	return nil
}

func wordOK(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
