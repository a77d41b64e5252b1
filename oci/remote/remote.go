// Package remote is the client of one container registry: it reads manifests,
// tags, referrers and blobs, and pushes them.
//
// Specification: OCI distribution-spec v1.1.1; for logins RFC 9110 section
// 11.6.1 (challenges), RFC 7617 (Basic) and the token protocol of the
// distribution project (docs/spec/auth/token.md).
//
// Invariants:
//   - Every request goes through the fetch.Client that was given: its
//     allow-list holds for token servers, redirects, upload locations and the
//     next page of a list alike, and nothing leads from https to http.
//   - Authorization goes to the registry's own host, a password to the token
//     server too, and to no other. No secret and no query of a URL enters an
//     error or a log.
//   - A manifest's bytes are those that the registry sent, and have the digest
//     by which they were asked for.
//   - A blob that is pushed is hashed while it is sent; what is not the digest
//     that was promised is never completed.
//   - What a registry has confirmed of a chunked upload is not sent again: not
//     after a cut, and not by another process that has the same StateDir.
//
// Limits: manifests and pages of referrers by spec.MaxManifest, lists by
// maxPage, maxPages, maxTags and maxReferrers, headers that are parsed by
// maxChallenge, maxLink and maxLocation, tries by maxTries and maxRestarts.
package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// defaultChunk is what an interrupted upload loses at most. Every registry
// takes so much in one request.
const defaultChunk = 64 << 20

// Config describes the access to one registry.
type Config struct {
	Name     string // "oci/platform", for messages
	Registry string // "https://registry.example"
	// User and Password log in where the registry asks for it. Where both are
	// empty DockerConfig says who we are, and without it nobody.
	User, Password string
	// DockerConfig is a docker config.json: auths, credHelpers, credsStore.
	DockerConfig string
	// MinRemaining stops reading when the registry says that fewer requests
	// are left; 0 never does.
	MinRemaining int
	// Chunk is the size from which on a blob is sent in pieces, and the size
	// of these; 0 means 64 MiB.
	Chunk int64
	// StateDir keeps upload sessions over restarts. Where it is empty, or the
	// registry forgets them, a blob starts anew.
	StateDir string
	Log      *slog.Logger         // nil discards
	OnEvent  func(artifact.Event) // may be nil
}

// A Client speaks with one registry. It may be used concurrently.
type Client struct {
	c     Config
	base  *url.URL // scheme and host
	host  string   // as the allow-list writes it
	fetch *fetch.Client
	http  *http.Client      // for GET and HEAD: retries, follows redirects
	rt    http.RoundTripper // for what changes something: once, no redirects
	auth  *authority
	log   *slog.Logger
	locks keyed
	// low is set when the registry's limit comes near.
	low atomic.Pointer[lowWater]
	// pause changes the waits between tries, for tests; stall is how long a
	// request's body may make no progress.
	pause func(time.Duration) time.Duration
	stall time.Duration
}

// New makes a client whose requests go through fc.
func New(c Config, fc *fetch.Client) (*Client, error) {
	u, err := url.Parse(c.Registry)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%s: registry %s: want https://host", c.Name, fetch.Redact(c.Registry))
	}
	if u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s: registry %s: want scheme and host, nothing more", c.Name, fetch.Redact(c.Registry))
	}
	host, err := fetch.Host(c.Registry)
	if err != nil {
		return nil, fmt.Errorf("%s: registry: %w", c.Name, err)
	}
	if err := fc.Allowed(c.Registry, ""); err != nil {
		return nil, err
	}
	if c.Chunk < 0 || c.MinRemaining < 0 {
		return nil, fmt.Errorf("%s: chunk and min_remaining must not be negative", c.Name)
	}
	c.Chunk = cmp.Or(c.Chunk, defaultChunk)
	login, err := newLogin(&c, host)
	if err != nil {
		return nil, err
	}
	cl := &Client{
		c: c, base: &url.URL{Scheme: u.Scheme, Host: u.Host}, host: host, log: c.Log,
		pause: func(d time.Duration) time.Duration { return d }, stall: stallTime,
	}
	if cl.log == nil {
		cl.log = slog.New(slog.DiscardHandler)
	}
	cl.auth = &authority{
		name: c.Name, base: cl.base, host: host, login: login, log: cl.log,
		allowed: fc.Allowed, tickets: make(map[string]*ticket), now: time.Now,
	}
	cl.fetch = fc.With(cl.auth.wrap)
	cl.rt = cl.fetch.RoundTripper()
	cl.http = &http.Client{Transport: cl.rt}
	if err := cl.openState(); err != nil {
		return nil, err
	}
	return cl, nil
}

// openState makes the folder of the upload sessions.
func (c *Client) openState() error {
	if c.c.StateDir == "" {
		return nil
	}
	if err := os.MkdirAll(c.c.StateDir, 0o700); err != nil {
		return fmt.Errorf("%s: folder of the upload sessions: %w", c.c.Name, err)
	}
	return sweepSessions(c.c.StateDir, time.Now())
}

// Host is the registry's host, without scheme.
func (c *Client) Host() string { return c.host }

// Ping asks whether the registry is there and takes our login.
func (c *Client) Ping(ctx context.Context) error {
	a := ask{op: "log in at", need: need{login: true}}
	resp, err := c.get(ctx, a, c.url("/v2/"), nil)
	if err != nil {
		return err
	}
	closeBody(resp)
	return nil
}

// url is an address of the registry; path holds checked names only.
func (c *Client) url(path string) *url.URL {
	u := *c.base
	u.Path = path
	return &u
}

// A keyed is a set of locks by name. Its zero value has none.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits for the lock of that name.
func (k *keyed) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		if k.held == nil {
			k.held = make(map[string]chan struct{})
		}
		busy, taken := k.held[name]
		if !taken {
			done := make(chan struct{})
			k.held[name] = done
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, name)
				k.mu.Unlock()
				close(done)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lowWater is a limit that comes near.
type lowWater struct {
	left  int
	until time.Time
	wait  time.Duration
}

// spared refuses another request where the registry's limit is near.
func (c *Client) spared(a ask) error {
	low := c.low.Load()
	if low == nil || time.Now().After(low.until) {
		return nil
	}
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeRateLimit, Subject: c.c.Name + ": " + c.host,
		Reason: fmt.Sprintf("only %d requests are left to us; the registry counts anew within %s", low.left, low.wait),
		Want:   fmt.Sprintf("%d", c.c.MinRemaining), Got: fmt.Sprintf("%d", low.left),
		Err: c.problem(a, errors.New("stopped before the limit")),
	}
}

// heed remembers what a reply says of the limit.
func (c *Client) heed(resp *http.Response) {
	if c.c.MinRemaining == 0 {
		return
	}
	left, window, ok := rateLimit(resp.Header.Get("RateLimit-Remaining"))
	if !ok || left >= c.c.MinRemaining {
		return
	}
	c.low.Store(&lowWater{left: left, wait: window, until: time.Now().Add(window)})
}
