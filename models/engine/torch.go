package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models/repo"
)

// A torchEngine is one that loads a configuration, weights of torch and a
// tokenizer.
type torchEngine struct {
	release string
	// architectures and types list what it has code of its own for, by the
	// configuration's architectures or its model_type; nil where it has no
	// such list.
	architectures, types known
	// configs lists the values of model_type that need no code to be read.
	configs known
	methods methods
	formats []string // of weights, the preferred first
	// runs lists the classes of auto_map for which it runs the repository's
	// own code, where it has none itself.
	runs []string
	// trust is how the operator lets it run the repository's code.
	trust string
}

// shape ends verdicts that need no configuration: of what is no model by
// itself. True where it has.
func (s *survey) shape(v *Verdict) bool {
	switch {
	case strings.HasPrefix(s.r.Name, "datasets/"):
		v.no("a dataset, not a model")
	case s.config.there || s.adapter.there:
		return false
	case s.has("model_index.json"):
		v.no("a pipeline for diffusers: model_index.json names models in folders, and there is no config.json")
	case s.has("params.json"):
		v.no("only the authors' own layout is there: params.json, and no config.json")
	default:
		v.no("no config.json: there is %s", s.onlyFormats())
	}
	return true
}

// adapterOnly judges a repository that holds changes to another model's
// weights. True where it is one.
func (s *survey) adapterOnly(v *Verdict) bool {
	if !s.adapter.there || s.config.there && len(s.weightsIn("", safetensorsEnd, ".bin").files) > 0 {
		return false
	}
	if s.adapter.err != nil {
		v.unsure("%s", clip(s.adapter.err.Error()))
		return true
	}
	base := s.adapter.text("base_model_name_or_path")
	refs, _ := repo.References(s.r.Name, s.r.Files, s.r.Read)
	named := slices.ContainsFunc(refs, func(r repo.Reference) bool { return r.Needed && r.Repo == base })
	switch {
	case len(s.paths(func(p string) bool { return strings.HasPrefix(p, "adapter_model.") })) == 0:
		v.no("an adapter without its weights: there is no adapter_model.safetensors")
	case !named:
		v.no("an adapter, and adapter_config.json names no repository as its base: %q", clip(base))
	default:
		v.unsure("an adapter: it loads where %s does, which is to be judged by itself", base)
		v.needs("the repository %s", base)
	}
	return true
}

// judge goes through all that a torch engine asks for.
func (s *survey) judge(e *torchEngine, v *Verdict) (w weights, needsCode bool) {
	if s.config.err != nil {
		v.unsure("%s", clip(s.config.err.Error()))
		return w, false
	}
	listed := s.listed(e, v)
	needsCode = s.ownCode(e, listed, v)
	w = s.weightsIn("", e.formats...)
	if len(w.files) == 0 {
		v.no("no weights of a kind that it loads: there is %s", s.onlyFormats())
		return w, needsCode
	}
	s.whole(w, v)
	parameters := s.readHeads(w.files, v)
	if w.pickled() {
		v.says("the weights are pickles (%s), which can run code when they are loaded", some(w.files))
	}
	if s.quantised(e, v) {
		parameters = nil
	}
	v.memory(w.size, parameters)
	return w, needsCode
}

// listed reports whether the engine has code of its own for the model.
func (s *survey) listed(e *torchEngine, v *Verdict) bool {
	names, list := []string{s.config.text("model_type")}, e.types
	field := "model_type"
	if e.architectures != nil {
		names, list, field = nil, e.architectures, "architectures"
		s.config.get(field, &names)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "" })
	if len(names) == 0 {
		v.unsure("config.json has no %s, by which %s chooses the model's code", field, e.release)
		return false
	}
	for _, n := range names {
		if list[n] {
			v.says("%s has code for %s", e.release, n)
			return true
		}
	}
	classes := s.config.classes()
	switch {
	case slices.ContainsFunc(e.runs, func(c string) bool { return len(classes[c]) > 0 }):
	case s.codeOf(s.config, isModel).any():
		v.unsure("%s is not on the list of %s, and whether it can work with the repository's own code is not known", some(names), e.release)
	default:
		v.unsure("%s is not on the list of %s: another release, or another way of it, may load it", some(names), e.release)
	}
	return false
}

func isModel(class string) bool { return strings.HasPrefix(class, "AutoModel") }

