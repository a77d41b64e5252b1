package fec

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

func randomRows(rng *rand.Rand, n, size int) [][]byte {
	rows := make([][]byte, n)
	for i := range rows {
		rows[i] = make([]byte, size)
		for j := range rows[i] {
			rows[i][j] = byte(rng.Uint32())
		}
	}
	return rows
}

func clone(rows [][]byte) [][]byte {
	out := make([][]byte, len(rows))
	for i, row := range rows {
		out[i] = bytes.Clone(row)
	}
	return out
}

func newCode(t testing.TB, k int) *Code {
	t.Helper()
	c, err := New(k)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCoefficient(t *testing.T) {
	for k := 1; k < 256; k++ {
		for i := range 256 - k {
			for j := range k {
				if times(Coefficient(k, i, j), byte((k+i)^j)) != 1 {
					t.Fatalf("coefficient of row %d, column %d of %d is no inverse", i, j, k)
				}
			}
		}
	}
}

// TestEncode compares with the slow encoder, at the ends of what k can be and
// at random between them.
func TestEncode(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	ks := []int{1, 2, 9, 10, 11, 192, 200, 224, 240, 254, 255}
	for range 30 {
		ks = append(ks, 1+rng.IntN(255))
	}
	for _, k := range ks {
		c := newCode(t, k)
		if c.K() != k || c.MaxParity() != 256-k {
			t.Errorf("k %d: K %d, MaxParity %d", k, c.K(), c.MaxParity())
		}
		size := 1 + rng.IntN(5)
		data := randomRows(rng, k, size)
		for j := range data {
			if rng.IntN(9) == 0 {
				data[j] = nil
			}
		}
		m := 1 + rng.IntN(min(c.MaxParity(), 30))
		first := rng.IntN(c.MaxParity() - m + 1)
		parity := randomRows(rng, m, size)
		before := clone(data)
		if err := c.Encode(data, first, parity); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(data, before, bytes.Equal) {
			t.Errorf("k %d: Encode changed its data", k)
		}
		for i := range parity {
			if want := slowParity(data, first+i, size); !bytes.Equal(parity[i], want) {
				t.Fatalf("k %d, parity row %d: %x, want %x", k, first+i, parity[i], want)
			}
		}
	}
}

// damage loses some rows of data, and finds as many of parity, whose numbers
// begin with first and whose order is any.
func damage(rng *rand.Rand, data, parity [][]byte, first, e int) (got [][]byte, lost, rows []int, chosen [][]byte) {
	size := len(parity[0])
	got = clone(data)
	lost = rng.Perm(len(data))[:e]
	slices.Sort(lost)
	for _, j := range lost {
		got[j] = bytes.Repeat([]byte{0xa5}, size)
	}
	for _, i := range rng.Perm(len(parity))[:e] {
		rows = append(rows, first+i)
		chosen = append(chosen, bytes.Clone(parity[i]))
	}
	return got, lost, rows, chosen
}

// TestRepairRandom: any choice of parity rows brings back as many data rows, at
// any length: whole registers of the processor, parts of them, and segments.
// TestEncodeLengths compares bytes of rows as long as those of a tile with the
// slow code: the library computes long rows by other instructions than short
// ones, and their ends by yet others.
func TestEncodeLengths(t *testing.T) {
	const k, m = 200, 20
	rng := rand.New(rand.NewPCG(5, 6))
	c := newCode(t, k)
	for _, size := range []int{31, 32, 63, 64, 65, 127, 128, 129, 1408, 1409, 4095, 4096, 4097, 29568, 32769} {
		data, parity := randomRows(rng, k, size), randomRows(rng, m, size)
		data[17] = nil
		if err := c.Encode(data, 3, parity); err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, 31, 32, 63, 64, size / 2, size - 65, size - 64, size - 33, size - 32, size - 1} {
			if at < 0 || at >= size {
				continue
			}
			column := make([][]byte, k)
			for j, row := range data {
				if row != nil {
					column[j] = row[at : at+1]
				}
			}
			for i := range parity {
				if want := slowParity(column, 3+i, 1); parity[i][at] != want[0] {
					t.Fatalf("size %d, parity row %d, byte %d: got %#x, want %#x", size, 3+i, at, parity[i][at], want[0])
				}
			}
		}
	}
}

func TestRepairRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 150 {
		k := 1 + rng.IntN(255)
		if n < 3 {
			k = []int{1, 255, 200}[n]
		}
		c := newCode(t, k)
		size := 1 + rng.IntN(300)
		if n%15 == 0 {
			size = segment + rng.IntN(2*segment)
		}
		data := randomRows(rng, k, size)
		for j := range data {
			if rng.IntN(9) == 0 {
				data[j] = nil
			}
		}
		m := 1 + rng.IntN(c.MaxParity())
		if n%10 > 0 {
			m = min(m, 64) // most often what a link has, sometimes all there is
		}
		first := rng.IntN(c.MaxParity() - m + 1)
		parity := randomRows(rng, m, size)
		if err := c.Encode(data, first, parity); err != nil {
			t.Fatal(err)
		}
		got, lost, rows, chosen := damage(rng, data, parity, first, 1+rng.IntN(min(m, k)))
		if err := c.Repair(got, lost, rows, chosen); err != nil {
			t.Fatal(err)
		}
		zeros := make([]byte, size)
		for j, want := range data {
			if want == nil && slices.Contains(lost, j) {
				want = zeros
			}
			if !bytes.Equal(got[j], want) {
				t.Fatalf("k %d, size %d, lost %v, rows %v: row %d differs", k, size, lost, rows, j)
			}
		}
	}
}

