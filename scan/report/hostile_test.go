package report

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/scan"
)

// resource finds what a browser would load or run.
var resource = regexp.MustCompile(`(?i)<(script|link|img|image|iframe|object|embed|svg|video|audio|source|base|form|input|button)[\s/>]|<[^>]*\s(on[a-z]+|style|src|srcset|action|background|poster|ping)\s*=|url\(|@import|javascript:|data:`)

// withoutText removes what a browser shows as text, and what must be there:
// what is left is the page's own markup.
func withoutText(p string) string {
	p = strings.Replace(p, `<meta http-equiv="Content-Security-Policy"`, "<meta", 1)
	return regexp.MustCompile(`>[^<]*<`).ReplaceAllString(p, "><")
}

// Nothing of the page is loaded, whatever texts hold.
func TestLoadsNothing(t *testing.T) {
	for name, d := range map[string]*Document{"clean": clean(), "full": full(), "hostile": hostile(), "empty": {}} {
		p := render(t, d)
		m := withoutText(p)
		if got := resource.FindString(m); got != "" {
			t.Errorf("%s: %q", name, got)
		}
		// The style is in none of the texts that withoutText removes alone.
		_, style, _ := strings.Cut(p, "<style>")
		style, _, _ = strings.Cut(style, "</style>")
		if got := resource.FindString(style); got != "" || len(style) < 1000 || strings.Contains(style, "http") {
			t.Errorf("%s: style has %q", name, got)
		}
		if strings.Contains(m, "http") {
			t.Errorf("%s: the markup has an address", name)
		}
		// In a page whose texts have no address there is none at all.
		if name != "hostile" && strings.Count(p, "http") != 1 {
			t.Errorf("%s: %d times http, want the one of http-equiv", name, strings.Count(p, "http"))
		}
		if n := strings.Count(p, "<style"); n != 1 {
			t.Errorf("%s: %d styles", name, n)
		}
	}
}

