package ledger

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/internal/failpoint"
)

const (
	// keepRuns bounds the record of runs: half a year of one run a day.
	keepRuns = 200
	// maxNote bounds a run's note in bytes; the log has the rest.
	maxNote = 2000
)

// A Run is one execution of a command.
type Run struct {
	Command  string    `json:"command"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	ExitCode int       `json:"exit_code"`
	Note     string    `json:"note"`
}

// RecordRun adds a run and drops the oldest beyond the last 200.
func (l *Ledger) RecordRun(run Run) error {
	run.Started, run.Finished = run.Started.UTC(), run.Finished.UTC()
	run.Command, run.Note = plain(run.Command), plain(run.Note)
	failpoint.Here("ledger.run-begin")
	err := l.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRuns)
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		if err := put(b, seqKey(n), &run); err != nil {
			return err
		}
		if n > keepRuns {
			// One in, one out: there is never more than one to drop.
			if err := b.Delete(seqKey(n - keepRuns)); err != nil {
				return err
			}
		}
		failpoint.Here("ledger.run-before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("record run of %s: %w", run.Command, err)
	}
	failpoint.Here("ledger.run-committed")
	return nil
}

// plain makes text storable: an error may quote bytes that are not UTF-8.
func plain(s string) string {
	s = s[:min(len(s), maxNote)]
	s = strings.ToValidUTF8(s, "?")
	return strings.ReplaceAll(s, string(utf8.RuneError), "?")
}

// Runs lists the last n runs, newest first.
func (l *Ledger) Runs(n int) (runs []Run, err error) {
	err = l.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRuns)
		c := b.Cursor()
		for k, data := c.Last(); k != nil && len(runs) < n; k, data = c.Prev() {
			run, err := decode[Run](b, k, data)
			if err != nil {
				return err
			}
			runs = append(runs, run)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return runs, nil
}