// ownCode finds out whether code of the repository has to run: the model's
// where the engine has none, the configuration's where nobody else knows it,
// and the tokenizer's.
func (s *survey) ownCode(e *torchEngine, listed bool, v *Verdict) bool {
	kind := s.config.text("model_type")
	c := s.codeOf(s.config, func(class string) bool {
		return isModel(class) && !listed || class == "AutoConfig" && !e.configs[kind]
	})
	for _, d := range []document{s.config, s.tokenizer} {
		t := s.codeOf(d, isTokenizer)
		c.files, c.missing, c.repos = append(c.files, t.files...), append(c.missing, t.missing...), append(c.repos, t.repos...)
	}
	for _, list := range []*[]string{&c.files, &c.missing, &c.repos} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if !c.any() {
		return false
	}
	if len(c.missing) > 0 {
		v.no("auto_map names code that is not carried: %s", some(c.missing))
	}
	if len(c.files) > 0 {
		v.says("it runs code of the repository: %s", some(c.files))
	}
	for _, other := range c.repos {
		v.needs("the repository %s, whose code it runs", other)
	}
	v.needs("%s", e.trust)
	return true
}

// quantised reports whether the configuration says that the weights are in
// fewer bits, and holds that the engine knows how.
func (s *survey) quantised(e *torchEngine, v *Verdict) bool {
	var q struct {
		Method string `json:"quant_method"`
		Four   bool   `json:"load_in_4bit"`
		Eight  bool   `json:"load_in_8bit"`
	}
	if !s.config.get("quantization_config", &q) && !s.config.get("compression_config", &q) {
		return false
	}
	if q.Method == "" && (q.Four || q.Eight) {
		q.Method = "bitsandbytes"
	}
	need, ok := e.methods[q.Method]
	switch {
	case q.Method == "":
		v.unsure("quantization_config has no quant_method")
	case !ok:
		v.unsure("quantised by %s, which is not on the list of %s", clip(q.Method), e.release)
	case need != "":
		v.says("quantised by %s", q.Method)
		v.needs("%s", need)
	default:
		v.says("quantised by %s", q.Method)
	}
	return true
}

// talks says what a server lacks for conversations.
func (s *survey) talks(v *Verdict, flag string) {
	var names []string
	s.config.get("architectures", &names)
	if !s.hasChat() && slices.ContainsFunc(names, generates) {
		v.says("no template for conversations is carried: completions work, chat requests need %s", flag)
	}
}

func (s *survey) vllm() Verdict {
	v := &Verdict{Engine: "vllm", State: Loads}
	how := []string{"vllm serve", shell(s.r.Name)}
	if s.mistral() {
		s.mistralLayout(v)
		return v.finish(append(how, mistralFlags)...)
	}
	if !s.config.there && !s.adapter.there && len(s.models()) > 0 {
		v.no("only GGUF, for which %s has no loader of its own: the plugin vllm-gguf-plugin brings one", vllmRelease)
		return v.finish()
	}
	if s.shape(v) {
		return v.finish()
	}
	if s.adapterOnly(v) {
		if base := s.adapter.text("base_model_name_or_path"); base != "" {
			return v.finish("vllm serve", shell(base), "--enable-lora --lora-modules", shell("adapter="+s.r.Name))
		}
		return v.finish()
	}
	e := &torchEngine{
		release: vllmRelease, architectures: readKnown("vllm"), configs: union(readKnown("transformers"), readKnown("vllm-configs")),
		methods: vllmMethods, formats: []string{safetensorsEnd, ".bin", ".pt"}, trust: "--trust-remote-code",
	}
	var names []string
	if s.config.get("architectures", &names); len(names) > 0 && readKnown("vllm-drafters")[names[0]] {
		v.no("%s guesses ahead for another model, and is loaded beside that one: --speculative-config", names[0])
	}
	_, needsCode := s.judge(e, v)
	if !s.hasTokenizer("") {
		v.no("no tokenizer is carried")
		v.needs("--tokenizer with a repository that has one")
	}
	s.talks(v, "--chat-template")
	if needsCode {
		how = append(how, e.trust)
	}
	return v.finish(how...)
}

const mistralFlags = "--tokenizer-mode mistral --config-format mistral --load-format mistral"

// mistral reports whether there is the layout of params.json and consolidated
// weights alone.
func (s *survey) mistral() bool {
	return !s.config.there && s.has("params.json") && len(s.consolidated().files) > 0
}

