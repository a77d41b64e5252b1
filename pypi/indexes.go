package pypi

import (
	"errors"
	"net/url"
	"path"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// quarantined is the status of a project that nobody should install (PEP
// 792).
const quarantined = "quarantined"

// An index is one upstream of a source, with the client that may reach it.
type index struct {
	url     *url.URL
	client  *fetch.Client
	missing []int // answers that mean that it does not have a project
}

// lacks reports whether an error of the client says that the index does not
// have a project.
func (ix *index) lacks(err error) bool {
	e, ok := errors.AsType[*fetch.Error](err)
	return ok && (fetch.IsNotFound(err) || slices.Contains(ix.missing, e.Status))
}

// codeNotFound is of a project that an index does not have.
const codeNotFound = "PYPI-NOT-FOUND"

// notFound reports whether a page was refused for that.
func notFound(err error) bool {
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && r.Code == codeNotFound
}

// rules are what an index asks of its files.
type rules struct {
	age       time.Duration
	assumeOld bool
	firstUse  bool // a file without a hash counts, and gets one
}

// indexOf is the one index that a project is looked up in: the one that it
// is pinned to, else the main one. No project is looked up in two, so that
// nobody can put a file of the same name into another index.
func (s *Source) indexOf(project string) *index { return s.indexes[1+s.cfg.pinnedTo(project)] }

// pinnedTo is the place in Pinned of the index that a project is pinned to,
// -1 for the main one.
func (c *Config) pinnedTo(project string) int {
	return slices.IndexFunc(c.Pinned, func(p PinnedIndex) bool { return matches(p.Projects, project) })
}

// matches reports whether one of the patterns, "torch" or "acme-*", names the
// project.
func matches(patterns []string, project string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, project)
		return err == nil && ok
	})
}

// internal reports whether the name is reserved.
func (s *Source) internal(project string) bool { return matches(s.cfg.Internal, project) }

// sdistAllowed reports whether a project may come as a source archive.
func (s *Source) sdistAllowed(project string) bool {
	return s.cfg.AllowSdist || matches(s.cfg.AllowSdistOf, project)
}

// rulesFor are the rules of a project's index.
func (s *Source) rulesFor(project string) rules {
	r := rules{age: defaultMinAge, assumeOld: s.cfg.AssumeOld, firstUse: s.cfg.MissingHash == hashRecord}
	if s.cfg.MinAge != nil {
		r.age = *s.cfg.MinAge
	}
	if i := s.cfg.pinnedTo(project); i >= 0 {
		p := &s.cfg.Pinned[i]
		r.assumeOld, r.firstUse = p.AssumeOld, p.MissingHash == hashRecord
		if p.MinAge != nil {
			r.age = *p.MinAge
		}
	}
	if matches(s.cfg.AnyAge, project) {
		r.age = 0
	}
	return r
}

// prereleases are the projects whose pre-releases count for a group.
func (s *Source) prereleases(g *group) map[string]bool {
	out := make(map[string]bool)
	for _, p := range slices.Concat(s.cfg.Prereleases, g.preOf) {
		out[p] = true
	}
	return out
}
