package diodetest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const packetSize = 64

// packet is number n, with a check at its end.
func packet(n int) []byte {
	p := make([]byte, packetSize)
	for i := range p {
		p[i] = byte(n * (i + 3))
	}
	binary.BigEndian.PutUint32(p, uint32(n))
	binary.BigEndian.PutUint32(p[packetSize-4:], crc32.ChecksumIEEE(p[:packetSize-4]))
	return p
}

// number reads it back; -1: this is none of them.
func number(p []byte) int {
	if len(p) != packetSize || crc32.ChecksumIEEE(p[:packetSize-4]) != binary.BigEndian.Uint32(p[packetSize-4:]) {
		return -1
	}
	return int(binary.BigEndian.Uint32(p))
}

// seen is what came out, by one who knows what went in.
type seen struct {
	numbers  []int    // of whole packets, in order; -1 for the others,
	strange  [][]byte // which are these
	whileFed []int    // how many had been fed when each came
}

// run feeds n packets.
func run(i Impairment, n int) (s seen, c Counts) {
	f := New(i)
	fed := 0
	out := func(p []byte) {
		k := number(p)
		s.numbers, s.whileFed = append(s.numbers, k), append(s.whileFed, fed)
		if k < 0 {
			s.strange = append(s.strange, bytes.Clone(p))
		}
	}
	for k := range n {
		fed = k
		p := packet(k)
		f.Feed(p, out)
		clear(p) // whoever kept it has the wrong bytes now
	}
	f.Flush(out)
	return s, f.Counts()
}

// lost lists what never came.
func (s seen) lost(n int) (lost []int) {
	there := make([]bool, n)
	for _, k := range s.numbers {
		if k >= 0 {
			there[k] = true
		}
	}
	for k, came := range there {
		if !came {
			lost = append(lost, k)
		}
	}
	return lost
}

// twice is how many whole packets came that had come before.
func (s seen) twice() (n int64) {
	there := map[int]bool{-1: false}
	for _, k := range s.numbers {
		if there[k] {
			n++
		}
		there[k] = k >= 0
	}
	return n
}

func everything() Impairment {
	return Impairment{
		Seed: 3, Loss: .02, BurstLen: 20, BurstEvery: 900, BurstAt: 77, Duplicate: .01, ReorderEvery: 50, ReorderBy: 20,
		GilbertElliott: &GE{ToBad: .001, ToGood: .1, LossGood: .0001, LossBad: .9},
		FlipEvery:      7, TruncateEvery: 11, GarbageEvery: 130, ReplayEvery: 17,
	}
}

// TestSameSeed: two runs do the very same, and those of two seeds do not.
func TestSameSeed(t *testing.T) {
	const n = 6000
	a, ca := run(everything(), n)
	b, cb := run(everything(), n)
	if !reflect.DeepEqual(a, b) || ca != cb {
		t.Error("two runs with one seed differ")
	}
	if len(a.lost(n)) == 0 || len(a.strange) == 0 {
		t.Fatal("nothing happened that could differ")
	}
	other := everything()
	other.Seed++
	c, _ := run(other, n)
	if slices.Equal(a.lost(n), c.lost(n)) {
		t.Error("two seeds lose the same packets")
	}
}

// TestIndependent: a packet is lost when any kind of loss alone would lose it,
// whatever else the line does.
func TestIndependent(t *testing.T) {
	const n = 6000
	all := everything()
	all.ReplayEvery = 0 // a replayed packet is not lost to one who looks from outside
	want := map[int]bool{}
	for _, alone := range []Impairment{
		{Seed: all.Seed, Loss: all.Loss},
		{Seed: all.Seed, GilbertElliott: all.GilbertElliott},
		{Seed: all.Seed, BurstLen: all.BurstLen, BurstEvery: all.BurstEvery, BurstAt: all.BurstAt},
	} {
		s, _ := run(alone, n)
		lost := s.lost(n)
		if len(lost) == 0 {
			t.Fatalf("%+v loses nothing", alone)
		}
		for _, k := range lost {
			want[k] = true
		}
	}
	s, _ := run(all, n)
	for _, k := range s.lost(n) {
		if !want[k] {
			t.Errorf("packet %d is lost together, and not alone", k)
		}
		delete(want, k)
	}
	if len(want) > 0 {
		t.Errorf("%d packets are lost alone, and not together", len(want))
	}
}