// Only the page's own style is allowed, by its digest.
func TestContentSecurityPolicy(t *testing.T) {
	p := render(t, full())
	m := regexp.MustCompile(`<meta http-equiv="Content-Security-Policy" content="([^"]*)">`).FindStringSubmatch(p)
	if m == nil {
		t.Fatal("no policy")
	}
	_, style, _ := strings.Cut(p, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	if got := html.UnescapeString(m[1]); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if strings.Index(p, "Content-Security-Policy") > strings.Index(p, "<title>") {
		t.Error("the policy comes after text")
	}
}

const evil = "</style></title><script>alert(1)</script>\"'`><img src=http://evil.example/x onerror=alert(1)>{{.}} \x1b]0;owned\x07 \u202egpj.exe \x00 \xff \u2066bidi\u2069"

// hostile has a hostile text in every field that can hold one.
func hostile() *Document {
	d := full()
	long := strings.Repeat("w", 5000)
	d.Tool, d.NotScannedFor = evil, []string{evil}
	d.Bundle.Stream, d.Bundle.ID, d.Bundle.Prev = evil, evil, evil
	d.Bundle.SignedBy, d.Bundle.ApprovedBy = []Key{{evil, evil}}, []Key{{evil, evil}}
	d.Engines = []Engine{{Name: evil, Version: evil, For: evil, Database: evil, Note: evil, MaxAge: 1}}
	f := scan.Finding{Scanner: evil, Kind: evil, ID: evil, Severity: evil, Text: evil + long, Path: evil + " › " + long, Package: evil, Fixed: evil}
	d.Held = []Held{{evil, evil, evil, evil, evil}, {evil, long, evil, evil, evil}}
	d.Missing = []Missing{{evil, evil, evil, evil, evil}}
	d.Waived = []Waived{{Source: evil, Name: evil, Version: evil, Finding: evil, Scanner: evil, Severity: evil, Owner: evil, Reason: long, Expires: evil}}
	d.Findings = []Finding{
		{evil, evil, evil, f, scan.ActionHold, evil},
		{evil, "w", evil, f, scan.ActionWarn, ""},
		{evil, evil, evil, f, scan.ActionWaived, ""},
	}
	d.Changes = []Change{{New, evil, evil, evil, evil, evil, -1}, {Changed, evil, long, evil, evil, evil, 1}, {Gone, evil, evil, evil, evil, evil, 1}}
	d.Sources = []Source{{Name: evil, Snapshot: evil, Artifacts: 1}}
	d.Everything = []Item{{evil, evil, evil, evil, 1, 1, evil, 1}, {"unlisted " + evil, evil, evil, evil, 1, 1, evil, 0}}
	d.Withdrawn = []Withdrawal{{evil, evil, evil, evil, evil, evil}}
	return d
}

func TestHostileText(t *testing.T) {
	p := render(t, hostile())
	for _, bad := range []string{"\x1b", "\x00", "\x07", "\xff", "\u202e", "\u2066", "<script", "<img", "{{", "`>"} {
		if i := strings.Index(p, bad); i >= 0 && bad != "{{" && bad != "`>" {
			t.Errorf("%q is on the page: %q", bad, p[max(0, i-40):i+40])
		}
	}
	for _, want := range []string{"&lt;script&gt;alert(1)", "&lt;U&#43;001B&gt;", "&lt;U&#43;202E&gt;", "&lt;byte FF&gt;", "&lt;U&#43;0000&gt;", "more characters in the JSON twin"} {
		if !strings.Contains(p, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	// All elements are the template's own: those of a page without hostile
	// text.
	known := make(map[string]bool)
	tag := regexp.MustCompile(`<[a-z0-9]+`)
	for _, s := range tag.FindAllString(render(t, full()), -1) {
		known[s] = true
	}
	for _, s := range tag.FindAllString(p, -1) {
		if !known[s] {
			t.Errorf("foreign element %s", s)
		}
	}
	if len(known) < 20 {
		t.Fatalf("%d elements", len(known))
	}
	// What a browser sees as text has every field's text.
	if n := strings.Count(p, "onerror=alert(1)&gt;"); n < 40 {
		t.Errorf("hostile text is shown %d times", n)
	}
	// A page of long texts stays small.
	if len(p) > 300_000 {
		t.Errorf("%d bytes", len(p))
	}
}

// A page of 50,000 artifacts is small enough for any browser, and its twin has
// all of them.
func TestLarge(t *testing.T) {
	d := clean()
	d.Sources, d.Everything, d.Changes = nil, nil, nil
	const n = 50_000
	for i := range 5 {
		d.Sources = append(d.Sources, Source{Name: fmt.Sprintf("apt/s%d", i), Artifacts: n / 5})
	}
	for i := range n {
		source, name := fmt.Sprintf("apt/s%d", i%5), fmt.Sprintf("package-%05d", i)
		d.Everything = append(d.Everything, Item{Source: source, Name: name, Version: "1.0-1", Why: "all of the suite", Size: 1 << 20, Files: 1, Verdict: "clean"})
		d.Changes = append(d.Changes, Change{Kind: New, Source: source, Name: name, Version: "1.0-1", Size: 1 << 20})
		d.Held = append(d.Held, Held{Source: source, Name: name, Version: "0.9", Code: "SCAN-FINDING", Reason: "x"})
		for range 2 {
			d.Findings = append(d.Findings, Finding{source, name, "0.9", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: fmt.Sprintf("CVE-%d", i), Severity: scan.High, Text: "text"}, scan.ActionHold, ""})
		}
	}
	for i := range 1000 {
		d.Findings = append(d.Findings, Finding{"apt/s0", "package-00000", "0.9", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: fmt.Sprintf("CVE-X-%d", i), Severity: scan.Critical, Text: "text"}, scan.ActionHold, ""})
	}
	start := time.Now()
	p := render(t, d)
	// It takes less than a second, a few with the race detector on a busy
	// machine; a quadratic step would take far longer.
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %s", took)
	}
	if len(p) > 3_000_000 {
		t.Errorf("%d bytes", len(p))
	}
	for id, want := range map[string][]string{
		"held":       {"Held back 50,000", "and 49,700 more in the JSON twin", "and 962 more in the JSON twin"},
		"new":        {"New and changed 50,000", "and 9,588 more in the JSON twin"},
		"everything": {"10,000 artifacts", "and 9,000 more in the JSON twin"},
	} {
		got := sectionText(t, p, id)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %q", id, w)
			}
		}
	}
	// The artifact with critical findings is the first of all.
	if got := sectionText(t, p, "held"); strings.Index(got, "CVE-X-") > 200 {
		t.Errorf("%.300s", got)
	}
	if n2 := twin(t, d); len(n2.Everything) != n || len(n2.Held) != n || len(n2.Findings) != 2*n+1000 {
		t.Error("the twin lacks some")
	}
	rows := strings.Count(p, "<tr>")
	if rows < 3000 || rows > 7000 {
		t.Errorf("%d rows", rows)
	}
}
