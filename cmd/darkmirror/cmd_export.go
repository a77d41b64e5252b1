package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/carry"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/scan"
)

type exportOptions struct {
	only       []string
	plan       string
	heartbeat  bool
	volumeSize volumeSize
	to         []string
	full       bool
	base       uint64
}

func (o *exportOptions) planFlags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.only, "only", nil, "only this `SOURCE`, as pypi/main; may be repeated")
	cmd.Flags().StringVar(&o.plan, "plan", "", "carry out this saved plan `FILE` instead of making one")
}

func (o *exportOptions) sealFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.heartbeat, "heartbeat", false, "seal a bundle even when nothing changed, so that the inside can tell silence from a broken link")
	cmd.Flags().Var(&o.volumeSize, "volume-size", "hard cap of a volume file: fat32, dvd, bd25, lto, 4GiB-1, 700MiB (default from the configuration)")
	cmd.Flags().StringArrayVar(&o.to, "to", nil, "carry the bundle onto the medium mounted at `DIR` too; may be repeated")
	cmd.Flags().BoolVar(&o.full, "full", false, "build on nothing: the bundle stands alone")
	cmd.Flags().Uint64Var(&o.base, "base", 0, "build on bundle `N` and those before it only")
}

func newExport(a *app) *cobra.Command {
	o := &exportOptions{}
	cmd := &cobra.Command{
		Use:     "export [--plan FILE] [--only SOURCE]... [--heartbeat] [--full] [--volume-size SIZE] [--to DIR]...",
		GroupID: groupOutside,
		Short:   "Fetch, scan and seal what is new into a signed bundle",
		Long: `Fetch, scan and seal what is new into a signed bundle.

This is the timer's job. The bundle, a folder with an envelope and volumes,
is left in the outbox. Nothing new means no bundle and exit code 0. A killed
run is resumed by running it again.

With --only, the other sources stay as they were in the last bundle.

` + codesLine(exitOK, exitUsage, exitPartial, exitPolicy, exitIntegrity, exitSequence, exitUnreachable, exitLocked, exitSpace, exitInterrupted),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.outside(cmd.Context(), "export", o, func(j *job) error {
				if err := j.makePlan(); err != nil {
					return err
				}
				if err := j.fetch(); err != nil {
					return err
				}
				if err := j.scan(); err != nil {
					return err
				}
				return j.seal()
			})
		},
	}
	o.planFlags(cmd)
	o.sealFlags(cmd)
	return cmd
}

func newFetch(a *app) *cobra.Command {
	o := &exportOptions{}
	cmd := &cobra.Command{
		Use:     "fetch [--plan FILE] [--only SOURCE]...",
		GroupID: groupOutside,
		Short:   "The first step of export: plan, and fetch into the store",
		Long: `The first step of export: plan, and fetch into the store. darkmirror scan
and darkmirror seal take the run further.

` + codesLine(exitOK, exitUsage, exitPartial, exitIntegrity, exitSequence, exitUnreachable, exitLocked, exitSpace, exitInterrupted),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.outside(cmd.Context(), "fetch", o, func(j *job) error {
				if err := j.makePlan(); err != nil {
					return err
				}
				if err := j.fetch(); err != nil {
					return err
				}
				return j.save("fetched")
			})
		},
	}
	o.planFlags(cmd)
	return cmd
}

func newScan(a *app) *cobra.Command {
	o := &exportOptions{}
	var published, withdraw bool
	cmd := &cobra.Command{
		Use:     "scan [--published [--withdraw]]",
		GroupID: groupBoth,
		Short:   "Outside, the second step of export; inside, judge again what is published",
		Long: `Outside, the second step of export: scan what was fetched, apply the policy.

Inside, with --published: judge again what clients see now, with the databases
that are here now. What was unpacked once is not unpacked again. With
--withdraw, what the policy holds is taken out of the publications; the store
keeps it, and the next bundle that brings it is judged like any other.

` + codesLine(exitOK, exitUsage, exitPolicy, exitIntegrity, exitUnreachable, exitLocked, exitInterrupted),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if published {
				return a.scanPublished(cmd.Context(), withdraw)
			}
			if withdraw {
				return usagef("--withdraw goes with --published")
			}
			return a.outside(cmd.Context(), "scan", o, func(j *job) error {
				if err := j.resume("fetched", "darkmirror fetch"); err != nil {
					return err
				}
				if err := j.scan(); err != nil {
					return err
				}
				return j.save("scanned")
			})
		},
	}
	cmd.Flags().BoolVar(&published, "published", false, "inside: judge again what is published")
	cmd.Flags().BoolVar(&withdraw, "withdraw", false, "and take out of the publications what is held")
	return cmd
}

