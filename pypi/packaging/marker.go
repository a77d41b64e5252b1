package packaging

import (
	"slices"
	"strings"
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
	kids    []*markerNode
	or      bool
	grouped bool // kids stood in parentheses
	// a comparison: variable OP value, or value OP variable
	variable string
	op       string
	value    string
	swapped  bool // the value is on the left
	named    bool // the value is the name of a variable, which stands for itself
	// clause is op and value as a specifier, where they are one and the
	// variable holds a version.
	clause *Specifier
}

// String is the marker as it was written.
func (m Marker) String() string { return m.text }

// Eval says whether the marker holds in env. What env does not know
// (platform_release and platform_version if empty, and who installs with
// which extras and dependency_groups) is Maybe.
func (m Marker) Eval(env *Environment) Truth {
	if m.root == nil {
		return True
	}
	return m.root.eval(&scope{env: env, extra: canonicalName(env.Extra)})
}

// Holds says whether a requirement with this marker is wanted for one of the
// extras, or for none if there are none; env.Extra does not count. It decides
// as an installer on the target does: nothing is unknown, an empty
// platform_release is an empty word, extras stand in the set of that name and
// dependency_groups is empty.
func (m Marker) Holds(env *Environment, extras []string) bool {
	if m.root == nil {
		return true
	}
	s := scope{env: env, exact: true}
	if len(extras) == 0 {
		return m.root.eval(&s) == True
	}
	s.extras = make([]string, len(extras))
	for i, e := range extras {
		s.extras[i] = canonicalName(e)
	}
	return slices.ContainsFunc(s.extras, func(e string) bool {
		s.extra = e
		return m.root.eval(&s) == True
	})
}

// A scope is what a marker is evaluated in.
type scope struct {
	env    *Environment
	extra  string
	extras []string
	groups []string
	exact  bool // nothing is unknown
}

func (n *markerNode) eval(s *scope) Truth {
	if n.variable != "" {
		return n.compare(s)
	}
	res := True
	if n.or {
		res = False
	}
	for _, k := range n.kids {
		if n.or {
			res = max(res, k.eval(s))
		} else {
			res = min(res, k.eval(s))
		}
	}
	return res
}

func (n *markerNode) compare(s *scope) Truth {
	if isSet(n.variable) {
		return n.compareSet(s)
	}
	got := s.lookup(n.variable)
	if got == "" && !s.exact && (n.variable == "platform_release" || n.variable == "platform_version") {
		return Maybe
	}
	if isVersion(n.variable) {
		if t, ok := n.compareVersions(got); ok {
			return t
		}
	}
	left, right := got, n.value
	if n.swapped {
		left, right = right, left
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

// compareSet looks a name up in a set. A word is never equal to a set, nor
// before or behind it.
func (n *markerNode) compareSet(s *scope) Truth {
	member := n.op == "in" || n.op == "not in"
	if !member {
		return truth(n.op == "!=")
	}
	if !s.exact {
		return Maybe
	}
	set := s.extras
	if n.variable == "dependency_groups" {
		set = s.groups
	}
	return truth(slices.Contains(set, n.value) == (n.op == "in"))
}

// compareVersions applies PEP 440 where the right side allows it.
func (n *markerNode) compareVersions(got string) (Truth, bool) {
	if n.clause != nil {
		return truth(n.clause.containsText(got)), true
	}
	if !n.swapped || n.op == "in" || n.op == "not in" {
		return False, false
	}
	c, err := parseClause(n.op + got)
	if err != nil {
		return False, false
	}
	return truth(c.containsText(n.value)), true
}

// isVersion reports whether a variable is compared as a version.
func isVersion(variable string) bool {
	switch variable {
	case "python_version", "python_full_version", "implementation_version", "platform_release":
		return true
	}
	return false
}

// isSet reports whether a variable holds a set of names.
func isSet(variable string) bool { return variable == "extras" || variable == "dependency_groups" }

// An Environment gives the marker variables of a target. platform_release and
// platform_version belong to one machine, not to a kind of machine: empty ones
// are unknown.
type Environment struct {
	OSName                string
	SysPlatform           string
	PlatformMachine       string
	PlatformSystem        string
	PlatformRelease       string
	PlatformVersion       string
	PythonVersion         string // "3.12"
	PythonFullVersion     string // "3.12.0"
	ImplementationName    string // "cpython"
	PlatformPythonImpl    string // "CPython"
	ImplementationVersion string
	// Extra is the extra whose requirements are looked at, mostly none.
	Extra string
}

// lookup is the value of a variable that holds one word.
func (s *scope) lookup(variable string) string {
	if variable == "extra" {
		return s.extra
	}
	v := *s.env.field(variable)
	if variable == "python_full_version" && strings.HasSuffix(v, "+") {
		return v + "local" // what a build from a working tree calls itself
	}
	return v
}

// field is where a variable's value is kept, nil for others.
func (e *Environment) field(variable string) *string {
	switch variable {
	case "os_name":
		return &e.OSName
	case "sys_platform":
		return &e.SysPlatform
	case "platform_machine":
		return &e.PlatformMachine
	case "platform_system":
		return &e.PlatformSystem
	case "platform_release":
		return &e.PlatformRelease
	case "platform_version":
		return &e.PlatformVersion
	case "python_version":
		return &e.PythonVersion
	case "python_full_version":
		return &e.PythonFullVersion
	case "implementation_name":
		return &e.ImplementationName
	case "implementation_version":
		return &e.ImplementationVersion
	case "platform_python_implementation":
		return &e.PlatformPythonImpl
	}
	return nil
}
