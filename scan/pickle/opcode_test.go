package pickle

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// The parts of a pickle, written by hand.

func le(n uint64, size int) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	return string(b[:size])
}

func proto(n int) string            { return "\x80" + string(rune(n)) }
func glob(module, n string) string  { return "c" + module + "\n" + n + "\n" }
func uni(s string) string           { return "X" + le(uint64(len(s)), 4) + s }
func short(s string) string         { return "\x8c" + le(uint64(len(s)), 1) + s }
func sglob(module, n string) string { return short(module) + short(n) + "\x93" }
func framed(s string) string        { return "\x95" + le(uint64(len(s)), 8) + s }

// run is the value that a pickle makes, with the machine that made it.
func run(t *testing.T, in string) (*machine, value, error) {
	t.Helper()
	allow, err := Numpy.names()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(strings.NewReader(in), allow, Options{Profile: Numpy})
	v, err := m.pickle()
	return m, v, err
}

// TestOpcodes runs every opcode: its argument, what it takes from the stack,
// and what it leaves there.
func TestOpcodes(t *testing.T) {
	dict := glob("collections", "OrderedDict")
	tests := map[string][]struct {
		in   string
		want string // the value; or the code of the finding that stands or ends it
	}{
		"MARK":     {{"(l.", "a list"}, {"((.", CodeStack}, {"(N.", CodeLeftover}},
		"STOP":     {{"N.", "None"}, {".", CodeStack}, {"NN.", CodeLeftover}},
		"POP":      {{"NK\x010.", "None"}, {"N(0.", "None"}, {"0N.", CodeStack}, {"N(00N.", "None"}},
		"POP_MARK": {{"N(KKKK1.", "None"}, {"N1.", CodeStack}},
		"DUP":      {{"K\x0320.", "the int 3"}, {"2N.", CodeStack}, {"N(2.", CodeStack}},
		"FLOAT": {
			{"F1.5\n.", "a float"},
			{"F-1e+300\n.", "a float"},
			{"Finf\n.", "a float"},
			{"F1e999\n.", "a float"},
			{"F0x1p3\n.", CodeMalformed},
			{"F1_0\n.", CodeMalformed},
			{"F\n.", CodeMalformed},
			{"F1.5", CodeTruncated},
		},
		"INT": {
			{"I7\n.", "the int 7"},
			{"I-7\n.", "the int -7"},
			{"I01\n.", "a bool"},
			{"I00\n.", "a bool"},
			{"I0\n.", "the int 0"},
			{"I007\n.", CodeMalformed},
			{"I0x7\n.", CodeMalformed},
			{"I7 \n.", CodeMalformed},
			{"I-\n.", CodeMalformed},
			{"I-0\n.", CodeMalformed},
			{"I99999999999999999999\n.", "the int -1"},
		},
		"BININT":  {{"J\xff\xff\xff\xff.", "the int -1"}, {"J\x00\x01\x00\x00.", "the int 256"}, {"J\x00", CodeTruncated}},
		"BININT1": {{"K\xff.", "the int 255"}, {"K", CodeTruncated}},
		"BININT2": {{"M\xe9\x03.", "the int 1001"}, {"M\x00", CodeTruncated}},
		"LONG": {
			{"L5L\n.", "the int 5"},
			{"L5\n.", "the int 5"},
			{"L" + magicText + "L\n.", "an int"},
			{"L0x5L\n.", CodeMalformed},
			{"LL\n.", CodeMalformed},
			{"L" + strings.Repeat("9", 4400) + "\n.", CodeMalformed},
		},
		"NONE":      {{"N.", "None"}},
		"PERSID":    {{"P1\n.", CodePersistent}, {"P1", CodeTruncated}},
		"BINPERSID": {{"NQ.", CodePersistent}, {"Q.", CodeStack}},
		"REDUCE": {
			{dict + ")R.", "an OrderedDict"},
			{"N)R.", CodeCall},
			{dict + "NR.", CodeArgs},
			{")R.", CodeStack},
			{dict + "()R.", CodeStack},
		},
		"STRING": {
			{"S'a\\x41\\n\\101\\q\\''\n.", `the text "aA\nA\\q'"`},
			{"S\"b\"\n.", `the text "b"`},
			{"S'a\"\n.", CodeMalformed},
			{"Sa\n.", CodeMalformed},
			{"S'\n.", CodeMalformed},
			{"S'\\x4'\n.", CodeMalformed},
			{"S'\\'\n.", CodeMalformed},
			{"S'\\xzz'\n.", CodeMalformed},
			{"S'" + strings.Repeat("a", 300) + "'\n.", "an 8-bit string"},
		},
		"BINSTRING":       {{"T\x01\x00\x00\x00a.", `the text "a"`}, {"T\xff\xff\xff\xffa.", CodeMalformed}, {"T\x02\x00\x00\x00a", CodeTruncated}},
		"SHORT_BINSTRING": {{"U\x01\xff.", `the text "\xff"`}, {"U\x02a", CodeTruncated}},
		"UNICODE": {
			{"Va\\u00e9\\U0001f600\xe9\\\\u\n.", `the text "a\u00e9\U0001f600\u00e9\\\\u"`},
			{"V\\u00e\n.", CodeMalformed},
			{"V\\U00110000\n.", CodeMalformed},
			{"Vabc", CodeTruncated},
			{"V" + strings.Repeat("a", maxLine) + "\n.", CodeLimit},
		},
		"BINUNICODE": {
			{uni("a") + ".", `the text "a"`},
			{uni("\xed\xa0\x80") + ".", `the text "\xed\xa0\x80"`},
			{uni("\xc0\x80") + ".", CodeMalformed},
			{uni("\xf4\x90\x80\x80") + ".", CodeMalformed},
			{uni("\xe2\x82") + ".", CodeMalformed},
			{uni(strings.Repeat("é", 5000)) + ".", "a str"},
			{uni(strings.Repeat("é", 5000)+"\xe9") + ".", CodeMalformed},
			{"X\x02\x00\x00\x00a", CodeTruncated},
		},
		"APPEND":      {{"]Na.", "a list"}, {"}Na.", CodeMutate}, {"]a.", CodeStack}, {"](Na.", CodeStack}},
		"BUILD":       {{dict + ")R}b.", "an OrderedDict"}, {"]}b.", CodeBuild}, {"}b.", CodeStack}},
		"GLOBAL":      {{dict + ".", "collections.OrderedDict"}, {glob("os", "system") + ".", CodeGlobal}, {"cos\nsystem", CodeTruncated}},
		"DICT":        {{"(K\x01Nd.", "a dict"}, {"(Nd.", CodeMalformed}, {"d.", CodeStack}, {"(]Nd.", CodeUnhashable}},
		"EMPTY_DICT":  {{"}.", "a dict"}},
		"APPENDS":     {{"](NNe.", "a list"}, {"](e.", "a list"}, {"}(Ne.", CodeMutate}, {"Ne.", CodeStack}, {"(Ne.", CodeStack}},
		"GET":         {{"Np1\n0g1\n.", "None"}, {"g1\n.", CodeMemo}, {"Np1\n0g01\n.", CodeMalformed}, {"g-1\n.", CodeMalformed}},
		"BINGET":      {{"Nq\x050h\x05.", "None"}, {"Nq\x050h\x04.", CodeMemo}},
		"INST":        {{"(icollections\nOrderedDict\n.", CodeInst}, {"icollections\nOrderedDict\n.", CodeStack}},
		"LONG_BINGET": {{"Nr\x05\x00\x00\x000j\x05\x00\x00\x00.", "None"}, {"Nj\xff\xff\xff\xff.", CodeMemo}},
		"LIST":        {{"(NNl.", "a list"}, {"l.", CodeStack}},
		"EMPTY_LIST":  {{"].", "a list"}},
		"OBJ":         {{"(" + dict + "o.", CodeInst}, {"(o.", CodeStack}, {dict + "o.", CodeStack}},
		"PUT":         {{"Np0\n.", "None"}, {"p0\n.", CodeStack}, {"Np-1\n.", CodeMalformed}, {"Np99999999\n.", CodeLimit}},
		"BINPUT":      {{"Nq\x00.", "None"}, {"N(q\x00.", CodeStack}},
		"LONG_BINPUT": {{"Nr\xff\x00\x00\x00.", "None"}, {"Nr\xff\xff\xff\xff.", CodeLimit}},
		"SETITEM": {
			{"}K\x01Ns.", "a dict"},
			{dict + ")RK\x01Ns.", "an OrderedDict"},
			{"]K\x01Ns.", CodeMutate},
			{"}Ns.", CodeStack},
			{"}}Ns.", CodeUnhashable},
		},
		"TUPLE":       {{"(NNt.", "a tuple"}, {"t.", CodeStack}},
		"EMPTY_TUPLE": {{").", "a tuple"}},
		"SETITEMS":    {{"}(K\x01Nu.", "a dict"}, {"}(Nu.", CodeMalformed}, {"](NNu.", CodeMutate}, {"}(]Nu.", CodeUnhashable}},
		"BINFLOAT":    {{"G01234567.", "a float"}, {"G", CodeTruncated}},

		"PROTO": {
			{proto(2) + "N.", "None"},
			{proto(5) + "N.", "None"},
			{proto(6) + "N.", CodeProtocol},
			{proto(1) + "N.", CodeProtocol},
			{proto(2) + proto(2) + "N.", CodeProtocol},
			{"N" + proto(2) + ".", CodeProtocol},
		},
		"NEWOBJ":   {{proto(2) + dict + ")\x81.", CodeNew}, {proto(2) + glob("torch", "Tensor") + ")\x81.", "a Tensor"}, {proto(2) + ")\x81.", CodeStack}},
		"EXT1":     {{proto(2) + "\x82\x01.", CodeExt}, {proto(2) + "\x82", CodeTruncated}},
		"EXT2":     {{proto(2) + "\x83\x01\x01.", CodeExt}},
		"EXT4":     {{proto(2) + "\x84\x01\x01\x01\x01.", CodeExt}},
		"TUPLE1":   {{proto(2) + "N\x85.", "a tuple"}, {proto(2) + "\x85.", CodeStack}},
		"TUPLE2":   {{proto(2) + "NN\x86.", "a tuple"}, {proto(2) + "N\x86.", CodeStack}, {proto(2) + "N(N\x86.", CodeStack}},
		"TUPLE3":   {{proto(2) + "NNN\x87.", "a tuple"}, {proto(2) + "NN\x87.", CodeStack}},
		"NEWTRUE":  {{proto(2) + "\x88.", "a bool"}, {"\x88.", CodeProtocol}},
		"NEWFALSE": {{proto(2) + "\x89.", "a bool"}},
		"LONG1": {
			{proto(2) + "\x8a\x00.", "the int 0"},
			{proto(2) + "\x8a\x01\xff.", "the int -1"},
			{proto(2) + "\x8a\x02\x00\x80.", "the int -32768"},
			{proto(2) + "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", "the int 9223372036854775807"},
			{proto(2) + "\x8a\x0a" + string(magicBytes[:]) + ".", "an int"},
			{proto(2) + "\x8a\x02\x00", CodeTruncated},
		},
		"LONG4": {
			{proto(2) + "\x8b\x01\x00\x00\x00\x05.", "the int 5"},
			{proto(2) + "\x8b\xff\xff\xff\xff.", CodeMalformed},
			{proto(2) + "\x8b\xff\xff\xff\x7f.", CodeLimit},
		},
		"BINBYTES":         {{proto(3) + "B\x01\x00\x00\x00a.", "bytes"}, {proto(3) + "B\x02\x00\x00\x00a", CodeTruncated}, {proto(2) + "B\x00\x00\x00\x00.", CodeProtocol}},
		"SHORT_BINBYTES":   {{proto(3) + "C\x01a.", "bytes"}, {proto(3) + "C", CodeTruncated}},
		"SHORT_BINUNICODE": {{proto(4) + short("a") + ".", `the text "a"`}, {proto(3) + short("a") + ".", CodeProtocol}, {proto(4) + short("\xff") + ".", CodeMalformed}},
		"BINUNICODE8":      {{proto(4) + "\x8d" + le(1, 8) + "a.", `the text "a"`}, {proto(4) + "\x8d" + le(1<<63, 8) + "a.", CodeLimit}, {proto(4) + "\x8d" + le(1<<30, 8) + "a.", CodeLimit}},
		"BINBYTES8":        {{proto(4) + "\x8e" + le(1, 8) + "a.", "bytes"}, {proto(4) + "\x8e" + le(1<<62, 8) + "a.", CodeLimit}, {proto(4) + "\x8e" + le(1<<20, 8) + "a.", CodeTruncated}},
		"EMPTY_SET":        {{proto(4) + "\x8f.", "a set"}},
		"ADDITEMS":         {{proto(4) + "\x8f(N\x90.", "a set"}, {proto(4) + "](N\x90.", CodeMutate}, {proto(4) + "\x8f(]\x90.", CodeUnhashable}},
		"FROZENSET":        {{proto(4) + "(N\x91.", "a frozenset"}, {proto(4) + "(}\x91.", CodeUnhashable}, {proto(4) + "\x91.", CodeStack}},
		"NEWOBJ_EX":        {{proto(4) + glob("torch", "Tensor") + ")}\x92.", CodeNew}, {proto(4) + ")}\x92.", CodeStack}},
		"STACK_GLOBAL": {
			{proto(4) + sglob("torch", "float32") + ".", "torch.float32"},
			{proto(4) + short("torch") + "\x940h\x00" + short("Size") + "\x93.", "torch.Size"},
			{proto(4) + short("os") + "\x94" + short("system") + "\x94\x93.", CodeGlobal},
			{proto(4) + short("torch") + "N\x93.", CodeStackGlobal},
			{proto(4) + short("torch") + "\x93.", CodeStack},
		},
		"MEMOIZE":         {{proto(4) + "N\x94}\x940h\x00\x86.", "a tuple"}, {proto(4) + "N\x940h\x00.", "None"}, {proto(4) + "\x94.", CodeStack}},
		"FRAME":           {{proto(4) + framed("N."), "None"}, {proto(4) + framed("N") + ".", "None"}, {proto(4) + framed("N.N"), CodeFrame}},
		"BYTEARRAY8":      {{proto(5) + "\x96" + le(1, 8) + "a.", "a bytearray"}, {proto(5) + "\x96" + le(9, 8) + "a.", CodeTruncated}},
		"NEXT_BUFFER":     {{proto(5) + "\x97.", CodeBuffer}},
		"READONLY_BUFFER": {{proto(5) + "N\x98.", CodeBuffer}, {proto(5) + "\x98.", CodeStack}},
	}
	known := 0
	for _, op := range ops {
		if op.run == nil {
			continue
		}
		known++
		if len(tests[op.name]) == 0 {
			t.Errorf("%s has no test", op.name)
		}
	}
	if known != 68 || len(tests) != 68 {
		t.Errorf("%d opcodes and %d tests, want 68 of each", known, len(tests))
	}
	for name, cases := range tests {
		t.Run(name, func(t *testing.T) {
			for _, c := range cases {
				if got := outcome(t, c.in); got != c.want {
					t.Errorf("%q is %s, want %s", c.in, got, c.want)
				}
			}
		})
	}
}

