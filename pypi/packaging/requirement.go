package packaging

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxRequirement bounds a requirement's text, marker included.
	maxRequirement = maxMarker + maxSpecifiers
	// maxExtras bounds the extras of one requirement.
	maxExtras = 256
)

// A Requirement is one requirement of PEP 508.
type Requirement struct {
	Name       string   // normal form
	Extras     []string // normal form, each once, in the order of the text
	Specifiers Specifiers
	URL        string // "name @ URL"
	Marker     Marker
}

// ParseRequirement reads NAME[EXTRAS] SPECIFIERS ; MARKER, or NAME[EXTRAS] @
// URL ; MARKER.
func ParseRequirement(s string) (Requirement, error) {
	if len(s) > maxRequirement {
		return Requirement{}, fmt.Errorf("requirement %q: over %d bytes", clip(s), maxRequirement)
	}
	r, err := parseRequirement(strings.Trim(s, blank))
	if err != nil {
		return Requirement{}, fmt.Errorf("requirement %q: %w", clip(s), err)
	}
	return r, nil
}

func parseRequirement(s string) (r Requirement, err error) {
	if !utf8.ValidString(s) {
		return Requirement{}, errors.New("not UTF-8")
	}
	n := 0
	for n < len(s) && (alnum(s[n]) || s[n] == '.' || s[n] == '_' || s[n] == '-') {
		n++
	}
	if r.Name, err = NormalizeName(s[:n]); err != nil {
		return Requirement{}, err
	}
	rest, err := r.extras(strings.TrimLeft(s[n:], blank))
	if err != nil {
		return Requirement{}, err
	}
	if url, ok := strings.CutPrefix(rest, "@"); ok {
		rest, err = r.url(strings.TrimLeft(url, blank))
	} else {
		rest, err = r.versions(rest)
	}
	if err != nil || rest == "" {
		return r, err
	}
	marker, ok := strings.CutPrefix(rest, ";")
	if !ok {
		return Requirement{}, fmt.Errorf("unexpected %q", clip(rest))
	}
	r.Marker, err = ParseMarker(marker)
	return r, err
}

// extras reads [a, b] and returns what follows.
func (r *Requirement) extras(s string) (rest string, err error) {
	inner, ok := strings.CutPrefix(s, "[")
	if !ok {
		return s, nil
	}
	inner, rest, ok = strings.Cut(inner, "]")
	if !ok {
		return "", errors.New("missing ] after the extras")
	}
	rest = strings.TrimLeft(rest, blank)
	if strings.Trim(inner, blank) == "" {
		return rest, nil
	}
	for e := range strings.SplitSeq(inner, ",") {
		name, err := NormalizeName(strings.Trim(e, blank))
		if err != nil {
			return "", fmt.Errorf("extra: %w", err)
		}
		if slices.Contains(r.Extras, name) {
			continue
		}
		if r.Extras = append(r.Extras, name); len(r.Extras) > maxExtras {
			return "", fmt.Errorf("over %d extras", maxExtras)
		}
	}
	return rest, nil
}

// url reads a URL, which ends at white space, and returns what follows.
func (r *Requirement) url(s string) (rest string, err error) {
	end := strings.IndexAny(s+" ", blank)
	if r.URL = s[:end]; r.URL == "" {
		return "", errors.New("no URL after @")
	}
	if strings.ContainsFunc(r.URL, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
		return "", errors.New("a control character in the URL")
	}
	return strings.TrimLeft(s[end:], blank), nil
}

// versions reads clauses between commas, perhaps in parentheses, and returns
// what follows. One comma may stand at the end.
func (r *Requirement) versions(s string) (rest string, err error) {
	inner, closed := strings.CutPrefix(s, "(")
	text := strings.TrimLeft(inner, blank)
	start := text
	for text != "" && strings.IndexByte("<>=!~", text[0]) >= 0 {
		text = strings.TrimLeft(text[clauseEnd(text):], blank)
		if text == "" || text[0] != ',' {
			break
		}
		text = strings.TrimLeft(text[1:], blank)
	}
	if r.Specifiers, err = ParseSpecifiers(start[:len(start)-len(text)]); err != nil {
		return "", err
	}
	if closed {
		if text, closed = strings.CutPrefix(text, ")"); !closed {
			return "", fmt.Errorf("want ) after the versions at %q", clip(text))
		}
	}
	return strings.TrimLeft(text, blank), nil
}

// clauseEnd is where the clause ends that s starts with: behind the operator
// and white space of any kind, the next white space, or what may follow.
func clauseEnd(s string) int {
	op := len(s) - len(strings.TrimLeft(s, "<>=!~"))
	word := strings.TrimLeftFunc(s[op:], isSpace)
	n := strings.IndexFunc(word, func(c rune) bool { return isSpace(c) || c == ',' || c == ';' || c == ')' })
	if n < 0 {
		return len(s)
	}
	return len(s) - len(word) + n
}

// String is the requirement in a normal form, which says the same: names
// normalised, extras and clauses sorted.
func (r Requirement) String() string {
	var b strings.Builder
	b.WriteString(r.Name)
	if len(r.Extras) > 0 {
		b.WriteString("[" + strings.Join(slices.Sorted(slices.Values(r.Extras)), ",") + "]")
	}
	b.WriteString(r.Specifiers.normal().String())
	marker := r.Marker.Normal()
	if r.URL != "" {
		b.WriteString(" @ " + r.URL)
		if marker != "" {
			b.WriteByte(' ')
		}
	}
	if marker != "" {
		b.WriteString("; " + marker)
	}
	return b.String()
}
