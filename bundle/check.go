package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxWarnings bounds what is said about uncovered bytes.
const maxWarnings = 100

// Check reads every volume once, from front to end, and compares segments,
// blobs, volumes and the bytes between segments. All bad volumes, segments
// and blobs are joined in the error; warnings are bytes that no signature
// covers and that an import never reads. Nothing is written.
func (r *Reader) Check(ctx context.Context, onEvent func(artifact.Event)) (warnings []string, err error) {
	if err := r.layout(); err != nil {
		return nil, err
	}
	c := &checker{
		r: r, event: onEvent, vol: sha256.New(), seg: sha256.New(), whole: sha256.New(),
		broken: make([]bool, len(r.vols)+1), sums: make([]*artifact.Digest, len(r.vols)+1),
	}
	if c.event == nil {
		c.event = func(artifact.Event) {}
	}
	var total int64
	for _, v := range r.index.Volumes {
		total += v.Size
	}
	c.event(artifact.Event{Stage: "verify", TotalBytes: total, TotalItems: len(r.m.Blobs)})
	err = runPipeline(ctx, 3, func(ctx context.Context, p pipeline, qs []queue) error {
		c.pool, c.volQ, c.segQ, c.wholeQ = p, qs[0], qs[1], qs[2]
		return c.feed(ctx)
	})
	if c.frame != nil {
		// The run ended early; the blob's goroutine ends with it.
		_ = c.frame.end(errors.New("stopped"))
	}
	if err != nil {
		return nil, err
	}
	warnings, err = c.result()
	beside, more := r.checkBeside(ctx)
	return append(warnings, beside...), errors.Join(err, more)
}

// A checker streams volumes past two hashers. As with [sealer], each group of
// fields belongs to one goroutine until the pipeline has ended.
type checker struct {
	r     *Reader
	event func(artifact.Event)

	// feeder
	pool      pipeline
	volQ      queue
	segQ      queue
	wholeQ    queue
	cur       int   // volume, from 1; 0 before the first
	pos       int64 // in it
	broken    []bool
	errs      []error
	uncovered []string
	large     []*largeBlob

	// hasher of volumes
	vol  hash.Hash
	sums []*artifact.Digest // nil where a volume was not read to its end

	// hasher of segments
	seg      hash.Hash
	buf      []byte // of a compressed segment until it is good
	frame    *frameCheck
	spoiled  bool // a segment of the current blob is bad or missing
	badSegs  []badSegment
	badBlobs []error

	// hasher of blobs that are more than one stored segment
	whole hash.Hash
}

// A largeBlob has a digest of its own beside those of its segments.
type largeBlob struct {
	want    artifact.Digest
	got     artifact.Digest // from the hasher of blobs
	spoiled bool            // from the hasher of segments
}

type badSegment struct {
	ref  segmentRef
	list []extent
	got  artifact.Digest
}

// feed walks the segments in manifest order, which is volume order.
func (c *checker) feed(ctx context.Context) error {
	n := 0
	for ref := range c.r.m.segments {
		b := &c.r.m.Blobs[ref.blob]
		list := c.r.index.Extents[n]
		whole := true
		for i, e := range list {
			part := 0
			if len(list) > 1 {
				part = i + 1
			}
			ok, err := c.extent(ctx, e, tarHeader(entryName(b.Digest, ref.n, part), e.Len), ref)
			if err != nil {
				return err
			}
			whole = whole && ok
		}
		if err := c.segQ.send(ctx, func() error { c.endSegment(ref, list, whole); return nil }); err != nil {
			return err
		}
		if ref.n == 0 || ref.n == len(b.Segments) {
			if err := c.sendEnd(ctx, b); err != nil {
				return err
			}
		}
		n++
	}
	return c.to(ctx, len(c.r.vols)+1)
}

// sendEnd ends a blob in both hashers.
func (c *checker) sendEnd(ctx context.Context, b *Blob) error {
	c.event(artifact.Event{Stage: "verify", Items: 1})
	l := &largeBlob{want: b.Digest}
	if err := c.segQ.send(ctx, func() error { c.endBlob(l); return nil }); err != nil {
		return err
	}
	if b.Enc != EncNone || len(b.Segments) == 0 {
		return nil
	}
	c.large = append(c.large, l)
	return c.wholeQ.send(ctx, func() error {
		c.whole.Sum(l.got[:0])
		c.whole.Reset()
		return nil
	})
}

