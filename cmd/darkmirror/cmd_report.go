package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/report"
)

// reportsDir is where export leaves the report of every bundle.
func reportsDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "reports") }

type reportOptions struct {
	html, json, sarif string
}

func newReport(a *app) *cobra.Command {
	o := &reportOptions{}
	cmd := &cobra.Command{
		Use:     "report [--html FILE] [--json FILE] [--sarif FILE] BUNDLE",
		GroupID: groupBoth,
		Short:   "Write the scan and transfer report of a bundle",
		Long: `Write the scan and transfer report of a bundle: the verdict, what was held
back, what is waived and until when, what is new, and then everything.

The HTML is one file without scripts and without anything to load. - as FILE
is the standard output. Without a flag, a summary is printed. The bundle must
be signed by a key that is trusted here.

` + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.report(cmd.Context(), o, args[0]) },
	}
	cmd.Flags().StringVar(&o.html, "html", "", "write one self-contained HTML `FILE`")
	cmd.Flags().StringVar(&o.json, "json", "", "write its JSON twin to `FILE`")
	cmd.Flags().StringVar(&o.sarif, "sarif", "", "write SARIF 2.1.0 to `FILE`")
	return cmd
}

func (a *app) report(ctx context.Context, o *reportOptions, arg string) (err error) {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	b, err := a.look(ctx, arg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.r.Close()) }()
	if !b.verified {
		return usagef("bundle %s is not verified: %s\nonly a bundle of a trusted key has a report; darkmirror inspect shows what it says of itself", seqName(b.m.Seq), b.why)
	}
	doc, err := a.document(ctx, cfg, b)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		write func(io.Writer) error
	}{{o.html, doc.HTML}, {o.json, doc.JSON}, {o.sarif, doc.SARIF}} {
		if f.name == "" {
			continue
		}
		if f.name == "-" {
			if err := f.write(a.out); err != nil {
				return err
			}
			continue
		}
		if err := writeReport(f.name, f.write); err != nil {
			return err
		}
	}
	if o.html != "" || o.json != "" || o.sarif != "" {
		return nil
	}
	if a.output.machine() {
		return doc.JSON(a.out)
	}
	return a.summary(doc)
}

func writeReport(name string, write func(io.Writer) error) error {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return err
	}
	return durable.WriteFile(name, buf.Bytes(), 0o640)
}

// summary is the report on a terminal: the verdict, and what a person must
// look at before saying yes.
func (a *app) summary(d *report.Document) error {
	v, err := report.Verdict(d)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "bundle   %s of stream %s, %s\n", seqName(d.Bundle.Seq), clean(d.Bundle.Stream), d.Bundle.ID)
	fmt.Fprintf(a.out, "verdict  %s\n         %s\n", clean(v.Headline), clean(v.Text))
	for _, k := range d.Bundle.SignedBy {
		fmt.Fprintf(a.out, "signed   %s (%s)\n", clean(k.Name), clean(k.Fingerprint))
	}
	for _, k := range d.Bundle.ApprovedBy {
		fmt.Fprintf(a.out, "approved %s (%s)\n", clean(k.Name), clean(k.Fingerprint))
	}
	for _, e := range d.Engines {
		age := ""
		if !e.Dated.IsZero() {
			age = ", data of " + e.Dated.Format(time.DateOnly)
		}
		fmt.Fprintf(a.out, "scanned  %s %s: %s%s\n", clean(e.Name), clean(e.Version), clean(e.For), age)
	}
	for _, h := range d.Held {
		fmt.Fprintf(a.out, "held     %s  %s %s  %s\n", clean(h.Source), clean(h.Name), clean(h.Version), clean(h.Reason))
	}
	for _, w := range d.Waived {
		fmt.Fprintf(a.out, "waived   %s  %s %s  %s, until %s (%s)\n", clean(w.Source), clean(w.Name), clean(w.Version), clean(w.Finding), clean(w.Expires), clean(w.Owner))
	}
	counts := make(map[string]int)
	for _, c := range d.Changes {
		counts[c.Kind]++
	}
	_, err = fmt.Fprintf(a.out, "changes  %d new, %d changed, %d gone; %d artifacts in all\n", counts[report.New], counts[report.Changed], counts[report.Gone], len(d.Everything))
	return err
}

// looksFor says in words what each engine is for.
var looksFor = map[string]string{
	"archives":      "archives that lie or hide something",
	"clamav":        "malware",
	"packages":      "malicious and suspicious packages",
	"trivy-secrets": "secrets",
	"trivy":         "known vulnerabilities, licences and bills of material",
	"weights":       "model files that can run code",
}

