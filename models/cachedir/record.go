package cachedir

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
)

const (
	recordSchema = "darkmirror.cachedir/v1"
	recordSuffix = ".json"
	// maxRecord bounds the record of one repository: about 300 bytes a file.
	maxRecord = 256 << 20
)

// A record is what one source has put into one repository's folder, so that a
// later set may take it away again. It lies in the corner of that folder.
type record struct {
	Schema    string           `json:"schema"`
	Source    string           `json:"source"`
	Refs      []recordRef      `json:"refs"`
	Revisions []recordRevision `json:"revisions"`
	Files     []recordFile     `json:"files"`
}

type recordRef struct {
	Name   string `json:"name"`
	Commit string `json:"commit"`
}

type recordRevision struct {
	Commit  string       `json:"commit"`
	Files   []recordName `json:"files"`
	NoExist []string     `json:"no_exist,omitempty"`
}

// A recordName is a file of a revision, as trees/ lists it.
type recordName struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	OID    string `json:"oid"`
	SHA256 string `json:"sha256,omitempty"` // of an LFS file
}

// etag is the name of the file's blob.
func (n *recordName) etag() string {
	if n.SHA256 != "" {
		return n.SHA256
	}
	return n.OID
}

// A recordFile is a regular file that was put there: "blobs/ab...", and where
// there are no links "snapshots/COMMIT/config.json".
type recordFile struct {
	Path string         `json:"path"`
	Is   place.Identity `json:"is"`
}

// newRecord lists what a set wants of one repository.
func newRecord(source string, revs []*models.Revision, noExist bool) *record {
	rec := &record{Schema: recordSchema, Source: source, Refs: []recordRef{}, Files: []recordFile{}}
	for _, r := range revs {
		rr := recordRevision{Commit: r.Commit}
		for i := range r.Files {
			f := &r.Files[i]
			n := recordName{Path: f.Path, Size: f.Size, OID: string(f.OID)}
			if f.LFS != nil {
				n.SHA256 = f.LFS.SHA256.Hex()
			}
			rr.Files = append(rr.Files, n)
		}
		if noExist {
			rr.NoExist = absent(r)
		}
		for _, ref := range r.Refs {
			rec.Refs = append(rec.Refs, recordRef{ref, r.Commit})
		}
		rec.Revisions = append(rec.Revisions, rr)
	}
	slices.SortFunc(rec.Refs, func(a, b recordRef) int { return strings.Compare(a.Name, b.Name) })
	return rec
}

// revision returns what the record says of a commit; nil where it has it not.
func (r *record) revision(commit string) *recordRevision {
	i := slices.IndexFunc(r.Revisions, func(rr recordRevision) bool { return rr.Commit == commit })
	if i < 0 {
		return nil
	}
	return &r.Revisions[i]
}

// ref returns the commit that the record gives a branch; "" where it has not.
func (r *record) ref(name string) string {
	for _, ref := range r.Refs {
		if ref.Name == name {
			return ref.Commit
		}
	}
	return ""
}

// lasting is the record without what differs from one host to the next.
func (r *record) lasting() ([]byte, error) {
	c := *r
	c.Files = nil
	return c.encode()
}

// has reports whether the revision lists the file; a nil revision lists none.
func (rr *recordRevision) has(path string) bool {
	if rr == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(rr.Files, path, func(n recordName, p string) int { return strings.Compare(n.Path, p) })
	return ok
}

// paths are those of the revision's files.
func (rr *recordRevision) paths() []string {
	list := make([]string, len(rr.Files))
	for i := range rr.Files {
		list[i] = rr.Files[i].Path
	}
	return list
}

// merge is a record of all that either of two has: what may lie there between
// the one and the other.
func merge(a, b *record) *record {
	m := &record{Schema: recordSchema, Source: b.Source, Refs: []recordRef{}, Files: []recordFile{}}
	refs, files := map[string]string{}, map[string]place.Identity{}
	for _, r := range []*record{a, b} {
		for _, ref := range r.Refs {
			refs[ref.Name] = ref.Commit
		}
		for _, f := range r.Files {
			files[f.Path] = f.Is
		}
		for _, rr := range r.Revisions {
			m.add(rr)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		m.Refs = append(m.Refs, recordRef{name, refs[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		m.Files = append(m.Files, recordFile{name, files[name]})
	}
	return m
}

// add joins a revision with what is there of it.
func (r *record) add(rr recordRevision) {
	at := r.revision(rr.Commit)
	if at == nil {
		r.Revisions = append(r.Revisions, recordRevision{Commit: rr.Commit, Files: slices.Clone(rr.Files), NoExist: slices.Clone(rr.NoExist)})
		return
	}
	at.Files = slices.Concat(at.Files, rr.Files)
	sortFiles(at.Files)
	at.Files = slices.CompactFunc(at.Files, func(a, b recordName) bool { return a.Path == b.Path })
	at.NoExist = slices.Concat(at.NoExist, rr.NoExist)
	slices.Sort(at.NoExist)
	at.NoExist = slices.Compact(at.NoExist)
}

// sortFiles orders files as has needs them.
func sortFiles(files []recordName) {
	slices.SortStableFunc(files, func(a, b recordName) int { return strings.Compare(a.Path, b.Path) })
}

// recordPath is the place of a source's record below the repository's folder.
func recordPath(source string) string {
	return place.Corner + "/" + strings.ReplaceAll(source, "/", "--") + recordSuffix
}

func (r *record) encode() ([]byte, error) { return place.EncodeRecord(r, maxRecord) }

// readRecord reads a record; an empty one where there is none. One that
// cannot be read is an error: what it lists could not be taken away.
func readRecord(p *place.Place, rel string) (*record, error) {
	var r record
	err := p.ReadRecord(rel, maxRecord, &r)
	if place.Gone(err) {
		return &record{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Path(rel), err)
	}
	return &r, nil
}

// check holds what removal relies on: every name is a clean one below its
// folder.
func (r *record) check() error {
	if r.Schema != recordSchema {
		return fmt.Errorf("schema %q, want %q", r.Schema, recordSchema)
	}
	var paths []string
	for _, ref := range r.Refs {
		paths = append(paths, ref.Name)
	}
	for _, rr := range r.Revisions {
		if !hub.IsCommit(rr.Commit) {
			return fmt.Errorf("commit %q", rr.Commit)
		}
		paths = append(paths, rr.NoExist...)
		sortFiles(rr.Files)
		for i := range rr.Files {
			paths = append(paths, rr.Files[i].Path)
			if etag := rr.Files[i].etag(); etag == "" || strings.Trim(etag, "0123456789abcdef") != "" {
				return fmt.Errorf("digest %q", etag)
			}
		}
	}
	for _, f := range r.Files {
		paths = append(paths, f.Path)
	}
	for _, p := range paths {
		if !fs.ValidPath(p) || p == "." {
			return fmt.Errorf("path %q", p)
		}
	}
	return nil
}

// readOthers reads the records of the other sources in a repository's corner.
func readOthers(p *place.Place, source string) ([]*record, error) {
	entries, err := p.Entries(place.Corner)
	if err != nil {
		return nil, err
	}
	own := path.Base(recordPath(source))
	var all []*record
	for _, e := range entries {
		if e.Name() == own || !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		r, err := readRecord(p, place.Corner+"/"+e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
