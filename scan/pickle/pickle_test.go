package pickle

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// The pickles that torch.save writes, by hand.

// hooks is an OrderedDict without anything in it.
var hooks = glob("collections", "OrderedDict") + ")R"

// pid loads a storage of four floats; extra is what the older form has too.
func pid(key, extra string) string {
	return "(" + uni("storage") + glob("torch", "FloatStorage") + uni(key) + uni("cpu") + "K\x04" + extra + "tQ"
}

// tensorOf is a tensor of a storage, with the state of no gradient and hooks.
func tensorOf(storage, hooks string) string {
	return glob("torch._utils", "_rebuild_tensor_v2") + "(" + storage + "K\x00K\x04\x85K\x01\x85\x89" + hooks + "tR"
}

var tensor = tensorOf(pid("0", ""), hooks)

// stateDict is what torch.save writes of a model: an OrderedDict with a
// state of its own.
var stateDict = proto(2) + hooks + "q\x01(" + uni("a.weight") + tensor + uni("b.weight") + tensorOf(pid("1", ""), hooks) +
	"u}" + uni("_metadata") + hooks + "sb."

func scan(t *testing.T, in string, p Profile) *Report {
	t.Helper()
	rep, err := Scan(strings.NewReader(in), Options{Profile: p})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Safe != (len(rep.Findings) == 0) {
		t.Errorf("%q: safe is %v with %d findings", in, rep.Safe, len(rep.Findings))
	}
	return rep
}

func codes(rep *Report) []string {
	var out []string
	for _, f := range rep.Findings {
		out = append(out, f.Code)
	}
	return out
}

// TestReport holds a report in all its parts.
func TestReport(t *testing.T) {
	in := proto(2) + hooks + "(" + uni("w") + tensor + "u" + glob("os", "system") + uni("id") + "\x85R0."
	want := &Report{
		Profile: "torch", Protocol: 2, Bytes: int64(len(in)), Opcodes: 34,
		Globals: []Global{
			{Module: "collections", Name: "OrderedDict", Role: "called", Listed: true, Offset: 2},
			{Module: "torch._utils", Name: "_rebuild_tensor_v2", Role: "called", Listed: true, Offset: int64(strings.Index(in, "ctorch._utils"))},
			{Module: "torch", Name: "FloatStorage", Role: "data", Listed: true, Offset: int64(strings.Index(in, "ctorch\nFloat"))},
			{Module: "os", Name: "system", Role: "called", Offset: int64(strings.Index(in, "cos\n"))},
		},
		Findings: []Finding{
			{Code: CodeGlobal, Offset: int64(strings.Index(in, "cos\n")), Text: "os.system is not on the allowlist of profile torch"},
			{Code: CodeCall, Offset: int64(len(in) - 3), Text: "calls os.system"},
		},
		Notes:    []Finding{},
		Storages: []Storage{{Key: "0", Type: "FloatStorage", Device: "cpu", Count: 4, Bytes: 16}},
	}
	if diff := cmp.Diff(want, scan(t, in, Torch)); diff != "" {
		t.Error(diff)
	}
}

