package fec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// times multiplies in the field bit by bit, apart from the tables.
func times(a, b byte) byte {
	var p byte
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		high := a & 0x80
		if a <<= 1; high != 0 {
			a ^= 0x1d
		}
	}
	return p
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

// TestAnyRows: any choice of parity rows brings back as many data rows.
func TestAnyRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 400 {
		k := 1 + rng.IntN(255)
		switch n {
		case 0:
			k = 1
		case 1:
			k = 255
		case 2:
			k = 200
		}
		c, err := New(k)
		if err != nil {
			t.Fatal(err)
		}
		size := 1 + rng.IntN(100)
		data := randomRows(rng, k, size)
		for j := range data {
			if rng.IntN(9) == 0 {
				data[j] = nil // zeros
			}
		}
		m := min(c.MaxParity(), 40)
		first := rng.IntN(c.MaxParity() - m + 1)
		parity := randomRows(rng, m, size) // overwritten
		if err := c.Encode(data, first, parity); err != nil {
			t.Fatal(err)
		}
		for i := range parity {
			for x := range size {
				var sum byte
				for j := range data {
					if data[j] != nil {
						sum ^= times(data[j][x], Coefficient(k, first+i, j))
					}
				}
				if sum != parity[i][x] {
					t.Fatalf("k %d, parity row %d, byte %d: %d, want %d", k, first+i, x, parity[i][x], sum)
				}
			}
		}
		lost := rng.Perm(k)[:1+rng.IntN(min(m, k))]
		slices.Sort(lost)
		got := make([][]byte, k)
		for j := range data {
			got[j] = bytes.Clone(data[j])
		}
		for _, j := range lost {
			got[j] = bytes.Repeat([]byte{7}, size)
		}
		var rows []int
		var chosen [][]byte
		for _, i := range rng.Perm(m)[:len(lost)] {
			rows = append(rows, first+i)
			chosen = append(chosen, bytes.Clone(parity[i]))
		}
		if err := c.Repair(got, lost, rows, chosen); err != nil {
			t.Fatal(err)
		}
		for j := range data {
			want := data[j]
			if want == nil && got[j] != nil {
				want = make([]byte, size)
			}
			if !bytes.Equal(got[j], want) {
				t.Fatalf("k %d, lost %v, rows %v: row %d differs", k, lost, rows, j)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, k := range []int{-1, 0, 256} {
		if _, err := New(k); err == nil {
			t.Errorf("k %d was accepted", k)
		}
	}
	c, err := New(4)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rows := func(n, size int) [][]byte { return randomRows(rng, n, size) }
	for name, err := range map[string]error{
		"too few data rows":   c.Encode(rows(3, 8), 0, rows(1, 8)),
		"rows that differ":    c.Encode(rows(4, 8), 0, rows(1, 9)),
		"no such parity row":  c.Encode(rows(4, 8), 252, rows(1, 8)),
		"empty rows":          c.Encode(rows(4, 0), 0, rows(1, 0)),
		"more lost":           c.Repair(rows(4, 8), []int{1, 2}, []int{0}, rows(1, 8)),
		"lost out of order":   c.Repair(rows(4, 8), []int{2, 1}, []int{0, 1}, rows(2, 8)),
		"lost beyond":         c.Repair(rows(4, 8), []int{4}, []int{0}, rows(1, 8)),
		"parity row twice":    c.Repair(rows(4, 8), []int{1, 2}, []int{3, 3}, rows(2, 8)),
		"parity row beyond":   c.Repair(rows(4, 8), []int{1}, []int{252}, rows(1, 8)),
		"lost row too short":  c.Repair([][]byte{make([]byte, 8), make([]byte, 3), nil, nil}, []int{1}, []int{0}, rows(1, 8)),
		"parity rows differ":  c.Repair(rows(4, 8), []int{1, 2}, []int{0, 1}, [][]byte{make([]byte, 8), make([]byte, 9)}),
		"too few data rows 2": c.Repair(rows(3, 8), []int{1}, []int{0}, rows(1, 8)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// BenchmarkCode is 200+20, one core, at the length of a symbol and of the runs
// of symbols that a burst leaves.
func BenchmarkCode(b *testing.B) {
	const k, m = 200, 20
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1408, 8896, 32768} {
		data, parity := randomRows(rng, k, size), randomRows(rng, m, size)
		c, err := New(k)
		if err != nil {
			b.Fatal(err)
		}
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
