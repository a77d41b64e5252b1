// Package fetch is darkmirror's only HTTP client: bounded, retrying, and
// confined to the hosts that the configuration names.
//
// Specification: RFC 9110 (HTTP semantics; section 14 for ranges, 13.1.5 for
// If-Range, 10.2.3 for Retry-After) and RFC 6585 (429).
//
// Invariants:
//   - No request leaves for a host that is not on the allow-list, on the first
//     URL and on every redirect alike, and no redirect leads from https to
//     http.
//   - Credentials go to one host only. They, userinfo and the query of a URL
//     enter no error, no event and no log.
//   - Requests to one host, and all together, are bounded by the [Pool]; one
//     counts until its body has ended or is closed.
//   - A download grows a [Partial] or [PartsPartial] and nothing else; what was
//     received counts only after its own digest check.
//   - The environment's proxies are used only where [Config] says so; there
//     are no cookies, and no Referer is sent.
//
// Limits: documents by [GetOptions].Limit, replies that are not wanted by
// maxErrorBody and drainTime, redirects by maxRedirects, headers by maxHeader,
// waiting by maxRetryAfter and [Config].IdleTimeout, tries without progress by
// [Config].MaxRetries; requests over time by a [Budget], bytes over time by a
// [Bandwidth].
package fetch

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxRedirects is Go's own default.
	maxRedirects = 10
	// maxRetryAfter bounds what a server may make us wait.
	maxRetryAfter = 2 * time.Minute
	// defaultRetries is how often a request is repeated.
	defaultRetries = 5
	// defaultWait is the first pause; it doubles up to maxWait.
	defaultWait = 500 * time.Millisecond
	maxWait     = 30 * time.Second
	// defaultIdle is how long a body may give no byte.
	defaultIdle = 60 * time.Second
	// maxSecret bounds the password file; maxCA bounds the certificates, of
	// which a whole system store has some 250 KiB.
	maxSecret = 4 << 10
	maxCA     = 4 << 20
)

// Config describes one source's access to its upstream.
type Config struct {
	Name string // "pypi/main", for messages
	// Hosts are all that may be contacted, redirects included: "host" for
	// the scheme's own port, "host:port" for another. They are compared
	// exactly, but for letter case.
	Hosts []string
	// AllowHTTP lets plain http be used, credentials included. A redirect
	// from https to http is refused all the same.
	AllowHTTP bool
	// CAFile is a PEM bundle that is trusted beside the system's roots.
	CAFile string
	// User and the content of PasswordFile, read once, are sent to
	// CredentialHost and to no other.
	User, PasswordFile, CredentialHost string
	UserAgent                          string // "darkmirror" where empty
	// ProxyFromEnvironment uses HTTP_PROXY and its like.
	ProxyFromEnvironment bool
	// MaxRetries is how often a request is repeated without progress; 0 means
	// 5, below 0 never.
	MaxRetries int
	// RetryWait is the first pause between tries; 0 means 500 ms.
	RetryWait time.Duration
	// IdleTimeout is how long a server may give no byte; 0 means 60 s.
	IdleTimeout time.Duration
	// MaxWait is the longest Retry-After that is waited for. A server that
	// asks for more ends the request with an [Error] that says so. 0 waits
	// two minutes in place of whatever more is asked for.
	MaxWait time.Duration
	// Budget bounds requests over time; nil does not.
	Budget  *Budget
	Logger  *slog.Logger         // nil discards
	OnEvent func(artifact.Event) // may be nil
}

// A Client fetches for one source. It may be used concurrently.
type Client struct {
	c     Config
	pool  *Pool
	hosts map[string]bool
	base  *http.Transport
	http  *http.Client
	rt    http.RoundTripper // for other libraries
	// foreign lets requests of others pass, credentials of their own included.
	foreign http.RoundTripper
	log     *slog.Logger
	// now and pause are the clock and the pauses; tests change them.
	now   func() time.Time
	pause func(time.Duration) time.Duration
}