func newSeal(a *app) *cobra.Command {
	o := &exportOptions{}
	cmd := &cobra.Command{
		Use:     "seal [--heartbeat] [--volume-size SIZE]",
		GroupID: groupOutside,
		Short:   "The third step of export: seal what was scanned into a bundle",
		Long: `The third step of export: seal what was scanned into a bundle.

` + codesLine(exitOK, exitUsage, exitPartial, exitPolicy, exitIntegrity, exitLocked, exitSpace, exitInterrupted),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.outside(cmd.Context(), "seal", o, func(j *job) error {
				if err := j.resume("scanned", "darkmirror scan"); err != nil {
					return err
				}
				return j.seal()
			})
		},
	}
	o.sealFlags(cmd)
	return cmd
}

// A job is one outside run.
type job struct {
	a   *app
	ctx context.Context //nolint:containedctx // lives for one command only
	o   *exportOptions
	cfg *config.Config
	st  *store.Store
	exp *mirror.Exporter
	run *mirror.Run
	p   *progress
	// scanners are set where the command scans.
	scanners *scanners
	// started is the time of the scan too: the engines are asked before the
	// fetch and used after it.
	started time.Time
	errs    []error // what was left out; decides the exit code

	lines []string // results for people
	res   exportResult
}

type exportResult struct {
	Schema  string           `json:"schema"`
	Stream  string           `json:"stream"`
	Fetched *fetchResult     `json:"fetched,omitempty"`
	Scanned int              `json:"scanned"`
	Held    []scan.Held      `json:"held"`
	Waived  []scan.Waived    `json:"waived"`
	Missing []mirror.Missing `json:"missing"`
	Bundle  *bundleResult    `json:"bundle,omitempty"`
}

type fetchResult struct {
	mirror.FetchStats
	Seconds float64 `json:"seconds"`
}

type bundleResult struct {
	Seq          string          `json:"seq"`
	ID           artifact.Digest `json:"id"`
	Dir          string          `json:"dir"`
	Base         uint64          `json:"base"`
	Bytes        int64           `json:"bytes"`
	PayloadBytes int64           `json:"payload_bytes"`
	Blobs        int             `json:"blobs"`
	Volumes      int             `json:"volumes"`
	SignedBy     string          `json:"signed_by"`
}

// outside opens the state, heals what a killed run left, and runs steps.
func (a *app) outside(ctx context.Context, command string, o *exportOptions, steps func(*job) error) (err error) {
	if o.volumeSize != 0 && int64(o.volumeSize) < bundle.MinVolumeSize {
		return usagef("--volume-size %s: want at least %s", &o.volumeSize, config.Size(bundle.MinVolumeSize))
	}
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	sign, err := signer(cfg)
	if err != nil {
		return err
	}
	st, led, err := openState(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	started := time.Now()
	j := &job{a: a, ctx: ctx, o: o, cfg: cfg, st: st, started: started, p: startProgress(a.err, a.output, a.quiet)}
	a.aftermath = "Nothing of it enters a bundle."
	j.res = exportResult{Schema: "darkmirror.export/v1", Stream: cfg.Stream, Held: []scan.Held{}, Waived: []scan.Waived{}, Missing: []mirror.Missing{}}
	err = func() (err error) {
		if err := os.MkdirAll(cfg.Outbox, 0o750); err != nil {
			return err
		}
		if j.exp, err = a.exporter(cfg, st, led, o.only, j.p.event); err != nil {
			return err
		}
		if command == "export" || command == "scan" {
			if j.scanners, err = a.scanning(cfg, j.exp); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, j.scanners.Close()) }()
			// A scanner that cannot work is told before hours of fetching.
			if err := j.exp.Scanner.Ready(ctx, started); err != nil {
				return err
			}
			for _, w := range j.scanners.warnings() {
				a.warn("clamav: %s", w)
			}
		}
		j.exp.Signer = sign
		if o.volumeSize != 0 {
			j.exp.VolumeSize = int64(o.volumeSize)
		}
		j.exp.Base.Full, j.exp.Base.Seq = o.full, o.base
		if err := named(cfg, led, sign); err != nil {
			return err
		}
		adopted, err := j.exp.Recover(ownTrust(sign))
		if err != nil {
			return err
		}
		for _, seq := range adopted {
			a.warn("bundle %s was sealed by a run that was killed; it is recorded now", seqName(seq))
		}
		if err := j.lateReport(); err != nil {
			return err
		}
		return steps(j)
	}()
	j.p.finish()
	for _, l := range j.lines {
		fmt.Fprintln(a.out, l)
	}
	err = errors.Join(append(j.errs, err)...)
	err = errors.Join(err, keepLog(cfg, led))
	return errors.Join(err, led.RecordRun(ledger.Run{Command: command, Started: started.UTC(), Finished: time.Now().UTC(), ExitCode: classify(err).code}))
}

