package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// defaultPerHost is polite to a public index and fills a fast line.
	defaultPerHost = 10
	// defaultTotal bounds the buffers and connections of a run.
	defaultTotal = 32
	// dialTime, tlsTime and keepIdle are those of net/http's own transport,
	// but for a dial that gives up sooner: there are retries above.
	dialTime = 15 * time.Second
	tlsTime  = 10 * time.Second
	keepIdle = 90 * time.Second
	// maxHeader is 16 times what the largest header of a known index has.
	maxHeader = 256 << 10
	// pingAfter finds dead HTTP/2 connections that carry a silent request.
	pingAfter = 15 * time.Second
)

// A Pool shares connections, and bounds how many requests run at once: to
// each host, and in all. Clients of one Pool may be used concurrently.
type Pool struct {
	perHost int
	total   chan struct{}
	buffers sync.Pool // *[]byte of copyBuffer
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	// rate bounds what bodies bring, over all hosts; nil does not.
	rate *Bandwidth
	// apart gives each request a connection of its own.
	apart bool

	mu         sync.Mutex
	hosts      map[string]chan struct{}
	transports map[transportKey]*http.Transport
}

// NewPool makes a pool; a limit below one is 8 for a host and 32 in all.
func NewPool(perHost, total int) *Pool {
	if perHost < 1 {
		perHost = defaultPerHost
	}
	if total < 1 {
		total = defaultTotal
	}
	p := &Pool{
		perHost: perHost, total: make(chan struct{}, total),
		hosts: make(map[string]chan struct{}), transports: make(map[transportKey]*http.Transport),
		dial: (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext,
	}
	p.buffers.New = func() any {
		b := make([]byte, copyBuffer)
		return &b
	}
	return p
}

// SetBandwidth makes this pool's bodies arrive no faster than b allows, which
// several pools may share. It is called before the pool is used.
func (p *Pool) SetBandwidth(b *Bandwidth) { p.rate = b }

// SetApart gives each request a connection of its own, by speaking HTTP/1.1:
// many requests over one connection of HTTP/2 are as fast as that one is. It
// is called before the pool is used.
func (p *Pool) SetApart() { p.apart = true }

// acquire waits for a place at the host first, then for one in all, so that
// a slow host does not fill the pool with its queue.
func (p *Pool) acquire(ctx context.Context, name string) (release func(), err error) {
	p.mu.Lock()
	host := p.hosts[name] // allow-listed, so there are few
	if host == nil {
		host = make(chan struct{}, p.perHost)
		p.hosts[name] = host
	}
	p.mu.Unlock()
	if err := enter(ctx, host); err != nil {
		return nil, err
	}
	if err := enter(ctx, p.total); err != nil {
		<-host
		return nil, err
	}
	return func() {
		<-p.total
		<-host
	}, nil
}

func enter(ctx context.Context, ch chan struct{}) error {
	select {
	case ch <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A transportKey is what tells connections apart that may not be shared.
type transportKey struct {
	ca    artifact.Digest
	proxy bool
	wait  time.Duration
}

// transport is the connection layer: time limits everywhere, no cookies, and
// no proxy unless asked for.
func (p *Pool) transport(key transportKey, roots *x509.CertPool) *http.Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.transports[key]; t != nil {
		return t
	}
	t := &http.Transport{
		DialContext:            func(ctx context.Context, n, a string) (net.Conn, error) { return p.dial(ctx, n, a) },
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    tlsTime,
		ResponseHeaderTimeout:  key.wait,
		IdleConnTimeout:        keepIdle,
		MaxIdleConnsPerHost:    p.perHost,
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      !p.apart,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
	}
	if key.proxy {
		t.Proxy = http.ProxyFromEnvironment
	}
	p.transports[key] = t
	return t
}

// buffer takes a copy buffer; release gives it back.
func (p *Pool) buffer() (buf []byte, release func()) {
	b, ok := p.buffers.Get().(*[]byte)
	if !ok { // cannot happen: New makes nothing else
		n := make([]byte, copyBuffer)
		b = &n
	}
	return *b, func() { p.buffers.Put(b) }
}
