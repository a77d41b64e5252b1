package weights

import (
	"errors"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models/gguf"
	"github.com/darkmirror/darkmirror/models/safetensors"
)

// safetensors holds that the header describes the file to the last byte.
func (v *visit) safetensors() error {
	_, err := safetensors.Read(v.content, v.f.Size)
	if err == nil {
		return nil
	}
	if !errors.Is(err, artifact.ErrIntegrity) {
		return err
	}
	if errors.Is(err, safetensors.TooMany) || errors.Is(err, safetensors.HeaderTooLarge) {
		v.unseen("MODEL-SAFETENSORS-LIMIT", "safetensors: %v", err)
		return nil
	}
	v.grave("MODEL-SAFETENSORS", "malformed safetensors: %v", err)
	return nil
}

// gguf holds that the header's tensors lie in the file, and judges the
// templates of its metadata, which engines run.
func (v *visit) gguf() error {
	f, err := gguf.Read(v.content, v.f.Size)
	switch {
	case err == nil:
		v.ggufTemplates(f)
		return nil
	case !errors.Is(err, artifact.ErrIntegrity):
		return err
	case errors.Is(err, gguf.TooMany), errors.Is(err, gguf.UnknownType):
		v.unseen("MODEL-GGUF-LIMIT", "GGUF: %v", err)
	default:
		v.grave("MODEL-GGUF", "malformed GGUF: %v", err)
	}
	return nil
}

// ggufTemplates judges tokenizer.chat_template and its named companions.
func (v *visit) ggufTemplates(f *gguf.File) {
	for _, kv := range f.Metadata {
		if !strings.Contains(kv.Key, "chat_template") {
			continue
		}
		text, ok := f.String(kv.Key)
		if ok {
			v.template(text, "the metadata "+kv.Key, true)
			continue
		}
		// tokenizer.chat_templates lists the names of the others.
		names, n, list := f.Strings(kv.Key)
		if list && uint64(len(names)) == n && !slices.ContainsFunc(names, isTemplate) {
			continue
		}
		v.unseen("MODEL-TEMPLATE-LIMIT", "the metadata %s is no text, or is longer than %d bytes", quote(kv.Key), gguf.MaxKept)
	}
}
