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

// points is how many rows there are in all: the field has no more elements.
const points = 256

// maxEncoders bounds the cache of choices of parity rows and lengths. A pass of
// parity is one and its last tile another, each number of lost symbols repaired
// from the first rows another.
const maxEncoders = 128

// segment is how much of each row is solved at a time, so that the rows at work
// stay in the processor's nearest caches.
const segment = 4 << 10

// A Code is the code of k data rows. It is safe for concurrent use.
type Code struct {
	k       int
	scratch sync.Pool // of *scratch

	mu       sync.Mutex
	encoders map[choice]reedsolomon.Encoder
	zeros    []byte
}

// A choice is what an encoder is made for.
type choice struct {
	rows string // numbers of the parity rows, a byte each
	size int    // of a row
}

// scratch is what one call needs beside its arguments.
type scratch struct {
	list   []byte   // numbers of the parity rows
	shards [][]byte // what an encoder takes: data rows, then parity rows
	known  [][]byte // parity of the rows that are there
	bytes  []byte   // what known points into
	matrix [][]byte // what is solved, with its inverse beside it
	cells  []byte   // what matrix points into
}

// New makes the code of k data rows, 1 to 255.
func New(k int) (*Code, error) {
	if k < 1 || k >= points {
		return nil, fmt.Errorf("erasure code: %d data rows, want 1 to %d", k, points-1)
	}
	return &Code{
		k:        k,
		scratch:  sync.Pool{New: func() any { return new(scratch) }},
		encoders: make(map[choice]reedsolomon.Encoder),
	}, nil
}

// K is the number of data rows.
func (c *Code) K() int { return c.k }

// MaxParity is the number of parity rows that exist.
func (c *Code) MaxParity() int { return points - c.k }

// Coefficient is what data row j counts in parity row i: the definition of the
// code.
func Coefficient(k, i, j int) byte { return reedsolomon.Inv(byte((k + i) ^ j)) }

// Encode computes parity rows first, first+1 and so on into parity, whose rows
// are overwritten. A nil data row stands for zeros. All rows have one length.
func (c *Code) Encode(data [][]byte, first int, parity [][]byte) error {
	if len(parity) == 0 {
		return nil
	}
	if first < 0 || first > c.MaxParity()-len(parity) {
		return fmt.Errorf("erasure code: %d parity rows from %d on, there are %d", len(parity), first, c.MaxParity())
	}
	if err := c.check(data, parity); err != nil {
		return err
	}
	s := c.borrow()
	defer c.giveBack(s)
	for i := range parity {
		s.list = append(s.list, byte(first+i))
	}
	return c.encode(s, data, nil, parity)
}

// Repair computes the data rows named in lost, which ascend, into data, whose
// rows of those numbers have the length of the others and any content. A nil
// row stands for zeros. rows[i] is the number of the parity row in parity[i];
// there are as many as lost rows, all different. parity is overwritten.
//
// The parity of what is there, taken from the parity that was received, leaves
// that of the lost rows alone: as many equations as unknowns.
func (c *Code) Repair(data [][]byte, lost, rows []int, parity [][]byte) error {
	if err := c.checkLost(data, lost, rows, parity); err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	s := c.borrow()
	defer c.giveBack(s)
	for _, i := range rows {
		s.list = append(s.list, byte(i))
	}
	known := s.rows(len(lost), len(parity[0]))
	if err := c.encode(s, data, lost, known); err != nil {
		return err
	}
	for i, row := range known {
		subtle.XORBytes(parity[i], parity[i], row)
	}
	solution, err := c.inverse(s, lost, rows)
	if err != nil {
		return err
	}
	multiply(data, lost, solution, parity)
	return nil
}

// check looks at the rows that every call has, before any is written to.
func (c *Code) check(data, parity [][]byte) error {
	if len(data) != c.k {
		return fmt.Errorf("erasure code: %d data rows, want %d", len(data), c.k)
	}
	size := len(parity[0])
	if size == 0 {
		return errors.New("erasure code: parity row 0 of those given is empty, want the length of a row")
	}
	for i, row := range parity {
		if len(row) != size {
			return fmt.Errorf("erasure code: parity row %d of those given has %d bytes, the first %d", i, len(row), size)
		}
	}
	for j, row := range data {
		if row != nil && len(row) != size {
			return fmt.Errorf("erasure code: data row %d has %d bytes, parity rows have %d", j, len(row), size)
		}
	}
	return nil
}

// checkLost looks at the arguments of Repair.
func (c *Code) checkLost(data [][]byte, lost, rows []int, parity [][]byte) error {
	if len(lost) != len(rows) || len(rows) != len(parity) {
		return fmt.Errorf("erasure code: %d lost rows, %d numbers of parity rows, %d parity rows: want as many of each", len(lost), len(rows), len(parity))
	}
	if len(lost) == 0 {
		return nil
	}
	if err := c.check(data, parity); err != nil {
		return err
	}
	last := -1
	for _, j := range lost {
		if j <= last || j >= c.k {
			return fmt.Errorf("erasure code: lost row %d: want ascending numbers from 0 to %d", j, c.k-1)
		}
		if data[j] == nil {
			return fmt.Errorf("erasure code: lost row %d is nil, want room for %d bytes", j, len(parity[0]))
		}
		last = j
	}
	var seen [points]bool
	for _, i := range rows {
		if i < 0 || i >= c.MaxParity() || seen[i] {
			return fmt.Errorf("erasure code: parity row %d: want different numbers from 0 to %d", i, c.MaxParity()-1)
		}
		seen[i] = true
	}
	return nil
}

