package translog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// A Log is a log in a folder. Its methods are not for concurrent use, and the
// caller keeps other writers away from the folder.
type Log struct {
	dir string
	key *key // nil: read-only
	// dirty says that an Append may have left something behind.
	dirty bool
	state
}

// state is what the checkpoint covers.
type state struct {
	checkpoint *checkpoint // nil: no entries
	edge       *edge
	offsets    []int64 // where each line begins, and where the next one will
	found      map[place][]int64
}

// A place is what entries are looked for by.
type place struct {
	event, stream string
	seq           uint64
}

// Open opens the log in a folder, verifies all of it, and brings to an end or
// cuts off what a killed Append left. The folder is made if it is not there.
//
// Without a key (the zero Signer) the log is read-only, nothing on the disk is
// changed, and nobody vouches for it: that lines, hashes and checkpoint fit
// each other is checked, and who signed is [VerifyCheckpoint]'s to say.
func Open(dir string, s bundle.Signer) (*Log, error) {
	l := &Log{dir: dir}
	if s.Signer != nil {
		k, err := newKey(s.Public())
		if err != nil {
			return nil, err
		}
		k.signer = s.Signer
		l.key = k
	}
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) && l.key != nil {
		err = os.MkdirAll(dir, dirMode)
	}
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	if err := l.load(context.Background()); err != nil {
		return nil, err
	}
	return l, nil
}

// Size is the number of entries.
func (l *Log) Size() int64 { return l.edge.size }

// Checkpoint is the signed head of the log, or nil where it is empty. It may be
// carried, printed and published.
func (l *Log) Checkpoint() []byte {
	if l.checkpoint == nil {
		return nil
	}
	return slices.Clone(l.checkpoint.raw)
}

// Find returns the index of the last entry of that event for that bundle of
// the stream.
func (l *Log) Find(event, stream string, seq uint64) (int64, bool) {
	at := l.found[place{event, stream, seq}]
	if len(at) == 0 {
		return 0, false
	}
	return at[len(at)-1], true
}

// Entry reads an entry and compares it with the checkpoint.
func (l *Log) Entry(i int64) (Entry, error) {
	leaf, err := l.line(i)
	if err != nil {
		return Entry{}, err
	}
	if _, err := l.path(i, tlog.RecordHash(leaf)); err != nil {
		return Entry{}, err
	}
	e, err := decode(leaf)
	if err != nil {
		return Entry{}, refusal(lineName(i), "it is not an entry", err)
	}
	return e, nil
}

// Prove returns the proof that entry i is in the log.
func (l *Log) Prove(i int64) (*Proof, error) {
	leaf, err := l.line(i)
	if err != nil {
		return nil, err
	}
	path, err := l.path(i, tlog.RecordHash(leaf))
	if err != nil {
		return nil, err
	}
	return &Proof{index: i, hashes: path, checkpoint: l.Checkpoint()}, nil
}

// line reads the bytes of entry i.
func (l *Log) line(i int64) (_ []byte, err error) {
	if i < 0 || i >= l.Size() {
		return nil, fmt.Errorf("transparency log: no entry %d, there are %d", i, l.Size())
	}
	f, err := os.Open(l.file(entriesName))
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Without the line feed.
	buf := make([]byte, l.offsets[i+1]-l.offsets[i]-1)
	if _, err := f.ReadAt(buf, l.offsets[i]); err != nil {
		return nil, refusal(lineName(i), "it cannot be read", err)
	}
	return buf, nil
}

// path reads the hashes from leaf i to the root, and compares the root.
func (l *Log) path(i int64, leaf tlog.Hash) (p tlog.RecordProof, err error) {
	f, err := os.Open(l.file(hashesName))
	if err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t := l.checkpoint.tree
	if p, err = tlog.ProveRecord(t.N, i, stored{f}); err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(p, t.N, t.Hash, i, leaf); err != nil {
		return nil, refusal(lineName(i), "the checkpoint does not cover it as it is now", err)
	}
	return p, nil
}

// Consistency checks that an older checkpoint, as somebody has kept it, is of
// a beginning of this log. A log that has lost, changed or replaced what that
// checkpoint covers is refused.
func (l *Log) Consistency(old []byte) (err error) {
	c, err := openCheckpoint(old, l.key)
	if err != nil {
		return err
	}
	n, size := c.tree.N, l.Size()
	what := fmt.Sprintf("older checkpoint of %d entries", n)
	if n > size {
		r := refusal(what, "the log has fewer: it was cut back or replaced", nil)
		r.Got = fmt.Sprintf("%d entries", size)
		return r
	}
	if n == 0 {
		return (&edge{}).is(c.tree, what)
	}
	f, err := os.Open(l.file(hashesName))
	if err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	proof, err := tlog.ProveTree(size, n, stored{f})
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, size, l.checkpoint.tree.Hash, n, c.tree.Hash); err != nil {
		return refusal(what, "it is not of a beginning of this log: an entry was changed, or this is another log", err)
	}
	return nil
}

