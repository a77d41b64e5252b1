package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A PartsPartial is a download's place on disk that is filled in several
// places at once; store.Parts is one. A part belongs to who has taken it.
type PartsPartial interface {
	Total() int64 // bytes that there shall be
	Size() int64  // bytes that are there
	Missing() int // parts that are not whole
	Take() (part int, ok bool)
	Return(part int)
	// Span is what a part lacks: from next up to end.
	Span(part int) (next, end int64)
	WritePart(part int, b []byte) error
	Reset() error
	// Commit checks length and digest. Where they are wrong the bytes are
	// gone and the error is an artifact.ErrIntegrity.
	Commit() error
}

// DownloadParts fetches a file into p through conns requests at once, and
// commits it. Each asks for what one part lacks, as often as its connection is
// cut while there is progress.
//
// Where the first reply comes from another address, by a redirect, the rest is
// asked for there; if that address stops answering, as signed ones do after a
// while, the first is asked again. A server without ranges sends the file in
// one piece. If the whole turns out wrong, it is fetched once more through new
// connections.
func (c *Client) DownloadParts(ctx context.Context, rawURL string, p PartsPartial, conns int) error {
	failpoint.Here("fetch.parts-started")
	d := &partsDownload{c: c, url: rawURL, p: p}
	defer d.flush()
	d.arrived()
	for again := false; ; again = true {
		if err := d.fill(ctx, conns); err != nil {
			return err
		}
		failpoint.Here("fetch.parts-complete")
		err := p.Commit()
		if err == nil {
			failpoint.Here("fetch.parts-committed")
			return nil
		}
		if !errors.Is(err, artifact.ErrIntegrity) || again {
			return fmt.Errorf("%s: %s: %w", c.c.Name, Redact(rawURL), err)
		}
		const note = "the file is wrong; fetching it anew"
		c.log.WarnContext(ctx, note, slogSource(c), slogURL(rawURL))
		c.event(rawURL, 0, Redact(rawURL)+": "+note)
		c.base.CloseIdleConnections()
		if err := d.reset(); err != nil {
			return err
		}
	}
}

// A partsDownload is the state of one call.
type partsDownload struct {
	c   *Client
	url string
	p   PartsPartial

	// first is held by who asks the first address before another is known.
	first sync.Mutex

	mu      sync.Mutex
	final   string // where the first reply came from; empty: not known
	seen    int64  // bytes reported, or pending
	pending int64
	half    bool // the fail point was passed
}

// fill brings p to its total.
func (d *partsDownload) fill(ctx context.Context, conns int) error {
	group, gctx := errgroup.WithContext(ctx)
	for range min(conns, d.p.Missing()) {
		group.Go(func() error { return d.work(gctx) })
	}
	err := group.Wait()
	if errors.Is(err, ErrNoRanges) {
		return d.whole(ctx)
	}
	return err
}

// work fetches part after part.
func (d *partsDownload) work(ctx context.Context) error {
	for {
		i, ok := d.p.Take()
		if !ok {
			return nil
		}
		err := d.part(ctx, i)
		d.p.Return(i)
		if err != nil {
			return err
		}
	}
}

