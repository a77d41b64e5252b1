package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// file writes a file with that header and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func readBytes(b []byte) (*Header, error) { return Read(bytes.NewReader(b), int64(len(b))) }

const one = `{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}`

func TestReadHeader(t *testing.T) {
	h, err := readBytes(file(`{"__metadata__":{"format":"pt","ü":"\ud83d\ude00"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[16,28]},`+
		`"a":{"shape":[2,2],"data_offsets":[0,16],"dtype":"I32"},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[28,28]}}  `, 28))
	if err != nil {
		t.Fatal(err)
	}
	want := []Tensor{
		{Name: "a", DType: "I32", Shape: []int64{2, 2}, Begin: 0, End: 16},
		{Name: "b", DType: "BF16", Shape: []int64{2, 3}, Begin: 16, End: 28},
		{Name: "e", DType: "F32", Shape: []int64{0, 7}, Begin: 28, End: 28},
	}
	if diff := cmp.Diff(want, h.Tensors); diff != "" {
		t.Errorf("tensors (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt", "ü": "\U0001f600"}, h.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[DType]int64{"I32": 4, "BF16": 6, "F32": 0}, h.Parameters()); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	for _, w := range want {
		if got, ok := h.Tensor(w.Name); !ok || got.Name != w.Name {
			t.Errorf("Tensor(%q) = %v, %v", w.Name, got, ok)
		}
	}
	for _, no := range []string{"c", metadataKey} {
		if _, ok := h.Tensor(no); ok {
			t.Errorf("Tensor(%q) is there", no)
		}
	}
}

// Every type of the format, with the bits of an element.
func TestDTypes(t *testing.T) {
	want := map[DType]int{
		"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
		"F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
	}
	if len(want) != len(dtypeBits) {
		t.Errorf("%d types, want %d", len(dtypeBits), len(want))
	}
	for d, n := range want {
		bytes := 4 * n / 8
		h, err := readBytes(file(fmt.Sprintf(`{"x":{"dtype":%q,"shape":[4],"data_offsets":[0,%d]}}`, d, bytes), bytes))
		if err != nil {
			t.Errorf("%s: %v", d, err)
			continue
		}
		if got := h.Parameters()[d]; d.Bits() != n || got != 4 {
			t.Errorf("%s: %d bits, %d elements, want %d and 4", d, d.Bits(), got, n)
		}
	}
}

