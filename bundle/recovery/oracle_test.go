package recovery

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A shape is a code of some test: files of so many bytes, and how their blocks
// stand. It is written down a second time here, as the page has it.
type shape struct {
	sizes   []int // of files named a, b, c...
	columns int
	data    int
	rows    []int // of each recovery file
}

// randomShape makes a code of small blocks, which plan would not choose for so
// few bytes.
func randomShape(rng *rand.Rand) shape {
	var s shape
	blocks := 0
	for range 1 + rng.IntN(6) {
		size := rng.IntN(4 * minBlock)
		s.sizes = append(s.sizes, size)
		blocks += (size + minBlock - 1) / minBlock
	}
	if blocks == 0 {
		s.sizes, blocks = append(s.sizes, 1), 1
	}
	s.columns = 1 + rng.IntN(min(blocks, 6))
	s.data = (blocks + s.columns - 1) / s.columns
	for left := 1 + rng.IntN(s.data); left > 0; {
		n := 1 + rng.IntN(left)
		s.rows = append(s.rows, n)
		left -= n
	}
	return s
}

func (s shape) files(rng *rand.Rand) map[string]string {
	files := make(map[string]string)
	for i, size := range s.sizes {
		files[string(rune('a'+i))] = string(noise(byte(rng.Uint32()), size))
	}
	return files
}

// makeShape writes recovery files of that shape.
func makeShape(t testing.TB, s shape, dir string) {
	t.Helper()
	ix := &index{Schema: schema, Bundle: filepath.Base(dir), Block: minBlock, Columns: int64(s.columns), Data: s.data, Rows: s.rows}
	for i, size := range s.sizes {
		ix.Files = append(ix.Files, entry{string(rune('a' + i)), int64(size)})
	}
	for _, n := range s.rows {
		ix.Parity += n
	}
	if err := ix.check(); err != nil {
		t.Fatal(err)
	}
	ix.sums = make([]byte, ix.digestsLen())
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{ix: ix, root: root, open: newOpenFiles(), disk: unsynced(), event: func(artifact.Event) {}}
	_, err = m.run(t.Context(), dir)
	if err := errors.Join(err, m.open.close(), root.Close()); err != nil {
		t.Fatal(err)
	}
}

// A place is a block, by where it lies.
type place struct {
	file   string
	off    int
	size   int
	column int
}

// places lists all blocks. index is the length of the index.
func (s shape) places(indexLen int) []place {
	var list []place
	n := 0
	for i, size := range s.sizes {
		for off := 0; off < size; off += minBlock {
			list = append(list, place{string(rune('a' + i)), off, min(minBlock, size-off), n % s.columns})
			n++
		}
	}
	for i, rows := range s.rows {
		name := fmt.Sprintf("recovery/recovery-%05d.rs", i+1)
		off := 64 + indexLen
		for column := range s.columns {
			for range rows {
				list = append(list, place{name, off, minBlock, column})
				off += minBlock
			}
		}
	}
	return list
}

// hit damages some blocks, files or stretches.
func (s shape) hit(rng *rand.Rand, files map[string]string) {
	names := sorted(files)
	for range rng.IntN(2 + len(names)) {
		name := names[rng.IntN(len(names))]
		data, ok := files[name]
		if !ok || data == "" {
			continue
		}
		switch from := rng.IntN(len(data)); rng.IntN(8) {
		case 0:
			delete(files, name)
		case 1:
			files[name] = data[:from]
		case 2: // a stretch
			b := []byte(data)
			for i := from; i < min(len(b), from+1+rng.IntN(3*minBlock)); i++ {
				b[i] ^= 0xff
			}
			files[name] = string(b)
		case 3:
			files[name] = data + "more"
		default:
			files[name] = flipped(data, from)
		}
	}
}

// Repair succeeds exactly where every column has at most as many bad blocks as
// there are rows of parity, and an index is left.
func TestAgainstOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	outcomes := make(map[string]int)
	for range 400 {
		s := randomShape(rng)
		dir := fake(t, s.files(rng))
		makeShape(t, s, dir)
		whole := tree(t, dir)
		const first = "recovery/recovery-00001.rs"
		indexLen := (len(whole[first]) - 2*64 - s.rows[0]*s.columns*minBlock) / 2
		files := maps.Clone(whole)
		s.hit(rng, files)
		medium := copyTree(t, filepath.Base(dir), files)

		var names []string
		for _, n := range sorted(whole) {
			if data, ok := files[n]; !ok || data != whole[n] {
				names = append(names, n)
			}
		}
		slices.SortStableFunc(names, func(a, b string) int { // recovery files come last
			return min(1, len(a)-1) - min(1, len(b)-1)
		})
		bad := make([]int, s.columns)
		for _, p := range s.places(indexLen) {
			data, ok := files[p.file]
			if !ok || p.off+p.size > len(data) || data[p.off:p.off+p.size] != whole[p.file][p.off:p.off+p.size] {
				bad[p.column]++
			}
		}
		parity := 0
		for _, n := range s.rows {
			parity += n
		}
		index := false
		for n, data := range files {
			if len(n) > 1 {
				index = index || indexLeft(data, whole[n], indexLen)
			}
		}
		out := t.TempDir()
		st, err := repairWith(t.Context(), out, unsynced(), []string{medium})
		switch {
		case !index:
			refused(t, err, CodeFormat)
			outcomes["no index"]++
		case slices.Max(bad) > parity:
			refused(t, err, CodeRecovery)
			outcomes["beyond"]++
		case err != nil:
			t.Fatalf("%+v: bad %v of %d: %v", s, bad, parity, err)
		default:
			if diff := cmp.Diff(names, damaged(st)); diff != "" {
				t.Fatalf("%+v: %s", s, diff)
			}
			got := tree(t, filepath.Join(out, st.Name))
			if len(got) != len(names) {
				t.Fatalf("%+v: wrote %v, want %v", s, sorted(got), names)
			}
			for _, n := range names {
				if got[n] != whole[n] {
					t.Fatalf("%+v: %s was repaired otherwise", s, n)
				}
			}
			outcomes[fmt.Sprint("repaired, whole before: ", len(names) == 0)]++
			continue
		}
		if left := tree(t, out); len(left) != 0 {
			t.Fatalf("left %v", sorted(left))
		}
	}
	for _, o := range []string{"no index", "beyond", "repaired, whole before: false", "repaired, whole before: true"} {
		if outcomes[o] < 20 {
			t.Errorf("%s: %d times, the test is blind there: %v", o, outcomes[o], outcomes)
		}
	}
}

// indexLeft reports whether one of the two copies with its frame is whole.
func indexLeft(data, whole string, indexLen int) bool {
	n := 64 + indexLen
	return len(data) >= n && (data[:n] == whole[:n] || data[len(data)-n:] == whole[len(whole)-n:])
}
