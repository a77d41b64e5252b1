package label

import (
	"bytes"
	_ "embed" // the template
	"fmt"
	"html/template"
	"strings"
)

//go:embed label.html
var pageSource string

// page is parsed once and not changed.
var page = template.Must(template.New("label.html").Parse(pageSource))

// caution stands on both forms.
const caution = "A label proves nothing: compare the bundle id with what is verified inside."

// HTML is the label as a page of its own.
func (l Label) HTML() ([]byte, error) {
	m, err := encode(l.Code())
	if err != nil {
		return nil, err
	}
	data := struct {
		view
		Caution string
		Side    int
		Path    string
	}{l.view(), caution, m.size, m.path()}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("label of %s: %w", data.Title, err)
	}
	return b.Bytes(), nil
}

// Text is the label for a terminal, at most 80 columns wide.
func (l Label) Text() ([]byte, error) {
	m, err := encode(l.Code())
	if err != nil {
		return nil, err
	}
	v := l.view()
	var b bytes.Buffer
	if v.Unfinished {
		b.WriteString("NOT FINISHED: this medium was still being written\n\n")
	}
	line(&b, "DARKMIRROR", v.Title+", "+v.Kind)
	for _, f := range v.Facts {
		line(&b, f.Name, f.Value)
	}
	half := len(v.ID) / 2
	line(&b, "Bundle id", strings.Join(v.ID[:half], " "))
	line(&b, "", strings.Join(v.ID[half:], " "))
	for i, s := range v.Contents {
		name := ""
		if i == 0 {
			name = "Contents"
		}
		line(&b, name, s)
	}
	b.WriteString("\n" + m.blocks() + "\n" + caution + "\n")
	return b.Bytes(), nil
}

// line writes a value behind its name, on further lines where it is long.
func line(b *bytes.Buffer, name, value string) {
	const width = 80 - 15
	for {
		now, rest := value, ""
		if r := []rune(value); len(r) > width {
			at := strings.LastIndexByte(string(r[:width]), ' ')
			if at <= 0 {
				at = len(string(r[:width]))
			}
			now, rest = value[:at], strings.TrimLeft(value[at:], " ")
		}
		fmt.Fprintf(b, "%-15s%s\n", name, now)
		if rest == "" {
			return
		}
		name, value = "", rest
	}
}
