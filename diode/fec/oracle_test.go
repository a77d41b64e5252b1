package fec

import "testing"

// The code again, slowly and apart from fec.go: no tables, no matrix of the
// library, a decoder that knows nothing of syndromes. It is about as long as an
// implementer's would be.

// times multiplies in the field bit by bit.
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

// over is 1/a, which is a to the power of 254 = 2+4+8+16+32+64+128.
func over(a byte) byte {
	p := byte(1)
	for range 7 {
		a = times(a, a)
		p = times(p, a)
	}
	return p
}

// slowParity is parity row i.
func slowParity(data [][]byte, i, size int) []byte {
	row := make([]byte, size)
	for j, d := range data {
		if d == nil {
			continue
		}
		f := over(byte((len(data) + i) ^ j))
		for x := range row {
			row[x] ^= times(d[x], f)
		}
	}
	return row
}

// slowDecode finds all data rows from any k rows, whose numbers count data rows
// first: Gaussian elimination of k equations with k unknowns.
func slowDecode(t *testing.T, k int, numbers []int, rows [][]byte) [][]byte {
	t.Helper()
	m := make([][]byte, k) // a row: k coefficients, then what they make
	for n, number := range numbers {
		m[n] = make([]byte, k, k+len(rows[n]))
		for j := range k {
			switch {
			case number >= k:
				m[n][j] = over(byte(number ^ j))
			case number == j:
				m[n][j] = 1
			}
		}
		m[n] = append(m[n], rows[n]...)
	}
	for p := range k {
		at := p
		for at < k && m[at][p] == 0 {
			at++
		}
		if at == k {
			t.Fatalf("rows %v of k %d do not determine the data", numbers, k)
		}
		m[p], m[at] = m[at], m[p]
		scale(m[p], over(m[p][p]))
		for r := range m {
			if f := m[r][p]; r != p && f != 0 {
				for x, v := range m[p] {
					m[r][x] ^= times(v, f)
				}
			}
		}
	}
	for j := range m {
		m[j] = m[j][k:]
	}
	return m
}

func scale(row []byte, f byte) {
	for x := range row {
		row[x] = times(row[x], f)
	}
}
