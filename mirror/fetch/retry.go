package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A cutError is a reply that ended early, stalled or cannot be used as it is:
// worth another try.
type cutError struct {
	err  error
	note string // for the operator; empty: err says it
}

func (e *cutError) Error() string { return "the reply was cut short: " + e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// A localError is trouble on our own side, which no other try mends.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

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

// retryable tells errors that another try may not meet again: connections
// that were refused, reset, cut or timed out. What the other side is, and what
// we made of it, stays the same.
func retryable(err error) bool {
	for _, final := range []error{ErrHost, errRedirects, context.Canceled, artifact.ErrIntegrity} {
		if errors.Is(err, final) {
			return false
		}
	}
	if isA[*localError](err) || isA[*Error](err) || isA[*tls.CertificateVerificationError](err) || isA[tls.RecordHeaderError](err) {
		return false
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return false
	}
	text := err.Error()
	return !strings.Contains(text, "unsupported protocol") && !strings.Contains(text, "Location header") &&
		!strings.Contains(text, "server gave HTTP response to HTTPS client")
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// A call is one request with its tries.
type call struct {
	client *Client
	op     string
	url    string
	// header makes the headers of the next try.
	header func() http.Header
	// progress reports whether something was won since it was last asked.
	progress func() bool

	fails int // tries since the last progress
	tries int
}

// do sends a request and hands a reply, of whatever status, to handle. A try
// whose error is worth it, handle's included, is repeated.
func (c *Client) do(ctx context.Context, op, method, rawURL string, header func() http.Header, progress func() bool, handle func(*http.Response) error) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("%s: %s is no URL: %w", c.c.Name, Redact(rawURL), scrub(err))
	}
	u.User = nil // whoever wrote the link does not choose who we are
	if err := c.allowed(u, ""); err != nil {
		return err
	}
	k := &call{client: c, op: op, url: rawURL, header: header, progress: progress}
	req, err := retryablehttp.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return k.wrap(ctx, err)
	}
	req.Header = header()
	req.SetResponseHandler(func(resp *http.Response) error {
		err := handle(resp)
		_ = resp.Body.Close() // it was read as far as it is wanted
		return err
	})
	// The reply that comes back was handled and closed.
	if _, err := k.retrying(c.http).Do(req); err != nil { //nolint:bodyclose // closed by the handler, in each case
		return k.wrap(ctx, err)
	}
	return nil
}

// retrying is go-retryablehttp with the rules of this call. It counts tries
// itself, since progress starts the count anew.
func (k *call) retrying(h *http.Client) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: h,
		Logger:     nil, // its lines would show URLs
		RetryMax:   math.MaxInt32,
		CheckRetry: k.check,
		Backoff:    k.backoff,
		PrepareRetry: func(req *http.Request) error {
			if k.header != nil {
				req.Header = k.header()
			}
			return nil
		},
		ErrorHandler: func(resp *http.Response, err error, _ int) (*http.Response, error) {
			if resp != nil {
				_ = resp.Body.Close() // the try has failed already
			}
			return nil, err
		},
	}
}

// check is asked after each reply or failure, and once more after the reply
// was handled. A status that is not tried again is left to the handler.
func (k *call) check(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err == nil && (!retryStatus(resp.StatusCode) || k.client.tooLong(resp) > 0) {
		return false, nil
	}
	if err != nil && !retryable(err) {
		return false, err
	}
	if k.progress != nil && k.progress() {
		k.fails = 0
	}
	k.tries++
	if k.fails++; k.fails > k.client.c.MaxRetries {
		return false, err
	}
	why := k.why(resp, err)
	k.client.log.WarnContext(ctx, "request is tried again", slogSource(k.client), slogURL(k.url), slogWhy(why))
	k.client.event(k.url, 0, Redact(k.url)+": "+why)
	return true, nil
}

// why tells the operator what made another try necessary.
func (k *call) why(resp *http.Response, err error) string {
	var why string
	switch cut, ok := errors.AsType[*cutError](err); {
	case ok && cut.note != "":
		return cut.note
	case err != nil:
		why = scrub(err).Error()
	case resp != nil:
		why = statusText(resp.StatusCode)
	}
	return fmt.Sprintf("%s; retry %d of %d", why, k.fails, k.client.c.MaxRetries)
}

