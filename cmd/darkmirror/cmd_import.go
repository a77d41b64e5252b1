package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/scan"
)

type importOptions struct {
	dryRun    bool
	acceptGap bool
	from      []string
}

func newImport(a *app) *cobra.Command {
	o := &importOptions{}
	cmd := &cobra.Command{
		Use:     "import [--dry-run] [--accept-gap] [--from DIR]... [BUNDLE]...",
		GroupID: groupInside,
		Short:   "Verify bundles, then publish what they bring",
		Long: `Verify bundles, then publish what they bring.

Without arguments every bundle in the inboxes is taken, in order; those that
were imported before are passed over. A BUNDLE is a folder, its name or its
number. Inboxes are only read and may be read-only mounts. The volumes of one
bundle may lie on several media: name each with --from.

A bundle that was imported before gives back blobs that the store has lost.

Nothing is published before the signature, the sequence, every digest and
upstream's own proof have been verified. Running it again is always safe.

` + codesLine(exitOK, exitUsage, exitPartial, exitPolicy, exitIntegrity, exitSequence, exitUnreachable, exitLocked, exitSpace, exitInterrupted),
		RunE: func(cmd *cobra.Command, args []string) error { return a.importBundles(cmd.Context(), o, args) },
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "verify the envelope, the sequence and the room; copy and publish nothing")
	cmd.Flags().BoolVar(&o.acceptGap, "accept-gap", false, "this once, skip bundles that have not arrived, where nothing that is needed is missing")
	cmd.Flags().StringArrayVar(&o.from, "from", nil, "read this inbox `DIR` instead of the configured ones; may be repeated")
	return cmd
}

type importResult struct {
	Schema  string          `json:"schema"`
	Bundles []bundleOutcome `json:"bundles"`
}

type bundleOutcome struct {
	Bundle     string           `json:"bundle"`
	Stream     string           `json:"stream"`
	ID         artifact.Digest  `json:"id"`
	SignedBy   []string         `json:"signed_by"`
	ApprovedBy []string         `json:"approved_by"`
	Result     string           `json:"result"`
	Volumes    int              `json:"volumes"`
	Published  []sourceOutcome  `json:"published"`
	LeftOut    []bundle.LeftOut `json:"left_out"`
	Warnings   []string         `json:"warnings"`
	Error      string           `json:"error,omitempty"`
}

type sourceOutcome struct {
	Source string `json:"source"`
	Text   string `json:"text"`
}

func outcomeJSON(out *mirror.Outcome, result string, warnings []string) bundleOutcome {
	r := bundleOutcome{
		Bundle: seqName(out.Seq), Stream: out.Stream, ID: out.ID, SignedBy: append([]string{}, out.SignedBy...), ApprovedBy: append([]string{}, out.ApprovedBy...), Result: result,
		Volumes: out.Volumes, Published: []sourceOutcome{}, LeftOut: append([]bundle.LeftOut{}, out.Missing...), Warnings: append([]string{}, warnings...),
	}
	for _, p := range out.Published {
		r.Published = append(r.Published, sourceOutcome(p))
	}
	if out.Err != nil {
		r.Error = out.Err.Error()
	}
	return r
}

func (a *app) importBundles(ctx context.Context, o *importOptions, args []string) (err error) {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	if len(o.from) > 0 {
		cfg.Inbox = o.from
	}
	if len(cfg.Inbox) == 0 && len(args) == 0 {
		return usagef("no inbox is configured\nset inbox in the configuration, or use --from DIR")
	}
	if err := a.inboxes(cfg.Inbox, len(o.from) > 0); err != nil {
		return err
	}
	st, led, err := openState(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	started := time.Now()
	p := startProgress(a.err, a.output, a.quiet)
	a.aftermath = "Nothing from this bundle was published."
	res := importResult{Schema: "darkmirror.import/v1", Bundles: []bundleOutcome{}}
	err = func() (err error) {
		imp, err := a.importer(cfg, st, led, p.event)
		if err != nil {
			return err
		}
		if cfg.Rescan != mirror.RescanNever && !o.dryRun {
			done, err := a.withScanner(cfg, imp)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
		}
		imp.AcceptGap = imp.AcceptGap || o.acceptGap
		if len(imp.Trust.Keys) == 0 {
			return usagef("no key is trusted, so no bundle can be verified\ndarkmirror key trust FILE adds the exporter's public key")
		}
		named, err := candidates(args, cfg.Inbox)
		if err != nil {
			return err
		}
		if err := imp.Recover(); err != nil {
			return err
		}
		var texts []string
		err = imp.Import(ctx, named, time.Now(), o.dryRun, func(out *mirror.Outcome) {
			a.bundle = seqName(out.Seq)
			result := importVerdict(out, o.dryRun)
			res.Bundles = append(res.Bundles, outcomeJSON(out, result, nil))
			texts = append(texts, outcomeText(out, result))
		})
		p.finish()
		if a.output.machine() {
			return errors.Join(err, writeJSON(a.out, a.output, res))
		}
		for _, t := range texts {
			fmt.Fprint(a.out, clean(t))
		}
		if len(texts) == 0 && err == nil {
			fmt.Fprintf(a.out, "no bundle in %s\n", strings.Join(cfg.Inbox, ", "))
		}
		return err
	}()
	if err != nil {
		p.finish()
	}
	err = errors.Join(err, keepLog(cfg, led))
	return errors.Join(err, led.RecordRun(ledger.Run{Command: "import", Started: started.UTC(), Finished: time.Now().UTC(), ExitCode: classify(err).code}))
}

// inboxes looks whether the inboxes are there: a medium that is not mounted
// must not look like one without bundles. A named one has to be there.
func (a *app) inboxes(dirs []string, named bool) error {
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			continue
		} else if named || !errors.Is(err, fs.ErrNotExist) {
			return usagef("inbox: %w", err)
		}
		a.warn("inbox %s is not there", dir)
	}
	return nil
}

