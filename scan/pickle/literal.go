package pickle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
)

const (
	// maxDigits bounds a number in decimal, as Python's own limit of 4,300
	// digits does: reading one takes quadratic time.
	maxDigits = 4300
	// maxLong bounds a binary integer: nobody writes one of a megabit.
	maxLong = 1 << 17
)

// magic opens the older form of torch.save: 0x1950a86a20f9469cfc6c as LONG1
// writes it, and as LONG does.
var (
	magicBytes = [10]byte{0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19}
	magicText  = "119547037146038801333356"
)

func (m *machine) none() error { return m.push(value{kind: kindNone}) }

// newBool is NEWTRUE and NEWFALSE, whose bytes differ by one.
func (m *machine) newBool() error { return m.push(value{kind: kindBool, n: int64(0x89 - m.code)}) }

func (m *machine) pushInt(n int64) error { return m.push(value{kind: kindInt, n: n}) }

func (m *machine) binInt() error {
	n, err := m.r.number(4)
	if err != nil {
		return err
	}
	return m.pushInt(int64(int32(n))) // #nosec G115 -- signed, as the format says
}

func (m *machine) binIntN(size int) error {
	n, err := m.r.number(size)
	if err != nil {
		return err
	}
	return m.pushInt(int64(n)) // #nosec G115 -- at most two bytes
}

func (m *machine) binInt1() error { return m.binIntN(1) }
func (m *machine) binInt2() error { return m.binIntN(2) }

func (m *machine) binFloat() error {
	if _, err := m.r.number(8); err != nil {
		return err
	}
	return m.push(value{kind: kindFloat})
}

// long is an integer of n bytes, two's complement. One that no length or
// offset could be is kept as -1.
func (m *machine) long(n uint64) error {
	if n > maxLong {
		return m.fail(CodeLimit, "an integer of %d bytes", n)
	}
	var head [10]byte
	seen := 0
	if err := m.r.payload(n, func(p []byte) { seen += copy(head[min(seen, len(head)):], p) }); err != nil {
		return err
	}
	if n == uint64(len(head)) && head == magicBytes {
		return m.push(value{kind: kindMagic})
	}
	if n > 8 {
		return m.pushInt(-1)
	}
	unused := 64 - 8*n                               // of the number, above its sign
	v := int64(binary.LittleEndian.Uint64(head[:8])) // #nosec G115 -- signed, as the format says
	return m.pushInt(v << unused >> unused)
}

func (m *machine) long1() error { return m.sized(1, m.long) }

func (m *machine) long4() error {
	return m.sized(4, func(n uint64) error {
		if n > math.MaxInt32 {
			return m.fail(CodeMalformed, "negative length")
		}
		return m.long(n)
	})
}

// sized is an opcode with a length of size bytes.
func (m *machine) sized(size int, do func(uint64) error) error {
	n, err := m.r.number(size)
	if err != nil {
		return err
	}
	return do(n)
}

