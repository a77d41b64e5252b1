package repo

import (
	"path"
	"strings"
)

// A Kind is what a file is for, as far as its name tells. The words are those
// of the CNCF ModelPack specification's layers.
type Kind string

// The kinds.
const (
	Weight  Kind = "weight"  // tensors, in whatever format
	Config  Kind = "config"  // what a loader reads beside them: settings, tokenizers, templates, graphs
	Doc     Kind = "doc"     // what people read: cards, licence texts, pictures
	Code    Kind = "code"    // what runs
	Dataset Kind = "dataset" // what is read as records
)

// kindsByExt gives the kind of a file's last extension, in lower case.
var kindsByExt = map[string]Kind{
	".safetensors": Weight, ".bin": Weight, ".pt": Weight, ".pth": Weight, ".ckpt": Weight, ".gguf": Weight, ".ggml": Weight,
	".onnx": Weight, ".onnx_data": Weight, ".ort": Weight, ".h5": Weight, ".hdf5": Weight, ".keras": Weight, ".msgpack": Weight,
	".ot": Weight, ".tflite": Weight, ".npz": Weight, ".npy": Weight, ".pb": Weight, ".pkl": Weight, ".pickle": Weight, ".joblib": Weight,
	".nemo": Weight, ".llamafile": Weight, ".tensors": Weight, ".engine": Weight, ".plan": Weight, ".mlmodel": Weight, ".pdparams": Weight,
	".params": Weight, ".distcp": Weight, ".t7": Weight, ".th": Weight, ".jit": Weight, ".pte": Weight, ".task": Weight, ".litertlm": Weight,
	".mnn": Weight, ".rknn": Weight, ".skops": Weight, ".safetensor": Weight,

	".md": Doc, ".markdown": Doc, ".rst": Doc, ".pdf": Doc, ".html": Doc, ".htm": Doc, ".bib": Doc, ".cff": Doc, ".png": Doc, ".jpg": Doc,
	".jpeg": Doc, ".gif": Doc, ".svg": Doc, ".webp": Doc, ".bmp": Doc, ".ico": Doc, ".mp4": Doc, ".webm": Doc, ".mov": Doc, ".mp3": Doc,
	".wav": Doc, ".flac": Doc, ".ogg": Doc, ".m4a": Doc,

	".py": Code, ".pyi": Code, ".ipynb": Code, ".sh": Code, ".bash": Code, ".bat": Code, ".ps1": Code, ".cpp": Code, ".cc": Code, ".cxx": Code,
	".c": Code, ".h": Code, ".hpp": Code, ".cu": Code, ".cuh": Code, ".rs": Code, ".go": Code, ".js": Code, ".mjs": Code, ".ts": Code,
	".java": Code, ".swift": Code, ".r": Code, ".jl": Code, ".lua": Code, ".so": Code, ".dll": Code, ".dylib": Code, ".whl": Code,

	".parquet": Dataset, ".arrow": Dataset, ".feather": Dataset, ".csv": Dataset, ".tsv": Dataset, ".jsonl": Dataset, ".ndjson": Dataset,
	".tfrecord": Dataset, ".lance": Dataset, ".zip": Dataset, ".tar": Dataset, ".tgz": Dataset, ".gz": Dataset, ".zst": Dataset, ".xz": Dataset,
	".bz2": Dataset, ".7z": Dataset, ".wds": Dataset, ".mds": Dataset,
}

// notWeights are files with the extension of a weight that a trainer wrote
// beside them, and names that mislead.
var notWeights = map[string]bool{
	"training_args.bin": true, "scheduler.pt": true, "scheduler.bin": true, "scaler.pt": true, "vocab.bin": true, "vocab.npz": true, "vocab.pkl": true,
}

// KindOf tells from a file's name what it is for. A name that tells nothing is
// Config: a loader may read it.
func KindOf(name string) Kind {
	base := strings.ToLower(path.Base(name))
	ext := path.Ext(base)
	switch {
	case notWeights[base] || strings.HasPrefix(base, "rng_state"):
		return Config
	case isLicenceText(base):
		return Doc
	case base == "readme" || strings.HasPrefix(base, "readme."):
		return Doc
	case isOnnxData(base):
		return Weight
	case strings.Contains(base, ".ckpt.data-") || strings.Contains(base, ".data-0"): // TensorFlow: model.ckpt.data-00000-of-00001
		return Weight
	case strings.HasSuffix(base, ".gz") && kindsByExt[path.Ext(strings.TrimSuffix(base, ".gz"))] == Doc:
		return Doc
	}
	if k, ok := kindsByExt[ext]; ok {
		return k
	}
	return Config
}

// isOnnxData knows the second file of an ONNX model above 2 GB:
// model.onnx_data, model.onnx_data_1, model.onnx.data.
func isOnnxData(base string) bool {
	i := strings.LastIndex(base, ".onnx")
	if i < 0 {
		return false
	}
	rest := base[i+len(".onnx"):]
	return strings.HasPrefix(rest, "_data") || strings.HasPrefix(rest, ".data")
}

// isLicenceText knows the texts that say what may be done: LICENSE,
// MODEL_LICENSE.txt, NOTICE, USE_POLICY.md. base is in lower case.
func isLicenceText(base string) bool {
	switch path.Ext(base) {
	case "", ".txt", ".md", ".pdf", ".rst", ".html":
	default:
		// LICENSE-2.0 and LICENSE.apache have no extension either.
		if !strings.HasPrefix(base, "license") && !strings.HasPrefix(base, "licence") || kindsByExt[path.Ext(base)] != "" || path.Ext(base) == ".json" {
			return false
		}
	}
	if strings.Contains(base, "license") || strings.Contains(base, "licence") {
		return true
	}
	for _, p := range []string{"copying", "notice", "use_policy", "use-policy", "acceptable_use", "acceptable-use", "terms_of_use", "terms-of-use", "eula"} {
		if strings.HasPrefix(base, p) {
			return true
		}
	}
	return false
}
