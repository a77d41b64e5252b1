package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/fec"
	"github.com/darkmirror/darkmirror/diode/linkend"
)

type sendFlags struct {
	to, iface, key, rate, profile, loss, spool, ticket, name, priority, line string
	mtu, passes, repair                                                      int
	outage                                                                   time.Duration
	dryRun, blind, beat, check, jsonOut                                      bool
}

func send(ctx context.Context, args []string, out, errs io.Writer) error {
	var f sendFlags
	fs := flag.NewFlagSet("send", flag.ContinueOnError)
	fs.StringVar(&f.to, "to", "", "`ADDRESS:PORT` of the receiver")
	fs.StringVar(&f.key, "key", "", "link key `FILE`: 32 hexadecimal digits")
	fs.StringVar(&f.rate, "rate", "", "bits a second on the wire, as 900m or 2.5g: under what the link and the receiver's disk bear")
	fs.StringVar(&f.iface, "interface", "", "send from this interface")
	fs.IntVar(&f.mtu, "mtu", 0, "largest packet of the path, up to 9000 (default the interface's)")
	fs.DurationVar(&f.outage, "outage", 0, "longest interruption that parity shall outlast, as 500ms")
	fs.StringVar(&f.loss, "loss", "0.1%", "share of packets lost at random that parity shall outlast, beside the outage")
	fs.StringVar(&f.profile, "profile", "", "lean, default, robust or heavy (default chosen from --outage and --loss)")
	fs.IntVar(&f.passes, "passes", 1, "send everything so many times")
	fs.IntVar(&f.repair, "repair-passes", 0, "then so many passes of parity that was not sent before")
	fs.StringVar(&f.ticket, "ticket", "", "send only what this ticket of the receiver asks for, of one file")
	fs.StringVar(&f.name, "name", "", "what the one file is called inside (default its own name)")
	fs.StringVar(&f.spool, "spool", "", "folder for the parity of a generation (default the system's for temporary files)")
	fs.StringVar(&f.priority, "priority", "normal", "urgent, normal or bulk: what is more urgent goes before what another sender of this host has begun")
	fs.StringVar(&f.line, "line", "", "`FILE` that all senders of the link on this host share, so that one at a time sends (default one in the folder of --spool, for each user and receiver)")
	fs.BoolVar(&f.beat, "beat", false, "send nothing but a heartbeat a second, until ended: the receiver tells an idle link from one that is cut")
	fs.BoolVar(&f.check, "check", false, "print what is wrong with this host's card and clock, send nothing")
	fs.BoolVar(&f.blind, "blind", false, "send though no permanent neighbour entry is known")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the plan, send nothing")
	fs.BoolVar(&f.jsonOut, "json", false, "print the result as JSON")
	if err := parse(fs, args, errs, "darkdiode send --to ADDRESS:PORT --key FILE --rate RATE [flags] FILE|FOLDER..."); err != nil {
		return err
	}
	o, err := f.options(errs)
	if err != nil {
		return err
	}
	switch {
	case f.check:
		return printFindings(out, o.Diagnose(), f.jsonOut)
	case f.beat:
		if fs.NArg() > 0 {
			return fmt.Errorf("%w: %q: --beat sends no files", diode.ErrConfig, fs.Arg(0))
		}
		return linkend.Beat(ctx, o)
	}
	plan, err := o.Plan()
	if err != nil {
		return err
	}
	if f.dryRun {
		return printPlan(out, plan, o.Rate, f.jsonOut)
	}
	objects, err := f.objects(fs.Args())
	if err != nil {
		return err
	}
	var total int64
	for _, ob := range objects {
		info, err := os.Stat(ob.Path)
		if err != nil {
			return fmt.Errorf("%w: %w", diode.ErrConfig, err)
		}
		total += info.Size()
	}
	last := time.Now()
	o.OnProgress = func(sent int64) {
		if now := time.Now(); now.Sub(last) >= 10*time.Second {
			last = now
			fmt.Fprintf(errs, "sent %.1f GB with parity, of %.1f GB\n", float64(sent)/1e9, float64(total)/1e9)
		}
	}
	sent, err := linkend.Send(ctx, o, objects)
	if err != nil {
		return err
	}
	if f.jsonOut {
		return json.NewEncoder(out).Encode(map[string]any{
			"schema": "darkdiode.sent/v1", "files": len(objects), "bytes": total, "packets": sent.Packets, "datagram_bytes": sent.Bytes,
			"mode": sent.Mode, "seconds": sent.Took.Seconds(), "k": sent.Plan.Profile.K, "m": sent.Plan.Profile.M, "columns": sent.Plan.Columns,
		})
	}
	_, err = fmt.Fprintf(out, "sent %d files, %d bytes, in %d packets and %s (%d+%d, %s)\n",
		len(objects), total, sent.Packets, sent.Took.Round(100*time.Millisecond), sent.Plan.Profile.K, sent.Plan.Profile.M, sent.Mode)
	return err
}

