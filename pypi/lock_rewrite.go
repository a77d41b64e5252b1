package pypi

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

const (
	// mostUnmapped bounds the URLs that one refusal lists.
	mostUnmapped = 5
	// maxPrefixes bounds the prefixes of one rewriting; a site has a handful
	// of indexes.
	maxPrefixes = 1000
)

// A Change is one URL that was rewritten.
type Change struct {
	Where    string // "uv.lock:12"
	From, To string
}

// RewriteLock changes the URLs of a uv.lock, a pylock.toml or a requirements
// file (the name tells which it is) by their beginnings, so that what was
// locked outside installs from an index inside. prefixes maps the beginnings
// outside to those inside; the longest that fits counts, and one ends where a
// part of the path ends. All other bytes stay as they are.
//
// A URL that no prefix fits is refused: left as it is, it would be asked for
// where it cannot be reached. What begins with an inside prefix already stays,
// so that rewriting again changes nothing.
func RewriteLock(name string, in []byte, prefixes map[string]string) ([]byte, []Change, error) {
	p, err := newPrefixes(prefixes)
	if err != nil {
		return nil, nil, err
	}
	if len(in) > maxLock {
		return nil, nil, lockRefusal("-LIMIT", name, fmt.Sprintf("over %d bytes", maxLock), nil)
	}
	var found []place
	switch kindOf(name) {
	case kindUV, kindPylock:
		found, err = urlsOfTOML(in, name)
	default:
		found, err = urlsOfRequirements(in, name)
	}
	if err != nil {
		return nil, nil, err
	}
	return p.rewrite(name, in, found)
}

// A place is a URL in the text.
type place struct {
	start, end int
	url        string
	// quote writes the new URL as the place wants it.
	quote func(string) string
}

// rewrite puts the new URLs in.
func (p *rewritePrefixes) rewrite(name string, in []byte, found []place) ([]byte, []Change, error) {
	out := make([]byte, 0, len(in)+len(in)/8)
	var changes []Change
	var unmapped []string
	line, counted, copied := 1, 0, 0
	for _, f := range found {
		line += bytes.Count(in[counted:f.start], []byte("\n"))
		counted = f.start
		where := fmt.Sprintf("%s:%d", name, line)
		to, ok := p.mapped(f.url)
		if !ok {
			unmapped = append(unmapped, fmt.Sprintf("%s (line %d)", clip(redact(f.url)), line))
			continue
		}
		if to == f.url {
			continue
		}
		out = append(out, in[copied:f.start]...)
		out = append(out, f.quote(to)...)
		copied = f.end
		changes = append(changes, Change{where, redact(f.url), to})
	}
	if len(unmapped) > 0 {
		text := strings.Join(unmapped[:min(len(unmapped), mostUnmapped)], ", ")
		if more := len(unmapped) - mostUnmapped; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		return nil, nil, lockRefusal("-UNMAPPED", name, "no prefix is given for "+text, nil)
	}
	return append(out, in[copied:]...), changes, nil
}

// rewritePrefixes are beginnings of URLs, without a final slash.
type rewritePrefixes struct {
	to     map[string]string
	inside map[string]bool
}

func newPrefixes(prefixes map[string]string) (*rewritePrefixes, error) {
	if len(prefixes) == 0 || len(prefixes) > maxPrefixes {
		return nil, lockRefusal("-PREFIX", "prefixes", fmt.Sprintf("%d given, want 1 to %d", len(prefixes), maxPrefixes), nil)
	}
	p := &rewritePrefixes{to: make(map[string]string), inside: make(map[string]bool)}
	for _, from := range slices.Sorted(maps.Keys(prefixes)) {
		to := prefixes[from]
		for _, s := range []string{from, to} {
			if err := checkPrefix(s); err != nil {
				return nil, lockRefusal("-PREFIX", clip(redact(s)), err.Error(), nil)
			}
		}
		from, to = strings.TrimRight(from, "/"), strings.TrimRight(to, "/")
		if other, twice := p.to[from]; twice && other != to {
			return nil, lockRefusal("-PREFIX", clip(from), "is there twice", nil)
		}
		p.to[from] = to
		p.inside[to] = true
	}
	for from, to := range p.to {
		// Nobody could tell such a URL's two meanings apart.
		if p.inside[from] && from != to {
			return nil, lockRefusal("-PREFIX", clip(from), "is both an outside and an inside prefix", nil)
		}
	}
	return p, nil
}

// checkPrefix wants scheme://host/path in characters that every kind of lock
// can hold as they are.
func checkPrefix(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("malformed URL") // its text may hold credentials
	case u.User != nil:
		return errors.New("must not hold credentials")
	case u.Scheme == "" || u.Host == "" && u.Scheme != "file":
		return errors.New("want https://HOST/PATH")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.Contains(s, "#"):
		return errors.New("must not have a query or a fragment")
	}
	for _, c := range s {
		if c <= ' ' || c > '~' || strings.ContainsRune(`"'\<>{}|^`+"`;,$", c) {
			return fmt.Errorf("must not hold %q", c)
		}
	}
	return nil
}

