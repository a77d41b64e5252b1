package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// An Error is a request that did not give what was asked for.
type Error struct {
	Op     string // "get", "head", "download"
	URL    string // redacted
	Status int    // 0 where there was no reply
	Err    error
}

func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("%s %s: %d %s", e.Op, e.URL, e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.URL, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, artifact.ErrUnavailable) match.
func (e *Error) Is(target error) bool { return target == artifact.ErrUnavailable }

// Temporary reports whether another try, later, may succeed.
func (e *Error) Temporary() bool { return e.Status == 0 || retryStatus(e.Status) }

// IsNotFound reports whether the upstream said that there is no such thing.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// retryStatus tells replies that may be different soon. Never 400, 401, 403,
// 404, 410: they will not be.
func retryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// checkRetry is the policy that go-retryablehttp asks.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err == nil {
		return retryStatus(resp.StatusCode), nil
	}
	return !final(err), nil
}

// final tells connection errors that another try would only repeat.
func final(err error) bool {
	if errors.Is(err, ErrHost) || errors.Is(err, context.Canceled) {
		return true
	}
	u, ok := errors.AsType[*url.Error](err)
	if !ok {
		return false
	}
	text := u.Err.Error()
	return strings.Contains(text, "redirects") || strings.Contains(text, "x509:") ||
		strings.Contains(text, "tls: failed to verify") || strings.Contains(text, "unsupported protocol")
}

// backoff is the pause before try n+1: what the server asks for, within
// bounds, or else twice the last, of which half is chance.
func (c *Client) backoff(n int, resp *http.Response, now time.Time) time.Duration {
	if resp != nil {
		if d, ok := retryAfter(resp.Header.Get("Retry-After"), now); ok {
			return d
		}
	}
	d := min(maxWait, c.c.RetryWait<<min(n, 10))
	return d/2 + rand.N(d/2+1) //nolint:gosec // jitter, no secret
}

// retryAfter reads both forms, seconds and date, and bounds the answer.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0, false
	}
	if s, err := strconv.ParseUint(v, 10, 32); err == nil {
		return min(maxRetryAfter, time.Duration(s)*time.Second), true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(maxRetryAfter, max(0, at.Sub(now))), true
}

// pause waits before another try of a body that was cut.
func (c *Client) pause(ctx context.Context, n int) error {
	t := time.NewTimer(c.backoff(n, nil, time.Now()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// A cutError is a body that ended early or stalled: worth another try.
type cutError struct{ err error }

func (e *cutError) Error() string { return "the reply was cut short: " + e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

func isCut(err error) bool {
	_, ok := errors.AsType[*cutError](err)
	return ok
}

// wrap names the request in an error, without what must not be seen.
func (c *Client) wrap(op, rawURL string, status int, err error) error {
	if err == nil {
		return nil
	}
	if h, ok := errors.AsType[*HostError](err); ok {
		return h
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return fmt.Errorf("%s: %w", c.c.Name, err)
	}
	if _, ok := errors.AsType[*artifact.Refusal](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", c.c.Name, &Error{Op: op, URL: Redact(rawURL), Status: status, Err: withoutURL(err)})
}

// withoutURL drops the URL that net/http puts into its errors: it may hold a
// password or a signed query.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return withoutURL(u.Err)
	}
	return err
}

// errIdle is the cause of a request that was ended for giving no byte.
var errIdle = errors.New("no byte for too long")

// An idleBody cancels its request when a read gives nothing for a time.
type idleBody struct {
	io.ReadCloser
	timer  *time.Timer
	wait   time.Duration
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	idle bool
}

func newIdleBody(rc io.ReadCloser, wait time.Duration, cancel context.CancelCauseFunc) *idleBody {
	b := &idleBody{ReadCloser: rc, wait: wait, cancel: cancel}
	b.timer = time.AfterFunc(wait, func() {
		b.mu.Lock()
		b.idle = true
		b.mu.Unlock()
		cancel(errIdle)
	})
	return b
}

// Read gives the timer new time.
func (b *idleBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.wait)
	if err != nil && !errors.Is(err, io.EOF) {
		b.mu.Lock()
		idle := b.idle
		b.mu.Unlock()
		if idle {
			return n, errIdle
		}
	}
	return n, err
}

// Close ends the request.
func (b *idleBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
