package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/diode/fec"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Create writes recovery files for the bundle in dir into its folder recovery/.
// Make them last: after every signature, in the cut that is carried. A bundle
// whose files do not have their sizes is refused; whether their bytes are
// right is for the caller to know, since each is read once.
//
// Files that are already there and right are left as they are. Where the
// folder recovery/ holds something else the run is refused. What a killed run
// left is removed.
func Create(ctx context.Context, dir string, o Options) (*Made, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := refuseHalf(dir); err != nil {
		return nil, err
	}
	return createWith(ctx, dir, o, realDisk())
}

// refuseHalf refuses a folder that is no bundle, or lacks something: recovery
// files would keep it so.
func refuseHalf(dir string) (err error) {
	r, err := bundle.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if !r.Encrypted() {
		if _, err := r.Unverified(); err != nil {
			return err
		}
	}
	volumes, err := r.Volumes()
	if err != nil {
		return err
	}
	var errs []error
	for i := range volumes {
		errs = append(errs, volumes[i].Err(len(volumes)))
	}
	return errors.Join(errs...)
}

func createWith(ctx context.Context, dir string, o Options, on disk) (_ *Made, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("make recovery files: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := sweep(root, tempDir+"new"); err != nil {
		return nil, err
	}
	files, err := listFiles(root)
	if err != nil {
		return nil, fmt.Errorf("make recovery files for %s: %w", dir, err)
	}
	ix, err := plan(filepath.Base(dir), files, o)
	if err != nil {
		return nil, err
	}
	if _, err := root.Lstat(recoveryDir); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, err
		}
		return keep(ctx, dir, root, ix, on)
	}
	m := &maker{ix: ix, root: root, open: newOpenFiles(), disk: on, event: o.OnEvent}
	defer func() { err = errors.Join(err, m.open.close()) }()
	if m.event == nil {
		m.event = func(artifact.Event) {}
	}
	s, err := m.run(ctx, dir)
	if err != nil {
		return nil, err
	}
	return made(s), nil
}

// sweep removes what a killed run left.
func sweep(root *os.Root, name string) error {
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	return nil
}

func made(s *set) *Made {
	out := &Made{Files: len(s.Rows), DataBlocks: s.Data, ParityBlocks: s.Parity, Block: s.Block, Survives: s.survives()}
	for i := range s.Rows {
		out.Bytes += s.size(len(s.Files) + i)
	}
	return out
}

// keep looks whether the recovery files that are there are those that would be
// made.
func keep(ctx context.Context, dir string, root *os.Root, ix *index, on disk) (*Made, error) {
	there := func(format string, args ...any) error {
		return fmt.Errorf("%s is already there: %w; remove it first", filepath.Join(dir, recoveryDir), fmt.Errorf(format, args...))
	}
	f := &folder{root: root}
	s, err := findSet([]*folder{f})
	if err != nil {
		return nil, there("%w", err)
	}
	have, err := s.head()
	if err != nil {
		return nil, err
	}
	want, err := ix.head()
	if err != nil {
		return nil, err
	}
	if string(have) != string(want) {
		return nil, there("it is for other files, or was made with other options")
	}
	sc, err := look(ctx, s, []*folder{f})
	if err != nil {
		return nil, err
	}
	if st := sc.state(); !st.Whole {
		return nil, there("it does not fit what is there now: %s", first(st))
	}
	// An earlier run may have died just before this.
	if err := on.syncDir(dir); err != nil {
		return nil, err
	}
	return made(s), nil
}

// first names one damaged file.
func first(st *State) string {
	if len(st.Damaged) > 0 {
		return st.Damaged[0].String()
	}
	return st.Recovery[0].String()
}

// A maker writes recovery files.
type maker struct {
	ix   *index
	root *os.Root // the bundle's folder
	open *openFiles
	disk
	event func(artifact.Event)

	code  *fec.Code
	body  int64 // where parity begins in each file
	outs  []output
	at    []int64 // of each, in its parity
	block []byte  // of parity: a column
}

// run writes a folder and gives it its name.
func (m *maker) run(ctx context.Context, dir string) (_ *set, err error) {
	tmp := tempDir + "new"
	if err := m.root.Mkdir(tmp, dirMode); err != nil {
		return nil, err
	}
	failpoint.Here("recovery.tmpdir")
	defer func() {
		// After the rename this finds nothing.
		err = errors.Join(err, m.root.RemoveAll(tmp))
	}()
	s, err := m.fill(ctx, tmp)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.syncDir(filepath.Join(dir, tmp)); err != nil {
		return nil, err
	}
	failpoint.Here("recovery.folder-synced")
	if err := m.root.Rename(tmp, recoveryDir); err != nil {
		return nil, err
	}
	failpoint.Here("recovery.renamed")
	if err := m.syncDir(dir); err != nil {
		return nil, err
	}
	failpoint.Here("recovery.bundle-synced")
	return s, nil
}

