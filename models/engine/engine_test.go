package engine

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// llama is a small model as it is published: nothing is missing.
var llama = files{
	"config.json":           `{"architectures":["LlamaForCausalLM"],"model_type":"llama"}`,
	"model.safetensors":     tensors(4),
	"tokenizer.json":        `{}`,
	"tokenizer_config.json": `{"chat_template":"{{ messages }}"}`,
}

// config is llama with another configuration.
func config(text string) files { return llama.with(files{"config.json": text}) }

var (
	pickles = llama.with(files{"model.safetensors": "", "pytorch_model.bin": "PK"})
	adapter = files{"adapter_config.json": `{"base_model_name_or_path":"team/base"}`, "adapter_model.safetensors": tensors(1)}
	mistral = files{"params.json": `{}`, "consolidated.safetensors": tensors(4), "tekken.json": `{}`}
	shards  = llama.with(files{
		"model.safetensors": "", "model-00001-of-00002.safetensors": tensors(1), "model-00002-of-00002.safetensors": tensors(1),
		"model.safetensors.index.json": `{"weight_map":{"w":"model-00001-of-00002.safetensors","v":"model-00002-of-00002.safetensors"}}`,
	})
	remote = llama.with(files{
		"config.json": `{"architectures":["OwnForCausalLM"],"model_type":"own",
			"auto_map":{"AutoConfig":"configuration_own.OwnConfig","AutoModelForCausalLM":"modeling_own.OwnForCausalLM"}}`,
		"configuration_own.py": "x", "modeling_own.py": "x",
	})
	embedder = files{
		"config.json": `{"architectures":["BertModel"],"model_type":"bert"}`, "model.safetensors": tensors(4), "tokenizer.json": `{}`,
		"modules.json":          `[{"path":"","type":"sentence_transformers.models.Transformer"},{"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]`,
		"1_Pooling/config.json": `{}`,
	}
	quants = files{
		"model-Q4_K_M.gguf": ggufFile("general.architecture", "llama", "tokenizer.chat_template", "{{ messages }}"),
		"mmproj-F16.gguf":   ggufFile("general.architecture", "clip"),
	}
	split = files{
		"m-00001-of-00002.gguf": ggufFile("general.architecture", "llama", "split.count", "\x00"),
		"m-00002-of-00002.gguf": ggufFile("split.count", "\x01"),
	}
	graphs = files{"onnx/model.onnx": onnxFile(pb(5, outside("model.onnx_data", 2, 4))), "onnx/model.onnx_data": "123456"}
)

