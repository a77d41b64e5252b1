package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/linkend"
	"github.com/darkmirror/darkmirror/diode/oneway"
)

func logger(errs io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// keyFiles collects --key, which may be given twice.
type keyFiles []string

func (k *keyFiles) String() string { return strings.Join(*k, ",") }

func (k *keyFiles) Set(s string) error {
	*k = append(*k, strings.Split(s, ",")...)
	return nil
}

type receiveFlags struct {
	inbox, iface, addr, backend, status, metrics string
	keys                                         keyFiles
	port                                         uint
	ring                                         int
	tickets, byDigest, block, unproven           bool
	check, jsonOut                               bool
	idle                                         time.Duration
}

func receive(ctx context.Context, args []string, out, errs io.Writer) error {
	var f receiveFlags
	fs := flag.NewFlagSet("receive", flag.ContinueOnError)
	fs.StringVar(&f.inbox, "inbox", "", "`FOLDER` that whole files appear in")
	fs.Var(&f.keys, "key", "link key `FILE`; may be given twice, while a key is being changed")
	fs.StringVar(&f.iface, "interface", "", "the interface that the link is on")
	fs.StringVar(&f.addr, "address", "", "take only packets for this `ADDRESS`")
	fs.UintVar(&f.port, "port", linkend.DefaultPort, "UDP port")
	fs.StringVar(&f.backend, "backend", "auto", "packet: read the interface, as root or with CAP_NET_RAW; udp: a plain socket")
	fs.IntVar(&f.ring, "ring", 0, "bytes of the ring or socket buffer (default 160 MiB)")
	fs.StringVar(&f.status, "status", "", "JSON `FILE` that is replaced every second")
	fs.StringVar(&f.metrics, "metrics", "", "Prometheus text `FILE` that is replaced every second")
	fs.BoolVar(&f.tickets, "tickets", false, "print what would complete a file, to be carried out by a person")
	fs.BoolVar(&f.byDigest, "by-digest", false, "name files sha256-...; trust no name of the link")
	fs.BoolVar(&f.block, "block", false, "drop by nftables whatever this host would send on the interface, as root")
	fs.BoolVar(&f.unproven, "unproven", false, "receive though it is not proven that nothing can be sent")
	fs.BoolVar(&f.check, "check", false, "print what is wrong with this host's card, kernel and clock, and with what --status says; receive nothing")
	fs.DurationVar(&f.idle, "until-idle", 0, "end when nothing but heartbeats came for so long after something had")
	fs.BoolVar(&f.jsonOut, "json", false, "print events as JSON lines")
	if err := parse(fs, args, errs, "darkdiode receive --inbox FOLDER --key FILE --interface NAME [flags]"); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: %q: receive takes flags only", diode.ErrConfig, fs.Arg(0))
	}
	o, err := f.options(errs)
	if err != nil {
		return err
	}
	if f.check {
		return printFindings(out, o.Diagnose(), f.jsonOut)
	}
	var failed atomic.Int64
	o.OnEvent = func(e diode.Event) {
		if e.Kind == diode.Failed {
			failed.Add(1)
		}
		f.print(out, errs, e)
	}
	o.OnReady = func(backend string, layers []oneway.Layer) {
		for _, l := range layers {
			fmt.Fprintf(errs, "%-8s %-12s %s\n", l.State, l.Name, l.Detail)
		}
		fmt.Fprintf(errs, "ready; back end %s, port %d, inbox %s\n", backend, f.port, f.inbox)
	}
	got, err := linkend.Receive(ctx, o)
	if err != nil {
		return err
	}
	return f.sum(got, failed.Load())
}

func (f *receiveFlags) options(errs io.Writer) (o linkend.ReceiveOptions, err error) {
	if f.inbox == "" && !f.check {
		return o, fmt.Errorf("%w: --inbox is missing", diode.ErrConfig)
	}
	if f.port < 1 || f.port > 65535 {
		return o, fmt.Errorf("%w: --port %d: want 1 to 65535", diode.ErrConfig, f.port)
	}
	if len(f.keys) == 0 && !f.check {
		f.keys = keyFiles{""}
	}
	if len(f.keys) > 2 {
		return o, fmt.Errorf("%w: --key: want one key, or two while it is being changed", diode.ErrConfig)
	}
	for _, file := range f.keys {
		k, err := readKey(file)
		if err != nil {
			return o, err
		}
		o.Keys = append(o.Keys, k)
	}
	if f.addr != "" {
		if o.Addr, err = netip.ParseAddr(f.addr); err != nil {
			return o, fmt.Errorf("%w: --address: %w", diode.ErrConfig, err)
		}
	}
	o.Inbox, o.Interface, o.Port, o.Backend, o.Ring = f.inbox, f.iface, uint16(f.port), f.backend, f.ring
	o.Tickets, o.ByDigest, o.Block, o.Unproven = f.tickets, f.byDigest, f.block, f.unproven
	o.Status, o.Metrics, o.UntilIdle, o.Log = f.status, f.metrics, f.idle, logger(errs)
	return o, nil
}

// print tells what became of a file: whole files on stdout, the rest on
// stderr.
func (f *receiveFlags) print(out, errs io.Writer, e diode.Event) {
	if f.jsonOut {
		_ = json.NewEncoder(out).Encode(map[string]any{ //nolint:errchkjson // stdout may be closed; the files are what counts
			"schema": "darkdiode.event/v1", "event": e.Kind, "object": e.Object, "name": e.Name, "size": e.Size, "reason": e.Reason,
			"missing_generations": e.Missing, "ticket": e.Ticket,
		})
		return
	}
	switch e.Kind {
	case diode.Completed:
		fmt.Fprintf(out, "complete  %s  %d bytes\n", e.Name, e.Size)
	case diode.Incomplete:
		fmt.Fprintf(errs, "incomplete  %s: %d generations lack more than parity can bring back\n", e.Name, e.Missing)
		if e.Ticket != "" {
			fmt.Fprintf(errs, "ticket  %s\n", e.Ticket)
		}
	case diode.Failed, diode.Rejected, diode.Dropped:
		fmt.Fprintf(errs, "%s  %s: %s\n", e.Kind, e.Name, e.Reason)
	case diode.Started, diode.LinkUp, diode.LinkDown, diode.SenderGone:
		text := e.Name
		if e.Reason != "" {
			text = e.Reason
		}
		fmt.Fprintf(errs, "%s  %s\n", e.Kind, text)
	}
}

// sum decides the exit code of a run that ended.
func (f *receiveFlags) sum(got *linkend.Received, failed int64) error {
	if failed > 0 {
		return fmt.Errorf("%d files: %w", failed, diode.ErrDigest)
	}
	if got.Status != nil && len(got.Status.Objects) > 0 {
		return &partialError{fmt.Sprintf("%d files are not complete; what arrived is kept", len(got.Status.Objects))}
	}
	return nil
}
