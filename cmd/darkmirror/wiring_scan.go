package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/clamav"
	"github.com/darkmirror/darkmirror/scan/packages"
	"github.com/darkmirror/darkmirror/scan/trivy"
	"github.com/darkmirror/darkmirror/scan/weights"
)

// Folders and files of the scanners below state_dir.
func scratchDir(cfg *config.Config) string   { return filepath.Join(cfg.StateDir, "scratch") }
func verdictsFile(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "verdicts.db") }

// scanners are the engines that a configuration asks for, and what they have
// open.
type scanners struct {
	runner *scan.Runner
	trivy  *trivy.Scanner
	close  []func() error
	// warnings are what engines found, when they were asked whether they can
	// work, that should be mended.
	warnings func() []string
	// uploaded tells when upstream got a file; it is filled before a scan.
	uploaded map[artifact.Digest]time.Time
}

// Close gives back what the engines hold.
func (s *scanners) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.close) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// scanners wires the engines. The caller holds the run lock. known are the
// names of packages in use.
func (a *app) scanners(cfg *config.Config, known []string) (_ *scanners, err error) {
	c := cfg.Scan
	s := &scanners{warnings: func() []string { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	policy, err := scan.NewPolicy(c)
	if err != nil {
		return nil, err
	}
	// What a killed run left there belongs to nobody.
	if err := os.RemoveAll(scratchDir(cfg)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(scratchDir(cfg), 0o700); err != nil {
		return nil, err
	}
	verdicts, err := a.verdicts(verdictsFile(cfg))
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, verdicts.Close)
	s.runner = &scan.Runner{Policy: policy, Cache: verdicts, Scratch: scratchDir(cfg)}
	r := s.runner
	if c.Malware.On() {
		av, err := clamav.New(clamav.Config{
			Socket: c.Malware.Clamd, Program: c.Malware.Clamscan, Database: c.Malware.Database, MaxAge: c.Malware.MaxAge, Scratch: scratchDir(cfg),
		})
		if err != nil {
			return nil, usagef("scan.malware: %w", err)
		}
		s.close, s.warnings = append(s.close, av.Close), av.Warnings
		r.Inspectors = append(r.Inspectors, av)
	}
	code := scan.High
	if c.Models.Code == scan.ActionWarn {
		code = scan.Medium
	}
	w, err := weights.New(weights.Config{Pickle: c.Models.Pickle, Code: code})
	if err != nil {
		return nil, usagef("scan.models: %w", err)
	}
	r.Inspectors = append(r.Inspectors, w)
	p, err := packages.New(packages.Config{
		Malicious: c.Packages.Malicious, MaxAge: c.Packages.MaxAge, MinAge: c.Packages.MinAge, Known: known, Uploaded: s.age,
	})
	if err != nil {
		return nil, usagef("scan.packages: %w", err)
	}
	r.Inspectors, r.Judges = append(r.Inspectors, p), append(r.Judges, p)
	return s, s.addTrivy(a, cfg)
}

// addTrivy adds what finds packages, and what looks for vulnerabilities and
// secrets where that is asked for.
func (s *scanners) addTrivy(a *app, cfg *config.Config) error {
	v := cfg.Scan.Vulnerabilities
	tc := trivy.Config{Database: v.Database, MaxAge: v.MaxAge, Scratch: scratchDir(cfg), Distro: distro(cfg), VEX: v.VEX, Logger: a.logger()}
	if v.Digest != "" {
		var err error
		if tc.Digest, err = artifact.ParseDigest(v.Digest); err != nil {
			return usagef("scan.vulnerabilities.digest: %w", err)
		}
	}
	t, err := trivy.New(tc)
	if err != nil {
		return usagef("scan.vulnerabilities: %w", err)
	}
	s.trivy = t
	s.close = append(s.close, t.Close)
	r := s.runner
	r.Gatherers = append(r.Gatherers, t)
	if v.Database != "" {
		r.Judges = append(r.Judges, t)
	}
	if cfg.Scan.Secrets.Scan {
		r.Inspectors = append(r.Inspectors, t.Secrets())
	}
	return nil
}

// verdicts opens the file of verdicts; a damaged one is made anew.
func (a *app) verdicts(path string) (*ledger.Verdicts, error) {
	v, err := ledger.OpenVerdicts(path)
	if err == nil {
		return v, nil
	}
	a.warn("%v; everything is scanned again", err)
	if err := removeIfThere(path); err != nil {
		return nil, err
	}
	return ledger.OpenVerdicts(path)
}

// documents makes the evidence beside the verdicts: bills of material, and
// the waivers as VEX.
func (s *scanners) documents(ctx context.Context, r *scan.Report) (map[string][]byte, error) {
	when := dated(r)
	var parts []trivy.Component
	for i := range r.Items {
		it := &r.Items[i]
		if it.Held() || it.Inventory() == nil {
			continue
		}
		parts = append(parts, trivy.Component{Source: it.Source, Name: it.Name, Version: it.Version, Inventory: it.Inventory()})
	}
	cdx, spdx, err := s.trivy.SBOM(ctx, "darkmirror", when, parts)
	if err != nil {
		return nil, fmt.Errorf("bill of material: %w", err)
	}
	docs := map[string][]byte{"sbom.cdx.json": cdx, "sbom.spdx.json": spdx}
	if len(r.Waived) > 0 {
		if docs["vex.json"], err = trivy.WriteVEX(ctx, "darkmirror", when, r.Waived); err != nil {
			return nil, fmt.Errorf("waivers as VEX: %w", err)
		}
	}
	return docs, nil
}

// dated is the time that evidence carries: that of the newest database, so
// that the same judgement gives the same bytes whenever it is made. Without a
// database it is the start of the format that ZIP dates have.
func dated(r *scan.Report) time.Time {
	t := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, e := range r.Engines {
		if e.Dated != nil && e.Dated.After(t) {
			t = *e.Dated
		}
	}
	return t
}

// scanning gives an exporter its scanners.
func (a *app) scanning(cfg *config.Config, e *mirror.Exporter) (*scanners, error) {
	known, err := namesInUse(e)
	if err != nil {
		return nil, err
	}
	s, err := a.scanners(cfg, known)
	if err != nil {
		return nil, err
	}
	e.Scanner, e.Documents = s.runner, s.documents
	return s, nil
}

// namesInUse are the names of the Python packages that the last bundle knew.
func namesInUse(e *mirror.Exporter) ([]string, error) {
	last, ok, err := e.Ledger.LastSealed(e.Stream)
	if err != nil || !ok {
		return nil, err
	}
	var names []string
	for _, ref := range last.Sources {
		if !strings.HasPrefix(ref.Name, "pypi/") {
			continue
		}
		raw, err := e.Store.ReadAll(ref.Snapshot, artifact.MaxSnapshot)
		if err != nil {
			return nil, err
		}
		snap, err := artifact.DecodeSnapshot(raw)
		if err != nil {
			return nil, err
		}
		for _, a := range snap.Artifacts {
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// learn reads what the indexes tell of the age of their files.
func (s *scanners) learn(p *mirror.Plan, st *store.Store) error {
	s.uploaded = make(map[artifact.Digest]time.Time)
	for i := range p.Sources {
		snap := &p.Sources[i].Snapshot
		if !strings.HasPrefix(snap.Source, "pypi/") {
			continue
		}
		times, err := pypi.Uploaded(snap, st)
		if err != nil {
			return fmt.Errorf("%s: %w", snap.Source, err)
		}
		maps.Copy(s.uploaded, times)
	}
	return nil
}

// age is when upstream got the newest file of an artifact; it is not known
// unless it is known of all.
func (s *scanners) age(_ string, a artifact.Artifact) (newest time.Time, ok bool) {
	for _, f := range a.Files {
		t, ok := s.uploaded[f.Digest]
		if !ok {
			return time.Time{}, false
		}
		if t.After(newest) {
			newest = t
		}
	}
	return newest, len(a.Files) > 0
}

// withScanner gives an importer its scanners.
func (a *app) withScanner(cfg *config.Config, i *mirror.Importer) (func() error, error) {
	inside := *cfg
	inside.Scan.Packages.MinAge = 0 // it was old enough when it was sealed
	s, err := a.scanners(&inside, nil)
	if err != nil {
		return nil, err
	}
	i.Scanner, i.Rescan = s.runner, cfg.Rescan
	return s.Close, nil
}

// codenames are the releases whose advisories are known, by the first word of
// a suite.
var codenames = map[string][2]string{
	"buster": {"debian", "10"}, "bullseye": {"debian", "11"}, "bookworm": {"debian", "12"}, "trixie": {"debian", "13"}, "forky": {"debian", "14"},
	"focal": {"ubuntu", "20.04"}, "jammy": {"ubuntu", "22.04"}, "noble": {"ubuntu", "24.04"}, "resolute": {"ubuntu", "26.04"},
}

// distro tells the distribution of an apt source by its suites: "bookworm",
// "bookworm-security", "bookworm/updates".
func distro(cfg *config.Config) func(string) (string, string) {
	return func(source string) (family, version string) {
		for i := range cfg.Apt {
			if "apt/"+cfg.Apt[i].Name != source {
				continue
			}
			for _, ar := range cfg.Apt[i].Archives {
				for _, suite := range ar.Suites {
					word := strings.FieldsFunc(suite, func(r rune) bool { return r == '-' || r == '/' })
					if len(word) > 0 {
						if c, ok := codenames[word[0]]; ok {
							return c[0], c[1]
						}
					}
				}
			}
		}
		return "", ""
	}
}
