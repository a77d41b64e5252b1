package cachedir

import (
	"slices"

	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

// optional are files that transformers and sentence-transformers look for in
// every model and do without.
func optional() []string {
	return []string{
		"adapter_config.json", "added_tokens.json", "audio_tokenizer_config.json", "chat_template.jinja", "chat_template.json",
		"config_sentence_transformers.json", "custom_generate/generate.py", "generation_config.json", "image_processor_config.json",
		"merges.txt", "model.safetensors.index.json", "modules.json", "preprocessor_config.json", "processor_config.json",
		"sentence_bert_config.json", "sentencepiece.bpe.model", "special_tokens_map.json", "spiece.model", "tokenizer.json",
		"tokenizer.model", "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json", "vocab.txt",
	}
}

// absent lists those optional files that the revision really has not, upstream
// or here.
func absent(r *models.Revision) []string {
	if r.Repo.Kind != hub.Model {
		return nil
	}
	left := make(map[string]bool, len(r.Left))
	for _, l := range r.Left {
		left[l.Path] = true
	}
	return slices.DeleteFunc(optional(), func(name string) bool {
		_, here := r.File(name)
		return here || left[name]
	})
}
