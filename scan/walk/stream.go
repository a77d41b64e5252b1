package walk

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"
)

const (
	// maxDict bounds the dictionary of an xz stream and the window of a zstd
	// stream; xz -9 uses 64 MiB, zstd -19 8, Debian 8.
	maxDict = 64 << 20
	// streamBuffer holds packed bytes on their way to a decompressor.
	streamBuffer = 64 << 10
)

// streamTools are the decompressors of a walk. One is at work at a time, so
// each is there once. bzip2 has none that could be used again, and lz4's would
// keep bytes of the stream before.
type streamTools struct {
	in   *bufio.Reader
	gzip *gzip.Reader
	xz   *xz.Reader
	zstd *zstd.Decoder
}

// openStream unpacks a compressed file to its end. What it holds is its only
// entry, also where the stream turns out to be broken behind some bytes.
func (w *walker) openStream(f *File, p place) (*opened, error) {
	if err := w.count(f); err != nil {
		return nil, err
	}
	child := w.entry(f, "", 0)
	d, err := w.tools.stream.open(f)
	if err == nil {
		err = w.unpack(child, d, -1, f.Size)
	}
	if err = w.flawed(err, p, f.Path); err != nil || child.content == nil || child.Size == 0 && d.flawed {
		return nil, errors.Join(err, child.Release())
	}
	return &opened{
		walk: func() error { return w.file(child, p.within(), checks{digested: true}) },
		drop: child.Release,
	}, nil
}

// A decoder reads a compressed file, all of its parts, and turns what is
// wrong with it into flaws.
type decoder struct {
	t      *streamTools
	kind   Kind
	r      io.Reader
	parts  int  // that were read to their end
	ended  bool // the part has given its last bytes
	flawed bool
}

func (t *streamTools) open(f *File) (*decoder, error) {
	if t.in == nil {
		t.in = bufio.NewReaderSize(nil, streamBuffer)
	}
	t.in.Reset(f.Reader())
	d := &decoder{t: t, kind: f.Kind}
	_, err := d.safely(func([]byte) (int, error) { return 0, d.begin() }, nil)
	return d, err
}

// safely turns a panic of a decompressor, which hostile bytes may bring
// about, into a flaw of the stream, and lets go of the decompressor.
func (d *decoder) safely(do func([]byte) (int, error), p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			d.t.gzip, d.t.xz, d.t.zstd = nil, nil, nil
			n, err = 0, d.fail(fmt.Errorf("%v", r))
		}
	}()
	return do(p)
}

// begin opens the stream, or its next part.
func (d *decoder) begin() (err error) {
	t := d.t
	switch d.kind {
	case Gzip:
		if t.gzip == nil {
			t.gzip = new(gzip.Reader)
		}
		if err = t.gzip.Reset(t.in); err == nil {
			t.gzip.Multistream(false)
		}
		d.r = t.gzip
	case Bzip2:
		d.r = bzip2.NewReader(t.in)
	case XZ:
		if t.xz == nil {
			t.xz, err = xz.NewReader(t.in, maxDict)
		} else {
			err = t.xz.Reset(t.in)
		}
		t.xz.Multistream(false)
		d.r = t.xz
	case Zstd:
		if t.zstd == nil {
			t.zstd, err = zstd.NewReader(t.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxDict), zstd.WithDecoderMaxMemory(maxDict))
		} else {
			err = t.zstd.Reset(t.in)
		}
		d.r = t.zstd
	case LZ4:
		z := lz4.NewReader(t.in)
		err = z.Apply(lz4.ConcurrencyOption(1))
		d.r = z
	}
	if err != nil {
		return d.fail(err)
	}
	return nil
}

// Read gives the next bytes.
func (d *decoder) Read(p []byte) (int, error) { return d.safely(d.read, p) }

func (d *decoder) read(p []byte) (int, error) {
	for {
		if d.ended {
			d.parts++
			if err := d.next(); err != nil {
				return 0, err
			}
			d.ended = false
		}
		n, err := d.r.Read(p)
		d.ended = errors.Is(err, io.EOF)
		switch {
		case err != nil && !d.ended:
			return n, d.fail(err)
		case n > 0:
			return n, nil
		}
	}
}

// next begins the next part of the stream; io.EOF is its end.
func (d *decoder) next() error {
	switch d.kind {
	case XZ:
		// It has read ahead, so it alone knows what follows.
		err := d.t.xz.Reset(nil)
		if err == nil {
			d.t.xz.Multistream(false)
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		d.flawed = true
		return trailing()
	case Gzip, LZ4:
		rest, err := d.t.in.Peek(4)
		if len(rest) == 0 {
			return end(err)
		}
		if d.kind == Gzip && len(rest) >= 2 && string(rest[:2]) == "\x1f\x8b" ||
			d.kind == LZ4 && len(rest) == 4 && isLZ4(rest) {
			return d.begin()
		}
	}
	// bzip2 and zstd go on to the end by themselves.
	return d.behind()
}

func isLZ4(b []byte) bool {
	return string(b) == "\x04\x22\x4d\x18" || string(b) == "\x02\x21\x4c\x18" || string(b[1:]) == "\x2a\x4d\x18" && b[0]&0xf0 == 0x50
}

// end is io.EOF, or what really happened.
func end(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}

// behind looks at what follows the last part: zeros, with which tapes are
// padded, carry nothing; anything else does.
func (d *decoder) behind() error {
	for {
		b, err := d.t.in.Peek(1)
		if len(b) == 0 {
			return end(err)
		}
		b, _ = d.t.in.Peek(d.t.in.Buffered())
		if len(bytes.TrimLeft(b, "\x00")) > 0 {
			d.flawed = true
			return trailing()
		}
		if _, err := d.t.in.Discard(len(b)); err != nil {
			return err
		}
	}
}

func trailing() *flaw {
	return &flaw{code: CodeTrailing, text: "data behind the end of the compressed stream"}
}

// fail says what is wrong with a stream.
func (d *decoder) fail(err error) error {
	d.flawed = true
	text := string(d.kind) + ": " + err.Error()
	switch {
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, zstd.ErrCRCMismatch), errors.Is(err, lz4.ErrInvalidFrameChecksum),
		errors.Is(err, lz4.ErrInvalidBlockChecksum), errors.Is(err, lz4.ErrInvalidHeaderChecksum):
		return &flaw{code: CodeCRC, text: text}
	case errors.Is(err, xz.ErrMemlimit), errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return &flaw{code: CodeSize, text: text + ": needs more than 64 MiB of memory to unpack", notScanned: true}
	case errors.Is(err, xz.ErrUnsupportedCheck), errors.Is(err, xz.ErrOptions), errors.Is(err, zstd.ErrUnknownDictionary):
		return &flaw{code: CodeMethod, text: text, notScanned: true}
	case errors.Is(err, zstd.ErrMagicMismatch),
		errors.Is(err, bzip2.StructuralError("bad magic value in continuation file")):
		return trailing()
	}
	return &flaw{code: CodeMalformed, text: text}
}