// decimal holds that b is an integer as Python writes one.
func decimal(b []byte) bool {
	digits := bytes.TrimPrefix(b, []byte("-"))
	if len(digits) == 0 || len(digits) > maxDigits || (digits[0] == '0' && len(b) > 1) {
		return false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// integer pushes what a line says.
func (m *machine) integer(b []byte) error {
	if !decimal(b) {
		return m.fail(CodeMalformed, "%q is not an integer as Python writes it", shown(string(b)))
	}
	if string(b) == magicText {
		return m.push(value{kind: kindMagic})
	}
	n, ok := new(big.Int).SetString(string(b), 10)
	if !ok || !n.IsInt64() {
		return m.pushInt(-1)
	}
	return m.pushInt(n.Int64())
}

func (m *machine) intLine() error {
	b, err := m.r.line()
	if err != nil {
		return err
	}
	switch string(b) {
	case "00":
		return m.push(value{kind: kindBool})
	case "01":
		return m.push(value{kind: kindBool, n: 1})
	}
	return m.integer(b)
}

func (m *machine) longLine() error {
	b, err := m.r.line()
	if err != nil {
		return err
	}
	return m.integer(bytes.TrimSuffix(b, []byte("L")))
}

func (m *machine) floatLine() error {
	b, err := m.r.line()
	if err != nil {
		return err
	}
	s := string(b)
	switch s {
	case "inf", "-inf", "nan", "-nan":
	default:
		// ParseFloat knows forms that Python does not.
		_, err := strconv.ParseFloat(s, 64)
		if (err != nil && !errors.Is(err, strconv.ErrRange)) || strings.Trim(s, "0123456789.eE+-") != "" {
			return m.fail(CodeMalformed, "%q is not a float as Python writes it", shown(s))
		}
	}
	return m.push(value{kind: kindFloat})
}

// indexLine is GET and PUT.
func (m *machine) indexLine(do func(uint64) error) error {
	b, err := m.r.line()
	if err != nil {
		return err
	}
	i, err := strconv.ParseUint(string(b), 10, 63)
	if err != nil || !decimal(b) {
		return m.fail(CodeMalformed, "%q is not an index", shown(string(b)))
	}
	return do(i)
}

// pushText pushes a text that is kept.
func (m *machine) pushText(k kind, s string) error {
	if err := m.keep(objectSize + len(s)); err != nil {
		return err
	}
	return m.push(value{kind: k, n: int64(len(s)), o: &object{text: s, kept: true}})
}

// counted reads a text or bytes of n bytes. A short text is kept; of the
// others only the beginning and the last byte are seen, to tell whether a
// pickle stands in it.
func (m *machine) counted(k kind, n uint64) error {
	isText := k == kindStr || k == kindOldStr
	if isText && n > uint64(m.limits.String) { // #nosec G115 -- a limit is positive
		return m.fail(CodeLimit, "a text of %d bytes exceeds the limit of %d", n, m.limits.String)
	}
	var (
		check utf8Check
		seen  int
		last  byte
	)
	err := m.r.payload(n, func(p []byte) {
		seen += copy(m.head[min(seen, len(m.head)):], p)
		last = p[len(p)-1]
		if k == kindStr {
			check.feed(p)
		}
	})
	if err != nil {
		return err
	}
	if k == kindStr && !check.ok() {
		return m.fail(CodeMalformed, "not UTF-8")
	}
	m.nested(m.head[:seen], last, n)
	if !isText {
		return m.push(value{kind: k, n: int64(n)}) // #nosec G115 -- claim bounds it
	}
	if n > maxText {
		return m.push(value{kind: k, n: int64(n)}) // #nosec G115 -- claim bounds it
	}
	return m.pushText(k, string(m.head[:seen]))
}

// nested notes data that look like a pickle: a protocol and a STOP, or those
// bytes in base64 or hexadecimal. What loads the outer pickle loads none of
// them.
func (m *machine) nested(head []byte, last byte, n uint64) {
	if len(head) < 4 {
		return
	}
	raw := head[0] == 0x80 && head[1] >= 2 && head[1] <= latest && last == '.'
	s := string(head[:4])
	if raw || n >= 16 && (s == "gASV" || s == "gAWV" || s == "gAJ9" || s == "8004" || s == "8005") {
		m.note(NoteNested, "data that look like a pickle")
	}
}

func (m *machine) text(size int, k kind) error {
	return m.sized(size, func(n uint64) error { return m.counted(k, n) })
}

func (m *machine) binUnicode() error      { return m.text(4, kindStr) }
func (m *machine) shortBinUnicode() error { return m.text(1, kindStr) }
func (m *machine) binUnicode8() error     { return m.text(8, kindStr) }
func (m *machine) binBytes() error        { return m.text(4, kindBytes) }
func (m *machine) shortBinBytes() error   { return m.text(1, kindBytes) }
func (m *machine) binBytes8() error       { return m.text(8, kindBytes) }
func (m *machine) byteArray8() error      { return m.text(8, kindByteArray) }
func (m *machine) shortBinString() error  { return m.text(1, kindOldStr) }

func (m *machine) binString() error {
	return m.sized(4, func(n uint64) error {
		if n > math.MaxInt32 {
			return m.fail(CodeMalformed, "negative length")
		}
		return m.counted(kindOldStr, n)
	})
}

// stringLine is a text in quotes with the escapes of Python 2.
func (m *machine) stringLine() error {
	b, err := m.r.line()
	if err != nil {
		return err
	}
	if len(b) < 2 || b[0] != b[len(b)-1] || (b[0] != '\'' && b[0] != '"') {
		return m.fail(CodeMalformed, "not in quotes")
	}
	s, ok := unescape(b[1 : len(b)-1])
	if !ok {
		return m.fail(CodeMalformed, "an escape that does not end")
	}
	return m.pushLine(kindOldStr, s)
}

// unicodeLine is a text in Latin-1 with the escapes \u and \U.
func (m *machine) unicodeLine() error {
	b, err := m.r.line()
	if err != nil {
		return err
	}
	s, ok := rawUnicode(b)
	if !ok {
		return m.fail(CodeMalformed, "an escape that does not end")
	}
	return m.pushLine(kindStr, s)
}

func (m *machine) pushLine(k kind, s string) error {
	if s != "" {
		m.nested([]byte(s), s[len(s)-1], uint64(len(s)))
	}
	if len(s) > maxText {
		return m.push(value{kind: k, n: int64(len(s))})
	}
	return m.pushText(k, s)
}
