package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// TestRetryByStatus has one case a status: tried again, or final at once.
func TestRetryByStatus(t *testing.T) {
	again := map[int]bool{408: true, 425: true, 429: true, 500: true, 502: true, 503: true, 504: true}
	final := []int{201, 204, 206, 300, 304, 400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 413, 416, 418, 422, 426, 428, 431, 451, 501, 505, 507, 511, 520}
	codes := final
	for c := range again {
		codes = append(codes, c)
	}
	b := []byte("hello")
	for _, code := range codes {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			for op, try := range map[string]func(*Client) error{
				"get": func(c *Client) error {
					_, err := c.Get(t.Context(), "https://index.example/x", GetOptions{})
					return err
				},
				"head": func(c *Client) error {
					_, err := c.Head(t.Context(), "https://index.example/x")
					return err
				},
				"download": func(c *Client) error {
					return c.Download(t.Context(), "https://index.example/x", newTarget(t, b, nil, ""))
				},
			} {
				var once, ever journal
				w := newWorld(t, map[string]http.HandlerFunc{
					"https://index.example": once.steps(status(code), text("hello")),
					"https://files.example": ever.steps(status(code)),
				})
				c := w.client()
				err := try(c)
				if again[code] {
					if err != nil || len(once.all()) != 2 || len(w.notes()) != 1 {
						t.Errorf("%s: %d requests, notes %q: %v", op, len(once.all()), w.notes(), err)
					}
					contains(t, strings.Join(w.notes(), ""), fmt.Sprint(code), "https://index.example/x")
				} else {
					e := unavailable(t, err, code)
					if len(once.all()) != 1 || e.Temporary() || e.Op != op || e.Tries > 1 {
						t.Errorf("%s: %d requests: %+v", op, len(once.all()), e)
					}
					if IsNotFound(err) != (code == 404 || code == 410) {
						t.Errorf("IsNotFound(%v) = %v", err, IsNotFound(err))
					}
				}
			}
		})
	}
}

// TestRetriesEnd: a server that never recovers is given up after MaxRetries.
func TestRetriesEnd(t *testing.T) {
	for _, retries := range []int{-1, 1, 3} {
		var j journal
		w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(status(503))})
		c := w.client(func(c *Config) { c.MaxRetries = retries })
		_, err := c.Get(t.Context(), "https://index.example/x", GetOptions{})
		e := unavailable(t, err, 503)
		if want := max(0, retries) + 1; len(j.all()) != want || e.Tries != want || !e.Temporary() {
			t.Errorf("%d retries: %d requests: %+v", retries, len(j.all()), e)
		}
		contains(t, err.Error(), "pypi/main: get https://index.example/x: ", "503 Service Unavailable")
	}
}

// TestRetryByConnection has one case a way in which a connection dies.
func TestRetryByConnection(t *testing.T) {
	hijack := func(after string, linger int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			if tc, ok := conn.(*net.TCPConn); ok && linger >= 0 {
				_ = tc.SetLinger(linger) // a reset instead of an end
			}
			_, _ = io.WriteString(conn, after)
			_ = conn.Close()
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "he")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for name, first := range map[string]http.HandlerFunc{
		"end":                   hijack("", -1),
		"reset":                 hijack("", 0),
		"end within the header": hijack("HTTP/1.1 200 OK\r\nContent-Le", -1),
		"end within the body":   hijack("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", -1),
		"end within a chunk":    hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", -1),
		"garbage":               hijack("what?\r\n\r\n", -1),
		"no header":             hang,
		"no body":               stall,
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			w := newWorld(t, map[string]http.HandlerFunc{"http://index.example": j.steps(first, text("hello"))})
			c := w.client(func(c *Config) { c.IdleTimeout = 100 * time.Millisecond })
			resp, err := c.Get(t.Context(), "http://index.example/x", GetOptions{})
			if err != nil || string(resp.Body) != "hello" || len(j.all()) != 2 {
				t.Errorf("%d requests: %v", len(j.all()), err)
			}
			var never journal
			w.serve("http://files.example", never.steps(first))
			w.pool = NewPool(0, 0)
			w.pool.dial = w.dial
			c = w.client(func(c *Config) { c.IdleTimeout, c.MaxRetries = 100*time.Millisecond, 1 })
			_, err = c.Get(t.Context(), "http://files.example/x", GetOptions{})
			if e := unavailable(t, err, 0); !e.Temporary() || e.Tries != 2 || len(never.all()) < 2 {
				t.Errorf("%d requests: %+v", len(never.all()), e)
			}
		})
	}
}

