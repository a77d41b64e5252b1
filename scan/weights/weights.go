// Package weights judges the files of models: formats that run code when they
// are loaded, formats that lie about what they hold, and the texts of a
// model's repository that make a loader run code. It is a [scan.Inspector].
//
// What it follows: Python's pickle as scan/pickle reads it; torch.save's zip
// archive; numpy's format.py (npy 1.0 to 3.0); joblib's compressed files; the
// headers of safetensors and GGUF as models/safetensors and models/gguf read
// them; onnx.proto; TensorFlow's saved_model.proto and graph.proto; Keras's
// configuration in JSON and in HDF5; TensorFlow Lite's schema; skops's
// schema.json; Jinja's lexer; the auto_map of transformers.
//
// Invariants:
//   - Content decides what a file is. A name can only add rules: a file whose
//     name says weights has to be weights.
//   - A file that a rule applies to and that cannot be read to its end is a
//     finding. Nothing passes because it is broken.
//   - Outside of packages and file systems, every file is tried as a pickle:
//     protocols 0 and 1 have no magic, and a file of another format can be a
//     pickle as well.
//   - Nothing is executed, unpickled or evaluated.
//
// Severities: critical is what calls code that is known to be dangerous, high
// what a loader may run, or what is malformed. What lies in a package or in
// an image's file system stands beside code that runs anyway, test data among
// it, and is medium there unless it is critical; see [place].
//
// Limits: unknown operators of TensorFlow and layers of Keras 2 that a caller
// must register himself are not reported. The text of an expression in Jinja
// is judged word by word, not parsed. YAML is read line by line. Limits of
// size stand beside each rule; what exceeds them is a finding of
// [scan.KindNotScanned].
package weights

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// rulesVersion is part of the key of cached verdicts: raise it when a rule
// here, or one of scan/pickle, changes.
const rulesVersion = "1"

// maxFindings bounds what is said of one file; the gravest are kept.
const maxFindings = 20

// What becomes of pickles.
const (
	PickleScan   = "scan"   // it passes if all that it calls is on the allowlist
	PickleRefuse = "refuse" // it never passes
)

// Config says how strict the rules are.
type Config struct {
	// Pickle is PickleScan, the default, or PickleRefuse.
	Pickle string
	// Code is the severity of Python code that a model's configuration makes
	// a loader run (auto_map); the default is high.
	Code string
}

// An Inspector judges files of models. It has no state.
type Inspector struct {
	config Config
}

// New makes an inspector.
func New(c Config) (*Inspector, error) {
	c.Pickle, c.Code = cmp.Or(c.Pickle, PickleScan), cmp.Or(c.Code, scan.High)
	if c.Pickle != PickleScan && c.Pickle != PickleRefuse {
		return nil, fmt.Errorf("weights: pickle: %q, want %s or %s", c.Pickle, PickleScan, PickleRefuse)
	}
	known := []string{scan.Critical, scan.High, scan.Medium, scan.Low}
	if !slices.Contains(known, c.Code) {
		return nil, fmt.Errorf("weights: code: %q, want one of %s", c.Code, strings.Join(known, ", "))
	}
	return &Inspector{config: c}, nil
}

// Engine names the rules.
func (i *Inspector) Engine() scan.Engine {
	return scan.Engine{Name: "weights", Version: rulesVersion, Settings: "pickle=" + i.config.Pickle + " code=" + i.config.Code}
}

// ByContent is false: what a file is called decides which loader takes it.
func (i *Inspector) ByContent() bool { return false }

// Inspect judges one file.
func (i *Inspector) Inspect(ctx context.Context, f *walk.File) ([]scan.Finding, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !f.Regular() {
		return nil, nil
	}
	v := &visit{
		ctx: ctx, config: i.config, f: f, place: placeOf(f.Path), name: lowerBase(f.Name()),
		content: &content{ctx: ctx, r: f.Reader()},
	}
	v.claim = claimOf(v.name)
	if err := v.run(); err != nil {
		return nil, err
	}
	return v.result(), nil
}

// content reads a file until the context ends.
type content struct {
	ctx context.Context
	r   io.ReaderAt
}

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.ReadAt(p, off)
}

// A visit is the judgement of one file.
type visit struct {
	ctx      context.Context
	config   Config
	f        *walk.File
	content  *content
	place    place
	name     string // the last part of the path, in lower case
	claim    claim
	findings []scan.Finding
}

// reader reads the file from the start.
func (v *visit) reader() *io.SectionReader { return io.NewSectionReader(v.content, 0, v.f.Size) }

