package repo_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/models/repo"
)

// A shape is a repository as they are found, and what a profile leaves of it.
type shape struct {
	name    string
	profile string
	listing string
	docs    map[string]string
	left    map[string]string // path -> a part of the reason; all others stay
	notes   []string          // a part of each
}

const llama3 = `
1K .gitattributes
8K LICENSE
40K README.md
5K USE_POLICY.md
1K config.json
1K generation_config.json
4.6G model-00001-of-00004.safetensors
4.6G model-00002-of-00004.safetensors
4.5G model-00003-of-00004.safetensors
1.1G model-00004-of-00004.safetensors
15G original/consolidated.00.pth
1K original/params.json
2M original/tokenizer.model
1K special_tokens_map.json
9M tokenizer.json
50K tokenizer_config.json
`

const miniLM = `
1K .gitattributes
1K 1_Pooling/config.json
10K README.md
1K config.json
1K config_sentence_transformers.json
40K data_config.json
86M model.safetensors
86M onnx/model.onnx
86M onnx/model_O1.onnx
43M onnx/model_O4.onnx
22M onnx/model_qint8_arm64.onnx
22M onnx/model_qint8_avx512.onnx
22M onnx/model_qint8_avx512_vnni.onnx
22M onnx/model_quint8_avx2.onnx
86M openvino/openvino_model.bin
200K openvino/openvino_model.xml
22M openvino/openvino_model_qint8_quantized.bin
300K openvino/openvino_model_qint8_quantized.xml
87M pytorch_model.bin
87M rust_model.ot
1K sentence_bert_config.json
1K special_tokens_map.json
87M tf_model.h5
460K tokenizer.json
1K tokenizer_config.json
13K train_script.py
230K vocab.txt
`

const modules3 = `[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
{"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"},
{"idx":2,"name":"2","path":"2_Normalize","type":"sentence_transformers.models.Normalize"}]`

const bgeM3 = `
1K .gitattributes
1K 1_Pooling/config.json
16K README.md
2M colbert_linear.pt
1K config.json
1K config_sentence_transformers.json
100K imgs/bm25.jpg
730K onnx/model.onnx
2.2G onnx/model.onnx_data
65K onnx/Constant_7_attr__value
1K onnx/config.json
5M onnx/sentencepiece.bpe.model
17M onnx/tokenizer.json
2.2G pytorch_model.bin
1K sentence_bert_config.json
5M sentencepiece.bpe.model
3K sparse_linear.pt
1K special_tokens_map.json
17M tokenizer.json
1K tokenizer_config.json
`

const whisper = `
1K README.md
34K added_tokens.json
1K config.json
3G flax_model.msgpack
4K generation_config.json
490K merges.txt
3G model.safetensors
4.6G model.fp32-00001-of-00002.safetensors
1.1G model.fp32-00002-of-00002.safetensors
50K normalizer.json
1K preprocessor_config.json
3G pytorch_model.bin
4.6G pytorch_model.fp32-00001-of-00002.bin
1.1G pytorch_model.fp32-00002-of-00002.bin
2.4M tokenizer.json
1M vocab.json
`

const sdxl = `
1K README.md
2K LICENSE.md
100K comparison.png
1K scheduler/scheduler_config.json
6.9G sd_xl_base_1.0.safetensors
6.9G sd_xl_base_1.0_0.9vae.safetensors
50M sd_xl_offset_example-lora_1.0.safetensors
1K text_encoder/config.json
492M text_encoder/flax_model.msgpack
492M text_encoder/model.safetensors
246M text_encoder/model.fp16.safetensors
492M text_encoder/model.onnx
246M text_encoder/openvino_model.bin
1M text_encoder/openvino_model.xml
500K tokenizer/merges.txt
1M tokenizer/vocab.json
2K unet/config.json
10G unet/diffusion_pytorch_model.safetensors
5G unet/diffusion_pytorch_model.fp16.safetensors
10G unet/diffusion_flax_model.msgpack
7M unet/model.onnx
10G unet/model.onnx_data
1K vae/config.json
334M vae/diffusion_pytorch_model.safetensors
167M vae/diffusion_pytorch_model.fp16.safetensors
1K vae_1_0/config.json
334M vae_1_0/diffusion_pytorch_model.safetensors
`

