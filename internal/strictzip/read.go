package strictzip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// readBuffer holds packed bytes on their way to the decompressor.
const readBuffer = 16 << 10

// A Reader gives an entry's bytes. It reports io.EOF only after length,
// checksum and the end of the packed bytes were found right; else a *[Defect]
// of kind [Checksum] or [Malformed].
type Reader struct {
	e    *Entry
	src  *source // nil at the end
	from io.Reader
	n    int64
	crc  uint32
	err  error
}

// source is what reading needs, used again and again.
type source struct {
	sec     io.SectionReader
	buf     *bufio.Reader
	inflate io.ReadCloser
}

// sources keeps what reading needs: a decompressor has 40 KiB.
var sources = sync.Pool{New: func() any { return &source{buf: bufio.NewReaderSize(nil, readBuffer)} }}

// Open starts to read an entry.
func (a *Archive) Open(e *Entry) *Reader {
	r := &Reader{e: e}
	if e.Unreadable {
		r.err = &Defect{Kind: Method, Name: clip(e.Name), Text: "cannot be read"}
		return r
	}
	s := sources.Get().(*source) // the pool holds nothing else
	s.sec = *io.NewSectionReader(a.r, e.start, e.Packed)
	s.buf.Reset(&s.sec)
	r.src, r.from = s, s.buf
	if !e.Stored {
		// The buffer is an io.ByteReader: nothing is read ahead of the end.
		if s.inflate == nil {
			s.inflate = flate.NewReader(s.buf)
		} else if err := s.inflate.(flate.Resetter).Reset(s.buf, nil); err != nil { // as documented
			r.err = err
		}
		r.from = s.inflate
	}
	return r
}

// Read gives the next bytes.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	// One byte more than the directory tells may be asked for.
	if most := r.e.Size - r.n + 1; int64(len(p)) > most {
		p = p[:most]
	}
	n, err := r.from.Read(p)
	r.n += int64(n)
	r.crc = crc32.Update(r.crc, crc32.IEEETable, p[:n])
	switch {
	case r.n > r.e.Size:
		err = r.defect(Checksum, "length or checksum is wrong")
	case errors.Is(err, io.EOF):
		if r.n != r.e.Size || r.crc != r.e.CRC || r.left() != 0 {
			err = r.defect(Checksum, "length or checksum is wrong")
		}
	case err != nil:
		if _, ok := errors.AsType[flate.CorruptInputError](err); ok || errors.Is(err, io.ErrUnexpectedEOF) {
			err = r.defect(Malformed, err.Error())
		}
	}
	if err != nil {
		r.err = err
		r.src.sec = io.SectionReader{} // holds on to nobody's bytes
		sources.Put(r.src)
		r.src, r.from = nil, nil
	}
	return n, err
}

func (r *Reader) defect(k Kind, text string) error {
	return &Defect{Kind: k, Name: clip(r.e.Name), Text: text}
}

// left is how many packed bytes were not used.
func (r *Reader) left() int64 {
	at, err := r.src.sec.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	return r.e.Packed - at + int64(r.src.buf.Buffered())
}

// Section gives the bytes of a stored entry where they lie. Nothing has
// compared them with the checksum then.
func (a *Archive) Section(e *Entry) (off, size int64, ok bool) {
	return e.start, e.Size, e.Stored && !e.Unreadable
}

// ReadAll reads an entry of at most limit bytes.
func (a *Archive) ReadAll(e *Entry, limit int64) ([]byte, error) {
	if e.Size > limit {
		return nil, fmt.Errorf("%q: %d bytes, at most %d are read", clip(e.Name), e.Size, limit)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, a.Open(e)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
