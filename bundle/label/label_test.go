package label

import (
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func sample() Label {
	return Label{
		Stream: "main", Seq: 42, ID: artifact.Sum([]byte("manifest")), Volumes: 5, Base: 41, On: []int{1, 2, 3, 5},
		Here: 12 << 30, Total: 18146118861, SignedBy: []string{"7b1c 90e2"},
		Issued: time.Date(2026, 11, 22, 20, 15, 0, 0, time.UTC), Expires: time.Date(2027, 2, 20, 20, 15, 0, 0, time.UTC),
		Sources: []Source{{"apt/bookworm", 130, 130, 604 << 20}, {"models/llm", 1, 4, 15 << 30}},
	}
}

// longest is a label at every limit of the format.
func longest() Label {
	l := sample()
	l.Stream, l.Seq, l.Volumes, l.Base = strings.Repeat("w", 64), maxSeq, maxVolumes, maxSeq-1
	l.On, l.SignedBy, l.Sources = nil, nil, nil
	for i := range 100 {
		l.On = append(l.On, maxVolumes-300+2*i)
		l.SignedBy = append(l.SignedBy, fmt.Sprintf("%04x 90e2", i))
		l.Sources = append(l.Sources, Source{"apt/" + strings.Repeat("w", 60) + fmt.Sprint(i), 1_000_000, 10_000_000, 1 << 53})
	}
	return l
}

func TestText(t *testing.T) {
	got, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(got), "\n\n")
	if !ok || !strings.HasSuffix(rest, "\n"+caution+"\n") {
		t.Fatalf("got %s", got)
	}
	id := artifact.Sum([]byte("manifest")).Hex()
	var groups []string
	for i := 0; i < len(id); i += 4 {
		groups = append(groups, id[i:i+4])
	}
	want := `DARKMIRROR     main 000042, delta on 000041
Volumes here   1-3, 5 of 5
Size here      12.0 GiB of 16.9 GiB
Issued         2026-11-22T20:15:00Z
Expires        2027-02-20T20:15:00Z
Signed by      7b1c 90e2
Bundle id      ` + strings.Join(groups[:8], " ") + `
               ` + strings.Join(groups[8:], " ") + `
Contents       apt/bookworm: 130 artifacts, 130 files, 604.0 MiB
               models/llm: 1 artifact, 4 files, 15.0 GiB`
	if diff := cmp.Diff(want, head); diff != "" {
		t.Fatal(diff)
	}
}

func TestUnfinished(t *testing.T) {
	l := sample()
	l.Unfinished = true
	for name, form := range map[string]func() ([]byte, error){"text": l.Text, "html": l.HTML} {
		got, err := form()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), "NOT FINISHED") || !strings.Contains(string(got), "not finished, of 5") || strings.Contains(string(got), "1-3") {
			t.Errorf("%s claims volumes that may not be there: %s", name, got)
		}
	}
}

func TestLongestFits(t *testing.T) {
	l := longest()
	got, err := l.Text()
	if err != nil {
		t.Fatal(err)
	}
	for row := range strings.Lines(string(got)) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(row, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, row)
		}
	}
	for _, want := range []string{"and 91 more sources", "and 93 more of 1000000"} {
		if !strings.Contains(strings.Join(strings.Fields(string(got)), " "), want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	page, err := l.HTML()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(page), "<li>"); n != maxLines {
		t.Errorf("%d lines of contents, want %d", n, maxLines)
	}
	if len(l.Code()) > maxCode {
		t.Errorf("code of %d bytes", len(l.Code()))
	}
	if back, err := Parse(l.Code()); err != nil || back.Seq != l.Seq {
		t.Errorf("%+v, %v", back, err)
	}
}

// Names are outside text, whoever fills the label.
func TestHostileNames(t *testing.T) {
	l := sample()
	l.Stream = "\x1b[31m</title><script>alert(1)</script>"
	l.SignedBy = []string{"<img src=x onerror=alert(1)>", "a\u202eb\r\nSigned by c", "\xff\xfe"}
	l.Sources = []Source{{Name: `"><script src="//evil.example/x.js">`}, {Name: "a\nb\tc\u2028d"}}
	text, err := l.Text()
	if err != nil {
		t.Fatal(err)
	}
	page, err := l.HTML()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"text": string(text), "html": string(page)} {
		for _, r := range data {
			if r != '\n' && (unicode.IsControl(r) || !unicode.IsPrint(r)) {
				t.Fatalf("%s holds %U", name, r)
			}
		}
	}
	if strings.Count(string(text), "\nSigned by") != 1 {
		t.Errorf("a name made a line of its own: %s", text)
	}
	for _, tag := range []string{"<script", "<img", "</title><"} {
		if strings.Contains(string(page), tag) {
			t.Errorf("%q is in the page", tag)
		}
	}
	tags(t, page)
}

