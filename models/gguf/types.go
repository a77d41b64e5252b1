package gguf

import "strconv"

// A Type is the type of a tensor's elements, by the format's number.
type Type uint32

// A layout is how elements of a type lie: so many in a block of so many bytes.
type layout struct {
	name         string
	block, bytes int64
}

// layouts gives the types that exist. Numbers that are missing were taken back:
// nothing reads them any more.
var layouts = map[Type]layout{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2}, 2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20}, 6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24},
	8: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 36}, 10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144},
	13: {"Q5_K", 256, 176}, 14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292}, 16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74},
	18: {"IQ3_XXS", 256, 98}, 19: {"IQ1_S", 256, 50}, 20: {"IQ4_NL", 32, 18}, 21: {"IQ3_S", 256, 110}, 22: {"IQ2_S", 256, 82},
	23: {"IQ4_XS", 256, 136}, 24: {"I8", 1, 1}, 25: {"I16", 1, 2}, 26: {"I32", 1, 4}, 27: {"I64", 1, 8}, 28: {"F64", 1, 8},
	29: {"IQ1_M", 256, 56}, 30: {"BF16", 1, 2}, 34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66}, 39: {"MXFP4", 32, 17},
	40: {"NVFP4", 64, 36}, 41: {"Q1_0", 128, 18}, 42: {"Q2_0", 64, 18},
}

// String names the type: "Q4_K".
func (t Type) String() string {
	if l, ok := layouts[t]; ok {
		return l.name
	}
	return "type " + strconv.FormatUint(uint64(t), 10)
}

// fileTypes names the values of general.file_type, as file names do. Numbers
// that are missing were taken back.
var fileTypes = map[uint64]string{
	0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
	14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
	23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
	32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}

// A valueType is the type of a piece of metadata, by the format's number.
type valueType uint32

const (
	u8 valueType = iota
	i8
	u16
	i16
	u32
	i32
	f32
	truth
	text
	list
	u64
	i64
	f64
)

// width is the size of a value; 0 for texts, lists, and what does not exist.
func (t valueType) width() int {
	switch t {
	case u8, i8, truth:
		return 1
	case u16, i16:
		return 2
	case u32, i32, f32:
		return 4
	case u64, i64, f64:
		return 8
	}
	return 0
}

// signed reports whether t is an integer that may be negative.
func (t valueType) signed() bool { return t == i8 || t == i16 || t == i32 || t == i64 }

// whole reports whether t is an integer.
func (t valueType) whole() bool { return t.signed() || t == u8 || t == u16 || t == u32 || t == u64 }
