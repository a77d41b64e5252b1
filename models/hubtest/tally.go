package hubtest

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Server is one of the two hosts.
type Server string

// The servers of the log.
const (
	OnHub Server = "hub"
	OnCDN Server = "cdn"
)

// maxLog bounds the requests that are kept one by one: a benchmark makes
// millions, which the counts alone remember.
const maxLog = 100_000

// A Request is what was asked of the hub or of the CDN.
type Request struct {
	Server Server
	Method string
	Path   string // as sent, with its percent-encoding
	Query  string
	Host   string
	Header http.Header
	Time   time.Time
	Status int   // 0 where the connection was cut before a reply
	Bytes  int64 // of the body that were sent
}

// String is "GET /api/models/team/model 200".
func (q Request) String() string {
	p := q.Path
	if q.Query != "" && q.Server == OnHub {
		p += "?" + q.Query
	}
	return fmt.Sprintf("%s %s %d", q.Method, p, q.Status)
}

// A Count is all requests of one kind.
type Count struct {
	Server   Server `json:"server"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Status   int    `json:"status"`
	Requests int    `json:"requests"`
	Ranges   int    `json:"ranges"` // of them, those with a Range
	Bytes    int64  `json:"bytes"`
}

type countKey struct {
	server       Server
	method, path string
	status       int
}

type tally struct {
	mu     sync.Mutex
	serial int
	log    []*logged
	counts map[countKey]*Count
	open   map[net.Conn]Server
	conns  map[Server]int // opened in all
	now    map[Server]int
	peak   map[Server]int
}

type logged struct {
	req    Request // but for what follows, unchanged from the start
	serial int
	status atomic.Int64
	bytes  atomic.Int64
}

func (t *tally) begin(at Server, q *http.Request) *logged {
	e := &logged{req: Request{
		Server: at, Method: q.Method, Path: q.URL.EscapedPath(), Query: q.URL.RawQuery, Host: q.Host, Header: q.Header.Clone(), Time: time.Now(),
	}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serial++
	e.serial = t.serial
	if len(t.log) < maxLog {
		t.log = append(t.log, e)
	}
	return e
}

func (t *tally) end(e *logged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := countKey{e.req.Server, e.req.Method, e.req.Path, int(e.status.Load())}
	if t.counts == nil {
		t.counts = make(map[countKey]*Count)
	}
	c := t.counts[k]
	if c == nil {
		c = &Count{Server: k.server, Method: k.method, Path: k.path, Status: k.status}
		t.counts[k] = c
	}
	c.Requests++
	c.Bytes += e.bytes.Load()
	if e.req.Header.Get("Range") != "" {
		c.Ranges++
	}
}

func (t *tally) conn(at Server, c net.Conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open, t.conns, t.now, t.peak = make(map[net.Conn]Server), make(map[Server]int), make(map[Server]int), make(map[Server]int)
	}
	switch _, known := t.open[c]; {
	case state == http.StateNew:
		t.open[c] = at
		t.conns[at]++
		t.now[at]++
		t.peak[at] = max(t.peak[at], t.now[at])
	case known && (state == http.StateClosed || state == http.StateHijacked):
		delete(t.open, c)
		t.now[at]--
	}
}

// Requests is the log, in the order of arrival.
func (h *Hub) Requests() []Request {
	h.tally.mu.Lock()
	defer h.tally.mu.Unlock()
	out := make([]Request, 0, len(h.tally.log))
	for _, e := range h.tally.log {
		q := e.req
		q.Status, q.Bytes = int(e.status.Load()), e.bytes.Load()
		out = append(out, q)
	}
	return out
}

// Counts is what was answered, by server, path, method and status.
func (h *Hub) Counts() []Count {
	h.tally.mu.Lock()
	defer h.tally.mu.Unlock()
	out := make([]Count, 0, len(h.tally.counts))
	for c := range maps.Values(h.tally.counts) {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Server, b.Server), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Status, b.Status))
	})
	return out
}

// Connections is how many connections a server took, and how many of them at
// once.
func (h *Hub) Connections(at Server) (all, peak int) {
	h.tally.mu.Lock()
	defer h.tally.mu.Unlock()
	return h.tally.conns[at], h.tally.peak[at]
}

// ResetLog forgets requests and counts.
func (h *Hub) ResetLog() {
	h.tally.mu.Lock()
	defer h.tally.mu.Unlock()
	h.tally.log, h.tally.counts = nil, nil
	clear(h.tally.conns)
	for at, n := range h.tally.now {
		h.tally.peak[at] = n
	}
}

// matching picks requests of the log by server and method ("" for any) and by
// a part of the path.
func (h *Hub) matching(at Server, method, part string) []Request {
	return slices.DeleteFunc(h.Requests(), func(q Request) bool {
		return at != "" && q.Server != at || method != "" && q.Method != method || !strings.Contains(q.Path, part)
	})
}

// Count is how many requests a server ("" for both) got of that method (""
// for any) with part in their path.
func (h *Hub) Count(at Server, method, part string) int { return len(h.matching(at, method, part)) }

// Sent is how many bytes of bodies these requests were answered with.
func (h *Hub) Sent(at Server, method, part string) (n int64) {
	for _, q := range h.matching(at, method, part) {
		n += q.Bytes
	}
	return n
}

// A countedWriter counts, and leaves copying from files to the kernel.
type countedWriter struct {
	http.ResponseWriter
	e *logged
}

// WriteHeader remembers the first status.
func (w *countedWriter) WriteHeader(status int) {
	w.e.status.CompareAndSwap(0, int64(status))
	w.ResponseWriter.WriteHeader(status)
}

// Write counts what was taken.
func (w *countedWriter) Write(p []byte) (int, error) {
	w.e.status.CompareAndSwap(0, http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	if w.e.req.Method != http.MethodHead { // the server drops it
		w.e.bytes.Add(int64(n))
	}
	return n, err
}

// ReadFrom lets the server use sendfile.
func (w *countedWriter) ReadFrom(src io.Reader) (int64, error) {
	w.e.status.CompareAndSwap(0, http.StatusOK)
	n, err := io.Copy(w.ResponseWriter, src)
	w.e.bytes.Add(n)
	return n, err
}

// Unwrap is for [http.ResponseController].
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
