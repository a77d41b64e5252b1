package packages

import (
	"slices"
	"strings"
)

// leastName: of shorter names, too many are neighbours by chance.
const leastName = 5

// neighbours finds the names in use that a name is too like: one letter more,
// less, other or exchanged with the next. It indexes each known name by
// itself and by itself without one letter, so that looking up costs as many
// steps as a name has letters.
type neighbours struct {
	names map[string]bool
	index map[string][]string
}

func newNeighbours(known []string) *neighbours {
	n := &neighbours{names: make(map[string]bool), index: make(map[string][]string)}
	for _, k := range known {
		k = normal(k)
		if n.names[k] {
			continue
		}
		n.names[k] = true
		for _, key := range keys(k) {
			n.index[key] = append(n.index[key], k)
		}
	}
	return n
}

// normal is PEP 503's normal form.
func normal(name string) string {
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	return strings.Join(parts, "-")
}

// keys are the name and every name that lacks one letter of it.
func keys(name string) []string {
	list := []string{name}
	for i := range len(name) {
		list = append(list, name[:i]+name[i+1:])
	}
	return list
}

// like gives the known name that a name which is not known is too like, the
// first in order.
func (n *neighbours) like(name string) string {
	name = normal(name)
	if n.names[name] {
		return ""
	}
	var all []string
	for _, key := range keys(name) {
		for _, k := range n.index[key] {
			if len(k) >= leastName && near(name, k) {
				all = append(all, k)
			}
		}
	}
	plain := strings.ReplaceAll(strings.NewReplacer("0", "o", "1", "l").Replace(name), "-", "")
	for k := range n.names {
		if len(k) >= leastName && strings.ReplaceAll(strings.NewReplacer("0", "o", "1", "l").Replace(k), "-", "") == plain {
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return all[0]
}

// near reports whether the Damerau distance of two names is one.
func near(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if a == b || len(b)-len(a) > 1 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) < len(b) {
		return a[i:] == b[i+1:]
	}
	if a[i+1:] == b[i+1:] {
		return true
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}
