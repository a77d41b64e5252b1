package oci

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// recordSchema names the encoding of a record.
	recordSchema = "darkmirror.oci/v1"
	// recordPath is the record's place among a snapshot's metadata.
	recordPath = "oci.json"
	// maxRecord bounds it: about 200 bytes a manifest.
	maxRecord = 128 << 20
)

// A record is the document that a source puts beside the images: what a
// snapshot's files alone do not tell. It is made by darkmirror, so the inside
// checks each word of it against the manifests themselves.
type record struct {
	Schema       string             `json:"schema"`
	Repositories []recordRepository `json:"repositories"`
}

type recordRepository struct {
	// Name is the repository inside: "registry.example/library/nginx".
	Name      string           `json:"name"`
	Images    []Image          `json:"images"`
	Manifests []recordManifest `json:"manifests"`
}

type recordManifest struct {
	Digest    spec.Digest `json:"digest"`
	MediaType string      `json:"media_type"`
}

// An Image is what a user asked for by one reference.
type Image struct {
	// Version is the artifact's: the tag, or the digest of one asked for by
	// digest alone.
	Version string      `json:"version"`
	Tag     string      `json:"tag,omitempty"` // empty: by digest alone
	Root    spec.Digest `json:"root"`
	// Original is the digest that upstream has, where a platform filter
	// wrote a new index; Dropped are the platforms that are missing in it.
	Original spec.Digest `json:"original,omitempty"`
	Dropped  []string    `json:"dropped,omitempty"`
	// Attached are the tags under which signatures and their like of this
	// image stand, in the manner of cosign.
	Attached []Tag `json:"attached,omitempty"`
	// Skipped are foreign layers that the configuration leaves out.
	Skipped []spec.Digest `json:"skipped,omitempty"`
	// Derived says what the manifest was made from, where it was not read
	// from a registry: "helm", "docker-archive".
	Derived string `json:"derived,omitempty"`
}

// A Tag is a name for a manifest of its repository.
type Tag struct {
	Name   string      `json:"name"`
	Digest spec.Digest `json:"digest"`
}

// A Set is what one snapshot publishes, read back and checked.
type Set struct {
	Repositories []Repository // sorted by name
}

// A Repository is one repository of a set.
type Repository struct {
	Name   string
	Images []Image // sorted by version
	// Manifests are all of them, in an order in which they may be pushed:
	// children before their index, subjects before their referrers.
	Manifests []Member
	// Blobs are the configs and layers, sorted by digest.
	Blobs []Member
}

// A Member is a manifest or a blob of a repository. All of them are in the
// store.
type Member struct {
	Digest    spec.Digest
	Blob      artifact.Digest // the same bytes in the store
	Size      int64
	MediaType string // of a manifest; empty for a blob
	// Subject is the digest of the manifest that this one refers to, or
	// empty.
	Subject spec.Digest
}

// Tags are the tags of the images and those attached to them, sorted by name.
func (r *Repository) Tags() []Tag {
	var tags []Tag
	for _, im := range r.Images {
		if im.Tag != "" {
			tags = append(tags, Tag{im.Tag, im.Root})
		}
		tags = append(tags, im.Attached...)
	}
	slices.SortFunc(tags, func(a, b Tag) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(tags, func(a, b Tag) bool { return a.Name == b.Name })
}

// Find returns the repository of that name.
func (s *Set) Find(name string) (*Repository, bool) {
	i, ok := slices.BinarySearchFunc(s.Repositories, name, func(r Repository, n string) int { return strings.Compare(r.Name, n) })
	if !ok {
		return nil, false
	}
	return &s.Repositories[i], true
}

// paths of a repository's members below the snapshot's root, as a registry
// has them in its URLs.
func manifestPath(repo string, d spec.Digest) string { return repo + "/manifests/" + string(d) }
func blobPath(repo string, d spec.Digest) string     { return repo + "/blobs/" + string(d) }

// splitPath is the inverse of manifestPath and blobPath.
func splitPath(p string) (repo, kind string, d spec.Digest, err error) {
	for _, kind := range []string{"/manifests/", "/blobs/"} {
		i := strings.LastIndex(p, kind)
		if i < 0 {
			continue
		}
		d, err := spec.ParseDigest(p[i+len(kind):])
		if err != nil {
			return "", "", "", err
		}
		if err := spec.CheckName(p[:i]); err != nil {
			return "", "", "", err
		}
		return p[:i], strings.Trim(kind, "/"), d, nil
	}
	return "", "", "", fmt.Errorf("path %q is neither a manifest's nor a blob's", p)
}

func (r *record) encode() ([]byte, error) {
	r.Schema = recordSchema
	slices.SortFunc(r.Repositories, func(a, b recordRepository) int { return strings.Compare(a.Name, b.Name) })
	for i := range r.Repositories {
		slices.SortFunc(r.Repositories[i].Images, func(a, b Image) int { return strings.Compare(a.Version, b.Version) })
	}
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("%s has %d bytes, at most %d are carried: split the source", recordPath, len(b), maxRecord)
	}
	return b, err
}

func decodeRecord(b []byte) (*record, error) {
	var r record
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Schema != recordSchema {
		return nil, fmt.Errorf("schema %q, want %q", r.Schema, recordSchema)
	}
	return &r, nil
}

