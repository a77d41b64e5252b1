package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/translog"
)

func newLog(a *app) *cobra.Command {
	var check bool
	var prove, since string
	cmd := &cobra.Command{
		Use:     "log [--check] [--prove BUNDLE] [--since FILE]",
		GroupID: groupBoth,
		Short:   "Show the transparency log of bundles, check it, prove an entry",
		Long: `Show the transparency log: what became of every bundle, in an append-only
Merkle tree whose root is signed. Outside it says what was sealed and lost, inside
what was imported.

With --check, the whole log is computed again. With --prove, the proof that a
bundle is in the log is printed, for somebody who has the checkpoint alone. With
--since, an older checkpoint, kept in FILE, must be one that this log grew out
of.

` + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.log(cmd, check, prove, since) },
	}
	cmd.Flags().BoolVar(&check, "check", false, "compute the whole log again")
	cmd.Flags().StringVar(&prove, "prove", "", "print the proof that `BUNDLE` is in the log")
	cmd.Flags().StringVar(&since, "since", "", "an older checkpoint in `FILE` must be a beginning of this log")
	return cmd
}

func logDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "translog") }

// Names inside the folder. The key is this log's own: it signs at every run,
// and nobody is asked.
const (
	logFolder = "log"
	logKey    = "log.key"
)

type logResult struct {
	Schema     string     `json:"schema"`
	Size       int64      `json:"size"`
	Checkpoint string     `json:"checkpoint"`
	Key        string     `json:"key"`
	Entries    []logEntry `json:"entries"`
	Proof      string     `json:"proof,omitempty"`
}

type logEntry struct {
	Index  int64     `json:"index"`
	Event  string    `json:"event"`
	Stream string    `json:"stream"`
	Seq    string    `json:"seq"`
	Bundle string    `json:"bundle"`
	Time   time.Time `json:"time"`
	Detail string    `json:"detail,omitempty"`
}

func (a *app) log(cmd *cobra.Command, check bool, prove, since string) error {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	l, pub, err := openLog(cfg, false)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no log yet; it begins with the first bundle")
	}
	if err != nil {
		return err
	}
	if l.Size() == 0 {
		return usagef("there is no entry yet; the log begins with the first bundle")
	}
	// Opening verified everything against the checkpoint; this is the
	// checkpoint's own signature.
	if _, err := translog.VerifyCheckpoint(l.Checkpoint(), pub); err != nil {
		return err
	}
	if check {
		if err := l.Check(cmd.Context()); err != nil {
			return err
		}
	}
	if since != "" {
		old, err := os.ReadFile(since)
		if err != nil {
			return &usageError{err}
		}
		if err := l.Consistency(old); err != nil {
			return err
		}
	}
	res := logResult{Schema: "darkmirror.log/v1", Size: l.Size(), Checkpoint: string(l.Checkpoint()), Key: bundle.Fingerprint(pub), Entries: []logEntry{}}
	for i := range l.Size() {
		e, err := l.Entry(i)
		if err != nil {
			return err
		}
		one := logEntry{Index: i, Event: e.Event, Stream: e.Stream, Seq: seqName(e.Seq), Time: e.Time, Detail: e.Detail}
		if !e.Bundle.IsZero() {
			one.Bundle = e.Bundle.String()
		}
		res.Entries = append(res.Entries, one)
	}
	if prove != "" {
		if res.Proof, err = proofOf(l, cfg, prove); err != nil {
			return err
		}
	}
	return a.result(res, func() error { return res.print(a, check) })
}

