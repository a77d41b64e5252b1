package report

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed report.html
var markup string

//go:embed report.css
var style string

// HTML writes the page.
func (d *Document) HTML(w io.Writer) error {
	n, err := d.normal()
	if err != nil {
		return err
	}
	t, err := template.New("report").Funcs(template.FuncMap{"t": show, "n": name, "number": number}).Parse(markup)
	if err != nil {
		return err
	}
	p := n.page()
	css := style + n.pageFoot()
	// Nothing of the style is from outside: the part that is not embedded is
	// made of numbers and hex digits.
	p.CSS = template.CSS(css) //nolint:gosec // see above
	sum := sha256.Sum256([]byte(css))
	p.CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	out := bufio.NewWriterSize(w, 64<<10)
	if err := t.Execute(out, p); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return out.Flush()
}

// pageFoot names the bundle at the foot of each printed page, so that loose
// sheets can be put together again.
func (d *Document) pageFoot() string {
	hex := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'f' {
			return r
		}
		return -1
	}, strings.TrimPrefix(d.Bundle.ID, "sha256:"))
	if hex == "" {
		return ""
	}
	return fmt.Sprintf("@media print{@page{@bottom-left{content:\"bundle %06d  %s\";font:9pt sans-serif;color:#444}}}\n", d.Bundle.Seq, hex[:min(16, len(hex))])
}
