package registry

import (
	"errors"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// beginUpload mounts a blob of another repository, takes a whole blob, or
// begins an upload.
func (h *Handler) beginUpload(w http.ResponseWriter, r *http.Request, t *target) error {
	q := r.URL.Query()
	if mount := q.Get("mount"); mount != "" {
		d, err := spec.ParseDigest(mount)
		if err != nil {
			return badDigest(err)
		}
		if done, err := h.mount(w, r, t, d, q.Get("from")); done || err != nil {
			return err
		}
	}
	if err := h.admit(); err != nil {
		return err
	}
	u, err := h.store.NewUpload()
	if err != nil {
		return err
	}
	if text := q.Get("digest"); text != "" && q.Get("mount") == "" {
		return h.takeWhole(w, r, t, u, text)
	}
	if err := u.Close(); err != nil {
		return err
	}
	t.uploadHead(w, u.ID(), 0)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// admit bounds the unfinished uploads.
func (h *Handler) admit() error {
	if err := h.sweepUploads(time.Now()); err != nil {
		return err
	}
	n, err := h.store.Uploads()
	if err != nil {
		return err
	}
	if n >= h.o.MaxUploads {
		return faultf(http.StatusTooManyRequests, codeTooMany, "%d uploads are unfinished: finish or cancel some, or wait until they expire", n).
			with("Retry-After", "60")
	}
	return nil
}

// mount takes over a blob that another repository has, or any repository if
// from is empty. done is false where there is none: the client uploads.
func (h *Handler) mount(w http.ResponseWriter, r *http.Request, t *target, d spec.Digest, from string) (done bool, err error) {
	e, ok, err := h.findBlob(r, d, from)
	if !ok || err != nil {
		return false, err
	}
	if err := t.addBlob(d, e); err != nil {
		return false, err
	}
	h.log.InfoContext(r.Context(), "blob mounted", slog.String("repository", t.name), slog.String("digest", string(d)))
	t.blobCreated(w, d)
	return true, nil
}

// findBlob looks for a blob among repositories: everybody who may push may
// read all of them.
func (h *Handler) findBlob(r *http.Request, d spec.Digest, from string) (entry, bool, error) {
	if from != "" {
		ft, err := h.target(r, route{end: endBlob, name: from})
		if _, isFault := errors.AsType[*fault](err); isFault {
			return entry{}, false, nil // no such repository: upload
		}
		if err != nil {
			return entry{}, false, err
		}
		return found(ft.blob(d))
	}
	for _, s := range h.sources {
		now, err := s.current(r.Context())
		if err != nil {
			return entry{}, false, err
		}
		repos, err := s.tree.repos()
		if err != nil {
			return entry{}, false, err
		}
		for name := range now.repos {
			repos = append(repos, name)
		}
		for _, name := range repos {
			v := view{src: s, repo: name, pub: now.repos[name]}
			if e, ok, err := found(v.blob(d)); ok || err != nil {
				return e, ok, err
			}
		}
	}
	return entry{}, false, nil
}

func found(e entry, err error) (entry, bool, error) {
	if absent(err) {
		return entry{}, false, nil
	}
	return e, err == nil, err
}

// addBlob makes a blob of the store a blob of the repository.
func (t *target) addBlob(d spec.Digest, e entry) (err error) {
	unlock, err := t.src.tree.lock(t.repo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := t.src.tree.writeBlob(t.repo, d, e.blob); err != nil {
		return err
	}
	failpoint.Here("registry.blob-known")
	return nil
}

// blobCreated is the answer to a blob that has arrived.
func (t *target) blobCreated(w http.ResponseWriter, d spec.Digest) {
	w.Header().Set("Location", t.link("blobs", string(d)))
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

// uploadHead says where an upload goes on, and from which byte.
func (t *target) uploadHead(w http.ResponseWriter, id string, size int64) {
	for key, values := range t.uploadAt(id, size) {
		w.Header()[key] = values
	}
}

func (t *target) uploadAt(id string, size int64) http.Header {
	ref := sessionID(id, t.name)
	head := make(http.Header)
	head.Set("Location", t.link("blobs/uploads", ref))
	head.Set("Docker-Upload-Uuid", ref)
	// Of nothing the range is 0-0 as well: all registries say so.
	head.Set("Range", "0-"+strconv.FormatInt(max(size-1, 0), 10))
	return head
}

func (t *target) noUpload() *fault {
	return faultf(http.StatusNotFound, codeUploadUnknown, "there is no such upload of %s: it was finished, cancelled, or has expired", t.name)
}

// uploadStatus says how much of an upload has arrived.
func (h *Handler) uploadStatus(w http.ResponseWriter, _ *http.Request, t *target) error {
	id, ok := uploadOf(t.ref, t.name)
	if !ok {
		return t.noUpload()
	}
	size, err := h.store.UploadSize(id)
	if absent(err) {
		return t.noUpload()
	}
	if err != nil {
		return err
	}
	t.uploadHead(w, id, size)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// resume takes up the upload of a request; done gives it back and keeps it.
func (h *Handler) resume(w http.ResponseWriter, r *http.Request, t *target) (_ *store.Upload, _ *session, done func() error, err error) {
	id, ok := uploadOf(t.ref, t.name)
	if !ok {
		return nil, nil, nil, t.noUpload()
	}
	s, leave, err := h.sessions.enter(r.Context(), id, w)
	if err != nil {
		return nil, nil, nil, err
	}
	u, err := h.store.ResumeUpload(id)
	if err != nil {
		leave()
		switch {
		case absent(err):
			err = t.noUpload()
		case errors.Is(err, store.ErrBusy):
			err = faultf(http.StatusConflict, codeUploadInvalid, "the upload is in use by another process")
		}
		return nil, nil, nil, err
	}
	return u, s, func() error {
		defer leave()
		return u.Close()
	}, nil
}

// patchUpload takes a piece of a blob.
func (h *Handler) patchUpload(w http.ResponseWriter, r *http.Request, t *target) error {
	u, s, done, err := h.resume(w, r, t)
	if err != nil {
		return err
	}
	err = h.receive(r, t, u, s, nil)
	if err = errors.Join(err, done()); err != nil {
		return err
	}
	t.uploadHead(w, u.ID(), u.Size())
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// receive appends a request's body to an upload, and to the second hash if
// there is one. What arrived before a line broke is kept.
func (h *Handler) receive(r *http.Request, t *target, u *store.Upload, s *session, second hash.Hash) error {
	want, err := t.expect(r, u)
	if err != nil {
		return err
	}
	if want > 0 {
		free, err := h.store.Free()
		if err == nil && free < want {
			err = &store.SpaceError{Path: "store", Needed: want, Free: free}
		}
		if err != nil {
			return err
		}
	}
	body := &meter{body: r.Body, session: s}
	defer body.end()
	var src io.Reader = body
	if want >= 0 {
		src = io.LimitReader(body, want)
	}
	if second != nil {
		src = io.TeeReader(src, second)
	}
	n, err := u.ReadFrom(src)
	switch {
	case body.err != nil:
		return faultf(http.StatusBadRequest, codeUploadInvalid, "the body ended after %d bytes: %v", n, body.err)
	case err != nil:
		if _, ok := errors.AsType[*store.SpaceError](err); ok {
			// Bytes that can never be complete would keep the disk full.
			err = errors.Join(err, u.Discard())
		}
		return err
	case want >= 0 && n < want:
		return faultf(http.StatusBadRequest, codeSizeInvalid, "the chunk has %d bytes, %d were announced", n, want)
	}
	if want >= 0 {
		if m, _ := body.Read(make([]byte, 1)); m > 0 {
			return faultf(http.StatusBadRequest, codeSizeInvalid, "the chunk has more than the %d bytes that were announced", want)
		}
	}
	return nil
}

// expect checks where a chunk begins and returns how many bytes it has; -1 if
// only its end tells.
func (t *target) expect(r *http.Request, u *store.Upload) (int64, error) {
	text := r.Header.Get("Content-Range")
	if text == "" {
		return r.ContentLength, nil
	}
	first, last, err := parseContentRange(text)
	if err != nil {
		return 0, err
	}
	if first != u.Size() {
		f := faultf(http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, "the chunk begins at byte %d, but %d bytes have arrived", first, u.Size())
		f.header = t.uploadAt(u.ID(), u.Size())
		return 0, f
	}
	want := last - first + 1
	if r.ContentLength >= 0 && r.ContentLength != want {
		return 0, faultf(http.StatusBadRequest, codeSizeInvalid, "content range %s has %d bytes, content length says %d", clip(text), want, r.ContentLength)
	}
	return want, nil
}

// parseContentRange reads "0-1023": in uploads it has neither a unit nor a
// total.
func parseContentRange(text string) (first, last int64, err error) {
	number := func(s string) (int64, bool) {
		if s == "" || strings.Trim(s, "0123456789") != "" {
			return 0, false
		}
		n, err := strconv.ParseInt(s, 10, 62) // so that last+1 is a number too
		return n, err == nil
	}
	a, b, _ := strings.Cut(text, "-")
	first, ok1 := number(a)
	last, ok2 := number(b)
	if !ok1 || !ok2 || last < first {
		return 0, 0, faultf(http.StatusBadRequest, codeUploadInvalid, "content range %q: want first-last, in bytes", clip(text))
	}
	return first, last, nil
}

// finishUpload takes the last piece, which may be empty, and the digest.
func (h *Handler) finishUpload(w http.ResponseWriter, r *http.Request, t *target) error {
	d, err := spec.ParseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return badDigest(err)
	}
	u, s, done, err := h.resume(w, r, t)
	if err != nil {
		return err
	}
	err = h.finish(r, t, u, s, d)
	if err = errors.Join(err, done()); err != nil {
		return err
	}
	t.blobCreated(w, d)
	return nil
}

// takeWhole takes a blob in one request. Nobody else knows its upload, which
// ends with it.
func (h *Handler) takeWhole(w http.ResponseWriter, r *http.Request, t *target, u *store.Upload, digest string) error {
	d, err := spec.ParseDigest(digest)
	if err != nil {
		return errors.Join(badDigest(err), u.Discard())
	}
	err = h.finish(r, t, u, &session{control: http.NewResponseController(w)}, d)
	if err = errors.Join(err, u.Discard()); err != nil {
		return err
	}
	t.blobCreated(w, d)
	return nil
}

// finish receives what is left of an upload, compares it with d and makes it
// a blob of the repository.
func (h *Handler) finish(r *http.Request, t *target, u *store.Upload, s *session, d spec.Digest) error {
	var second hash.Hash
	if d.Algorithm() != spec.SHA256 && u.Size() == 0 {
		second = d.New()
	}
	if err := h.receive(r, t, u, s, second); err != nil {
		return err
	}
	got, err := sum(u, second, d)
	if err != nil {
		return err
	}
	if got != d {
		// What arrived is wrong somewhere, and only more can be added to it.
		return errors.Join(faultf(http.StatusBadRequest, codeDigestInvalid, "the %d bytes that arrived are %s, not %s", u.Size(), got, d), u.Discard())
	}
	blob, err := u.Commit()
	if err != nil {
		return err
	}
	failpoint.Here("registry.blob-stored")
	if err := t.addBlob(d, entry{blob: blob}); err != nil {
		return err
	}
	h.log.InfoContext(r.Context(), "blob pushed", slog.String("repository", t.name), slog.String("digest", string(d)), slog.Int64("bytes", u.Size()))
	return nil
}

// sum is what arrived, by d's algorithm. Only a blob that came in pieces and
// is named by another one than the store's is read again.
func sum(u *store.Upload, second hash.Hash, d spec.Digest) (spec.Digest, error) {
	if d.Algorithm() == spec.SHA256 {
		return spec.FromSHA256(u.Sum()), nil
	}
	if second == nil {
		second = d.New()
		if _, err := io.Copy(second, u.Reader()); err != nil {
			return "", err
		}
	}
	return d.With(second), nil
}

// cancelUpload drops an upload.
func (h *Handler) cancelUpload(w http.ResponseWriter, r *http.Request, t *target) error {
	u, _, done, err := h.resume(w, r, t)
	if err != nil {
		return err
	}
	if err := errors.Join(u.Discard(), done()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
