package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/linkend"
	"github.com/darkmirror/darkmirror/diode/oneway"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/config"
)

func newReceive(a *app) *cobra.Command {
	var idle time.Duration
	cmd := &cobra.Command{
		Use:     "receive [--until-idle TIME]",
		GroupID: groupInside,
		Short:   "Take files from the link into the inbox (a service)",
		Long: `Take files from the link into the inbox: a service. Before the first packet it
proves that this host can send nothing on the link's interface, and refuses
to run when it cannot be sure, unless link.unproven says so.

It ends when it is told to, or with --until-idle when nothing came for so long
after something had; then files that are not complete are exit code 3.

` + codesLine(exitOK, exitUsage, exitPartial, exitIntegrity, exitLocked, exitSpace, exitInterrupted),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.receive(cmd.Context(), idle) },
	}
	cmd.Flags().DurationVar(&idle, "until-idle", 0, "end when nothing came for so long after something had, as 10s")
	return cmd
}

type receivedResult struct {
	Schema     string       `json:"schema"`
	Counts     diode.Counts `json:"counts"`
	Incomplete int          `json:"incomplete"`
}

func (a *app) receive(ctx context.Context, idle time.Duration) error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	o, err := linkIn(cfg)
	if err != nil {
		return err
	}
	o.UntilIdle, o.Log = idle, a.logger()
	var failed atomic.Int64
	o.OnEvent = func(e diode.Event) {
		if e.Kind == diode.Failed {
			failed.Add(1)
		}
		a.linkEvent(e)
	}
	o.OnReady = func(backend string, layers []oneway.Layer) {
		for _, l := range layers {
			fmt.Fprintf(a.err, "%-8s %-12s %s\n", l.State, l.Name, clean(l.Detail))
		}
		fmt.Fprintf(a.err, "receiving on %s port %d (%s) into %s\n", o.Interface, o.Port, backend, o.Inbox)
	}
	got, err := linkend.Receive(ctx, o)
	if err != nil {
		return err
	}
	res := receivedResult{Schema: "darkmirror.received/v1", Counts: got.Counts}
	if got.Status != nil {
		res.Incomplete = len(got.Status.Objects)
	}
	if err := a.result(res, func() error {
		_, err := fmt.Fprintf(a.out, "received %s, %d packets, %d symbols repaired\n", plural(int(got.Counts.Objects), "file"), got.Counts.Packets, got.Counts.Repaired)
		return err
	}); err != nil {
		return err
	}
	switch {
	case failed.Load() > 0:
		return fmt.Errorf("%s: %w", plural(int(failed.Load()), "file"), diode.ErrDigest)
	case res.Incomplete > 0:
		return &mirror.PartialError{Items: []*mirror.ItemError{{Source: "link", Err: fmt.Errorf("%s not complete; what arrived is kept: %w", plural(res.Incomplete, "file"), diode.ErrIncomplete)}}}
	}
	return nil
}

// linkIn is the receiving end as configured.
func linkIn(cfg *config.Config) (o linkend.ReceiveOptions, err error) {
	c := cfg.Receive
	if len(c.KeyFiles) == 0 {
		return o, usagef("no link is configured\nset link.key_files and link.interface")
	}
	if len(cfg.Inbox) == 0 {
		return o, usagef("inbox is not set in the configuration")
	}
	for _, f := range c.KeyFiles {
		k, err := linkKey(f)
		if err != nil {
			return o, err
		}
		o.Keys = append(o.Keys, k)
	}
	if c.Address != "" {
		if o.Addr, err = netip.ParseAddr(c.Address); err != nil {
			return o, &usageError{err}
		}
	}
	o.Inbox, o.Interface, o.Port, o.Backend = cfg.Inbox[0], c.Interface, uint16(c.Port), c.Backend //nolint:gosec // the configuration holds the range
	o.Ring, o.Tickets, o.Block, o.Unproven = int(c.Ring.Bytes()), c.Tickets, c.Block, c.Unproven
	o.Status, o.Metrics = c.Status, c.Metrics
	return o, nil
}

// linkEvent tells what became of a file.
func (a *app) linkEvent(e diode.Event) {
	if a.output.machine() {
		// The result is on standard output; events are progress.
		fmt.Fprintf(a.err, "{\"schema\":\"darkmirror.link/v1\",\"event\":%q,\"name\":%q,\"size\":%d,\"reason\":%q,\"ticket\":%q}\n", e.Kind, e.Name, e.Size, e.Reason, e.Ticket)
		return
	}
	switch e.Kind {
	case diode.Completed:
		fmt.Fprintf(a.err, "complete    %s  %s\n", clean(e.Name), size(e.Size))
	case diode.Incomplete:
		fmt.Fprintf(a.err, "incomplete  %s: %d generations lack more than parity can bring back\n", clean(e.Name), e.Missing)
		if e.Ticket != "" {
			fmt.Fprintf(a.err, "ticket      %s\n", e.Ticket)
		}
	case diode.Failed, diode.Rejected, diode.Dropped:
		fmt.Fprintf(a.err, "%s  %s: %s\n", e.Kind, clean(e.Name), clean(e.Reason))
	case diode.Started, diode.LinkUp, diode.LinkDown, diode.SenderGone:
		fmt.Fprintf(a.err, "%s  %s%s\n", e.Kind, clean(e.Name), clean(e.Reason))
	}
}
