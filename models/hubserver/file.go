package hubserver

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// forEver: what a commit names never changes.
	forEver = "private, max-age=31536000, immutable"
	// notAtAll: a branch may move, and a token may be taken away.
	notAtAll = "private, no-cache"

	typeText   = "text/plain; charset=utf-8"
	typeBinary = "application/octet-stream"
)

// resolve answers GET and HEAD of a file with its bytes, or the head of that
// answer.
func (h *Handler) resolve(w http.ResponseWriter, q *request) error {
	r, f, err := h.file(w, q)
	if err != nil {
		return err
	}
	head := w.Header()
	head.Set("Etag", `"`+f.ETag()+`"`)
	head.Set("Content-Type", typeText)
	if f.LFS != nil {
		head.Set("Content-Type", typeBinary)
		head.Set(hub.HeaderLinkedETag, `"`+f.ETag()+`"`)
		head.Set(hub.HeaderLinkedSize, strconv.FormatInt(f.Size, 10))
	}
	return h.send(w, q, r, f)
}

// raw answers with what git itself keeps: of an LFS file its pointer.
func (h *Handler) raw(w http.ResponseWriter, q *request) error {
	r, f, err := h.file(w, q)
	if err != nil {
		return err
	}
	w.Header().Set("Etag", `"`+string(f.OID)+`"`)
	w.Header().Set("Content-Type", typeText)
	if f.LFS == nil {
		return h.send(w, q, r, f)
	}
	http.ServeContent(w, q.Request, "", time.Time{}, bytes.NewReader(hub.Pointer(f.LFS.SHA256, f.Size)))
	return nil
}

// file finds what a request names, and sets the headers that both answers
// have.
func (h *Handler) file(w http.ResponseWriter, q *request) (*revision, *models.File, error) {
	_, r, err := h.find(q, q.revision)
	if err != nil {
		return nil, nil, err
	}
	f, ok := r.File(q.path)
	if !ok {
		return nil, nil, noEntry(r, q.path)
	}
	head := w.Header()
	head.Set(hub.HeaderCommit, r.Commit)
	head.Set("Accept-Ranges", "bytes")
	if q.revision == r.Commit {
		head.Set("Cache-Control", forEver)
	}
	name := url.PathEscape(path.Base(f.Path))
	head.Set("Content-Disposition", "inline; filename*=UTF-8''"+name+`; filename="`+name+`";`)
	return r, f, nil
}

// send sends a file's bytes, which the store has verified. Ranges and
// conditions are those of [http.ServeContent], which hands a file to the
// kernel; where reading it fails in the middle the connection is cut.
func (h *Handler) send(w http.ResponseWriter, q *request, r *revision, f *models.File) error {
	if q.Method == http.MethodHead {
		// The same answer without a body: nothing is read, and a file that
		// nobody has fetched yet is not hashed for it.
		http.ServeContent(w, q.Request, "", time.Time{}, io.NewSectionReader(nothing{}, 0, f.Size))
		return nil
	}
	b, err := h.store.File(f.Blob)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, artifact.ErrIntegrity) {
		// Announced for a success, and not true of this answer.
		for _, key := range []string{"Etag", "Content-Disposition", "Accept-Ranges", hub.HeaderLinkedETag, hub.HeaderLinkedSize} {
			w.Header().Del(key)
		}
		return &fault{
			status: http.StatusServiceUnavailable, err: err,
			message: f.Path + " of " + r.Repo.String() + " was damaged on this server and has been set aside, until a bundle brings it again",
		}
	}
	if err != nil {
		return err
	}
	cw := &countingWriter{ResponseWriter: w}
	http.ServeContent(cw, q.Request, "", time.Time{}, b)
	h.log.InfoContext(q.Context(), "download",
		slog.String("user", cmp.Or(q.caller.name, "anonymous")), slog.String("client", q.RemoteAddr), slog.String("repository", r.Repo.String()),
		slog.String("commit", r.Commit), slog.String("path", f.Path), slog.Int("status", cw.status), slog.Int64("bytes", cw.n))
	if err := b.Close(); err != nil {
		h.log.ErrorContext(q.Context(), "close blob", slog.Any("error", err))
	}
	return nil
}

// nothing stands for bytes that nobody reads.
type nothing struct{}

func (nothing) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// A countingWriter counts what is sent, and leaves copying from files to the
// kernel.
type countingWriter struct {
	http.ResponseWriter
	status int
	n      int64
}

// WriteHeader remembers the status.
func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// ReadFrom lets the server use sendfile.
func (w *countingWriter) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, src)
	w.n += n
	return n, err
}

// Unwrap is for [http.ResponseController].
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
