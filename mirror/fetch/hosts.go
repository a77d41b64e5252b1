package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// ErrHost: a request would go to a host that the configuration does not name.
var ErrHost = errors.New("host is not allowed")

// A HostError names the host that is not allowed. It matches [ErrHost].
type HostError struct {
	Source string // "pypi/main"
	From   string // the host that sent us there; empty for a first request
	Host   string
	Reason string // where it is not the allow-list
}

func (e *HostError) Error() string {
	why := "which is not allowed"
	if e.Reason != "" {
		why = e.Reason
	}
	if e.From != "" {
		return fmt.Sprintf("%s: %s sends downloads to %s, %s", e.Source, e.From, e.Host, why)
	}
	return fmt.Sprintf("%s: a request would go to %s, %s", e.Source, e.Host, why)
}

// Is makes errors.Is(err, ErrHost) match.
func (e *HostError) Is(target error) bool { return target == ErrHost }

// Host is the host of a URL as the allow-list writes it: lower case, and with
// the port only where it is not the scheme's own.
func Host(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", fmt.Errorf("%s is no URL: %w", Redact(rawURL), withoutURL(err))
	}
	return urlHost(u)
}

func urlHost(u *url.URL) (string, error) {
	port := u.Port()
	if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		port = ""
	}
	name := u.Hostname()
	if port != "" {
		name = net.JoinHostPort(name, port)
	}
	return canonicalHost(name)
}

// canonicalHost checks and lower-cases "host" or "host:port". Names beyond
// ASCII are refused: two spellings of one name must not differ here.
func canonicalHost(h string) (string, error) {
	if h == "" {
		return "", errors.New("no host")
	}
	for _, c := range []byte(h) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte(".-_:[]", c) >= 0:
		default:
			return "", fmt.Errorf("host %q: only ASCII letters, digits, '.', '-' and a port", h)
		}
	}
	if strings.Count(h, ":") > 1 && !strings.HasPrefix(h, "[") {
		h = "[" + h + "]" // a bare IPv6 address
	}
	return strings.TrimSuffix(strings.ToLower(h), "."), nil
}

// Allowed checks a URL against the allow-list without asking it. from is the
// host that named it, or empty.
func (c *Client) Allowed(rawURL, from string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("%s: %s is no URL: %w", c.c.Name, Redact(rawURL), withoutURL(err))
	}
	return c.allowed(u, from)
}

func (c *Client) allowed(u *url.URL, from string) error {
	host, err := urlHost(u)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.c.Name, Redact(u.String()), err)
	}
	switch {
	case !c.hosts[host]:
		return &HostError{Source: c.c.Name, From: from, Host: host}
	case u.Scheme == "https", u.Scheme == "http" && c.c.AllowHTTP:
		return nil
	case u.Scheme == "http":
		return &HostError{Source: c.c.Name, From: from, Host: host, Reason: "by plain http, which is not allowed"}
	}
	return &HostError{Source: c.c.Name, From: from, Host: host, Reason: fmt.Sprintf("by %q, which is no scheme of ours", u.Scheme)}
}

// checkRedirect holds the rules on every redirect.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	before := via[len(via)-1].URL
	from, err := urlHost(before)
	if err != nil {
		return err
	}
	if before.Scheme == "https" && req.URL.Scheme != "https" {
		return &HostError{Source: c.c.Name, From: from, Host: req.URL.Host, Reason: "from https to " + req.URL.Scheme}
	}
	if err := c.allowed(req.URL, from); err != nil {
		return err
	}
	return nil
}

// A guard is the innermost check: whatever a caller or a library above it
// does, no request passes that the configuration does not allow.
type guard struct {
	client *Client
	auth   func(*http.Request)
	next   http.RoundTripper
}

// RoundTrip checks the host, and gives and takes away headers by host.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.client.allowed(req.URL, ""); err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Del("Referer") // what we came from is nobody's business
	if g.auth != nil {
		g.auth(req)
	}
	return g.next.RoundTrip(req)
}