// TestCounts compares with what one sees who looks at every packet.
func TestCounts(t *testing.T) {
	const n = 6000
	for name, w := range map[string]struct {
		i    Impairment
		want func(s seen) Counts
	}{
		"nothing": {Impairment{}, func(seen) Counts { return Counts{} }},
		"loss":    {Impairment{Loss: .02}, func(s seen) Counts { return Counts{Lost: int64(len(s.lost(n)))} }},
		"bursts": {Impairment{BurstLen: 500, BurstAt: 1000, BurstEvery: 2000}, func(s seen) Counts {
			return Counts{Lost: int64(len(s.lost(n)))}
		}},
		"spells": {Impairment{GilbertElliott: &GE{ToBad: .001, ToGood: .05, LossBad: 1}}, func(s seen) Counts {
			return Counts{Lost: int64(len(s.lost(n)))}
		}},
		"double": {Impairment{Duplicate: .01}, func(s seen) Counts { return Counts{Duplicated: s.twice()} }},
		"reorder": {Impairment{ReorderEvery: 99, ReorderBy: 1000}, func(s seen) (c Counts) {
			highest := -1
			for _, k := range s.numbers {
				if k < highest {
					c.Reordered++
				}
				highest = max(highest, k)
			}
			return c
		}},
		"flip":     {Impairment{FlipEvery: 7}, func(s seen) Counts { return Counts{Flipped: int64(len(s.strange))} }},
		"truncate": {Impairment{TruncateEvery: 11}, func(s seen) Counts { return Counts{Truncated: int64(len(s.strange))} }},
		"garbage":  {Impairment{GarbageEvery: 130}, func(s seen) Counts { return Counts{Garbage: int64(len(s.strange))} }},
		"replay":   {Impairment{ReplayEvery: 17}, func(s seen) Counts { return Counts{Replayed: s.twice()} }},
	} {
		s, got := run(w.i, n)
		want := w.want(s)
		want.In, want.Out = n, int64(len(s.numbers))
		if got != want {
			t.Errorf("%s: counts %+v, seen %+v", name, got, want)
		}
		if name != "nothing" && got == (Counts{In: n, Out: n}) {
			t.Errorf("%s: nothing happened", name)
		}
		checkSum(t, name, got)
	}
	s, c := run(everything(), n)
	checkSum(t, "everything", c)
	if c.Out != int64(len(s.numbers)) || c.Flipped != n/7 || c.Truncated != n/11 || c.Garbage != n/130 || c.Replayed != n/17 {
		t.Errorf("everything: %d came out; %+v", len(s.numbers), c)
	}
	if c.Flipped+c.Truncated+c.Garbage != int64(len(s.strange)) {
		t.Errorf("everything: %d strange packets; %+v", len(s.strange), c)
	}
}

func checkSum(t *testing.T, name string, c Counts) {
	t.Helper()
	if want := c.In - c.Lost + c.Duplicated + c.Flipped + c.Truncated + c.Garbage + c.Replayed; c.Out != want {
		t.Errorf("%s: %+v does not add up: want %d out", name, c, want)
	}
}

func TestLossShare(t *testing.T) {
	const n = 20000
	for _, share := range []float64{.001, .02, .5, 1} {
		_, c := run(Impairment{Seed: 5, Loss: share}, n)
		// Four standard deviations.
		if got := float64(c.Lost); math.Abs(got-n*share) > 4*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%g of %d are lost, want a share of %g", got, n, share)
		}
	}
}

func TestGilbertElliott(t *testing.T) {
	const n = 50000
	s, c := run(Impairment{Seed: 1, GilbertElliott: &GE{ToBad: .002, ToGood: .1, LossBad: 1}}, n)
	spells, last := 0, -2
	for _, k := range s.lost(n) {
		if k != last+1 {
			spells++
		}
		last = k
	}
	if share, want := float64(c.Lost)/n, .002/(.002+.1); math.Abs(share-want) > .1*want {
		t.Errorf("a share of %.4f is lost, want %.4f", share, want)
	}
	if mean := float64(c.Lost) / float64(spells); mean < 9 || mean > 11 {
		t.Errorf("a spell is %.2f packets long, want 10", mean)
	}
	_, c = run(Impairment{Seed: 1, GilbertElliott: &GE{ToBad: .5, ToGood: .5, LossGood: .1, LossBad: .3}}, n)
	if share := float64(c.Lost) / n; math.Abs(share-.2) > .01 {
		t.Errorf("a share of %.4f is lost in both states, want 0.2", share)
	}
}

