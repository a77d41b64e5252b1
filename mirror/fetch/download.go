package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// copyBuffer is what one download holds.
	copyBuffer = 256 << 10
	// eventEvery is how many bytes lie between two progress events.
	eventEvery = 256 << 10
)

// A Partial is a download's place on disk. It keeps what was received over
// restarts and checks the whole when it is committed; store.Partial is one.
type Partial interface {
	io.Writer
	Size() int64  // bytes that are there
	Total() int64 // bytes that there shall be
	Reset() error
	// Validator is what SetValidator kept: the ETag or the date of the bytes
	// that are there.
	Validator() string
	SetValidator(v string) error
	// Commit checks length and digest. Where they are wrong the bytes are
	// gone and the error is an artifact.ErrIntegrity.
	Commit() error
}

// Download fetches a file into p and commits it. It goes on where p stands,
// with Range and If-Range, as often as the connection is cut while there is
// progress. If a file that was put together from several replies turns out
// wrong, it is fetched once more from its beginning.
func (c *Client) Download(ctx context.Context, rawURL string, p Partial) error {
	failpoint.Here("fetch.started")
	d := &download{c: c, url: rawURL, p: p, buf: make([]byte, copyBuffer), resumed: p.Size() > 0}
	for {
		if err := d.fill(ctx); err != nil {
			return err
		}
		failpoint.Here("fetch.complete")
		err := p.Commit()
		if err == nil {
			failpoint.Here("fetch.committed")
			return nil
		}
		if !errors.Is(err, artifact.ErrIntegrity) || !d.resumed || d.again {
			return err
		}
		// What lay here may be of another file than what came now.
		c.note(rawURL, "the resumed file is wrong; fetching it whole")
		if err := p.Reset(); err != nil {
			return err
		}
		d.again, d.resumed = true, false
	}
}

// A download is the state of one call.
type download struct {
	c       *Client
	url     string
	p       Partial
	buf     []byte
	resumed bool // bytes of more than one reply
	again   bool // this is the second whole try
	passed  int  // quarters that were reported as fail points
}

// fill brings p to its total.
func (d *download) fill(ctx context.Context) error {
	if d.p.Size() > d.p.Total() {
		if err := d.p.Reset(); err != nil {
			return err
		}
	}
	idle := 0 // tries without progress
	for first := true; first || d.p.Size() < d.p.Total(); first = false {
		if d.p.Size() == d.p.Total() && d.p.Total() > 0 {
			return nil // a killed run had received it all
		}
		before := d.p.Size()
		err := d.once(ctx)
		if err == nil {
			continue
		}
		if !isCut(err) {
			return d.c.wrap("download", d.url, 0, err)
		}
		if d.p.Size() > before {
			idle, d.resumed = 0, true
		} else if idle++; idle > d.c.c.MaxRetries {
			return d.c.wrap("download", d.url, 0, err)
		}
		d.c.note(d.url, fmt.Sprintf("cut after %d of %d bytes; resuming", d.p.Size(), d.p.Total()))
		if err := d.c.pause(ctx, idle); err != nil {
			return err
		}
	}
	return nil
}

// once sends one request and copies its body.
func (d *download) once(ctx context.Context) (err error) {
	offset := d.p.Size()
	h := http.Header{"Accept-Encoding": {"identity"}}
	if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		if v := d.p.Validator(); v != "" {
			h.Set("If-Range", v)
		}
	}
	resp, err := d.c.do(ctx, http.MethodGet, d.url, h)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	switch {
	case resp.StatusCode == http.StatusOK:
		if offset > 0 { // the server ignores ranges, or the file is another
			if err := d.p.Reset(); err != nil {
				return err
			}
			d.resumed = false
		}
		if err := d.p.SetValidator(validator(resp.Header)); err != nil {
			return err
		}
		return d.copy(resp.Body)
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		start, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || start != offset || total >= 0 && total != d.p.Total() {
			return d.restart("the server answered another range than the one asked for")
		}
		d.resumed = true
		return d.copy(resp.Body)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return d.restart("the server has fewer bytes than are here")
	}
	drain(resp.Body)
	return &Error{Op: "download", URL: Redact(d.url), Status: resp.StatusCode}
}

// restart forgets what is there; the next try asks for the whole.
func (d *download) restart(why string) error {
	d.resumed = false
	return errors.Join(&cutError{errors.New(why)}, d.p.Reset())
}

// copy appends the body and bounds it.
func (d *download) copy(body io.Reader) error {
	reported := int64(0)
	defer func() { d.c.progress(reported) }()
	for {
		n, err := body.Read(d.buf)
		if int64(n) > d.p.Total()-d.p.Size() {
			return errors.Join(&artifact.Refusal{
				Class: artifact.ErrIntegrity, Code: "FETCH-SIZE", Subject: d.c.c.Name + ": " + Redact(d.url),
				Reason: "more bytes than the index says", Want: strconv.FormatInt(d.p.Total(), 10), Got: "more",
			}, d.p.Reset())
		}
		if n > 0 {
			if _, err := d.p.Write(d.buf[:n]); err != nil {
				return err
			}
			if reported += int64(n); reported >= eventEvery {
				d.c.progress(reported)
				reported = 0
			}
			d.mark()
		}
		if errors.Is(err, io.EOF) {
			if d.p.Size() < d.p.Total() {
				return &cutError{io.ErrUnexpectedEOF}
			}
			return nil
		}
		if err != nil {
			return &cutError{err}
		}
	}
}

// mark passes the fail points of each quarter once.
func (d *download) mark() {
	quarter := int(4 * d.p.Size() / max(1, d.p.Total()))
	for d.passed < min(quarter, 3) {
		d.passed++
		switch d.passed {
		case 1:
			failpoint.Here("fetch.quarter")
		case 2:
			failpoint.Here("fetch.half")
		case 3:
			failpoint.Here("fetch.threequarters")
		}
	}
}

// validator is what If-Range may be sent: a strong ETag, else the date.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) && strings.HasSuffix(tag, `"`) && len(tag) > 2 {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes 5-9/10"; total is -1 for "*".
func contentRange(v string) (start, total int64, ok bool) {
	rest, found := strings.CutPrefix(v, "bytes ")
	span, size, both := strings.Cut(rest, "/")
	from, to, dash := strings.Cut(span, "-")
	if !found || !both || !dash {
		return 0, 0, false
	}
	start, err1 := digits(from)
	end, err2 := digits(to)
	total = -1
	var err3 error
	if size != "*" {
		total, err3 = digits(size)
	}
	if errors.Join(err1, err2, err3) != nil || end < start || total >= 0 && end >= total {
		return 0, 0, false
	}
	return start, total, true
}

// digits reads a plain number: no sign, no space.
func digits(s string) (int64, error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}
