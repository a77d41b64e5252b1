package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models/repo"
)

// files are the contents of a made repository, by path.
type files map[string]string

// with is f and more; an empty text takes a file away.
func (f files) with(more files) files {
	out := maps.Clone(f)
	for p, b := range more {
		if out[p] = b; b == "" {
			delete(out, p)
		}
	}
	return out
}

// repository is one of that content.
func (f files) repository() Repository {
	r := Repository{Name: "team/model"}
	for _, p := range slices.Sorted(maps.Keys(f)) {
		r.Files = append(r.Files, repo.File{Path: p, Size: int64(len(f[p])), ID: p})
	}
	r.Read = func(p string, limit int64) ([]byte, error) {
		b, ok := f[p]
		if !ok || int64(len(b)) > limit {
			return nil, fs.ErrNotExist
		}
		return []byte(b), nil
	}
	r.Open = func(p string) (io.ReaderAt, int64, func() error, error) {
		b, ok := f[p]
		if !ok {
			return nil, 0, nil, fs.ErrNotExist
		}
		return strings.NewReader(b), int64(len(b)), func() error { return nil }, nil
	}
	return r
}

// tensors is a safetensors file with n numbers of 16 bits.
func tensors(n int) string {
	h := fmt.Sprintf(`{"w":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}`, n, 2*n)
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(h)))) + h + strings.Repeat("\x00", 2*n)
}

// ggufFile is a GGUF file with these texts, and one number.
func ggufFile(pairs ...string) string {
	var b bytes.Buffer
	str := func(s string) { b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s)))); b.WriteString(s) }
	u32 := func(v uint32) { b.Write(binary.LittleEndian.AppendUint32(nil, v)) }
	b.WriteString("GGUF")
	u32(3)
	b.Write(binary.LittleEndian.AppendUint64(nil, 1))
	shards := slices.Contains(pairs, "split.count")
	n := len(pairs) / 2
	if shards {
		n++
	}
	b.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	for i := 0; i < len(pairs); i += 2 {
		str(pairs[i])
		if pairs[i] == "split.count" {
			u32(2)
			b.WriteString("\x02\x00")
			str("split.no")
			u32(2)
			b.WriteString(pairs[i+1] + "\x00")
			continue
		}
		u32(8)
		str(pairs[i+1])
	}
	str("w")
	u32(1)
	b.Write(binary.LittleEndian.AppendUint64(nil, 1))
	u32(24)
	b.Write(make([]byte, 8))
	b.Write(make([]byte, -b.Len()&31+1))
	return b.String()
}

// pb is one field of an ONNX file.
func pb(id int, value any) string {
	switch v := value.(type) {
	case int:
		return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(id)<<3), uint64(v)))
	case string:
		return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(id)<<3|2), uint64(len(v)))) + v
	}
	panic(fmt.Sprintf("%T", value))
}

// outside is a tensor whose data lies in another file.
func outside(location string, offset, length int) string {
	return pb(13, pb(1, "location")+pb(2, location)) + pb(13, pb(1, "offset")+pb(2, fmt.Sprint(offset))) +
		pb(13, pb(1, "length")+pb(2, fmt.Sprint(length))) + pb(14, 1)
}

// onnxFile is an ONNX file with these fields in its graph, and sets of
// operators.
func onnxFile(graph string, domains ...string) string {
	out := pb(1, 8) + pb(2, "pytorch") + pb(7, pb(2, "main")+graph)
	for _, d := range append([]string{""}, domains...) {
		out += pb(8, pb(1, d)+pb(2, 17))
	}
	return out
}
