package pypi

import (
	"bufio"
	"io"
)

// byteReader reads a section in small pieces and knows how much is left.
type byteReader struct {
	src  *bufio.Reader
	sec  *io.SectionReader
	used int64
	buf  []byte
}

func newByteReader(sec *io.SectionReader) *byteReader {
	return &byteReader{src: bufio.NewReaderSize(sec, 16<<10), sec: sec}
}

// next returns the next n bytes, valid until the next call.
func (b *byteReader) next(n int) ([]byte, error) {
	if cap(b.buf) < n {
		b.buf = make([]byte, n)
	}
	_, err := io.ReadFull(b, b.buf[:n])
	return b.buf[:n], err
}

// Read counts what is taken.
func (b *byteReader) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.used += int64(n)
	return n, err
}

// ReadByte counts what is taken.
func (b *byteReader) ReadByte() (byte, error) {
	c, err := b.src.ReadByte()
	if err == nil {
		b.used++
	}
	return c, err
}

// left is how much of the section was not taken.
func (b *byteReader) left() int64 { return b.sec.Size() - b.used }