// tags reads the page as a browser does, roughly, and fails on any element or
// attribute that the template has not.
func tags(t *testing.T, page []byte) {
	t.Helper()
	known := map[string]string{
		"html": "lang", "head": "", "meta": "charset http-equiv content name", "title": "", "style": "", "body": "", "div": "class",
		"main": "", "h1": "class", "h2": "", "p": "class aria-label", "span": "", "svg": "viewBox shape-rendering role aria-label", "path": "fill d",
		"dl": "", "dt": "", "dd": "", "ul": "", "li": "",
	}
	d := xml.NewDecoder(strings.NewReader(string(page)))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	n := 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		n++
		attrs, ok := known[e.Name.Local]
		if !ok {
			t.Errorf("element %s", e.Name.Local)
		}
		for _, a := range e.Attr {
			if !strings.Contains(" "+attrs+" ", " "+a.Name.Local+" ") {
				t.Errorf("attribute %s of %s", a.Name.Local, e.Name.Local)
			}
		}
	}
	if n < 20 {
		t.Fatalf("only %d elements were read", n)
	}
}

func TestPageLoadsNothing(t *testing.T) {
	page, err := sample().HTML()
	if err != nil {
		t.Fatal(err)
	}
	tags(t, page)
	for _, s := range []string{"http:", "https:", "//", "url(", "@import", "src=", "href=", "<script"} {
		if strings.Contains(string(page), s) {
			t.Errorf("the page holds %q", s)
		}
	}
	for _, s := range []string{"default-src &#39;none&#39;", "default-src 'none'"} {
		if strings.Contains(string(page), s) {
			return
		}
	}
	t.Error("the page has no policy that forbids loading")
}

func TestSameLabelSameBytes(t *testing.T) {
	one, err := sample().HTML()
	if err != nil {
		t.Fatal(err)
	}
	two, err := sample().HTML()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(one), string(two)); diff != "" {
		t.Fatal(diff)
	}
}

func TestNew(t *testing.T) {
	m := &bundle.Manifest{
		Stream: "main", Seq: 42, Base: 41, Issued: sample().Issued, Expires: sample().Expires,
		Sources: []bundle.SourceRef{{Name: "apt/bookworm", Artifacts: 1, Files: 2, Bytes: 3}},
	}
	id := artifact.Sum([]byte("x"))
	want := Label{
		Stream: "main", Seq: 42, ID: id, Volumes: 5, Base: 41, Issued: m.Issued, Expires: m.Expires,
		Sources: []Source{{"apt/bookworm", 1, 2, 3}},
	}
	if diff := cmp.Diff(want, New(m, id, 5)); diff != "" {
		t.Fatal(diff)
	}
}

var svgPath = regexp.MustCompile(`<svg viewBox="0 0 (\d+) (\d+)".*<path fill="#000" d="([^"]*)"`)

// fromPage draws the code of the page as a browser would: its view box and its
// rectangles, and nothing that the package computed.
func fromPage(t *testing.T, page []byte) [][]bool {
	t.Helper()
	parts := svgPath.FindStringSubmatch(string(page))
	if parts == nil || parts[1] != parts[2] {
		t.Fatalf("no drawing in %s", page)
	}
	var side int
	if _, err := fmt.Sscan(parts[1], &side); err != nil {
		t.Fatal(err)
	}
	grid := newGrid(side)
	for run := range strings.SplitSeq(strings.TrimSuffix(parts[3], "z"), "z") {
		var x, y, w, back int
		if _, err := fmt.Sscanf(run, "M%d %dh%dv1h-%d", &x, &y, &w, &back); err != nil || w != back {
			t.Fatalf("%q: %v", run, err)
		}
		for i := range w {
			grid[y][x+i] = true
		}
	}
	return grid
}

// fromText draws what a terminal shows, light letters on a dark ground.
func fromText(t *testing.T, text []byte) [][]bool {
	t.Helper()
	var rows [][]bool
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.Trim(line, " █▀▄") != "" {
			continue
		}
		var up, down []bool
		for _, r := range line {
			up = append(up, r == ' ' || r == '▄')
			down = append(down, r == ' ' || r == '▀')
		}
		rows = append(rows, up, down)
	}
	if len(rows) == 0 || len(rows) < len(rows[0]) {
		t.Fatalf("no drawing in %s", text)
	}
	// The last row of modules may have no second half.
	return rows[:len(rows[0])]
}

