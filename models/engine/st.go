package engine

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
)

// maxModules bounds the modules of a pipeline. Known ones have two to five.
const maxModules = 100

// A module is one step of a sentence-transformers model, as modules.json has
// it.
type module struct {
	Path string `json:"path"`
	Type string `json:"type"`
}

// transformerModules are the types, by their last word, that load a model with
// transformers.
var transformerModules = map[string]bool{"Transformer": true, "MLMTransformer": true}

func (s *survey) sentenceTransformers() Verdict {
	v := &Verdict{Engine: "sentence-transformers", State: Loads}
	if !s.has("modules.json") {
		if s.shape(v) {
			return v.finish()
		}
		v.unsure("no modules.json: it would average what config.json's model gives, and whether that is meant is not known")
		if s.adapterOnly(v) {
			return v.finish()
		}
		s.forTransformers(v)
		return v.finish(fmt.Sprintf("SentenceTransformer(%q)", s.r.Name))
	}
	modules, err := s.modules()
	switch {
	case err != nil:
		v.unsure("%s", clip(err.Error()))
	case len(modules) == 0:
		v.no("modules.json names no module")
	}
	args := fmt.Sprintf("%q", s.r.Name)
	trust := false
	for _, m := range modules {
		trust = s.module(m, v) || trust
	}
	if trust {
		v.needs("trust_remote_code=True")
		args += ", trust_remote_code=True"
	}
	return v.finish("SentenceTransformer(" + args + ")")
}

func (s *survey) modules() (list []module, err error) {
	b, err := s.read("modules.json", maxConfig)
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err == nil && len(list) > maxModules {
		err = fmt.Errorf("%d modules, at most %d are looked into", len(list), maxModules)
	}
	if err != nil {
		return nil, fmt.Errorf("modules.json: %w", err)
	}
	return list, nil
}

// module judges one step. True where code of the repository has to run.
func (s *survey) module(m module, v *Verdict) (trust bool) {
	dir := strings.Trim(m.Path, "/")
	if path.IsAbs(m.Path) || dir != "" && path.Clean(dir) != dir || strings.HasPrefix(dir, "..") {
		v.no("modules.json: path %q leads elsewhere", clip(m.Path))
		return false
	}
	if !strings.HasPrefix(m.Type, "sentence_transformers.") {
		trust = true
		s.moduleCode(m, v)
	}
	switch last := m.Type[strings.LastIndexByte(m.Type, '.')+1:]; {
	case transformerModules[last] && dir == "":
		if !s.config.there {
			v.no("no config.json for the module %s", last)
			return trust
		}
		if !s.hasTokenizer("") && !s.has("preprocessor_config.json") {
			v.unsure("no tokenizer is carried: it may make one without words, and vectors that mean nothing, and says nothing")
		}
		_, needsCode := s.forTransformers(v)
		return needsCode || trust
	case transformerModules[last]:
		s.transformerIn(dir, v)
	case last == "Pooling" && !s.has(path.Join(dir, "config.json")):
		v.no("%s is missing: how the module %s works", path.Join(dir, "config.json"), last)
	case last == "Dense" && len(s.weightsIn(dir, safetensorsEnd, ".bin").files) == 0:
		v.no("no weights in %s/ for the module %s", dir, last)
	case !trust && last != "Pooling" && last != "Dense" && last != "Normalize":
		v.says("the files of the module %s in %s/ are not looked into", clip(last), clip(dir))
	}
	return trust
}

// moduleCode finds the code of a module that sentence-transformers has not.
func (s *survey) moduleCode(m module, v *Verdict) {
	var c code
	c.add(s, "", m.Type)
	if len(c.missing) > 0 {
		v.unsure("modules.json names a module that is neither its own nor carried: %s", clip(m.Type))
	}
	if len(c.files) > 0 {
		v.says("it runs code of the repository: %s", some(c.files))
	}
	for _, other := range c.repos {
		v.needs("the repository %s, whose code it runs", other)
	}
}

// transformerIn judges a model in a folder, by its files alone.
func (s *survey) transformerIn(dir string, v *Verdict) {
	w := s.weightsIn(dir, safetensorsEnd, ".bin")
	switch {
	case !s.has(path.Join(dir, "config.json")):
		v.no("%s is missing", path.Join(dir, "config.json"))
	case len(w.files) == 0:
		v.no("no weights in %s/", dir)
	default:
		s.whole(w, v)
		v.memory(w.size, s.readHeads(w.files, v))
		v.unsure("the model's code for %s/config.json is not looked for", dir)
	}
}
