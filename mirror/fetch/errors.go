package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// An Error is a request that did not give what was asked for. It matches
// artifact.ErrUnavailable.
type Error struct {
	Source string // "pypi/main"
	Op     string // "get", "head", "download"
	URL    string // redacted
	Status int    // 0 where there was no reply
	Tries  int
	// RetryAfter is what the server asks to wait, where that is more than
	// Config.MaxWait; 0 otherwise.
	RetryAfter time.Duration
	// Header are the reply's, for protocols that say there what is wrong. They
	// are from outside and enter no message by themselves.
	Header http.Header
	Err    error // the cause, where there was no reply or not all of it
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Source != "" {
		b.WriteString(e.Source + ": ")
	}
	b.WriteString(e.Op + " " + e.URL + ": ")
	if e.Tries > 1 {
		fmt.Fprintf(&b, "%d tries, the last: ", e.Tries)
	}
	if e.Status != 0 {
		b.WriteString(statusText(e.Status))
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, "; the server asks to wait %s", e.RetryAfter)
	}
	if e.Err != nil {
		if e.Status != 0 {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, artifact.ErrUnavailable) match.
func (e *Error) Is(target error) bool { return target == artifact.ErrUnavailable }

// Temporary reports whether another try, later, may succeed.
func (e *Error) Temporary() bool {
	if e.Status != 0 {
		return retryStatus(e.Status)
	}
	return e.Err == nil || retryable(e.Err)
}

// IsNotFound reports whether the upstream said that there is no such thing.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

func statusText(code int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
}

// Redact removes userinfo, query and fragment from a URL.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(a URL that cannot be read)"
	}
	if u.Opaque != "" { // "mailto:", or a URL without its slashes
		return u.Scheme + ":(not shown)"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}

// aURL finds URLs in the text of an error.
var aURL = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]*`)

// scrub takes out of an error what must not be seen: net/http and net/url put
// the whole URL into theirs, which may hold a password or a signed query.
func scrub(err error) error {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok || u.Err == nil {
			break
		}
		err = u.Err
	}
	text := err.Error()
	clean := aURL.ReplaceAllStringFunc(text, Redact)
	if strings.Contains(text, "Location header") {
		clean = "the server's redirect cannot be read" // it quotes the header, which may be relative
	}
	if clean == text {
		return err
	}
	return &scrubbed{text: clean, err: err}
}

// A scrubbed error has another text than its cause, and hides it but for
// errors.Is.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string        { return e.text }
func (e *scrubbed) Is(target error) bool { return errors.Is(e.err, target) }
