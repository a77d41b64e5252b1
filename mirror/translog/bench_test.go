package translog

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// BenchmarkAppend adds to logs of several sizes. Most of the time is the disk:
// three files are synced, one is renamed.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []uint64{0, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := prefilled(b, size)
			b.ReportAllocs()
			n := size
			for b.Loop() {
				n++
				if _, err := l.Append(entry(n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen verifies a whole log.
func BenchmarkOpen(b *testing.B) {
	l := prefilled(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(l.dir, edSigner("exporter-a")); err != nil {
			b.Fatal(err)
		}
	}
}

// prefilled makes a log of many entries without a sync for each: the files are
// written at once and signed at the end, and Open finds nothing wrong.
func prefilled(t testing.TB, size uint64) *Log {
	t.Helper()
	s := edSigner("exporter-a")
	dir := filepath.Join(t.TempDir(), "log")
	if size == 0 {
		return mustOpen(t, dir, s)
	}
	var lines, flat []byte
	e := &edge{}
	for n := range size {
		leaf, err := entry(n + 1).encode()
		if err != nil {
			t.Fatal(err)
		}
		grown, hashes, err := e.add(tlog.RecordHash(leaf))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, leaf...), '\n')
		for _, h := range hashes {
			flat = append(flat, h[:]...)
		}
		e = grown
	}
	k, err := newKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	k.signer = s.Signer
	head, err := e.tree()
	if err != nil {
		t.Fatal(err)
	}
	c, err := k.sign(head)
	if err != nil {
		t.Fatal(err)
	}
	writeTree(t, dir, map[string]string{entriesName: string(lines), hashesName: string(flat), checkpointName: string(c.raw)})
	return mustOpen(t, dir, s)
}

// What an Append does, beside the disk, grows with the logarithm of the size
// at most: a log of 10,000 entries costs no more allocations than one of a
// hundred.
func TestFlatCost(t *testing.T) {
	cost := func(size uint64) float64 {
		l := prefilled(t, size)
		n := size
		return testing.AllocsPerRun(64, func() {
			n++
			mustAppend(t, l, entry(n))
		})
	}
	few, many := cost(100), cost(10_000)
	if many > few+20 {
		t.Errorf("%v allocations an entry at 10,000 entries, %v at 100", many, few)
	}
	t.Logf("allocations an entry: %v at 100 entries, %v at 10,000", few, many)
}
