package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
)

func newReceipt(a *app) *cobra.Command {
	var stream, out string
	cmd := &cobra.Command{
		Use:     "receipt [--stream NAME] [--out FILE]",
		GroupID: groupInside,
		Short:   "Write a signed receipt of what has arrived, to be carried out by hand",
		Long: `Write a signed receipt of what has arrived, of at most 1 KiB, to be carried out
by hand: on paper, as a QR code, read out. It is never required. Its key is made
inside at the first receipt; the outside trusts its public half by receipts_from.

` + codesLine(exitOK, exitUsage, exitLocked),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.receipt(stream, out) },
	}
	cmd.Flags().StringVar(&stream, "stream", "", "of this stream (default the only one)")
	cmd.Flags().StringVar(&out, "out", "", "write it to `FILE` instead of standard output")
	apply := &cobra.Command{
		Use:   "apply FILE",
		Short: "Outside: record what a receipt confirms",
		Long: `Outside: record what a receipt confirms. With base: confirmed, the next delta
builds on that.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSequence, exitLocked),
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.applyReceipt(args[0]) },
	}
	cmd.AddCommand(apply)
	return cmd
}

// receiptKey is the key of this inside, made at the first use.
func receiptKey(cfg *config.Config) (bundle.Signer, error) {
	file := filepath.Join(cfg.StateDir, "receipt.key")
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		var public []byte
		if raw, public, err = bundle.GenerateKey("inside"); err != nil {
			return bundle.Signer{}, err
		}
		// The public half first: a key without it is of no use.
		err = errors.Join(durable.WriteFile(file+".pub", public, 0o644), durable.WriteFile(file, raw, 0o600))
	}
	if err != nil {
		return bundle.Signer{}, err
	}
	name, key, err := bundle.ParsePrivateKey(raw)
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("%s: %w", file, err)
	}
	return bundle.Signer{Name: name, Signer: key}, nil
}

func (a *app) receipt(stream, out string) error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	all, err := imported(cfg, stream)
	if err != nil {
		return err
	}
	last := all[len(all)-1]
	var numbers []uint64
	for _, r := range all {
		numbers = append(numbers, r.Seq)
	}
	m := bundle.Manifest{}
	for _, s := range last.Sources {
		m.Sources = append(m.Sources, bundle.SourceRef{Name: s.Name, Snapshot: s.Snapshot})
	}
	r := bundle.Receipt{
		Stream: last.Stream, Last: last.Seq, ID: last.ID, State: m.StateDigest(), Imported: bundle.Runs(numbers), Time: time.Now(),
	}
	res := statusResult{}
	if err := res.waitingIn(cfg.Inbox, map[string]uint64{last.Stream: last.Seq}); err != nil {
		return err
	}
	for _, w := range res.Waiting {
		seq, err := parseSeq(w.Seq)
		if err != nil || w.Stream != last.Stream {
			continue
		}
		one := bundle.Waiting{Seq: seq, Volumes: []int{}}
		for _, name := range w.Missing {
			if n := volumeOf(name); n > 0 {
				one.Volumes = append(one.Volumes, n)
			}
		}
		r.Waiting = append(r.Waiting, one)
	}
	key, err := receiptKey(cfg)
	if err != nil {
		return err
	}
	data, err := bundle.SignReceipt(r, key)
	if err != nil {
		return err
	}
	if out == "" {
		_, err := fmt.Fprintf(a.out, "%s\n", data)
		return err
	}
	if err := durable.WriteFile(out, append(data, '\n'), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "receipt of stream %s up to %s in %s, signed by key %s\n", clean(r.Stream), seqName(r.Last), out, bundle.Fingerprint(key.Public()))
	return err
}

// imported lists what was imported of a stream.
func imported(cfg *config.Config, stream string) (all []ledger.Imported, err error) {
	led, err := ledger.OpenReadOnly(ledgerFile(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("nothing was imported yet")
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	streams, err := led.Streams()
	if err != nil {
		return nil, err
	}
	switch {
	case stream != "" && !slices.Contains(streams, stream):
		return nil, usagef("nothing was imported of stream %s", stream)
	case stream == "" && len(streams) != 1:
		return nil, usagef("--stream is needed: there are %d", len(streams))
	case stream == "":
		stream = streams[0]
	}
	all, err = led.AllImported(stream)
	if err == nil && len(all) == 0 {
		err = usagef("nothing was imported of stream %s", stream)
	}
	return all, err
}

type appliedResult struct {
	Schema    string           `json:"schema"`
	Stream    string           `json:"stream"`
	Last      string           `json:"last"`
	Time      time.Time        `json:"time"`
	Confirmed []string         `json:"confirmed"` // newly
	Waiting   []bundle.Waiting `json:"waiting"`
}

func (a *app) applyReceipt(file string) (err error) {
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	if len(cfg.ReceiptsFrom) == 0 {
		return usagef("receipts_from is not set: want the file of the inside's public key, receipt.key.pub of its state folder")
	}
	keys := make(map[string]crypto.PublicKey)
	for _, name := range cfg.ReceiptsFrom {
		label, pub, err := publicKey(name)
		if err != nil {
			return usagef("key of the inside: %w", err)
		}
		keys[label+" "+name] = pub
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return &usageError{err}
	}
	r, err := bundle.OpenReceipt(data, keys)
	if err != nil {
		return err
	}
	if r.Stream != cfg.Stream {
		return usagef("the receipt is of stream %s; this is %s", r.Stream, cfg.Stream)
	}
	led, err := ledger.Open(ledgerFile(cfg), lockWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	all, err := led.Sealed(cfg.Stream)
	if err != nil {
		return err
	}
	res := appliedResult{Schema: "darkmirror.receipt-applied/v1", Stream: r.Stream, Last: seqName(r.Last), Time: r.Time, Confirmed: []string{}, Waiting: append([]bundle.Waiting{}, r.Waiting...)}
	// The newest first: its id fixes the others.
	slices.Reverse(all)
	if len(all) == 0 || all[0].Seq < r.Last {
		return usagef("the receipt speaks of bundle %s, which this ledger has never sealed", seqName(r.Last))
	}
	for _, rec := range all {
		if !r.Has(rec.Seq) || !rec.Confirmed.IsZero() && rec.Seq != r.Last {
			continue
		}
		id := rec.ID
		if rec.Seq == r.Last {
			id = r.ID
		}
		if err := led.Confirm(cfg.Stream, rec.Seq, id, r.Time); err != nil {
			return err
		}
		res.Confirmed = append(res.Confirmed, seqName(rec.Seq))
	}
	slices.Sort(res.Confirmed)
	return a.result(res, func() error {
		if _, err := fmt.Fprintf(a.out, "confirmed up to %s, %d newly: %s\n", res.Last, len(res.Confirmed), strings.Join(res.Confirmed, ", ")); err != nil {
			return err
		}
		for _, w := range res.Waiting {
			if _, err := fmt.Fprintf(a.out, "waits      %s for %s\n", seqName(w.Seq), volumesText(w.Volumes)); err != nil {
				return err
			}
		}
		return nil
	})
}
