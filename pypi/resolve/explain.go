package resolve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// maxLines bounds an explanation; conflicts that people can act on have up
// to ten lines.
const maxLines = 40

type leafKind int

const (
	leafDepends leafKind = iota
	leafConstraint
	leafUnusable
	leafURL
	leafTie
)

// A leaf is a fact that an incompat states.
type leaf struct {
	kind    leafKind
	from    *pkg
	version int
	to      *pkg
	where   string // of a want or a constraint
	text    string // the requirement, or why a version cannot be used
}

// explain names the facts that an incompat was learned from, as who wants
// what, beginning with the wants.
func (s *solver) explain(i *incompat) []string {
	var leaves []*leaf
	seen := map[*incompat]bool{i: true}
	for todo := []*incompat{i}; len(todo) > 0; {
		i, todo = todo[0], todo[1:]
		if i.leaf != nil {
			leaves = append(leaves, i.leaf)
			continue
		}
		for _, next := range []*incompat{i.left, i.right} {
			if next != nil && !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	facts := s.facts(leaves)
	lines := make([]string, 0, len(facts))
	for _, f := range facts {
		lines = append(lines, f.line())
	}
	lines = append(lines, s.scarce(leaves)...)
	if more := len(lines) - maxLines; more > 0 {
		lines = append(lines[:maxLines], fmt.Sprintf("and %d more", more))
	}
	return lines
}

// A fact is one line: what several versions of a project have in common.
type fact struct {
	leaf
	versions set
	depth    int
}

// facts joins the leaves that differ in the version alone, and orders them by
// their distance from the wants.
func (s *solver) facts(leaves []*leaf) []*fact {
	type key struct {
		kind              leafKind
		from, where, text string
	}
	byKey := make(map[key]*fact)
	var facts []*fact
	for _, l := range leaves {
		if l.kind == leafTie {
			continue
		}
		k := key{kind: l.kind, where: l.where, text: l.text}
		if l.from != nil {
			k.from = l.from.name
		}
		f := byKey[k]
		if f == nil {
			f = &fact{leaf: *l, depth: -1}
			if l.from != nil {
				f.versions = newSet(l.from.size())
			}
			byKey[k] = f
			facts = append(facts, f)
		}
		if l.from != nil {
			f.versions.add(l.version)
		}
	}
	depth := map[string]int{"": 0}
	for range len(facts) + 1 {
		for _, f := range facts {
			if f.from == nil {
				continue
			}
			d, ok := depth[f.from.name]
			if !ok {
				continue
			}
			f.depth = d
			if f.to != nil {
				if old, ok := depth[f.to.name]; !ok || d+1 < old {
					depth[f.to.name] = d + 1
				}
			}
		}
	}
	for _, f := range facts {
		if f.kind == leafConstraint {
			f.depth = depth[f.to.name]
		}
	}
	slices.SortStableFunc(facts, func(a, b *fact) int {
		return cmp.Or(cmp.Compare(a.depth, b.depth), cmp.Compare(a.kind, b.kind), strings.Compare(a.subject(), b.subject()), strings.Compare(a.where, b.where), strings.Compare(a.text, b.text))
	})
	return facts
}

func (f *fact) subject() string {
	if f.from == nil {
		return ""
	}
	return f.from.String()
}

func (f *fact) line() string {
	who := f.where
	if f.from != nil && f.from.id != 0 {
		who = f.from.String() + " " + f.from.project.runs(f.versions)
		if f.from.project.runs(f.versions) == "every version" {
			who = "every version of " + f.from.String()
		}
	}
	switch f.kind {
	case leafConstraint:
		return fmt.Sprintf("%s allows only %s", f.where, f.text)
	case leafUnusable:
		return fmt.Sprintf("%s cannot be used: %s", who, f.text)
	case leafURL:
		return fmt.Sprintf("%s requires %s, which comes from an address and not from an index", who, f.text)
	}
	line := fmt.Sprintf("%s requires %s", who, f.text)
	if f.to != nil && len(f.to.project.versions) > 0 && f.to.project.matchingText(f.text).empty() {
		line += ", and no version that could be used satisfies it"
	}
	return line
}

// matchingText is matching for a requirement's text.
func (pr *project) matchingText(text string) set {
	r, err := packaging.ParseRequirement(text)
	if err != nil {
		return fullSet(len(pr.versions) + 1)
	}
	return pr.matching(r.Specifiers)
}

// scarce tells of the projects in question which versions do not count.
func (s *solver) scarce(leaves []*leaf) []string {
	named := make(map[string]*project)
	for _, l := range leaves {
		for _, p := range []*pkg{l.from, l.to} {
			if p != nil && p.id != 0 {
				named[p.name] = p.project
			}
		}
	}
	var lines []string
	for _, pr := range named {
		if line := pr.scarce(); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func (pr *project) scarce() string {
	if len(pr.versions) == 0 && len(pr.reasons) == 0 && pr.missing != "" {
		return pr.name + ": " + pr.missing
	}
	out := 0
	parts := make([]string, 0, len(pr.reasons))
	for why, n := range pr.reasons {
		out += n
		parts = append(parts, fmt.Sprintf("%d %s", n, why))
	}
	if n := len(pr.yanked); n > 0 {
		out += n
		parts = append(parts, fmt.Sprintf("%d yanked", n))
	}
	if n := len(pr.pre); n > 0 {
		out += n
		parts = append(parts, fmt.Sprintf("%d pre-releases", n))
	}
	if out == 0 {
		return ""
	}
	slices.Sort(parts)
	return fmt.Sprintf("%s: %d of its %d versions do not count: %s", pr.name, out, out+len(pr.versions), strings.Join(parts, ", "))
}

// requirementText is a requirement without its marker, which held.
func requirementText(r *packaging.Requirement) string {
	text := r.Name
	if len(r.Extras) > 0 {
		text += "[" + strings.Join(r.Extras, ",") + "]"
	}
	if r.URL != "" {
		return text + " @ " + r.URL
	}
	return text + r.Specifiers.String()
}

// solution lists what was decided.
func (s *solver) solution() *Solution {
	because := make(map[string]map[string]bool)
	mark := func(name, who string) {
		if because[name] == nil {
			because[name] = make(map[string]bool)
		}
		because[name][who] = true
	}
	for k := range s.p.Wants {
		if w := &s.p.Wants[k]; w.Marker.Eval(&s.env) != packaging.False {
			mark(w.Name, w.Where)
		}
	}
	extras := make(map[string][]string)
	for _, p := range s.pkgs[1:] {
		if p.decided < 0 {
			continue
		}
		if p.extra != "" {
			extras[p.name] = append(extras[p.name], p.extra)
		}
		for _, to := range s.edges[edge{p, p.decided}] {
			if to.name != p.name {
				mark(to.name, p.name+" "+p.project.versions[p.decided].Version.String())
			}
		}
	}
	out := &Solution{Steps: s.spent.steps}
	for _, p := range s.pkgs[1:] {
		if p.decided < 0 || p.extra != "" {
			continue
		}
		who := make([]string, 0, len(because[p.name]))
		for w := range because[p.name] {
			who = append(who, w)
		}
		slices.Sort(who)
		slices.Sort(extras[p.name])
		out.Packages = append(out.Packages, Package{Name: p.name, Version: p.project.versions[p.decided].Version, Extras: extras[p.name], Because: who})
	}
	slices.SortFunc(out.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	for n := range s.notes {
		out.Notes = append(out.Notes, n)
	}
	slices.Sort(out.Notes)
	return out
}
