package repo_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/models/repo"
)

func TestReferences(t *testing.T) {
	needed := func(name, where string) repo.Reference {
		return repo.Reference{Repo: name, Where: where, Needed: true}
	}
	hint := func(name, where string) repo.Reference { return repo.Reference{Repo: name, Where: where} }
	for _, c := range []struct {
		name string
		docs map[string]string
		more string // further files
		want []repo.Reference
		says []string // of what could not be read, in order
	}{
		{name: "nothing", docs: map[string]string{"config.json": `{"model_type":"llama","architectures":["a/b"],"mime":"application/json","device":"cpu/gpu","time_step_limit":[0.0,Infinity]}`}},
		{
			name: "code of other repositories",
			docs: map[string]string{"config.json": `{"auto_map":{"AutoConfig":"other/code--configuration_x.XConfig","AutoModel":"modeling_x.XModel","AutoTokenizer":["other/tok--tok.T",null],"AutoModelForCausalLM":"team/self--modeling_x.X"}}`},
			want: []repo.Reference{needed("other/code", "config.json: auto_map.AutoConfig"), needed("other/tok", "config.json: auto_map.AutoTokenizer")},
		},
		{
			name: "modules of other repositories",
			docs: map[string]string{"modules.json": `[{"idx":0,"path":"","type":"other/impl--custom_st.Transformer","kwargs":["task"]},{"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]`},
			want: []repo.Reference{needed("other/impl", "modules.json: type")},
		},
		{
			name: "an adapter, and its card",
			docs: map[string]string{
				"adapter_config.json": `{"base_model_name_or_path":"base/model","peft_type":"LORA","task_type":"CAUSAL_LM","tokenizer_name_or_path":"base/tok","revision":null}`,
				"README.md":           "---\nbase_model: base/model\ndatasets:\n- team/data\n- squad\nnew_version: team/newer\nlibrary_name: peft\n---\n# x",
			},
			want: []repo.Reference{
				needed("base/model", "adapter_config.json: base_model_name_or_path"), hint("base/tok", "adapter_config.json: tokenizer_name_or_path"),
				hint("datasets/team/data", "README.md: datasets"), hint("team/newer", "README.md: new_version"),
			},
		},
		{
			name: "an adapter for a folder of its author",
			docs: map[string]string{"adapter_config.json": `{"base_model_name_or_path":"/home/me/llama"}`, "speech-lora/adapter_config.json": `{"base_model_name_or_path":"gpt2"}`, "vision-lora/adapter_config.json": `{"base_model_name_or_path":"checkpoints/base"}`},
			says: []string{`adapter_config.json: base_model_name_or_path: "/home/me/llama" is not`, `speech-lora/adapter_config.json: base_model_name_or_path: "gpt2" is not`, `"checkpoints/base" is not`},
		},
		{
			name: "where a model came from",
			docs: map[string]string{"config.json": `{"_name_or_path":"team/self","text_config":{"_name_or_path":"base/text"},"vision_config":{"_name_or_path":"./vision"},"audio_config":{"_name_or_path":"output/checkpoint-500"}}`},
			want: []repo.Reference{hint("base/text", "config.json: text_config._name_or_path")},
		},
		{
			name: "a tokenizer of another repository",
			docs: map[string]string{"config.json": `{"tokenizer_class":"LlamaTokenizer","tokenizer_name_or_path":"base/tok"}`},
			want: []repo.Reference{needed("base/tok", "config.json: tokenizer_name_or_path")},
		},
		{
			name: "a tokenizer of its own", more: "1K tokenizer.model",
			docs: map[string]string{"config.json": `{"tokenizer_name":"base/tok"}`},
			want: []repo.Reference{hint("base/tok", "config.json: tokenizer_name")},
		},
		{
			name: "a drafter",
			docs: map[string]string{"config.json": `{"speculators_config":{"algorithm":"eagle3","verifier":{"name_or_path":"big/model","architectures":["x"]}},"speculative_config":{"model":"small/draft"}}`, "generation_config.json": `{"assistant_model":"small/help"}`},
			want: []repo.Reference{
				needed("big/model", "config.json: speculators_config.verifier.name_or_path"), needed("small/draft", "config.json: speculative_config.model"),
				needed("small/help", "generation_config.json: assistant_model"),
			},
		},
		{
			name: "a quantised model, with the tokenizer of its calibration", more: "1K tokenizer.json",
			docs: map[string]string{"config.json": `{"quantization_config":{"quant_method":"gptq","bits":4,"dataset":"c4","tokenizer":"base/tok"}}`, "quantize_config.json": `{"model_name_or_path":"base/full","model_file_base_name":"a/b"}`},
			want: []repo.Reference{hint("base/full", "quantize_config.json: model_name_or_path"), hint("base/tok", "config.json: quantization_config.tokenizer")},
		},
		{
			name: "processors and towers",
			docs: map[string]string{"processor_config.json": `{"processor_class":"XProcessor","audio_tokenizer":{"audio_tokenizer_class":"DacModel","audio_tokenizer_name_or_path":"other/dac"}}`, "config.json": `{"mm_vision_tower":"other/clip-336","_attn_implementation":"kernels/flash"}`, "open_clip_config.json": `{"model_cfg":{"text_cfg":{"hf_tokenizer_name":"other/siglip"}}}`},
			want: []repo.Reference{
				needed("kernels/flash", "config.json: _attn_implementation"), needed("other/clip-336", "config.json: mm_vision_tower"),
				needed("other/dac", "processor_config.json: audio_tokenizer.audio_tokenizer_name_or_path"), needed("other/siglip", "open_clip_config.json: model_cfg.text_cfg.hf_tokenizer_name"),
			},
		},
		{
			name: "names that are none",
			docs: map[string]string{"config.json": `{"auto_map":{"a":"https://hub.example/a/b--c.D","b":"../a--c.D","c":"a/b/c--d.E","d":"-a/b--c.D","e":"a/b.--c.D","f":"a/..b--c.D","g":"a/--c.D","h":"a/b c--d.E","i":""},"x":{"_name_or_path":"configs/x.json"},"y":{"_name_or_path":"C:\\x"}}`},
		},
		{
			name: "escapes and case",
			docs: map[string]string{"config.json": `{"_name_or_path":"Team\/Self","x":{"_name_or_path":"a\u002fb"}}`},
			want: []repo.Reference{hint("a/b", "config.json: x._name_or_path")},
		},
		{
			name: "what cannot be read", more: "1K tokenizer_config.json\n17M sub/config.json",
			docs: map[string]string{"config.json": `{"auto_map":{"AutoModel":"other/code--m.M"}`, "README.md": "---\nbase_model: [a/b\nlicense: mit\n"},
			want: []repo.Reference{needed("other/code", "config.json: auto_map.AutoModel")},
			says: []string{"config.json: byte 43: want ',' or '}'", "sub/config.json: 17825792 bytes, at most 16777216", "tokenizer_config.json: tokenizer_config.json: file does not exist", "README.md: the settings have no end"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(t, c.more, c.docs)
			got, unread := repo.References("team/self", tr.files, tr.read)
			if diff := cmp.Diff(c.want, got, cmp.Transformer("nil", func(r []repo.Reference) []repo.Reference { return append([]repo.Reference{}, r...) })); diff != "" {
				t.Errorf("references (-want +got):\n%s", diff)
			}
			if len(unread) != len(c.says) {
				t.Fatalf("unread %q, want %q", unread, c.says)
			}
			for i, s := range c.says {
				if !strings.Contains(unread[i], s) {
					t.Errorf("%q does not say %q", unread[i], s)
				}
			}
		})
	}
}

