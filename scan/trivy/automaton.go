package trivy

// An automaton finds all of a set of literals in one pass over a text, in
// either case of ASCII letters (Aho and Corasick, 1975).
type automaton struct {
	class [256]uint8 // of a byte; 0 is in no literal
	next  []uint16   // by state and class
	out   []uint16   // by state: an index into ends, 0 for none
	ends  [][]uint16 // literals that end in a state
	size  []int      // of literals, in bytes
}

// classes is the room for classes of bytes, a power of two so that a state's
// row is found by shifting. The built-in rules need 48.
const (
	classBits = 6
	classes   = 1 << classBits
	maxStates = 1 << 16
)

// newAutomaton builds one for literals in lower case. It answers nil if they
// have too many different bytes or are too long for its tables.
func newAutomaton(literals []string) *automaton {
	if len(literals) >= maxStates {
		return nil
	}
	a := &automaton{ends: [][]uint16{nil}}
	used := 0
	for _, l := range literals {
		a.size = append(a.size, len(l))
		for i := range len(l) {
			if b := l[i]; a.class[b] == 0 {
				if used++; used == classes {
					return nil
				}
				a.class[b] = uint8(used)
			}
		}
	}
	for b := byte('a'); b <= 'z'; b++ {
		a.class[b-'a'+'A'] = a.class[b]
	}
	fail := a.trie(literals)
	if fail == nil {
		return nil
	}
	a.link(fail)
	return a
}

// trie enters the literals, and makes room for the failure links.
func (a *automaton) trie(literals []string) []uint16 {
	states := 1
	a.next = make([]uint16, classes)
	a.out = make([]uint16, 1)
	for n, l := range literals {
		s := 0
		for i := range len(l) {
			at := s<<classBits | int(a.class[l[i]])
			if a.next[at] == 0 {
				if states == maxStates {
					return nil
				}
				a.next[at] = uint16(states)
				states++
				a.next = append(a.next, make([]uint16, classes)...)
				a.out = append(a.out, 0)
			}
			s = int(a.next[at])
		}
		a.emit(s, []uint16{uint16(n)})
	}
	return make([]uint16, states)
}

func (a *automaton) emit(state int, literals []uint16) {
	if len(literals) == 0 {
		return
	}
	if a.out[state] == 0 {
		a.out[state] = uint16(len(a.ends)) //nolint:gosec // at most one for a state
		a.ends = append(a.ends, nil)
	}
	a.ends[a.out[state]] = append(a.ends[a.out[state]], literals...)
}

// link makes of the trie a table that always has a next state.
func (a *automaton) link(fail []uint16) {
	var queue []uint16
	for c := range classes {
		if s := a.next[c]; s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		f := fail[s]
		a.emit(int(s), a.ends[a.out[f]])
		for c := range classes {
			at := int(s)<<classBits | c
			onFail := a.next[int(f)<<classBits|c]
			if t := a.next[at]; t != 0 {
				fail[t] = onFail
				queue = append(queue, t)
			} else {
				a.next[at] = onFail
			}
		}
	}
}

// A hit is a literal in a text.
type hit struct {
	literal uint16
	end     int32 // one behind its last byte
}

// find appends every literal in the text.
func (a *automaton) find(text []byte, hits []hit) []hit {
	next, out := a.next, a.out
	s := 0
	for i, b := range text {
		s = int(next[s<<classBits|int(a.class[b])])
		if o := out[s]; o != 0 {
			for _, l := range a.ends[o] {
				hits = append(hits, hit{l, int32(i + 1)})
			}
		}
	}
	return hits
}
