package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"reflect"
)

// JSON writes the JSON twin: one element of a list on each line, so that a
// large twin can be searched and compared line by line, and is never held in
// memory as a whole.
func (d *Document) JSON(w io.Writer) error {
	n, err := d.normal()
	if err != nil {
		return err
	}
	out := newLines(w)
	v := reflect.ValueOf(n).Elem()
	for i := range v.NumField() {
		out.text(map[bool]string{true: "{\n", false: ",\n"}[i == 0])
		// No tag of a Document has an option.
		out.text(` "` + v.Type().Field(i).Tag.Get("json") + `": `)
		f := v.Field(i)
		if f.Kind() != reflect.Slice {
			out.value(f.Interface())
			continue
		}
		out.text("[")
		for j := range f.Len() {
			out.text(map[bool]string{true: "\n  ", false: ",\n  "}[j == 0])
			out.value(f.Index(j).Interface())
		}
		out.text("]")
	}
	out.text("\n}\n")
	return out.flush()
}

// lines writes JSON piece by piece and keeps the first error.
type lines struct {
	w   *bufio.Writer
	err error
}

func newLines(w io.Writer) *lines { return &lines{w: bufio.NewWriterSize(w, 64<<10)} }

func (l *lines) text(s string) {
	if l.err == nil {
		_, l.err = l.w.WriteString(s)
	}
}

// encode gives a value without escapes for HTML: a person may read it.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func (l *lines) value(v any) {
	if l.err != nil {
		return
	}
	b, err := encode(v)
	if err != nil {
		l.err = err
		return
	}
	_, l.err = l.w.Write(b)
}

func (l *lines) flush() error {
	if l.err != nil {
		return l.err
	}
	return l.w.Flush()
}
