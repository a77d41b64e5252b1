package weights

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
)

// maxOnnxNames bounds what is collected of one kind of name.
const maxOnnxNames = 1000

// onnxDomains are the sets of operators that runtimes have themselves.
var onnxDomains = wordSet(`ai.onnx ai.onnx.ml ai.onnx.training ai.onnx.preview ai.onnx.preview.training com.microsoft
	com.microsoft.nchwc com.microsoft.experimental com.ms.internal.nhwc org.pytorch.aten pkg.onnxscript.torch_lib
	pkg.onnxscript.torch_lib.common this`)

// An onnxModel is what the rules look at in a model.
type onnxModel struct {
	w         *wire
	graph     bool
	version   uint64
	external  map[string]bool // where the data of tensors lies
	badOffset map[string]bool
	domains   map[string]string // of nodes, with an operator each
	own       map[string]bool   // domains of the model's own functions
	python    map[string]bool   // operators that run Python
}

// maybeOnnx knows how exporters begin: with the version of the format.
func maybeOnnx(head []byte) bool {
	return len(head) > 4 && head[0] == 0x08 && head[1] > 0 && head[1] < 0x20
}

func readOnnx(w *wire) (*onnxModel, error) {
	m := &onnxModel{
		w: w, external: map[string]bool{}, badOffset: map[string]bool{}, domains: map[string]string{},
		own: map[string]bool{}, python: map[string]bool{},
	}
	err := w.each(0, w.size, func(f field) error {
		switch f.number {
		case 1:
			m.version = f.value
		case 7:
			m.graph = true
			return w.message(f, m.inGraph)
		case 20:
			return w.message(f, func(f field) error {
				if f.number == 1 || f.number == 2 {
					return w.message(f, m.inGraph)
				}
				return nil
			})
		case 25:
			return m.function(f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !m.graph {
		return nil, fmt.Errorf("%w: no graph", errWire)
	}
	return m, nil
}

func (m *onnxModel) inGraph(f field) error {
	switch f.number {
	case 1:
		return m.node(f)
	case 5:
		return m.tensor(f)
	case 15:
		return m.sparse(f)
	}
	return nil
}

func (m *onnxModel) function(f field) error {
	domain := ""
	err := m.w.message(f, func(f field) (err error) {
		switch f.number {
		case 7:
			return m.node(f)
		case 11:
			return m.w.message(f, m.attribute)
		case 10:
			domain, err = m.w.text(f)
		}
		return err
	})
	if len(m.own) < maxOnnxNames {
		m.own[domain] = true
	}
	return err
}

func (m *onnxModel) node(f field) error {
	var op, domain string
	err := m.w.message(f, func(f field) (err error) {
		switch f.number {
		case 4:
			op, err = m.w.text(f)
		case 5:
			err = m.w.message(f, m.attribute)
		case 7:
			domain, err = m.w.text(f)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, seen := m.domains[domain]; !seen && len(m.domains) < maxOnnxNames {
		m.domains[domain] = op
	}
	if strings.EqualFold(op, "PyOp") || strings.EqualFold(op, "PythonOp") || strings.EqualFold(op, "PythonOpGrad") {
		m.python[op] = true
	}
	return nil
}

func (m *onnxModel) attribute(f field) error {
	switch f.number {
	case 5, 10:
		return m.tensor(f)
	case 6, 11:
		return m.w.message(f, m.inGraph)
	case 22, 23:
		return m.sparse(f)
	}
	return nil
}

func (m *onnxModel) sparse(f field) error {
	return m.w.message(f, func(f field) error {
		if f.number == 1 || f.number == 2 {
			return m.tensor(f)
		}
		return nil
	})
}

func (m *onnxModel) tensor(f field) error {
	return m.w.message(f, func(f field) error {
		if f.number == 13 {
			return m.entry(f)
		}
		return nil
	})
}

// entry is a pair of a tensor's external_data.
func (m *onnxModel) entry(f field) error {
	var key, value string
	err := m.w.message(f, func(f field) (err error) {
		switch f.number {
		case 1:
			key, err = m.w.text(f)
		case 2:
			value, err = m.w.text(f)
		}
		return err
	})
	if err != nil {
		return err
	}
	switch key {
	case "location":
		if n := len(m.external); n < maxOnnxNames || n < 2*maxOnnxNames && !plainLocation(value) {
			m.external[value] = true
		}
	case "offset", "length":
		if n, err := strconv.ParseInt(value, 10, 64); (err != nil || n < 0) && len(m.badOffset) < maxOnnxNames {
			m.badOffset[key+" "+value] = true
		}
	}
	return nil
}

// plainLocation holds that a file of weights lies beside the model or below.
func plainLocation(s string) bool {
	if s == "" || len(s) >= maxWireText || strings.ContainsAny(s, "\x00\\:") || strings.HasPrefix(s, "~") {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == ".." {
			return false
		}
	}
	return true
}

// onnx judges a file that is named as a model of ONNX.
func (v *visit) onnx() error {
	m, err := readOnnx(newWire(v.content, v.f.Size))
	switch {
	case errors.Is(err, errWireLimit):
		v.unseen("MODEL-ONNX-LIMIT", "ONNX: %v", err)
	case errors.Is(err, errWire):
		v.grave("MODEL-ONNX", "malformed ONNX: %v", err)
	case err != nil:
		return err
	default:
		v.judgeOnnx(m)
	}
	return nil
}

// guessOnnx judges a file that begins as exporters do, if it is one to its
// end.
func (v *visit) guessOnnx() (form, error) {
	m, err := readOnnx(newWire(v.content, v.f.Size))
	if errors.Is(err, errWire) || errors.Is(err, errWireLimit) {
		return form{}, nil
	}
	if err != nil {
		return form{}, err
	}
	v.judgeOnnx(m)
	return form{name: "ONNX"}, nil
}

func (v *visit) judgeOnnx(m *onnxModel) {
	var out, below []string
	for _, l := range sortedKeys(m.external) {
		switch {
		case !plainLocation(l):
			out = append(out, l)
		case strings.Contains(strings.TrimPrefix(l, "./"), "/"):
			below = append(below, l)
		}
	}
	if len(out) > 0 {
		v.grave("MODEL-ONNX-PATH", "weights outside of the model's folder: %s", quoteList(out))
	}
	if len(below) > 0 {
		v.add(scan.Low, "MODEL-ONNX-FOLDER", "weights in folders below the model's: %s", quoteList(below))
	}
	if len(m.badOffset) > 0 {
		v.grave("MODEL-ONNX", "external weights at places that are no numbers: %s", quoteList(sortedKeys(m.badOffset)))
	}
	if len(m.python) > 0 {
		v.grave("MODEL-ONNX-PYTHON", "operators that run Python: %s", quoteList(sortedKeys(m.python)))
	}
	var custom []string
	for _, d := range sortedKeys(m.domains) {
		if d != "" && !onnxDomains[d] && !m.own[d] {
			custom = append(custom, d+"."+m.domains[d])
		}
	}
	if len(custom) > 0 {
		v.add(scan.Medium, "MODEL-ONNX-DOMAIN", "operators that need a library of their own: %s", quoteList(custom))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
