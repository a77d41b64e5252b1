package pickle

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A utf8Check reads UTF-8 piece by piece, as Python does with surrogatepass:
// surrogates are fine, forms that are too long are not.
type utf8Check struct {
	more   int  // bytes that the character at hand still needs
	lo, hi byte // of the next of them
	bad    bool
}

func (u *utf8Check) feed(p []byte) {
	for _, b := range p {
		switch {
		case u.more > 0:
			u.bad = u.bad || b < u.lo || b > u.hi
			u.more--
			u.lo, u.hi = 0x80, 0xbf
		case b >= 0x80:
			u.lead(b)
		}
	}
}

// lead is the first byte of a character of several.
func (u *utf8Check) lead(b byte) {
	u.lo, u.hi = 0x80, 0xbf
	switch {
	case b < 0xc2 || b > 0xf4:
		u.bad = true
	case b < 0xe0:
		u.more = 1
	case b < 0xf0:
		u.more = 2
	default:
		u.more = 3
	}
	switch b {
	case 0xe0:
		u.lo = 0xa0
	case 0xf0:
		u.lo = 0x90
	case 0xf4:
		u.hi = 0x8f
	}
}

func (u *utf8Check) ok() bool { return !u.bad && u.more == 0 }

// unescape resolves the escapes of a Python 2 string, as codecs.escape_decode
// does.
func unescape(b []byte) (string, bool) {
	var out strings.Builder
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			out.Write(b)
			break
		}
		out.Write(b[:i])
		n, ok := escape(&out, b[i:])
		if !ok {
			return "", false
		}
		b = b[i+n:]
	}
	return out.String(), true
}

// simpleEscapes are the letters behind a backslash and what they stand for.
const simpleEscapes = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v"

// escape resolves the escape that b begins with, and says how long it is.
func escape(out *strings.Builder, b []byte) (int, bool) {
	if len(b) < 2 {
		return 0, false
	}
	c := b[1]
	switch {
	case c == '\n':
		return 2, true
	case c == 'x':
		if len(b) < 4 {
			return 0, false
		}
		n, err := strconv.ParseUint(string(b[2:4]), 16, 8)
		out.WriteByte(byte(n)) // #nosec G115 -- of 8 bits
		return 4, err == nil
	case c >= '0' && c <= '7':
		n, i := 0, 1
		for i < len(b) && i < 4 && b[i] >= '0' && b[i] <= '7' {
			n, i = n*8+int(b[i]-'0'), i+1
		}
		out.WriteByte(byte(n & 0xff)) // #nosec G115 -- of 8 bits
		return i, true
	}
	for i := 0; i < len(simpleEscapes); i += 2 {
		if simpleEscapes[i] == c {
			out.WriteByte(simpleEscapes[i+1])
			return 2, true
		}
	}
	out.Write(b[:2]) // Python keeps what it does not know
	return 2, true
}

// rawUnicode resolves raw-unicode-escape: a backslash that an even number of
// others precedes, and u with four or U with eight hexadecimal digits.
func rawUnicode(b []byte) (string, bool) {
	var out strings.Builder
	for len(b) > 0 {
		digits := 0
		if b[0] == '\\' && len(b) > 1 {
			switch b[1] {
			case 'u':
				digits = 4
			case 'U':
				digits = 8
			default:
				// The second byte is plain text, a backslash included.
				out.WriteByte('\\')
				out.WriteRune(rune(b[1]))
				b = b[2:]
				continue
			}
		}
		if digits == 0 {
			out.WriteRune(rune(b[0]))
			b = b[1:]
			continue
		}
		if len(b) < 2+digits {
			return "", false
		}
		n, err := strconv.ParseUint(string(b[2:2+digits]), 16, 32)
		if err != nil || n > utf8.MaxRune {
			return "", false
		}
		out.WriteRune(rune(n)) // #nosec G115 -- at most utf8.MaxRune
		b = b[2+digits:]
	}
	return out.String(), true
}
