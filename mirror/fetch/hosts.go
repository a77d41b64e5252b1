package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ErrHost is matched by every [HostError].
var ErrHost = errors.New("host is not allowed")

// A HostError says that a request would go where the configuration does not
// let it. It matches [ErrHost].
type HostError struct {
	Source string // "pypi/main"
	From   string // the host that sent us there; empty for a first request
	Host   string
	Reason string // empty where Host is not on the allow-list
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
		return "", fmt.Errorf("%s is no URL: %w", Redact(rawURL), scrub(err))
	}
	name, _, err := urlHost(u)
	return name, err
}

// urlHost is a URL's host in its short spelling, and in the one with the port
// where that is the scheme's own: an allow-list may use either.
func urlHost(u *url.URL) (short, long string, err error) {
	name, err := canonicalHost(u.Host)
	if err != nil {
		return "", "", err
	}
	port := map[string]string{"https": "443", "http": "80"}[u.Scheme]
	switch {
	case u.Port() == "":
		return name, name + ":" + port, nil
	case u.Port() == port:
		return strings.TrimSuffix(name, ":"+port), name, nil
	}
	return name, name, nil
}

// canonicalHost checks and lower-cases "host" or "host:port". Names beyond
// ASCII are refused: two spellings of one name, or two names that look alike,
// must not differ here. Their "xn--" form is a name like any other.
func canonicalHost(h string) (string, error) {
	if ip, err := netip.ParseAddr(h); err == nil && ip.Is6() {
		h = "[" + h + "]" // a bare IPv6 address
	}
	name, port := h, ""
	if i := strings.LastIndexByte(h, ':'); i > strings.LastIndexByte(h, ']') {
		var err error
		if name, port, err = net.SplitHostPort(h); err != nil || port == "" || strings.Trim(port, "0123456789") != "" {
			return "", fmt.Errorf("host %q: want host or host:port", h)
		}
		port = ":" + port
		if strings.Contains(name, ":") {
			name = "[" + name + "]"
		}
	}
	name = strings.ToLower(name)
	if inner, ok := strings.CutPrefix(name, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", fmt.Errorf("host %q: not an IPv6 address", h)
		}
		return "[" + ip.String() + "]" + port, nil
	}
	name = strings.TrimSuffix(name, ".")
	if slices.Contains(strings.Split(name, "."), "") {
		return "", fmt.Errorf("host %q: no host, or an empty label", h)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return "", fmt.Errorf("host %q: only ASCII letters, digits, '.', '-' and a port (write an international name as xn--)", h)
		}
	}
	return name + port, nil
}

// Allowed checks a URL, such as a link of an index, against the allow-list
// without contacting it. from is the host that named it, or empty.
func (c *Client) Allowed(rawURL, from string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("%s: %s is no URL: %w", c.c.Name, Redact(rawURL), scrub(err))
	}
	return c.allowed(u, from)
}

func (c *Client) allowed(u *url.URL, from string) error {
	refuse := func(host, why string) error {
		return &HostError{Source: c.c.Name, From: from, Host: host, Reason: why}
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return refuse(u.Hostname(), fmt.Sprintf("by %q, which is neither https nor http", u.Scheme))
	}
	short, long, err := urlHost(u)
	if err != nil {
		return refuse(u.Hostname(), "which is no host name: "+err.Error())
	}
	if !c.hosts[short] && !c.hosts[long] {
		return refuse(short, "")
	}
	if u.Scheme == "http" && !c.c.AllowHTTP {
		return refuse(short, "by plain http, which is not allowed")
	}
	return nil
}

// errRedirects ends a chain of redirects.
var errRedirects = fmt.Errorf("more than %d redirects", maxRedirects)

// checkRedirect bounds the chain; the guard checks each link of it.
func checkRedirect(_ *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirects
	}
	return nil
}
