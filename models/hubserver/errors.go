package hubserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// maxMessage bounds a text in a header; proxies take 4 KiB a header.
	maxMessage = 500
	// maxClip bounds what of a request enters a text.
	maxClip = 100
)

// A fault is an answer that says no.
type fault struct {
	status  int
	code    string // of package hub; clients raise an error for each
	message string
	header  http.Header // more headers
	err     error       // for the log of a server error
}

func (f *fault) Error() string {
	if f.err != nil {
		return f.message + ": " + f.err.Error()
	}
	return f.message
}

func (f *fault) Unwrap() error { return f.err }

// with adds a header.
func (f *fault) with(key, value string) *fault {
	if f.header == nil {
		f.header = make(http.Header)
	}
	f.header.Set(key, value)
	return f
}

func faultf(status int, code, format string, args ...any) *fault {
	return &fault{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// noPage answers an address that is none of the hub's.
func noPage() *fault {
	return faultf(http.StatusNotFound, hub.CodeEntryNotFound, "this hub has no such address")
}

// fail answers with err in the form of the hub.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{status: http.StatusInternalServerError, message: "this server could not do it; its log says why", err: err}
	}
	level := slog.LevelDebug
	if f.status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	h.log.LogAttrs(r.Context(), level, "request refused", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", f.status), slog.Any("error", err))
	head := w.Header()
	head.Set("Cache-Control", notAtAll)
	for key, values := range f.header {
		head[key] = values
	}
	if f.code != "" {
		head.Set(hub.HeaderErrorCode, f.code)
	}
	head.Set(hub.HeaderErrorText, printable(f.message))
	if f.status == http.StatusUnauthorized {
		head.Set("WWW-Authenticate", `Bearer realm="darkmirror"`)
	}
	if err := writeJSON(w, f.status, map[string]string{"error": f.message}); err != nil { // two strings: cannot happen
		h.log.ErrorContext(r.Context(), "write answer", slog.Any("error", err))
	}
}

// writeJSON answers with a document; the server drops it where only the head
// is asked for.
func writeJSON(w http.ResponseWriter, status int, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // it fails only if the client went away
	return nil
}

// printable is text as a header can hold it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxMessage)]
}

// clip shortens outside text for an answer.
func clip(s string) string {
	if len(s) > maxClip {
		return strings.ToValidUTF8(s[:maxClip], "") + "..."
	}
	return s
}