// backoff is the pause before the next try: what the server asks for, within
// bounds, or else twice the last, of which half is chance.
func (k *call) backoff(_, _ time.Duration, _ int, resp *http.Response) time.Duration {
	c := k.client
	d := min(maxWait, c.c.RetryWait<<min(k.fails-1, 10))
	d = d/2 + rand.N(d/2+1) //nolint:gosec // jitter, no secret
	if resp != nil && retryStatus(resp.StatusCode) {
		most := maxRetryAfter
		if c.c.MaxWait > 0 {
			most = c.c.MaxWait
		}
		if asked, ok := c.asked(resp, most); ok {
			d = max(asked, min(d, c.c.RetryWait)) // "0" and dates gone by are no licence to hammer
		}
	}
	return c.pause(d)
}

// tooLong is what a reply asks us to wait, where that is more than the
// configuration allows.
func (c *Client) tooLong(resp *http.Response) time.Duration {
	if c.c.MaxWait == 0 || !retryStatus(resp.StatusCode) {
		return 0
	}
	asked, ok := c.asked(resp, maxAsked)
	if !ok || asked <= c.c.MaxWait {
		return 0
	}
	return asked
}

// asked is how long a reply asks us to wait, by Retry-After or, where there is
// none, by the RateLimit header of draft-ietf-httpapi-ratelimit-headers: a
// quota that is used up, and the seconds until it is filled again.
func (c *Client) asked(resp *http.Response, most time.Duration) (time.Duration, bool) {
	if v := resp.Header.Get("Retry-After"); v != "" {
		return retryAfterWithin(v, c.now(), most)
	}
	if resp.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	for limit := range strings.SplitSeq(resp.Header.Get("RateLimit"), ",") {
		left, reset := "", ""
		for field := range strings.SplitSeq(limit, ";") {
			switch key, value, _ := strings.Cut(strings.TrimSpace(field), "="); key {
			case "r":
				left = value
			case "t":
				reset = value
			}
		}
		if left == "0" && reset != "" && strings.Trim(reset, "0123456789") == "" {
			return retryAfterWithin(reset, c.now(), most)
		}
	}
	return 0, false
}

// maxAsked bounds what is believed of a Retry-After, so that it can be added
// to a date.
const maxAsked = 7 * 24 * time.Hour

// retryAfter reads both forms, seconds and date, and bounds the answer.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	return retryAfterWithin(v, now, maxRetryAfter)
}

func retryAfterWithin(v string, now time.Time, most time.Duration) (time.Duration, bool) {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0, false
	}
	if strings.Trim(v, "0123456789") == "" {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > int64(most/time.Second) {
			return most, true // beyond the bound, or beyond 64 bits
		}
		return time.Duration(s) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(most, max(0, at.Sub(now))), true
}

// wrap names the request in an error, without what must not be seen.
func (k *call) wrap(ctx context.Context, err error) error {
	name, where := k.client.c.Name, Redact(k.url)
	if h, ok := errors.AsType[*HostError](err); ok {
		return h
	}
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r
	}
	if l, ok := errors.AsType[*localError](err); ok {
		return fmt.Errorf("%s: %s %s: %w", name, k.op, where, l.err)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Tries = k.tries
		return e
	}
	if cerr := ctx.Err(); cerr != nil {
		return fmt.Errorf("%s: %s %s: %w", name, k.op, where, cerr)
	}
	return &Error{Source: name, Op: k.op, URL: where, Tries: k.tries, Err: scrub(err)}
}

// statusError is a reply that is not wanted.
func (c *Client) statusError(op string, resp *http.Response) error {
	drain(resp.Body)
	e := &Error{Source: c.c.Name, Op: op, URL: Redact(resp.Request.URL.String()), Status: resp.StatusCode, Header: resp.Header}
	if asked := c.tooLong(resp); asked > 0 {
		e.RetryAfter = asked
	}
	return e
}

// A roundTripper repeats what may be repeated without being noticed.
type roundTripper struct {
	client *Client
	http   *http.Client
}

// RoundTrip sends a request of another library.
func (r *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	safe := req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == ""
	if !safe || req.Body != nil && req.Body != http.NoBody {
		return r.http.Transport.RoundTrip(req)
	}
	again, err := retryablehttp.FromRequest(req.Clone(req.Context()))
	if err != nil {
		return nil, err
	}
	k := &call{client: r.client, op: "request", url: req.URL.String()}
	resp, err := k.retrying(r.http).Do(again)
	if err != nil {
		return nil, scrub(err)
	}
	return resp, nil
}
