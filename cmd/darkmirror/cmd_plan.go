package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/config"
)

type planOptions struct {
	only     []string
	exitCode bool
	save     string
	check    string
}

func newPlan(a *app) *cobra.Command {
	o := &planOptions{}
	cmd := &cobra.Command{
		Use:     "plan [--only SOURCE]... [--exit-code] [--save FILE] [--crosscheck uv]",
		GroupID: groupOutside,
		Short:   "Show what a run would fetch, before anything is fetched",
		Long: `Show what a run would fetch, before anything is fetched.

Reads the upstreams' indexes, fixes every digest, and prints how many
artifacts are new, changed and gone, what has to be fetched, and the room
that is needed. A saved plan can be reviewed and carried out later with
darkmirror export --plan FILE.

--crosscheck uv asks an installed uv for the same requirements and targets
and prints where it would choose otherwise. Its answer enters no bundle.

` + codesLine(exitOK, exitUsage, exitPartial, exitIntegrity, exitSequence, exitUnreachable, exitLocked, exitChanges),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context(), o) },
	}
	cmd.Flags().StringArrayVar(&o.only, "only", nil, "only this `SOURCE`, as pypi/main; may be repeated")
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "exit with 10 where there are changes")
	cmd.Flags().StringVar(&o.check, "crosscheck", "", "compare with another resolver on this host: `uv`")
	cmd.Flags().StringVar(&o.save, "save", "", "write the plan to `FILE`")
	return cmd
}

func (a *app) plan(ctx context.Context, o *planOptions) (err error) {
	if o.check != "" && o.check != "uv" {
		return usagef("--crosscheck %s: uv is the one that can be asked", o.check)
	}
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	st, led, err := openState(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	p := startProgress(a.err, a.output, a.quiet)
	exp, err := a.exporter(cfg, st, led, o.only, p.event)
	if err == nil {
		err = exp.Sweep()
	}
	if err != nil {
		p.finish()
		return err
	}
	pl, planErr := exp.Plan(ctx, time.Now())
	p.finish()
	if pl == nil {
		return planErr
	}
	sum, err := exp.Summarize(pl)
	if err != nil {
		return err
	}
	if planErr != nil && len(pl.Sources) == 0 && !a.output.machine() {
		return allFailed(pl, planErr)
	}
	if err := a.result(planJSON(pl, sum), func() error { return printPlan(a.out, pl, sum, cfg) }); err != nil {
		return err
	}
	if o.check != "" {
		if err := a.crosscheck(ctx, cfg, exp.Sources); err != nil {
			return err
		}
	}
	if o.save != "" {
		b, err := pl.Encode()
		if err != nil {
			return err
		}
		if err := durable.WriteFile(o.save, b, 0o640); err != nil {
			return err
		}
	}
	if planErr != nil {
		return allFailed(pl, planErr)
	}
	if o.exitCode && sum.Changes {
		return errChanges
	}
	return nil
}

// allFailed gives the plain errors where no source could be resolved at all,
// so that the exit code is theirs and not that of a partial run.
func allFailed(pl *mirror.Plan, err error) error {
	for _, s := range pl.Sources {
		if !s.Kept {
			return err
		}
	}
	if p, ok := errors.AsType[*mirror.PartialError](err); ok {
		return errors.Join(p.Unwrap()...)
	}
	return err
}

type planResult struct {
	Schema string           `json:"schema"`
	Stream string           `json:"stream"`
	Made   time.Time        `json:"made"`
	Failed []mirror.Missing `json:"failed"`
	*mirror.PlanSummary
}

func planJSON(pl *mirror.Plan, sum *mirror.PlanSummary) planResult {
	return planResult{Schema: "darkmirror.plan-summary/v1", Stream: pl.Stream, Made: pl.Made, Failed: pl.Failed, PlanSummary: sum}
}

func printPlan(w io.Writer, pl *mirror.Plan, sum *mirror.PlanSummary, cfg *config.Config) error {
	var added, changed, gone int
	if err := table(w, func(w io.Writer) {
		fmt.Fprintln(w, "SOURCE\tNEW\tCHANGED\tGONE\tFETCH\tNOTE")
		for _, s := range sum.Sources {
			note := strings.Join(s.Notes, "; ")
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", s.Source, s.New, s.Changed, s.Gone, size(s.FetchBytes), clean(note))
			added, changed, gone = added+s.New, changed+s.Changed, gone+s.Gone
		}
	}); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "Fetch   %d new, %d changed, %d gone: %s\n", added, changed, gone, size(sum.FetchBytes))
	fmt.Fprintf(w, "Disk    %s needed, %s free in %s\n", size(sum.DiskBytes), size(sum.FreeBytes), cfg.StateDir)
	if rate := cfg.LinkRate.BitsPerSecond(); rate > 0 {
		took := time.Duration(float64(sum.CarryBytes) * 8 / float64(rate) * float64(time.Second))
		fmt.Fprintf(w, "Link    about %s for %s\n", short(took), size(sum.CarryBytes))
	}
	fmt.Fprintln(w)
	switch {
	case sum.Changes:
		fmt.Fprintln(w, "Run `darkmirror export` to carry this out.")
	case len(pl.Failed) == 0:
		fmt.Fprintln(w, "Nothing changed since the last bundle.")
	}
	return nil
}

func readPlan(name string) (*mirror.Plan, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, &usageError{err}
	}
	pl, err := mirror.DecodePlan(b)
	if err != nil {
		return nil, usagef("%s: %w", name, err)
	}
	return pl, nil
}
