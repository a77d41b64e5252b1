package weights

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// kerasModules are the packages whose objects Keras creates without asking.
var kerasModules = wordSet("keras keras_nlp keras_hub keras_cv keras_core tf_keras builtins")

// kerasFunctions matches the modules whose functions a model may name; those
// of others, such as keras.utils.get_file, do things.
var kerasFunctions = regexp.MustCompile(`^(tf_keras|keras|keras\.src|keras\.api|keras\._tf_keras\.keras)\.(activations|losses|metrics|initializers|regularizers|constraints|optimizers|ops|backend|layers)(\.|$)`)

// keras judges one object of a Keras configuration: a layer, a function, or
// what Keras 3 calls a serialized object.
func (d *document) keras(o object) {
	class, module, registered := o.fields["class_name"], o.fields["module"], o.fields["registered_name"]
	top, _, _ := strings.Cut(module, ".")
	name := class
	if module != "" {
		name = module + "." + class
	}
	if class == "function" && o.fields["config"] != "" {
		name = module + "." + o.fields["config"]
	}
	d.spoke = true
	switch {
	case class == "Lambda" || class == "__lambda__" || strings.HasSuffix(class, ">Lambda"):
		d.list("MODEL-KERAS-LAMBDA", name)
	case class == "TFSMLayer" || strings.HasSuffix(class, ">TFSMLayer"):
		d.list("MODEL-KERAS-TFSM", name)
	case module != "" && top != "builtins" && dangerousModule(module):
		d.list("MODEL-KERAS-DANGER", name)
	case module != "" && !kerasModules[top] && !strings.HasPrefix(module, "tensorflow.python.keras"):
		d.list("MODEL-KERAS-CUSTOM", name)
	case class == "function" && top == "builtins" && dangerousGlobal("builtins", o.fields["config"]):
		d.list("MODEL-KERAS-DANGER", name)
	case class == "function" && top != "builtins" && module != "" && !kerasFunctions.MatchString(module):
		d.list("MODEL-KERAS-DANGER", name)
	case foreignKeras(registered) || foreignKeras(class):
		d.list("MODEL-KERAS-CUSTOM", registered+" "+class)
	}
}

// foreignKeras knows a registered name, "package>Class", of another package.
func foreignKeras(name string) bool {
	pkg, _, found := strings.Cut(name, ">")
	pkg, _, _ = strings.Cut(pkg, ".")
	return found && !kerasModules[pkg]
}

// maxEmbeddedWork bounds the bytes that are read to find documents in other
// files, those read twice included: some seconds.
const maxEmbeddedWork = 8 << 30

// hdf5 judges a model or weights of Keras. The model's configuration is JSON
// in an attribute, which HDF5 writes in one piece and never compressed, as
// long as no heap has a filter: so the documents are found in the raw bytes.
func (v *visit) hdf5() error {
	model, err := contains(v.reader(), [][]byte{[]byte("model_config")})
	if err != nil {
		return err
	}
	filtered, err := v.filteredHeap()
	if err != nil {
		return err
	}
	if filtered {
		v.unseen("MODEL-HDF5", "HDF5 with a filtered heap, in which attributes cannot be looked at")
	}
	return v.embedded(model)
}

// filteredHeap finds the header of a fractal heap whose objects are filtered:
// signature, version, length of ids, length of the filters' description.
func (v *visit) filteredHeap() (bool, error) {
	found := false
	err := eachIndex(v.reader(), []byte("FRHP"), 9, func(b []byte) { found = found || b[4] == 0 && (b[7] != 0 || b[8] != 0) })
	return found, err
}

// eachIndex shows the n bytes at each place where r has the word.
func eachIndex(r io.Reader, word []byte, n int, see func([]byte)) error {
	buf := make([]byte, searchChunk)
	have := 0
	for {
		got, err := io.ReadFull(r, buf[have:])
		have += got
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		for at := 0; ; {
			i := bytes.Index(buf[at:have], word)
			if i < 0 || at+i+n > have {
				break
			}
			see(buf[at+i : at+i+n])
			at += i + 1
		}
		if end {
			return nil
		}
		if err != nil {
			return err
		}
		have = copy(buf, buf[have-n:have])
	}
}

// embedded judges every JSON object that stands in the raw bytes of the file.
// If one is promised, there must be one that describes a class.
func (v *visit) embedded(promised bool) error {
	if !promised {
		some, err := contains(v.reader(), [][]byte{[]byte("class_name"), []byte(`\u00`)})
		if err != nil || !some {
			return err
		}
	}
	s := &objectScan{r: bufio.NewReaderSize(v.reader(), 64<<10)}
	work, described := int64(0), false
	for {
		at, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", v.f.Name(), err)
		}
		d := v.document()
		n, err := readJSON(io.NewSectionReader(v.content, at, v.f.Size-at), d.see)
		if err != nil && !errors.Is(err, errJSON) {
			return err
		}
		if work += n + jsonBuffer; work > maxEmbeddedWork {
			v.unseen("MODEL-HDF5", "more of what begins as JSON than is looked at")
			return nil
		}
		// What stands before a mistake counts as far as it goes, and its parts
		// are read again.
		d.finish()
		described = described || d.spoke
		if err == nil {
			if err := s.skipTo(at + n); err != nil {
				return fmt.Errorf("read %s: %w", v.f.Name(), err)
			}
		}
	}
	if promised && !described {
		v.unseen("MODEL-HDF5", "a model's configuration that is no plain JSON")
	}
	return nil
}

// An objectScan finds where JSON objects with a key begin.
type objectScan struct {
	r  *bufio.Reader
	at int64
}

// next is where the next one begins; io.EOF if there is none.
func (s *objectScan) next() (int64, error) {
	open := int64(-1)
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return 0, err
		}
		s.at++
		switch {
		case b == '{':
			open = s.at - 1
		case open >= 0 && b == '"':
			return open, nil
		case b != ' ' && b != '\n' && b != '\t' && b != '\r':
			open = -1
		}
	}
}

// skipTo goes on behind a document.
func (s *objectScan) skipTo(at int64) error {
	for s.at < at {
		n, err := s.r.Discard(int(min(at-s.at, 1<<30)))
		s.at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
