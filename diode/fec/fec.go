// Package fec is the erasure code of the link and of recovery volumes:
// systematic Reed-Solomon with a Cauchy matrix over GF(2^8).
//
// Specification: docs/diode-format.md, section "The code". Parity row i of k
// data rows is the sum over j of data[j] / ((k+i) xor j), polynomial 0x11d.
//
// Invariants: any k of the 256 rows determine the others; row i does not depend
// on how many rows are made. Arithmetic is that of klauspost/reedsolomon.
//
// Limits: k from 1 to 255, 256 rows in all.
package fec

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/reedsolomon"
)

// rows is how many there are in all: the field has no more points.
const rows = 256

// maxEncoders bounds the cache of choices of parity rows. A pass of parity is
// one, each number of lost symbols repaired from the first rows another.
const maxEncoders = 128

// A Code is the code of k data rows. It is safe for concurrent use.
type Code struct {
	k int

	mu       sync.Mutex
	encoders map[string]reedsolomon.Encoder // by the numbers of the parity rows
	zeros    []byte
	buffers  sync.Pool
}

// New makes the code of k data rows, 1 to 255.
func New(k int) (*Code, error) {
	if k < 1 || k >= rows {
		return nil, fmt.Errorf("erasure code: %d data rows, want 1 to %d", k, rows-1)
	}
	return &Code{k: k, encoders: make(map[string]reedsolomon.Encoder)}, nil
}

// K is the number of data rows.
func (c *Code) K() int { return c.k }

// MaxParity is the number of parity rows that exist.
func (c *Code) MaxParity() int { return rows - c.k }

// Coefficient is what data row j counts in parity row i: the definition of the
// code.
func Coefficient(k, i, j int) byte { return inverse[(k+i)^j] }

// encoder computes the parity rows named in list.
func (c *Code) encoder(list []byte) (reedsolomon.Encoder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.encoders[string(list)]; e != nil {
		return e, nil
	}
	matrix := make([][]byte, len(list))
	for n, i := range list {
		matrix[n] = make([]byte, c.k)
		for j := range matrix[n] {
			matrix[n][j] = Coefficient(c.k, int(i), j)
		}
	}
	e, err := reedsolomon.New(c.k, len(list), reedsolomon.WithCustomMatrix(matrix), reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, fmt.Errorf("erasure code %d+%d: %w", c.k, len(list), err)
	}
	if len(c.encoders) >= maxEncoders {
		clear(c.encoders)
	}
	c.encoders[string(list)] = e
	return e, nil
}

// zero is a row of n zeros, which nobody writes to.
func (c *Code) zero(n int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.zeros) < n {
		c.zeros = make([]byte, n)
	}
	return c.zeros[:n:n]
}

// shards is the argument of an encoder: all data rows, those in lost and those
// that are nil as zeros, and then the parity rows.
func (c *Code) shards(data [][]byte, lost []int, parity [][]byte) ([][]byte, error) {
	if len(data) != c.k {
		return nil, fmt.Errorf("erasure code: %d data rows, want %d", len(data), c.k)
	}
	size := len(parity[0])
	if size == 0 {
		return nil, errors.New("erasure code: rows are empty")
	}
	all := make([][]byte, c.k, c.k+len(parity))
	for j, row := range data {
		all[j] = row
		if row == nil {
			all[j] = c.zero(size)
		}
	}
	for _, j := range lost {
		all[j] = c.zero(size)
	}
	all = append(all, parity...)
	for i, row := range all {
		if len(row) != size {
			return nil, fmt.Errorf("erasure code: row %d has %d bytes, others %d", i, len(row), size)
		}
	}
	return all, nil
}

// Encode computes parity rows first, first+1 and so on into parity, whose rows
// are overwritten. A nil data row stands for zeros. All rows have one length.
func (c *Code) Encode(data [][]byte, first int, parity [][]byte) error {
	if len(parity) == 0 {
		return nil
	}
	if first < 0 || first+len(parity) > c.MaxParity() {
		return fmt.Errorf("erasure code: parity rows %d to %d, there are %d", first, first+len(parity)-1, c.MaxParity())
	}
	list := make([]byte, len(parity))
	for n := range list {
		list[n] = byte(first + n)
	}
	return c.encode(data, nil, list, parity)
}

func (c *Code) encode(data [][]byte, lost []int, list []byte, parity [][]byte) error {
	e, err := c.encoder(list)
	if err != nil {
		return err
	}
	all, err := c.shards(data, lost, parity)
	if err != nil {
		return err
	}
	return e.Encode(all)
}

