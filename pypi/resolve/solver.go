package resolve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// early is how many conflicts make a project be decided before others: what
// keeps failing should fail soon. As many versions of one project that one
// decision rules out put that decision off until the end.
const early = 5

// A pkg is one variable of the problem: a project, or a project's extra.
type pkg struct {
	id      int
	name    string
	extra   string
	project *project
	// absent is the place of "not chosen", behind the versions.
	absent int

	current  set // what the assignments leave
	decided  int // the place of the chosen version, or -1
	trail    []int
	incompat []*incompat
	blamed   int
	late     bool // its decision ruled out many versions of another project
}

func (p *pkg) size() int { return p.absent + 1 }

func (p *pkg) String() string {
	if p.extra == "" {
		return p.name
	}
	return p.name + "[" + p.extra + "]"
}

// A term says that the version of a package lies in a set.
type term struct {
	pkg *pkg
	set set
}

// An incompat is a set of terms that cannot all hold. It was told by the
// index (leaf) or learned from two others.
type incompat struct {
	terms       []term
	left, right *incompat
	leaf        *leaf
}

// An assignment narrows a package: decided, or derived from an incompat.
type assignment struct {
	pkg    *pkg
	set    set
	before set // the package's set before
	level  int
	cause  *incompat // nil for a decision
}

type solver struct {
	ctx      context.Context //nolint:containedctx // lives as long as one call of Solve
	index    Index
	p        *Problem
	unlocked map[string]*unlock
	projects map[string]*project
	env      packaging.Environment

	pkgs   []*pkg
	byName map[[2]string]*pkg
	trail  []assignment
	level  int
	spent  *spent
	last   *incompat // the latest conflict
	again  bool      // something was unlocked that what is known lacks
	notes  map[string]bool
	// edges are what the metadata of a package's version asked for.
	edges map[edge][]*pkg
	// tied are the versions of extras that are bound to their project's.
	tied map[edge]bool
	// clashes count how often a version of the first was ruled out by what had
	// been decided for the second.
	clashes map[[2]*pkg]int
}

// An edge begins at one version of a package; that of the root is the wants.
type edge struct {
	pkg     *pkg
	version int
}

func newSolver(ctx context.Context, index Index, p *Problem, unlocked map[string]*unlock, spent *spent) *solver {
	return &solver{
		ctx: ctx, index: index, p: p, unlocked: unlocked, spent: spent, env: p.Target.Env,
		projects: make(map[string]*project), byName: make(map[[2]string]*pkg),
		notes: make(map[string]bool), edges: make(map[edge][]*pkg), tied: make(map[edge]bool), clashes: make(map[[2]*pkg]int),
	}
}

// run decides until every package that is needed has a version.
func (s *solver) run() error {
	root := &pkg{project: &project{}, absent: 1, current: fullSet(2), decided: -1}
	s.pkgs = append(s.pkgs, root)
	s.assign(root, single(root, 0), nil)
	root.decided = 0
	for i := range s.p.Wants {
		if err := s.want(root, &s.p.Wants[i]); err != nil {
			return err
		}
	}
	if s.again {
		return errAgain
	}
	next := root
	for {
		if err := s.propagate(next); err != nil {
			return err
		}
		var err error
		if next, err = s.decide(); err != nil || next == nil {
			return err
		}
		if err := s.step(); err != nil {
			return err
		}
	}
}

// step counts a decision or a conflict.
func (s *solver) step() error {
	s.spent.steps++
	e := &LimitError{Target: s.p.Target.Text, Steps: s.p.Steps}
	switch {
	case s.spent.steps > s.p.Steps:
	case time.Since(s.spent.began)-s.spent.waited > s.p.Time:
		e.Steps, e.Time = s.spent.steps, s.p.Time
	default:
		return s.ctx.Err()
	}
	if s.last != nil {
		e.Lines = s.explain(s.last)
	}
	return e
}

func single(p *pkg, i int) set {
	out := newSet(p.size())
	out.add(i)
	return out
}

// assign narrows p.
func (s *solver) assign(p *pkg, to set, cause *incompat) {
	p.trail = append(p.trail, len(s.trail))
	s.trail = append(s.trail, assignment{pkg: p, set: to, before: p.current, level: s.level, cause: cause})
	p.current = p.current.and(to)
}

// backtrack takes back what was assigned above level.
func (s *solver) backtrack(level int) {
	for len(s.trail) > 0 && s.trail[len(s.trail)-1].level > level {
		a := &s.trail[len(s.trail)-1]
		a.pkg.current = a.before
		a.pkg.trail = a.pkg.trail[:len(a.pkg.trail)-1]
		if a.cause == nil {
			a.pkg.decided = -1
		}
		s.trail = s.trail[:len(s.trail)-1]
	}
	s.level = level
}

