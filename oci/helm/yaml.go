package helm

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// maxDepth bounds nesting. A Chart.yaml needs six levels.
const maxDepth = 32

// document reads one YAML document as a tree that has one meaning only.
func document(b []byte) (*yaml.Node, error) {
	var n yaml.Node
	if err := yaml.Load(b, &n); err != nil {
		return nil, err
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
		return nil, errors.New("empty")
	}
	root := n.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("want keys and values at the top")
	}
	if err := plain(root, 0); err != nil {
		return nil, err
	}
	return root, nil
}

// plain refuses what makes a tree ambiguous, or larger than its text.
func plain(n *yaml.Node, depth int) error {
	switch {
	case depth > maxDepth:
		return fmt.Errorf("line %d: nested deeper than %d", n.Line, maxDepth)
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("line %d: anchors and aliases are not taken", n.Line)
	case n.Style&yaml.TaggedStyle != 0:
		return fmt.Errorf("line %d: tag %q is not taken", n.Line, clip(n.Tag))
	}
	if n.Kind == yaml.MappingNode {
		if err := plainKeys(n); err != nil {
			return err
		}
	}
	for _, c := range n.Content {
		if err := plain(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func plainKeys(n *yaml.Node) error {
	seen := make(map[string]bool, len(n.Content)/2)
	for k := range pairs(n) {
		switch {
		case k.Kind != yaml.ScalarNode:
			return fmt.Errorf("line %d: a key must be a word", k.Line)
		case k.Value == "<<" && !quoted(k):
			return fmt.Errorf("line %d: merge keys are not taken", k.Line)
		case seen[k.Value]:
			return fmt.Errorf("line %d: key %q stands twice", k.Line, clip(k.Value))
		}
		seen[k.Value] = true
	}
	return nil
}

// pairs are the keys and values of a mapping.
func pairs(n *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// decode fills a struct as Helm does: YAML to JSON, JSON to the struct. What is
// not in n stays as it was.
func decode(n *yaml.Node, into any) error {
	v, err := jsonable(n, reflect.TypeOf(into))
	if err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	err = json.Unmarshal(b, into)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("line %d: %s: not the kind of value that belongs there: %s", n.Line, e.Field, e.Value)
	}
	return err
}

// jsonable gives the value that a node stands for in JSON. A number or boolean
// where t wants a string becomes its text, as Helm's YAML library writes it:
// "appVersion: 1.10" is the version 1.1. That may be nobody's intention, but
// inside and outside must see the same.
func jsonable(n *yaml.Node, t reflect.Type) (any, error) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n.Kind {
	case yaml.MappingNode:
		return object(n, t)
	case yaml.SequenceNode:
		var elem reflect.Type
		if t != nil && t.Kind() == reflect.Slice {
			elem = t.Elem()
		}
		out := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := jsonable(c, elem)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	v := scalar(n)
	if s, ok := asText(v); ok && t != nil && t.Kind() == reflect.String {
		return s, nil
	}
	return v, nil
}

func object(n *yaml.Node, t reflect.Type) (any, error) {
	out := make(map[string]any, len(n.Content)/2)
	for k, v := range pairs(n) {
		key, ok := asText(scalar(k))
		if _, large := scalar(k).(uint64); large || !ok {
			return nil, fmt.Errorf("line %d: a key must be a word", k.Line)
		}
		elem := reflect.Type(nil)
		switch {
		case t != nil && t.Kind() == reflect.Struct:
			f, known := field(t, key)
			if !known {
				continue
			}
			// encoding/json does not tell letters by their case.
			key, elem = f.Name, f.Type
		case t != nil && t.Kind() == reflect.Map:
			elem = t.Elem()
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("line %d: key %q stands twice", k.Line, clip(key))
		}
		w, err := jsonable(v, elem)
		if err != nil {
			return nil, err
		}
		out[key] = w
	}
	return out, nil
}

// field finds the field of a struct that encoding/json would fill. Its Name is
// that of the JSON key.
func field(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		f.Name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
		if strings.EqualFold(f.Name, key) {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// asText writes a scalar where a string is wanted.
func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	case float64:
		// With the digits of 32 bits, as there.
		return strconv.FormatFloat(v, 'g', -1, 32), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

func quoted(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// yamlFloat is what counts as a decimal fraction.
var yamlFloat = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// scalar reads a word by the rules of YAML 1.1, as Helm's library does and this
// package's does not: "yes" is a boolean, 010 is eight. A date stays text.
func scalar(n *yaml.Node) any {
	s := n.Value
	if quoted(n) {
		return s
	}
	switch s {
	case ".nan", ".NaN", ".NAN":
		return math.NaN()
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return math.Inf(1)
	case "-.inf", "-.Inf", "-.INF":
		return math.Inf(-1)
	case "", "~", "null", "Null", "NULL":
		return nil
	case "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true
	case "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false
	}
	switch c := s[0]; {
	case c == '.':
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	case c == '+' || c == '-' || c >= '0' && c <= '9':
		return number(s)
	}
	return s
}

// number reads a word that begins as a number does; it may be none.
func number(s string) any {
	digits := strings.ReplaceAll(s, "_", "")
	if i, err := strconv.ParseInt(digits, 0, 64); err == nil {
		return i
	}
	if u, err := strconv.ParseUint(digits, 0, 64); err == nil {
		return u
	}
	if yamlFloat.MatchString(digits) {
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			return f
		}
	}
	return s
}
