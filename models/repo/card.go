package repo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

const (
	// maxCard bounds a README.md that is looked into.
	maxCard = 16 << 20
	// maxFront bounds the settings at its beginning. Those of data sets list
	// every column of every part: some have 500 KiB.
	maxFront = 1 << 20
	// maxField bounds one setting that is read here, and its values: a YAML
	// tree has many times the size of its text.
	maxField  = 64 << 10
	maxValues = 1000
	maxValue  = 1024
)

// cardFields are the settings of a card that are read.
var cardFields = []string{"license", "license_name", "license_link", "base_model", "datasets", "new_version"}

// A card is what a repository says of itself at the beginning of its README.md.
type card struct {
	path   string
	fields map[string][]string
}

// one is a setting's value; a list is joined.
func (c *card) one(field string) string { return strings.Join(c.fields[field], ", ") }

// findCard reads the card of a repository; nil where it has none. The text says
// what could not be read.
func findCard(files []File, read Reader) (*card, []string) {
	i := slices.IndexFunc(files, func(f File) bool { return f.Path == "README.md" })
	if i < 0 {
		i = slices.IndexFunc(files, func(f File) bool { return strings.EqualFold(f.Path, "README.md") })
	}
	if i < 0 {
		return nil, nil
	}
	f := files[i]
	if f.Size > maxCard {
		return nil, []string{fmt.Sprintf("%s: %d bytes, at most %d are read", f.Path, f.Size, maxCard)}
	}
	b, err := read(f.Path, maxCard)
	if err != nil {
		return nil, []string{fmt.Sprintf("%s: %v", f.Path, err)}
	}
	fields, problems := parseCard(b)
	for j, p := range problems {
		problems[j] = f.Path + ": " + p
	}
	return &card{f.Path, fields}, problems
}

// parseCard reads the wanted settings at the beginning of a card, each by
// itself: an error in another one, or its size, does no harm. Settings are in
// YAML's block style, each beginning at the start of a line.
func parseCard(b []byte) (map[string][]string, []string) {
	front, err := frontMatter(b)
	if err != nil {
		return nil, []string{err.Error()}
	}
	fields := make(map[string][]string)
	var problems []string
	for _, s := range settings(front) {
		values, err := parseSetting(s)
		if err == nil && fields[s.name] != nil {
			err = errors.New("stands twice")
		}
		if err != nil {
			problems = append(problems, s.name+": "+err.Error())
			continue
		}
		if len(values) > 0 {
			fields[s.name] = values
		}
	}
	return fields, problems
}

// frontMatter is what stands between the two lines of three dashes at the
// beginning of a card; empty where there is none.
func frontMatter(b []byte) ([]byte, error) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	b = bytes.TrimLeft(b, " \t\r\n")
	first, rest, _ := bytes.Cut(b, []byte("\n"))
	if string(bytes.TrimRight(first, " \t\r")) != "---" {
		return nil, nil
	}
	for at := 0; at < len(rest); {
		line, _, more := bytes.Cut(rest[at:], []byte("\n"))
		if string(bytes.TrimRight(line, " \t\r")) == "---" {
			front := rest[:at]
			if !utf8.Valid(front) {
				return nil, errors.New("the settings are not valid UTF-8")
			}
			return front, nil
		}
		at += len(line) + 1
		if at > maxFront {
			return nil, fmt.Errorf("settings of more than %d bytes", maxFront)
		}
		if !more {
			break
		}
	}
	return nil, errors.New("the settings have no end: want a line of three dashes")
}

// A setting is the text of one wanted setting.
type setting struct {
	name string
	text []byte
}

// settings cuts the wanted ones out of the front matter.
func settings(front []byte) (out []setting) {
	in := false
	for line := range bytes.Lines(front) {
		if c := line[0]; c == ' ' || c == '\t' || c == '-' || c == '#' || c == '\r' || c == '\n' {
			if in { // more of the setting above
				out[len(out)-1].text = append(out[len(out)-1].text, line...)
			}
			continue
		}
		key, _, _ := bytes.Cut(line, []byte(":"))
		name := strings.Trim(strings.TrimSpace(string(key)), `"'`)
		if in = slices.Contains(cardFields, name); in {
			out = append(out, setting{name, bytes.Clone(line)})
		}
	}
	return out
}

// parseSetting reads a word or a list of words. What YAML repeats by reference
// is refused, not followed.
func parseSetting(s setting) ([]string, error) {
	if len(s.text) > maxField {
		return nil, fmt.Errorf("%d bytes, at most %d", len(s.text), maxField)
	}
	var n yaml.Node
	if err := yaml.Load(s.text, &n); err != nil {
		return nil, fmt.Errorf("not YAML: %s", clip(strings.ReplaceAll(err.Error(), "\n", " ")))
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 || n.Content[0].Kind != yaml.MappingNode || len(n.Content[0].Content) != 2 {
		return nil, errors.New("want one word or a list")
	}
	return words(n.Content[0].Content[1])
}

func words(n *yaml.Node) ([]string, error) {
	if n.Anchor != "" {
		return nil, errors.New("anchors are not taken")
	}
	switch n.Kind {
	case yaml.ScalarNode:
		return word(n)
	case yaml.SequenceNode:
		if len(n.Content) > maxValues {
			return nil, fmt.Errorf("%d values, at most %d", len(n.Content), maxValues)
		}
		var out []string
		for _, m := range n.Content {
			if m.Kind != yaml.ScalarNode || m.Anchor != "" {
				return nil, errors.New("want one word or a list of words")
			}
			w, err := word(m)
			if err != nil {
				return nil, err
			}
			out = append(out, w...)
		}
		return out, nil
	}
	return nil, errors.New("want one word or a list of words")
}

// word is the text of a scalar; none for null.
func word(n *yaml.Node) ([]string, error) {
	if len(n.Value) > maxValue {
		return nil, fmt.Errorf("a value of %d bytes, at most %d", len(n.Value), maxValue)
	}
	if n.Tag == "!!null" || n.Value == "" {
		return nil, nil
	}
	return []string{n.Value}, nil
}