// mapped is the URL inside, or the URL itself if it is inside already.
func (p *rewritePrefixes) mapped(s string) (string, bool) {
	// From the whole URL backwards, a slash at a time: the longest fits first.
	for end := len(s); end > 0; end = strings.LastIndexByte(s[:end], '/') {
		head := strings.TrimRight(s[:end], "/")
		if p.inside[head] {
			return s, true
		}
		if to, ok := p.to[head]; ok {
			return to + s[len(head):], true
		}
	}
	return "", false
}

// urlKeys are the keys of uv.lock and pylock.toml whose values are URLs that
// an installer goes to.
var urlKeys = []string{"registry", "index", "url", "git"}

// urlsOfTOML finds the URLs of a uv.lock or a pylock.toml.
func urlsOfTOML(in []byte, name string) ([]place, error) {
	// The walk below does not look for what makes a document invalid.
	var doc struct {
		Version     int64      `toml:"version"`
		LockVersion string     `toml:"lock-version"`
		Package     []struct{} `toml:"package"`
		Packages    []struct{} `toml:"packages"`
	}
	if err := unmarshalTOML(in, name, "lock", &doc); err != nil {
		return nil, err
	}
	if doc.Version == 0 && doc.LockVersion == "" {
		return nil, lockRefusal("-SYNTAX", name, "neither a uv.lock nor a pylock.toml", nil)
	}
	w := &urlWalk{}
	w.p.Reset(in)
	var table []string
	for w.p.NextExpression() {
		e := w.p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = keyParts(e.Key())
		case unstable.KeyValue:
			w.value(e, table)
		default: // comments
		}
	}
	if err := w.p.Error(); err != nil {
		return nil, lockRefusal("-SYNTAX", name, "not a lock", err)
	}
	return w.found, nil
}

func keyParts(it unstable.Iterator) []string {
	var parts []string
	for it.Next() {
		parts = append(parts, string(it.Node().Data))
	}
	return parts
}

// urlWalk finds the URLs of a document, in their order.
type urlWalk struct {
	p     unstable.Parser
	found []place
}

// value looks at a key, which stands in the table, with its value.
func (w *urlWalk) value(kv *unstable.Node, table []string) {
	w.inside(kv.Value(), append(slices.Clip(table), keyParts(kv.Key())...))
}

// inside looks into inline tables and arrays, whose nesting the parser
// bounds.
func (w *urlWalk) inside(v *unstable.Node, key []string) {
	if key[0] == "tool" || len(key) > 1 && key[0] == "packages" && key[1] == "tool" {
		return // what no installer reads
	}
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			if n := it.Node(); n.Kind == unstable.KeyValue {
				w.value(n, key)
			}
		}
	case unstable.Array:
		for it := v.Children(); it.Next(); {
			w.inside(it.Node(), key)
		}
	case unstable.String:
		// A path beside the lock has no scheme, and stays.
		if !slices.Contains(urlKeys, key[len(key)-1]) || !strings.Contains(string(v.Data), "://") {
			return
		}
		start := int(v.Raw.Offset)
		w.found = append(w.found, place{start, start + int(v.Raw.Length), string(v.Data), quoteTOML})
	default:
	}
}

// quoteTOML writes a basic string. What it is given has no control characters
// beyond those that it escapes.
func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// urlsOfRequirements finds the URLs of a requirements file: those of index
// options and of requirements, everywhere but in comments.
func urlsOfRequirements(in []byte, name string) ([]place, error) {
	if !utf8.Valid(in) {
		return nil, lockRefusal("-SYNTAX", name, "not UTF-8", nil)
	}
	var found []place
	for at, line := range pythonLines(string(in)) {
		code := line[:len(line)-len(commentOf(line))]
		for i := 0; ; {
			j := strings.Index(code[i:], "://")
			if j < 0 {
				break
			}
			j += i
			start, end := urlAround(code, j)
			if strings.HasSuffix(code[:end], `\`) {
				return nil, lockRefusal("-SYNTAX", name, fmt.Sprintf("%q goes on in the next line; write it on one", clip(redact(code[start:end]))), nil)
			}
			found = append(found, place{at + start, at + end, code[start:end], func(s string) string { return s }})
			i = end
		}
	}
	return found, nil
}

// commentOf is the comment of a line, as stripComment drops it.
func commentOf(line string) string {
	for i := range len(line) {
		if line[i] == '#' && strings.TrimSpace(line[:i]) == "" {
			return line[i:]
		}
	}
	bare := stripComment(line)
	i := strings.Index(line, bare) + len(bare)
	return line[i:]
}

// urlAround finds where the URL with its "://" at i starts and ends.
func urlAround(s string, i int) (start, end int) {
	start = i
	for start > 0 && (s[start-1] == '+' || s[start-1] == '.' || s[start-1] == '-' || alnumASCII(s[start-1])) {
		start--
	}
	if strings.HasPrefix(s[start:], "-") && !strings.HasPrefix(s[start:], "--") {
		start = min(start+2, i) // "-ihttps://..."
	}
	end = i
	for end < len(s) && !strings.ContainsRune(" \t\"'", rune(s[end])) {
		end++
	}
	return start, end
}

func alnumASCII(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
