package packaging

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vectors were computed by the packaging library itself, from inputs of its
// own tests and more of the same: testdata/packaging at the top makes them.
type vectors struct {
	MadeWith       string              `json:"made_with"`
	Versions       []asked[[3]any]     `json:"versions"`
	Order          []ranked            `json:"order"`
	Specifiers     []asked[[2]any]     `json:"specifiers"`
	Sets           []asked[[2]any]     `json:"sets"`
	Items          []string            `json:"items"`
	Contains       [][2]string         `json:"contains"`
	Filters        [][4]string         `json:"filters"`
	SpecifierCalls []filterCall        `json:"specifier_calls"`
	SetCalls       []filterCall        `json:"set_calls"`
	Environments   []map[string]string `json:"environments"`
	Markers        []asked[[2]*string] `json:"markers"`
	Evaluations    []evaluation        `json:"evaluations"`
	Requirements   []asked[reqAnswer]  `json:"requirements"`
	Names          []asked[nameAnswer] `json:"names"`
	Wheels         []asked[wheelAnswer]
	Sdists         []asked[[2]string]
	TagSets        []asked[[]string] `json:"tag_sets"`
	Tags           []tagCall         `json:"tags"`
	WheelTags      []string          `json:"wheel_tags"`
	Targets        []targetAnswer    `json:"targets"`
	PyPy           []pypyAnswer      `json:"pypy"`
	Metadata       []asked[metadataAnswer]
}

// asked is an input and the library's answer, nil if it refuses.
type asked[T any] struct {
	text string
	want *T
}

func (a *asked[T]) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &[2]any{&a.text, &a.want}) }

type ranked struct {
	text string
	rank int
}

func (r *ranked) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &[2]any{&r.text, &r.rank}) }

type filterCall struct {
	spec   string
	items  []string
	pre    *bool
	places []int
}

func (c *filterCall) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[4]any{&c.spec, &c.items, &c.pre, &c.places})
}

type evaluation struct {
	marker  string
	env     map[string]any
	context string
	want    string
}

func (e *evaluation) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[4]any{&e.marker, &e.env, &e.context, &e.want})
}

type reqAnswer struct {
	name, specifiers, url string
	extras                []string
	marker, whole         *string
	valid                 bool // names and extras are valid, which the library does not ask for
}

func (r *reqAnswer) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[7]any{&r.name, &r.extras, &r.specifiers, &r.url, &r.marker, &r.whole, &r.valid})
}

type nameAnswer struct {
	valid  *string
	any    string
	normal bool
}

func (n *nameAnswer) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[3]any{&n.valid, &n.any, &n.normal})
}

type wheelAnswer struct {
	project, version, number, rest string
	tags                           []string
}

func (w *wheelAnswer) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[5]any{&w.project, &w.version, &w.number, &w.rest, &w.tags})
}

type tagCall struct {
	function string
	args     []json.RawMessage
	tagList
}

func (c *tagCall) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[4]any{&c.function, &c.args, &c.count, &c.digest})
}

type tagList struct {
	count  int
	digest string
}

type targetAnswer struct {
	preset string
	env    map[string]string
	tagList
	ranks []int
}

func (t *targetAnswer) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[5]any{&t.preset, &t.env, &t.count, &t.digest, &t.ranks})
}

type pypyAnswer struct {
	minor    int
	platform string
	tagList
}

func (p *pypyAnswer) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[4]any{&p.minor, &p.platform, &p.count, &p.digest})
}

type metadataAnswer struct {
	NotUTF8         bool   `json:"not_utf8"` // a Requires-Dist, so that the library reads none
	MetadataVersion string `json:"metadata_version"`
	Name            string
	Version         string
	RequiresPython  string `json:"requires_python"`
	Requires        []string
	Malformed       int
	Extras          []string
	Dynamic         []string
}