// add makes an incompat known; terms that always hold are left out.
func (s *solver) add(i *incompat) {
	for _, t := range i.terms {
		t.pkg.incompat = append(t.pkg.incompat, i)
	}
}

// newIncompat joins the terms of one package and drops what says nothing.
func newIncompat(terms ...term) *incompat {
	i := &incompat{}
	for _, t := range terms {
		k := slices.IndexFunc(i.terms, func(u term) bool { return u.pkg == t.pkg })
		if k < 0 {
			i.terms = append(i.terms, t)
			continue
		}
		i.terms[k].set = i.terms[k].set.and(t.set)
	}
	i.terms = slices.DeleteFunc(i.terms, func(t term) bool { return t.set.count() == t.pkg.size() })
	return i
}

// propagate derives what follows from the assignments, p's having changed.
func (s *solver) propagate(p *pkg) error {
	queue := []*pkg{p}
	for len(queue) > 0 {
		p, queue = queue[0], queue[1:]
		for k := len(p.incompat) - 1; k >= 0; k-- {
			open, conflict := p.incompat[k].look()
			if conflict {
				learned, err := s.resolve(p.incompat[k])
				if err != nil {
					return err
				}
				open, conflict = learned.look()
				if conflict || open == nil {
					return errors.New("resolve: the learned conflict derives nothing")
				}
				s.assign(open.pkg, open.set.not(open.pkg.size()), learned)
				queue = append(queue[:0], open.pkg)
				break
			}
			if open != nil {
				s.assign(open.pkg, open.set.not(open.pkg.size()), p.incompat[k])
				if !slices.Contains(queue, open.pkg) {
					queue = append(queue, open.pkg)
				}
			}
		}
	}
	return nil
}

// look says what the assignments make of the terms: all hold (a conflict),
// all but one do (open), or neither.
func (i *incompat) look() (open *term, conflict bool) {
	for k := range i.terms {
		t := &i.terms[k]
		switch {
		case t.pkg.current.within(t.set):
		case open != nil || !t.pkg.current.meets(t.set):
			return nil, false
		default:
			open = t
		}
	}
	return open, open == nil
}

// satisfier is the first assignment of p after which it lies within t.
func (s *solver) satisfier(p *pkg, t set) int {
	for k, at := range p.trail {
		after := p.current
		if k+1 < len(p.trail) {
			after = s.trail[p.trail[k+1]].before
		}
		if after.within(t) {
			return at
		}
	}
	return -1
}

// resolve learns from a conflict: an incompat that the assignments of an
// earlier level nearly satisfy, to which it goes back.
func (s *solver) resolve(i *incompat) (*incompat, error) {
	s.last = i
	if err := s.step(); err != nil {
		return nil, err
	}
	learned := false
	for !i.hopeless() {
		at, previous := -1, 0
		var latest *term
		for k := range i.terms {
			t := &i.terms[k]
			switch n := s.satisfier(t.pkg, t.set); {
			case n > at:
				if at >= 0 {
					previous = max(previous, s.trail[at].level)
				}
				at, latest = n, t
			default:
				previous = max(previous, s.trail[n].level)
			}
		}
		a := s.trail[at]
		rest := a.set.not(a.pkg.size()).or(latest.set) // what the assignment alone does not say
		if partial := !a.set.within(latest.set); partial {
			if n := s.satisfier(a.pkg, rest); n >= 0 {
				previous = max(previous, s.trail[n].level)
			}
		}
		if previous < a.level || a.cause == nil {
			for _, t := range i.terms {
				t.pkg.blamed++
			}
			s.backtrack(previous)
			if learned {
				s.add(i)
			}
			return i, nil
		}
		terms := make([]term, 0, len(i.terms)+len(a.cause.terms))
		for _, t := range i.terms {
			if t.pkg != a.pkg {
				terms = append(terms, t)
			}
		}
		for _, t := range a.cause.terms {
			if t.pkg != a.pkg {
				terms = append(terms, t)
			}
		}
		if !a.set.within(latest.set) {
			terms = append(terms, term{a.pkg, rest})
		}
		next := newIncompat(terms...)
		next.left, next.right = i, a.cause
		i, learned = next, true
	}
	return nil, &ConflictError{Target: s.p.Target.Text, Lines: s.explain(i)}
}

// hopeless is an incompat that the wants alone satisfy.
func (i *incompat) hopeless() bool {
	return len(i.terms) == 0 || len(i.terms) == 1 && i.terms[0].pkg.id == 0 && i.terms[0].pkg.name == ""
}

