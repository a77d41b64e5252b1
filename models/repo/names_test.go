package repo

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestKindOf(t *testing.T) {
	for kind, names := range map[Kind][]string{
		Weight: {
			"model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors", "pytorch_model-00001-of-00002.bin", "adapter_model.bin", "colbert_linear.pt", "x.pth", "x.ckpt",
			"m-Q4_K_M.gguf", "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_1", "model.onnx.data", "tf_model.h5", "flax_model.msgpack", "rust_model.ot",
			"64.tflite", "voices.npz", "model.ckpt.data-00000-of-00001", "saved_model/saved_model.pb", "Model.SafeTensors", "optimizer.pt", "x.nemo",
		},
		Config: {
			"config.json", "tokenizer.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "qwen.tiktoken",
			"model.safetensors.index.json", "hyperparams.yaml", ".gitattributes", "training_args.bin", "rng_state_0.pth", "openvino/openvino_model.xml", "licenses.json", "x",
		},
		Doc: {
			"README.md", "LICENSE", "LICENSE.txt", "licence", "Notice", "NOTICE.txt", "USE_POLICY.md", "MODEL_LICENSE", "COPYING", "imgs/a.png", "paper.pdf", "LICENSE-2.0", "README", "README.txt",
		},
		Code:    {"modeling_x.py", "license.py", "train.ipynb", "run.sh", "op.cpp", "lib.so"},
		Dataset: {"data/train-00000-of-00002.parquet", "a.arrow", "a.csv", "a.jsonl", "a.tar.gz", "a.zip"},
	} {
		for _, name := range names {
			if got := KindOf(name); got != kind {
				t.Errorf("%s is %s, want %s", name, got, kind)
			}
		}
	}
}

