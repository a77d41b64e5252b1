package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan/walk"
)

// npyFile is an array file of that header, filled up as numpy does.
func npyFile(header, data string) string {
	for (10+len(header)+1)%64 != 0 {
		header += " "
	}
	header += "\n"
	return npyMagic + "\x01\x00" + string(binary.LittleEndian.AppendUint16(nil, uint16(len(header)))) + header + data
}

func npyDict(descr, shape string) string {
	return fmt.Sprintf("{'descr': %s, 'fortran_order': False, 'shape': %s, }", descr, shape)
}

func TestNPY(t *testing.T) {
	objects := npyDict("'|O'", "(1,)")
	for name, c := range map[string]struct{ content, expected string }{
		"numbers":          {npyFile(npyDict("'<f4'", "(2, 3)"), strings.Repeat("\x00", 24)), ""},
		"a scalar":         {npyFile(npyDict("'<i8'", "()"), strings.Repeat("\x00", 8)), ""},
		"texts":            {npyFile(npyDict("'<U5'", "(2,)"), strings.Repeat("\x00", 40)), ""},
		"dates":            {npyFile(npyDict("'<M8[ns]'", "(1,)"), strings.Repeat("\x00", 8)), ""},
		"Python 2":         {npyFile(npyDict("'<f8'", "(2L,)"), strings.Repeat("\x00", 16)), ""},
		"fields":           {npyFile(npyDict("[('a', '<f4'), ('b', '<i2', (2,)), ('c', [('d', '|u1')])]", "(2,)"), strings.Repeat("\x00", 18)), ""},
		"empty":            {npyFile(npyDict("'<f4'", "(0, 7)"), ""), ""},
		"objects":          {npyFile(objects, plainPickle), ""},
		"hostile objects":  {npyFile(objects, osPickle), "critical MODEL-PICKLE-DANGER"},
		"objects in field": {npyFile(npyDict("[('a', '|O')]", "(1,)"), osPickle), "critical MODEL-PICKLE-DANGER"},
		"objects, no more": {npyFile(objects, ""), "high MODEL-PICKLE-TRUNCATED"},
		"too short":        {npyFile(npyDict("'<f4'", "(2, 3)"), "\x00"), "high MODEL-NPY"},
		"too long":         {npyFile(npyDict("'<f4'", "(1,)"), "12345"), "high MODEL-NPY"},
		"overflow":         {npyFile(npyDict("'<f4'", "(4611686018427387904, 4)"), ""), "high MODEL-NPY"},
		"negative":         {npyFile(npyDict("'<f4'", "(-1,)"), ""), "high MODEL-NPY"},
		"a call":           {npyFile("{'descr': __import__('os').system('x'), 'fortran_order': False, 'shape': ()}", ""), "high MODEL-NPY"},
		"a key twice":      {npyFile("{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': ()}", ""), "high MODEL-NPY"},
		"a key too many":   {npyFile("{'x': 1, 'descr': '<f4', 'fortran_order': False, 'shape': ()}", "1234"), "high MODEL-NPY"},
		"an unknown type":  {npyFile(npyDict("'<q4'", "()"), "1234"), "high MODEL-NPY"},
		"no literal":       {npyFile("{'descr': '<f4'", ""), "high MODEL-NPY"},
		"deep":             {npyFile(npyDict(strings.Repeat("[", 100), "()"), ""), "high MODEL-NPY"},
		"version 9":        {npyMagic + "\x09\x00\x00\x00\x00\x00", "high MODEL-NPY"},
		"cut in the magic": {npyMagic + "\x01", "high MODEL-NPY"},
		"long header":      {npyMagic + "\x02\x00\xff\xff\xff\x7f", "high MODEL-NPY"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.NPY, c.content, "a.npy"), c.expected)
		})
	}
	want(t, inspect(t, Config{}, walk.Pickle, osPickle, "a.npy"), "critical MODEL-PICKLE-DANGER")
	want(t, inspect(t, Config{}, walk.Data, "\x00\x00", "a.npy"), "high MODEL-UNKNOWN")
	want(t, inspect(t, Config{}, walk.NPY, npyFile(npyDict("'<f4'", "(1,)"), "12345"), "a-1-py3-none-any.whl", "a.npy"), "medium MODEL-NPY")
	want(t, inspect(t, Config{}, walk.Data, "\x00\x00", "a.npz"), "high MODEL-UNKNOWN")
}

