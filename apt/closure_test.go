package apt

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// universeOf scans texts as indices, one after another.
func universeOf(t testing.TB, pins []int, texts ...string) *universe {
	t.Helper()
	var all []*index
	for i, text := range texts {
		sp, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := sp.Close(); err != nil {
				t.Error(err)
			}
		})
		ix := &index{archive: i, pin: pinUsual, subject: fmt.Sprintf("index %d", i), spool: sp}
		if pins != nil {
			ix.pin = pins[i]
		}
		if err := scanIndex(strings.NewReader(short(text)), ix); err != nil {
			t.Fatal(err)
		}
		all = append(all, ix)
	}
	return newUniverse(all)
}

// short expands "name version; Field: value; …" lines into stanzas.
func short(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		parts := strings.Split(strings.TrimSpace(line), "; ")
		name, version, ok := strings.Cut(parts[0], " ")
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "Package: %s\nVersion: %s\n", name, version)
		if !strings.Contains(line, "Architecture:") {
			b.WriteString("Architecture: amd64\n")
		}
		for _, f := range parts[1:] {
			b.WriteString(f + "\n")
		}
		fmt.Fprintf(&b, "Filename: pool/%s_%s.deb\nSize: 1\nSHA256: %s\n\n", name, version, artifact.Sum([]byte(line)).Hex())
	}
	return b.String()
}

func seedsOf(t testing.TB, names ...string) []seed {
	t.Helper()
	var all []seed
	for _, n := range names {
		sd, err := parseSeed(n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sd)
	}
	return all
}

