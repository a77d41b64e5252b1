package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/linkend"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
)

type sendOptions struct {
	volumes  []int
	ticket   string
	priority string
	dryRun   bool
	beat     bool
}

func newSend(a *app) *cobra.Command {
	o := &sendOptions{}
	cmd := &cobra.Command{
		Use:     "send [BUNDLE...] [--volume N]... [--ticket TICKET] [--priority CLASS] [--dry-run]",
		GroupID: groupOutside,
		Short:   "Send bundles over the link that never answers",
		Long: `Send bundles over the link that never answers: those that were sealed and not
sent yet, or the bundles that are named, again.

With --volume, only these volumes of one bundle, and its two documents. With
--ticket, only what a receiver asked for; the ticket was carried out by a
person. What is more urgent goes before what another send has begun, which goes
on after it.

With --beat it sends no bundle but a heartbeat a second, until it is ended: the
receiver tells an idle link from one that is cut.

` + codesLine(exitOK, exitUsage, exitUnreachable, exitLocked, exitSpace, exitInterrupted),
		RunE: func(cmd *cobra.Command, args []string) error { return a.send(cmd.Context(), args, o) },
	}
	cmd.Flags().IntSliceVar(&o.volumes, "volume", nil, "only volume `N` of the bundle; may be repeated")
	cmd.Flags().StringVar(&o.ticket, "ticket", "", "send only what this `TICKET` of the inside asks for")
	cmd.Flags().StringVar(&o.priority, "priority", "normal", "`CLASS`: urgent, normal or bulk")
	cmd.Flags().BoolVar(&o.beat, "beat", false, "send nothing but a heartbeat a second, until ended (a service)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be sent, and how long it takes; send nothing")
	return cmd
}

// A shipment is one bundle to send.
type shipment struct {
	seq     uint64
	dir     string
	objects []diode.Object
	bytes   int64
}

type sentResult struct {
	Schema  string       `json:"schema"`
	Stream  string       `json:"stream"`
	DryRun  bool         `json:"dry_run"`
	Code    string       `json:"code"` // data and parity rows
	Outlast float64      `json:"outlasts_seconds"`
	Bundles []sentBundle `json:"bundles"`
}

type sentBundle struct {
	Seq     string  `json:"seq"`
	Files   int     `json:"files"`
	Bytes   int64   `json:"bytes"`
	Packets int64   `json:"packets"`
	Seconds float64 `json:"seconds"`
}

func (a *app) send(ctx context.Context, args []string, o *sendOptions) error {
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	opts, err := linkOut(cfg, o.dryRun)
	if err != nil {
		return err
	}
	opts.Log, opts.Priority = a.logger(), o.priority
	if o.beat {
		if len(args) > 0 {
			return usagef("--beat sends no bundles")
		}
		return linkend.Beat(ctx, opts)
	}
	list, err := a.shipments(cfg, args, o)
	if err != nil {
		return err
	}
	plan, err := opts.Plan()
	if err != nil {
		return err
	}
	res := sentResult{
		Schema: "darkmirror.sent/v1", Stream: cfg.Stream, DryRun: o.dryRun, Code: fmt.Sprintf("%d+%d", plan.Profile.K, plan.Profile.M),
		Outlast: plan.Outage.Seconds(), Bundles: []sentBundle{},
	}
	if o.ticket != "" {
		if list, err = byTicket(opts, o.ticket, list); err != nil {
			return err
		}
	}
	for _, s := range list {
		b := sentBundle{Seq: seqName(s.seq), Files: len(s.objects), Bytes: s.bytes, Seconds: float64(8*s.bytes) * float64(opts.Passes) / (plan.Goodput * opts.Rate)}
		if !o.dryRun {
			if b, err = a.ship(ctx, cfg, opts, s, o.ticket == "" && len(o.volumes) == 0); err != nil {
				return err
			}
		}
		res.Bundles = append(res.Bundles, b)
	}
	return a.result(res, func() error { return res.print(a) })
}

