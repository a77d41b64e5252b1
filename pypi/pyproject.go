package pypi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// maxParts bounds the extras and the groups of one project; the most known
// has about 100.
const maxParts = 1000

// pyproject is what is read of a pyproject.toml (PEP 621 and 735).
type pyproject struct {
	Project *struct {
		Name                 string              `toml:"name"`
		RequiresPython       string              `toml:"requires-python"`
		Dependencies         []string            `toml:"dependencies"`
		OptionalDependencies map[string][]string `toml:"optional-dependencies"`
		Dynamic              []string            `toml:"dynamic"`
	} `toml:"project"`
	// A group's entries are strings or {include-group = "name"}.
	DependencyGroups map[string][]any `toml:"dependency-groups"`
	BuildSystem      struct {
		Requires []string `toml:"requires"`
	} `toml:"build-system"`
	Tool struct {
		UV struct {
			Sources map[string]any `toml:"sources"`
		} `toml:"uv"`
	} `toml:"tool"`
}

// projectReader makes wants of a pyproject.toml.
type projectReader struct {
	reqs    *Requirements
	name    string // of the project, in normal form; empty if there is none
	entries int    // so far
	// what each extra and group holds, by normal name
	base   []Want
	extras map[string][]Want
	groups map[string][]groupEntry
}

// groupEntry is a requirement or the name of another group.
type groupEntry struct {
	want  Want
	group string
}

// parsePyproject reads the dependencies, the extras and the dependency groups
// of a project. What names the project itself, "project[extra]", stands for
// what that extra holds.
func parsePyproject(b []byte, name string) (*Requirements, error) {
	var doc pyproject
	if err := unmarshalTOML(b, name, "pyproject.toml", &doc); err != nil {
		return nil, err
	}
	p := &projectReader{reqs: &Requirements{where: name}, extras: make(map[string][]Want), groups: make(map[string][]groupEntry)}
	if err := p.project(&doc); err != nil {
		return nil, err
	}
	if err := p.dependencyGroups(doc.DependencyGroups); err != nil {
		return nil, err
	}
	if err := p.expand(); err != nil {
		return nil, err
	}
	r := p.reqs
	if n := len(doc.BuildSystem.Requires); n > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: the %d requirements of [build-system] are not carried; want them too if the project is built inside", name, n))
	}
	sources := make(map[string]bool)
	for key := range doc.Tool.UV.Sources {
		if n, err := packaging.NormalizeName(key); err == nil {
			sources[n] = true
		}
	}
	for _, w := range r.Wants {
		if sources[w.Requirement.Name] {
			r.Notes = append(r.Notes, fmt.Sprintf("%s: the source of %s in [tool.uv.sources] is not read; it comes from the configured index", name, w.Requirement.Name))
		}
	}
	slices.Sort(r.Notes)
	r.Notes = slices.Compact(r.Notes)
	if len(r.Wants) == 0 {
		r.Notes = append(r.Notes, name+": requires nothing")
	}
	return r, nil
}

// project reads the [project] table.
func (p *projectReader) project(doc *pyproject) error {
	r, where := p.reqs, p.reqs.where
	if doc.Project == nil {
		if doc.DependencyGroups == nil {
			return lockRefusal("-SYNTAX", where, "neither [project] nor [dependency-groups] is there", nil)
		}
		return nil
	}
	var err error
	if p.name, err = packaging.NormalizeName(doc.Project.Name); err != nil {
		return lockRefusal("-SYNTAX", where, "project.name", err)
	}
	if r.RequiresPython, err = packaging.ParseSpecifiers(doc.Project.RequiresPython); err != nil {
		return lockRefusal("-SYNTAX", where, "project.requires-python", err)
	}
	for _, d := range doc.Project.Dynamic {
		if d == "dependencies" || d == "optional-dependencies" {
			return lockRefusal("-DYNAMIC", where, fmt.Sprintf("project.%s is dynamic: only the project's own code could tell it, and that is never run; compile it into a lock", d), nil)
		}
	}
	if len(doc.Project.OptionalDependencies) > maxParts {
		return lockRefusal("-LIMIT", where, fmt.Sprintf("over %d extras", maxParts), nil)
	}
	if p.base, err = p.list(doc.Project.Dependencies, "project.dependencies"); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(doc.Project.OptionalDependencies)) {
		at := "project.optional-dependencies." + clip(key)
		name, err := packaging.NormalizeName(key)
		if err != nil {
			return lockRefusal("-SYNTAX", where, at, err)
		}
		if _, twice := p.extras[name]; twice {
			return lockRefusal("-SYNTAX", where, fmt.Sprintf("%s: %q is there twice", at, name), nil)
		}
		if p.extras[name], err = p.list(doc.Project.OptionalDependencies[key], at); err != nil {
			return err
		}
	}
	return nil
}

