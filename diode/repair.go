package diode

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/diode/fec"
)

// tileBytes is about how much of a generation is in memory while it is
// repaired or encoded: all rows of a few columns.
const tileBytes = 6 << 20

// tileColumns is how many columns that is.
func tileColumns(k, payload, columns int) int {
	return min(columns, max(1, tileBytes/(k*payload)))
}

// workPriority is a nice value.
const workPriority = 10

// A worker repairs generations, hashes what is whole, and moves objects to
// their names. One goroutine has it. There are two: what is small and urgent
// does not wait until gigabytes are hashed.
type worker struct {
	r     *Receiver
	codes map[int]*fec.Code
	tile  []byte // rows of the tile, one after the other
	par   []byte
}

// work is a worker's goroutine.
func (r *Receiver) work(jobs <-chan work) {
	// Repair and hashing can wait for packets, and packets cannot wait. The
	// thread ends with this goroutine.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, workPriority) // a wish
	w := &worker{r: r, codes: map[int]*fec.Code{}}
	for job := range jobs {
		if job.generation != nil {
			g := job.generation
			symbols, err := w.whole(g)
			if err != nil {
				r.fail(fmt.Errorf("repair generation %d of object %s: %w", g.n, g.object.files.dir, err))
				continue
			}
			r.later(func() { r.repaired(g, symbols) })
			continue
		}
		o := job.object
		err := w.finish(o.files)
		if err != nil && !errors.Is(err, ErrDigest) && !errors.Is(err, errName) {
			r.fail(fmt.Errorf("finish object %s: %w", o.files.dir, err))
			continue
		}
		r.later(func() { r.finished(o, err) })
	}
}

// whole makes a generation whole, takes note of it, drops what was kept for its
// repair, and hashes on. It answers how many symbols were repaired.
func (w *worker) whole(g *generation) (int, error) {
	symbols, err := w.repair(g)
	if err != nil {
		return 0, err
	}
	if err := g.unmap(); err != nil {
		return 0, err
	}
	f := g.object.files
	f.mu.Lock()
	setRange(f.complete, g.n, 1)
	f.whole = append(f.whole, g.n)
	f.changed = true
	f.mu.Unlock()
	return symbols, w.hash(f)
}

// repair computes the missing symbols of a generation.
func (w *worker) repair(g *generation) (int, error) {
	o := g.object
	missing := g.symbols - ones(g.live[mapHeader:], g.symbols)
	if missing == 0 {
		return 0, nil
	}
	code := w.codes[o.k]
	if code == nil {
		var err error
		if code, err = fec.New(o.k); err != nil {
			return 0, err
		}
		w.codes[o.k] = code
	}
	parity, err := o.files.parityFile(g.n)
	if err != nil {
		return 0, err
	}
	wide := tileColumns(o.k, o.payload, o.columns)
	for first := 0; first < o.columns; first += wide {
		if err := w.repairTile(g, code, parity, first, min(wide, o.columns-first)); err != nil {
			return 0, err
		}
	}
	return missing, nil
}

// A pattern is what a column lacks and what it has to mend that with.
type pattern struct {
	lost []int // data rows
	rows []int // parity rows, as many, counted from 0
}

func (p pattern) same(q pattern) bool {
	return slices.Equal(p.lost, q.lost) && slices.Equal(p.rows, q.rows)
}

// column reads the pattern of a column from the map. ok: it can be mended.
func (g *generation) pattern(column int) (p pattern, ok bool) {
	d, k := g.object.columns, g.object.k
	m := g.live[mapHeader:]
	for row := 0; row < k && row*d+column < g.symbols; row++ {
		if !bitSet(m, row*d+column) {
			p.lost = append(p.lost, row)
		}
	}
	for row := k; row < allRows && len(p.rows) < len(p.lost); row++ {
		if bitSet(m, row*d+column) {
			p.rows = append(p.rows, row-k)
		}
	}
	return p, len(p.rows) == len(p.lost)
}

