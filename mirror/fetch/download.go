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
	// minProgress is what a try must win for the count of tries to start
	// anew: a server that cuts each reply after a few bytes is given up.
	minProgress = 64 << 10
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
	d := &download{c: c, url: rawURL, p: p, resumed: p.Size() > 0}
	defer d.flush()
	d.advance()
	for again := false; ; again = true {
		if err := d.fill(ctx); err != nil {
			return err
		}
		failpoint.Here("fetch.complete")
		err := p.Commit()
		if err == nil {
			failpoint.Here("fetch.committed")
			return nil
		}
		if !errors.Is(err, artifact.ErrIntegrity) || !d.resumed || again {
			return fmt.Errorf("%s: %s: %w", c.c.Name, Redact(rawURL), err)
		}
		// What lay here may be of another file than what came now.
		const note = "the resumed file is wrong; fetching it whole"
		c.log.WarnContext(ctx, note, slogSource(c), slogURL(rawURL))
		c.event(rawURL, 0, Redact(rawURL)+": "+note)
		if err := p.Reset(); err != nil {
			return fmt.Errorf("%s: %w", c.c.Name, err)
		}
		d.resumed, d.whole, d.best = false, true, 0
	}
}

// A download is the state of one call.
type download struct {
	c       *Client
	url     string
	p       Partial
	resumed bool // bytes of more than one reply
	whole   bool // no more ranges: they made things worse
	best    int64
	seen    int64 // bytes reported, or pending
	pending int64
	passed  int // quarters that were reported as fail points
}

// fill brings p to its total.
func (d *download) fill(ctx context.Context) error {
	if d.p.Size() > d.p.Total() {
		if err := d.p.Reset(); err != nil {
			return fmt.Errorf("%s: %w", d.c.c.Name, err)
		}
	}
	if d.p.Size() == d.p.Total() {
		return nil // empty, or a killed run had received it all
	}
	d.best = d.p.Size()
	return d.c.do(ctx, "download", http.MethodGet, d.url, d.header, d.progress, d.receive)
}

// header asks for what is missing.
func (d *download) header() http.Header {
	h := http.Header{"Accept-Encoding": {"identity"}}
	if offset := d.p.Size(); offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		// Without a validator the range is asked for all the same: the digest
		// of the whole decides.
		if v := d.p.Validator(); v != "" {
			h.Set("If-Range", v)
		}
	}
	return h
}

// progress compares with the best ever, so that starting over is none.
func (d *download) progress() bool {
	if d.p.Size() < d.best+minProgress {
		return false
	}
	d.best = d.p.Size()
	return true
}

// receive handles one reply.
func (d *download) receive(resp *http.Response) error {
	offset := d.p.Size()
	switch {
	case resp.StatusCode == http.StatusOK:
		if err := d.start(resp); err != nil {
			return err
		}
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		if err := d.join(resp, offset); err != nil {
			return err
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		drain(resp.Body)
		return d.restart("the server has no such range")
	default:
		return d.c.statusError("download", resp)
	}
	err := d.copy(resp.Body)
	if d.whole && isA[*cutError](err) {
		return errors.Join(err, d.reset())
	}
	return err
}

// start begins with a reply that holds the whole file.
func (d *download) start(resp *http.Response) error {
	if n := resp.ContentLength; n >= 0 && n != d.p.Total() {
		return d.wrongSize(n)
	}
	if d.p.Size() > 0 { // the server ignores ranges, or the file is another
		if err := d.reset(); err != nil {
			return err
		}
	}
	if d.whole {
		return nil // a validator is of no use
	}
	if err := d.p.SetValidator(validator(resp.Header)); err != nil {
		return &localError{err}
	}
	return nil
}

// join checks that a reply goes on where the file stands, and is of it.
func (d *download) join(resp *http.Response, offset int64) error {
	start, total, ok := contentRange(resp.Header.Get("Content-Range"))
	switch tag := resp.Header.Get("ETag"); {
	case !ok:
		return d.restart("the server does not say which range it sends")
	case total >= 0 && total != d.p.Total():
		return d.wrongSize(total)
	case start != offset:
		return d.restart("the server sends another range than the one asked for")
	case strong(tag) && strong(d.p.Validator()) && tag != d.p.Validator():
		return d.restart("the server sends a range of a newer file")
	}
	d.resumed = true
	return nil
}

// restart forgets what is there; the next tries ask for the whole.
func (d *download) restart(why string) error {
	d.whole = true
	if err := d.reset(); err != nil {
		return err
	}
	return &cutError{err: errors.New(why), note: why + "; starting over"}
}

func (d *download) reset() error {
	d.resumed = false
	if err := d.p.Reset(); err != nil {
		return &localError{err}
	}
	return nil
}

// wrongSize refuses a file that has n bytes; -1 stands for too many.
func (d *download) wrongSize(n int64) error {
	r := wrongSize(d.c, d.url, d.p.Total(), n)
	if err := d.p.Reset(); err != nil {
		return &localError{errors.Join(r, err)}
	}
	return r
}

func wrongSize(c *Client, rawURL string, want, n int64) *artifact.Refusal {
	r := &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "FETCH-SIZE", Subject: c.c.Name + ": " + Redact(rawURL),
		Reason: "more bytes than the index says", Want: strconv.FormatInt(want, 10), Got: "more",
	}
	if n >= 0 {
		r.Got = strconv.FormatInt(n, 10)
	}
	if n >= 0 && n < want {
		r.Reason = "fewer bytes than the index says"
	}
	return r
}

