package pypi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// jsonReader walks a JSON document from front to end. It makes no tree, its
// depth is bounded, and keys are taken exactly as they are written. Pages are
// large and many: encoding/json, token by token, takes ten times as long.
type jsonReader struct {
	b     []byte
	at    int
	depth int
}

func newJSONReader(b []byte) *jsonReader { return &jsonReader{b: b} }

// next passes over white space and returns the byte behind it, 0 at the end.
func (j *jsonReader) next() byte {
	for j.at < len(j.b) {
		switch c := j.b[j.at]; c {
		case ' ', '\t', '\n', '\r':
			j.at++
		default:
			return c
		}
	}
	return 0
}

// take passes over one byte that has to be there.
func (j *jsonReader) take(want byte) error {
	c := j.next()
	if j.at >= len(j.b) {
		return io.ErrUnexpectedEOF
	}
	if c != want {
		return fmt.Errorf("%s, want %c", j.kind(), want)
	}
	j.at++
	return nil
}

// end sees that nothing follows.
func (j *jsonReader) end() error {
	if j.next(); j.at < len(j.b) {
		return errors.New("data after the page")
	}
	return nil
}

// kind names what comes next, for messages.
func (j *jsonReader) kind() string {
	switch c := j.next(); {
	case j.at >= len(j.b):
		return "the end"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	default:
		return strconv.QuoteRune(rune(c))
	}
}

func (j *jsonReader) wrong(want string) error {
	if j.next(); j.at >= len(j.b) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s, want %s", j.kind(), want)
}

func (j *jsonReader) enter() error {
	if j.depth++; j.depth > maxJSONDepth {
		return fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	return nil
}

// items calls fn for each element between two brackets.
func (j *jsonReader) items(open, shut byte, fn func() error) error {
	if err := j.take(open); err != nil {
		return err
	}
	if err := j.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		if first && j.next() == shut {
			j.at++
			break
		}
		if err := fn(); err != nil {
			return err
		}
		c := j.next()
		if j.at >= len(j.b) {
			return io.ErrUnexpectedEOF
		}
		if c != ',' && c != shut {
			return fmt.Errorf("%s, want , or %c", j.kind(), shut)
		}
		j.at++
		if c == shut {
			break
		}
	}
	j.depth--
	return nil
}

// maxJSONKeys bounds the keys of one object that is read; those of pages have
// ten.
const maxJSONKeys = 10_000

// object calls fn for each key; fn takes the value.
func (j *jsonReader) object(fn func(key string) error) error {
	var few [16]string // pages have objects of up to ten keys
	seen := few[:0]
	var many map[string]bool
	return j.items('{', '}', func() error {
		key, err := j.string()
		if err != nil {
			return err
		}
		if many == nil && len(seen) == cap(seen) {
			many = make(map[string]bool)
			for _, k := range seen {
				many[k] = true
			}
		}
		twice := many[key]
		for _, k := range seen {
			twice = twice || k == key
		}
		if twice {
			return fmt.Errorf("key %q is there twice", clip(key))
		}
		if len(many) >= maxJSONKeys {
			return fmt.Errorf("over %d keys", maxJSONKeys)
		}
		if many != nil {
			seen, many[key] = nil, true
		} else {
			seen = append(seen, key)
		}
		if err := j.take(':'); err != nil {
			return err
		}
		return fn(key)
	})
}

// array calls fn for each value.
func (j *jsonReader) array(fn func() error) error { return j.items('[', ']', fn) }

// skip passes over any value, of which it keeps nothing: what nobody reads may
// be most of a page.
func (j *jsonReader) skip() error {
	switch c := j.next(); c {
	case '{':
		return j.items('{', '}', func() error {
			if err := j.skipString(); err != nil {
				return err
			}
			if err := j.take(':'); err != nil {
				return err
			}
			return j.skip()
		})
	case '[':
		return j.array(j.skip)
	case '"':
		return j.skipString()
	case 't':
		return j.word("true")
	case 'f':
		return j.word("false")
	case 'n':
		return j.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			_, err := j.number()
			return err
		}
		return j.wrong("a value")
	}
}

func (j *jsonReader) word(w string) error {
	j.next()
	if !bytes.HasPrefix(j.b[j.at:], []byte(w)) {
		return fmt.Errorf("%q, want %s", clip(string(j.b[j.at:min(len(j.b), j.at+len(w))])), w)
	}
	j.at += len(w)
	return nil
}

// skipString passes over a string.
func (j *jsonReader) skipString() error {
	if c := j.next(); c != '"' {
		return j.wrong("a string")
	}
	for i := j.at + 1; i < len(j.b); i++ {
		switch c := j.b[i]; {
		case c == '"':
			j.at = i + 1
			return nil
		case c < ' ':
			return errors.New("a control character in a string")
		case c == '\\':
			n := escapeLen(j.b[i+1:])
			if n == 0 {
				return errors.New("a malformed escape in a string")
			}
			i += n
		}
	}
	return io.ErrUnexpectedEOF
}