// document opens the state here and fills the report of a verified bundle.
func (a *app) document(ctx context.Context, cfg *config.Config, b *opened) (_ *report.Document, err error) {
	st, err := store.Open(storeDir(cfg))
	if err != nil {
		return nil, err
	}
	led, err := ledger.OpenReadOnly(ledgerFile(cfg))
	if errors.Is(err, os.ErrNotExist) {
		return a.documentOf(ctx, cfg, st, nil, b)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	return a.documentOf(ctx, cfg, st, led, b)
}

// documentOf fills the report of a verified bundle; led may be nil.
func (a *app) documentOf(ctx context.Context, cfg *config.Config, st *store.Store, led *ledger.Ledger, b *opened) (*report.Document, error) {
	m := b.m
	d := &report.Document{
		Tool: "darkmirror " + version(), At: m.Issued,
		Bundle: report.Bundle{
			Stream: m.Stream, Seq: m.Seq, ID: b.id.String(), Prev: m.Prev, Base: m.Base, Made: m.Issued, Expires: m.Expires,
			Bytes: m.Size(), SignedBy: keysOf(b.keys, b.signedBy), ApprovedBy: keysOf(b.keys, b.approvedBy), Approvals: cfg.Approvals,
		},
	}
	if vols, err := b.r.Volumes(); err == nil {
		d.Bundle.Volumes = len(vols)
	}
	verdicts, err := b.verdicts(ctx, st)
	if err != nil {
		return nil, err
	}
	for _, w := range m.Withdraw {
		d.Withdrawn = append(d.Withdrawn, report.Withdrawal{Digest: w.Digest.String(), Reason: w.Reason, Advisory: w.Advisory})
	}
	for _, h := range m.Held {
		d.Held = append(d.Held, report.Held{Source: h.Source, Name: h.Artifact, Version: h.Version, Code: h.Code, Reason: h.Reason})
	}
	for _, x := range m.Missing {
		d.Missing = append(d.Missing, report.Missing{Source: x.Source, Name: x.Artifact, Version: x.Version, Code: x.Code, Reason: x.Reason})
	}
	for _, s := range m.Sources {
		if s.Name != mirror.EvidenceSource {
			d.Sources = append(d.Sources, report.Source{Name: s.Name, Snapshot: s.Snapshot.String(), Artifacts: int(s.Artifacts), Files: int(s.Files), Bytes: s.Bytes})
		}
	}
	engines(d, verdicts)
	outcomes(d, verdicts)
	return d, b.changes(cfg, st, led, d)
}

func keysOf(all []bundle.TrustedKey, names []string) []report.Key {
	list := []report.Key{}
	for _, n := range names {
		k := report.Key{Name: n}
		for _, t := range all {
			if t.Name == n {
				k.Fingerprint = bundle.Fingerprint(t.Public)
			}
		}
		list = append(list, k)
	}
	return list
}

// maxVerdicts bounds the document of verdicts: a full Debian main is about
// 20 MiB.
const maxVerdicts = 256 << 20

// verdicts reads what the scanners said; nil for a bundle that was made
// without.
func (b *opened) verdicts(ctx context.Context, st *store.Store) (*scan.Verdicts, error) {
	for i, s := range b.m.Sources {
		if s.Name != mirror.EvidenceSource || b.snaps[i] == nil {
			continue
		}
		f, ok := b.snaps[i].MetaFile(mirror.VerdictsPath)
		if !ok {
			break
		}
		raw, ok, err := mirror.ReadMeta(ctx, b.r, b.m, st, f, maxVerdicts)
		if err != nil || !ok {
			return nil, err
		}
		var v scan.Verdicts
		if err := strictjson.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("%s of bundle %s: %w", mirror.VerdictsPath, seqName(b.m.Seq), err)
		}
		if v.Schema != scan.VerdictsSchema {
			return nil, fmt.Errorf("%s of bundle %s has schema %q, want %q", mirror.VerdictsPath, seqName(b.m.Seq), v.Schema, scan.VerdictsSchema)
		}
		return &v, nil
	}
	return nil, nil
}

