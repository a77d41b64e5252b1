// Package label makes the label of a medium that carries a bundle: a page that
// prints at A6, text for a terminal, and the QR code on both.
//
// Specification: docs/media.md, "The label"; QR codes are those of ISO/IEC
// 18004, error correction level M.
//
// Invariants:
//   - A label proves nothing: nobody signed it. It never decides anything.
//   - Names come from outside: what does not print is replaced in both forms,
//     and the page escapes the rest.
//   - The same label gives the same bytes; no clock is read.
//   - The page loads nothing and runs nothing.
//
// Limits are the constants of this file: a label is one page, so long lists
// are cut and say so.
package label

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxCode bounds what [Parse] reads: prefix, a stream of 64 bytes, a
	// sequence of 16 digits, an id of 64, a count of 7, and four colons.
	maxCode = 200
	// maxVolumes is that of the format.
	maxVolumes = 1_000_000
	// maxSeq is the greatest integer that every JSON reader holds.
	maxSeq = 1 << 53
	// maxLines bounds the sources on a label: so many fit on an A6 page.
	maxLines = 10
	// maxRanges bounds the ranges of volumes, and the signers, for the same
	// reason.
	maxRanges = 8
	// maxName bounds a name on its line; a stream's has 64 at most.
	maxName = 64
	// maxSource leaves room on the line for the counts.
	maxSource = 32
)

// prefix starts the text of a QR code; the number is its version.
const prefix = "darkmirror:1:"

// A Label says what lies on a medium.
type Label struct {
	// These are in the QR code.
	Stream  string
	Seq     uint64
	ID      artifact.Digest
	Volumes int // of the bundle

	// These are not.
	Base uint64 // 0: full
	// On are the volumes on this medium, ascending, from 1.
	On []int
	// Unfinished says that the medium is still being written.
	Unfinished      bool
	Here, Total     int64 // bytes of the volumes on this medium, and of all
	Issued, Expires time.Time
	SignedBy        []string
	Sources         []Source
	// Recipients are the fingerprints of those who can read an encrypted
	// bundle. Of such a one neither times nor sources are known.
	Recipients []string
}

// A Source is a line of the contents.
type Source struct {
	Name                    string
	Artifacts, Files, Bytes int64
}

// New begins the label of a bundle of so many volumes; what lies on the medium
// and who signed is left to the caller.
func New(m *bundle.Manifest, id artifact.Digest, volumes int) Label {
	l := Label{Stream: m.Stream, Seq: m.Seq, ID: id, Volumes: volumes, Base: m.Base, Issued: m.Issued, Expires: m.Expires}
	for _, s := range m.Sources {
		l.Sources = append(l.Sources, Source{s.Name, s.Artifacts, s.Files, s.Bytes})
	}
	return l
}

// Code is the text of the QR code.
func (l Label) Code() string {
	return fmt.Sprintf("%s%s:%06d:%s:%d", prefix, l.Stream, l.Seq, l.ID.Hex(), l.Volumes)
}

// Parse reads what a scanner gives: the text of a QR code, and nothing but
// that form of it. The label that it returns has only what is in the code.
func Parse(s string) (Label, error) {
	l, err := parse(s)
	if err != nil {
		if len(s) > maxCode {
			s = s[:maxCode] + "..."
		}
		return Label{}, fmt.Errorf("label %q: %w", s, err)
	}
	return l, nil
}

