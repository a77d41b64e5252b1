package walk

import (
	"archive/tar"
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// FuzzWalk: a walk never panics, ends, keeps its limits, and what it visits
// has the digest that it says.
func FuzzWalk(f *testing.F) {
	hello := one{name: "a/hello", body: "hello, hello\n"}
	seeds := [][]byte{
		zipOf(f, hello, one{name: "b", body: "b", stored: true}, one{name: "l", body: "b", mode: 0o120777}),
		tarOf(f, hello, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"}, tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"VENDOR.x": "1"}}),
		v7(tarOf(f, hello)),
		pack(f, Gzip, tarOf(f, hello)), pack(f, XZ, []byte(hello.body)), pack(f, Zstd, []byte(hello.body)), pack(f, LZ4, []byte(hello.body)),
		[]byte(bzip2Hello), arOf(one{name: "//", body: "long/\n"}, one{name: "/0", body: "x"}, one{name: "#1/4", body: "namex"}),
		debOf(f, tarOf(f, hello)), sevenOf(f, methodCopy, []one{hello, {name: "b", body: "b"}}), sevenOf(f, methodLZMA, []one{hello}),
		append([]byte("#!"), zipOf(f, hello)...), []byte("cos\nsystem\n(S'x'\ntR."),
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s, true)
		f.Add(s, false)
	}
	limits := Limits{Depth: 4, Entries: 200, Unpacked: 4 << 20, Ratio: 100}
	f.Fuzz(func(t *testing.T, b []byte, tree bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		n := 0
		res, err := Walk(ctx, "x", bytes.NewReader(b), int64(len(b)), Options{Limits: limits, FileSystem: tree, Scratch: t.TempDir(), Memory: 1 << 10}, func(f *File) error {
			n++
			if len(f.Path)-1 > limits.Depth || !f.Regular() && f.Size != 0 {
				t.Errorf("%q: %d bytes at depth %d", f.Path, f.Size, len(f.Path)-1)
			}
			if !f.Regular() {
				return nil
			}
			body, err := f.Bytes(64 << 20)
			if err != nil {
				return err
			}
			if artifact.Sum(body) != f.Digest {
				t.Errorf("%q: another digest", f.Path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if res.Files != n || n > limits.Entries+1 || len(res.Problems) > 40*maxPerCode {
			t.Errorf("%d files, %d problems", res.Files, len(res.Problems))
		}
		for _, p := range res.Problems {
			if p.Code == "" || len(p.Text) > maxProblemText+40 || !slices.Contains([]string{severityHigh, severityLow}, p.Severity) {
				t.Errorf("%+v", p)
			}
		}
	})
}

// FuzzSeven: the header of a 7z archive, checksums made right, so that the
// parser and the library behind it are reached.
func FuzzSeven(f *testing.F) {
	for _, files := range [][]one{{{name: "a", body: "aaaa"}}, {{name: "a", body: "aaaa"}, {name: "b", body: "b"}}} {
		for _, method := range []string{methodCopy, methodLZMA} {
			sevenOf(f, method, files, func(h []byte) []byte {
				f.Add(bytes.Clone(h))
				return h
			})
		}
	}
	f.Fuzz(func(t *testing.T, h []byte) {
		if len(h) > 1<<20 {
			return
		}
		b := sevenOf(t, methodCopy, []one{{name: "a", body: "some bytes that are packed"}}, func([]byte) []byte { return h })
		res, err := Walk(t.Context(), "x", bytes.NewReader(b), int64(len(b)), Options{Scratch: t.TempDir(), Limits: Limits{Unpacked: 1 << 20}}, func(*File) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if res.Files == 0 {
			t.Error("not even the archive was visited")
		}
	})
}
