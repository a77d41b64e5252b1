package packaging

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxMarker bounds a marker's text. Universal locks write long
	// disjunctions; the longest known has about 4 KiB.
	maxMarker = 64 << 10
	// maxMarkerDepth bounds parentheses; tools write two or three levels.
	maxMarkerDepth = 32
)

// Truth is what a marker says of a target. Maybe stands for what a target
// cannot know.
type Truth int

// The three truth values, ordered so that "and" is min and "or" is max.
const (
	False Truth = iota
	Maybe
	True
)

func truth(b bool) Truth {
	if b {
		return True
	}
	return False
}

// A Marker is a parsed environment marker of PEP 508. The zero Marker holds
// always.
type Marker struct {
	text string
	root *markerNode
}

// markerNode is "and" or "or" over kids, or one comparison.
type markerNode struct {
	kids []*markerNode
	or   bool
	// a comparison: variable OP value, or value OP variable
	variable string
	op       string
	value    string
	swapped  bool // the value is on the left
}

// markerVariables are the names of PEP 508 and PEP 751, and the old spellings
// that packaging still reads.
func markerVariable(s string) (string, bool) {
	switch s {
	case "os_name", "sys_platform", "platform_machine", "platform_python_implementation", "platform_release",
		"platform_system", "platform_version", "python_version", "python_full_version", "implementation_name",
		"implementation_version", "extra", "extras", "dependency_groups":
		return s, true
	case "os.name", "sys.platform", "platform.version", "platform.machine":
		return strings.ReplaceAll(s, ".", "_"), true
	case "platform.python_implementation", "python_implementation":
		return "platform_python_implementation", true
	}
	return "", false
}

// ParseMarker reads a marker.
func ParseMarker(s string) (Marker, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxMarker {
		return Marker{}, fmt.Errorf("marker %q: over %d bytes", clip(s), maxMarker)
	}
	p := markerParser{s: s}
	root, err := p.expression(0)
	if p.skip(); err == nil && p.i < len(p.s) {
		err = fmt.Errorf("unexpected %q", clip(p.s[p.i:]))
	}
	if err != nil {
		return Marker{}, fmt.Errorf("marker %q: %w", clip(s), err)
	}
	return Marker{text: s, root: root}, nil
}

// String is the marker as it was written.
func (m Marker) String() string { return m.text }

type markerParser struct {
	s string
	i int
}

func (p *markerParser) skip() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t') {
		p.i++
	}
}

// word takes a keyword that ends at something that is not part of a name.
func (p *markerParser) word(w string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.s[p.i:], w)
	if !ok || rest != "" && (alnum(rest[0]) || rest[0] == '_') {
		return false
	}
	p.i += len(w)
	return true
}

// expression is "or" over "and" over atoms; "and" binds tighter.
func (p *markerParser) expression(depth int) (*markerNode, error) {
	if depth > maxMarkerDepth {
		return nil, fmt.Errorf("parentheses deeper than %d", maxMarkerDepth)
	}
	var ors []*markerNode
	for {
		var ands []*markerNode
		for {
			atom, err := p.atom(depth)
			if err != nil {
				return nil, err
			}
			if ands = append(ands, atom); !p.word("and") {
				break
			}
		}
		ors = append(ors, join(ands, false))
		if !p.word("or") {
			return join(ors, true), nil
		}
	}
}

func join(kids []*markerNode, or bool) *markerNode {
	if len(kids) == 1 {
		return kids[0]
	}
	return &markerNode{kids: kids, or: or}
}

func (p *markerParser) atom(depth int) (*markerNode, error) {
	p.skip()
	if p.i < len(p.s) && p.s[p.i] == '(' {
		p.i++
		n, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.skip(); p.i >= len(p.s) || p.s[p.i] != ')' {
			return nil, errors.New("missing )")
		}
		p.i++
		return n, nil
	}
	left, leftVar, err := p.operand()
	if err != nil {
		return nil, err
	}
	op, err := p.operator()
	if err != nil {
		return nil, err
	}
	right, rightVar, err := p.operand()
	if err != nil {
		return nil, err
	}
	n := &markerNode{variable: left, op: op, value: right}
	switch {
	case leftVar == rightVar:
		return nil, fmt.Errorf("%q %s %q: want a variable on one side and a string on the other", clip(left), op, clip(right))
	case rightVar:
		n.variable, n.value, n.swapped = right, left, true
	}
	return n, n.check()
}

// check refuses comparisons that have no meaning, so that evaluation cannot
// fail.
func (n *markerNode) check() error {
	member := n.op == "in" || n.op == "not in"
	switch n.variable {
	case "extras", "dependency_groups":
		if !member || !n.swapped {
			return fmt.Errorf("%s takes only the form 'name' in %s", n.variable, n.variable)
		}
	case "python_version", "python_full_version", "implementation_version", "platform_release":
		if _, err := n.specifier(); err == nil || n.swapped {
			return nil
		}
		if n.op == "~=" || n.op == "===" {
			return fmt.Errorf("%s %q is not a version comparison", n.op, clip(n.value))
		}
	default:
		if n.op == "~=" || n.op == "===" {
			return fmt.Errorf("%s cannot be compared with %s", n.variable, n.op)
		}
	}
	return nil
}