// loadVectors reads the small set beside the tests, or the file that
// PACKAGING_VECTORS names, which is all that make vectors asks for.
func loadVectors(t *testing.T) *vectors {
	t.Helper()
	name := os.Getenv("PACKAGING_VECTORS")
	if name == "" {
		name = "testdata/vectors.json"
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return &v
}

// A tally counts the cases of an area, and what is known to differ, by rule.
// The rules stand in docs/packaging.md.
type tally struct {
	t     *testing.T
	area  string
	cases int
	known map[string]int
	wrong int
}

func newTally(t *testing.T, area string) *tally {
	return &tally{t: t, area: area, known: make(map[string]int)}
}

// differ notes a difference; rule is the one that explains it, or "".
func (c *tally) differ(rule, format string, args ...any) {
	c.t.Helper()
	if rule != "" {
		c.known[rule]++
		return
	}
	if c.wrong++; c.wrong <= 20 {
		c.t.Errorf(c.area+": "+format, args...)
	}
}

// done reports the counts, and fails if there were suspiciously few cases.
func (c *tally) done(least int) {
	c.t.Helper()
	var known []string
	for _, rule := range slices.Sorted(maps.Keys(c.known)) {
		known = append(known, strconv.Itoa(c.known[rule])+" "+rule)
	}
	line := ""
	if len(known) > 0 {
		line = "; known: " + strings.Join(known, ", ")
	}
	c.t.Logf("VECTORS %-26s %8d cases, %d differences%s", c.area, c.cases, c.wrong, line)
	if os.Getenv("PACKAGING_VECTORS") != "" {
		least *= 4
	}
	if c.cases < least {
		c.t.Errorf("%s: %d cases, want at least %d", c.area, c.cases, least)
	}
}

func TestVectorsVersion(t *testing.T) {
	c := newTally(t, "versions")
	for _, v := range loadVectors(t).Versions {
		c.cases++
		got, err := ParseVersion(v.text)
		switch {
		case v.want == nil && err != nil:
		case v.want == nil:
			c.differ("", "%q accepted as %s", v.text, got)
		case err != nil:
			c.differ(tooLong(v.text, maxVersion), "%q refused: %v", v.text, err)
		case *v.want != [3]any{got.String(), got.Canonical(), got.IsPrerelease()}:
			c.differ("", "%q: got %s, %s, %v, want %v", v.text, got, got.Canonical(), got.IsPrerelease(), *v.want)
		}
	}
	c.done(500)
}

// tooLong is the rule of a text with a part beyond one of our limits.
func tooLong(s string, limit int) string {
	if slices.ContainsFunc(strings.Split(s, ","), func(part string) bool { return len(part) > limit }) {
		return "over our limit of bytes"
	}
	return ""
}

func TestVectorsOrder(t *testing.T) {
	c := newTally(t, "order of versions")
	order := slices.DeleteFunc(loadVectors(t).Order, func(r ranked) bool { return len(r.text) > maxVersion })
	parsed := make([]Version, len(order))
	for i, o := range order {
		parsed[i] = mustVersion(t, o.text)
	}
	for i := range order {
		for j := range order {
			want := 0
			if order[i].rank < order[j].rank {
				want = -1
			} else if order[i].rank > order[j].rank {
				want = 1
			}
			c.cases++
			if got := parsed[i].Compare(parsed[j]); got != want {
				c.differ("", "%s against %s: got %d, want %d", order[i].text, order[j].text, got, want)
			}
			if (parsed[i].Canonical() == parsed[j].Canonical()) != (want == 0) {
				c.differ("", "%s and %s: canonical %s and %s", order[i].text, order[j].text, parsed[i].Canonical(), parsed[j].Canonical())
			}
		}
	}
	c.done(100_000)
}

func TestVectorsSpecifiers(t *testing.T) {
	v := loadVectors(t)
	c := newTally(t, "specifiers")
	for _, s := range v.Specifiers {
		c.cases++
		got, err := parseClause(s.text)
		switch {
		case s.want == nil && err != nil:
		case s.want == nil:
			c.differ("", "%q accepted", s.text)
		case err != nil:
			c.differ(tooLong(s.text, maxVersion), "%q refused: %v", s.text, err)
		case *s.want != [2]any{got.op + got.text, Specifiers{got}.NamesPrerelease()}:
			c.differ("", "%q: got %s%s, pre-releases %v, want %v", s.text, got.op, got.text, Specifiers{got}.NamesPrerelease(), *s.want)
		}
	}
	c.done(400)
	c = newTally(t, "specifier sets")
	for _, s := range v.Sets {
		c.cases++
		got, err := ParseSpecifiers(s.text)
		switch {
		case s.want == nil && err != nil:
		case s.want == nil:
			c.differ("", "%q accepted", s.text)
		case err != nil:
			c.differ(tooLong(s.text, maxVersion), "%q refused: %v", s.text, err)
		case *s.want != [2]any{got.normal().String(), got.NamesPrerelease()}:
			c.differ("", "%q: got %s, pre-releases %v, want %v", s.text, got.normal(), got.NamesPrerelease(), *s.want)
		}
	}
	c.done(150)
}

// bits reads flags, four a hexadecimal digit.
func bits(t *testing.T, s string, n int) []bool {
	t.Helper()
	var out []bool
	for _, r := range s {
		d, err := strconv.ParseUint(string(r), 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d&8 > 0, d&4 > 0, d&2 > 0, d&1 > 0)
	}
	return out[:n]
}

// policies are those of the library's three values None, True and False.
var policies = []Prereleases{PreDefault, PreAllow, PreRefuse}

func TestVectorsContains(t *testing.T) {
	v := loadVectors(t)
	items := make([]Version, len(v.Items))
	for i, s := range v.Items {
		items[i] = mustVersion(t, s)
	}
	c := newTally(t, "versions in a specifier")
	for _, s := range v.Contains {
		set, err := parseClause(s[0])
		if err != nil {
			c.differ(tooLong(s[0], maxVersion), "%q refused: %v", s[0], err)
			continue
		}
		for i, want := range bits(t, s[1], len(items)) {
			c.cases++
			if got := set.contains(&items[i]); got != want {
				c.differ("", "%q contains %q: got %v, want %v", s[0], v.Items[i], got, want)
			}
		}
	}
	c.done(40_000)
	c = newTally(t, "versions a set filters")
	for _, s := range v.Filters {
		set, err := ParseSpecifiers(s[0])
		if err != nil {
			c.differ(tooLong(s[0], maxVersion), "%q refused: %v", s[0], err)
			continue
		}
		for k, pre := range policies {
			kept := make(map[string]bool)
			for _, got := range set.Filter(items, pre) {
				kept[got.Text()] = true
			}
			for i, want := range bits(t, s[k+1], len(items)) {
				c.cases++
				if got := kept[v.Items[i]]; got != want {
					c.differ("", "%q filters %q, policy %d: got %v, want %v", s[0], v.Items[i], pre, got, want)
				}
			}
		}
	}
	c.done(60_000)
}

func TestVectorsFilterCalls(t *testing.T) {
	v := loadVectors(t)
	for _, area := range []struct {
		name  string
		calls []filterCall
	}{{"calls of a specifier", v.SpecifierCalls}, {"calls of a set", v.SetCalls}} {
		c := newTally(t, area.name)
		for _, call := range area.calls {
			c.cases++
			pre := PreDefault
			if call.pre != nil {
				pre = map[bool]Prereleases{true: PreAllow, false: PreRefuse}[*call.pre]
			}
			set, err := ParseSpecifiers(call.spec)
			if err != nil {
				c.differ(tooLong(call.spec, maxVersion), "%q refused: %v", call.spec, err)
				continue
			}
			var items []Version
			rule := ""
			for i, s := range call.items {
				item, err := ParseVersion(s)
				if err != nil { // the library takes any text; our lists hold versions
					rule = "an item is no version"
					continue
				}
				item.text = strconv.Itoa(i) + " " + s
				items = append(items, item)
			}
			// The texts carry places, so that === has to be asked without them.
			var got []int
			for _, item := range filterMarked(set, items, pre) {
				i, _, _ := strings.Cut(item.text, " ")
				n, err := strconv.Atoi(i)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, n)
			}
			if !slices.Equal(got, call.places) {
				c.differ(rule, "%q filters %q, policy %d: got %v, want %v", call.spec, call.items, pre, got, call.places)
			}
		}
		c.done(150)
	}
}