const ggufRepo = `
2K README.md
5M imatrix_unsloth.dat
16G model-BF16-00001-of-00002.gguf
14G model-BF16-00002-of-00002.gguf
4.9G model-Q4_K_M.gguf
4.6G model-Q4_K_S.gguf
5G model-UD-Q4_K_XL.gguf
5.7G Q5_K_M/model-Q5_K_M-00001-of-00002.gguf
1G Q5_K_M/model-Q5_K_M-00002-of-00002.gguf
8.5G model-Q8_0.gguf
1K config.json
900M mmproj-BF16.gguf
1.8G mmproj-F32.gguf
`

const gpt2 = `
445 .gitattributes
125M 64-8bits.tflite
248M 64-fp16.tflite
496M 64.tflite
8K README.md
1K config.json
497M flax_model.msgpack
1K generation_config.json
456K merges.txt
548M model.safetensors
1K onnx/config.json
653M onnx/decoder_model.onnx
655M onnx/decoder_model_merged.onnx
653M onnx/decoder_with_past_model.onnx
1.3M onnx/tokenizer.json
548M pytorch_model.bin
702M rust_model.ot
498M tf_model.h5
1.3M tokenizer.json
1K tokenizer_config.json
1M vocab.json
`

var shapes = []shape{
	{
		name: "llama with original", profile: "vllm", listing: llama3,
		docs: map[string]string{"model.safetensors.index.json": shards("model-%05d-of-00004.safetensors", 4)},
		left: map[string]string{
			"original/consolidated.00.pth": "the same weights as the files of model.safetensors.index.json",
			"original/params.json":         "the authors' own layout",
			"original/tokenizer.model":     "the authors' own layout",
		},
	},
	{
		name: "mistral with both formats", profile: "vllm",
		listing: `
1K config.json
14G consolidated.safetensors
1K params.json
5G model-00001-of-00003.safetensors
5G model-00002-of-00003.safetensors
4.5G model-00003-of-00003.safetensors
500K tokenizer.model
500K tokenizer.model.v3
2M tokenizer.json`,
		docs: map[string]string{"model.safetensors.index.json": shards("model-%05d-of-00003.safetensors", 3)},
		left: map[string]string{"consolidated.safetensors": "the same weights as the files of model.safetensors.index.json"},
	},
	{
		name: "mistral in its own format alone", profile: "vllm",
		listing: `
5G consolidated-00001-of-00002.safetensors
5G consolidated-00002-of-00002.safetensors
1K params.json
15M tekken.json
1K README.md`,
		docs:  map[string]string{"consolidated.safetensors.index.json": shards("consolidated-%05d-of-00002.safetensors", 2)},
		notes: []string{"--load-format mistral"},
	},
	{
		name: "mixture sharded twice", profile: "vllm",
		listing: `
1K config.json
4G model-00001-of-00003.safetensors
4G model-00002-of-00003.safetensors
4G model-00003-of-00003.safetensors
12G consolidated.00.pt
12G consolidated.01.pt
4G pytorch_model-00001-of-00003.bin
4G pytorch_model-00002-of-00003.bin
4G pytorch_model-00003-of-00003.bin
500K tokenizer.model`,
		docs: map[string]string{
			"model.safetensors.index.json": shards("model-%05d-of-00003.safetensors", 3),
			"pytorch_model.bin.index.json": shards("pytorch_model-%05d-of-00003.bin", 3),
		},
		left: map[string]string{
			"consolidated.00.pt":               "the same weights as the files of model.safetensors.index.json",
			"consolidated.01.pt":               "the same weights as",
			"pytorch_model-00001-of-00003.bin": "the same weights as the files of model.safetensors.index.json",
			"pytorch_model-00002-of-00003.bin": "the same weights as",
			"pytorch_model-00003-of-00003.bin": "the same weights as",
			"pytorch_model.bin.index.json":     "the same weights as",
		},
	},
	{
		name: "bge-m3 by st", profile: "st", listing: bgeM3, docs: map[string]string{"modules.json": modules3},
		left: map[string]string{
			"onnx/model.onnx": "the ONNX model in onnx/; pytorch_model.bin is kept", "onnx/model.onnx_data": "ONNX", "onnx/Constant_7_attr__value": "ONNX",
			"onnx/config.json": "ONNX", "onnx/sentencepiece.bpe.model": "ONNX", "onnx/tokenizer.json": "ONNX",
		},
		notes: []string{"pickled weights"},
	},
	{
		name: "all-MiniLM by st", profile: "st", listing: miniLM, docs: map[string]string{"modules.json": modules3},
		left: map[string]string{
			"onnx/model.onnx": "model.safetensors", "onnx/model_O1.onnx": "", "onnx/model_O4.onnx": "", "onnx/model_qint8_arm64.onnx": "",
			"onnx/model_qint8_avx512.onnx": "", "onnx/model_qint8_avx512_vnni.onnx": "", "onnx/model_quint8_avx2.onnx": "",
			"openvino/openvino_model.bin": "OpenVINO", "openvino/openvino_model.xml": "OpenVINO",
			"openvino/openvino_model_qint8_quantized.bin": "", "openvino/openvino_model_qint8_quantized.xml": "",
			"pytorch_model.bin": "the same weights as model.safetensors", "rust_model.ot": "for Rust; model.safetensors is kept",
			"tf_model.h5": "for TensorFlow; model.safetensors is kept",
		},
		notes: []string{"train_script.py"},
	},
	{
		name: "module folders by st", profile: "st",
		listing: `
1K config.json
400M model.safetensors
1K 1_Pooling/config.json
1K 2_Dense/config.json
2M 2_Dense/model.safetensors
2M 2_Dense/pytorch_model.bin
3M checkpoint-500/model.safetensors
9M checkpoint-500/optimizer.pt
4K training_args.bin
1K eval/similarity_evaluation_results.csv`,
		docs: map[string]string{"modules.json": `[{"idx":0,"path":"","type":"a.B"},{"idx":2,"path":"2_Dense","type":"a.Dense"}]`},
		left: map[string]string{
			"2_Dense/pytorch_model.bin":        "the same weights as 2_Dense/model.safetensors",
			"checkpoint-500/model.safetensors": "a checkpoint of the training in checkpoint-500/",
			"checkpoint-500/optimizer.pt":      "a leftover of training",
			"training_args.bin":                "a leftover of training",
		},
	},
	{
		name: "a module that is called as a checkpoint", profile: "st",
		listing: "1M checkpoint-1/model.safetensors\n1K config.json",
		docs:    map[string]string{"modules.json": `[{"path":"checkpoint-1","type":"a.StaticEmbedding"}]`},
	},
	{
		name: "whisper", profile: "vllm", listing: whisper,
		docs: map[string]string{
			"model.safetensors.index.fp32.json": shards("model.fp32-%05d-of-00002.safetensors", 2),
			"pytorch_model.bin.index.fp32.json": shards("pytorch_model.fp32-%05d-of-00002.bin", 2),
		},
		left: map[string]string{
			"flax_model.msgpack":                    "for Flax; model.safetensors is kept",
			"model.fp32-00001-of-00002.safetensors": "another precision of model.safetensors: fp32",
			"model.fp32-00002-of-00002.safetensors": "another precision",
			"model.safetensors.index.fp32.json":     "another precision",
			"pytorch_model.bin":                     "the same weights as model.safetensors",
			"pytorch_model.fp32-00001-of-00002.bin": "another precision",
			"pytorch_model.fp32-00002-of-00002.bin": "another precision",
			"pytorch_model.bin.index.fp32.json":     "another precision",
		},
	},
	{
		name: "a pipeline with variants", profile: "vllm", listing: sdxl,
		docs: map[string]string{"model_index.json": `{"_class_name":"XLPipeline","force_zeros":true,"scheduler":["diffusers","Euler"],"text_encoder":["transformers","CLIP"],"tokenizer":["transformers","T"],"unet":["diffusers","U"],"vae":["diffusers","V"]}`},
		left: map[string]string{
			"sd_xl_base_1.0.safetensors": "not part of the pipeline", "sd_xl_base_1.0_0.9vae.safetensors": "not part of", "sd_xl_offset_example-lora_1.0.safetensors": "not part of",
			"text_encoder/flax_model.msgpack": "for Flax; text_encoder/model.safetensors is kept", "text_encoder/model.fp16.safetensors": "another precision of text_encoder/model.safetensors: fp16",
			"text_encoder/model.onnx": "for ONNX", "text_encoder/openvino_model.bin": "for OpenVINO", "text_encoder/openvino_model.xml": "for OpenVINO",
			"unet/diffusion_pytorch_model.fp16.safetensors": "another precision", "unet/diffusion_flax_model.msgpack": "for Flax; unet/diffusion_pytorch_model.safetensors",
			"unet/model.onnx": "for ONNX", "unet/model.onnx_data": "for ONNX",
			"vae/diffusion_pytorch_model.fp16.safetensors": "another precision", "vae_1_0/diffusion_pytorch_model.safetensors": "not part of the pipeline that model_index.json names",
		},
	},
	{
		name: "one quantisation", profile: "gguf:q4_k_m", listing: ggufRepo,
		left: map[string]string{
			"imatrix_unsloth.dat": "importance matrix", "model-BF16-00001-of-00002.gguf": "another quantisation: BF16", "model-BF16-00002-of-00002.gguf": "another quantisation: BF16",
			"model-Q4_K_S.gguf": "another quantisation: Q4_K_S", "model-UD-Q4_K_XL.gguf": "another quantisation: UD-Q4_K_XL",
			"Q5_K_M/model-Q5_K_M-00001-of-00002.gguf": "another quantisation: Q5_K_M", "Q5_K_M/model-Q5_K_M-00002-of-00002.gguf": "another quantisation: Q5_K_M",
			"model-Q8_0.gguf": "another quantisation: Q8_0",
		},
		notes: []string{"mmproj-BF16.gguf", "mmproj-F32.gguf"},
	},
	{
		name: "two quantisations, one split, one by a part of its name", profile: "gguf:Q4_K_XL+BF16", listing: ggufRepo,
		left: map[string]string{
			"imatrix_unsloth.dat": "", "model-Q4_K_M.gguf": "Q4_K_M", "model-Q4_K_S.gguf": "", "Q5_K_M/model-Q5_K_M-00001-of-00002.gguf": "",
			"Q5_K_M/model-Q5_K_M-00002-of-00002.gguf": "", "model-Q8_0.gguf": "Q8_0",
		},
		notes: []string{"mmproj-BF16.gguf", "mmproj-F32.gguf"},
	},
	{
		name: "the only quantisation, beside what it was made from", profile: "gguf",
		listing: "4G model.safetensors\n1G model.i1-IQ3_XXS.gguf\n1K config.json\n2G onnx/model.onnx\n1K model.safetensors.index.json",
		docs:    map[string]string{"model.safetensors.index.json": `{"weight_map":{"a":"model.safetensors"}}`},
		left: map[string]string{
			"model.safetensors": "not GGUF; model.i1-IQ3_XXS.gguf is kept", "onnx/model.onnx": "not GGUF", "model.safetensors.index.json": "not GGUF",
		},
	},
	{
		name: "an adapter", profile: "vllm",
		listing: `
1K adapter_config.json
80M adapter_model.safetensors
80M adapter_model.bin
2M tokenizer.json
160M optimizer.pt
14K rng_state.pth
1K scheduler.pt
20K trainer_state.json
5K training_args.bin
4K runs/Jan01_host/events.out.tfevents.1700000000.host.1.0
80M checkpoint-100/adapter_model.safetensors
2M checkpoint-100/tokenizer.json`,
		left: map[string]string{
			"adapter_model.bin": "the same weights as adapter_model.safetensors", "optimizer.pt": "leftover", "rng_state.pth": "leftover", "scheduler.pt": "leftover",
			"training_args.bin": "leftover", "runs/Jan01_host/events.out.tfevents.1700000000.host.1.0": "leftover",
			"checkpoint-100/adapter_model.safetensors": "checkpoint", "checkpoint-100/tokenizer.json": "checkpoint",
		},
	},
	{
		name: "adapters of a model in folders of their own", profile: "vllm",
		listing: "4G model.safetensors\n1K config.json\n400M speech-lora/adapter_model.safetensors\n1K speech-lora/adapter_config.json\n10K modeling_team.py",
		notes:   []string{"trust_remote_code is set: modeling_team.py"},
	},
	{
		name: "the old layout", profile: "vllm", listing: gpt2,
		left: map[string]string{
			"64-8bits.tflite": "TensorFlow Lite", "64-fp16.tflite": "TensorFlow Lite", "64.tflite": "TensorFlow Lite", "flax_model.msgpack": "Flax",
			"onnx/config.json": "ONNX", "onnx/decoder_model.onnx": "ONNX", "onnx/decoder_model_merged.onnx": "ONNX", "onnx/decoder_with_past_model.onnx": "ONNX",
			"onnx/tokenizer.json": "ONNX", "pytorch_model.bin": "the same weights as model.safetensors", "rust_model.ot": "Rust", "tf_model.h5": "TensorFlow",
		},
	},
	{
		name: "weights for Apple and in the authors' layout", profile: "vllm",
		listing: `
1K config.json
4G model-00000-of-00001.safetensors
13G metal/model.bin
1K original/config.json
1K original/dtypes.json
13G original/model.safetensors
30M coreml/text/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin
1K coreml/text/model.mlpackage/Manifest.json`,
		docs: map[string]string{"model.safetensors.index.json": `{"weight_map":{"a":"model-00000-of-00001.safetensors"}}`},
		left: map[string]string{
			"metal/model.bin": "for Metal; the files of model.safetensors.index.json", "original/config.json": "", "original/dtypes.json": "", "original/model.safetensors": "the same weights",
			"coreml/text/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin": "Core ML", "coreml/text/model.mlpackage/Manifest.json": "Core ML",
		},
	},
	{
		name: "shards and the whole in one file", profile: "vllm",
		listing: "1K config.json\n2G model-00001-of-00002.safetensors\n2G model-00002-of-00002.safetensors\n4G model.safetensors\n1G vision_tower.safetensors",
		docs:    map[string]string{"model.safetensors.index.json": shards("model-%05d-of-00002.safetensors", 2)},
		left:    map[string]string{"model.safetensors": "not named by model.safetensors.index.json"},
	},
	{
		name: "a broken copy beside a whole one", profile: "vllm",
		listing: "1K config.json\n2G model-00001-of-00002.safetensors\n4G pytorch_model.bin",
		docs:    map[string]string{"model.safetensors.index.json": shards("model-%05d-of-00002.safetensors", 2)},
		left: map[string]string{
			"model-00001-of-00002.safetensors": "not whole (model-00002-of-00002.safetensors is missing); pytorch_model.bin is", "model.safetensors.index.json": "not whole",
		},
		notes: []string{"pickled weights"},
	},
	{
		name: "a precision alone, and a part with an ONNX of its own", profile: "vllm",
		listing: "1K config.json\n2G model.fp16.safetensors\n20M campplus.onnx",
		notes:   []string{"campplus.onnx", "only this precision"},
	},
	{
		name: "a copy under another name", profile: "vllm",
		listing: "1K config.json\n2G model.safetensors =one\n2G original/weights.safetensors =one",
		left:    map[string]string{"original/weights.safetensors": "a copy of model.safetensors"},
	},
	{
		name: "onnx", profile: "onnx", listing: miniLM, docs: map[string]string{"modules.json": modules3},
		left: map[string]string{
			"onnx/model_O1.onnx": "another variant: o1", "onnx/model_O4.onnx": "another variant: o4", "onnx/model_qint8_arm64.onnx": "qint8_arm64",
			"onnx/model_qint8_avx512.onnx": "", "onnx/model_qint8_avx512_vnni.onnx": "", "onnx/model_quint8_avx2.onnx": "",
			"openvino/openvino_model.bin": "not ONNX; onnx/model.onnx is kept", "openvino/openvino_model.xml": "not ONNX",
			"openvino/openvino_model_qint8_quantized.bin": "", "openvino/openvino_model_qint8_quantized.xml": "",
			"model.safetensors": "not ONNX", "pytorch_model.bin": "not ONNX", "rust_model.ot": "not ONNX", "tf_model.h5": "not ONNX",
		},
		notes: []string{"train_script.py"},
	},
	{
		name: "onnx in two variants", profile: "onnx:O4+qint8_avx512", listing: miniLM, docs: map[string]string{"modules.json": modules3},
		left: map[string]string{
			"onnx/model.onnx": "another variant: default", "onnx/model_O1.onnx": "o1", "onnx/model_qint8_arm64.onnx": "", "onnx/model_quint8_avx2.onnx": "",
			"openvino/openvino_model.bin": "", "openvino/openvino_model.xml": "", "openvino/openvino_model_qint8_quantized.bin": "",
			"openvino/openvino_model_qint8_quantized.xml": "", "model.safetensors": "not ONNX; onnx/model_O4.onnx is kept", "pytorch_model.bin": "", "rust_model.ot": "", "tf_model.h5": "",
		},
		notes: []string{"train_script.py"},
	},
	{
		name: "onnx in parts, with data, one part in one variant", profile: "onnx:q4",
		listing: `
1K config.json
1K tokenizer.json
2M onnx/decoder_model_merged.onnx
3G onnx/decoder_model_merged.onnx_data
2M onnx/decoder_model_merged_q4.onnx
1G onnx/decoder_model_merged_q4.onnx_data
1G onnx/decoder_model_merged_q4.onnx_data_1
1G onnx/embed_tokens.onnx
1M 2_Dense/model.safetensors`,
		docs: map[string]string{"modules.json": `[{"path":"2_Dense","type":"a.Dense"}]`},
		left: map[string]string{
			"onnx/decoder_model_merged.onnx": "another variant: default", "onnx/decoder_model_merged.onnx_data": "another variant: default",
		},
		notes: []string{"onnx/embed_tokens.onnx: no such variant of this part"},
	},
	{
		name: "a data set", profile: "all",
		listing: "1K README.md\n400M data/train-00000-of-00002.parquet\n400M data/train-00001-of-00002.parquet\n10M data/test-00000-of-00001.parquet\n3K load.py",
		notes:   []string{"load.py"},
	},
	{name: "all of everything", profile: "all", listing: gpt2},
}

