package pypi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// maxWorlds bounds the ways to choose among what excludes one another. A
// project has one set of two or three accelerators, seldom a second; beyond
// the bound all is left open, which carries more and never less.
const maxWorlds = 64

// A uvWorld says of each item that excludes others whether it is chosen.
type uvWorld map[string]bool

// worldsOf lists the ways to choose at most one item of each set.
func worldsOf(conflicts [][]uvItem) []uvWorld {
	worlds := []uvWorld{{}}
	for _, set := range conflicts {
		var next []uvWorld
		for _, w := range worlds {
			for chosen := -1; chosen < len(set); chosen++ {
				if v := w.with(set, chosen); v != nil {
					next = append(next, v)
				}
				if len(next) > maxWorlds {
					return []uvWorld{{}}
				}
			}
		}
		worlds = next
	}
	return worlds
}

// with adds the items of a set of which at most one is chosen; nil if that
// contradicts what another set says.
func (w uvWorld) with(set []uvItem, chosen int) uvWorld {
	v := maps.Clone(w)
	for i, c := range set {
		is, known := v[c.name()]
		if known && is != (i == chosen) {
			return nil
		}
		v[c.name()] = i == chosen
	}
	return v
}

// A uvPlace is a package, or one of its extras.
type uvPlace struct {
	node  int
	extra string
}

// A uvWalk is one way through the graph, for one target.
type uvWalk struct {
	g       *uvGraph
	target  *packaging.Target
	world   uvWorld
	markers map[string]packaging.Truth
	forks   map[int]packaging.Truth
	truth   map[uvPlace]packaging.Truth
	todo    []uvPlace
}

// reach lists the pins that the target may install, in the order of the
// lock: those of every world together.
func (g *uvGraph) reach(t *packaging.Target) ([]*Pin, error) {
	reached := make([]bool, len(g.nodes))
	for _, world := range g.worlds {
		if !g.possible(world) {
			continue
		}
		w := &uvWalk{
			g: g, target: t, world: world, markers: make(map[string]packaging.Truth),
			forks: make(map[int]packaging.Truth), truth: make(map[uvPlace]packaging.Truth),
		}
		if err := w.walk(); err != nil {
			return nil, err
		}
		if err := w.collect(reached); err != nil {
			return nil, err
		}
	}
	var pins []*Pin
	for i, ok := range reached {
		if ok {
			pins = append(pins, g.nodes[i].pin)
		}
	}
	return pins, nil
}

// possible reports whether somebody may choose what the world has chosen.
func (g *uvGraph) possible(world uvWorld) bool {
	for name, chosen := range world {
		if chosen && g.nobody(name) {
			return false
		}
	}
	return true
}

// walk follows every dependency that holds.
func (w *uvWalk) walk() error {
	if err := w.start(); err != nil {
		return err
	}
	for len(w.todo) > 0 {
		p := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		n := &w.g.nodes[p.node]
		edges := n.deps
		if p.extra != "" {
			edges = n.optional[p.extra]
		}
		if err := w.follow(edges, w.truth[p]); err != nil {
			return err
		}
	}
	return nil
}

// start enters at the own packages and at what the manifest wants. Of several
// members any may be installed alone.
func (w *uvWalk) start() error {
	g := w.g
	sure := packaging.True
	if len(g.own) > 1 {
		sure = packaging.Maybe
	}
	for _, i := range g.own {
		name := g.nodes[i].name
		if w.excludes(uvItem{Package: name}) {
			continue
		}
		w.enter(uvPlace{i, ""}, sure)
		for extra := range g.nodes[i].optional {
			if g.choice.extra(extra) && !w.excludes(uvItem{Package: name, Extra: extra}) {
				w.enter(uvPlace{i, extra}, packaging.Maybe)
			}
		}
		for group, edges := range g.nodes[i].dev {
			if g.choice.group(group) && !w.excludes(uvItem{Package: name, Group: group}) {
				if err := w.follow(edges, packaging.Maybe); err != nil {
					return err
				}
			}
		}
	}
	for _, e := range g.roots {
		truth := packaging.True
		if e.group != "" {
			if !g.choice.group(e.group) {
				continue
			}
			truth = packaging.Maybe
		}
		if err := w.follow([]uvEdge{e}, truth); err != nil {
			return err
		}
	}
	return nil
}

// enter notes a place, again only if it has become more certain.
func (w *uvWalk) enter(p uvPlace, truth packaging.Truth) {
	if truth > w.truth[p] {
		w.truth[p] = truth
		w.todo = append(w.todo, p)
	}
}

