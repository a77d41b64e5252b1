package apt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxRelations bounds the groups of one relation field. The longest field of
// Debian has about 2,000.
const maxRelations = 20_000

// A relation is one alternative: "name:qualifier (op version)".
type relation struct {
	name      string
	qualifier string // "any", an architecture, or empty
	op        string // "<<", "<=", "=", ">=", ">>", or empty
	version   string
}

// String writes the relation in its usual form.
func (r relation) String() string {
	s := r.name
	if r.qualifier != "" {
		s += ":" + r.qualifier
	}
	if r.op != "" {
		s += " (" + r.op + " " + r.version + ")"
	}
	return s
}

// accepts reports whether a version satisfies the relation's constraint.
func (r relation) accepts(version string) bool {
	if r.op == "" {
		return true
	}
	c := CompareVersions(version, r.version)
	switch r.op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	default: // ">>"
		return c > 0
	}
}

// A group is alternatives, of which one must hold.
type group []relation

// String writes the group as it stood in the field.
func (g group) String() string {
	parts := make([]string, len(g))
	for i, r := range g {
		parts[i] = r.String()
	}
	return strings.Join(parts, " | ")
}

// parseRelations reads a relation field for one architecture: restrictions
// such as [linux-any] and build profiles such as <!nocheck> are evaluated, and
// alternatives that they rule out are dropped.
func parseRelations(s, arch string) ([]group, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	groups := make([]group, 0, strings.Count(s, ",")+1)
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" {
			continue // a trailing comma is common
		}
		if len(groups) == maxRelations {
			return nil, fmt.Errorf("more than %d relations in one field", maxRelations)
		}
		var g group
		ruledOut := false
		for alt := range strings.SplitSeq(part, "|") {
			r, applies, err := parseRelation(alt, arch)
			if err != nil {
				return nil, fmt.Errorf("relation %q: %w", clip(strings.TrimSpace(part)), err)
			}
			if applies {
				g = append(g, r)
			} else {
				ruledOut = true
			}
		}
		if len(g) > 0 || !ruledOut {
			groups = append(groups, g)
		}
	}
	return groups, nil
}

// parseRelation reads one alternative.
func parseRelation(s, arch string) (r relation, applies bool, err error) {
	s = strings.TrimSpace(s)
	end := strings.IndexAny(s, " \t\n([<")
	if end < 0 {
		end = len(s)
	}
	r.name = s[:end]
	rest := strings.TrimSpace(s[end:])
	if name, q, ok := strings.Cut(r.name, ":"); ok {
		r.name, r.qualifier = name, q
		if !archOK(q) {
			return r, false, fmt.Errorf("qualifier %q is not an architecture", clip(q))
		}
	}
	if err := checkName(r.name); err != nil {
		return r, false, err
	}
	applies = true
	profiles, profileHolds := false, false
	for rest != "" {
		var inner string
		open := rest[0]
		switch open {
		case '(':
			inner, rest, err = enclosed(rest, ')')
		case '[':
			inner, rest, err = enclosed(rest, ']')
		case '<':
			inner, rest, err = enclosed(rest, '>')
		default:
			err = fmt.Errorf("unexpected %q", clip(rest))
		}
		if err != nil {
			return r, false, err
		}
		switch open {
		case '(':
			if r.op != "" {
				return r, false, errors.New("two version constraints")
			}
			if r.op, r.version, err = parseConstraint(inner); err != nil {
				return r, false, err
			}
		case '[':
			applies = applies && archListHolds(inner, arch)
		default:
			profiles = true
			profileHolds = profileHolds || profileListHolds(inner)
		}
	}
	return r, applies && (!profiles || profileHolds), nil
}

// enclosed cuts "(…) rest" after its opening bracket.
func enclosed(s string, closing byte) (inner, rest string, err error) {
	i := strings.IndexByte(s, closing)
	if i < 0 {
		return "", "", fmt.Errorf("%q is not closed", clip(s))
	}
	return strings.TrimSpace(s[1:i]), strings.TrimSpace(s[i+1:]), nil
}

// parseConstraint reads "op version". The old operators "<" and ">" mean "<="
// and ">=", as in dpkg; no operator means "=".
func parseConstraint(s string) (op, version string, err error) {
	i := 0
	for i < len(s) && strings.IndexByte("<>=", s[i]) >= 0 {
		i++
	}
	op, version = s[:i], strings.TrimSpace(s[i:])
	switch op {
	case "<<", "<=", "=", ">=", ">>":
	case "<":
		op = "<="
	case ">":
		op = ">="
	case "":
		op = "="
	default:
		return "", "", fmt.Errorf("unknown operator %q", clip(op))
	}
	return op, version, checkVersion(version)
}

// archListHolds evaluates "amd64 arm64" or "!i386 !armel".
func archListHolds(list, arch string) bool {
	negated := strings.HasPrefix(list, "!")
	for word := range strings.FieldsSeq(list) {
		if archMatches(strings.TrimPrefix(word, "!"), arch) {
			return !negated
		}
	}
	return negated
}

// archMatches compares with a wildcard: any, linux-any, any-amd64.
func archMatches(pattern, arch string) bool {
	os, cpu, ok := strings.Cut(arch, "-")
	if !ok {
		os, cpu = "linux", arch
	}
	pos, pcpu, ok := strings.Cut(pattern, "-")
	if !ok {
		return pattern == "any" || pattern == arch
	}
	return (pos == "any" || pos == os) && (pcpu == "any" || pcpu == cpu)
}

// profileListHolds evaluates one <…> list with no profile active.
func profileListHolds(list string) bool {
	for word := range strings.FieldsSeq(list) {
		if !strings.HasPrefix(word, "!") {
			return false
		}
	}
	return true
}

// maxName bounds a package name; the longest of Debian has 92 bytes.
const maxName = 256

// checkName accepts a package name. Letters may be capital and "_" may occur:
// third-party archives use both, and apt takes them.
func checkName(name string) error {
	if len(name) < 1 || len(name) > maxName {
		return fmt.Errorf("package name %q: want 1 to %d bytes", clip(name), maxName)
	}
	for i, c := range []byte(name) {
		if !isDigit(c) && !isLetter(c) && (i == 0 || !slices.Contains([]byte("+-._"), c)) {
			return fmt.Errorf("package name %q: forbidden character %q", clip(name), c)
		}
	}
	return nil
}

// archOK accepts the form of an architecture. Unknown ones are data, not an
// error: new ones appear.
func archOK(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, c := range []byte(s) {
		if !isDigit(c) && (c < 'a' || c > 'z') && (c != '-' || i == 0) {
			return false
		}
	}
	return true
}

// clip shortens outside text for a message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
