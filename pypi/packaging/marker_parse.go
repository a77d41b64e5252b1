package packaging

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxMarker bounds a marker's text. Universal locks write long
	// disjunctions; the longest known has about 4 KiB.
	maxMarker = 64 << 10
	// maxMarkerDepth bounds parentheses; tools write two or three levels.
	maxMarkerDepth = 32
)

// blank is the white space of PEP 508; a line ends elsewhere.
const blank = " \t"

// markerVariable knows the names of PEP 508 and PEP 751, and the old spellings
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

// ParseMarker reads a marker. A comparison that no interpreter can evaluate
// is refused here, so that evaluation cannot fail.
func ParseMarker(s string) (Marker, error) {
	s = strings.Trim(s, blank)
	if len(s) > maxMarker {
		return Marker{}, fmt.Errorf("marker %q: over %d bytes", clip(s), maxMarker)
	}
	if !utf8.ValidString(s) {
		return Marker{}, fmt.Errorf("marker %q: not UTF-8", clip(s))
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
		n.grouped = len(n.kids) > 0
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
	case !leftVar && !rightVar:
		return nil, fmt.Errorf("%q %s %q: want a variable on one side", clip(left), op, clip(right))
	case leftVar && rightVar:
		n.named = true // no interpreter looks the second one up
	case rightVar:
		n.variable, n.value, n.swapped = right, left, true
	}
	return n, n.check()
}

// check refuses comparisons that have no meaning, and prepares the others.
func (n *markerNode) check() error {
	if isSet(n.variable) && !n.swapped {
		return fmt.Errorf("%s takes only the form 'name' in %s", n.variable, n.variable)
	}
	if !n.named && (n.variable == "extra" || isSet(n.variable)) {
		n.value = canonicalName(n.value)
	}
	if isVersion(n.variable) {
		if n.swapped {
			return nil // whether it is a version comparison, the target decides
		}
		if c, err := parseClause(n.op + n.value); err == nil {
			n.clause = &c
			return nil
		}
	}
	if n.op == "~=" || n.op == "===" {
		return fmt.Errorf("%s %s %q is no version comparison", n.variable, n.op, clip(n.value))
	}
	return nil
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
		text, err = unquote(p.s[p.i+1 : p.i+1+end])
		p.i += end + 2
		return text, false, err
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

// unquote reads what stands between quotes as Python reads a string literal.
func unquote(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", errors.New("a string holds a null byte")
	}
	if !strings.ContainsAny(s, "\\\r\n") {
		return s, nil
	}
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	var b strings.Builder
	for s != "" {
		c := s[0]
		s = s[1:]
		switch {
		case c == '\n':
			return "", errors.New("a string holds a line end")
		case c != '\\':
			b.WriteByte(c)
		case s == "":
			return "", errors.New("a string ends in a backslash")
		default:
			n, err := unescape(&b, s)
			if err != nil {
				return "", err
			}
			s = s[n:]
		}
	}
	return b.String(), nil
}

// unescape reads what follows a backslash, and returns its length.
func unescape(b *strings.Builder, s string) (int, error) {
	if i := strings.IndexByte("abfnrtv'\"\\", s[0]); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v'\"\\"[i])
		return 1, nil
	}
	n, base, at := 0, 16, 1
	switch s[0] {
	case '\n':
		return 1, nil
	case 'x':
		n = 2
	case 'u':
		n = 4
	case 'U':
		n = 8
	case 'N':
		return 0, errors.New(`a string holds a character by its name, \N`)
	default:
		at, base = 0, 8
		for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
			n++
		}
		if n == 0 { // Python keeps the backslash of what is no escape
			b.WriteByte('\\')
			return 0, nil
		}
	}
	if len(s) < at+n {
		return 0, errors.New("a string holds an escape that is cut short")
	}
	code, err := strconv.ParseUint(s[at:at+n], base, 32)
	if err != nil || code > utf8.MaxRune || !utf8.ValidRune(rune(code)) {
		return 0, fmt.Errorf("a string holds the escape %q", clip(s[:at+n]))
	}
	b.WriteRune(rune(code))
	return at + n, nil
}

// Normal is the marker in a normal form, which says the same.
func (m Marker) Normal() string {
	var b strings.Builder
	if m.root != nil {
		m.root.write(&b, true)
	}
	return b.String()
}

func (n *markerNode) write(b *strings.Builder, top bool) {
	if n.variable != "" {
		value := n.value
		if !n.named {
			value = quote(value)
		}
		left, right := n.variable, value
		if n.swapped {
			left, right = right, left
		}
		b.WriteString(left + " " + n.op + " " + right)
		return
	}
	if n.grouped && !top {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	word := " and "
	if n.or {
		word = " or "
	}
	for i, k := range n.kids {
		if i > 0 {
			b.WriteString(word)
		}
		k.write(b, false)
	}
}

// quote writes a string literal that Python reads as s.
func quote(s string) string {
	q := `"`
	if strings.Contains(s, q) {
		q = `'`
	}
	var b strings.Builder
	b.WriteString(q)
	for _, r := range s {
		switch {
		case r < 0x20 || r == '\\' || string(r) == q:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + q
}
