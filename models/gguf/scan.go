package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// A scanner reads a header from its beginning on. It asks for nothing beyond
// the file's end or MaxHeader, and keeps no more than maxHeld of it.
type scanner struct {
	r    io.ReaderAt
	b    *bufio.Reader
	at   int64
	size int64 // of the file
	held int   // bytes of text that are kept
}

func newScanner(r io.ReaderAt, size int64) *scanner {
	return &scanner{r: r, size: size, b: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), bufferSize)}
}

func (s *scanner) where() string { return "byte " + strconv.FormatInt(s.at, 10) }

// need holds that n more bytes may be there.
func (s *scanner) need(n uint64, what string) error {
	switch {
	case n > uint64(s.size-s.at): // #nosec G115 -- at <= size
		return refuse(Truncated, s.where(), what+": the file ends before it does", fmt.Sprintf("%d bytes or less", s.size-s.at), strconv.FormatUint(n, 10))
	case s.at > MaxHeader || n > uint64(MaxHeader-s.at): // #nosec G115 -- just compared
		return refuse(TooMany, s.where(), what+": the header is too long", fmt.Sprintf("%d bytes or less", int64(MaxHeader)), "")
	}
	return nil
}

// number reads n bytes, eight at most, as a number.
func (s *scanner) number(n int, what string) (uint64, error) {
	if err := s.need(uint64(n), what); err != nil { // #nosec G115 -- 1 to 8
		return 0, err
	}
	b, err := s.b.Peek(n)
	if err != nil {
		return 0, s.readError(what, err)
	}
	var full [8]byte
	copy(full[:], b)
	s.advance(n)
	return binary.LittleEndian.Uint64(full[:]), nil
}

func (s *scanner) u32(what string) (uint32, error) {
	v, err := s.number(4, what)
	return uint32(v), err // #nosec G115 -- of four bytes
}

func (s *scanner) u64(what string) (uint64, error) { return s.number(8, what) }

// length reads the length of a text that follows, which is there.
func (s *scanner) length(most uint64, what string) (int, error) {
	n, err := s.u64(what)
	if err != nil {
		return 0, err
	}
	if n > most {
		return 0, refuse(TooMany, s.where(), what+": too long", fmt.Sprintf("%d bytes or less", most), strconv.FormatUint(n, 10))
	}
	return int(n), s.need(n, what) // #nosec G115 -- at most MaxText
}

// text reads n bytes and keeps them.
func (s *scanner) text(n int, what string) (string, error) {
	if s.held += n; s.held > maxHeld {
		return "", refuse(TooMany, s.where(), what+": too much text in one header", fmt.Sprintf("%d bytes or less", maxHeld), "")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.b, b); err != nil {
		return "", s.readError(what, err)
	}
	s.at += int64(n)
	return string(b), nil
}

// skip goes past n bytes, without reading them where they are many.
func (s *scanner) skip(n int64) {
	if n <= int64(s.b.Buffered()) {
		s.advance(int(n))
		return
	}
	s.at += n
	s.b.Reset(io.NewSectionReader(s.r, s.at, s.size-s.at))
}

// advance goes past n bytes that are in the buffer.
func (s *scanner) advance(n int) {
	n, _ = s.b.Discard(n) // of buffered bytes: no error
	s.at += int64(n)
}

// readError is the reader's own error. A reader that ends before the size that
// the caller was told is not a broken file.
func (s *scanner) readError(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s: read %s: %w", s.where(), what, err)
}
