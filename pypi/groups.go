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
	pre         bool // pre-releases of every project count
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
		g := &group{where: filepath.Base(rc.File), targets: rc.Targets, formats: r.Formats, pre: r.Prereleases, python: r.RequiresPython}
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
			t, err := packaging.ParseTarget(name)
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
	slices.Sort(notes)
	return slices.Compact(notes), nil
}
