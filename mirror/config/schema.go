package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// A schema is the part of JSON Schema (draft 2020-12) that editors need.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name or a list of them
	Const       any                `json:"const,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Default     string             `json:"default,omitempty"`
	OneOf       []*schema          `json:"oneOf,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Additional  *bool              `json:"additionalProperties,omitempty"`
}

// Schema returns the JSON Schema of both files, generated from their types.
// darkmirror.schema.json is its output.
func Schema() []byte {
	top := &schema{Schema: "https://json-schema.org/draft/2020-12/schema", Title: "darkmirror configuration"}
	for _, r := range roles() {
		s := schemaOf(r.file)
		s.Title = r.name
		doc := s.Properties["version"].Description
		s.Properties["version"] = &schema{Description: doc, Const: version}
		doc = s.Properties["role"].Description
		s.Properties["role"] = &schema{Description: doc, Const: r.name}
		top.OneOf = append(top.OneOf, s)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(top); err != nil {
		panic(err) // plain structs always encode
	}
	return b.Bytes()
}

func schemaOf(t reflect.Type) *schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case isText(t) || t.Kind() == reflect.String || t == durationType:
		// Text may be written without quotes, and then looks like a number to
		// an editor: 3.10.
		return &schema{Type: []string{"string", "number"}}
	case t.Kind() == reflect.Bool:
		return &schema{Type: "boolean"}
	case t.Kind() == reflect.Slice:
		return &schema{Type: "array", Items: schemaOf(t.Elem())}
	case t.Kind() == reflect.Struct:
		s := &schema{Type: "object", Properties: make(map[string]*schema), Additional: new(bool)}
		for _, f := range fieldsOf(t) {
			p := schemaOf(f.Type)
			p.Description, p.Default = f.Tag.Get("doc"), f.Tag.Get("default")
			if enum := f.Tag.Get("enum"); enum != "" {
				p.Type, p.Enum = nil, strings.Split(enum, "|")
			}
			if f.Tag.Get("required") != "" {
				s.Required = append(s.Required, f.key)
			}
			s.Properties[f.key] = p
		}
		return s
	default:
		return &schema{Type: "integer"}
	}
}
