package trivy

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"
	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// sample makes a text that an expression matches, or "".
func sample(r *rand.Rand, re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		s := string(re.Rune)
		if re.Flags&syntax.FoldCase != 0 && r.IntN(2) == 0 {
			s = strings.ToUpper(s)
		}
		return s
	case syntax.OpCharClass:
		if len(re.Rune) > 2 && re.Rune[len(re.Rune)-1] > 0xffff {
			return "-" // nearly everything is allowed
		}
		for range 200 {
			i := r.IntN(len(re.Rune)/2) * 2
			c := re.Rune[i] + rune(r.IntN(int(re.Rune[i+1]-re.Rune[i])+1))
			if c >= ' ' && c < 0x7f {
				return string(c)
			}
		}
		return string(re.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "."
	case syntax.OpCapture:
		return sample(r, re.Sub[0])
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat:
		var b strings.Builder
		n := re.Min
		switch {
		case re.Op == syntax.OpQuest:
			n = r.IntN(2)
		case re.Op != syntax.OpRepeat:
			n = 1 + r.IntN(1+r.IntN(60))
		case re.Max > re.Min:
			n += r.IntN(re.Max - re.Min + 1)
		}
		for range n {
			b.WriteString(sample(r, re.Sub[0]))
		}
		return b.String()
	case syntax.OpConcat:
		var b strings.Builder
		for _, s := range re.Sub {
			b.WriteString(sample(r, s))
		}
		return b.String()
	case syntax.OpAlternate:
		return sample(r, re.Sub[r.IntN(len(re.Sub))])
	}
	return ""
}

// secretOf makes a secret that the rule finds when it stands on a line alone.
func secretOf(t *testing.T, r *rand.Rand, rule secret.Rule) string {
	t.Helper()
	re, err := syntax.Parse(rule.Regex.String(), syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		s := sample(r, re)
		lower := []byte(strings.ToLower(s))
		if rule.MatchKeywords(lower) && len(theSecrets().scanner.FindLocations(rule, []byte(" "+s+"\n"))) > 0 {
			return s
		}
	}
	t.Fatalf("no sample for rule %s", rule.ID)
	return ""
}

// place is what is compared.
type place struct {
	Rule       string
	First, End int
	Offset     int64
}

func ours(t *testing.T, text []byte, quick *prefilter) []place {
	t.Helper()
	s := theSecrets()
	found, err := s.find(t.Context(), bytes.NewReader(text), quick)
	if err != nil {
		t.Fatal(err)
	}
	var list []place
	for _, m := range found {
		list = append(list, place{s.scanner.Rules[m.rule].ID, m.first, m.end, m.start})
	}
	return sorted(list)
}

func trivys(text []byte) []place {
	s := theSecrets()
	got := s.scanner.Scan(secret.ScanArgs{FilePath: settingsName(text[:min(len(text), window)]), Content: bytes.NewReader(text)})
	var list []place
	for _, f := range got.Findings {
		list = append(list, place{f.RuleID, f.StartLine, f.EndLine, int64(f.Offset)})
	}
	return sorted(list)
}

func sorted(list []place) []place {
	slices.SortFunc(list, func(a, b place) int {
		return strings.Compare(fmt.Sprintf("%s %12d %d", a.Rule, a.Offset, a.End), fmt.Sprintf("%s %12d %d", b.Rule, b.Offset, b.End))
	})
	return list
}

// same compares Trivy with ours, with the prefilter and without.
func sameSecrets(t *testing.T, what string, text []byte) int {
	t.Helper()
	want := trivys(text)
	if diff := cmp.Diff(want, ours(t, text, theSecrets().quick)); diff != "" {
		t.Errorf("%s: with the prefilter (-Trivy +ours):\n%s", what, diff)
	}
	if diff := cmp.Diff(want, ours(t, text, nil)); diff != "" {
		t.Errorf("%s: without the prefilter (-Trivy +ours):\n%s", what, diff)
	}
	return len(want)
}

