package provenance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nesting. An object needs 9; a predicate of SLSA about 8.
const maxDepth = 64

// reader walks JSON token by token. encoding/json alone would match keys
// whatever their case and take the last of two; two programs could then read
// one object differently. Unknown keys are passed over, as the specification
// allows them, but no key may come twice, known or not.
type reader struct {
	dec   *json.Decoder
	depth int
}

// A field is a key of an object and what takes its value.
type field struct {
	name string
	need bool
	read func() error
}

// document reads one object and sees that nothing follows it.
func document(data []byte, fields func(r *reader) []field) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	r := &reader{dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	if err := r.object(fields(r)...); err != nil {
		return err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	return nil
}

func (r *reader) token() (json.Token, error) {
	t, err := r.dec.Token()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return t, err
}

func (r *reader) object(fields ...field) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return wrong(t, "an object")
	}
	return r.members(fields)
}

// members reads an object from behind its brace.
func (r *reader) members(fields []field) error {
	if r.depth++; r.depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	seen := make(map[string]bool)
	for r.dec.More() {
		t, err := r.token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok || seen[key] {
			return fmt.Errorf("key %q is there twice", clip(key))
		}
		seen[key] = true
		read := r.skip
		if i := slices.IndexFunc(fields, func(f field) bool { return f.name == key }); i >= 0 {
			read = fields[i].read
		}
		if err := read(); err != nil {
			return fmt.Errorf("%s: %w", clip(key), err)
		}
	}
	for _, f := range fields {
		if f.need && !seen[f.name] {
			return fmt.Errorf("key %q is missing", f.name)
		}
	}
	r.depth--
	_, err := r.token()
	return err
}

// array calls fn for each value, at most limit times.
func (r *reader) array(limit int, fn func() error) error {
	t, err := r.token()
	if err != nil {
		return err
	}
	if t != json.Delim('[') {
		return wrong(t, "an array")
	}
	return r.elements(limit, fn)
}

// elements reads an array from behind its bracket.
func (r *reader) elements(limit int, fn func() error) error {
	if r.depth++; r.depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	for n := 1; r.dec.More(); n++ {
		if n > limit {
			return fmt.Errorf("more than %d values", limit)
		}
		if err := fn(); err != nil {
			return fmt.Errorf("value %d: %w", n, err)
		}
	}
	r.depth--
	_, err := r.token()
	return err
}

// skip passes over any value.
func (r *reader) skip() error {
	t, err := r.token()
	switch {
	case err != nil:
		return err
	case t == json.Delim('{'):
		return r.members(nil)
	case t == json.Delim('['):
		return r.elements(maxObject, r.skip)
	}
	return nil
}

// text takes a string into s. Null leaves s alone where that is allowed.
func (r *reader) text(s *string, null bool) func() error {
	return func() error {
		t, err := r.token()
		if err != nil || t == nil && null {
			return err
		}
		v, ok := t.(string)
		if !ok {
			return wrong(t, "a string")
		}
		// The decoder puts this rune in the place of a lone surrogate.
		if strings.ContainsRune(v, utf8.RuneError) {
			return errors.New("holds a lone surrogate or U+FFFD")
		}
		*s = v
		return nil
	}
}

// bytes takes base64 with padding, without white space and without stray bits
// at its end, so that there is one way to write it.
func (r *reader) bytes(b *[]byte, limit int) func() error {
	return func() error {
		var s string
		if err := r.text(&s, false)(); err != nil {
			return err
		}
		switch {
		case base64.StdEncoding.DecodedLen(len(s)) > limit+2: // DecodedLen counts the padding
			return fmt.Errorf("over %d bytes", limit)
		case strings.ContainsAny(s, "\r\n"): // Go's decoder passes over these
			return errors.New("line breaks inside base64")
		}
		v, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return errors.New("not canonical base64")
		}
		if len(v) == 0 || len(v) > limit {
			return fmt.Errorf("%d bytes, want 1 to %d", len(v), limit)
		}
		*b = v
		return nil
	}
}

// number takes an integer from 0, bare or in quotes: protobuf's JSON writes 64
// bits in quotes and reads both.
func (r *reader) number(n *int64) func() error {
	return func() error {
		t, err := r.token()
		if err != nil {
			return err
		}
		var s string
		switch v := t.(type) {
		case json.Number:
			s = v.String()
		case string:
			s = v
		default:
			return wrong(t, "an integer")
		}
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < 0 || strconv.FormatInt(v, 10) != s {
			return fmt.Errorf("%q is not an integer from 0", clip(s))
		}
		*n = v
		return nil
	}
}

// one takes the version of a format, of which 1 is the only one.
func (r *reader) one() error {
	t, err := r.token()
	if err != nil {
		return err
	}
	if t != json.Number("1") {
		return wrong(t, "1")
	}
	return nil
}

func wrong(t json.Token, want string) error {
	switch v := t.(type) {
	case nil:
		return fmt.Errorf("null, want %s", want)
	case json.Delim:
		return fmt.Errorf("%q, want %s", v.String(), want)
	}
	return fmt.Errorf("%q, want %s", clip(fmt.Sprint(t)), want)
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
