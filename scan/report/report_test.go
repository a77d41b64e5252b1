package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/scan"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// clean is a bundle of two artifacts in which nothing was found.
func clean() *Document {
	return &Document{
		Tool: "darkmirror 0.5.0", At: at("2026-11-22T19:48:07.5Z"),
		Bundle: Bundle{
			Stream: "main", Seq: 42, ID: "sha256:" + strings.Repeat("9f2c7e10", 8), Prev: "sha256:" + strings.Repeat("03abd9e7", 8), Base: 41,
			Made: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"), Volumes: 1, Bytes: 1 << 20,
			SignedBy: []Key{{"exporter-a", "7b1c 90e2"}}, Approvals: 1,
		},
		Engines: []Engine{
			{Name: "trivy", Version: "0.74.0", For: "known vulnerabilities", Database: "sha256:" + strings.Repeat("a1", 32), Dated: at("2026-11-22T13:48:07Z"), MaxAge: 72 * 3600},
			{Name: "clamav", Version: "1.4.6", For: "malware", Database: "sha256:" + strings.Repeat("b2", 32), Dated: at("2026-11-20T19:48:07Z"), MaxAge: 168 * 3600},
			{Name: "secrets", Version: "1", For: "secrets in files"},
		},
		Sources: []Source{{Name: "pypi/main", Artifacts: 2, Files: 3, Bytes: 5 << 20}, {Name: "apt/bookworm"}},
		Everything: []Item{
			{Source: "pypi/main", Name: "numpy", Version: "2.1.0", Why: "requirements.txt:1", Size: 4 << 20, Files: 2, Verdict: "clean"},
			{Source: "pypi/main", Name: "demo", Version: "1.0", Why: "requirements.txt:2", Size: 1 << 20, Files: 1, Verdict: "clean"},
		},
		Changes: []Change{
			{Kind: New, Source: "pypi/main", Name: "numpy", Version: "2.1.0", Why: "requirements.txt:1", Size: 4 << 20},
			{Kind: Changed, Source: "pypi/main", Name: "demo", Version: "1.0", From: "0.9", Why: "requirements.txt:2", Size: 1 << 20},
			{Kind: Changed, Source: "oci/platform", Name: "base:1", Version: "1", From: "1", Size: 10},
			{Kind: Gone, Source: "pypi/main", Name: "old", Version: "0.1", Why: "no longer asked for"},
		},
	}
}

