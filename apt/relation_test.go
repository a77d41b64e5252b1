package apt

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRelations(t *testing.T) {
	for _, c := range []struct{ in, arch, want string }{
		{"a, b | c (>= 1:2-3) ,", "amd64", "a / b | c (>= 1:2-3)"},
		{"python3:any (>= 3.9~)", "amd64", "python3:any (>= 3.9~)"},
		{"a(<1),b( > 2 ),c(=3),d (4)", "amd64", "a (<= 1) / b (>= 2) / c (= 3) / d (= 4)"},
		{"a [amd64], b [!amd64] | c [linux-any], d [i386 arm64], e [!i386 !arm64], f [any-amd64]", "amd64", "a / c / e / f"},
		{"a <!nocheck>, b <nocheck>, c <nocheck> <!nodoc>", "amd64", "a / c"},
		{"lib\n x (>= 1)", "amd64", ""},
		{"liba (>= 1),\n libb", "amd64", "liba (>= 1) / libb"},
		{"", "amd64", ""},
	} {
		groups, err := parseRelations(c.in, c.arch)
		got := ""
		for i, g := range groups {
			if i > 0 {
				got += " / "
			}
			got += g.String()
		}
		if c.want == "" && c.in != "" {
			if err == nil {
				t.Errorf("%q is accepted: %s", c.in, got)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"a (>= 1", "a (~ 1)", "a (>= )", "a b", "-a", "a:", "a:x!", "a | ", "a (>= 1) (<< 2)", "ab [amd64", "ab)", "é1"} {
		if g, err := parseRelations(in, "amd64"); err == nil {
			t.Errorf("%q is accepted: %v", in, g)
		}
	}
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		rel, version string
		want         bool
	}{
		{"aa", "0", true},
		{"aa (<< 2)", "2", false},
		{"aa (<= 2)", "2", true},
		{"aa (= 2)", "2-0", true},
		{"aa (>= 2)", "2~", false},
		{"aa (>> 2)", "2+b1", true},
	} {
		r, _, err := parseRelation(c.rel, "amd64")
		if err != nil || r.accepts(c.version) != c.want {
			t.Errorf("%s accepts %s: %v, %v", c.rel, c.version, !c.want, err)
		}
	}
}

func FuzzRelations(f *testing.F) {
	for _, s := range []string{
		"a", "libc6 (>= 2.34), libjq1 (= 1.6-2.1)", "default-mta | mail-transport-agent",
		"python3:any (<< 3.12), x [!i386 linux-any] <!nocheck> <a b>", "a (<1),,b", "a(", "a [", "a <",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		groups, err := parseRelations(s, "amd64")
		if err != nil {
			if groups != nil {
				t.Error("relations beside an error")
			}
			return
		}
		text := ""
		for _, g := range groups {
			if len(g) == 0 {
				t.Fatalf("%q: an empty group", s)
			}
			text += g.String() + ", "
		}
		again, err := parseRelations(text, "amd64")
		if err != nil {
			t.Fatalf("%q does not parse again: %v", text, err)
		}
		if diff := cmp.Diff(groups, again, cmp.AllowUnexported(relation{})); diff != "" && len(groups)+len(again) > 0 {
			t.Error(diff)
		}
	})
}
