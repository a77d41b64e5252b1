package hubserver

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
)

// A token is known by its digest, so that comparing takes the same time
// whatever was shown.
type token struct {
	name   string
	digest [sha256.Size]byte
}

func (t *token) is(digest *[sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(t.digest[:], digest[:]) == 1
}

// A rule closes the repositories that its patterns match.
type rule struct {
	patterns []string
	tokens   []*token
	ask      string
}

func newRule(r *Rule) (*rule, error) {
	out := &rule{ask: r.Ask}
	for _, p := range r.Repositories {
		p = flat(p)
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return nil, fmt.Errorf("access: %q is no pattern", p)
		}
		out.patterns = append(out.patterns, p)
	}
	for _, t := range r.Tokens {
		if t.Secret == "" {
			return nil, fmt.Errorf("access: token %q is empty", t.Name)
		}
		out.tokens = append(out.tokens, &token{t.Name, sha256.Sum256([]byte(t.Secret))})
	}
	return out, nil
}

// flat hides slashes from [path.Match]: a star that closes repositories shall
// rather match too much.
func flat(s string) string { return strings.ReplaceAll(s, "/", ":") }

// closes reports whether the rule is about a repository.
func (r *rule) closes(name hub.Repo) bool {
	for _, p := range r.patterns {
		if ok, err := path.Match(p, flat(name.String())); ok && err == nil {
			return true
		}
	}
	return false
}

// A caller is who asks.
type caller struct {
	name   string // of the token; "" is anybody
	shown  bool   // a token, good or of no interest here
	digest [sha256.Size]byte
}

// caller reads the token of a request. A wrong one is refused at once, in the
// words by which clients know it, unless no token means anything here: then
// one for another hub does no harm.
func (h *Handler) caller(r *http.Request) (caller, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return caller{}, nil
	}
	c := caller{shown: true}
	scheme, secret, _ := strings.Cut(header, " ")
	if strings.EqualFold(scheme, "Bearer") {
		c.digest = sha256.Sum256([]byte(strings.TrimSpace(secret)))
	}
	good := len(h.tokens) == 0
	for _, t := range h.tokens {
		if t.is(&c.digest) {
			good, c.name = true, cmp.Or(c.name, t.name)
		}
	}
	if !good {
		return c, faultf(http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
	}
	return c, nil
}

// admits reports whether a caller may read what rules close; without rules it
// is open.
func admits(rules []*rule, c *caller) bool {
	open := len(rules) == 0
	for _, r := range rules {
		for _, t := range r.tokens {
			open = open || t.is(&c.digest)
		}
	}
	return open
}

// refused says whom to ask for access.
func refused(name hub.Repo, rules []*rule, c *caller) *fault {
	message := name.String() + " is open here to holders of a token alone"
	for _, r := range rules {
		if r.ask != "" {
			message += ": ask " + r.ask
			break
		}
	}
	status := http.StatusUnauthorized
	if c.shown {
		status = http.StatusForbidden
	}
	return faultf(status, hub.CodeGatedRepo, "%s", message)
}

// noRepo says that there is no such repository: to those without a token as
// if it were a matter of logging in, as the hub does.
func noRepo(name hub.Repo, c *caller) *fault {
	status := http.StatusUnauthorized
	if c.shown {
		status = http.StatusNotFound
	}
	return faultf(status, hub.CodeRepoNotFound, "no repository %s was imported here", clip(name.String()))
}