// full is a bundle with something in every section.
func full() *Document {
	d := clean()
	d.Held = []Held{
		{"pypi/main", "examplelib", "2.3.1", "SCAN-FINDING", "CVE-0000-1111 critical"},
		{"pypi/main", "leftpadder", "0.0.1", "POLICY-BLOCK", "abandoned (SEC-398)"},
	}
	d.Findings = []Finding{
		{"pypi/main", "demo", "1.0", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-3", Severity: scan.Medium, Text: "a redirect keeps a header", Path: "demo.whl › demo.dist-info/METADATA", Package: "pkg:pypi/demo@1.0", Fixed: "1.1"}, scan.ActionWarn, ""},
		{"pypi/main", "demo", "1.0", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-9", Severity: scan.Low, Text: "minor"}, scan.ActionAllow, ""},
		{"pypi/main", "numpy", "2.1.0", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-2", Severity: scan.High, Text: "streams open faster than they close", Path: "numpy.whl"}, scan.ActionWaived, ""},
		{"pypi/main", "examplelib", "2.3.1", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "PYSEC-0000-1", Severity: scan.Unknown, Text: "unknown"}, scan.ActionHold, ""},
		{"pypi/main", "examplelib", "2.3.1", scan.Finding{Scanner: "clamav", Kind: scan.KindMalware, ID: "CLAMAV-EICAR", Severity: scan.Critical, Text: "known as EICAR", Path: "examplelib.whl › data.tar.gz › inner.zip › eicar.com"}, scan.ActionHold, ""},
		{"pypi/main", "examplelib", "2.3.1", scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-8", Severity: scan.Low, Text: "low"}, scan.ActionWarn, ""},
	}
	d.Waived = []Waived{
		{Source: "pypi/main", Name: "numpy", Version: "2.1.0", Finding: "CVE-0000-2", Scanner: "trivy", Severity: scan.High, Owner: "M. Okafor", Reason: "limited by the proxy (SEC-412)", Expires: "2026-12-31"},
		{Source: "pypi/main", Name: "oldlib", Finding: "CVE-0000-4", Owner: "J. Lindqvist", Reason: "one notebook", Expires: "2026-11-10"},
		{Source: "pypi/main", Name: "other", Finding: "CVE-0000-5", Owner: "J. Lindqvist", Reason: "planned", Expires: "2026-11-22", Unused: true},
	}
	d.Missing = []Missing{{"pypi/main", "gpulib", "12.4", "FETCH", "files.example answered 404"}}
	d.Withdrawn = []Withdrawal{{Digest: "sha256:" + strings.Repeat("e7", 32), Source: "pypi/main", Name: "litellm", Version: "1.82.7", Reason: "a stolen release", Advisory: "PYSEC-2026-2"}}
	return d
}

func render(t testing.TB, d *Document) string {
	t.Helper()
	var b strings.Builder
	if err := d.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func twin(t testing.TB, d *Document) *Document {
	t.Helper()
	var b bytes.Buffer
	if err := d.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var n Document
	if err := json.Unmarshal(b.Bytes(), &n); err != nil {
		t.Fatal(err)
	}
	return &n
}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil   func(*Document)
		want    string
		head    string
		mention []string
	}{
		"clean": {func(*Document) {}, MayPass, "May pass", []string{"Nothing is held back.", "2 artifacts were looked at for known vulnerabilities, malware and secrets in files."}},
		"held": {func(d *Document) { *d = *full() }, HeldBack, "2 held back", []string{
			"They stay outside", "The other 2 artifacts may pass, 1 of them with a warning and 1 by a waiver.", "1 artifact that was asked for could not be fetched.",
		}},
		"no engine at all": {func(d *Document) { d.Engines = nil }, NotScanned, "Not scanned", []string{"No scanner looked"}},
		"one kind missing": {func(d *Document) { d.NotScannedFor = []string{"malware", "licences"} }, NotScanned, "Not scanned for licences and malware", []string{"Nothing here says"}},
		"and held": {func(d *Document) {
			*d = *full()
			d.NotScannedFor = []string{"malware"}
		}, NotScanned, "Not scanned for malware", []string{"2 artifacts are held back as well."}},
		"old database": {func(d *Document) { d.Engines[0].Dated = d.At.Add(-73 * time.Hour) }, NotScanned, "Not scanned for known vulnerabilities", []string{"was older than allowed"}},
		"undated":      {func(d *Document) { d.Engines[0].Dated = time.Time{} }, NotScanned, "Not scanned for known vulnerabilities", nil},
		"at the limit": {func(d *Document) { d.Engines[0].Dated = d.At.Add(-72 * time.Hour) }, MayPass, "May pass", nil},
		"no limit":     {func(d *Document) { d.Engines[0].Dated, d.Engines[0].MaxAge = d.At.AddDate(-1, 0, 0), 0 }, MayPass, "May pass", nil},
		"expired waiver": {func(d *Document) {
			d.Waived = []Waived{{Source: "pypi/main", Name: "demo", Version: "1.0", Expires: "2026-11-01"}}
		}, MayPass, "May pass", []string{"secrets in files."}},
		"unlooked part": {func(d *Document) {
			d.Findings = []Finding{{"pypi/main", "demo", "1.0", scan.Finding{Kind: scan.KindNotScanned, ID: "ARCHIVE-ENCRYPTED"}, scan.ActionWarn, ""}}
		}, MayPass, "May pass", []string{"1 with a part that no scanner could look at"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := clean()
			tc.spoil(d)
			got, err := Verdict(d)
			if err != nil || got.Outcome != tc.want || got.Headline != tc.head {
				t.Fatalf("got %+v %v, want %s %q", got, err, tc.want, tc.head)
			}
			for _, s := range tc.mention {
				if !strings.Contains(got.Text, s) {
					t.Errorf("%q does not say %q", got.Text, s)
				}
			}
			p := render(t, d)
			if !strings.Contains(p, `class="verdict `+tc.want+`"`) || !strings.Contains(p, "<h1>"+tc.head+"</h1>") {
				t.Error("the page says something else")
			}
			if n := strings.Count(p, "<h1"); n != 1 {
				t.Errorf("%d main headings", n)
			}
		})
	}
}

// A document that contradicts itself is no report.
func TestRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Document){
		"held by a finding but not listed": func(d *Document) { d.Held = d.Held[1:] },
		"unknown action":                   func(d *Document) { d.Findings[0].Action = "" },
		"unknown change":                   func(d *Document) { d.Changes[0].Kind = "moved" },
	} {
		d := full()
		spoil(d)
		var b strings.Builder
		for what, err := range map[string]error{"HTML": d.HTML(&b), "JSON": d.JSON(&b), "SARIF": d.SARIF(&b)} {
			if err == nil || b.Len() > 0 {
				t.Errorf("%s: %s was written: %v", name, what, err)
			}
		}
		if _, err := Verdict(d); err == nil {
			t.Errorf("%s: verdict", name)
		}
	}
}

