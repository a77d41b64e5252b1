package bundle

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestCheckSequence(t *testing.T) {
	now := at("2026-12-01T00:00:00Z")
	ledger := map[uint64]artifact.Digest{40: digest("40"), 42: digest("42")}
	state := StreamState{Last: 42, LastID: digest("42"), Imported: func(seq uint64) (artifact.Digest, bool) {
		d, ok := ledger[seq]
		return d, ok
	}}
	fresh := StreamState{}
	bundle := func(seq uint64, prev string, base uint64) *Manifest {
		m := valid()
		m.Seq, m.Base = seq, base
		m.Prev = ""
		if prev != "" {
			m.Prev = digest(prev).String()
		}
		return m
	}
	for name, tc := range map[string]struct {
		m     *Manifest
		id    string
		state StreamState
		now   time.Time
		o     SequencePolicy
		want  string // verdict or code
	}{
		"next":                        {bundle(43, "42", 42), "43", state, now, SequencePolicy{}, string(Import)},
		"next on an older base":       {bundle(43, "42", 40), "43", state, now, SequencePolicy{}, string(Import)},
		"first of a stream":           {bundle(1, "", 0), "1", fresh, now, SequencePolicy{}, string(Import)},
		"same again":                  {bundle(42, "41", 41), "42", state, now, SequencePolicy{}, string(AlreadyImported)},
		"same again, swept":           {bundle(42, "41", 41), "42", state, now, SequencePolicy{Swept: true}, string(AlreadyImported)},
		"same again, expired":         {bundle(42, "41", 41), "42", state, at("2030-01-01T00:00:00Z"), SequencePolicy{}, string(AlreadyImported)},
		"old, swept":                  {bundle(40, "39", 39), "40", state, now, SequencePolicy{Swept: true}, string(Skip)},
		"old, named":                  {bundle(40, "39", 39), "40", state, now, SequencePolicy{}, CodeReplay},
		"never imported, swept":       {bundle(41, "40", 40), "41", state, now, SequencePolicy{Swept: true}, CodeReplay},
		"never imported, named":       {bundle(41, "40", 40), "41", state, now, SequencePolicy{AcceptGap: true}, CodeReplay},
		"fork of the last":            {bundle(42, "41", 41), "42b", state, now, SequencePolicy{}, CodeFork},
		"fork of the last, swept":     {bundle(42, "41", 41), "42b", state, now, SequencePolicy{Swept: true}, CodeFork},
		"fork of an old one":          {bundle(40, "39", 39), "40b", state, now, SequencePolicy{Swept: true}, CodeFork},
		"fork before the next":        {bundle(43, "42b", 42), "43", state, now, SequencePolicy{AcceptGap: true}, CodeFork},
		"fork, full":                  {bundle(43, "42b", 0), "43", state, now, SequencePolicy{}, CodeFork},
		"gap of one":                  {bundle(44, "43", 43), "44", state, now, SequencePolicy{}, CodeGap},
		"gap of two":                  {bundle(45, "44", 44), "45", state, now, SequencePolicy{Swept: true}, CodeGap},
		"gap accepted":                {bundle(45, "44", 44), "45", state, now, SequencePolicy{AcceptGap: true}, string(Import)},
		"gap, full":                   {bundle(45, "44", 0), "45", state, now, SequencePolicy{}, string(Import)},
		"gap at the start":            {bundle(7, "6", 6), "7", fresh, now, SequencePolicy{}, CodeGap},
		"full at the start":           {bundle(7, "6", 0), "7", fresh, now, SequencePolicy{}, string(Import)},
		"expired":                     {bundle(43, "42", 42), "43", state, at("2027-02-20T20:15:00Z"), SequencePolicy{}, CodeExpired},
		"a second before":             {bundle(43, "42", 42), "43", state, at("2027-02-20T20:14:59Z"), SequencePolicy{}, string(Import)},
		"expired and gap":             {bundle(45, "44", 0), "45", state, at("2030-01-01T00:00:00Z"), SequencePolicy{AcceptGap: true}, CodeExpired},
		"expired fork":                {bundle(43, "42b", 42), "43", state, at("2030-01-01T00:00:00Z"), SequencePolicy{}, CodeFork},
		"other stream":                {bundle(43, "42", 42), "43", state, now, SequencePolicy{Stream: "lab"}, CodeStream},
		"this stream":                 {bundle(43, "42", 42), "43", state, now, SequencePolicy{Stream: "main"}, string(Import)},
		"clock set back":              {bundle(43, "42", 42), "43", StreamState{Last: 42, LastID: digest("42"), Floor: at("2027-03-01T00:00:00Z")}, now, SequencePolicy{}, CodeExpired},
		"clock ahead of the floor":    {bundle(43, "42", 42), "43", StreamState{Last: 42, LastID: digest("42"), Floor: at("2026-11-01T00:00:00Z")}, now, SequencePolicy{}, string(Import)},
		"issued in the future":        {bundle(43, "42", 42), "43", state, at("2026-01-01T00:00:00Z"), SequencePolicy{}, CodeFuture},
		"clock a little late":         {bundle(43, "42", 42), "43", state, valid().Issued.Add(-23 * time.Hour), SequencePolicy{}, string(Import)},
		"ledger without its old ones": {bundle(40, "39", 39), "40", StreamState{Last: 42, LastID: digest("42")}, now, SequencePolicy{Swept: true}, CodeReplay},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := CheckSequence(tc.m, digest(tc.id), tc.state, tc.now, tc.o)
			if strings.HasPrefix(tc.want, "ERR_") {
				if got != "" {
					t.Fatalf("verdict %q beside an error", got)
				}
				wantCode(t, err, tc.want)
				return
			}
			if err != nil || string(got) != tc.want {
				t.Fatalf("got %q %v, want %q", got, err, tc.want)
			}
		})
	}
	_, err := CheckSequence(bundle(45, "44", 44), digest("45"), state, now, SequencePolicy{})
	if want := "bundle 000045 of stream main: not imported yet: 000043 and 000044 (want 000043, got 000045) [ERR_GAP]"; err == nil || err.Error() != want {
		t.Fatalf("got %v", err)
	}
	if got := numbers(43, 50); got != "000043 to 000050" {
		t.Fatal(got)
	}
}

func TestCheckRequires(t *testing.T) {
	m := valid()
	all := func(artifact.Digest) bool { return true }
	if err := CheckRequires(m, all); err != nil {
		t.Fatal(err)
	}
	err := CheckRequires(m, func(d artifact.Digest) bool { return d != digest("older") })
	wantCode(t, err, CodeRequires)
	if !strings.Contains(err.Error(), digest("older").String()+" of bundle 000042") || strings.Contains(err.Error(), digest("old").String()) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff([]Require{{42, []artifact.Digest{digest("older")}}}, MissingBlobs(err)); diff != "" {
		t.Fatal(diff)
	}
	many := &Manifest{Requires: []Require{{Seq: 1}}}
	for i := range maxListed + 5 {
		many.Requires[0].Blobs = append(many.Requires[0].Blobs, artifact.Sum([]byte{byte(i)}))
	}
	err = CheckRequires(many, func(artifact.Digest) bool { return false })
	if err == nil || !strings.HasSuffix(err.Error(), "and 5 more [ERR_REQUIRES]") || len(MissingBlobs(err)[0].Blobs) != maxListed+5 {
		t.Fatalf("got %v", err)
	}
	if MissingBlobs(errors.New("other")) != nil {
		t.Fatal("a list out of nothing")
	}
}
