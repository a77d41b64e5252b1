package files

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxSets bounds the sets of one source: each has a page of its own.
	maxSets = 1000
	// maxSetFiles bounds the files of one set: all are listed on one page.
	maxSetFiles = 100_000
	// maxSetBytes bounds a set, which is staged whole beside the one before:
	// far more than any medium that is carried by hand holds.
	maxSetBytes = 1 << 40
)

// Codes of refusals.
const (
	CodeSnapshot = "FILES-SNAPSHOT" // a snapshot that is not of this package, or malformed
	CodePath     = "FILES-PATH"     // a name that cannot be carried
	CodeFile     = "FILES-FILE"     // a file that cannot be read, or is none
	CodeLink     = "FILES-LINK"     // a link out of its folder, or to a folder
	CodeChanging = "FILES-CHANGING" // a folder that changes while it is read
	CodeChanged  = "FILES-CHANGED"  // not what it was when the plan was made
	CodeEmpty    = "FILES-EMPTY"    // no file matches
	CodeStale    = "FILES-STALE"    // the newest file is too old
	CodeLimit    = "FILES-LIMIT"    // too many files, or too large
	CodeVersion  = "FILES-VERSION"  // a version that has other bytes already
	CodeSize     = "FILES-SIZE"     // a size that is unknown or wrong
	CodeForeign  = "FILES-FOREIGN"  // something in a folder that is not ours
	CodeClash    = "FILES-CLASH"    // two sets with one path
	CodeTarget   = "FILES-TARGET"   // a folder that cannot be written
)

// A fileSet is one set of a snapshot.
type fileSet struct {
	name    string
	version string
	files   []setFile // sorted by path
}

// A setFile is one file of a set.
type setFile struct {
	path   string // in its set
	digest artifact.Digest
	size   int64
	url    string // where it was found; empty for a file of a folder
}

// listing is the set's content as sha256sum lists it.
func listing(list []setFile) []byte {
	var b bytes.Buffer
	for _, f := range list {
		b.WriteString(f.digest.Hex() + "  " + f.path + "\n")
	}
	return b.Bytes()
}

// derivedLength is how many hex digits a version has that nobody has named.
const derivedLength = 12

// derive names a state of files by their listing.
func derive(list []setFile) string { return artifact.Sum(listing(list)).Short() }

// isDerived tells a version that is told from the content.
func isDerived(version string) bool {
	return len(version) == derivedLength && strings.Trim(version, "0123456789abcdef") == ""
}

func (s *fileSet) bytes() (n int64) {
	for _, f := range s.files {
		n += f.size
	}
	return n
}

// find returns the file of that path.
func (s *fileSet) find(path string) (*setFile, bool) {
	i, ok := slices.BinarySearchFunc(s.files, path, func(f setFile, p string) int { return strings.Compare(f.path, p) })
	if !ok {
		return nil, false
	}
	return &s.files[i], true
}

// check sorts the files and holds the invariants of a set.
func (s *fileSet) check() error {
	if err := errors.Join(checkSetName(s.name), checkVersion(s.version)); err != nil {
		return err
	}
	if len(s.files) == 0 || len(s.files) > maxSetFiles {
		return fmt.Errorf("%d files, want 1 to %d", len(s.files), maxSetFiles)
	}
	slices.SortFunc(s.files, func(a, b setFile) int { return strings.Compare(a.path, b.path) })
	if err := checkPaths(s.name, s.files); err != nil {
		return err
	}
	var total int64
	for _, f := range s.files {
		if f.size < 0 || f.size > maxSetBytes-total {
			return fmt.Errorf("over %d bytes", int64(maxSetBytes))
		}
		total += f.size
	}
	if d := derive(s.files); isDerived(s.version) && s.version != d {
		return fmt.Errorf("version %s is not that of the files, which is %s", s.version, d)
	}
	return nil
}

// checkPaths refuses names that cannot lie beside one another, letter case
// ignored: two that are equal, and a file that is another's folder.
func checkPaths(set string, list []setFile) error {
	taken := make(map[string]string, len(list))
	for _, f := range list {
		// With the set's name before it, as the snapshot has it.
		if err := artifact.CheckPath(set + "/" + f.path); err != nil {
			return err
		}
		key := strings.ToLower(f.path)
		if other, ok := taken[key]; ok {
			return fmt.Errorf("%q and %q are one name where letter case does not count", clip(other), clip(f.path))
		}
		taken[key] = f.path
	}
	for _, f := range list {
		key := strings.ToLower(f.path)
		for i := range len(key) {
			if key[i] != '/' {
				continue
			}
			if other, ok := taken[key[:i]]; ok {
				return fmt.Errorf("%q is a file and the folder of %q", clip(other), clip(f.path))
			}
		}
	}
	return nil
}

// artifact is the set as a snapshot has it.
func (s *fileSet) artifact(why string) artifact.Artifact {
	a := artifact.Artifact{Name: s.name, Version: s.version, Why: why, Files: make([]artifact.File, len(s.files))}
	for i, f := range s.files {
		a.Files[i] = artifact.File{Path: s.name + "/" + f.path, Digest: f.digest, Size: f.size, URL: f.url}
	}
	return a
}

// readSet reads an artifact of a snapshot.
func readSet(a *artifact.Artifact) (*fileSet, error) {
	s := &fileSet{name: a.Name, version: a.Version, files: make([]setFile, len(a.Files))}
	for i, f := range a.Files {
		rel, ok := strings.CutPrefix(f.Path, a.Name+"/")
		if !ok {
			return nil, fmt.Errorf("%q is not in the set", clip(f.Path))
		}
		s.files[i] = setFile{path: rel, digest: f.Digest, size: f.Size, url: f.URL}
	}
	return s, s.check()
}

// readSets reads a snapshot, sets sorted by name. Every error is an
// ErrIntegrity refusal.
func readSets(snap *artifact.Snapshot, source string) ([]*fileSet, error) {
	refuse := func(reason string, err error) ([]*fileSet, error) {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeSnapshot, Subject: source, Reason: reason, Err: err}
	}
	switch {
	case snap.Source != source:
		return refuse(fmt.Sprintf("the snapshot is of %q", clip(snap.Source)), nil)
	case len(snap.Meta) > 0:
		return refuse("the snapshot has metadata, which a source of files has not", nil)
	case len(snap.Artifacts) > maxSets:
		return refuse(fmt.Sprintf("%d sets, at most %d", len(snap.Artifacts), maxSets), nil)
	}
	seen := make(map[string]bool)
	sets := make([]*fileSet, 0, len(snap.Artifacts))
	for i := range snap.Artifacts {
		s, err := readSet(&snap.Artifacts[i])
		if err != nil {
			return refuse(fmt.Sprintf("set %q cannot be published", clip(snap.Artifacts[i].Name)), err)
		}
		if seen[s.name] {
			return refuse(fmt.Sprintf("set %q is there twice", s.name), nil)
		}
		seen[s.name] = true
		sets = append(sets, s)
	}
	slices.SortFunc(sets, func(a, b *fileSet) int { return strings.Compare(a.name, b.name) })
	return sets, nil
}

// count says how much there is.
func count(files int, bytes int64) string {
	return plural(files, "file") + ", " + sizeText(bytes)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// sizeText is a size for people.
func sizeText(n int64) string {
	for _, u := range []struct {
		name string
		unit int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= u.unit {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.unit), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
