package weights

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxTemplate bounds a template; the largest known have 100 KiB.
	maxTemplate = 1 << 20
	// maxBrackets bounds brackets in brackets.
	maxBrackets = 200
)

// errJinja says that a text is no template that Jinja takes.
var errJinja = errors.New("malformed template")

// A tokenKind is what a token of an expression is.
type tokenKind byte

const (
	tokName   tokenKind = 'n'
	tokText   tokenKind = 's'
	tokNumber tokenKind = '0'
	tokOp     tokenKind = 'o'
)

// A token is one of an expression or a statement.
type token struct {
	kind tokenKind
	text string // of a text, what it stands for
	// odd says that a text is written with an escape that templates of models
	// have no use for: it stands for a letter that could be written as it is.
	odd bool
}

// A tag is one {{ }} or {% %} with its tokens.
type tag struct {
	statement bool
	tokens    []token
}

// isTemplate reports whether a text has anything for Jinja in it.
func isTemplate(s string) bool {
	return strings.Contains(s, "{{") || strings.Contains(s, "{%") || strings.Contains(s, "{#")
}

// lexJinja splits a template as Jinja's own lexer does, with its standard
// delimiters, and shows the tags.
func lexJinja(s string, see func(tag)) error {
	l := &jinjaLexer{s: s}
	for {
		i := strings.IndexByte(l.s[l.at:], '{')
		if i < 0 {
			return nil
		}
		l.at += i
		if l.at+1 >= len(l.s) {
			return nil
		}
		switch l.s[l.at+1] {
		case '#':
			if err := l.comment(); err != nil {
				return err
			}
		case '{', '%':
			t, err := l.tag()
			if err != nil {
				return err
			}
			if t.statement && len(t.tokens) == 1 && t.tokens[0].text == "raw" && t.tokens[0].kind == tokName {
				if err := l.raw(); err != nil {
					return err
				}
				continue
			}
			see(t)
		default:
			l.at++
		}
	}
}

type jinjaLexer struct {
	s  string
	at int
}

func (l *jinjaLexer) bad(what string) error {
	return fmt.Errorf("%w at byte %d: %s", errJinja, l.at, what)
}

func (l *jinjaLexer) comment() error {
	i := strings.Index(l.s[l.at+2:], "#}")
	if i < 0 {
		return l.bad("a comment that does not end")
	}
	l.at += 2 + i + 2
	return nil
}

// raw passes over what stands up to endraw.
func (l *jinjaLexer) raw() error {
	for {
		i := strings.Index(l.s[l.at:], "{%")
		if i < 0 {
			return l.bad("raw does not end")
		}
		l.at += i
		rest := strings.TrimLeft(l.s[l.at+2:], "-+")
		rest, ok := strings.CutPrefix(strings.TrimLeft(rest, " \t\r\n"), "endraw")
		if ok {
			rest = strings.TrimLeft(rest, " \t\r\n")
			rest = strings.TrimLeft(rest, "-+")
			if strings.HasPrefix(rest, "%}") {
				l.at = len(l.s) - len(rest) + 2
				return nil
			}
		}
		l.at += 2
	}
}

// tag reads from its opening to its end.
func (l *jinjaLexer) tag() (tag, error) {
	t := tag{statement: l.s[l.at+1] == '%'}
	end := "}}"
	if t.statement {
		end = "%}"
	}
	l.at += 2
	if l.at < len(l.s) && (l.s[l.at] == '-' || l.s[l.at] == '+') {
		l.at++
	}
	var open []byte
	for {
		for l.at < len(l.s) && strings.IndexByte(" \t\r\n\v\f", l.s[l.at]) >= 0 {
			l.at++
		}
		rest := l.s[l.at:]
		if rest == "" {
			return t, l.bad("a tag that does not end")
		}
		if len(open) == 0 {
			for _, e := range []string{end, "-" + end, "+" + end} {
				if strings.HasPrefix(rest, e) && (e[0] != '+' || t.statement) {
					l.at += len(e)
					return t, nil
				}
			}
		}
		tok, err := l.token()
		if err != nil {
			return t, err
		}
		if open, err = l.brackets(open, tok); err != nil {
			return t, err
		}
		t.tokens = append(t.tokens, tok)
	}
}