// The order of the page is the order in which a person decides.
func TestOrder(t *testing.T) {
	p := render(t, full())
	last := -1
	for _, id := range []string{"verdict", "identity", "engines", "held", "missing", "waived", "warnings", "new", "gone", "everything", "withdrawn"} {
		n := strings.Index(p, `<section`+map[bool]string{true: ` class="verdict held-back"`}[id == "verdict"]+` id="`+id+`"`)
		if n <= last {
			t.Errorf("%s is at %d, after %d", id, n, last)
		}
		last = n
	}
	// Every link of the page leads to a section of it.
	links := regexp.MustCompile(`href="#([a-z]+)"`).FindAllStringSubmatch(p, -1)
	if len(links) < 8 || strings.Count(p, "href=") != len(links) {
		t.Fatalf("%d links", len(links))
	}
	for _, l := range links {
		if !strings.Contains(p, `id="`+l[1]+`"`) {
			t.Errorf("no section %s", l[1])
		}
	}
}

// section cuts one section out of the page, as text.
func sectionText(t *testing.T, p, id string) string {
	t.Helper()
	_, rest, ok := strings.Cut(p, ` id="`+id+`"`)
	if !ok {
		t.Fatalf("no section %s", id)
	}
	_, rest, _ = strings.Cut(rest, ">")
	part, _, _ := strings.Cut(rest, "</section>")
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(part, " ")
	return html.UnescapeString(strings.Join(strings.Fields(text), " "))
}