// A document with more references than any model has is cut, and says so.
func TestReferencesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"auto_map":{`)
	for i := range 1500 {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(`"k` + strings.Repeat("x", i%7) + `":"other/r` + strings.Repeat("a", i%40) + strings.Repeat("b", i/40) + `--m.M"`)
	}
	b.WriteString("}}")
	tr := newTree(t, "", map[string]string{"config.json": b.String()})
	got, unread := repo.References("team/self", tr.files, tr.read)
	if len(got) != 1000 || len(unread) != 1 || !strings.Contains(unread[0], "500 references beyond the first 1000") {
		t.Errorf("%d references, unread %q", len(got), unread)
	}
	many := &tree{docs: map[string]string{}}
	for i := range 600 {
		p := "d" + strings.Repeat("x", i) + "/config.json"
		many.docs[p] = "{}"
		many.files = append(many.files, repo.File{Path: p})
	}
	if _, unread := repo.References("team/self", many.files, many.read); len(unread) != 1 || !strings.Contains(unread[0], "100 of 600 documents") {
		t.Errorf("unread %q", unread)
	}
}

// FuzzReferences: never panics; what is reported is the name of a repository.
func FuzzReferences(f *testing.F) {
	f.Add(`{"auto_map":{"AutoModel":"other/code--m.M"}}`, "---\nbase_model: a/b\n---\n")
	f.Add(`{"text_config":{"_name_or_path":"a/b"},"x":[{"tokenizer":"c/d"},null,NaN,-Infinity,1e9]}`, "---\ndatasets: [a/b, c]\n---\n")
	f.Add(`{"base_model_name_or_path":"a/b.."}`, "---\nbase_model: &x [a/b]\ndatasets: *x\n---\n")
	f.Fuzz(func(t *testing.T, config, card string) {
		tr := newTree(t, "", map[string]string{"config.json": config, "modules.json": config, "README.md": card})
		refs, _ := repo.References("team/self", tr.files, tr.read)
		for i, r := range refs {
			name := strings.TrimPrefix(r.Repo, "datasets/")
			org, model, ok := strings.Cut(name, "/")
			if !ok || org == "" || model == "" || len(name) > 96 || strings.ContainsAny(name, " \\:\n\x00") || strings.Contains(name, "..") || strings.Contains(name, "--") || strings.Count(name, "/") != 1 {
				t.Errorf("%q is reported", r.Repo)
			}
			if r.Where == "" || strings.EqualFold(r.Repo, "team/self") || i > 0 && refs[i-1].Repo >= r.Repo {
				t.Errorf("%+v in %+v", r, refs)
			}
		}
	})
}