func parse(s string) (l Label, err error) {
	if len(s) > maxCode {
		return Label{}, fmt.Errorf("%d bytes, at most %d are read", len(s), maxCode)
	}
	rest, ok := strings.CutPrefix(s, prefix)
	fields := strings.Split(rest, ":")
	if !ok || len(fields) != 4 {
		return Label{}, errors.New("want " + prefix + "STREAM:SEQUENCE:ID:VOLUMES")
	}
	l.Stream = fields[0]
	if err := bundle.CheckStream(l.Stream); err != nil {
		return Label{}, err
	}
	l.Seq, err = strconv.ParseUint(fields[1], 10, 64)
	if err != nil || l.Seq < 1 || l.Seq > maxSeq {
		return Label{}, fmt.Errorf("sequence %q: want 000001 to 2^53", fields[1])
	}
	if l.ID, err = artifact.ParseHex(fields[2]); err != nil {
		return Label{}, err
	}
	l.Volumes, err = strconv.Atoi(fields[3])
	if err != nil || l.Volumes < 0 || l.Volumes > maxVolumes {
		return Label{}, fmt.Errorf("volumes %q: want 0 to %d", fields[3], maxVolumes)
	}
	// One text for each label: no signs, no other number of zeros.
	if l.Code() != s {
		return Label{}, fmt.Errorf("another form than %q", l.Code())
	}
	return l, nil
}

// view is a label as it is shown, all in text.
type view struct {
	Title      string // stream and sequence
	Long       bool   // the title, for large letters
	Kind       string
	Unfinished bool
	Facts      []fact
	ID         []string // the bundle id in groups of four
	Contents   []string
}

type fact struct{ Name, Value string }

func (l Label) view() view {
	v := view{Title: fmt.Sprintf("%s %06d", plain(l.Stream, maxName), l.Seq), Kind: "full", Unfinished: l.Unfinished}
	if l.Base > 0 {
		v.Kind = fmt.Sprintf("delta on %06d", l.Base)
	}
	v.Long = len(v.Title) > 24
	here := fmt.Sprintf("%s of %d", ranges(l.On), l.Volumes)
	if l.Unfinished {
		here = fmt.Sprintf("not finished, of %d", l.Volumes)
	}
	v.Facts = []fact{
		{"Volumes here", here},
		{"Size here", size(l.Here) + " of " + size(l.Total)},
	}
	if len(l.Recipients) > 0 {
		v.Kind = "encrypted"
		v.Facts = append(v.Facts, fact{"Readable by", cut(shown(l.Recipients))})
		v.Contents = []string{"encrypted"}
	} else {
		v.Facts = append(v.Facts, fact{"Issued", l.Issued.UTC().Format(time.RFC3339)}, fact{"Expires", l.Expires.UTC().Format(time.RFC3339)})
	}
	v.Facts = append(v.Facts, fact{"Signed by", cut(shown(l.SignedBy))})
	if l.Unfinished {
		v.Facts[1].Value = "not finished, of " + size(l.Total)
	}
	for group := range slices.Chunk([]byte(l.ID.Hex()), 4) {
		v.ID = append(v.ID, string(group))
	}
	for i, s := range l.Sources {
		if i == maxLines-1 && len(l.Sources) > maxLines {
			v.Contents = append(v.Contents, fmt.Sprintf("and %d more sources", len(l.Sources)-i))
			break
		}
		v.Contents = append(v.Contents, fmt.Sprintf("%s: %s, %s, %s", plain(s.Name, maxSource), count(s.Artifacts, "artifact"), count(s.Files, "file"), size(s.Bytes)))
	}
	return v
}

// shown makes each of a list safe to show.
func shown(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = plain(s, maxSource)
	}
	return out
}

// plain makes outside text safe to show: what does not print becomes '?', the
// marks that turn the direction of writing included, and it is cut.
func plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-3]) + "..."
	}
	return s
}

// ranges writes 1, 2, 3, 7 as "1-3, 7".
func ranges(list []int) string {
	var out []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		s := strconv.Itoa(list[i])
		if j > i {
			s += "-" + strconv.Itoa(list[j])
		}
		out = append(out, s)
		i = j + 1
	}
	return cut(out)
}

// cut joins the first of a list.
func cut(list []string) string {
	switch {
	case len(list) == 0:
		return "none"
	case len(list) > maxRanges:
		return fmt.Sprintf("%s and %d more", strings.Join(list[:maxRanges-1], ", "), len(list)-maxRanges+1)
	}
	return strings.Join(list, ", ")
}

func count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/(1<<10), 0
	for f >= 1024 && unit < 4 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[unit])
}
