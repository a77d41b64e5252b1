package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	recordSchema = "darkmirror.files-folder/v1"
	// maxRecord bounds the record of one folder: about 400 bytes a file, and
	// two versions of it.
	maxRecord = 256 << 20
)

// A record is what this source has put into one folder, or is about to. It
// lies in the publisher's own folder, and is written before anything is put
// there and again when that is done.
type record struct {
	Schema string `json:"schema"`
	Source string `json:"source"`
	Folder string `json:"folder"`
	// Files are sorted by path, those of versions with the version's folder
	// before them.
	Files []recordFile `json:"files"`
	// Folders are those that we have made, and may remove when they are empty.
	Folders []string `json:"folders"`
	// Versions are folders of versions; Current is the one that the link
	// leads to, Next the one that it is about to, Previous the one before,
	// which stays for those who have it open.
	Versions []recordVersion `json:"versions"`
	Current  string          `json:"current,omitempty"`
	Next     string          `json:"next,omitempty"`
	Previous string          `json:"previous,omitempty"`
}

type recordFile struct {
	Path string `json:"path"`
	// Digests are what the file may hold and be ours: one when a run is over,
	// two while one is replaced by the other.
	Digests []artifact.Digest `json:"digests"`
	// Is tells which file we put there; empty before that is done.
	Is string `json:"is,omitempty"`
}

type recordVersion struct {
	Folder  string          `json:"folder"`
	Listing artifact.Digest `json:"listing"` // of the files that it has
}

// recordName is where the record of a folder lies.
func recordName(dir, folder string) string {
	return filepath.Join(dir, "folder-"+artifact.Sum([]byte(folder)).Short()+".json")
}

// readRecord reads a record; an empty one where there is none. One that
// cannot be read is an error: what it lists could not be taken away.
func readRecord(dir, source, folder string) (*record, error) {
	name := recordName(dir, folder)
	empty := &record{Schema: recordSchema, Source: source, Folder: folder, Files: []recordFile{}, Folders: []string{}, Versions: []recordVersion{}}
	fi, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxRecord {
		return nil, fmt.Errorf("%s: over %d bytes", name, maxRecord)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(b)
	if err == nil && (r.Source != source || r.Folder != folder) {
		err = fmt.Errorf("it is of %s and %s", r.Source, r.Folder)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// decodeRecord holds what removal relies on: every name is a clean one.
func decodeRecord(b []byte) (*record, error) {
	var r record
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Schema != recordSchema {
		return nil, fmt.Errorf("schema %q, want %q", clip(r.Schema), recordSchema)
	}
	for i, f := range r.Files {
		if err := artifact.CheckPath(f.Path); err != nil {
			return nil, err
		}
		if len(f.Digests) == 0 || i > 0 && r.Files[i-1].Path >= f.Path {
			return nil, fmt.Errorf("%q has no digest, or is out of order", clip(f.Path))
		}
	}
	for _, f := range r.Folders {
		if err := artifact.CheckPath(f); err != nil {
			return nil, err
		}
	}
	for _, v := range r.Versions {
		if err := checkFolderName(v.Folder); err != nil {
			return nil, err
		}
	}
	for _, v := range []string{r.Current, r.Next, r.Previous} {
		if v != "" && r.version(v) == nil {
			return nil, fmt.Errorf("version %q is not listed", clip(v))
		}
	}
	return &r, nil
}

// checkFolderName accepts the name of a version's folder: a version, perhaps
// with an end that tells two of one name apart.
func checkFolderName(s string) error {
	if v, id, ok := cutLast(s, "-"); ok && isDerived(id) && checkVersion(v) == nil {
		return nil
	}
	return checkVersion(s)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// write makes the record durable, unless it says so already.
func (r *record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := recordName(dir, r.Folder)
	if len(b) > maxRecord {
		return fmt.Errorf("%s: %d bytes, at most %d", name, len(b), maxRecord)
	}
	if old, err := os.ReadFile(name); err == nil && slices.Equal(old, b) {
		return durable.SyncDir(dir) // a run that was killed may not have done it
	}
	return durable.WriteFile(name, b, 0o600)
}

// file returns what the record says of a path; nil where it has it not.
func (r *record) file(path string) *recordFile {
	i, ok := slices.BinarySearchFunc(r.Files, path, byPath)
	if !ok {
		return nil
	}
	return &r.Files[i]
}

func byPath(f recordFile, path string) int { return strings.Compare(f.Path, path) }

// version returns what the record says of a version's folder; nil where it
// has it not.
func (r *record) version(folder string) *recordVersion {
	i := slices.IndexFunc(r.Versions, func(v recordVersion) bool { return v.Folder == folder })
	if i < 0 {
		return nil
	}
	return &r.Versions[i]
}

func (r *record) sort() {
	slices.SortFunc(r.Files, func(a, b recordFile) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(r.Folders)
	r.Folders = slices.Compact(r.Folders)
	slices.SortFunc(r.Versions, func(a, b recordVersion) int { return strings.Compare(a.Folder, b.Folder) })
}

// merge is a record of all that either of two has: what may lie there between
// the one and the other.
func merge(old, want *record) *record {
	m := &record{
		Schema: recordSchema, Source: want.Source, Folder: want.Folder,
		Files: slices.Clone(old.Files), Folders: append(slices.Clone(old.Folders), want.Folders...), Versions: slices.Clone(old.Versions),
		Current: old.Current, Previous: old.Previous, Next: want.Current,
	}
	for _, f := range want.Files {
		i, ok := slices.BinarySearchFunc(old.Files, f.Path, byPath)
		if !ok {
			m.Files = append(m.Files, recordFile{Path: f.Path, Digests: slices.Clone(f.Digests)})
			continue
		}
		m.Files[i].Digests = slices.Clone(old.Files[i].Digests)
		for _, d := range f.Digests {
			if !slices.Contains(m.Files[i].Digests, d) {
				m.Files[i].Digests = append(m.Files[i].Digests, d)
			}
		}
	}
	for _, v := range want.Versions {
		if m.version(v.Folder) == nil {
			m.Versions = append(m.Versions, v)
		}
	}
	m.sort()
	return m
}
