package apt

import "slices"

// maxConflicts bounds the search. Real archives need a few dozen.
const maxConflicts = 20_000

// A lit is a package (its id plus one) to be installed, or, negative, not.
type lit int32

func (l lit) v() int32 {
	if l < 0 {
		return int32(-l)
	}
	return int32(l)
}

// A clause is literals of which one must hold. watch 0 and 1 are lits[0] and
// lits[1]. A dependency's clause also knows its alternatives in order.
type clause struct {
	lits []lit
	head lit // the package whose relation this is; 0 for others
	alts []lit
}

// A solver selects packages for one architecture by conflict-driven clause
// learning. A package's clauses are made when it is first selected, so only
// the part of the archive that matters is ever read. Decisions are taken in a
// fixed order (seeds, then open dependencies, then recommendations, each with
// its first alternative), so that without a conflict the result is the greedy
// one.
type solver struct {
	u          *universe
	arch       string
	recommends bool

	seeds  [][]lit
	value  map[int32]int8 // +1, -1
	level  map[int32]int
	reason map[int32]*clause
	trail  []lit
	limits []int // trail length where each level begins
	head   int   // of the trail's part that is propagated

	watches map[lit][]*clause
	deps    []*clause // in the order in which they were made
	soft    map[lit][][]lit
	loaded  map[lit]bool

	conflicts int
	clash     *clause // the first conflict between two packages, for messages
}

func newSolver(u *universe, arch string, recommends bool, seeds [][]lit) *solver {
	return &solver{
		u: u, arch: arch, recommends: recommends, seeds: seeds,
		value: make(map[int32]int8), level: make(map[int32]int), reason: make(map[int32]*clause),
		watches: make(map[lit][]*clause), soft: make(map[lit][][]lit), loaded: make(map[lit]bool),
	}
}

func literal(p *pkg) lit { return lit(p.id + 1) }

func (s *solver) pkg(l lit) *pkg { return s.u.pkgs[l.v()-1] }

// holds is +1 for true, -1 for false, 0 for open.
func (s *solver) holds(l lit) int8 {
	v := s.value[l.v()]
	if l < 0 {
		return -v
	}
	return v
}

// solve runs until every selected package's dependencies are selected. Seeds
// that cannot be had together with earlier ones stay false.
func (s *solver) solve() error {
	for {
		conflict, err := s.propagate()
		if err != nil {
			return err
		}
		if conflict != nil {
			if len(s.limits) == 0 {
				return unsolvable("dependencies contradict each other without any choice")
			}
			if s.conflicts++; s.conflicts > maxConflicts {
				return unsolvable("no answer after %d conflicts", maxConflicts)
			}
			if s.clash == nil && conflict.alts == nil && conflict.head != 0 {
				s.clash = conflict
			}
			learned, back := s.analyze(conflict)
			s.backjump(back)
			s.add(learned)
			continue
		}
		l := s.decide()
		if l == 0 {
			return nil
		}
		s.limits = append(s.limits, len(s.trail))
		s.assign(l, nil)
	}
}

func (s *solver) assign(l lit, why *clause) {
	v := int8(1)
	if l < 0 {
		v = -1
	}
	s.value[l.v()] = v
	s.level[l.v()] = len(s.limits)
	s.reason[l.v()] = why
	s.trail = append(s.trail, l)
}

// propagate follows what the assignments force, and returns a clause that
// cannot hold.
func (s *solver) propagate() (*clause, error) {
	for s.head < len(s.trail) {
		l := s.trail[s.head]
		s.head++
		if l > 0 && !s.loaded[l] {
			conflict, err := s.load(l)
			if conflict != nil || err != nil {
				return conflict, err
			}
		}
		if conflict := s.visit(-l); conflict != nil {
			return conflict, nil
		}
	}
	return nil, nil
}

// visit looks at the clauses that watch a literal which has become false.
func (s *solver) visit(falsified lit) *clause {
	list := s.watches[falsified]
	kept := list[:0]
	for i, c := range list {
		if c.lits[0] == falsified {
			c.lits[0], c.lits[1] = c.lits[1], c.lits[0]
		}
		if s.holds(c.lits[0]) > 0 || !s.rewatch(c) {
			kept = append(kept, c)
			switch s.holds(c.lits[0]) {
			case 0:
				s.assign(c.lits[0], c)
			case -1:
				s.watches[falsified] = append(kept, list[i+1:]...)
				return c
			}
		}
	}
	s.watches[falsified] = kept
	return nil
}

// rewatch finds another literal for lits[1], which is false.
func (s *solver) rewatch(c *clause) bool {
	for k := 2; k < len(c.lits); k++ {
		if s.holds(c.lits[k]) >= 0 {
			c.lits[1], c.lits[k] = c.lits[k], c.lits[1]
			s.watches[c.lits[1]] = append(s.watches[c.lits[1]], c)
			return true
		}
	}
	return false
}