func (s *survey) consolidated() weights {
	files := slices.DeleteFunc(s.inDir("", safetensorsEnd), func(p string) bool { return !isConsolidated(p) })
	return weights{files, safetensorsEnd, s.size(files)}
}

// mistralLayout judges what vLLM loads by its own flags for it.
func (s *survey) mistralLayout(v *Verdict) {
	w := s.consolidated()
	v.says("the layout of params.json and %s", some(w.files))
	s.whole(w, v)
	v.memory(w.size, s.readHeads(w.files, v))
	if len(s.inDir("", "tekken.json"))+len(s.paths(func(p string) bool { return strings.HasPrefix(p, "tokenizer.model") })) == 0 {
		v.no("no tokenizer of that layout is carried: tekken.json, or tokenizer.model")
	}
	v.needs("%s", mistralFlags)
}

func (s *survey) tgi() Verdict {
	v := &Verdict{Engine: "tgi", State: Loads}
	if s.shape(v) {
		return v.finish()
	}
	how := []string{"text-generation-launcher --model-id", shell(s.r.Name)}
	if s.adapterOnly(v) {
		return v.finish(how...)
	}
	e := &torchEngine{
		release: tgiRelease, types: readKnown("tgi"), configs: readKnown("transformers"),
		methods: tgiMethods, formats: []string{safetensorsEnd, ".bin"}, trust: "--trust-remote-code",
		runs: []string{"AutoModelForCausalLM", "AutoModelForSeq2SeqLM"},
	}
	w, needsCode := s.judge(e, v)
	if w.pickled() {
		v.needs("a folder that it may write to: it writes the weights once more, as safetensors, beside the pickles")
	}
	if !s.hasTokenizer("") {
		v.no("no tokenizer is carried")
	}
	s.talks(v, "a template in tokenizer_config.json")
	if needsCode {
		how = append(how, e.trust)
	}
	return v.finish(how...)
}

// transformersNames are the names that transformers looks for.
var transformersNames = []string{"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}

func (s *survey) transformers() Verdict {
	v := &Verdict{Engine: "transformers", State: Loads}
	args := fmt.Sprintf("%q", s.r.Name)
	if !s.config.there && !s.adapter.there && len(s.models()) > 0 {
		v.unsure("only GGUF: %s unpacks some architectures of it into memory, with gguf_file=", transformersRelease)
		v.needs("the Python package gguf")
		return v.finish(fmt.Sprintf("AutoModelForCausalLM.from_pretrained(%s, gguf_file=%q)", args, s.models()[0].files[0]))
	}
	if s.shape(v) {
		return v.finish()
	}
	if s.adapterOnly(v) {
		v.needs("the Python package peft")
		return v.finish("AutoModelForCausalLM.from_pretrained(" + args + ")")
	}
	if _, needsCode := s.forTransformers(v); needsCode {
		args += ", trust_remote_code=True"
	}
	if !s.hasTokenizer("") {
		v.says("no tokenizer is carried: AutoTokenizer fails, or makes one without words and says nothing")
	}
	var names []string
	class := "AutoModel"
	if s.config.get("architectures", &names); len(names) > 0 && strings.HasSuffix(names[0], "ForCausalLM") {
		class = "AutoModelForCausalLM"
	}
	return v.finish(class + ".from_pretrained(" + args + ")")
}

// forTransformers judges the model in the root by what transformers asks for.
func (s *survey) forTransformers(v *Verdict) (weights, bool) {
	var models []string
	for class := range s.config.classes() {
		if isModel(class) {
			models = append(models, class)
		}
	}
	w, needsCode := s.judge(&torchEngine{
		release: transformersRelease, types: readKnown("transformers"), configs: readKnown("transformers"),
		methods: transformersMethods, formats: []string{safetensorsEnd, ".bin"}, trust: "trust_remote_code=True", runs: models,
	}, v)
	if len(w.files) > 0 && !slices.ContainsFunc(transformersNames, s.has) {
		v.no("no weights by a name that it looks for: %s", strings.Join(transformersNames, ", "))
	}
	if w.pickled() {
		v.needs("DISABLE_SAFETENSORS_CONVERSION=1 in the environment: else it asks a server to convert the pickles")
	}
	return w, needsCode
}

func union(a, b known) known {
	out := make(known, len(a)+len(b))
	for _, k := range []known{a, b} {
		for name := range k {
			out[name] = true
		}
	}
	return out
}
