package pypi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// A uvGraph is who depends on whom in a uv.lock. What a target installs is
// what can be reached from the project, or from each member of the workspace.
type uvGraph struct {
	where   string
	nodes   []uvNode
	byName  map[string][]int
	markers map[string]packaging.Marker // by text
	roots   []uvEdge
	own     []int // the project, or the members of the workspace
	// extras and groups of the own packages, sorted.
	extras, groups []string
	// asked are the extras that a dependency names: "project extra". They
	// count whatever is chosen.
	asked  map[string]bool
	edges  int
	worlds []uvWorld
	choice Choice
}

// A uvNode is a package of the lock.
type uvNode struct {
	name        string
	where       string
	version     packaging.Version
	source      uvSource
	kind, place string
	forks       []string // resolution-markers
	pin         *Pin     // nil for what does not come from an index
	unhashed    []string
	deps        []uvEdge
	optional    map[string][]uvEdge
	dev         map[string][]uvEdge
}

// A uvEdge leads to the packages that a dependency may mean: the forks of one
// project.
type uvEdge struct {
	to     []int
	extras []string
	marker string
	group  string // that has to be chosen, for an edge from the root
}

// marker parses a marker once. Extras that exclude one another are left open.
func (g *uvGraph) marker(text string) (packaging.Marker, error) {
	if m, ok := g.markers[text]; ok {
		return m, nil
	}
	m, err := decideMarker(text, func(string, string) packaging.Truth { return packaging.Maybe })
	if err == nil {
		g.markers[text] = m
	}
	return m, err
}

// link resolves the names of dependencies and finds the roots.
func (g *uvGraph) link(doc *uvLock) error {
	g.asked = make(map[string]bool)
	for i := range doc.Packages {
		p, n := &doc.Packages[i], &g.nodes[i]
		var err error
		if n.deps, err = g.linkAll(p.Dependencies, n); err != nil {
			return err
		}
		if n.optional, err = g.linkMap(p.Optional, n); err != nil {
			return err
		}
		groups := maps.Clone(p.Dev)
		if groups == nil {
			groups = make(map[string][]uvDependency)
		}
		maps.Copy(groups, p.Groups)
		if n.dev, err = g.linkMap(groups, n); err != nil {
			return err
		}
	}
	if err := g.findOwn(doc); err != nil {
		return err
	}
	for _, i := range g.own {
		g.extras = slices.AppendSeq(g.extras, maps.Keys(g.nodes[i].optional))
		for _, e := range doc.Packages[i].Metadata.Extras {
			if name, err := packaging.NormalizeName(e); err == nil {
				g.extras = append(g.extras, name)
			}
		}
		g.groups = slices.AppendSeq(g.groups, maps.Keys(g.nodes[i].dev))
	}
	g.extras, g.groups = sortedUnique(g.extras), sortedUnique(g.groups)
	return nil
}

