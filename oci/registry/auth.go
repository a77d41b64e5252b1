package registry

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// access is what a request may do.
type access int

const (
	accessNone access = iota
	accessPull
	accessPush // and pull
)

// anonymousToken is the bearer token of those who have none and need none.
const anonymousToken = "anonymous"

// credential is the secret that a request shows: a basic password, whoever
// the user, or a bearer token. given is false for none, and for the empty
// one that some clients send in place of none.
func credential(r *http.Request) (token string, given bool) {
	if user, password, ok := r.BasicAuth(); ok {
		return password, user != "" || password != ""
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	token = strings.TrimSpace(token)
	return token, token != "" && token != anonymousToken
}

// access decides by the secret alone.
func (h *Handler) access(r *http.Request) access {
	token, given := credential(r)
	switch {
	case given && same(token, h.o.PushToken):
		return accessPush
	case h.o.PullToken == "", given && same(token, h.o.PullToken):
		return accessPull
	}
	return accessNone
}

// Guard lets those pass to next who may pull from the registry.
func (h *Handler) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.access(r) == accessNone {
			w.Header().Set("WWW-Authenticate", `Basic realm="darkmirror"`)
			http.Error(w, "a user name (any) and the token as the password are needed", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// same compares secrets in a time that does not depend on them; an empty one
// is equal to nothing.
func same(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && want != ""
}

// unauthorized asks for a password. Every request takes one.
func unauthorized() *fault {
	return faultf(http.StatusUnauthorized, codeUnauthorized, "a user name (any) and this registry's token as the password are needed").
		with("WWW-Authenticate", `Basic realm="darkmirror"`)
}

// ping answers GET /v2/, by which clients find out how to log in. Docker,
// podman and skopeo ask here and nowhere else: after a 200 they never show
// their password, and after a basic challenge they do nothing without one. So
// where reading is open and pushing is not, the challenge is for a bearer
// token, which [Handler.token] gives to everybody.
func (h *Handler) ping(w http.ResponseWriter, r *http.Request, _ *target) error {
	_, given := credential(r)
	switch a := h.access(r); {
	case a == accessNone:
		return unauthorized()
	case h.o.PushToken == "", h.o.PullToken != "", a == accessPush:
	case given, r.Header.Get("Authorization") == "":
		return unauthorized().with("WWW-Authenticate", `Bearer realm="`+self(r)+root+tokenPath+`",service="darkmirror"`)
	}
	return writeJSON(w, r, "application/json", []byte("{}"))
}

// self is this server as the client called it. The header is the one of a
// proxy that ends TLS; whoever forges it deceives himself alone.
func self(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	host := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_:[]", c) {
			return c
		}
		return -1
	}, r.Host)
	return scheme + "://" + host
}

// token answers with a bearer token: the very secret that the request showed,
// or the one that stands for none. There is no state behind it.
func (h *Handler) token(w http.ResponseWriter, r *http.Request, _ *target) error {
	token, given := credential(r)
	switch {
	case !given && h.o.PullToken == "":
		token = anonymousToken
	case given && (same(token, h.o.PushToken) || same(token, h.o.PullToken)):
	default:
		return unauthorized()
	}
	body, err := json.Marshal(map[string]any{"token": token, "access_token": token, "expires_in": 3600})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, r, "application/json", body)
}

// writeJSON answers 200 with a document.
func writeJSON(w http.ResponseWriter, r *http.Request, mediaType string, body []byte) error {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(body) //nolint:gosec // JSON, and nosniff; it fails only if the client went away
	return nil
}
