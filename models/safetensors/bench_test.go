package safetensors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func jsonString(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// BenchmarkRead reads the header of a file with 100,000 tensors, which must
// take less than a second.
func BenchmarkRead(b *testing.B) {
	const tensors = 100_000
	var h strings.Builder
	h.WriteByte('{')
	for i := range tensors {
		fmt.Fprintf(&h, `"model.layers.%d.mlp.experts.%d.down_proj.weight":{"dtype":"F8_E4M3","shape":[1,4],"data_offsets":[%d,%d]},`, i/256, i%256, 4*i, 4*i+4)
	}
	h.WriteString(`"__metadata__":{"format":"pt"}}`)
	in := file(h.String(), 4*tensors)
	b.SetBytes(int64(h.Len()))
	b.ReportAllocs()
	for b.Loop() {
		got, err := Read(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			b.Fatal(err)
		}
		if len(got.Tensors) != tensors {
			b.Fatalf("%d tensors", len(got.Tensors))
		}
	}
}
