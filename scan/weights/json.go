package weights

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxJSONText bounds a text that is kept: chat templates have some
	// 100 KiB. Longer ones are cut, and say so.
	maxJSONText = 1 << 20
	// maxJSONKey bounds a key that is kept: no rule knows a longer one.
	maxJSONKey = 1 << 10
	// jsonBuffer is small: documents are looked for in other files as well.
	jsonBuffer = 4 << 10
	// maxJSONDepth is about where Python's own reader gives up.
	maxJSONDepth = 1000
)

// errJSON says that bytes are no JSON.
var errJSON = errors.New("malformed JSON")

// A jsonEvent is what a reader of JSON comes upon.
type jsonEvent struct {
	// kind is '{', '}', '[', ']', '"' for a text, and '0' for anything else.
	kind byte
	// key is the event's own key, or that of the list that it stands in.
	key  string
	text string
	cut  bool // the text is longer than is kept
}

// A jsonReader reads one JSON value as a stream: unlike encoding/json it keeps
// no long texts, tells equal keys apart, and takes Python's NaN and Infinity.
type jsonReader struct {
	r     *bufio.Reader
	at    int64
	depth int
	see   func(jsonEvent) error
}

// readJSON shows the events of the value that r begins with, and says how long
// it is.
func readJSON(r io.Reader, see func(jsonEvent) error) (int64, error) {
	j := &jsonReader{r: bufio.NewReaderSize(r, jsonBuffer), see: see}
	err := j.value("")
	return j.at, err
}

func (j *jsonReader) bad(what string) error {
	return fmt.Errorf("%w at byte %d: %s", errJSON, j.at, what)
}

func (j *jsonReader) next() (byte, error) {
	b, err := j.r.ReadByte()
	if errors.Is(err, io.EOF) {
		return 0, j.bad("it ends early")
	}
	if err == nil {
		j.at++
	}
	return b, err
}

// token is the next byte that is no space.
func (j *jsonReader) token() (byte, error) {
	for {
		b, err := j.next()
		if err != nil || b != ' ' && b != '\n' && b != '\t' && b != '\r' {
			return b, err
		}
	}
}

func (j *jsonReader) back() {
	if err := j.r.UnreadByte(); err == nil {
		j.at--
	}
}

func (j *jsonReader) value(key string) error {
	b, err := j.token()
	if err != nil {
		return err
	}
	switch b {
	case '{', '[':
		if j.depth++; j.depth > maxJSONDepth {
			return j.bad("nested too deep")
		}
		if err := j.see(jsonEvent{kind: b, key: key}); err != nil {
			return err
		}
		if b == '{' {
			err = j.object()
		} else {
			err = j.array(key)
		}
		j.depth--
		if err != nil {
			return err
		}
		return j.see(jsonEvent{kind: b + 2, key: key}) // the closing one, in ASCII
	case '"':
		s, cut, err := j.text(maxJSONText)
		if err != nil {
			return err
		}
		return j.see(jsonEvent{kind: '"', key: key, text: s, cut: cut})
	}
	j.back()
	return j.word(key)
}

// word is a number or a name, as Python reads them.
func (j *jsonReader) word(key string) error {
	var w []byte
	for {
		b, err := j.r.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !nameByte(b) && b != '-' && b != '+' && b != '.' {
			if err := j.r.UnreadByte(); err != nil {
				return err
			}
			break
		}
		j.at++
		if w = append(w, b); len(w) > 4400 { // Python's own limit of digits is 4300
			return j.bad("a number that is too long")
		}
	}
	s := string(w)
	switch s {
	case "true", "false", "null", "NaN", "Infinity", "-Infinity":
	default:
		digits := strings.TrimPrefix(s, "-")
		if digits == "" || digits[0] < '0' || digits[0] > '9' || strings.Trim(digits, "0123456789.eE+-") != "" {
			return j.bad("want a value, got " + quote(s))
		}
	}
	return j.see(jsonEvent{kind: '0', key: key, text: s})
}

func (j *jsonReader) object() error {
	for first := true; ; first = false {
		b, err := j.token()
		if err != nil {
			return err
		}
		if b == '}' && first {
			return nil
		}
		if b != '"' {
			return j.bad("want a key")
		}
		key, _, err := j.text(maxJSONKey)
		if err != nil {
			return err
		}
		if b, err = j.token(); err != nil {
			return err
		}
		if b != ':' {
			return j.bad("want a colon")
		}
		if err := j.value(key); err != nil {
			return err
		}
		if b, err = j.token(); err != nil {
			return err
		}
		if b == '}' {
			return nil
		}
		if b != ',' {
			return j.bad("want a comma")
		}
	}
}

func (j *jsonReader) array(key string) error {
	b, err := j.token()
	if err != nil || b == ']' {
		return err
	}
	j.back()
	for {
		if err := j.value(key); err != nil {
			return err
		}
		if b, err = j.token(); err != nil {
			return err
		}
		if b == ']' {
			return nil
		}
		if b != ',' {
			return j.bad("want a comma")
		}
	}
}

// text reads a text behind its first quote, and keeps at most limit bytes.
func (j *jsonReader) text(limit int) (string, bool, error) {
	var out []byte
	cut := false
	for {
		b, err := j.next()
		if err != nil {
			return "", false, err
		}
		if b == '"' {
			break
		}
		if b < 0x20 {
			return "", false, j.bad("a control character in a text")
		}
		var piece [utf8.UTFMax]byte
		n := 1
		piece[0] = b
		if b == '\\' {
			r, err := j.escape()
			if err != nil {
				return "", false, err
			}
			n = utf8.EncodeRune(piece[:], r)
		}
		if len(out)+n > limit {
			cut = true
			continue
		}
		out = append(out, piece[:n]...)
	}
	if !utf8.Valid(out) && !cut {
		return "", false, j.bad("a text that is no UTF-8")
	}
	return string(out), cut, nil
}

func (j *jsonReader) escape() (rune, error) {
	b, err := j.next()
	if err != nil {
		return 0, err
	}
	if i := strings.IndexByte(`"\/bfnrt`, b); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	if b != 'u' {
		return 0, j.bad("an unknown escape")
	}
	r, err := j.hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	// A half of a pair alone is a character to Python, and none to us.
	if p, err := j.r.Peek(2); err != nil || string(p) != `\u` {
		return utf8.RuneError, nil //nolint:nilerr // the end is found by who reads on
	}
	if _, err := j.r.Discard(2); err != nil {
		return 0, err
	}
	j.at += 2
	low, err := j.hex()
	if err != nil {
		return 0, err
	}
	if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError || !utf16.IsSurrogate(low) {
		if pair == utf8.RuneError {
			return low, nil
		}
		return pair, nil
	}
	return utf8.RuneError, nil
}

func (j *jsonReader) hex() (rune, error) {
	var d [4]byte
	for i := range d {
		b, err := j.next()
		if err != nil {
			return 0, err
		}
		d[i] = b
	}
	n, err := strconv.ParseUint(string(d[:]), 16, 16)
	if err != nil {
		return 0, j.bad("an escape that is no number")
	}
	return rune(n), nil // #nosec G115 -- of 16 bits
}