func sortedUnique(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func (g *uvGraph) linkMap(m map[string][]uvDependency, n *uvNode) (map[string][]uvEdge, error) {
	out := make(map[string][]uvEdge, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		name, err := packaging.NormalizeName(key)
		if err != nil {
			return nil, lockRefusal("-SYNTAX", n.where, n.name+": extra or group", err)
		}
		edges, err := g.linkAll(m[key], n)
		if err != nil {
			return nil, err
		}
		out[name] = append(out[name], edges...)
	}
	return out, nil
}

func (g *uvGraph) linkAll(deps []uvDependency, n *uvNode) ([]uvEdge, error) {
	edges := make([]uvEdge, 0, len(deps))
	for i := range deps {
		d := &deps[i]
		refuse := func(why string, err error) ([]uvEdge, error) {
			return nil, lockRefusal("-SYNTAX", n.where, fmt.Sprintf("%s: dependency %q: %s", n.name, clip(d.Name), why), err)
		}
		if _, err := g.marker(d.Marker); err != nil {
			return refuse("marker", err)
		}
		var version packaging.Version
		if d.Version != "" {
			var err error
			if version, err = packaging.ParseVersion(d.Version); err != nil {
				return refuse("version", err)
			}
		}
		e := uvEdge{marker: d.Marker, extras: d.Extra}
		for _, at := range g.byName[d.Name] {
			to := &g.nodes[at]
			if (version.IsZero() || !to.version.IsZero() && to.version.Compare(version) == 0) && (d.Source == nil || *d.Source == to.source) {
				e.to = append(e.to, at)
			}
		}
		if len(e.to) == 0 {
			return refuse("not in the lock", nil)
		}
		for _, x := range d.Extra {
			if _, err := packaging.NormalizeName(x); err != nil {
				return refuse("extra", err)
			}
			g.asked[d.Name+" "+x] = true
		}
		if err := g.count(&e, n.where); err != nil {
			return nil, err
		}
		edges = append(edges, e)
	}
	return edges, nil
}

// count keeps the work of a walk bounded.
func (g *uvGraph) count(e *uvEdge, where string) error {
	if g.edges += len(e.to) * (1 + len(e.extras)); g.edges > maxUVEdges {
		return lockRefusal("-LIMIT", where, fmt.Sprintf("over %d dependencies", maxUVEdges), nil)
	}
	return nil
}

// findOwn finds the project at the root, or the members of the workspace, and
// what a script or a workspace without a project wants.
func (g *uvGraph) findOwn(doc *uvLock) error {
	for _, m := range doc.Manifest.Members {
		at := slices.IndexFunc(g.byName[m], func(i int) bool { return g.nodes[i].source.own() })
		if at < 0 {
			return lockRefusal("-SYNTAX", g.where, fmt.Sprintf("member %q of the workspace is not in the lock", clip(m)), nil)
		}
		g.own = append(g.own, g.byName[m][at])
	}
	if len(doc.Manifest.Members) == 0 {
		for i := range g.nodes {
			if g.nodes[i].source.own() && g.nodes[i].place == "." {
				g.own = append(g.own, i)
			}
		}
	}
	for _, r := range doc.Manifest.Requirements {
		if err := g.want(&r, ""); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Manifest.DependencyGroups)) {
		for _, r := range doc.Manifest.DependencyGroups[name] {
			if err := g.want(&r, name); err != nil {
				return err
			}
		}
		g.groups = append(g.groups, name)
	}
	if len(g.own)+len(g.roots) == 0 && len(g.nodes) > 0 {
		return lockRefusal("-SYNTAX", g.where, "no package is the project itself, and no member of a workspace or requirement is named: what is wanted cannot be told", nil)
	}
	slices.Sort(g.own)
	g.own = slices.Compact(g.own)
	return nil
}

// want adds a requirement of the manifest as a root.
func (g *uvGraph) want(r *uvRequirement, group string) error {
	refuse := func(why string, err error) error {
		return lockRefusal("-SYNTAX", g.where, fmt.Sprintf("manifest: requirement %q: %s", clip(r.Name), why), err)
	}
	set, err := packaging.ParseSpecifiers(r.Specifier)
	if err != nil {
		return refuse("specifier", err)
	}
	if _, err := g.marker(r.Marker); err != nil {
		return refuse("marker", err)
	}
	e := uvEdge{marker: r.Marker, extras: r.Extras, group: group}
	for _, at := range g.byName[r.Name] {
		if n := &g.nodes[at]; n.version.IsZero() || set.Contains(n.version) {
			e.to = append(e.to, at)
		}
	}
	g.roots = append(g.roots, e)
	return g.count(&e, g.where)
}

// notes tells what is left out, and what another index has to serve.
func (g *uvGraph) notes() []string {
	var notes, own []string
	for _, i := range g.own {
		own = append(own, g.nodes[i].name)
	}
	if len(own) > 0 {
		notes = append(notes, fmt.Sprintf("%s: not carried, being the project itself: %s", g.where, tell(own)))
	}
	registries := make(map[string][]string)
	for i := range g.nodes {
		if n := &g.nodes[i]; n.pin != nil {
			registries[n.place] = append(registries[n.place], n.name)
		}
	}
	if len(registries) < 2 {
		return notes
	}
	most := slices.MaxFunc(slices.Sorted(maps.Keys(registries)), func(a, b string) int {
		return cmp.Compare(len(registries[a]), len(registries[b]))
	})
	delete(registries, most)
	var others []string
	for _, names := range registries {
		others = append(others, names...)
	}
	return append(notes, fmt.Sprintf("%s: locked from another index than the most: %s; they need an index that is pinned to them", g.where, tell(sortedUnique(others))))
}

// tell lists names, but not too many.
func tell(names []string) string {
	if more := len(names) - mostTold; more > 0 {
		return strings.Join(names[:mostTold], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}
