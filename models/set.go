package models

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/repo"
)

const (
	// recordSchema names the encoding of a record.
	recordSchema = "darkmirror.models/v1"
	// recordPath is the record's place among a snapshot's metadata.
	recordPath = "models.json"
	// maxRecord bounds it: about 250 bytes a file.
	maxRecord = 256 << 20
	// maxRevisions bounds the revisions of one source.
	maxRevisions = 10_000
)

// A record is the document that a source puts beside the files: what a
// snapshot alone does not tell.
type record struct {
	Schema    string           `json:"schema"`
	Revisions []recordRevision `json:"revisions"`
}

type recordRevision struct {
	Repo   string   `json:"repo"` // "team/model", "datasets/team/name"
	Commit string   `json:"commit"`
	Refs   []string `json:"refs"`
	// Profile chose the files: "all", "vllm", "gguf:Q4_K_M".
	Profile string       `json:"profile"`
	Files   []recordFile `json:"files"`
	Left    []repo.Left  `json:"left,omitempty"`
	Licence repo.Licence `json:"licence"`
	Gated   string       `json:"gated,omitempty"`
	Needs   []Need       `json:"needs,omitempty"`
	Origin  string       `json:"origin"`
}

type recordFile struct {
	Path        string  `json:"path"`
	OID         hub.OID `json:"oid"`
	PointerSize int64   `json:"pointer_size,omitempty"` // of an LFS file
}

// A Need is a reference of a model to another repository.
type Need struct {
	repo.Reference
	// Carried reports whether the same source brings that repository.
	Carried bool `json:"carried"`
}

// A Set is what one source publishes, read back and checked.
type Set struct {
	Revisions []Revision // sorted by repository and commit
}

// A Revision is one commit of a repository, and those of its files that are
// carried.
type Revision struct {
	Repo   hub.Repo
	Commit string
	// Refs are the branches and tags that stand for it, sorted: "main". One
	// that was asked for by commit has none.
	Refs    []string
	Profile string
	Files   []File      // sorted by path
	Left    []repo.Left // what the profile leaves out
	Licence repo.Licence
	Gated   string // "auto" or "manual", where the hub asks before it gives
	Needs   []Need
	Origin  string // where it was read: the hub's address, or "local"
}

// A File is one file of a revision. It is in the store.
type File struct {
	hub.Entry
	Blob artifact.Digest // of an LFS file, its LFS digest
}

// Size is the number of bytes of all files.
func (r *Revision) Size() (n int64) {
	for _, f := range r.Files {
		n += f.Size
	}
	return n
}

// File returns the file of that path.
func (r *Revision) File(path string) (*File, bool) {
	i, ok := slices.BinarySearchFunc(r.Files, path, func(f File, p string) int { return strings.Compare(f.Path, p) })
	if !ok {
		return nil, false
	}
	return &r.Files[i], true
}

// Find returns the revision of a repository that a branch, tag or commit
// names. "HEAD" is "main", or the only branch that there is.
func (s *Set) Find(name hub.Repo, revision string) (*Revision, bool) {
	var only *Revision
	n := 0
	for i := range s.Revisions {
		r := &s.Revisions[i]
		if r.Repo != name {
			continue
		}
		if r.Commit == revision || slices.Contains(r.Refs, revision) || revision == head && slices.Contains(r.Refs, mainBranch) {
			return r, true
		}
		only, n = r, n+1
	}
	if revision == head && n == 1 {
		return only, true
	}
	return nil, false
}

const (
	head       = "HEAD"
	mainBranch = "main"
)

// filePath is a file's place below the snapshot's root.
func filePath(name hub.Repo, commit, path string) string {
	return name.String() + "/" + commit + "/" + path
}

func (r *record) encode() ([]byte, error) {
	r.Schema = recordSchema
	slices.SortFunc(r.Revisions, func(a, b recordRevision) int {
		return cmp.Or(strings.Compare(a.Repo, b.Repo), strings.Compare(a.Commit, b.Commit))
	})
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("%s has %d bytes, at most %d are carried: split the source", recordPath, len(b), maxRecord)
	}
	return b, err
}

// remove takes a revision out and answers what stood for it.
func (r *record) remove(name, commit string) (refs []string) {
	r.Revisions = slices.DeleteFunc(r.Revisions, func(rr recordRevision) bool {
		if rr.Repo != name || rr.Commit != commit {
			return false
		}
		refs = append(refs, rr.Refs...)
		return true
	})
	return refs
}

// add makes ref stand for a revision; true where that was not in the record.
func (r *record) add(rev *Revision, ref string) bool {
	for i := range r.Revisions {
		if rr := &r.Revisions[i]; rr.Repo == rev.Repo.String() && rr.Commit == rev.Commit {
			rr.Refs = append(rr.Refs, ref)
			slices.Sort(rr.Refs)
			return false
		}
	}
	rr := rev.record()
	rr.Refs = []string{ref}
	r.Revisions = append(r.Revisions, rr)
	return true
}