// outcome is what a pickle makes, or the code of what is first held against
// it.
func outcome(t *testing.T, in string) string {
	t.Helper()
	m, v, err := run(t, in)
	if len(m.rep.Findings) > 0 {
		return m.rep.Findings[0].Code
	}
	if h, ok := errors.AsType[*halt](err); ok {
		return h.code
	}
	if err != nil {
		t.Fatal(err)
	}
	return v.String()
}

// TestOpcodeTable compares the table with the one of Python's pickletools,
// as the standard library's documentation orders it: by protocol.
func TestOpcodeTable(t *testing.T) {
	protocols := []string{
		"(.02FILNPRSVabcdgilpst",
		"1JKMQTUX}ehj]oqr)uG",
		"\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b",
		"BC",
		"\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95",
		"\x96\x97\x98",
	}
	want := map[byte]int{}
	for p, codes := range protocols {
		for i := range len(codes) {
			want[codes[i]] = p
		}
	}
	for i := range 256 {
		b := byte(i)
		p, ok := want[b]
		if (ops[b].run != nil) != ok || ok && ops[b].proto != p {
			t.Errorf("opcode %s %q: protocol %d, want %d (an opcode: %v)", hex(b), ops[b].name, ops[b].proto, p, ok)
		}
		if ok {
			continue
		}
		if got := outcome(t, string([]byte{'N', b, '.'})); got != CodeOpcode {
			t.Errorf("byte %s: %s, want %s", hex(b), got, CodeOpcode)
		}
	}
}
