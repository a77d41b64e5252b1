package registry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// maxTagParams bounds the tags of one manifest's PUT; the specification wants
// at least ten.
const maxTagParams = 100

// getManifest answers GET and HEAD, with the media type that the manifest
// has: whatever the client accepts, other bytes would have another digest.
func (h *Handler) getManifest(w http.ResponseWriter, r *http.Request, t *target) error {
	e, err := t.resolve(t.ref)
	if err != nil {
		return t.notFound(err, codeManifestUnknown, "manifest "+clip(t.ref))
	}
	w.Header().Set("Cache-Control", notAtAll)
	if isDigest(t.ref) {
		w.Header().Set("Cache-Control", forEver)
	}
	return h.serveEntry(w, r, e)
}

// An offer is a manifest that a client wants to push.
type offer struct {
	raw    []byte
	digest spec.Digest
	view   *spec.Manifest
	tags   []string // to be written
}

// putManifest takes a manifest, once everything that it names is here.
func (h *Handler) putManifest(w http.ResponseWriter, r *http.Request, t *target) error {
	raw, err := readManifest(r)
	if err != nil {
		return err
	}
	o, asked, err := t.offer(r, raw)
	if err != nil {
		return err
	}
	if err := t.accept(o); err != nil {
		return err
	}
	h.log.InfoContext(r.Context(), "manifest pushed", slog.String("repository", t.name), slog.String("digest", string(o.digest)), slog.Any("tags", o.tags))
	head := w.Header()
	head.Set("Location", t.link("manifests", string(o.digest)))
	head.Set("Docker-Content-Digest", string(o.digest))
	if o.view.Subject != nil {
		head.Set("Oci-Subject", string(o.view.Subject.Digest))
	}
	for _, tag := range asked {
		head.Add("Oci-Tag", tag)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// readManifest reads a body of at most [spec.MaxManifest].
func readManifest(r *http.Request) ([]byte, error) {
	tooLarge := faultf(http.StatusRequestEntityTooLarge, codeManifestInvalid, "a manifest has at most %d bytes", spec.MaxManifest)
	if r.ContentLength > spec.MaxManifest {
		return nil, tooLarge
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, spec.MaxManifest+1))
	if err != nil {
		return nil, faultf(http.StatusBadRequest, codeManifestInvalid, "the manifest did not arrive: %v", err)
	}
	if len(raw) > spec.MaxManifest {
		return nil, tooLarge
	}
	return raw, nil
}

// offer checks what can be checked without the repository's lock. asked are
// the tags of a push by digest.
func (t *target) offer(r *http.Request, raw []byte) (o *offer, asked []string, err error) {
	o = &offer{raw: raw}
	asked = r.URL.Query()["tag"]
	tags := asked
	if isDigest(t.ref) {
		if o.digest, err = spec.ParseDigest(t.ref); err != nil {
			return nil, nil, badDigest(err)
		}
		if got := o.digest.Sum(raw); got != o.digest {
			return nil, nil, faultf(http.StatusBadRequest, codeDigestInvalid, "the manifest is %s, not %s", got, o.digest)
		}
	} else {
		if len(asked) > 0 {
			return nil, nil, faultf(http.StatusBadRequest, codeManifestInvalid, "tag parameters are for a push by digest")
		}
		o.digest = spec.FromSHA256(artifact.Sum(raw))
		tags = []string{t.ref}
	}
	if len(tags) > maxTagParams {
		return nil, nil, faultf(http.StatusBadRequest, codeManifestInvalid, "%d tags at once, at most %d are taken", len(tags), maxTagParams)
	}
	if o.view, err = parseOffer(raw, r.Header.Get("Content-Type")); err != nil {
		return nil, nil, err
	}
	for _, tag := range tags {
		if err := spec.CheckTag(tag); err != nil {
			return nil, nil, badTag(err)
		}
		have, published := t.pub.tag(tag)
		if published && have.Sum(raw) != have {
			return nil, nil, faultf(http.StatusForbidden, codeDenied, "%s:%s was published by an import and is %s: push another tag", t.name, tag, have)
		}
		if !published && !slices.Contains(o.tags, tag) {
			o.tags = append(o.tags, tag)
		}
	}
	return o, asked, nil
}

// parseOffer reads a manifest. Its own media type and the request's must be
// one: the same bytes must not be two things.
func parseOffer(raw []byte, contentType string) (*spec.Manifest, error) {
	invalid := func(format string, args ...any) error {
		return faultf(http.StatusBadRequest, codeManifestInvalid, format, args...)
	}
	mediaType := ""
	if contentType != "" {
		var err error
		if mediaType, _, err = mime.ParseMediaType(contentType); err != nil {
			return nil, invalid("content type %q: %v", clip(contentType), err)
		}
	}
	m, err := spec.ParseManifest(raw, mediaType)
	if err != nil {
		return nil, invalid("%v", err)
	}
	if mediaType != "" && mediaType != m.MediaType {
		return nil, invalid("the manifest is %q, but it was sent as %q", m.MediaType, clip(mediaType))
	}
	for _, d := range append(m.Blobs(), m.Manifests...) {
		if d.Data != nil && (int64(len(d.Data)) != d.Size || d.Digest.Sum(d.Data) != d.Digest) {
			return nil, invalid("%s: the data in the descriptor are not what it names", d.Digest)
		}
	}
	return m, nil
}

// accept stores an offer and makes its names known, tags last.
func (t *target) accept(o *offer) (err error) {
	unlock, err := t.src.tree.lock(t.repo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	p, err := t.plan(o.view)
	if err != nil {
		return err
	}
	blob, err := storeBytes(t.src.store, o.raw)
	if err != nil {
		return err
	}
	failpoint.Here("registry.manifest-stored")
	rec := record{Blob: blob, Size: int64(len(o.raw)), MediaType: o.view.MediaType}
	if o.view.Subject != nil {
		rec.Subject = o.view.Subject.Digest
	}
	if err := t.keep(p); err != nil {
		return err
	}
	failpoint.Here("registry.members-kept")
	if err := t.src.tree.writeManifest(t.repo, o.digest, rec); err != nil {
		return err
	}
	failpoint.Here("registry.manifest-known")
	for _, tag := range o.tags {
		if err := t.src.tree.writeTag(t.repo, tag, o.digest); err != nil {
			return err
		}
		failpoint.Here("registry.tagged")
	}
	return nil
}

// storeBytes keeps b as an upload. An import sweeps the temporary files of the
// store's own writers, whom it keeps away, but no uploads.
func storeBytes(st *store.Store, b []byte) (artifact.Digest, error) {
	u, err := st.NewUpload()
	if err != nil {
		return artifact.Digest{}, err
	}
	if _, err := u.Write(b); err != nil {
		return artifact.Digest{}, errors.Join(err, u.Discard())
	}
	d, err := u.Commit()
	if err != nil {
		return artifact.Digest{}, errors.Join(err, u.Discard())
	}
	return d, nil
}

// deleteManifest deletes a tag, or a manifest with its tags.
func (h *Handler) deleteManifest(w http.ResponseWriter, r *http.Request, t *target) (err error) {
	if isDigest(t.ref) {
		err = t.deleteDigest()
	} else {
		err = t.deleteTag()
	}
	if err != nil {
		return t.notFound(err, codeManifestUnknown, "manifest "+clip(t.ref))
	}
	h.log.InfoContext(r.Context(), "manifest deleted", slog.String("repository", t.name), slog.String("ref", t.ref))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (t *target) deleteTag() (err error) {
	_, published, err := t.tag(t.ref)
	if err != nil {
		return err
	}
	if published {
		return t.readOnly("tag " + t.ref)
	}
	unlock, err := t.lockExisting()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return t.src.tree.remove(tagFile(t.repo, t.ref))
}

func (t *target) deleteDigest() (err error) {
	d, err := spec.ParseDigest(t.ref)
	if err != nil {
		return badDigest(err)
	}
	if _, ok := t.pub.manifest(d); ok {
		return t.readOnly("manifest " + string(d))
	}
	unlock, err := t.lockExisting()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	tree := t.src.tree
	rec, err := tree.manifest(t.repo, d)
	if err != nil {
		return err
	}
	user, err := t.userOf(d)
	if err != nil {
		return err
	}
	if user != "" {
		return inUse("manifest", d, user)
	}
	if err := t.untag(d); err != nil {
		return err
	}
	failpoint.Here("registry.untagged")
	if err := tree.remove(manifestFile(t.repo, d)); err != nil {
		return err
	}
	failpoint.Here("registry.manifest-removed")
	if rec.Subject == "" {
		return nil
	}
	if err := tree.remove(referrerFile(t.repo, rec.Subject, d)); err != nil && !absent(err) {
		return fmt.Errorf("referrer: %w", err)
	}
	return nil
}

// untag removes the tags that name d; the caller holds the lock.
func (t *target) untag(d spec.Digest) error {
	tags, err := t.src.tree.names(tagFile(t.repo, ""))
	if err != nil {
		return err
	}
	for _, tag := range tags {
		at, err := t.src.tree.digest(tagFile(t.repo, tag))
		if err == nil && at == d {
			err = t.src.tree.remove(tagFile(t.repo, tag))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
