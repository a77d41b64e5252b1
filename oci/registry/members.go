package registry

import (
	"net/http"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// maxNesting bounds indexes within indexes that a push takes over from the
// publication. The largest seen is two.
const maxNesting = 8

// A plan is what must be pushed along with a manifest: the parts of it that
// only the publication has. They stay when an import withdraws them there.
type plan struct {
	blobs     map[spec.Digest]artifact.Digest
	manifests []planned // children before their index
	seen      map[spec.Digest]bool
}

type planned struct {
	digest spec.Digest
	record record
}

// plan checks that everything m names is in the repository, with the sizes
// that it says; the caller holds the lock. The subject need not be here, and
// foreign layers may lie elsewhere.
func (t *target) plan(m *spec.Manifest) (*plan, error) {
	p := &plan{blobs: make(map[spec.Digest]artifact.Digest), seen: make(map[spec.Digest]bool)}
	for _, d := range m.Blobs() {
		if err := t.planBlob(p, d); err != nil {
			return nil, err
		}
	}
	for _, d := range m.Manifests {
		if err := t.planChild(p, d); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func missing(t *target, d spec.Descriptor) *fault {
	return faultf(http.StatusBadRequest, codeManifestBlobUnknown, "%s (%s) is not in repository %s: push it first", d.Digest, clip(d.MediaType), t.name)
}

func wrongSize(d spec.Descriptor, got int64) *fault {
	return faultf(http.StatusBadRequest, codeSizeInvalid, "%s has %d bytes, the manifest says %d", d.Digest, got, d.Size)
}

func (t *target) planBlob(p *plan, d spec.Descriptor) error {
	e, err := t.blob(d.Digest)
	switch {
	case absent(err) && d.Foreign() && len(d.URLs) > 0:
		return nil
	case absent(err):
		return missing(t, d)
	case err != nil:
		return err
	case e.size != d.Size:
		return wrongSize(d, e.size)
	}
	if e.published {
		p.blobs[d.Digest] = e.blob
	}
	return nil
}

// planChild checks an index's entry. One whose media type is no manifest's may
// be a blob.
func (t *target) planChild(p *plan, d spec.Descriptor) error {
	e, err := t.manifest(d.Digest)
	switch {
	case absent(err) && !d.IsManifest():
		return t.planBlob(p, d)
	case absent(err):
		return missing(t, d)
	case err != nil:
		return err
	case e.size != d.Size:
		return wrongSize(d, e.size)
	case d.IsManifest() && d.MediaType != e.mediaType:
		return faultf(http.StatusBadRequest, codeManifestInvalid, "%s is %q, the index says %q", d.Digest, e.mediaType, clip(d.MediaType))
	}
	if !e.published {
		return nil
	}
	return t.planPublished(p, e, 0)
}

// planPublished takes over a published manifest with everything below it.
func (t *target) planPublished(p *plan, e entry, depth int) error {
	if p.seen[e.digest] {
		return nil
	}
	p.seen[e.digest] = true
	if depth > maxNesting {
		return faultf(http.StatusBadRequest, codeManifestInvalid, "%s: indexes are nested deeper than %d", e.digest, maxNesting)
	}
	m, err := t.parse(e.blob, e.mediaType)
	if err != nil {
		return err
	}
	for _, d := range m.Blobs() {
		if b, ok := t.pub.blob(d.Digest); ok {
			p.blobs[d.Digest] = b.blob
		}
	}
	for _, d := range m.Manifests {
		child, ok := t.pub.manifest(d.Digest)
		if !ok {
			if b, ok := t.pub.blob(d.Digest); ok {
				p.blobs[d.Digest] = b.blob
			}
			continue
		}
		if err := t.planPublished(p, child, depth+1); err != nil {
			return err
		}
	}
	p.manifests = append(p.manifests, planned{e.digest, record{Blob: e.blob, Size: e.size, MediaType: e.mediaType, Subject: e.subject}})
	return nil
}

// keep writes what a plan says; the caller holds the lock.
func (t *target) keep(p *plan) error {
	for d, at := range p.blobs {
		if err := t.src.tree.writeBlob(t.repo, d, at); err != nil {
			return err
		}
		failpoint.Here("registry.blob-kept")
	}
	for _, m := range p.manifests {
		if err := t.src.tree.writeManifest(t.repo, m.digest, m.record); err != nil {
			return err
		}
		failpoint.Here("registry.manifest-kept")
	}
	return nil
}