// add takes a clause in at any time and returns it if it cannot hold now.
func (s *solver) add(c *clause) *clause {
	// What is true or open comes first, then what was falsified last: a
	// backjump then frees the watched literals first.
	slices.SortStableFunc(c.lits, func(a, b lit) int { return s.rank(b) - s.rank(a) })
	for _, l := range c.lits[:min(2, len(c.lits))] {
		if len(c.lits) > 1 {
			s.watches[l] = append(s.watches[l], c)
		}
	}
	if s.holds(c.lits[0]) < 0 {
		return c
	}
	if s.holds(c.lits[0]) == 0 && (len(c.lits) == 1 || s.holds(c.lits[1]) < 0) {
		s.assign(c.lits[0], c)
	}
	return nil
}

func (s *solver) rank(l lit) int {
	if s.holds(l) >= 0 {
		return int(^uint(0) >> 1)
	}
	return s.level[l.v()]
}

// load makes the clauses of a package: one for each dependency, one for each
// package that cannot stand beside it.
func (s *solver) load(l lit) (*clause, error) {
	s.loaded[l] = true
	p := s.pkg(l)
	texts, err := p.texts()
	if err != nil {
		return nil, err
	}
	var conflict *clause
	keep := func(c *clause) {
		if bad := s.add(c); conflict == nil {
			conflict = bad
		}
	}
	for _, which := range []int{fieldPreDepends, fieldDepends} {
		groups, err := p.relations(texts, which, s.arch)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			alts := s.alternatives(g)
			if slices.Contains(alts, l) {
				continue // a package may satisfy its own dependency
			}
			c := &clause{lits: append([]lit{-l}, alts...), head: l, alts: alts}
			s.deps = append(s.deps, c)
			keep(c)
		}
	}
	for _, q := range s.u.named(p.name) {
		if q != p && q.fits(s.arch) {
			keep(&clause{lits: []lit{-l, -literal(q)}, head: l})
		}
	}
	for _, which := range []int{fieldConflicts, fieldBreaks} {
		groups, err := p.relations(texts, which, s.arch)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			for _, r := range g {
				for _, q := range s.u.hit(p, r, s.arch) {
					keep(&clause{lits: []lit{-l, -literal(q)}, head: l})
				}
			}
		}
	}
	if s.recommends {
		groups, err := p.relations(texts, fieldRecommends, s.arch)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			s.soft[l] = append(s.soft[l], s.alternatives(g))
		}
	}
	return conflict, nil
}

// alternatives are the packages that satisfy a group, in order.
func (s *solver) alternatives(g group) []lit {
	var alts []lit
	for _, r := range g {
		for _, q := range s.u.candidates(r, s.arch) {
			if l := literal(q); !slices.Contains(alts, l) {
				alts = append(alts, l)
			}
		}
	}
	return alts
}

// decide picks what to try next, or 0 when nothing is open.
func (s *solver) decide() lit {
	for _, alts := range s.seeds {
		if l := s.open(alts); l != 0 {
			return l
		}
	}
	for _, c := range s.deps {
		if s.holds(c.head) > 0 {
			if l := s.open(c.alts); l != 0 {
				return l
			}
		}
	}
	if s.recommends {
		for _, t := range s.trail {
			if t < 0 {
				continue
			}
			for _, alts := range s.soft[t] {
				if l := s.open(alts); l != 0 {
					return l
				}
			}
		}
	}
	return 0
}

// open is the first alternative that may still be chosen, or 0 if one is
// chosen already or none is left.
func (s *solver) open(alts []lit) lit {
	var first lit
	for _, l := range alts {
		switch s.holds(l) {
		case 1:
			return 0
		case 0:
			if first == 0 {
				first = l
			}
		}
	}
	return first
}

// analyze learns the clause that forbids the present conflict (first unique
// implication point) and tells to which level it reaches back.
func (s *solver) analyze(c *clause) (*clause, int) {
	seen := make(map[int32]bool)
	learned := []lit{0}
	back, pending := 0, 0
	here := len(s.limits)
	at := len(s.trail) - 1
	var uip lit
	for {
		for _, l := range c.lits {
			v := l.v()
			if l == uip || seen[v] || s.level[v] == 0 {
				continue
			}
			seen[v] = true
			if s.level[v] == here {
				pending++
			} else {
				learned = append(learned, l)
				back = max(back, s.level[v])
			}
		}
		for !seen[s.trail[at].v()] {
			at--
		}
		uip = s.trail[at]
		at--
		if pending--; pending == 0 {
			break
		}
		c = s.reason[uip.v()]
	}
	learned[0] = -uip
	return &clause{lits: learned}, back
}

// backjump undoes every assignment above a level.
func (s *solver) backjump(level int) {
	if level >= len(s.limits) {
		return
	}
	for _, l := range s.trail[s.limits[level]:] {
		delete(s.value, l.v())
		delete(s.level, l.v())
		delete(s.reason, l.v())
	}
	s.trail = s.trail[:s.limits[level]]
	s.limits = s.limits[:level]
	s.head = len(s.trail)
}
