package apt

import (
	"strings"
)

// Names of one-line options that differ from their deb822 names.
var oneLineNames = map[string]string{
	"arch": "architectures", "arch+": "architectures-add", "arch-": "architectures-remove",
	"lang": "languages", "lang+": "languages-add", "lang-": "languages-remove",
	"target": "targets", "target+": "targets-add", "target-": "targets-remove",
}

// parseOneLine reads sources.list(5), one-line style: "#" anywhere starts a
// comment, there are no continuation lines.
func parseOneLine(text string) (entries []sourceEntry, problems []sourceProblem) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if len(entries) == maxSources {
			return entries, append(problems, sourceProblem{n, "", "too many entries"})
		}
		e, reason := parseOne(line)
		if reason != "" {
			problems = append(problems, sourceProblem{n, withoutLogin(line), reason})
			continue
		}
		e.line = n
		entries = append(entries, e)
	}
	return entries, problems
}

// parseOne reads "deb [options] URI suite component…".
func parseOne(line string) (sourceEntry, string) {
	e := sourceEntry{options: make(map[string][]string)}
	kind, rest := firstWord(line)
	if kind != "deb" && kind != "deb-src" {
		return e, "neither deb nor deb-src"
	}
	e.types = []string{kind}
	if strings.HasPrefix(rest, "[") {
		inner, after, ok := strings.Cut(rest[1:], "]")
		if !ok {
			return e, "options are not closed"
		}
		rest = strings.TrimSpace(after)
		for opt := range strings.FieldsSeq(inner) {
			name, value, ok := strings.Cut(opt, "=")
			if !ok || name == "" {
				return e, "option without a value"
			}
			name = strings.ToLower(name)
			if long, ok := oneLineNames[name]; ok {
				name = long
			}
			for v := range strings.SplitSeq(value, ",") {
				if v != "" {
					e.options[name] = append(e.options[name], v)
				}
			}
		}
	}
	uri, rest := firstWord(rest)
	suite, rest := firstWord(rest)
	if uri == "" || suite == "" {
		return e, "URI or suite missing"
	}
	e.uris, e.suites, e.components = []string{uri}, []string{suite}, strings.Fields(rest)
	if len(e.components) == 0 && !strings.HasSuffix(suite, "/") {
		return e, "component missing"
	}
	return e, ""
}

// firstWord cuts at white space; "cdrom:[…]" and quoted words hold some.
func firstWord(s string) (word, rest string) {
	depth, quoted := 0, false
	for i, c := range []byte(s) {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '[':
			depth++
		case c == ']':
			depth--
		case (c == ' ' || c == '\t') && depth <= 0 && !quoted:
			return strings.Trim(s[:i], `"`), strings.TrimSpace(s[i:])
		}
	}
	return strings.Trim(s, `"`), ""
}

// parseDeb822Sources reads sources.list(5), deb822 style: "#" starts a comment
// only at the beginning of a line, and a comment may stand inside a stanza.
func parseDeb822Sources(text string) (entries []sourceEntry, problems []sourceProblem) {
	p := &sourcesParser{}
	for line := range strings.Lines(text) {
		p.line++
		p.feed(strings.TrimRight(line, "\r\n"))
	}
	p.end()
	return p.entries, p.problems
}

type sourcesParser struct {
	line     int
	start    int
	fields   map[string]string
	last     string
	entries  []sourceEntry
	problems []sourceProblem
}

func (p *sourcesParser) feed(line string) {
	switch {
	case strings.HasPrefix(line, "#"):
	case strings.TrimSpace(line) == "":
		p.end()
	case line[0] == ' ' || line[0] == '\t':
		if p.last == "" {
			p.problem(line, "continuation line before a field")
			return
		}
		p.fields[p.last] += "\n" + line
	default:
		name, value, ok := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" {
			p.problem(line, "not a field")
			return
		}
		if p.fields == nil {
			p.fields, p.start = make(map[string]string), p.line
		}
		if _, dup := p.fields[name]; dup {
			p.problem(name, "field twice in one stanza")
		}
		p.fields[name] = value
		p.last = name
	}
}

func (p *sourcesParser) problem(text, reason string) {
	p.problems = append(p.problems, sourceProblem{p.line, withoutLogin(text), reason})
}

// end closes a stanza.
func (p *sourcesParser) end() {
	fields := p.fields
	p.fields, p.last = nil, ""
	if fields == nil {
		return
	}
	if len(p.entries) == maxSources {
		return
	}
	e := sourceEntry{
		line: p.start, options: make(map[string][]string),
		types: strings.Fields(fields["types"]), uris: strings.Fields(fields["uris"]),
		suites: strings.Fields(fields["suites"]), components: strings.Fields(fields["components"]),
	}
	flat := len(e.suites) > 0 && strings.HasSuffix(e.suites[0], "/")
	if len(e.types) == 0 || len(e.uris) == 0 || len(e.suites) == 0 || len(e.components) == 0 && !flat {
		p.problems = append(p.problems, sourceProblem{p.start, withoutLogin(fields["uris"]), "Types, URIs, Suites or Components missing"})
		return
	}
	for name, value := range fields {
		switch name {
		case "types", "uris", "suites", "components":
		case "signed-by":
			if strings.Contains(value, "-----BEGIN PGP") {
				e.key = inlineKey(value)
				continue
			}
			fallthrough
		default:
			e.options[name] = strings.FieldsFunc(value, func(r rune) bool {
				return r == ' ' || r == '\t' || r == '\n' || r == ',' && name == "signed-by"
			})
		}
	}
	p.entries = append(p.entries, e)
}

// inlineKey undoes the folding: every line is indented, an empty one is " .".
func inlineKey(value string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimLeft(value, " \n"), "\n") {
		line = strings.TrimSpace(line)
		if line == "." {
			line = ""
		}
		lines = append(lines, line)
	}
	return strings.TrimSpace(strings.Join(lines, "\n")) + "\n"
}
