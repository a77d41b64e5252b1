package pypi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// pageAge is how long a client may keep a page; pip honours it.
	pageAge = "max-age=600"
	// fileAge: a file's URL holds its digest.
	fileAge = "public, max-age=31536000, immutable"
	// gzipFrom is the page size from which compression pays.
	gzipFrom = 1 << 10
)

// A Handler serves the package index that a [Publisher] made current:
//
//	/simple/                            the projects
//	/simple/PROJECT/                    a project's files
//	/files/SHA256/FILENAME              a file
//	/files/SHA256/FILENAME.metadata     a wheel's METADATA
//
// Every link and redirect is relative, so that it works under any prefix that
// [http.StripPrefix] takes off. It serves what the store has verified, and
// never asks another host.
type Handler struct {
	file  string
	store *store.Store
	log   *slog.Logger

	mu    sync.Mutex // held while reloading
	state atomic.Pointer[state]
}

// NewHandler serves what the publisher with the folder dir published.
func NewHandler(dir string, st *store.Store, log *slog.Logger) *Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Handler{file: filepath.Join(dir, currentName), store: st, log: log}
}

// state is one publication, ready to serve; it does not change.
type state struct {
	info     fs.FileInfo // of current.json; nil if nothing is published
	projects map[string]*currentProject
	names    []string
	files    map[string]served // by "SHA256/FILENAME"
	pages    sync.Map          // pageKey to *rendered: bounded by the projects
}

// served is one file that may be asked for.
type served struct {
	digest   artifact.Digest
	metadata bool
}

