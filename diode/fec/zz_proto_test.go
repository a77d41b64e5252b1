package fec

import (
	"crypto/subtle"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/reedsolomon"
)

func measure(name string, bytes int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f()
	var all []time.Duration
	for range 400 {
		s := time.Now()
		n := 0
		for time.Since(s) < 2*time.Millisecond {
			f()
			n++
		}
		all = append(all, time.Since(s)/time.Duration(n))
	}
	slices.Sort(all)
	g := func(d time.Duration) float64 { return float64(bytes) * 8 / d.Seconds() / 1e9 }
	fmt.Printf("%-24s min %7.1f  p5 %7.1f  p25 %7.1f  median %7.1f Gb/s\n", name, g(all[0]), g(all[20]), g(all[100]), g(all[200]))
}

func TestProto(t *testing.T) {
	const k, m = 200, 20
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1408, 8896, 32768} {
		data, parity := randomRows(rng, k, size), randomRows(rng, m, size)
		c, _ := New(k)
		measure(fmt.Sprintf("encode %d", size), k*size, func() { c.Encode(data, 0, parity) })
		for _, e := range []int{1, 10, 20} {
			var lost, rows []int
			for i := range e {
				lost, rows = append(lost, i*k/e), append(rows, i)
			}
			measure(fmt.Sprintf("repair %d %d", e, size), k*size, func() { c.Repair(data, lost, rows, parity[:e]) })
		}
		// groups of ten
		var enc [20][2]reedsolomon.Encoder
		for g := range 20 {
			for h := range 2 {
				mat := make([][]byte, 10)
				for i := range mat {
					for j := range 10 {
						mat[i] = append(mat[i], Coefficient(k, h*10+i, g*10+j))
					}
				}
				enc[g][h], _ = reedsolomon.New(10, 10, reedsolomon.WithCustomMatrix(mat), reedsolomon.WithMaxGoroutines(1))
			}
		}
		tmp := randomRows(rng, 10, size)
		out := randomRows(rng, 20, size)
		all := make([][]byte, 20)
		measure(fmt.Sprintf("grouped encode %d", size), k*size, func() {
			for g := range 20 {
				copy(all, data[g*10:g*10+10])
				for h := range 2 {
					if g == 0 {
						copy(all[10:], out[h*10:h*10+10])
						enc[g][h].Encode(all)
						continue
					}
					copy(all[10:], tmp)
					enc[g][h].Encode(all)
					for i := range 10 {
						subtle.XORBytes(out[h*10+i], out[h*10+i], tmp[i])
					}
				}
			}
		})
		ref := randomRows(rng, 20, size)
		c.Encode(data, 0, ref)
		for i := range ref {
			if string(ref[i]) != string(out[i]) {
				t.Fatal("differs", i)
			}
		}
	}
}
