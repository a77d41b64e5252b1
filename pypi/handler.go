package pypi

import (
	"encoding/hex"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
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
	// typeIntegrity is what the large index sends a provenance object as.
	typeIntegrity = "application/vnd.pypi.integrity.v1+json"
)

// A Handler serves a package index that a [Publisher] made current, or
// several as one (see [NewMerged]):
//
//	/simple/                            the projects
//	/simple/PROJECT/                    a project's files
//	/packages/AA/BB/REST/FILENAME       a file, by the BLAKE2b-256 of its bytes
//	/files/SHA256/FILENAME              the same file
//	...FILENAME.metadata                a wheel's METADATA (PEP 658)
//	...FILENAME.provenance              its attestations, if any came (PEP 740)
//
// The paths below /packages/ are those of the large public index, so that a
// lock file that was made outside fits here when the host is exchanged.
//
// Every link and redirect is relative, so that it works under any prefix that
// [http.StripPrefix] takes off. It serves what the store has verified, and
// never asks another host.
type Handler struct {
	loader
	log *slog.Logger
}

// A loader knows what is to be served now. Where what is new cannot be read,
// load returns the old state and the error; without an old one, nil.
type loader interface {
	load() (*state, error)
}

// NewHandler serves what the publisher with the folder dir published.
func NewHandler(dir string, st *store.Store, log *slog.Logger) *Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Handler{&publication{file: filepath.Join(dir, currentName), store: st, log: log}, log}
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
	if rest, ok := strings.CutPrefix(path, "simple/"); ok {
		h.project(w, r, s, rest)
		return
	}
	if path == "simple" {
		redirect(w, "simple/")
		return
	}
	if key, ok := parseFilePath(path); ok {
		h.serveFile(w, r, s, key)
		return
	}
	http.NotFound(w, r)
}

// project serves simple/ and simple/NAME/, and redirects from other spellings
// of a name that is there.
func (h *Handler) project(w http.ResponseWriter, r *http.Request, s *state, rest string) {
	if rest == "" {
		h.servePage(w, r, s, nil)
		return
	}
	name, slash := strings.CutSuffix(rest, "/")
	if p := s.projects[name]; p != nil && slash { // a key is a normal name
		h.servePage(w, r, s, p)
		return
	}
	normal, err := packaging.NormalizeName(name)
	switch {
	case err != nil || s.projects[normal] == nil:
		http.NotFound(w, r)
	case slash:
		redirect(w, "../"+normal+"/")
	default:
		redirect(w, normal+"/")
	}
}

// redirect sends a relative reference: http.Redirect would make it absolute
// and lose the prefix that was stripped.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", pageAge)
	w.WriteHeader(http.StatusMovedPermanently)
}

