package pypi

import (
	"context"
	"fmt"
	"slices"

	"github.com/pelletier/go-toml/v2"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// defaultBuild is what installers build a source archive with that does not
// say (PEP 517 and 518).
const defaultBuild = "setuptools>=40.8.0"

// A built is a source archive that a target gets, and has to build.
type built struct {
	file   indexFile
	name   string // of the project
	url    string
	target *packaging.Target
}

// builds resolves what the source archives need to be built, and what that
// needs in turn, and adds the pins to wants. seen are those that were looked
// at. It reports whether there is anything new.
//
// A build may ask for more when it runs (get_requires_for_build_wheel); what
// it would ask for cannot be known without running it, and nothing is run.
func (s *Source) builds(ctx context.Context, o *offers, list []built, seen map[string]bool, wants map[string][]want) (notes []string, more bool, err error) {
	for i := range list {
		b := &list[i]
		key := b.file.Filename + " " + b.target.Text
		if seen[key] {
			continue
		}
		seen[key] = true
		requires, err := s.buildRequires(ctx, b)
		if err != nil {
			return nil, false, err
		}
		g := &group{where: "the build of " + b.name + " " + b.file.Version}
		for _, text := range requires {
			w, err := ParseWant(text, g.where)
			if err != nil {
				return nil, false, err
			}
			g.add([]Want{w})
		}
		pins, _, err := s.closure(ctx, o, g, b.target)
		if err != nil {
			return nil, false, err
		}
		for _, p := range pins {
			wants[p.Name] = append(wants[p.Name], want{p, b.target})
		}
		more = more || len(pins) > 0
		notes = append(notes, fmt.Sprintf("%s: %d packages for %s; a build may ask for more when it runs", g.where, len(pins), b.target.Text))
	}
	return notes, more, nil
}

// buildRequires reads [build-system] of a source archive.
func (s *Source) buildRequires(ctx context.Context, b *built) ([]string, error) {
	if !s.store.Has(b.file.SHA256) {
		f := artifact.File{Path: b.file.Filename, Digest: b.file.SHA256, Size: b.file.Size, URL: b.url}
		if err := s.download(ctx, s.indexOf(b.name), f); err != nil {
			return nil, err
		}
	}
	c, err := checkBlob(s.store, b.file.Filename, b.file.SHA256, b.file.Size)
	if err != nil {
		return nil, err
	}
	var doc struct {
		BuildSystem *struct {
			Requires []string `toml:"requires"`
		} `toml:"build-system"`
	}
	if err := toml.Unmarshal(c.build, &doc); err != nil {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-SDIST", Subject: s.name + ": " + b.file.Filename, Reason: "its pyproject.toml cannot be read", Err: err}
	}
	if doc.BuildSystem == nil {
		return []string{defaultBuild}, nil
	}
	return slices.Compact(slices.Sorted(slices.Values(doc.BuildSystem.Requires))), nil
}
