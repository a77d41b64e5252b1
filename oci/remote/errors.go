package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// Codes of refusals.
const (
	CodeDigest    = "OCI-DIGEST"     // not the bytes that were asked for or promised
	CodeSize      = "OCI-SIZE"       // another length than the descriptor says
	CodeRateLimit = "OCI-RATE-LIMIT" // the registry wants us to wait
	CodeAuth      = "OCI-AUTH"       // the login is wrong, missing, or allows too little
	CodeUpload    = "OCI-UPLOAD"     // a blob could not be sent, however often
	CodeLink      = "OCI-LINK"       // the next page of a list is elsewhere
)

const (
	// maxErrorBody bounds what is read of an error; registries send one line.
	maxErrorBody = 64 << 10
	// maxMessage bounds what is shown of it.
	maxMessage = 300
)

// An Error is a request that a registry did not answer as hoped. It matches
// artifact.ErrUnavailable.
type Error struct {
	Source   string // "oci/platform"
	Op       string // "get manifest"
	Ref      string // "library/nginx:1.27"; empty where it concerns the registry
	Registry string // host
	Status   int    // 0 where there was no reply
	// Code and Message are the registry's own; RequestID is its X-Request-Id.
	Code, Message, RequestID string
	RetryAfter               time.Duration // what the registry asks us to wait
	Err                      error         // the cause where there was no reply
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Source, e.Op)
	if e.Ref != "" {
		fmt.Fprintf(&b, " %s,", e.Ref)
	}
	fmt.Fprintf(&b, " registry %s", e.Registry)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %s", strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))))
	}
	for _, s := range []string{e.Code, e.Message} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, "; it asks to wait %s", e.RetryAfter)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, artifact.ErrUnavailable) match.
func (e *Error) Is(target error) bool { return target == artifact.ErrUnavailable }

// Temporary reports whether another try, later, may succeed.
func (e *Error) Temporary() bool {
	if e.Status == 0 {
		f, ok := errors.AsType[*fetch.Error](e.Err)
		return !ok || f.Temporary()
	}
	return busy(e.Status)
}

// IsNotFound reports whether the registry said that there is no such thing.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// busy tells replies that may be different soon.
func busy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// An ask is what a request is for, for its errors and its login.
type ask struct {
	op   string
	ref  string
	need need
}

// problem wraps a failure without a reply; what is typed already passes.
func (c *Client) problem(a ask, err error) error {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok || u.Err == nil {
			break
		}
		err = u.Err // its text holds the whole URL
	}
	if h, ok := errors.AsType[*fetch.HostError](err); ok {
		return h
	}
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r
	}
	e := &Error{Source: c.c.Name, Op: a.op, Ref: a.ref, Registry: c.host}
	if inner, ok := errors.AsType[*Error](err); ok {
		return inner
	}
	if f, ok := errors.AsType[*fetch.Error](err); ok && f.Status != 0 {
		e.Status, e.RetryAfter = f.Status, f.RetryAfter
		return c.classify(e)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %s %s: %w", c.c.Name, a.op, a.ref, clean(err))
	}
	e.Err = clean(err)
	return e
}

// failure makes an error of a reply that is not wanted, and closes it.
func (c *Client) failure(a ask, resp *http.Response) error {
	defer closeBody(resp)
	e := &Error{
		Source: c.c.Name, Op: a.op, Ref: a.ref, Registry: c.host, Status: resp.StatusCode,
		RequestID: plainText(resp.Header.Get("X-Request-Id"), 64),
	}
	if busy(resp.StatusCode) {
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err == nil {
		e.Code, e.Message = diagnosis(body)
		e.Message = c.auth.hide(e.Message)
		e.Code = c.auth.hide(e.Code)
	}
	e.RequestID = c.auth.hide(e.RequestID)
	return c.classify(e)
}

// diagnosis reads the first error of a registry's reply.
func diagnosis(body []byte) (code, message string) {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || len(doc.Errors) == 0 {
		return "", "" // a page of some proxy; the status says enough
	}
	return plainText(doc.Errors[0].Code, 64), plainText(doc.Errors[0].Message, maxMessage)
}

// classify gives the replies a code that scripts may match on.
func (c *Client) classify(e *Error) error {
	r := &artifact.Refusal{Class: artifact.ErrUnavailable, Subject: e.subject(), Err: e}
	switch e.Status {
	case http.StatusTooManyRequests:
		r.Code, r.Reason = CodeRateLimit, "the registry takes no more requests now"
		if e.RetryAfter > 0 {
			r.Reason += fmt.Sprintf("; it asks to wait %s", e.RetryAfter)
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		r.Code, r.Reason = CodeAuth, "the login does not allow it, or there is no such repository"
		if c.auth.login.anonymous() {
			r.Reason = "the registry wants a login, and none is configured for it"
		}
	default:
		return e
	}
	return r
}

// subject is what a refusal is about.
func (e *Error) subject() string {
	if e.Ref == "" {
		return e.Source + ": " + e.Registry
	}
	return e.Source + ": " + e.Registry + "/" + e.Ref
}

// refuse is an ErrIntegrity refusal of something of the registry.
func (c *Client) refuse(code, ref, reason, want, got string) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: code, Subject: c.c.Name + ": " + c.host + "/" + ref,
		Reason: reason, Want: want, Got: got,
	}
}

// plainText clips outside text and takes control bytes and URLs' queries out.
func plainText(s string, most int) string {
	s = aURL.ReplaceAllStringFunc(s, fetch.Redact)
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.TrimSpace(s)
}

// aURL finds URLs in text.
var aURL = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]*`)

// clean takes out of an error what must not be seen.
func clean(err error) error {
	text := err.Error()
	shown := aURL.ReplaceAllStringFunc(text, fetch.Redact)
	if strings.Contains(text, "Location header") {
		shown = "the server's redirect cannot be read" // it quotes the header
	}
	if shown == text {
		return err
	}
	return &cleaned{text: shown, err: err}
}

// A cleaned error has another text than its cause, and hides it but for
// errors.Is.
type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string        { return e.text }
func (e *cleaned) Is(target error) bool { return errors.Is(e.err, target) }

// closeBody ends a reply that was read as far as it is wanted.
func closeBody(resp *http.Response) {
	// What follows is bounded, and reading it keeps the connection.
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	_ = resp.Body.Close() // nothing of it is wanted
}

// errNoAPI is a reply of something that is no referrers API.
var errNoAPI = errors.New("no referrers API")

// noAPI tells replies of registries without the referrers API.
func noAPI(err error) bool {
	if errors.Is(err, errNoAPI) {
		return true
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	switch e.Status {
	case http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	}
	return false
}

// asError finds what a registry answered.
func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// passing tells failures that another try may not meet again.
func passing(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, artifact.ErrIntegrity) {
		return false
	}
	e, ok := asError(err)
	return ok && e.Temporary()
}