// servePage sends the list of projects (p is nil) or a project's page, in the
// form that the client likes best. Where it takes none of them the answer is
// 406, as the specification recommends; the large public index sends text/html
// then, which a client that asked for something else cannot read either.
func (h *Handler) servePage(w http.ResponseWriter, r *http.Request, s *state, p *project) {
	head := w.Header()
	head["Vary"] = s.headers.vary
	kind, ok := negotiate(joined(r.Header["Accept"]))
	if !ok {
		http.Error(w, "only "+typeJSON+", "+typeHTML+" and "+typePlain+" are offered", http.StatusNotAcceptable)
		return
	}
	page, err := s.page(p, kind)
	if err != nil {
		h.log.ErrorContext(r.Context(), "page cannot be written", slog.Any("error", err))
		http.Error(w, "the page cannot be written", http.StatusInternalServerError)
		return
	}
	body, etag := page.body, page.etag(kind, false)
	packed := page.packed != nil && acceptsGzip(joined(r.Header["Accept-Encoding"]))
	if packed {
		body, etag = page.packed, page.etag(kind, true)
	}
	head["Etag"] = etag
	head["Cache-Control"] = s.headers.age
	if s.serial > 0 {
		head["X-Pypi-Last-Serial"] = s.headers.serial
	}
	if noneMatch(r.Header["If-None-Match"], etag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if packed {
		head["Content-Encoding"] = s.headers.gzip
	}
	head["Content-Type"] = s.headers.contentType(kind)
	head.Set("Content-Length", strconv.Itoa(len(body)))
	if kind != typeJSON {
		head["Content-Security-Policy"] = s.headers.policy
	}
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(body); err != nil {
		h.log.DebugContext(r.Context(), "client went away", slog.Any("error", err))
	}
}

// joined makes one value of a header's lines.
func joined(values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return strings.Join(values, ",")
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

// A part is one of the things that have a URL for each file.
type part byte

const (
	wholeFile part = iota
	metadataPart
	provenancePart
)

// A fileKey names a file of a publication. Its URL holds a digest and the
// filename.
type fileKey struct {
	blake bool // else SHA-256
	sum   [32]byte
	name  string
}

// A filePath is a fileKey and which part of the file is meant.
type filePath struct {
	fileKey
	part part
}

// parseFilePath reads the two shapes of a file's URL.
func parseFilePath(path string) (filePath, bool) {
	var k filePath
	digits := make([]byte, 0, 64)
	rest, ok := strings.CutPrefix(path, "packages/")
	if ok {
		// AA/BB/REST/FILENAME
		if len(rest) < 67 || rest[2] != '/' || rest[5] != '/' || rest[66] != '/' {
			return k, false
		}
		digits = append(append(append(digits, rest[:2]...), rest[3:5]...), rest[6:66]...)
		k.blake, k.name = true, rest[67:]
	} else {
		rest, ok = strings.CutPrefix(path, "files/")
		if !ok || len(rest) < 65 || rest[64] != '/' {
			return k, false
		}
		digits = append(digits, rest[:64]...)
		k.name = rest[65:]
	}
	for _, c := range digits {
		if 'A' <= c && c <= 'F' {
			return k, false // one URL for a file, not many
		}
	}
	if _, err := hex.Decode(k.sum[:], digits); err != nil {
		return k, false
	}
	if name, ok := strings.CutSuffix(k.name, ".metadata"); ok {
		k.name, k.part = name, metadataPart
	} else if name, ok := strings.CutSuffix(k.name, ".provenance"); ok {
		k.name, k.part = name, provenancePart
	}
	return k, true
}

// serveFile sends a file of the publication, which the store verifies before
// the first byte. A damaged one is an error here and never sent.
func (h *Handler) serveFile(w http.ResponseWriter, r *http.Request, s *state, path filePath) {
	f := s.files[path.fileKey]
	var d artifact.Digest
	contentType := "application/octet-stream"
	if f != nil {
		d = f.digest
		switch path.part {
		case metadataPart:
			d, contentType = f.metadata, "text/plain; charset=utf-8"
		case provenancePart:
			d, contentType = f.provenance, typeIntegrity
		}
	}
	if d.IsZero() {
		http.NotFound(w, r)
		return
	}
	blob, err := f.store.File(d)
	if err != nil {
		h.log.ErrorContext(r.Context(), "blob cannot be served", slog.String("artifact", path.name), slog.String("digest", d.String()), slog.Any("error", err))
		http.Error(w, "the file is damaged or missing on this server", http.StatusInternalServerError)
		return
	}
	defer func() {
		if err := blob.Close(); err != nil {
			h.log.ErrorContext(r.Context(), "close blob", slog.Any("error", err))
		}
	}()
	head := w.Header()
	head.Set("ETag", `"`+d.Hex()+`"`)
	head.Set("Cache-Control", fileAge)
	if path.part == provenancePart {
		head.Set("Cache-Control", pageAge) // more attestations may come
	}
	head.Set("Content-Type", contentType)
	http.ServeContent(w, singleRange(r), "", time.Time{}, blob)
}

// singleRange hides a header that asks for several ranges, which no installer
// sends: the whole file is a right answer, and a reply of many small parts
// would be larger than what was asked for. It hides one that asks for the last
// no bytes, too, which net/http answers with a malformed range.
func singleRange(r *http.Request) *http.Request {
	v := r.Header.Get("Range")
	head, suffix := strings.CutSuffix(strings.TrimRight(v, "0 \t"), "-")
	if !strings.Contains(v, ",") && (!suffix || !strings.HasSuffix(strings.TrimRight(head, " \t"), "=")) {
		return r
	}
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header.Del("Range")
	return r
}