func TestClosure(t *testing.T) {
	for _, c := range []struct {
		name       string
		texts      []string
		pins       []int
		seeds      []string
		recommends bool
		want       string
		fails      string
	}{
		{
			name:  "first alternative",
			texts: []string{"aa 1; Depends: bb | cc\nbb 1\ncc 1"},
			seeds: []string{"aa"}, want: "aa bb",
		},
		{
			name:  "greedy alone fails: b forbids d",
			texts: []string{"aa 1; Depends: bb | cc, dd\nbb 1; Conflicts: dd\ncc 1\ndd 1"},
			seeds: []string{"aa"}, want: "aa cc dd",
		},
		{
			name:  "the conflict lies deeper",
			texts: []string{"aa 1; Depends: bb | cc, dd | ee\nbb 1; Depends: b2\nb2 1; Depends: b3\nb3 1; Breaks: dd, ee\ncc 1\ndd 1; Depends: nowhere\nee 1"},
			seeds: []string{"aa"}, want: "aa cc ee",
		},
		{
			name:  "what another needs satisfies an alternative",
			texts: []string{"aa 1; Depends: bb | cc, dd\nbb 1\ncc 1\ndd 1; Depends: cc"},
			seeds: []string{"aa"}, want: "aa cc dd",
		},
		{
			name:  "a real package before a provider",
			texts: []string{"aa 1; Depends: mta\nmta 1\nxx 1; Provides: mta; Priority: required"},
			seeds: []string{"aa"}, want: "aa mta",
		},
		{
			name:  "providers by priority, then name",
			texts: []string{"aa 1; Depends: mta\nbb 1; Provides: mta; Priority: optional\ncc 1; Provides: mta; Priority: standard"},
			seeds: []string{"aa"}, want: "aa cc",
		},
		{
			name:  "an unversioned Provides satisfies no version",
			texts: []string{"aa 1; Depends: vv (>= 2)\nbb 9; Provides: vv\ncc 1; Provides: vv (= 2)"},
			seeds: []string{"aa"}, want: "aa cc",
		},
		{
			name:  "an older version for an exact relation alone",
			texts: []string{"aa 1; Depends: bb (= 1)\nbb 1\nbb 2"},
			seeds: []string{"aa"}, want: "aa bb=1",
		},
		{
			name:  "not for another relation",
			texts: []string{"aa 1; Depends: bb (<< 2)\nbb 1\nbb 2"},
			seeds: []string{"aa"}, fails: "aa -> aa 1 -> bb (<< 2) (nothing satisfies it)",
		},
		{
			name:  "all suites together",
			texts: []string{"aa 1; Depends: bb (>= 2)\nbb 1", "bb 2"},
			seeds: []string{"aa"}, want: "aa bb=2",
		},
		{
			name:  "a NotAutomatic suite gives way",
			texts: []string{"aa 1; Depends: bb\nbb 1", "bb 2"}, pins: []int{pinUsual, pinUpgrades},
			seeds: []string{"aa"}, want: "aa bb=1",
		},
		{
			name:  "but may be asked for",
			texts: []string{"bb 1", "bb 2"}, pins: []int{pinUsual, pinUpgrades},
			seeds: []string{"bb (= 2)"}, want: "bb=2",
		},
		{
			name:  "seeds that exclude each other",
			texts: []string{"aa 1; Conflicts: bb; Depends: cc\nbb 1; Depends: dd\ncc 1\ndd 1"},
			seeds: []string{"aa", "bb"}, want: "aa bb cc dd",
		},
		{
			name:  "a package does not exclude itself",
			texts: []string{"aa 1; Provides: mta; Conflicts: mta, aa (<< 2); Depends: mta"},
			seeds: []string{"aa"}, want: "aa",
		},
		{
			name:  "recommends where they can be had",
			texts: []string{"aa 1; Recommends: bb, nowhere, cc; Depends: dd\nbb 1\ncc 1; Conflicts: dd\ndd 1"},
			seeds: []string{"aa"}, recommends: true, want: "aa bb dd",
		},
		{
			name:  "any needs Multi-Arch: allowed",
			texts: []string{"aa 1; Depends: pp:any | qq:any\npp 1; Multi-Arch: foreign\nqq 1; Multi-Arch: allowed"},
			seeds: []string{"aa"}, want: "aa qq",
		},
		{
			name:  "a circle",
			texts: []string{"aa 1; Depends: bb\nbb 1; Pre-Depends: aa"},
			seeds: []string{"aa"}, want: "aa bb",
		},
		{
			name:  "a hole below both alternatives",
			texts: []string{"aa 1; Depends: bb | cc\nbb 1; Depends: nope\ncc 1; Depends: never (>= 3)"},
			seeds: []string{"aa"}, fails: "aa -> aa 1 -> bb 1 -> nope (nothing satisfies it)",
		},
		{
			name:  "the same hole below both",
			texts: []string{"aa 1; Depends: bb | cc\nbb 1; Depends: dd\ncc 1; Depends: dd\ndd 1; Depends: nope"},
			seeds: []string{"aa"}, fails: "aa -> aa 1 -> bb 1 -> dd 1 -> nope (nothing satisfies it)",
		},
		{
			name:  "no way around a conflict",
			texts: []string{"aa 1; Depends: bb, cc\nbb 1; Breaks: cc (<< 2)\ncc 1"},
			seeds: []string{"aa"}, fails: "aa cannot be installed: ",
		},
		{
			name:  "a virtual seed",
			texts: []string{"aa 1; Provides: mta"},
			seeds: []string{"mta"}, want: "aa",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := universeOf(t, c.pins, c.texts...)
			sel := &selector{u: u, arch: "amd64", recommends: c.recommends, subject: "apt/test"}
			got, err := sel.sel(t.Context(), seedsOf(t, c.seeds...))
			if c.fails != "" {
				ref, ok := errors.AsType[*artifact.Refusal](err)
				if !ok || ref.Code != codeClosure || !strings.HasPrefix(ref.Reason, c.fails) {
					t.Fatalf("%v, want %s", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, ch := range got {
				n := ch.pkg.name
				if len(u.named(n)) > 1 {
					n += "=" + ch.pkg.version
				}
				names = append(names, n)
			}
			if diff := cmp.Diff(c.want, strings.Join(names, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPresets(t *testing.T) {
	u := universeOf(t, nil, "base 1; Essential: yes\nlibc 1; Priority: required\napt 1\nusr-is-merged 1\nother 1")
	for preset, want := range map[string]string{
		essentialNone:      "",
		essentialRequired:  "base",
		essentialBootstrap: "base libc apt usr-is-merged",
	} {
		var names []string
		for _, s := range u.presets(preset, "amd64") {
			names = append(names, s.rel.name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", preset, got, want)
		}
	}
}

// TestClosureAgainstSearch compares the solver with a search through every
// subset on small random universes: it finds an answer just where there is
// one.
func TestClosureAgainstSearch(t *testing.T) {
	const n = 8
	r := rand.New(rand.NewPCG(1, 2))
	solvable := 0
	for round := range 400 {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "p%d 1", i)
			var deps []string
			for range r.IntN(4) {
				deps = append(deps, fmt.Sprintf("p%d | p%d", r.IntN(n), r.IntN(n)))
			}
			if len(deps) > 0 {
				text.WriteString("; Depends: " + strings.Join(deps, ", "))
			}
			if r.IntN(4) > 0 {
				fmt.Fprintf(&text, "; Conflicts: p%d, p%d", r.IntN(n), r.IntN(n))
			}
			text.WriteString("\n")
		}
		u := universeOf(t, nil, text.String())
		sel := &selector{u: u, arch: "amd64", subject: "test"}
		exists := false
		for set := range 1 << n {
			if set&1 == 0 {
				continue
			}
			var turn []choice
			for i := range n {
				if set>>i&1 == 1 {
					turn = append(turn, choice{pkg: u.pkgs[i]})
				}
			}
			if exists = sel.prove(turn) == nil; exists {
				break
			}
		}
		got, err := sel.sel(t.Context(), seedsOf(t, "p0"))
		if (err == nil) != exists {
			t.Fatalf("round %d: an answer exists: %v; found %v, %v\n%s", round, exists, got, err, text.String())
		}
		if exists {
			solvable++
		}
	}
	if solvable < 50 || solvable > 350 {
		t.Errorf("%d of 400 have an answer: the test tells little", solvable)
	}
}

// TestClosureStable: the same universe in any order of indices gives the same
// selection.
func TestClosureStable(t *testing.T) {
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("p%02d %d; Depends: p%02d | v%d; Provides: v%d; Recommends: v%d", i, i%3+1, (i*7)%60, i%5, i%4, i%3))
	}
	var want []string
	for round := range 5 {
		rand.New(rand.NewPCG(uint64(round), 7)).Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		sel := &selector{u: universeOf(t, nil, strings.Join(lines, "\n")), arch: "amd64", recommends: true, subject: "test"}
		got, err := sel.sel(t.Context(), seedsOf(t, "p03", "v2"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range got {
			names = append(names, c.pkg.name+" "+c.why)
		}
		if want == nil {
			want = names
		}
		if !slices.Equal(names, want) {
			t.Fatal(cmp.Diff(want, names))
		}
	}
}

func FuzzScanIndex(f *testing.F) {
	f.Add(short("aa 1; Depends: bb | cc, dd\nbb 1; Conflicts: dd\ncc 1\ndd 1; Provides: x (= 1)"))
	f.Add(short("aa 1\naa 2; Provides: aa:any"))
	f.Add("Package: aa\nVersion: 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		sp, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := sp.Close(); err != nil {
				t.Error(err)
			}
		}()
		ix := &index{pin: pinUsual, subject: "fuzz", spool: sp}
		if err := scanIndex(strings.NewReader(text), ix); err != nil {
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Errorf("%v is no integrity refusal", err)
			}
			return
		}
		u := newUniverse([]*index{ix})
		sel := &selector{u: u, arch: "amd64", recommends: true, subject: "fuzz"}
		for _, p := range u.pkgs {
			texts, err := p.texts()
			if err != nil {
				t.Fatal(err)
			}
			if err := artifact.CheckPath(texts[fieldFilename]); err != nil {
				t.Fatal(err)
			}
			if u.candidate(p.name, "amd64") == nil {
				continue
			}
			_, err = sel.sel(t.Context(), []seed{{rel: relation{name: p.name}, why: "fuzz"}})
			if _, ok := errors.AsType[*artifact.Refusal](err); err != nil && !ok {
				t.Fatalf("%v is no refusal", err)
			}
		}
	})
}