func decodeRecord(b []byte) (*record, error) {
	var r record
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Schema != recordSchema {
		return nil, fmt.Errorf("schema %q, want %q", r.Schema, recordSchema)
	}
	if len(r.Revisions) > maxRevisions {
		return nil, fmt.Errorf("%d revisions, at most %d", len(r.Revisions), maxRevisions)
	}
	return &r, nil
}

// ReadSet reads what a snapshot publishes. Revisions whose artifact is not in
// the snapshot (held back, or not to be had) are left out. An error is an
// ErrIntegrity refusal (MODELS-RECORD), or the store's.
func ReadSet(snap *artifact.Snapshot, st *store.Store) (*Set, error) {
	f, ok := RecordOf(snap)
	if !ok {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeRecord, Subject: snap.Source, Reason: "the snapshot has no " + recordPath}
	}
	b, err := st.ReadAll(f.Digest, maxRecord)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", snap.Source, recordPath, err)
	}
	return DecodeSet(snap, b)
}

// RecordOf is the metadata file of a snapshot that [DecodeSet] reads; false
// where the snapshot is not of models.
func RecordOf(snap *artifact.Snapshot) (artifact.File, bool) { return snap.MetaFile(recordPath) }

// DecodeSet reads what a snapshot publishes from the content of its record.
func DecodeSet(snap *artifact.Snapshot, b []byte) (*Set, error) {
	refuse := func(reason string, err error) (*Set, error) {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeRecord, Subject: snap.Source, Reason: reason, Err: err}
	}
	rec, err := decodeRecord(b)
	if err != nil {
		return refuse(recordPath+" cannot be read", err)
	}
	set, err := rec.set(snap)
	if err != nil {
		return refuse(recordPath+" and the snapshot disagree", err)
	}
	return set, nil
}

// set joins the record with the snapshot's files, which must be the very same.
func (r *record) set(snap *artifact.Snapshot) (*Set, error) {
	listed := make(map[string]*artifact.Artifact, len(snap.Artifacts)) // "repo commit"
	for i := range snap.Artifacts {
		a := &snap.Artifacts[i]
		key := a.Name + " " + a.Version
		if listed[key] != nil {
			return nil, fmt.Errorf("%s stands twice", key)
		}
		listed[key] = a
	}
	set := &Set{}
	for i := range r.Revisions {
		rr := &r.Revisions[i]
		key := rr.Repo + " " + rr.Commit
		a := listed[key]
		if a == nil {
			continue
		}
		rev, err := rr.join(a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		delete(listed, key)
		set.Revisions = append(set.Revisions, *rev)
	}
	for key := range listed {
		return nil, fmt.Errorf("%s is not in the record", key)
	}
	set.sort()
	return set, set.checkRefs()
}

func (s *Set) sort() {
	slices.SortFunc(s.Revisions, func(a, b Revision) int {
		return cmp.Or(strings.Compare(a.Repo.String(), b.Repo.String()), strings.Compare(a.Commit, b.Commit))
	})
}

// checkRefs refuses a branch that stands for two commits.
func (s *Set) checkRefs() error {
	seen := make(map[string]bool)
	for _, r := range s.Revisions {
		for _, ref := range r.Refs {
			key := r.Repo.String() + "@" + ref
			if seen[key] {
				return fmt.Errorf("%s stands for two commits", key)
			}
			seen[key] = true
		}
	}
	return nil
}

func (rr *recordRevision) join(a *artifact.Artifact) (*Revision, error) {
	name, err := hub.ParseRepo(rr.Repo)
	if err != nil {
		return nil, err
	}
	if !hub.IsCommit(rr.Commit) {
		return nil, errors.New("not a commit")
	}
	for _, ref := range rr.Refs {
		if err := hub.CheckRevision(ref); err != nil {
			return nil, err
		}
		if hub.IsCommit(ref) {
			return nil, fmt.Errorf("%s is a commit, not a branch", ref)
		}
	}
	rev := &Revision{
		Repo: name, Commit: rr.Commit, Refs: slices.Sorted(slices.Values(rr.Refs)), Profile: rr.Profile,
		Left: rr.Left, Licence: rr.Licence, Gated: rr.Gated, Needs: rr.Needs, Origin: rr.Origin,
	}
	if len(rr.Files) != len(a.Files) {
		return nil, fmt.Errorf("%d files in the record, %d in the snapshot", len(rr.Files), len(a.Files))
	}
	files := make(map[string]artifact.File, len(a.Files))
	for _, f := range a.Files {
		files[f.Path] = f
	}
	entries := make([]hub.Entry, 0, len(rr.Files))
	for _, f := range rr.Files {
		at, ok := files[filePath(name, rr.Commit, f.Path)]
		if !ok {
			return nil, fmt.Errorf("%q is not in the snapshot", f.Path)
		}
		e := hub.Entry{Path: f.Path, Size: at.Size, OID: f.OID}
		if f.PointerSize > 0 {
			e.LFS = &hub.LFS{SHA256: at.Digest, PointerSize: f.PointerSize}
		}
		entries = append(entries, e)
		rev.Files = append(rev.Files, File{Entry: e, Blob: at.Digest})
	}
	if err := hub.CheckEntries(entries); err != nil {
		return nil, err
	}
	slices.SortFunc(rev.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return rev, nil
}