// TestSafe holds that what torch.save writes passes.
func TestSafe(t *testing.T) {
	size := "K\x02K\x03\x86"
	layout := glob("torch.serialization", "_get_layout") + uni("torch.sparse_coo") + "\x85R"
	meta := glob("torch._utils", "_rebuild_meta_tensor_no_storage") + "(" + glob("torch", "float32") + size + size + "\x89tR"
	typed := func(of, kind string) string {
		return glob("torch._tensor", "_rebuild_from_type_v2") + "(" + glob("torch._utils", "_rebuild_tensor_v2") + kind +
			"(" + pid("0", "") + "K\x00" + size + size + "\x89" + hooks + "t" + of + "tR"
	}
	tests := map[string]string{
		"state dict":          stateDict,
		"protocol 4":          proto(4) + framed(short("a")+"\x94"+glob("torch", "Size")+size+"\x85R\x86."),
		"device":              proto(2) + glob("torch", "device") + uni("cuda") + "K\x00\x86R.",
		"dtype as data":       proto(2) + glob("torch", "float8_e4m3fn") + ".",
		"bytes of protocol 2": proto(2) + glob("_codecs", "encode") + uni("\u00e9") + uni("latin1") + "\x86R.",
		"bytearray":           proto(3) + glob("builtins", "bytearray") + "C\x01a\x85R.",
		"old bytearray":       proto(2) + glob("__builtin__", "bytearray") + uni("a") + uni("latin-1") + "\x86R.",
		"set":                 proto(2) + glob("__builtin__", "set") + "](K\x01K\x02e\x85R.",
		"complex":             proto(2) + glob("__builtin__", "complex") + "G01234567G01234567\x86R.",
		"counter":             proto(2) + glob("collections", "Counter") + "}" + uni("a") + "K\x01s\x85R.",
		"parameter":           proto(2) + glob("torch._utils", "_rebuild_parameter") + "(" + tensor + "\x88" + hooks + "tR.",
		"parameter and state": proto(2) + glob("torch._utils", "_rebuild_parameter_with_state") + "(" + tensor + "\x88" + hooks + "}" + uni("a") + "Nst" + "R.",
		"new parameter":       proto(2) + glob("torch.nn.parameter", "Parameter") + tensor + "\x88\x86\x81.",
		"old tensor state":    proto(2) + glob("torch", "Tensor") + ")\x81(" + pid("0", "") + "K\x00" + size + size + "tb.",
		"old variable state":  proto(2) + glob("torch.nn.parameter", "Parameter") + ")\x81(\x89N" + hooks + "tb.",
		"sparse":              proto(2) + glob("torch._utils", "_rebuild_sparse_tensor") + "(" + layout + "(" + tensor + tensor + size + "ttR.",
		"meta":                proto(2) + meta + ".",
		"quantized": proto(2) + glob("torch._utils", "_rebuild_qtensor") + "(" + pid("0", "") + "K\x00" + size + size +
			glob("torch", "per_tensor_affine") + "G01234567K\x00\x87\x89" + hooks + "tR.",
		"version 3":    proto(2) + glob("torch._utils", "_rebuild_tensor_v3") + "(" + pid("0", "") + "K\x00" + size + size + "\x89" + hooks + glob("torch", "uint16") + "}tR.",
		"with type":    proto(2) + typed("}"+uni("tag")+"Ns", glob("torch", "Tensor")) + ".",
		"wrapper":      proto(2) + glob("torch._utils", "_rebuild_wrapper_subclass") + "(" + glob("torch", "Tensor") + glob("torch", "float32") + size + size + "K\x00" + layout + uni("cpu") + "\x89tR.",
		"other device": proto(2) + glob("torch._utils", "_rebuild_device_tensor_from_cpu_tensor") + "(" + tensor + glob("torch", "float32") + uni("xla:0") + "\x89tR.",
		"shared":       proto(2) + "]q\x00K\x01a0](h\x00h\x00e.",
		"name through the memo": proto(4) + short("torch") + "\x94" + short("Size") + "\x94\x930h\x00h\x01\x93" +
			size + "\x85R.",
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			rep := scan(t, in, Torch)
			if !rep.Safe {
				t.Errorf("%+v", rep.Findings)
			}
			if rep.Bytes != int64(len(in)) {
				t.Errorf("%d bytes accounted for, of %d", rep.Bytes, len(in))
			}
		})
	}
}

