package translog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// maxStored is how many hashes one entry can add.
const maxStored = 64

// load reads and verifies the log and, with a key, heals it. What may be
// beyond the checkpoint is what one killed Append leaves: a line, its hashes,
// and perhaps their checkpoint under a temporary name. A signed checkpoint is
// finished, since somebody may have seen it; a line without one is cut off,
// since somebody else may have written it.
func (l *Log) load(ctx context.Context) error {
	c, err := l.readCheckpoint()
	if err != nil {
		return err
	}
	st, err := l.scan(ctx, c)
	if err != nil {
		return err
	}
	if l.key != nil {
		if next, err := l.unfinished(ctx, st.edge.size); err != nil {
			return err
		} else if next != nil {
			st = next
		}
		if err := l.heal(st); err != nil {
			return err
		}
	}
	l.state, l.dirty = *st, false
	return nil
}

// Check reads the log again and recomputes everything. A changed, removed or
// added line, hash or checkpoint is refused by its place. So is what a killed
// Append left, until the log is opened with its key.
func (l *Log) Check(ctx context.Context) error {
	c, err := l.readCheckpoint()
	if err != nil {
		return err
	}
	if (c == nil) != (l.checkpoint == nil) || c != nil && !bytes.Equal(c.raw, l.checkpoint.raw) {
		return refusal(checkpointName, "it is another one than when the log was opened", nil)
	}
	st, err := l.scan(ctx, c)
	if err != nil {
		return err
	}
	for name, want := range st.sizes() {
		have, err := l.size(name)
		if err != nil {
			return err
		}
		if have != want {
			r := refusal(name, "there is more in it than the checkpoint covers: a killed run left it, or somebody wrote there", nil)
			r.Want, r.Got = fmt.Sprintf("%d bytes", want), fmt.Sprintf("%d", have)
			return r
		}
	}
	return nil
}

func (l *Log) readCheckpoint() (*checkpoint, error) {
	raw, err := readOptional(l.file(checkpointName), maxCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	if raw == nil {
		return nil, nil
	}
	c, err := openCheckpoint(raw, l.key)
	if err != nil {
		return nil, err
	}
	if c.tree.N == 0 {
		return nil, refusal(checkpointName, "it covers no entry, and none is written before the first", nil)
	}
	return c, c.own()
}

// unfinished looks for a checkpoint of one entry more that was signed and has
// not got its name, and gives it that.
func (l *Log) unfinished(ctx context.Context, size int64) (*state, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), durable.TempPrefix) || !e.Type().IsRegular() {
			continue
		}
		name := l.file(e.Name())
		raw, err := readOptional(name, maxCheckpoint)
		if err != nil {
			return nil, fmt.Errorf("transparency log: %w", err)
		}
		c, err := openCheckpoint(raw, l.key)
		if err != nil || c.own() != nil || c.tree.N != size+1 {
			continue // not whole, or not of the last Append
		}
		st, err := l.scan(ctx, c)
		if err != nil {
			return nil, err
		}
		failpoint.Here("translog.unfinished")
		if err := durable.WriteFile(l.file(checkpointName), raw, fileMode); err != nil {
			return nil, fmt.Errorf("transparency log: %w", err)
		}
		return st, nil
	}
	return nil, nil
}

// heal cuts off what is beyond the checkpoint.
func (l *Log) heal(st *state) error {
	if err := l.checkSurplus(st); err != nil {
		return err
	}
	for name, want := range st.sizes() {
		have, err := l.size(name)
		if err != nil {
			return err
		}
		if have == want {
			continue
		}
		if err := cut(l.file(name), want); err != nil {
			return err
		}
		failpoint.Here("translog.cut")
	}
	if err := durable.Sweep(l.dir); err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	failpoint.Here("translog.swept")
	return nil
}

