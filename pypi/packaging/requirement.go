package packaging

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// maxRequirement bounds a requirement's text, marker included.
	maxRequirement = maxMarker + maxSpecifiers
	// maxExtras bounds the extras of one requirement.
	maxExtras = 256
)

// A Requirement is one requirement of PEP 508.
type Requirement struct {
	Name       string // normal form
	Extras     []string
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
	r, err := parseRequirement(strings.TrimSpace(s))
	if err != nil {
		return Requirement{}, fmt.Errorf("requirement %q: %w", clip(s), err)
	}
	return r, nil
}

func parseRequirement(s string) (r Requirement, err error) {
	n := 0
	for n < len(s) && (alnum(s[n]) || s[n] == '.' || s[n] == '_' || s[n] == '-') {
		n++
	}
	if r.Name, err = NormalizeName(s[:n]); err != nil {
		return Requirement{}, err
	}
	rest := strings.TrimLeft(s[n:], " \t")
	if rest, err = r.extras(rest); err != nil {
		return Requirement{}, err
	}
	if url, ok := strings.CutPrefix(rest, "@"); ok {
		// A URL ends at white space; " ;" starts the marker.
		url, marker, found := strings.Cut(strings.TrimLeft(url, " \t")+" ", " ")
		if r.URL = url; url == "" {
			return Requirement{}, errors.New("no URL after @")
		}
		rest = strings.TrimSpace(marker)
		if !found || rest != "" && rest[0] != ';' {
			return Requirement{}, fmt.Errorf("unexpected %q after the URL", clip(rest))
		}
	}
	head, marker, found := strings.Cut(rest, ";")
	if found {
		if r.Marker, err = ParseMarker(marker); err != nil {
			return Requirement{}, err
		}
	}
	head = strings.TrimSpace(head)
	if inner, ok := strings.CutPrefix(head, "("); ok {
		if head, ok = strings.CutSuffix(inner, ")"); !ok {
			return Requirement{}, errors.New("missing ) after the versions")
		}
	}
	if r.Specifiers, err = ParseSpecifiers(head); err != nil {
		return Requirement{}, err
	}
	return r, nil
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
	if strings.TrimSpace(inner) == "" {
		return strings.TrimLeft(rest, " \t"), nil
	}
	for e := range strings.SplitSeq(inner, ",") {
		name, err := NormalizeName(strings.TrimSpace(e))
		if err != nil {
			return "", fmt.Errorf("extra: %w", err)
		}
		if r.Extras = append(r.Extras, name); len(r.Extras) > maxExtras {
			return "", fmt.Errorf("over %d extras", maxExtras)
		}
	}
	return strings.TrimLeft(rest, " \t"), nil
}
