package pypi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// A Choice narrows the extras and the dependency groups that whoever installs
// may choose. Nil lists leave all of them open, so that a mirror never
// carries too little; empty ones leave none.
type Choice struct {
	Extras []string
	Groups []string
}

// normalize puts the names into normal form and holds them against what there
// is.
func (c Choice) normalize(where string, extras, groups []string) (Choice, error) {
	for _, l := range []struct {
		kind        string
		have, names []string
	}{{"extra", extras, c.Extras}, {"group", groups, c.Groups}} {
		for _, n := range l.names {
			name, err := packaging.NormalizeName(n)
			if err != nil || !slices.Contains(l.have, name) {
				there := "there is none"
				if len(l.have) > 0 {
					there = "there are " + clip(strings.Join(slices.Sorted(slices.Values(l.have)), ", "))
				}
				return c, lockRefusal("-CHOICE", where, fmt.Sprintf("no %s %q; %s", l.kind, clip(n), there), err)
			}
		}
	}
	return Choice{normalNames(c.Extras), normalNames(c.Groups)}, nil
}

// normalNames keeps the difference between nil and empty.
func normalNames(names []string) []string {
	if names == nil {
		return nil
	}
	out := make([]string, 0, len(names))
	for _, n := range names {
		name, err := packaging.NormalizeName(n)
		if err != nil {
			name = n
		}
		out = append(out, name)
	}
	return out
}

func (c Choice) extra(name string) bool { return c.Extras == nil || slices.Contains(c.Extras, name) }

func (c Choice) group(name string) bool { return c.Groups == nil || slices.Contains(c.Groups, name) }

// Choose narrows what the lock is read for.
func (l *Lock) Choose(c Choice) error {
	c, err := c.normalize(l.where, l.extras, l.groups)
	if err != nil {
		return err
	}
	if l.graph != nil {
		l.graph.choice = c
		return nil
	}
	for i := range l.Pins {
		p := &l.Pins[i]
		if p.Marker, err = decideMarker(p.Marker.String(), func(variable, name string) packaging.Truth {
			if variable == "extras" && !c.extra(name) || variable == "dependency_groups" && !c.group(name) {
				return packaging.False
			}
			return packaging.Maybe
		}); err != nil {
			return lockRefusal("-SYNTAX", p.Where, p.Name, err)
		}
	}
	return nil
}

// Choose narrows the wants to those that still count.
func (r *Requirements) Choose(c Choice) error {
	c, err := c.normalize(r.where, r.extras, r.groups)
	if err != nil {
		return err
	}
	r.Wants = slices.DeleteFunc(r.Wants, func(w Want) bool {
		return w.Extra != "" && !c.extra(w.Extra) || w.Group != "" && !c.group(w.Group)
	})
	return nil
}

// Atoms of a marker that are decided whatever the target is.
const (
	markerTrue  = "'' in os_name"
	markerFalse = "'' not in os_name"
)

// markerWord is a string, a word, an operator or a parenthesis of a marker.
var markerWord = regexp.MustCompile(`'[^']*'|"[^"]*"|[A-Za-z0-9_.]+|[=!<>~]+|\S`)

// decideMarker parses a marker in which the extras and the groups are decided
// that somebody is known to choose, or not to; the others stay open. variable
// is "extra", "extras" or "dependency_groups".
//
// The text is changed and not the parsed marker: every form that names an
// extra or a group becomes one that is always or never true, or 'x' in
// extras, which no target knows. uv writes extras that exclude one another as
// extra == 'extra-7-project-name', which would be false for all.
func decideMarker(text string, chosen func(variable, name string) packaging.Truth) (packaging.Marker, error) {
	if text == "" {
		return packaging.Marker{}, nil
	}
	m, err := packaging.ParseMarker(text)
	if err != nil || !namesChoice(text) {
		return m, err
	}
	words := markerWord.FindAllString(text, -1)
	var out []string
	for len(words) > 0 {
		if n, atom := decideAtom(words, chosen); n > 0 {
			out, words = append(out, atom), words[n:]
			continue
		}
		out, words = append(out, words[0]), words[1:]
	}
	return packaging.ParseMarker(strings.Join(out, " "))
}

// namesChoice reports whether a marker may name an extra or a group.
func namesChoice(text string) bool {
	return strings.Contains(text, "extra") || strings.Contains(text, "dependency_groups")
}

// decideAtom replaces a comparison with an extra or a group at the front; n
// is 0 if there is none.
func decideAtom(words []string, chosen func(variable, name string) packaging.Truth) (n int, atom string) {
	at := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	quoted := func(s string) bool { return s != "" && (s[0] == '\'' || s[0] == '"') }
	equals := at(1) == "==" || at(1) == "!="
	var variable, name string
	var is bool
	switch set := func(s string) bool { return s == "extras" || s == "dependency_groups" }; {
	case at(0) == "extra" && equals && quoted(at(2)):
		n, variable, name, is = 3, at(0), at(2), at(1) == "=="
	case quoted(at(0)) && equals && at(2) == "extra":
		n, variable, name, is = 3, at(2), at(0), at(1) == "=="
	case quoted(at(0)) && at(1) == "in" && set(at(2)):
		n, variable, name, is = 3, at(2), at(0), true
	case quoted(at(0)) && at(1) == "not" && at(2) == "in" && set(at(3)):
		n, variable, name, is = 4, at(3), at(0), false
	default:
		return 0, ""
	}
	switch truth := chosen(variable, name[1:len(name)-1]); {
	case truth == packaging.Maybe && is:
		return n, name + " in extras"
	case truth == packaging.Maybe:
		return n, name + " not in extras"
	case is == (truth == packaging.True):
		return n, markerTrue
	}
	return n, markerFalse
}
