package registry

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// defaultUploads is enough for a hundred clients that push eight layers
	// each; what is given up is counted until it expires.
	defaultUploads = 1000
	// defaultExpiry lets a large layer be taken up again the next day.
	defaultExpiry = 24 * time.Hour
	// sweepEvery is how often expired uploads are looked for, when one begins.
	sweepEvery = 10 * time.Minute
	// pushedDir lies in a source's folder, beside the import's pointer.
	pushedDir = "pushed"
)

// A Source is one configured source of images.
type Source struct {
	Name string // "platform": the first segment of its repositories' names
	Dir  string // its folder: current.json by imports, pushed/ by pushes
}

// Options say who may do what.
type Options struct {
	// PushToken is the password of those who push; empty: nobody does.
	PushToken string
	// PullToken is the password of those who pull; empty: everybody does.
	PullToken string
	Log       *slog.Logger
	// MaxUploads bounds the unfinished uploads; 0 is 1000.
	MaxUploads int
	// UploadExpiry ends an upload to which nothing was sent for so long; 0 is
	// a day.
	UploadExpiry time.Duration
}

// A Handler is a registry. It answers below /v2/.
type Handler struct {
	o       Options
	log     *slog.Logger
	store   *store.Store
	sources []*source // sorted by name

	sessions sessions

	sweepMu sync.Mutex
	swept   time.Time
}

// source is one source as served.
type source struct {
	publication
	tree *tree // nil where nothing was ever pushed
}

// New makes a registry of sources whose blobs are in st. Their folders need
// not exist yet.
func New(sources []Source, st *store.Store, o Options) (*Handler, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxUploads <= 0 {
		o.MaxUploads = defaultUploads
	}
	if o.UploadExpiry <= 0 {
		o.UploadExpiry = defaultExpiry
	}
	h := &Handler{o: o, log: o.Log, store: st, sessions: sessions{open: make(map[string]*session)}}
	for _, s := range sources {
		if err := spec.CheckName(s.Name); err != nil || strings.Contains(s.Name, "/") {
			return nil, errors.Join(fmt.Errorf("registry: source %q: cannot be a repository name's first segment", s.Name), err, h.Close())
		}
		if h.source(s.Name) != nil {
			return nil, errors.Join(fmt.Errorf("registry: source %s stands twice", s.Name), h.Close())
		}
		t, err := openTree(filepath.Join(s.Dir, pushedDir), o.PushToken != "")
		if err != nil {
			return nil, errors.Join(fmt.Errorf("registry: source %s: %w", s.Name, err), h.Close())
		}
		h.sources = append(h.sources, &source{publication: publication{name: s.Name, dir: s.Dir, store: st, log: o.Log}, tree: t})
	}
	slices.SortFunc(h.sources, func(a, b *source) int { return strings.Compare(a.name, b.name) })
	return h, h.sweepUploads(time.Now())
}

// Close releases the folders. No request is under way.
func (h *Handler) Close() error {
	var errs []error
	for _, s := range h.sources {
		errs = append(errs, s.tree.close())
	}
	return errors.Join(errs...)
}

func (h *Handler) source(name string) *source {
	for _, s := range h.sources {
		if s.name == name {
			return s
		}
	}
	return nil
}

// sweepUploads ends expired uploads, now and then.
func (h *Handler) sweepUploads(now time.Time) error {
	h.sweepMu.Lock()
	defer h.sweepMu.Unlock()
	if h.o.PushToken == "" || now.Sub(h.swept) < min(sweepEvery, h.o.UploadExpiry) {
		return nil
	}
	h.swept = now
	return h.store.SweepUploads(h.o.UploadExpiry, now)
}

// A target is what a request is about.
type target struct {
	view        // of the repository; zero for endpoints without one
	name string // the repository's whole name
	ref  string
}

// link is where something of the repository lies.
func (t *target) link(kind, ref string) string { return root + t.name + "/" + kind + "/" + ref }