// checkSurplus refuses to cut off more than one Append can have left: the
// checkpoint is older than the entries, and somebody has put it there.
func (l *Log) checkSurplus(st *state) (err error) {
	sizes := st.sizes()
	have, err := l.size(hashesName)
	if err != nil {
		return err
	}
	old := func(name string) error {
		return refusal(name, fmt.Sprintf("there is more in it than one entry beyond the %d of the checkpoint: it is an old one, or somebody wrote there", st.edge.size), nil)
	}
	if have > sizes[hashesName]+maxStored*tlog.HashSize {
		return old(hashesName)
	}
	f, err := os.Open(l.file(entriesName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tail, err := io.ReadAll(io.NewSectionReader(f, sizes[entriesName], maxLine+2))
	if err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	if at := bytes.IndexByte(tail, '\n'); len(tail) > maxLine+1 || at >= 0 && at != len(tail)-1 {
		return old(entriesName)
	}
	return nil
}

// cut shortens a file.
func cut(name string, size int64) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	return nil
}

// sizes is how long the files are, up to the checkpoint.
func (st *state) sizes() map[string]int64 {
	n := st.edge.size
	return map[string]int64{entriesName: st.offsets[n], hashesName: tlog.StoredHashCount(n) * tlog.HashSize}
}

// size is the length of a file; one that is not there has none.
func (l *Log) size(name string) (int64, error) {
	info, err := os.Stat(l.file(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("transparency log: %w", err)
	case !info.Mode().IsRegular():
		return 0, refusal(filepath.Join(l.dir, name), "it is not a file", nil)
	}
	return info.Size(), nil
}

// scan reads as many entries as the checkpoint covers, computes their hashes,
// and compares these with the stored ones and with the root.
func (l *Log) scan(ctx context.Context, c *checkpoint) (st *state, err error) {
	st = &state{checkpoint: c, edge: &edge{}, offsets: []int64{0}, found: make(map[place][]int64)}
	if c == nil {
		return st, nil
	}
	entries, err := openFile(l.file(entriesName))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, entries.Close()) }()
	hashes, err := openFile(l.file(hashesName))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, hashes.Close()) }()
	s := scanner{state: st, file: hashes, want: c.tree, lines: bufio.NewReaderSize(entries, maxLine+1), hashes: bufio.NewReaderSize(hashes, 64<<10), names: make(map[string]string)}
	for st.edge.size < c.tree.N {
		if st.edge.size%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	if err := st.edge.is(c.tree, checkpointName); err != nil {
		return nil, err
	}
	return st, nil
}

func openFile(name string) (*os.File, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal(filepath.Base(name), "it is missing beside a checkpoint", err)
	}
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	return f, nil
}

// A scanner reads entries and their hashes side by side.
type scanner struct {
	*state
	file   io.ReaderAt // the hashes, to blame by
	want   tlog.Tree
	lines  *bufio.Reader
	hashes *bufio.Reader
	names  map[string]string // one copy of each text in a place
}

// next reads one entry.
func (s *scanner) next() error {
	i := s.edge.size
	text, err := s.lines.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return refusal(lineName(i), fmt.Sprintf("it is longer than %d bytes", maxLine), nil)
	case errors.Is(err, io.EOF):
		r := refusal(lineName(i), "it is missing or not whole", nil)
		r.Want, r.Got = fmt.Sprintf("%d lines", s.want.N), fmt.Sprintf("%d", i)
		return r
	case err != nil:
		return fmt.Errorf("transparency log: %w", err)
	}
	leaf := text[:len(text)-1]
	grown, computed, err := s.edge.add(tlog.RecordHash(leaf))
	if err != nil {
		return err
	}
	for level, h := range computed {
		var have tlog.Hash
		if _, err := io.ReadFull(s.hashes, have[:]); err != nil {
			return refusal(hashesName, fmt.Sprintf("it ends among the hashes of entry %d", i), err)
		}
		if have != h {
			return s.blame(i, level, h, have)
		}
	}
	e, err := decode(leaf)
	if err != nil {
		return refusal(lineName(i), "it is not an entry", err)
	}
	at := place{s.name(e.Event), s.name(e.Stream), e.Seq}
	s.found[at] = append(s.found[at], i)
	s.offsets = append(s.offsets, s.offsets[i]+int64(len(text)))
	s.edge = grown
	return nil
}

// name keeps one copy of a text.
func (s *scanner) name(text string) string {
	if _, ok := s.names[text]; !ok {
		s.names[text] = text
	}
	return s.names[text]
}

// blame says what was changed where a line and the stored hashes differ: that
// which does not lead to the root.
func (s *scanner) blame(i int64, level int, computed, have tlog.Hash) error {
	index := tlog.StoredHashIndex(level, i>>level)
	if level > 0 {
		return refusal(hashesName, fmt.Sprintf("hash %d is not that of the lines %d to %d of %s", index, i-1<<level+2, i+1, entriesName), nil)
	}
	covered := func(leaf tlog.Hash) bool {
		p, err := tlog.ProveRecord(s.want.N, i, stored{s.file})
		return err == nil && tlog.CheckRecord(p, s.want.N, s.want.Hash, i, leaf) == nil
	}
	switch {
	case covered(computed):
		return refusal(hashesName, fmt.Sprintf("hash %d was changed: it is not that of line %d of %s, which the checkpoint covers", index, i+1, entriesName), nil)
	case covered(have):
		return refusal(lineName(i), "it was changed, or a line before it removed or put in: the checkpoint covers another one there", nil)
	}
	return refusal(lineName(i), "neither it nor its stored hash is what the checkpoint covers", nil)
}

// readBounded reads at most limit bytes and refuses more.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, refusal("file", fmt.Sprintf("more than %d bytes", limit), nil)
	}
	return data, nil
}
