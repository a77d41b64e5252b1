package hubserver

import (
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
)

// A Source is one configured source of models.
type Source struct {
	Name   string // "llm"
	Dir    string // its folder, which its publisher writes
	Access []Rule
}

// A Rule closes repositories to all but the holders of its tokens.
type Rule struct {
	// Repositories are patterns: "team/secret-*", "datasets/team/*", "*". A
	// star matches slashes too.
	Repositories []string
	Tokens       []Token
	Ask          string // whom the refused are told to ask
}

// A Token is a secret that opens what its rule closes.
type Token struct {
	Name   string // for the log
	Secret string
}

// Options say where the hub is.
type Options struct {
	// Prefix is the path that [http.StripPrefix] takes off: "/hub".
	Prefix string
	Log    *slog.Logger
}

// A Handler is a hub. It may be used concurrently.
type Handler struct {
	prefix  string
	log     *slog.Logger
	store   *store.Store
	sources []*source
	tokens  []*token // of all rules

	look   time.Duration // between two looks at the pointers
	looked atomic.Int64  // nanoseconds since started
	began  time.Time
	mu     sync.Mutex // held while reading
	state  atomic.Pointer[view]
}

// New makes a hub of sources whose blobs are in st. Their folders need not
// exist yet. A publication that cannot be read is logged, and tried again.
func New(sources []Source, st *store.Store, o Options) (*Handler, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{prefix: o.Prefix, log: o.Log, store: st, look: lookEvery, began: time.Now()}
	for i := range sources {
		s, err := newSource(&sources[i], st)
		if err != nil {
			return nil, err
		}
		h.sources = append(h.sources, s)
		for _, r := range s.rules {
			h.tokens = append(h.tokens, r.tokens...)
		}
	}
	h.current()
	return h, nil
}

// A request is what an answer is made from.
type request struct {
	*http.Request
	route
	view   *view
	caller caller
}

// ServeHTTP answers every request of a hub's clients.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", notAtAll)
	if err := h.serve(w, r); err != nil {
		h.fail(w, r, err)
		return
	}
	h.log.LogAttrs(r.Context(), slog.LevelDebug, "answered", slog.String("method", r.Method), slog.String("path", r.URL.Path))
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	v := h.current()
	rt, ok := parseRoute(r.URL.EscapedPath(), v.has)
	if !ok {
		return noPage()
	}
	a := actions[rt.do]
	if err := allow(r.Method, a.post); err != nil {
		return err
	}
	q := &request{Request: r, route: rt, view: v}
	if !a.always {
		var err error
		if q.caller, err = h.caller(r); err != nil {
			return err
		}
	}
	return a.answer(h, w, q)
}

// An action answers one kind of address.
type action struct {
	answer func(*Handler, http.ResponseWriter, *request) error
	post   bool // in place of GET and HEAD
	always bool // whatever token a client shows: it asks beside its work
}

// actions are all that there are.
var actions = map[do]action{
	doHarnesses: {answer: (*Handler).harnesses, always: true},
	doTelemetry: {answer: (*Handler).telemetry, always: true},
	doWhoami:    {answer: (*Handler).whoami},
	doList:      {answer: (*Handler).list},
	doInfo:      {answer: (*Handler).info},
	doTree:      {answer: (*Handler).tree},
	doPaths:     {answer: (*Handler).paths, post: true},
	doRefs:      {answer: (*Handler).refs},
	doCommits:   {answer: (*Handler).commits},
	doAuth:      {answer: (*Handler).authCheck},
	doResolve:   {answer: (*Handler).resolve},
	doRaw:       {answer: (*Handler).raw},
}

// allow refuses other methods than those of an address.
func allow(method string, post bool) error {
	allowed := http.MethodGet + ", " + http.MethodHead
	ok := method == http.MethodGet || method == http.MethodHead
	if post {
		allowed, ok = http.MethodPost, method == http.MethodPost
	}
	if ok {
		return nil
	}
	return faultf(http.StatusMethodNotAllowed, "", "%s is not for this address: this hub serves what imports publish", clip(method)).with("Allow", allowed)
}