// filterMarked is Filter for items whose texts begin with their place.
func filterMarked(set Specifiers, items []Version, pre Prereleases) []Version {
	plain := make([]Version, len(items))
	for i, item := range items {
		plain[i] = item
		_, plain[i].text, _ = strings.Cut(item.text, " ")
	}
	kept := set.Filter(plain, pre)
	var out []Version
	for i := range plain {
		if len(kept) > 0 && kept[0].key == plain[i].key && kept[0].text == plain[i].text {
			out, kept = append(out, items[i]), kept[1:]
		}
	}
	return out
}

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
		return "a name or extra that the library does not validate here"
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

func TestVectorsNames(t *testing.T) {
	c := newTally(t, "names")
	for _, n := range loadVectors(t).Names {
		c.cases++
		got, err := NormalizeName(n.text)
		switch {
		case n.want.valid == nil && err == nil:
			c.differ("", "%q accepted as %s", n.text, got)
		case n.want.valid != nil && err != nil:
			c.differ(tooLong(n.text, maxName), "%q refused: %v", n.text, err)
		case err == nil && got != *n.want.valid:
			c.differ("", "%q: got %s, want %s", n.text, got, *n.want.valid)
		}
		if got := canonicalName(n.text); got != n.want.any {
			c.differ("", "%q: compared as %q, want %q", n.text, got, n.want.any)
		}
		if normal := err == nil && got == n.text; normal != n.want.normal {
			c.differ(tooLong(n.text, maxName), "%q: normal form %v, want %v", n.text, normal, n.want.normal)
		}
	}
	c.done(100)
}

