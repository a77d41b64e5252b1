package trivy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

const (
	// window and overlap are Trivy's: a text is looked at in windows, so that
	// memory is flat in its size.
	window  = secret.DefaultBufferSize
	overlap = secret.DefaultOverlap
	// headSize is of a text's start all that decides whether it is a text.
	headSize = 300
	// minSecretFile is the shortest file that Trivy looks at.
	minSecretFile = 10
	// maxPerRule bounds the findings of one rule in one file. Whoever has
	// looked at twenty has seen what the file is.
	maxPerRule = 20

	secretSettings = "secrets/1: all built-in rules; text and strings of .pyc, wherever they lie; no other binary files, no UTF-16"
)

// Secrets is the inspector of secrets. All of a process share one.
func (s *Scanner) Secrets() scan.Inspector { return theSecrets() }

// theSecrets builds the one secret scanner that a process may have: Trivy's
// constructor writes to a variable of its package.
var theSecrets = sync.OnceValue(func() *secrets {
	sc := secret.NewScanner(nil)
	s := &secrets{scanner: sc, quick: newPrefilter(sc.Rules)}
	s.buffers.New = func() any { return &buffers{text: make([]byte, window)} }
	return s
})

// secrets looks for secrets with Trivy's built-in rules. Trivy itself skips
// tests, examples, documentation, translations, system folders and much else
// by path; here every text is looked at, wherever it lies, so that findings
// depend on bytes alone. Where a rule asks for a file's name (Maven's
// settings.xml), the document's root element is asked for instead.
type secrets struct {
	scanner secret.Scanner
	quick   *prefilter
	buffers sync.Pool
}

type buffers struct {
	text []byte
	hits []hit
	has  []bool   // by literal
	rule [][]span // by rule
	// folded says that there are letters that fold to ASCII letters.
	folded bool
}

// Engine implements [scan.Inspector].
func (*secrets) Engine() scan.Engine {
	return scan.Engine{Name: "trivy-secrets", Version: version, Settings: secretSettings}
}

// ByContent implements [scan.Inspector].
func (*secrets) ByContent() bool { return true }

// Inspect implements [scan.Inspector].
func (s *secrets) Inspect(ctx context.Context, f *walk.File) ([]scan.Finding, error) {
	if !f.Regular() || f.Opened || f.Size < minSecretFile {
		return nil, nil
	}
	var r io.Reader = f.Reader()
	if f.Kind == walk.PYC {
		r = &printable{r: r}
	} else if binary, err := isBinary(f); err != nil || binary {
		return nil, err
	}
	found, err := s.find(ctx, r, s.quick)
	if err != nil {
		return nil, err
	}
	return report(found, s.scanner.Rules), nil
}

// isBinary is Trivy's test: control characters in the first bytes.
func isBinary(f *walk.File) (bool, error) {
	head := make([]byte, min(headSize, f.Size))
	if _, err := io.ReadFull(f.Reader(), head); err != nil {
		return false, err
	}
	return bytes.ContainsFunc(head, func(r rune) bool {
		return r < 7 || r == 11 || 13 < r && r < 27 || 27 < r && r < 0x20 || r == 0x7f
	}), nil
}

// A match is a secret's place in a file.
type match struct {
	rule       int
	start      int64
	first, end int // lines
}