func importVerdict(out *mirror.Outcome, dryRun bool) string {
	switch {
	case out.Rescan != nil && isA[*scan.BlockedError](out.Err):
		return "imported" // what is held here is listed
	case out.Err != nil && len(out.Failed) > 0:
		return "partial"
	case out.Err != nil:
		return "refused"
	case out.Verdict == bundle.AlreadyImported:
		return "already imported"
	case out.Verdict == bundle.Skip:
		return "imported before"
	case dryRun:
		return "would be imported"
	}
	return "imported"
}

func outcomeText(out *mirror.Outcome, result string) string {
	var b strings.Builder
	seq := seqName(out.Seq)
	switch result {
	case "refused":
		return ""
	case "already imported", "imported before":
		if out.Healed > 0 {
			return fmt.Sprintf("heal     %s  %s brought back into the store\n", seq, plural(out.Healed, "blob"))
		}
		return fmt.Sprintf("skip     %s  %s\n", seq, result)
	}
	fmt.Fprintf(&b, "verify   %s  %s, %s\n", seq, plural(out.Volumes, "volume"), signers(out.SignedBy, out.ApprovedBy))
	if result == "would be imported" {
		fmt.Fprintf(&b, "%s would be imported; nothing was changed\n", seq)
		return b.String()
	}
	for _, p := range out.Published {
		fmt.Fprintf(&b, "publish  %-14s %s\n", p.Source, strings.ReplaceAll(p.Text, "\n", "\n"+strings.Repeat(" ", len("publish  ")+15)))
	}
	if r := out.Rescan; r != nil {
		fmt.Fprintf(&b, "scan     %s again, with what is here\n", plural(r.Scanned, "artifact"))
		for _, h := range r.Held {
			fmt.Fprintf(&b, "held     %-14s %s %s: %s\n", h.Source, h.Name, h.Version, h.Reason)
		}
	}
	for _, m := range out.Missing {
		fmt.Fprintf(&b, "absent   %-14s %s %s: %s\n", m.Source, m.Artifact, m.Version, m.Reason)
	}
	if result == "partial" {
		kind := "source"
		if slices.ContainsFunc(out.Failed, func(e *mirror.ItemError) bool { return e.Artifact != "" }) {
			kind = "item"
		}
		fmt.Fprintf(&b, "%s is not done: %s failed; running it again is safe\n", seq, plural(len(out.Failed), kind))
	} else {
		fmt.Fprintf(&b, "imported %s\n", seq)
	}
	return b.String()
}

type verifyOptions struct {
	explain bool
	from    []string
}

