package diodetest

import (
	"encoding/binary"
	"slices"
	"testing"
)

// pass feeds n numbered packets and lists the numbers of what came whole.
func pass(i Impairment, n int) (got []uint32, c Counts) {
	f := New(i)
	out := func(p []byte) {
		if len(p) == 64 {
			got = append(got, binary.BigEndian.Uint32(p))
		}
	}
	for k := range n {
		p := make([]byte, 64)
		binary.BigEndian.PutUint32(p, uint32(k))
		f.Feed(p, out)
	}
	f.Flush(out)
	return got, f.Counts()
}

func TestSameSeedSamePackets(t *testing.T) {
	i := Impairment{Seed: 3, Loss: .02, Duplicate: .01, ReorderEach: 50, ReorderBy: 20, ToBad: .001, ToGood: .1}
	a, ca := pass(i, 20000)
	b, cb := pass(i, 20000)
	if !slices.Equal(a, b) || ca != cb {
		t.Error("two runs with one seed differ")
	}
	i.Seed++
	if c, _ := pass(i, 20000); slices.Equal(a, c) {
		t.Error("two seeds do the same")
	}
}

func TestCounts(t *testing.T) {
	const n = 100000
	for name, i := range map[string]Impairment{
		"nothing": {},
		"loss":    {Loss: .02},
		"bursts":  {BurstLen: 2500, BurstAt: 1000, BurstEach: 30000},
		"ge":      {ToBad: .001, ToGood: .05},
		"double":  {Duplicate: .01},
		"reorder": {ReorderEach: 100, ReorderBy: 1000},
		"all":     {Loss: .01, Duplicate: .01, ReorderEach: 99, ReorderBy: 50, FlipEach: 7, TruncateEach: 11, GarbageEach: 13, ReplayEach: 17},
	} {
		f := New(i)
		calls := int64(0)
		for range n {
			f.Feed(make([]byte, 64), func([]byte) { calls++ })
		}
		f.Flush(func([]byte) { calls++ })
		c := f.Counts()
		if want := c.In - c.Lost + c.Duplicated + c.Flipped + c.Truncated + c.Garbage + c.Replayed; c.In != n || calls != c.Out || c.Out != want {
			t.Errorf("%s: %d calls; %+v does not add up", name, calls, c)
		}
		if i.Loss > 0 && (c.Lost < int64(n*i.Loss*.8) || c.Lost > int64(n*i.Loss*1.2)) {
			t.Errorf("%s: %d of %d lost, want a share of %g", name, c.Lost, n, i.Loss)
		}
		if name == "bursts" && c.Lost != 4*2500 {
			t.Errorf("%d lost in four bursts of 2500", c.Lost)
		}
	}
	got, _ := pass(Impairment{ReorderEach: 100, ReorderBy: 1000}, 5000)
	if at := slices.Index(got, 99); at < 1000 || at > 1100 {
		t.Errorf("packet 99 came as number %d, want about 1000 later", at)
	}
}
