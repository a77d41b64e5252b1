package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/diode/fec"
	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// Repair writes whole copies of the files that [Check] names, recovery files
// included, into a folder of the bundle's name below out. With that folder
// named before them, so that its copies are taken first, the media hold the
// bundle again. Where nothing is damaged nothing is written.
//
// It says what it found. Where a column has lost more blocks than it has
// parity the error is an ERR_RECOVERY refusal that names files and ranges, and
// out is as it was. A folder that is there already is left as it is if it
// holds what is needed, and refused if not. What a killed run left in out is
// removed.
func Repair(ctx context.Context, out string, media ...string) (*State, error) {
	return repairWith(ctx, out, realDisk(), media)
}

func repairWith(ctx context.Context, out string, on disk, media []string) (_ *State, err error) {
	s, folders, err := openMedia(media)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeMedia(folders)) }()
	sc, err := look(ctx, s, folders)
	if err != nil {
		return nil, err
	}
	st := sc.state()
	switch {
	case !st.Repairable:
		return nil, st.beyond()
	case st.Whole:
		return st, nil
	}
	r := &repairer{scan: sc, open: newOpenFiles(), disk: on}
	for t, ts := range sc.targetStates {
		if !ts.right() {
			r.wanted = append(r.wanted, t)
		}
	}
	defer func() { err = errors.Join(err, r.open.close()) }()
	if err := r.run(ctx, out); err != nil {
		return nil, err
	}
	return st, nil
}

// A repairer writes the targets that are wanted.
type repairer struct {
	*scan
	open *openFiles
	disk
	wanted []int
	code   *fec.Code

	// Of the files at work: by target, and the blocks that are not written.
	outs map[int]output
	todo []bool
}

// run writes a folder and gives it its name.
func (r *repairer) run(ctx context.Context, out string) (err error) {
	if err := r.refuseInside(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, dirMode); err != nil {
		return err
	}
	root, err := os.OpenRoot(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	tmp := tempDir + r.Bundle
	if err := sweep(root, tmp); err != nil {
		return err
	}
	if there, err := exists(root, r.Bundle); err != nil || there {
		return errors.Join(err, r.keep(ctx, out, root))
	}
	if err := root.Mkdir(tmp, dirMode); err != nil {
		return err
	}
	failpoint.Here("recovery.repair-tmpdir")
	defer func() {
		// After the rename this finds nothing.
		err = errors.Join(err, root.RemoveAll(tmp))
	}()
	if err := r.fill(ctx, root, tmp); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.syncDirs(out, tmp); err != nil {
		return err
	}
	failpoint.Here("recovery.repair-folders-synced")
	if err := root.Rename(tmp, r.Bundle); err != nil {
		return err
	}
	failpoint.Here("recovery.repair-renamed")
	if err := r.syncDir(out); err != nil {
		return err
	}
	failpoint.Here("recovery.repair-out-synced")
	return nil
}

// refuseInside refuses an output that is, or lies in, a folder that is only
// read.
func (r *repairer) refuseInside(out string) error {
	at, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	made := filepath.Join(at, r.Bundle)
	lies, err := filepath.EvalSymlinks(at)
	for errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		lies, err = filepath.EvalSymlinks(at)
	}
	if err != nil {
		return err
	}
	for dir := made; ; dir, lies = lies, filepath.Dir(lies) {
		info, err := os.Stat(dir)
		for _, f := range r.folders {
			theirs, ferr := f.root.Stat(f.name("."))
			if err == nil && ferr == nil && os.SameFile(info, theirs) {
				return fmt.Errorf("repair %s: the output %s is in the folder %s, which is only read; choose another", r.Bundle, out, f)
			}
		}
		if dir == lies {
			return nil
		}
	}
}

// keep looks whether the folder that is there holds what is wanted.
func (r *repairer) keep(ctx context.Context, out string, root *os.Root) error {
	f := &folder{root: root, sub: r.Bundle}
	have, err := look(ctx, r.set, []*folder{f})
	if err != nil {
		return err
	}
	for _, t := range r.wanted {
		if !have.targetStates[t].whole {
			return fmt.Errorf("repair %s: %s is already there and lacks %s, or has it otherwise; remove it, or choose another folder", r.Bundle, f, r.path(t))
		}
	}
	// An earlier run may have died just before this.
	return r.syncDir(out)
}

