package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// maxConfig bounds a configuration. The largest known, of a tokenizer with
// all its added tokens, has some 10 MB.
const maxConfig = 16 << 20

// A document is a JSON object of the repository, as far as it could be read.
type document struct {
	path   string
	there  bool
	err    error
	fields map[string]json.RawMessage
}

// document reads a JSON object; one that is not there has no fields.
func (s *survey) document(p string) document {
	d := document{path: p, there: s.has(p)}
	if !d.there {
		return d
	}
	b, err := s.read(p, maxConfig)
	if err == nil {
		err = json.Unmarshal(plainJSON(b), &d.fields)
	}
	if err != nil {
		d.err = fmt.Errorf("%s: %w", p, err)
	}
	return d
}

// read reads a document of the repository: a [repo.Reader].
func (s *survey) read(p string, limit int64) ([]byte, error) {
	switch f := s.byPath[p]; {
	case s.r.Read == nil:
		return nil, errors.New("not at hand")
	case f.Size > limit:
		return nil, fmt.Errorf("%d bytes, at most %d are read", f.Size, limit)
	}
	return s.r.Read(p, limit)
}

// get decodes a field into v; false where it is not there or of another kind.
func (d *document) get(field string, v any) bool {
	raw, ok := d.fields[field]
	return ok && string(raw) != "null" && json.Unmarshal(raw, v) == nil
}

// text is the text of a field.
func (d *document) text(field string) string {
	var s string
	d.get(field, &s)
	return s
}

// classes reads auto_map: what a loader takes each class from. A value is one
// reference or a list of them, null among them.
func (d *document) classes() map[string][]string {
	var fields map[string]json.RawMessage
	if !d.get("auto_map", &fields) {
		return nil
	}
	out := make(map[string][]string)
	for class, raw := range fields {
		var one string
		var many []*string
		switch {
		case json.Unmarshal(raw, &one) == nil && one != "":
			out[class] = []string{one}
		case json.Unmarshal(raw, &many) == nil:
			for _, m := range many {
				if m != nil && *m != "" {
					out[class] = append(out[class], *m)
				}
			}
		}
	}
	return out
}

// plainJSON writes zeros in place of NaN and Infinity, which Python's json
// module takes and writes.
func plainJSON(b []byte) []byte {
	out := bytes.Clone(b)
	in := false // a string
	for i := 0; i < len(out); i++ {
		switch {
		case in && out[i] == '\\':
			i++
		case out[i] == '"':
			in = !in
		case in:
		default:
			for _, word := range []string{"NaN", "-Infinity", "Infinity"} {
				if bytes.HasPrefix(out[i:], []byte(word)) {
					copy(out[i:], "0"+strings.Repeat(" ", len(word)-1))
				}
			}
		}
	}
	return out
}

// A code is what a repository has a loader run.
type code struct {
	files   []string // of the repository: "modeling_x.py"
	missing []string // of these, what is not there
	repos   []string // other repositories
}

func (c code) any() bool { return len(c.files)+len(c.missing)+len(c.repos) > 0 }

// add takes the file or repository of a reference to a class:
// "modeling_x.Class" or "team/code--modeling_x.Class". dir is where the file
// lies, by its document.
func (c *code) add(s *survey, dir, ref string) {
	if other, _, ok := strings.Cut(ref, "--"); ok {
		if other != s.r.Name {
			add(&c.repos, clip(other))
			return
		}
		ref = ref[len(other)+2:]
	}
	module := ref
	if i := strings.LastIndexByte(ref, '.'); i > 0 {
		module = ref[:i]
	}
	file := path.Join(dir, strings.ReplaceAll(module, ".", "/")+".py")
	if s.has(file) {
		add(&c.files, file)
	} else {
		add(&c.missing, clip(file))
	}
}

// codeOf collects the code behind some classes of a document.
func (s *survey) codeOf(d document, want func(class string) bool) (c code) {
	classes := d.classes()
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		if want(class) {
			for _, ref := range classes[class] {
				c.add(s, path.Dir(d.path), ref)
			}
		}
	}
	return c
}