// TestRepairAgainstElimination gives the slow decoder the same rows, which are
// noise and no codeword of any data in particular: both find the one solution.
func TestRepairAgainstElimination(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 60 {
		k, size := 1+rng.IntN(24), 1+rng.IntN(4)
		c := newCode(t, k)
		noise := randomRows(rng, k+40, size)
		parity := noise[k:min(len(noise), k+c.MaxParity())]
		got, lost, rows, chosen := damage(rng, noise[:k], parity, 0, 1+rng.IntN(min(k, len(parity))))
		var numbers []int
		var known [][]byte
		for j := range k {
			if !slices.Contains(lost, j) {
				numbers, known = append(numbers, j), append(known, bytes.Clone(got[j]))
			}
		}
		for n, i := range rows {
			numbers, known = append(numbers, k+i), append(known, bytes.Clone(chosen[n]))
		}
		want := slowDecode(t, k, numbers, known)
		if err := c.Repair(got, lost, rows, chosen); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("k %d, lost %v, rows %v:\n%x, want\n%x", k, lost, rows, got, want)
		}
	}
}

// TestEveryChoice takes every set of k of n rows there is.
func TestEveryChoice(t *testing.T) {
	const k, m, size = 5, 6, 3
	rng := rand.New(rand.NewPCG(7, 8))
	c := newCode(t, k)
	data := randomRows(rng, k, size)
	parity := randomRows(rng, m, size)
	if err := c.Encode(data, 0, parity); err != nil {
		t.Fatal(err)
	}
	sets := 0
	for set := range 1 << (k + m) {
		if bits.OnesCount(uint(set)) != k {
			continue
		}
		sets++
		got := clone(data)
		var lost, rows []int
		var chosen [][]byte
		for n := range k + m {
			switch there := set>>n&1 == 1; {
			case n < k && !there:
				lost = append(lost, n)
				clear(got[n])
			case n >= k && there:
				rows, chosen = append(rows, n-k), append(chosen, bytes.Clone(parity[n-k]))
			}
		}
		if err := c.Repair(got, lost, rows, chosen); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, data, bytes.Equal) {
			t.Fatalf("lost %v, rows %v: not repaired", lost, rows)
		}
	}
	if sets != 462 { // 11 over 5
		t.Errorf("%d sets, want 462", sets)
	}
}

// TestConcurrent uses one Code from several goroutines, with more choices of
// parity rows than it keeps encoders for, and rows of several lengths.
func TestConcurrent(t *testing.T) {
	const k, m = 12, 40
	c := newCode(t, k)
	var group sync.WaitGroup
	for worker := range uint64(4) {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(worker, 9))
			for range maxEncoders {
				size := 1 + rng.IntN(200)
				data, parity := randomRows(rng, k, size), randomRows(rng, m, size)
				if err := c.Encode(data, 0, parity); err != nil {
					t.Error(err)
					return
				}
				got, lost, rows, chosen := damage(rng, data, parity, 0, 1+rng.IntN(k))
				if err := c.Repair(got, lost, rows, chosen); err != nil {
					t.Error(err)
					return
				}
				if !slices.EqualFunc(got, data, bytes.Equal) {
					t.Errorf("lost %v, rows %v: not repaired", lost, rows)
					return
				}
			}
		})
	}
	group.Wait()
	if n := len(c.encoders); n == 0 || n > maxEncoders {
		t.Errorf("%d encoders are kept, want 1 to %d", n, maxEncoders)
	}
}

func TestNothingLost(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := newCode(t, 4)
	data := randomRows(rng, 4, 8)
	got := clone(data)
	if err := c.Repair(got, nil, nil, nil); err != nil {
		t.Error(err)
	}
	if err := c.Encode(got, 0, nil); err != nil {
		t.Error(err)
	}
	if !slices.EqualFunc(got, data, bytes.Equal) {
		t.Error("data changed though nothing was lost")
	}
}

// TestAllZeros: rows that are nil throughout have parity, which is zeros.
func TestAllZeros(t *testing.T) {
	c := newCode(t, 7)
	parity := [][]byte{{1, 2, 3}, {4, 5, 6}}
	if err := c.Encode(make([][]byte, 7), 3, parity); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(slices.Concat(parity...), make([]byte, 6)) {
		t.Errorf("parity of zeros: %x", parity)
	}
}

