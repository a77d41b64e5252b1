package recovery

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// volumes are files of a bundle with n volumes of one size and a rest.
func volumes(n int, size, rest int64) []entry {
	files := []entry{{"bundle.dsse.json", 20_000}, {"volumes.json", 9_000}}
	for i := range n {
		files = append(files, entry{path.Join("volumes", fmt.Sprintf("volume-%05d.tar", i+1)), size})
	}
	return append(files, entry{path.Join("volumes", fmt.Sprintf("volume-%05d.tar", n+1)), rest})
}

func TestPlan(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	tests := map[string]struct {
		files   []entry
		o       Options
		block   int64
		k, m    int
		columns int64
		rows    []int
	}{
		"tiny":                   {[]entry{{"bundle.dsse.json", 1}}, Options{Percent: 20}, 4096, 1, 1, 1, []int{1}},
		"one volume":             {volumes(0, 0, mib), Options{Percent: 20}, 4096, 132, 27, 2, []int{27}},
		"the volume may be lost": {volumes(0, 0, mib), Options{Volumes: 1}, 4096, 88, 86, 3, []int{86}},
		"all may be lost":        {volumes(0, 0, mib), Options{Volumes: 9}, 4096, 88, 88, 3, []int{88}},
		"twenty percent":         {volumes(15, gib, gib/2), Options{Percent: 20}, maxBlock, 200, 40, 318, []int{40}},
		"one of sixteen":         {volumes(15, gib, gib/2), Options{Volumes: 1}, maxBlock, 200, 13, 318, []int{13}},
		"five of sixteen":        {volumes(15, gib, gib/2), Options{Volumes: 5}, maxBlock, 191, 65, 333, []int{65}},
		"all of sixteen":         {volumes(15, gib, gib/2), Options{Volumes: 16}, maxBlock, 128, 128, 497, []int{128}},
		"hundred percent":        {volumes(15, gib, gib/2), Options{Percent: 100}, maxBlock, 128, 128, 497, []int{128}},
		"the greater":            {volumes(15, gib, gib/2), Options{Percent: 20, Volumes: 1}, maxBlock, 200, 40, 318, []int{40}},
		"FAT32":                  {volumes(31, 4*gib-1, gib), Options{Percent: 20, MaxFile: 4*gib - 1}, maxBlock, 200, 40, 2561, []int{6, 6, 6, 6, 6, 5, 5}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ix, err := plan("main-000001-0123456789abcdef", tt.files, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(ix.Block, ix.Data, ix.Parity, ix.Columns, ix.Rows)
			if want := fmt.Sprint(tt.block, tt.k, tt.m, tt.columns, tt.rows); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// Whatever is asked for, the plan is one that is read, holds what it promises
// and keeps to the largest file.
func TestPlanAny(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var files []entry
		for i := range 1 + rng.IntN(40) {
			files = append(files, entry{fmt.Sprintf("f%05d", i), rng.Int64N(1 << (1 + rng.IntN(32)))})
		}
		files[0].Size++
		o := Options{Percent: rng.IntN(101), Volumes: rng.IntN(5)}
		if o.check() != nil {
			continue
		}
		if rng.IntN(2) == 0 {
			o.MaxFile = 4<<30 - 1
		}
		ix, err := plan("b", files, o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		data, err := ix.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseIndex(data)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if diff := cmp.Diff(ix.Rows, again.Rows); diff != "" {
			t.Fatal(diff)
		}
		s := newSet(ix, data)
		for i := range s.Rows {
			if size := s.size(len(files) + i); o.MaxFile > 0 && size > o.MaxFile {
				t.Fatalf("%+v: a file of %d bytes", o, size)
			}
		}
		// Any of the files may be lost: count the blocks of each column.
		hits := make([]int, ix.Columns)
		for i := range min(o.Volumes, len(files)) {
			target := (i + rng.IntN(2)*i) % len(files)
			for n := range s.unitCount(target) {
				unit, off, size := s.at(target, n)
				if tt, o, sz := s.find(unit); tt != target || o != off || sz != size {
					t.Fatalf("block %d is found in file %d at %d", unit, tt, o)
				}
				hits[ix.column(unit)]++
			}
		}
		for _, n := range hits {
			if n > ix.Parity && o.Volumes > 0 && ix.Parity < ix.Data {
				t.Fatalf("%+v: %d of a column are lost with %d files, parity %d", o, n, o.Volumes, ix.Parity)
			}
		}
		if ix.Parity*100 < ix.Data*o.Percent {
			t.Fatalf("%+v: %d of %d", o, ix.Parity, ix.Data)
		}
	}
}

// Every block of a recovery file is found where it is written.
func TestFind(t *testing.T) {
	ix, err := plan("b", []entry{{"a", 0}, {"b", 900_000}, {"c", 0}, {"d", 1}, {"e", 0}}, Options{Percent: 100, MaxFile: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	s := newSet(ix, make([]byte, 100))
	if len(s.Rows) < 2 {
		t.Fatal("one file only")
	}
	seen := make([]bool, s.units())
	for target := range s.targetCount() {
		for n := range s.unitCount(target) {
			unit, off, size := s.at(target, n)
			gotTarget, gotOff, gotSize := s.find(unit)
			if seen[unit] || gotTarget != target || gotOff != off || gotSize != size || off+size > s.size(target) {
				t.Fatalf("file %d, block %d: %d at %d, found in %d at %d", target, n, unit, off, gotTarget, gotOff)
			}
			seen[unit] = true
		}
	}
	for unit, ok := range seen {
		if !ok {
			t.Fatalf("block %d is nowhere", unit)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	file := func(list ...entry) []entry { return list }
	tests := map[string]struct {
		name  string
		files []entry
		o     Options
		want  string
	}{
		"nothing":       {"b", nil, Options{Percent: 1}, "holds no bytes"},
		"empty files":   {"b", file(entry{"a", 0}), Options{Percent: 1}, "holds no bytes"},
		"case":          {"b", file(entry{"A", 1}, entry{"a", 1}), Options{Percent: 1}, "there twice"},
		"below a file":  {"b", file(entry{"a", 1}, entry{"a/b", 1}), Options{Percent: 1}, "below a file"},
		"name":          {"..", file(entry{"a", 1}), Options{Percent: 1}, "name of the bundle's folder"},
		"temporary":     {".tmp-1", file(entry{"a", 1}), Options{Percent: 1}, "name of the bundle's folder"},
		"too large":     {"b", file(entry{"a", 5 << 40}), Options{Percent: 1}, "more than 16777216 blocks"},
		"parity counts": {"b", file(entry{"a", 4<<40 - 1}), Options{Percent: 100}, "at most 16777216 are read"},
		"small medium":  {"b", file(entry{"a", 1 << 30}), Options{Percent: 10, MaxFile: 1 << 20}, "the medium takes at most 1048576"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if ix, err := plan(tt.name, tt.files, tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v", ix, err)
			}
		})
	}
}