func TestSectionsTell(t *testing.T) {
	d := full()
	p := render(t, d)
	for id, want := range map[string][]string{
		"identity":   {"sha256:" + strings.Repeat("9f2c7e10", 8), "Stream main", "Number 000042", "delta on bundle 000041", "1.0 MiB in 1 volume", "2026-11-22 20:15 UTC", "2027-02-20 20:15 UTC, in 90 days", "exporter-a (7b1c 90e2)", "nobody yet, 1 approval needed", "sha256:" + strings.Repeat("03abd9e7", 8)},
		"engines":    {"known vulnerabilities trivy 0.74.0 Database of 2026-11-22 13:48 UTC, 6 hours old; at most 72 hours allowed sha256:a1a1", "malware clamav 1.4.6", "48 hours old; at most 7 days allowed", "secrets in files secrets 1 Rules are built in"},
		"held":       {"Held back 2", "examplelib 2.3.1 pypi/main Critical CLAMAV-EICAR malware, found by clamav known as EICAR Where examplelib.whl › data.tar.gz › inner.zip › eicar.com What to do Do not open it.", "Unknown PYSEC-0000-1 known vulnerability, found by trivy no fixed version", "1 finding in it that would not hold it back", "leftpadder 0.0.1 pypi/main abandoned (SEC-398) Code POLICY-BLOCK"},
		"missing":    {"gpulib 12.4 files.example answered 404 FETCH"},
		"waived":     {"oldlib pypi/main expired 12 days ago until 2026-11-10", "It no longer counts", "other pypi/main last day", "Not needed: no finding matches it", "numpy 2.1.0 pypi/main 39 days left until 2026-12-31 CVE-0000-2 , High, found by trivy streams open faster than they close numpy.whl M. Okafor : limited by the proxy (SEC-412)"},
		"warnings":   {"Warnings 1", "demo 1.0 pypi/main Medium CVE-0000-3 known vulnerability, found by trivy fixed in 1.1 a redirect keeps a header Where demo.whl › demo.dist-info/METADATA Package pkg:pypi/demo@1.0 What to do Ask for version 1.1 or later.", "1 finding that the policy allows without a warning is in the JSON twin."},
		"new":        {"New and changed 3", "Compared with bundle 000041.", "demo 0.9 → 1.0 requirements.txt:2 1.0 MiB", "base:1 1 same version, other bytes", "numpy 2.1.0 requirements.txt:1 4.0 MiB"},
		"gone":       {"Gone 1", "old 0.1 no longer asked for"},
		"everything": {"pypi/main 2 artifacts, 3 files, 5.0 MiB", "numpy 2.1.0 requirements.txt:1 2 4.0 MiB clean", "apt/bookworm 0 artifacts"},
		"withdrawn":  {"litellm 1.82.7 a stolen release PYSEC-2026-2 sha256:e7e7"},
	} {
		got := sectionText(t, p, id)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %q: %s", id, w, got)
			}
		}
	}
	// The gravest artifact and the gravest finding come first.
	if got := sectionText(t, p, "held"); strings.Index(got, "examplelib") > strings.Index(got, "leftpadder") || strings.Index(got, "CLAMAV-EICAR") > strings.Index(got, "PYSEC") {
		t.Error(got)
	}
	// What is held is no warning.
	if got := sectionText(t, p, "warnings"); strings.Contains(got, "CVE-0000-8") {
		t.Error(got)
	}
	empty := render(t, &Document{Tool: "t", At: d.At})
	for id, want := range map[string]string{
		"held": "Nothing is held back.", "waived": "No waiver was used.", "warnings": "No artifact passes", "new": "Nothing is new", "gone": "Nothing went away.",
		"everything": "There is no source.", "withdrawn": "Nothing is recalled.", "engines": "No scanner looked",
	} {
		if got := sectionText(t, empty, id); !strings.Contains(got, want) {
			t.Errorf("%s of nothing: %s", id, got)
		}
	}
	if strings.Contains(empty, `id="identity"`) || strings.Contains(empty, "Sign-off") {
		t.Error("a scan that is not sealed has an identity")
	}
}

func TestIdentityFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*Bundle)
		want  string
		off   string
	}{
		"expired":         {func(b *Bundle) { b.Expires = at("2026-11-22T19:00:00Z") }, `<strong class="flag">expired</strong>`, ""},
		"unsigned":        {func(b *Bundle) { b.SignedBy = nil }, `<strong class="flag">not signed</strong>`, ""},
		"one of two":      {func(b *Bundle) { b.Approvals, b.ApprovedBy = 2, []Key{{"approver-m", "c41d 0b77"}} }, `approver-m (c41d 0b77), <strong class="flag">1 of 2 approvals</strong>`, ""},
		"approved":        {func(b *Bundle) { b.ApprovedBy = []Key{{"approver-m", "c41d 0b77"}} }, `approver-m (c41d 0b77)</dd>`, "Sign-off"},
		"none is needed":  {func(b *Bundle) { b.Approvals = 0 }, "nobody; none is asked for", ""},
		"first":           {func(b *Bundle) { b.Seq, b.Prev, b.Base = 1, "", 0 }, "This is the first bundle of its stream.", "delta"},
		"page foot":       {func(*Bundle) {}, `content:"bundle 000042  9f2c7e109f2c7e10"`, ""},
		"hostile id foot": {func(b *Bundle) { b.ID = `sha256:"}</style>beef` }, `content:"bundle 000042  ebeef"`, `"}</style>`},
	} {
		d := clean()
		tc.spoil(&d.Bundle)
		p := render(t, d)
		if !strings.Contains(p, tc.want) || tc.off != "" && strings.Contains(p, tc.off) {
			t.Errorf("%s: want %q without %q", name, tc.want, tc.off)
		}
	}
}

