package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// maxStanza bounds one stanza, and so the reader's buffer. The longest
	// line of Debian has 75,649 bytes.
	maxStanza = 16 << 20
	// maxFields bounds the fields of one stanza; about 30 are usual. It also
	// bounds the quadratic search for duplicates.
	maxFields = 256
	// firstBuffer holds a usual stanza, so that few grow it.
	firstBuffer = 64 << 10
)

// A field is a name as written and its raw value, continuation lines included.
type field struct{ name, value []byte }

// A stanza is one paragraph. Its slices are valid until the next one is read.
type stanza struct {
	offset int64  // of raw in the stream
	raw    []byte // as it stood, with the newline of its last line if there was one
	fields []field
}

// get returns a field's value without the blanks around it.
func (s *stanza) get(name string) []byte {
	for i := range s.fields {
		if equalFold(s.fields[i].name, name) {
			return bytes.TrimSpace(s.fields[i].value)
		}
	}
	return nil
}

// A stanzaError says what is wrong and at which byte of the stream.
type stanzaError struct {
	offset int64
	reason string
}

func (e *stanzaError) Error() string {
	return fmt.Sprintf("%s at byte %d", e.reason, e.offset)
}

// A stanzaReader cuts a stream into stanzas. It holds one stanza at a time.
//
// Refused: control bytes (CR and NUL among them), a line that is neither a
// field nor a continuation, a continuation before any field, a field twice,
// more than maxFields fields or maxStanza bytes. A line of blanks only is a
// continuation line, as apt reads it.
type stanzaReader struct {
	r      io.Reader
	buf    []byte
	start  int   // of the unread part of buf
	end    int   // of the filled part of buf
	offset int64 // of buf[start] in the stream
	err    error // sticky: what r said
	cur    stanza
}

func newStanzaReader(r io.Reader) *stanzaReader { return &stanzaReader{r: r} }

// next returns the next stanza, or io.EOF after the last.
func (s *stanzaReader) next() (*stanza, error) {
	if err := s.skipBlank(); err != nil {
		return nil, err
	}
	n, err := s.length()
	if err != nil {
		return nil, err
	}
	s.cur.offset = s.offset
	s.cur.raw = s.buf[s.start : s.start+n]
	s.start += n
	s.offset += int64(n)
	if err := s.cur.parse(); err != nil {
		return nil, err
	}
	return &s.cur, nil
}

// skipBlank passes empty lines.
func (s *stanzaReader) skipBlank() error {
	for {
		for s.start < s.end {
			if s.buf[s.start] != '\n' {
				return nil
			}
			s.start++
			s.offset++
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// length finds the end of the stanza that begins at start.
func (s *stanzaReader) length() (int, error) {
	seen := 0
	for {
		window := s.buf[s.start:s.end]
		// One byte back: the first newline may have been the last byte seen.
		from := max(0, seen-1)
		if i := bytes.Index(window[from:], []byte("\n\n")); i >= 0 {
			return from + i + 1, nil
		}
		seen = len(window)
		err := s.fill()
		if errors.Is(err, io.EOF) {
			return seen, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// fill reads more, moving or growing the buffer where there is no room.
func (s *stanzaReader) fill() error {
	if s.err != nil {
		return s.err
	}
	if s.end == len(s.buf) {
		switch {
		case s.start > 0:
			copy(s.buf, s.buf[s.start:s.end])
			s.end -= s.start
			s.start = 0
		case len(s.buf) >= maxStanza:
			return &stanzaError{s.offset, fmt.Sprintf("stanza longer than %d bytes", maxStanza)}
		default:
			grown := make([]byte, max(firstBuffer, 2*len(s.buf)))
			copy(grown, s.buf[:s.end])
			s.buf = grown
		}
	}
	for range 100 { // a reader that gives nothing for ever is broken
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		s.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	s.err = io.ErrNoProgress
	return s.err
}

// control marks the bytes that no deb822 file has.
var control = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = c != '\t' && c != '\n'
	}
	t[0x7f] = true
	return t
}()

// parse cuts raw into fields.
func (s *stanza) parse() error {
	s.fields = s.fields[:0]
	for i, c := range s.raw {
		if control[c] {
			return &stanzaError{s.offset + int64(i), fmt.Sprintf("control byte 0x%02x", c)}
		}
	}
	for pos := 0; pos < len(s.raw); {
		end := len(s.raw)
		if i := bytes.IndexByte(s.raw[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		line := s.raw[pos:end]
		at := s.offset + int64(pos)
		if line[0] == ' ' || line[0] == '\t' {
			if len(s.fields) == 0 {
				return &stanzaError{at, "continuation line before a field"}
			}
			f := &s.fields[len(s.fields)-1]
			f.value = f.value[:len(f.value)+len(line)] // lies right behind it in raw
		} else if err := s.addField(line, at); err != nil {
			return err
		}
		pos = end
	}
	return nil
}

func (s *stanza) addField(line []byte, at int64) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !fieldNameOK(line[:colon]) {
		return &stanzaError{at, fmt.Sprintf("%q is not a field", clip(string(line)))}
	}
	name := line[:colon]
	for i := range s.fields {
		if len(s.fields[i].name) == len(name) && bytes.EqualFold(s.fields[i].name, name) {
			return &stanzaError{at, fmt.Sprintf("field %s twice in one stanza", name)}
		}
	}
	if len(s.fields) == maxFields {
		return &stanzaError{at, fmt.Sprintf("more than %d fields in one stanza", maxFields)}
	}
	s.fields = append(s.fields, field{name, line[colon+1:]})
	return nil
}

func fieldNameOK(name []byte) bool {
	if name[0] == '-' || name[0] == '#' {
		return false
	}
	for _, c := range name {
		if c <= 0x20 || c >= 0x7f {
			return false
		}
	}
	return true
}

// equalFold compares an ASCII field name with one of ours.
func equalFold(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		d := b[i]
		if c != d && (c|0x20 != d|0x20 || !isLetter(c)) {
			return false
		}
	}
	return true
}
