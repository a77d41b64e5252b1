package strictzip

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
	return &byteReader{src: bufio.NewReaderSize(sec, readBuffer), sec: sec}
}

// next returns the next n bytes, valid until the next call.
func (b *byteReader) next(n int) ([]byte, error) {
	if cap(b.buf) < n {
		b.buf = make([]byte, n)
	}
	m, err := io.ReadFull(b.src, b.buf[:n])
	b.used += int64(m)
	return b.buf[:n], err
}

func (b *byteReader) skip(n int) error {
	m, err := b.src.Discard(n)
	b.used += int64(m)
	return err
}

// left is how much of the section was not taken.
func (b *byteReader) left() int64 { return b.sec.Size() - b.used }
