package fec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/vectors.json, by the slow encoder")

// vector is an example of the code, for those who implement it: data rows,
// some of their parity rows, and which rows to find again from which.
type vector struct {
	Name   string      `json:"name"`
	K      int         `json:"k"`
	Data   []string    `json:"data"`   // in hex; "" is a row of zeros that is not sent
	Parity []parityRow `json:"parity"` // numbered from 0; on the wire from k on
	Lost   []int       `json:"lost"`   // data rows to find again,
	Rows   []int       `json:"rows"`   // from these parity rows and the other data rows
}

type parityRow struct {
	Row   int    `json:"row"`
	Bytes string `json:"bytes"`
}

// makeVectors is how testdata/vectors.json came about.
func makeVectors() []vector {
	rng := rand.New(rand.NewPCG(2026, 11))
	example := func(name string, k, size int, zeros, parity, lost, rows []int) vector {
		data := randomRows(rng, k, size)
		v := vector{Name: name, K: k, Lost: lost, Rows: rows}
		for j := range data {
			if slices.Contains(zeros, j) {
				data[j] = nil
			}
			v.Data = append(v.Data, hex.EncodeToString(data[j]))
		}
		for _, i := range parity {
			v.Parity = append(v.Parity, parityRow{i, hex.EncodeToString(slowParity(data, i, size))})
		}
		return v
	}
	return []vector{
		example("one data row", 1, 8, nil, []int{0, 1, 254}, []int{0}, []int{254}),
		example("two of five", 3, 8, nil, []int{0, 1}, []int{0, 2}, []int{0, 1}),
		example("everything lost", 4, 16, nil, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}, []int{3, 1, 0, 2}),
		example("rows that are not sent", 10, 4, []int{7, 8, 9}, []int{0, 1, 245}, []int{0, 3, 6}, []int{0, 1, 245}),
		example("default", 200, 2, nil, []int{0, 9, 18, 19, 55}, []int{0, 100, 199}, []int{9, 19, 55}),
		example("255 data rows", 255, 1, nil, []int{0}, []int{254}, []int{0}),
	}
}

func TestVectors(t *testing.T) {
	name := filepath.Join("testdata", "vectors.json")
	if *update {
		b, err := json.MarshalIndent(makeVectors(), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(makeVectors(), vectors); diff != "" {
		t.Errorf("not what the slow encoder makes (-want +got):\n%s", diff)
	}
	for _, v := range vectors {
		t.Run(strings.ReplaceAll(v.Name, " ", "_"), v.check)
	}
}

func (v vector) check(t *testing.T) {
	c := newCode(t, v.K)
	data := make([][]byte, 0, v.K)
	for _, s := range v.Data {
		var row []byte
		if s != "" {
			row = unhex(t, s)
		}
		data = append(data, row)
	}
	received := map[int][]byte{}
	for _, p := range v.Parity {
		want := unhex(t, p.Bytes)
		got := make([]byte, len(want))
		if err := c.Encode(data, p.Row, [][]byte{got}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("parity row %d: %x, want %x", p.Row, got, want)
		}
		received[p.Row] = want
	}
	got := clone(data)
	for _, j := range v.Lost {
		clear(got[j])
	}
	var chosen [][]byte
	for _, i := range v.Rows {
		chosen = append(chosen, received[i])
	}
	if err := c.Repair(got, v.Lost, v.Rows, chosen); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, data, bytes.Equal) {
		t.Errorf("lost rows %v: not what they were", v.Lost)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
