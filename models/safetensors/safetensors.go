// Package safetensors reads the header of a safetensors file: which tensors
// it holds, of what type and shape, and where.
//
// Specification: the format's README and the checks of its reference library
// (safetensors 0.8, tensor.rs), whose names of errors are [Reason]s here. What
// is refused here and not there: keys that stand twice, a tensor or a type
// written in another form of JSON than a writer uses, sizes beyond 2^63 in a
// tensor without elements, and what is beyond the limits below.
//
// Invariants:
//   - What [Read] accepts is described to the last byte: the tensors follow
//     each other without hole or overlap from the header's end to the file's.
//   - No JSON that two readers could understand differently: keys are unique,
//     and text is valid UTF-8.
//   - Tensor data is never read.
//
// Limits: [MaxHeader], [MaxTensors], [MaxRank], [MaxName], [MaxMetadata]. The
// header is read as a whole, and only where the file is as long as it says;
// nothing is allocated because a file claims a number.
package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxHeader bounds the header. It is the reference library's bound.
	MaxHeader = 100_000_000
	// MaxTensors bounds the tensors of one file. The largest known has about
	// 100,000: the experts of a mixture, each with its scales.
	MaxTensors = 500_000
	// MaxRank bounds the dimensions of a tensor. Loaders know up to 64.
	MaxRank = 64
	// MaxName bounds a tensor's name. Those of models have some hundred bytes.
	MaxName = 64 << 10
	// MaxMetadata bounds the pairs of metadata. Trainers write some dozens.
	MaxMetadata = 100_000

	// lengthSize is the size of the number before the header: its length.
	lengthSize = 8
	// hubHeader is what a hub's own client reads of a header at most.
	hubHeader = 25_000_000
	// dataAlign is what writers align the data to, with spaces behind the JSON.
	dataAlign = 8
)

// A Header is what stands before the tensors' data.
type Header struct {
	// Tensors are in the order of their data, those without any by name.
	Tensors  []Tensor
	Metadata map[string]string // the key __metadata__; nil where there is none
	// DataOffset is where in the file the data begins.
	DataOffset int64
	// Warnings name what is allowed and what no writer does.
	Warnings []string

	byName map[string]int
}

// A Tensor is one tensor's form and place.
type Tensor struct {
	Name  string
	DType DType
	Shape []int64
	// Begin and End are counted from where the data begins.
	Begin, End int64
}

// Elements is the number of the tensor's elements.
func (t *Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d // Read has refused what overflows
	}
	return n
}

// Tensor returns the tensor of that name.
func (h *Header) Tensor(name string) (*Tensor, bool) {
	i, ok := h.byName[name]
	if !ok {
		return nil, false
	}
	return &h.Tensors[i], true
}

// Parameters counts the elements of all tensors by their type.
func (h *Header) Parameters() map[DType]int64 {
	out := make(map[DType]int64)
	for i := range h.Tensors {
		out[h.Tensors[i].DType] += h.Tensors[i].Elements()
	}
	return out
}

// Read reads the header of a file of size bytes. An error is an ErrIntegrity
// refusal that wraps a [Reason] and names the tensor or the byte, or else the
// reader's own.
func Read(r io.ReaderAt, size int64) (*Header, error) {
	b, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	p := &parser{b: b, h: &Header{DataOffset: lengthSize + int64(len(b)), byName: make(map[string]int)}}
	if err := p.header(); err != nil {
		return nil, err
	}
	if err := p.layout(size - p.h.DataOffset); err != nil {
		return nil, err
	}
	p.warn()
	return p.h, nil
}

// readHeader reads the JSON.
func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	if size < lengthSize {
		return nil, refuse(HeaderTooSmall, "the file", "too short for a header's length", strconv.Itoa(lengthSize)+" bytes or more", strconv.FormatInt(size, 10))
	}
	var length [lengthSize]byte
	if err := readFull(r, length[:], 0); err != nil {
		return nil, fmt.Errorf("read the header's length: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > MaxHeader {
		return nil, refuse(HeaderTooLarge, "byte 0", "header too large", fmt.Sprintf("%d bytes or less", MaxHeader), strconv.FormatUint(n, 10))
	}
	if int64(n) > size-lengthSize { // #nosec G115 -- n is at most MaxHeader
		return nil, refuse(InvalidHeaderLength, "byte 0", "the header is longer than the file", fmt.Sprintf("%d bytes or less", size-lengthSize), strconv.FormatUint(n, 10))
	}
	b := make([]byte, n)
	if err := readFull(r, b, lengthSize); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return b, nil
}

// readFull fills b. A reader that ends before the size that the caller was
// told is not a broken file.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// layout holds that the tensors cover n bytes of data exactly.
func (p *parser) layout(n int64) error {
	order := func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), strings.Compare(a.Name, b.Name))
	}
	if !slices.IsSortedFunc(p.found, order) { // writers sort them
		slices.SortFunc(p.found, order)
		for i := range p.found {
			p.h.byName[p.found[i].Name] = i
		}
	}
	p.h.Tensors = make([]Tensor, 0, len(p.found))
	at := int64(0)
	for i := range p.found {
		e := &p.found[i]
		if e.Begin != at || e.End < e.Begin {
			return refuse(InvalidOffset, e.title(), "its data does not begin where that of the tensor before it ends, or ends before it begins",
				fmt.Sprintf("[%d, ...]", at), fmt.Sprintf("[%d, %d]", e.Begin, e.End))
		}
		at = e.End
		if err := e.check(); err != nil {
			return err
		}
		p.h.Tensors = append(p.h.Tensors, e.Tensor)
	}
	if at != n {
		return refuse(MetadataIncompleteBuffer, "the file", "the tensors do not cover the data behind the header", fmt.Sprintf("%d bytes", at), strconv.FormatInt(n, 10))
	}
	return nil
}

// warn finds what is odd and allowed.
func (p *parser) warn() {
	h := p.h
	switch {
	case len(p.b) > 0 && p.b[0] != '{':
		h.Warnings = append(h.Warnings, "white space before the header's JSON: readers that look for its '{' refuse the file")
	case len(p.b) > hubHeader:
		h.Warnings = append(h.Warnings, fmt.Sprintf("a header of %d bytes: clients of a hub read at most %d", len(p.b), hubHeader))
	}
	if h.DataOffset%dataAlign != 0 {
		h.Warnings = append(h.Warnings, fmt.Sprintf("the data begins at byte %d, which is no multiple of %d: some loaders copy it, others refuse it", h.DataOffset, dataAlign))
	}
}
