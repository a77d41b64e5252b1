package gguf

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

// A made is a file that is written by hand.
type made struct {
	version        uint32
	tensors, pairs uint64
	body           []byte
}

func number[T uint8 | uint16 | uint32 | uint64 | int8 | int32 | int64](v T) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}

func str(s string) []byte { return append(number(uint64(len(s))), s...) }

func newFile() *made { return &made{version: 3} }

// kv adds a pair, its value as the file has it.
func (m *made) kv(key string, kind valueType, value ...[]byte) *made {
	m.pairs++
	m.body = append(append(append(m.body, str(key)...), number(uint32(kind))...), bytes.Join(value, nil)...)
	return m
}

func (m *made) text(key, value string) *made { return m.kv(key, text, str(value)) }

func (m *made) texts(key string, values ...string) *made {
	b := append(number(uint32(text)), number(uint64(len(values)))...)
	for _, v := range values {
		b = append(b, str(v)...)
	}
	return m.kv(key, list, b)
}

// tensor adds the description of one.
func (m *made) tensor(name string, kind Type, offset uint64, dims ...uint64) *made {
	m.tensors++
	m.body = append(append(m.body, str(name)...), number(uint32(len(dims)))...)
	for _, d := range dims {
		m.body = append(m.body, number(d)...)
	}
	m.body = append(append(m.body, number(uint32(kind))...), number(offset)...)
	return m
}

// bytes is the file with its padding to 32 bytes, and n bytes of data.
func (m *made) bytes(n int) []byte {
	b := append([]byte("GGUF"), number(m.version)...)
	b = append(append(append(b, number(m.tensors)...), number(m.pairs)...), m.body...)
	return append(b, make([]byte, -len(b)&31+n)...)
}

func readBytes(b []byte) (*File, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// model is a small file of every kind of thing.
func model() []byte {
	return newFile().
		text("general.architecture", "llama").
		kv("general.file_type", u32, number(uint32(15))).
		kv("a.u8", u8, number(uint8(200))).kv("a.i8", i8, number(int8(-2))).
		kv("a.u16", u16, number(uint16(60000))).kv("a.i32", i32, number(int32(7))).
		kv("a.i64", i64, number(int64(math.MinInt64))).kv("a.u64", u64, number(uint64(math.MaxUint64))).
		kv("a.f32", f32, number(uint32(0x3f800000))).kv("a.f64", f64, number(uint64(0))).
		kv("a.bool", truth, number(uint8(1))).
		kv("a.bools", list, number(uint32(truth)), number(uint64(2)), []byte{0, 1}).
		kv("a.numbers", list, number(uint32(i32)), number(uint64(3)), make([]byte, 12)).
		kv("a.empty", list, number(uint32(text)), number(uint64(0))).
		texts("tokenizer.ggml.tokens", "<s>", "\xff", "ü").
		text("tokenizer.chat_template", "{{ messages }}").
		tensor("token_embd.weight", 12, 0, 256, 3).
		tensor("norm.weight", 0, 448, 5).
		tensor("scalar", 1, 480).
		tensor("none", 8, 512, 0, 4).
		tensor("last.weight", 12, 512, 256).
		bytes(512 + 144)
}

func TestRead(t *testing.T) {
	b := model()
	f, err := readBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Tensor{
		{Name: "token_embd.weight", Type: 12, Dims: []int64{256, 3}, Offset: 0, Size: 432},
		{Name: "norm.weight", Type: 0, Dims: []int64{5}, Offset: 448, Size: 20},
		{Name: "scalar", Type: 1, Offset: 480, Size: 2},
		{Name: "none", Type: 8, Dims: []int64{0, 4}, Offset: 512},
		{Name: "last.weight", Type: 12, Dims: []int64{256}, Offset: 512, Size: 144},
	}
	if diff := cmp.Diff(want, f.Tensors); diff != "" {
		t.Errorf("tensors (-want +got):\n%s", diff)
	}
	if got := f.DataOffset + 512 + 144; got != int64(len(b)) {
		t.Errorf("the data ends at %d of %d", got, len(b))
	}
	shares := []Share{{12, 2, 1024, 576}, {0, 1, 5, 20}, {1, 1, 1, 2}, {8, 1, 0, 0}}
	if diff := cmp.Diff(shares, f.Quantisation()); diff != "" {
		t.Errorf("quantisation (-want +got):\n%s", diff)
	}
	if f.Version != 3 || f.Alignment != 32 || len(f.Metadata) != 16 || f.Architecture() != "llama" || f.FileType() != "Q4_K_M" {
		t.Errorf("version %d, alignment %d, %d pairs, %q, %q", f.Version, f.Alignment, len(f.Metadata), f.Architecture(), f.FileType())
	}
	if s, ok := f.ChatTemplate(); !ok || s != "{{ messages }}" {
		t.Errorf("template %q, %v", s, ok)
	}
	first, n, ok := f.Strings("tokenizer.ggml.tokens")
	if diff := cmp.Diff([]string{"<s>", "\xff", "ü"}, first); diff != "" || n != 3 || !ok {
		t.Errorf("tokens: %d, %v\n%s", n, ok, diff)
	}
	if no, count := f.Split(); no != 0 || count != 1 {
		t.Errorf("shard %d of %d", no, count)
	}
}

// What is asked for by the wrong type, or is negative, is not there.
func TestGet(t *testing.T) {
	f, err := readBytes(model())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]uint64{"a.u8": 200, "a.u16": 60000, "a.i32": 7, "a.u64": math.MaxUint64} {
		if got, ok := f.Uint(key); !ok || got != want {
			t.Errorf("Uint(%s) = %d, %v, want %d", key, got, ok, want)
		}
	}
	for _, key := range []string{"a.i8", "a.i64", "a.f32", "a.bool", "general.architecture", "a.numbers", "none"} {
		if got, ok := f.Uint(key); ok {
			t.Errorf("Uint(%s) = %d", key, got)
		}
	}
	for _, key := range []string{"a.u8", "tokenizer.ggml.tokens", "none"} {
		if got, ok := f.String(key); ok {
			t.Errorf("String(%s) = %q", key, got)
		}
	}
	for _, key := range []string{"a.u8", "a.numbers", "general.architecture", "none"} {
		if got, n, ok := f.Strings(key); ok {
			t.Errorf("Strings(%s) = %q, %d", key, got, n)
		}
	}
	if first, n, ok := f.Strings("a.empty"); !ok || n != 0 || len(first) != 0 {
		t.Errorf("Strings(a.empty) = %q, %d, %v", first, n, ok)
	}
}

