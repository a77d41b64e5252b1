package config

import (
	"encoding"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
)

// A Setting is an effective value and where it comes from.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "darkmirror.yaml:12" or "default"
}

// Show lists every setting that has a value, in the order of the file's
// description. Paths are as they take effect.
func Show(c *Config) []Setting {
	var all []Setting
	c.show(&all, "", c.file)
	return all
}

func (c *Config) show(all *[]Setting, path string, v reflect.Value) {
	t := v.Type()
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			c.show(all, path, v.Elem())
		}
	case v.Kind() == reflect.Struct && !isText(t):
		for _, f := range fieldsOf(t) {
			c.show(all, join(path, f.key), v.FieldByIndex(f.Index))
		}
	case v.Kind() == reflect.Slice && v.Len() > 0 && v.Index(0).Kind() == reflect.Struct && !isText(v.Index(0).Type()):
		for i := range v.Len() {
			c.show(all, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
	case v.IsZero() && !c.doc.has(path):
	default:
		*all = append(*all, Setting{Key: path, Value: text(v), Origin: c.origin(path)})
	}
}

// text writes a value as the file would.
func text(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b)
		}
	}
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range v.Len() {
			items[i] = text(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

func (c *Config) origin(path string) string {
	if !c.doc.has(path) {
		return "default"
	}
	return fmt.Sprintf("%s:%d", filepath.Base(c.doc.file), c.doc.places[path].value.Line)
}