// The reference library's own cases, typed again: what is allowed.
func TestLibraryAccepts(t *testing.T) {
	for name, b := range map[string][]byte{
		"scalar":                   file(`{"test":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}`, 4),
		"two by two":               file(one, 16),
		"white space behind":       []byte("\x06\x00\x00\x00\x00\x00\x00\x00{}\x0d\x20\x09\x0a"),
		"white space before":       []byte("\x06\x00\x00\x00\x00\x00\x00\x00\x09\x0a{}\x0d\x20"),
		"zero-sized tensor":        file(`{"test":{"dtype":"I32","shape":[2,0],"data_offsets":[0, 0]}}`, 0),
		"fp4":                      file(`{"attn.0":{"dtype":"F4","shape":[1,2],"data_offsets":[0,1]}}`, 1),
		"empty":                    file(`{}      `, 0),
		"empty with metadata":      file(`{"__metadata__":{"framework":"pt"}}`, 0),
		"metadata null":            file(`{"__metadata__":null}`, 0),
		"unknown field":            file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":[{"y":-1.5e3},null,true,false,"s"]}}`, 1),
		"zero before an overflow":  file(`{"a":{"dtype":"U8","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}`, 0),
		"escaped name":             file(`{"a\u0062\n\"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"the name of metadata":     file(`{"__metadata__":{"__metadata__":"x"}}`, 0),
		"two empty at one offset":  file(`{"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0),
		"replacement char in name": file(`{"\ufffd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
	} {
		if _, err := readBytes(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// refusals lists headers that are refused, with the library's own cases first.
func refusals() map[string]struct {
	file []byte
	want Reason
} {
	type c = struct {
		file []byte
		want Reason
	}
	return map[string]c{
		"bytes behind":    {append(file(one, 16), "extra_bogus_data_for_polyglot_file"...), MetadataIncompleteBuffer},
		"bytes missing":   {file(one, 14), MetadataIncompleteBuffer},
		"too large":       {[]byte("<\x00\x00\x00\x00\xff\xff\xff" + one + strings.Repeat("\x00", 16)), HeaderTooLarge},
		"too small":       {nil, HeaderTooSmall},
		"seven bytes":     {make([]byte, 7), HeaderTooSmall},
		"no header":       {[]byte("<\x00\x00\x00\x00\x00\x00\x00"), InvalidHeaderLength},
		"not UTF-8":       {[]byte("\x01\x00\x00\x00\x00\x00\x00\x00\xff"), InvalidHeader},
		"not JSON":        {[]byte("\x01\x00\x00\x00\x00\x00\x00\x00{"), InvalidHeaderDeserialization},
		"wrong size":      {file(`{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0, 4]}}`, 0), TensorInvalidInfo},
		"elements > 2^64": {file(`{"test":{"dtype":"I32","shape":[2,18446744073709551614],"data_offsets":[0,16]}}`, 16), ValidationOverflow},
		"bits > 2^64":     {file(`{"test":{"dtype":"I32","shape":[2,9223372036854775807],"data_offsets":[0,16]}}`, 16), ValidationOverflow},
		"fp4 misaligned":  {file(`{"attn.0":{"dtype":"F4","shape":[1,3],"data_offsets":[0,2]}}`, 2), MisalignedSlice},
		"same data twice": {file(`{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`, 16), InvalidOffset},

		"hole at the start":         {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), InvalidOffset},
		"hole between":              {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), InvalidOffset},
		"overlap":                   {file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), InvalidOffset},
		"end before begin":          {file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), InvalidOffset},
		"data without tensors":      {file(`{}`, 1), MetadataIncompleteBuffer},
		"end > 2^63":                {file(`{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}`, 1), ValidationOverflow},
		"dimension > 2^63":          {file(`{"a":{"dtype":"U8","shape":[0,9223372036854775808],"data_offsets":[0,0]}}`, 0), ValidationOverflow},
		"length 2^63":               {binary.LittleEndian.AppendUint64(nil, math.MaxInt64+1), HeaderTooLarge},
		"header of no bytes":        {file(``, 0), InvalidHeaderDeserialization},
		"a list":                    {file(`[]`, 0), InvalidHeaderDeserialization},
		"null":                      {file(`null`, 0), InvalidHeaderDeserialization},
		"second value":              {file(`{}{}`, 0), InvalidHeaderDeserialization},
		"NUL behind":                {file("{}\x00", 0), InvalidHeaderDeserialization},
		"byte order mark":           {file("\ufeff{}", 0), InvalidHeaderDeserialization},
		"comma at the end":          {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},}`, 1), InvalidHeaderDeserialization},
		"tensor null":               {file(`{"a":null}`, 0), InvalidHeaderDeserialization},
		"tensor as a list":          {file(`{"a":["U8",[1],[0,1]]}`, 1), InvalidHeaderDeserialization},
		"no dtype":                  {file(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"no shape":                  {file(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"no offsets":                {file(`{"a":{"dtype":"U8","shape":[0]}}`, 0), InvalidHeaderDeserialization},
		"unknown dtype":             {file(`{"a":{"dtype":"Q8","shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"dtype in lower case":       {file(`{"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"dtype a number":            {file(`{"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"negative dimension":        {file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"fraction":                  {file(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"exponent":                  {file(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"leading zero":              {file(`{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"2^64":                      {file(`{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"number of 30 digits":       {file(`{"a":{"dtype":"U8","shape":[`+strings.Repeat("9", 30)+`],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"shape a number":            {file(`{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"one offset":                {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1), InvalidHeaderDeserialization},
		"metadata a list":           {file(`{"__metadata__":[]}`, 0), InvalidHeaderDeserialization},
		"metadata number":           {file(`{"__metadata__":{"a":1}}`, 0), InvalidHeaderDeserialization},
		"metadata null value":       {file(`{"__metadata__":{"a":null}}`, 0), InvalidHeaderDeserialization},
		"control character":         {file("{\"a\n\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), InvalidHeaderDeserialization},
		"broken escape":             {file(`{"a\x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"half a pair":               {file(`{"a\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"half a pair and text":      {file(`{"\\\ud800\\udc00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"second half alone":         {file(`{"a\udc00b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), InvalidHeaderDeserialization},
		"deep":                      {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`}}`, 1), InvalidHeaderDeserialization},
		"unknown field not JSON":    {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1.}}`, 1), InvalidHeaderDeserialization},
		"string without end":        {file(`{"a\`, 0), InvalidHeaderDeserialization},
		"tensor twice":              {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1), DuplicateKey},
		"tensor twice by escape":    {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), DuplicateKey},
		"metadata twice":            {file(`{"__metadata__":{},"__metadata__":{}}`, 0), DuplicateKey},
		"metadata key twice":        {file(`{"__metadata__":{"a":"x","a":"y"}}`, 0), DuplicateKey},
		"shape twice":               {file(`{"a":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,1]}}`, 1), DuplicateKey},
		"unknown field twice":       {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1,"x":2}}`, 1), DuplicateKey},
		"twice in an unknown field": {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":{"y":1,"y":2}}}`, 1), DuplicateKey},
		"three offsets":             {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1), TooMany},
		"rank 65":                   {file(`{"a":{"dtype":"U8","shape":[1`+strings.Repeat(",1", MaxRank)+`],"data_offsets":[0,1]}}`, 1), TooMany},
		"long name":                 {file(`{"`+strings.Repeat("a", MaxName+1)+`":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), TooMany},
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			h, err := readBytes(c.file)
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok {
				t.Fatalf("got %v, %v, want a refusal", h, err)
			}
			if !errors.Is(err, artifact.ErrIntegrity) || !errors.Is(err, c.want) || r.Code != c.want.Code() {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if h != nil {
				t.Error("a header beside the refusal")
			}
		})
	}
}

// Each reason has a case above, and a code of its own that never changes.
func TestReasons(t *testing.T) {
	seen := make(map[Reason]bool)
	for _, c := range refusals() {
		seen[c.want] = true
	}
	for _, r := range Reasons() {
		if !seen[r] {
			t.Errorf("%s: no case", r)
		}
	}
	for r, want := range map[Reason]string{
		HeaderTooSmall: "SAFETENSORS-HEADER-TOO-SMALL", TensorInvalidInfo: "SAFETENSORS-TENSOR-INVALID-INFO", TooMany: "SAFETENSORS-TOO-MANY",
	} {
		if got := r.Code(); got != want {
			t.Errorf("code of %s is %s, want %s", r, got, want)
		}
	}
}

func TestTooManyTensors(t *testing.T) {
	var b strings.Builder
	b.WriteByte('{')
	for i := range MaxTensors + 1 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, i)
	}
	b.WriteByte('}')
	if _, err := readBytes(file(b.String(), 0)); !errors.Is(err, TooMany) {
		t.Errorf("got %v, want %s", err, TooMany)
	}
}

// Keys that no reader knows cost no more than a bound.
func TestTooManyUnknownKeys(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":{"":0`)
	for i := range maxUnknown {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	b.WriteString(`}}}`)
	if _, err := readBytes(file(b.String(), 0)); !errors.Is(err, TooMany) {
		t.Errorf("got %v, want %s", err, TooMany)
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		name, header string
		want         []string
	}{
		{"none", `{}      `, nil},
		{"white space before", ` {}     `, []string{"white space before the header's JSON: readers that look for its '{' refuse the file"}},
		{"not aligned", `{}`, []string{"the data begins at byte 10, which is no multiple of 8: some loaders copy it, others refuse it"}},
		{"null", `{"__metadata__":null}   `, []string{"__metadata__ is null"}},
		{"unknown field", `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"quant":1}} `, []string{`tensor "a": unknown key "quant"`}},
	} {
		h, err := readBytes(file(c.header, 0))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, h.Warnings); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// failing gives an error, or ends before the size that the caller was told.
type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// The reader's own error is none of the file's.
func TestReaderFails(t *testing.T) {
	broken := errors.New("disc")
	if _, err := Read(failing{broken}, 100); !errors.Is(err, broken) || errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("got %v, want the reader's error", err)
	}
	if _, err := Read(failing{io.EOF}, 100); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("got %v, want %v", err, io.ErrUnexpectedEOF)
	}
	b := file(one, 16)
	if _, err := Read(bytes.NewReader(b[:20]), int64(len(b))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

// A number in a file does not make the reader allocate.
func TestAllocatesNoMoreThanTheFile(t *testing.T) {
	b := binary.LittleEndian.AppendUint64(nil, MaxHeader)
	got := testing.Benchmark(func(tb *testing.B) {
		for tb.Loop() {
			if _, err := readBytes(b); !errors.Is(err, InvalidHeaderLength) {
				tb.Fatalf("got %v", err)
			}
		}
	})
	if n := got.AllocedBytesPerOp(); n == 0 || n > 10_000 {
		t.Errorf("%d bytes allocated for a file of %d", n, len(b))
	}
}

// FuzzRead: never panics; what is accepted covers the file exactly, and reads
// the same when it is written again.
func FuzzRead(f *testing.F) {
	seeds := 0
	for _, c := range refusals() {
		if len(c.file) < 1<<10 {
			f.Add(c.file)
			seeds++
		}
	}
	for _, h := range []string{one, `{"__metadata__":{"a":"b"},"x":{"dtype":"F4","shape":[2,1],"data_offsets":[0,1]}}  `, ` {"\u0061":{"dtype":"C64","shape":[],"data_offsets":[0,8],"z":[1e3]}}`} {
		for _, n := range []int{0, 1, 8, 16} {
			f.Add(file(h, n))
			seeds++
		}
	}
	if seeds < 50 {
		f.Fatalf("%d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readBytes(b)
		if err != nil {
			if h != nil || !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("got %v, %v", h, err)
			}
			return
		}
		at := int64(0)
		var parts []string
		for _, x := range h.Tensors {
			if x.Begin != at || (x.Elements()*int64(x.DType.Bits()))/8 != x.End-x.Begin {
				t.Fatalf("%+v begins at %d", x, at)
			}
			at = x.End
			shape := strings.ReplaceAll(fmt.Sprint(x.Shape), " ", ",")
			parts = append(parts, fmt.Sprintf(`%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, jsonString(x.Name), x.DType, shape, x.Begin, x.End))
		}
		if h.DataOffset+at != int64(len(b)) {
			t.Fatalf("the data ends at %d of %d", h.DataOffset+at, len(b))
		}
		again, err := readBytes(file("{"+strings.Join(parts, ",")+"}", int(at)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(h.Tensors, again.Tensors); diff != "" {
			t.Fatal(diff)
		}
	})
}
