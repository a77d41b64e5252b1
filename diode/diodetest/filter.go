// Package diodetest is a bad line for tests of the link: a filter that loses,
// doubles, delays, damages and invents packets, the same ones for the same
// seed, and a relay that puts it between two UDP ports.
//
// It counts what it did, so that a test can compare a receiver's counters with
// the truth: Out = In - Lost + Duplicated + Flipped + Truncated + Garbage +
// Replayed, once nothing is held back any more.
//
// Each impairment draws from a source of its own. Adding one to a line leaves
// what the others do as it was.
package diodetest

import (
	"encoding/binary"
	"math/rand/v2"
)

// An Impairment is what a line does. Zero values do nothing. Packets are
// counted from 0; "every n" means packet n-1, 2n-1 and so on.
type Impairment struct {
	Seed           uint64
	Loss           float64 // share of packets lost, each for itself
	BurstLen       int     // so many in a row are lost,
	BurstEvery     int     // again after so many, counted from first to first; 0: once,
	BurstAt        int     // beginning with this packet
	GilbertElliott *GE     // loss that comes in spells
	Duplicate      float64 // share of packets that come twice
	ReorderEvery   int     // every so many, a packet
	ReorderBy      int     // comes so many packets later
	// Damaged packets are copies, which come before the packet itself: damage
	// adds packets, and only what is counted as lost is missing.
	FlipEvery     int // every so many, a copy with one byte changed
	TruncateEvery int // every so many, a copy that is shorter
	GarbageEvery  int // every so many, a random packet of 0 to maxGarbage bytes
	ReplayEvery   int // every so many, an old packet again
}

// GE is the model of Gilbert and Elliott: a line that is good or bad, and
// changes from packet to packet with some probability.
type GE struct {
	ToBad, ToGood     float64 // probability of a change, in either direction
	LossGood, LossBad float64 // share of packets lost in either state
}

// Counts are what a filter did, in packets.
type Counts struct {
	In, Out, Lost, Duplicated, Reordered, Flipped, Truncated, Garbage, Replayed int64
}

// maxGarbage is the longest invented packet: that of the longest usual frame.
const maxGarbage = 9000

// keepOld is how many packets go by, on average, until the packet that is
// replayed is another one.
const keepOld = 1000

// The sources of chance, one for each impairment.
const (
	ofLoss = iota
	ofSpells
	ofDuplicates
	ofFlips
	ofTruncation
	ofGarbage
	ofReplay
	sources
)

// A Filter is a bad line. It is not for several goroutines.
type Filter struct {
	i      Impairment
	chance [sources]*rand.Rand
	n      int  // packets fed
	bad    bool // state of GilbertElliott
	counts Counts
	late   []delayed // in the order in which they are due
	free   [][]byte  // room for more of them
	old    []byte
	buf    []byte
}

type delayed struct {
	due  int
	data []byte
}

// New makes a filter.
func New(i Impairment) *Filter {
	f := &Filter{i: i, buf: make([]byte, maxGarbage)}
	for source := range f.chance {
		f.chance[source] = rand.New(rand.NewPCG(i.Seed, uint64(source))) //nolint:gosec // the same packets for the same seed
	}
	return f
}

// Counts tells what was done.
func (f *Filter) Counts() Counts { return f.counts }

// Feed takes a packet and calls out for what arrives. p is kept no longer than
// the call, and what out gets no longer than that call.
func (f *Filter) Feed(p []byte, out func([]byte)) {
	n := f.n
	f.n++
	f.counts.In++
	f.extras(n, p, out)
	twice := f.happens(ofDuplicates, f.i.Duplicate)
	switch {
	case f.lost(n):
		f.counts.Lost++
	case every(n, f.i.ReorderEvery):
		f.counts.Reordered++
		f.hold(n+f.i.ReorderBy, p)
	default:
		f.send(p, out)
		if twice {
			f.counts.Duplicated++
			f.send(p, out)
		}
	}
	f.release(n, out)
}

// Flush gives what reordering holds.
func (f *Filter) Flush(out func([]byte)) {
	f.release(f.n+max(f.i.ReorderBy, 0), out)
}

func (f *Filter) send(p []byte, out func([]byte)) {
	f.counts.Out++
	out(p)
}

func (f *Filter) hold(due int, p []byte) {
	var room []byte
	if n := len(f.free); n > 0 {
		room, f.free = f.free[n-1], f.free[:n-1]
	}
	f.late = append(f.late, delayed{due, append(room[:0], p...)})
}

// release sends what is due after packet n. All wait equally long, so the first
// held is the first due.
func (f *Filter) release(n int, out func([]byte)) {
	done := 0
	for _, d := range f.late {
		if d.due > n {
			break
		}
		f.send(d.data, out)
		f.free = append(f.free, d.data)
		done++
	}
	f.late = f.late[done:]
}

// extras are packets that nobody sent.
func (f *Filter) extras(n int, p []byte, out func([]byte)) {
	if every(n, f.i.FlipEvery) && len(p) > 0 {
		f.buf = append(f.buf[:0], p...)
		r := f.chance[ofFlips]
		f.buf[r.IntN(len(p))] ^= byte(1 + r.IntN(255))
		f.counts.Flipped++
		f.send(f.buf, out)
	}
	if every(n, f.i.TruncateEvery) && len(p) > 0 {
		f.counts.Truncated++
		f.send(p[:f.chance[ofTruncation].IntN(len(p))], out)
	}
	if every(n, f.i.GarbageEvery) {
		f.counts.Garbage++
		f.send(f.garbage(), out)
	}
	if f.i.ReplayEvery > 0 && (f.old == nil || f.happens(ofReplay, 1./keepOld)) {
		f.old = append(f.old[:0], p...)
	}
	if every(n, f.i.ReplayEvery) {
		f.counts.Replayed++
		f.send(f.old, out)
	}
}

func (f *Filter) garbage() []byte {
	r := f.chance[ofGarbage]
	size := r.IntN(maxGarbage + 1)
	f.buf = f.buf[:0]
	for len(f.buf) < size {
		f.buf = binary.LittleEndian.AppendUint64(f.buf, r.Uint64())
	}
	return f.buf[:size]
}

// lost decides about a packet. Every kind of loss draws for every packet: what
// one does depends on no other.
func (f *Filter) lost(n int) bool {
	alone := f.happens(ofLoss, f.i.Loss)
	spell := f.spell()
	burst := false
	if at := n - f.i.BurstAt; f.i.BurstLen > 0 && at >= 0 {
		if f.i.BurstEvery > 0 {
			at %= f.i.BurstEvery
		}
		burst = at < f.i.BurstLen
	}
	return alone || spell || burst
}

func (f *Filter) spell() bool {
	ge := f.i.GilbertElliott
	if ge == nil {
		return false
	}
	change, loss := ge.ToBad, ge.LossGood
	if f.bad {
		change, loss = ge.ToGood, ge.LossBad
	}
	lost := f.happens(ofSpells, loss)
	if f.happens(ofSpells, change) {
		f.bad = !f.bad
	}
	return lost
}

func (f *Filter) happens(source int, share float64) bool {
	return share > 0 && f.chance[source].Float64() < share
}

func every(n, k int) bool { return k > 0 && n%k == k-1 }