func (f *sendFlags) options(errs io.Writer) (o linkend.SendOptions, err error) {
	if o.To, err = netip.ParseAddrPort(f.to); err != nil {
		return o, fmt.Errorf("%w: --to %q: want an address and a port, as 192.0.2.2:%d", diode.ErrConfig, f.to, linkend.DefaultPort)
	}
	if f.rate == "" && !f.beat && !f.check {
		return o, fmt.Errorf("%w: --rate is missing: what is sent faster than the other side takes it is lost", diode.ErrConfig)
	}
	if f.rate != "" {
		if o.Rate, err = linkend.ParseRate(f.rate); err != nil {
			return o, err
		}
	}
	if o.Loss, err = linkend.ParseShare(f.loss); err != nil {
		return o, err
	}
	if f.passes < 1 {
		return o, fmt.Errorf("%w: --passes %d: want 1 or more", diode.ErrConfig, f.passes)
	}
	if !f.dryRun && !f.check {
		if o.Key, err = readKey(f.key); err != nil {
			return o, err
		}
	}
	o.Interface, o.MTU, o.Profile, o.Outage = f.iface, f.mtu, f.profile, f.outage
	o.Passes, o.Repair, o.Spool, o.Blind = f.passes, f.repair, f.spool, f.blind
	o.Priority, o.Line = f.priority, f.line
	o.Log = logger(errs)
	return o, nil
}

func (f *sendFlags) objects(args []string) ([]diode.Object, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("%w: name at least one file or folder", diode.ErrConfig)
	}
	objects, err := linkend.Objects(args)
	if err != nil {
		return nil, err
	}
	if f.name == "" && f.ticket == "" {
		return objects, nil
	}
	if len(objects) != 1 {
		return nil, fmt.Errorf("%w: --name and --ticket go with one file; %d are named", diode.ErrConfig, len(objects))
	}
	if f.name != "" {
		objects[0].Name = f.name
	}
	if f.ticket != "" {
		if objects[0].Ticket, err = diode.ParseTicket(f.ticket); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// printPlan says what the link will bear, and at what cost.
func printPlan(out io.Writer, p fec.Plan, rate float64, jsonOut bool) error {
	if jsonOut {
		return json.NewEncoder(out).Encode(map[string]any{
			"schema": "darkdiode.plan/v1", "profile": p.Profile.Name, "k": p.Profile.K, "m": p.Profile.M, "payload": p.Payload, "columns": p.Columns,
			"generation_bytes": p.GenerationBytes, "overhead": p.Overhead, "goodput": p.Goodput * rate, "burst_packets": p.BurstPackets,
			"outage_seconds": p.Outage.Seconds(), "spool_bytes": p.SpoolBytes, "residual_per_tb": p.Residual,
		})
	}
	_, err := fmt.Fprintf(out, `code        %s: %d data and %d parity rows, %.1f %% more to send
symbols     %d bytes, %d columns, generations of %.2f GB
outlasts    an interruption of %s (%d packets) in each generation
residual    1 TB stays incomplete with probability %.1e
goodput     %.0f Mbit/s of %.0f Mbit/s on the wire; 1 TB in %s
needs       %.0f MB for parity on each side
`, p.Profile.Name, p.Profile.K, p.Profile.M, 100*p.Overhead, p.Payload, p.Columns, float64(p.GenerationBytes)/1e9,
		p.Outage.Round(time.Millisecond), p.BurstPackets, p.Residual, p.Goodput*rate/1e6, rate/1e6,
		time.Duration(8e12/(p.Goodput*rate)*1e9).Round(time.Minute), float64(p.SpoolBytes)/1e6)
	return err
}
