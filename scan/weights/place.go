package weights

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// A place is where a file lies, which decides the rules for it.
type place int

const (
	// top is a blob itself, or the only file in a compressed one: a file of a
	// model's repository, or one that a user takes as it is.
	top place = iota
	// inside is an entry of an archive that is part of a model.
	inside
	// library is a package, or an entry of one or of an image's file system:
	// it came with code that runs anyway, and with that code's test data.
	library
)

// packageName matches the blobs that are packages of code: wheels, eggs,
// Debian's, conda's, npm's, Java's, and sources as PyPI and Debian name them.
var packageName = regexp.MustCompile(`(?i)(\.(whl|egg|deb|udeb|conda|rpm|jar|gem|crate|nupkg)|-[0-9][^/]*\.(tar\.(gz|bz2|xz|zst)|tgz|zip)|_[0-9][^/]*\.tar\.(gz|bz2|xz|zst))$`)

// layerName matches the blobs of images, which have no name but their digest.
var layerName = regexp.MustCompile(`^(sha256[:-])?[0-9a-f]{64}$`)

// modelFolders are the folders in which an image is a model: by KServe's
// convention, and by others like it.
var modelFolders = []string{"models", "model", "mnt"}

func placeOf(p []string) place {
	inner := slices.DeleteFunc(slices.Clone(p[1:]), func(s string) bool { return s == "" })
	switch {
	case packageName.MatchString(p[0]):
		return library
	case len(inner) == 0:
		return top
	case layerName.MatchString(p[0]):
		first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+inner[0]), "/"), "/")
		if !slices.Contains(modelFolders, first) {
			return library
		}
	}
	return inside
}

// lowerBase is the last part of a name as archives write it, in lower case.
func lowerBase(name string) string {
	return strings.ToLower(path.Base(strings.ReplaceAll(name, `\`, "/")))
}

// A claim is what a file's name says of its content.
type claim int

const (
	claimNone   claim = iota
	claimPickle       // only a pickle, plain or compressed, has that name
	claimTorch        // what torch.load takes
	claimRaw          // weights of whatever form; a pickle among others
	claimNPY
	claimNPZ
	claimSafetensors
	claimGGUF
	claimOnnx
	claimHDF5
	claimKeras
	claimTFLite
	claimSavedModel
	claimGraph
	claimSkops
	claimTemplate
)

// claims are the endings of names.
var claims = map[string]claim{
	".pkl": claimPickle, ".pickle": claimPickle, ".joblib": claimPickle, ".dill": claimPickle, ".pck": claimPickle, ".pcl": claimPickle,
	".cloudpickle": claimPickle,
	".pt":          claimTorch, ".pth": claimTorch, ".ckpt": claimTorch, ".pt2": claimTorch, ".ptl": claimTorch, ".jit": claimTorch,
	".bin": claimRaw, ".dat": claimRaw, ".data": claimRaw, ".weights": claimRaw, ".params": claimRaw, ".pdparams": claimPickle, ".pdopt": claimPickle,
	".npy": claimNPY, ".npz": claimNPZ,
	".safetensors": claimSafetensors, ".gguf": claimGGUF, ".onnx": claimOnnx, ".ort": claimRaw,
	".h5": claimHDF5, ".hdf5": claimHDF5, ".keras": claimKeras, ".tflite": claimTFLite, ".skops": claimSkops,
	".jinja": claimTemplate, ".jinja2": claimTemplate, ".j2": claimTemplate, ".template": claimTemplate,
	".llamafile": claimRaw,
}

// torchBin matches the .bin files that transformers, peft, diffusers and their
// trainers give to torch.load.
var torchBin = regexp.MustCompile(`^(pytorch_model|adapter_model|adapter|diffusion_pytorch_model|pytorch_lora_weights|training_args|optimizer|scheduler|scaler|learned_embeds|consolidated|ip-adapter|model)([-_.].*)?\.bin$`)

func claimOf(name string) claim {
	switch name {
	case "saved_model.pb":
		return claimSavedModel
	case "chat_template":
		return claimTemplate
	}
	if torchBin.MatchString(name) {
		return claimTorch
	}
	// Compression is undone by the walker, or by zlib.go.
	for _, end := range []string{".gz", ".bz2", ".xz", ".lzma", ".lz4", ".z", ".zlib", ".zst"} {
		name = strings.TrimSuffix(name, end)
	}
	ext := path.Ext(name)
	if ext == ".pb" {
		return claimGraph
	}
	return claims[ext]
}
