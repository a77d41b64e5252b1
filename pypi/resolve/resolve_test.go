package resolve

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// A toy is an index of lines "name version [flags]: requirement, requirement".
type toy struct {
	projects map[string][]Candidate
	metadata map[string]*packaging.Metadata
	asked    int
}

func newToy(t *testing.T, text string) *toy {
	t.Helper()
	x := &toy{projects: map[string][]Candidate{}, metadata: map[string]*packaging.Metadata{}}
	for line := range strings.Lines(text) {
		head, reqs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if head == "" {
			continue
		}
		f := strings.Fields(head)
		v, err := packaging.ParseVersion(f[1])
		if err != nil {
			t.Fatal(err)
		}
		c := Candidate{Version: v}
		m := &packaging.Metadata{Name: f[0], Version: v}
		for _, flag := range f[2:] {
			switch word, value, _ := strings.Cut(flag, "="); word {
			case "yanked":
				c.Yanked = true
			case "unusable":
				c.Unusable = strings.ReplaceAll(value, "_", " ")
			case "python":
				m.RequiresPython = value
			case "extra":
				m.Extras = append(m.Extras, value)
			default:
				t.Fatalf("flag %q", flag)
			}
		}
		for r := range strings.SplitSeq(reqs, ",") {
			if r = strings.TrimSpace(r); r == "" {
				continue
			}
			req, err := packaging.ParseRequirement(strings.ReplaceAll(r, "|", ","))
			if err != nil {
				t.Fatal(err)
			}
			m.Requires = append(m.Requires, req)
		}
		x.projects[f[0]] = append(x.projects[f[0]], c)
		x.metadata[f[0]+" "+f[1]] = m
	}
	return x
}

func (x *toy) List(_ context.Context, project string) (*Listing, error) {
	c, ok := x.projects[project]
	if !ok {
		return &Listing{Missing: "the index does not have it"}, nil
	}
	return &Listing{Candidates: c}, nil
}

func (x *toy) Metadata(_ context.Context, project string, v packaging.Version) (*packaging.Metadata, error) {
	x.asked++
	m := x.metadata[project+" "+v.Text()]
	if m == nil {
		return nil, fmt.Errorf("asked for %s %s, which was not listed", project, v.Text())
	}
	return m, nil
}

func wants(t *testing.T, lines ...string) []Want {
	t.Helper()
	var out []Want
	for i, l := range lines {
		r, err := packaging.ParseRequirement(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Want{Requirement: r, Where: fmt.Sprintf("in:%d", i+1)})
	}
	return out
}

