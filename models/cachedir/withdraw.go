package cachedir

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/place"
)

// maxRef is more than a ref has, which is a commit and perhaps a newline.
const maxRef = 64

// withdraw takes away what the record has and no source wants any more. Refs
// are gone already.
func (r *repository) withdraw() error {
	held, err := r.heldCommits()
	if err != nil {
		return err
	}
	for i := range r.old.Revisions {
		rr := &r.old.Revisions[i]
		keep := r.keepers(rr.Commit)
		if len(keep) == 0 && held[rr.Commit] {
			continue
		}
		if err := r.withdrawRevision(rr, keep); err != nil {
			return err
		}
	}
	return r.withdrawBlobs()
}

// heldCommits are those that a ref names. Where no record has the commit any
// more, the ref is somebody else's.
func (r *repository) heldCommits() (map[string]bool, error) {
	held := make(map[string]bool)
	err := fs.WalkDir(r.Root().FS(), refsDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err != nil || fi.Size() > maxRef {
			return err
		}
		b, err := r.Root().ReadFile(name)
		held[strings.TrimSpace(string(b))] = true
		return err
	})
	if place.Gone(err) {
		err = nil
	}
	return held, err
}

// keepers are the revisions of that commit which stay.
func (r *repository) keepers(commit string) []*recordRevision {
	var list []*recordRevision
	for _, rec := range append(slices.Clone(r.others), r.want) {
		if rr := rec.revision(commit); rr != nil {
			list = append(list, rr)
		}
	}
	return list
}

// withdrawRevision removes the tree, then the files, of a commit; of one that
// another source or another profile keeps, only the files that are too many.
func (r *repository) withdrawRevision(rr *recordRevision, keep []*recordRevision) error {
	for _, name := range rr.NoExist {
		if !slices.ContainsFunc(keep, func(k *recordRevision) bool { return slices.Contains(k.NoExist, name) }) {
			if err := r.Remove(path.Join(noExistDir, rr.Commit, name)); err != nil {
				return err
			}
		}
	}
	if r.want.revision(rr.Commit) == nil { // else it is written already
		if err := r.tree(rr.Commit); err != nil {
			return err
		}
	}
	at := path.Join(snapshotsDir, rr.Commit)
	if len(keep) == 0 {
		return r.RemoveFolder(at, rr.paths())
	}
	for _, n := range rr.Files {
		if slices.ContainsFunc(keep, func(k *recordRevision) bool { return k.has(n.Path) }) {
			continue
		}
		if err := r.Remove(path.Join(at, n.Path)); err != nil {
			return err
		}
	}
	return nil
}

// withdrawBlobs removes blobs that the record has and no snapshot links to,
// whoever made it.
func (r *repository) withdrawBlobs() error {
	stale := make(map[string]bool)
	for i := range r.old.Revisions {
		for j := range r.old.Revisions[i].Files {
			stale[r.old.Revisions[i].Files[j].etag()] = true
		}
	}
	if r.links == models.LinksRelative {
		for i := range r.want.Revisions {
			for j := range r.want.Revisions[i].Files {
				delete(stale, r.want.Revisions[i].Files[j].etag())
			}
		}
	}
	for _, rec := range r.others { // one that is on its way is linked to by nothing yet
		for i := range rec.Revisions {
			for j := range rec.Revisions[i].Files {
				delete(stale, rec.Revisions[i].Files[j].etag())
			}
		}
	}
	if len(stale) == 0 {
		return nil
	}
	err := fs.WalkDir(r.Root().FS(), snapshotsDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		text, err := r.Root().Readlink(name)
		delete(stale, path.Base(text))
		return err
	})
	if err != nil && !place.Gone(err) {
		return err
	}
	for etag := range stale {
		at := path.Join(blobsDir, etag)
		if _, err := r.Root().Lstat(at); place.Gone(err) {
			continue
		}
		failpoint.Here("cachedir.blob-removed")
		if err := r.Remove(at); err != nil {
			return err
		}
	}
	return nil
}

// vanish ends a repository that the source no longer has: its record goes
// last, and every folder with it in which nothing else is.
func (r *repository) vanish() error {
	if err := r.Prepare(); err != nil {
		return err
	}
	if err := r.refs(); err != nil {
		return err
	}
	if err := r.withdraw(); err != nil {
		return err
	}
	failpoint.Here("cachedir.vanish")
	for _, dir := range []string{blobsDir, snapshotsDir, treesDir, refsDir, noExistDir} {
		if err := r.Prune(dir); err != nil {
			return err
		}
	}
	return r.Remove(recordPath(r.source))
}
