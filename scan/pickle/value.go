package pickle

import "strconv"

// A kind says what a value is. A call of a global is the kind of what the
// call returns.
type kind uint8

const (
	kindNothing kind = iota // no value: an empty entry of the memo
	kindUnknown             // refused before
	kindNone
	kindBool
	kindInt
	kindMagic // the integer that opens the older form of torch.save, written out
	kindFloat
	kindStr    // text of a Unicode opcode
	kindOldStr // text of a STRING opcode: text or bytes, as the loader likes
	kindBytes
	kindByteArray
	kindTuple
	kindList
	kindDict
	kindSet
	kindFrozenSet
	kindGlobal
	kindStorage // a persistent id

	// What the allowed callables return.
	kindOrdered
	kindCounter
	kindTensor
	kindParameter
	kindSize
	kindDevice
	kindLayout
	kindComplex
	kindArray
	kindScalar
	kindNumDType
)

var kindNames = map[kind]string{
	kindUnknown: "a refused value", kindNone: "None", kindBool: "a bool", kindInt: "an int", kindMagic: "an int",
	kindFloat: "a float", kindStr: "a str", kindOldStr: "an 8-bit string", kindBytes: "bytes",
	kindByteArray: "a bytearray", kindTuple: "a tuple", kindList: "a list", kindDict: "a dict", kindSet: "a set",
	kindFrozenSet: "a frozenset", kindGlobal: "a global", kindStorage: "a storage", kindOrdered: "an OrderedDict",
	kindCounter: "a Counter", kindTensor: "a Tensor", kindParameter: "a Parameter", kindSize: "a Size",
	kindDevice: "a device", kindLayout: "a layout", kindComplex: "a complex", kindArray: "an ndarray",
	kindScalar: "a numpy scalar", kindNumDType: "a numpy dtype",
}

// changes says whether a value may still change when it is made, and has an
// object therefore. What may be set on a tensor holds no other values.
func (k kind) changes() bool {
	switch k {
	case kindList, kindDict, kindSet, kindOrdered, kindCounter, kindArray, kindNumDType:
		return true
	}
	return false
}

// flags are what is known of a value and of all that it holds.
type flags uint8

const (
	flagInts       flags = 1 << iota // a tuple of nothing but integers
	flagCallable                     // holds a global that may be called
	flagUnhashable                   // a tuple that holds something without a hash
	flagMembers                      // a list that does
	flagShared                       // fetched a second time: must not change any more
	flagRefused                      // holds a refused value
)

// A value is what the machine knows of an object.
type value struct {
	kind kind
	n    int64   // of an int: the number; of a text, bytes, a tuple: the length
	o    *object // nil for what needs none
}

// An object is what several values may share.
type object struct {
	text   string // of a text that is short enough to be kept
	kept   bool   // text is there
	items  []value
	g      *known
	flags  flags
	depth  int32
	weight int64 // values in it, were it written out without sharing
}

// Sizes of what is kept, about, for [Limits.Kept].
const (
	objectSize  = 80
	valueSize   = 24
	storageSize = 160
)

const (
	// maxText is the longest text that is kept: longer ones are no names.
	maxText = 256
	// maxItems is the most items of a tuple that are kept: no callable takes
	// as many.
	maxItems = 16
	// A graph may be written out to as many values as maxShare for each
	// opcode, and freeWeight besides: vocabularies and hooks are shared, but
	// a bomb of n opcodes has 2^n.
	maxShare   = 64
	freeWeight = 1 << 20
)

func (v value) flags() flags {
	switch {
	case v.o != nil:
		return v.o.flags
	case v.kind == kindTuple: // only tuples of integers have no object
		return flagInts
	case v.kind == kindUnknown:
		return flagRefused
	}
	return 0
}

func (v value) has(f flags) bool { return v.flags()&f != 0 }

func (v value) weight() int64 {
	switch {
	case v.o != nil && v.o.weight > 0:
		return v.o.weight
	case v.kind == kindTuple:
		return v.n + 1
	}
	return 1
}

func (v value) depth() int32 {
	switch {
	case v.o != nil:
		return v.o.depth
	case v.kind == kindTuple:
		return 1
	}
	return 0
}

// text is the text of a value, if it is one and short enough to be known.
func (v value) text() (string, bool) {
	if (v.kind == kindStr || v.kind == kindOldStr) && v.o != nil {
		return v.o.text, v.o.kept
	}
	return "", false
}

// item is what stands at i in a tuple, which must have as many items; ok is
// false where it was not kept.
func (v value) item(i int64) (value, bool) {
	switch {
	case v.kind != kindTuple || i >= v.n:
		return value{}, false
	case v.o == nil:
		return value{kind: kindInt, n: -1}, true // the number was not kept
	case i >= int64(len(v.o.items)):
		return value{}, false
	}
	return v.o.items[i], true
}

// hashable says whether it can be a key. Loading fails where it cannot.
func (v value) hashable() bool {
	switch v.kind {
	case kindList, kindDict, kindSet, kindByteArray, kindOrdered, kindCounter, kindArray:
		return false
	}
	return !v.has(flagUnhashable)
}

// String describes it for a report.
func (v value) String() string {
	switch v.kind {
	case kindGlobal:
		return v.o.g.String()
	case kindInt:
		return "the int " + strconv.FormatInt(v.n, 10)
	case kindStr, kindOldStr:
		if s, ok := v.text(); ok {
			return `the text "` + shown(s) + `"`
		}
	}
	return kindNames[v.kind]
}

// A known is a global that the stream asks for.
type known struct {
	module, name string // fit for a report
	entry        *entry // nil if it is not on the list
	role         role
}

func (g *known) String() string { return g.module + "." + g.name }
