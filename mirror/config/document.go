package config

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

const (
	// maxDepth bounds nesting; the deepest key of ours lies at 6.
	maxDepth = 16
	// maxProblems bounds what is reported; nobody reads on after so many.
	maxProblems = 100
	// maxSource bounds a line that is shown with its problem, in bytes.
	maxSource = 400
)

// A document is a YAML file as text and as a tree, and the problems found in
// it so far.
type document struct {
	file  string
	data  []byte
	lines []string
	root  *yaml.Node
	// places maps a path like "apt[0].archives[1].url" to its node.
	places map[string]place
	// keys and values map a position to the path that is there. A mapping
	// starts where its first key does, hence two maps.
	keys, values map[mark]string
	problems     Problems
	// bad are paths with a problem already: what else would be wrong with
	// them, or with what is below them, follows from it.
	bad map[string]bool
}

// lineEnd is what counts as the end of a line in YAML.
var lineEnd = regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]")

type mark struct{ line, column int }

// A place is where something stands: its key, if it has one, and its value.
type place struct {
	key, value *yaml.Node
}

// parse reads the tree. A file that is not YAML gives a document with
// problems and no root.
func parse(file string, data []byte) *document {
	d := &document{
		file: file, data: data, lines: lineEnd.Split(string(data), -1),
		places: make(map[string]place), keys: make(map[mark]string), values: make(map[mark]string), bad: make(map[string]bool),
	}
	var n yaml.Node
	if err := yaml.Load(data, &n); err != nil {
		d.syntax(err)
		return d
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
		d.at(mark{}, "the file is empty")
		return d
	}
	root := n.Content[0]
	if root.Kind != yaml.MappingNode {
		d.at(markOf(root), "want keys and values, got %s", describe(root))
		return d
	}
	if d.walk("", place{value: root}) {
		d.root = root
	}
	return d
}

// at adds a problem at a position; the zero mark is the whole file.
func (d *document) at(m mark, format string, args ...any) {
	if len(d.problems) >= maxProblems {
		return
	}
	p := Problem{File: d.file, Line: m.line, Column: m.column, Text: mask(fmt.Sprintf(format, args...))}
	if m.line > 0 && m.line <= len(d.lines) && len(d.lines[m.line-1]) <= maxSource {
		p.Source = mask(d.lines[m.line-1])
	}
	if !slices.Contains(d.problems, p) {
		d.problems = append(d.problems, p)
	}
}

// on adds a problem at the key of a path or, where the file does not have the
// path, at the nearest thing above it.
func (d *document) on(path, format string, args ...any) {
	for p := path; ; p = parentOf(p) {
		if d.bad[p] {
			return
		}
		if p == "" {
			break
		}
	}
	text := fmt.Sprintf(format, args...)
	for {
		if p, ok := d.places[path]; ok {
			n := p.value
			if p.key != nil {
				n = p.key
			}
			d.at(markOf(n), "%s", text)
			return
		}
		if path == "" {
			d.at(mark{}, "%s", text)
			return
		}
		path = parentOf(path)
	}
}

// spoil keeps further problems of a path from being reported.
func (d *document) spoil(path string) {
	if strings.HasSuffix(path, "]") {
		// The library drops such an item, which moves those behind it.
		path = parentOf(path)
	}
	d.bad[path] = true
}

// has reports whether the file gives a path a value.
func (d *document) has(path string) bool {
	p, ok := d.places[path]
	return ok && !isNull(p.value)
}

// walk indexes a node and holds what yaml itself would let pass. It reports
// whether decoding the node makes sense.
func (d *document) walk(path string, p place) (ok bool) {
	d.places[path] = p
	n := p.value
	d.values[markOf(n)] = path
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		d.at(markOf(n), "anchors and aliases are not used in this file; write the value out")
		return false
	}
	if n.Kind != yaml.ScalarNode && strings.Count(path, ".")+strings.Count(path, "[") >= maxDepth {
		d.at(markOf(n), "nested too deep")
		return false
	}
	ok = true
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			switch {
			case k.Kind != yaml.ScalarNode:
				d.at(markOf(k), "a key must be a word, got %s", describe(k))
				ok = false
			case k.Value == "<<":
				d.at(markOf(k), "merge keys are not used in this file; write the values out")
				ok = false
			default:
				sub := join(path, step(k.Value))
				d.keys[markOf(k)] = sub
				ok = d.walk(sub, place{k, v}) && ok
			}
		}
	case yaml.SequenceNode:
		for i, v := range n.Content {
			sub := path + "[" + strconv.Itoa(i) + "]"
			if isNull(v) {
				d.at(markOf(v), "an item of the list is empty")
				d.spoil(sub)
			}
			ok = d.walk(sub, place{value: v}) && ok
		}
	case yaml.ScalarNode:
		if u, err := url.Parse(n.Value); err == nil && u.Host != "" && u.User != nil {
			d.at(markOf(n), "credentials do not belong into a URL; write user: and password_file: beside it")
			d.spoil(path)
		}
	}
	return ok
}

