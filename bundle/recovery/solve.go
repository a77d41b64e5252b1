package recovery

import (
	"fmt"

	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// A codeword is the room for one column.
type codeword struct {
	buf    []byte
	data   [][]byte // nil where a row has no block
	lost   []int    // rows of data
	rows   []int    // numbers of the rows in parity
	parity [][]byte
}

// prepare makes room, once.
func (w *codeword) prepare(ix *index) {
	if w.buf == nil {
		w.buf = make([]byte, int64(ix.Data+ix.Parity)*ix.Block)
		w.data = make([][]byte, ix.Data)
	}
	w.lost, w.rows, w.parity = w.lost[:0], w.rows[:0], w.parity[:0]
}

// row is the room of a row, data rows first.
func (w *codeword) row(ix *index, n int) []byte {
	return w.buf[int64(n)*ix.Block:][:ix.Block]
}

// solve repairs one column and writes what is not written of it.
func (r *repairer) solve(w *codeword, column int64) error {
	for row := range r.Data {
		unit, ok := r.unit(row, column)
		if !ok {
			w.data[row] = nil
			continue
		}
		_, _, size := r.find(unit)
		p := w.row(r.index, row)
		w.data[row] = p
		if !r.load(unit, p[:size]) {
			w.lost = append(w.lost, row)
		}
		clear(p[size:])
	}
	if err := r.solveData(w, column); err != nil {
		return err
	}
	for row := range r.Data {
		unit, ok := r.unit(row, column)
		if !ok || !r.todo[unit] {
			continue
		}
		if err := r.put(unit, w.data[row]); err != nil {
			return err
		}
	}
	if err := r.solveParity(w, column); err != nil {
		return err
	}
	failpoint.Here("recovery.repair-column-written")
	return nil
}

// solveData computes the lost rows of data.
func (r *repairer) solveData(w *codeword, column int64) error {
	for i := 0; i < r.Parity && len(w.rows) < len(w.lost); i++ {
		unit, _ := r.unit(r.Data+i, column)
		if p := w.row(r.index, r.Data+len(w.rows)); r.load(unit, p) {
			w.rows, w.parity = append(w.rows, i), append(w.parity, p)
		}
	}
	if len(w.rows) < len(w.lost) {
		// Before anything was written there were enough.
		return refusal(CodeRecovery, r.Bundle, fmt.Sprintf("blocks that were right are not any more: %d of column %d are lost, and %d of parity are left; copy the media to a disk and repair from there", len(w.lost), column, len(w.rows)), nil)
	}
	if err := r.code.Repair(w.data, w.lost, w.rows, w.parity); err != nil {
		return err
	}
	for _, row := range w.lost {
		unit, _ := r.unit(row, column)
		target, off, size := r.find(unit)
		if sumOf(w.data[row][:size]) != r.sum(unit) {
			return r.wrongIndex(target, off, size)
		}
	}
	return nil
}

// solveParity computes the rows of parity that are wanted, in runs.
func (r *repairer) solveParity(w *codeword, column int64) error {
	wanted := func(i int) bool {
		if i >= r.Parity {
			return false
		}
		unit, _ := r.unit(r.Data+i, column)
		return r.todo[unit]
	}
	for first := 0; first < r.Parity; first++ {
		w.parity = w.parity[:0]
		for i := first; wanted(i); i++ {
			w.parity = append(w.parity, w.row(r.index, r.Data+i))
		}
		if err := r.code.Encode(w.data, first, w.parity); err != nil {
			return err
		}
		for _, p := range w.parity {
			unit, _ := r.unit(r.Data+first, column)
			if target, off, size := r.find(unit); sumOf(p) != r.sum(unit) {
				return r.wrongIndex(target, off, size)
			}
			if err := r.put(unit, p); err != nil {
				return err
			}
			first++
		}
	}
	return nil
}

// wrongIndex refuses what was computed. All the blocks that it was computed
// from have their digests.
func (r *repairer) wrongIndex(target int, off, size int64) error {
	return refusal(CodeRecovery, r.Bundle, fmt.Sprintf("%s: bytes %d-%d were computed and are not what the index says: the recovery files contradict themselves; use others", r.path(target), off, off+size-1), nil)
}

// put writes a block where it belongs.
func (r *repairer) put(unit int64, p []byte) error {
	target, off, size := r.find(unit)
	_, err := r.outs[target].WriteAt(p[:size], off)
	return err
}
