// Package harbortest is a double of Harbor for tests: its API v2.0, its token
// service and its registry below /v2/, in one http.Handler. It answers with the
// statuses and texts that Harbor v2.15.2 was seen to give, the surprising ones
// included: a wrong password that gets 200, 401 for a project that is absent,
// 412 for bytes that an immutable tag has already, 412 where the project's
// policy prevents a pull. It shares no code with oci/harbor, so that client and
// server cannot share one mistake.
//
// The registry is an ocitest.Registry behind Harbor's checks: content may be
// put there beforehand, and its faults apply.
package harbortest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/darkmirror/darkmirror/oci/ocitest"
)

// Version is what the double says it is.
const Version = "v2.15.2-5f0ab1d7"

// A Harbor is the double. New makes one; it may be used concurrently.
type Harbor struct {
	// Registry has the content. Requests to it come through Harbor's checks.
	Registry *ocitest.Registry

	api http.Handler

	mu       sync.Mutex
	n        int // of the last number given out
	readOnly bool
	users    map[string]*account
	tokens   map[string]*grant
	projects map[string]*Project
	labels   []*label
	scanners []*scanner
	system   Allowlist
	sessions map[string]int64 // bytes of an upload, by its path
	sizes    map[string]int64 // of blobs, by digest
	pushed   map[string][]string
	builtin  map[string][]Vulnerability
	isOn     bool // the built-in scanner
	scans    map[string]*scan
	marks    map[string][]int64 // labels, by repository@digest
	log      []Request
}

// A Request is what was asked of the API, the token service or /v2/.
type Request struct {
	Method, Path string // as sent, escapes included
	Header       http.Header
	Body         string // of the API's
	Status       int
}

// String is "PUT /api/v2.0/projects/platform 200".
func (q Request) String() string { return fmt.Sprintf("%s %s %d", q.Method, q.Path, q.Status) }

// New makes a Harbor with the administrator admin, and no project.
func New(password string) *Harbor {
	h := &Harbor{
		Registry: ocitest.New(),
		users:    map[string]*account{"admin": {name: "admin", password: password, admin: true}},
		tokens:   make(map[string]*grant), projects: make(map[string]*Project),
		sessions: make(map[string]int64), sizes: make(map[string]int64), pushed: make(map[string][]string),
		builtin: make(map[string][]Vulnerability), scans: make(map[string]*scan), marks: make(map[string][]int64),
	}
	h.api = h.routes()
	return h
}

// number gives numbers out. The caller holds the lock.
func (h *Harbor) number() int {
	h.n++
	return h.n
}

// SetReadOnly switches read-only mode.
func (h *Harbor) SetReadOnly(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readOnly = on
}

// Requests is the log, in the order of arrival.
func (h *Harbor) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.log)
}

// Count is how many requests of that method ("" for any), with part in their
// path, came.
func (h *Harbor) Count(method, part string) (n int) {
	for _, q := range h.Requests() {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, part) {
			n++
		}
	}
	return n
}

// ResetLog forgets the log.
func (h *Harbor) ResetLog() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = nil
}

// maxBody bounds a body of the API.
const maxBody = 1 << 20

// ServeHTTP answers as Harbor's front does.
func (h *Harbor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	e := Request{Method: r.Method, Path: r.URL.EscapedPath(), Header: r.Header.Clone()}
	v2 := strings.HasPrefix(r.URL.Path, "/v2/")
	if !v2 {
		b, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
		if err != nil {
			panic(http.ErrAbortHandler) // the client went away
		}
		e.Body = string(b)
		r.Body = io.NopCloser(strings.NewReader(e.Body))
	}
	h.mu.Lock()
	id := h.number()
	readOnly := h.readOnly
	h.mu.Unlock()
	w.Header().Set("X-Request-Id", fmt.Sprintf("harbor-request-%d", id))
	if !strings.HasPrefix(r.URL.Path, "/v2") && !strings.HasPrefix(r.URL.Path, "/service/") {
		// Whoever kept this would be asked for CSRF tokens.
		http.SetCookie(w, &http.Cookie{Name: "sid", Value: "kept-by-browsers-only", Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
	}
	defer func() {
		e.Status = rec.status
		h.mu.Lock()
		defer h.mu.Unlock()
		h.log = append(h.log, e)
	}()
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	switch {
	case readOnly && !safe && r.URL.Path != "/api/v2.0/configurations" && r.URL.Path != "/service/token":
		fail(rec, http.StatusForbidden, "DENIED", "The system is in read only mode. Any modification is prohibited.")
	case r.URL.Path == "/service/token":
		h.serveToken(rec, r)
	case v2:
		h.serveV2(rec, r)
	case strings.HasPrefix(r.URL.Path, "/api/v2.0/"):
		if r.Header.Get("Cookie") != "" && !safe {
			fail(rec, http.StatusForbidden, "FORBIDDEN", "CSRF token not found in request")
			return
		}
		h.api.ServeHTTP(rec, r)
	default: // the portal answers every other path with its page
		rec.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(rec, "<!doctype html><html><body>Harbor</body></html>") // a client that went away is its own affair
	}
}

// A recorder sees the status.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes that the status is 200 unless another was set.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// fail answers with an error in Harbor's form.
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	write(w, map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// answer sends a document.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, v)
}

func write(w io.Writer, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a mistake of the double
	}
	_, _ = w.Write(b) // a client that went away is its own affair
}

// An Allowlist is one of vulnerabilities.
type Allowlist struct {
	CVEs    []string
	Expires int64 // 0: never
}

// A Project is one of the double's. Change it only by the methods of Harbor.
type Project struct {
	ID        int
	Name      string
	Metadata  map[string]string
	Quota     int64 // -1: none
	Used      int64
	Allowlist Allowlist
	Rules     []Rule
	blobs     map[string]bool
	scanner   string // its own, by number
}

// A Rule makes tags immutable: those that match Tags, or with Excludes those
// that do not.
type Rule struct {
	Disabled bool
	Excludes bool
	Tags     string
}

// AddProject makes a private project with a quota in bytes, -1 for none.
func (h *Harbor) AddProject(name string, quota int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addProject(name, "false", quota)
}

func (h *Harbor) addProject(name, public string, quota int64) *Project {
	p := &Project{ID: h.number(), Name: name, Metadata: map[string]string{"public": public}, Quota: quota, blobs: make(map[string]bool)}
	h.projects[name] = p
	return p
}

// Project shows a project; nil if it is absent.
func (h *Harbor) Project(name string) *Project {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.projects[name]
	if !ok {
		return nil
	}
	c := *p
	c.Metadata, c.Rules = maps.Clone(p.Metadata), slices.Clone(p.Rules)
	c.Allowlist.CVEs = slices.Clone(p.Allowlist.CVEs)
	return &c
}

// Change changes a project, as somebody else than the client would.
func (h *Harbor) Change(name string, fn func(*Project)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn(h.projects[name])
}

// SetSystemAllowlist sets the list of all projects that have none of their own.
func (h *Harbor) SetSystemAllowlist(l Allowlist) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.system = l
}

// Labels are the names of the labels that an artifact bears.
func (h *Harbor) Labels(repo, digest string) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range h.marks[repo+"@"+digest] {
		for _, l := range h.labels {
			if l.ID == id {
				names = append(names, l.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}