// extent reads the bytes before an extent and the extent. It reports false
// where the volume cannot give them.
func (c *checker) extent(ctx context.Context, e extent, header [tarBlock]byte, ref segmentRef) (bool, error) {
	if err := c.to(ctx, int(e.Vol)); err != nil {
		return false, err
	}
	if err := c.gap(ctx, e.Off, header[:]); err != nil {
		return false, err
	}
	b := &c.r.m.Blobs[ref.blob]
	packed := b.Enc == EncZstd
	qs := []queue{c.volQ, c.segQ}
	steps := []func([]byte){c.addVolume, func(p []byte) {
		if packed {
			c.buf = append(c.buf, p...)
		}
		_, _ = c.seg.Write(p) // a hash does not fail
	}}
	if !packed && ref.n > 0 {
		qs = append(qs, c.wholeQ)
		steps = append(steps, func(p []byte) { _, _ = c.whole.Write(p) })
	}
	err := c.read(ctx, e.Off+e.Len, qs, steps, nil)
	return err == nil && !c.broken[e.Vol], err
}

// addVolume runs in the hasher of volumes. A hash does not fail.
func (c *checker) addVolume(p []byte) { _, _ = c.vol.Write(p) }

// to ends the volumes before vol and begins vol.
func (c *checker) to(ctx context.Context, vol int) error {
	for c.cur < vol {
		if c.cur > 0 && !c.broken[c.cur] {
			if err := c.gap(ctx, c.r.index.Volumes[c.cur-1].Size, nil); err != nil {
				return err
			}
			n, sum := c.cur, new(artifact.Digest)
			err := c.volQ.send(ctx, func() error {
				c.vol.Sum(sum[:0])
				c.vol.Reset()
				c.sums[n] = sum
				return nil
			})
			if err != nil {
				return err
			}
		} else if c.cur > 0 {
			if err := c.volQ.send(ctx, func() error { c.vol.Reset(); return nil }); err != nil {
				return err
			}
		}
		c.cur++
		c.pos = 0
		if c.cur > len(c.r.vols) {
			return nil
		}
		st := c.r.bestStatus(c.cur)
		if err := st.Err(len(c.r.vols)); err != nil {
			c.broken[c.cur] = true
			c.errs = append(c.errs, err)
		}
	}
	return nil
}

// gap reads up to an offset what no segment covers and compares it with
// zeros and the one header that belongs there, if any.
func (c *checker) gap(ctx context.Context, to int64, header []byte) error {
	var from, last int64 = -1, 0
	at := c.pos
	start := to - int64(len(header))
	err := c.read(ctx, to, []queue{c.volQ}, []func([]byte){c.addVolume}, func(p []byte) {
		for i, got := range p {
			var want byte
			if at := at + int64(i); at >= start && len(header) > 0 {
				want = header[at-start]
			}
			if got != want {
				if from < 0 {
					from = at + int64(i)
				}
				last = at + int64(i)
			}
		}
		at += int64(len(p))
	})
	if from >= 0 && len(c.uncovered) < maxWarnings {
		c.uncovered = append(c.uncovered, fmt.Sprintf("%s: %s, bytes %d to %d belong to no segment and are not padding; they are never imported [%s]",
			c.r.m, c.r.index.Volumes[c.cur-1].Name, from, last, CodeUncovered))
	}
	return err
}