// New makes a client whose requests are bounded by p.
func New(p *Pool, c Config) (*Client, error) {
	c.UserAgent = cmp.Or(c.UserAgent, "darkmirror")
	c.RetryWait = cmp.Or(c.RetryWait, defaultWait)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdle)
	c.MaxRetries = max(0, cmp.Or(c.MaxRetries, defaultRetries))
	cl := &Client{
		c: c, pool: p, hosts: make(map[string]bool), log: c.Logger,
		now: time.Now, pause: func(d time.Duration) time.Duration { return d },
	}
	if cl.log == nil {
		cl.log = slog.New(slog.DiscardHandler)
	}
	for _, h := range c.Hosts {
		name, err := canonicalHost(h)
		if err != nil {
			return nil, fmt.Errorf("%s: allowed host %q: %w", c.Name, h, err)
		}
		cl.hosts[name] = true
	}
	auth, err := cl.credentials()
	if err != nil {
		return nil, err
	}
	roots, key, err := cl.roots()
	if err != nil {
		return nil, err
	}
	base := p.transport(transportKey{ca: key, proxy: c.ProxyFromEnvironment, wait: c.IdleTimeout}, roots)
	cl.base = base
	cl.http = &http.Client{
		Transport:     &guard{client: cl, auth: auth, next: base},
		CheckRedirect: checkRedirect,
	}
	cl.foreign = &guard{client: cl, auth: auth, next: base, foreign: true}
	cl.rt = &roundTripper{client: cl, http: &http.Client{
		Transport:     cl.foreign,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return cl, nil
}

// RoundTripper holds the same rules for another library: hosts, credentials,
// bounds, and for GET and HEAD the retries. Redirects are the library's; each
// of them is checked like a first request.
func (c *Client) RoundTripper() http.RoundTripper { return c.rt }

// With returns a client whose requests pass through wrap before they are
// checked and sent: the place for a protocol's own authentication. What wrap
// returns is used concurrently; it may send requests of its own through the
// transport that it was given. Authorization that it sets is dropped where a
// redirect leads to another host.
func (c *Client) With(wrap func(http.RoundTripper) http.RoundTripper) *Client {
	cl := *c
	cl.http = &http.Client{Transport: wrap(c.foreign), CheckRedirect: checkRedirect}
	cl.rt = &roundTripper{client: &cl, http: &http.Client{
		Transport:     cl.http.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return &cl
}

// roots are the certificates to trust, nil for the system's, and a key that
// is equal for equal ones.
func (c *Client) roots() (*x509.CertPool, artifact.Digest, error) {
	if c.c.CAFile == "" {
		return nil, artifact.Digest{}, nil
	}
	pem, err := readSmall(c.c.CAFile, maxCA)
	if err != nil {
		return nil, artifact.Digest{}, fmt.Errorf("%s: ca_file: %w", c.c.Name, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without any; the bundle stands alone
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, artifact.Digest{}, fmt.Errorf("%s: ca_file %s holds no certificate", c.c.Name, c.c.CAFile)
	}
	return roots, artifact.Sum(pem), nil
}

// A credential is who we are at one host.
type credential struct{ host, user, password string }

// credentials reads the password, if one is configured.
func (c *Client) credentials() (*credential, error) {
	if c.c.User == "" && c.c.PasswordFile == "" {
		return nil, nil
	}
	if c.c.User == "" || c.c.CredentialHost == "" {
		return nil, fmt.Errorf("%s: a password needs a user and a host that it is for", c.c.Name)
	}
	host, err := canonicalHost(c.c.CredentialHost)
	if err != nil {
		return nil, fmt.Errorf("%s: host of the credentials: %w", c.c.Name, err)
	}
	cred := &credential{host: host, user: c.c.User}
	if c.c.PasswordFile != "" {
		b, err := readSmall(c.c.PasswordFile, maxSecret)
		if err != nil {
			return nil, fmt.Errorf("%s: password_file: %w", c.c.Name, err)
		}
		cred.password = strings.TrimRight(string(b), "\r\n")
	}
	return cred, nil
}

// readSmall reads a file of the configuration of at most limit bytes.
func readSmall(name string, limit int64) (b []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, err
}

// event reports progress.
func (c *Client) event(rawURL string, n int64, note string) {
	if c.c.OnEvent == nil {
		return
	}
	c.c.OnEvent(artifact.Event{
		Stage: "fetch", Source: c.c.Name, Item: path.Base(Redact(rawURL)), Bytes: n, Note: note,
	})
}
