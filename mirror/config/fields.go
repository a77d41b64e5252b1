package config

import (
	"encoding"
	"reflect"
	"strings"
	"time"
)

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

// A field is a struct field under its YAML key.
type field struct {
	key string
	reflect.StructField
}

// fieldsOf lists the fields of a struct by YAML key, those of inlined structs
// in their place. Index leads to them from the struct itself.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case strings.Contains(opts, "inline"):
			for _, sub := range fieldsOf(f.Type) {
				sub.Index = append(append([]int{}, f.Index...), sub.Index...)
				all = append(all, sub)
			}
		default:
			if name == "" {
				name = strings.ToLower(f.Name) // as the library does
			}
			all = append(all, field{name, f})
		}
	}
	return all
}

// keysOf lists the YAML keys of a struct; t may be nil.
func keysOf(t reflect.Type) []string {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	var keys []string
	for _, f := range fieldsOf(t) {
		keys = append(keys, f.key)
	}
	return keys
}

// isText reports whether values of t are written as one scalar.
func isText(t reflect.Type) bool {
	return t.Implements(textUnmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler)
}

// typeAt follows a path through the types, or returns nil.
func typeAt(t reflect.Type, path string) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if path == "" {
		return t
	}
	if strings.HasPrefix(path, "[") {
		_, rest, ok := strings.Cut(path, "]")
		if !ok || t.Kind() != reflect.Slice {
			return nil
		}
		return typeAt(t.Elem(), strings.TrimPrefix(rest, "."))
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		end = len(path)
	}
	for _, f := range fieldsOf(t) {
		if f.key == path[:end] {
			return typeAt(f.Type, strings.TrimPrefix(path[end:], "."))
		}
	}
	return nil
}

// wanted tells a person what a value of the type looks like.
func wanted(t reflect.Type) string {
	switch {
	case isText(t):
		return "one value"
	case t == durationType:
		return "a time in hours, as in 720h"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !isText(t.Elem()):
		return "a list of keys and values, each starting with \"- \""
	case t.Kind() == reflect.Slice:
		return "a list, as in [a, b]"
	case t.Kind() == reflect.Struct:
		return "keys and values"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	default:
		return "a number"
	}
}
