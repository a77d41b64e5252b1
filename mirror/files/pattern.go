package files

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

const (
	// maxPatterns bounds a list of patterns: each is tried on each file.
	maxPatterns = 1000
	// maxPattern bounds one, and maxAnyFolders the number of "**" in it: what
	// a match may cost grows with both.
	maxPattern    = 512
	maxAnyFolders = 2

	anyFolders = "**"
)

// A pattern is a glob over a path, cut into segments. A segment is a pattern
// of path.Match, or "**" for any number of folders.
type pattern []string

// patterns choose files; none choose all.
type patterns []pattern

func parsePatterns(list []string) (patterns, error) {
	if len(list) > maxPatterns {
		return nil, fmt.Errorf("%d patterns, at most %d", len(list), maxPatterns)
	}
	all := make(patterns, 0, len(list))
	for _, s := range list {
		p, err := parsePattern(s)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", clip(s), err)
		}
		all = append(all, p)
	}
	return all, nil
}

func parsePattern(s string) (pattern, error) {
	switch {
	case s == "":
		return nil, errors.New("an empty pattern matches nothing")
	case len(s) > maxPattern:
		return nil, fmt.Errorf("over %d bytes", maxPattern)
	case strings.HasPrefix(s, "/"):
		return nil, errors.New("want a pattern below the folder, without a leading /")
	}
	p := pattern(strings.Split(s, "/"))
	many := 0
	for i, seg := range p {
		switch {
		case seg == "" || seg == "." || seg == "..":
			return nil, fmt.Errorf("the part %q matches nothing", seg)
		case seg == anyFolders:
			if many++; many > maxAnyFolders {
				return nil, fmt.Errorf("over %d times **", maxAnyFolders)
			}
			if i == len(p)-1 {
				return nil, errors.New("** stands for folders: end it with /*")
			}
		case strings.Contains(seg, anyFolders):
			return nil, errors.New("** stands alone between slashes")
		}
		if _, err := path.Match(seg, ""); err != nil {
			return nil, errors.New("not a pattern: want *, ?, [a-z] and plain text")
		}
	}
	return p, nil
}

// match reports whether a file is chosen.
func (all patterns) match(name string) bool {
	segs := strings.Split(name, "/")
	for _, p := range all {
		if p.match(segs, false) {
			return true
		}
	}
	return len(all) == 0
}

// below reports whether a file below a folder may be chosen.
func (all patterns) below(dir string) bool {
	segs := strings.Split(dir, "/")
	for _, p := range all {
		if p.match(segs, true) {
			return true
		}
	}
	return len(all) == 0
}

// match compares the segments. A folder matches where the pattern has more to
// say.
func (p pattern) match(segs []string, folder bool) bool {
	for len(p) > 0 {
		if len(segs) == 0 {
			return folder
		}
		if p[0] == anyFolders {
			return folder || p[1:].match(segs, false) || p.match(segs[1:], false)
		}
		// A pattern that is malformed was refused when it was parsed.
		if ok, err := path.Match(p[0], segs[0]); err != nil || !ok {
			return false
		}
		p, segs = p[1:], segs[1:]
	}
	return !folder && len(segs) == 0
}
