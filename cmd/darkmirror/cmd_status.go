package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
)

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		GroupID: groupBoth,
		Short:   "Show the last runs, the bundles, what waits and what is missing",
		Long: `Show the last runs, the bundles, what waits and what is missing. Inside, a
stream that has had no bundle for max_age, or that has a gap, is an error.

` + codesLine(exitOK, exitUsage, exitSequence, exitLocked),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.status(time.Now()) },
	}
}

type statusResult struct {
	Schema    string             `json:"schema"`
	Role      string             `json:"role"`
	Runs      []ledger.Run       `json:"runs"`
	Sealed    []ledger.Sealed    `json:"sealed"`
	Imported  []ledger.Imported  `json:"imported"`
	Published []ledger.Published `json:"published"`
	Waiting   []waiting          `json:"waiting"`
	Alarms    []string           `json:"alarms"`
}

// waiting is a bundle in an inbox that has not been imported.
type waiting struct {
	Stream  string   `json:"stream"`
	Seq     string   `json:"seq"`
	Dirs    []string `json:"dirs"`
	Volumes int      `json:"volumes"`
	Missing []string `json:"missing"`
}

// shownRuns is how many runs and bundles status lists.
const shownRuns = 5

func (a *app) status(now time.Time) (err error) {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	res := statusResult{
		Schema: "darkmirror.status/v1", Role: cfg.Role, Runs: []ledger.Run{}, Sealed: []ledger.Sealed{}, Imported: []ledger.Imported{},
		Published: []ledger.Published{}, Waiting: []waiting{}, Alarms: []string{},
	}
	led, err := ledger.OpenReadOnly(ledgerFile(cfg))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := res.waitingIn(cfg.Inbox, map[string]uint64{}); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		err := a.gather(&res, cfg, led, now)
		if err := errors.Join(err, led.Close()); err != nil {
			return err
		}
	}
	if err := a.result(res, func() error { return res.print(a.out, cfg) }); err != nil {
		return err
	}
	var errs []error
	for _, alarm := range res.Alarms {
		errs = append(errs, &artifact.Refusal{Class: artifact.ErrSequence, Code: "STATUS-ALARM", Reason: alarm})
	}
	return errors.Join(errs...)
}

func (a *app) gather(res *statusResult, cfg *config.Config, led *ledger.Ledger, now time.Time) error {
	runs, err := led.Runs(shownRuns)
	if err != nil {
		return err
	}
	res.Runs = append(res.Runs, runs...)
	if cfg.Role == config.Outside {
		sealed, err := led.Sealed(cfg.Stream)
		if err != nil {
			return err
		}
		res.Sealed = append(res.Sealed, sealed[max(0, len(sealed)-shownRuns):]...)
		return nil
	}
	streams, err := led.Streams()
	if err != nil {
		return err
	}
	last := make(map[string]uint64)
	for _, s := range streams {
		rec, ok, err := led.LastImported(s)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		res.Imported = append(res.Imported, rec)
		last[s] = rec.Seq
		if age := now.Sub(rec.Issued); cfg.MaxAge.Duration() > 0 && age > cfg.MaxAge.Duration() {
			res.Alarms = append(res.Alarms, fmt.Sprintf("stream %s: the newest bundle %s was issued %s ago, over max_age %s", s, seqName(rec.Seq), short(age), short(cfg.MaxAge.Duration())))
		}
	}
	published, err := led.Published()
	if err != nil {
		return err
	}
	res.Published = append(res.Published, published...)
	return res.waitingIn(cfg.Inbox, last)
}