// head are the first bytes, at most n.
func (v *visit) head(n int64) ([]byte, error) {
	b := make([]byte, min(n, v.f.Size))
	if _, err := io.ReadFull(v.reader(), b); err != nil {
		return nil, fmt.Errorf("read %s: %w", v.f.Name(), err)
	}
	return b, nil
}

// add notes a finding of exactly that severity.
func (v *visit) add(severity, id, format string, args ...any) {
	v.findings = append(v.findings, scan.Finding{Kind: scan.KindModel, ID: id, Severity: severity, Text: fmt.Sprintf(format, args...)})
}

// grave notes what is high in a model, and medium in a package.
func (v *visit) grave(id, format string, args ...any) {
	v.add(v.severity(scan.High), id, format, args...)
}

// unseen notes what could not be looked at.
func (v *visit) unseen(id, format string, args ...any) {
	v.add(scan.High, id, format, args...)
	v.findings[len(v.findings)-1].Kind = scan.KindNotScanned
}

// severity is that of a rule at the place of the file.
func (v *visit) severity(s string) string {
	if v.place == library && s == scan.High {
		return scan.Medium
	}
	return s
}

// result is what was found, each thing once, the gravest first.
func (v *visit) result() []scan.Finding {
	order := []string{scan.Critical, scan.High, scan.Medium, scan.Low}
	slices.SortStableFunc(v.findings, func(a, b scan.Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)),
			strings.Compare(a.ID, b.ID), strings.Compare(a.Text, b.Text),
		)
	})
	list := slices.CompactFunc(v.findings, func(a, b scan.Finding) bool { return a == b })
	if more := len(list) - maxFindings; more > 0 {
		list = list[:maxFindings]
		list[maxFindings-1].Text += fmt.Sprintf(" (and %d more findings in this file)", more)
	}
	return list
}

// run applies the rules of the content, and then those of the name.
func (v *visit) run() error {
	if v.f.Size == 0 {
		v.claimedEmpty()
		return nil
	}
	done, err := v.byContent()
	if err != nil {
		return err
	}
	if v.place != library || v.claim == claimPickle || v.claim == claimNPY || v.f.Kind == walk.Pickle {
		if err := v.tryPickle(&done); err != nil {
			return err
		}
	}
	v.byName(done)
	return v.texts()
}

// A form is what a file was judged as.
type form struct {
	name   string // for messages; "" if no rule knew the content
	pickle bool   // it was judged as a pickle
}

// byContent judges a file by what it is.
func (v *visit) byContent() (form, error) {
	switch v.f.Kind {
	case walk.Pickle:
		head, err := v.head(1)
		if err != nil {
			return form{}, err
		}
		if head[0] != 0x80 && !v.saysPickle() {
			return form{}, nil // a guess of the walker's, which tryPickle settles
		}
		return form{"a pickle", true}, v.pickle(0)
	case walk.Zip:
		return form{name: "a zip archive"}, v.zip()
	case walk.NPY:
		return form{name: "a numpy array"}, v.npy()
	case walk.Safetensors:
		return form{name: "safetensors"}, v.safetensors()
	case walk.GGUF:
		return form{name: "GGUF"}, v.gguf()
	case walk.HDF5:
		return form{name: "HDF5"}, v.hdf5()
	case walk.JSON:
		return form{name: "JSON"}, nil // its rules are by name
	case walk.ELF, walk.PE, walk.MachO:
		return form{name: "a program"}, nil
	case walk.Data, walk.Text, walk.Script:
		return v.sniff()
	}
	return form{name: "a file of type " + string(v.f.Kind)}, nil
}

// sniff knows formats that the walker does not.
func (v *visit) sniff() (form, error) {
	head, err := v.head(32)
	if err != nil {
		return form{}, err
	}
	switch {
	case isAPE(head):
		return form{name: "a program"}, nil
	case isTFLite(head):
		return form{name: "TensorFlow Lite"}, v.tflite()
	case v.claim == claimSavedModel || v.claim == claimGraph:
		return v.tensorflow()
	case v.claim == claimOnnx:
		return form{name: "ONNX"}, v.onnx()
	case v.f.Kind == walk.Data && v.place != library && maybeOnnx(head):
		return v.guessOnnx()
	case v.f.Kind == walk.Data && (v.place != library || v.claim == claimPickle):
		if skip, ok := zlibStart(head); ok {
			return v.zlib(skip)
		}
		if isLZMA(head) && v.f.Size > int64(len(head)) {
			return form{name: "LZMA"}, v.lzma()
		}
		if isGGML(head) {
			return form{name: "GGML, which came before GGUF"}, nil
		}
	}
	return form{}, nil
}
