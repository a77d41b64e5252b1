package apt

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	cacheNever   = "no-cache"
	cacheForEver = "public, max-age=31536000, immutable"
)

// distsFile matches what is served of a suite: nothing that we do not write.
var distsFile = regexp.MustCompile(`^[^/]+/dists/(?:.+/)?(?:InRelease|Release|Release\.gpg|Packages|Packages\.gz|Packages\.xz|by-hash/SHA256/[0-9a-f]{64})$`)

type handler struct {
	tree, dir string
	st        *store.Store
	log       *slog.Logger

	mu   sync.Mutex
	key  string // the names of the records that pool was made of
	pool map[string]publishedFile
}

// NewHandler serves what a [Publisher] with the same tree and folder has
// published; a new publication is picked up with the next request. Package
// files come from the store, by digest: one that is damaged is never served.
// Paths are relative to the tree, so mount it with [http.StripPrefix].
func NewHandler(tree, dir string, st *store.Store, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &handler{tree: tree, dir: dir, st: st, log: log}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if artifact.CheckPath(name) != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	var err error
	switch {
	case name == keyringBinary || name == keyringText, distsFile.MatchString(name):
		err = h.serveTree(w, r, name)
	case strings.HasSuffix(name, ".deb"):
		err = h.servePool(w, r, name)
	default:
		err = fs.ErrNotExist
	}
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		http.NotFound(w, r)
	default:
		h.log.LogAttrs(r.Context(), slog.LevelError, "cannot serve", slog.String("path", name), slog.String("error", err.Error()))
		http.Error(w, "damaged or unreadable", http.StatusInternalServerError)
	}
}

// serveTree serves a file of the tree. It is opened once, so a rename while it
// is being sent changes nothing.
func (h *handler) serveTree(w http.ResponseWriter, r *http.Request, name string) error {
	root, err := os.OpenRoot(h.tree)
	if err != nil {
		return err
	}
	f, err := root.Open(name)
	if err := errors.Join(err, root.Close()); err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	head := w.Header()
	head.Set("Content-Type", "application/octet-stream")
	head.Set("Cache-Control", cacheNever)
	head.Set("ETag", fmt.Sprintf(`"%x-%x"`, fi.ModTime().UnixNano(), fi.Size()))
	if path.Base(path.Dir(name)) == "SHA256" {
		head.Set("Cache-Control", cacheForEver)
		head.Set("ETag", `"`+path.Base(name)+`"`)
	}
	if base := path.Base(name); base == "InRelease" || base == "Release" || base == "Packages" {
		head.Set("Content-Type", "text/plain; charset=utf-8")
	}
	http.ServeContent(w, r, name, fi.ModTime(), f)
	return nil
}

// servePool serves a package file from the store.
func (h *handler) servePool(w http.ResponseWriter, r *http.Request, name string) error {
	file, ok, err := h.lookup(name)
	if err != nil {
		return err
	}
	if !ok {
		return fs.ErrNotExist
	}
	f, err := h.st.File(file.Digest)
	if err != nil {
		// Published and yet not there: that is damage, not a missing page.
		return fmt.Errorf("%v", err) //nolint:errorlint // must not match fs.ErrNotExist
	}
	defer f.Close() //nolint:errcheck // only read
	head := w.Header()
	head.Set("Content-Type", "application/vnd.debian.binary-package")
	head.Set("Cache-Control", cacheForEver)
	head.Set("ETag", `"`+file.Digest.Hex()+`"`)
	http.ServeContent(w, r, name, time.Time{}, f)
	return nil
}

// lookup finds a published package file. Records are written once, so their
// names tell whether anything is new.
func (h *handler) lookup(name string) (publishedFile, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	entries, err := os.ReadDir(publicationsDir(h.dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return publishedFile{}, false, err
	}
	var key strings.Builder
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), durable.TempPrefix) {
			key.WriteString(e.Name() + "\n")
		}
	}
	if h.pool == nil || key.String() != h.key {
		all, err := loadPublications(h.dir)
		if err != nil {
			return publishedFile{}, false, err
		}
		pool := make(map[string]publishedFile)
		for _, pub := range all { // the latest first
			for _, f := range pub.Pool {
				if _, newer := pool[f.Path]; !newer {
					pool[f.Path] = f
				}
			}
		}
		h.pool, h.key = pool, key.String()
	}
	f, ok := h.pool[name]
	return f, ok, nil
}
