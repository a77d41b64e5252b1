package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/store"
)

// Error codes of the distribution specification.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeUploadInvalid       = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooMany             = "TOOMANYREQUESTS"
	// Of Docker's registry, which the specification grew from.
	codeUnknown    = "UNKNOWN"
	codePageNumber = "PAGINATION_NUMBER_INVALID"
)

// A fault is an answer that says no.
type fault struct {
	status  int
	code    string
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

// asFault makes an answer of any error.
func asFault(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if _, ok := errors.AsType[*store.SpaceError](err); ok || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &fault{status: http.StatusInsufficientStorage, code: codeUnknown, message: "no space is left on this server", err: err}
	}
	return &fault{status: http.StatusInternalServerError, code: codeUnknown, message: "this server could not do it; its log says why", err: err}
}

// fail answers with err, in the form of the specification.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := asFault(err)
	if f.status >= http.StatusInternalServerError {
		h.log.ErrorContext(r.Context(), "request failed", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, merr := json.Marshal(struct {
		Errors []entry `json:"errors"`
	}{[]entry{{f.code, f.message}}})
	if merr != nil { // two strings: cannot happen
		body = nil
	}
	head := w.Header()
	// What a success had announced is not true of this answer.
	for _, key := range []string{"Etag", "Cache-Control", "Docker-Content-Digest", "Location"} {
		head.Del(key)
	}
	for key, values := range f.header {
		head[key] = values
	}
	head.Set("Content-Type", "application/json")
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(body); err != nil {
		h.log.DebugContext(r.Context(), "client went away", slog.Any("error", err))
	}
}

// absent reports whether err says that something is not there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// clip shortens outside text for an answer.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