func TestBurst(t *testing.T) {
	for name, w := range map[string]struct {
		i    Impairment
		want []int
	}{
		"once":        {Impairment{BurstLen: 3, BurstAt: 4}, []int{4, 5, 6}},
		"at the head": {Impairment{BurstLen: 2}, []int{0, 1}},
		"again":       {Impairment{BurstLen: 2, BurstAt: 3, BurstEvery: 7}, []int{3, 4, 10, 11, 17, 18}},
	} {
		s, _ := run(w.i, 20)
		if diff := cmp.Diff(w.want, s.lost(20)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReorder(t *testing.T) {
	s, c := run(Impairment{ReorderEvery: 4, ReorderBy: 2}, 9)
	if diff := cmp.Diff([]int{0, 1, 2, 4, 5, 3, 6, 8, 7}, s.numbers); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if c.Reordered != 2 {
		t.Errorf("%d were reordered, want 2", c.Reordered)
	}
	// What is still held comes with Flush, and only once. Room is used again.
	f := New(Impairment{ReorderEvery: 1, ReorderBy: 100})
	var got []int
	out := func(p []byte) { got = append(got, number(p)) }
	for k := range 6 {
		f.Feed(packet(k), out)
		if k%3 == 2 {
			if len(got) != k-2 {
				t.Errorf("%v came before they were flushed", got)
			}
			f.Flush(out)
			f.Flush(out)
		}
	}
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 5}, got); diff != "" {
		t.Errorf("flushed (-want +got):\n%s", diff)
	}
}

// TestDamage looks at the damaged packets themselves.
func TestDamage(t *testing.T) {
	const n = 1000
	s, _ := run(Impairment{FlipEvery: 1}, n)
	for k, p := range s.strange {
		differ := 0
		for i, x := range packet(k) {
			if p[i] != x {
				differ++
			}
		}
		if len(p) != packetSize || differ != 1 {
			t.Fatalf("copy of packet %d has %d bytes, of which %d differ: want one", k, len(p), differ)
		}
	}
	s, _ = run(Impairment{TruncateEvery: 1}, n)
	lengths := map[int]bool{}
	for k, p := range s.strange {
		if len(p) >= packetSize || !bytes.HasPrefix(packet(k), p) {
			t.Fatalf("short copy of packet %d: %x", k, p)
		}
		lengths[len(p)] = true
	}
	if len(lengths) != packetSize {
		t.Errorf("short copies have %d lengths, want 0 to %d", len(lengths), packetSize-1)
	}
	s, _ = run(Impairment{GarbageEvery: 1}, n)
	longest := 0
	for _, p := range s.strange {
		longest = max(longest, len(p))
	}
	if longest < maxGarbage*9/10 || longest > maxGarbage {
		t.Errorf("the longest random packet has %d bytes, want up to %d", longest, maxGarbage)
	}
	s, _ = run(Impairment{ReplayEvery: 2}, 5*keepOld)
	replayed := map[int]bool{}
	for at, k := range s.numbers {
		if k < s.whileFed[at] {
			replayed[k] = true
		}
	}
	if len(replayed) < 2 {
		t.Errorf("packets %v were replayed, want several", replayed)
	}
}

// TestEmptyPackets: there is nothing in them to damage.
func TestEmptyPackets(t *testing.T) {
	f := New(everything())
	for range 2000 {
		f.Feed(nil, func([]byte) {})
	}
	f.Flush(func([]byte) {})
	c := f.Counts()
	if c.Flipped != 0 || c.Truncated != 0 {
		t.Errorf("%+v: empty packets were damaged", c)
	}
	checkSum(t, "empty packets", c)
}

func BenchmarkFeed(b *testing.B) {
	p := make([]byte, 1456)
	for name, i := range map[string]Impairment{
		"nothing":    {},
		"loss":       {Loss: .02},
		"everything": everything(),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			f := New(i)
			for b.Loop() {
				f.Feed(p, func([]byte) {})
			}
		})
	}
}
