package oci

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/spec"
)

func TestChoose(t *testing.T) {
	sig := "sha256-" + strings.Repeat("a", 64)
	all := []string{
		"1.25.0", "1.26.0", "1.27.0", "1.27.1", "1.27.1-alpine", "v1.28.0", "1.28.0-rc.1", "1.9.0", "latest", "stable-alpine",
		"0.9.1_build.2", sig, sig + ".sig", sig + ".att",
	}
	for name, c := range map[string]struct {
		sel  Select
		want []string
	}{
		"by name":              {Select{Tags: []string{"latest", "absent"}}, []string{"latest"}},
		"glob":                 {Select{Glob: []string{"1.27*", "latest"}}, []string{"1.27.0", "1.27.1", "1.27.1-alpine", "latest"}},
		"glob is whole":        {Select{Glob: []string{"1.27"}}, nil},
		"everything":           {Select{Glob: []string{"*"}}, []string{"0.9.1_build.2", "1.25.0", "1.26.0", "1.27.0", "1.27.1", "1.27.1-alpine", "1.28.0-rc.1", "1.9.0", "latest", "stable-alpine", "v1.28.0"}},
		"regex is whole":       {Select{Regex: `1\.2[67]\.0`}, []string{"1.26.0", "1.27.0"}},
		"semver":               {Select{Semver: ">=1.26 <1.28"}, []string{"1.26.0", "1.27.0", "1.27.1"}},
		"semver, prerelease":   {Select{Semver: ">=1.27 <1.28", Prerelease: true}, []string{"1.27.0", "1.27.1", "1.27.1-alpine", "1.28.0-rc.1"}},
		"exclude":              {Select{Glob: []string{"1.2*"}, Exclude: []string{"*-*"}}, []string{"1.25.0", "1.26.0", "1.27.0", "1.27.1"}},
		"newest":               {Select{Newest: 2}, []string{"1.28.0-rc.1", "v1.28.0"}},
		"newest is by version": {Select{Glob: []string{"1.*.0"}, Newest: 3}, []string{"1.25.0", "1.26.0", "1.27.0"}},
		"newest of a range":    {Select{Semver: "<1.28", Newest: 2}, []string{"1.27.0", "1.27.1"}},
		"nothing":              {Select{Semver: ">9"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.sel.choose(all)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" && len(c.want)+len(got) > 0 {
				t.Error(d)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	p := func(s string) spec.Platform {
		v, err := parsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	wanted := []spec.Platform{p("linux/amd64"), p("linux/arm/v7")}
	for s, want := range map[string]bool{
		"linux/amd64": true, "linux/amd64/v2": true, "linux/arm/v7": true, "linux/arm/v6": false, "linux/arm": false, "windows/amd64": false,
	} {
		if got := matches(wanted, p(s)); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	for _, bad := range []string{"", "linux", "linux/", "/amd64", "a/b/c/d"} {
		if v, err := parsePlatform(bad); err == nil {
			t.Errorf("%q accepted as %v", bad, v)
		}
	}
}
