package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// fake is an engine that answers by artifact name.
type fake struct {
	name     string
	findings map[string][]Finding
	fails    map[string]error
	start    error
}

func (f *fake) Engine() Engine { return Engine{Name: f.name, Version: "1.0"} }

func (f *fake) Start(context.Context, time.Time) error { return f.start }

func (f *fake) Judge(ctx context.Context, s Subject, _ *Inventory) ([]Finding, error) {
	var list []Finding
	for _, x := range f.findings[s.Artifact.Name] {
		if x.Kind == "" {
			x.Kind = KindMalware // whatever its severity, it holds
		}
		list = append(list, x)
	}
	return list, errors.Join(f.fails[s.Artifact.Name], ctx.Err())
}

func snapshot(source string, ids ...string) *artifact.Snapshot {
	s := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: source}
	for _, id := range ids {
		name, version, _ := strings.Cut(id, " ")
		s.Artifacts = append(s.Artifacts, artifact.Artifact{
			Name: name, Version: version,
			Files: []artifact.File{{Path: name + "-" + version, Digest: artifact.Sum([]byte(id)), Size: int64(len(id))}},
		})
	}
	return s
}

// bytesOf is a content in memory.
type bytesOf struct{ *bytes.Reader }

func (bytesOf) Close() error { return nil }

// opens gives each blob of [snapshot] the bytes of its digest.
func opens(known map[artifact.Digest]string) func(artifact.Digest) (Content, error) {
	return func(d artifact.Digest) (Content, error) {
		s, ok := known[d]
		if !ok {
			return nil, fmt.Errorf("blob %s is not there", d.Short())
		}
		return bytesOf{bytes.NewReader([]byte(s))}, nil
	}
}