// waitingIn looks at the inboxes for bundles after the last imported one.
func (res *statusResult) waitingIn(boxes []string, last map[string]uint64) error {
	var there []string
	for _, b := range boxes {
		if _, err := os.Stat(b); err == nil {
			there = append(there, b)
		}
	}
	found, err := bundle.Find(there...)
	if err != nil {
		return err
	}
	next := make(map[string]uint64)
	for _, c := range found {
		if c.Seq <= last[c.Stream] {
			continue
		}
		w := waiting{Stream: c.Stream, Seq: seqName(c.Seq), Dirs: c.Dirs, Missing: []string{}}
		if r, err := bundle.Open(c.Dirs...); err != nil {
			w.Missing = append(w.Missing, firstOf(err))
		} else if _, err := unlessEncrypted(r); err != nil {
			w.Missing = append(w.Missing, firstOf(errors.Join(err, r.Close())))
		} else {
			vols, err := r.Volumes()
			if err := errors.Join(err, r.Close()); err != nil {
				w.Missing = append(w.Missing, firstOf(err))
			}
			w.Volumes = len(vols)
			for _, v := range vols {
				if err := v.Err(len(vols)); err != nil {
					w.Missing = append(w.Missing, v.Name)
				}
			}
		}
		want, ok := next[c.Stream]
		if !ok {
			want = last[c.Stream] + 1
		}
		if c.Seq > want {
			res.Alarms = append(res.Alarms, fmt.Sprintf("stream %s: %s has not arrived; %s waits for it", c.Stream, seqName(want), seqName(c.Seq)))
		}
		next[c.Stream] = c.Seq + 1
		res.Waiting = append(res.Waiting, w)
	}
	return nil
}

func firstOf(err error) string { return leaves(err)[0].Error() }

func (res *statusResult) print(w io.Writer, cfg *config.Config) error {
	fmt.Fprintf(w, "role %s, %s\n", res.Role, cfg.StateDir)
	if len(res.Runs) == 0 {
		fmt.Fprintln(w, "\nno run yet")
	} else {
		fmt.Fprintln(w)
		if err := table(w, func(w io.Writer) {
			fmt.Fprintln(w, "RUN\tSTARTED\tTOOK\tEXIT")
			for _, r := range res.Runs {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", r.Command, r.Started.Format(time.RFC3339), short(r.Finished.Sub(r.Started)), r.ExitCode)
			}
		}); err != nil {
			return err
		}
	}
	if len(res.Sealed) > 0 {
		fmt.Fprintln(w)
		if err := table(w, func(w io.Writer) {
			fmt.Fprintln(w, "SEALED\tISSUED\tBASE\tSIZE\tVOLUMES\tHELD\tMISSING")
			for _, s := range res.Sealed {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", seqName(s.Seq), s.Issued.Format(time.RFC3339), seqName(s.Base), size(s.Bytes), s.Volumes, s.Held, s.Missing)
			}
		}); err != nil {
			return err
		}
	}
	if len(res.Imported) > 0 {
		fmt.Fprintln(w)
		if err := table(w, func(w io.Writer) {
			fmt.Fprintln(w, "STREAM\tIMPORTED\tISSUED\tWHEN\tLEFT OUT")
			for _, s := range res.Imported {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", clean(s.Stream), seqName(s.Seq), s.Issued.Format(time.RFC3339), s.Time.Format(time.RFC3339), s.Missing)
			}
		}); err != nil {
			return err
		}
	}
	if len(res.Published) > 0 {
		fmt.Fprintln(w)
		if err := table(w, func(w io.Writer) {
			fmt.Fprintln(w, "SOURCE\tPUBLISHED\tWHEN")
			for _, s := range res.Published {
				fmt.Fprintf(w, "%s\t%s\t%s\n", clean(s.Source), seqName(s.Seq), s.Time.Format(time.RFC3339))
			}
		}); err != nil {
			return err
		}
	}
	for _, s := range res.Waiting {
		fmt.Fprintf(w, "\nwaiting  %s of stream %s, %s", s.Seq, clean(s.Stream), plural(s.Volumes, "volume"))
		for _, m := range s.Missing {
			fmt.Fprintf(w, "\n  missing %s", clean(m))
		}
		fmt.Fprintln(w)
	}
	return nil
}

// unlessEncrypted reads the manifest, which Volumes needs of a plain bundle. The
// volumes of an encrypted one are in its signed list.
func unlessEncrypted(r *bundle.Reader) (*bundle.Manifest, error) {
	if r.Encrypted() {
		return nil, nil
	}
	return r.Unverified()
}