func (r logResult) print(a *app, checked bool) error {
	if r.Proof != "" {
		_, err := fmt.Fprint(a.out, r.Proof)
		return err
	}
	for _, e := range r.Entries {
		if _, err := fmt.Fprintf(a.out, "%6d  %s  %-9s %s of stream %s  %s\n", e.Index, e.Time.UTC().Format(time.RFC3339), e.Event, e.Seq, clean(e.Stream), strings.TrimSpace(e.Bundle+" "+clean(e.Detail))); err != nil {
			return err
		}
	}
	word := "signed by key"
	if checked {
		word = "computed again, signed by key"
	}
	if _, err := fmt.Fprintf(a.out, "%d in all, %s %s\n\n", r.Size, word, r.Key); err != nil {
		return err
	}
	for line := range strings.Lines(r.Checkpoint) {
		if _, err := fmt.Fprintln(a.out, clean(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func proofOf(l *translog.Log, cfg *config.Config, arg string) (string, error) {
	seq, err := parseSeq(arg)
	if err != nil {
		return "", err
	}
	i, ok := findIn(l, cfg, cfg.Stream, seq)
	if !ok {
		return "", usagef("bundle %s is not in the log", seqName(seq))
	}
	p, err := l.Prove(i)
	if err != nil {
		return "", err
	}
	text, err := p.MarshalText()
	return string(text), err
}

// findIn finds the entry that speaks of a bundle being sealed or imported. Inside,
// a stream that is not named may be any.
func findIn(l *translog.Log, cfg *config.Config, stream string, seq uint64) (int64, bool) {
	event := translog.Sealed
	if cfg.Role == config.Inside {
		event = translog.Imported
	}
	if stream != "" {
		return l.Find(event, stream, seq)
	}
	for i := l.Size() - 1; i >= 0; i-- {
		if e, err := l.Entry(i); err == nil && e.Event == event && e.Seq == seq {
			return i, true
		}
	}
	return 0, false
}

// openLog opens the log, to be written to, which makes it where there is none,
// or to be read.
func openLog(cfg *config.Config, write bool) (*translog.Log, crypto.PublicKey, error) {
	dir := logDir(cfg)
	file := filepath.Join(dir, logKey)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && write {
		// A run that was killed here may have left a file without its name.
		if err := errors.Join(os.MkdirAll(dir, 0o750), durable.Sweep(dir)); err != nil {
			return nil, nil, err
		}
		if raw, _, err = bundle.GenerateKey("log-" + cfg.Role); err != nil {
			return nil, nil, err
		}
		err = durable.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	name, key, err := bundle.ParsePrivateKey(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	var s bundle.Signer
	if write {
		s = bundle.Signer{Name: name, Signer: key}
	}
	l, err := translog.Open(filepath.Join(dir, logFolder), s)
	return l, key.Public(), err
}

// keepLog adds to the log what the ledger knows and the log does not: what this
// run did, and what a killed one did.
func keepLog(cfg *config.Config, led *ledger.Ledger) error {
	entries, err := due(cfg, led)
	if err != nil || len(entries) == 0 {
		return err
	}
	l, _, err := openLog(cfg, true)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := l.Find(e.Event, e.Stream, e.Seq); ok {
			continue
		}
		if _, err := l.Append(e); err != nil {
			return err
		}
	}
	return nil
}

// due lists what belongs into the log, in order.
func due(cfg *config.Config, led *ledger.Ledger) (list []translog.Entry, err error) {
	if cfg.Role == config.Outside {
		all, err := led.Sealed(cfg.Stream)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			list = append(list, translog.Entry{Event: translog.Sealed, Stream: r.Stream, Seq: r.Seq, Bundle: r.ID, Time: r.Issued})
		}
		for _, r := range all {
			if r.State == ledger.StateLost {
				list = append(list, translog.Entry{Event: translog.Lost, Stream: r.Stream, Seq: r.Seq, Bundle: r.ID, Time: time.Now()})
			}
		}
		return list, nil
	}
	streams, err := led.Streams()
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		all, err := led.AllImported(s)
		if err != nil {
			return nil, err
		}
		for i, r := range all {
			if i > 0 {
				list = append(list, skipped(&all[i-1], &all[i])...)
			}
			list = append(list, translog.Entry{Event: translog.Imported, Stream: r.Stream, Seq: r.Seq, Bundle: r.ID, Time: r.Time, Signers: r.SignedBy})
		}
	}
	return list, nil
}

// mostSkipped bounds the entries for one gap.
const mostSkipped = 1000

// skipped are the bundles between two that were imported: somebody has accepted
// the gap, or a full bundle made them needless. They cannot come any more.
func skipped(before, r *ledger.Imported) (list []translog.Entry) {
	for n := before.Seq + 1; n < r.Seq; n++ {
		e := translog.Entry{Event: translog.Lost, Stream: r.Stream, Seq: n, Time: r.Time, Detail: "had not arrived when " + seqName(r.Seq) + " was imported"}
		if len(list) == mostSkipped-1 && n+1 < r.Seq {
			e.Detail = fmt.Sprintf("and all after it to %s: had not arrived when %s was imported", seqName(r.Seq-1), seqName(r.Seq))
			return append(list, e)
		}
		list = append(list, e)
	}
	return list
}

// logLine tells, for inspect, that a bundle is in the log, and that this was
// proven from the signed checkpoint.
func logLine(cfg *config.Config, m *bundle.Manifest) (string, error) {
	l, pub, err := openLog(cfg, false)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	i, ok := findIn(l, cfg, m.Stream, m.Seq)
	if !ok {
		return "not in the log", nil
	}
	e, err := l.Entry(i)
	if err != nil {
		return "", err
	}
	p, err := l.Prove(i)
	if err != nil {
		return "", err
	}
	if err := p.Verify(pub, e); err != nil {
		return "", err
	}
	return fmt.Sprintf("entry %d of %d, %s %s, inclusion proven", i+1, l.Size(), e.Event, e.Time.UTC().Format(time.RFC3339)), nil
}