// brackets holds that brackets match.
func (l *jinjaLexer) brackets(open []byte, tok token) ([]byte, error) {
	if tok.kind != tokOp || len(tok.text) != 1 {
		return open, nil
	}
	switch c := tok.text[0]; c {
	case '(', '[', '{':
		if len(open) >= maxBrackets {
			return nil, l.bad("too many brackets in each other")
		}
		return append(open, c), nil
	case ')', ']', '}':
		want := map[byte]byte{')': '(', ']': '[', '}': '{'}[c]
		if len(open) == 0 || open[len(open)-1] != want {
			return nil, l.bad("a bracket that nothing opened")
		}
		return open[:len(open)-1], nil
	}
	return open, nil
}

// jinjaOps are the operators of two letters; others have one.
const jinjaOps = "// ** == != >= <= "

func (l *jinjaLexer) token() (token, error) {
	rest := l.s[l.at:]
	r, n := utf8.DecodeRuneInString(rest)
	switch {
	case r == '\'' || r == '"':
		return l.text()
	case r == '_' || unicode.IsLetter(r):
		end := n
		for end < len(rest) {
			r, n := utf8.DecodeRuneInString(rest[end:])
			if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.In(r, unicode.Mn, unicode.Mc, unicode.Pc) {
				break
			}
			end += n
		}
		l.at += end
		return token{kind: tokName, text: rest[:end]}, nil
	case r >= '0' && r <= '9':
		return l.number(), nil
	}
	if len(rest) >= 2 && strings.Contains(jinjaOps, rest[:2]+" ") {
		l.at += 2
		return token{kind: tokOp, text: rest[:2]}, nil
	}
	if strings.ContainsRune("+-/*%~[](){}><=.:|,;", r) {
		l.at++
		return token{kind: tokOp, text: rest[:1]}, nil
	}
	return token{}, l.bad("unexpected " + quote(rest[:n]))
}

// number reads a number so far that no dot of it is taken for an attribute's.
func (l *jinjaLexer) number() token {
	start := l.at
	digits := func() {
		for l.at < len(l.s) && nameByte(l.s[l.at]) {
			l.at++
		}
	}
	digits()
	if l.at+1 < len(l.s) && l.s[l.at] == '.' && l.s[l.at+1] >= '0' && l.s[l.at+1] <= '9' {
		l.at++
		digits()
	}
	if c := l.s[l.at-1] | 0x20; c == 'e' && l.at+1 < len(l.s) && (l.s[l.at] == '-' || l.s[l.at] == '+') && l.s[l.at+1] >= '0' && l.s[l.at+1] <= '9' {
		l.at++
		digits()
	}
	return token{kind: tokNumber, text: l.s[start:l.at]}
}

// text reads a text in quotes, with Python's escapes.
func (l *jinjaLexer) text() (token, error) {
	q := l.s[l.at]
	end := l.at + 1
	for end < len(l.s) && l.s[end] != q {
		if l.s[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(l.s) {
		return token{}, l.bad("a text that does not end")
	}
	t := token{kind: tokText}
	t.text, t.odd = unescapePython(l.s[l.at+1 : end])
	l.at = end + 1
	return t, nil
}

// unescapePython resolves escapes as unicode-escape does. odd is true where
// one stands for a plain letter, digit or underscore, or names its character.
func unescapePython(s string) (out string, odd bool) {
	if !strings.Contains(s, `\`) {
		return s, false
	}
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		c := s[i+1]
		s = s[i+2:]
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
		switch {
		case digits > 0 && len(s) >= digits:
			n, err := strconv.ParseUint(s[:digits], 16, 32)
			if err != nil {
				return b.String(), true
			}
			odd = odd || n < 0x80 && nameByte(byte(n))
			b.WriteRune(rune(n)) // #nosec G115 -- a rune that is none is written as U+FFFD
			s = s[digits:]
		case c >= '0' && c <= '7':
			n, k := rune(c-'0'), 0
			for k < len(s) && k < 2 && s[k] >= '0' && s[k] <= '7' {
				n, k = n*8+rune(s[k]-'0'), k+1
			}
			odd = odd || n < 0x80 && nameByte(byte(n))
			b.WriteRune(n)
			s = s[k:]
		case c == 'N':
			odd = true
		case strings.IndexByte("abfnrtv", c) >= 0:
			b.WriteByte("\a\b\f\n\r\t\v"[strings.IndexByte("abfnrtv", c)])
		case c == '\n':
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), odd
}