// part fetches what one part lacks.
func (d *partsDownload) part(ctx context.Context, i int) error {
	for next, end := d.p.Span(i); next < end; next, end = d.p.Span(i) {
		if err := d.ask(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// ask sends one request for a part, with its tries.
func (d *partsDownload) ask(ctx context.Context, i int) error {
	address, known := d.address()
	if !known {
		// One asks; the others wait until it is answered.
		d.first.Lock()
		if address, known = d.address(); known {
			d.first.Unlock()
		}
	}
	unlock := sync.OnceFunc(func() {
		if !known {
			d.first.Unlock()
		}
	})
	defer unlock()
	best, _ := d.p.Span(i)
	progress := func() bool {
		next, end := d.p.Span(i)
		if next < best+minProgress && next < end {
			return false
		}
		best = next
		return true
	}
	err := d.c.do(ctx, "download", http.MethodGet, address, func() http.Header { return d.header(i) }, progress, func(resp *http.Response) error {
		if err := d.accept(i, resp, known); err != nil {
			return err
		}
		unlock()
		buf, release := d.c.pool.buffer() // not before: many wait for their turn
		defer release()
		return errors.Join(d.copy(i, resp, buf), d.end(resp, buf))
	})
	if known && isA[*Error](err) {
		d.forget(address)
		return nil // the next request goes to the first address
	}
	return err
}

// address is where to ask, and whether that is known to answer.
func (d *partsDownload) address() (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.final == "" {
		return d.url, false
	}
	return d.final, true
}

// forget goes back to the first address, unless another has been found
// meanwhile.
func (d *partsDownload) forget(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.final == address {
		d.final = ""
	}
}

// header asks for what a part lacks; for the whole of a file without a range.
func (d *partsDownload) header(i int) http.Header {
	h := http.Header{"Accept-Encoding": {"identity"}}
	if next, end := d.p.Span(i); next > 0 || end < d.p.Total() {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", next, end-1))
	}
	return h
}

// accept checks that a reply is what the part lacks, and remembers where it
// came from.
func (d *partsDownload) accept(i int, resp *http.Response, known bool) error {
	next, end := d.p.Span(i)
	total := d.p.Total()
	ranged := next > 0 || end < total
	switch {
	case resp.StatusCode == http.StatusOK && ranged:
		return &localError{ErrNoRanges}
	case resp.StatusCode == http.StatusOK:
		if n := resp.ContentLength; n >= 0 && n != total {
			return d.wrongSize(n)
		}
	case resp.StatusCode == http.StatusPartialContent && ranged:
		start, of, ok := contentRange(resp.Header.Get("Content-Range"))
		if ok && of >= 0 && of != total {
			return d.wrongSize(of)
		}
		if !ok || start != next {
			return &localError{ErrNoRanges}
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && ranged:
		drain(resp.Body)
		return d.wrongSize(next)
	default:
		return d.c.statusError("download", resp)
	}
	if !known {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.final = resp.Request.URL.String()
	}
	return nil
}

// copy appends as much of a reply to a part as it lacks.
func (d *partsDownload) copy(i int, resp *http.Response, buf []byte) error {
	for next, end := d.p.Span(i); next < end; next, end = d.p.Span(i) {
		n, err := io.ReadFull(resp.Body, buf[:min(int64(len(buf)), end-next)])
		if n > 0 {
			if err := d.p.WritePart(i, buf[:n]); err != nil {
				return &localError{err}
			}
			d.arrived()
		}
		if err != nil {
			return &cutError{err: err, note: fmt.Sprintf("cut after %d of %d bytes; going on", d.p.Size(), d.p.Total())}
		}
	}
	return nil
}

// end reads the end of a reply that has brought all, for the connection's
// sake. What is longer than it said is not the file.
func (d *partsDownload) end(resp *http.Response, buf []byte) error {
	n, _ := resp.Body.Read(buf[:1]) // its error no longer matters: all is here
	if n > 0 && resp.StatusCode == http.StatusOK {
		return d.wrongSize(-1)
	}
	return nil
}

func (d *partsDownload) wrongSize(n int64) error {
	return wrongSize(d.c, d.url, d.p.Total(), n)
}

// whole fetches the file in one piece: the server has no ranges. What is cut
// begins anew.
func (d *partsDownload) whole(ctx context.Context) error {
	d.c.log.WarnContext(ctx, "no ranges; fetching in one piece", slogSource(d.c), slogURL(d.url))
	buf, release := d.c.pool.buffer()
	defer release()
	header := func() http.Header { return http.Header{"Accept-Encoding": {"identity"}} }
	return d.c.do(ctx, "download", http.MethodGet, d.url, header, nil, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return d.c.statusError("download", resp)
		}
		if n := resp.ContentLength; n >= 0 && n != d.p.Total() {
			return d.wrongSize(n)
		}
		if err := d.reset(); err != nil {
			return &localError{err}
		}
		for {
			i, ok := d.p.Take() // the first that lacks something
			if !ok {
				return d.end(resp, buf)
			}
			err := d.copy(i, resp, buf)
			d.p.Return(i)
			if err != nil {
				return err
			}
		}
	})
}

func (d *partsDownload) reset() error {
	d.mu.Lock()
	d.final = ""
	d.mu.Unlock()
	if err := d.p.Reset(); err != nil {
		return fmt.Errorf("%s: %w", d.c.c.Name, err)
	}
	return nil
}

// arrived reports what is new, now and then, and passes the fail point in the
// middle of the file. What comes a second time is reported once.
func (d *partsDownload) arrived() {
	size := d.p.Size()
	d.mu.Lock()
	if size > d.seen {
		d.pending += size - d.seen
		d.seen = size
	}
	report := d.pending >= eventEvery
	half := !d.half && size >= d.p.Total()/2
	d.half = d.half || half
	d.mu.Unlock()
	if half {
		failpoint.Here("fetch.parts-half")
	}
	if report {
		d.flush()
	}
}

// flush reports the pending bytes.
func (d *partsDownload) flush() {
	d.mu.Lock()
	n := d.pending
	d.pending = 0
	d.mu.Unlock()
	if n > 0 {
		d.c.event(d.url, n, "")
	}
}