// zipFile is an archive as the walker gives it.
func zipFile(t *testing.T, name string, entries ...string) *walk.File {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	var members []walk.Member
	for i := 0; i < len(entries); i += 2 {
		w, err := z.CreateHeader(&zip.FileHeader{Name: entries[i], Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(entries[i+1])); err != nil {
			t.Fatal(err)
		}
		members = append(members, walk.Member{Name: entries[i], Size: int64(len(entries[i+1])), Stored: true})
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f := walk.NewFile(walk.Zip, b.Bytes(), name)
	f.Members, f.Opened = members, true
	return f
}

// tensorPickle names one storage, "0", of two floats.
const tensorPickle = "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000" +
	"X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR."

func TestTorchZip(t *testing.T) {
	data := strings.Repeat("\x00", 8)
	ok := []string{"m/data.pkl", tensorPickle, "m/byteorder", "little", "m/data/0", data, "m/version", "3\n", "m/.data/serialization_id", "1"}
	for name, c := range map[string]struct {
		name     string
		entries  []string
		expected string
		words    []string
	}{
		"as torch writes it": {"model.pt", ok, "", nil},
		"any name":           {"weights", ok, "", nil},
		"script":             {"model.pt", append([]string{"m/constants.pkl", "x", "m/code/__torch__.py", "x"}, ok...), "high MODEL-TORCHSCRIPT", []string{`"m"/code`}},
		"a member too many":  {"model.pt", append([]string{"m/run.sh", "x"}, ok...), "high MODEL-TORCH-MEMBER", []string{"m/run.sh"}},
		"beside the root":    {"model.pt", append([]string{"n/x", "x"}, ok...), "high MODEL-TORCH-MEMBER", nil},
		"a storage missing":  {"model.pt", []string{"m/data.pkl", tensorPickle}, "high MODEL-TORCH-STORAGE", []string{"missing"}},
		"a storage too much": {"model.pt", append([]string{"m/data/1", "x"}, ok...), "high MODEL-TORCH-STORAGE", []string{"data/1"}},
		"a storage short":    {"model.pt", []string{"m/data.pkl", tensorPickle, "m/data/0", "1234567"}, "high MODEL-TORCH-STORAGE", []string{"has 7 bytes, want 8"}},
		"two objects":        {"model.pt", append([]string{"n/data.pkl", "x"}, ok...), "high MODEL-TORCH-LAYOUT", nil},
		"too deep":           {"model.pt", []string{"a/b/data.pkl", tensorPickle}, "high MODEL-TORCH-LAYOUT", nil},
		"no root":            {"model", []string{"data.pkl", tensorPickle, "version", "3"}, "high MODEL-TORCH-LAYOUT", nil},
		"no object":          {"model.pt", []string{"m/other.pkl", tensorPickle}, "medium MODEL-TORCH-LAYOUT", nil},
		"a data.pkl alone":   {"files.zip", []string{"a/data.pkl", plainPickle, "a/b.txt", "x"}, "", nil},
		"in a wheel":         {"a-1-py3-none-any.whl", []string{"a/data.pkl", plainPickle, "a/b.py", "x"}, "", nil},
		"an archive":         {"files.zip", []string{"a.txt", "x"}, "", nil},
		"hostile object":     {"model.pt", []string{"m/data.pkl", osPickle}, "", nil}, // its own visit finds it
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspectFile(t, Config{}, zipFile(t, c.name, c.entries...)), c.expected, c.words...)
		})
	}
	closed := zipFile(t, "model.pt", ok...)
	closed.Opened = false
	want(t, inspectFile(t, Config{}, closed), "?high MODEL-TORCH-LAYOUT")
	closed.Members = nil
	want(t, inspectFile(t, Config{}, closed), "?high MODEL-TORCH-LAYOUT")
}

// message is a protocol buffer: numbers of fields and their texts in turn.
func message(fields ...any) string {
	var b []byte
	for i := 0; i < len(fields); i += 2 {
		n := uint64(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = binary.AppendUvarint(binary.AppendUvarint(b, n<<3), uint64(v))
		case string:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, n<<3|2), uint64(len(v))), v...)
		}
	}
	return string(b)
}