// maxOuts bounds the files that are written at once.
const maxOuts = 128

// fill writes all files of the folder.
func (r *repairer) fill(ctx context.Context, root *os.Root, tmp string) (err error) {
	if r.code, err = fec.New(r.Data); err != nil {
		return err
	}
	r.todo = make([]bool, r.units())
	for batch := range slices.Chunk(r.wanted, maxOuts) {
		if err := r.fillFiles(ctx, root, tmp, batch); err != nil {
			return err
		}
	}
	return nil
}

// fillFiles writes some files: first what is right, from front to end, then
// the blocks between, column by column.
func (r *repairer) fillFiles(ctx context.Context, root *os.Root, tmp string, batch []int) (err error) {
	r.outs = make(map[int]output, len(batch))
	defer func() {
		for _, out := range r.outs {
			err = errors.Join(err, out.Close())
		}
	}()
	clear(r.todo)
	for _, t := range batch {
		name := path.Join(tmp, r.path(t))
		if err := root.MkdirAll(path.Dir(name), dirMode); err != nil {
			return err
		}
		out, err := r.create(root, name)
		if err != nil {
			return err
		}
		r.outs[t] = out
		failpoint.Here("recovery.repair-file-created")
		if err := r.copyRight(ctx, t); err != nil {
			return err
		}
		failpoint.Here("recovery.repair-file-copied")
	}
	if err := r.solveAll(ctx); err != nil {
		return err
	}
	for _, t := range batch {
		if t >= len(r.Files) {
			err = finish(r.outs[t], r.set, t-len(r.Files))
		} else {
			err = r.outs[t].Sync()
		}
		if err != nil {
			return err
		}
		failpoint.Here("recovery.repair-file-synced")
	}
	return nil
}

// copyRight copies the blocks of a file that some medium has.
func (r *repairer) copyRight(ctx context.Context, target int) error {
	buf := make([]byte, r.Block)
	for n := range r.unitCount(target) {
		if err := ctx.Err(); err != nil {
			return err
		}
		unit, off, size := r.at(target, n)
		if !r.load(unit, buf[:size]) {
			r.todo[unit] = true
			continue
		}
		if _, err := r.outs[target].WriteAt(buf[:size], off); err != nil {
			return err
		}
	}
	return nil
}

// load reads a block that some medium had right, and looks whether it still
// is: a medium may answer otherwise the second time.
func (r *repairer) load(unit int64, p []byte) bool {
	nth := int(r.where[unit])
	if nth == 0 {
		return false
	}
	if r.loadFrom(r.folders[nth-1], unit, p) {
		return true
	}
	for i, f := range r.folders {
		if i != nth-1 && r.loadFrom(f, unit, p) {
			return true
		}
	}
	return false
}

func (r *repairer) loadFrom(f *folder, unit int64, p []byte) bool {
	target, off, _ := r.find(unit)
	return r.open.readAt(f.root, f.name(r.path(target)), p, off) == nil && sumOf(p) == r.sum(unit)
}

// workers is how many columns are solved beside each other: one reads while
// another computes.
const workers = 2

// solveAll writes the blocks that are left.
func (r *repairer) solveAll(ctx context.Context) error {
	need := make([]bool, r.Columns)
	for unit, todo := range r.todo {
		if todo {
			need[r.column(int64(unit))] = true
		}
	}
	free := make(chan *codeword, workers)
	for range workers {
		free <- &codeword{}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for c, needed := range need {
		if gctx.Err() != nil {
			break
		}
		if !needed {
			continue
		}
		g.Go(func() error {
			w := <-free
			defer func() { free <- w }()
			w.prepare(r.index)
			return r.solve(w, int64(c))
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// syncDirs makes the names in the folder survive a power loss.
func (r *repairer) syncDirs(out, tmp string) error {
	dirs := map[string]bool{".": true}
	for _, t := range r.wanted {
		for dir := path.Dir(r.path(t)); dir != "."; dir = path.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		if err := r.syncDir(filepath.Join(out, tmp, dir)); err != nil {
			return err
		}
	}
	return nil
}
