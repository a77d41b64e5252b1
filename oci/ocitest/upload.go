package ocitest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// An upload is one session.
type upload struct {
	repo string
	data []byte
	lock chan struct{} // one request at a time
}

func (r *Registry) serveUpload(w http.ResponseWriter, q *http.Request, repo, id string) {
	if id == "" {
		if q.Method != http.MethodPost {
			fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed")
			return
		}
		r.startUpload(w, q, repo)
		return
	}
	r.mu.Lock()
	u := r.uploads[id]
	r.mu.Unlock()
	if u == nil || u.repo != repo {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return
	}
	u.lock <- struct{}{}
	defer func() { <-u.lock }()
	if r.stale(w, q, u, id) {
		return
	}
	switch q.Method {
	case http.MethodGet:
		r.progress(w, q, u, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		r.patch(w, q, u, id)
	case http.MethodPut:
		r.finish(w, q, u, id)
	case http.MethodDelete:
		r.drop(id)
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed")
	}
}

// startUpload mounts, takes a blob in one request, or opens a session.
func (r *Registry) startUpload(w http.ResponseWriter, q *http.Request, repo string) {
	mount, from := spec.Digest(q.URL.Query().Get("mount")), q.URL.Query().Get("from")
	r.mu.Lock()
	if b, ok := r.blob(from, mount); ok && !r.f.noMount && r.mayRead(q, from) {
		r.repo(repo).blobs[mount] = int64(len(b))
		r.mu.Unlock()
		created(w, repo, mount)
		return
	}
	id := fmt.Sprintf("upload-%d", r.next())
	u := &upload{repo: repo, lock: make(chan struct{}, 1)}
	r.uploads[id] = u
	r.mu.Unlock()
	if q.URL.Query().Get("digest") != "" {
		r.finish(w, q, u, id)
		return
	}
	r.progress(w, q, u, id)
	w.WriteHeader(http.StatusAccepted)
}

// progress sets the headers that tell where a session stands. Its URL holds a
// secret and, as docker-registry's, the offset.
func (r *Registry) progress(w http.ResponseWriter, q *http.Request, u *upload, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := base(q)
	if r.f.uploadsAt != "" {
		at = r.f.uploadsAt
	}
	if r.f.relative {
		at = ""
	}
	w.Header().Set("Location", fmt.Sprintf("%s/v2/%s/blobs/uploads/%s?_state=secret-state-%d", at, u.repo, id, len(u.data)))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(u.data)-1)))
	w.Header().Set("Docker-Upload-UUID", id)
	if r.f.minChunk > 0 {
		w.Header().Set("OCI-Chunk-Min-Length", strconv.FormatInt(r.f.minChunk, 10))
	}
}

// stale refuses a URL whose state is missing or, with LoseUploadOnCut, of
// another offset.
func (r *Registry) stale(w http.ResponseWriter, q *http.Request, u *upload, id string) bool {
	state := q.URL.Query().Get("_state")
	r.mu.Lock()
	lose := r.f.loseOnCut
	r.mu.Unlock()
	switch {
	case !strings.HasPrefix(state, "secret-state-"):
		fail(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "blob upload invalid")
		return true
	case lose && state != fmt.Sprintf("secret-state-%d", len(u.data)):
		r.drop(id)
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return true
	}
	return false
}

func (r *Registry) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.uploads, id)
}

func (r *Registry) patch(w http.ResponseWriter, q *http.Request, u *upload, id string) {
	r.mu.Lock()
	noChunks, minChunk, takeLess := r.f.noChunks, r.f.minChunk, r.f.takeLess
	refuse := r.f.rangeRefusals > 0
	if refuse {
		r.f.rangeRefusals--
	}
	r.mu.Unlock()
	if noChunks != 0 {
		fail(w, noChunks, "UNSUPPORTED", "no chunks here")
		return
	}
	if !r.inOrder(w, q, u, id, refuse) {
		return
	}
	if minChunk > 0 && q.ContentLength >= 0 && q.ContentLength < minChunk {
		r.progress(w, q, u, id)
		fail(w, http.StatusRequestedRangeNotSatisfiable, "SIZE_INVALID", "chunk too small")
		return
	}
	whole, before := false, len(u.data)
	defer func() { // a cut is a panic
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.f.dropPart && !whole {
			u.data = u.data[:before]
		}
	}()
	if err := r.receive(q, u, id); err != nil {
		return
	}
	whole = true
	if takeLess > 0 {
		u.data = u.data[:min(len(u.data), before+int(takeLess))]
	}
	r.progress(w, q, u, id)
	w.WriteHeader(http.StatusAccepted)
}

// inOrder refuses a chunk that does not begin where the session stands.
func (r *Registry) inOrder(w http.ResponseWriter, q *http.Request, u *upload, id string, refuse bool) bool {
	if v := q.Header.Get("Content-Range"); v != "" {
		var from, to int64
		if n, err := fmt.Sscanf(v, "%d-%d", &from, &to); n != 2 || err != nil || to-from+1 != q.ContentLength || from != int64(len(u.data)) {
			refuse = true
		}
	}
	if refuse {
		r.progress(w, q, u, id)
		fail(w, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "invalid content range")
	}
	return !refuse
}

// receive appends a body to a session, with the cuts that were ordered.
func (r *Registry) receive(q *http.Request, u *upload, id string) error {
	buf := make([]byte, 64<<10)
	for {
		r.mu.Lock()
		c, room := r.f.cutUpload, int64(len(buf))
		cut := c != nil && c.times > 0
		if cut {
			room = min(room, c.after)
			c.after -= room // another upload may be under way
		}
		r.mu.Unlock()
		if room == 0 {
			r.cutOff(q, id)
		}
		n, err := q.Body.Read(buf[:room])
		u.data = append(u.data, buf[:n]...)
		if cut {
			r.mu.Lock()
			c.after += room - int64(n)
			r.mu.Unlock()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			r.lose(id)
			return err
		}
	}
}

// stallTime is how long a stalled upload holds its session: longer than a
// client under test waits.
const stallTime = time.Second

// cutOff ends the connection, now or when the client does.
func (r *Registry) cutOff(q *http.Request, id string) {
	r.mu.Lock()
	stall := r.f.cutUpload.stall
	r.f.cutUpload.times--
	r.f.cutUpload.after = r.f.cutUpload.every
	r.mu.Unlock()
	if stall {
		// The server sees no end of a connection while a body is unread, so
		// the session's lock would be held for ever.
		select {
		case <-q.Context().Done():
		case <-time.After(stallTime):
		}
	}
	r.lose(id)
	panic(http.ErrAbortHandler)
}

// lose forgets a session whose request was cut, where that was ordered.
func (r *Registry) lose(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f.loseOnCut {
		delete(r.uploads, id)
	}
}

func (r *Registry) finish(w http.ResponseWriter, q *http.Request, u *upload, id string) {
	want, err := spec.ParseDigest(q.URL.Query().Get("digest"))
	if err != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "digest invalid")
		return
	}
	if !r.inOrder(w, q, u, id, false) || r.receive(q, u, id) != nil {
		return
	}
	r.drop(id)
	if want.Sum(u.data) != want {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	r.AddBlobAs(u.repo, want, u.data)
	created(w, u.repo, want)
}

func created(w http.ResponseWriter, repo string, d spec.Digest) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+string(d))
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}
