package pickle

import (
	"fmt"
	"slices"
	"strings"
)

// A Profile is a list of the globals that a pickle may ask for, and of what
// it may do with each.
type Profile int

const (
	// Torch is what torch.load(weights_only=True) allows, and less: a callable
	// may only have the arguments that torch.save writes.
	Torch Profile = iota
	// Numpy is Torch and numpy's arrays, object arrays among them.
	Numpy
)

func (p Profile) String() string {
	switch p {
	case Torch:
		return "torch"
	case Numpy:
		return "numpy"
	}
	return fmt.Sprintf("Profile(%d)", int(p))
}

// names makes the profile's list, by module and name with a dot between.
func (p Profile) names() (map[string]*entry, error) {
	list := torchNames()
	switch p {
	case Torch:
	case Numpy:
		addNumpy(list)
	default:
		return nil, fmt.Errorf("pickle: unknown profile %d", int(p))
	}
	return list, nil
}

// A group says what kind of thing a global is where it is an argument.
type group uint8

const (
	other   group = iota
	rebuild       // a function that makes a tensor
	tensors       // a class of tensors
	dtype
	qscheme
	storage // a class of storages: only in persistent ids
	array   // numpy's class of arrays
)

// An entry is what may be done with a global. One without signatures is data
// only.
type entry struct {
	group   group
	calls   []string // signatures with which it may be REDUCEd
	creates []string // and with which NEWOBJ may create it
	result  kind
	wraps   bool  // calls its first argument
	size    int64 // of an element, of a class of storages
}

func (e *entry) signatures(r role) []string {
	switch {
	case e == nil:
		return nil
	case r == roleCreated:
		return e.creates
	}
	return e.calls
}

func (e *entry) callable() bool { return e != nil && (e.calls != nil || e.creates != nil) }

// torchNames is _get_allowed_globals of torch/_weights_only_unpickler.py, of
// torch 2.15. Not taken over: that any of them may be called or
// created with anything.
func torchNames() map[string]*entry {
	list := map[string]*entry{
		"collections.OrderedDict": {calls: []string{"", "L"}, result: kindOrdered},
		"collections.Counter":     {calls: []string{"", "D"}, result: kindCounter},

		"torch.Tensor":                 {group: tensors, creates: []string{""}, result: kindTensor},
		"torch.nn.parameter.Parameter": {group: tensors, creates: []string{"|tb"}, result: kindParameter},
		"torch.Size":                   {calls: []string{"z"}, creates: []string{"z"}, result: kindSize},
		"torch.device":                 {calls: []string{"u|i"}, result: kindDevice},

		"torch.serialization._get_layout": {calls: []string{"u"}, result: kindLayout},
		"_codecs.encode":                  {calls: []string{"ue"}, result: kindBytes},
		"builtins.bytearray":              {calls: []string{"|B", "ue"}, result: kindByteArray},
		"builtins.set":                    {calls: []string{"|S"}, result: kindSet},
		"builtins.complex":                {calls: []string{"FF"}, result: kindComplex},

		"torch._tensor._rebuild_from_type_v2": {calls: []string{"fTxa"}, result: kindTensor, wraps: true},

		// Wrappers of storages whose classes no persistent id names.
		"torch.storage.TypedStorage": {},
	}
	for name, signature := range map[string]string{
		"_rebuild_tensor":                        "sizz",
		"_rebuild_tensor_v2":                     "sizzbh|m",
		"_rebuild_tensor_v3":                     "sizzbhd|m",
		"_rebuild_qtensor":                       "sizzqbh",
		"_rebuild_sparse_tensor":                 "lo",
		"_rebuild_meta_tensor_no_storage":        "dzzb",
		"_rebuild_wrapper_subclass":              "Tdzzilvb",
		"_rebuild_device_tensor_from_numpy":      "Advb",
		"_rebuild_device_tensor_from_cpu_tensor": "tdvb",
		"_rebuild_parameter":                     "tbh",
		"_rebuild_parameter_with_state":          "tbha",
	} {
		k := kindTensor
		if strings.HasPrefix(name, "_rebuild_parameter") {
			k = kindParameter
		}
		list["torch._utils."+name] = &entry{group: rebuild, calls: []string{signature}, result: k}
	}
	addTypes(list)
	return list
}

// addTypes adds the classes and constants that are data only.
func addTypes(list map[string]*entry) {
	for name, size := range map[string]int64{
		"Double": 8, "Float": 4, "Half": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1, "BFloat16": 2,
		"ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QInt32": 4, "QUInt8": 1, "QUInt4x2": 1, "QUInt2x4": 1,
	} {
		list["torch."+name+"Storage"] = &entry{group: storage, size: size}
		if !strings.HasPrefix(name, "Q") {
			list["torch.cuda."+name+"Storage"] = &entry{group: storage, size: size}
		}
	}
	list["torch.storage.UntypedStorage"] = &entry{group: storage, size: 1}
	for _, name := range dtypes() {
		list["torch."+name] = &entry{group: dtype}
	}
	for _, name := range strings.Fields("tensor_affine tensor_symmetric channel_affine channel_symmetric channel_affine_float_qparams") {
		list["torch.per_"+name] = &entry{group: qscheme}
	}
	for _, name := range strings.Fields("Double Float Half BFloat16 Long Int Short Char Byte Bool") {
		for _, module := range strings.Fields("torch torch.cuda torch.sparse torch.cuda.sparse") {
			if name != "Bool" || !strings.HasSuffix(module, "sparse") {
				list[module+"."+name+"Tensor"] = &entry{}
			}
		}
	}
}

