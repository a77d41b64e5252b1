package walk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// prose is text that compresses about as sources do.
func prose(r *rand.Rand, n int) string {
	words := []string{"def ", "return ", "self.", "import ", "None", "(", ")", ":\n", "    ", "value", "name", " = ", "for ", " in "}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, "%x", r.Uint32())
		}
	}
	return b.String()[:n]
}

// BenchmarkWalk walks what a mirror carries: wheels, packages, layers, weights.
func BenchmarkWalk(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var files []one
	var entries []any
	for i := range 2000 {
		f := one{name: fmt.Sprintf("pkg/module%d/file%d.py", i%40, i), body: prose(r, 200+r.IntN(12_000))}
		files, entries = append(files, f), append(entries, f)
	}
	stored := []one{{name: "m/data.pkl", body: "\x80\x02}q\x00.", stored: true}}
	for i := range 64 {
		big := make([]byte, 1<<20)
		for i := 0; i < len(big); i += 8 {
			copy(big[i:], fmt.Sprintf("%08x", r.Uint32()))
		}
		stored = append(stored, one{name: fmt.Sprintf("m/data/%d", i), body: string(big), stored: true})
	}
	tree := tarOf(b, entries...)
	for _, c := range []struct {
		name string
		blob []byte
		o    Options
	}{
		{"wheel", zipOf(b, files...), Options{}},
		{"deb", debOf(b, tree), Options{}},
		{"layer", pack(b, Gzip, tree), Options{FileSystem: true}},
		{"layer-zstd", pack(b, Zstd, tree), Options{FileSystem: true}},
		{"layer-plain", tree, Options{FileSystem: true}},
		{"weights", zipOf(b, stored...), Options{}},
		{"one-file", zipOf(b, files[0]), Options{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.o.Scratch = b.TempDir()
			var bytesOf int64
			entries := 0
			b.ReportAllocs()
			for b.Loop() {
				res, err := Walk(b.Context(), "x", bytes.NewReader(c.blob), int64(len(c.blob)), c.o, func(*File) error { return nil })
				if err != nil || len(res.Problems) > 0 {
					b.Fatal(err, res)
				}
				bytesOf, entries = res.Bytes, res.Files
			}
			b.SetBytes(bytesOf)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(entries), "ns/file")
		})
	}
}
