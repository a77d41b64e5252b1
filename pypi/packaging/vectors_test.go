package packaging

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
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

// done reports the counts, and fails if there were suspiciously few cases or
// a rule that is not written down.
func (c *tally) done(least int) {
	c.t.Helper()
	page, err := os.ReadFile("../../docs/packaging.md")
	if err != nil {
		c.t.Fatal(err)
	}
	rules := strings.Join(strings.Fields(strings.ReplaceAll(string(page), "`", "")), " ")
	var known []string
	for _, rule := range slices.Sorted(maps.Keys(c.known)) {
		known = append(known, strconv.Itoa(c.known[rule])+" "+rule)
		if !strings.Contains(rules, "**"+rule+".**") {
			c.t.Errorf("%s: %q does not stand in docs/packaging.md", c.area, rule)
		}
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