func dtypes() []string {
	names := strings.Fields(`float64 float32 float16 int64 int32 int16 int8 uint8 bool bfloat16 complex128 complex64
		qint8 qint32 quint8 quint4x2 quint2x4 float8_e5m2 float8_e4m3fn float8_e5m2fnuz float8_e4m3fnuz float8_e8m0fnu
		float4_e2m1fn_x2 bits8 bits16 bits1x8 bits2x4 bits4x2 complex32 bcomplex32 uint16 uint32 uint64`)
	for i := '1'; i <= '7'; i++ {
		names = append(names, "uint"+string(i), "int"+string(i))
	}
	return names
}

// addNumpy adds what the pickles of arrays ask for.
func addNumpy(list map[string]*entry) {
	for _, module := range []string{"numpy._core", "numpy.core", "numpy"} {
		list[module+".multiarray._reconstruct"] = &entry{calls: []string{"NzB"}, result: kindArray}
		list[module+".multiarray.scalar"] = &entry{calls: []string{"KB"}, result: kindScalar}
	}
	list["numpy.ndarray"] = &entry{group: array}
	list["numpy.dtype"] = &entry{calls: []string{"u|yy"}, result: kindNumDType}
}

// states are the kinds whose state BUILD may set, and the signatures of the
// state, where it is a tuple.
var states = map[kind][]string{
	kindOrdered: {},
	// Tensor.__setstate__ knows three forms, of three ages.
	kindTensor:    {"sizz", "tphbp", "bph"},
	kindParameter: {"sizz", "tphbp", "bph"},
	kindArray:     {"izKyr"},
	kindNumDType:  {"*"},
}

// stateFits holds that a state is of one of the forms. An OrderedDict's is a
// dictionary of its attributes, in which no callable may take the place of a
// method.
func stateFits(forms []string, state value) bool {
	if len(forms) == 0 {
		return state.kind == kindDict && !state.has(flagCallable)
	}
	return matchesAny(forms, state)
}

func matchesAny(signatures []string, args value) bool {
	return slices.ContainsFunc(signatures, func(s string) bool { return matches(s, args) })
}

// matches holds that a tuple has the items that a signature asks for: a
// letter each, those behind | may be missing at the end, and * is any number
// without a callable.
func matches(signature string, args value) bool {
	if args.kind != kindTuple {
		return false
	}
	if signature == "*" {
		return !args.has(flagCallable)
	}
	required, letters, found := strings.Cut(signature, "|")
	least := int64(len(required))
	letters = required + letters
	if !found {
		least = int64(len(letters))
	}
	if args.n < least || args.n > int64(len(letters)) {
		return false
	}
	for i := range args.n {
		v, ok := args.item(i)
		if !ok || !v.is(letters[i]) {
			return false
		}
	}
	return true
}

// is holds that a value is what a letter of a signature stands for.
func (v value) is(letter byte) bool {
	if kinds := letterKinds[letter]; kinds != nil {
		return slices.Contains(kinds, v.kind) && !v.has(flagCallable)
	}
	switch letter {
	case 'a': // anything that is no callable and holds none
		return v.kind != kindGlobal && !v.has(flagCallable)
	case 'x': // the arguments of another call
		return v.kind == kindTuple
	case 'L', 'D', 'o', 'q': // plain containers
		return v.isContainer(letter)
	case 'S': // what a set is made of
		return v.kind == kindList && !v.has(flagMembers|flagCallable)
	case 'z': // a shape or strides
		return v.kind == kindSize || v.kind == kindTuple && v.has(flagInts)
	case 'h': // hooks: none, or a dictionary without any
		return v.kind == kindNone || v.kind == kindOrdered && v.o.weight == 1
	case 'e': // an encoding that loads no codec
		s, _ := v.text()
		return s == "latin1" || s == "latin-1"
	}
	want, ok := letterGroups[letter]
	return ok && v.kind == kindGlobal && v.o.g.entry != nil && v.o.g.entry.group == want
}

func (v value) isContainer(letter byte) bool {
	if v.has(flagCallable) {
		return false
	}
	switch letter {
	case 'L':
		return v.kind == kindList || v.kind == kindTuple
	case 'D':
		return v.kind == kindDict
	case 'q': // a scheme and its numbers
		first, ok := v.item(0)
		return ok && first.is('Q')
	}
	return v.kind == kindTuple
}

// letterKinds are the letters that stand for kinds.
var letterKinds = map[byte][]kind{
	's': {kindStorage},
	'i': {kindInt},
	'b': {kindBool},
	'y': {kindBool, kindInt},
	'p': {kindNone, kindBool, kindInt},
	'F': {kindFloat, kindInt},
	'm': {kindDict, kindNone},
	't': {kindTensor, kindParameter},
	'l': {kindLayout},
	'v': {kindStr, kindOldStr, kindDevice, kindNone},
	'u': {kindStr, kindOldStr},
	'B': {kindBytes, kindByteArray, kindOldStr},
	'A': {kindArray},
	'r': {kindBytes, kindByteArray, kindOldStr, kindList},
	'K': {kindNumDType},
}

// letterGroups are the letters that stand for globals.
var letterGroups = map[byte]group{
	'd': dtype,
	'f': rebuild,
	'T': tensors,
	'Q': qscheme,
	'N': array,
}