// filler makes lines of words, some of them the rules' keywords.
func filler(r *rand.Rand, size int) []byte {
	words := strings.Fields("the key of a token is secret password master asia live_ test_ sk_live pk. SG. SK dapi lob linear linkedin discord aws_key sv= sig= ----- BEGIN .eyJ hf_ npm_ import return self.value = 0x1f # note {}")
	for _, rule := range theSecrets().scanner.Rules {
		words = append(words, rule.Keywords...)
	}
	var b bytes.Buffer
	for b.Len() < size {
		for range 1 + r.IntN(12) {
			b.WriteString(words[r.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func TestPrefilterFindsWhatTrivyFindsForEveryRule(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := theSecrets()
	if s.quick == nil {
		t.Fatal("the built-in rules do not fit the prefilter")
	}
	if len(s.scanner.Rules) < 80 {
		t.Fatalf("%d built-in rules, want at least 80", len(s.scanner.Rules))
	}
	for _, rule := range s.scanner.Rules {
		secret := secretOf(t, r, rule)
		head := ""
		if rule.Path != nil {
			head = "<settings>\n"
			if rule.MatchPath("settings-security.xml") {
				head = "<settingsSecurity>\n"
			}
		}
		text := []byte(head + "x\n" + secret + "\ny\n")
		if n := sameSecrets(t, rule.ID, text); n == 0 {
			t.Errorf("%s: Trivy does not find %q", rule.ID, secret)
		}
	}
}

func TestPrefilterFindsWhatTrivyFindsInLongTexts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 53))
	rules := theSecrets().scanner.Rules
	total := 0
	for round := range 4 {
		text := filler(r, 1000+r.IntN(window))
		for range 20 {
			s := secretOf(t, r, rules[r.IntN(len(rules))])
			// Anywhere, also at the edges of windows and cut off.
			at := r.IntN(len(text))
			if r.IntN(3) == 0 {
				at = min(len(text), (1+r.IntN(3))*(window-overlap)+r.IntN(200)-100)
			}
			if r.IntN(5) == 0 {
				s = s[:r.IntN(len(s)+1)]
			}
			sep := []string{"\n", "", " ", "é", "\xff", "\u212a", "\u017f", "\u0130", "x"}[r.IntN(9)]
			text = slices.Concat(text[:at], []byte(sep+s+sep), text[at:])
		}
		total += sameSecrets(t, fmt.Sprintf("text %d of %d bytes", round, len(text)), text)
		if t.Failed() {
			t.FailNow()
		}
	}
	if total < 20 {
		t.Errorf("Trivy found %d secrets in all, want at least 20", total)
	}
}

// TestPrefilterFindsWhatTrivyFindsInSources compares over a part of Go's own
// source, which has about everything that looks like a key, and no secret.
func TestPrefilterFindsWhatTrivyFindsInSources(t *testing.T) {
	root := filepath.Join(goroot(t), "src", "crypto")
	files, size := 0, 0
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || files >= 300 {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		if len(b) > 0 && len(b) < 300_000 {
			size += len(b)
			sameSecrets(t, d.Name(), b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 || size < 1<<20 {
		t.Errorf("%d bytes in %d files, want a megabyte in 100", size, files)
	}
}

func goroot(tb testing.TB) string {
	tb.Helper()
	out, err := exec.CommandContext(tb.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func FuzzPrefilter(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	seeds := 0
	for _, rule := range theSecrets().scanner.Rules {
		re, err := syntax.Parse(rule.Regex.String(), syntax.Perl)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte("a " + sample(r, re) + "\n"))
		seeds++
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 {
			return
		}
		sameSecrets(t, "text", text)
	})
}

func inspect(t *testing.T, kind walk.Kind, text []byte) []scan.Finding {
	t.Helper()
	list, err := gathering(t).Secrets().Inspect(t.Context(), walk.NewFile(kind, text, "pkg.whl", "tests/example/vendor/a.md"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The built-in allow rules skip paths such as this one (trap 8).
func TestSecretsAreFoundWhereverTheyLie(t *testing.T) {
	got := inspect(t, walk.Text, []byte("# comment\ntoken = ghp_"+strings.Repeat("Ab1", 12)+"\n"))
	want := []scan.Finding{{
		Kind: scan.KindSecret, ID: "SECRET-GITHUB-PAT", Severity: scan.Critical, Text: "GitHub Personal Access Token in line 2",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestSecretIsInNoText(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, rule := range theSecrets().scanner.Rules {
		planted := secretOf(t, r, rule)
		head := "<settings>\n"
		if rule.MatchPath("settings-security.xml") && rule.Path != nil {
			head = "<settingsSecurity>\n"
		}
		list := inspect(t, walk.Text, []byte(head+" "+planted+"\n"))
		if len(list) == 0 {
			t.Errorf("%s: nothing found", rule.ID)
		}
		known := make(map[string]secret.Rule)
		for _, r := range theSecrets().scanner.Rules {
			known["SECRET-"+strings.ToUpper(r.ID)] = r
		}
		for _, f := range list {
			// A finding is made of the rule and the line, and of nothing else.
			line := strings.TrimPrefix(f.Text, known[f.ID].Title+" in line ")
			f.Text = ""
			want := scan.Finding{Kind: scan.KindSecret, ID: f.ID, Severity: severity(known[f.ID].Severity)}
			if !cmp.Equal(want, f) || !regexp.MustCompile(`^[0-9]+(, and [0-9]+ more in this file)?$`).MatchString(line) {
				t.Errorf("%s: finding %+v, line %q: more than rule and line", rule.ID, f, line)
			}
		}
	}
}

func TestSecretsOfBinaryFiles(t *testing.T) {
	token := []byte("\x00\x01\x02garbage\x00token=ghp_" + strings.Repeat("Ab1", 12) + "\x00\x07more")
	if got := ids(inspect(t, walk.PYC, token)); !slices.Equal(got, []string{"secret SECRET-GITHUB-PAT"}) {
		t.Errorf(".pyc: %v, want the token", got)
	}
	if got := inspect(t, walk.ELF, token); got != nil {
		t.Errorf("ELF: %v, want nothing: it is not covered", got)
	}
	if e := gathering(t).Secrets().Engine(); !strings.Contains(e.Settings, "no other binary files") {
		t.Errorf("settings %q do not state the coverage", e.Settings)
	}
}

// Strings of binary files come as Trivy extracts them.
func TestPrintable(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		in := make([]byte, r.IntN(4*readSize))
		for i := range in {
			in[i] = byte(r.IntN(256))
			if r.IntN(3) > 0 {
				in[i] = byte(' ' + r.IntN(90))
			}
		}
		got, err := io.ReadAll(&printable{r: bytes.NewReader(in)})
		if err != nil {
			t.Fatal(err)
		}
		if want := printableOfTrivy(in); !bytes.Equal(want, got) {
			t.Fatalf("%d bytes: strings differ: %d bytes, want %d", len(in), len(got), len(want))
		}
	}
	long := bytes.Repeat([]byte("x"), 3*maxRun+7)
	if got, err := io.ReadAll(&printable{r: bytes.NewReader(long)}); err != nil || !bytes.Equal(got, append(long, '\n')) {
		t.Errorf("a run of %d bytes: %d bytes, %v", len(long), len(got), err)
	}
}

func printableOfTrivy(in []byte) []byte {
	var out, line []byte
	for _, c := range append(slices.Clone(in), 0) {
		if (c >= 0x20 && c < 0x7f) || (c >= 0xa1 && c != 0xad) {
			line = append(line, c)
			continue
		}
		if len(line) > 4 {
			out = append(append(out, line...), '\n')
		}
		line = line[:0]
	}
	return out
}

// A text of any length is looked at, in flat memory.
func TestSecretsOfALongText(t *testing.T) {
	const size = 40 << 20
	line := []byte(strings.Repeat("lorem ipsum ", 8) + "\n")
	text := bytes.Repeat(line, size/len(line))
	lines := bytes.Count(text, []byte{'\n'})
	text = append(text, []byte("ghp_"+strings.Repeat("Ab1", 12)+"\n")...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	list := inspect(t, walk.Text, text)
	runtime.ReadMemStats(&after)
	if len(list) != 1 || list[0].Text != fmt.Sprintf("GitHub Personal Access Token in line %d", lines+1) {
		t.Errorf("findings %+v, want one in line %d", list, lines+1)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("%d bytes allocated for a text of %d", grown, size)
	}
}

func TestFindingsOfOneRuleAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "ghp_%036d\n", i)
	}
	list := inspect(t, walk.Text, []byte(b.String()))
	if len(list) != maxPerRule || !strings.HasSuffix(list[maxPerRule-1].Text, "in line 20, and 80 more in this file") {
		t.Errorf("%d findings, the last %q", len(list), list[len(list)-1].Text)
	}
}

func corpus(b *testing.B) [][]byte {
	b.Helper()
	var all [][]byte
	for _, root := range []string{filepath.Join(goroot(b), "src", "net"), "/usr/lib/python3.11"} {
		n := 0
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || n > 10<<20 || !hasSuffix(p, ".go", ".py") {
				return nil //nolint:nilerr // a missing folder is less to measure
			}
			text, err := os.ReadFile(p)
			n += len(text)
			all = append(all, text)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return all
}

func BenchmarkSecrets(b *testing.B) {
	all := corpus(b)
	size := int64(0)
	for _, t := range all {
		size += int64(len(t))
	}
	for name, quick := range map[string]*prefilter{"prefilter": theSecrets().quick, "every rule": nil} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				for _, text := range all {
					if _, err := theSecrets().find(b.Context(), bytes.NewReader(text), quick); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("Trivy", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			for _, text := range all {
				trivys(text)
			}
		}
	})
}
