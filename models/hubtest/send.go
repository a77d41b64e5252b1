package hubtest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// bodyFaults are those of the reply that has the bytes.
var bodyFaults = []faultKind{faultCorrupt, faultTruncate, faultCut, faultStall, faultNoRange, faultWrongRange, faultStatus}

// sendContent serves content with ranges, and with these faults. link is the
// signature by which it was asked for.
func (h *Hub) sendContent(w http.ResponseWriter, q *http.Request, c Content, faults []Fault, link string) {
	f, err := c.Open()
	if err != nil {
		fail(w, http.StatusInternalServerError, "", err.Error())
		return
	}
	defer func() { _ = f.Close() }() // it is only read
	body := io.ReadSeeker(f)
	for _, fault := range faults {
		switch fault.kind {
		case faultStatus:
			denied(w, fault.status, "InternalError", http.StatusText(fault.status))
			return
		case faultCorrupt:
			at := fault.n
			if at < 0 {
				at = c.Size() / 2
			}
			body = &flipReader{ReadSeeker: body, at: at}
		case faultTruncate:
			body = &shortReader{ReadSeeker: body, size: min(fault.n, c.Size())}
		case faultNoRange:
			q = q.Clone(q.Context())
			q.Header.Del("Range")
		case faultWrongRange:
			w = &shiftWriter{w}
		case faultCut:
			w = &cutWriter{ResponseWriter: w, take: upTo(fault.n), then: abort}
		case faultStall:
			w = &cutWriter{ResponseWriter: w, take: upTo(fault.n), then: func() { h.stall(q) }}
		case faultExpire:
			if h.spend(link, fault.n, 0) == 0 {
				denied(w, http.StatusForbidden, "AccessDenied", "Request has expired")
				return
			}
			w = &cutWriter{ResponseWriter: w, take: func(n int64) int64 { return min(n, h.spend(link, fault.n, n)) }, then: abort}
		}
	}
	http.ServeContent(w, q, "", time.Time{}, body)
}

// stall waits until the client or the hub goes.
func (h *Hub) stall(q *http.Request) {
	select {
	case <-q.Context().Done():
	case <-h.done:
	}
	panic(http.ErrAbortHandler)
}

// spend takes n bytes from those that a link still gives, all in all most, and
// returns how many it had left before.
func (h *Hub) spend(link string, most, n int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := max(0, most-h.spent[link])
	h.spent[link] += min(n, left)
	return left
}

func abort() { panic(http.ErrAbortHandler) }

// upTo gives out so many bytes.
func upTo(left int64) func(int64) int64 {
	return func(n int64) int64 {
		n = min(n, left)
		left -= n
		return n
	}
}

// A flipReader changes one byte.
type flipReader struct {
	io.ReadSeeker
	at, pos int64
}

// Read flips the byte if it is among those read.
func (r *flipReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeeker.Read(p)
	if i := r.at - r.pos; i >= 0 && i < int64(n) {
		p[i] ^= 0xff
	}
	r.pos += int64(n)
	return n, err
}

// Seek remembers the place.
func (r *flipReader) Seek(offset int64, whence int) (int64, error) {
	pos, err := r.ReadSeeker.Seek(offset, whence)
	r.pos = pos
	return pos, err
}

// A shortReader ends early.
type shortReader struct {
	io.ReadSeeker
	size, pos int64
}

// Read stops at the size.
func (r *shortReader) Read(p []byte) (int, error) {
	if r.pos >= r.size {
		return 0, io.EOF
	}
	n, err := r.ReadSeeker.Read(p[:min(int64(len(p)), r.size-r.pos)])
	r.pos += int64(n)
	return n, err
}

// Seek counts from the early end.
func (r *shortReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekEnd:
		offset += r.size
	case io.SeekCurrent:
		offset += r.pos
	}
	pos, err := r.ReadSeeker.Seek(offset, io.SeekStart)
	r.pos = pos
	return pos, err
}

// A shiftWriter names the wrong range.
type shiftWriter struct{ http.ResponseWriter }

// WriteHeader moves Content-Range by a byte.
func (w *shiftWriter) WriteHeader(status int) {
	var from, to int64
	value, size, _ := strings.Cut(w.Header().Get("Content-Range"), "/")
	if _, err := fmt.Sscanf(value, "bytes %d-%d", &from, &to); err == nil && status == http.StatusPartialContent {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/", from+1, to+1)+size)
	}
	w.ResponseWriter.WriteHeader(status)
}

// A cutWriter sends of a body what take gives it and then does something else.
type cutWriter struct {
	http.ResponseWriter
	take  func(int64) int64
	then  func()
	whole bool
}

// WriteHeader lets the body of an error pass.
func (w *cutWriter) WriteHeader(status int) {
	w.whole = status >= http.StatusBadRequest
	w.ResponseWriter.WriteHeader(status)
}

// Write ends in the middle where the order says so.
func (w *cutWriter) Write(p []byte) (int, error) {
	if w.whole {
		return w.ResponseWriter.Write(p)
	}
	n, err := w.ResponseWriter.Write(p[:w.take(int64(len(p)))])
	if err == nil && n < len(p) {
		// What was written before the cut shall arrive.
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the client may have gone
		w.then()
	}
	return n, err
}
