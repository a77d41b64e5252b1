package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/link"
	"github.com/darkmirror/darkmirror/diode/linkend"
	"github.com/darkmirror/darkmirror/diode/oneway"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
)

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		GroupID: groupBoth,
		Short:   "Check this host for its role: keys, room, sequence, the link",
		Long: `Check this host for its role: configuration, keys, room, age and gaps of the
stream, and the link. Inside, every layer that keeps this host from sending on
the link's interface is looked at; outside, whether packets can leave without an
answer. It changes nothing, and gives the code of its gravest failure.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSequence, exitUnreachable, exitLocked),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.doctor(time.Now()) },
	}
}

// A finding is a line of the doctor's.
type finding struct {
	State  string `json:"state"` // ok, warn, fail or skip
	Name   string `json:"name"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
	err    error  // of a failure; decides the exit code
}

type doctorResult struct {
	Schema   string    `json:"schema"`
	Role     string    `json:"role"`
	Findings []finding `json:"findings"`
}

func (r *doctorResult) ok(name, format string, args ...any) {
	r.Findings = append(r.Findings, finding{State: "ok", Name: name, Detail: fmt.Sprintf(format, args...)})
}

func (r *doctorResult) skip(name, detail string) {
	r.Findings = append(r.Findings, finding{State: "skip", Name: name, Detail: detail})
}

func (r *doctorResult) warn(name, detail, hint string) {
	r.Findings = append(r.Findings, finding{State: "warn", Name: name, Detail: detail, Hint: hint})
}

func (r *doctorResult) fail(name string, err error) {
	r.Findings = append(r.Findings, finding{State: "fail", Name: name, Detail: firstOf(err), Hint: hint(err), err: err})
}

func (a *app) doctor(now time.Time) error {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	r := &doctorResult{Schema: "darkmirror.doctor/v1", Role: cfg.Role, Findings: []finding{}}
	r.ok("config", "role %s, %s", cfg.Role, plural(len(cfg.PyPI)+len(cfg.Apt)+len(cfg.OCI)+len(cfg.Models)+len(cfg.Files), "source"))
	if cfg.Role == config.Outside {
		r.outsideKeys(cfg)
	} else {
		r.insideKeys(cfg)
	}
	r.room(cfg)
	a.sequence(r, cfg, now)
	if cfg.Role == config.Outside {
		r.outsideLink(cfg)
	} else {
		r.insideLink(cfg)
	}
	if err := a.result(r, func() error { return r.print(a) }); err != nil {
		return err
	}
	var errs []error
	for _, f := range r.Findings {
		if f.err != nil {
			errs = append(errs, f.err)
		}
	}
	return errors.Join(errs...)
}

