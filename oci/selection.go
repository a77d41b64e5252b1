package oci

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/darkmirror/darkmirror/oci/helm"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// choose picks tags of all that a repository lists, sorted by name. Tags that
// attach signatures to digests are never chosen: they come with their image.
func (s *Select) choose(all []string) ([]string, error) {
	var re *regexp.Regexp
	if s.Regex != "" {
		var err error
		if re, err = regexp.Compile(`^(?:` + s.Regex + `)$`); err != nil {
			return nil, err
		}
	}
	var within *semver.Constraints
	if s.Semver != "" {
		var err error
		if within, err = constraint(s.Semver, s.Prerelease); err != nil {
			return nil, err
		}
	}
	var chosen []string
	for _, tag := range all {
		ok := !attachedTag.MatchString(tag) &&
			(len(s.Tags) == 0 || slices.ContainsFunc(s.Tags, func(t string) bool { return helm.Tag(t) == tag })) &&
			(len(s.Glob) == 0 || matchesAny(s.Glob, tag)) &&
			(re == nil || re.MatchString(tag)) &&
			!matchesAny(s.Exclude, tag)
		if ok && within != nil {
			v, err := version(tag)
			ok = err == nil && within.Check(v)
		}
		if ok {
			chosen = append(chosen, tag)
		}
	}
	if s.Newest > 0 {
		chosen = newest(chosen, s.Newest)
	}
	slices.Sort(chosen)
	return slices.Compact(chosen), nil
}

// attachedTag is what referrers are kept under: sha256-<hex>, with a suffix
// where cosign made it.
var attachedTag = regexp.MustCompile(`^sha(256|512)-[0-9a-f]{64,128}(\.[a-z]+)?$`)

// newest keeps the n highest versions; tags that are no versions are none.
func newest(tags []string, n int) []string {
	type versioned struct {
		tag string
		v   *semver.Version
	}
	var list []versioned
	for _, t := range tags {
		if v, err := version(t); err == nil {
			list = append(list, versioned{t, v})
		}
	}
	slices.SortFunc(list, func(a, b versioned) int {
		if c := b.v.Compare(a.v); c != 0 {
			return c
		}
		return strings.Compare(a.tag, b.tag)
	})
	var out []string
	for _, t := range list[:min(n, len(list))] {
		out = append(out, t.tag)
	}
	return out
}

// version reads a tag as a version: "v1.27" is 1.27.0, and "_" stands for the
// "+" that a tag cannot have.
func version(tag string) (*semver.Version, error) {
	return semver.NewVersion(strings.Replace(tag, "_", "+", 1))
}

// constraint reads a range of versions.
func constraint(s string, prerelease bool) (*semver.Constraints, error) {
	c, err := semver.NewConstraint(s)
	if err != nil {
		return nil, fmt.Errorf("%q: not a range of versions, as \">=1.25 <1.28\": %w", s, err)
	}
	c.IncludePrerelease = prerelease
	return c, nil
}

func matchesAny(globs []string, tag string) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		ok, err := path.Match(g, tag)
		return ok && err == nil
	})
}

func checkGlob(g string) error {
	if g == "" {
		return fmt.Errorf("empty")
	}
	if _, err := path.Match(g, "x"); err != nil {
		return fmt.Errorf("%q: not a pattern: %w", g, err)
	}
	return nil
}

// matches reports whether a platform of an index is one of the wanted: a
// variant is compared only where it is asked for.
func matches(wanted []spec.Platform, p spec.Platform) bool {
	return slices.ContainsFunc(wanted, func(w spec.Platform) bool {
		return w.OS == p.OS && w.Architecture == p.Architecture && (w.Variant == "" || w.Variant == p.Variant)
	})
}
