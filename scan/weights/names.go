package weights

import (
	"bytes"
	"path"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// claimWords say what a name promises, and what reads it.
var claimWords = map[claim]string{
	claimPickle: "a pickle", claimTorch: "weights that torch loads", claimRaw: "weights", claimNPY: "a numpy array", claimNPZ: "numpy arrays",
	claimSafetensors: "safetensors", claimGGUF: "GGUF", claimOnnx: "ONNX", claimHDF5: "HDF5", claimKeras: "a Keras model",
	claimTFLite: "TensorFlow Lite", claimSavedModel: "a TensorFlow model", claimGraph: "a TensorFlow graph", claimSkops: "a skops model",
}

// claimedEmpty judges an empty file: what a loader refuses at once.
func (v *visit) claimedEmpty() {
	switch v.claim {
	case claimSafetensors, claimGGUF, claimOnnx, claimHDF5, claimKeras, claimTorch, claimNPY, claimNPZ, claimTFLite:
		if v.place != library {
			v.add(scan.Medium, "MODEL-EMPTY", "named as %s, and empty", claimWords[v.claim])
		}
	}
}

// byName holds what a file's name promises against what it is.
func (v *visit) byName(as form) {
	if v.executable() {
		return
	}
	if v.place == library && v.claim != claimPickle && v.claim != claimNPY {
		return // .bin and .dat are no weights there
	}
	if v.fits(as) {
		return
	}
	word := claimWords[v.claim]
	is := as.name
	if is == "" {
		is = "of no format that is known here"
	}
	switch {
	case word == "" || v.claim == claimTemplate:
	case v.claim == claimRaw || v.claim == claimGraph:
		// Raw numbers have no magic. A loader of pickles stops before it runs
		// anything: tryPickle has seen how far it gets.
		v.add(scan.Medium, "MODEL-UNKNOWN", "named as %s; the content is %s, and not a pickle", word, is)
	case as.name == "":
		v.grave("MODEL-UNKNOWN", "named as %s; the content is %s", word, is)
	default:
		v.grave("MODEL-NAME", "named as %s; the content is %s", word, is)
	}
}

// fits holds that the content is what the name promises.
func (v *visit) fits(as form) bool {
	k := v.f.Kind
	packed := v.f.Opened && (k == walk.Gzip || k == walk.Bzip2 || k == walk.XZ || k == walk.LZ4 || k == walk.Zstd)
	switch v.claim {
	case claimNone, claimTemplate:
		return true
	case claimSafetensors:
		return k == walk.Safetensors
	case claimGGUF:
		return k == walk.GGUF
	case claimOnnx:
		return as.name == "ONNX"
	case claimHDF5:
		return k == walk.HDF5
	case claimKeras:
		return k == walk.Zip || k == walk.HDF5
	case claimNPY:
		return packed || k == walk.NPY || as.pickle
	case claimNPZ, claimSkops:
		return k == walk.Zip
	case claimTFLite:
		return as.name == "TensorFlow Lite"
	case claimPickle:
		return packed || as.pickle || k == walk.Zip || k == walk.NPY || as.name == "zlib"
	case claimTorch:
		return packed || as.pickle || k == walk.Zip || k == walk.Tar
	case claimRaw, claimGraph, claimSavedModel:
		return as.pickle || as.name != "" && k != walk.Text
	}
	return false
}

// apeMagics open programs that run on several systems, llamafiles among them.
var apeMagics = [][]byte{[]byte("MZqFpD"), []byte("jartsr"), []byte("APEDBG")}

func isAPE(head []byte) bool {
	for _, m := range apeMagics {
		if bytes.HasPrefix(head, m) {
			return true
		}
	}
	return false
}

// ggmlMagics open the formats before GGUF, which hold numbers and a
// vocabulary.
func isGGML(head []byte) bool {
	for _, m := range []string{"lmgg", "fmgg", "tjgg", "algg", "ggml", "ggmf", "ggjt", "ggla"} {
		if bytes.HasPrefix(head, []byte(m)) {
			return true
		}
	}
	return false
}

// isLZMA knows the old form of LZMA by its usual properties.
func isLZMA(head []byte) bool {
	return len(head) >= 13 && head[0] == 0x5d && head[1] == 0 && head[2] == 0
}

// executable judges programs. One that is named like weights is run by who
// expects a llamafile, or loaded by what expects weights.
func (v *visit) executable() bool {
	switch v.f.Kind {
	case walk.ELF, walk.PE, walk.MachO:
	case walk.Script:
		if v.claim == claimNone || v.claim == claimTemplate || v.place == library {
			return false
		}
	default:
		head, err := v.head(8)
		if err != nil || !isAPE(head) {
			return false
		}
	}
	weights := v.place == inside || v.claim != claimNone && v.claim != claimTemplate || path.Ext(v.name) == ""
	switch {
	case v.place == library:
		return true // programs are what packages are made of
	case weights:
		v.add(scan.High, "MODEL-EXECUTABLE", "a program (%s) where a loader expects weights", v.f.Kind)
	default:
		v.add(scan.Medium, "MODEL-EXECUTABLE", "a program (%s), which no model needs", v.f.Kind)
	}
	return true
}
