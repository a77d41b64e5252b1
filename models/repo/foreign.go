package repo

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// foreignExts are the formats of frameworks other than torch that one
// extension tells.
var foreignExts = map[string]string{
	".gguf": "GGUF", ".onnx": "ONNX", ".ort": "ONNX", ".h5": "TensorFlow", ".hdf5": "TensorFlow", ".keras": "Keras", ".ot": "Rust",
	".tflite": "TensorFlow Lite", ".mlmodel": "Core ML", ".nemo": "NeMo", ".llamafile": "llamafile", ".litertlm": "LiteRT", ".task": "LiteRT",
	".pte": "ExecuTorch", ".mnn": "MNN", ".rknn": "RKNN", ".pdparams": "Paddle", ".engine": "TensorRT",
}

// foreignFolders are folders that hold a model for one such framework, with all
// that it needs.
var foreignFolders = map[string]string{"onnx": "ONNX", "openvino": "OpenVINO", "coreml": "Core ML", "saved_model": "TensorFlow"}

// foreignName is the framework other than torch that a file's name tells, or "".
func foreignName(p string) string {
	base := strings.ToLower(path.Base(p))
	switch KindOf(p) {
	case Code, Doc, Dataset:
		return ""
	}
	for part := range strings.SplitSeq(strings.ToLower(dirOf(p)), "/") {
		if strings.HasSuffix(part, ".mlpackage") || strings.HasSuffix(part, ".mlmodelc") {
			return "Core ML"
		}
	}
	ext := path.Ext(base)
	switch {
	case isOnnxData(base) || base == "weights.pb":
		return "ONNX"
	case foreignExts[ext] != "":
		return foreignExts[ext]
	case strings.HasPrefix(base, "openvino_") && (ext == ".bin" || ext == ".xml"):
		return "OpenVINO"
	case strings.HasPrefix(base, "flax_") || strings.HasPrefix(base, "diffusion_flax_"):
		return "Flax"
	case strings.HasPrefix(base, "tf_model"): // tf_model.h5.index.json
		return "TensorFlow"
	case base == "saved_model.pb" || strings.HasPrefix(base, "variables.") || strings.Contains(base, ".ckpt.") || strings.HasPrefix(base, "model.ckpt-"):
		return "TensorFlow"
	case strings.HasPrefix(base, "ggml-") || strings.HasPrefix(base, "ggml_"):
		return "ggml"
	case base == "weights.npz":
		return "MLX"
	case base == "model.bin" && path.Base(dirOf(p)) == "metal":
		return "Metal"
	}
	return ""
}

// foreign leaves out what other frameworks load, and the authors' own layout in
// original/, now that the profile's engine has main.
func (c *chooser) foreign(main *weightSet, best []*weightSet, modules map[string]bool) {
	folders := c.frameworkFolders(modules)
	inDir := make(map[string]*weightSet)
	for _, s := range best {
		if s.lacks == "" && (inDir[s.dir] == nil || s.size > inDir[s.dir].size) {
			inDir[s.dir] = s
		}
	}
	instead := func(p string) *weightSet { return cmp.Or(inDir[dirOf(p)], main) }
	var kept []string
	for _, f := range c.files {
		name := foreignName(f.Path)
		switch dir, what := inFolder(folders, f.Path); {
		case dir != "":
			c.drop(f.Path, fmt.Sprintf("belongs to the %s model in %s/; %s is kept", what, dir, main.title()))
		case strings.HasPrefix(f.Path, "original/") && main.dir != "original":
			c.drop(f.Path, "the authors' own layout; the same weights as "+main.title())
		case name == "ONNX" && onnxBase(f.Path) == "":
			kept = append(kept, f.Path)
		case name != "" && !inModule(modules, f.Path):
			c.drop(f.Path, fmt.Sprintf("for %s; %s is kept", describe(name, f.Path), instead(f.Path).title()))
		}
	}
	if len(kept) > 0 {
		c.note("kept, because the names do not say that other weights replace them: %s", list(kept))
	}
}

// describe names a framework, and the quantisation of a GGUF file.
func describe(framework, p string) string {
	if framework == "GGUF" {
		if q := quantOf(p); q != "" {
			return "GGUF (" + q + ")"
		}
	}
	return framework
}

// frameworkFolders finds the folders that hold a model for one framework.
func (c *chooser) frameworkFolders(modules map[string]bool) map[string]string {
	out := make(map[string]string)
	for _, f := range c.files {
		if foreignName(f.Path) == "" {
			continue
		}
		for dir := dirOf(f.Path); dir != ""; dir = dirOf(dir) {
			if what := foreignFolders[strings.ToLower(path.Base(dir))]; what != "" && !inModule(modules, f.Path) {
				out[dir] = what
			}
		}
	}
	return out
}

func inFolder(folders map[string]string, p string) (dir, what string) {
	for dir := dirOf(p); dir != ""; dir = dirOf(dir) {
		if what := folders[dir]; what != "" {
			return dir, what
		}
	}
	return "", ""
}

// inventory says what weights there are, for one who finds none of them fit.
func (c *chooser) inventory() string {
	counts := make(map[string]int)
	example := make(map[string]string)
	for _, f := range c.files {
		kind := KindOf(f.Path)
		if kind != Weight && kind != Dataset {
			continue
		}
		what := describe(foreignName(f.Path), f.Path)
		if what == "" {
			what = strings.TrimPrefix(strings.ToLower(path.Ext(f.Path)), ".")
		}
		counts[what]++
		if example[what] == "" {
			example[what] = f.Path
		}
	}
	if len(counts) == 0 {
		return fmt.Sprintf("there are none among %d files", len(c.files))
	}
	var out []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		if counts[what] == 1 {
			out = append(out, fmt.Sprintf("%s (%s)", what, clip(example[what])))
		} else {
			out = append(out, fmt.Sprintf("%s (%d files: %s, ...)", what, counts[what], clip(example[what])))
		}
	}
	return "there is " + list(out)
}