// escapeLen is how long an escape is behind its backslash; 0 if it is none.
func escapeLen(b []byte) int {
	const unicode = 5
	switch {
	case len(b) == 0:
	case strings.IndexByte(`"\/bfnrt`, b[0]) >= 0:
		return 1
	case b[0] == 'u' && len(b) >= unicode:
		for _, c := range b[1:unicode] {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return unicode
	}
	return 0
}

// string takes a string.
func (j *jsonReader) string() (string, error) {
	if c := j.next(); c != '"' {
		return "", j.wrong("a string")
	}
	start := j.at
	for i := start + 1; i < len(j.b); i++ {
		switch c := j.b[i]; {
		case c == '"':
			j.at = i + 1
			raw := j.b[start+1 : i]
			if !utf8.Valid(raw) {
				return strings.ToValidUTF8(string(raw), "\uFFFD"), nil
			}
			return string(raw), nil
		case c == '\\':
			return j.escaped(start)
		case c < ' ':
			return "", errors.New("a control character in a string")
		}
	}
	return "", io.ErrUnexpectedEOF
}

// escaped takes a string that has a backslash.
func (j *jsonReader) escaped(start int) (s string, err error) {
	for i := start + 1; i < len(j.b); i++ {
		switch j.b[i] {
		case '\\':
			i++
		case '"':
			j.at = i + 1
			err = json.Unmarshal(j.b[start:j.at], &s)
			return s, err
		}
	}
	return "", io.ErrUnexpectedEOF
}

// number takes a number as it is written.
func (j *jsonReader) number() ([]byte, error) {
	if c := j.next(); c != '-' && (c < '0' || c > '9') {
		return nil, j.wrong("a number")
	}
	i := j.at
	digits := func() bool {
		from := i
		for i < len(j.b) && j.b[i] >= '0' && j.b[i] <= '9' {
			i++
		}
		return i > from
	}
	is := func(set string) bool { return i < len(j.b) && strings.IndexByte(set, j.b[i]) >= 0 }
	if is("-") {
		i++
	}
	ok := true
	if is("0") {
		i++
	} else {
		ok = digits()
	}
	if ok && is(".") {
		i++
		ok = digits()
	}
	if ok && is("eE") {
		i++
		if is("+-") {
			i++
		}
		ok = digits()
	}
	text := j.b[j.at:i]
	if !ok {
		return nil, fmt.Errorf("%q is not a number", clip(string(text)))
	}
	j.at = i
	return text, nil
}

// null takes a null, if one is there.
func (j *jsonReader) null() (bool, error) {
	if j.next() != 'n' {
		return false, nil
	}
	return true, j.word("null")
}

// text takes a string or null.
func (j *jsonReader) text() (s string, ok bool, err error) {
	if null, err := j.null(); null || err != nil {
		return "", false, err
	}
	s, err = j.string()
	return s, err == nil, err
}

// size takes a length or null.
func (j *jsonReader) size() (int64, error) {
	if null, err := j.null(); null || err != nil {
		return -1, err
	}
	n, err := j.number()
	if err != nil {
		return -1, err
	}
	v, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || v < 0 {
		return -1, fmt.Errorf("%q is not a size", clip(string(n)))
	}
	return v, nil
}

// boolean takes true or false.
func (j *jsonReader) boolean() (bool, error) {
	if j.next() == 't' {
		return true, j.word("true")
	}
	return false, j.word("false")
}

// flagOrText takes what "yanked" may be: a boolean, a reason or null.
func (j *jsonReader) flagOrText() (set bool, text string, err error) {
	switch j.next() {
	case 't', 'f':
		set, err = j.boolean()
	case '"':
		text, err = j.string()
		set = text != ""
	case 'n':
		err = j.word("null")
	default:
		err = j.wrong("a boolean or a string")
	}
	return set, text, err
}

// metadataHash takes what "core-metadata" may be: a boolean, an object of
// hashes or null.
func (j *jsonReader) metadataHash() (d artifact.Digest, err error) {
	switch j.next() {
	case 't', 'f':
		_, err = j.boolean()
		return d, err
	case 'n':
		return d, j.word("null")
	case '{':
	default:
		return d, j.wrong("a boolean or an object")
	}
	err = j.object(func(key string) error {
		v, ok, err := j.text()
		if err == nil && ok && key == "sha256" {
			d, err = artifact.ParseHex(strings.ToLower(v))
		}
		return err
	})
	return d, err
}