func (r sentResult) print(a *app) error {
	verb := "sent"
	if r.DryRun {
		verb = "would send"
	}
	if len(r.Bundles) == 0 {
		_, err := fmt.Fprintln(a.out, "nothing to send: every bundle of the outbox was sent; name one to send it again")
		return err
	}
	for _, b := range r.Bundles {
		if _, err := fmt.Fprintf(a.out, "%s   %s  %s, %s in %s, code %s outlasting %s\n", verb, b.Seq, plural(b.Files, "file"), size(b.Bytes),
			short(time.Duration(b.Seconds*float64(time.Second))), r.Code, time.Duration(r.Outlast*1e9).Round(time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// linkOut is the sending end as configured.
func linkOut(cfg *config.Config, dryRun bool) (o linkend.SendOptions, err error) {
	c := cfg.Send
	if c.To == "" {
		return o, usagef("no link is configured\nset link.to, link.rate and link.key_file, or carry the outbox on a stick")
	}
	if o.To, err = netip.ParseAddrPort(c.To); err != nil {
		return o, &usageError{err}
	}
	if !dryRun {
		if o.Key, err = linkKey(c.KeyFile); err != nil {
			return o, err
		}
	}
	if o.Loss, err = c.LossShare(); err != nil {
		return o, &usageError{err}
	}
	if o.Outage, err = c.OutageTime(); err != nil {
		return o, &usageError{err}
	}
	o.Interface, o.Rate, o.MTU, o.Profile = c.Interface, float64(c.Rate.BitsPerSecond()), c.MTU, c.Profile
	o.Passes, o.Repair, o.Blind, o.Spool = c.Passes, c.RepairPasses, c.Blind, cfg.StateDir
	return o, nil
}

func linkKey(file string) (*diode.Key, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, &usageError{err}
	}
	k, err := diode.ParseKey(b)
	if err != nil {
		return nil, usagef("%s: %w", file, err)
	}
	return k, nil
}

// shipments finds what to send. The ledger is only looked at: a transfer may
// take a night, and exports go on meanwhile.
func (a *app) shipments(cfg *config.Config, args []string, o *sendOptions) (list []shipment, err error) {
	var all []ledger.Sealed
	led, err := ledger.OpenReadOnly(ledgerFile(cfg))
	switch {
	case errors.Is(err, fs.ErrNotExist): // nothing was ever sealed
	case err != nil:
		return nil, err
	default:
		all, err = led.Sealed(cfg.Stream)
		if err = errors.Join(err, led.Close()); err != nil {
			return nil, err
		}
	}
	wanted := make(map[uint64]bool)
	for _, arg := range args {
		seq, err := parseSeq(arg)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(r ledger.Sealed) bool { return r.Seq == seq }) {
			return nil, usagef("stream %s has no bundle %s", cfg.Stream, seqName(seq))
		}
		wanted[seq] = true
	}
	if len(o.volumes) > 0 && len(wanted) != 1 {
		return nil, usagef("--volume goes with one bundle")
	}
	for _, rec := range all {
		named := wanted[rec.Seq]
		if !named && (len(args) > 0 || o.ticket == "" && rec.State != ledger.StateSealed) {
			continue
		}
		if _, err := os.Stat(rec.Dir); err != nil {
			if named {
				return nil, usagef("bundle %s is no longer in %s\ndarkmirror resend %s makes it again from the store", seqName(rec.Seq), rec.Dir, seqName(rec.Seq))
			}
			continue // carried away
		}
		s := shipment{seq: rec.Seq, dir: rec.Dir}
		objects, err := linkend.Objects([]string{rec.Dir})
		if err != nil {
			return nil, err
		}
		if err := knownDigests(rec.Dir, objects); err != nil {
			return nil, err
		}
		for _, n := range o.volumes {
			if !slices.ContainsFunc(objects, func(ob diode.Object) bool { return volumeOf(ob.Name) == n }) {
				return nil, usagef("bundle %s has no volume %d in %s\nits volumes are %s", seqName(rec.Seq), n, rec.Dir, volumesOf(objects))
			}
		}
		for _, ob := range objects {
			if n := volumeOf(ob.Name); n > 0 && len(o.volumes) > 0 && !slices.Contains(o.volumes, n) {
				continue
			}
			info, err := os.Stat(ob.Path)
			if err != nil {
				return nil, err
			}
			s.objects = append(s.objects, ob)
			s.bytes += info.Size()
		}
		list = append(list, s)
	}
	return list, nil
}

// knownDigests spares reading the volumes once more: their digests are in
// volumes.json. A wrong one makes the receiver refuse the file, and no more.
func knownDigests(dir string, objects []diode.Object) error {
	cut, err := cutOf([]string{dir})
	if err != nil {
		return err
	}
	for i := range objects {
		n := volumeOf(objects[i].Name)
		if n < 1 || n > len(cut.Volumes) || filepath.Base(objects[i].Name) != cut.Volumes[n-1].Name {
			continue
		}
		sum := [sha256.Size]byte(cut.Volumes[n-1].SHA256)
		objects[i].Digest = &sum
	}
	return nil
}

func parseSeq(arg string) (uint64, error) {
	seq, err := strconv.ParseUint(strings.TrimLeft(arg, "0"), 10, 64)
	if err != nil {
		return 0, usagef("%q is not the number of a bundle, as in 000042", arg)
	}
	return seq, nil
}

// volumesOf lists the numbers of the volumes that are there, as "1 to 12".
func volumesOf(objects []diode.Object) string {
	var all []int
	for _, ob := range objects {
		if n := volumeOf(ob.Name); n > 0 {
			all = append(all, n)
		}
	}
	switch {
	case len(all) == 0:
		return "not there"
	case len(all) == 1:
		return strconv.Itoa(all[0])
	case slices.Max(all)-slices.Min(all) == len(all)-1:
		return fmt.Sprintf("%d to %d", slices.Min(all), slices.Max(all))
	}
	slices.Sort(all)
	return strings.Trim(fmt.Sprint(all), "[]")
}

// volumeOf is the number of a volume's file, 0 for any other.
func volumeOf(name string) int {
	digits, ok := strings.CutPrefix(filepath.Base(name), "volume-")
	if !ok {
		return 0
	}
	digits, _, _ = strings.Cut(digits, ".")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// byTicket finds the file that a ticket is about.
func byTicket(o linkend.SendOptions, text string, list []shipment) ([]shipment, error) {
	t, err := diode.ParseTicket(text)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		for _, ob := range s.objects {
			same, err := linkend.IsAbout(o, t, ob)
			if err != nil {
				return nil, err
			}
			if same {
				ob.Ticket = t
				return []shipment{{seq: s.seq, dir: s.dir, objects: []diode.Object{ob}, bytes: 0}}, nil
			}
		}
	}
	return nil, usagef("the ticket is about none of the files of %s\nname the bundle, and see that the settings of the link are those that it was sent with", plural(len(list), "bundle"))
}

// ship sends one bundle and records that it has left.
func (a *app) ship(ctx context.Context, cfg *config.Config, o linkend.SendOptions, s shipment, whole bool) (b sentBundle, err error) {
	p := startProgress(a.err, a.output, a.quiet)
	p.event(artifact.Event{Stage: "send", TotalBytes: s.bytes, TotalItems: len(s.objects)})
	var last int64
	o.OnProgress = func(sent int64) {
		p.event(artifact.Event{Stage: "send", Bytes: sent - last})
		last = sent
	}
	if s.objects[0].Ticket != nil {
		o.Passes, o.Repair = 1, 0
	}
	sent, err := linkend.Send(ctx, o, s.objects)
	p.finish()
	if err != nil {
		return b, fmt.Errorf("send bundle %s: %w", seqName(s.seq), err)
	}
	b = sentBundle{Seq: seqName(s.seq), Files: len(s.objects), Bytes: s.bytes, Packets: sent.Packets, Seconds: sent.Took.Seconds()}
	if !whole {
		return b, nil
	}
	led, err := ledger.Open(ledgerFile(cfg), recordWait)
	if err != nil {
		return b, fmt.Errorf("record that bundle %s was sent: %w", seqName(s.seq), err)
	}
	return b, errors.Join(led.MarkSent(cfg.Stream, s.seq, time.Now()), led.Close())
}

// recordWait is how long a run that ended may have to wait for one that has
// the ledger.
const recordWait = time.Minute