func TestRefused(t *testing.T) {
	for _, k := range []int{-1, 0, 256} {
		if _, err := New(k); err == nil {
			t.Errorf("k %d was accepted", k)
		}
	}
	c := newCode(t, 4)
	rows := func(n, size int) [][]byte { return randomRows(rand.New(rand.NewPCG(1, 2)), n, size) }
	uneven := func() [][]byte { return [][]byte{make([]byte, 8), make([]byte, 9)} }
	for name, w := range map[string]struct {
		data       [][]byte
		lost, rows []int // no lost rows: Encode, from rows[0] on
		parity     [][]byte
		want       string
	}{
		"encode too few data rows":  {rows(3, 8), nil, []int{0}, rows(1, 8), "3 data rows, want 4"},
		"encode too many data rows": {rows(5, 8), nil, []int{0}, rows(1, 8), "5 data rows, want 4"},
		"encode rows that differ":   {rows(4, 8), nil, []int{0}, rows(1, 9), "data row 0 has 8 bytes"},
		"encode parity that differ": {rows(4, 8), nil, []int{0}, uneven(), "parity row 1 of those given has 9 bytes"},
		"encode row too high":       {rows(4, 8), nil, []int{252}, rows(1, 8), "there are 252"},
		"encode rows too high":      {rows(4, 8), nil, []int{251}, rows(2, 8), "there are 252"},
		"encode row below 0":        {rows(4, 8), nil, []int{-1}, rows(1, 8), "there are 252"},
		"encode empty rows":         {rows(4, 0), nil, []int{0}, rows(1, 0), "empty"},
		"more lost":                 {rows(4, 8), []int{1, 2}, []int{0}, rows(1, 8), "2 lost rows, 1 numbers"},
		"more parity":               {rows(4, 8), []int{1}, []int{0, 1}, rows(2, 8), "1 lost rows, 2 numbers"},
		"lost out of order":         {rows(4, 8), []int{2, 1}, []int{0, 1}, rows(2, 8), "lost row 1: want ascending"},
		"lost twice":                {rows(4, 8), []int{1, 1}, []int{0, 1}, rows(2, 8), "lost row 1: want ascending"},
		"lost beyond":               {rows(4, 8), []int{4}, []int{0}, rows(1, 8), "lost row 4"},
		"lost below":                {rows(4, 8), []int{-1}, []int{0}, rows(1, 8), "lost row -1"},
		"parity row twice":          {rows(4, 8), []int{1, 2}, []int{3, 3}, rows(2, 8), "parity row 3: want different"},
		"parity row beyond":         {rows(4, 8), []int{1}, []int{252}, rows(1, 8), "parity row 252"},
		"parity row below":          {rows(4, 8), []int{1}, []int{-1}, rows(1, 8), "parity row -1"},
		"lost row without room":     {[][]byte{make([]byte, 8), nil, nil, nil}, []int{1}, []int{0}, rows(1, 8), "lost row 1 is nil"},
		"lost row too short":        {[][]byte{make([]byte, 8), make([]byte, 3), nil, nil}, []int{1}, []int{0}, rows(1, 8), "data row 1 has 3 bytes"},
		"parity rows differ":        {rows(4, 8), []int{1, 2}, []int{0, 1}, uneven(), "parity row 1 of those given has 9 bytes"},
		"repair too few data rows":  {rows(3, 8), []int{1}, []int{0}, rows(1, 8), "3 data rows, want 4"},
		"repair empty rows":         {rows(4, 0), []int{1}, []int{0}, rows(1, 0), "empty"},
	} {
		data, parity := clone(w.data), clone(w.parity)
		var err error
		if w.lost == nil {
			err = c.Encode(data, w.rows[0], parity)
		} else {
			err = c.Repair(data, w.lost, w.rows, parity)
		}
		if err == nil || !strings.Contains(err.Error(), w.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, w.want)
		}
		if !slices.EqualFunc(data, w.data, bytes.Equal) || !slices.EqualFunc(parity, w.parity, bytes.Equal) {
			t.Errorf("%s: rows were written to", name)
		}
	}
}

// BenchmarkCode is 200+20 on one core, at the length of a symbol of either MTU
// and of the runs of symbols that a burst leaves.
func BenchmarkCode(b *testing.B) {
	const k, m = 200, 20
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1408, 8896, 32768} {
		data, parity := randomRows(rng, k, size), randomRows(rng, m, size)
		c := newCode(b, k)
		b.Run(fmt.Sprintf("encode/%d", size), func(b *testing.B) {
			b.SetBytes(int64(k * size))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Encode(data, 0, parity); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, e := range []int{1, m / 2, m} {
			b.Run(fmt.Sprintf("repair-%d/%d", e, size), func(b *testing.B) {
				b.SetBytes(int64(k * size))
				b.ReportAllocs()
				var lost, rows []int
				for i := range e {
					lost, rows = append(lost, i*k/e), append(rows, i)
				}
				for b.Loop() {
					if err := c.Repair(data, lost, rows, parity[:e]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
