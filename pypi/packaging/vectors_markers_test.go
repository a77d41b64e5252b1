package packaging

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func environmentOf(t *testing.T, vars map[string]string) *Environment {
	t.Helper()
	var e Environment
	for name, value := range vars {
		field := e.field(name)
		if field == nil {
			t.Fatalf("no field for %s", name)
		}
		*field = value
	}
	return &e
}

func TestVectorsMarkers(t *testing.T) {
	v := loadVectors(t)
	var scopes []scope
	for _, with := range []scope{{}, {extra: "test"}, {extras: []string{"test", "foo-bar"}, groups: []string{"dev"}}} {
		for _, vars := range v.Environments {
			s := with
			s.env, s.exact = environmentOf(t, vars), true
			scopes = append(scopes, s)
		}
	}
	forms, values := newTally(t, "markers"), newTally(t, "markers in environments")
	for _, m := range v.Markers {
		forms.cases++
		got, err := ParseMarker(m.text)
		if err != nil {
			if m.want != nil && strings.Trim(*m.want[1], "UM") != "" {
				forms.differ(markerRule(m.text), "%q refused: %v", m.text, err)
			} else if m.want != nil {
				forms.differ("a comparison that always fails is refused when read", "")
			}
			continue
		}
		if m.want == nil {
			forms.differ("", "%q accepted as %s", m.text, got.Normal())
			continue
		}
		if form := m.want[0]; form == nil || *form != got.Normal() {
			forms.differ(formRule(got.Normal()), "%q: got %s, want %v", m.text, got.Normal(), form)
		}
		if again, err := ParseMarker(got.Normal()); err != nil || again.Normal() != got.Normal() {
			forms.differ("", "%q: normal form %s becomes %s: %v", m.text, got.Normal(), again.Normal(), err)
		}
		for i, want := range *m.want[1] {
			values.cases++
			compareTruth(values, got, &scopes[i], string(want))
		}
	}
	forms.done(200)
	values.done(4_000)
}

// compareTruth compares what a marker says in one scope.
func compareTruth(c *tally, m Marker, s *scope, want string) {
	c.t.Helper()
	got := m.root.eval(s) == True
	switch want {
	case "M":
		c.differ("a variable that is missing there is empty here", "")
		return
	case "U":
		c.differ("a comparison that fails on one target is false there", "")
		return
	}
	if got != (want == "T") {
		c.differ("", "%s in %+v: got %v, want %s", m, *s.env, got, want)
	}
	// What Eval says of it may be open, but not wrong.
	env := *s.env
	env.Extra = s.extra
	if e := m.Eval(&env); s.extras == nil && e != truth(got) && e != Maybe {
		c.differ("", "%s in %+v: Eval %v, want %s", m, env, e, want)
	}
	if s.extras == nil {
		var extras []string
		if s.extra != "" {
			extras = []string{s.extra}
		}
		if h := m.Holds(s.env, extras); h != got {
			c.differ("", "%s with %v: Holds %v, want %s", m, extras, h, want)
		}
	}
}

// markerRule explains why a marker is refused that the library takes.
func markerRule(s string) string {
	switch {
	case strings.Contains(s, `\N`) || strings.Contains(s, `\u`) || strings.Contains(s, `\U`):
		return `\N and lone surrogates in a string are refused`
	case strings.Count(s, "(") > maxMarkerDepth:
		return "over our limit of parentheses"
	}
	return tooLong(s, maxMarker)
}

// formRule explains another normal form: the library writes strings without
// escapes, and cannot read all of them again.
func formRule(got string) string {
	if strings.Contains(got, `\x`) {
		return "a string that needs escapes gets them"
	}
	return ""
}

func TestVectorsEvaluations(t *testing.T) {
	v := loadVectors(t)
	c := newTally(t, "recorded evaluations")
	for _, e := range v.Evaluations {
		c.cases++
		s, rule := e.scope(t, v.Environments[0])
		m, err := ParseMarker(e.marker)
		if err != nil {
			if e.want == "U" || e.want == "M" {
				rule = "a comparison that always fails is refused when read"
			}
			c.differ(rule, "%q refused: %v", e.marker, err)
			continue
		}
		got := m.root.eval(s) == True
		switch {
		case e.want == "U" || e.want == "M":
			c.differ("a variable that is missing there is empty here", "")
		case got != (e.want == "T"):
			c.differ(rule, "%q in %v: got %v, want %s", e.marker, e.env, got, e.want)
		}
	}
	c.done(24)
}

// scope is the environment that a test gave, over a whole one, and the rule
// for one that ours cannot hold.
func (e *evaluation) scope(t *testing.T, whole map[string]string) (s *scope, rule string) {
	t.Helper()
	vars := maps.Clone(whole)
	s = &scope{env: &Environment{}, exact: true}
	for name, value := range e.env {
		set, isList := value.([]any)
		word, isWord := value.(string)
		switch {
		case name == "extra":
			s.extra = canonicalName(word)
		case isList && isSet(name):
			var names []string
			for _, member := range set {
				names = append(names, canonicalName(member.(string)))
			}
			if name == "extras" {
				s.extras = names
			} else {
				s.groups = names
			}
		case isWord && s.env.field(name) != nil:
			vars[name] = word
		default:
			rule = "an environment with other variables than those of PEP 508 and PEP 751"
		}
	}
	s.env = environmentOf(t, vars)
	return s, rule
}

func TestVectorsRequirements(t *testing.T) {
	c := newTally(t, "requirements")
	for _, r := range loadVectors(t).Requirements {
		c.cases++
		got, err := ParseRequirement(r.text)
		switch {
		case r.want == nil && err != nil:
		case r.want == nil:
			c.differ("", "%q accepted as %s", r.text, got)
		case err != nil:
			c.differ(requirementRule(r.text, r.want), "%q refused: %v", r.text, err)
		default:
			compareRequirement(c, r.text, got, r.want)
		}
	}
	c.done(200)
}

func compareRequirement(c *tally, text string, got Requirement, want *reqAnswer) {
	c.t.Helper()
	if got.Name != want.name || !slices.Equal(slices.Sorted(slices.Values(got.Extras)), want.extras) || got.URL != want.url || got.Specifiers.normal().String() != want.specifiers {
		c.differ("", "%q: got %s, want %+v", text, got, *want)
	}
	if want.whole == nil || *want.whole != got.String() {
		c.differ(formRule(got.Marker.Normal()), "%q: got %s, want %v", text, got, want.whole)
	}
	if again, err := ParseRequirement(got.String()); err != nil || again.String() != got.String() {
		c.differ("", "%q: normal form %s becomes %s: %v", text, got, again, err)
	}
}

// requirementRule explains why a requirement is refused that the library
// takes.
func requirementRule(text string, want *reqAnswer) string {
	switch {
	case !want.valid:
		return "a name that the library does not validate here"
	case strings.ContainsFunc(want.url, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return "a control character in a URL"
	}
	if want.marker != nil && *want.marker != "" {
		if _, marker, ok := strings.Cut(text, ";"); ok {
			if rule := markerRule(marker); rule != "" {
				return rule
			}
		}
		if m, err := ParseMarker(*want.marker); err != nil && m.root == nil {
			return "a comparison that always fails is refused when read"
		}
	}
	return tooLong(want.specifiers, maxVersion)
}
