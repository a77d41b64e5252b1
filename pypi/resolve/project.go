package resolve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// A project is the versions of a project that count, the one to prefer last.
type project struct {
	name     string
	versions []Candidate
	// locked away are usable versions that count only when asked for.
	pre, yanked []packaging.Version
	missing     string
	reasons     map[string]int // of the versions that cannot be used
	cache       map[string]set
}

// project lists a project.
func (s *solver) project(name string) (*project, error) {
	if pr := s.projects[name]; pr != nil {
		return pr, nil
	}
	began := time.Now()
	l, err := s.index.List(s.ctx, name)
	s.spent.waits(began)
	if err != nil {
		return nil, err
	}
	pr := &project{name: name, missing: l.Missing, reasons: make(map[string]int), cache: make(map[string]set)}
	u := s.unlocked[name]
	// named: pre-releases stand in line with the others.
	named := s.p.AllPrereleases || s.p.Prereleases[name] || s.named(name)
	stable := slices.ContainsFunc(l.Candidates, func(c Candidate) bool {
		return c.Unusable == "" && !c.Yanked && !c.Version.IsPrerelease()
	})
	for _, c := range l.Candidates {
		switch {
		case c.Unusable != "":
			pr.reasons[c.Unusable]++
		case c.Yanked && !u.has(c.Version):
			pr.yanked = append(pr.yanked, c.Version)
		case c.Version.IsPrerelease() && stable && !named && (u == nil || !u.pre):
			pr.pre = append(pr.pre, c.Version)
		default:
			pr.versions = append(pr.versions, c)
		}
	}
	slices.SortFunc(pr.versions, func(a, b Candidate) int {
		if !named && a.Version.IsPrerelease() != b.Version.IsPrerelease() {
			if a.Version.IsPrerelease() {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Version.Compare(b.Version), strings.Compare(a.Version.Text(), b.Version.Text()))
	})
	s.projects[name] = pr
	return pr, nil
}

// named reports whether a want or a constraint names a pre-release of the
// project.
func (s *solver) named(name string) bool {
	names := func(w Want) bool {
		return w.Name == name && w.Specifiers.NamesPrerelease() && w.Marker.Eval(&s.env) != packaging.False
	}
	return slices.ContainsFunc(s.p.Wants, names) || slices.ContainsFunc(s.p.Constraints, names)
}

// matching is the set of versions that the specifiers hold for.
func (pr *project) matching(sp packaging.Specifiers) set {
	key := sp.String()
	if out := pr.cache[key]; out != nil {
		return out
	}
	out := newSet(len(pr.versions) + 1)
	for i := range pr.versions {
		if sp.Contains(pr.versions[i].Version) {
			out.add(i)
		}
	}
	pr.cache[key] = out
	return out
}

// locked says what has to be unlocked for the specifiers, if anything can.
func (pr *project) locked(sp packaging.Specifiers, allowed set) *unlock {
	if !allowed.empty() {
		return nil
	}
	u := &unlock{project: pr.name}
	if sp.Pins() {
		for _, v := range pr.yanked {
			if sp.Contains(v) {
				u.yanked = append(u.yanked, v)
			}
		}
	}
	u.pre = slices.ContainsFunc(pr.pre, sp.Contains)
	if !u.pre && len(u.yanked) == 0 {
		return nil
	}
	return u
}

// runs names a set of versions in words: "1.0", "1.0 to 1.4 and 2.0",
// "every version".
func (pr *project) runs(s set) string {
	type numbered struct {
		at int
		v  packaging.Version
	}
	all := make([]numbered, len(pr.versions))
	for i := range pr.versions {
		all[i] = numbered{i, pr.versions[i].Version}
	}
	slices.SortStableFunc(all, func(a, b numbered) int { return a.v.Compare(b.v) })
	var out []string
	whole := true
	for i := 0; i < len(all); i++ {
		if !s.has(all[i].at) {
			whole = false
			continue
		}
		j := i
		for j+1 < len(all) && s.has(all[j+1].at) {
			j++
		}
		if i == j {
			out = append(out, all[i].v.String())
		} else {
			out = append(out, all[i].v.String()+" to "+all[j].v.String())
		}
		i = j
	}
	if whole && len(all) > 1 {
		return "every version"
	}
	const shown = 4
	if len(out) > shown {
		out = append(out[:shown-1], fmt.Sprintf("%d more", len(out)-shown+1))
	}
	if len(out) > 1 {
		return strings.Join(out[:len(out)-1], ", ") + " and " + out[len(out)-1]
	}
	return strings.Join(out, "")
}