func shuffled(d *Document) *Document {
	c := *d
	r := rand.New(rand.NewPCG(1, 2))
	mix := func(n int, swap func(i, j int)) { r.Shuffle(n, swap) }
	c.Engines, c.Held, c.Missing = slices.Clone(d.Engines), slices.Clone(d.Held), slices.Clone(d.Missing)
	c.Waived, c.Findings, c.Changes = slices.Clone(d.Waived), slices.Clone(d.Findings), slices.Clone(d.Changes)
	c.Sources, c.Everything, c.Withdrawn = slices.Clone(d.Sources), slices.Clone(d.Everything), slices.Clone(d.Withdrawn)
	for range 3 {
		mix(len(c.Engines), func(i, j int) { c.Engines[i], c.Engines[j] = c.Engines[j], c.Engines[i] })
		mix(len(c.Held), func(i, j int) { c.Held[i], c.Held[j] = c.Held[j], c.Held[i] })
		mix(len(c.Waived), func(i, j int) { c.Waived[i], c.Waived[j] = c.Waived[j], c.Waived[i] })
		mix(len(c.Findings), func(i, j int) { c.Findings[i], c.Findings[j] = c.Findings[j], c.Findings[i] })
		mix(len(c.Changes), func(i, j int) { c.Changes[i], c.Changes[j] = c.Changes[j], c.Changes[i] })
		mix(len(c.Sources), func(i, j int) { c.Sources[i], c.Sources[j] = c.Sources[j], c.Sources[i] })
		mix(len(c.Everything), func(i, j int) { c.Everything[i], c.Everything[j] = c.Everything[j], c.Everything[i] })
	}
	return &c
}

func TestDeterministic(t *testing.T) {
	d := full()
	before, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	mixed := shuffled(d)
	if cmp.Equal(d, mixed) {
		t.Fatal("nothing was shuffled")
	}
	for what, write := range map[string]func(*Document, *bytes.Buffer) error{
		"HTML":  func(d *Document, b *bytes.Buffer) error { return d.HTML(b) },
		"JSON":  func(d *Document, b *bytes.Buffer) error { return d.JSON(b) },
		"SARIF": func(d *Document, b *bytes.Buffer) error { return d.SARIF(b) },
	} {
		var a, b bytes.Buffer
		if err := write(d, &a); err != nil {
			t.Fatal(err)
		}
		if err := write(mixed, &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%s depends on the order: %s", what, cmp.Diff(a.String(), b.String()))
		}
	}
	if after, err := json.Marshal(d); err != nil || !bytes.Equal(before, after) {
		t.Error("the document was changed", err)
	}
}