func target(t *testing.T, s string) *packaging.Target {
	t.Helper()
	tg, err := packaging.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

func show(s *Solution) string {
	var out []string
	for _, p := range s.Packages {
		x := p.Name
		if len(p.Extras) > 0 {
			x += "[" + strings.Join(p.Extras, ",") + "]"
		}
		out = append(out, x+"=="+p.Version.String())
	}
	return strings.Join(out, " ")
}

func TestSolve(t *testing.T) {
	tests := []struct {
		name, index string
		wants       []string
		constraints []string
		pre         string
		want        string   // a solution, or
		conflict    []string // the lines
	}{
		{name: "newest", index: "a 1.0:\na 1.10:\na 1.9:", wants: []string{"a"}, want: "a==1.10"},
		{name: "chain", index: "a 1: b>=1\nb 1:\nb 2: c\nc 3:", wants: []string{"a"}, want: "a==1 b==2 c==3"},
		{name: "older of the first, for the second", index: "a 2: c>=2\na 1: c>=1\nb 1: c<2\nc 1:\nc 2:", wants: []string{"a", "b"}, want: "a==1 b==1 c==1"},
		{name: "a version that nobody can meet", index: "a 2: missing\na 1:", wants: []string{"a"}, want: "a==1"},
		{name: "markers of the target", index: "a 1: b ; sys_platform == 'win32', c ; sys_platform == 'linux', d ; python_version < '3.9'\nb 1:\nc 1:\nd 1:", wants: []string{"a"}, want: "a==1 c==1"},
		{name: "a want whose marker does not hold", index: "a 1:\nb 1:", wants: []string{"a", "b ; os_name == 'nt'"}, want: "a==1"},
		{name: "extra", index: "a 1 extra=x: b ; extra == 'x', c\nb 1:\nc 1:", wants: []string{"a[X]"}, want: "a[x]==1 b==1 c==1"},
		{name: "extra asked for later", index: "a 2 extra=x: b>=2 ; extra == 'x'\na 1 extra=x: b ; extra == 'x'\nb 1:\nd 1: a[x]", wants: []string{"a", "d"}, want: "a[x]==1 b==1 d==1"},
		{name: "extra of itself", index: "a 1 extra=all extra=x: a[x] ; extra == 'all', b ; extra == 'x'\nb 1:", wants: []string{"a[all]"}, want: "a[all,x]==1 b==1"},
		{name: "stable before pre-release", index: "a 1:\na 2rc1:", wants: []string{"a"}, want: "a==1"},
		{name: "only pre-releases", index: "a 1rc1:\na 1rc2:", wants: []string{"a"}, want: "a==1rc2"},
		{name: "a want names a pre-release", index: "a 1:\na 2rc1:\na 2rc2:", wants: []string{"a>=2rc1"}, want: "a==2rc2"},
		{name: "nothing else fits", index: "a 1:\na 2rc1:", wants: []string{"a>1"}, want: "a==2rc1"},
		{name: "allowed for one", index: "a 1:\na 2rc1:\nb 1:\nb 2rc1:", wants: []string{"a", "b"}, pre: "b", want: "a==1 b==2rc1"},
		{name: "a package names a pre-release", index: "a 1: b>=2rc1\nb 1:\nb 2rc1:", wants: []string{"a"}, want: "a==1 b==2rc1"},
		{name: "yanked", index: "a 1:\na 2 yanked:", wants: []string{"a"}, want: "a==1"},
		{name: "yanked and pinned", index: "a 1:\na 2 yanked:", wants: []string{"a==2"}, want: "a==2"},
		{name: "yanked and in range", index: "a 1:\na 2 yanked:", wants: []string{"a>=2"}, conflict: []string{"in:1 requires a>=2, and no version that could be used satisfies it", "a: 1 of its 2 versions do not count: 1 yanked"}},
		{name: "constraint", index: "a 1:\na 2:\nb 1:", wants: []string{"a"}, constraints: []string{"a<2", "b<0"}, want: "a==1"},
		{name: "python", index: "a 2 python=>=3.13:\na 1:", wants: []string{"a"}, want: "a==1"},
		{name: "local version", index: "torch 2.0:\ntorch 2.0+cu130:\ntorch 1.9:", wants: []string{"torch==2.0"}, want: "torch==2.0+cu130"},
		{name: "circle", index: "a 1: b\nb 1: a", wants: []string{"a"}, want: "a==1 b==1"},
		{
			name: "two wants differ", index: "a 1: c<2\nb 1: c>=2\nc 1:\nc 2:", wants: []string{"a", "b"},
			conflict: []string{"in:1 requires a", "in:2 requires b", "a 1 requires c<2", "b 1 requires c>=2"},
		},
		{
			name: "missing", index: "a 1: gone\na 2: gone>1", wants: []string{"a"},
			conflict: []string{"in:1 requires a", "a 1 requires gone", "a 2 requires gone>1", "gone: the index does not have it"},
		},
		{
			name: "reasons", index: "a 1 unusable=without_a_wheel:\na 2 unusable=without_a_wheel:\na 3 unusable=too_new:\na 0.1:", wants: []string{"a>=1"},
			conflict: []string{"in:1 requires a>=1, and no version that could be used satisfies it", "a: 3 of its 4 versions do not count: 1 too new, 2 without a wheel"},
		},
		{
			name: "constraint in the way", index: "a 1: b>=2\nb 1:\nb 2:", wants: []string{"a"}, constraints: []string{"b<2"},
			conflict: []string{"in:1 requires a", "a 1 requires b>=2", "c:1 allows only b<2"},
		},
		{
			name: "needs another python", index: "a 1 python=<3:\na 2 python=>=3.13:", wants: []string{"a"},
			conflict: []string{"in:1 requires a", "a 1 cannot be used: needs Python <3", "a 2 cannot be used: needs Python >=3.13"},
		},
		{
			name: "from an address", index: "a 1: b @ https://files.example/b.whl\nb 1:", wants: []string{"a"},
			conflict: []string{"in:1 requires a", "a 1 requires b @ https://files.example/b.whl, which comes from an address and not from an index"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Problem{Target: target(t, "cp312-manylinux_2_28_x86_64"), Wants: wants(t, tt.wants...), Constraints: wants(t, tt.constraints...), Prereleases: map[string]bool{tt.pre: true}}
			for i := range p.Constraints {
				p.Constraints[i].Where = "c:" + strings.TrimPrefix(p.Constraints[i].Where, "in:")
			}
			sol, err := Solve(t.Context(), newToy(t, tt.index), p)
			if c, ok := errors.AsType[*ConflictError](err); ok {
				if diff := cmp.Diff(tt.conflict, c.Lines); diff != "" {
					t.Errorf("conflict (-want +got):\n%s", diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := show(sol); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// One decision that rules out every version of a project with thousands costs
// the metadata of a few of them, not of all.
func TestPutOff(t *testing.T) {
	for name, tt := range map[string]struct {
		index string
		wants []string
		want  string
	}{
		// dates 4 is the newest, and nothing of core goes with it.
		"two": {"dates 4:\ndates 3:\n", []string{"dates", "core"}, "core==999 dates==3"},
		// The requirement comes in two steps.
		"three": {"dates 4:\ndates 3:\nui 1: core\n", []string{"dates", "ui"}, "core==999 dates==3 ui==1"},
		// What rules core out was not decided itself, but follows from a decision.
		"follows": {"dates 4:\ndates 3:\nform 2: dates>=4\nform 1: dates\n", []string{"form", "core"}, "core==999 dates==3 form==1"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(tt.index)
			for v := range 1000 {
				fmt.Fprintf(&b, "core %d: dates<4\n", v)
			}
			x := newToy(t, b.String())
			sol, err := Solve(t.Context(), x, Problem{Target: target(t, "cp312-win_amd64"), Wants: wants(t, tt.wants...)})
			if err != nil {
				t.Fatal(err)
			}
			if got := show(sol); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if x.asked > 20 {
				t.Errorf("the metadata of %d versions was read", x.asked)
			}
		})
	}
}

func TestBecause(t *testing.T) {
	sol, err := Solve(t.Context(), newToy(t, "a 1 extra=x: b, c ; extra == 'x'\nb 1: c\nc 1:"), Problem{Target: target(t, "cp312-win_amd64"), Wants: wants(t, "a[x]", "c", "a[typo]")})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, p := range sol.Packages {
		got[p.Name] = p.Because
	}
	want := map[string][]string{"a": {"in:1", "in:3"}, "b": {"a 1"}, "c": {"a 1", "b 1", "in:2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a 1 has no extra typo"}, sol.Notes); diff != "" {
		t.Errorf("notes: -want +got:\n%s", diff)
	}
}

// TestLimit: a pigeonhole problem is given up, not waited for.
func TestLimit(t *testing.T) {
	var b strings.Builder
	const holes = 8
	for p := range holes + 1 {
		for h := range holes {
			fmt.Fprintf(&b, "p%d %d: h%d==%d\n", p, h, h, p)
		}
	}
	for h := range holes {
		for p := range holes + 1 {
			fmt.Fprintf(&b, "h%d %d:\n", h, p)
		}
	}
	var lines []string
	for p := range holes + 1 {
		lines = append(lines, fmt.Sprintf("p%d", p))
	}
	_, err := Solve(t.Context(), newToy(t, b.String()), Problem{Target: target(t, "cp312-win32"), Wants: wants(t, lines...), Steps: 500})
	e, ok := errors.AsType[*LimitError](err)
	if !ok || e.Steps != 500 || len(e.Lines) == 0 {
		t.Fatalf("got %v, want the limit and the last conflict", err)
	}
}

// unlocking is an index on which c0 needs c1 and so on, each with a version of
// another project that only an exact requirement makes count.
func unlocking(n int) (index string, known []string) {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "c%d 1: c%d, k%d==2\nk%d 1:\nk%d 2 yanked:\n", i, i+1, i, i, i)
		known = append(known, fmt.Sprintf("k%d", i))
	}
	fmt.Fprintf(&b, "c%d 1:\n", n)
	return b.String(), known
}

// What is unlocked as it is met costs no round of its own.
func TestUnlockAtOnce(t *testing.T) {
	const n = 100
	index, _ := unlocking(n)
	x := newToy(t, index+"y 1: z==2rc1, k0, k1\nz 1:\nz 2rc1 yanked:\n")
	sol, err := Solve(t.Context(), x, Problem{Target: target(t, "cp312-win_amd64"), Wants: wants(t, "c0", "y")})
	if err != nil {
		t.Fatal(err)
	}
	if got := show(sol); len(sol.Packages) != 2*n+3 || !strings.Contains(got, "k99==2") || !strings.Contains(got, "z==2rc1") {
		t.Errorf("got %s", got)
	}
	if x.asked > 3*n {
		t.Errorf("the metadata of %d versions was read for %d projects", x.asked, 2*n+3)
	}
	// Several of one package, all known before, cost one round.
	x = newToy(t, "a 1: b==2, c==2, d==2\nb 1:\nb 2 yanked:\nc 1:\nc 2 yanked:\nd 1:\nd 2 yanked:\n")
	sol, err = Solve(t.Context(), x, Problem{Target: target(t, "cp312-win_amd64"), Wants: wants(t, "b", "c", "d", "a")})
	if err != nil || show(sol) != "a==1 b==2 c==2 d==2" {
		t.Fatalf("got %v %v", sol, err)
	}
	if x.asked > 8 {
		t.Errorf("the metadata of %d versions was read for 4 projects", x.asked)
	}
}

// TestLimitOfRounds: the bound holds for all rounds together.
func TestLimitOfRounds(t *testing.T) {
	const n = 40
	index, known := unlocking(n)
	p := Problem{Target: target(t, "cp312-win32"), Wants: wants(t, append(known, "c0")...)}
	sol, err := Solve(t.Context(), newToy(t, index), p)
	if err != nil || sol.Steps < n*n {
		t.Fatalf("%+v %v: the problem should take %d rounds", sol, err, n)
	}
	p.Steps = n * n
	_, err = Solve(t.Context(), newToy(t, index), p)
	if e, ok := errors.AsType[*LimitError](err); !ok || e.Steps != p.Steps || e.Time != 0 {
		t.Errorf("got %v, want the limit on steps", err)
	}
}

// slow is an index that takes an hour for an answer.
type slow struct{ *toy }

func (x slow) List(ctx context.Context, project string) (*Listing, error) {
	time.Sleep(time.Hour)
	return x.toy.List(ctx, project)
}

func (x slow) Metadata(ctx context.Context, project string, v packaging.Version) (*packaging.Metadata, error) {
	time.Sleep(time.Hour)
	return x.toy.Metadata(ctx, project, v)
}

// TestLimitOfTime: work is bounded in time, waiting for the index is not.
func TestLimitOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Problem{Target: target(t, "cp312-win32"), Wants: wants(t, "a"), Time: time.Second}
		if _, err := Solve(t.Context(), slow{newToy(t, "a 1: b\nb 1:\n")}, p); err != nil {
			t.Errorf("an index that takes long: %v", err)
		}
	})
	index, known := unlocking(20)
	_, err := Solve(t.Context(), newToy(t, index), Problem{Target: target(t, "cp312-win32"), Wants: wants(t, append(known, "c0")...), Time: 1})
	if e, ok := errors.AsType[*LimitError](err); !ok || e.Time != 1 || !strings.Contains(e.Error(), "1ns of work") {
		t.Errorf("got %v, want the limit on time", err)
	}
}

// random makes a small problem.
func random(t *testing.T, r *rand.Rand) (text string, want []string) {
	t.Helper()
	const projects, versions = 4, 3
	spec := func() string {
		v := r.IntN(versions + 1)
		return []string{"", ">=", "<=", "==", "!=", "<"}[r.IntN(6)] + fmt.Sprint(v)
	}
	req := func() string {
		s := spec()
		if s[0] >= '0' && s[0] <= '9' {
			s = ""
		}
		extra := ""
		if r.IntN(5) == 0 {
			extra = "[x]"
		}
		return fmt.Sprintf("p%d%s%s", r.IntN(projects), extra, s)
	}
	var b strings.Builder
	for p := range projects {
		for v := range versions {
			fmt.Fprintf(&b, "p%d %d extra=x: ", p, v)
			for range r.IntN(3) {
				fmt.Fprintf(&b, "%s, ", req())
			}
			if r.IntN(2) == 0 {
				fmt.Fprintf(&b, "%s ; extra == 'x'", req())
			}
			b.WriteString("\n")
		}
	}
	for range 1 + r.IntN(2) {
		want = append(want, req())
	}
	return b.String(), want
}

// valid checks a choice of versions (and extras) against the index.
func valid(x *toy, tg *packaging.Target, ws []Want, chosen map[string]string, extras map[string]map[string]bool) error {
	env := tg.Env
	check := func(who string, r *packaging.Requirement) error {
		v, ok := chosen[r.Name]
		if !ok {
			return fmt.Errorf("%s requires %s, which is absent", who, r.Name)
		}
		pv, err := packaging.ParseVersion(v)
		if err != nil {
			return err
		}
		if !r.Specifiers.Contains(pv) {
			return fmt.Errorf("%s requires %s, found %s", who, requirementText(r), v)
		}
		for _, e := range r.Extras {
			if !extras[r.Name][e] {
				return fmt.Errorf("%s requires %s[%s]", who, r.Name, e)
			}
		}
		return nil
	}
	for i := range ws {
		if err := check(ws[i].Where, &ws[i].Requirement); err != nil {
			return err
		}
	}
	for name, v := range chosen {
		m := x.metadata[name+" "+v]
		for i := range m.Requires {
			r := &m.Requires[i]
			env.Extra = ""
			on := r.Marker.Eval(&env) != packaging.False
			for e := range extras[name] {
				env.Extra = e
				on = on || r.Marker.Eval(&env) != packaging.False
			}
			if on {
				if err := check(name+" "+v, r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// oracle tries every choice; extras count as all chosen or none, which is
// more than a solution needs, so it is tried both ways for each project.
func oracle(x *toy, tg *packaging.Target, ws []Want) bool {
	names := make([]string, 0, len(x.projects))
	for n := range x.projects {
		names = append(names, n)
	}
	slices.Sort(names)
	chosen, extras := map[string]string{}, map[string]map[string]bool{}
	var try func(i int) bool
	try = func(i int) bool {
		if i == len(names) {
			return valid(x, tg, ws, chosen, extras) == nil
		}
		if try(i + 1) { // absent
			return true
		}
		for _, c := range x.projects[names[i]] {
			chosen[names[i]] = c.Version.Text()
			for _, e := range []bool{false, true} {
				extras[names[i]] = map[string]bool{"x": e}
				if !e {
					extras[names[i]] = nil
				}
				if try(i + 1) {
					return true
				}
			}
		}
		delete(chosen, names[i])
		delete(extras, names[i])
		return false
	}
	return try(0)
}

// TestSolveAgainstOracle: a solution is found exactly where there is one, it
// is valid, and finding it again gives the same.
func TestSolveAgainstOracle(t *testing.T) {
	tg := target(t, "cp312-manylinux_2_28_x86_64")
	solved, failed := 0, 0
	for seed := range uint64(400) {
		text, lines := random(t, rand.New(rand.NewPCG(seed, 7)))
		x, ws := newToy(t, text), wants(t, lines...)
		sol, err := Solve(t.Context(), x, Problem{Target: tg, Wants: ws})
		exists := oracle(x, tg, ws)
		if c, ok := errors.AsType[*ConflictError](err); ok {
			failed++
			if exists {
				t.Fatalf("seed %d: %v\nbut there is a solution of %v in\n%s", seed, c, lines, text)
			}
			if len(c.Lines) == 0 {
				t.Fatalf("seed %d: no word why", seed)
			}
			continue
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		solved++
		chosen, extras := map[string]string{}, map[string]map[string]bool{}
		for _, p := range sol.Packages {
			chosen[p.Name] = p.Version.Text()
			extras[p.Name] = map[string]bool{}
			for _, e := range p.Extras {
				extras[p.Name][e] = true
			}
			if len(p.Because) == 0 {
				t.Fatalf("seed %d: nobody asked for %s", seed, p.Name)
			}
		}
		if err := valid(x, tg, ws, chosen, extras); err != nil {
			t.Fatalf("seed %d: %v in %s\n%v\n%s", seed, err, show(sol), lines, text)
		}
		again, err := Solve(t.Context(), newToy(t, text), Problem{Target: tg, Wants: ws})
		if err != nil || show(again) != show(sol) {
			t.Fatalf("seed %d: %s, then %v %v", seed, show(sol), again, err)
		}
	}
	if solved < 50 || failed < 50 {
		t.Fatalf("%d solved and %d failed: the problems are one-sided", solved, failed)
	}
}

func TestSet(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 200} {
		full := fullSet(n)
		if full.count() != n || full.max() != n-1 || !full.not(n).empty() || full.not(n).max() != -1 {
			t.Fatalf("%d: a full set of %d, its greatest %d", n, full.count(), full.max())
		}
		one := newSet(n)
		one.add(n - 1)
		rest := one.not(n)
		if rest.has(n-1) || rest.count() != n-1 || one.meets(rest) || !one.within(full) || n > 1 && full.within(one) {
			t.Fatalf("%d: %v %v", n, one, rest)
		}
		if diff := cmp.Diff(full, one.or(rest)); diff != "" || !one.and(rest).empty() {
			t.Fatalf("%d: %s", n, diff)
		}
		c := full.clone()
		c.remove(0)
		if full.count() != n || c.count() != n-1 {
			t.Fatalf("%d: a clone shares its memory", n)
		}
	}
}
