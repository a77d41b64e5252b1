package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
)

// maxListed bounds what rules collect from one document.
const maxListed = 100

// jsonWords are what the rules look for. A large document that has none of
// them, and no escape that could stand for a letter of one, is not read: it
// is a tokenizer or a data set.
var jsonWords = [][]byte{
	[]byte("auto_map"), []byte("chat_template"), []byte("class_name"), []byte("__loader__"), []byte("custom_pipelines"),
	[]byte("_target_"), []byte(`\u00`),
}

// smallJSON is what is read in any case.
const smallJSON = 4 << 20

// json judges a document of JSON by its keys.
func (v *visit) json() error {
	if v.f.Size > smallJSON {
		found, err := contains(v.reader(), jsonWords)
		if err != nil || !found {
			return err
		}
	}
	d := v.document()
	_, err := readJSON(v.reader(), d.see)
	switch {
	case errors.Is(err, errJSON):
		// What Python does not read either has no rules; but another reader
		// might take what stands before the mistake.
		if d.finish(); d.spoke {
			v.add(scan.Medium, "MODEL-JSON", "%v", err)
		}
	case err != nil:
		return fmt.Errorf("read %s: %w", v.f.Name(), err)
	default:
		d.finish()
	}
	return nil
}

// contains reports whether r holds any of the words.
func contains(r io.Reader, words [][]byte) (bool, error) {
	buf := make([]byte, searchChunk)
	n := 0
	for {
		got, err := io.ReadFull(r, buf[n:])
		n += got
		for _, w := range words {
			if bytes.Contains(buf[:n], w) {
				return true, nil
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		n = copy(buf, buf[n-searchOverlap:n])
	}
}

// A document collects what the rules need of one document.
type document struct {
	v      *visit
	stack  []object
	spoke  bool // a rule applied
	code   []string
	remote []string
	lists  map[string][]string // of a finding's id: what it names
}

// An object is one of the document that is being read.
type object struct {
	key    string
	list   bool
	fields map[string]string // the texts that rules look at
	has    map[string]bool   // keys whose values are not null
}

func (v *visit) document() *document { return &document{v: v, lists: map[string][]string{}} }

// within reports whether a key leads to where the document is read.
func (d *document) within(key string) bool {
	return slices.ContainsFunc(d.stack, func(o object) bool { return o.key == key })
}

// objectKeys are the keys whose texts are kept with their object.
var objectKeys = wordSet("class_name module registered_name config __class__ __module__ __loader__")

func (d *document) see(e jsonEvent) error {
	switch e.kind {
	case '{', '[':
		d.has(e)
		d.stack = append(d.stack, object{key: e.key, list: e.kind == '['})
	case '}', ']':
		o := d.stack[len(d.stack)-1]
		d.stack = d.stack[:len(d.stack)-1]
		if !o.list {
			d.object(o)
		}
	case '"':
		d.has(e)
		d.text(e)
	case '0':
		if e.text != "null" {
			d.has(e)
		}
	}
	return nil
}

// has notes a key of the object at hand.
func (d *document) has(e jsonEvent) {
	if len(d.stack) == 0 || d.stack[len(d.stack)-1].list || !objectKeys[e.key] {
		return
	}
	o := &d.stack[len(d.stack)-1]
	if o.has == nil {
		o.has, o.fields = map[string]bool{}, map[string]string{}
	}
	o.has[e.key] = true
	if e.kind == '"' {
		o.fields[e.key] = clipText(e.text)
	}
}

func clipText(s string) string { return s[:min(len(s), maxWireText)] }

// text applies the rules for texts.
func (d *document) text(e jsonEvent) {
	switch {
	case d.within("auto_map"), e.key == "auto_map":
		d.addCode(e.text)
	case e.key == "impl" && d.within("custom_pipelines"):
		d.addCode(e.text)
	case e.key == "_target_":
		if dangerousPath(e.text) {
			d.list("MODEL-TARGET", e.text)
		}
	case e.key == "type" && d.v.name == "modules.json" && len(d.stack) == 2:
		if e.text != "" && !strings.HasPrefix(e.text, "sentence_transformers.") {
			d.addCode(e.text)
		}
	case e.key == "_class_name" && d.v.name == "model_index.json" && d.stack[len(d.stack)-1].list:
		d.addCode(e.text)
	case d.within("chat_template"), strings.HasSuffix(e.key, "template"):
		d.templateText(e)
	}
}

// templateText judges a text under a key that says template. Of others than
// chat_template, only what has Jinja in it is one.
func (d *document) templateText(e jsonEvent) {
	chat := e.key == "chat_template" || d.within("chat_template")
	switch {
	case chat && e.key == "name":
		return // of a list of templates with names
	case !chat && !isTemplate(e.text):
		return
	}
	d.spoke = true
	if e.cut {
		d.v.unseen("MODEL-TEMPLATE-LIMIT", "the template %s is longer than %d bytes", quote(e.key), maxJSONText)
		return
	}
	d.v.template(e.text, "the key "+quote(e.key), chat)
}

// addCode notes what a loader is told to import: "file.Class", or with the
// repository in front, "owner/name--file.Class".
func (d *document) addCode(s string) {
	if s == "" {
		return
	}
	d.spoke = true
	repo, file, remote := strings.Cut(s, "--")
	if !remote {
		file = repo
	}
	if i := strings.LastIndexByte(file, '.'); i > 0 {
		file = strings.ReplaceAll(file[:i], ".", "/") + ".py"
	}
	to := &d.code
	if remote {
		to, file = &d.remote, file+" of "+repo
	}
	if !slices.Contains(*to, file) && len(*to) < maxListed {
		*to = append(*to, file)
	}
}

func (d *document) list(id, s string) {
	d.spoke = true
	if !slices.Contains(d.lists[id], s) && len(d.lists[id]) < maxListed {
		d.lists[id] = append(d.lists[id], s)
	}
}

// object applies the rules for whole objects.
func (d *document) object(o object) {
	switch {
	case o.has["class_name"] && (o.has["config"] || o.has["module"] || o.has["registered_name"]):
		d.keras(o)
	case o.has["__loader__"] && o.has["__class__"]:
		d.skops(o)
	}
}

// finish makes findings of what was collected.
func (d *document) finish() {
	v := d.v
	if len(d.code) > 0 {
		v.add(v.config.Code, "MODEL-AUTO-MAP", "a loader that trusts the repository runs its code: %s", quoteList(d.code))
	}
	if len(d.remote) > 0 {
		v.add(v.config.Code, "MODEL-AUTO-MAP", "a loader that trusts the repository runs code of another one: %s", quoteList(d.remote))
	}
	for _, id := range sortedKeys(d.lists) {
		severity, text := scan.High, documentTexts[id]
		if id == "MODEL-TARGET" || id == "MODEL-KERAS-DANGER" || id == "MODEL-SKOPS-DANGER" {
			severity = scan.Critical
		}
		v.add(v.severity(severity), id, "%s: %s", text, quoteList(d.lists[id]))
	}
}

var documentTexts = map[string]string{
	"MODEL-TARGET":       "a configuration that creates what runs code",
	"MODEL-KERAS-LAMBDA": "Keras layers made of Python bytecode or of a function's name",
	"MODEL-KERAS-TFSM":   "Keras layers that load another TensorFlow model",
	"MODEL-KERAS-CUSTOM": "Keras objects from modules that are not Keras's",
	"MODEL-KERAS-DANGER": "Keras objects that run code",
	"MODEL-SKOPS-TYPE":   "types that skops does not trust by itself",
	"MODEL-SKOPS-DANGER": "types that run code",
}
