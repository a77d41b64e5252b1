package pypi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// indexName is the metadata file of a snapshot.
	indexName   = "index.json"
	indexSchema = "darkmirror.pypi/v1"
	// maxIndex bounds index.json and current.json: 300 bytes a file for the
	// most files that a snapshot may hold would be more, but a closure of
	// 2,000 projects has 3 MiB.
	maxIndex = 128 << 20
)

// An indexDoc is index.json: what the index said of the files of a snapshot,
// as far as it is published again. It holds no clock reading and no serial,
// so that the same state gives the same bytes.
type indexDoc struct {
	Schema   string         `json:"schema"`
	Projects []indexProject `json:"projects"`
}

type indexProject struct {
	Name         string      `json:"name"`
	Status       string      `json:"status,omitempty"` // PEP 792; empty is active
	StatusReason string      `json:"status_reason,omitempty"`
	Files        []indexFile `json:"files"`
}

type indexFile struct {
	Filename       string          `json:"filename"`
	Version        string          `json:"version"`
	SHA256         artifact.Digest `json:"sha256"`
	Size           int64           `json:"size"`
	RequiresPython string          `json:"requires_python,omitempty"`
	Yanked         bool            `json:"yanked,omitempty"`
	YankedReason   string          `json:"yanked_reason,omitempty"`
	UploadTime     string          `json:"upload_time,omitempty"`
	// CoreMetadata is the hash that the index named for the METADATA file.
	CoreMetadata string `json:"core_metadata,omitempty"`
	// Provenance is the digest of the file's provenance object, which the
	// snapshot lists among its metadata.
	Provenance string `json:"provenance,omitempty"`
}

// encode sorts and writes the document.
func (d *indexDoc) encode() ([]byte, error) {
	d.Schema = indexSchema
	if d.Projects == nil {
		d.Projects = []indexProject{}
	}
	slices.SortFunc(d.Projects, func(a, b indexProject) int { return strings.Compare(a.Name, b.Name) })
	for i := range d.Projects {
		slices.SortFunc(d.Projects[i].Files, func(a, b indexFile) int { return strings.Compare(a.Filename, b.Filename) })
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// decodeIndex reads index.json strictly.
func decodeIndex(b []byte) (*indexDoc, error) {
	if len(b) > maxIndex {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), maxIndex)
	}
	var d indexDoc
	if err := strictjson.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return &d, nil
}

// check holds the invariants: schema, sorted and unique normal names, strict
// filenames of the project and version they stand under, digests, sizes, and
// text that cannot break out of a page.
func (d *indexDoc) check() error {
	if d.Schema != indexSchema {
		return fmt.Errorf("schema %q, want %q", clip(d.Schema), indexSchema)
	}
	last := ""
	for i := range d.Projects {
		p := &d.Projects[i]
		if n, err := packaging.NormalizeName(p.Name); err != nil || n != p.Name {
			return fmt.Errorf("project name %q is not in normal form", clip(p.Name))
		}
		if p.Name <= last && i > 0 {
			return fmt.Errorf("project %q is out of order", p.Name)
		}
		last = p.Name
		if len(p.Files) == 0 {
			return fmt.Errorf("project %q has no files", p.Name)
		}
		if plain(p.Status) != p.Status || plain(p.StatusReason) != p.StatusReason {
			return fmt.Errorf("project %q: malformed status", p.Name)
		}
		lastFile := ""
		for j := range p.Files {
			f := &p.Files[j]
			if f.Filename <= lastFile && j > 0 {
				return fmt.Errorf("file %q is out of order", clip(f.Filename))
			}
			lastFile = f.Filename
			if err := f.check(p.Name); err != nil {
				return fmt.Errorf("file %q: %w", clip(f.Filename), err)
			}
		}
	}
	return nil
}

func (f *indexFile) check(project string) error {
	name, version, err := packaging.ParseDistName(f.Filename)
	if err != nil {
		return err
	}
	v, err := packaging.ParseVersion(f.Version)
	switch {
	case err != nil:
		return err
	case name != project || version.Compare(v) != 0 || v.String() != f.Version:
		return fmt.Errorf("not a file of %s %s", project, clip(f.Version))
	case f.SHA256.IsZero() || f.Size <= 0:
		return errors.New("digest or size missing")
	case plain(f.RequiresPython) != f.RequiresPython || plain(f.YankedReason) != f.YankedReason || f.YankedReason != "" && !f.Yanked:
		return errors.New("malformed text")
	}
	if f.UploadTime != "" {
		if _, err := time.Parse(time.RFC3339Nano, f.UploadTime); err != nil {
			return err
		}
	}
	for _, d := range []string{f.CoreMetadata, f.Provenance} {
		if d == "" {
			continue
		}
		if _, err := artifact.ParseDigest(d); err != nil {
			return err
		}
	}
	return nil
}

// sealedIndex reads the document of a snapshot; nil where it has none.
func sealedIndex(st *store.Store, snap *artifact.Snapshot) (*indexDoc, error) {
	f, ok := snap.MetaFile(indexName)
	if !ok {
		return nil, nil
	}
	raw, err := st.ReadAll(f.Digest, maxIndex)
	if err != nil {
		return nil, err
	}
	return decodeIndex(raw)
}

// Uploaded tells when the index got the files of a snapshot of this package,
// by digest, as far as the index told.
func Uploaded(snap *artifact.Snapshot, st *store.Store) (map[artifact.Digest]time.Time, error) {
	doc, err := sealedIndex(st, snap)
	if err != nil || doc == nil {
		return nil, err
	}
	times := make(map[artifact.Digest]time.Time)
	for _, p := range doc.Projects {
		for _, f := range p.Files {
			if t, err := time.Parse(time.RFC3339Nano, f.UploadTime); err == nil {
				times[f.SHA256] = t
			}
		}
	}
	return times, nil
}
