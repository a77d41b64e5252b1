package ocitest

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// tokenAuth is bearer authentication with a token server.
type tokenAuth struct {
	user, password string
	realm          string
	service        string
	anonymousPull  bool
	emptyTokens    bool // a wrong password gets a token that allows nothing
	identity       string
	uses           int // of one token; 0: no bound
}

type token struct {
	scopes map[string][]string // repository to actions
	left   int                 // -1: no bound
}

// TokenAuth demands bearer tokens, which [Registry.TokenServer] gives out at
// realm.
func TokenAuth(user, password, realm string) Option {
	return func(f *faults) {
		f.auth = &tokenAuth{user: user, password: password, realm: realm, service: "registry.example"}
	}
}

// AnonymousPull lets the token server give everybody tokens to pull.
func AnonymousPull() Option { return func(f *faults) { f.auth.anonymousPull = true } }

// EmptyTokens lets the token server answer a wrong password with a token that
// allows nothing, as Harbor does.
func EmptyTokens() Option { return func(f *faults) { f.auth.emptyTokens = true } }

// TokenUses lets a token be used so often.
func TokenUses(n int) Option { return func(f *faults) { f.auth.uses = n } }

// IdentityToken lets the token server take this refresh token by POST.
func IdentityToken(secret string) Option { return func(f *faults) { f.auth.identity = secret } }

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// admit answers a request that may not pass, and reports whether it may.
func (r *Registry) admit(w http.ResponseWriter, q *http.Request, repo string) bool {
	r.mu.Lock()
	basicUser, basicPassword, auth := r.f.basicUser, r.f.basicPassword, r.f.auth
	r.mu.Unlock()
	if basicUser != "" {
		if user, password, _ := q.BasicAuth(); same(user, basicUser) && same(password, basicPassword) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="fake registry"`)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return false
	}
	if auth == nil {
		return true
	}
	value := strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")
	action := "push"
	if q.Method == http.MethodGet || q.Method == http.MethodHead {
		action = "pull"
	}
	known, allowed := r.spend(value, repo, action)
	if allowed {
		return true
	}
	challenge := fmt.Sprintf(`Bearer realm="%s",service="%s"`, auth.realm, auth.service)
	if repo != "" {
		actions := "pull"
		if action == "push" {
			actions = "pull,push"
		}
		challenge += fmt.Sprintf(`,scope="repository:%s:%s"`, repo, actions)
	}
	if known {
		challenge += `,error="insufficient_scope"`
	} else if value != "" {
		challenge += `,error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

// spend uses a token once.
func (r *Registry) spend(value, repo, action string) (known, allowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tokens[value]
	if t == nil || t.left == 0 {
		return false, false
	}
	if t.left > 0 {
		t.left--
	}
	return true, repo == "" || slices.Contains(t.scopes[repo], action)
}

// mayRead reports whether a request's token allows reading of a repository.
func (r *Registry) mayRead(q *http.Request, repo string) bool {
	if r.f.auth == nil {
		return true
	}
	t := r.tokens[strings.TrimPrefix(q.Header.Get("Authorization"), "Bearer ")]
	return t != nil && slices.Contains(t.scopes[repo], "pull")
}

// TokenServer is the handler of the realm.
func (r *Registry) TokenServer() http.Handler {
	return r.logged(OnToken, func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		a := r.f.auth
		if a == nil {
			fail(w, http.StatusNotFound, "UNKNOWN", "no tokens here")
			return
		}
		user, password, sent := q.BasicAuth()
		good := sent && same(user, a.user) && same(password, a.password)
		if q.Method == http.MethodPost {
			sent = true
			good = a.identity != "" && same(q.PostFormValue("refresh_token"), a.identity)
		}
		if q.Method == http.MethodPost && a.identity == "" {
			fail(w, http.StatusNotFound, "UNKNOWN", "no refresh tokens here")
			return
		}
		if !good && (sent || !a.anonymousPull) && !a.emptyTokens {
			fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
			return
		}
		must(q.ParseForm())
		scopes := q.Form["scope"]
		if q.Method == http.MethodPost {
			scopes = strings.Fields(q.Form.Get("scope"))
		}
		t := &token{scopes: make(map[string][]string), left: -1}
		if a.uses > 0 {
			t.left = a.uses
		}
		for _, s := range scopes {
			name, actions, _ := strings.Cut(strings.TrimPrefix(s, "repository:"), ":")
			for action := range strings.SplitSeq(actions, ",") {
				if good || a.anonymousPull && !sent && action == "pull" {
					t.scopes[name] = append(t.scopes[name], action)
				}
			}
		}
		value := fmt.Sprintf("secret-token-%d", r.next())
		r.tokens[value] = t
		w.Header().Set("Content-Type", "application/json")
		must(json.NewEncoder(w).Encode(map[string]any{"token": value, "expires_in": 300}))
	})
}
