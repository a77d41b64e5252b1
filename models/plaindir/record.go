package plaindir

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
)

const (
	recordSchema = "darkmirror.plaindir/v1"
	recordSuffix = ".json"
	// maxRecord bounds the record of one repository: about 150 bytes a file.
	maxRecord = 256 << 20
)

// A record is what one source has put there of one repository, so that a
// later set may take it away again.
type record struct {
	Schema    string           `json:"schema"`
	Source    string           `json:"source"`
	Repo      string           `json:"repo"`
	Links     []recordLink     `json:"links"`
	Revisions []recordRevision `json:"revisions"`
}

type recordLink struct {
	Name     string `json:"name"`     // "team/model@v1.5"
	Revision string `json:"revision"` // a folder's name
}

type recordRevision struct {
	Folder string       `json:"folder"` // COMMIT-FILES
	Files  []recordFile `json:"files"`  // sorted by path
}

type recordFile struct {
	Path string         `json:"path"`
	Is   place.Identity `json:"is"` // empty: not known yet
}

// recordFolder is where a source's records lie, recordPath that of one
// repository.
func recordFolder(source string) string {
	return place.Corner + "/" + strings.ReplaceAll(source, "/", "--")
}

func recordPath(source, folder string) string {
	return recordFolder(source) + "/" + folder + recordSuffix
}

// link returns the folder that the record gives a link; "" where it has none.
func (r *record) link(name string) string {
	for _, l := range r.Links {
		if l.Name == name {
			return l.Revision
		}
	}
	return ""
}

// revision returns what the record says of a folder; nil where it has it not.
func (r *record) revision(folder string) *recordRevision {
	i := slices.IndexFunc(r.Revisions, func(rr recordRevision) bool { return rr.Folder == folder })
	if i < 0 {
		return nil
	}
	return &r.Revisions[i]
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
	m := &record{Schema: recordSchema, Source: b.Source, Repo: b.Repo, Links: slices.Clone(b.Links), Revisions: slices.Clone(b.Revisions)}
	for _, l := range a.Links {
		if m.link(l.Name) == "" {
			m.Links = append(m.Links, l)
		}
	}
	for _, rr := range a.Revisions {
		if m.revision(rr.Folder) == nil {
			m.Revisions = append(m.Revisions, rr)
		}
	}
	return m
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
	if err := r.check(strings.TrimSuffix(path.Base(rel), recordSuffix)); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Path(rel), err)
	}
	return &r, nil
}

// check holds what removal relies on: a record speaks of its own repository,
// and every name is a clean one.
func (r *record) check(folder string) error {
	if r.Schema != recordSchema {
		return fmt.Errorf("schema %q, want %q", r.Schema, recordSchema)
	}
	name, err := hub.ParseRepo(r.Repo)
	if err != nil {
		return err
	}
	if name.CacheFolder() != folder {
		return fmt.Errorf("it is of %s", name)
	}
	for _, l := range r.Links {
		rest, ok := strings.CutPrefix(l.Name, r.Repo)
		if !ok || rest != "" && rest[0] != '@' || strings.Contains(rest, "/") || !isFolder(l.Revision) {
			return fmt.Errorf("link %q to %q", l.Name, l.Revision)
		}
	}
	for _, rr := range r.Revisions {
		if !isFolder(rr.Folder) {
			return fmt.Errorf("folder %q", rr.Folder)
		}
		for _, f := range rr.Files {
			if !fs.ValidPath(f.Path) || f.Path == "." {
				return fmt.Errorf("path %q", f.Path)
			}
		}
		slices.SortFunc(rr.Files, func(a, b recordFile) int { return strings.Compare(a.Path, b.Path) })
	}
	return nil
}

// isFolder reports whether s is the name of a revision's folder.
func isFolder(s string) bool {
	commit, files, ok := strings.Cut(s, "-")
	return ok && hub.IsCommit(commit) && len(files) == idLength && strings.Trim(files, "0123456789abcdef") == ""
}
