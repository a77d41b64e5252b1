package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/scan"
)

// scanLines is what a person sees of a scan: what it was done with, and what
// the policy made of what was found.
func scanLines(r *scan.Report, now time.Time, took time.Duration) []string {
	var with []string
	for _, e := range r.Engines {
		switch {
		case e.Dated == nil && slices.Contains([]string{"archives", "weights", "packages", "trivy"}, e.Name):
			// built in, and the same everywhere
		case e.Dated != nil:
			with = append(with, fmt.Sprintf("%s %s, data %s old", e.Name, e.Version, short(now.Sub(*e.Dated))))
		default:
			with = append(with, e.Name+" "+e.Version)
		}
	}
	text := strings.Join(with, "; ")
	if text == "" {
		text = "built-in rules only: no scanner for malware or known vulnerabilities is configured"
	}
	lines := []string{fmt.Sprintf("scan    %s in %s (%s)", plural(r.Scanned, "artifact"), short(took), text)}
	if r.Walked > 0 {
		lines = append(lines, fmt.Sprintf("  unpacked %s into %s, %s", plural(r.Walked, "blob"), plural(r.Files, "file"), size(r.Bytes)))
	}
	for _, h := range r.Held {
		lines = append(lines, fmt.Sprintf("  held    %s  %s %s  %s", h.Source, h.Name, h.Version, h.Reason))
	}
	for _, w := range r.Waived {
		lines = append(lines, fmt.Sprintf("  waived  %s  %s %s  %s %s, until %s (%s)", w.Source, w.Name, w.Version, w.Finding, w.Severity, w.Expires, w.Owner))
	}
	warned := 0
	for _, i := range r.Items {
		for _, f := range i.Findings {
			if f.Action == scan.ActionWarn {
				warned++
			}
		}
	}
	if warned > 0 {
		lines = append(lines, fmt.Sprintf("  warned  %s; the report lists them", plural(warned, "finding")))
	}
	for _, w := range r.Lapsed {
		lines = append(lines, fmt.Sprintf("  expired waiver of %s for %s ended on %s", w.Finding, w.Artifact, w.Expires))
	}
	for _, w := range r.Unused {
		lines = append(lines, fmt.Sprintf("  unused  waiver of %s for %s", w.Finding, w.Artifact))
	}
	return lines
}

// publishedResult is the result of scan --published.
type publishedResult struct {
	Schema    string            `json:"schema"`
	Scanned   int               `json:"scanned"`
	Held      []scan.Held       `json:"held"`
	Waived    []scan.Waived     `json:"waived"`
	Engines   []scan.EngineInfo `json:"engines"`
	Withdrawn []sourceOutcome   `json:"withdrawn"`
}

// scanPublished judges again what clients see inside.
func (a *app) scanPublished(ctx context.Context, withdraw bool) (err error) {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	st, led, err := openState(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	started := time.Now()
	p := startProgress(a.err, a.output, a.quiet)
	res := publishedResult{Schema: "darkmirror.scan/v1", Withdrawn: []sourceOutcome{}}
	var lines []string
	err = func() error {
		imp, err := a.importer(cfg, st, led, p.event)
		if err != nil {
			return err
		}
		if err := imp.Recover(); err != nil {
			return err
		}
		done, err := a.withScanner(cfg, imp)
		if err != nil {
			return err
		}
		rep, gone, err := imp.ScanPublished(ctx, withdraw, started)
		err = errors.Join(err, done())
		if rep == nil {
			return err
		}
		res.Scanned, res.Held, res.Waived, res.Engines = rep.Scanned, rep.Held, rep.Waived, rep.Engines
		lines = scanLines(rep, started, time.Since(started))
		for _, g := range gone {
			res.Withdrawn = append(res.Withdrawn, sourceOutcome(g))
			lines = append(lines, fmt.Sprintf("withdrawn from %s  now %s", g.Source, g.Text))
		}
		return errors.Join(rep.Err(), err)
	}()
	p.finish()
	err = errors.Join(err, led.RecordRun(ledger.Run{Command: "scan --published", Started: started.UTC(), Finished: time.Now().UTC(), ExitCode: classify(err).code}))
	return errors.Join(err, a.result(res, func() error {
		for _, l := range lines {
			fmt.Fprintln(a.out, clean(l))
		}
		return nil
	}))
}
