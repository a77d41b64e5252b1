package ollama

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
)

const (
	recordSchema = "darkmirror.ollama/v1"
	recordSuffix = ".json"
	// maxRecord bounds the record of one repository: about 300 bytes a tag.
	maxRecord = 16 << 20
)

// A record is what one source has put there of one repository, so that a
// later set may take it away again.
type record struct {
	Schema    string           `json:"schema"`
	Source    string           `json:"source"`
	Repo      string           `json:"repo"`
	Manifests []recordManifest `json:"manifests"`
	Blobs     []recordBlob     `json:"blobs"`
	Heads     []head           `json:"heads"`
}

type recordManifest struct {
	Name   string          `json:"name"`   // "models.example/team/model/q4_k_m"
	Digest artifact.Digest `json:"digest"` // of the manifest itself
}

type recordBlob struct {
	Digest artifact.Digest `json:"digest"`
	Is     place.Identity  `json:"is"` // empty: not known yet
}

// recordFolder is where a source's records lie, recordPath that of one
// repository.
func recordFolder(source string) string {
	return place.Corner + "/" + strings.ReplaceAll(source, "/", "--")
}

func recordPath(source, folder string) string {
	return recordFolder(source) + "/" + folder + recordSuffix
}

func (r *record) hasManifest(name string) bool {
	return slices.ContainsFunc(r.Manifests, func(m recordManifest) bool { return m.Name == name })
}

func (r *record) hasBlob(d artifact.Digest) bool {
	return slices.ContainsFunc(r.Blobs, func(b recordBlob) bool { return b.Digest == d })
}

// merge is a record of all that either of two has: what may lie there between
// the one and the other. A manifest may be the former or the next one.
func merge(a, b *record) *record {
	m := &record{Schema: recordSchema, Source: b.Source, Repo: b.Repo, Manifests: slices.Clone(b.Manifests), Blobs: slices.Clone(b.Blobs), Heads: b.Heads}
	for _, old := range a.Manifests {
		if !slices.Contains(m.Manifests, old) {
			m.Manifests = append(m.Manifests, old)
		}
	}
	for _, old := range a.Blobs {
		if !m.hasBlob(old.Digest) {
			m.Blobs = append(m.Blobs, old)
		}
	}
	return m
}

func (r *record) encode() ([]byte, error) { return place.EncodeRecord(r, maxRecord) }

// A ledger is all records, of every source, by their paths, and why some
// cannot be read: what those list could not be taken away.
type ledger struct {
	records map[string]*record
	broken  map[string]error
}

func readLedger(p *place.Place) (*ledger, error) {
	l := &ledger{make(map[string]*record), make(map[string]error)}
	sources, err := p.Entries(place.Corner)
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		if !s.IsDir() {
			continue
		}
		entries, err := p.Entries(place.Corner + "/" + s.Name())
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			rel := place.Corner + "/" + s.Name() + "/" + e.Name()
			if !strings.HasSuffix(rel, recordSuffix) {
				continue
			}
			if r, err := readRecord(p, rel); err != nil {
				l.broken[rel] = err
			} else {
				l.records[rel] = r
			}
		}
	}
	return l, nil
}

// check says why a repository's records cannot be read.
func (l *ledger) check(folder string) error {
	for rel, err := range l.broken {
		if path.Base(rel) == folder+recordSuffix {
			return err
		}
	}
	return nil
}

// others reports whether a record but that one lists a manifest.
func (l *ledger) others(rel, manifest string) bool {
	for at, r := range l.records {
		if at != rel && r.hasManifest(manifest) {
			return true
		}
	}
	return false
}

// known are the blobs that are right, by the records.
func (l *ledger) known() map[artifact.Digest]place.Identity {
	all := make(map[artifact.Digest]place.Identity)
	for _, r := range l.records {
		for _, b := range r.Blobs {
			if b.Is != "" {
				all[b.Digest] = b.Is
			}
		}
	}
	return all
}

func readRecord(p *place.Place, rel string) (*record, error) {
	var r record
	if err := p.ReadRecord(rel, maxRecord, &r); err != nil {
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
	model, err := modelName(name)
	if err != nil {
		return err
	}
	for _, m := range r.Manifests {
		host, rest, _ := strings.Cut(m.Name, "/")
		tag, ok := strings.CutPrefix(rest, model+"/")
		if !ok || checkPart(hostPart, maxHost, host) != nil || checkPart(part, maxPart, tag) != nil {
			return fmt.Errorf("manifest %q", m.Name)
		}
	}
	return nil
}