// follow takes the edges whose markers hold.
func (w *uvWalk) follow(edges []uvEdge, truth packaging.Truth) error {
	for i := range edges {
		e := &edges[i]
		holds, err := w.eval(e.marker)
		if err != nil {
			return err
		}
		for _, to := range e.to {
			fork, err := w.fork(to)
			if err != nil {
				return err
			}
			sure := min(truth, holds, fork)
			if sure == packaging.False {
				continue
			}
			w.enter(uvPlace{to, ""}, sure)
			for _, extra := range e.extras {
				w.enter(uvPlace{to, extra}, sure)
			}
		}
	}
	return nil
}

// fork says whether the target is in one of the forks that a package is for.
func (w *uvWalk) fork(node int) (packaging.Truth, error) {
	if truth, ok := w.forks[node]; ok {
		return truth, nil
	}
	truth := packaging.False
	if len(w.g.nodes[node].forks) == 0 {
		truth = packaging.True
	}
	for _, text := range w.g.nodes[node].forks {
		m, err := w.eval(text)
		if err != nil {
			return packaging.False, err
		}
		truth = max(truth, m)
	}
	w.forks[node] = truth
	return truth, nil
}

// eval evaluates a marker once.
func (w *uvWalk) eval(text string) (packaging.Truth, error) {
	if text == "" {
		return packaging.True, nil
	}
	if truth, ok := w.markers[text]; ok {
		return truth, nil
	}
	m := w.g.markers[text]
	if namesChoice(text) {
		var err error
		if m, err = decideMarker(text, w.chosen); err != nil {
			return packaging.False, lockRefusal("-SYNTAX", w.g.where, "marker", err)
		}
	}
	truth := m.Eval(&w.target.Env)
	w.markers[text] = truth
	return truth, nil
}

// excludes reports whether the world is one in which the item is not chosen.
func (w *uvWalk) excludes(c uvItem) bool {
	chosen, known := w.world[c.name()]
	return known && !chosen
}

// chosen decides a name that uv has made for an item.
func (w *uvWalk) chosen(_, name string) packaging.Truth {
	chosen, known := w.world[name]
	switch {
	case known && chosen:
		return packaging.True
	case known, w.g.nobody(name):
		return packaging.False
	}
	return packaging.Maybe
}

// nobody reports whether a name that uv has made for an extra or a group of
// an own package, "extra-7-project-name", stands for one that is not chosen.
func (g *uvGraph) nobody(name string) bool {
	kind, rest, ok := strings.Cut(name, "-")
	if !ok || kind != "extra" && kind != "group" {
		return false
	}
	length, rest, ok := strings.Cut(rest, "-")
	n, err := strconv.Atoi(length)
	if !ok || err != nil || n < 1 || n >= len(rest) || rest[n] != '-' {
		return false
	}
	project, item := rest[:n], rest[n+1:]
	if !slices.ContainsFunc(g.own, func(i int) bool { return g.nodes[i].name == project }) {
		return false
	}
	if kind == "group" {
		return !g.choice.group(item)
	}
	return !g.choice.extra(item) && !g.asked[project+" "+item]
}

// collect marks what was reached. Two versions of a project that are both
// certain are refused.
func (w *uvWalk) collect(reached []bool) error {
	first := make(map[string]*Pin)
	for i := range w.g.nodes {
		n := &w.g.nodes[i]
		truth := w.truth[uvPlace{i, ""}]
		if truth == packaging.False || slices.Contains(w.g.own, i) {
			continue
		}
		if n.pin == nil {
			return lockRefusal("-URL", n.where, fmt.Sprintf("target %s: %s has the source %s; only packages of the configured index can be carried", w.target.Text, n.name, n.kind), nil)
		}
		if err := n.hashed(w.target); err != nil {
			return err
		}
		if truth == packaging.True {
			if other := first[n.name]; other != nil && other.Version.Compare(n.version) != 0 {
				return lockRefusal("-CONFLICT", n.where, fmt.Sprintf("target %s: %s %s, but %s pins %s", w.target.Text, n.name, n.version, other.Where, other.Version), nil)
			}
			first[n.name] = n.pin
		}
		reached[i] = true
	}
	return nil
}

// hashed refuses a package of which a file that would serve the target has no
// sha256.
func (n *uvNode) hashed(t *packaging.Target) error {
	for _, name := range n.unhashed {
		if packaging.IsWheel(name) {
			wheel, err := packaging.ParseWheelName(name)
			if err != nil {
				continue
			}
			if _, ok := t.Rank(wheel); !ok {
				continue
			}
		} else if len(n.pin.Files) > 0 {
			continue
		}
		return lockRefusal("-UNHASHED", n.where, fmt.Sprintf("target %s: %s has no sha256", t.Text, name), nil)
	}
	return nil
}