func TestQuantOf(t *testing.T) {
	for name, want := range map[string]string{
		"model-Q4_K_M.gguf": "Q4_K_M", "model.q4_k_m.gguf": "Q4_K_M", "Model-8x7B-v0.1.Q8_0.gguf": "Q8_0", "m-BF16-00001-of-00002.gguf": "BF16",
		"m.i1-IQ3_XXS.gguf": "I1-IQ3_XXS", "m-UD-Q4_K_XL.gguf": "UD-Q4_K_XL", "m-f16.gguf": "F16", "m.fp16.gguf": "FP16", "Q5_K_M/m-00001-of-00002.gguf": "Q5_K_M",
		"m-IQ4_NL.gguf": "IQ4_NL", "m-Q4_0_4_4.gguf": "Q4_0_4_4", "m-TQ1_0.gguf": "TQ1_0", "m-MXFP4_MOE.gguf": "MXFP4_MOE", "m-Q6_K.gguf": "Q6_K", "m-Q2_K_L.gguf": "Q2_K_L",
		"m-Q4_K_M.gguf.part1of2": "Q4_K_M", "ggml-model-Q4_1.gguf": "Q4_1", "m.gguf": "", "Q-model.gguf": "", "m-q4all.gguf": "", "sub/Q4/m-Q8_0.gguf": "Q8_0", "Q3_K_S.gguf": "Q3_K_S",
		"Qwen2-Q4_K_M-Instruct.gguf": "Q4_K_M", "F16-to-Q8_0.gguf": "Q8_0", "m_Q5_0.gguf": "Q5_0",
	} {
		if got := quantOf(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A quantisation that nobody knows yet is found by its word.
func TestUnknownQuant(t *testing.T) {
	models := []File{{Path: "m-NEWQ_7.gguf"}, {Path: "m-NEWQ_77.gguf"}, {Path: "newq_7/m.gguf"}}
	got := oneQuant(models, "NEWQ_7")
	if len(got) != 2 || got[0].Path != "m-NEWQ_7.gguf" || got[1].Path != "newq_7/m.gguf" {
		t.Errorf("got %v", got)
	}
}

func TestOnnxName(t *testing.T) {
	for name, want := range map[string][2]string{
		"model.onnx": {"model", ""}, "onnx/model_O4.onnx": {"model", "o4"}, "model_qint8_avx512_vnni.onnx": {"model", "qint8_avx512_vnni"},
		"decoder_model_merged_q4f16.onnx_data_1": {"decoder_model_merged", "q4f16"}, "model.onnx.data": {"model", ""}, "weights.pb": {"weights", ""},
		"decoder_with_past_model_quantized.onnx": {"decoder_with_past_model", "quantized"}, "fp16.onnx": {"fp16", ""}, "model.int8.onnx": {"model", "int8"},
	} {
		part, variant := onnxName(name)
		if part != want[0] || variant != want[1] {
			t.Errorf("%s: %q, %q, want %q", name, part, variant, want)
		}
	}
}

func TestParseWeight(t *testing.T) {
	for name, want := range map[string]weightName{
		"model.safetensors":                            {"", "model", "", "safetensors"},
		"unet/diffusion_pytorch_model.fp16.bin":        {"unet", "diffusion_pytorch_model", "fp16", "bin"},
		"model-00001-of-00003.safetensors":             {"", "model", "", "safetensors"},
		"model.fp16-00001-of-00003.safetensors":        {"", "model", "fp16", "safetensors"},
		"model-00001-of-00003.fp16.safetensors":        {"", "model", "fp16", "safetensors"},
		"model.safetensors-00001-of-00003.safetensors": {"", "model", "", "safetensors"},
		"pytorch_model_00001-of-00003.bin":             {"", "pytorch_model", "", "bin"},
		"consolidated.00.pth":                          {"", "consolidated.00", "", "pth"},
		"v1.5.safetensors":                             {"", "v1.5", "", "safetensors"},
		"model.FP8_e4m3fn.safetensors":                 {"", "model", "FP8_e4m3fn", "safetensors"},
	} {
		if got, ok := parseWeight(name); !ok || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, ok, want)
		}
	}
	for _, name := range []string{"model.gguf", "training_args.bin", "openvino_model.bin", "config.json", "a/metal/model.bin", "ggml-large.bin", "x.mlpackage/Data/weight.bin"} {
		if got, ok := parseWeight(name); ok {
			t.Errorf("%s was read as %+v", name, got)
		}
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b", true},
		{"*.json", "a/b.json", true},
		{"*.json", "a/b.jsonl", false},
		{"a/*", "a/b/c", true},
		{"a/", "a/b/c", true},
		{"a/", "b/a/c", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"a?c", "aüc", true},
		{"[ab].x", "b.x", true},
		{"[!ab].x", "b.x", false},
		{"[!ab].x", "c.x", true},
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[]]", "]", true},
		{"[a", "[a", true},
		{"", "", true},
		{"", "a", false},
		{"**", "abc", true},
		{"*a*b*c", "xaxbxc", true},
		{"*a*b*c", "xaxbx", false},
		{"A", "a", false},
		{"*.[!b]*", "x.abc", true},
		{"a.c", "abc", false},
	} {
		if got := matchPattern(c.pattern, c.name); got != c.want {
			t.Errorf("%q, %q: %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
	if matchPattern(strings.Repeat("*a", 200), strings.Repeat("a", 100)+"b") {
		t.Error("a pattern of 200 stars matched")
	}
}

var jsonSeeds = []string{
	`{}`, `[]`, `""`, `0`, `-0`, `-0.5e+10`, `1E2`, `true`, `false`, `null`, `{"a":[1,{"b":"\u00e9\n"}],"c":{}}`, " [ 1 , 2 ]\n", `"\ud800"`,
	``, ` `, `{`, `[1,]`, `{"a":1,}`, `{"a"}`, `{1:2}`, `01`, `1.`, `.5`, `1e`, `+1`, `-`, `"\x"`, `"\u12"`, "\"\n\"", `tru`, `nulll`, `[1 2]`, `{"a":1 "b":2}`, `"a`, `NaN`, `[-Infinity]`, `{"a":Infinity}`, `-I`,
}

func TestWalkJSONAgrees(t *testing.T) {
	for _, s := range jsonSeeds {
		err := walkJSON([]byte(s), false, func([]string, jsonValue) error { return nil })
		want := json.Valid([]byte(s)) || s == `NaN` || s == `[-Infinity]` || s == `{"a":Infinity}`
		if (err == nil) != want {
			t.Errorf("%q: %v, want valid: %v", s, err, want)
		}
	}
}

func TestWalkJSONStops(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	err := walkJSON([]byte(`{"a":[1,2,{"b":"x"}],"c":3}`), false, func(keys []string, v jsonValue) error {
		n++
		if strings.Join(keys, ".") == "a.b" && v.kind == '"' && v.text() == "x" {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 6 {
		t.Errorf("%v after %d values", err, n)
	}
}

// FuzzWalkJSON: takes what encoding/json takes, and nothing more but the
// numbers of Python and for the bounds.
func FuzzWalkJSON(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		python, depth := false, 0
		err := walkJSON(b, false, func(keys []string, v jsonValue) error {
			python = python || v.kind == '0' && v.raw == nil
			depth = max(depth, len(keys))
			if v.kind == '"' {
				var s string
				if err := json.Unmarshal([]byte(`"`+string(v.raw)+`"`), &s); err != nil || s != v.text() {
					t.Errorf("%q is %q, want %q (%v)", v.raw, v.text(), s, err)
				}
			}
			return nil
		})
		switch valid := json.Valid(b); {
		case err == nil && !valid && !python:
			t.Errorf("%q was taken", b)
		case err != nil && valid && !strings.Contains(err.Error(), "nested deeper") && !strings.Contains(err.Error(), "invalid UTF-8") && !strings.Contains(err.Error(), "a key of"):
			t.Errorf("%q: %v", b, err)
		}
	})
}
