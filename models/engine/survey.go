package engine

import (
	"cmp"
	"errors"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models/repo"
)

// A survey is what is there of a repository, as the engines look for it.
type survey struct {
	r      Repository
	byPath map[string]repo.File

	config    document // config.json
	tokenizer document // tokenizer_config.json
	adapter   document // adapter_config.json

	// heads are the headers that were read so far, by path.
	heads map[string]head
}

func look(r Repository) *survey {
	s := &survey{r: r, byPath: make(map[string]repo.File, len(r.Files)), heads: make(map[string]head)}
	for _, f := range r.Files {
		s.byPath[f.Path] = f
	}
	s.config = s.document("config.json")
	s.tokenizer = s.document("tokenizer_config.json")
	s.adapter = s.document("adapter_config.json")
	return s
}

func (s *survey) has(p string) bool {
	_, ok := s.byPath[p]
	return ok
}

// paths lists the files that match, sorted.
func (s *survey) paths(match func(p string) bool) []string {
	var out []string
	for p := range maps.Keys(s.byPath) {
		if match(p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// inDir lists the files of a folder itself, "" for the root, by the end of
// their names.
func (s *survey) inDir(dir, end string) []string {
	return s.paths(func(p string) bool { return folder(p) == dir && strings.HasSuffix(strings.ToLower(p), end) })
}

// size adds up files.
func (s *survey) size(paths []string) (n int64) {
	for _, p := range paths {
		n += s.byPath[p].Size
	}
	return n
}

// folder is the folder of a path, "" for the root.
func folder(p string) string {
	if d := path.Dir(p); d != "." {
		return d
	}
	return ""
}

// A format is one in which weights are written.
type format struct {
	name, end string
}

// formats are those that a repository is known by, when an engine takes none of
// them.
var formats = []format{
	{"GGUF", ".gguf"},
	{"ONNX", ".onnx"},
	{"TensorFlow", ".h5"},
	{"Flax", ".msgpack"},
	{"safetensors", ".safetensors"},
	{"pickles", ".bin"},
	{"pickles", ".pt"},
	{"pickles", ".pth"},
	{"pickles", ".ckpt"},
	{"OpenVINO", ".xml"},
	{"NeMo", ".nemo"},
	{"Core ML", ".mlmodel"},
	{"TensorFlow Lite", ".tflite"},
	{"Keras", ".keras"},
}

// onlyFormats names the formats of what weights there are.
func (s *survey) onlyFormats() string {
	var found []string
	for _, f := range formats {
		if len(s.paths(func(p string) bool {
			return strings.HasSuffix(strings.ToLower(p), f.end) && repo.KindOf(p) == repo.Weight
		})) > 0 {
			add(&found, f.name)
		}
	}
	return cmp.Or(strings.Join(found, ", "), "nothing that holds weights")
}

// A weights is one copy of a model's weights in a folder.
type weights struct {
	files  []string
	format string // the end of the names: ".safetensors"
	size   int64
}

func (w weights) pickled() bool { return w.format != safetensorsEnd && len(w.files) > 0 }

const safetensorsEnd = ".safetensors"

// weightsIn finds the weights of a folder in the first of the formats that it
// has, the model's own: without adapters and the states of trainers, and
// without the authors' own layout where there is another.
func (s *survey) weightsIn(dir string, ends ...string) weights {
	for _, end := range ends {
		files := s.inDir(dir, end)
		files = slices.DeleteFunc(files, func(p string) bool {
			base := path.Base(p)
			return repo.KindOf(p) != repo.Weight || strings.HasPrefix(base, "adapter_model.") || strings.HasPrefix(base, "optimizer.")
		})
		if plain := slices.DeleteFunc(slices.Clone(files), isConsolidated); len(plain) > 0 {
			files = plain
		}
		if len(files) > 0 {
			return weights{files, end, s.size(files)}
		}
	}
	return weights{}
}

// isConsolidated knows the layout in which some authors keep their weights.
func isConsolidated(p string) bool { return strings.HasPrefix(path.Base(p), "consolidated") }

// whole holds that the weights are there to the last shard.
func (s *survey) whole(w weights, v *Verdict) {
	if len(w.files) == 0 {
		return
	}
	dir := folder(w.files[0])
	var files []repo.File
	for _, p := range slices.Concat(w.files, s.inDir(dir, w.format+".index.json")) {
		files = append(files, s.byPath[p])
	}
	switch err := repo.CheckIndexes(files, s.read); {
	case err == nil:
	case errors.Is(err, repo.ErrIncomplete):
		for line := range strings.Lines(err.Error()) {
			v.no("%s", strings.TrimSpace(line))
		}
	default:
		v.unsure("%v", err)
	}
}

// tokenizerFiles are the files that a tokenizer is made of, each enough alone.
var tokenizerFiles = []string{
	"tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "source.spm", "tekken.json",
	"spm.model", "tokenizer.model.v1", "tokenizer.model.v2", "tokenizer.model.v3",
}

// hasTokenizer reports whether a folder has a tokenizer.
func (s *survey) hasTokenizer(dir string) bool {
	for _, name := range tokenizerFiles {
		if s.has(path.Join(dir, name)) {
			return true
		}
	}
	return len(s.inDir(dir, ".tiktoken")) > 0 || s.codeOf(s.tokenizer, isTokenizer).any()
}

func isTokenizer(class string) bool { return class == "AutoTokenizer" }

// hasChat reports whether there is a template for conversations.
func (s *survey) hasChat() bool {
	_, inConfig := s.tokenizer.fields["chat_template"]
	return inConfig || s.has("chat_template.jinja") || s.has("chat_template.json") || s.has("tekken.json")
}

// generates reports whether an architecture is one that writes text, by the
// end of its name.
func generates(architecture string) bool {
	for _, end := range []string{"ForCausalLM", "LMHeadModel", "ForConditionalGeneration"} {
		if strings.HasSuffix(architecture, end) {
			return true
		}
	}
	return false
}