// decide chooses a version for the package that is most urgent, and tells
// which package changed; nil when nothing is left to decide.
func (s *solver) decide() (*pkg, error) {
	p := s.urgent()
	if p == nil {
		return nil, nil
	}
	allowed := p.current.clone()
	allowed.remove(p.absent)
	v := allowed.max()
	if base := s.byName[[2]string{p.name, ""}]; p.extra != "" && base.decided >= 0 {
		// Tied to the project by the incompats of its decision.
		v = base.decided
	}
	conflict, err := s.require(p, v)
	if err != nil {
		return nil, err
	}
	if conflict && s.putOff(p, v) {
		return p, nil
	}
	if p.extra == "" {
		for _, q := range s.pkgs[1:] {
			if q.name == p.name && q.extra != "" {
				s.tie(p, q, v)
			}
		}
	}
	if !conflict {
		s.level++
		s.assign(p, single(p, v), nil)
		p.decided = v
	}
	return p, nil
}

// putOff looks which decision rules out p at v. Once it has ruled out so many
// versions, it is taken back and comes late, and p soon: else every version of
// p would be asked for its metadata, to find that an older one of a project with
// as many has the same dependency.
func (s *solver) putOff(p *pkg, v int) bool {
	for _, i := range p.incompat {
		if !i.rulesOut(p, v) {
			continue
		}
		level := 0
		for _, t := range i.terms {
			if t.pkg != p {
				level = max(level, s.trail[s.satisfier(t.pkg, t.set)].level)
			}
		}
		if level == 0 {
			continue // follows from the wants
		}
		at := slices.IndexFunc(s.trail, func(a assignment) bool { return a.level == level && a.cause == nil })
		culprit := s.trail[at].pkg
		pair := [2]*pkg{p, culprit}
		if s.clashes[pair]++; s.clashes[pair] != early {
			continue
		}
		p.blamed, culprit.late = max(p.blamed, early), true
		s.backtrack(level - 1)
		return true
	}
	return false
}

// urgent is the next package to decide: one that often failed, one that has
// a single version left, or the one that was met first, and last one that was
// put off. A project comes before its extras.
func (s *solver) urgent() *pkg {
	var best *pkg
	rank := func(p *pkg) (int, int) {
		switch {
		case p.extra != "" && s.byName[[2]string{p.name, ""}].decided < 0:
			return 4, 0
		case p.blamed >= early:
			return 0, -p.blamed
		case p.current.count() == 1:
			return 1, 0
		case p.late:
			return 3, 0
		}
		return 2, 0
	}
	for _, p := range s.pkgs[1:] {
		if p.decided >= 0 || p.current.has(p.absent) {
			continue
		}
		if best == nil {
			best = p
			continue
		}
		a, b := rank(p)
		c, d := rank(best)
		if a < c || a == c && b < d {
			best = p
		}
	}
	return best
}

// pkg returns the variable for a project's extra, and lists the project the
// first time.
func (s *solver) pkg(name, extra string) (*pkg, error) {
	key := [2]string{name, extra}
	if p := s.byName[key]; p != nil {
		return p, nil
	}
	pr, err := s.project(name)
	if err != nil {
		return nil, err
	}
	p := &pkg{id: len(s.pkgs), name: name, extra: extra, project: pr, absent: len(pr.versions), decided: -1}
	p.current = fullSet(p.size())
	s.pkgs = append(s.pkgs, p)
	s.byName[key] = p
	if extra == "" {
		s.constrain(p)
		return p, nil
	}
	base, err := s.pkg(name, "")
	if err != nil {
		return nil, err
	}
	if base.decided >= 0 {
		s.tie(base, p, base.decided)
	}
	return p, nil
}

// tie binds an extra to the version that its project has.
func (s *solver) tie(base, extra *pkg, v int) {
	e := edge{extra, v}
	if s.tied[e] {
		return
	}
	s.tied[e] = true
	other := single(extra, v).not(extra.size())
	other.remove(extra.absent)
	i := newIncompat(term{base, single(base, v)}, term{extra, other})
	i.leaf = &leaf{kind: leafTie}
	s.add(i)
}

// constrain holds p to the constraints on its project.
func (s *solver) constrain(p *pkg) {
	for k := range s.p.Constraints {
		c := &s.p.Constraints[k]
		if c.Name != p.name || c.Marker.Eval(&s.env) == packaging.False {
			continue
		}
		out := p.project.matching(c.Specifiers).not(p.size())
		out.remove(p.absent)
		if out.empty() {
			continue
		}
		i := newIncompat(term{p, out})
		i.leaf = &leaf{kind: leafConstraint, to: p, where: c.Where, text: requirementText(&c.Requirement)}
		s.add(i)
		// A single term holds without any assignment: derive it here, for
		// propagation starts at what changed.
		s.assign(p, out.not(p.size()), i)
	}
}

