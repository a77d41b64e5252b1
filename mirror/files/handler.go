package files

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	indexName = "index.json"
	sumsName  = "SHA256SUMS"

	// revalidate has clients ask whether what they have is still right: the
	// next publication may put other bytes under the same name.
	revalidate = "no-cache"
)

// A Handler serves the files that a [Publisher] published:
//
//	/                 the sets, as HTML or JSON, as the client likes
//	/index.json       the sets and all files
//	/SHA256SUMS       all files, as sha256sum -c reads it
//	/SET/             the files of a set, as HTML or JSON
//	/SET/SHA256SUMS   the files of a set, unless it has one of its own
//	/SET/PATH         a file
//
// Every link and redirect is relative, so that it works under any prefix that
// [http.StripPrefix] takes off. It serves what the store has verified, never
// asks another host, and opens no file by a name of a request.
type Handler struct {
	file  string
	store *store.Store
	log   *slog.Logger

	mu    sync.Mutex // held while reloading
	state atomic.Pointer[state]
}

// NewHandler serves what the publisher with the folder dir published. A nil
// log discards.
func NewHandler(dir string, st *store.Store, log *slog.Logger) *Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Handler{file: filepath.Join(dir, currentName), store: st, log: log}
}

// A state is one publication, ready to serve; only its pages are added.
type state struct {
	info    fs.FileInfo // of current.json; nil if nothing is published
	current current
	sets    []*fileSet // sorted by name
	byName  map[string]*fileSet
	pages   sync.Map // pageKey to *page: bounded by the sets
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
	fresh, err := h.read(info)
	if err != nil {
		return old, err
	}
	h.state.Store(fresh)
	h.log.Info("publication loaded", slog.String("source", fresh.current.Source), slog.Int("sets", len(fresh.sets)))
	return fresh, nil
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// read reads the publication that current.json names. info may be older than
// what is read: the next request then reads once more.
func (h *Handler) read(info fs.FileInfo) (*state, error) {
	s := &state{info: info, byName: make(map[string]*fileSet)}
	if info == nil {
		return s, nil
	}
	c, err := readCurrent(h.file, "")
	if err != nil {
		return nil, err
	}
	b, err := h.store.ReadAll(c.Snapshot, artifact.MaxSnapshot)
	if err != nil {
		return nil, err
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		return nil, err
	}
	if s.sets, err = readSets(snap, c.Source); err != nil {
		return nil, err
	}
	s.current = *c
	for _, set := range s.sets {
		s.byName[set.name] = set
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
			http.Error(w, "the publication cannot be read", http.StatusInternalServerError)
			return
		}
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/"); path {
	case "":
		h.servePage(w, r, s, pageKey{kind: negotiate(r)})
	case indexName:
		h.servePage(w, r, s, pageKey{kind: typeJSON})
	case sumsName:
		h.servePage(w, r, s, pageKey{kind: typeSums})
	default:
		h.serveSet(w, r, s, path)
	}
}

// serveSet serves SET, SET/ and what is below it.
func (h *Handler) serveSet(w http.ResponseWriter, r *http.Request, s *state, path string) {
	name, rel, slash := strings.Cut(path, "/")
	set := s.byName[name]
	switch {
	case set == nil:
		http.NotFound(w, r)
	case !slash:
		// http.Redirect would make it absolute and lose the prefix that was
		// stripped.
		w.Header().Set("Location", url.PathEscape(name)+"/")
		w.WriteHeader(http.StatusMovedPermanently)
	case rel == "":
		h.servePage(w, r, s, pageKey{name, negotiate(r)})
	default:
		f, ok := set.find(rel)
		switch {
		case ok:
			h.serveFile(w, r, path, f)
		case rel == sumsName:
			h.servePage(w, r, s, pageKey{name, typeSums})
		default:
			http.NotFound(w, r)
		}
	}
}

// serveFile sends a file, which the store verifies before the first byte. A
// damaged one is an error here and never sent.
func (h *Handler) serveFile(w http.ResponseWriter, r *http.Request, path string, f *setFile) {
	blob, err := h.store.File(f.digest)
	if err != nil {
		h.log.ErrorContext(r.Context(), "blob cannot be served", slog.String("artifact", path), slog.String("digest", f.digest.String()), slog.Any("error", err))
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
	head.Set("Cache-Control", revalidate)
	head.Set("Content-Type", "application/octet-stream") // whatever it is, it is not shown
	http.ServeContent(w, r, "", time.Time{}, blob)
}

// servePage sends a listing.
func (h *Handler) servePage(w http.ResponseWriter, r *http.Request, s *state, key pageKey) {
	p, err := s.page(key)
	if err != nil {
		h.log.ErrorContext(r.Context(), "page cannot be written", slog.String("artifact", key.set), slog.Any("error", err))
		http.Error(w, "the page cannot be written", http.StatusInternalServerError)
		return
	}
	head := w.Header()
	head.Set("Vary", "Accept")
	head.Set("ETag", p.etag)
	head.Set("Cache-Control", revalidate)
	if noneMatch(r.Header.Values("If-None-Match"), p.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	head.Set("Content-Type", key.kind)
	head.Set("Content-Length", strconv.Itoa(len(p.body)))
	if key.kind == typeHTML {
		head.Set("Content-Security-Policy", "default-src 'none'")
	}
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(p.body); err != nil {
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

// negotiate chooses between a page for people and one for programs.
func negotiate(r *http.Request) string {
	for _, v := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(v, ",") {
			switch kind, _, _ := strings.Cut(strings.TrimSpace(item), ";"); strings.ToLower(strings.TrimSpace(kind)) {
			case "application/json":
				return typeJSON
			case "text/html":
				return typeHTML
			}
		}
	}
	return typeHTML
}