// engines names what it was scanned with, and says what nothing looked for.
func engines(d *report.Document, v *scan.Verdicts) {
	if v == nil {
		d.NotScannedFor = []string{"anything: the bundle carries no verdicts"}
		return
	}
	has := make(map[string]bool)
	for _, e := range v.Engines {
		has[e.Name] = e.Name != "trivy" || e.Database != ""
		x := report.Engine{Name: e.Name, Version: e.Version, For: looksFor[e.Name], Database: e.Database}
		if e.Name == "trivy" && e.Database == "" {
			x.For = "licences and bills of material"
		}
		if x.For == "" {
			x.For = "what its name says"
		}
		if e.Dated != nil {
			x.Dated = *e.Dated
		}
		d.Engines = append(d.Engines, x)
	}
	if !has["clamav"] {
		d.NotScannedFor = append(d.NotScannedFor, "malware")
	}
	if !has["trivy"] {
		d.NotScannedFor = append(d.NotScannedFor, "known vulnerabilities")
	}
}

// outcomes spreads the verdicts over the report's lists.
func outcomes(d *report.Document, v *scan.Verdicts) {
	if v == nil {
		return
	}
	for _, it := range v.Items {
		warned, waived := false, false
		for _, f := range it.Findings {
			d.Findings = append(d.Findings, report.Finding{Source: it.Source, Name: it.Name, Version: it.Version, Finding: f.Finding, Action: f.Action})
			warned = warned || f.Action == scan.ActionWarn
			if f.Waiver != nil {
				waived = true
				d.Waived = append(d.Waived, report.Waived{
					Source: it.Source, Name: it.Name, Version: it.Version, Finding: f.ID, Scanner: f.Scanner, Severity: f.Severity,
					Owner: f.Waiver.Owner, Reason: f.Waiver.Reason, Expires: f.Waiver.Expires,
				})
			}
		}
		if it.Held() {
			continue
		}
		word := it.Verdict.String()
		switch {
		case waived:
			word = "waived"
		case warned:
			word = "warning"
		}
		d.Everything = append(d.Everything, report.Item{
			Source: it.Source, Name: it.Name, Version: it.Version, Why: it.Why, Size: it.Size, Files: it.Files, Verdict: word, Findings: len(it.Findings),
		})
	}
}

// changes compares with the bundle before, by the ledger of this side.
func (b *opened) changes(cfg *config.Config, st *store.Store, led *ledger.Ledger, d *report.Document) error {
	before, err := statesBefore(cfg, led, b.m)
	if err != nil {
		return err
	}
	for i, s := range b.m.Sources {
		if s.Name == mirror.EvidenceSource || b.snaps[i] == nil {
			continue
		}
		var old *artifact.Snapshot
		for _, prev := range before {
			if prev.Name != s.Name || !st.Has(prev.Snapshot) {
				continue
			}
			raw, err := st.ReadAll(prev.Snapshot, artifact.MaxSnapshot)
			if err != nil {
				return err
			}
			if old, err = artifact.DecodeSnapshot(raw); err != nil {
				return err
			}
		}
		changesOf(d, s.Name, old, b.snaps[i])
	}
	return nil
}

// statesBefore are the states of the bundle before, as the ledger has them;
// none where it was the first or is not known here.
func statesBefore(cfg *config.Config, led *ledger.Ledger, m *bundle.Manifest) ([]ledger.SourceState, error) {
	if led == nil || m.Seq < 2 {
		return nil, nil
	}
	if cfg.Role == config.Outside {
		all, err := led.Sealed(m.Stream)
		for _, rec := range all {
			if rec.Seq == m.Seq-1 {
				return rec.Sources, err
			}
		}
		return nil, err
	}
	rec, _, err := led.Imported(m.Stream, m.Seq-1)
	return rec.Sources, err
}

// changesOf lists what is new, changed and gone of one source.
func changesOf(d *report.Document, source string, old, cur *artifact.Snapshot) {
	diff := mirror.Compare(old, cur)
	versions := make(map[string]string) // before, by name
	if old != nil {
		for _, o := range old.Artifacts {
			versions[o.Name] = o.Version
		}
	}
	add := func(kind string, s *artifact.Snapshot, ids []string) {
		wanted := make(map[string]bool, len(ids))
		for _, id := range ids {
			wanted[id] = true
		}
		for _, a := range s.Artifacts {
			if !wanted[a.Name+" "+a.Version] {
				continue
			}
			c := report.Change{Kind: kind, Source: source, Name: a.Name, Version: a.Version, Why: a.Why}
			for _, f := range a.Files {
				c.Size += f.Size
			}
			if from := versions[a.Name]; kind == report.Changed && from != a.Version {
				c.From = from
			}
			d.Changes = append(d.Changes, c)
		}
	}
	add(report.New, cur, diff.New)
	add(report.Changed, cur, diff.Changed)
	if old != nil {
		add(report.Gone, old, diff.Gone)
	}
}
