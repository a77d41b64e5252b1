package weights

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan/walk"
)

// seed adds seeds, of which there must be some.
func seed(f *testing.F, seeds ...string) {
	f.Helper()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
}

// FuzzWire: never panics, and a graph is read the same in one piece and in
// pieces of a byte.
func FuzzWire(f *testing.F) {
	seed(f, onnxFile(message(5, tensorAt("/x"), 1, message(4, "If", 5, message(6, message(1, "x")))), message(25, message(10, "d"))),
		onnxFile("", ""), "\x3a\x00", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x3a\x05\x2a\x03\x6a\x01\x0a")
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readOnnx(newWire(bytes.NewReader(in), int64(len(in))))
		if err != nil {
			if !errors.Is(err, errWire) && !errors.Is(err, errWireLimit) {
				t.Fatalf("an error of neither kind: %v", err)
			}
			return
		}
		if !m.graph {
			t.Fatal("a model without a graph")
		}
		// A field appended behind the end is one more field, never less found.
		more := append(bytes.Clone(in), message(7, message(5, tensorAt("/appended")))...)
		again, err := readOnnx(newWire(bytes.NewReader(more), int64(len(more))))
		if err != nil || !again.external["/appended"] {
			t.Fatalf("what follows a whole model was not read: %v", err)
		}
	})
}

// FuzzTFLite: never panics, and names lie in the file.
func FuzzTFLite(f *testing.F) {
	seed(f, tfliteFile("MyOp"), tfliteFile(""), tfliteFile("x")[:50], "\x04\x00\x00\x00TFL3")
	f.Fuzz(func(t *testing.T, in []byte) {
		ops, err := customOps(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			return
		}
		for op := range ops {
			if !bytes.Contains(in, []byte(op)) {
				t.Fatalf("%q is not in the file", op)
			}
		}
	})
}

// FuzzNPY: never panics, and what is read has sizes that make sense.
func FuzzNPY(f *testing.F) {
	seed(f, npyFile(npyDict("'<f4'", "(2, 3)"), strings.Repeat("\x00", 24)), npyFile(npyDict("[('a', '<f4'), ('b', '|O', (2,))]", "()"), plainPickle),
		npyMagic+"\x02\x00\x10\x00\x00\x00{'descr': ['']}", npyMagic+"\x03")
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := readNPY(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			if !errors.Is(err, errNPY) {
				t.Fatalf("an error that is none of the format: %v", err)
			}
			return
		}
		if h.data < 10 || h.data > int64(len(in)) || h.count < 0 || h.item < 0 || h.item > math.MaxInt32 {
			t.Fatalf("%+v", h)
		}
	})
}

// FuzzJinja: never panics, and a tag that is appended is found unless the
// template is refused.
func FuzzJinja(f *testing.F) {
	seed(f, chatML, alternate, tools, accents, `{% raw %}{{ x }}{% endraw %}`, `{{ "\x5f" }}`, `{# #}{{`, `{%- include 'x' -%}`)
	f.Fuzz(func(t *testing.T, in []byte) {
		if err := lexJinja(string(in), func(tag) {}); err != nil {
			if !errors.Is(err, errJinja) {
				t.Fatal(err)
			}
			return
		}
		found := false
		err := lexJinja(string(in)+"{{ appended }}", func(g tag) {
			found = found || len(g.tokens) == 1 && g.tokens[0].text == "appended"
		})
		// A brace at the end makes another tag of it.
		if err == nil && !found && !bytes.HasSuffix(in, []byte("{")) {
			t.Fatal("the appended tag was not seen")
		}
		v := &visit{place: top}
		v.template(string(in)+"{{ x.__class__ }}", "it", true)
		if len(v.result()) == 0 {
			t.Fatal("nothing found")
		}
	})
}

// FuzzJSON: never panics, and takes what encoding/json takes.
func FuzzJSON(f *testing.F) {
	seed(f, `{"auto_map": {"AutoModel": "m.X"}}`, `[1, -1.5e3, "\ud83d\ude00 \u00e9", {"a": []}, true, null]`, `"\ud800"`, `{"a"`, `NaN`)
	f.Fuzz(func(t *testing.T, in []byte) {
		depth := 0
		n, err := readJSON(bytes.NewReader(in), func(e jsonEvent) error {
			switch e.kind {
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			return nil
		})
		if n > int64(len(in)) || n < 0 {
			t.Fatalf("%d bytes of %d", n, len(in))
		}
		if err == nil && depth != 0 {
			t.Fatal("brackets do not match")
		}
		// Beyond 1,000 levels and 4,300 digits Python gives up.
		if err != nil && json.Valid(in) && len(in) < 900 && bytes.ContainsAny(in, "{[") && !bytes.Contains(in, []byte(`\`)) && validUTF8(in) {
			t.Fatalf("valid JSON was refused: %v", err)
		}
	})
}

func validUTF8(b []byte) bool { return strings.ToValidUTF8(string(b), "") == string(b) }

// FuzzZlib: never panics, and an error is one of the stream.
func FuzzZlib(f *testing.F) {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write([]byte(osPickle)); err != nil {
		f.Fatal(err)
	}
	if err := z.Close(); err != nil {
		f.Fatal(err)
	}
	seed(f, b.String(), b.String()[:b.Len()-5], "\x78\x9c", "\x78\x9c\xff\xff")
	f.Fuzz(func(t *testing.T, in []byte) {
		rep, err := scanZlib(bytes.NewReader(in))
		if err != nil && !errors.Is(err, errNoZlib) && !errors.Is(err, errInflated) {
			t.Fatal(err)
		}
		if err == nil && rep == nil {
			t.Fatal("neither a report nor an error")
		}
	})
}

// FuzzInspect: any bytes under any name give findings or none, and no error.
func FuzzInspect(f *testing.F) {
	names := []string{"a.pkl", "a.pt", "a.npy", "a.h5", "config.json", "a.jinja", "a.yaml", "a.gguf", "a.safetensors", "a.onnx", "saved_model.pb", "x"}
	kinds := []walk.Kind{walk.Pickle, walk.Data, walk.NPY, walk.HDF5, walk.JSON, walk.Text, walk.Text, walk.GGUF, walk.Safetensors, walk.Data, walk.Data, walk.Zip}
	for i, s := range []string{osPickle, oldPickle, npyFile(npyDict("'|O'", "(1,)"), plainPickle), "model_config{\"class_name\": \"Lambda\", \"config\": 1}", `{"auto_map": {"a": "b.c"}}`, tools, "a: !!python/object:x", ggufFile("a", "b")} {
		f.Add([]byte(s), uint8(i))
	}
	in, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte, n uint8) {
		i := int(n) % len(names)
		file := walk.NewFile(kinds[i], content, names[i])
		first, err := in.Inspect(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		second, err := in.Inspect(t.Context(), file)
		if err != nil || texts(first) != texts(second) {
			t.Fatalf("twice the same file, two answers: %v\n%s\n%s", err, texts(first), texts(second))
		}
	})
}
