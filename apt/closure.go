package apt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Values of Config.Essential.
const (
	essentialNone      = "none"
	essentialRequired  = "required"
	essentialBootstrap = "bootstrap"
)

// A seed is a package that was asked for, and where.
type seed struct {
	rel relation
	why string
}

// parseSeed reads "name", "name:arch" or "name (op version)".
func parseSeed(s string) (seed, error) {
	r, _, err := parseRelation(s, "any")
	if err == nil && r.qualifier == "any" {
		err = errors.New(`":any" names no architecture`)
	}
	return seed{rel: r, why: "packages: " + s}, err
}

// A choice is a selected package and why it is selected.
type choice struct {
	pkg *pkg
	why string
}

// A selector finds the closure of seeds for one architecture.
type selector struct {
	u          *universe
	arch       string
	recommends bool
	subject    string
}

// sel runs the search and the proof. Seeds that exclude each other (two mail
// servers) are closed over in turns, each with all those that go with it; the
// union of the turns is the selection. Every turn is proved by itself, hence
// every seed can be installed from the union.
func (s *selector) sel(ctx context.Context, seeds []seed) ([]choice, error) {
	chosen := make(map[*pkg]string)
	for len(seeds) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		alts := make([][]lit, len(seeds))
		for i, sd := range seeds {
			for _, p := range s.seedCandidates(sd.rel) {
				alts[i] = append(alts[i], literal(p))
			}
			if len(alts[i]) == 0 {
				return nil, s.refuse("nothing satisfies " + sd.rel.String() + " (" + sd.why + ")")
			}
		}
		sv := newSolver(s.u, s.arch, s.recommends, alts)
		if err := sv.solve(); err != nil {
			return nil, s.judge(err)
		}
		turn, left, err := s.collect(sv, seeds)
		if err != nil {
			return nil, err
		}
		if len(left) == len(seeds) {
			return nil, s.refuse(s.explain(sv, seeds[0]))
		}
		if err := s.prove(turn); err != nil {
			return nil, s.judge(err)
		}
		for _, c := range turn {
			if _, ok := chosen[c.pkg]; !ok {
				chosen[c.pkg] = c.why
			}
		}
		seeds = left
	}
	return sorted(chosen), nil
}

func sorted(chosen map[*pkg]string) []choice {
	all := make([]choice, 0, len(chosen))
	for _, p := range slices.SortedFunc(maps.Keys(chosen), func(a, b *pkg) int { return cmp.Compare(a.id, b.id) }) {
		all = append(all, choice{p, chosen[p]})
	}
	return all
}

// judge makes a refusal of an error that is about the packages themselves.
func (s *selector) judge(err error) error {
	if e, ok := errors.AsType[unsolvableError](err); ok {
		return s.refuse(string(e))
	}
	return err
}

// An unsolvableError says why packages cannot be installed together.
type unsolvableError string

func (e unsolvableError) Error() string { return string(e) }

func unsolvable(format string, a ...any) error {
	return unsolvableError(fmt.Sprintf(format, a...))
}

func (s *selector) refuse(reason string) error {
	return unavailable(codeClosure, s.subject+" ("+s.arch+")", reason)
}

// seedCandidates: a seed is a real package; only where there is none, what
// provides the name.
func (s *selector) seedCandidates(r relation) []*pkg {
	r.qualifier = ""
	all := s.u.candidates(r, s.arch)
	if i := slices.IndexFunc(all, func(p *pkg) bool { return p.name == r.name }); i >= 0 {
		return all[i : i+1]
	}
	return all
}

// collect walks the solver's answer from the seeds and keeps what is reached,
// with the relation that reached it first. Seeds that are not in the answer
// are left.
func (s *selector) collect(sv *solver, seeds []seed) (turn []choice, left []seed, err error) {
	taken := make(map[lit]bool)
	take := func(alts []lit, why func() string) bool {
		for _, l := range alts {
			if sv.holds(l) > 0 {
				if !taken[l] {
					taken[l] = true
					turn = append(turn, choice{sv.pkg(l), why()})
				}
				return true
			}
		}
		return false
	}
	for i, sd := range seeds {
		if !take(sv.seeds[i], func() string { return sd.why }) {
			left = append(left, sd)
		}
	}
	for i := 0; i < len(turn); i++ {
		p := turn[i].pkg
		texts, err := p.texts()
		if err != nil {
			return nil, nil, err
		}
		for _, which := range []int{fieldPreDepends, fieldDepends, fieldRecommends} {
			if which == fieldRecommends && !s.recommends {
				continue
			}
			groups, err := p.relations(texts, which, s.arch)
			if err != nil {
				return nil, nil, err
			}
			for _, g := range groups {
				take(sv.alternatives(g), func() string {
					return fmt.Sprintf("%s: %s: %s", p.name, spooled[which], clip(g.String()))
				})
			}
		}
	}
	return turn, left, nil
}

