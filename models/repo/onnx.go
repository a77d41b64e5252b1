package repo

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// onnxParts are the names under which exporters write the parts of a model.
var onnxParts = []string{
	"model", "encoder_model", "decoder_model", "decoder_model_merged", "decoder_with_past_model", "decoder_model_with_past",
	"text_model", "vision_model", "audio_model", "audio_encoder", "vision_encoder", "text_encoder", "embed_tokens", "prompt_encoder",
	"prompt_encoder_mask_decoder", "mask_decoder", "decoder", "encoder", "vae_encoder", "vae_decoder", "unet", "weights",
}

// onnxWords are the words by which exporters tell variants apart.
var onnxWords = map[string]bool{
	"fp32": true, "fp16": true, "bf16": true, "int8": true, "uint8": true, "int4": true, "uint4": true, "quantized": true, "optimized": true,
	"quantised": true, "q1": true, "q2": true, "q4": true, "q8": true, "q1f16": true, "q2f16": true, "q4f16": true, "bnb4": true, "o1": true,
	"o2": true, "o3": true, "o4": true, "qint8": true, "quint8": true, "qint4": true, "avx2": true, "avx512": true, "vnni": true, "arm64": true,
	"ppc64le": true, "static": true, "dynamic": true, "cuda": true, "cpu": true,
}

// onnxName splits the name of an ONNX file, or of its data, into the part of
// the model and the variant: "decoder_model", "q4f16".
func onnxName(p string) (part, variant string) {
	base := strings.ToLower(path.Base(p))
	i := strings.LastIndex(base, ".onnx")
	if i < 0 {
		i = len(base) - len(path.Ext(base))
	}
	words := strings.FieldsFunc(base[:i], func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	n := len(words)
	for n > 1 && onnxWords[words[n-1]] {
		n--
	}
	return strings.Join(words[:n], "_"), strings.Join(words[n:], "_")
}

// onnxBase is the part of a model that an ONNX file is known to be, or "".
func onnxBase(p string) string {
	part, _ := onnxName(p)
	if slices.Contains(onnxParts, part) {
		return part
	}
	return ""
}

// An onnxPart is one part of a model in its variants, each with the files of
// its data.
type onnxPart struct {
	dir, name string
	variants  map[string][]File
}

// onnxModels collects the ONNX files, sorted by folder and part.
func (c *chooser) onnxModels() []*onnxPart {
	type place struct{ dir, name string }
	at := make(map[place]*onnxPart)
	var out []*onnxPart
	for _, f := range c.files {
		base := strings.ToLower(path.Base(f.Path))
		if !strings.HasSuffix(base, ".onnx") && !isOnnxData(base) {
			continue
		}
		name, variant := onnxName(f.Path)
		where := place{dirOf(f.Path), name}
		if at[where] == nil {
			at[where] = &onnxPart{dir: where.dir, name: name, variants: make(map[string][]File)}
			out = append(out, at[where])
		}
		at[where].variants[variant] = append(at[where].variants[variant], f)
	}
	return out
}

// takes are the variants of a part that match what is wanted.
func (o *onnxPart) takes(wants []string) map[string]bool {
	out := make(map[string]bool)
	for v := range o.variants {
		for _, want := range wants {
			if v == want || want != "" && strings.HasPrefix(v, want+"_") {
				out[v] = true
			}
		}
	}
	return out
}

// onnx keeps the variants that were asked for, of each part of the model, with
// the files of their data. A part that has no such variant is kept as it is.
func (c *chooser) onnx(p Profile) error {
	models := c.onnxModels()
	if len(models) == 0 {
		return fmt.Errorf("%w: %s", ErrNoWeights, c.inventory())
	}
	modules, err := c.modules(p)
	if err != nil {
		return err
	}
	wants := p.wants()
	if wants == nil {
		wants = []string{""}
	}
	if wants, err = c.onnxWants(models, wants); err != nil {
		return err
	}
	served := make(map[string]bool) // parts of the root or onnx/ that one of both has
	for _, o := range models {
		if len(o.takes(wants)) > 0 {
			served[o.group()] = true
		}
	}
	kept := ""
	for _, o := range models {
		names := slices.Sorted(maps.Keys(o.variants))
		take := o.takes(wants)
		if len(take) == 0 && !served[o.group()] {
			take[names[0]] = true
			c.note("%s: no such variant of this part, the one that there is was kept", o.variants[names[0]][0].Path)
		}
		for _, v := range names {
			for _, f := range o.variants[v] {
				if !take[v] {
					c.drop(f.Path, "another variant: "+variantWord(v))
				} else if kept == "" {
					kept = f.Path
				}
			}
		}
	}
	c.notOnnx(kept, modules)
	return nil
}

// group names a part for comparison with that of another folder: a model lies
// in the root or in onnx/, its parts for a pipeline in folders of their own.
func (o *onnxPart) group() string {
	if o.dir == "onnx" {
		return "/" + o.name
	}
	return o.dir + "/" + o.name
}

// onnxWants refuses a variant that no part has. Where nothing was asked for and
// there is one variant only, that is the one.
func (c *chooser) onnxWants(models []*onnxPart, wants []string) ([]string, error) {
	all := make(map[string]bool)
	for _, o := range models {
		for v := range o.variants {
			all[v] = true
		}
	}
	have := slices.Sorted(maps.Keys(all))
	if len(have) == 1 && wants[0] == "" {
		return have, nil
	}
	for _, want := range wants {
		if !slices.ContainsFunc(models, func(o *onnxPart) bool { return len(o.takes([]string{want})) > 0 }) {
			words := make([]string, 0, len(have))
			for _, v := range have {
				words = append(words, variantWord(v))
			}
			return nil, fmt.Errorf("%w: no variant %s among the ONNX files: there is %s", ErrNoWeights, variantWord(want), list(words))
		}
	}
	return wants, nil
}

// notOnnx leaves out what other engines load, but for the modules behind the
// model, which torch loads.
func (c *chooser) notOnnx(kept string, modules map[string]bool) {
	c.leftovers()
	for _, f := range c.files {
		if inModule(modules, f.Path) {
			continue
		}
		_, torch := parseWeight(f.Path)
		other := foreignName(f.Path)
		if torch || isIndex(f.Path) || other != "" && other != "ONNX" {
			c.drop(f.Path, fmt.Sprintf("not ONNX; %s is kept", kept))
		}
	}
}

func variantWord(v string) string {
	if v == "" {
		return "default"
	}
	return v
}
