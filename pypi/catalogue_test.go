package pypi

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

func versionsOf(t *testing.T, texts string) []packaging.Version {
	t.Helper()
	var out []packaging.Version
	for s := range strings.FieldsSeq(texts) {
		v, err := packaging.ParseVersion(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func TestCatalogueChoose(t *testing.T) {
	const page = "1.0 1.0.0 1.1rc1 1.1 1.2 2.0+cpu 2.0+cu130 2.1.dev3 3.0a1"
	for text, want := range map[string]string{
		"x: all":                    page,
		"x: newest 1":               "2.0+cpu 2.0+cu130",
		"x: newest 2":               "1.2 2.0+cpu 2.0+cu130",
		"x: newest 4":               "1.0 1.0.0 1.1 1.2 2.0+cpu 2.0+cu130",
		"x: newest 100":             "1.0 1.0.0 1.1 1.2 2.0+cpu 2.0+cu130",
		"x: newest 2 prereleases":   "2.1.dev3 3.0a1",
		"x: newest 2 >=1.1,<2":      "1.1 1.2",
		"x: newest 1 <2, != 1.2":    "1.1",
		`x: ">=1.1"`:                "1.1 1.2 2.0+cpu 2.0+cu130",
		"x: >=1.1rc1,<1.2":          "1.1rc1 1.1",
		"x: ==1.1.* prereleases":    "1.1rc1 1.1",
		"x: >=2.1":                  "3.0a1", // nothing else is there
		"x: ==2.0+cu130":            "2.0+cu130",
		"x: >9":                     "",
		"X_.y:newest 1 prereleases": "3.0a1",
		"x: 'newest 3 ~=1.0'":       "1.0 1.0.0 1.1 1.2",
	} {
		c, err := ParseCatalogue(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		in := versionsOf(t, page)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		before := slices.Clone(in)
		var got []string
		for _, v := range c.Choose(in) {
			got = append(got, v.Text())
		}
		slices.SortStableFunc(got, func(a, b string) int {
			return slices.Index(strings.Fields(page), a) - slices.Index(strings.Fields(page), b)
		})
		if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
			t.Errorf("%q: %s", text, d)
		}
		if !slices.EqualFunc(before, in, func(a, b packaging.Version) bool { return a.Text() == b.Text() }) {
			t.Errorf("%q: the versions were changed", text)
		}
	}
}

func TestCatalogueOrder(t *testing.T) {
	c, err := ParseCatalogue("x: all")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Choose(versionsOf(t, "2 1.10 1.9 1!0 1.9rc1"))
	if !slices.IsSortedFunc(got, packaging.Version.Compare) || len(got) != 5 || c.Choose(nil) != nil {
		t.Errorf("%v", got)
	}
}

func TestCatalogueRefused(t *testing.T) {
	for _, text := range []string{
		"", "x", "x:", ": all", "x y: all", "to\u200brch: all", "x: newest", "x: newest 0", "x: newest -1", "x: newest many", "x: newest 99999999",
		"x: all 3", "x: all >=2", "x: everything", "x: 3", "x: prereleases", "x: >=", "x: newest 3 of >=2", "x: ''", "x: prereleases >=2",
	} {
		if c, err := ParseCatalogue(text); err == nil {
			t.Errorf("%q is read as %+v", text, c)
		}
	}
}
