package translog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Events.
const (
	Sealed    = "sealed"    // outside: the bundle is signed and lies in the outbox
	Imported  = "imported"  // inside: the bundle was verified and recorded
	Withdrawn = "withdrawn" // the bundle must not be used any more
	Lost      = "lost"      // the bundle did not arrive and will not be waited for
)

// An Entry says what became of a bundle.
type Entry struct {
	Event  string // one of the events above
	Stream string
	Seq    uint64
	// Bundle is the bundle's id. Only a lost one may have none: the inside
	// knows the number of what it never saw, and nothing else.
	Bundle artifact.Digest
	// Time is kept in whole seconds of UTC.
	Time time.Time
	// Signers names the keys whose signatures were good.
	Signers []string
	// Detail is for people.
	Detail string
}

// line is the JSON form. Every key is always there, in this order.
type line struct {
	Event   string   `json:"event"`
	Stream  string   `json:"stream"`
	Seq     uint64   `json:"seq"`
	Bundle  string   `json:"bundle"` // "" for none
	Time    string   `json:"time"`
	Signers []string `json:"signers"`
	Detail  string   `json:"detail"`
}

// encode returns the one encoding of an entry, without a line feed.
func (e Entry) encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("transparency log: entry %s %s %d: %w", e.Event, e.Stream, e.Seq, err)
	}
	l := line{
		Event: e.Event, Stream: e.Stream, Seq: e.Seq,
		Time:    e.Time.UTC().Truncate(time.Second).Format(time.RFC3339),
		Signers: append([]string{}, e.Signers...), Detail: e.Detail,
	}
	if !e.Bundle.IsZero() {
		l.Bundle = e.Bundle.String()
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	// Other programs write '<' as it is.
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&l); err != nil {
		return nil, fmt.Errorf("transparency log: encode entry: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// decode reads what encode wrote, and nothing that only means the same.
func decode(data []byte) (Entry, error) {
	if len(data) > maxLine {
		return Entry{}, fmt.Errorf("line of %d bytes, at most %d are read", len(data), maxLine)
	}
	var l line
	if err := strictjson.Unmarshal(data, &l); err != nil {
		return Entry{}, err
	}
	t, err := time.Parse(time.RFC3339, l.Time)
	if err != nil {
		return Entry{}, fmt.Errorf("time: %w", err)
	}
	e := Entry{Event: l.Event, Stream: l.Stream, Seq: l.Seq, Time: t.UTC(), Signers: l.Signers, Detail: l.Detail}
	if l.Bundle != "" {
		if e.Bundle, err = artifact.ParseDigest(l.Bundle); err != nil {
			return Entry{}, fmt.Errorf("bundle: %w", err)
		}
	}
	again, err := e.encode()
	if err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(again, data) {
		return Entry{}, errors.New("it is not the canonical encoding of its entry")
	}
	return e, nil
}

func (e Entry) check() error {
	switch e.Event {
	case Sealed, Imported, Withdrawn, Lost:
	default:
		return fmt.Errorf("event %q is none of %s, %s, %s, %s", e.Event, Sealed, Imported, Withdrawn, Lost)
	}
	if err := bundle.CheckStream(e.Stream); err != nil {
		return err
	}
	if e.Seq == 0 || e.Seq > maxSeq {
		return fmt.Errorf("seq %d: want 1 to %d", e.Seq, uint64(maxSeq))
	}
	if e.Bundle.IsZero() && e.Event != Lost {
		return errors.New("the bundle's id is missing")
	}
	if y := e.Time.UTC().Year(); e.Time.IsZero() || y < 1970 || y > 9999 {
		return fmt.Errorf("time %s: want a year from 1970 to 9999", e.Time)
	}
	if len(e.Signers) > maxSigners {
		return fmt.Errorf("%d signers, at most %d", len(e.Signers), maxSigners)
	}
	for _, s := range e.Signers {
		if s == "" || len(s) > maxName || !plain(s) {
			return fmt.Errorf("signer %q: want 1 to %d bytes of plain text", s, maxName)
		}
	}
	if len(e.Detail) > maxText || !plain(e.Detail) {
		return fmt.Errorf("detail of %d bytes: want at most %d bytes of plain text", len(e.Detail), maxText)
	}
	return nil
}

// plain reports whether a JSON encoder has one way to write s, and a terminal
// one way to show it.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError || r == '\u2028' || r == '\u2029'
	})
}
