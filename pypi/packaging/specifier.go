package packaging

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// maxSpecifiers bounds the text of a specifier set; the longest
	// Requires-Python known has about 100 bytes.
	maxSpecifiers = 4096
	// maxClauses bounds the clauses of one set.
	maxClauses = 256
)

// A Specifier is one clause of PEP 440: an operator and a version.
type Specifier struct {
	op       string
	version  Version // zero for === with anything but a version
	wildcard bool    // ==1.4.*
	text     string  // the version as written
	// lo <= key < hi is what ==V.* and ~= ask for, key < hi what < does.
	lo, hi string
}

// Specifiers is a set of clauses, all of which have to hold.
type Specifiers []Specifier

// ParseSpecifiers reads a comma-separated set. The empty set holds always.
func ParseSpecifiers(s string) (Specifiers, error) {
	if len(s) > maxSpecifiers {
		return nil, fmt.Errorf("specifier %q: over %d bytes", clip(s), maxSpecifiers)
	}
	var set Specifiers
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimFunc(part, isSpace); part == "" {
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

// parseClause reads an operator and a version; white space may stand around
// both.
func parseClause(s string) (Specifier, error) {
	bad := func(why string) (Specifier, error) {
		return Specifier{}, fmt.Errorf("specifier %q: %s", clip(s), why)
	}
	s = strings.TrimFunc(s, isSpace)
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
	text := strings.TrimLeftFunc(s[len(op):], isSpace)
	c := Specifier{op: op, text: text}
	if op == "===" {
		if strings.ContainsFunc(text, func(r rune) bool { return isSpace(r) || r == ';' || r == ')' }) {
			return bad("=== wants one word")
		}
		if v, err := ParseVersion(text); err == nil {
			c.version = v
		}
		return c, nil
	}
	head, wild := strings.CutSuffix(text, ".*")
	v, err := ParseVersion(head)
	switch {
	case err != nil || v.text != head:
		return bad("not followed by a version")
	case wild && op != "==" && op != "!=":
		return bad(".* goes with == and != only")
	case wild && (v.IsPrerelease() || v.post != "" || len(v.local) > 0):
		return bad(".* must follow a release number")
	case op == "~=" && len(v.release) < 2:
		return bad("~= wants at least two release numbers")
	case len(v.local) > 0 && op != "==" && op != "!=":
		return bad("a local version goes with ==, != and === only")
	}
	c.version, c.wildcard = v, wild
	c.bound()
	return c, nil
}

// bound computes the ends of the range that a clause stands for.
func (c *Specifier) bound() {
	v := c.version
	switch {
	case c.wildcard:
		c.lo, c.hi = v.dev0().key, v.next().dev0().key
	case c.op == "~=":
		c.lo, c.hi = v.key, v.base(1).next().dev0().key
	case c.op == "<" && v.IsPrerelease():
		c.hi = v.key
	case c.op == "<": // the pre-releases of v itself are out
		v.dev = "0"
		c.hi = v.keyed().key
	}
}

// Contains reports whether v satisfies every clause. Pre-releases count: a
// lock has chosen already, and PEP 508 lets them count in markers. To choose
// from a list there is Filter.
func (s Specifiers) Contains(v Version) bool {
	for i := range s {
		if !s[i].contains(&v) {
			return false
		}
	}
	return true
}

func (c *Specifier) contains(v *Version) bool {
	switch c.op {
	case "===":
		return sameWord(v.text, c.text)
	case "~=":
		return c.lo <= v.key && v.key < c.hi
	case "==":
		return c.equal(v)
	case "!=":
		return !c.equal(v)
	case "<=":
		return v.key[:v.public] <= c.version.key
	case ">=":
		return v.key >= c.version.key
	case "<":
		return v.key < c.hi
	case ">":
		if w := &c.version; w.post == "" && w.dev == "" { // the post-releases of w are out
			return v.key[:v.family] > w.key[:w.family]
		}
		return v.key[:v.public] > c.version.key
	}
	return false
}

func (c *Specifier) equal(v *Version) bool {
	switch {
	case c.wildcard:
		return c.lo <= v.key && v.key < c.hi
	case len(c.version.local) == 0:
		return v.key[:v.public] == c.version.key
	}
	return v.key == c.version.key
}

// containsText is contains for what may be no version: === compares words,
// and what is no version is in no range.
func (c *Specifier) containsText(s string) bool {
	if c.op == "===" {
		return sameWord(s, c.text)
	}
	v, err := ParseVersion(s)
	return err == nil && c.contains(&v)
}

// sameWord is how === compares: as str.lower() makes two strings one. It is
// not strings.EqualFold, which also takes "ſ" for "s".
func sameWord(a, b string) bool {
	if a == b {
		return true
	}
	lower := strings.ToLower(a)
	return lower == strings.ToLower(b)
}

// Prereleases says which pre-releases Filter takes.
type Prereleases int

const (
	// PreDefault is the rule of PEP 440 as pip 26 has it: pre-releases are
	// taken if a clause names one, or if nothing else fits.
	PreDefault Prereleases = iota
	// PreAllow takes them like any other version.
	PreAllow
	// PreRefuse never takes them.
	PreRefuse
)

// Filter returns the versions that satisfy every clause, in their order.
func (s Specifiers) Filter(versions []Version, pre Prereleases) []Version {
	if pre == PreDefault && s.NamesPrerelease() {
		pre = PreAllow
	}
	var out []Version
	final := false
	for i := range versions {
		v := &versions[i]
		unwanted := pre != PreAllow && v.IsPrerelease()
		if unwanted && (final || pre == PreRefuse) || !s.Contains(*v) {
			continue
		}
		if !unwanted && !final {
			final = true
			if pre == PreDefault {
				out = out[:0] // only pre-releases so far
			}
		}
		out = append(out, *v)
	}
	return out
}

// NamesPrerelease reports whether a clause names a pre-release, which lets
// pre-releases count. != names what is not wanted.
func (s Specifiers) NamesPrerelease() bool {
	return slices.ContainsFunc(s, func(c Specifier) bool { return c.op != "!=" && c.version.IsPrerelease() })
}

// Pins reports whether a clause names one version, by == or ===.
func (s Specifiers) Pins() bool {
	return slices.ContainsFunc(s, func(c Specifier) bool { return c.op == "===" || c.op == "==" && !c.wildcard })
}

// Exact returns the version that the set pins by a single == or ===.
func (s Specifiers) Exact() (Version, bool) {
	if len(s) != 1 || !s.Pins() {
		return Version{}, false
	}
	return s[0].version, !s[0].version.IsZero()
}

// String is the set as a requirement holds it, ">=1.0,<2".
func (s Specifiers) String() string {
	parts := make([]string, len(s))
	for i, c := range s {
		parts[i] = c.op + c.text
	}
	return strings.Join(parts, ",")
}

// normal is the set in the order of its texts, equal clauses once.
func (s Specifiers) normal() Specifiers {
	out := slices.Clone(s)
	slices.SortStableFunc(out, func(a, b Specifier) int { return strings.Compare(a.op+a.text, b.op+b.text) })
	seen := make(map[string]bool, len(out))
	return slices.DeleteFunc(out, func(c Specifier) bool {
		key := c.canonical()
		dup := seen[key]
		seen[key] = true
		return dup
	})
}

// canonical is the same for clauses that mean the same.
func (c *Specifier) canonical() string {
	switch {
	case c.op == "===" || c.wildcard:
		return c.op + c.text
	case c.op == "~=":
		return c.op + c.version.String()
	}
	return c.op + c.version.Canonical()
}
