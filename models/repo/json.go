package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

const (
	// maxDepth bounds nesting. Configurations of models need about eight.
	maxDepth = 64
	// maxKey bounds a key: tensors have names of some hundred bytes.
	maxKey = 16 << 10
	// maxKeys bounds the keys of one document that are compared with each
	// other. The largest known weight index has 400,000.
	maxKeys = 1 << 20
)

// A jsonValue is one value of a document, not decoded.
type jsonValue struct {
	kind byte   // '{', '[', '"', '0' for a number, 't', 'f', 'n'
	raw  []byte // of a string: what stands between the quotes
}

// text decodes a string.
func (v jsonValue) text() string {
	if bytes.IndexByte(v.raw, '\\') < 0 {
		return string(v.raw)
	}
	var s string
	quoted := make([]byte, 0, len(v.raw)+2)
	quoted = append(append(append(quoted, '"'), v.raw...), '"')
	if json.Unmarshal(quoted, &s) != nil { // the reader has checked every escape
		return ""
	}
	return s
}

// A jsonReader walks a document and keeps nothing of it, so that a large or
// hostile one costs no more memory than its bytes. It takes what Python's json
// module takes: configurations hold NaN and Infinity.
type jsonReader struct {
	b     []byte
	i     int
	keys  []string // where the reader is; the members of a list have the list's
	visit func(keys []string, v jsonValue) error
	// unique refuses equal keys in one object.
	unique bool
	seen   int // keys, when unique
}

// walkJSON calls visit for each value of b, an object or list before what is in
// it. visit must not keep keys. Where unique is set, equal keys in one object
// are refused.
func walkJSON(b []byte, unique bool, visit func(keys []string, v jsonValue) error) error {
	if !utf8.Valid(b) {
		return errors.New("invalid UTF-8")
	}
	r := &jsonReader{b: b, visit: visit, unique: unique}
	if err := r.value(0); err != nil {
		return err
	}
	r.space()
	if r.i != len(r.b) {
		return r.fail("data after the value")
	}
	return nil
}

func (r *jsonReader) fail(why string) error { return fmt.Errorf("byte %d: %s", r.i, why) }

