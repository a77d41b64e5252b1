package fetch

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// A Pool bounds how many requests run at once: to each host, and in all. A
// request counts until its body is closed.
type Pool struct {
	perHost int
	total   chan struct{}

	mu    sync.Mutex
	hosts map[string]chan struct{}
}

// NewPool makes a pool; limits below one count as one.
func NewPool(perHost, total int) *Pool {
	return &Pool{perHost: max(1, perHost), total: make(chan struct{}, max(1, total)), hosts: make(map[string]chan struct{})}
}

func (p *Pool) host(name string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := p.hosts[name]
	if ch == nil {
		ch = make(chan struct{}, p.perHost)
		p.hosts[name] = ch
	}
	return ch
}

func (p *Pool) limit(next http.RoundTripper) http.RoundTripper { return &limited{p, next} }

type limited struct {
	pool *Pool
	next http.RoundTripper
}

// RoundTrip waits for a place at the host first, then for one in all, so that
// a slow host does not fill the pool with its queue.
func (l *limited) RoundTrip(req *http.Request) (*http.Response, error) {
	host := l.pool.host(req.URL.Host)
	if err := acquire(req.Context(), host); err != nil {
		return nil, err
	}
	if err := acquire(req.Context(), l.pool.total); err != nil {
		<-host
		return nil, err
	}
	release := sync.OnceFunc(func() {
		<-l.pool.total
		<-host
	})
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		release()
		return nil, err
	}
	resp.Body = &countedBody{resp.Body, release}
	return resp, nil
}

func acquire(ctx context.Context, ch chan struct{}) error {
	select {
	case ch <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type countedBody struct {
	io.ReadCloser
	release func()
}

// Close gives the place back.
func (b *countedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}
