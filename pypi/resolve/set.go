package resolve

import "math/bits"

// A set is a set of small numbers: places in a project's list of versions,
// with one place more for "not chosen". Sets of one project have one length.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

// fullSet holds all of 0 to n-1.
func fullSet(n int) set {
	s := newSet(n)
	for i := range s {
		s[i] = ^uint64(0)
	}
	if rest := n % 64; rest != 0 {
		s[len(s)-1] = 1<<rest - 1
	}
	return s
}

func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) remove(i int)   { s[i/64] &^= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s set) clone() set { return append(set(nil), s...) }

func (s set) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

func (s set) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// max is the greatest member, -1 if there is none.
func (s set) max() int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] != 0 {
			return i*64 + 63 - bits.LeadingZeros64(s[i])
		}
	}
	return -1
}

// within reports whether every member of s is one of t.
func (s set) within(t set) bool {
	for i, w := range s {
		if w&^t[i] != 0 {
			return false
		}
	}
	return true
}

// meets reports whether s and t share a member.
func (s set) meets(t set) bool {
	for i, w := range s {
		if w&t[i] != 0 {
			return true
		}
	}
	return false
}

func (s set) and(t set) set {
	out := make(set, len(s))
	for i, w := range s {
		out[i] = w & t[i]
	}
	return out
}

func (s set) or(t set) set {
	out := make(set, len(s))
	for i, w := range s {
		out[i] = w | t[i]
	}
	return out
}

// not is the complement within 0 to n-1.
func (s set) not(n int) set {
	out := fullSet(n)
	for i, w := range s {
		out[i] &^= w
	}
	return out
}