// encode computes the parity rows that s lists, as if the lost rows were zeros.
func (c *Code) encode(s *scratch, data [][]byte, lost []int, parity [][]byte) error {
	e, zero, err := c.encoder(s.list, len(parity[0]))
	if err != nil {
		return err
	}
	s.shards = append(s.shards, data...)
	for j, row := range s.shards {
		if row == nil {
			s.shards[j] = zero
		}
	}
	for _, j := range lost {
		s.shards[j] = zero
	}
	s.shards = append(s.shards, parity...)
	return e.Encode(s.shards)
}

// encoder is what computes the parity rows named in list, and a row of zeros,
// which nobody writes to.
func (c *Code) encoder(list []byte, size int) (reedsolomon.Encoder, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.zeros) < size {
		c.zeros = make([]byte, size)
	}
	zero := c.zeros[:size:size]
	if e := c.encoders[choice{string(list), size}]; e != nil {
		return e, zero, nil
	}
	matrix := make([][]byte, len(list))
	for n, i := range list {
		matrix[n] = make([]byte, c.k)
		for j := range matrix[n] {
			matrix[n][j] = Coefficient(c.k, int(i), j)
		}
	}
	// The library leaves the field's own instructions (GFNI, three times as fast)
	// unused for more than ten rows unless it may divide the work: so it may, and
	// the least part is all of it.
	e, err := reedsolomon.New(c.k, len(list), reedsolomon.WithCustomMatrix(matrix),
		reedsolomon.WithMaxGoroutines(2), reedsolomon.WithMinSplitSize(max(1, size-1)), reedsolomon.WithInversionCache(false))
	if err != nil {
		return nil, nil, fmt.Errorf("erasure code %d+%d: %w", c.k, len(list), err)
	}
	if len(c.encoders) >= maxEncoders {
		clear(c.encoders)
	}
	c.encoders[choice{string(list), size}] = e
	return e, zero, nil
}

// inverse inverts the part of the matrix that the lost rows and the parity
// rows have in common: a Cauchy matrix too, so it has an inverse.
func (c *Code) inverse(s *scratch, lost, rows []int) ([][]byte, error) {
	n := len(lost)
	s.cells = append(s.cells, make([]byte, 2*n*n)...)
	for i := range n {
		row := s.cells[2*n*i : 2*n*(i+1)]
		for j := range n {
			row[j] = Coefficient(c.k, rows[i], lost[j])
		}
		row[n+i] = 1
		s.matrix = append(s.matrix, row)
	}
	var arithmetic reedsolomon.LowLevel
	for p, pivot := range s.matrix {
		// Every leading part of a Cauchy matrix has an inverse as well, so
		// elimination meets no zero here. A zero would be a fault of ours.
		if pivot[p] == 0 {
			return nil, fmt.Errorf("erasure code: parity rows %v do not determine data rows %v", rows, lost)
		}
		arithmetic.GalMulSlice(reedsolomon.Inv(pivot[p]), pivot, pivot)
		for r, row := range s.matrix {
			if r != p {
				arithmetic.GalMulSliceXor(row[p], pivot, row)
			}
		}
	}
	for i := range s.matrix {
		s.matrix[i] = s.matrix[i][n:]
	}
	return s.matrix, nil
}

// multiply computes the lost rows from their syndromes.
func multiply(data [][]byte, lost []int, solution, syndromes [][]byte) {
	var arithmetic reedsolomon.LowLevel
	size := len(syndromes[0])
	for from := 0; from < size; from += segment {
		to := min(from+segment, size)
		for i, j := range lost {
			out := data[j][from:to]
			arithmetic.GalMulSlice(solution[i][0], syndromes[0][from:to], out)
			for n := 1; n < len(syndromes); n++ {
				arithmetic.GalMulSliceXor(solution[i][n], syndromes[n][from:to], out)
			}
		}
	}
}

func (c *Code) borrow() *scratch {
	s, ok := c.scratch.Get().(*scratch)
	if !ok {
		return new(scratch)
	}
	return s
}

// giveBack keeps the room, and nothing of the caller's.
func (c *Code) giveBack(s *scratch) {
	clear(s.shards)
	s.list, s.shards, s.known = s.list[:0], s.shards[:0], s.known[:0]
	s.matrix, s.cells = s.matrix[:0], s.cells[:0]
	c.scratch.Put(s)
}

// rows are n rows of a size.
func (s *scratch) rows(n, size int) [][]byte {
	if len(s.bytes) < n*size {
		s.bytes = make([]byte, n*size)
	}
	for i := range n {
		s.known = append(s.known, s.bytes[i*size:(i+1)*size:(i+1)*size])
	}
	return s.known
}