// contents are the bytes of the artifacts of [snapshot]: their ids.
func contents(snaps ...*artifact.Snapshot) map[artifact.Digest]string {
	m := make(map[artifact.Digest]string)
	for _, s := range snaps {
		for _, a := range s.Artifacts {
			id := a.Name + " " + a.Version
			m[artifact.Sum([]byte(id))] = id
		}
	}
	return m
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func policy(t *testing.T, c Config) Policy {
	t.Helper()
	p, err := NewPolicy(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// loose lets files of any type pass, since the files here are a few bytes.
var loose = Config{Types: Types{Unknown: ActionAllow}}

func run(t *testing.T, p Policy, judges []Judge, now time.Time, snaps ...*artifact.Snapshot) *Report {
	t.Helper()
	p.config.Types = loose.Types
	r := &Runner{Policy: p, Judges: judges, Open: opens(contents(snaps...)), Scratch: t.TempDir()}
	rep, err := r.Run(t.Context(), snaps, now)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestRunHoldsFindingsAndErrors(t *testing.T) {
	trivy := &fake{name: "trivy", findings: map[string][]Finding{
		"bad":  {{ID: "CVE-0000-2222", Severity: "low"}, {ID: "CVE-0000-1111", Severity: "CRITICAL", Text: "fixed in 2.3.2"}},
		"both": {{ID: "CVE-0000-3333", Severity: "high"}},
	}}
	clam := &fake{name: "clamav", findings: map[string][]Finding{"bad": {{ID: "Eicar", Severity: "odd"}}}, fails: map[string]error{"both": errors.New("daemon gone")}}
	rep := run(t, Policy{}, []Judge{trivy, clam}, noon, snapshot("pypi/main", "good 1.0", "both 1.0", "bad 2.3.1"), snapshot("apt/bookworm", "jq 1.6"))
	want := []Held{
		{Source: "pypi/main", Name: "bad", Version: "2.3.1", Code: CodeMalicious, Reason: "CVE-0000-1111 critical, fixed in 2.3.2 (trivy, 2 more)"},
		{Source: "pypi/main", Name: "both", Version: "1.0", Code: CodeError, Reason: "could not be judged: clamav: daemon gone"},
	}
	if diff := cmp.Diff(want, rep.Held); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	var verdicts []string
	for _, i := range rep.Items {
		verdicts = append(verdicts, i.Name+" "+i.Verdict.String())
	}
	if diff := cmp.Diff([]string{"jq clean", "bad malicious", "both error", "good clean"}, verdicts); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	be, ok := errors.AsType[*BlockedError](rep.Err())
	if !ok || len(be.Held) != 2 {
		t.Fatalf("Err = %v, want a BlockedError of 2", rep.Err())
	}
	wantText := "policy held 2 artifacts back\n" +
		"  pypi/main: bad 2.3.1: CVE-0000-1111 critical, fixed in 2.3.2 (trivy, 2 more) [SCAN-MALICIOUS]\n" +
		"  pypi/main: both 1.0: could not be judged: clamav: daemon gone [SCAN-ERROR]"
	if diff := cmp.Diff(wantText, be.Error()); diff != "" {
		t.Errorf("error text (-want +got):\n%s", diff)
	}
	if err := run(t, Policy{}, nil, noon, snapshot("pypi/main", "good 1.0")).Err(); err != nil {
		t.Errorf("Err of a clean report = %v", err)
	}
}

func TestRunHoldsWhatCannotBeOpened(t *testing.T) {
	damaged := &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "STORE-DAMAGED", Reason: "digest differs"}
	r := &Runner{Open: func(artifact.Digest) (Content, error) { return nil, damaged }}
	rep, err := r.Run(t.Context(), []*artifact.Snapshot{snapshot("pypi/main", "a 1")}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Held) != 1 || rep.Held[0].Code != CodeError || rep.Items[0].Verdict != Error {
		t.Errorf("held %+v, want one SCAN-ERROR", rep.Held)
	}
}

// An engine that cannot work ends the run: holding everything back would take
// away inside what is published there.
func TestRunEndsWithAnEngine(t *testing.T) {
	snap := snapshot("pypi/main", "a 1")
	for name, e := range map[string]*fake{
		"at the start":  {name: "clamav", start: errors.New("no socket")},
		"in the middle": {name: "clamav", fails: map[string]error{"a": fmt.Errorf("%w: gone", ErrEngine)}},
	} {
		r := &Runner{Policy: policy(t, loose), Judges: []Judge{e}, Open: opens(contents(snap))}
		rep, err := r.Run(t.Context(), []*artifact.Snapshot{snap}, noon)
		if !errors.Is(err, ErrEngine) || rep != nil || !strings.Contains(err.Error(), "clamav: ") {
			t.Errorf("%s: %+v, %v, want ErrEngine of clamav", name, rep, err)
		}
	}
}

func TestBlock(t *testing.T) {
	p := policy(t, Config{Block: []Block{
		{Artifact: "pypi/main Example_Lib 2.3.1", Reason: "SEC-412"},
		{Artifact: "pypi/main  every.version", Reason: "SEC-413"},
	}})
	rep := run(t, p, nil, noon,
		snapshot("pypi/main", "example-lib 2.3.1", "example-lib 2.3.2", "every-version 1", "Every.Version 2", "every 1"),
		snapshot("pypi/other", "example-lib 2.3.1"))
	var got []string
	for _, h := range rep.Held {
		got = append(got, fmt.Sprintf("%s %s %s %s %s", h.Source, h.Name, h.Version, h.Code, h.Reason))
	}
	want := []string{
		"pypi/main Every.Version 2 POLICY-BLOCK SEC-413",
		"pypi/main every-version 1 POLICY-BLOCK SEC-413",
		"pypi/main example-lib 2.3.1 POLICY-BLOCK SEC-412",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	if rep.Scanned != 6 {
		t.Errorf("Scanned = %d, want 6", rep.Scanned)
	}
}

func TestWaiver(t *testing.T) {
	cve := &fake{name: "trivy", findings: map[string][]Finding{"lib": {{ID: "CVE-1", Severity: "high", Text: "t"}}}}
	fails := &fake{name: "trivy", fails: map[string]error{"lib": errors.New("broken")}}
	ok := Waiver{Artifact: "pypi/main LIB", Finding: "CVE-1", Owner: "ops", Reason: "not reachable", Expires: "2026-11-22"}
	for name, c := range map[string]struct {
		change  func(*Waiver)
		scanner Judge
		now     time.Time
		waived  bool
	}{
		"last moment":      {nil, cve, time.Date(2026, 11, 22, 23, 59, 59, 999, time.UTC), true},
		"expired":          {nil, cve, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), false},
		"expired long ago": {func(w *Waiver) { w.Expires = "2025-01-01" }, cve, noon, false},
		"this version":     {func(w *Waiver) { w.Artifact += " 1.0" }, cve, noon, true},
		"other version":    {func(w *Waiver) { w.Artifact += " 1.0.0" }, cve, noon, false},
		"other source":     {func(w *Waiver) { w.Artifact = "pypi/next lib" }, cve, noon, false},
		"other name":       {func(w *Waiver) { w.Artifact = "pypi/main li.b" }, cve, noon, false},
		"other finding":    {func(w *Waiver) { w.Finding = "CVE-10" }, cve, noon, false},
		"finding's case":   {func(w *Waiver) { w.Finding = "cve-1" }, cve, noon, false},
		"scanner error":    {func(w *Waiver) { w.Finding = CodeError }, fails, noon, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := ok
			if c.change != nil {
				c.change(&w)
			}
			rep := run(t, policy(t, Config{Waivers: []Waiver{w}}), []Judge{c.scanner}, c.now, snapshot("pypi/main", "lib 1.0"))
			if got := len(rep.Held) == 0; got != c.waived {
				t.Errorf("passed: %v, want %v (held %+v)", got, c.waived, rep.Held)
			}
			if c.waived {
				want := []Waived{{Source: "pypi/main", Name: "lib", Version: "1.0", Scanner: "trivy", Finding: "CVE-1", Severity: "high", Owner: "ops", Reason: "not reachable", Expires: "2026-11-22"}}
				if diff := cmp.Diff(want, rep.Waived); diff != "" {
					t.Errorf("waived (-want +got):\n%s", diff)
				}
			} else if len(rep.Waived) != 0 {
				t.Errorf("waived %+v, want none", rep.Waived)
			}
		})
	}
	t.Run("no waiver for a block", func(t *testing.T) {
		w := ok
		w.Finding = CodeBlocked
		p := policy(t, Config{Block: []Block{{Artifact: "pypi/main lib", Reason: "no"}}, Waivers: []Waiver{w}})
		if rep := run(t, p, nil, noon, snapshot("pypi/main", "lib 1.0")); len(rep.Held) != 1 {
			t.Errorf("held %+v, want the blocked artifact", rep.Held)
		}
	})
	t.Run("one of two findings", func(t *testing.T) {
		two := &fake{name: "trivy", findings: map[string][]Finding{"lib": {{ID: "CVE-1"}, {ID: "CVE-2"}}}}
		rep := run(t, policy(t, Config{Waivers: []Waiver{ok}}), []Judge{two}, noon, snapshot("pypi/main", "lib 1.0"))
		if len(rep.Held) != 1 || rep.Held[0].Reason != "CVE-2 (trivy)" || len(rep.Waived) != 1 {
			t.Errorf("held %+v, waived %+v, want CVE-2 held and CVE-1 waived", rep.Held, rep.Waived)
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	snap := snapshot("pypi/main", "a 1")
	r := &Runner{Open: opens(contents(snap))}
	rep, err := r.Run(ctx, []*artifact.Snapshot{snap}, noon)
	if !errors.Is(err, context.Canceled) || rep != nil {
		t.Errorf("Run = %+v, %v, want context.Canceled", rep, err)
	}
}

func TestRunReportsProgress(t *testing.T) {
	var mu sync.Mutex
	var total, items int
	snap := snapshot("pypi/main", "a 1", "b 1", "c 1")
	r := &Runner{Open: opens(contents(snap)), Scratch: t.TempDir(), OnEvent: func(e artifact.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Stage != "scan" {
			t.Errorf("stage %q, want scan", e.Stage)
		}
		total += e.TotalItems
		items += e.Items
	}}
	_, err := r.Run(t.Context(), []*artifact.Snapshot{snap}, noon)
	if err != nil || total != 3 || items != 3 {
		t.Errorf("announced %d, done %d, %v, want 3 and 3", total, items, err)
	}
}

func TestStrip(t *testing.T) {
	snap := snapshot("pypi/main", "a 1", "a 2", "b 1")
	snap.Meta = []artifact.File{{Path: "index.json", Digest: artifact.Sum(nil)}}
	before := cmp.Diff(nil, snap)
	rep := &Report{Held: []Held{{Source: "pypi/main", Name: "a", Version: "2"}, {Source: "pypi/other", Name: "b", Version: "1"}}}
	want := snapshot("pypi/main", "a 1", "b 1")
	want.Meta = snap.Meta
	if diff := cmp.Diff(want, rep.Strip(snap)); diff != "" {
		t.Errorf("Strip (-want +got):\n%s", diff)
	}
	if cmp.Diff(nil, snap) != before {
		t.Error("Strip changed its argument")
	}
}

func TestTextOfScannersIsCleaned(t *testing.T) {
	hostile := "a\x1b[31m\n\tb\xff\u202e" + strings.Repeat("é", MaxText)
	f := &fake{name: "x", findings: map[string][]Finding{"lib": {{ID: hostile, Severity: hostile, Text: hostile}, {ID: "z"}}}}
	rep := run(t, Policy{}, []Judge{f}, noon, snapshot("pypi/main", "lib 1"))
	if len(rep.Held) != 1 {
		t.Fatalf("held %+v, want one", rep.Held)
	}
	got := rep.Held[0].Reason
	if len(got) > MaxText || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\n\t\u202e\ufffd") {
		t.Errorf("reason of %d bytes is not clean: %q", len(got), got)
	}
	if !strings.HasPrefix(got, "a?[31m b??é") || !strings.HasSuffix(got, "... (x, 1 more)") {
		t.Errorf("reason %q lost its start or its count", got)
	}
}

func TestValidateNamesEveryField(t *testing.T) {
	c := Config{
		Block: []Block{{}, {Artifact: "pypi/main a", Reason: "r"}, {Artifact: "PyPI a", Reason: " "}},
		Waivers: []Waiver{
			{Artifact: "pypi/main a 1 2", Finding: "f", Owner: "o", Reason: "r", Expires: "31.12.2026"},
			{Artifact: "pypi/main a"},
		},
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	var got []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		field, _, _ := strings.Cut(line, ":")
		got = append(got, field)
	}
	want := []string{
		"block[0].artifact", "block[0].reason", "block[2].artifact", "block[2].reason",
		"waivers[0].artifact", "waivers[0].expires", "waivers[1].finding", "waivers[1].owner", "waivers[1].reason", "waivers[1].expires",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if _, err := NewPolicy(c); err == nil {
		t.Error("NewPolicy accepts what Validate refuses")
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the empty policy is refused: %v", err)
	}
}
