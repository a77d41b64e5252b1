package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxErrorBody is read of a reply that is not wanted, so that its
	// connection can be used again; drainTime is how long that may take.
	maxErrorBody = 4 << 10
	drainTime    = 5 * time.Second
)

// errStalled is a body that gave no byte for too long.
var errStalled = errors.New("no byte for too long")

// A guard is the innermost check: whatever a caller or a library above it
// does, no request passes that the configuration does not allow, and no body
// comes back that could hang for ever.
type guard struct {
	client  *Client
	auth    *credential
	next    http.RoundTripper
	foreign bool // requests are another library's and may bring credentials
}

// RoundTrip checks the host, gives and takes away headers by host, waits for
// a place in the pool and bounds the time of the reply's body.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.check(req); err != nil {
		return nil, err
	}
	name, _, err := urlHost(req.URL)
	if err != nil {
		return nil, err
	}
	if err := g.client.c.Budget.spend(req.Context(), name); err != nil {
		return nil, err
	}
	release, err := g.client.pool.acquire(req.Context(), name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(req.Context())
	resp, err := g.next.RoundTrip(g.dress(req.Clone(ctx)))
	if err != nil {
		cancel()
		release()
		return nil, err
	}
	b := newBody(resp, g.client.c.IdleTimeout, cancel, release)
	b.ctx, b.rate = ctx, g.client.pool.rate
	resp.Body = b
	return resp, nil
}

// before is the request whose redirect led to req, or nil. Only net/http sets
// it; another library that follows redirects by itself sends first requests.
func before(req *http.Request) *url.URL {
	if req.Response == nil || req.Response.Request == nil {
		return nil
	}
	return req.Response.Request.URL
}

func (g *guard) check(req *http.Request) error {
	prev := before(req)
	if prev == nil {
		return g.client.allowed(req.URL, "")
	}
	from, _, err := urlHost(prev)
	if err != nil {
		return err
	}
	if err := g.client.allowed(req.URL, from); err != nil {
		return err
	}
	if prev.Scheme == "https" && req.URL.Scheme != "https" {
		host, _, err := urlHost(req.URL)
		if err != nil {
			return err
		}
		return &HostError{Source: g.client.c.Name, From: from, Host: host, Reason: "from https to http, which is never allowed"}
	}
	return nil
}

// dress sets the headers that depend on where the request goes.
func (g *guard) dress(req *http.Request) *http.Request {
	req.Header.Del("Referer") // where we come from is nobody's business
	if prev := before(req); !g.foreign || prev != nil && prev.Host != req.URL.Host {
		// Of ours nobody sets these but net/http, from a link's userinfo. Of
		// others', net/http lets them pass to subdomains.
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	if g.auth != nil && req.Header.Get("Authorization") == "" {
		if short, long, err := urlHost(req.URL); err == nil && (short == g.auth.host || long == g.auth.host) {
			req.SetBasicAuth(g.auth.user, g.auth.password)
		}
	}
	if !g.foreign || req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", g.client.c.UserAgent)
	}
	return req
}

// A body ends its request when it gives no byte for a time, and gives the
// place in the pool back when it has ended.
type body struct {
	io.ReadCloser
	timer   *time.Timer
	idle    time.Duration // 0: the timer runs once, from the start
	stalled atomic.Bool
	ctx     context.Context
	cancel  context.CancelFunc
	release func()
	rate    *Bandwidth
}

func newBody(resp *http.Response, idle time.Duration, cancel context.CancelFunc, release func()) *body {
	b := &body{ReadCloser: resp.Body, idle: idle, cancel: cancel, release: sync.OnceFunc(release)}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		// Nobody wants it: it is read for the connection's sake, or for a
		// few words of it, and perhaps not closed before the next request.
		b.idle, idle = 0, min(idle, drainTime)
		b.release()
	}
	b.timer = time.AfterFunc(idle, func() {
		b.stalled.Store(true)
		cancel()
	})
	if b.idle > 0 {
		b.timer.Stop() // it runs while we wait for the server, not for the caller
	}
	return b
}

// Read fails with errStalled when the server gives nothing.
func (b *body) Read(p []byte) (int, error) {
	p, err := b.rate.wait(b.ctx, p)
	if err != nil {
		return 0, err
	}
	if b.idle > 0 {
		b.timer.Reset(b.idle)
	}
	n, err := b.ReadCloser.Read(p)
	b.rate.spent(n)
	if b.idle > 0 {
		b.timer.Stop()
	}
	if err != nil {
		b.timer.Stop()
		b.release()
		if b.stalled.Load() && !errors.Is(err, io.EOF) {
			err = errStalled
		}
	}
	return n, err
}

// Close ends the request.
func (b *body) Close() error {
	b.timer.Stop()
	b.cancel() // a body that was not read to its end is not waited for
	err := b.ReadCloser.Close()
	b.release()
	return err
}

// drain lets the connection be used again, within reason.
func drain(r io.Reader) {
	// The reply is not wanted; neither is its error.
	_, _ = io.CopyN(io.Discard, r, maxErrorBody)
}
