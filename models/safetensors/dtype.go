package safetensors

import (
	"fmt"
	"math/bits"
	"strconv"
)

// A DType is the type of a tensor's elements, as the header writes it.
type DType string

// dtypeBits gives the bits of one element, for every type of the format.
var dtypeBits = map[DType]uint64{
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"I16": 16, "U16": 16, "F16": 16, "BF16": 16,
	"I32": 32, "U32": 32, "F32": 32,
	"I64": 64, "U64": 64, "F64": 64, "C64": 64,
}

// Bits is the size of one element; 0 for a type that the format does not have.
func (d DType) Bits() int { return int(dtypeBits[d]) } // #nosec G115 -- at most 64

// An entry is a tensor as the header writes it, not checked.
type entry struct {
	Tensor
	big bool // one of its numbers is above 2^63 and was cut to that
}

func (t *Tensor) title() string { return "tensor " + quote(t.Name) }

// check holds that the type and the shape make the size of the data, in the
// library's order.
func (e *entry) check() error {
	size := uint64(1)
	for _, d := range e.Shape {
		over, n := bits.Mul64(size, uint64(d)) // #nosec G115 -- not negative
		if over != 0 {
			return e.overflow()
		}
		size = n
	}
	over, size := bits.Mul64(size, dtypeBits[e.DType])
	if over != 0 || e.big {
		return e.overflow()
	}
	if size%8 != 0 {
		return refuse(MisalignedSlice, e.title(), "its elements do not fill whole bytes", "a multiple of 8 bits", strconv.FormatUint(size, 10))
	}
	if got := uint64(e.End - e.Begin); got != size/8 { // #nosec G115 -- begin <= end
		return refuse(TensorInvalidInfo, e.title(), fmt.Sprintf("its data has not the size of %s %v", e.DType, e.Shape), fmt.Sprintf("%d bytes", size/8), strconv.FormatUint(got, 10))
	}
	return nil
}

func (e *entry) overflow() error {
	return refuse(ValidationOverflow, e.title(), "its size overflows", "fewer than 2^63 bytes", fmt.Sprintf("%s %v", e.DType, e.Shape))
}
