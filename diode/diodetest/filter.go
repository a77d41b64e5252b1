// Package diodetest is a bad line for tests of the link: a filter that loses,
// doubles, delays, damages and invents packets, the same ones for the same
// seed, and a relay that puts it between two UDP ports.
//
// It counts what it did, so that a test can compare a receiver's counters with
// the truth.
package diodetest

import (
	"math/rand/v2"
)

// An Impairment is what a line does. Zero values do nothing.
type Impairment struct {
	Seed      uint64
	Loss      float64 // share of packets lost, each for itself
	BurstLen  int     // so many in a row are lost,
	BurstAt   int     // from this packet on, counted from 0,
	BurstEach int     // and again after so many; 0: once
	// Gilbert-Elliott: from good to bad and back with these probabilities;
	// in the bad state every packet is lost.
	ToBad, ToGood float64
	Duplicate     float64 // share of packets that come twice
	ReorderEach   int     // every so many, a packet
	ReorderBy     int     // comes so many packets later
	FlipEach      int     // every so many, one byte of a copy is flipped and sent before it
	TruncateEach  int     // every so many, a shortened copy is sent before it
	GarbageEach   int     // every so many, a random packet is sent before it
	ReplayEach    int     // every so many, an old packet is sent again
}

// Counts are what a filter did, in packets.
type Counts struct {
	In, Out, Lost, Duplicated, Reordered, Flipped, Truncated, Garbage, Replayed int64
}

// maxGarbage is the longest invented packet.
const maxGarbage = 9000

// A Filter is a bad line. It is not for several goroutines.
type Filter struct {
	i      Impairment
	rng    *rand.Rand
	n      int
	bad    bool
	counts Counts
	late   []delayed
	old    []byte
	buf    []byte
}

type delayed struct {
	at   int
	data []byte
}

// New makes a filter.
func New(i Impairment) *Filter {
	return &Filter{i: i, rng: rand.New(rand.NewPCG(i.Seed, 7)), buf: make([]byte, maxGarbage)} //nolint:gosec // the same packets for the same seed
}

// Counts tells what was done.
func (f *Filter) Counts() Counts { return f.counts }

func each(n, k int) bool { return k > 0 && n%k == k-1 }

// Feed takes a packet and calls out for what arrives. The bytes are good
// during the calls only.
func (f *Filter) Feed(p []byte, out func([]byte)) {
	send := func(p []byte) {
		f.counts.Out++
		out(p)
	}
	n := f.n
	f.n++
	f.counts.In++
	f.extras(n, p, send)
	switch {
	case f.lost(n):
		f.counts.Lost++
	case each(n, f.i.ReorderEach):
		f.counts.Reordered++
		f.late = append(f.late, delayed{n + f.i.ReorderBy, append([]byte(nil), p...)})
	default:
		send(p)
		if f.i.Duplicate > 0 && f.rng.Float64() < f.i.Duplicate {
			f.counts.Duplicated++
			send(p)
		}
	}
	for len(f.late) > 0 && f.late[0].at <= n {
		send(f.late[0].data)
		f.late = f.late[1:]
	}
}

// extras are packets that nobody sent.
func (f *Filter) extras(n int, p []byte, send func([]byte)) {
	if each(n, f.i.FlipEach) && len(p) > 0 {
		q := append(f.buf[:0], p...)
		q[f.rng.IntN(len(q))] ^= byte(1 + f.rng.IntN(255))
		f.counts.Flipped++
		send(q)
	}
	if each(n, f.i.TruncateEach) {
		f.counts.Truncated++
		send(p[:f.rng.IntN(len(p)+1)])
	}
	if each(n, f.i.GarbageEach) {
		q := f.buf[:f.rng.IntN(maxGarbage)]
		for i := range q {
			q[i] = byte(f.rng.Uint32())
		}
		f.counts.Garbage++
		send(q)
	}
	if f.i.ReplayEach > 0 && (f.old == nil || f.rng.IntN(1000) == 0) {
		f.old = append(f.old[:0], p...)
	}
	if each(n, f.i.ReplayEach) {
		f.counts.Replayed++
		send(f.old)
	}
}

// lost decides about a packet.
func (f *Filter) lost(n int) bool {
	if f.i.ToBad > 0 {
		p := f.i.ToBad
		if f.bad {
			p = f.i.ToGood
		}
		if f.rng.Float64() < p {
			f.bad = !f.bad
		}
		if f.bad {
			return true
		}
	}
	if b := n - f.i.BurstAt; f.i.BurstLen > 0 && b >= 0 {
		if f.i.BurstEach > 0 {
			b %= f.i.BurstEach
		}
		if b < f.i.BurstLen {
			return true
		}
	}
	return f.i.Loss > 0 && f.rng.Float64() < f.i.Loss
}

// Flush gives what is still delayed.
func (f *Filter) Flush(out func([]byte)) {
	for _, d := range f.late {
		f.counts.Out++
		out(d.data)
	}
	f.late = nil
}