// fill writes all files of the folder.
func (m *maker) fill(ctx context.Context, tmp string) (_ *set, err error) {
	head, err := m.ix.head()
	if err != nil {
		return nil, err
	}
	m.body = frameSize + int64(len(head)) + m.ix.digestsLen()
	if m.code, err = fec.New(m.ix.Data); err != nil {
		return nil, err
	}
	defer func() {
		for _, out := range m.outs {
			err = errors.Join(err, out.Close())
		}
	}()
	for i := range m.ix.Rows {
		out, err := m.create(m.root, path.Join(tmp, fileName(i+1)))
		if err != nil {
			return nil, fmt.Errorf("make recovery files: %w", err)
		}
		m.outs = append(m.outs, out)
		failpoint.Here("recovery.file-created")
	}
	m.at = make([]int64, len(m.outs))
	m.block = make([]byte, int64(m.ix.Parity)*m.ix.Block)
	if err := m.encode(ctx); err != nil {
		return nil, err
	}
	data, err := m.ix.encode()
	if err != nil {
		return nil, err
	}
	s := newSet(m.ix, data)
	for i, out := range m.outs {
		if err := finish(out, s, i); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// finish writes both copies of the index around the parity.
func finish(out output, s *set, file int) error {
	if _, err := out.WriteAt(s.end(file), s.bodyAt()+s.bodyLen(file)); err != nil {
		return err
	}
	failpoint.Here("recovery.trailer-written")
	if _, err := out.WriteAt(s.start(file), 0); err != nil {
		return err
	}
	failpoint.Here("recovery.header-written")
	if err := out.Sync(); err != nil {
		return err
	}
	failpoint.Here("recovery.file-synced")
	return nil
}

// A tile is some columns of the data: of each row, blocks that follow one
// another.
type tile struct {
	column int64 // the first
	width  int64 // columns
	buf    []byte
	rows   [][]byte
}

// encode reads the data once. One goroutine reads and hashes, the other
// encodes and writes.
func (m *maker) encode(ctx context.Context) error {
	ix := m.ix
	width := min(max(1, tileSize/(int64(ix.Data)*ix.Block)), ix.Columns)
	var total int64
	for _, f := range ix.Files {
		total += f.Size
	}
	m.event(artifact.Event{Stage: "recovery", TotalBytes: total, TotalItems: len(ix.Files)})
	free, full := make(chan *tile, 2), make(chan *tile, 2)
	for range cap(free) {
		free <- &tile{buf: make([]byte, int64(ix.Data)*width*ix.Block), rows: make([][]byte, ix.Data)}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	g.Go(func() error {
		defer close(full)
		for c := int64(0); c < ix.Columns; c += width {
			select {
			case t := <-free:
				t.column, t.width = c, min(width, ix.Columns-c)
				if err := m.read(ctx, t, width); err != nil {
					return err
				}
				full <- t // has room for all
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		for t := range full {
			if err := m.write(t); err != nil {
				return err
			}
			free <- t
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	m.event(artifact.Event{Stage: "recovery", Items: len(ix.Files)})
	return nil
}

// read fills a tile and keeps the digests of its blocks.
func (m *maker) read(ctx context.Context, t *tile, width int64) error {
	ix := m.ix
	for row := range ix.Data {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := t.buf[int64(row)*width*ix.Block:][:t.width*ix.Block]
		t.rows[row] = p
		unit := int64(row)*ix.Columns + t.column
		n := min(t.width, ix.blocks()-unit) // blocks of the row; the rest is zeros
		if n <= 0 {
			clear(p)
			continue
		}
		clear(p[n*ix.Block:])
		if err := m.readBlocks(p[:n*ix.Block], unit); err != nil {
			return err
		}
	}
	return nil
}

// readBlocks reads blocks that follow one another, from as many files as they
// lie in.
func (m *maker) readBlocks(p []byte, unit int64) error {
	ix := m.ix
	s := set{index: ix}
	for len(p) > 0 {
		target, off, _ := s.find(unit)
		n := min(int64(len(p)), (ix.first[target+1]-unit)*ix.Block)
		size := min(n, ix.Files[target].Size-off)
		if err := m.open.readAt(m.root, ix.Files[target].Path, p[:size], off); err != nil {
			return fmt.Errorf("make recovery files for %s: %w", ix.Bundle, err)
		}
		clear(p[size:n])
		for at := int64(0); at < n; at += ix.Block {
			ix.setSum(unit, sumOf(p[at:min(at+ix.Block, size)]))
			unit++
		}
		m.event(artifact.Event{Stage: "recovery", Bytes: size})
		p = p[n:]
	}
	return nil
}

// write encodes a tile, column by column, and writes its parity.
func (m *maker) write(t *tile) error {
	ix := m.ix
	data, parity := make([][]byte, ix.Data), make([][]byte, ix.Parity)
	for i := range parity {
		parity[i] = m.block[int64(i)*ix.Block:][:ix.Block]
	}
	for c := range t.width {
		for row := range data {
			data[row] = t.rows[row][c*ix.Block:][:ix.Block]
		}
		if err := m.code.Encode(data, 0, parity); err != nil {
			return err
		}
		for i, p := range parity {
			unit, _ := ix.unit(ix.Data+i, t.column+c)
			ix.setSum(unit, sumOf(p))
		}
		rest := m.block
		for i, out := range m.outs {
			p := rest[:int64(ix.Rows[i])*ix.Block]
			rest = rest[len(p):]
			if _, err := out.WriteAt(p, m.body+m.at[i]); err != nil {
				return fmt.Errorf("make recovery files for %s: %w", ix.Bundle, err)
			}
			m.at[i] += int64(len(p))
		}
		failpoint.Here("recovery.column-written")
	}
	return nil
}
