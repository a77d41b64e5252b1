package pickle

// An opcode is one of the 68 of protocols 0 to 5.
type opcode struct {
	name  string
	proto int // the protocol that brought it
	run   func(*machine) error
}

// latest is the highest protocol there is.
const latest = 5

// ops has an entry for each opcode; the others have no name.
var ops = [256]opcode{
	'(': {"MARK", 0, (*machine).mark},
	'.': {"STOP", 0, (*machine).stop},
	'0': {"POP", 0, (*machine).popOp},
	'1': {"POP_MARK", 1, (*machine).popMarkOp},
	'2': {"DUP", 0, (*machine).dup},
	'F': {"FLOAT", 0, (*machine).floatLine},
	'I': {"INT", 0, (*machine).intLine},
	'J': {"BININT", 1, (*machine).binInt},
	'K': {"BININT1", 1, (*machine).binInt1},
	'L': {"LONG", 0, (*machine).longLine},
	'M': {"BININT2", 1, (*machine).binInt2},
	'N': {"NONE", 0, (*machine).none},
	'P': {"PERSID", 0, (*machine).persID},
	'Q': {"BINPERSID", 1, (*machine).binPersID},
	'R': {"REDUCE", 0, (*machine).reduce},
	'S': {"STRING", 0, (*machine).stringLine},
	'T': {"BINSTRING", 1, (*machine).binString},
	'U': {"SHORT_BINSTRING", 1, (*machine).shortBinString},
	'V': {"UNICODE", 0, (*machine).unicodeLine},
	'X': {"BINUNICODE", 1, (*machine).binUnicode},
	'a': {"APPEND", 0, (*machine).appendOne},
	'b': {"BUILD", 0, (*machine).build},
	'c': {"GLOBAL", 0, (*machine).global},
	'd': {"DICT", 0, (*machine).dict},
	'}': {"EMPTY_DICT", 1, (*machine).emptyDict},
	'e': {"APPENDS", 1, (*machine).appendMany},
	'g': {"GET", 0, (*machine).getLine},
	'h': {"BINGET", 1, (*machine).binGet},
	'i': {"INST", 0, (*machine).inst},
	'j': {"LONG_BINGET", 1, (*machine).longBinGet},
	'l': {"LIST", 0, (*machine).list},
	']': {"EMPTY_LIST", 1, (*machine).emptyList},
	'o': {"OBJ", 1, (*machine).obj},
	'p': {"PUT", 0, (*machine).putLine},
	'q': {"BINPUT", 1, (*machine).binPut},
	'r': {"LONG_BINPUT", 1, (*machine).longBinPut},
	's': {"SETITEM", 0, (*machine).setOne},
	't': {"TUPLE", 0, (*machine).tuple},
	')': {"EMPTY_TUPLE", 1, (*machine).emptyTuple},
	'u': {"SETITEMS", 1, (*machine).setMany},
	'G': {"BINFLOAT", 1, (*machine).binFloat},

	0x80: {"PROTO", 2, (*machine).protocol},
	0x81: {"NEWOBJ", 2, (*machine).newObj},
	0x82: {"EXT1", 2, (*machine).ext1},
	0x83: {"EXT2", 2, (*machine).ext2},
	0x84: {"EXT4", 2, (*machine).ext4},
	0x85: {"TUPLE1", 2, (*machine).tuple1},
	0x86: {"TUPLE2", 2, (*machine).tuple2},
	0x87: {"TUPLE3", 2, (*machine).tuple3},
	0x88: {"NEWTRUE", 2, (*machine).newBool},
	0x89: {"NEWFALSE", 2, (*machine).newBool},
	0x8a: {"LONG1", 2, (*machine).long1},
	0x8b: {"LONG4", 2, (*machine).long4},

	'B': {"BINBYTES", 3, (*machine).binBytes},
	'C': {"SHORT_BINBYTES", 3, (*machine).shortBinBytes},

	0x8c: {"SHORT_BINUNICODE", 4, (*machine).shortBinUnicode},
	0x8d: {"BINUNICODE8", 4, (*machine).binUnicode8},
	0x8e: {"BINBYTES8", 4, (*machine).binBytes8},
	0x8f: {"EMPTY_SET", 4, (*machine).emptySet},
	0x90: {"ADDITEMS", 4, (*machine).addMany},
	0x91: {"FROZENSET", 4, (*machine).frozenSet},
	0x92: {"NEWOBJ_EX", 4, (*machine).newObjEx},
	0x93: {"STACK_GLOBAL", 4, (*machine).stackGlobal},
	0x94: {"MEMOIZE", 4, (*machine).memoize},
	0x95: {"FRAME", 4, (*machine).frame},

	0x96: {"BYTEARRAY8", 5, (*machine).byteArray8},
	0x97: {"NEXT_BUFFER", 5, (*machine).nextBuffer},
	0x98: {"READONLY_BUFFER", 5, (*machine).readonlyBuffer},
}
