package translog

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// An edge is a tree as far as it takes to go on: the roots of the complete
// subtrees along its right edge, one for each bit of the size. It is a
// [tlog.HashReader] of just these, so that what is signed never depends on
// what lies on the disk.
type edge struct {
	size   int64
	index  []int64 // tlog.StoredHashIndex of each
	hashes []tlog.Hash
}

// ReadHashes implements [tlog.HashReader].
func (e *edge) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, want := range indexes {
		at := slices.Index(e.index, want)
		if at < 0 {
			return nil, fmt.Errorf("hash %d is not on the right edge of %d entries", want, e.size)
		}
		out[i] = e.hashes[at]
	}
	return out, nil
}

// add appends a leaf and returns the hashes to be stored for it. The receiver
// stays as it is: what was not written did not happen.
func (e *edge) add(leaf tlog.Hash) (*edge, []tlog.Hash, error) {
	stored, err := tlog.StoredHashesForRecordHash(e.size, leaf, e)
	if err != nil {
		return nil, nil, err
	}
	// The new leaf completes len(stored)-1 subtrees and takes their left
	// halves off the edge.
	level := len(stored) - 1
	keep := len(e.index) - level
	n := &edge{
		size:   e.size + 1,
		index:  append(slices.Clone(e.index[:keep]), tlog.StoredHashIndex(level, e.size>>level)),
		hashes: append(slices.Clone(e.hashes[:keep]), stored[level]),
	}
	return n, stored, nil
}

// tree is the head of the tree.
func (e *edge) tree() (tlog.Tree, error) {
	root, err := tlog.TreeHash(e.size, e)
	return tlog.Tree{N: e.size, Hash: root}, err
}

// stored reads hashes from the file of them. What it gives is compared with a
// root that is known.
type stored struct{ r io.ReaderAt }

// ReadHashes implements [tlog.HashReader].
func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if n, err := s.r.ReadAt(out[i][:], index*tlog.HashSize); n != tlog.HashSize {
			if errors.Is(err, io.EOF) {
				err = refusal(hashesName, fmt.Sprintf("it ends before hash %d", index), nil)
			}
			return nil, err
		}
	}
	return out, nil
}
