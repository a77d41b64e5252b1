package remote

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const (
	// maxChallenge bounds WWW-Authenticate; known ones have 300 bytes.
	maxChallenge = 8 << 10
	// maxParams bounds the parameters of one challenge; five are in use.
	maxParams = 16
	// maxScopes bounds what is asked for in one token.
	maxScopes = 16
)

// A challenge is what a registry wants to see (RFC 9110, section 11.6.1).
type challenge struct {
	scheme string            // lower case
	params map[string]string // names in lower case
}

var errChallenge = errors.New("www-authenticate is malformed")

// challenges reads every challenge of a reply, strictly: what is not
// understood is refused, since it decides where a password goes.
func challenges(header http.Header) ([]challenge, error) {
	var list []challenge
	for _, v := range header.Values("WWW-Authenticate") {
		if len(v) > maxChallenge {
			return nil, fmt.Errorf("%w: %d bytes, at most %d are read", errChallenge, len(v), maxChallenge)
		}
		more, err := parseChallenges(v)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// parseChallenges reads one header.
func parseChallenges(s string) ([]challenge, error) {
	var list []challenge
	for s = skip(s); s != ""; s = skip(s) {
		name, rest := token(s)
		if name == "" {
			return nil, errChallenge
		}
		after := strings.TrimLeft(rest, " \t")
		if value, ok := strings.CutPrefix(after, "="); ok && len(list) > 0 {
			v, rest, ok := tokenOrQuoted(strings.TrimLeft(value, " \t"))
			if !ok || !list[len(list)-1].add(name, v) {
				return nil, errChallenge
			}
			if s, ok = endOfItem(rest); !ok {
				return nil, errChallenge
			}
			continue
		}
		list = append(list, challenge{scheme: strings.ToLower(name), params: make(map[string]string)})
		if rest == "" || strings.HasPrefix(after, ",") {
			s = rest
			continue
		}
		if after == rest && rest != "" {
			return nil, errChallenge // no space after the scheme
		}
		s = afterToken68(after)
	}
	return list, nil
}

// add takes a parameter, once.
func (c *challenge) add(name, value string) bool {
	name = strings.ToLower(name)
	if _, twice := c.params[name]; twice || len(c.params) == maxParams {
		return false
	}
	c.params[name] = value
	return true
}

// skip takes white space and empty list items off.
func skip(s string) string { return strings.TrimLeft(s, " \t,") }

// endOfItem holds that an item ends with a comma or the header.
func endOfItem(s string) (rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	return s, s == "" || s[0] == ','
}

// afterToken68 skips the one blob that a scheme may have in place of
// parameters, as Negotiate does.
func afterToken68(s string) string {
	rest := strings.TrimLeftFunc(s, isToken68)
	if end, ok := endOfItem(strings.TrimLeft(rest, "=")); ok && rest != s {
		return end
	}
	return s
}

func isToken68(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~+/", r)
}

// scopes are those that a challenge asks for: "repository:app:pull,push",
// separated by spaces.
func (c *challenge) scopes() []string {
	var list []string
	for s := range strings.FieldsSeq(c.params["scope"]) {
		if len(list) < maxScopes && len(s) <= 512 && !strings.ContainsAny(s, `"\`) {
			list = append(list, s)
		}
	}
	return list
}