func onnxFile(graph, functions string) string {
	return message(1, 8, 2, "exporter", 7, graph, 8, message(1, "", 2, 17)) + functions
}

func tensorAt(location string) string {
	return message(1, 4, 2, 1, 8, "w", 13, message(1, "location", 2, location), 13, message(1, "offset", 2, "0"), 14, 1)
}

func TestOnnx(t *testing.T) {
	node := func(op, domain string, attributes ...string) string {
		fields := []any{1, "x", 4, op, 7, domain}
		for _, a := range attributes {
			fields = append(fields, 5, a)
		}
		return message(fields...)
	}
	for name, c := range map[string]struct {
		content  string
		expected string
		words    []string
	}{
		"plain":                      {onnxFile(message(1, node("Add", "")), ""), "", nil},
		"beside":                     {onnxFile(message(5, tensorAt("model.onnx_data")), ""), "", nil},
		"below":                      {onnxFile(message(5, tensorAt("data/w.bin")), ""), "low MODEL-ONNX-FOLDER", nil},
		"above":                      {onnxFile(message(5, tensorAt("../../etc/passwd")), ""), "high MODEL-ONNX-PATH", []string{"../../etc/passwd"}},
		"inside out":                 {onnxFile(message(5, tensorAt("a/../../b")), ""), "high MODEL-ONNX-PATH", nil},
		"absolute":                   {onnxFile(message(5, tensorAt("/etc/passwd")), ""), "high MODEL-ONNX-PATH", nil},
		"a drive":                    {onnxFile(message(5, tensorAt(`C:\x`)), ""), "high MODEL-ONNX-PATH", nil},
		"empty":                      {onnxFile(message(5, tensorAt("")), ""), "high MODEL-ONNX-PATH", nil},
		"in an attribute":            {onnxFile(message(1, node("Constant", "", message(1, "value", 5, tensorAt("/x")))), ""), "high MODEL-ONNX-PATH", nil},
		"in a subgraph":              {onnxFile(message(1, node("If", "", message(1, "then", 6, message(5, tensorAt("/x"))))), ""), "high MODEL-ONNX-PATH", nil},
		"sparse":                     {onnxFile(message(15, message(1, tensorAt("/x"))), ""), "high MODEL-ONNX-PATH", nil},
		"in a function":              {onnxFile(message(1, node("F", "mine")), message(25, message(1, "F", 10, "mine", 7, node("C", "", message(5, tensorAt("/x")))))), "high MODEL-ONNX-PATH", nil},
		"its own function":           {onnxFile(message(1, node("F", "mine")), message(25, message(1, "F", 10, "mine"))), "", nil},
		"a custom operator":          {onnxFile(message(1, node("Evil", "my.ops")), ""), "medium MODEL-ONNX-DOMAIN", []string{"my.ops.Evil"}},
		"a known domain":             {onnxFile(message(1, node("Gelu", "com.microsoft")), ""), "", nil},
		"Python":                     {onnxFile(message(1, node("PyOp", "com.microsoft")), ""), "high MODEL-ONNX-PYTHON", nil},
		"no number":                  {onnxFile(message(5, message(13, message(1, "offset", 2, "-1"))), ""), "high MODEL-ONNX", nil},
		"no graph":                   {message(1, 8), "high MODEL-ONNX", nil},
		"broken":                     {onnxFile("\x0a\x7f", ""), "high MODEL-ONNX", nil},
		"cut":                        {onnxFile("", "")[:5], "high MODEL-ONNX", nil},
		"a graph that is no message": {message(7, 1), "high MODEL-ONNX", nil},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.Data, c.content, "model.onnx"), c.expected, c.words...)
		})
	}
	// By content, where the name says nothing; a broken one is no model then.
	want(t, inspect(t, Config{}, walk.Data, onnxFile(message(5, tensorAt("/x")), ""), "blob"), "high MODEL-ONNX-PATH")
	want(t, inspect(t, Config{}, walk.Data, "\x08\x08\xff\xff\xff", "blob"), "")
	want(t, inspect(t, Config{}, walk.Data, onnxFile(message(5, tensorAt("/x")), ""), "a-1-py3-none-any.whl", "t.onnx"), "medium MODEL-ONNX-PATH")
	// Graphs in graphs beyond the limit were not looked at.
	deep := ""
	for range maxWireDepth {
		deep = message(1, node("If", "", message(6, deep)))
	}
	want(t, inspect(t, Config{}, walk.Data, onnxFile(deep, ""), "model.onnx"), "?high MODEL-ONNX-LIMIT")
}

