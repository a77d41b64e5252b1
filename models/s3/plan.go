package s3

import (
	"errors"
	"fmt"
	"path"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// refsFolder holds a repository's refs, manifestFolder the manifests of
	// the sources that share the prefix.
	refsFolder     = "refs"
	manifestFolder = ".darkmirror"
	// maxKey is S3's own bound of an object's name.
	maxKey = 1024
)

// An object is one that this source puts, or has put.
type object struct {
	key    string // its name in the bucket
	repo   hub.Repo
	commit string
	path   string // of a file, or the name of a ref
	ref    bool
	size   int64
	digest artifact.Digest
	// etag is the store's name for its bytes, once they are known to be the
	// object's.
	etag string
}

// content is what a ref holds.
func (o *object) content() []byte { return []byte(o.commit) }

func (t *Target) file(name hub.Repo, commit, file string, size int64, d artifact.Digest) *object {
	return &object{key: t.base + name.String() + "/" + commit + "/" + file, repo: name, commit: commit, path: file, size: size, digest: d}
}

func (t *Target) ref(name hub.Repo, ref, commit string) *object {
	o := &object{key: t.base + name.String() + "/" + refsFolder + "/" + ref, repo: name, commit: commit, path: ref, ref: true}
	o.size, o.digest = int64(len(o.content())), artifact.Sum(o.content())
	return o
}

// manifestKey is the name of a source's manifest.
func (t *Target) manifestKey() string { return t.base + manifestFolder + "/" + t.opt.Name + ".json" }

// A revision is what is put for one.
type revision struct {
	repo   hub.Repo
	commit string
	files  []*object
	refs   []*object
	err    error // why it was not published
}

func (r *revision) objects() []*object { return append(r.files[:len(r.files):len(r.files)], r.refs...) }

// plan lists what is to be there. A revision whose names the store cannot
// have is marked, and no other.
func (t *Target) plan(set *models.Set) []*revision {
	taken := map[string]*object{t.manifestKey(): {}}
	var plan []*revision
	for i := range set.Revisions {
		rev := &set.Revisions[i]
		r := &revision{repo: rev.Repo, commit: rev.Commit}
		for _, f := range rev.Files {
			r.files = append(r.files, t.file(rev.Repo, rev.Commit, f.Path, f.Size, f.Blob))
		}
		for _, ref := range rev.Refs {
			r.refs = append(r.refs, t.ref(rev.Repo, ref, rev.Commit))
		}
		if err := fits(r, taken); err != nil {
			r.err = &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeName, Subject: t.opt.Name + ": " + t.where() + rev.Repo.String() + "@" + rev.Commit, Reason: "its files cannot have their names there", Err: err}
		} else {
			for _, o := range r.objects() {
				taken[o.key] = o
			}
		}
		plan = append(plan, r)
	}
	return plan
}

// fits checks the names of one revision.
func fits(r *revision, taken map[string]*object) error {
	for _, o := range r.objects() {
		if len(o.key) > maxKey {
			return fmt.Errorf("%s: %d bytes, at most %d", printable(o.key), len(o.key), maxKey)
		}
		if other := taken[o.key]; other != nil {
			return errors.New(printable(o.key) + " is the name of something else too")
		}
	}
	return nil
}

// last reports whether a file is put after the others: engines look for it
// first.
func last(file string) bool {
	switch path.Base(file) {
	case "config.json", "model_index.json":
		return true
	}
	return false
}