// step is a key as a part of a path. None of ours holds a dot; in a path it
// would look like a key below another.
func step(key string) string { return strings.NewReplacer(".", "\x00", "[", "\x00").Replace(key) }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func parentOf(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

func markOf(n *yaml.Node) mark { return mark{n.Line, n.Column} }

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case isNull(n):
		return "nothing"
	default:
		return strconv.Quote(clip(n.Value))
	}
}

// decode fills v, a pointer to a struct, and adds what is wrong.
func (d *document) decode(v any) {
	err := yaml.Load(d.data, v, yaml.WithKnownFields())
	if err == nil {
		return
	}
	all, ok := errors.AsType[*yaml.LoadErrors](err)
	if !ok {
		d.syntax(err)
		return
	}
	for _, e := range all.Errors {
		d.loadError(e, reflect.TypeOf(v))
	}
}

// syntax adds what the library says of a file that is not YAML.
func (d *document) syntax(err error) {
	e, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		d.at(mark{}, "not YAML: %v", err)
		return
	}
	text := strings.TrimPrefix(e.Message, "yaml: ")
	switch {
	case strings.Contains(text, "no documents"):
		d.at(mark{}, "the file is empty")
		return
	case strings.Contains(text, "found multiple"):
		d.at(mark{}, "more than one document: take out the line ---")
		return
	case e.ContextMsg != "":
		text = e.ContextMsg + ", " + text
	}
	d.at(mark{e.Mark.Line, e.Mark.Column}, "not YAML: %s", text)
}

// The library's own words name Go types, so only their kind is taken from
// them, and our text is made from the position.
var (
	unknownKey   = regexp.MustCompile(`^field .* not found in type `)
	duplicateKey = regexp.MustCompile(`already (defined|set)`)
)

func (d *document) loadError(e *yaml.LoadError, root reflect.Type) {
	m := mark{e.Mark.Line, e.Mark.Column}
	switch key, isKey := d.keys[m]; {
	case isKey && unknownKey.MatchString(e.Message):
		d.unknown(m, key, root)
	case isKey && duplicateKey.MatchString(e.Message):
		name, above := d.split(key)
		d.spoil(above) // of which the library then reads nothing
		d.at(m, "key %q is given twice", name)
	case strings.HasPrefix(e.Message, "cannot construct "):
		path := d.values[m]
		d.spoil(path)
		p, ok := d.places[path]
		if t := typeAt(root, path); ok && t != nil {
			d.at(m, "%s: want %s, got %s", path, wanted(t), describe(p.value))
			return
		}
		d.at(m, "a value of the wrong kind")
	default: // an UnmarshalText of ours
		d.spoil(d.values[m])
		d.at(m, "%s: %s", d.values[m], e.Message)
	}
}

// unknown says what is wrong with a key that the struct above does not have.
func (d *document) unknown(m mark, path string, root reflect.Type) {
	key, above := d.split(path)
	if regexp.MustCompile(`(?i)^(` + secretKeys + `)$`).MatchString(key) {
		d.at(m, "secrets are never written here (key %q); name a file with password_file", key)
		return
	}
	known := keysOf(typeAt(root, above))
	for _, r := range roles() {
		if above == "" && reflect.PointerTo(r.file) != root && slices.Contains(keysOf(r.file), key) {
			d.at(m, "key %q belongs to role %s", key, r.name)
			return
		}
	}
	if like := closest(key, known); like != "" {
		d.spoil(join(above, like))
		d.at(m, "unknown key %q (did you mean %q?)", key, like)
		return
	}
	d.at(m, "unknown key %q (known here: %s)", key, strings.Join(known, ", "))
}

// split takes a path of a key apart.
func (d *document) split(path string) (key, above string) {
	key = d.places[path].key.Value
	return clip(key), strings.TrimSuffix(strings.TrimSuffix(path, step(key)), ".")
}
