package files

import (
	"path"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		patterns string
		name     string
		want     bool
	}{
		{"", "any/file", true},
		{"*.cvd", "daily.cvd", true},
		{"*.cvd", "old/daily.cvd", false},
		{"*.cvd *.cld", "daily.cld", true},
		{"drivers/*.run", "drivers/a.run", true},
		{"drivers/*.run", "drivers/x/a.run", false},
		{"**/*.run", "a.run", true},
		{"**/*.run", "x/y/a.run", true},
		{"drivers/**/*.run", "drivers/a.run", true},
		{"drivers/**/*.run", "drivers/x/y/a.run", true},
		{"drivers/**/*.run", "other/x/a.run", false},
		{"**/x/**/[ab].run", "1/x/2/b.run", true},
		{"**/x/**/[ab].run", "1/2/b.run", false},
		{`a\*`, "a*", true},
		{`a\*`, "ab", false},
	} {
		all, err := parsePatterns(strings.Fields(c.patterns))
		if err != nil {
			t.Fatal(err)
		}
		if got := all.match(c.name); got != c.want {
			t.Errorf("%q, %q: got %v", c.patterns, c.name, got)
		}
	}
	only, err := parsePatterns([]string{"*.cvd", "drivers/new/*"})
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"x": false, "x.cvd": false, "drivers": true, "drivers/new": true, "drivers/old": false, "drivers/new/x": false} {
		if got := only.below(dir); got != want {
			t.Errorf("below %s: %v", dir, got)
		}
	}
	for _, s := range []string{"", "/a", "a/", "a//b", "../a", "a/..", "./a", "[", "a**", "**", "a/**", "**/**/**/a", strings.Repeat("a", maxPattern+1)} {
		if _, err := parsePattern(s); err == nil {
			t.Errorf("%q is a pattern", s)
		}
	}
	if _, err := parsePatterns(make([]string, maxPatterns+1)); err == nil {
		t.Error("any number of patterns")
	}
}

// FuzzPatterns: a file that is chosen lies in folders that are looked into,
// and a pattern without "**" is path.Match.
func FuzzPatterns(f *testing.F) {
	seeds := [][2]string{{"*.cvd", "daily.cvd"}, {"a/**/b*/[x-z]", "a/1/2/bb/y"}, {"**/m?tadata.json", "db/metadata.json"}, {`\*`, "*"}, {"a/../b", "b"}, {"**/**/x", "a/b/c/x"}}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := parsePatterns([]string{pattern})
		if err != nil || artifact.CheckPath(name) != nil {
			return
		}
		got := p.match(name)
		if got {
			for dir := range parents(name) {
				if !p.below(dir) {
					t.Fatalf("%q chooses %q and does not look into %q", pattern, name, dir)
				}
			}
		}
		if strings.Contains(pattern, anyFolders) {
			return
		}
		if want, err := path.Match(pattern, name); err == nil && want != got {
			t.Fatalf("%q, %q: got %v", pattern, name, got)
		}
	})
}
