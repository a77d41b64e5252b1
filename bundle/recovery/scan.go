package recovery

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// chunkSize is one read, at least a block.
const chunkSize = 1 << 20

// maxFolders bounds the media of a run: their numbers are kept in 16 bits for
// each block.
const maxFolders = 1<<16 - 2

// A scan is what one look at all media found.
type scan struct {
	*set
	folders []*folder
	// where tells, for each block, the folder that has it right, from 1.
	where        []uint16
	targetStates []targetState
	lost         []int32 // of each column: blocks that are nowhere
	buf          []byte
}

// targetState is what was found of one file.
type targetState struct {
	there bool // a medium has one
	whole bool // a medium has it right
	wrong bool // a medium has it otherwise
	// extra are bytes that are wrong outside of blocks, in the last wrong copy.
	extra [][2]int64
}

// right reports that a medium has the file, and none has it otherwise.
func (ts *targetState) right() bool { return ts.whole && !ts.wrong }

// Check reads every byte of every medium once and says what is damaged; an
// index is read once more to begin with. The media are folders of one bundle,
// or folders that hold one. Nothing is written. A bundle that no signature was
// looked at may be whole: this finds damage, not forgery.
func Check(ctx context.Context, media ...string) (st *State, err error) {
	s, folders, err := openMedia(media)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeMedia(folders)) }()
	sc, err := look(ctx, s, folders)
	if err != nil {
		return nil, err
	}
	return sc.state(), nil
}

// look reads everything.
func look(ctx context.Context, s *set, folders []*folder) (*scan, error) {
	if len(folders) > maxFolders {
		return nil, errors.New("recovery: too many media")
	}
	sc := &scan{
		set: s, folders: folders, where: make([]uint16, s.units()), targetStates: make([]targetState, s.targetCount()),
		lost: make([]int32, s.Columns), buf: make([]byte, max(chunkSize, s.Block)),
	}
	for n, f := range folders {
		for t := range sc.targetStates {
			if err := sc.lookAt(ctx, uint16(n+1), f, t); err != nil {
				return nil, err
			}
		}
	}
	for unit, w := range sc.where {
		if w == 0 {
			sc.lost[s.column(int64(unit))]++
		}
	}
	return sc, nil
}

// lookAt reads one file of one folder. Whatever the medium does is damage; an
// error is the caller's wish to stop.
func (sc *scan) lookAt(ctx context.Context, nth uint16, f *folder, target int) (err error) {
	file, size, err := openRegular(f.root, f.name(sc.path(target)))
	if err != nil {
		return ctx.Err() // missing, or as good as that
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	st := &sc.targetStates[target]
	st.there = true
	var extra [][2]int64
	right, err := sc.readBlocks(ctx, file, target, nth)
	if err != nil {
		return err
	}
	if target >= len(sc.Files) {
		n := target - len(sc.Files)
		extra = sc.compare(file, sc.start(n), 0, extra)
		extra = sc.compare(file, sc.end(n), sc.bodyAt()+sc.bodyLen(n), extra)
	}
	if want := sc.size(target); size > want {
		extra = append(extra, [2]int64{want, size})
	}
	if right && len(extra) == 0 && size == sc.size(target) {
		st.whole = true
		return nil
	}
	st.wrong, st.extra = true, extra
	return nil
}

// readBlocks reads the blocks of a file from front to end, and reports whether
// all are right.
func (sc *scan) readBlocks(ctx context.Context, file io.ReaderAt, target int, nth uint16) (bool, error) {
	right := true
	count, step := sc.unitCount(target), int64(len(sc.buf))/sc.Block
	for n := int64(0); n < count; n += step {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		many := min(step, count-n)
		_, off, _ := sc.at(target, n)
		_, last, size := sc.at(target, n+many-1)
		p := sc.buf[:last+size-off]
		got, err := file.ReadAt(p, off)
		for i := n; i < n+many; i++ {
			unit, at, size := sc.at(target, i)
			q := p[at-off:][:size]
			if at-off+size > int64(got) {
				if errors.Is(err, io.EOF) {
					right = false
					continue // the file ends here
				}
				// A bad sector: what lies behind it may be good.
				if m, _ := file.ReadAt(q, at); m < len(q) {
					right = false
					continue
				}
			}
			switch {
			case sumOf(q) != sc.sum(unit):
				right = false
			case sc.where[unit] == 0:
				sc.where[unit] = nth
			}
		}
	}
	return right, nil
}

// compare looks for bytes that are not as they should be, and adds one range.
func (sc *scan) compare(file io.ReaderAt, want []byte, off int64, to [][2]int64) [][2]int64 {
	first, last := int64(-1), int64(0)
	for at := 0; at < len(want); at += len(sc.buf) {
		w := want[at:min(at+len(sc.buf), len(want))]
		p := sc.buf[:len(w)]
		n, _ := file.ReadAt(p, off+int64(at))
		clear(p[n:])
		if n == len(w) && bytes.Equal(p, w) {
			continue
		}
		for i := range w {
			if i >= n || p[i] != w[i] {
				if first < 0 {
					first = off + int64(at+i)
				}
				last = off + int64(at+i) + 1
			}
		}
	}
	if first >= 0 {
		to = append(to, [2]int64{first, last})
	}
	return to
}

// state says what was found.
func (sc *scan) state() *State {
	st := &State{Name: sc.Bundle, Repairable: true}
	for t, ts := range sc.targetStates {
		if ts.right() {
			continue
		}
		d := sc.damage(t)
		st.Repairable = st.Repairable && d.Repairable
		if t < len(sc.Files) {
			st.Damaged = append(st.Damaged, d)
		} else {
			st.Recovery = append(st.Recovery, d)
		}
	}
	st.Whole = len(st.Damaged)+len(st.Recovery) == 0
	return st
}

func (sc *scan) damage(target int) Damage {
	ts := sc.targetStates[target]
	d := Damage{Path: sc.path(target), Missing: !ts.there, Repairable: true}
	for n := range sc.unitCount(target) {
		unit, off, size := sc.at(target, n)
		if sc.where[unit] != 0 {
			continue
		}
		d.Blocks++
		d.addRange(off, off+size)
		d.Repairable = d.Repairable && sc.solvable(sc.column(unit))
	}
	switch {
	case d.Missing:
		d.Bytes, d.Ranges = sc.size(target), [][2]int64{{0, sc.size(target)}}
	case !ts.whole:
		for _, r := range ts.extra {
			d.addRange(r[0], r[1])
		}
	}
	return d
}

// solvable reports whether a column has enough blocks left.
func (sc *scan) solvable(column int64) bool { return int(sc.lost[column]) <= sc.Parity }