// TestRefused holds each rule, and each known way around scanners.
func TestRefused(t *testing.T) {
	call := glob("os", "system") + uni("id") + "\x85R"
	size := "K\x02K\x03\x86"
	od := glob("collections", "OrderedDict")
	rebuild := glob("torch._utils", "_rebuild_tensor_v2")
	v2 := func(storage, hooks string) string {
		return proto(2) + rebuild + "(" + storage + "K\x00" + size + size + "\x89" + hooks + "tR."
	}
	storage := func(items string) string { return v2("("+items+"tQ", hooks) }
	float := glob("torch", "FloatStorage")
	fromType := glob("torch._tensor", "_rebuild_from_type_v2")
	tests := map[string]struct {
		in   string
		want string // one of the codes
	}{
		// Which global.
		"call":                       {proto(2) + call + ".", CodeCall},
		"call of python 2":           {proto(2) + glob("__builtin__", "eval") + uni("1") + "\x85R.", CodeGlobal},
		"not called":                 {proto(2) + glob("os", "system") + ".", CodeGlobal},
		"dropped":                    {proto(2) + glob("os", "system") + "0N.", CodeGlobal},
		"call dropped":               {proto(2) + call + "0" + stateDict[2:], CodeCall},
		"call dropped with its mark": {proto(2) + "(" + call + "1N.", CodeCall},
		"stack global":               {proto(4) + sglob("os", "system") + short("id") + "\x85R.", CodeGlobal},
		"python 2 name in protocol 4": {
			proto(4) + sglob("__builtin__", "set") + ".", CodeGlobal,
		},
		"submodule":                 {proto(2) + glob("torch._utils.x", "_rebuild_tensor_v2") + ".", CodeGlobal},
		"storage loader":            {proto(2) + glob("torch.storage", "_load_from_bytes") + ".", CodeGlobal},
		"resolve by name":           {proto(2) + glob("pkgutil", "resolve_name") + uni("os:system") + "\x85R.", CodeGlobal},
		"getattr":                   {proto(2) + glob("builtins", "getattr") + ".", CodeGlobal},
		"another module's function": {proto(2) + glob("torch.serialization", "load") + ".", CodeGlobal},

		// Which name.
		"dotted name":                {proto(4) + sglob("torch", "serialization.os.system") + ".", CodeName},
		"dotted name of an entry":    {proto(4) + sglob("torch", "_utils._rebuild_tensor_v2") + ".", CodeName},
		"dotted name, GLOBAL":        {proto(2) + glob("torch", "nn.parameter.Parameter") + ".", CodeName},
		"name with carriage return":  {proto(2) + glob("torch", "Size\r") + ".", CodeName},
		"name in other letters":      {proto(4) + sglob("torch", "\uff33ize") + ".", CodeName},
		"empty name":                 {proto(2) + glob("torch", "") + ".", CodeName},
		"empty part of a module":     {proto(2) + glob("torch.", "Size") + ".", CodeName},
		"name is an int":             {proto(4) + short("os") + "K\x01\x93.", CodeStackGlobal},
		"name is bytes":              {proto(4) + short("os") + "C\x06system\x93.", CodeStackGlobal},
		"name is an old string":      {proto(4) + short("torch") + "U\x04Size\x93.", CodeStackGlobal},
		"name is a call":             {proto(4) + short("torch") + glob("_codecs", "encode") + uni("Size") + uni("latin1") + "\x86R\x93.", CodeStackGlobal},
		"name is a persistent id":    {proto(4) + short("torch") + pid("0", "") + "\x93.", CodeStackGlobal},
		"name is too long":           {proto(4) + short("torch") + uni(strings.Repeat("a", 300)) + "\x93.", CodeStackGlobal},
		"name is a tuple":            {proto(4) + short("torch") + short("Size") + "\x85\x93.", CodeStackGlobal},
		"name from the memo":         {proto(4) + short("os") + "\x94" + short("system") + "\x9400" + "h\x00h\x01\x93.", CodeGlobal},
		"name by dup":                {proto(4) + short("os") + "2\x93.", CodeGlobal},
		"name behind others, popped": {proto(4) + short("os") + short("system") + short("Size") + "0\x93.", CodeGlobal},
		"memo entry replaced":        {proto(4) + short("torch") + "q\x00" + short("os") + "q\x000" + "0h\x00" + short("system") + "\x93.", CodeGlobal},
		"memoize onto a put":         {proto(4) + short("torch") + "q\x01" + short("os") + "\x9400h\x01" + short("system") + "\x93.", CodeGlobal},
		"long name of a module":      {proto(2) + glob(strings.Repeat("a", 300), "b") + ".", CodeLimit},

		// Which opcode.
		"inst":                {"(S'id'\nios\nsystem\n.", CodeInst},
		"inst, popped":        {"(S'id'\nios\nsystem\n0N.", CodeInst},
		"obj":                 {"(" + glob("os", "system") + "S'id'\no0N.", CodeInst},
		"obj of an entry":     {"(" + od + "o.", CodeInst},
		"extension":           {proto(2) + "\x82\x01)R.", CodeExt},
		"extension 4":         {proto(2) + "\x84\x00\x00\x00\x80.", CodeExt},
		"buffer":              {proto(5) + "\x97\x98.", CodeBuffer},
		"persistent id, text": {"P0\n.", CodePersistent},
		"keyword arguments":   {proto(4) + glob("torch", "Tensor") + ")}\x92.", CodeNew},

		// Which role.
		"data called":                {proto(2) + glob("torch", "float32") + ")R.", CodeCall},
		"storage called":             {proto(2) + float + "J\xff\xff\xff\x7f\x85R.", CodeCall},
		"legacy tensor class called": {proto(2) + glob("torch", "FloatTensor") + ")R.", CodeCall},
		"class called":               {proto(2) + glob("torch", "Tensor") + "J\xff\xff\xff\x7f\x85R.", CodeCall},
		"function created":           {proto(2) + rebuild + ")\x81.", CodeNew},
		"result called":              {proto(2) + od + ")R)R.", CodeCall},
		"result created":             {proto(2) + od + ")R)\x81.", CodeNew},
		"text called":                {proto(2) + uni("os.system") + ")R.", CodeCall},

		// With which arguments.
		"arguments are no tuple":      {proto(2) + od + "]R.", CodeArgs},
		"codec of the attacker":       {proto(2) + glob("_codecs", "encode") + uni("x") + uni("zlib_codec") + "\x86R.", CodeArgs},
		"codec not known":             {proto(2) + glob("_codecs", "encode") + uni("x") + "N\x86R.", CodeArgs},
		"huge bytearray":              {proto(2) + glob("builtins", "bytearray") + "J\xff\xff\xff\x7f\x85R.", CodeArgs},
		"no storage":                  {v2("K\x00", hooks), CodeArgs},
		"hooks with a function":       {v2(pid("0", ""), od+")RK\x01"+od+"s"), CodeArgs},
		"hooks filled later":          {proto(2) + od + ")Rq\x00" + rebuild + "(" + pid("0", "") + "K\x00" + size + size + "\x89h\x00tR0K\x01Ns.", CodeShared},
		"hooks filled before":         {proto(2) + od + ")Rq\x00K\x01Ns0" + rebuild + "(" + pid("0", "") + "K\x00" + size + size + "\x89h\x00tR.", CodeArgs},
		"shape with a text":           {proto(2) + glob("torch", "Size") + "K\x01" + uni("a") + "\x86\x85R.", CodeArgs},
		"too few":                     {proto(2) + rebuild + "(" + pid("0", "") + "tR.", CodeArgs},
		"too many":                    {proto(2) + rebuild + "(" + strings.Repeat("N", 40) + "tR.", CodeArgs},
		"calls its argument":          {proto(2) + fromType + "(" + glob("os", "system") + glob("torch", "Tensor") + uni("id") + "\x85NtR.", CodeGlobal},
		"calls another entry":         {proto(2) + fromType + "(" + glob("torch", "device") + glob("torch", "Tensor") + uni("cpu") + "\x85NtR.", CodeArgs},
		"calls itself":                {proto(2) + fromType + "(" + fromType + glob("torch", "Tensor") + ")NtR.", CodeArgs},
		"argument with bad arguments": {proto(2) + fromType + "(" + rebuild + glob("torch", "Tensor") + ")NtR.", CodeArgs},
		"type is a function":          {proto(2) + fromType + "(" + rebuild + rebuild + ")NtR.", CodeArgs},
		"state with a function":       {proto(2) + glob("torch._utils", "_rebuild_parameter_with_state") + "(" + tensor + "\x88" + hooks + "}" + uni("a") + rebuild + "stR.", CodeArgs},
		"set of lists":                {proto(2) + glob("builtins", "set") + "](]e\x85R.", CodeArgs},
		"dictionary from a call":      {proto(2) + od + tensor + "\x85R.", CodeArgs},
		"numpy without its profile":   {proto(2) + glob("numpy.core.multiarray", "_reconstruct") + ".", CodeGlobal},

		// State and containers.
		"state of a function":      {proto(2) + rebuild + "}b.", CodeBuild},
		"state of a class":         {proto(2) + od + "}" + uni("__setstate__") + rebuild + "sb.", CodeBuild},
		"state of a counter":       {proto(2) + glob("collections", "Counter") + ")R}b.", CodeBuild},
		"state of a list":          {"]}b.", CodeBuild},
		"state of a set":           {proto(2) + glob("builtins", "set") + ")R}b.", CodeBuild},
		"slots":                    {proto(2) + od + ")R}}\x86b.", CodeBuild},
		"state with a function in": {proto(2) + od + ")R}" + uni("items") + rebuild + "sb.", CodeBuild},
		"state in a list":          {proto(2) + od + ")R}" + uni("items") + "]" + rebuild + "asb.", CodeBuild},
		"state of a tensor":        {proto(2) + tensor + "}b.", CodeBuild},
		"append to a call":         {proto(2) + tensor + "Na.", CodeMutate},
		"append to a global":       {proto(2) + od + "Na.", CodeMutate},
		"item of a tensor":         {proto(2) + tensor + "NNs.", CodeMutate},
		"items of a parameter":     {proto(2) + glob("torch.nn.parameter", "Parameter") + ")\x81(NNu.", CodeMutate},
		"add to an OrderedDict":    {proto(4) + od + ")R(N\x90.", CodeMutate},
		"unhashable key":           {"}]Ns.", CodeUnhashable},
		"list in a tuple as key":   {proto(2) + "}]\x85\x85Ns.", CodeUnhashable},
		"OrderedDict as key":       {proto(2) + "}" + hooks + "Ns.", CodeUnhashable},
		"bytearray as key":         {proto(5) + "}\x96" + le(0, 8) + "Ns.", CodeUnhashable},

		// Persistent ids.
		"id is text":            {proto(2) + uni("0") + "Q.", CodePersistent},
		"id is an int":          {"K\x00Q.", CodePersistent},
		"id of a module":        {storage(uni("module") + od + uni("a") + uni("b") + "K\x01"), CodePersistent},
		"id with a call":        {storage(uni("storage") + glob("os", "system") + uni("0") + uni("cpu") + "K\x04"), CodeGlobal},
		"class is no storage":   {storage(uni("storage") + od + uni("0") + uni("cpu") + "K\x04"), CodePersistent},
		"class is a wrapper":    {storage(uni("storage") + glob("torch.storage", "TypedStorage") + uni("0") + uni("cpu") + "K\x04"), CodePersistent},
		"key is a path":         {storage(uni("storage") + float + uni("../../x") + uni("cpu") + "K\x04"), CodePersistent},
		"key is an int":         {storage(uni("storage") + float + "K\x00" + uni("cpu") + "K\x04"), CodePersistent},
		"device is text":        {storage(uni("storage") + float + uni("0") + uni("cpu; id") + "K\x04"), CodePersistent},
		"negative size":         {storage(uni("storage") + float + uni("0") + uni("cpu") + "J\xff\xff\xff\xff"), CodePersistent},
		"size overflows":        {storage(uni("storage") + float + uni("0") + uni("cpu") + "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"), CodePersistent},
		"size is a bool":        {storage(uni("storage") + float + uni("0") + uni("cpu") + "\x88"), CodePersistent},
		"view outside legacy":   {storage(uni("storage") + float + uni("0") + uni("cpu") + "K\x04N"), CodePersistent},
		"two sizes of a key":    {proto(2) + "(" + pid("0", "") + "(" + uni("storage") + float + uni("0") + uni("cpu") + "K\x05tQt.", CodeStorage},
		"two classes of a key":  {proto(2) + "(" + pid("0", "") + "(" + uni("storage") + glob("torch", "IntStorage") + uni("0") + uni("cpu") + "K\x04tQt.", CodeStorage},
		"two devices of a key":  {proto(2) + "(" + pid("0", "") + "(" + uni("storage") + float + uni("0") + uni("cuda:0") + "K\x04tQt.", CodeStorage},
		"storage in the memo":   {proto(2) + "(" + uni("storage") + "q\x00NNNNtQ.", CodePersistent},
		"id of only a storage":  {proto(2) + uni("storage") + "\x85Q.", CodePersistent},
		"id of too many things": {storage(uni("storage") + strings.Repeat("N", 30)), CodePersistent},

		// Damage: a loader has called by the time it notices.
		"cut off behind a call":        {proto(2) + call, CodeTruncated},
		"call, then no opcode":         {proto(2) + call + "\xff", CodeOpcode},
		"call, then an empty stack":    {proto(2) + call + "00N.", CodeStack},
		"call, then a missing entry":   {proto(2) + call + "h\x07.", CodeMemo},
		"cut off in a text":            {proto(2) + "X\xff\x00\x00\x00a", CodeTruncated},
		"text longer than the limit":   {proto(2) + "X\xff\xff\xff\xffa", CodeLimit},
		"empty":                        {"", CodeTruncated},
		"a zip":                        {"PK\x03\x04\x14\x00", CodeTruncated},
		"leftover values":              {"NN.", CodeLeftover},
		"leftover mark":                {"(N.", CodeLeftover},
		"junk behind":                  {"N.\x00", CodeTrailing},
		"a second pickle":              {stateDict + proto(2) + call + ".", CodeTrailing},
		"a second pickle behind junk":  {stateDict + "\xff" + proto(2) + call + ".", CodeTrailing},
		"a newline behind":             {"N.\n", CodeTrailing},
		"protocol 6":                   {proto(6) + "N.", CodeProtocol},
		"protocol repeated":            {proto(4) + "N0" + proto(2) + "N.", CodeProtocol},
		"protocol late":                {"N0" + proto(4) + "N.", CodeProtocol},
		"later opcodes, no protocol":   {sglob("torch", "Size") + ".", CodeProtocol},
		"later opcodes, protocol 2":    {proto(2) + short("a") + ".", CodeProtocol},
		"opcode over the frame's end":  {proto(4) + "\x95" + le(2, 8) + short("a") + ".", CodeFrame},
		"line over the frame's end":    {proto(4) + "\x95" + le(3, 8) + glob("torch", "Size") + ".", CodeFrame},
		"frame in a frame":             {proto(4) + framed(framed("N.")), CodeFrame},
		"frame over the next":          {proto(4) + "\x95" + le(12, 8) + "N0" + framed("N."), CodeFrame},
		"frame goes on behind STOP":    {proto(4) + framed("N."+call), CodeFrame},
		"frame longer than the stream": {proto(4) + "\x95" + le(99, 8) + "N.", CodeFrame},
		"huge frame":                   {proto(4) + "\x95" + le(1<<63, 8) + "N.", CodeLimit},

		// Graphs.
		"list in itself":             {"]q\x00h\x00a.", CodeShared},
		"list in itself by dup":      {"]2a.", CodeShared},
		"dictionary in itself":       {"}q\x00K\x01h\x00s.", CodeShared},
		"list in a tuple in it":      {proto(2) + "]q\x00(h\x00ta.", CodeShared},
		"state in itself":            {proto(2) + hooks + "q\x00}" + uni("a") + "h\x00sb.", CodeShared},
		"grows where it stands":      {proto(2) + "]q\x00]h\x00a0h\x00Na.", CodeShared},
		"bomb of tuples":             {proto(2) + ")" + strings.Repeat("2\x86", 40) + ".", CodeLimit},
		"bomb of lists":              {proto(2) + "]" + bomb(40) + ".", CodeLimit},
		"bomb of sets":               {proto(4) + "(N\x91" + strings.Repeat("q\x000(h\x00h\x00\x86h\x00\x91", 40) + ".", CodeLimit},
		"bomb of OrderedDicts":       {proto(2) + "]q\x000" + strings.Repeat(od+"h\x00h\x00\x86\x85Rq\x000", 40) + "h\x00.", CodeLimit},
		"bomb of parameters' states": {proto(2) + "Nq\x000" + strings.Repeat(glob("torch._utils", "_rebuild_parameter_with_state")+"("+tensor+"\x88"+hooks+"h\x00h\x00\x86tRq\x000", 40) + "h\x00.", CodeLimit},
		"deep tuples":                {proto(2) + "N" + strings.Repeat("\x85", 600) + ".", CodeLimit},
		"deep lists":                 {strings.Repeat("]", 600) + strings.Repeat("a", 599) + ".", CodeLimit},
		"many marks":                 {strings.Repeat("(", 600) + "N.", CodeLimit},
		"high memo entry":            {"Nr\xff\xff\xff\x7f.", CodeLimit},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rep := scan(t, test.in, Torch)
			if rep.Safe || !slices.Contains(codes(rep), test.want) {
				t.Errorf("safe: %v, %+v; want %s", rep.Safe, rep.Findings, test.want)
			}
		})
	}
}

