// Package strictjson decodes JSON from outside so that there is one way to
// read it. encoding/json takes the last of two equal keys, matches names
// whatever their case, and replaces broken UTF-8; two programs can then read
// one signed document differently.
//
// Refused: duplicate keys, keys that are not exactly a field's name, unknown
// fields, null, invalid UTF-8 and lone surrogates, numbers that are not
// integers below 2^53, nesting deeper than [MaxDepth], anything after the
// value. The target type must not contain maps or interfaces: their keys
// could not be checked.
package strictjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxDepth bounds nesting. Our own formats need 6.
	MaxDepth = 32
	// maxInt is the greatest integer that every JSON reader holds exactly.
	maxInt = 1 << 53
)

// Unmarshal decodes data into v, a pointer to a struct. The caller bounds
// len(data).
func Unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("invalid UTF-8")
	}
	names := make(map[string]bool)
	if err := fieldNames(reflect.TypeOf(v), names, make(map[reflect.Type]bool)); err != nil {
		return err
	}
	if err := scan(data, names); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	return nil
}

// scan walks the tokens and holds every rule that encoding/json does not.
func scan(data []byte, names map[string]bool) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type frame struct {
		object bool
		key    bool // the next string is a key
		seen   map[string]bool
	}
	var stack []frame
	done := false
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			if !done {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
		if done {
			return errors.New("data after the value")
		}
		top := len(stack) - 1
		if top >= 0 && stack[top].object && stack[top].key {
			if key, ok := tok.(string); ok {
				if stack[top].seen[key] {
					return fmt.Errorf("duplicate key %q", key)
				}
				if !names[key] {
					return fmt.Errorf("unknown key %q", key)
				}
				stack[top].seen[key] = true
				stack[top].key = false
				continue
			}
		}
		switch t := tok.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				if len(stack) == MaxDepth {
					return fmt.Errorf("nested deeper than %d", MaxDepth)
				}
				stack = append(stack, frame{object: t == '{', key: t == '{', seen: map[string]bool{}})
				continue
			default:
				stack = stack[:top]
				top--
			}
		case string:
			// The decoder replaces a lone surrogate by U+FFFD.
			if strings.ContainsRune(t, utf8.RuneError) {
				return errors.New("a string holds U+FFFD or a lone surrogate")
			}
		case json.Number:
			n, err := strconv.ParseInt(t.String(), 10, 64)
			if err != nil || n > maxInt || n < -maxInt || t.String() == "-0" {
				return fmt.Errorf("number %s is not an integer below 2^53", t)
			}
		case nil:
			return errors.New("null is not allowed")
		}
		if top < 0 {
			done = true
		} else {
			stack[top].key = stack[top].object
		}
	}
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// fieldNames collects the JSON names of every field reachable from t.
func fieldNames(t reflect.Type, names map[string]bool, seen map[reflect.Type]bool) error {
	if seen[t] {
		return nil
	}
	seen[t] = true
	if t.Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler) {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return fieldNames(t.Elem(), names, seen)
	case reflect.Map, reflect.Interface:
		return fmt.Errorf("strictjson: %s cannot be read strictly", t)
	case reflect.Struct:
		for f := range t.Fields() {
			if !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-":
				continue
			case name != "":
				names[name] = true
			case !f.Anonymous:
				names[f.Name] = true
			}
			if err := fieldNames(f.Type, names, seen); err != nil {
				return err
			}
		}
	}
	return nil
}