// want adds what somebody wants.
func (s *solver) want(root *pkg, w *Want) error {
	if w.Marker.Eval(&s.env) == packaging.False {
		return nil
	}
	return s.depend(root, 0, &w.Requirement, w.Where)
}

// require reads the metadata of p's version v and adds what it requires. It
// reports whether that conflicts at once, so that the version is not taken.
func (s *solver) require(p *pkg, v int) (conflict bool, err error) {
	e := edge{p, v}
	if _, done := s.edges[e]; done {
		return false, nil // its incompats are known, and did not rule it out
	}
	began := time.Now()
	m, err := s.index.Metadata(s.ctx, p.name, p.project.versions[v].Version)
	s.spent.waits(began)
	if bad, ok := errors.AsType[*UnusableError](err); ok {
		return s.unusable(p, v, bad.Reason), nil
	}
	if err != nil {
		return false, err
	}
	if python, err := packaging.ParseSpecifiers(m.RequiresPython); err == nil && !python.Contains(s.p.Target.Python) {
		return s.unusable(p, v, fmt.Sprintf("needs Python %s", m.RequiresPython)), nil
	}
	s.edges[e] = nil
	from := len(p.incompat)
	if p.extra != "" && !slices.Contains(m.Extras, p.extra) {
		s.notes[fmt.Sprintf("%s %s has no extra %s", p.name, p.project.versions[v].Version, p.extra)] = true
	}
	for k := range m.Requires {
		if !s.applies(&m.Requires[k], p.extra) {
			continue
		}
		if err := s.depend(p, v, &m.Requires[k], ""); err != nil {
			return false, err
		}
	}
	if s.again {
		return false, errAgain
	}
	return slices.ContainsFunc(p.incompat[from:], func(i *incompat) bool { return i.rulesOut(p, v) }), nil
}

// rulesOut reports whether i is a conflict as soon as p is at v.
func (i *incompat) rulesOut(p *pkg, v int) bool {
	for _, t := range i.terms {
		if t.pkg == p {
			if !t.set.has(v) {
				return false
			}
		} else if !t.pkg.current.within(t.set) {
			return false
		}
	}
	return true
}

// applies says whether a requirement of a project belongs to the project
// itself (extra "") or to the extra alone.
func (s *solver) applies(r *packaging.Requirement, extra string) bool {
	s.env.Extra = ""
	base := r.Marker.Eval(&s.env) != packaging.False
	if extra == "" {
		return base
	}
	s.env.Extra = extra
	defer func() { s.env.Extra = "" }()
	return !base && r.Marker.Eval(&s.env) != packaging.False
}

func (s *solver) unusable(p *pkg, v int, reason string) bool {
	i := newIncompat(term{p, single(p, v)})
	i.leaf = &leaf{kind: leafUnusable, from: p, version: v, text: reason}
	s.add(i)
	return true
}

// needed returns the variable for what r names. Where its project is met for the
// first time, nothing has been learned of it yet: what r needs of it is unlocked
// without another round.
func (s *solver) needed(r *packaging.Requirement, extra string) (*pkg, error) {
	for s.byName[[2]string{r.Name, ""}] == nil {
		pr, err := s.project(r.Name)
		if err != nil {
			return nil, err
		}
		u := pr.locked(r.Specifiers, pr.matching(r.Specifiers))
		if u == nil {
			break
		}
		s.unlock(u)
		delete(s.projects, r.Name)
	}
	return s.pkg(r.Name, extra)
}

// depend adds that p at v requires r.
func (s *solver) depend(p *pkg, v int, r *packaging.Requirement, where string) error {
	l := &leaf{kind: leafDepends, from: p, version: v, where: where, text: requirementText(r)}
	if r.URL != "" {
		i := newIncompat(term{p, single(p, v)})
		l.kind = leafURL
		i.leaf = l
		s.add(i)
		return nil
	}
	for _, extra := range append([]string{""}, r.Extras...) {
		to, err := s.needed(r, extra)
		if err != nil {
			return err
		}
		if to == p {
			if !r.Specifiers.Contains(p.project.versions[v].Version) {
				s.unusable(p, v, "requires itself in another version: "+l.text)
			}
			continue
		}
		allowed := to.project.matching(r.Specifiers)
		if u := to.project.locked(r.Specifiers, allowed); u != nil {
			// The other requirements of p may unlock more: they are looked at
			// before the next round.
			s.unlock(u)
			s.again = true
			continue
		}
		i := newIncompat(term{p, single(p, v)}, term{to, allowed.not(to.size())})
		i.leaf = &leaf{kind: l.kind, from: p, version: v, to: to, where: where, text: l.text}
		s.add(i)
		e := edge{p, v}
		s.edges[e] = append(s.edges[e], to)
	}
	return nil
}