func (p *projectReader) list(texts []string, at string) ([]Want, error) {
	out := make([]Want, 0, len(texts))
	for i, text := range texts {
		w, err := p.want(text, fmt.Sprintf("%s[%d]", at, i))
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

// want reads one requirement. It has no options and no comments: PEP 508
// alone.
func (p *projectReader) want(text, at string) (Want, error) {
	where := p.reqs.where + ": " + at
	if p.entries++; p.entries > maxPins {
		return Want{}, lockRefusal("-LIMIT", where, fmt.Sprintf("over %d requirements", maxPins), nil)
	}
	req, err := packaging.ParseRequirement(text)
	if err != nil {
		if strings.Contains(text, "://") { // the cause might quote an account
			err = nil
		}
		return Want{}, lockRefusal("-SYNTAX", where, "not a requirement", err)
	}
	if req.URL != "" && req.Name != p.name {
		return Want{}, lockRefusal("-URL", where, req.Name+" comes from a URL; only packages of the configured index can be carried", nil)
	}
	return Want{Requirement: req, Where: where}, nil
}

func (p *projectReader) dependencyGroups(groups map[string][]any) error {
	if len(groups) > maxParts {
		return lockRefusal("-LIMIT", p.reqs.where, fmt.Sprintf("over %d dependency groups", maxParts), nil)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		at := "dependency-groups." + clip(key)
		refuse := func(why string, err error) error {
			return lockRefusal("-SYNTAX", p.reqs.where+": "+at, why, err)
		}
		name, err := packaging.NormalizeName(key)
		if err != nil {
			return refuse("name", err)
		}
		if _, twice := p.groups[name]; twice {
			return refuse(fmt.Sprintf("%q is there twice", name), nil)
		}
		p.groups[name] = []groupEntry{}
		for i, entry := range groups[key] {
			var e groupEntry
			switch v := entry.(type) {
			case string:
				if e.want, err = p.want(v, fmt.Sprintf("%s[%d]", at, i)); err != nil {
					return err
				}
			case map[string]any:
				included, ok := v["include-group"].(string)
				if !ok || len(v) != 1 {
					return refuse(fmt.Sprintf("entry %d: want a requirement or {include-group = \"name\"}", i), nil)
				}
				if e.group, err = packaging.NormalizeName(included); err != nil {
					return refuse("include-group", err)
				}
			default:
				return refuse(fmt.Sprintf("entry %d: want a requirement or {include-group = \"name\"}", i), nil)
			}
			p.groups[name] = append(p.groups[name], e)
		}
	}
	return nil
}

// expand writes out what each extra and each group stands for.
func (p *projectReader) expand() error {
	r := p.reqs
	if err := p.take(p.base, Want{}, make(map[string]bool)); err != nil {
		return err
	}
	r.extras = slices.Sorted(maps.Keys(p.extras))
	for _, name := range r.extras {
		if err := p.take(p.extras[name], Want{Extra: name}, map[string]bool{name: true}); err != nil {
			return err
		}
	}
	r.groups = slices.Sorted(maps.Keys(p.groups))
	for _, name := range r.groups {
		w := &groupWalk{p: p, of: Want{Group: name}, seen: make(map[string]bool), extras: make(map[string]bool)}
		if err := w.take(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// take adds wants for what of says: an extra, a group or neither. seen are
// the extras of the project that are in already. The marker of what names the
// project itself is left out: too much is carried rather than too little.
func (p *projectReader) take(wants []Want, of Want, seen map[string]bool) error {
	for _, w := range wants {
		if p.name == "" || w.Requirement.Name != p.name {
			w.Extra, w.Group = of.Extra, of.Group
			if err := p.reqs.add(w, false); err != nil {
				return err
			}
			continue
		}
		for _, extra := range w.Requirement.Extras {
			more, ok := p.extras[extra]
			if !ok {
				return lockRefusal("-SYNTAX", w.Where, fmt.Sprintf("the project has no extra %q", clip(extra)), nil)
			}
			if seen[extra] {
				continue
			}
			seen[extra] = true
			if err := p.take(more, of, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// groupWalk writes out one group with what it includes.
type groupWalk struct {
	p            *projectReader
	of           Want
	seen, extras map[string]bool
}

func (w *groupWalk) take(name string, stack []string) error {
	where := w.p.reqs.where + ": dependency-groups." + w.of.Group
	entries, ok := w.p.groups[name]
	switch {
	case !ok:
		return lockRefusal("-SYNTAX", where, fmt.Sprintf("includes the group %q, which is not there", clip(name)), nil)
	case slices.Contains(stack, name):
		return lockRefusal("-INCLUDE", where, fmt.Sprintf("the group %q includes itself", clip(name)), nil)
	case len(stack) > maxIncludeDepth:
		return lockRefusal("-INCLUDE", where, fmt.Sprintf("groups nested deeper than %d", maxIncludeDepth), nil)
	case w.seen[name]:
		return nil // what it holds is in already
	}
	w.seen[name] = true
	stack = append(slices.Clone(stack), name)
	for _, e := range entries {
		var err error
		if e.group != "" {
			err = w.take(e.group, stack)
		} else {
			err = w.p.take([]Want{e.want}, w.of, w.extras)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
