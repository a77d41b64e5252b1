package diode

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A generation is one that symbols arrive for. What the packets' thread knows
// and what is on disk are kept apart: seen and the counts belong to that
// thread, live to whoever holds mu.
type generation struct {
	n       int
	object  *object
	symbols int // data symbols that are not known zeros

	seen    []byte   // bit r*D+c: arrived, perhaps still on its way to the disk
	lack    []uint16 // by column: data symbols that have not arrived
	have    []uint16 // by column: parity symbols that have
	missing int      // sum of lack
	short   int      // columns with lack > have
	topRow  int      // highest row that arrived, + 1
	used    int64    // when a symbol arrived last; in ticks, for choosing which to close
	busy    bool     // being repaired: more symbols are not needed

	mu    sync.Mutex
	live  []byte // the mapped file, nil when closed; bit: its bytes were written
	dirty bool   // written since the last save
}

// newGeneration counts what the map says is there.
func newGeneration(o *object, n int, live []byte) *generation {
	d, k := o.columns, o.k
	g := &generation{
		n: n, object: o, symbols: o.symbols(n), live: live,
		seen: make([]byte, len(live)-mapHeader), lack: make([]uint16, d), have: make([]uint16, d),
	}
	copy(g.seen, live[mapHeader:])
	// All columns have as many symbols, but for the last row that has any.
	rows, rest := g.symbols/d, g.symbols%d
	for c := range d {
		g.lack[c] = uint16(rows)
		if c < rest {
			g.lack[c]++
		}
	}
	g.missing = g.symbols
	for bit := range g.symbols {
		if bitSet(g.seen, bit) {
			g.lack[bit%d]--
			g.missing--
			g.topRow = bit/d + 1
		}
	}
	for bit := k * d; bit < allRows*d; bit++ {
		if bitSet(g.seen, bit) {
			g.have[bit%d]++
			g.topRow = bit/d + 1
		}
	}
	for c := range d {
		if g.lack[c] > g.have[c] {
			g.short++
		}
	}
	return g
}

// A gap is what a generation needs.
type gap struct {
	generation int
	rows       int  // more parity rows
	all        bool // parity cannot bring it: too many are missing
	top        int  // parity rows that anything has come of
}

// gap tells how many parity rows would do, whatever columns they are for.
func (g *generation) gap() gap {
	need := 0
	for c := range g.lack {
		need = max(need, int(g.lack[c])-int(g.have[c]))
	}
	top := max(0, g.topRow-g.object.k)
	// The sender goes on from the row that the inside has seen nothing of; when
	// no more exist, rows that a column has already would come again.
	if top+need > allRows-g.object.k {
		return gap{generation: g.n, all: true, top: top}
	}
	return gap{generation: g.n, rows: need, top: top}
}

// data takes note of a data symbol; false: it was there.
func (g *generation) data(bit, column int) bool {
	if bitSet(g.seen, bit) {
		return false
	}
	g.seen[bit>>3] |= 1 << (bit & 7)
	g.missing--
	g.lack[column]--
	if g.lack[column] == g.have[column] {
		g.short--
	}
	return true
}

// parity takes note of a parity symbol; false: it was there, or its column
// has all it needs.
func (g *generation) parity(bit, column int) (fresh, needed bool) {
	if bitSet(g.seen, bit) {
		return false, false
	}
	if g.lack[column] <= g.have[column] {
		return true, false
	}
	g.seen[bit>>3] |= 1 << (bit & 7)
	g.have[column]++
	if g.lack[column] == g.have[column] {
		g.short--
	}
	return true, true
}

// wrote takes note that symbols are in their file.
func (g *generation) wrote(bit, count int) {
	g.mu.Lock()
	if g.live != nil {
		setRange(g.live[mapHeader:], bit, count)
		g.dirty = true
	}
	g.mu.Unlock()
}

// unmap lets the map go; the file stays.
func (g *generation) unmap() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.live == nil {
		return nil
	}
	p := g.live
	g.live = nil
	return unix.Munmap(p)
}

// snapshot copies the map if it changed since the last one.
func (g *generation) snapshot() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.live == nil || !g.dirty {
		return nil
	}
	g.dirty = false
	return append([]byte(nil), g.live...)
}
