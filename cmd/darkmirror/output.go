package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

// streams are where a command reads and writes. Results go to out and to
// nothing else; progress, warnings and errors go to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// A resultWriter remembers that a result could not be written, so that a
// command does not exit with 0 after half of it; the many places that print
// need not ask each time.
type resultWriter struct {
	w   io.Writer
	err error
}

// Write fails from the first failure on.
func (r *resultWriter) Write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.w.Write(p)
	r.err = err
	return n, err
}

// terminal reports whether w is a terminal that a person watches.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// format is the value of --output.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatJSONL format = "jsonl"
)

// String, Set and Type make format a flag value.
func (f *format) String() string { return string(*f) }

// Set reads the flag.
func (f *format) Set(s string) error {
	switch format(s) {
	case formatTable, formatJSON, formatJSONL:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("%q: want table, json or jsonl", s)
}

// Type names the value in help texts.
func (*format) Type() string { return "FORMAT" }

// machine reports whether results are for programs.
func (f format) machine() bool { return f != formatTable }

// writeJSON prints one object: indented for json, on one line for jsonl.
func writeJSON(w io.Writer, f format, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if f == formatJSON {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// table prints rows in columns, each row's cells separated by tabs in rows.
func table(w io.Writer, rows func(w io.Writer)) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows(tw)
	return tw.Flush()
}

// size prints bytes in binary units: "18.0 GiB".
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, exp := float64(n)/unit, 0
	for v >= unit && exp < 5 {
		v /= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[exp])
}

// short prints a duration as people say it: "3m18s", "640ms".
func short(d time.Duration) string {
	if d >= time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

// plural prints a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// seqName is how a bundle is called everywhere.
func seqName(seq uint64) string { return fmt.Sprintf("%06d", seq) }
