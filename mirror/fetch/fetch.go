// Package fetch is darkmirror's only HTTP client: bounded, retrying, and
// confined to the hosts that the configuration names.
//
// Specification: RFC 9110 (HTTP semantics; section 14 for ranges, 10.2.3 for
// Retry-After) and RFC 6585 (429).
//
// Invariants:
//   - No request leaves for a host that is not on the allow-list, on the first
//     URL and on every redirect alike, and none falls back from https to http.
//   - Credentials go to one host only. They, and the query of a URL, enter no
//     error and no log.
//   - Requests to one host, and all together, are bounded by the [Pool].
//   - A download grows a [Partial] and nothing else; what was received counts
//     only after the partial's own digest check.
//
// Limits: documents by [GetOptions].Limit, replies with an error status by
// maxErrorBody, redirects by maxRedirects, waiting by maxRetryAfter and
// [Config].IdleTimeout.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxRedirects is Go's own default.
	maxRedirects = 10
	// maxErrorBody is read of a reply that is not wanted, so that its
	// connection can be used again.
	maxErrorBody = 64 << 10
	// maxRetryAfter bounds what a server may make us wait.
	maxRetryAfter = 2 * time.Minute
	// defaultRetries is how often a request is repeated.
	defaultRetries = 5
	// defaultWait is the first pause; it doubles up to maxWait.
	defaultWait = 500 * time.Millisecond
	maxWait     = 30 * time.Second
	// defaultIdle is how long a body may give no byte.
	defaultIdle = 60 * time.Second
)

// Config describes one source's access to its upstream.
type Config struct {
	Name  string   // "pypi/main", for messages
	Hosts []string // host or host:port that may be contacted, redirects included
	// AllowHTTP lets plain http be used.
	AllowHTTP bool
	// CAFile is a PEM bundle of trusted roots; empty means the system's.
	CAFile string
	// User and PasswordFile are sent to CredentialHost and to no other.
	User, PasswordFile, CredentialHost string
	UserAgent                          string // "darkmirror" where empty
	// ProxyFromEnvironment uses HTTP_PROXY and its like.
	ProxyFromEnvironment bool
	// MaxRetries is how often a request is repeated; 0 means 5, below 0 never.
	MaxRetries int
	// RetryWait is the first pause between tries; 0 means 500 ms.
	RetryWait time.Duration
	// IdleTimeout is how long a body may give no byte; 0 means 60 s.
	IdleTimeout time.Duration
	Logger      *slog.Logger
	OnEvent     func(artifact.Event)
}

// A Client fetches for one source. It may be used concurrently.
type Client struct {
	c     Config
	hosts map[string]bool
	http  *http.Client
	retry *retryablehttp.Client
	log   *slog.Logger
}

// New makes a client whose requests are bounded by p.
func New(p *Pool, c Config) (*Client, error) {
	c.UserAgent = orDefault(c.UserAgent, "darkmirror")
	c.RetryWait = orDefault(c.RetryWait, defaultWait)
	c.IdleTimeout = orDefault(c.IdleTimeout, defaultIdle)
	c.MaxRetries = max(0, orDefault(c.MaxRetries, defaultRetries))
	cl := &Client{c: c, hosts: make(map[string]bool), log: c.Logger}
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
	base, err := cl.transport()
	if err != nil {
		return nil, err
	}
	auth, err := cl.credentials()
	if err != nil {
		return nil, err
	}
	cl.http = &http.Client{
		Transport:     &guard{client: cl, auth: auth, next: p.limit(base)},
		CheckRedirect: cl.checkRedirect,
	}
	cl.retry = &retryablehttp.Client{
		HTTPClient:   cl.http,
		RetryMax:     c.MaxRetries,
		CheckRetry:   checkRetry,
		Backoff:      func(_, _ time.Duration, n int, r *http.Response) time.Duration { return cl.backoff(n, r, time.Now()) },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		RequestLogHook: func(_ retryablehttp.Logger, r *http.Request, n int) {
			if n > 0 {
				cl.note(r.URL.String(), fmt.Sprintf("try %d", n+1))
			}
		},
	}
	return cl, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// transport is the connection layer: time limits everywhere, no cookies.
func (c *Client) transport() (*http.Transport, error) {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default transport was replaced")
	}
	t := base.Clone() // dial and TLS handshake limits, HTTP/2
	t.Proxy = nil
	if c.c.ProxyFromEnvironment {
		t.Proxy = http.ProxyFromEnvironment
	}
	t.ResponseHeaderTimeout = c.c.IdleTimeout
	t.MaxIdleConnsPerHost = 16
	t.MaxResponseHeaderBytes = 64 << 10
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.c.CAFile != "" {
		pem, err := os.ReadFile(c.c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%s: ca_file: %w", c.c.Name, err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: ca_file %s holds no certificate", c.c.Name, c.c.CAFile)
		}
	}
	return t, nil
}