func newVerify(a *app) *cobra.Command {
	o := &verifyOptions{}
	cmd := &cobra.Command{
		Use:     "verify [--explain] [--from DIR]... [BUNDLE]...",
		GroupID: groupInside,
		Short:   "Check bundles whole: signature, sequence, every byte; change nothing",
		Long: `Check bundles whole: signature, sequence, every byte; change nothing.

Works inside, against the trusted keys and the ledger, and outside, against
the exporter's own key. Bytes of a volume that no signature covers are never
imported; verify names them as warnings.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSequence, exitLocked, exitInterrupted),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), o, args) },
	}
	cmd.Flags().BoolVar(&o.explain, "explain", false, "print each check that was made")
	cmd.Flags().StringArrayVar(&o.from, "from", nil, "look for bundles in this `DIR`; may be repeated")
	return cmd
}

func (a *app) verify(ctx context.Context, o *verifyOptions, args []string) (err error) {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	boxes := cfg.Inbox
	if cfg.Role == config.Outside {
		boxes = []string{cfg.Outbox}
	}
	if len(o.from) > 0 {
		boxes = o.from
	}
	imp, done, err := a.verifier(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if len(imp.Trust.Keys) == 0 {
		return usagef("no key is trusted, so no bundle can be verified\ndarkmirror key trust FILE adds the exporter's public key")
	}
	found, err := candidates(args, boxes)
	if err == nil && len(args) == 0 {
		found, err = bundle.Find(boxes...)
	}
	if err != nil {
		return err
	}
	a.aftermath = "Nothing was changed."
	res := importResult{Schema: "darkmirror.verify/v1", Bundles: []bundleOutcome{}}
	var errs []error
	for _, c := range found {
		p := startProgress(a.err, a.output, a.quiet)
		imp.OnEvent = p.event
		out, m, warnings, err := imp.Check(ctx, c, time.Now(), cfg.Role == config.Inside)
		out.Err = err
		if err != nil {
			a.bundle = seqName(out.Seq)
			errs = append(errs, err)
		}
		result := "good"
		if err != nil {
			result = "refused"
		}
		p.finish() // before anything else is printed; bars rewrite lines
		for _, w := range warnings {
			a.warn("%s: %s", out.Name, w)
		}
		res.Bundles = append(res.Bundles, outcomeJSON(out, result, warnings))
		if !a.output.machine() && err == nil {
			fmt.Fprintf(a.out, "good     %s  %s, %s, %s\n", seqName(out.Seq), plural(out.Volumes, "volume"), signers(out.SignedBy, out.ApprovedBy), out.ID.Short())
			if o.explain {
				explain(a, m, out)
			}
		}
	}
	if a.output.machine() {
		errs = append(errs, writeJSON(a.out, a.output, res))
	} else if len(found) == 0 {
		fmt.Fprintf(a.out, "no bundle in %s\n", strings.Join(boxes, ", "))
	}
	return errors.Join(errs...)
}

// verifier opens what verification may look at, without taking the run lock
// for writing and without creating anything.
func (a *app) verifier(cfg *config.Config) (*mirror.Importer, func() error, error) {
	if cfg.Role == config.Outside {
		s, err := signer(cfg)
		if err != nil {
			return nil, nil, err
		}
		st, err := store.Open(storeDir(cfg))
		if err != nil {
			return nil, nil, err
		}
		return &mirror.Importer{Trust: ownTrust(s), Store: st}, func() error { return nil }, nil
	}
	if _, err := os.Stat(ledgerFile(cfg)); errors.Is(err, fs.ErrNotExist) {
		// Nothing was imported yet; make the empty state to compare with.
		st, led, err := openState(cfg)
		if err != nil {
			return nil, nil, err
		}
		imp, err := a.importer(cfg, st, led, nil)
		return imp, led.Close, err
	}
	led, err := ledger.OpenReadOnly(ledgerFile(cfg))
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(storeDir(cfg))
	if err != nil {
		return nil, nil, errors.Join(err, led.Close())
	}
	imp, err := a.importer(cfg, st, led, nil)
	return imp, led.Close, err
}

// signers says who signed a bundle, and in which role.
func signers(exporters, approvers []string) string {
	s := "signed by " + clean(strings.Join(exporters, ", "))
	if len(approvers) > 0 {
		s += ", approved by " + clean(strings.Join(approvers, ", "))
	}
	return s
}

// explain prints the evidence that each check was made, for a security
// officer's file.
func explain(a *app, m *bundle.Manifest, out *mirror.Outcome) {
	lines := []string{
		fmt.Sprintf("signature  manifest %s %s", out.ID, signers(out.SignedBy, out.ApprovedBy)),
		fmt.Sprintf("manifest   stream %s, number %s, base %s, issued %s, expires %s", m.Stream, seqName(m.Seq), seqName(m.Base), m.Issued.Format(time.RFC3339), m.Expires.Format(time.RFC3339)),
		fmt.Sprintf("sequence   previous manifest %s", orNone(m.Prev)),
		fmt.Sprintf("requires   %d documents of earlier bundles, and the files that the snapshots name", required(m)),
		fmt.Sprintf("volumes    %d read once; every segment's SHA-256 is the signed one", out.Volumes),
		fmt.Sprintf("blobs      %d; every blob's length and SHA-256 are the signed ones", len(m.Blobs)),
	}
	for _, l := range lines {
		fmt.Fprintf(a.out, "  %s\n", clean(l))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func required(m *bundle.Manifest) int {
	n := 0
	for _, r := range m.Requires {
		n += len(r.Blobs)
	}
	return n
}
