// Package hubtest is a fake model hub for tests, the demo and the benchmark:
// a real HTTP server of the hub's API and of its resolver, and a second one,
// on another port, of the object store behind it, with faults to order. It
// shares no code with models/hub and models/hubserver, so that client and
// server cannot share one mistake.
//
// Specification: the hub's API and headers as its own clients use them;
// docs/models.md has the facts. Object ids, trees and commits are those that
// git itself would compute.
//
// Invariants:
//   - The same files give the same commit, on each machine.
//   - Content is hashed once, as it is committed, and is read as a stream.
//   - What a test may read, requests and bytes, is recorded for each server.
//
// Limits: the log of requests by maxLog; counts go on. Nothing of Xet but its
// headers and its token is here.
package hubtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options is how a hub differs from the usual one. The zero value is good for
// tests.
type Options struct {
	// Listen and CDNListen are addresses; a free port of the loopback
	// interface if empty.
	Listen, CDNListen string
	// CDNURL is what redirects name in place of CDNListen's address.
	CDNURL string
	// Page is the most entries in a page of a tree; 1,000 if zero.
	Page int
	// Xet offers the other way to large files, as the real hub does: headers
	// of the resolver, xetHash in trees, a token. Nothing stands behind it.
	Xet bool
	// Expire is how long a link to the CDN holds; an hour if zero.
	Expire time.Duration
	// Gzip compresses small files where the client takes it, as the hub's own
	// edge does. The ETag is a weak one then, and there is no length.
	Gzip bool
	// LFSAbove is the size from which a file is LFS whatever its name; 10 MiB
	// if zero.
	LFSAbove int64
	// Limit bounds requests; the zero value does not.
	Limit Limit
	// Delay comes before each reply, ConnDelay before the first of a
	// connection, and Rate bounds the bytes a second that a connection
	// carries to the client. Zero is none.
	Delay, ConnDelay time.Duration
	Rate             int64
}

const (
	defaultPage   = 1000
	defaultExpire = time.Hour
	defaultLFS    = 10 << 20
)

// A Hub is the fake. New makes one; it may be used concurrently, and its
// repositories and faults may be changed between requests.
type Hub struct {
	// URL and CDN are the addresses of the two servers, without a slash at
	// the end. Start sets them.
	URL, CDN string

	opts  Options
	key   []byte // of the CDN's signatures
	tally tally
	done  chan struct{} // closed by Close

	mu      sync.Mutex
	repos   map[string]*Repo
	aliases map[string]string // old name to new name
	tokens  map[string]string // token to user
	objects map[string]object // of the CDN, by path
	spent   map[string]int64  // bytes that a signed link has given
	faults  []*placed
	trees   map[string][]TreeFault
	busy    map[Server]*busy
	before  []func(http.ResponseWriter, *http.Request) bool
	windows map[string]*window
	servers []*http.Server
	closed  bool
}

// New makes an empty hub that does not listen yet.
func New(o Options) *Hub {
	if o.Page == 0 {
		o.Page = defaultPage
	}
	if o.Expire == 0 {
		o.Expire = defaultExpire
	}
	if o.LFSAbove == 0 {
		o.LFSAbove = defaultLFS
	}
	h := &Hub{
		opts: o, key: make([]byte, 32), done: make(chan struct{}),
		repos: make(map[string]*Repo), aliases: make(map[string]string), tokens: make(map[string]string),
		objects: make(map[string]object), spent: make(map[string]int64), trees: make(map[string][]TreeFault),
		busy: make(map[Server]*busy), windows: make(map[string]*window),
	}
	_, _ = rand.Read(h.key) // it never fails
	return h
}

// A TB is the part of a test that [Start] needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
}

// Start makes a hub that runs until the test ends.
func Start(t TB, o Options) *Hub {
	t.Helper()
	h := New(o)
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// Start begins to listen and sets URL and CDN.
func (h *Hub) Start() error {
	hub, err := h.listen(h.opts.Listen)
	if err != nil {
		return err
	}
	cdn, err := h.listen(h.opts.CDNListen)
	if err != nil {
		return errors.Join(err, hub.Close())
	}
	h.URL = "http://" + hub.Addr().String()
	h.CDN = strings.TrimSuffix(h.opts.CDNURL, "/")
	if h.CDN == "" {
		h.CDN = "http://" + cdn.Addr().String()
	}
	h.serve(hub, OnHub, h.Handler())
	h.serve(cdn, OnCDN, h.CDNHandler())
	return nil
}

func (h *Hub) listen(addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if h.opts.Rate > 0 || h.opts.ConnDelay > 0 {
		l = &slowListener{Listener: l, rate: h.opts.Rate, delay: h.opts.ConnDelay}
	}
	return l, nil
}

func (h *Hub) serve(l net.Listener, at Server, handler http.Handler) {
	s := &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute,
		ConnState: func(c net.Conn, state http.ConnState) { h.tally.conn(at, c, state) },
	}
	h.mu.Lock()
	h.servers = append(h.servers, s)
	h.mu.Unlock()
	go func() { _ = s.Serve(l) }() // ends with http.ErrServerClosed in Close
}

// Close stops both servers and every reply that is under way.
func (h *Hub) Close() {
	h.mu.Lock()
	servers := h.servers
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	h.mu.Unlock()
	for _, s := range servers {
		_ = s.Close() // of listeners and connections that end here anyway
	}
}

// AddModel makes an empty model repository: "team/model".
func (h *Hub) AddModel(id string) *Repo { return h.add(models, id) }

// AddDataset makes an empty dataset repository; its name in faults is
// "datasets/" and id.
func (h *Hub) AddDataset(id string) *Repo { return h.add(datasets, id) }

func (h *Hub) add(kind, id string) *Repo {
	r := &Repo{hub: h, kind: kind, id: id, commits: make(map[string]*commit), refs: make(map[string]string)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repos[r.Name()] = r
	return r
}

// Remove takes a repository away.
func (h *Hub) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.repos, name)
}

// Rename makes the hub answer an old name with a redirect to the new one.
func (h *Hub) Rename(old, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.aliases[old] = name
}

// AddToken makes a token valid and says whose it is.
func (h *Hub) AddToken(token, user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tokens[token] = user
}

// Before lets fn answer a request, to the hub or the CDN, in its place: it
// returns true where it has.
func (h *Hub) Before(fn func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = append(h.before, fn)
}

// Handler is the hub itself, for a server of the caller's own, which sets URL
// and CDN before the first request.
func (h *Hub) Handler() http.Handler { return h.logged(OnHub, h.serveHub) }

// CDNHandler is the object store behind the hub.
func (h *Hub) CDNHandler() http.Handler { return h.logged(OnCDN, h.serveCDN) }

// logged records a handler's requests, waits, and lets hooks go first.
func (h *Hub) logged(at Server, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		e := h.tally.begin(at, q)
		defer h.tally.end(e)
		w.Header().Set("X-Request-Id", fmt.Sprintf("Root=1-%08x", e.serial))
		cw := &countedWriter{ResponseWriter: w, e: e}
		if h.opts.Delay > 0 && !h.sleep(q.Context(), h.opts.Delay) {
			panic(http.ErrAbortHandler)
		}
		h.mu.Lock()
		before := slices.Clone(h.before)
		h.mu.Unlock()
		for _, fn := range before {
			if fn(cw, q) {
				return
			}
		}
		next(cw, q)
	})
}

// sleep reports whether it slept to the end.
func (h *Hub) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-h.done:
	}
	return false
}
