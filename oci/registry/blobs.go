package registry

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// forEver: a URL with a digest never means anything else.
	forEver = "private, max-age=31536000, immutable"
	// notAtAll: a tag may move.
	notAtAll = "no-cache"
)

// isDigest tells a digest from a tag, which has no colon.
func isDigest(ref string) bool { return strings.Contains(ref, ":") }

func badDigest(err error) *fault {
	return faultf(http.StatusBadRequest, codeDigestInvalid, "%v", err)
}

func badTag(err error) *fault {
	return faultf(http.StatusBadRequest, codeManifestInvalid, "%v", err)
}

// getBlob answers GET and HEAD.
func (h *Handler) getBlob(w http.ResponseWriter, r *http.Request, t *target) error {
	d, err := spec.ParseDigest(t.ref)
	if err != nil {
		return badDigest(err)
	}
	e, err := t.blob(d)
	if err != nil {
		return t.notFound(err, codeBlobUnknown, "blob "+string(d))
	}
	e.mediaType = "application/octet-stream"
	w.Header().Set("Cache-Control", forEver)
	return h.serveEntry(w, r, e)
}

// serveEntry sends e's bytes, which the store has verified, or the head of
// that answer. Ranges and conditions are those of [http.ServeContent], which
// hands a file to the kernel.
func (h *Handler) serveEntry(w http.ResponseWriter, r *http.Request, e entry) error {
	head := w.Header()
	send := func(content io.ReadSeeker) {
		head.Set("Content-Type", e.mediaType)
		head.Set("Docker-Content-Digest", string(e.digest))
		head.Set("Etag", `"`+string(e.digest)+`"`)
		http.ServeContent(w, r, "", time.Time{}, content)
	}
	if r.Method == http.MethodHead {
		// The same answer without a body: nothing is read, and a layer that
		// nobody has fetched yet is not hashed for it.
		send(io.NewSectionReader(nothing{}, 0, e.size))
		return nil
	}
	f, err := h.store.File(e.blob)
	if absent(err) {
		code := codeBlobUnknown
		if (spec.Descriptor{MediaType: e.mediaType}).IsManifest() {
			code = codeManifestUnknown
		}
		return faultf(http.StatusNotFound, code, "%s is no longer on this server", e.digest)
	}
	if errors.Is(err, artifact.ErrIntegrity) {
		return &fault{
			status: http.StatusInternalServerError, code: codeUnknown, err: err,
			message: string(e.digest) + " was damaged on this server and has been set aside: push or import it again",
		}
	}
	if err != nil {
		return err
	}
	send(f)
	if err := f.Close(); err != nil {
		h.log.ErrorContext(r.Context(), "close blob", slog.Any("error", err))
	}
	return nil
}

// nothing stands for bytes that nobody reads.
type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// deleteBlob takes a pushed blob out of the repository. The store keeps the
// bytes: others may have them too.
func (h *Handler) deleteBlob(w http.ResponseWriter, r *http.Request, t *target) error {
	d, err := spec.ParseDigest(t.ref)
	if err != nil {
		return badDigest(err)
	}
	if err := t.removeBlob(d); err != nil {
		return t.notFound(err, codeBlobUnknown, "blob "+string(d))
	}
	h.log.InfoContext(r.Context(), "blob deleted", slog.String("repository", t.name), slog.String("digest", string(d)))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (t *target) removeBlob(d spec.Digest) (err error) {
	if _, ok := t.pub.blob(d); ok {
		return t.readOnly("blob " + string(d))
	}
	unlock, err := t.lockExisting()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	user, err := t.userOf(d)
	if err != nil {
		return err
	}
	if user != "" {
		return inUse("blob", d, user)
	}
	return t.src.tree.remove(blobFile(t.repo, d))
}

// readOnly refuses to delete what an import published.
func (t *target) readOnly(what string) *fault {
	return faultf(http.StatusMethodNotAllowed, codeUnsupported, "%s: %s was published by an import; what imports publish is changed by imports alone", t.name, what).
		with("Allow", http.MethodGet+", "+http.MethodHead)
}

// inUse refuses to delete what would leave an image that is not whole.
func inUse(kind string, d, user spec.Digest) *fault {
	return faultf(http.StatusMethodNotAllowed, codeUnsupported, "%s %s is part of manifest %s: delete that first", kind, d, user).
		with("Allow", http.MethodGet+", "+http.MethodHead)
}

// lockExisting locks a repository to which something was pushed; the error
// matches fs.ErrNotExist if nothing ever was.
func (t *target) lockExisting() (unlock func() error, err error) {
	if !t.src.tree.exists(t.repo) {
		return nil, fs.ErrNotExist
	}
	return t.src.tree.lock(t.repo)
}

// userOf returns a pushed manifest that names d, or nothing.
func (t *target) userOf(d spec.Digest) (user spec.Digest, err error) {
	var inner error
	err = t.src.tree.manifests(t.repo, func(m spec.Digest, r *record) bool {
		view, err := t.parse(r.Blob, r.MediaType)
		if absent(err) {
			return true // its bytes are lost, so it uses nothing
		}
		if err != nil {
			inner = err
			return false
		}
		for _, part := range append(view.Blobs(), view.Manifests...) {
			if part.Digest == d {
				user = m
				return false
			}
		}
		return true
	})
	return user, errors.Join(err, inner)
}

// parse reads a manifest of the store.
func (v *view) parse(blob artifact.Digest, mediaType string) (*spec.Manifest, error) {
	b, err := v.src.store.ReadAll(blob, spec.MaxManifest)
	if err != nil {
		return nil, err
	}
	return spec.ParseManifest(b, mediaType)
}