// load returns the current state, read again if current.json was replaced.
// If the new one cannot be read, the old one stays.
func (h *Handler) load() (*state, error) {
	info, err := os.Stat(h.file)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil
	}
	old := h.state.Load()
	if err != nil {
		return old, err
	}
	if old != nil && sameFile(old.info, info) {
		return old, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.state.Load(); now != old && now != nil && sameFile(now.info, info) {
		return now, nil // somebody else was faster
	}
	fresh, err := readState(h.file)
	if err != nil {
		return old, err
	}
	h.state.Store(fresh)
	h.log.Info("publication loaded", slog.Int("projects", len(fresh.names)), slog.Int("files", len(fresh.files)))
	return fresh, nil
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// readState reads current.json and the identity of the very file that it
// read. No file is an empty index.
func readState(name string) (*state, error) {
	s := &state{projects: make(map[string]*currentProject), files: make(map[string]served)}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	info, err := f.Stat()
	if err == nil {
		_, err = b.ReadFrom(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	cur, err := decodeCurrent(b.Bytes())
	if err != nil {
		return nil, err
	}
	s.info = info
	for i := range cur.Projects {
		p := &cur.Projects[i]
		s.projects[p.Name] = p
		s.names = append(s.names, p.Name)
		for j := range p.Files {
			f := &p.Files[j]
			key := f.File.SHA256.Hex() + "/" + f.File.Filename
			s.files[key] = served{digest: f.File.SHA256}
			if f.Metadata == "" {
				continue
			}
			d, err := artifact.ParseDigest(f.Metadata)
			if err != nil {
				return nil, err
			}
			s.files[key+".metadata"] = served{digest: d, metadata: true}
		}
	}
	return s, nil
}

// ServeHTTP answers GET and HEAD.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	s, err := h.load()
	if err != nil {
		h.log.ErrorContext(r.Context(), "publication cannot be read", slog.Any("error", err))
		if s == nil {
			http.Error(w, "the index cannot be read", http.StatusInternalServerError)
			return
		}
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	switch rest, ok := strings.CutPrefix(path, "files/"); {
	case ok:
		h.serveFile(w, r, s, rest)
	case path == "simple":
		redirect(w, "simple/")
	case path == "simple/":
		h.servePage(w, r, s, "")
	case strings.HasPrefix(path, "simple/"):
		h.project(w, r, s, strings.TrimPrefix(path, "simple/"))
	default:
		http.NotFound(w, r)
	}
}

// project serves simple/NAME/, and redirects from other spellings of a name
// that is there.
func (h *Handler) project(w http.ResponseWriter, r *http.Request, s *state, rest string) {
	name, slash := strings.CutSuffix(rest, "/")
	normal, err := packaging.NormalizeName(name)
	if err != nil || s.projects[normal] == nil {
		http.NotFound(w, r)
		return
	}
	switch {
	case !slash:
		redirect(w, normal+"/")
	case normal != name:
		redirect(w, "../"+normal+"/")
	default:
		h.servePage(w, r, s, normal)
	}
}

// redirect sends a relative reference: http.Redirect would make it absolute
// and lose the prefix that was stripped.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", pageAge)
	w.WriteHeader(http.StatusMovedPermanently)
}

// servePage sends the list of projects (name "") or a project's page, in the
// form that the client likes best.
func (h *Handler) servePage(w http.ResponseWriter, r *http.Request, s *state, name string) {
	head := w.Header()
	head.Set("Vary", "Accept, Accept-Encoding")
	kind, ok := negotiate(strings.Join(r.Header.Values("Accept"), ","))
	if !ok {
		http.Error(w, "only "+typeJSON+", "+typeHTML+" and "+typePlain+" are offered", http.StatusNotAcceptable)
		return
	}
	p, err := s.page(name, kind)
	if err != nil {
		h.log.ErrorContext(r.Context(), "page cannot be written", slog.String("project", name), slog.Any("error", err))
		http.Error(w, "the page cannot be written", http.StatusInternalServerError)
		return
	}
	body, etag := p.body, p.etag
	if p.packed != nil && acceptsGzip(r.Header.Values("Accept-Encoding")) {
		body, etag = p.packed, p.packedETag
		head.Set("Content-Encoding", "gzip")
	}
	head.Set("ETag", etag)
	head.Set("Cache-Control", pageAge)
	if noneMatch(r.Header.Values("If-None-Match"), etag) {
		head.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	head.Set("Content-Type", contentType(kind))
	head.Set("Content-Length", strconv.Itoa(len(body)))
	if kind != typeJSON {
		head.Set("Content-Security-Policy", "default-src 'none'")
	}
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(body); err != nil {
		h.log.DebugContext(r.Context(), "client went away", slog.Any("error", err))
	}
}

// noneMatch reports whether the client has that very representation.
func noneMatch(values []string, etag string) bool {
	for _, v := range values {
		for tag := range strings.SplitSeq(v, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}

// serveFile sends a file of the publication, which the store verifies before
// the first byte. A damaged one is an error here and never sent.
func (h *Handler) serveFile(w http.ResponseWriter, r *http.Request, s *state, key string) {
	f, ok := s.files[key]
	if !ok {
		http.NotFound(w, r)
		return
	}
	blob, err := h.store.File(f.digest)
	if err != nil {
		h.log.ErrorContext(r.Context(), "blob cannot be served", slog.String("artifact", key), slog.String("digest", f.digest.String()), slog.Any("error", err))
		http.Error(w, "the file is damaged or missing on this server", http.StatusInternalServerError)
		return
	}
	defer func() {
		if err := blob.Close(); err != nil {
			h.log.ErrorContext(r.Context(), "close blob", slog.Any("error", err))
		}
	}()
	head := w.Header()
	head.Set("ETag", `"`+f.digest.Hex()+`"`)
	head.Set("Cache-Control", fileAge)
	head.Set("Content-Type", "application/octet-stream")
	if f.metadata {
		head.Set("Content-Type", "text/plain; charset=utf-8")
	}
	http.ServeContent(w, r, "", time.Time{}, blob)
}

// A rendered page is one project in one form.
type rendered struct {
	body, packed     []byte
	etag, packedETag string
}

type pageKey struct{ name, kind string }

// page renders once for each publication.
func (s *state) page(name, kind string) (*rendered, error) {
	key := pageKey{name, kind}
	if p, ok := s.pages.Load(key); ok {
		if r, ok := p.(*rendered); ok {
			return r, nil
		}
	}
	body, err := s.render(name, kind)
	if err != nil {
		return nil, err
	}
	digest := artifact.Sum(body).Hex()
	p := &rendered{body: body, etag: `"` + digest + `"`}
	if len(body) >= gzipFrom {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(body)
		if err := errors.Join(err, z.Close()); err != nil {
			return nil, err
		}
		p.packed, p.packedETag = b.Bytes(), `"`+digest+`-gzip"`
	}
	s.pages.Store(key, p)
	return p, nil
}