// bomb makes a list of two of the list before it, n times.
func bomb(n int) string { return strings.Repeat("q\x000](h\x00h\x00e", n) }

// TestNumpy holds the profile for arrays.
func TestNumpy(t *testing.T) {
	for _, module := range []string{"numpy._core.multiarray", "numpy.core.multiarray"} {
		dtype := func(name string) string {
			return glob("numpy", "dtype") + uni(name) + "\x89\x88\x87R(K\x03" + uni("<") + "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
		}
		array := func(dtype, data string) string {
			return proto(3) + glob(module, "_reconstruct") + glob("numpy", "ndarray") + "K\x00\x85C\x01b\x87R(K\x01K\x02\x85" + dtype + "\x89" + data + "tb."
		}
		tests := map[string]struct{ in, want string }{
			"array":               {array(dtype("f4"), "C\x0801234567"), ""},
			"object array":        {array(dtype("O8"), "](K\x01"+uni("a")+"e"), ""},
			"scalar":              {proto(3) + glob(module, "scalar") + dtype("f8") + "C\x0801234567\x86R.", ""},
			"object with a call":  {array(dtype("O8"), "]"+glob("os", "system")+")Ra"), CodeGlobal},
			"other type":          {proto(3) + glob(module, "_reconstruct") + glob("torch", "Tensor") + "K\x00\x85C\x01b\x87R.", CodeArgs},
			"array called":        {proto(3) + glob("numpy", "ndarray") + "K\x02\x85R.", CodeCall},
			"state is a function": {array(dtype("f4"), glob(module, "scalar")), CodeBuild},
			"load":                {proto(3) + glob("numpy", "load") + ".", CodeGlobal},
			"array in itself":     {proto(3) + glob(module, "_reconstruct") + glob("numpy", "ndarray") + "K\x00\x85C\x01b\x87Rq\x00(K\x01K\x02\x85" + dtype("O8") + "\x89]h\x00atb.", CodeShared},
		}
		for name, test := range tests {
			t.Run(module+" "+name, func(t *testing.T) {
				rep := scan(t, test.in, Numpy)
				if test.want == "" {
					if !rep.Safe {
						t.Errorf("%+v", rep.Findings)
					}
				} else if !slices.Contains(codes(rep), test.want) {
					t.Errorf("%+v, want %s", rep.Findings, test.want)
				}
				if rep := scan(t, test.in, Torch); rep.Safe {
					t.Error("safe in profile torch")
				}
			})
		}
	}
	if _, err := Scan(strings.NewReader("N."), Options{Profile: 7}); err == nil {
		t.Error("an unknown profile is accepted")
	}
}