// TestNoRetry: what another try would only meet again.
func TestNoRetry(t *testing.T) {
	w := newWorld(t, nil)
	w.serve("https://index.example", text("x"))
	w.serve("http://files.example", text("x"))
	w.mu.Lock()
	w.addr["files.example:443"] = w.addr["files.example:80"] // plain http where TLS is expected
	w.mu.Unlock()
	for name, c := range map[string]struct {
		client *Client
		url    string
	}{
		"unknown authority": {w.client(func(c *Config) { c.CAFile = "" }), "https://index.example/"},
		"another name":      {w.client(func(c *Config) { c.Hosts = []string{"mirror.example"} }), "https://mirror.example/"},
		"no TLS at all":     {w.client(), "https://files.example/"},
	} {
		w.mu.Lock()
		w.addr["mirror.example:443"] = w.addr["index.example:443"]
		w.mu.Unlock()
		_, err := c.client.Get(t.Context(), c.url, GetOptions{})
		e := unavailable(t, err, 0)
		if e.Temporary() || len(w.notes()) != 0 {
			t.Errorf("%s: notes %q: %v", name, w.notes(), err)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.serve("https://index.example", text("x"), func(s *httptest.Server) {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	})
	_, err := w.client().Get(t.Context(), "https://index.example/", GetOptions{})
	unavailable(t, err, 0)
	contains(t, err.Error(), "protocol version")
}

func TestHTTP2(t *testing.T) {
	var j journal
	w := newWorld(t, nil)
	w.serve("https://index.example", j.steps(cut(noise(500_000), `"v"`, 300_000), file(noise(500_000), `"v"`)), func(s *httptest.Server) { s.EnableHTTP2 = true })
	p := newTarget(t, noise(500_000), nil, "")
	p.check(t, w.client().Download(t.Context(), "https://index.example/x", p))
	if r := j.all()[1]; r.ProtoMajor != 2 || r.Header.Get("Range") == "" {
		t.Errorf("%s, Range %q", r.Proto, r.Header.Get("Range"))
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"7": 7 * time.Second, " 7 ": 7 * time.Second, "0": 0, "120": 2 * time.Minute, "121": 2 * time.Minute,
		"99999999999999999999":           2 * time.Minute,
		"Sun, 22 Nov 2026 20:00:30 GMT":  30 * time.Second,
		"Sunday, 22-Nov-26 20:00:30 GMT": 30 * time.Second,
		"Sun Nov 22 20:00:30 2026":       30 * time.Second,
		"Sun, 22 Nov 2026 19:00:00 GMT":  0,
		"Mon, 23 Nov 2026 20:00:00 GMT":  2 * time.Minute,
	} {
		if got, ok := retryAfter(v, now); !ok || got != want {
			t.Errorf("%q: %v, %v", v, got, ok)
		}
	}
	for _, v := range []string{"", " ", "-1", "+7", "7s", "1e3", "7.5", "soon", "Sun, 22 Nov"} {
		if got, ok := retryAfter(v, now); ok {
			t.Errorf("%q: %v", v, got)
		}
	}
}

// TestPauses: the server's wish is followed within bounds; else pauses grow,
// with chance, up to a bound.
func TestPauses(t *testing.T) {
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	asks := func(v string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", v)
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(
		asks("7"), asks("3600"), asks("Sun, 22 Nov 2026 20:00:30 GMT"), asks("0"), asks("nonsense"), status(503), text("x"))})
	c := w.client(func(c *Config) { c.MaxRetries, c.RetryWait = 10, time.Second })
	c.now = func() time.Time { return now }
	if _, err := c.Get(t.Context(), "https://index.example/", GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if len(w.pauses) != 6 {
		t.Fatalf("pauses: %v", w.pauses)
	}
	for i, want := range []time.Duration{7 * time.Second, 2 * time.Minute, 30 * time.Second} {
		if w.pauses[i] != want {
			t.Errorf("pause %d: %v, want %v", i, w.pauses[i], want)
		}
	}
	for i, least := range map[int]time.Duration{3: time.Second, 4: 8 * time.Second, 5: 15 * time.Second} {
		if w.pauses[i] < least || w.pauses[i] > 2*least {
			t.Errorf("pause %d: %v, want %v to twice that", i, w.pauses[i], least)
		}
	}
	k := &call{client: c, fails: 1000}
	k.backoff(0, 0, 0, nil)
	if d := w.pauses[len(w.pauses)-1]; d < maxWait/2 || d > maxWait {
		t.Errorf("after 1000 failures: %v", d)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t, map[string]http.HandlerFunc{
		"https://index.example": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"https://files.example": status(503),
	})
	c := w.client()
	for _, url := range []string{"https://index.example/?s3cret", "https://files.example/?s3cret"} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		c.pause = func(time.Duration) time.Duration { return time.Hour }
		_, err := c.Get(ctx, url, GetOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, artifact.ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("timeout: %v", err)
		}
		cancel()
		if err := c.Download(ctx, url, newTarget(t, noise(10), nil, "")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("afterwards: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Head(ctx, "https://index.example/"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestErrorBodies: the text of a reply that is not wanted is read for a
// moment only, however much or little of it comes.
func TestErrorBodies(t *testing.T) {
	var sent atomic.Int64
	endless := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		for range 1 << 14 {
			n, err := w.Write(make([]byte, 4096))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	silent := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusNotFound)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, h := range map[string]http.HandlerFunc{"endless": endless, "silent": silent, "dripping": drip} {
		w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": h})
		c := w.client(func(c *Config) { c.IdleTimeout = 200 * time.Millisecond })
		began := time.Now()
		_, err := c.Get(t.Context(), "https://index.example/", GetOptions{})
		unavailable(t, err, http.StatusNotFound)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
	if n := sent.Load(); n >= 1<<26 {
		t.Errorf("%d bytes of an error page were taken", n)
	}
}

// TestConnectionIsReused also after small error pages.
func TestConnectionIsReused(t *testing.T) {
	w := newWorld(t, map[string]http.HandlerFunc{"http://index.example": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/404" {
			http.Error(w, strings.Repeat("no such thing ", 100), http.StatusNotFound)
			return
		}
		_, _ = w.Write(noise(100_000))
	}})
	c := w.client()
	for range 5 {
		if _, err := c.Get(t.Context(), "http://index.example/404", GetOptions{}); !IsNotFound(err) {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), "http://index.example/", GetOptions{}); err != nil {
			t.Fatal(err)
		}
		p := newTarget(t, noise(100_000), nil, "")
		p.check(t, c.Download(t.Context(), "http://index.example/", p))
	}
	if len(w.dials) != 1 {
		t.Errorf("%d connections", len(w.dials))
	}
}

// TestConcurrency: no more requests at once than the pool allows, in all and
// to each host; clients of one pool share its bounds.
func TestConcurrency(t *testing.T) {
	var now, most, nowIndex, mostIndex atomic.Int64
	enter := func(now, most *atomic.Int64) {
		n := now.Add(1)
		m := most.Load()
		for n > m && !most.CompareAndSwap(m, n) {
			m = most.Load()
		}
	}
	w := newWorld(t, nil)
	slow := func(w http.ResponseWriter, r *http.Request) {
		enter(&now, &most)
		defer now.Add(-1)
		if r.Host == "index.example" {
			enter(&nowIndex, &mostIndex)
			defer nowIndex.Add(-1)
		}
		_, _ = io.WriteString(w, "he")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, "llo")
	}
	w.serve("http://index.example", slow)
	w.serve("http://files.example", slow)
	w.pool = NewPool(2, 3)
	w.pool.dial = w.dial
	var g errgroup.Group
	for i := range 20 {
		c := w.client()
		g.Go(func() error {
			_, err := c.Get(t.Context(), []string{"http://index.example/", "http://files.example/"}[i%2], GetOptions{})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if most.Load() != 3 || mostIndex.Load() != 2 {
		t.Errorf("at once: %d in all, %d to one host; want 3 and 2", most.Load(), mostIndex.Load())
	}
	if n := len(w.pool.total); n != 0 {
		t.Errorf("%d places were not given back", n)
	}
}

func TestProxy(t *testing.T) {
	var proxied, direct journal
	w := newWorld(t, map[string]http.HandlerFunc{
		"http://proxy.example:3128": proxied.steps(text("by proxy")),
		"http://index.example":      direct.steps(text("directly")),
	})
	for use, want := range map[bool]string{true: "by proxy", false: "directly"} {
		c := w.client(func(c *Config) { c.ProxyFromEnvironment = use })
		resp, err := c.Get(t.Context(), "http://index.example/x", GetOptions{})
		if err != nil || string(resp.Body) != want {
			t.Errorf("proxy %v: %v", use, err)
		}
	}
	if len(proxied.all()) != 1 || len(direct.all()) != 1 || proxied.all()[0].RequestURI != "http://index.example/x" {
		t.Errorf("%d by proxy, %d directly", len(proxied.all()), len(direct.all()))
	}
}

// TestRoundTripperRetries what is safe to repeat, and nothing else; a status
// that stays reaches the library as it is.
func TestRoundTripperRetries(t *testing.T) {
	for _, c := range []struct {
		method, body string
		requests     int
		status       int
	}{
		{http.MethodGet, "", 2, 200},
		{http.MethodHead, "", 2, 200},
		{http.MethodPost, "x", 1, 503},
		{http.MethodPut, "x", 1, 503},
		{http.MethodDelete, "", 1, 503},
	} {
		var j journal
		w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(status(503), text("ok"))})
		req, err := http.NewRequestWithContext(t.Context(), c.method, "https://index.example/v2/", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.client().RoundTripper().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != c.status || len(j.all()) != c.requests {
			t.Errorf("%s: status %d after %d requests", c.method, resp.StatusCode, len(j.all()))
		}
	}
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "down for a while")
	}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://index.example/v2/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client().RoundTripper().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusServiceUnavailable || string(b) != "down for a while" {
		t.Errorf("%d %q: %v", resp.StatusCode, b, err)
	}
	if len(w.pauses) != 3 {
		t.Errorf("pauses: %v", w.pauses)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"7", "0", "99999999999999999999", "-1", "Sun, 22 Nov 2026 20:00:30 GMT", "Sunday, 22-Nov-26 20:00:30 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "x"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := retryAfter(s, now); d < 0 || d > maxRetryAfter || !ok && d != 0 {
			t.Fatalf("%q: %v, %v", s, d, ok)
		}
	})
}