// read reads the current volume up to an offset and gives the bytes to look,
// here, and to each step in its queue. A volume that cannot be read is noted
// once and then passed over.
func (c *checker) read(ctx context.Context, to int64, qs []queue, steps []func([]byte), look func([]byte)) error {
	for c.pos < to && !c.broken[c.cur] {
		k, err := c.pool.get(ctx, int32(len(qs)), to-c.pos) //nolint:gosec // at most three
		if err != nil {
			return err
		}
		p := k.buf
		if err := c.r.readAt(c.cur, p, c.pos); err != nil {
			c.broken[c.cur] = true
			c.errs = append(c.errs, err)
			k.refs.Store(1) // no step will see it
			k.release()
			return nil
		}
		c.pos += int64(len(p))
		c.event(artifact.Event{Stage: "verify", Bytes: int64(len(p))})
		if look != nil {
			look(p)
		}
		for i, q := range qs {
			err := q.send(ctx, func() error {
				defer k.release()
				steps[i](p)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// endSegment runs in the hasher of segments.
func (c *checker) endSegment(ref segmentRef, list []extent, whole bool) {
	got := artifact.Digest(c.seg.Sum(nil))
	c.seg.Reset()
	buf := c.buf
	c.buf = c.buf[:0]
	switch {
	case !whole: // its volume was named already
		c.spoiled = true
	case got != ref.Digest:
		c.spoiled = true
		c.badSegs = append(c.badSegs, badSegment{ref, list, got})
	}
	b := &c.r.m.Blobs[ref.blob]
	if b.Enc != EncZstd || c.spoiled {
		return
	}
	if c.frame == nil {
		c.frame = newFrameCheck(c.r, b)
	}
	c.frame.write(buf)
}

// endBlob runs in the hasher of segments.
func (c *checker) endBlob(l *largeBlob) {
	l.spoiled = c.spoiled
	if c.frame != nil {
		var cause error
		if c.spoiled {
			cause = errors.New("a segment is bad") // and was noted
		}
		if err := c.frame.end(cause); err != nil && !c.spoiled {
			c.badBlobs = append(c.badBlobs, fmt.Errorf("%s: %w", c.r.m, err))
		}
	}
	c.frame, c.spoiled = nil, false
}

// result puts together what the goroutines found. A volume whose digest is
// wrong explains its bad segments: one error, not thousands.
func (c *checker) result() (warnings []string, err error) {
	warnings = c.uncovered
	bad := make(map[int][]badSegment)
	for vol, sum := range c.sums {
		if sum != nil && *sum != c.r.index.Volumes[vol-1].SHA256 {
			bad[vol] = nil
		}
	}
	var segErrs []error
	for _, s := range c.badSegs {
		explained := false
		for _, e := range s.list {
			v := int(e.Vol)
			if have, ok := bad[v]; ok {
				bad[v] = append(have, s)
				explained = true
			}
		}
		if !explained {
			segErrs = append(segErrs, c.r.segmentErr(&c.r.m.Blobs[s.ref.blob], s.ref, s.list, s.got))
		}
	}
	errs := c.errs
	for _, vol := range slices.Sorted(maps.Keys(bad)) {
		info := c.r.index.Volumes[vol-1]
		if len(bad[vol]) == 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %s: its digest is not the one of %s, but every segment in it is good [%s]", c.r.m, info.Name, volumesName, CodeUncovered))
			continue
		}
		first := bad[vol][0]
		e := c.r.volumeErr(vol, CodeVolume, fmt.Sprintf("corrupt, or of another bundle: %d of its segments are not what was signed, the first is segment %d of blob %s",
			len(bad[vol]), max(1, first.ref.n), c.r.m.Blobs[first.ref.blob].Digest), nil)
		e.Refusal.Want, e.Refusal.Got = first.ref.Digest.String(), first.got.String()
		errs = append(errs, e)
	}
	for _, l := range c.large {
		if !l.spoiled && l.got != l.want {
			c.badBlobs = append(c.badBlobs, fmt.Errorf("%s: %w", c.r.m, wrongBlob(l.want, l.got)))
		}
	}
	return warnings, errors.Join(slices.Concat(errs, segErrs, c.badBlobs)...)
}

// A frameCheck decompresses a blob beside the hasher, which hands it only
// segments that are good.
type frameCheck struct {
	w    *io.PipeWriter
	done chan error
}

func newFrameCheck(src *Reader, b *Blob) *frameCheck {
	r, w := io.Pipe()
	f := &frameCheck{w: w, done: make(chan error, 1)}
	go func() {
		dict, err := src.dictionary(b)
		if err == nil {
			err = readFrame(r, b, dict)
		}
		// A writer that is still there learns that nobody reads.
		_ = r.CloseWithError(io.ErrClosedPipe)
		f.done <- err
	}()
	return f
}

func readFrame(r io.Reader, b *Blob, dict []byte) (err error) {
	f, err := newFrameReader(r, b, dict)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(io.Discard, f)
	return err
}

// write hands on a segment; an error of the other side comes with end.
func (f *frameCheck) write(p []byte) { _, _ = io.Copy(f.w, bytes.NewReader(p)) }

// end waits for the verdict. cause ends the frame early.
func (f *frameCheck) end(cause error) error {
	_ = f.w.CloseWithError(cause) // nil means EOF; never fails
	return <-f.done
}