func TestShapes(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			p, err := repo.ParseProfile(s.profile)
			if err != nil {
				t.Fatal(err)
			}
			tr := newTree(t, s.listing, s.docs)
			c, err := p.Select(tr.files, tr.read, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			checkChoice(t, tr, c)
			got := make(map[string]string)
			for _, l := range c.Left {
				got[l.Path] = l.Why
			}
			if diff := cmp.Diff(slices.Sorted(maps.Keys(s.left)), slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("left out (-want +got):\n%s", diff)
			}
			for p, why := range s.left {
				if !strings.Contains(got[p], why) {
					t.Errorf("%s was left out because %q, want %q", p, got[p], why)
				}
			}
			if len(c.Notes) != len(s.notes) {
				t.Errorf("notes %q, want %q", c.Notes, s.notes)
			}
			for _, n := range s.notes {
				if !slices.ContainsFunc(c.Notes, func(got string) bool { return strings.Contains(got, n) }) {
					t.Errorf("no note says %q: %q", n, c.Notes)
				}
			}
			if err := repo.CheckIndexes(c.Keep, tr.read); err != nil {
				t.Errorf("what was kept is not whole: %v", err)
			}
		})
	}
}

// checkChoice holds what is true of every choice: each file is kept or left
// out, in order, and the sum is right.
func checkChoice(t *testing.T, tr *tree, c repo.Choice) {
	t.Helper()
	all := make(map[string]int64)
	for _, f := range tr.files {
		all[f.Path] = f.Size
	}
	byPath := func(a, b repo.File) int { return strings.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(c.Keep, byPath) || !slices.IsSortedFunc(c.Left, func(a, b repo.Left) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("not sorted")
	}
	var sum int64
	for _, f := range c.Keep {
		if _, ok := all[f.Path]; !ok {
			t.Errorf("%s is kept and was not there, or stands twice", f.Path)
		}
		delete(all, f.Path)
	}
	for _, l := range c.Left {
		if got, ok := all[l.Path]; !ok || got != l.Size || l.Why == "" {
			t.Errorf("%+v: want a file of %d bytes and a reason", l, got)
		}
		delete(all, l.Path)
		if !strings.HasPrefix(l.Why, "a copy of") {
			sum += l.Size
		}
	}
	if len(all) > 0 {
		t.Errorf("neither kept nor left out: %v", all)
	}
	if c.Saved != sum {
		t.Errorf("saved %d bytes, want %d", c.Saved, sum)
	}
}