func (r *jsonReader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// next skips white space and gives the byte behind it, 0 at the end.
func (r *jsonReader) next() byte {
	r.space()
	if r.i == len(r.b) {
		return 0
	}
	return r.b[r.i]
}

func (r *jsonReader) value(depth int) error {
	if depth > maxDepth {
		return r.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	switch c := r.next(); c {
	case '{':
		return r.object(depth)
	case '[':
		return r.list(depth)
	case '"':
		s, err := r.str()
		if err != nil {
			return err
		}
		return r.visit(r.keys, jsonValue{'"', s})
	case 't':
		return r.word("true")
	case 'f':
		return r.word("false")
	case 'n':
		return r.word("null")
	case 'N':
		return r.word("NaN")
	case 'I':
		return r.word("Infinity")
	case '-':
		if r.i+1 < len(r.b) && r.b[r.i+1] == 'I' {
			return r.word("-Infinity")
		}
		return r.number()
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return r.number()
	case 0:
		return r.fail("the document ends too early")
	}
	return r.fail("not JSON")
}

func (r *jsonReader) object(depth int) error {
	if err := r.visit(r.keys, jsonValue{kind: '{'}); err != nil {
		return err
	}
	r.i++
	if r.next() == '}' {
		r.i++
		return nil
	}
	var had map[[16]byte]struct{}
	if r.unique {
		had = make(map[[16]byte]struct{})
	}
	for {
		key, err := r.key(had)
		if err != nil {
			return err
		}
		r.keys = append(r.keys, key)
		if err := r.value(depth + 1); err != nil {
			return err
		}
		r.keys = r.keys[:len(r.keys)-1]
		switch r.next() {
		case ',':
			r.i++
		case '}':
			r.i++
			return nil
		default:
			return r.fail("want ',' or '}'")
		}
	}
}

// key reads a key and its colon. had holds hashes, not keys: those of a weight
// index are most of its bytes.
func (r *jsonReader) key(had map[[16]byte]struct{}) (string, error) {
	if r.next() != '"' {
		return "", r.fail("want a key")
	}
	raw, err := r.str()
	if err != nil {
		return "", err
	}
	if len(raw) > maxKey {
		return "", r.fail(fmt.Sprintf("a key of %d bytes, at most %d", len(raw), maxKey))
	}
	key := jsonValue{'"', raw}.text()
	if had != nil {
		if r.seen++; r.seen > maxKeys {
			return "", r.fail(fmt.Sprintf("more than %d keys", maxKeys))
		}
		sum := sha256.Sum256([]byte(key))
		short := [16]byte(sum[:16])
		if _, again := had[short]; again {
			return "", r.fail(fmt.Sprintf("key %q stands twice", clip(key)))
		}
		had[short] = struct{}{}
	}
	if r.next() != ':' {
		return "", r.fail("want ':'")
	}
	r.i++
	return key, nil
}

func (r *jsonReader) list(depth int) error {
	if err := r.visit(r.keys, jsonValue{kind: '['}); err != nil {
		return err
	}
	r.i++
	if r.next() == ']' {
		r.i++
		return nil
	}
	for {
		if err := r.value(depth + 1); err != nil {
			return err
		}
		switch r.next() {
		case ',':
			r.i++
		case ']':
			r.i++
			return nil
		default:
			return r.fail("want ',' or ']'")
		}
	}
}

// str reads a string and gives what is between its quotes.
func (r *jsonReader) str() ([]byte, error) {
	r.i++
	start := r.i
	for r.i < len(r.b) {
		switch c := r.b[r.i]; {
		case c == '"':
			r.i++
			return r.b[start : r.i-1], nil
		case c < ' ':
			return nil, r.fail("a control character in a string")
		case c == '\\':
			if err := r.escape(); err != nil {
				return nil, err
			}
		default:
			r.i++
		}
	}
	return nil, r.fail("a string has no end")
}

func (r *jsonReader) escape() error {
	if r.i+1 >= len(r.b) {
		return r.fail("a string has no end")
	}
	switch r.b[r.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		r.i += 2
		return nil
	case 'u':
		if r.i+6 > len(r.b) {
			return r.fail("a string has no end")
		}
		for _, c := range r.b[r.i+2 : r.i+6] {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return r.fail("want four hex digits")
			}
		}
		r.i += 6
		return nil
	}
	return r.fail("not an escape")
}

func (r *jsonReader) word(w string) error {
	if len(r.b)-r.i < len(w) || string(r.b[r.i:r.i+len(w)]) != w {
		return r.fail("not JSON")
	}
	r.i += len(w)
	kind := w[0]
	if kind == 'N' || kind == 'I' || kind == '-' {
		kind = '0'
	}
	return r.visit(r.keys, jsonValue{kind: kind})
}

func (r *jsonReader) number() error {
	start := r.i
	if r.b[r.i] == '-' {
		r.i++
	}
	zero := r.i < len(r.b) && r.b[r.i] == '0'
	n := r.digits()
	ok := n == 1 || n > 1 && !zero
	if ok && r.i < len(r.b) && r.b[r.i] == '.' {
		r.i++
		ok = r.digits() > 0
	}
	if ok && r.i < len(r.b) && (r.b[r.i] == 'e' || r.b[r.i] == 'E') {
		r.i++
		if r.i < len(r.b) && (r.b[r.i] == '+' || r.b[r.i] == '-') {
			r.i++
		}
		ok = r.digits() > 0
	}
	if !ok {
		return r.fail("not a number")
	}
	return r.visit(r.keys, jsonValue{'0', r.b[start:r.i]})
}

func (r *jsonReader) digits() (n int) {
	for r.i < len(r.b) && r.b[r.i] >= '0' && r.b[r.i] <= '9' {
		r.i++
		n++
	}
	return n
}

// clip shortens outside text for a message.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