// repairTile mends columns first to first+n-1, neighbours with one pattern
// together: that is what a burst leaves.
func (w *worker) repairTile(g *generation, code *fec.Code, parity *os.File, first, n int) error {
	var patterns []pattern
	damaged := false
	for c := range n {
		p, ok := g.pattern(first + c)
		if !ok {
			return fmt.Errorf("column %d lacks %d symbols and has %d parity symbols", first+c, len(p.lost), len(p.rows))
		}
		damaged = damaged || len(p.lost) > 0
		patterns = append(patterns, p)
	}
	if !damaged {
		return nil
	}
	rows, err := w.readTile(g, first, n)
	if err != nil {
		return err
	}
	size := g.object.payload
	for from := 0; from < n; {
		to := from + 1
		for to < n && patterns[to].same(patterns[from]) {
			to++
		}
		if p := patterns[from]; len(p.lost) > 0 {
			if err := w.mend(g, code, parity, p, rows, first, from*size, to*size); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}

// readTile reads all data rows of some columns; nil for rows that are known
// zeros.
func (w *worker) readTile(g *generation, first, n int) ([][]byte, error) {
	o := g.object
	wide := n * o.payload
	if len(w.tile) < o.k*wide {
		w.tile = make([]byte, o.k*wide)
	}
	rows := make([][]byte, o.k)
	for r := range rows {
		if r*o.columns+first >= g.symbols {
			break
		}
		row := w.tile[r*wide : (r+1)*wide]
		if err := readRow(o.files.data, o.geometry, g.n, r, first, row); err != nil {
			return nil, err
		}
		rows[r] = row
	}
	return rows, nil
}

// mend computes the lost rows of bytes from to to of the tile, and writes
// them.
func (w *worker) mend(g *generation, code *fec.Code, parity *os.File, p pattern, tile [][]byte, first, from, to int) error {
	o := g.object
	size := to - from
	if need := len(p.rows) * size; len(w.par) < need {
		w.par = make([]byte, need)
	}
	symbols := make([][]byte, len(p.rows))
	for i, row := range p.rows {
		symbols[i] = w.par[i*size : (i+1)*size]
		at := int64(row)*o.row() + int64(first)*int64(o.payload) + int64(from)
		if _, err := parity.ReadAt(symbols[i], at); err != nil {
			return err
		}
	}
	data := make([][]byte, len(tile))
	for r, row := range tile {
		if row != nil {
			data[r] = row[from:to]
		}
	}
	if err := code.Repair(data, p.lost, p.rows, symbols); err != nil {
		return err
	}
	for _, r := range p.lost {
		at := int64(g.n)*o.generation() + int64(r)*o.row() + int64(first)*int64(o.payload) + int64(from)
		if _, err := o.files.data.WriteAt(data[r][:min(int64(size), o.size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// hash takes in the generations that have become whole, in order.
func (w *worker) hash(f *objectFiles) error {
	buf := w.buffer()
	for f.hashed < f.geo.generations() && bitSet(f.complete, f.hashed) {
		at := int64(f.hashed) * f.geo.generation()
		for left := f.geo.bytes(f.hashed); left > 0; {
			p := buf[:min(left, int64(len(buf)))]
			if _, err := f.data.ReadAt(p, at); err != nil {
				return err
			}
			f.hash.Write(p)
			at += int64(len(p))
			left -= int64(len(p))
		}
		m, ok := f.hash.(encoding.BinaryMarshaler)
		if !ok {
			return errors.New("the state of SHA-256 cannot be saved")
		}
		state, err := m.MarshalBinary()
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.hashed++
		f.state = state
		f.mu.Unlock()
	}
	return nil
}

func (w *worker) buffer() []byte {
	const size = 1 << 20
	if len(w.tile) < size {
		w.tile = make([]byte, size)
	}
	return w.tile[:size]
}

// finish compares the digest and moves the object to its name.
func (w *worker) finish(f *objectFiles) error {
	if err := w.hash(f); err != nil {
		return err
	}
	err := w.place(f)
	if err != nil && !errors.Is(err, ErrDigest) && !errors.Is(err, errName) {
		return err
	}
	// The file has its name, or can never have it.
	return errors.Join(err, w.r.discard(f))
}

// errName says that a file cannot have its name: a folder has it, or a file has
// the name of its folder.
var errName = errors.New("the name is taken")

func nameTaken(err error) bool {
	return errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY)
}

func (w *worker) place(f *objectFiles) error {
	if sum := f.hash.Sum(nil); !bytes.Equal(sum, f.want[:]) {
		return fmt.Errorf("%s: %w: want sha256 %x, got %x", f.name, ErrDigest, f.want, sum)
	}
	if err := f.data.Sync(); err != nil {
		return err
	}
	name := f.name
	if w.r.c.ByDigest {
		name = fmt.Sprintf("sha256-%x", f.want)
	}
	inbox := w.r.inbox
	dir := path.Dir(name)
	err := inbox.MkdirAll(dir, 0o750)
	if err == nil {
		err = inbox.Rename(path.Join(stateDir, f.dir, dataFile), name)
	}
	if nameTaken(err) {
		return fmt.Errorf("%s: %w: %w", name, errName, err)
	}
	if err != nil {
		return err
	}
	// Every folder on the way may be new.
	for {
		if err := syncDir(inbox, dir); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
		dir = path.Dir(dir)
	}
}

// discard removes an object's folder.
func (r *Receiver) discard(f *objectFiles) error {
	if err := f.close(); err != nil {
		return err
	}
	if err := r.state.RemoveAll(f.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