func TestTensorFlow(t *testing.T) {
	saved := func(op string) string {
		inner := message(1, message(1, "n", 2, "Const"), 1, message(1, "n", 2, op))
		return message(1, 1, 2, message(2, inner))
	}
	want(t, inspect(t, Config{}, walk.Data, saved("MatMul"), "saved_model.pb"), "")
	for _, op := range []string{"PyFunc", "EagerPyFunc", "ReadFile", "WriteFile"} {
		want(t, inspect(t, Config{}, walk.Data, saved(op), "saved_model.pb"), "high MODEL-TENSORFLOW-OP", op)
	}
	function := message(2, message(2, message(2, message(1, message(1, message(1, "f"), 3, message(2, "WriteFile"))))))
	want(t, inspect(t, Config{}, walk.Data, function, "saved_model.pb"), "high MODEL-TENSORFLOW-OP")
	want(t, inspect(t, Config{}, walk.Data, saved("TextLineDataset"), "saved_model.pb"), "medium MODEL-TENSORFLOW-READ")
	want(t, inspect(t, Config{}, walk.Data, message(1, message(1, "n", 2, "PyFunc")), "frozen.pb"), "high MODEL-TENSORFLOW-OP")
	want(t, inspect(t, Config{}, walk.Data, "\xff\xff\xff", "saved_model.pb"), "high MODEL-TENSORFLOW")
	want(t, inspect(t, Config{}, walk.Data, "\xff\xff\xff", "other.pb"), "medium MODEL-UNKNOWN")
	keras := message(1, message(5, `{"class_name": "Lambda", "config": {"function": "x"}}`))
	want(t, inspect(t, Config{}, walk.Data, keras, "keras_metadata.pb"), "high MODEL-KERAS-LAMBDA")
}

// tfliteFile is a model with one operator of that name.
func tfliteFile(op string) string {
	b := make([]byte, 64)
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	put16 := func(at int, v uint16) { binary.LittleEndian.PutUint16(b[at:], v) }
	put32(0, 20) // the model
	copy(b[4:], "TFL3")
	put16(8, 8) // the model's vtable: length, size, field 0, field 1
	put16(10, 8)
	put16(14, 4)
	put32(20, 12) // back to the vtable
	put32(24, 4)  // operators: a vector at 28
	put32(28, 1)
	put32(32, 16) // the operator at 48
	put16(40, 8)  // its vtable
	put16(42, 8)
	put16(46, 4)
	put32(48, 8)
	put32(52, 4) // its name at 56
	put32(56, uint32(len(op)))
	return string(b[:60]) + op
}

func TestTFLite(t *testing.T) {
	want(t, inspect(t, Config{}, walk.Data, tfliteFile(""), "model.tflite"), "")
	want(t, inspect(t, Config{}, walk.Data, tfliteFile("MyOp"), "model.tflite"), "low MODEL-TFLITE-CUSTOM", "MyOp")
	want(t, inspect(t, Config{}, walk.Data, tfliteFile("FlexWriteFile"), "blob"), "high MODEL-TENSORFLOW-OP, low MODEL-TFLITE-CUSTOM")
	want(t, inspect(t, Config{}, walk.Data, tfliteFile("x")[:40], "model.tflite"), "high MODEL-TFLITE")
	want(t, inspect(t, Config{}, walk.Data, "\xff\xff\xff\xffTFL3", "model.tflite"), "high MODEL-TFLITE")
	want(t, inspect(t, Config{}, walk.Data, "\x00\x01", "model.tflite"), "high MODEL-UNKNOWN")
}

