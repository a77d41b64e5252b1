package hubtest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Limit bounds the requests of one client in a window of time, as the hub
// does: those to the API and those to the resolver each for themselves.
type Limit struct {
	API, Resolve int           // requests; 0 is no bound
	Window       time.Duration // 5 minutes if zero
	RetryAfter   bool          // 429 has Retry-After too
}

const defaultWindow = 5 * time.Minute

type window struct {
	start time.Time
	used  int
}

const (
	codeGated    = "GatedRepo"
	codeRepo     = "RepoNotFound"
	codeRevision = "RevisionNotFound"
	codeEntry    = "EntryNotFound"
)

// fail answers with an error as the hub has it: a code for clients, a message
// for people, and the message again as a document.
func fail(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	sendJSON(w, status, map[string]any{"error": message})
}

// user is who asks; ok is false where a token is unknown, and the reply has
// gone out.
func (h *Hub) user(w http.ResponseWriter, q *http.Request) (name string, ok bool) {
	auth := q.Header.Get("Authorization")
	if auth == "" {
		return "", true
	}
	token, isBearer := strings.CutPrefix(auth, "Bearer ")
	h.mu.Lock()
	name, known := h.tokens[token]
	h.mu.Unlock()
	if !isBearer || !known {
		fail(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
		return "", false
	}
	return name, true
}

// admit reports whether the user may see the repository, and its files where
// files is set; otherwise the reply has gone out. The hub's lock is held.
func (r *Repo) admit(w http.ResponseWriter, user string, files bool) bool {
	switch {
	case r.private && !r.readable(user):
		noRepo(w, user)
		return false
	case r.disabled:
		fail(w, http.StatusForbidden, "", "Access to this resource is disabled.")
		return false
	case r.gated != "" && files && user == "":
		fail(w, http.StatusUnauthorized, codeGated, fmt.Sprintf(
			"Access to %s %s is restricted. You must have access to it and be authenticated to access it. Please log in.", strings.TrimSuffix(r.kind, "s"), r.id))
		return false
	case r.gated != "" && files && !r.readable(user):
		fail(w, http.StatusForbidden, codeGated, fmt.Sprintf(
			"Access to %s %s is restricted and you are not in the authorized list. Visit %s/%s to ask for access.",
			strings.TrimSuffix(r.kind, "s"), r.id, r.hub.URL, r.Name()))
		return false
	}
	return true
}

// noRepo says that there is no such repository: to nobody in particular as if
// it were a matter of logging in.
func noRepo(w http.ResponseWriter, user string) {
	if user == "" {
		w.Header().Set("X-Error-Code", codeRepo)
		w.Header().Set("X-Error-Message", "Repository not found")
		sendJSON(w, http.StatusUnauthorized, map[string]any{"error": "Invalid username or password."})
		return
	}
	fail(w, http.StatusNotFound, codeRepo, "Repository not found")
}

// allow reports whether the client has requests left, sets the headers that
// say so, and answers 429 where it has none.
func (h *Hub) allow(w http.ResponseWriter, q *http.Request, bucket string, limit int) bool {
	if limit == 0 {
		return true
	}
	span := h.opts.Limit.Window
	if span == 0 {
		span = defaultWindow
	}
	now := time.Now()
	h.mu.Lock()
	key := bucket + " " + q.Header.Get("Authorization")
	win := h.windows[key]
	if win == nil || now.Sub(win.start) >= span {
		win = &window{start: now}
		h.windows[key] = win
	}
	over := win.used >= limit
	if !over {
		win.used++
	}
	left, until := limit-win.used, span-now.Sub(win.start)
	h.mu.Unlock()
	// Rounded up: a client that waits so long finds the next window open.
	seconds := int64((until + time.Second - 1) / time.Second)
	w.Header().Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", bucket, left, seconds))
	w.Header().Set("RateLimit-Policy", fmt.Sprintf(`"fixed window";%q;q=%d;w=%d`, bucket, limit, int64(span/time.Second)))
	if !over {
		return true
	}
	if h.opts.Limit.RetryAfter {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	fail(w, http.StatusTooManyRequests, "", fmt.Sprintf("We had to rate limit your request. You reached the %s limit of %d requests.", bucket, limit))
	return false
}
