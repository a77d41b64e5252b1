package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// userAgent is the one that all of darkmirror's requests have; the
	// library's own tells more about us than a store needs.
	userAgent = "darkmirror"
	// maxDocument bounds a reply that is no object: 1,000 names of a list,
	// each of 1,024 bytes percent-encoded, are 4 MiB.
	maxDocument = 16 << 20
	// maxPages bounds the replies of one list.
	maxPages = 4000
	// maxObeyed bounds what a store may make us wait.
	maxObeyed = 2 * time.Minute
)

var (
	errDocument = errors.New("the reply is longer than any of its kind may be")
	errPages    = errors.New("the list does not end")
)

// A call is what is known of the requests of one call of the library. It
// travels in the context, and is used by one goroutine.
type call struct {
	object bool // the reply is an object's bytes, which the caller bounds
	pages  int  // replies so far

	status int
	ranged bool          // the reply is a part of the object
	date   time.Time     // the store's clock
	at     time.Time     // ours, then
	after  time.Duration // how long it asks to wait
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// A wire is the transport below the library: it holds bounds that the library
// has not, and keeps what the library does not tell.
type wire struct{ next http.RoundTripper }

// RoundTrip sends one request.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	c, ok := req.Context().Value(callKey{}).(*call)
	if !ok {
		c = &call{}
	}
	if c.pages++; c.pages > maxPages {
		return nil, errPages
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", userAgent) // it is not signed
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	c.status, c.ranged = resp.StatusCode, resp.Header.Get("Content-Range") != ""
	c.at, c.after = time.Now(), 0
	if c.date, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		c.date = time.Time{}
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		c.after = min(time.Duration(min(s, 1<<20))*time.Second, maxObeyed)
	}
	if !c.object || resp.StatusCode >= 300 {
		resp.Body = &document{ReadCloser: resp.Body, left: maxDocument}
	}
	return resp, nil
}

// A document is a reply of bounded length.
type document struct {
	io.ReadCloser
	left int64
}

// Read fails beyond the bound.
func (d *document) Read(p []byte) (int, error) {
	if d.left <= 0 {
		// One byte tells a long reply from one that ends here.
		n, err := d.ReadCloser.Read(make([]byte, 1))
		if n > 0 {
			return 0, errDocument
		}
		return 0, err
	}
	n, err := d.ReadCloser.Read(p[:min(int64(len(p)), d.left)])
	d.left -= int64(n)
	return n, err
}

var errStalled = errors.New("the store takes no bytes any more")

// A piece is the body of one request: bytes of a file. It ends the request
// when nobody takes them for a time; the clock starts with the first.
type piece struct {
	r     *io.SectionReader
	stall time.Duration
	timer *time.Timer
}

func newPiece(f io.ReaderAt, offset, size int64, stall time.Duration, stop context.CancelCauseFunc) *piece {
	p := &piece{r: io.NewSectionReader(f, offset, size), stall: stall}
	p.timer = time.AfterFunc(stall, func() { stop(errStalled) })
	p.timer.Stop()
	return p
}

// Read reads; after the last byte the transport's own clock runs.
func (p *piece) Read(b []byte) (int, error) {
	p.timer.Reset(p.stall)
	n, err := p.r.Read(b)
	if err != nil {
		p.timer.Stop()
	}
	return n, err
}