func TestVectorsWheels(t *testing.T) {
	v := loadVectors(t)
	c := newTally(t, "wheel filenames")
	for _, w := range v.Wheels {
		c.cases++
		got, err := ParseWheelName(w.text)
		switch {
		case w.want == nil && err != nil:
		case w.want == nil:
			c.differ("", "%q accepted", w.text)
		case err != nil:
			c.differ(filenameRule(w.text, w.want.project, w.want.rest, w.want.tags), "%q refused: %v", w.text, err)
		default:
			want := [4]string{w.want.project, w.want.version, w.want.number, w.want.rest}
			if is := [4]string{got.Project, got.Version.String(), got.Build.number, got.Build.rest}; is != want || !slices.Equal(tagsOf(got), w.want.tags) {
				c.differ("", "%q: got %q and %q, want %q and %q", w.text, is, tagsOf(got), want, w.want.tags)
			}
		}
	}
	for _, s := range v.TagSets {
		c.cases++
		got, err := ParseWheelName("x-1-" + s.text + ".whl")
		switch {
		case s.want == nil && err != nil:
		case s.want == nil:
			c.differ("", "tags %q accepted", s.text)
		case err != nil:
			c.differ(filenameRule(s.text, "x", "", *s.want), "tags %q refused: %v", s.text, err)
		case !slices.Equal(tagsOf(got), *s.want):
			c.differ("", "%q: got %q, want %q", s.text, tagsOf(got), *s.want)
		}
	}
	c.done(150)
	c = newTally(t, "sdist filenames")
	for _, s := range v.Sdists {
		c.cases++
		got, err := ParseSdistName(s.text)
		switch {
		case s.want == nil && err != nil:
		case s.want == nil:
			c.differ("", "%q accepted", s.text)
		case err != nil:
			c.differ(filenameRule(s.text, s.want[0], "", nil), "%q refused: %v", s.text, err)
		case *s.want != [2]string{got.Project, got.Version.String()}:
			c.differ("", "%q: got %s %s, want %v", s.text, got.Project, got.Version, *s.want)
		}
	}
	c.done(60)
}

