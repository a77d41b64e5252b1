package weights

import (
	"errors"
	"fmt"
	"io"
)

const (
	// wireWindow is how much of a message is in memory.
	wireWindow = 32 << 10
	// maxWireFields bounds the fields that are looked at in one file: the
	// largest graphs have some hundred thousand nodes of a dozen each.
	maxWireFields = 20_000_000
	// maxWireDepth bounds messages in messages: graphs hold graphs.
	maxWireDepth = 64
	// maxWireText bounds the texts that rules look at: names and paths.
	maxWireText = 4096
)

var (
	// errWire says that bytes are no protocol buffer.
	errWire = errors.New("malformed protocol buffer")
	// errWireLimit says that a message is larger than the limits.
	errWireLimit = errors.New("protocol buffer beyond the limits")
)

// A wire reads the protocol buffers wire format where it lies.
type wire struct {
	r      io.ReaderAt
	size   int64
	buf    []byte
	at     int64 // of buf in the file
	fields int
	depth  int
}

func newWire(r io.ReaderAt, size int64) *wire { return &wire{r: r, size: size} }

// A field is one field of a message.
type field struct {
	number uint64
	// kind is 0 for a number, 1 and 5 for fixed ones, 2 for what has a length.
	kind     byte
	value    uint64
	pos, end int64 // of what has a length
}

// byteAt is one byte of the file.
func (w *wire) byteAt(pos int64) (byte, error) {
	if pos < w.at || pos >= w.at+int64(len(w.buf)) {
		if w.buf == nil {
			w.buf = make([]byte, wireWindow)
		}
		n := min(int64(wireWindow), w.size-pos)
		if n <= 0 {
			return 0, errWire
		}
		w.buf, w.at = w.buf[:n], pos
		if _, err := io.ReadFull(io.NewSectionReader(w.r, pos, n), w.buf); err != nil {
			w.buf = w.buf[:0]
			return 0, err
		}
	}
	return w.buf[pos-w.at], nil
}

// varint reads a number that ends before end.
func (w *wire) varint(pos, end int64) (uint64, int64, error) {
	var x uint64
	for shift := 0; shift < 64; shift += 7 {
		if pos >= end {
			return 0, 0, fmt.Errorf("%w: it ends in a number at byte %d", errWire, pos)
		}
		b, err := w.byteAt(pos)
		if err != nil {
			return 0, 0, err
		}
		pos++
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return x, pos, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: a number of more than ten bytes at byte %d", errWire, pos)
}

// each shows the fields of the message between pos and end.
func (w *wire) each(pos, end int64, see func(field) error) error {
	if w.depth++; w.depth > maxWireDepth {
		return fmt.Errorf("%w: more than %d messages in each other", errWireLimit, maxWireDepth)
	}
	defer func() { w.depth-- }()
	for pos < end {
		f, next, err := w.field(pos, end)
		if err != nil {
			return err
		}
		if err := see(f); err != nil {
			return err
		}
		pos = next
	}
	return nil
}

// field reads the field at pos.
func (w *wire) field(pos, end int64) (f field, next int64, err error) {
	if w.fields++; w.fields > maxWireFields {
		return f, 0, fmt.Errorf("%w: more than %d fields", errWireLimit, maxWireFields)
	}
	tag, p, err := w.varint(pos, end)
	if err != nil {
		return f, 0, err
	}
	f.number, f.kind = tag>>3, byte(tag&7)
	if f.number == 0 || f.number >= 1<<29 {
		return f, 0, fmt.Errorf("%w: field number %d at byte %d", errWire, f.number, pos)
	}
	n := int64(0)
	switch f.kind {
	case 0:
		f.value, next, err = w.varint(p, end)
		return f, next, err
	case 1:
		n = 8
	case 5:
		n = 4
	case 2:
		var length uint64
		if length, p, err = w.varint(p, end); err != nil {
			return f, 0, err
		}
		if length > uint64(end-p) { // #nosec G115 -- p <= end
			return f, 0, fmt.Errorf("%w: %d bytes at byte %d, where %d are left", errWire, length, p, end-p)
		}
		f.pos, f.end = p, p+int64(length) // #nosec G115 -- just compared
		return f, f.end, nil
	default:
		return f, 0, fmt.Errorf("%w: wire type %d at byte %d", errWire, f.kind, pos)
	}
	if n > end-p {
		return f, 0, fmt.Errorf("%w: it ends in a number at byte %d", errWire, p)
	}
	return f, p + n, nil
}

// message shows the fields of a field that is one.
func (w *wire) message(f field, see func(field) error) error {
	if f.kind != 2 {
		return fmt.Errorf("%w: field %d is no message", errWire, f.number)
	}
	return w.each(f.pos, f.end, see)
}

// text is a field that is one. Long ones are cut: no rule looks further.
func (w *wire) text(f field) (string, error) {
	if f.kind != 2 {
		return "", fmt.Errorf("%w: field %d is no text", errWire, f.number)
	}
	b := make([]byte, min(f.end-f.pos, maxWireText))
	for i := range b {
		c, err := w.byteAt(f.pos + int64(i))
		if err != nil {
			return "", err
		}
		b[i] = c
	}
	return string(b), nil
}
