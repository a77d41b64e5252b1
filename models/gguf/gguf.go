// Package gguf reads the header of a GGUF file: its metadata, which tensors it
// holds, of what type and shape, and where.
//
// Specification: ggml's docs/gguf.md and the checks of its reference library
// (gguf.cpp), versions 2 and 3 in little endian. What is refused here and not
// there: keys that are not printable ASCII, truth values other than 0 and 1,
// tensors whose data goes beyond the file's end, shards whose numbers
// contradict each other, and what is beyond the limits below.
//
// Invariants:
//   - What [Read] accepts holds every tensor that it names, as a whole, one
//     behind the other, aligned.
//   - Keys and the names of tensors are unique.
//   - Tensor data is never read. Of lists only the first texts are kept, of
//     other texts those that [MaxKept] allows.
//
// Limits: [MaxHeader], [MaxMetadata], [MaxTensors], [MaxKey], [MaxText],
// [MaxList], [MaxKept]. Nothing is allocated because a file claims a number.
package gguf

import (
	"cmp"
	"io"
	"maps"
	"slices"
)

const (
	// MaxHeader bounds what stands before the data. Large vocabularies with
	// their merges have some 20 MB.
	MaxHeader = 256 << 20
	// MaxMetadata bounds the pieces of metadata. Models have some dozens.
	MaxMetadata = 10_000
	// MaxTensors bounds the tensors of one file. The largest known has about
	// 3,000; experts lie together in one.
	MaxTensors = 100_000
	// MaxKey bounds a key. It is the specification's bound.
	MaxKey = 1<<16 - 1
	// MaxText bounds a text. The longest known is a tokenizer.json as a whole.
	MaxText = 64 << 20
	// MaxList bounds the elements of a list.
	MaxList = 64 << 20
	// MaxKept bounds a text that is kept. Templates for chats have some
	// 50 KiB, licences no more.
	MaxKept = 1 << 20

	// maxFirst and maxFirstBytes bound what is kept of a list of texts.
	maxFirst      = 64
	maxFirstBytes = 4 << 10
	// maxHeld bounds keys, names and texts that are kept, together.
	maxHeld = 24 << 20
	// maxName bounds a tensor's name, maxDims its dimensions: the reference
	// library has no room for more.
	maxName = 63
	maxDims = 4

	defaultAlignment = 32
	bufferSize       = 64 << 10
)

// A File is what stands before the tensors' data.
type File struct {
	Version   uint32
	Alignment int64
	Metadata  []KV     // in the file's order
	Tensors   []Tensor // in the order of their data
	// DataOffset is where the tensors' data begins.
	DataOffset int64

	byKey map[string]int
}

// A KV is one piece of metadata.
type KV struct {
	Key string

	kind, elem valueType // elem: of a list
	n          uint64    // elements of a list
	number     uint64    // an integer, extended by its sign
	text       string
	kept       bool     // the text is
	first      []string // of a list of texts
}

// A Tensor is one tensor's place and form.
type Tensor struct {
	Name   string
	Type   Type
	Dims   []int64 // the fastest first
	Offset int64   // from DataOffset
	Size   int64
}

// Elements is the number of the tensor's elements.
func (t *Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Dims {
		n *= d // Read has refused what overflows
	}
	return n
}

// Read reads the header of a file of size bytes. An error is an ErrIntegrity
// refusal that wraps a [Reason] and names the key, the tensor or the byte, or
// else the reader's own.
func Read(r io.ReaderAt, size int64) (*File, error) {
	p := &parser{scanner: newScanner(r, size), f: &File{Alignment: defaultAlignment, byKey: make(map[string]int)}}
	if err := p.header(); err != nil {
		return nil, err
	}
	return p.f, nil
}

func (f *File) get(key string) (KV, bool) {
	i, ok := f.byKey[key]
	if !ok {
		return KV{}, false
	}
	return f.Metadata[i], true
}

// String returns the text of that key; false for one longer than MaxKept.
func (f *File) String(key string) (string, bool) {
	kv, ok := f.get(key)
	return kv.text, ok && kv.kept
}

// Uint returns the number of that key, where it is an integer that is not negative.
func (f *File) Uint(key string) (uint64, bool) {
	kv, ok := f.get(key)
	if !ok || !kv.kind.whole() || kv.kind.signed() && kv.number>>63 != 0 {
		return 0, false
	}
	return kv.number, true
}

// Strings returns the first elements of a list of texts, and how many it has.
func (f *File) Strings(key string) (first []string, n uint64, ok bool) {
	kv, ok := f.get(key)
	if !ok || kv.kind != list || kv.elem != text {
		return nil, 0, false
	}
	return kv.first, kv.n, true
}

// Architecture is general.architecture: "llama".
func (f *File) Architecture() string {
	s, _ := f.String("general.architecture")
	return s
}

// FileType names general.file_type: "Q4_K_M"; "" where it is not there or not known.
func (f *File) FileType() string {
	n, ok := f.Uint("general.file_type")
	if !ok {
		return ""
	}
	return fileTypes[n]
}

// ChatTemplate is tokenizer.chat_template.
func (f *File) ChatTemplate() (string, bool) { return f.String("tokenizer.chat_template") }

// Split says which shard of how many the file is: numbers begin with zero. A
// file that is whole is 0 of 1.
func (f *File) Split() (no, count int) {
	n, ok := f.Uint("split.count")
	if !ok || n <= 1 {
		return 0, 1
	}
	i, _ := f.Uint("split.no")
	return int(i), int(n) // #nosec G115 -- Read holds that both have 16 bits
}

// A Share is what one type has of a file.
type Share struct {
	Type              Type
	Tensors           int
	Parameters, Bytes int64
}

// Quantisation counts the tensors' elements by type, the type with the most
// bytes first.
func (f *File) Quantisation() []Share {
	byType := make(map[Type]Share)
	for i := range f.Tensors {
		t := &f.Tensors[i]
		s := byType[t.Type]
		byType[t.Type] = Share{t.Type, s.Tensors + 1, s.Parameters + t.Elements(), s.Bytes + t.Size}
	}
	return slices.SortedFunc(maps.Values(byType), func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Type, b.Type))
	})
}