func newGrid(side int) [][]bool {
	g := make([][]bool, side)
	for y := range g {
		g[y] = make([]bool, side)
	}
	return g
}

// forms draws both forms of a label.
func forms(t *testing.T, l Label) map[string][][]bool {
	t.Helper()
	page, err := l.HTML()
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.Text()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][][]bool{"html": fromPage(t, page), "text": fromText(t, text)}
}

// The drawing is decoded by the decoder of this test, which knows the
// standard and nothing of the encoder.
func TestCodeIsReadable(t *testing.T) {
	for name, l := range map[string]Label{"sample": sample(), "longest": longest(), "least": {Stream: "a", Seq: 1}} {
		for form, grid := range forms(t, l) {
			t.Run(name+" "+form, func(t *testing.T) {
				got, err := decode(grid)
				if err != nil {
					t.Fatal(err)
				}
				if got != l.Code() {
					t.Fatalf("got %q, want %q", got, l.Code())
				}
				back, err := Parse(got)
				if err != nil {
					t.Fatal(err)
				}
				want := Label{Stream: l.Stream, Seq: l.Seq, ID: l.ID, Volumes: l.Volumes}
				if diff := cmp.Diff(want, back); diff != "" {
					t.Fatal(diff)
				}
			})
		}
	}
}

// A scanner that others wrote reads it too.
func TestScannerReadsCode(t *testing.T) {
	zbar, err := exec.LookPath("zbarimg")
	if err != nil {
		t.Skip("zbarimg is not installed: the QR codes were read by this test's own decoder only (Debian: zbar-tools)")
	}
	for name, l := range map[string]Label{"sample": sample(), "longest": longest(), "least": {Stream: "a", Seq: 1}} {
		for form, grid := range forms(t, l) {
			t.Run(name+" "+form, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "code.png")
				writePNG(t, file, grid)
				out, err := exec.CommandContext(t.Context(), zbar, "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file).Output()
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.TrimSuffix(string(out), "\n"); got != l.Code() {
					t.Fatalf("got %q, want %q", got, l.Code())
				}
			})
		}
	}
}

func writePNG(t *testing.T, name string, grid [][]bool) {
	t.Helper()
	const scale = 4
	img := image.NewGray(image.Rect(0, 0, scale*len(grid), scale*len(grid)))
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			c := color.Gray{Y: 255}
			if grid[y/scale][x/scale] {
				c.Y = 0
			}
			img.SetGray(x, y, c)
		}
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestParseRefuses(t *testing.T) {
	id := artifact.Sum([]byte("x")).Hex()
	good := "darkmirror:1:main:000042:" + id + ":5"
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"empty": "", "other prefix": "https" + good, "other version": strings.Replace(good, ":1:", ":2:", 1),
		"upper prefix": strings.Replace(good, "dark", "DARK", 1), "no volumes": strings.TrimSuffix(good, ":5"), "more": good + ":6",
		"line feed": good + "\n", "space": good + " ", "stream": strings.Replace(good, "main", "../main", 1), "no stream": strings.Replace(good, "main", "", 1),
		"long stream": strings.Replace(good, "main", strings.Repeat("a", 65), 1),
		"sequence 0":  strings.Replace(good, "000042", "000000", 1), "short sequence": strings.Replace(good, "000042", "42", 1),
		"long sequence": strings.Replace(good, "000042", "0000042", 1), "signed": strings.Replace(good, "000042", "+00042", 1),
		"beyond": strings.Replace(good, "000042", "9007199254740993", 1), "upper id": strings.Replace(good, id, strings.ToUpper(id), 1),
		"short id": strings.Replace(good, id, id[1:], 1), "volumes signed": strings.TrimSuffix(good, "5") + "-5", "volumes zero": good[:len(good)-1] + "05",
		"too many": good[:len(good)-1] + "1000001", "no number": good[:len(good)-1] + "five", "huge": strings.Repeat("x", 1<<20),
	} {
		got, err := Parse(s)
		if err == nil || got.Stream != "" || len(err.Error()) > 1000 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds := []string{
		sample().Code(), longest().Code(), Label{Stream: "a", Seq: 1}.Code(), prefix, prefix + ":::",
		strings.Replace(sample().Code(), "000042", "0000042", 1), strings.ToUpper(sample().Code()),
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			return
		}
		if l.Code() != s {
			t.Fatalf("%q was read as %q", s, l.Code())
		}
		if _, err := l.Text(); err != nil {
			t.Fatal(err)
		}
	})
}