func TestTwin(t *testing.T) {
	n := twin(t, full())
	if n.Schema != "darkmirror.report/v1" || n.Verdict.Outcome != HeldBack || !n.At.Equal(at("2026-11-22T19:48:07Z")) {
		t.Fatalf("%+v", n)
	}
	if n.Engines[0].Age != 6*3600 || n.Engines[1].Age != 48*3600 || n.Waived[0].DaysLeft != -12 || n.Waived[2].DaysLeft != 39 {
		t.Errorf("%+v %+v", n.Engines, n.Waived)
	}
	for _, f := range n.Findings {
		if f.Do == "" || f.Source == "" || f.ID == "" {
			t.Errorf("%+v", f)
		}
	}
	// Written again it is the same.
	if diff := cmp.Diff(n, twin(t, n)); diff != "" {
		t.Error(diff)
	}
	// Lists are never null, and names are those that are documented.
	var b bytes.Buffer
	if err := (&Document{}).JSON(&b); err != nil {
		t.Fatal(err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b.Bytes(), &keys); err != nil || bytes.Contains(b.Bytes(), []byte("null")) {
		t.Fatal(err, b.String())
	}
	want := []string{"at", "bundle", "changes", "engines", "everything", "findings", "held", "missing", "not_scanned_for", "schema", "sources", "tool", "verdict", "waived", "withdrawn"}
	var got []string
	for k := range keys {
		got = append(got, k)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// update rewrites the golden files; a change of them must be read.
const update = "DARKMIRROR_UPDATE_GOLDEN"

func TestGolden(t *testing.T) {
	d := full()
	for name, write := range map[string]func(*bytes.Buffer) error{
		"full.html":  func(b *bytes.Buffer) error { return d.HTML(b) },
		"full.json":  func(b *bytes.Buffer) error { return d.JSON(b) },
		"full.sarif": func(b *bytes.Buffer) error { return d.SARIF(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		// The style changes often and is looked at in a browser; the
		// structure is compared here.
		got := regexp.MustCompile(`(?s)<style>.*?</style>`).ReplaceAll(b.Bytes(), []byte("<style></style>"))
		got = regexp.MustCompile(`sha256-[^&]*(&#43;[^&]*)*`).ReplaceAll(got, []byte("sha256-"))
		file := filepath.Join("testdata", name)
		if os.Getenv(update) != "" {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (set %s to rewrite): %s", name, update, diff)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 18_146_000_000: "16.9 GiB", 1 << 62: "4.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 50000: "50,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := number(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{time.Second: "1 second", 5 * time.Minute: "5 minutes", 72 * time.Hour: "72 hours", 73 * time.Hour: "3 days", -time.Hour: "minus 60 minutes"} {
		if got := span(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
	for days, want := range map[int]string{-2: "expired 2 days ago", -1: "expired", 0: "last day", 1: "1 day left"} {
		if got := left(days); got != want {
			t.Errorf("%d: got %s, want %s", days, got, want)
		}
	}
	if got := daysLeft("tomorrow", at("2026-11-22T00:00:00Z")); got >= 0 {
		t.Errorf("a date that cannot be read counts as %d days left", got)
	}
}

func TestShow(t *testing.T) {
	for in, want := range map[string]string{
		"plain › ünïcode 漢字":                 "plain › ünïcode 漢字",
		"a\x1b[31mb":                         "a<U+001B>[31mb",
		"exe.\u202egpj":                      "exe.<U+202E>gpj",
		"zero\u200bwidth\ufeff":              "zero<U+200B>width<U+FEFF>",
		"nbsp\u00a0line\u2028tab\t":          "nbsp<U+00A0>line<U+2028>tab<U+0009>",
		"bad \xff\xfe utf":                   "bad <byte FF><byte FE> utf",
		"real \ufffd":                        "real <U+FFFD>",
		"e\u0301":                            "e\u0301",
		"a" + strings.Repeat("\u0308", 40):   "a\u0308\u0308\u0308\u0308<36 more marks>",
		"é" + strings.Repeat("x", maxText):   "é" + strings.Repeat("x", maxText-1) + " … (1 more character in the JSON twin)",
		strings.Repeat("\u0308", maxText+10): "\u0308\u0308\u0308\u0308<1,996 more marks> … (10 more characters in the JSON twin)",
	} {
		got := show(in)
		if want == "real <U+FFFD>" {
			want = "real \ufffd"
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := name(strings.Repeat("x", 300)); got != strings.Repeat("x", maxName)+" … (45 more characters in the JSON twin)" {
		t.Errorf("%q", got)
	}
}

func FuzzShow(f *testing.F) {
	seeds := []string{"plain", "\x1b[0m", "\u202e", "\xff", strings.Repeat("\u0308", 9), strings.Repeat("é", maxText+1)}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := show(s)
		marks := 0
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q shows %U", s, r)
			}
			if unicode.In(r, unicode.Mn, unicode.Me) {
				marks++
			} else {
				marks = 0
			}
			if marks > maxMarks {
				t.Fatalf("%q: a tower of marks", got)
			}
		}
		if len([]rune(got)) > 20*maxText {
			t.Fatalf("%d characters", len(got))
		}
	})
}

func ExampleDocument_HTML() {
	var page strings.Builder
	d := &Document{Tool: "darkmirror 0.5.0", At: time.Date(2026, 11, 22, 20, 15, 0, 0, time.UTC)}
	if err := d.HTML(&page); err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, strings.Contains(page.String(), "<h1>Not scanned</h1>"))
	// Output: true
}
