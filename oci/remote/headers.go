package remote

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/fetch"
)

const (
	// maxLink and maxLocation bound URLs that a registry gives us; states of
	// uploads are some hundred bytes long.
	maxLink     = 8 << 10
	maxLocation = 8 << 10
	// maxAsked bounds what is believed of a Retry-After.
	maxAsked = 7 * 24 * time.Hour
	// defaultWindow stands in where a rate limit does not name its own.
	defaultWindow = time.Hour
)

// nextPage is the target of Link with rel=next (RFC 8288), or empty.
func nextPage(header http.Header) (string, error) {
	for _, v := range header.Values("Link") {
		if len(v) > maxLink {
			return "", fmt.Errorf("link header has %d bytes, at most %d are read", len(v), maxLink)
		}
		for rest := strings.TrimSpace(v); rest != ""; {
			target, params, after, err := oneLink(rest)
			if err != nil {
				return "", err
			}
			for rel := range strings.FieldsSeq(params["rel"]) {
				if strings.EqualFold(rel, "next") {
					return target, nil
				}
			}
			rest = after
		}
	}
	return "", nil
}

var errLink = errors.New("link header: want <url>; rel=\"next\"")

// oneLink takes the first link-value off.
func oneLink(s string) (target string, params map[string]string, rest string, err error) {
	target, s, ok := strings.Cut(strings.TrimPrefix(s, "<"), ">")
	if !ok || target == "" || strings.ContainsFunc(target, notInURL) {
		return "", nil, "", errLink
	}
	params = make(map[string]string)
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return target, params, "", nil
		}
		if after, ok := strings.CutPrefix(s, ","); ok {
			after = strings.TrimSpace(after)
			if !strings.HasPrefix(after, "<") {
				return "", nil, "", errLink
			}
			return target, params, after, nil
		}
		if s, ok = strings.CutPrefix(s, ";"); !ok {
			return "", nil, "", errLink
		}
		var name, value string
		if name, s = token(strings.TrimLeft(s, " \t")); name == "" {
			return "", nil, "", errLink
		}
		s = strings.TrimLeft(s, " \t")
		if after, ok := strings.CutPrefix(s, "="); ok {
			if value, s, ok = tokenOrQuoted(strings.TrimLeft(after, " \t")); !ok {
				return "", nil, "", errLink
			}
		}
		if _, twice := params[strings.ToLower(name)]; !twice { // RFC 8288: the first counts
			params[strings.ToLower(name)] = value
		}
	}
}

func notInURL(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '"' }

// token takes an RFC 9110 token off.
func token(s string) (tok, rest string) {
	i := 0
	for i < len(s) && isToken(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isToken(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// tokenOrQuoted takes a value off.
func tokenOrQuoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = token(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s) && printable(s[i+1]):
			i++
			b.WriteByte(s[i])
		case c != '\\' && printable(c):
			b.WriteByte(c)
		default:
			return "", "", false
		}
	}
	return "", "", false
}

func printable(c byte) bool { return c == '\t' || c >= ' ' && c <= '~' }

// uploaded reads Range of an upload: how many bytes the registry has. "0-0"
// means none as well as one; none is the safe reading.
func uploaded(v string) (int64, bool) {
	v = strings.TrimPrefix(strings.TrimSpace(v), "bytes=")
	if v == "0--1" { // none, as some write it
		return 0, true
	}
	from, to, ok := strings.Cut(v, "-")
	if !ok || from != "0" || to == "" || strings.Trim(to, "0123456789") != "" {
		return 0, false
	}
	end, err := strconv.ParseInt(to, 10, 64)
	if err != nil || end+1 < 0 {
		return 0, false
	}
	if end == 0 {
		return 0, true
	}
	return end + 1, true
}

// location resolves the address of an upload session, and holds it to the
// allow-list. A registry behind a proxy that speaks TLS for it may write http
// for its own address: https is kept then.
func (c *Client) location(at *url.URL, v string) (*url.URL, error) {
	u, err := resolve(at, v)
	if err != nil {
		return nil, err
	}
	if at.Scheme == "https" && u.Scheme == "http" && strings.EqualFold(u.Host, at.Host) {
		u.Scheme = "https"
	}
	return u, c.safe(at, u)
}

// safe holds a URL that the registry named to the allow-list.
func (c *Client) safe(at, u *url.URL) error {
	from, err := fetch.Host(at.String())
	if err != nil {
		return err
	}
	if err := c.fetch.Allowed(u.String(), from); err != nil {
		return err
	}
	if at.Scheme == "https" && u.Scheme != "https" {
		return &fetch.HostError{Source: c.c.Name, From: from, Host: u.Host, Reason: "from https to http, which is never allowed"}
	}
	return nil
}

// resolve reads a Location header.
func resolve(at *url.URL, v string) (*url.URL, error) {
	if v == "" {
		return nil, errors.New("location header: missing")
	}
	if len(v) > maxLocation || strings.ContainsFunc(v, notInURL) {
		return nil, errors.New("location header: too long, or not a URL")
	}
	ref, err := url.Parse(v)
	if err != nil {
		return nil, errors.New("location header: not a URL") // the cause quotes it
	}
	u := at.ResolveReference(ref)
	if u.Opaque != "" || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("location header: neither https nor http")
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u, nil
}

// withQuery adds a parameter and leaves those that are there untouched.
func withQuery(u *url.URL, key, value string) *url.URL {
	v := *u
	if v.RawQuery != "" {
		v.RawQuery += "&"
	}
	v.RawQuery += url.QueryEscape(key) + "=" + url.QueryEscape(value)
	return &v
}

// retryAfter reads both forms, seconds and date.
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if strings.Trim(v, "0123456789") == "" {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > int64(maxAsked/time.Second) {
			return maxAsked
		}
		return time.Duration(s) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(maxAsked, max(0, at.Sub(now).Round(time.Second)))
}

// rateLimit reads "90;w=21600".
func rateLimit(v string) (left int, window time.Duration, ok bool) {
	n, params, _ := strings.Cut(v, ";")
	left, err := strconv.Atoi(strings.TrimSpace(n))
	if err != nil || left < 0 {
		return 0, 0, false
	}
	window = defaultWindow
	for p := range strings.SplitSeq(params, ";") {
		if w, is := strings.CutPrefix(strings.TrimSpace(p), "w="); is {
			if s, err := strconv.Atoi(w); err == nil && s > 0 && s <= int(maxAsked/time.Second) {
				window = time.Duration(s) * time.Second
			}
		}
	}
	return left, window, true
}