// TestNested holds that a pickle kept as data is noted and not refused.
func TestNested(t *testing.T) {
	hostile := proto(2) + glob("os", "system") + uni("id") + "\x85R."
	for name, in := range map[string]string{
		"bytes":     proto(3) + "B" + le(uint64(len(hostile)), 4) + hostile + ".",
		"bytearray": proto(5) + "\x96" + le(uint64(len(hostile)), 8) + hostile + ".",
		"base64":    proto(3) + uni("gASVHAAAAAAAAACMBXBvc2l4") + ".",
		"hex":       proto(3) + uni("80049521000000000000008c") + ".",
	} {
		t.Run(name, func(t *testing.T) {
			rep := scan(t, in, Torch)
			if !rep.Safe || len(rep.Notes) != 1 || rep.Notes[0].Code != NoteNested {
				t.Errorf("safe: %v, findings %+v, notes %+v", rep.Safe, rep.Findings, rep.Notes)
			}
		})
	}
	if rep := scan(t, proto(3)+"C\x04\x80\x04ab"+".", Torch); len(rep.Notes) != 0 {
		t.Errorf("notes on plain bytes: %+v", rep.Notes)
	}
}

// TestLimits holds each limit at its edge.
func TestLimits(t *testing.T) {
	tests := map[string]struct {
		in     string
		within Limits
	}{
		"bytes":   {"NNN\x85.", Limits{Bytes: 5}},
		"opcodes": {"NNN0.", Limits{Opcodes: 5}},
		"stack":   {"NNN00.", Limits{Stack: 3}},
		"memo":    {"Nq\x04.", Limits{Memo: 5}},
		"depth":   {"]]]aa.", Limits{Depth: 3}},
		"marks":   {"((lltN.", Limits{Depth: 2}},
		"string":  {uni("abcd") + ".", Limits{String: 4}},
		"kept":    {uni("abcd") + ".", Limits{Kept: objectSize + 4}},
	}
	has := func(rep *Report) bool { return slices.Contains(codes(rep), CodeLimit) }
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, less := range []int64{0, 1} {
				l := test.within
				for _, v := range []*int64{&l.Bytes, &l.Opcodes, &l.String, &l.Kept} {
					if *v > 0 {
						*v -= less
					}
				}
				for _, v := range []*int{&l.Stack, &l.Memo, &l.Depth} {
					if *v > 0 {
						*v -= int(less)
					}
				}
				rep, err := Scan(strings.NewReader(test.in), Options{Limits: l})
				if err != nil {
					t.Fatal(err)
				}
				if has(rep) != (less == 1) {
					t.Errorf("with %+v: %+v", l, rep.Findings)
				}
			}
		})
	}
	same := scan(t, strings.Repeat("N)R0", 2*maxRefusals)+"N.", Torch)
	if len(same.Findings) != 1 || same.Opcodes != 4*maxRefusals+3 {
		t.Errorf("%d findings after %d opcodes", len(same.Findings), same.Opcodes)
	}
	many := ""
	for i := range maxFindings + 50 {
		many += glob("a", "b"+string(rune('a'+i%26))+string(rune('a'+i/26))) + "0"
	}
	if rep := scan(t, many+"N.", Torch); len(rep.Findings) != maxFindings+1 {
		t.Errorf("%d findings, want %d and the one that ends it", len(rep.Findings), maxFindings)
	}
}