// tagsOf lists the tags that a wheel's filename stands for.
func tagsOf(w WheelName) []string {
	var out []string
	for _, py := range w.Pythons {
		for _, abi := range w.ABIs {
			for _, platform := range w.Platforms {
				out = append(out, Tag{py, abi, platform}.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// filenameRule explains why a filename is refused that the library takes.
func filenameRule(filename, project, build string, tags []string) string {
	if CheckFilename(filename) != nil || strings.ContainsFunc(filename, isSpace) {
		return "a filename that is not safe, or holds white space"
	}
	if n, err := NormalizeName(project); err != nil || n != project || !isASCII(filename) {
		return "a name that the library does not validate here"
	}
	if build != "" && !buildRE.MatchString("0"+build) || slices.ContainsFunc(tags, func(s string) bool {
		return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") != ""
	}) {
		return "a build tag or tag of other characters than ASCII letters, digits and _"
	}
	return ""
}

func TestVectorsTags(t *testing.T) {
	c := newTally(t, "tag generators")
	decode := func(b json.RawMessage, to any) {
		if err := json.Unmarshal(b, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, call := range loadVectors(t).Tags {
		c.cases++
		var python []int
		var interpreter, arch string
		var abis, platforms, got []string
		text := func(tags []Tag) {
			for _, tag := range tags {
				got = append(got, tag.String())
			}
		}
		switch call.function {
		case "mac_platforms":
			decode(call.args[0], &python)
			decode(call.args[1], &arch)
			got = macPlatforms(python[0], python[1], arch)
		case "cpython_tags":
			decode(call.args[0], &python)
			decode(call.args[1], &abis)
			decode(call.args[2], &platforms)
			text(cpythonTags(python, abis, platforms))
		case "generic_tags":
			decode(call.args[0], &interpreter)
			decode(call.args[1], &abis)
			decode(call.args[2], &platforms)
			text(genericTags(interpreter, abis, platforms))
		case "compatible_tags":
			decode(call.args[0], &python)
			decode(call.args[1], &interpreter)
			decode(call.args[2], &platforms)
			text(compatibleTags(python, interpreter, platforms))
		default:
			t.Fatalf("unknown function %s", call.function)
		}
		call.compare(c, call.function+" "+string(slices.Concat(call.args...)), got)
	}
	c.done(8)
}

// compare compares a list of tags with its digest.
func (l tagList) compare(c *tally, what string, got []string) {
	c.t.Helper()
	sum := sha256.Sum256([]byte(strings.Join(got, "\n")))
	if len(got) != l.count || hex.EncodeToString(sum[:]) != l.digest {
		c.differ("", "%s: %d tags, want %d: %q...", what, len(got), l.count, got[:min(len(got), 8)])
	}
}

func TestVectorsTargets(t *testing.T) {
	v := loadVectors(t)
	c := newTally(t, "targets")
	texts := func(tags []Tag) (out []string) {
		for _, tag := range tags {
			out = append(out, tag.String())
		}
		return out
	}
	for _, want := range v.Targets {
		c.cases++
		target := mustTarget(t, want.preset)
		want.compare(c, want.preset, texts(target.Tags()))
		if d := cmp.Diff(*environmentOf(t, want.env), target.Env); d != "" {
			c.differ("", "%s: %s", want.preset, d)
		}
		for i, tags := range v.WheelTags {
			c.cases++
			w, err := ParseWheelName("x-1-" + tags + ".whl")
			if err != nil {
				t.Fatal(err)
			}
			rank, ok := target.Rank(w)
			if !ok {
				rank = -1
			}
			if rank != want.ranks[i] {
				c.differ("", "%s: %s has rank %d, want %d", want.preset, tags, rank, want.ranks[i])
			}
		}
		// The same target, from what its interpreter would say of itself.
		told := Description{Name: want.preset, Markers: want.env, Tags: texts(target.Tags())}
		same, err := told.Target()
		if err != nil || cmp.Diff(same.Env, target.Env) != "" || !slices.Equal(same.Tags(), target.Tags()) {
			c.differ("", "%s: another target from its own words: %v", want.preset, err)
		}
	}
	for _, want := range v.PyPy {
		c.cases++
		minor := strconv.Itoa(want.minor)
		target, err := Description{Name: "pypy", Implementation: "pp", Python: "3." + minor + ".14", ImplementationVersion: "7.3.17", ABI: "pypy3" + minor + "_pp73", Platform: want.platform}.Target()
		if err != nil {
			t.Fatal(err)
		}
		want.compare(c, "pypy3"+minor+" "+want.platform, texts(target.Tags()))
	}
	c.done(80)
}

func TestVectorsMetadata(t *testing.T) {
	c := newTally(t, "metadata")
	for _, m := range loadVectors(t).Metadata {
		c.cases++
		b := make([]byte, 0, len(m.text))
		for _, r := range m.text {
			b = append(b, byte(r)) // the vectors hold bytes as Latin-1
		}
		got, err := ParseMetadata(b)
		switch {
		case m.want == nil && err != nil:
		case m.want == nil:
			c.differ("", "%q accepted: %+v", m.text, got)
		case err != nil:
			c.differ(metadataRule(m.text), "%q refused: %v", m.text, err)
		default:
			requires := make([]string, len(got.Requires))
			for i, r := range got.Requires {
				requires[i] = r.String()
			}
			is := metadataAnswer{m.want.NotUTF8, got.MetadataVersion, got.Name, got.Version.String(), got.RequiresPython, requires, len(got.Malformed), got.Extras, got.Dynamic}
			for _, list := range []*[]string{&is.Extras, &is.Dynamic} {
				if *list == nil {
					*list = []string{}
				}
			}
			if d := cmp.Diff(*m.want, is); d != "" {
				rule := ""
				switch {
				case m.want.NotUTF8 && len(got.Malformed) > 0:
					rule = "a Requires-Dist that is not UTF-8 spoils no other"
				case foldedRE.MatchString(m.text) && len(got.Malformed) < m.want.Malformed:
					rule = "a Requires-Dist of two lines is read"
				}
				c.differ(rule, "%q: %s", m.text, d)
			}
		}
	}
	c.done(100)
}

var foldedRE = regexp.MustCompile(`(?mi)^requires-dist:.*\n[ \t]`)

// metadataRule explains why metadata is refused that the library takes.
func metadataRule(text string) string {
	head, _, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
	for line := range strings.SplitSeq(head, "\n") {
		key, _, ok := strings.Cut(line, ":")
		if line != "" && line[0] != ' ' && line[0] != '\t' && (!ok || strings.ContainsAny(key, blank)) {
			return "a line that is no header is refused; the library ends the headers there"
		}
	}
	return ""
}