// An action answers one method of one endpoint.
type action struct {
	method string
	needs  access
	do     func(*Handler, http.ResponseWriter, *http.Request, *target) error
}

// actions are all that there are. HEAD is answered where GET is.
var actions = map[endpoint][]action{
	endPing:      {{http.MethodGet, accessNone, (*Handler).ping}},
	endToken:     {{http.MethodGet, accessNone, (*Handler).token}},
	endCatalog:   {{http.MethodGet, accessPull, (*Handler).catalog}},
	endTags:      {{http.MethodGet, accessPull, (*Handler).listTags}},
	endReferrers: {{http.MethodGet, accessPull, (*Handler).referrers}},
	endManifest: {
		{http.MethodGet, accessPull, (*Handler).getManifest},
		{http.MethodPut, accessPush, (*Handler).putManifest},
		{http.MethodDelete, accessPush, (*Handler).deleteManifest},
	},
	endBlob: {
		{http.MethodGet, accessPull, (*Handler).getBlob},
		{http.MethodDelete, accessPush, (*Handler).deleteBlob},
	},
	endUploads: {{http.MethodPost, accessPush, (*Handler).beginUpload}},
	endUpload: {
		{http.MethodGet, accessPush, (*Handler).uploadStatus},
		{http.MethodPatch, accessPush, (*Handler).patchUpload},
		{http.MethodPut, accessPush, (*Handler).finishUpload},
		{http.MethodDelete, accessPush, (*Handler).cancelUpload},
	},
}

// ServeHTTP answers every request below /v2/.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if err := h.serve(w, r); err != nil {
		h.fail(w, r, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	rt, ok := parseRoute(r.URL.Path)
	if !ok {
		return faultf(http.StatusNotFound, codeUnsupported, "there is no such endpoint")
	}
	do, err := h.choose(rt.end, r)
	if err != nil {
		return err
	}
	t, err := h.target(r, rt)
	if err != nil {
		return err
	}
	return do(h, w, r, t)
}

// choose finds the action of a request, if it may have it.
func (h *Handler) choose(end endpoint, r *http.Request) (func(*Handler, http.ResponseWriter, *http.Request, *target) error, error) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var allowed []string
	for _, a := range actions[end] {
		readOnly := a.needs == accessPush && h.o.PushToken == ""
		if !readOnly {
			allowed = append(allowed, a.method)
		}
		if a.method != method {
			continue
		}
		needs := a.needs
		if readOnly {
			needs = accessPull // and no password helps
		}
		if h.access(r) < needs {
			return nil, unauthorized()
		}
		if readOnly {
			return nil, faultf(http.StatusMethodNotAllowed, codeUnsupported, "this registry is read-only: it serves what imports publish").
				with("Allow", http.MethodGet+", "+http.MethodHead)
		}
		return a.do, nil
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	return nil, faultf(http.StatusMethodNotAllowed, codeUnsupported, "%s is not for this endpoint", clip(r.Method)).
		with("Allow", strings.Join(allowed, ", "))
}

// target checks the repository's name and finds its source, in the state that
// the whole request will see.
func (h *Handler) target(r *http.Request, rt route) (*target, error) {
	if rt.name == "" {
		return &target{}, nil
	}
	if err := spec.CheckName(rt.name); err != nil {
		return nil, faultf(http.StatusBadRequest, codeNameInvalid, "%v", err)
	}
	first, repo, _ := strings.Cut(rt.name, "/")
	src := h.source(first)
	if src == nil || repo == "" {
		return nil, faultf(http.StatusNotFound, codeNameUnknown, "repository %s: the first segment is none of the sources that are served here, or nothing follows it", rt.name)
	}
	v, err := src.view(r.Context(), repo)
	if err != nil {
		return nil, err
	}
	return &target{view: v, name: rt.name, ref: rt.ref}, nil
}