// ReadSet reads what a snapshot publishes. Images whose artifact is not in the
// snapshot (held back, or not to be had) are left out, and so is every member
// that only they had. An error is an ErrIntegrity refusal (OCI-RECORD), or the
// store's.
func ReadSet(snap *artifact.Snapshot, st *store.Store) (*Set, error) {
	refuse := func(reason string, err error) (*Set, error) {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "OCI-RECORD", Subject: snap.Source, Reason: reason, Err: err}
	}
	f, ok := snap.MetaFile(recordPath)
	if !ok {
		return refuse("the snapshot has no "+recordPath, nil)
	}
	b, err := st.ReadAll(f.Digest, maxRecord)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", snap.Source, recordPath, err)
	}
	rec, err := decodeRecord(b)
	if err != nil {
		return refuse(recordPath+" cannot be read", err)
	}
	set, err := rec.set(snap)
	if err != nil {
		return refuse(recordPath+" and the snapshot disagree", err)
	}
	for i := range set.Repositories {
		if err := set.Repositories[i].subjects(snap.Source, st); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// set joins the record with the snapshot's files.
func (r *record) set(snap *artifact.Snapshot) (*Set, error) {
	files := make(map[string]map[string]artifact.File) // repository -> path -> file
	listed := make(map[string]bool)                    // "name version"
	for _, a := range snap.Artifacts {
		listed[a.Name+" "+a.Version] = true
		for _, f := range a.Files {
			repo, _, _, err := splitPath(f.Path)
			if err != nil {
				return nil, err
			}
			if repo != a.Name {
				return nil, fmt.Errorf("artifact %s has a file of %s", a.Name, repo)
			}
			if files[repo] == nil {
				files[repo] = make(map[string]artifact.File)
			}
			files[repo][f.Path] = f
		}
	}
	set := &Set{}
	for _, rr := range r.Repositories {
		if files[rr.Name] == nil {
			continue // all of its images are left out
		}
		repo, err := rr.join(files[rr.Name], listed)
		if err != nil {
			return nil, err
		}
		delete(files, rr.Name)
		set.Repositories = append(set.Repositories, *repo)
	}
	for name := range files {
		return nil, fmt.Errorf("repository %s is not in the record", name)
	}
	slices.SortFunc(set.Repositories, func(a, b Repository) int { return strings.Compare(a.Name, b.Name) })
	return set, nil
}

func (rr *recordRepository) join(files map[string]artifact.File, listed map[string]bool) (*Repository, error) {
	repo := &Repository{Name: rr.Name}
	manifests := make(map[spec.Digest]bool)
	for _, m := range rr.Manifests {
		p := manifestPath(rr.Name, m.Digest)
		f, ok := files[p]
		if !ok {
			continue // only of an image that is left out
		}
		if manifests[m.Digest] {
			return nil, fmt.Errorf("%s stands twice", p)
		}
		manifests[m.Digest] = true
		delete(files, p)
		repo.Manifests = append(repo.Manifests, Member{Digest: m.Digest, Blob: f.Digest, Size: f.Size, MediaType: m.MediaType})
	}
	for p, f := range files {
		_, kind, d, err := splitPath(p)
		if err != nil {
			return nil, err
		}
		if kind != "blobs" {
			return nil, fmt.Errorf("%s is not in the record", p)
		}
		repo.Blobs = append(repo.Blobs, Member{Digest: d, Blob: f.Digest, Size: f.Size})
	}
	for _, m := range append(repo.Manifests, repo.Blobs...) {
		if d, ok := m.Digest.SHA256(); ok && d != m.Blob {
			return nil, fmt.Errorf("%s: %s is not its own digest", rr.Name, m.Digest)
		}
	}
	slices.SortFunc(repo.Blobs, func(a, b Member) int { return cmp.Compare(a.Digest, b.Digest) })
	tags := make(map[string]spec.Digest)
	for _, im := range rr.Images {
		if !listed[rr.Name+" "+im.Version] {
			continue
		}
		for _, t := range append([]Tag{{im.Tag, im.Root}}, im.Attached...) {
			if err := rr.checkTag(t, manifests, tags); err != nil {
				return nil, err
			}
		}
		repo.Images = append(repo.Images, im)
	}
	return repo, nil
}

// checkTag holds that a tag is well-formed, points at a manifest that is
// there, and at one only.
func (rr *recordRepository) checkTag(t Tag, manifests map[spec.Digest]bool, tags map[string]spec.Digest) error {
	if !manifests[t.Digest] {
		return fmt.Errorf("%s:%s: its manifest %s is missing", rr.Name, t.Name, t.Digest)
	}
	if t.Name == "" {
		return nil // an image by digest alone
	}
	if err := spec.CheckTag(t.Name); err != nil {
		return fmt.Errorf("%s: %w", rr.Name, err)
	}
	if d, ok := tags[t.Name]; ok && d != t.Digest {
		return fmt.Errorf("%s:%s: points at both %s and %s", rr.Name, t.Name, d, t.Digest)
	}
	tags[t.Name] = t.Digest
	return nil
}

// subjects reads the manifests for the ones they refer to.
func (r *Repository) subjects(source string, st *store.Store) error {
	for i := range r.Manifests {
		m := &r.Manifests[i]
		b, err := st.ReadAll(m.Blob, spec.MaxManifest)
		if err != nil {
			return fmt.Errorf("%s: %s@%s: %w", source, r.Name, m.Digest, err)
		}
		view, err := spec.ParseManifest(b, m.MediaType)
		if err != nil {
			return fmt.Errorf("%s: %s@%s: %w", source, r.Name, m.Digest, err)
		}
		if view.Subject != nil {
			m.Subject = view.Subject.Digest
		}
	}
	return nil
}