// Each case names one engine, its verdict, and a part of what it must say.
func TestJudge(t *testing.T) {
	quantised := func(method string) files {
		return config(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","quantization_config":{"quant_method":"` + method + `"}}`)
	}
	for _, c := range []struct {
		name, engine string
		files        files
		want         State
		says, how    string
	}{
		{"whole", "vllm", llama, Loads, "has code for LlamaForCausalLM", "vllm serve team/model"},
		{"whole", "tgi", llama, Loads, "has code for llama", "text-generation-launcher --model-id team/model"},
		{"whole", "transformers", llama, Loads, "71 bytes for the weights (4 parameters, BF16)", `AutoModelForCausalLM.from_pretrained("team/model")`},
		{"no modules", "sentence-transformers", llama, NotKnown, "no modules.json", `SentenceTransformer("team/model")`},
		{"no GGUF", "llama.cpp", llama, DoesNotLoad, "no GGUF file: there is safetensors", ""},
		{"no GGUF", "ollama", llama, DoesNotLoad, "`ollama create` converts", ""},
		{"no ONNX", "onnxruntime", llama, DoesNotLoad, "no ONNX file: there is safetensors", ""},

		{"nothing", "vllm", files{"README.md": "x"}, DoesNotLoad, "no config.json: there is nothing that holds weights", ""},
		{"no config", "tgi", llama.with(files{"config.json": ""}), DoesNotLoad, "no config.json: there is safetensors", ""},
		{"config that is no JSON", "vllm", config("{"), NotKnown, "config.json: ", "vllm serve team/model"},
		{"config with Infinity", "vllm", config(`{"architectures":["Mamba2ForCausalLM"],"a":[NaN,-Infinity,Infinity,"NaN \" NaN"]}`), Loads, "Mamba2ForCausalLM", "vllm serve team/model"},
		{"config without architecture", "vllm", config(`{}`), NotKnown, "config.json has no architectures", "vllm serve team/model"},
		{"config without type", "transformers", config(`{}`), NotKnown, "config.json has no model_type", `AutoModel.from_pretrained("team/model")`},
		{"architecture of no list", "vllm", config(`{"architectures":["NewForCausalLM"]}`), NotKnown, "NewForCausalLM is not on the list of vLLM", "vllm serve team/model"},
		{"type of no list", "tgi", config(`{"model_type":"bert"}`), NotKnown, "bert is not on the list of TGI", "text-generation-launcher --model-id team/model"},
		{"type of no list", "transformers", config(`{"model_type":"newest"}`), NotKnown, "newest is not on the list of transformers", `AutoModel.from_pretrained("team/model")`},
		{"a drafter", "vllm", config(`{"architectures":["EagleLlamaForCausalLM"]}`), DoesNotLoad, "--speculative-config", ""},

		{"own code", "transformers", remote, Loads, "code of the repository: configuration_own.py, modeling_own.py", `AutoModelForCausalLM.from_pretrained("team/model", trust_remote_code=True)`},
		{"own code", "tgi", remote, Loads, "--trust-remote-code", "text-generation-launcher --model-id team/model --trust-remote-code"},
		{"own code", "vllm", remote, NotKnown, "whether it can work with the repository's own code", "vllm serve team/model --trust-remote-code"},
		{"own code that is missing", "transformers", remote.with(files{"modeling_own.py": ""}), DoesNotLoad, "code that is not carried: modeling_own.py", ""},
		{
			"code of another repository", "transformers", config(`{"model_type":"own","auto_map":{"AutoModel":["team/code--own.Own",null]}}`), Loads,
			"the repository team/code, whose code it runs", `AutoModel.from_pretrained("team/model", trust_remote_code=True)`,
		},
		{
			"code that nobody needs", "vllm", config(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","auto_map":{"AutoModelForCausalLM":"old.Llama"}}`),
			Loads, "has code for LlamaForCausalLM", "vllm serve team/model",
		},
		{
			"code of the tokenizer", "vllm", llama.with(files{"tokenizer_config.json": `{"auto_map":{"AutoTokenizer":["own.Tokenizer",null]}}`, "own.py": "x"}),
			Loads, "code of the repository: own.py", "vllm serve team/model --trust-remote-code",
		},

		{"no weights", "vllm", llama.with(files{"model.safetensors": ""}), DoesNotLoad, "no weights of a kind that it loads", ""},
		{"weights of another framework", "tgi", llama.with(files{"model.safetensors": "", "tf_model.h5": "x"}), DoesNotLoad, "there is TensorFlow", ""},
		{"weights by another name", "transformers", llama.with(files{"model.safetensors": "", "weights.safetensors": tensors(1)}), DoesNotLoad, "no weights by a name", ""},
		{"weights by another name", "vllm", llama.with(files{"model.safetensors": "", "weights.safetensors": tensors(1)}), Loads, "", "vllm serve team/model"},
		{"pickles", "vllm", pickles, Loads, "the weights are pickles (pytorch_model.bin)", "vllm serve team/model"},
		{"pickles", "tgi", pickles, Loads, "a folder that it may write to", "text-generation-launcher --model-id team/model"},
		{"pickles", "transformers", pickles, Loads, "DISABLE_SAFETENSORS_CONVERSION=1", `AutoModelForCausalLM.from_pretrained("team/model")`},
		{"only a trainer's state", "vllm", llama.with(files{"model.safetensors": "", "training_args.bin": "x", "optimizer.pt": "x"}), DoesNotLoad, "no weights of a kind", ""},
		{"shards", "vllm", shards, Loads, "130 bytes for the weights (2 parameters, BF16)", "vllm serve team/model"},
		{"a shard is missing", "vllm", shards.with(files{"model-00002-of-00002.safetensors": ""}), DoesNotLoad, "model-00002-of-00002.safetensors is missing", ""},
		{"a shard is missing", "transformers", shards.with(files{"model-00001-of-00002.safetensors": ""}), DoesNotLoad, "model-00001-of-00002.safetensors is missing", ""},
		{"a broken index", "tgi", shards.with(files{"model.safetensors.index.json": "[]"}), DoesNotLoad, "model.safetensors.index.json", ""},
		{"a broken header", "vllm", llama.with(files{"model.safetensors": "not a header at all"}), DoesNotLoad, "SAFETENSORS-HEADER-TOO-LARGE", ""},
		{"bytes behind the weights", "transformers", llama.with(files{"model.safetensors": tensors(2) + "x"}), DoesNotLoad, "SAFETENSORS-METADATA-INCOMPLETE-BUFFER", ""},

		{"gptq", "vllm", quantised("gptq"), Loads, "quantised by gptq", "vllm serve team/model"},
		{"bitsandbytes", "vllm", quantised("bitsandbytes"), Loads, "vllm-bnb-plugin", "vllm serve team/model"},
		{"bitsandbytes", "tgi", quantised("bitsandbytes"), NotKnown, "quantised by bitsandbytes, which is not on the list", "text-generation-launcher --model-id team/model"},
		{"awq", "transformers", quantised("awq"), Loads, "gptqmodel and accelerate", `AutoModelForCausalLM.from_pretrained("team/model")`},
		{"fp8", "transformers", quantised("fp8"), Loads, "compute capability 8.9", `AutoModelForCausalLM.from_pretrained("team/model")`},
		{"compressed-tensors", "tgi", quantised("compressed-tensors"), Loads, "quantised by compressed-tensors", "text-generation-launcher --model-id team/model"},
		{"a new method", "vllm", quantised("newest"), NotKnown, "quantised by newest", "vllm serve team/model"},
		{"bitsandbytes of old", "transformers", config(`{"model_type":"llama","quantization_config":{"load_in_4bit":true}}`), Loads, "quantised by bitsandbytes", `AutoModel.from_pretrained("team/model")`},
		{"no method", "vllm", quantised(""), NotKnown, "no quant_method", "vllm serve team/model"},

		{"no tokenizer", "vllm", llama.with(files{"tokenizer.json": ""}), DoesNotLoad, "no tokenizer is carried", ""},
		{"no tokenizer", "tgi", llama.with(files{"tokenizer.json": ""}), DoesNotLoad, "no tokenizer is carried", ""},
		{"no tokenizer", "transformers", llama.with(files{"tokenizer.json": ""}), Loads, "AutoTokenizer fails, or makes one without words", `AutoModelForCausalLM.from_pretrained("team/model")`},
		{"no template", "vllm", llama.with(files{"tokenizer_config.json": ""}), Loads, "chat requests need --chat-template", "vllm serve team/model"},

		{"adapter", "vllm", adapter, NotKnown, "the repository team/base", "vllm serve team/base --enable-lora --lora-modules adapter=team/model"},
		{"adapter", "transformers", adapter, NotKnown, "the Python package peft", `AutoModelForCausalLM.from_pretrained("team/model")`},
		{"adapter without base", "vllm", adapter.with(files{"adapter_config.json": `{}`}), DoesNotLoad, "names no repository as its base", ""},
		{"adapter of a folder", "tgi", adapter.with(files{"adapter_config.json": `{"base_model_name_or_path":"/home/me/base"}`}), DoesNotLoad, "names no repository as its base", ""},
		{"adapter without weights", "vllm", adapter.with(files{"adapter_model.safetensors": ""}), DoesNotLoad, "an adapter without its weights", ""},
		{"adapter that is no JSON", "vllm", adapter.with(files{"adapter_config.json": "{"}), NotKnown, "adapter_config.json: ", ""},
		{"pipeline", "vllm", files{"model_index.json": `{}`, "unet/model.safetensors": tensors(1)}, DoesNotLoad, "a pipeline for diffusers", ""},
		{"pipeline", "transformers", files{"model_index.json": `{}`, "unet/model.safetensors": tensors(1)}, DoesNotLoad, "a pipeline for diffusers", ""},
		{"only GGUF", "vllm", quants, DoesNotLoad, "the plugin vllm-gguf-plugin", ""},
		{"only GGUF", "transformers", quants, NotKnown, "the Python package gguf", `AutoModelForCausalLM.from_pretrained("team/model", gguf_file="model-Q4_K_M.gguf")`},
		{"only GGUF", "tgi", quants, DoesNotLoad, "there is GGUF", ""},
		{"the authors' layout", "vllm", mistral, Loads, "the layout of params.json", "vllm serve team/model " + mistralFlags},
		{"the authors' layout", "transformers", mistral, DoesNotLoad, "only the authors' own layout", ""},
		{"the authors' layout without tokenizer", "vllm", mistral.with(files{"tekken.json": ""}), DoesNotLoad, "no tokenizer of that layout", ""},
		{"both layouts", "vllm", llama.with(mistral), Loads, "71 bytes for the weights", "vllm serve team/model"},

		{"embedder", "sentence-transformers", embedder, Loads, "has code for bert", `SentenceTransformer("team/model")`},
		{"embedder", "vllm", embedder, Loads, "has code for BertModel", "vllm serve team/model"},
		{"no tokenizer", "sentence-transformers", embedder.with(files{"tokenizer.json": ""}), NotKnown, "vectors that mean nothing", `SentenceTransformer("team/model")`},
		{"pooling is missing", "sentence-transformers", embedder.with(files{"1_Pooling/config.json": ""}), DoesNotLoad, "1_Pooling/config.json is missing", ""},
		{"model is missing", "sentence-transformers", embedder.with(files{"config.json": ""}), DoesNotLoad, "no config.json", ""},
		{"weights are missing", "sentence-transformers", embedder.with(files{"model.safetensors": ""}), DoesNotLoad, "no weights of a kind", ""},
		{"no module", "sentence-transformers", embedder.with(files{"modules.json": "[]"}), DoesNotLoad, "names no module", ""},
		{"modules that are no JSON", "sentence-transformers", embedder.with(files{"modules.json": "{"}), NotKnown, "modules.json: ", `SentenceTransformer("team/model")`},
		{"module elsewhere", "sentence-transformers", embedder.with(files{"modules.json": `[{"path":"../x","type":"sentence_transformers.models.Dense"}]`}), DoesNotLoad, "leads elsewhere", ""},
		{"module without weights", "sentence-transformers", embedder.with(files{"modules.json": `[{"path":"2_Dense","type":"sentence_transformers.models.Dense"}]`}), DoesNotLoad, "no weights in 2_Dense/", ""},
		{
			"module of its own", "sentence-transformers", embedder.with(files{"modules.json": `[{"path":"","type":"own.Transformer"}]`, "own.py": "x"}),
			Loads, "code of the repository: own.py", `SentenceTransformer("team/model", trust_remote_code=True)`,
		},
		{"module that is nowhere", "sentence-transformers", embedder.with(files{"modules.json": `[{"path":"","type":"own.Thing"}]`}), NotKnown, "neither its own nor carried: own.Thing", `SentenceTransformer("team/model", trust_remote_code=True)`},
		{"model in a folder", "sentence-transformers", files{
			"modules.json":              `[{"path":"0_Transformer","type":"sentence_transformers.models.Transformer"}]`,
			"0_Transformer/config.json": `{}`, "0_Transformer/model.safetensors": tensors(1),
		}, NotKnown, "0_Transformer/config.json is not looked for", `SentenceTransformer("team/model")`},

		{"GGUF", "llama.cpp", quants, Loads, "llama, 1 parameters", "llama-server -m team/model/model-Q4_K_M.gguf --mmproj team/model/mmproj-F16.gguf"},
		{"GGUF", "ollama", quants, Loads, "Modelfile", "ollama create model -f Modelfile"},
		{"GGUF shards", "llama.cpp", split, Loads, "chat needs --chat-template", "llama-server -m team/model/m-00001-of-00002.gguf"},
		{"GGUF shards", "ollama", split, DoesNotLoad, "in 2 files", ""},
		{"GGUF shard is missing", "llama.cpp", split.with(files{"m-00002-of-00002.gguf": ""}), DoesNotLoad, "m-00002-of-00002.gguf is missing", ""},
		{"GGUF shard by another name", "llama.cpp", files{"m.gguf": split["m-00001-of-00002.gguf"]}, DoesNotLoad, "one of 2 files, of which 1 are there", ""},
		{"GGUF that is none", "llama.cpp", files{"m.gguf": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}, DoesNotLoad, "GGUF-BAD-MAGIC", ""},
		{"GGUF of no list", "llama.cpp", files{"m.gguf": ggufFile("general.architecture", "newest")}, NotKnown, "newest is not on the list of llama.cpp", "llama-server -m team/model/m.gguf"},
		{"GGUF of nothing", "llama.cpp", files{"m.gguf": ggufFile()}, DoesNotLoad, "names no architecture", ""},
		{"GGUF adapter", "llama.cpp", files{"m.gguf": ggufFile("general.architecture", "llama", "general.type", "adapter")}, DoesNotLoad, `no model, but "adapter"`, ""},
		{"one GGUF is broken", "llama.cpp", quants.with(files{"a.gguf": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}), Loads, "GGUF-BAD-MAGIC", "llama-server -m team/model/model-Q4_K_M.gguf --mmproj team/model/mmproj-F16.gguf"},
		{"GGUF with a hostile name", "llama.cpp", files{"a'; rm x.gguf": ggufFile("general.architecture", "llama")}, Loads, "", `llama-server -m 'team/model/a'\''; rm x.gguf'`},

		{"ONNX", "onnxruntime", graphs, Loads, "onnx/model.onnx: ", `onnxruntime.InferenceSession("team/model/onnx/model.onnx")`},
		{"ONNX without its data", "onnxruntime", graphs.with(files{"onnx/model.onnx_data": ""}), DoesNotLoad, "onnx/model.onnx_data is missing", ""},
		{"ONNX with short data", "onnxruntime", graphs.with(files{"onnx/model.onnx_data": "12345"}), DoesNotLoad, "end at byte 6 of 5", ""},
		{"ONNX data elsewhere", "onnxruntime", files{"m.onnx": onnxFile(pb(5, outside("../../etc/passwd", 0, 1)))}, DoesNotLoad, "leads elsewhere", ""},
		{"ONNX data of a node", "onnxruntime", files{"m.onnx": onnxFile(pb(1, pb(5, pb(6, pb(5, outside("x.bin", 0, 1))))))}, DoesNotLoad, "x.bin is missing", ""},
		{"ONNX with operators", "onnxruntime", files{"m.onnx": onnxFile("", "com.microsoft", "own.ops")}, NotKnown, `operators of "own.ops"`, `onnxruntime.InferenceSession("team/model/m.onnx")`},
		{"ONNX that is none", "onnxruntime", files{"m.onnx": "not ONNX"}, DoesNotLoad, "not an ONNX file", ""},
		{"ONNX of nothing", "onnxruntime", files{"m.onnx": pb(1, 8)}, DoesNotLoad, "no graph", ""},
	} {
		t.Run(c.engine+"/"+c.name, func(t *testing.T) {
			all := Judge(c.files.repository())
			i := slices.IndexFunc(all, func(v Verdict) bool { return v.Engine == c.engine })
			if i < 0 {
				t.Fatalf("no verdict for %s", c.engine)
			}
			v := all[i]
			if v.State != c.want || v.How != c.how || !strings.Contains(strings.Join(slices.Concat(v.Why, v.Needs), "\n"), c.says) {
				t.Errorf("got %+v\nwant %s, %q, %q", v, c.want, c.says, c.how)
			}
			if v.State != Loads && len(v.Why) == 0 {
				t.Error("no reason")
			}
		})
	}
}

// A data set is for no engine.
func TestDataset(t *testing.T) {
	r := llama.repository()
	r.Name = "datasets/team/questions"
	for _, v := range Judge(r) {
		if v.State == Loads {
			t.Errorf("%s loads a data set", v.Engine)
		}
	}
}

// The same repository has the same verdicts, in the same order.
func TestOrder(t *testing.T) {
	all := llama.with(quants).with(split).with(graphs).with(embedder).with(remote)
	first := Judge(all.repository())
	var engines []string
	for _, v := range first {
		engines = append(engines, v.Engine)
	}
	want := []string{"vllm", "tgi", "transformers", "sentence-transformers", "llama.cpp", "ollama", "onnxruntime"}
	if diff := cmp.Diff(want, engines); diff != "" {
		t.Errorf("engines (-want +got):\n%s", diff)
	}
	for range 10 {
		if diff := cmp.Diff(first, Judge(all.repository())); diff != "" {
			t.Fatalf("another time (-want +got):\n%s", diff)
		}
	}
}

// Without the bytes of weights, what needs them is not known.
func TestWithoutBytes(t *testing.T) {
	r := llama.with(quants).with(graphs).repository()
	r.Open = nil
	want := map[string]State{
		"vllm": Loads, "tgi": Loads, "transformers": Loads, "sentence-transformers": NotKnown, "llama.cpp": NotKnown, "ollama": NotKnown, "onnxruntime": NotKnown,
	}
	got := make(map[string]State)
	for _, v := range Judge(r) {
		got[v.Engine] = v.State
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	r.Read = nil
	for _, v := range Judge(r) {
		if v.State == Loads {
			t.Errorf("%s loads what cannot be read", v.Engine)
		}
	}
}

// What cannot be read is not known, and is not the file's fault.
func TestUnreadable(t *testing.T) {
	broken := errors.New("disc")
	r := llama.with(quants).with(graphs).with(embedder).repository()
	r.Open = func(string) (io.ReaderAt, int64, func() error, error) { return nil, 0, nil, broken }
	for _, v := range Judge(r) {
		if v.State != NotKnown || !strings.Contains(strings.Join(v.Why, "\n"), "disc") {
			t.Errorf("%+v", v)
		}
	}
}

// Every list is there, and has what no release will drop.
func TestKnown(t *testing.T) {
	for name, want := range map[string][]string{
		"vllm": {"LlamaForCausalLM", "Qwen3ForCausalLM", "BertModel"}, "vllm-drafters": {"EagleLlamaForCausalLM"}, "vllm-configs": {"kimi_k2"},
		"tgi": {"llama", "mistral"}, "transformers": {"llama", "bert", "qwen3"}, "llamacpp": {"llama", "qwen3moe", "gemma3", "bert"},
	} {
		list := readKnown(name)
		for _, w := range want {
			if !list[w] {
				t.Errorf("%s: no %s", name, w)
			}
		}
		for n := range list {
			if strings.ContainsAny(n, " #\t") {
				t.Errorf("%s: %q", name, n)
			}
		}
	}
	entries, err := knownFiles.ReadDir("known")
	if err != nil || len(entries) != 6 {
		t.Errorf("%d lists, %v", len(entries), err)
	}
	if readKnown("none") != nil {
		t.Error("a list that is not there")
	}
}

func TestText(t *testing.T) {
	for got, want := range map[string]string{
		bytesOf(999): "999 bytes", bytesOf(16_060_000_000): "16.1 GB", parametersOf(8_030_000_000): "8.03 B parameters", parametersOf(7): "7 parameters",
		shell("a/b-1.x"): "a/b-1.x", shell(""): "''", shell("$(x)"): "'$(x)'", some([]string{"a", "b", "c", "d", "e", "f"}): "a, b, c, d and 2 more",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzDocuments: never panics, whatever the documents say, and always says
// why.
func FuzzDocuments(f *testing.F) {
	seeds := 0
	for _, r := range []files{llama, remote, adapter, embedder, shards, config(`{"auto_map":{"AutoModel":[1]},"architectures":1}`)} {
		f.Add(r["config.json"], r["tokenizer_config.json"], r["adapter_config.json"], r["modules.json"])
		seeds++
	}
	if seeds < 6 {
		f.Fatalf("%d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, config, tokenizer, adapter, modules string) {
		more := files{"config.json": config, "tokenizer_config.json": tokenizer, "adapter_config.json": adapter, "modules.json": modules}
		for _, v := range Judge(embedder.with(quants).with(more).repository()) {
			if v.State != Loads && len(v.Why) == 0 || v.State == DoesNotLoad && v.How != "" {
				t.Fatalf("%+v", v)
			}
			for _, s := range slices.Concat(v.Why, v.Needs) {
				if len(s) > 2000 {
					t.Fatalf("%d bytes: %s", len(s), s)
				}
			}
		}
	})
}

// FuzzOnnx: never panics, and keeps little.
func FuzzOnnx(f *testing.F) {
	seeds := []string{
		graphs["onnx/model.onnx"], onnxFile("", "own"), onnxFile(pb(1, pb(5, pb(6, pb(5, outside("x", 1, 2)))))), pb(7, pb(15, pb(1, outside("s", 0, 0)))),
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", pb(7, strings.Repeat(pb(1, ""), 100)), "\x3a\xff\xff\xff\xff\x7f", "\x0d1234\x091234567812",
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readOnnx(strings.NewReader(string(b)), int64(len(b)))
		switch {
		case err != nil && !errors.Is(err, errOnnx):
			t.Fatal(err)
		case err == nil && (!h.graph || h.version == 0 || len(h.domains) == 0):
			t.Fatalf("%+v", h)
		case len(slices.Collect(maps.Keys(h.external))) > len(b):
			t.Fatalf("%d files in %d bytes", len(h.external), len(b))
		}
	})
}