// The layout of every type, by the reference library's table: elements and
// bytes of a block.
func TestTypes(t *testing.T) {
	want := "F32 1 4, F16 1 2, Q4_0 32 18, Q4_1 32 20, Q5_0 32 22, Q5_1 32 24, Q8_0 32 34, Q8_1 32 36, Q2_K 256 84, Q3_K 256 110, " +
		"Q4_K 256 144, Q5_K 256 176, Q6_K 256 210, Q8_K 256 292, IQ2_XXS 256 66, IQ2_XS 256 74, IQ3_XXS 256 98, IQ1_S 256 50, " +
		"IQ4_NL 32 18, IQ3_S 256 110, IQ2_S 256 82, IQ4_XS 256 136, I8 1 1, I16 1 2, I32 1 4, I64 1 8, F64 1 8, IQ1_M 256 56, BF16 1 2, " +
		"TQ1_0 256 54, TQ2_0 256 66, MXFP4 32 17, NVFP4 64 36, Q1_0 128 18, Q2_0 64 18"
	var got []string
	for n := range Type(64) {
		f, err := readBytes(newFile().tensor("a", n, 0, 512, 2).bytes(512 * 2 * 8))
		if err != nil {
			if !errors.Is(err, UnknownType) {
				t.Errorf("type %d: %v", n, err)
			}
			continue
		}
		block := int64(1)
		for l := layouts[n]; block < l.block; {
			block *= 2
		}
		got = append(got, fmt.Sprintf("%s %d %d", n, block, f.Tensors[0].Size*block/1024))
	}
	if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	if got := Type(99).String(); got != "type 99" {
		t.Errorf("type 99 is %q", got)
	}
}

