package pickle

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

const (
	// maxLine bounds an argument that ends with its line, newline included:
	// the names and numbers of protocol 0, and its texts.
	maxLine = 64 << 10
	// peekSize is how much of a payload is looked at in one piece.
	peekSize = 4 << 10
	// noFrame stands for the end of a frame where none is open.
	noFrame = -1
)

// A reader reads the stream, knows where it is, and holds its limits: none of
// its methods allocates what a length in the stream declares.
type reader struct {
	br    *bufio.Reader
	off   int64
	limit int64 // of the pickles
	frame int64 // where the open frame ends, or noFrame
	buf   [255]byte
}

func newReader(r io.Reader, limit int64) *reader {
	return &reader{br: bufio.NewReaderSize(r, maxLine), limit: limit, frame: noFrame}
}

func (r *reader) halt(code, format string, args ...any) error {
	return &halt{code: code, off: r.off, text: fmt.Sprintf(format, args...)}
}

// broken turns the end of the stream into a finding, and leaves an error of
// reading what it is.
func (r *reader) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.halt(CodeTruncated, "the stream ends before its last opcode")
	}
	return err
}

// claim holds that n more bytes fit in the open frame and below the limit.
func (r *reader) claim(n uint64) error {
	if n > math.MaxInt64 || int64(n) > r.limit-r.off {
		return r.halt(CodeLimit, "an argument of %d bytes exceeds the limit of %d bytes", n, r.limit)
	}
	if r.frame != noFrame && int64(n) > r.frame-r.off {
		return r.halt(CodeFrame, "an opcode crosses the end of its frame at byte %d", r.frame)
	}
	return nil
}

// opcode reads the next one. A frame may end only before it.
func (r *reader) opcode() (byte, error) {
	if r.frame == r.off {
		r.frame = noFrame
	}
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// take reads n bytes, at most 255, which are good until the next call.
func (r *reader) take(n int) ([]byte, error) {
	if err := r.claim(uint64(n)); err != nil { // #nosec G115 -- not negative
		return nil, err
	}
	got, err := io.ReadFull(r.br, r.buf[:n])
	r.off += int64(got)
	if err != nil {
		return nil, r.broken(err)
	}
	return r.buf[:n], nil
}

// number reads an unsigned little-endian number of n bytes: 1, 2, 4 or 8.
func (r *reader) number(n int) (uint64, error) {
	b, err := r.take(n)
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

// line reads to the end of the line, and returns it without the newline; it
// is good until the next call.
func (r *reader) line() ([]byte, error) {
	b, err := r.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(b) > maxLine {
		return nil, r.halt(CodeLimit, "a line is longer than %d bytes", maxLine)
	}
	if err != nil {
		return nil, r.broken(err)
	}
	if err := r.claim(uint64(len(b))); err != nil {
		return nil, err
	}
	r.off += int64(len(b))
	return b[:len(b)-1], nil
}

// payload shows see the next n bytes, piece by piece.
func (r *reader) payload(n uint64, see func(piece []byte)) error {
	if err := r.claim(n); err != nil {
		return err
	}
	for n > 0 {
		want := int(min(n, peekSize)) // #nosec G115 -- at most peekSize
		p, err := r.br.Peek(want)
		if err != nil {
			r.off += int64(len(p))
			return r.broken(err)
		}
		see(p)
		if _, err := r.br.Discard(want); err != nil {
			return r.broken(err)
		}
		r.off += int64(want)
		n -= uint64(want) // #nosec G115 -- not negative
	}
	return nil
}

// skip passes over n bytes that belong to no pickle.
func (r *reader) skip(n int64) error {
	for n > 0 {
		got, err := r.br.Discard(int(min(n, 1<<30)))
		r.off += int64(got)
		n -= int64(got)
		if err != nil {
			return r.broken(err)
		}
	}
	return nil
}

// more says whether a byte follows.
func (r *reader) more() (bool, error) {
	_, err := r.br.Peek(1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

// maxShown bounds text of the stream in a report.
const maxShown = 200

// shown makes text of the stream fit for a report.
func shown(s string) string {
	tail := ""
	if len(s) > maxShown {
		s, tail = s[:maxShown], "..."
	}
	q := strconv.QuoteToASCII(s)
	return q[1:len(q)-1] + tail
}