// prove checks, with nothing of the solver's, that the packages can all be
// installed together: each dependency satisfied among them, nothing that
// another forbids, one version of a name.
func (s *selector) prove(turn []choice) error {
	set := make(map[*pkg]bool, len(turn))
	names := make(map[string]*pkg, len(turn))
	for _, c := range turn {
		set[c.pkg] = true
		if other, dup := names[c.pkg.name]; dup {
			return unsolvable("%s is selected as %s and as %s", c.pkg.name, c.pkg.version, other.version)
		}
		names[c.pkg.name] = c.pkg
		if q := s.u.rival(c.pkg); q != nil {
			return conflictRefusal(c.pkg, q)
		}
	}
	for _, c := range turn {
		p := c.pkg
		texts, err := p.texts()
		if err != nil {
			return err
		}
		for which := range spooled {
			groups, err := p.relations(texts, which, s.arch)
			if err != nil {
				return err
			}
			switch which {
			case fieldPreDepends, fieldDepends:
				for _, g := range groups {
					if !s.satisfied(set, g) {
						return unsolvable("%s %s: %s: %s is not satisfied", p.name, p.version, spooled[which], clip(g.String()))
					}
				}
			case fieldConflicts, fieldBreaks:
				for _, g := range groups {
					for _, r := range g {
						for _, q := range s.u.hit(p, r, s.arch) {
							if set[q] {
								return unsolvable("%s %s: %s: %s forbids %s %s", p.name, p.version, spooled[which], r, q.name, q.version)
							}
						}
					}
				}
			}
		}
	}
	return nil
}

// satisfied asks the packages of a set themselves, candidates or not.
func (s *selector) satisfied(set map[*pkg]bool, g group) bool {
	for _, r := range g {
		for _, q := range s.u.named(r.name) {
			if set[q] && r.accepts(q.version) && qualifies(q, r.qualifier, s.arch) {
				return true
			}
		}
		if r.qualifier != "" && r.qualifier != s.arch {
			continue
		}
		for _, pr := range s.u.providers(r.name) {
			if set[pr.by] && provideAccepts(r, pr) {
				return true
			}
		}
	}
	return false
}

func conflictRefusal(p, q *pkg) error {
	ref := integrity(codeConflict, p.index.subject, fmt.Sprintf("%s %s %s has other bytes in %s", p.name, p.version, p.arch, q.index.subject))
	ref.Want, ref.Got = p.digest.String(), q.digest.String()
	return ref
}

// explain says why a seed cannot be installed: first it looks for a chain to a
// relation that nothing satisfies, then it names the first two packages that
// were found to exclude each other.
func (s *selector) explain(sv *solver, sd seed) string {
	seen := make(map[*pkg][]string)
	for _, p := range s.seedCandidates(sd.rel) {
		if chain := s.hole(p, seen); chain != nil {
			return strings.Join(append([]string{sd.rel.String()}, chain...), " -> ")
		}
	}
	if c := sv.clash; c != nil {
		p := sv.pkg(c.head)
		for _, l := range c.lits {
			if q := sv.pkg(l); q != p {
				return fmt.Sprintf("%s cannot be installed: %s %s and %s %s exclude each other", sd.rel, p.name, p.version, q.name, q.version)
			}
		}
	}
	return sd.rel.String() + " cannot be installed: its dependencies exclude each other"
}

// hole returns the chain below p to a relation that nothing satisfies, or nil.
// seen holds the answers so far; a package that is being asked counts as sound.
func (s *selector) hole(p *pkg, seen map[*pkg][]string) []string {
	if chain, ok := seen[p]; ok {
		return chain
	}
	seen[p] = nil
	seen[p] = s.findHole(p, seen)
	return seen[p]
}

func (s *selector) findHole(p *pkg, seen map[*pkg][]string) []string {
	texts, err := p.texts()
	if err != nil {
		return []string{err.Error()}
	}
	for _, which := range []int{fieldPreDepends, fieldDepends} {
		groups, err := p.relations(texts, which, s.arch)
		if err != nil {
			return []string{err.Error()}
		}
		for _, g := range groups {
			var below []string
			open := false
			for _, r := range g {
				for _, q := range s.u.candidates(r, s.arch) {
					chain := s.hole(q, seen)
					if chain == nil {
						open = true
						break
					}
					if below == nil {
						below = chain
					}
				}
			}
			if !open {
				if below == nil {
					below = []string{clip(g.String()) + " (nothing satisfies it)"}
				}
				return append([]string{fmt.Sprintf("%s %s", p.name, p.version)}, below...)
			}
		}
	}
	return nil
}

// presets are the seeds of a group that every system needs and nothing depends
// on. "bootstrap" is what debootstrap and mmdebstrap install first: Essential,
// priority required, apt (which brings the archive's keyring) and
// usr-is-merged, which debootstrap asks for by name.
func (u *universe) presets(essential, arch string) []seed {
	var seeds []seed
	if essential != essentialRequired && essential != essentialBootstrap {
		return nil
	}
	for i, p := range u.pkgs {
		if i > 0 && u.pkgs[i-1].name == p.name {
			continue
		}
		c := u.candidate(p.name, arch)
		if c == nil {
			continue
		}
		if c.essential || essential == essentialBootstrap && c.priority == 0 {
			seeds = append(seeds, seed{rel: relation{name: c.name}, why: "essential: " + essential})
		}
	}
	if essential == essentialBootstrap {
		for _, name := range []string{"apt", "usr-is-merged"} {
			if u.candidate(name, arch) != nil {
				seeds = append(seeds, seed{rel: relation{name: name}, why: "essential: " + essential})
			}
		}
	}
	return seeds
}