func (n *markerNode) specifier() (Specifier, error) {
	if n.op == "in" || n.op == "not in" {
		return Specifier{}, errors.New("not a version operator")
	}
	return parseClause(n.op + n.value)
}

func (p *markerParser) operator() (string, error) {
	p.skip()
	for _, op := range []string{"===", "==", "~=", "!=", "<=", ">=", "<", ">"} {
		if strings.HasPrefix(p.s[p.i:], op) {
			p.i += len(op)
			return op, nil
		}
	}
	if p.word("in") {
		return "in", nil
	}
	if p.word("not") && p.word("in") {
		return "not in", nil
	}
	return "", fmt.Errorf("want an operator at %q", clip(p.s[p.i:]))
}

// operand is a variable or a quoted string.
func (p *markerParser) operand() (text string, variable bool, err error) {
	p.skip()
	if p.i >= len(p.s) {
		return "", false, errors.New("ends where a variable or a string is wanted")
	}
	if q := p.s[p.i]; q == '\'' || q == '"' {
		end := strings.IndexByte(p.s[p.i+1:], q)
		if end < 0 {
			return "", false, errors.New("unclosed string")
		}
		text = p.s[p.i+1 : p.i+1+end]
		p.i += end + 2
		return text, false, nil
	}
	start := p.i
	for p.i < len(p.s) && (alnum(p.s[p.i]) || p.s[p.i] == '_' || p.s[p.i] == '.') {
		p.i++
	}
	name, ok := markerVariable(p.s[start:p.i])
	if !ok {
		return "", false, fmt.Errorf("unknown variable %q", clip(p.s[start:]))
	}
	return name, true, nil
}

// Eval says whether the marker holds in env.
func (m Marker) Eval(env *Environment) Truth {
	if m.root == nil {
		return True
	}
	return m.root.eval(env)
}

func (n *markerNode) eval(env *Environment) Truth {
	if n.variable != "" {
		return n.compare(env)
	}
	res := True
	if n.or {
		res = False
	}
	for _, k := range n.kids {
		if n.or {
			res = max(res, k.eval(env))
		} else {
			res = min(res, k.eval(env))
		}
	}
	return res
}

func (n *markerNode) compare(env *Environment) Truth {
	got, known := env.lookup(n.variable)
	if !known {
		return Maybe
	}
	want := n.value
	if n.variable == "extra" {
		got, want = extraName(got), extraName(want)
	}
	if versionVariable(n.variable) {
		if t, ok := n.compareVersions(got); ok {
			return t
		}
	}
	left, right := got, want
	if n.swapped {
		left, right = want, got
	}
	switch n.op {
	case "==", "<=", ">=":
		return truth(left == right)
	case "!=":
		return truth(left != right)
	case "in":
		return truth(strings.Contains(right, left))
	case "not in":
		return truth(!strings.Contains(right, left))
	}
	return False // <, > and what check left over have no meaning for words
}

// compareVersions applies PEP 440 where both sides allow it.
func (n *markerNode) compareVersions(got string) (Truth, bool) {
	left, right := got, n.value
	if n.swapped {
		left, right = n.value, got
	}
	if n.op == "in" || n.op == "not in" {
		return False, false
	}
	c, err := parseClause(n.op + right)
	if err != nil {
		return False, false
	}
	v, err := ParseVersion(left)
	if err != nil {
		return False, c.op != "===" // packaging: what is no version is in no range
	}
	return truth(c.contains(v)), true
}

func versionVariable(s string) bool {
	return slices.Contains([]string{"python_version", "python_full_version", "implementation_version", "platform_release"}, s)
}

// extraName is the normal form of PEP 685; a malformed name stands for
// itself.
func extraName(s string) string {
	if n, err := NormalizeName(s); err == nil {
		return n
	}
	return s
}

// An Environment gives the marker variables of a target. platform_release,
// platform_version, extras and dependency_groups are unknown: the first two
// belong to one machine, the others to whoever installs.
type Environment struct {
	OSName                string
	SysPlatform           string
	PlatformMachine       string
	PlatformSystem        string
	PythonVersion         string // "3.12"
	PythonFullVersion     string // "3.12.0"
	ImplementationName    string // "cpython"
	PlatformPythonImpl    string // "CPython"
	ImplementationVersion string
	// Extra is the extra whose requirements are looked at, mostly none.
	Extra string
}

func (e *Environment) lookup(variable string) (value string, known bool) {
	switch variable {
	case "os_name":
		return e.OSName, true
	case "sys_platform":
		return e.SysPlatform, true
	case "platform_machine":
		return e.PlatformMachine, true
	case "platform_system":
		return e.PlatformSystem, true
	case "python_version":
		return e.PythonVersion, true
	case "python_full_version":
		return e.PythonFullVersion, true
	case "implementation_name":
		return e.ImplementationName, true
	case "implementation_version":
		return e.ImplementationVersion, true
	case "platform_python_implementation":
		return e.PlatformPythonImpl, true
	case "extra":
		return e.Extra, true
	}
	return "", false
}