// Repair computes the data rows named in lost, which ascend, into data, whose
// rows of those numbers have the length of the others and any content. A nil
// row stands for zeros. rows[i] is the number of the parity row in parity[i];
// there are as many as lost rows, all different. parity is overwritten.
//
// The parity of what is there, taken from the parity that was received, leaves
// that of the lost rows alone: as many equations as unknowns.
func (c *Code) Repair(data [][]byte, lost, rows []int, parity [][]byte) error {
	if len(lost) == 0 && len(parity) == 0 {
		return nil
	}
	list, err := c.choice(data, lost, rows, parity)
	if err != nil {
		return err
	}
	size := len(parity[0])
	known, put := c.buffer(len(lost), size)
	defer put()
	if err := c.encode(data, lost, list, known); err != nil {
		return err
	}
	for i := range known {
		if len(parity[i]) != size {
			return fmt.Errorf("erasure code: parity row %d has %d bytes, others %d", rows[i], len(parity[i]), size)
		}
		subtle.XORBytes(parity[i], parity[i], known[i])
	}
	solve, err := c.inverse(lost, rows)
	if err != nil {
		return err
	}
	if len(solve) == 1 {
		return multiply(data[lost[0]], parity[0], solve) //nolint:gosec // as many as rows in solve
	}
	e, err := reedsolomon.New(len(lost), len(lost), reedsolomon.WithCustomMatrix(solve), reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return fmt.Errorf("erasure code: solve for %d rows: %w", len(lost), err)
	}
	all := append(make([][]byte, 0, 2*len(lost)), parity...)
	for _, j := range lost {
		all = append(all, data[j])
	}
	return e.Encode(all)
}

// multiply is the same for one row.
func multiply(out, in []byte, solve [][]byte) error {
	if len(out) != len(in) {
		return fmt.Errorf("erasure code: the lost row has %d bytes, the parity row %d", len(out), len(in))
	}
	var table [256]byte
	for x := range table {
		table[x] = mul(byte(x), solve[0][0])
	}
	for i, x := range in {
		out[i] = table[x]
	}
	return nil
}

// choice checks the arguments of Repair.
func (c *Code) choice(data [][]byte, lost, rows []int, parity [][]byte) ([]byte, error) {
	if len(lost) != len(rows) || len(rows) != len(parity) {
		return nil, fmt.Errorf("erasure code: %d lost rows, %d numbers of parity rows, %d parity rows: want as many of each", len(lost), len(rows), len(parity))
	}
	if len(data) != c.k {
		return nil, fmt.Errorf("erasure code: %d data rows, want %d", len(data), c.k)
	}
	last := -1
	for _, j := range lost {
		if j <= last || j >= c.k {
			return nil, fmt.Errorf("erasure code: lost row %d: want ascending numbers below %d", j, c.k)
		}
		last = j
	}
	list := make([]byte, len(rows))
	var seen [256]bool
	for n, i := range rows {
		if i < 0 || i >= c.MaxParity() || seen[i] {
			return nil, fmt.Errorf("erasure code: parity row %d: want different numbers below %d", i, c.MaxParity())
		}
		seen[i] = true
		list[n] = byte(i)
	}
	return list, nil
}

// buffer lends n rows of a size.
func (c *Code) buffer(n, size int) (list [][]byte, put func()) {
	p, _ := c.buffers.Get().(*[]byte)
	if p == nil || len(*p) < n*size {
		b := make([]byte, n*size)
		p = &b
	}
	list = make([][]byte, n)
	for i := range list {
		list[i] = (*p)[i*size : (i+1)*size : (i+1)*size]
	}
	return list, func() { c.buffers.Put(p) }
}

// inverse inverts the part of the matrix that the lost rows and the parity
// rows have in common: a Cauchy matrix too, so it has an inverse.
func (c *Code) inverse(lost, rows []int) ([][]byte, error) {
	n := len(lost)
	m := make([][]byte, n)
	for i := range m {
		m[i] = make([]byte, 2*n)
		for j := range lost {
			m[i][j] = Coefficient(c.k, rows[i], lost[j])
		}
		m[i][n+i] = 1
	}
	for p := range n {
		at := p
		for at < n && m[at][p] == 0 {
			at++
		}
		if at == n {
			return nil, errors.New("erasure code: the rows do not determine the lost ones")
		}
		m[p], m[at] = m[at], m[p]
		if f := inverse[m[p][p]]; f != 1 {
			for x := range m[p] {
				m[p][x] = mul(m[p][x], f)
			}
		}
		for r := range m {
			if f := m[r][p]; r != p && f != 0 {
				for x := range m[r] {
					m[r][x] ^= mul(m[p][x], f)
				}
			}
		}
	}
	for i := range m {
		m[i] = m[i][n:]
	}
	return m, nil
}
