package registry

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// An entry is a manifest or a blob of a repository.
type entry struct {
	digest    spec.Digest     // as it was asked for
	blob      artifact.Digest // in the store
	size      int64
	mediaType string // of a manifest
	subject   spec.Digest
	published bool // by an import, hence not to be deleted
}

// A view is one repository, published over pushed, in one state of the
// publication.
type view struct {
	src  *source
	repo string         // within its source
	pub  *publishedRepo // nil: the import has none of that name
}

// blob finds a blob; the error matches fs.ErrNotExist if it is not here, or
// no longer in the store.
func (v *view) blob(d spec.Digest) (entry, error) {
	if e, ok := v.pub.blob(d); ok {
		return e, v.inStore(&e)
	}
	at, err := v.src.tree.blob(v.repo, d)
	if err != nil {
		return entry{}, err
	}
	e := entry{digest: d, blob: at, size: -1}
	err = v.inStore(&e)
	return e, err
}

// manifest finds a manifest, as blob does a blob.
func (v *view) manifest(d spec.Digest) (entry, error) {
	if e, ok := v.pub.manifest(d); ok {
		return e, v.inStore(&e)
	}
	r, err := v.src.tree.manifest(v.repo, d)
	if err != nil {
		return entry{}, err
	}
	e := entry{digest: d, blob: r.Blob, size: r.Size, mediaType: r.MediaType, subject: r.Subject}
	err = v.inStore(&e)
	return e, err
}

// inStore looks whether e's bytes are there, of the size that is known of
// them (-1: none is). It does not read them.
func (v *view) inStore(e *entry) error {
	size, err := v.src.store.Size(e.blob)
	if err != nil {
		return err
	}
	if e.size >= 0 && e.size != size {
		// Damaged, most likely: hashing it moves it out of the way, so that
		// it can be pushed or imported again.
		f, err := v.src.store.File(e.blob)
		if err == nil {
			err = errors.Join(fmt.Errorf("%s has %d bytes in the store, %d are expected", e.digest, size, e.size), f.Close())
		}
		return err
	}
	e.size = size
	return nil
}

// resolve finds a manifest by tag or digest.
func (v *view) resolve(ref string) (entry, error) {
	if isDigest(ref) {
		d, err := spec.ParseDigest(ref)
		if err != nil {
			return entry{}, badDigest(err)
		}
		return v.manifest(d)
	}
	d, _, err := v.tag(ref)
	if err != nil {
		return entry{}, err
	}
	return v.manifest(d)
}

// tag finds what a tag names.
func (v *view) tag(name string) (d spec.Digest, published bool, err error) {
	if err := spec.CheckTag(name); err != nil {
		return "", false, badTag(err)
	}
	if d, ok := v.pub.tag(name); ok {
		return d, true, nil
	}
	d, err = v.src.tree.digest(tagFile(v.repo, name))
	return d, false, err
}

// tags lists all of them, sorted.
func (v *view) tags() ([]string, error) {
	pushed, err := v.src.tree.names(tagFile(v.repo, ""))
	if err != nil {
		return nil, err
	}
	if v.pub == nil {
		return pushed, nil
	}
	return merge(v.pub.tags, pushed), nil
}

// referrersOf lists the digests of manifests whose subject is d, sorted.
func (v *view) referrersOf(d spec.Digest) ([]spec.Digest, error) {
	pushed, err := v.src.tree.referrers(v.repo, d)
	if err != nil {
		return nil, err
	}
	if v.pub == nil {
		return merge(nil, pushed), nil
	}
	return merge(v.pub.referrers[d], pushed), nil
}

// merge joins two lists to one that is sorted and names nothing twice.
func merge[S ~string](a, b []S) []S {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// exists reports whether the repository is known at all.
func (v *view) exists() bool { return v.pub != nil || v.src.tree.exists(v.repo) }

// notFound makes the answer of an error of the lookups above.
func (t *target) notFound(err error, code, what string) error {
	if _, ok := errors.AsType[*fault](err); ok || !absent(err) {
		return err
	}
	if !t.exists() {
		return faultf(http.StatusNotFound, codeNameUnknown, "repository %s is not here", t.name)
	}
	return faultf(http.StatusNotFound, code, "%s: %s is not here", t.name, what)
}