// copy appends the body and bounds it.
func (d *download) copy(body io.Reader) error {
	buf, release := d.c.pool.buffer()
	defer release()
	for {
		left := d.p.Total() - d.p.Size()
		n, err := body.Read(buf[:min(int64(len(buf)), max(1, d.toQuarter()))])
		if int64(n) > left {
			return d.wrongSize(-1)
		}
		if n > 0 {
			if _, err := d.p.Write(buf[:n]); err != nil {
				return &localError{err}
			}
			d.advance()
		}
		switch {
		case err != nil && d.p.Size() == d.p.Total():
			return nil // all is here; the digest says whether it is right
		case errors.Is(err, io.EOF):
			return d.cut(io.ErrUnexpectedEOF)
		case err != nil:
			return d.cut(err)
		}
	}
}

// cut says where a reply ended.
func (d *download) cut(err error) error {
	at := fmt.Sprintf("%d of %d bytes", d.p.Size(), d.p.Total())
	next := "resuming"
	if d.whole {
		next = "starting over"
	}
	return &cutError{err: fmt.Errorf("%s: %w", at, err), note: "cut after " + at + "; " + next}
}

// toQuarter is how many bytes are missing to the next quarter of the file:
// writes end there, so that a fail point finds just so much.
func (d *download) toQuarter() int64 {
	total, size := d.p.Total(), d.p.Size()
	for k := int64(1); k < 4; k++ {
		if mark := total/4*k + total%4*k/4; mark > size {
			return mark - size
		}
	}
	return total - size
}

// advance reports what is new, and passes the fail points of each quarter
// once. A restart reports nothing until it is beyond what was reported.
func (d *download) advance() {
	size := d.p.Size()
	if size > d.seen {
		d.pending += size - d.seen
		d.seen = size
	}
	if d.pending >= eventEvery {
		d.flush()
	}
	total := d.p.Total()
	for d.passed < 3 && total > 0 && size >= total/4*int64(d.passed+1)+total%4*int64(d.passed+1)/4 {
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

// flush reports the pending bytes.
func (d *download) flush() {
	if d.pending > 0 {
		d.c.event(d.url, d.pending, "")
		d.pending = 0
	}
}

// validator is what If-Range may be sent: a strong ETag, else the date.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); strong(tag) {
		return tag
	}
	if date := h.Get("Last-Modified"); date != "" {
		if _, err := http.ParseTime(date); err == nil {
			return date
		}
	}
	return ""
}

// strong tells a strong ETag from a weak one, and from a date.
func strong(tag string) bool {
	return len(tag) >= 2 && strings.HasPrefix(tag, `"`) && strings.HasSuffix(tag, `"`)
}

// contentRange reads "bytes 5-9/10"; total is -1 for "*".
func contentRange(v string) (start, total int64, ok bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
	span, size, both := strings.Cut(rest, "/")
	from, to, dash := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") || !both || !dash {
		return 0, 0, false
	}
	start, ok1 := digits(from)
	end, ok2 := digits(to)
	total, ok3 := int64(-1), true
	if size != "*" {
		total, ok3 = digits(size)
	}
	if !ok1 || !ok2 || !ok3 || end < start || total >= 0 && end >= total {
		return 0, 0, false
	}
	return start, total, true
}

// digits reads a plain number: no sign, no space, no more than 63 bits.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
