package packaging

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	// maxSpecifiers bounds the text of a specifier set; the longest
	// Requires-Python known has about 100 bytes.
	maxSpecifiers = 4096
	// maxClauses bounds the clauses of one set.
	maxClauses = 128
)

// A Specifier is one clause of PEP 440: an operator and a version.
type Specifier struct {
	op       string
	version  Version // zero for ===
	wildcard bool    // ==1.4.*
	text     string  // the version as written
}

// Specifiers is a set of clauses, all of which have to hold.
type Specifiers []Specifier

// arbitraryRE is what may follow ===: anything but white space and the
// characters that end it in a requirement.
var arbitraryRE = regexp.MustCompile(`^[^\s;)]*$`)

// ParseSpecifiers reads a comma-separated set. The empty set holds always.
func ParseSpecifiers(s string) (Specifiers, error) {
	if len(s) > maxSpecifiers {
		return nil, fmt.Errorf("specifier %q: over %d bytes", clip(s), maxSpecifiers)
	}
	var set Specifiers
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		c, err := parseClause(part)
		if err != nil {
			return nil, err
		}
		if set = append(set, c); len(set) > maxClauses {
			return nil, fmt.Errorf("specifier %q: over %d clauses", clip(s), maxClauses)
		}
	}
	return set, nil
}

func parseClause(s string) (Specifier, error) {
	bad := func(why string) (Specifier, error) {
		return Specifier{}, fmt.Errorf("specifier %q: %s", clip(s), why)
	}
	var op string
	for _, o := range []string{"===", "~=", "==", "!=", "<=", ">=", "<", ">"} {
		if strings.HasPrefix(s, o) {
			op = o
			break
		}
	}
	if op == "" {
		return bad("does not start with an operator")
	}
	text := strings.TrimSpace(s[len(op):])
	if op == "===" {
		if !arbitraryRE.MatchString(text) {
			return bad("=== wants one word")
		}
		return Specifier{op: op, text: text}, nil
	}
	c := Specifier{op: op, text: text}
	head, wild := strings.CutSuffix(text, ".*")
	v, err := ParseVersion(head)
	switch {
	case err != nil:
		return bad("not followed by a version")
	case wild && op != "==" && op != "!=":
		return bad(".* goes with == and != only")
	case wild && (v.prerelease() || v.post != "" || len(v.local) > 0):
		return bad(".* must follow a release number")
	case op == "~=" && len(v.release) < 2:
		return bad("~= wants at least two release numbers")
	case len(v.local) > 0 && op != "==" && op != "!=":
		return bad("a local version goes with ==, != and === only")
	}
	c.version, c.wildcard = v, wild
	return c, nil
}

// Contains reports whether v satisfies every clause. Pre-releases count: a
// lock has chosen already, and PEP 508 lets them count in markers.
func (s Specifiers) Contains(v Version) bool {
	for _, c := range s {
		if !c.contains(v) {
			return false
		}
	}
	return true
}

// exact returns the version that the set pins by a single == or ===.
func (s Specifiers) Exact() (Version, bool) {
	if len(s) != 1 || s[0].wildcard || s[0].op != "==" && s[0].op != "===" {
		return Version{}, false
	}
	v, err := ParseVersion(s[0].text)
	return v, err == nil
}

func (c Specifier) contains(v Version) bool {
	w := c.version
	switch c.op {
	case "===":
		return strings.EqualFold(v.Text(), c.text)
	case "~=":
		prefix := Version{epoch: w.epoch, release: w.release[:len(w.release)-1]}
		return v.withoutLocal().Compare(w) >= 0 && hasPrefix(v, prefix)
	case "==":
		return c.equal(v)
	case "!=":
		return !c.equal(v)
	case "<=":
		return v.withoutLocal().Compare(w) <= 0
	case ">=":
		return v.withoutLocal().Compare(w) >= 0
	case "<":
		if !w.prerelease() {
			w.dev = "0" // the pre-releases of w itself are out
		}
		return v.Compare(w) < 0
	case ">":
		if w.post == "" && w.dev == "" && w.epoch == v.epoch && w.pre == v.pre && w.preN == v.preN && compareReleases(v.release, w.release) == 0 {
			return false // the post-releases of w are out
		}
		return v.withoutLocal().Compare(w) > 0
	}
	return false
}

func (c Specifier) equal(v Version) bool {
	if c.wildcard {
		return hasPrefix(v, c.version)
	}
	if len(c.version.local) == 0 {
		v = v.withoutLocal()
	}
	return v.Compare(c.version) == 0
}

// hasPrefix reports whether v's release, padded with zeros, starts with p's.
func hasPrefix(v, p Version) bool {
	release := slices.Clone(v.release)
	for len(release) < len(p.release) {
		release = append(release, "0")
	}
	return v.epoch == p.epoch && slices.Equal(release[:len(p.release)], p.release)
}