// named refuses to seal with a key that the pinned root does not name: the
// inside would refuse the bundle.
func named(cfg *config.Config, led *ledger.Ledger, s bundle.Signer) error {
	v, err := pinnedRoot(cfg)
	if err != nil || v == nil {
		return err
	}
	last, _, err := led.LastSealed(cfg.Stream)
	if err != nil {
		return err
	}
	id := bundle.KeyID(s.Public())
	for _, k := range v.Trust(last.Seq + 1).Keys {
		if k.Role == bundle.RoleExporter && bundle.KeyID(k.Public) == id {
			return nil
		}
	}
	return usagef("signing key %s is none of the exporters of root version %d\ndarkmirror key root next --add exporter=KEY makes a version that names it", s.Name, v.Root().Version)
}

func (j *job) makePlan() error {
	var pl *mirror.Plan
	var err error
	if j.o.plan != "" {
		if pl, err = readPlan(j.o.plan); err != nil {
			return err
		}
		if pl.Stream != j.cfg.Stream {
			return usagef("%s is a plan of stream %s; this is %s", j.o.plan, pl.Stream, j.cfg.Stream)
		}
	} else {
		pl, err = j.exp.Plan(j.ctx, time.Now())
		if pl == nil {
			return err
		}
		if err != nil {
			if err = allFailed(pl, err); !isA[*mirror.PartialError](err) {
				return err
			}
			j.errs = append(j.errs, err)
		}
	}
	j.run = mirror.NewRun(pl)
	return nil
}

func (j *job) fetch() error {
	start := time.Now()
	before := len(j.run.Failed)
	stats, err := j.exp.Fetch(j.ctx, j.run)
	if err != nil {
		return err
	}
	took := time.Since(start)
	j.res.Fetched = &fetchResult{*stats, took.Seconds()}
	j.say("fetch   %s, %s in %s", plural(stats.Files, "file"), size(stats.Bytes), short(took))
	if len(j.run.Failed) > before {
		j.errs = append(j.errs, &mirror.PartialError{Items: j.run.Failed[before:], Total: stats.Files})
	}
	return nil
}

func (j *job) scan() error {
	start := time.Now()
	if err := j.scanners.learn(j.run.Plan, j.st); err != nil {
		return err
	}
	if err := j.exp.Scan(j.ctx, j.run, j.started); err != nil {
		return err
	}
	r := j.run.Scan
	j.res.Scanned = r.Scanned
	j.res.Held = append(j.res.Held, r.Held...)
	j.res.Waived = append(j.res.Waived, r.Waived...)
	for _, l := range scanLines(r, j.started, time.Since(start)) {
		j.say("%s", l)
	}
	if len(r.Held) > 0 {
		j.errs = append(j.errs, &scan.BlockedError{Held: r.Held})
	}
	return nil
}

func (j *job) seal() error {
	out, err := j.exp.Seal(j.ctx, j.run, j.o.heartbeat)
	if err != nil {
		return err
	}
	for _, it := range j.run.Failed {
		j.res.Missing = append(j.res.Missing, mirror.MissingOf(it))
	}
	if err := removeIfThere(runFile(j.cfg)); err != nil {
		return err
	}
	if out == nil {
		if len(j.errs) > 0 {
			j.say("seal    nothing to seal beside what failed; no bundle was made")
		} else {
			j.say("seal    nothing changed since the last bundle; none was made")
		}
		return j.print()
	}
	j.a.bundle = seqName(out.Seq)
	j.res.Bundle = &bundleResult{
		Seq: seqName(out.Seq), ID: out.ID, Dir: out.Dir, Base: out.Base, Bytes: out.Bytes, PayloadBytes: out.PayloadBytes,
		Blobs: out.Blobs, Volumes: out.Volumes, SignedBy: j.exp.Signer.Name,
	}
	j.say("seal    bundle %s: %s, %s, %s, signed by %s", seqName(out.Seq), plural(out.Blobs, "blob"), size(out.Bytes), plural(out.Volumes, "volume"), j.exp.Signer.Name)
	j.say("outbox  %s", out.Dir)
	if err := keepDocuments(j.cfg, out.Seq, out.Dir); err != nil {
		return err
	}
	if err := j.report(seqName(out.Seq), out.Dir); err != nil {
		return err
	}
	if len(j.o.to) > 0 {
		// The bundle is sealed, whatever becomes of the media.
		j.p.finish()
		if err := j.a.carryDir(j.ctx, out.Dir, carry.Options{Media: j.o.to}); err != nil {
			j.errs = append(j.errs, err)
		}
	}
	return j.print()
}