// credentials reads the password, if one is configured.
func (c *Client) credentials() (func(*http.Request), error) {
	if c.c.User == "" && c.c.PasswordFile == "" {
		return nil, nil
	}
	host, err := canonicalHost(c.c.CredentialHost)
	if err != nil {
		return nil, fmt.Errorf("%s: credentials without a host: %w", c.c.Name, err)
	}
	password := ""
	if c.c.PasswordFile != "" {
		b, err := os.ReadFile(c.c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("%s: password_file: %w", c.c.Name, err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	return func(r *http.Request) {
		if name, err := urlHost(r.URL); err == nil && name == host {
			r.SetBasicAuth(c.c.User, password)
		}
	}, nil
}

// GetOptions are the choices of one request.
type GetOptions struct {
	Accept string
	// Limit bounds the document in bytes, after decompression.
	Limit int64
	// ETag and LastModified, where set, allow a 304 answer.
	ETag, LastModified string
}

// A Response is a whole small document.
type Response struct {
	Status int
	Header http.Header
	URL    string // after redirects, redacted
	Body   []byte
}

// Get reads a document. A status other than 200, or 304 where a validator was
// sent, is an *[Error]. A document over the limit is an ErrIntegrity refusal
// (FETCH-LIMIT).
func (c *Client) Get(ctx context.Context, rawURL string, o GetOptions) (*Response, error) {
	h := make(http.Header)
	if o.Accept != "" {
		h.Set("Accept", o.Accept)
	}
	if o.ETag != "" {
		h.Set("If-None-Match", o.ETag)
	}
	if o.LastModified != "" {
		h.Set("If-Modified-Since", o.LastModified)
	}
	for try := 0; ; try++ {
		resp, err := c.do(ctx, http.MethodGet, rawURL, h) //nolint:bodyclose // document closes it
		if err != nil {
			return nil, err
		}
		out, err := c.document(resp, o)
		if err == nil || !isCut(err) || try >= c.c.MaxRetries {
			return out, c.wrap("get", rawURL, 0, err)
		}
		c.note(rawURL, "the reply was cut short; trying again")
		if err := c.pause(ctx, try); err != nil {
			return nil, err
		}
	}
}

// document reads and bounds a reply.
func (c *Client) document(resp *http.Response, o GetOptions) (_ *Response, err error) {
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	out := &Response{Status: resp.StatusCode, Header: resp.Header, URL: Redact(resp.Request.URL.String())}
	conditional := o.ETag != "" || o.LastModified != ""
	if resp.StatusCode == http.StatusNotModified && conditional {
		return out, nil
	}
	if resp.StatusCode != http.StatusOK {
		drain(resp.Body)
		return nil, &Error{Op: "get", URL: out.URL, Status: resp.StatusCode}
	}
	out.Body, err = io.ReadAll(io.LimitReader(resp.Body, o.Limit+1))
	if err != nil {
		return nil, &cutError{err}
	}
	if int64(len(out.Body)) > o.Limit {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "FETCH-LIMIT", Subject: c.c.Name + ": " + out.URL,
			Reason: "the document is larger than allowed", Want: fmt.Sprintf("at most %d bytes", o.Limit),
		}
	}
	return out, nil
}

// Head asks for a document's headers.
func (c *Client) Head(ctx context.Context, rawURL string) (*Response, error) {
	h := http.Header{"Accept-Encoding": {"identity"}} // for the true Content-Length
	resp, err := c.do(ctx, http.MethodHead, rawURL, h)
	if err != nil {
		return nil, err
	}
	out := &Response{Status: resp.StatusCode, Header: resp.Header, URL: Redact(resp.Request.URL.String())}
	if err := resp.Body.Close(); err != nil {
		return nil, c.wrap("head", rawURL, 0, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &Error{Op: "head", URL: out.URL, Status: resp.StatusCode}
	}
	return out, nil
}

// RoundTripper holds the same rules, but for retries, for another library.
func (c *Client) RoundTripper() http.RoundTripper { return c.http.Transport }

// do sends one request with retries by status and connection error. The
// reply's body fails after an idle time.
func (c *Client) do(ctx context.Context, method, rawURL string, h http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := retryablehttp.NewRequestWithContext(ctx, method, rawURL, nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("%s: %s is no URL: %w", c.c.Name, Redact(rawURL), withoutURL(err))
	}
	req.Header = h.Clone()
	req.Header.Set("User-Agent", c.c.UserAgent)
	resp, err := c.retry.Do(req)
	if err != nil {
		cancel(nil)
		return nil, c.wrap(strings.ToLower(method), rawURL, 0, err)
	}
	resp.Body = newIdleBody(resp.Body, c.c.IdleTimeout, cancel)
	return resp, nil
}

// note tells the operator of a retry.
func (c *Client) note(rawURL, text string) {
	text = Redact(rawURL) + ": " + text
	c.log.Info("fetch", slog.String("source", c.c.Name), slog.String("note", text))
	if c.c.OnEvent != nil {
		c.c.OnEvent(artifact.Event{Stage: "fetch", Source: c.c.Name, Note: text})
	}
}

func (c *Client) progress(n int64) {
	if c.c.OnEvent != nil && n > 0 {
		c.c.OnEvent(artifact.Event{Stage: "fetch", Source: c.c.Name, Bytes: n})
	}
}

// drain lets the connection be used again, within reason.
func drain(r io.Reader) {
	// The reply is not wanted; neither is its error.
	_, _ = io.Copy(io.Discard, io.LimitReader(r, maxErrorBody))
}

// Redact removes userinfo, query and fragment from a URL.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(a URL that cannot be read)"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}
