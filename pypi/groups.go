package pypi

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/resolve"
)

// A group is a set of requirements that are installed together.
type group struct {
	where       string // "requirements.in", for messages
	wants       []resolve.Want
	constraints []resolve.Want
	hashes      map[string]map[artifact.Digest]bool // by project, where a want names some
	formats     Formats
	pre         bool     // pre-releases of every project count
	preOf       []string // of these
	python      packaging.Specifiers
	targets     []string
}

// add takes the wants of a file over.
func (g *group) add(wants []Want) {
	for i := range wants {
		w := &wants[i]
		g.wants = append(g.wants, resolve.Want{Requirement: w.Requirement, Where: w.Where})
		for _, d := range w.Hashes {
			if g.hashes == nil {
				g.hashes = make(map[string]map[artifact.Digest]bool)
			}
			if g.hashes[w.Requirement.Name] == nil {
				g.hashes[w.Requirement.Name] = make(map[artifact.Digest]bool)
			}
			g.hashes[w.Requirement.Name][d] = true
		}
	}
}

func (g *group) constrain(wants []Want) {
	for i := range wants {
		g.constraints = append(g.constraints, resolve.Want{Requirement: wants[i].Requirement, Where: wants[i].Where})
	}
}

// groups lists what is to be resolved: the packages of the configuration
// together, each requirements file by itself.
func (s *Source) groups() (groups []*group, notes []string, err error) {
	var constraints []Want
	for _, file := range s.cfg.Constraints {
		r, err := ReadRequirements(file)
		if err != nil {
			return nil, nil, err
		}
		constraints = append(append(constraints, r.Wants...), r.Constraints...)
	}
	if len(s.cfg.Packages) > 0 {
		g := &group{where: "packages", targets: s.cfg.Targets}
		for i, p := range s.cfg.Packages {
			w, err := ParseWant(p, fmt.Sprintf("packages[%d]", i))
			if err != nil {
				return nil, nil, err
			}
			g.add([]Want{w})
		}
		groups = append(groups, g)
	}
	for i := range s.cfg.Requirements {
		rc := &s.cfg.Requirements[i]
		r, err := ReadRequirements(rc.File)
		if err != nil {
			return nil, nil, err
		}
		if err := r.Choose(Choice{Extras: rc.Extras, Groups: rc.Groups}); err != nil {
			return nil, nil, err
		}
		g := &group{where: filepath.Base(rc.File), targets: rc.Targets, formats: r.Formats, pre: r.Prereleases, preOf: r.PrereleasesOf, python: r.RequiresPython}
		if len(g.targets) == 0 {
			g.targets = s.cfg.Targets
		}
		g.add(r.Wants)
		g.constrain(r.Constraints)
		notes = append(notes, r.Notes...)
		groups = append(groups, g)
	}
	for _, g := range groups {
		g.constrain(constraints)
	}
	return groups, notes, nil
}

// closures resolves every group for each of its targets and adds the pins to
// wants.
func (s *Source) closures(ctx context.Context, o *offers, wants map[string][]want) ([]string, error) {
	groups, notes, err := s.groups()
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		for _, name := range g.targets {
			t, err := s.cfg.target(name)
			if err != nil {
				return nil, err
			}
			if !g.python.Contains(t.Python) {
				return nil, lockRefusal("-PYTHON", g.where, fmt.Sprintf("target %s: its requires-python leaves Python %s out", t.Text, t.Python), nil)
			}
			pins, more, err := s.closure(ctx, o, g, t)
			if err != nil {
				return nil, err
			}
			notes = append(notes, more...)
			for _, p := range pins {
				wants[p.Name] = append(wants[p.Name], want{p, t})
			}
		}
	}
	more, err := s.catalogue(ctx, o, wants)
	if err != nil {
		return nil, err
	}
	notes = append(notes, more...)
	slices.Sort(notes)
	return slices.Compact(notes), nil
}

// catalogue adds the versions that are wanted by themselves, of each those
// that the targets can use.
func (s *Source) catalogue(ctx context.Context, o *offers, wants map[string][]want) ([]string, error) {
	var notes []string
	for i, text := range s.cfg.Catalogue {
		c, err := ParseCatalogue(text)
		if err != nil {
			return nil, err
		}
		where := fmt.Sprintf("catalogue[%d]", i)
		taken := 0
		for _, name := range s.cfg.Targets {
			t, err := s.cfg.target(name)
			if err != nil {
				return nil, err
			}
			v := newView(o, t, &group{where: where})
			l, err := v.List(ctx, c.Project)
			if err != nil {
				return nil, err
			}
			var usable []packaging.Version
			for k := range l.Candidates {
				if l.Candidates[k].Unusable == "" && !l.Candidates[k].Yanked {
					usable = append(usable, l.Candidates[k].Version)
				}
			}
			chosen := c.Choose(usable)
			for _, version := range chosen {
				f, err := o.named(ctx, c.Project, v.file(c.Project, version))
				if err != nil {
					return nil, err
				}
				wants[c.Project] = append(wants[c.Project], want{&Pin{Name: c.Project, Version: version, Where: where, chosen: f}, t})
			}
			taken += len(chosen)
			notes = append(notes, fmt.Sprintf("%s: %d versions of %s for %s", where, len(chosen), c.Project, t.Text))
		}
		if taken == 0 {
			return nil, lockRefusal("-CATALOGUE", s.name+": "+where, text+": no version that any target can use", nil)
		}
	}
	return notes, nil
}
