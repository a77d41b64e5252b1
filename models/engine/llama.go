package engine

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	ggufEnd = ".gguf"
	// maxModels bounds the GGUF models of a repository that are named: one for
	// each quantisation.
	maxModels = 12
)

// shardEnd matches the end of a name of one file of several.
var shardEnd = regexp.MustCompile(`-[0-9]{5}-of-[0-9]{5}\.gguf$`)

// A ggufModel is one GGUF file, or the shards of one.
type ggufModel struct {
	files []string // sorted
	size  int64
}

// models lists the GGUF models, by their first files. Projectors and
// importance matrices are none, as far as names tell.
func (s *survey) models() []*ggufModel {
	byStem := make(map[string]*ggufModel)
	var out []*ggufModel
	for _, p := range s.paths(func(p string) bool { return strings.HasSuffix(strings.ToLower(p), ggufEnd) }) {
		if base := strings.ToLower(path.Base(p)); strings.Contains(base, "mmproj") || strings.Contains(base, "imatrix") {
			continue
		}
		stem := shardEnd.ReplaceAllString(p, "")
		m := byStem[stem]
		if m == nil {
			m = &ggufModel{}
			byStem[stem] = m
			out = append(out, m)
		}
		m.files = append(m.files, p)
		m.size += s.byPath[p].Size
	}
	return out
}

// projectors lists the files with a model's eyes or ears.
func (s *survey) projectors() []string {
	return s.paths(func(p string) bool {
		base := strings.ToLower(path.Base(p))
		return strings.HasSuffix(base, ggufEnd) && strings.Contains(base, "mmproj")
	})
}

// gguf judges one model by itself. The line describes it.
func (s *survey) gguf(m *ggufModel) (v *Verdict, h head, line string) {
	v = &Verdict{State: Loads}
	s.whole(weights{m.files, ggufEnd, m.size}, v)
	parameters := s.readHeads(m.files, v)
	h, at := s.head(m.files[0])
	line = fmt.Sprintf("%s: %s", m.files[0], bytesOf(m.size))
	total := int64(0)
	for _, n := range parameters {
		total += n
	}
	if total > 0 {
		line += fmt.Sprintf(", %s, %s, %s", h.gguf.architecture, parametersOf(total), h.gguf.fileType)
	}
	switch {
	case !at:
		v.unsure("%s: its header is not at hand", m.files[0])
	case h.err != nil:
	case h.gguf.kind != "" && h.gguf.kind != "model":
		v.no("%s: no model, but %q", m.files[0], clip(h.gguf.kind))
	case h.gguf.architecture == "":
		v.no("%s: its header names no architecture", m.files[0])
	case !readKnown("llamacpp")[h.gguf.architecture]:
		v.unsure("%s: %s is not on the list of %s: a newer release may load it", m.files[0], h.gguf.architecture, llamacppRelease)
	case h.gguf.shards != len(m.files):
		v.no("%s: one of %d files, of which %d are there", m.files[0], h.gguf.shards, len(m.files))
	}
	return v, h, strings.TrimSuffix(line, ", ")
}

// best judges all GGUF models: the verdict is that of the best of them, and
// what is wrong with others is said. judge may add what one engine asks for.
func (s *survey) best(v *Verdict, judge func(m *ggufModel, h head, one *Verdict)) (chosen *ggufModel, h head) {
	models := s.models()
	if len(models) == 0 {
		v.no("no GGUF file: there is %s", s.onlyFormats())
		return nil, h
	}
	if len(models) > maxModels {
		v.says("%d models are there, the first %d are named", len(models), maxModels)
		models = models[:maxModels]
	}
	v.State = DoesNotLoad
	order := []State{DoesNotLoad, NotKnown, Loads}
	for _, m := range models {
		one, its, line := s.gguf(m)
		judge(m, its, one)
		if one.State == Loads {
			v.says("%s", line)
		}
		for _, why := range one.Why {
			v.says("%s", why)
		}
		if chosen == nil || slices.Index(order, one.State) > slices.Index(order, v.State) {
			chosen, h, v.State = m, its, one.State
		}
	}
	v.needs("%s for the weights of %s", bytesOf(chosen.size), chosen.files[0])
	return chosen, h
}

func (s *survey) llamaCpp() Verdict {
	v := &Verdict{Engine: "llama.cpp", State: Loads}
	m, h := s.best(v, func(*ggufModel, head, *Verdict) {})
	if m == nil {
		return v.finish()
	}
	how := []string{"llama-server -m", shell(s.r.Name + "/" + m.files[0])}
	if p := s.projectors(); len(p) > 0 {
		v.says("a projector for pictures or sound: %s", some(p))
		how = append(how, "--mmproj", shell(s.r.Name+"/"+p[0]))
	}
	if v.State == Loads && !h.gguf.chat {
		v.says("no template for conversations in %s: chat needs --chat-template", m.files[0])
	}
	return v.finish(how...)
}

func (s *survey) ollama() Verdict {
	v := &Verdict{Engine: "ollama", State: Loads}
	if len(s.models()) == 0 && len(s.weightsIn("", safetensorsEnd).files) > 0 && s.config.there {
		v.no("no GGUF file: `ollama create` converts the safetensors of some architectures, and which is not known here")
		return v.finish()
	}
	m, h := s.best(v, func(m *ggufModel, _ head, one *Verdict) {
		if len(m.files) > 1 {
			one.no("%s: in %d files, and Ollama loads a model from one alone; `ollama create` puts them together", m.files[0], len(m.files))
		}
	})
	if m == nil {
		return v.finish()
	}
	if v.State == Loads && !h.gguf.chat {
		v.says("no template for conversations in %s", m.files[0])
	}
	v.needs("a Modelfile with the line FROM and the path of %s, or the target ollama", m.files[0])
	return v.finish("ollama create", shell(strings.ToLower(path.Base(s.r.Name))), "-f Modelfile")
}
