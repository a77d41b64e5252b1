package recovery

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// goodIndex is one of two files.
func goodIndex(t testing.TB) []byte {
	t.Helper()
	ix, err := plan("main-000001-0123456789abcdef", []entry{{"bundle.dsse.json", 5000}, {"root/1.root.json", 0}, {"volumes/volume-00001.tar", 20_000}}, Options{Percent: 50, MaxFile: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	data, err := ix.encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// text changes the JSON of an index and keeps the rest.
func withText(data []byte, change func(string) string) []byte {
	n := binary.BigEndian.Uint64(data)
	text := change(string(data[8 : 8+n]))
	return append(append(binary.BigEndian.AppendUint64(nil, uint64(len(text))), text...), data[8+n:]...)
}

func TestIndexRefuses(t *testing.T) {
	data := goodIndex(t)
	if _, err := parseIndex(data); err != nil {
		t.Fatal(err)
	}
	const text = `{"schema":"darkmirror.recovery/v1","bundle":"main-000001-0123456789abcdef","block":4096,"columns":1,"data":7,"parity":4,` +
		`"files":[{"path":"bundle.dsse.json","size":5000},{"path":"root/1.root.json","size":0},{"path":"volumes/volume-00001.tar","size":20000}],"rows":[4]}`
	if got := withText(data, func(s string) string { return s }); !bytes.Equal(got, data) || !strings.Contains(string(data), text) {
		t.Fatalf("the index is %q", data)
	}
	for name, change := range map[string][2]string{
		"schema":        {"recovery/v1", "recovery/v2"},
		"key":           {`"bundle"`, `"Bundle"`},
		"missing key":   {`"columns":1,`, ``},
		"white space":   {`"rows":[4]`, `"rows": [4]`},
		"escape":        {`bundle.dsse`, `bundl\u0065.dsse`},
		"no folder":     {`main-000001-`, `main/000001-`},
		"above":         {`main-000001-0123456789abcdef`, `..`},
		"block 0":       {`"block":4096`, `"block":0`},
		"negative":      {`"block":4096`, `"block":-4096`},
		"block":         {`"block":4096`, `"block":4095`},
		"small block":   {`"block":4096`, `"block":2048`},
		"large block":   {`"block":4096`, `"block":524288`},
		"columns 0":     {`"columns":1`, `"columns":0`},
		"columns":       {`"columns":1`, `"columns":2`},
		"many columns":  {`"columns":1`, `"columns":9007199254740992`},
		"data":          {`"data":7`, `"data":8`},
		"data 0":        {`"data":7`, `"data":0`},
		"parity 0":      {`"parity":4`, `"parity":0`},
		"parity":        {`"parity":4`, `"parity":5`},
		"much parity":   {`"parity":4`, `"parity":8`},
		"escape path":   {`root/1.root.json`, `../../1.root.json`},
		"absolute":      {`"path":"bundle.dsse.json"`, `"path":"/bundle.dsse.json"`},
		"order":         {`root/1.root.json`, `a/1.root.json`},
		"twice":         {`root/1.root.json`, `bundle.dsse.json`},
		"itself":        {`root/1.root.json`, `recovery/x`},
		"itself, case":  {`"path":"bundle.dsse.json"`, `"path":"Recovery/x"`},
		"label":         {`root/1.root.json`, `label.txt`},
		"temporary":     {`root/1.root.json`, `root/.tmp-1`},
		"size":          {`"size":20000`, `"size":-1`},
		"larger":        {`"size":20000`, `"size":9007199254740992`},
		"sum overflows": {`"size":5000`, `"size":9007199254740991`},
		"rows":          {`"rows":[4]`, `"rows":[3]`},
		"more rows":     {`"rows":[4]`, `"rows":[4,1]`},
		"no row":        {`"rows":[4]`, `"rows":[4,0]`},
		"rows below 0":  {`"rows":[4]`, `"rows":[5,-1]`},
		"no rows":       {`"rows":[4]`, `"rows":[]`},
		"null":          {`"rows":[4]`, `"rows":null`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := withText(data, func(s string) string { return strings.Replace(s, change[0], change[1], 1) })
			if bytes.Equal(bad, data) {
				t.Fatal("nothing was changed")
			}
			if ix, err := parseIndex(bad); err == nil {
				t.Errorf("accepted: %+v", ix)
			}
		})
	}
	for n := range data {
		if _, err := parseIndex(data[:n]); err == nil {
			t.Fatalf("%d of %d bytes were accepted", n, len(data))
		}
	}
	if _, err := parseIndex(append(bytes.Clone(data), 0)); err == nil {
		t.Error("a byte too many was accepted")
	}
}

func TestFrame(t *testing.T) {
	f := frame{7, 1234, [32]byte{1, 2, 3}}
	b := f.encode()
	if got, err := parseFrame(b); err != nil || got != f {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range 8 * len(b) {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := parseFrame(bad); err == nil {
			t.Fatalf("bit %d: %+v", i, got)
		}
	}
	for _, bad := range []frame{{0, 1234, f.id}, {257, 1234, f.id}, {1, 7, f.id}, {1, maxIndex + 1, f.id}, {1, -1, f.id}, {-1, 1234, f.id}} {
		if _, err := parseFrame(bad.encode()); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if _, err := parseFrame(b[:63]); err == nil {
		t.Error("a short frame was accepted")
	}
}

// FuzzIndex parses; what is accepted has one form.
func FuzzIndex(f *testing.F) {
	data := goodIndex(f)
	seeds := [][]byte{data, withText(data, func(s string) string { return strings.Replace(s, `"block":4096`, `"block":8192`, 1) }), data[:50]}
	for _, seed := range seeds {
		if len(seed) == 0 {
			f.Fatal("an empty seed")
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := parseIndex(data)
		if err != nil {
			return
		}
		again, err := ix.encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("written otherwise: %v", err)
		}
		s := newSet(ix, data)
		for target := range s.targetCount() {
			if n := s.unitCount(target); n > 0 {
				for _, i := range []int64{0, n - 1} {
					unit, off, size := s.at(target, i)
					if tt, o, sz := s.find(unit); tt != target || o != off || sz != size || size < 1 || off+size > s.size(target) {
						t.Fatalf("file %d, block %d", target, i)
					}
				}
			}
		}
	})
}

// FuzzFile reads both ends of a recovery file of any bytes. The second copy
// gets frames that fit it, since no chance finds a digest.
func FuzzFile(f *testing.F) {
	dir := fake(f, few())
	createFake(f, dir, Options{Percent: 20})
	whole := []byte(tree(f, dir)["recovery/recovery-00001.rs"])
	for _, seed := range [][]byte{whole, whole[:len(whole)-1], append([]byte{0}, whole...), goodIndex(f)} {
		if len(seed) == 0 {
			f.Fatal("an empty seed")
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fr := frame{1, int64(len(data)), artifact.Sum(data)}.encode()
		for _, file := range [][]byte{data, slices.Concat(fr, data), slices.Concat(data, fr), slices.Concat(fr, data[len(data)/2:])} {
			for _, atEnd := range []bool{false, true} {
				s, err := readCopy(bytes.NewReader(file), int64(len(file)), atEnd, nil)
				if (s == nil) == (err == nil) {
					t.Fatalf("%+v, %v", s, err)
				}
				if s != nil && !bytes.Contains(file, s.data) {
					t.Fatal("an index from nowhere")
				}
			}
		}
	})
}
