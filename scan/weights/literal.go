package weights

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A literal reads a Python literal as numpy writes headers: dictionaries with
// text as keys, lists, tuples, text in quotes without escapes, whole numbers,
// True, False and None. Nothing is evaluated.
type literal struct {
	s  string
	at int
}

// A list is a Python list; a tuple is a slice.
type list struct{ items []any }

func (p *literal) space() {
	for p.at < len(p.s) && (p.s[p.at] == ' ' || p.s[p.at] == '\n' || p.s[p.at] == '\t') {
		p.at++
	}
}

// peek is the next byte that is no space; 0 at the end.
func (p *literal) peek() byte {
	p.space()
	if p.at == len(p.s) {
		return 0
	}
	return p.s[p.at]
}

// take passes over a byte if it comes next.
func (p *literal) take(c byte) bool {
	if c == 0 || p.peek() != c {
		return false
	}
	p.at++
	return true
}

func (p *literal) value(depth int) (any, error) {
	if depth > maxNPYDepth*2 {
		return nil, errors.New("nested too deep")
	}
	switch c := p.peek(); {
	case c == '{':
		return p.dict(depth)
	case c == '[':
		items, err := p.items('[', ']', depth)
		return &list{items}, err
	case c == '(':
		return p.items('(', ')', depth)
	case c == '\'' || c == '"':
		return p.text()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for word, v := range map[string]any{"True": true, "False": false, "None": nil} {
		if strings.HasPrefix(p.s[p.at:], word) {
			p.at += len(word)
			return v, nil
		}
	}
	return nil, fmt.Errorf("no literal at byte %d", p.at)
}

// items reads what stands between brackets. A tuple of one has its comma, but
// in brackets around a text nobody writes another value.
func (p *literal) items(from, to byte, depth int) ([]any, error) {
	p.take(from)
	items := []any{}
	for !p.take(to) {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
		if comma := p.take(','); !comma && p.peek() != to {
			return nil, fmt.Errorf("no comma at byte %d", p.at)
		} else if !comma && from == '(' && len(items) == 1 {
			return nil, fmt.Errorf("brackets without a tuple at byte %d", p.at)
		}
	}
	return items, nil
}

func (p *literal) dict(depth int) (any, error) {
	p.take('{')
	out := map[string]any{}
	for !p.take('}') {
		if c := p.peek(); c != '\'' && c != '"' {
			return nil, fmt.Errorf("no key at byte %d", p.at)
		}
		key, err := p.text()
		if err != nil {
			return nil, err
		}
		if !p.take(':') {
			return nil, fmt.Errorf("no colon at byte %d", p.at)
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("the key %s stands twice", quote(key))
		}
		if out[key], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if !p.take(',') && p.peek() != '}' {
			return nil, fmt.Errorf("no comma at byte %d", p.at)
		}
	}
	return out, nil
}

func (p *literal) text() (string, error) {
	q := p.peek()
	rest := p.s[p.at+1:]
	i := strings.IndexByte(rest, q)
	if i < 0 || strings.ContainsAny(rest[:i], "\\\n") {
		return "", fmt.Errorf("a text that does not end, or has escapes, at byte %d", p.at)
	}
	p.at += i + 2
	return rest[:i], nil
}

// number reads a whole number; Python 2 wrote an L behind some.
func (p *literal) number() (any, error) {
	end := p.at + 1
	for end < len(p.s) && p.s[end] >= '0' && p.s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(p.s[p.at:end], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("no number at byte %d", p.at)
	}
	p.at = end
	if p.at < len(p.s) && p.s[p.at] == 'L' {
		p.at++
	}
	return n, nil
}
