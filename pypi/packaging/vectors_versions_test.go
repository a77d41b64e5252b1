package packaging

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

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