// TestReading holds that errors of reading are errors, and that a report does
// not depend on how the bytes come.
func TestReading(t *testing.T) {
	broken := errors.New("broken")
	for i := range len(stateDict) {
		rep, err := Scan(io.MultiReader(strings.NewReader(stateDict[:i]), iotest.ErrReader(broken)), Options{})
		if !errors.Is(err, broken) || rep != nil {
			t.Errorf("cut by an error at %d: %v, %+v", i, err, rep)
		}
		if rep := scan(t, stateDict[:i], Torch); rep.Safe || codes(rep)[0] != CodeTruncated {
			t.Errorf("cut at %d: %+v", i, rep.Findings)
		}
	}
	_, err := Scan(io.MultiReader(strings.NewReader(stateDict), iotest.ErrReader(broken)), Options{})
	if !errors.Is(err, broken) {
		t.Errorf("an error behind the end: %v", err)
	}
	rep, err := Scan(iotest.OneByteReader(strings.NewReader(stateDict)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(scan(t, stateDict, Torch), rep); diff != "" {
		t.Error(diff)
	}
}

// TestMemory holds that payloads and hostile lengths cost no memory.
func TestMemory(t *testing.T) {
	zeros := io.LimitReader(iotest.DataErrReader(zero{}), 256<<20)
	tests := map[string]struct {
		in   io.Reader
		most uint64
	}{
		"large bytes":     {io.MultiReader(strings.NewReader(proto(4)+"\x8e"+le(256<<20, 8)), zeros, strings.NewReader(".")), 1 << 20},
		"declared length": {strings.NewReader(proto(4) + "\x8e" + le(1<<29, 8) + "a"), 1 << 20},
		"declared text":   {strings.NewReader(proto(4) + "\x8d" + le(15<<20, 8) + "a"), 1 << 20},
		"many texts":      {&loop{head: proto(2), part: uni("abcd") + "0"}, 64 << 20},
		"high memo":       {strings.NewReader("Nr\xff\xff\x07\x00."), 64 << 20},
		"deep stack":      {&loop{head: proto(2), part: "N"}, 64 << 20},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := Scan(test.in, Options{}); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > test.most {
				t.Errorf("%d bytes allocated, want at most %d", got, test.most)
			}
		})
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A loop is a stream without an end.
type loop struct{ head, part string }

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.head)
	l.head = l.head[n:]
	for n < len(p) {
		if l.head == "" {
			l.head = l.part
		}
		k := copy(p[n:], l.head)
		l.head, n = l.head[k:], n+k
	}
	return n, nil
}