// lateReport writes the report that a killed run owes: that of the last
// bundle, if it is still in the outbox.
func (j *job) lateReport() error {
	for _, dir := range []string{reportsDir(j.cfg), keptDir(j.cfg)} {
		if err := durable.Sweep(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	last, ok, err := j.exp.Ledger.LastSealed(j.cfg.Stream)
	if err != nil || !ok {
		return err
	}
	seq := seqName(last.Seq)
	if _, err := os.Stat(keptFile(j.cfg, last.Seq)); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(last.Dir); err == nil {
			if err := keepDocuments(j.cfg, last.Seq, last.Dir); err != nil {
				return err
			}
		}
	}
	// The JSON is written last.
	if _, err := os.Stat(filepath.Join(reportsDir(j.cfg), seq+".json")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(last.Dir); err != nil {
		return nil //nolint:nilerr // it was carried away: darkmirror report makes it from the folder, wherever that is
	}
	return j.report(seq, last.Dir)
}

// report writes the report of the bundle that was just sealed. It is read from
// the bundle, as anybody would.
func (j *job) report(seq, dir string) (err error) {
	b, err := j.a.look(j.ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.r.Close()) }()
	doc, err := j.a.documentOf(j.ctx, j.cfg, j.st, j.exp.Ledger, b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(reportsDir(j.cfg), 0o750); err != nil {
		return err
	}
	html := filepath.Join(reportsDir(j.cfg), seq+".html")
	if err := writeReport(html, doc.HTML); err != nil {
		return err
	}
	if err := writeReport(strings.TrimSuffix(html, "html")+"json", doc.JSON); err != nil {
		return err
	}
	j.say("report  %s", html)
	return nil
}

// say keeps a result line for people. It is printed when the bars, which
// rewrite the lines above them, are gone.
func (j *job) say(format string, args ...any) {
	if !j.a.output.machine() {
		j.lines = append(j.lines, clean(fmt.Sprintf(format, args...)))
	}
}

func (j *job) print() error {
	if j.a.output.machine() {
		return writeJSON(j.a.out, j.a.output, j.res)
	}
	return nil
}

// savedRun is the run between fetch, scan and seal.
type savedRun struct {
	Schema  string           `json:"schema"`
	Stage   string           `json:"stage"`
	Plan    *mirror.Plan     `json:"plan"`
	Missing []mirror.Missing `json:"missing"`
	Scan    *scan.Report     `json:"scan,omitempty"`
}

const runSchema = "darkmirror.run/v1"

func (j *job) save(stage string) error {
	r := savedRun{Schema: runSchema, Stage: stage, Plan: j.run.Plan, Missing: []mirror.Missing{}, Scan: j.run.Scan}
	for _, it := range j.run.Failed {
		r.Missing = append(r.Missing, mirror.MissingOf(it))
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(runFile(j.cfg), b, 0o640); err != nil {
		return err
	}
	return j.print()
}

func (j *job) resume(stage, before string) error {
	b, err := os.ReadFile(runFile(j.cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no run to take further; run %s first", before)
	}
	if err != nil {
		return err
	}
	var r savedRun
	if err := json.Unmarshal(b, &r); err != nil || r.Schema != runSchema || r.Plan == nil {
		return usagef("%s cannot be read; run darkmirror fetch again", runFile(j.cfg))
	}
	if r.Stage != stage {
		return usagef("the run is %s; run %s first", r.Stage, before)
	}
	j.run = mirror.NewRun(r.Plan)
	j.run.Failed = nil
	for _, m := range r.Missing {
		j.run.Failed = append(j.run.Failed, m.Error())
	}
	j.run.Scan = r.Scan
	if r.Scan != nil && len(r.Scan.Held) > 0 {
		j.errs = append(j.errs, &scan.BlockedError{Held: r.Scan.Held})
	}
	if len(j.run.Failed) > 0 {
		j.errs = append(j.errs, &mirror.PartialError{Items: j.run.Failed})
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