// find looks through a text in the windows that Trivy would use, and answers
// what Trivy would find. Without a prefilter it tries every rule.
func (s *secrets) find(ctx context.Context, r io.Reader, quick *prefilter) ([]match, error) {
	b, ok := s.buffers.Get().(*buffers)
	if !ok {
		return nil, errors.New("secrets: no buffer")
	}
	defer s.buffers.Put(b)
	var found []match
	seen := make(map[match]bool)
	name := "text"
	kept, line := 0, 0
	offset := int64(0)
	look := func(text []byte) {
		for _, m := range s.window(name, text, quick, b) {
			m.start += offset
			m.first += line
			m.end += line
			if !seen[m] {
				seen[m] = true
				found = append(found, m)
			}
		}
	}
	for {
		if err := ended(ctx); err != nil {
			return nil, err
		}
		n, err := io.ReadFull(r, b.text[kept:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		if n == 0 {
			break
		}
		text := b.text[:kept+n]
		if offset == 0 && kept == 0 {
			name = settingsName(text)
		}
		look(text)
		if done := len(text) - overlap; done > 0 {
			line += bytes.Count(text[:done], []byte{'\n'})
			offset += int64(done)
			copy(b.text, text[done:])
			kept = overlap
		} else {
			kept = len(text) // a short file; it is not read twice
			break
		}
	}
	if offset > 0 {
		// Trivy looks at the last bytes once more, where a rule that asks for
		// the start of a text may find what it did not find before.
		look(b.text[:kept])
	}
	return found, nil
}

// settingsName gives a document of Maven's the name that rules ask for.
func settingsName(text []byte) string {
	if !bytes.HasPrefix(bytes.TrimLeft(text, "\ufeff \t\r\n"), []byte("<")) {
		return "text"
	}
	switch {
	case bytes.Contains(text, []byte("<settingsSecurity")):
		return "settings-security.xml"
	case bytes.Contains(text, []byte("<settings")):
		return "settings.xml"
	}
	return "text"
}

// window applies rules to one window.
func (s *secrets) window(name string, text []byte, quick *prefilter, b *buffers) []match {
	var spans [][]span
	if quick != nil {
		spans = quick.spans(text, b)
		if spans == nil {
			return nil
		}
	}
	var lower []byte
	var found []match
	for i, rule := range s.scanner.Rules {
		if !rule.MatchPath(name) || rule.AllowPath(name) {
			continue
		}
		at := []span{{0, len(text)}}
		if quick != nil {
			if at = spans[i]; len(at) == 0 {
				continue
			}
		}
		if quick == nil || b.folded || !quick.rules[i].keywords {
			if lower == nil {
				lower = bytes.ToLower(text)
			}
			if !rule.MatchKeywords(lower) {
				continue
			}
		}
		for _, sp := range at {
			for _, loc := range s.scanner.FindLocations(rule, text[sp.from:sp.to]) {
				loc.Start, loc.End = loc.Start+sp.from, loc.End+sp.from
				if excluded(rule.ExcludeBlock, text, loc) || excluded(s.scanner.ExcludeBlock, text, loc) {
					continue
				}
				first := bytes.Count(text[:loc.Start], []byte{'\n'}) + 1
				found = append(found, match{i, int64(loc.Start), first, first + bytes.Count(text[loc.Start:loc.End], []byte{'\n'})})
			}
		}
	}
	return found
}

func excluded(e secret.ExcludeBlock, text []byte, loc secret.Location) bool {
	for _, re := range e.Regexes {
		for _, b := range re.FindAllIndex(text, -1) {
			if (secret.Location{Start: b[0], End: b[1]}).Match(loc) {
				return true
			}
		}
	}
	return false
}

// report makes findings. Nothing of the text goes into them.
func report(found []match, rules []secret.Rule) []scan.Finding {
	slices.SortFunc(found, func(a, b match) int {
		if a.rule != b.rule {
			return a.rule - b.rule
		}
		return int(min(max(a.start-b.start, -1), 1))
	})
	var out []scan.Finding
	count := make(map[int]int)
	last := make(map[int]int)
	for _, m := range found {
		if count[m.rule]++; count[m.rule] > maxPerRule {
			continue
		}
		r := rules[m.rule]
		last[m.rule] = len(out)
		out = append(out, scan.Finding{
			Kind: scan.KindSecret, ID: "SECRET-" + strings.ToUpper(r.ID), Severity: severity(r.Severity),
			Text: fmt.Sprintf("%s in line %d", r.Title, m.first),
		})
	}
	for rule, n := range count {
		if n > maxPerRule {
			out[last[rule]].Text += fmt.Sprintf(", and %d more in this file", n-maxPerRule)
		}
	}
	return out
}

// printable is a binary file's printable strings of more than four bytes, one
// a line, as Trivy extracts them.
type printable struct {
	r    io.Reader
	in   []byte
	run  []byte // printable bytes so far
	out  []byte // lines to hand out
	end  error
	long bool // the run goes on; its start was handed out
}

const (
	minRun = 5
	// maxRun bounds what is kept of a run before it is handed out.
	maxRun   = 32 << 10
	readSize = 32 << 10
)

func (p *printable) Read(b []byte) (int, error) {
	for len(p.out) == 0 {
		if p.end != nil {
			return 0, p.end
		}
		p.fill()
	}
	n := copy(b, p.out)
	p.out = p.out[n:]
	return n, nil
}

func (p *printable) fill() {
	if p.in == nil {
		p.in = make([]byte, readSize)
	}
	p.out = p.out[:0]
	n, err := p.r.Read(p.in)
	for _, c := range p.in[:n] {
		if unicode.IsPrint(rune(c)) {
			if p.run = append(p.run, c); len(p.run) == maxRun {
				p.out = append(p.out, p.run...)
				p.run, p.long = p.run[:0], true
			}
			continue
		}
		p.flush()
	}
	if err != nil {
		p.flush()
		p.end = err
	}
}

func (p *printable) flush() {
	if len(p.run) >= minRun || p.long {
		p.out = append(p.out, p.run...)
		p.out = append(p.out, '\n')
	}
	p.run, p.long = p.run[:0], false
}