func (r *doctorResult) print(a *app) error {
	failures, warnings := 0, 0
	for _, f := range r.Findings {
		switch f.State {
		case "fail":
			failures++
		case "warn":
			warnings++
		}
		if _, err := fmt.Fprintf(a.out, "%-5s %-12s %s\n", f.State, f.Name, clean(f.Detail)); err != nil {
			return err
		}
		if f.Hint != "" && f.State == "warn" {
			if _, err := fmt.Fprintf(a.out, "%18s hint: %s\n", "", clean(f.Hint)); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(a.out, "%s, %s\n", plural(failures, "failure"), plural(warnings, "warning"))
	return err
}

func (r *doctorResult) outsideKeys(cfg *config.Config) {
	s, err := signer(cfg)
	if err == nil {
		err = bundle.CheckSigner(s)
	}
	if err != nil {
		r.fail("keys", err)
		return
	}
	r.ok("keys", "signs as %s (%s); tried", s.Name, bundle.Fingerprint(s.Public()))
}

func (r *doctorResult) insideKeys(cfg *config.Config) {
	if v, err := pinnedRoot(cfg); err != nil {
		r.fail("keys", err)
		return
	} else if v != nil {
		if err := v.CheckExpiry(time.Now()); err != nil {
			r.fail("keys", err)
			return
		}
		r.ok("keys", "root version %d of stream %s, until %s", v.Root().Version, v.Root().Stream, v.Root().Expires.Format(time.DateOnly))
		return
	}
	t, err := trust(cfg)
	switch {
	case err != nil:
		r.fail("keys", err)
	case len(t.Keys) == 0:
		r.fail("keys", usagef("no exporter's key is trusted\ndarkmirror key trust FILE adds one"))
	default:
		r.ok("keys", "%d trusted: %s (%s)", len(t.Keys), t.Keys[0].Name, bundle.Fingerprint(t.Keys[0].Public))
	}
}

func (r *doctorResult) room(cfg *config.Config) {
	st, err := store.Open(storeDir(cfg))
	if err != nil {
		r.fail("disk", err)
		return
	}
	free, err := st.Free()
	if err != nil {
		r.fail("disk", err)
		return
	}
	const little = 5 << 30
	if free < little {
		r.warn("disk", fmt.Sprintf("%s free in %s", size(free), cfg.StateDir), "free some space, or move state_dir")
		return
	}
	r.ok("disk", "%s free in %s", size(free), cfg.StateDir)
}

// sequence looks at what status alarms about.
func (a *app) sequence(r *doctorResult, cfg *config.Config, now time.Time) {
	led, err := ledger.OpenReadOnly(ledgerFile(cfg))
	if err != nil {
		r.skip("sequence", "nothing was done here yet, or a run is under way: "+firstOf(err))
		return
	}
	res := &statusResult{}
	err = errors.Join(a.gather(res, cfg, led, now), led.Close())
	if err != nil {
		r.fail("sequence", err)
		return
	}
	for _, alarm := range res.Alarms {
		r.fail("sequence", &artifact.Refusal{Class: artifact.ErrSequence, Code: "STATUS-ALARM", Reason: alarm})
	}
	if len(res.Alarms) > 0 {
		return
	}
	switch {
	case len(res.Sealed) > 0:
		r.ok("sequence", "last sealed %s", seqName(res.Sealed[len(res.Sealed)-1].Seq))
	case len(res.Imported) > 0:
		r.ok("sequence", "last imported %s", seqName(res.Imported[len(res.Imported)-1].Seq))
	default:
		r.skip("sequence", "no bundle yet")
	}
}

func (r *doctorResult) outsideLink(cfg *config.Config) {
	if cfg.Send.To == "" {
		r.skip("link", "none is configured")
		return
	}
	o, err := linkOut(cfg, false)
	if err != nil {
		r.fail("link", err)
		return
	}
	plan, err := o.Plan()
	if err != nil {
		r.fail("link", err)
		return
	}
	r.ok("link", "%s at %s, code %d+%d outlasting %s", cfg.Send.To, cfg.Send.Rate, plan.Profile.K, plan.Profile.M, plan.Outage.Round(time.Millisecond))
	err = o.Neighbour()
	var n *linkend.NeighbourError
	switch {
	case err == nil:
		r.ok("neighbour", "packets can leave without an answer")
	case errors.As(err, &n) && o.Blind:
		r.warn("neighbour", firstOf(err), n.Hint)
	default:
		r.fail("neighbour", err)
	}
	r.host(o.Diagnose())
}

// host takes over what was found of card, kernel and clock.
func (r *doctorResult) host(all []linkend.Finding) {
	for _, f := range all {
		switch f.State {
		case link.FindingOK:
			r.ok(f.Name, "%s", f.Detail)
		case link.FindingWarn:
			r.warn(f.Name, f.Detail, f.Mend)
		case link.FindingFail:
			r.fail(f.Name, usagef("%s\n%s", f.Detail, f.Mend))
		default:
			r.skip(f.Name, f.Detail)
		}
	}
}

func (r *doctorResult) insideLink(cfg *config.Config) {
	c := cfg.Receive
	if len(c.KeyFiles) == 0 {
		r.skip("link", "none is configured")
		return
	}
	in, err := linkIn(cfg)
	if err != nil {
		r.fail("link", err)
		return
	}
	if c.Interface == "" {
		r.fail("link", fmt.Errorf("%w: link.interface is not set: nothing about it can be known", diode.ErrConfig))
		return
	}
	layers, err := oneway.Check(c.Interface, in.Rules(c.Backend))
	if err != nil {
		r.fail("link", err)
		return
	}
	for _, l := range layers {
		switch {
		case l.State == oneway.OK:
			r.ok(l.Name, "%s", l.Detail)
		case l.Required && !c.Unproven && !c.Block:
			r.fail(l.Name, &oneway.NotSealedError{Layers: []oneway.Layer{l}})
		default:
			// receive sets it, or goes on without.
			r.warn(l.Name, fmt.Sprintf("%s: %s", l.State, l.Detail), l.Hint)
		}
	}
	r.host(in.Diagnose())
}