func TestSafetensors(t *testing.T) {
	file := func(header, data string) string {
		return string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + data
	}
	good := file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, "1234")
	want(t, inspect(t, Config{}, walk.Safetensors, good, "model.safetensors"), "")
	want(t, inspect(t, Config{}, walk.Safetensors, good, "pytorch_model.bin"), "high MODEL-NAME")
	want(t, inspect(t, Config{}, walk.Safetensors, good+"more", "model.safetensors"), "high MODEL-SAFETENSORS", "malformed")
	want(t, inspect(t, Config{}, walk.Safetensors, good+"more", "a-1-py3-none-any.whl", "t.safetensors"), "medium MODEL-SAFETENSORS")
	want(t, inspect(t, Config{}, walk.Data, "\x00\x01", "model.safetensors"), "high MODEL-UNKNOWN")
	want(t, inspect(t, Config{}, walk.Pickle, plainPickle, "model.safetensors"), "high MODEL-NAME")
	want(t, inspect(t, Config{}, walk.Empty, "", "model.safetensors"), "medium MODEL-EMPTY")
	many := file(`{"__metadata__":{`+bigMetadata()+`}}`, "")
	want(t, inspect(t, Config{}, walk.Safetensors, many, "model.safetensors"), "?high MODEL-SAFETENSORS-LIMIT")
}

// bigMetadata is one pair more than a header may have.
func bigMetadata() string {
	var b strings.Builder
	for i := range 100_001 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":""`, i)
	}
	return b.String()
}

// ggufFile is a file without tensors and with one text of metadata a pair.
func ggufFile(pairs ...string) string {
	b := []byte("GGUF\x03\x00\x00\x00")
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(pairs)/2))
	text := func(s string) {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	for i := 0; i < len(pairs); i += 2 {
		text(pairs[i])
		b = binary.LittleEndian.AppendUint32(b, 8)
		text(pairs[i+1])
	}
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	return string(b)
}

func TestGGUF(t *testing.T) {
	want(t, inspect(t, Config{}, walk.GGUF, ggufFile("general.architecture", "llama", "tokenizer.chat_template", chatML), "model.gguf"), "")
	want(t, inspect(t, Config{}, walk.GGUF, ggufFile("tokenizer.chat_template", "{{ x.__class__ }}"), "model.gguf"), "critical MODEL-TEMPLATE", "__class__")
	want(t, inspect(t, Config{}, walk.GGUF, ggufFile("tokenizer.chat_template.tool_use", "{{ x.__class__ }}"), "blob"), "critical MODEL-TEMPLATE")
	want(t, inspect(t, Config{}, walk.GGUF, ggufFile("tokenizer.chat_template", strings.Repeat("x", 2<<20)), "m.gguf"), "?high MODEL-TEMPLATE-LIMIT")
	want(t, inspect(t, Config{}, walk.GGUF, "GGUF\x01\x00\x00\x00", "model.gguf"), "high MODEL-GGUF", "malformed")
	want(t, inspect(t, Config{}, walk.Data, "\x00\x01", "model.gguf"), "high MODEL-UNKNOWN")
	want(t, inspect(t, Config{}, walk.GGUF, ggufFile(), "model.gguf"), "")
}

func TestExecutables(t *testing.T) {
	for _, kind := range []walk.Kind{walk.ELF, walk.PE, walk.MachO} {
		want(t, inspect(t, Config{}, kind, "\x7fELF\x00\x00", "model.llamafile"), "high MODEL-EXECUTABLE")
		want(t, inspect(t, Config{}, kind, "\x7fELF\x00\x00", "pytorch_model.bin"), "high MODEL-EXECUTABLE")
		want(t, inspect(t, Config{}, kind, "\x7fELF\x00\x00", "model"), "high MODEL-EXECUTABLE")
		want(t, inspect(t, Config{}, kind, "\x7fELF\x00\x00", "model.pt2", "a.so"), "high MODEL-EXECUTABLE")
		want(t, inspect(t, Config{}, kind, "\x7fELF\x00\x00", "kernel.so"), "medium MODEL-EXECUTABLE")
		want(t, inspect(t, Config{}, kind, "\x7fELF\x00\x00", "a-1-py3-none-any.whl", "a/model.bin"), "")
	}
	want(t, inspect(t, Config{}, walk.Data, "MZqFpD='\n", "mistral.gguf"), "high MODEL-EXECUTABLE")
	want(t, inspect(t, Config{}, walk.Script, "#!/bin/sh\n", "model.bin"), "high MODEL-EXECUTABLE")
	want(t, inspect(t, Config{}, walk.Script, "#!/bin/sh\n", "run.sh"), "")
}