// is compares the edge's tree with one that was signed.
func (e *edge) is(want tlog.Tree, what string) error {
	got, err := e.tree()
	if err != nil {
		return err
	}
	if got != want {
		r := refusal(what, "the entries do not give its root hash", nil)
		r.Want, r.Got = want.Hash.String(), got.Hash.String()
		return r
	}
	return nil
}

// Append adds an entry and returns its index. What is returned is on the disk
// and signed for. The same event of the same bundle again changes nothing and
// gives the old index, whatever its time and detail. After an error the log
// is as before, or has the entry and no error is lost by calling again.
func (l *Log) Append(e Entry) (index int64, err error) {
	if l.key == nil {
		return 0, errReadOnly
	}
	if l.dirty {
		if err := l.load(context.Background()); err != nil {
			return 0, err
		}
	}
	leaf, err := e.encode()
	if err != nil {
		return 0, err
	}
	at := place{e.Event, e.Stream, e.Seq}
	for _, i := range l.found[at] {
		have, err := l.Entry(i)
		if err != nil {
			return 0, err
		}
		if have.Bundle == e.Bundle {
			return i, nil
		}
	}
	if l.Size() == maxEntries {
		return 0, fmt.Errorf("transparency log: it has %d entries, the most that is read: begin a new one in another folder", l.Size())
	}
	grown, hashes, err := l.edge.add(tlog.RecordHash(leaf))
	if err != nil {
		return 0, err
	}
	l.dirty = true
	c, err := l.write(leaf, grown, hashes)
	if err != nil {
		return 0, err
	}
	l.dirty = false
	index = l.Size()
	l.checkpoint, l.edge = c, grown
	l.offsets = append(l.offsets, l.offsets[index]+int64(len(leaf))+1)
	l.found[at] = append(l.found[at], index)
	return index, nil
}

// write makes an entry last, in the order in which [Log.load] wants it: line,
// hashes, checkpoint.
func (l *Log) write(leaf []byte, grown *edge, hashes []tlog.Hash) (*checkpoint, error) {
	size := l.Size()
	if err := writeAt(l.file(entriesName), append(leaf, '\n'), l.offsets[size]); err != nil {
		return nil, err
	}
	failpoint.Here("translog.entry-synced")
	flat := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		flat = append(flat, h[:]...)
	}
	if err := writeAt(l.file(hashesName), flat, tlog.StoredHashCount(size)*tlog.HashSize); err != nil {
		return nil, err
	}
	failpoint.Here("translog.hashes-synced")
	if size == 0 {
		// The files are new, and perhaps the folder.
		if err := errors.Join(durable.SyncDir(l.dir), durable.SyncDir(filepath.Dir(l.dir))); err != nil {
			return nil, fmt.Errorf("transparency log: %w", err)
		}
	}
	tree, err := grown.tree()
	if err != nil {
		return nil, err
	}
	c, err := l.key.sign(tree)
	if err != nil {
		return nil, err
	}
	failpoint.Here("translog.signed")
	if err := durable.WriteFile(l.file(checkpointName), c.raw, fileMode); err != nil {
		return nil, fmt.Errorf("transparency log: %w", err)
	}
	failpoint.Here("translog.checkpoint-written")
	return c, nil
}

// writeAt writes and syncs data at the end of a file.
func writeAt(name string, data []byte, offset int64) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, fileMode)
	if err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(data, offset); err != nil {
		return fmt.Errorf("transparency log: %w", err)
	}
	failpoint.Here("translog.written")
	if err := f.Sync(); err != nil {
		return fmt.Errorf("transparency log: sync %s: %w", name, err)
	}
	return nil
}

func (l *Log) file(name string) string { return filepath.Join(l.dir, name) }

// lineName says where an entry lies, as an editor counts.
func lineName(i int64) string { return fmt.Sprintf("%s, line %d", entriesName, i+1) }

// readOptional reads a small file; one that is not there is empty.
func readOptional(name string, limit int64) (_ []byte, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readBounded(f, limit)
}