// What else is allowed.
func TestAccepts(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":               newFile().bytes(0),
		"no padding":          newFile().text("a", "b").bytes(0)[:24+8+1+4+8+1],
		"version 2":           (&made{version: 2}).bytes(0),
		"a zero dimension":    newFile().tensor("a", 0, 0, 0, 5).bytes(0),
		"alignment 1":         newFile().kv("general.alignment", u32, number(uint32(1))).tensor("a", 24, 0, 1).tensor("b", 24, 1, 3).bytes(4),
		"alignment 64":        newFile().kv("general.alignment", u32, number(uint32(64))).tensor("a", 24, 0, 1).tensor("b", 24, 64, 1).bytes(64 + 32 + 1),
		"name of 63 bytes":    newFile().tensor(strings.Repeat("n", 63), 24, 0, 1).bytes(1),
		"upper case in a key": newFile().text("Some-Tool.KEY_1", "").bytes(0),
		"bytes behind":        newFile().tensor("a", 24, 0, 1).bytes(100),
		"last of its shards":  newFile().kv("split.no", u16, number(uint16(2))).kv("split.count", u16, number(uint16(3))).bytes(0),
		"split in one":        newFile().kv("split.count", u16, number(uint16(1))).bytes(0),
	} {
		if _, err := readBytes(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := readBytes(newFile().kv("split.no", u16, number(uint16(2))).kv("split.count", u16, number(uint16(3))).bytes(0))
	if err != nil {
		t.Fatal(err)
	}
	if no, count := f.Split(); no != 2 || count != 3 {
		t.Errorf("shard %d of %d, want 2 of 3", no, count)
	}
}

type refusal struct {
	file []byte
	want Reason
}

// refusals are the cases of the reference library's own test, by its names,
// and more.
func refusals() map[string]refusal {
	plain := newFile().tensor("a", 24, 0, 1).bytes(1)
	most := uint64(math.MaxUint64)
	return map[string]refusal{
		"HEADER_BAD_MAGIC":           {append([]byte("FUGG"), plain[4:]...), BadMagic},
		"HEADER_BAD_VERSION_0":       {(&made{version: 0}).bytes(0), BadVersion},
		"HEADER_BAD_VERSION_1":       {(&made{version: 1}).bytes(0), BadVersion},
		"HEADER_BAD_VERSION_FUTURE":  {(&made{version: 4}).bytes(0), BadVersion},
		"HEADER_BAD_N_TENSORS":       {(&made{version: 3, tensors: most}).bytes(0), TooMany},
		"HEADER_BAD_N_KV":            {(&made{version: 3, pairs: most}).bytes(0), TooMany},
		"KV_BAD_KEY_SIZE":            {(&made{version: 3, pairs: 1, body: number(most)}).bytes(64), TooMany},
		"KV_EMPTY_KEY":               {newFile().text("", "v").bytes(0), BadKey},
		"KV_BAD_TYPE":                {newFile().kv("a", 13, make([]byte, 8)).bytes(0), BadValue},
		"KV_BAD_TYPE of elements":    {newFile().kv("a", list, number(uint32(13)), number(uint64(1)), make([]byte, 8)).bytes(0), BadValue},
		"KV_BAD_VALUE_SIZE":          {newFile().kv("a", text, number(most)).bytes(64), TooMany},
		"KV_DUPLICATE_KEY":           {newFile().text("a", "").text("a", "").bytes(0), DuplicateKey},
		"KV_BAD_ALIGN":               {newFile().kv("general.alignment", u32, number(uint32(13))).bytes(0), BadAlignment},
		"KV_WRONG_TYPE_ALIGN":        {newFile().kv("general.alignment", i32, number(int32(32))).bytes(0), BadAlignment},
		"TENSORS_BAD_NAME_SIZE":      {newFile().tensor(strings.Repeat("n", 64), 24, 0, 1).bytes(1), TooMany},
		"TENSORS_BAD_N_DIMS":         {newFile().tensor("a", 24, 0, 1, 1, 1, 1, 1).bytes(1), BadTensor},
		"TENSORS_BAD_SHAPE":          {newFile().tensor("a", 24, 0, most, 1).bytes(1), BadTensor},
		"TENSORS_NE_TOO_BIG":         {newFile().tensor("a", 24, 0, 1<<32, 1<<32).bytes(1), Overflow},
		"TENSORS_NBYTES_TOO_BIG":     {newFile().tensor("a", 27, 0, 1<<61).bytes(1), Overflow},
		"TENSORS_BAD_TYPE":           {newFile().tensor("a", 43, 0, 1).bytes(1), UnknownType},
		"TENSORS_BAD_OFFSET":         {newFile().tensor("a", 24, 32, 1).bytes(33), BadOffset},
		"TENSORS_DUPLICATE_NAME":     {newFile().tensor("a", 24, 0, 1).tensor("a", 24, 32, 1).bytes(33), DuplicateKey},
		"TENSORS_INCONSISTENT_ALIGN": {newFile().tensor("a", 24, 0, 1).tensor("b", 24, 1, 1).bytes(33), BadOffset},
		"DATA_NOT_ENOUGH_DATA":       {newFile().tensor("a", 24, 0, 2).bytes(1), OutOfFile},
		"DATA_MEM_SIZE_OVERFLOW":     {newFile().tensor("a", 24, 0, 0x7fffffffffffffc0).tensor("b", 24, 0x7fffffffffffffc0, 0x7fffffffffffffc0).bytes(1), OutOfFile},

		"nothing":                 {nil, Truncated},
		"big endian":              {(&made{version: 3 << 24}).bytes(0), BadVersion},
		"ends in the version":     {plain[:7], Truncated},
		"ends in a tensor":        {plain[:30], Truncated},
		"ends in a text":          {newFile().text("a", strings.Repeat("x", 100)).bytes(0)[:80], Truncated},
		"more pairs than bytes":   {(&made{version: 3, pairs: MaxMetadata}).bytes(0), Truncated},
		"more tensors than bytes": {(&made{version: 3, tensors: MaxTensors}).bytes(0), Truncated},
		"a removed type":          {newFile().tensor("a", 4, 0, 32).bytes(64), UnknownType},
		"half a block":            {newFile().tensor("a", 12, 0, 128, 2).bytes(512), BadTensor},
		"a scalar in blocks":      {newFile().tensor("a", 8, 0).bytes(512), BadTensor},
		"no name":                 {newFile().tensor("", 24, 0, 1).bytes(1), BadTensor},
		"offset 2^64-1":           {newFile().tensor("a", 24, most, 1).bytes(1), BadOffset},
		"alignment 0":             {newFile().kv("general.alignment", u32, number(uint32(0))).bytes(0), BadAlignment},
		"alignment 2^31":          {newFile().kv("general.alignment", u32, number(uint32(1<<31))).tensor("a", 24, 0, 1).bytes(1), OutOfFile},
		"truth value 2":           {newFile().kv("a", truth, []byte{2}).bytes(0), BadValue},
		"truth value 2 in a list": {newFile().kv("a", list, number(uint32(truth)), number(uint64(2)), []byte{1, 2}).bytes(0), BadValue},
		"a list of lists":         {newFile().kv("a", list, number(uint32(list)), number(uint64(1)), number(uint32(u8)), number(uint64(1)), []byte{1}).bytes(0), BadValue},
		"a list of 2^63":          {newFile().kv("a", list, number(uint32(u8)), number(uint64(1<<63))).bytes(64), TooMany},
		"a list beyond the file":  {newFile().kv("a", list, number(uint32(u64)), number(uint64(100))).bytes(64), Truncated},
		"texts beyond the file":   {newFile().kv("a", list, number(uint32(text)), number(uint64(100))).bytes(64), Truncated},
		"a text beyond the file":  {newFile().kv("a", list, number(uint32(text)), number(uint64(1)), number(uint64(100))).bytes(0), Truncated},
		"key with a space":        {newFile().text("a b", "").bytes(0), BadKey},
		"key that is not ASCII":   {newFile().text("ä", "").bytes(0), BadKey},
		"key with a NUL":          {newFile().text("a\x00", "").bytes(0), BadKey},
		"shard 3 of 3":            {newFile().kv("split.no", u16, number(uint16(3))).kv("split.count", u16, number(uint16(3))).bytes(0), BadSplit},
		"shards without number":   {newFile().kv("split.count", u16, number(uint16(3))).bytes(0), BadSplit},
		"shards of 2^32":          {newFile().kv("split.no", u16, number(uint16(0))).kv("split.count", u64, number(uint64(1<<32))).bytes(0), BadSplit},
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			f, err := readBytes(c.file)
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok {
				t.Fatalf("got %v, %v, want a refusal", f, err)
			}
			if !errors.Is(err, artifact.ErrIntegrity) || !errors.Is(err, c.want) || r.Code != c.want.Code() {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if f != nil {
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
	for r, want := range map[Reason]string{BadMagic: "GGUF-BAD-MAGIC", OutOfFile: "GGUF-OUT-OF-FILE", Truncated: "GGUF-TRUNCATED"} {
		if got := r.Code(); got != want {
			t.Errorf("code of %s is %s, want %s", r, got, want)
		}
	}
}

// Every beginning of a file but the whole is refused, and never panics.
func TestEveryPrefix(t *testing.T) {
	b := model()
	for n := range b {
		if f, err := readBytes(b[:n]); err == nil || f != nil || !errors.Is(err, artifact.ErrIntegrity) {
			t.Fatalf("%d of %d bytes: %v, %v", n, len(b), f, err)
		}
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// The reader's own error is none of the file's.
func TestReaderFails(t *testing.T) {
	broken := errors.New("disc")
	if _, err := Read(failing{broken}, 100); !errors.Is(err, broken) || errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("got %v, want the reader's error", err)
	}
	b := model()
	for n := range len(b) - 1000 {
		if _, err := Read(bytes.NewReader(b[:n]), int64(len(b))); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, artifact.ErrIntegrity) {
			t.Fatalf("%d bytes: got %v, want %v", n, err, io.ErrUnexpectedEOF)
		}
	}
}

// A vocabulary is gone through and not kept, and so is a long text.
func TestKeepsLittle(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	tokens := make([]string, 500_000)
	for i := range tokens {
		tokens[i] = "token"
	}
	b := newFile().texts("tokenizer.ggml.tokens", tokens...).
		kv("tokenizer.ggml.scores", list, number(uint32(f32)), number(uint64(500_000)), make([]byte, 2_000_000)).
		text("tokenizer.huggingface.json", long).texts("long", "short", long, "short").text("general.architecture", "llama").bytes(0)
	f, err := readBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	if first, n, _ := f.Strings("tokenizer.ggml.tokens"); n != 500_000 || len(first) != maxFirst {
		t.Errorf("%d tokens of %d are kept", len(first), n)
	}
	if first, n, _ := f.Strings("long"); n != 3 || len(first) != 1 {
		t.Errorf("%d texts of %d are kept", len(first), n)
	}
	if _, ok := f.String("tokenizer.huggingface.json"); ok {
		t.Error("a long text is kept")
	}
	if f.Architecture() != "llama" {
		t.Errorf("architecture %q", f.Architecture())
	}
	got := testing.Benchmark(func(tb *testing.B) {
		for tb.Loop() {
			if _, err := readBytes(b); err != nil {
				tb.Fatal(err)
			}
		}
	})
	if n := got.AllocedBytesPerOp(); n == 0 || n > 1<<20 {
		t.Errorf("%d bytes allocated for a header of %d", n, len(b))
	}
}

// Texts that are short one by one are bounded together.
func TestHoldsLittle(t *testing.T) {
	m := newFile()
	for i := range maxHeld/MaxKept + 1 {
		m.text(fmt.Sprint("k", i), strings.Repeat("x", MaxKept))
	}
	if _, err := readBytes(m.bytes(0)); !errors.Is(err, TooMany) {
		t.Errorf("got %v, want %s", err, TooMany)
	}
}

// sparse is a file of that beginning, and zeros.
type sparse []byte

func (s sparse) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(s)) {
		copy(b, s[at:])
	}
	return len(b), nil
}

// A header is not gone through beyond MaxHeader, however long the file is.
func TestLongHeader(t *testing.T) {
	m := newFile().kv("a", list, number(uint32(u64)), number(uint64(MaxHeader/8)))
	m.pairs++
	if _, err := Read(sparse(m.bytes(0)), 1<<40); !errors.Is(err, TooMany) {
		t.Errorf("got %v, want %s", err, TooMany)
	}
}

// FuzzRead: never panics; what is accepted has its tensors in the file, one
// behind the other, and every name once.
func FuzzRead(f *testing.F) {
	f.Add(model())
	seeds := 1
	for _, c := range refusals() {
		f.Add(c.file)
		seeds++
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
		at, names := int64(0), make(map[string]bool)
		for _, x := range h.Tensors {
			if x.Offset < at || x.Offset-at >= h.Alignment || x.Offset%h.Alignment != 0 || x.Size < 0 || names[x.Name] || x.Name == "" {
				t.Fatalf("%+v after %d", x, at)
			}
			at, names[x.Name] = x.Offset+x.Size, true
		}
		if h.DataOffset < 0 || h.DataOffset+at > int64(len(b)) {
			t.Fatalf("the data ends at %d of %d", h.DataOffset+at, len(b))
		}
		total := int64(0)
		for _, s := range h.Quantisation() {
			total += s.Bytes
		}
		if total > int64(len(b)) {
			t.Fatalf("%d bytes of tensors in %d", total, len(b))
		}
		if no, count := h.Split(); no < 0 || no >= count {
			t.Fatalf("shard %d of %d", no, count)
		}
		h.ChatTemplate()
		h.FileType()
	})
}
