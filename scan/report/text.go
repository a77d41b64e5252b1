package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxText bounds one text on the page, in characters. Scanners are held to
	// less; a path within archives within archives may be this long.
	maxText = 2000
	// maxName bounds a name; the longest of a real file has 255 bytes.
	maxName = 255
	// maxMarks bounds the marks on one letter: more of them paint over the
	// lines above and below, and no language needs more.
	maxMarks = 4
)

// show makes outside text visible as what it is: what is no printable
// character is written out as <U+202E>, a broken byte as <byte FF>, a pile of
// marks as <36 more marks>, and what is too long is cut, with the number of
// characters that are not shown. Escaping for HTML comes after it.
func show(s string) string { return visible(s, maxText) }

// name does the same with what should be short: a name, a version, an id.
func name(s string) string { return visible(s, maxName) }

func visible(s string, most int) string {
	if len(s) <= most && plain(s) {
		return s
	}
	var b strings.Builder
	n, marks := 0, 0
	endMarks := func() {
		if marks > maxMarks {
			fmt.Fprintf(&b, "<%s>", count(marks-maxMarks, "more mark"))
		}
		marks = 0
	}
	for i, r := range s {
		if n == most {
			endMarks()
			fmt.Fprintf(&b, " … (%s in the JSON twin)", count(utf8.RuneCountInString(s[i:]), "more character"))
			return b.String()
		}
		n++
		if unicode.In(r, unicode.Mn, unicode.Me) {
			if marks++; marks <= maxMarks {
				b.WriteRune(r)
			}
			continue
		}
		endMarks()
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, "<byte %02X>", s[i])
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, "<U+%04X>", r)
		default:
			b.WriteRune(r)
		}
	}
	endMarks()
	return b.String()
}

// plain reports whether s is printable ASCII, as nearly all text is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// number writes 50000 as "50,000".
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count is "1 artifact" or "2 artifacts".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}

// was is "1 artifact was" or "2 artifacts were".
func was(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return count(n, noun) + " were"
}

// size writes bytes in binary units.
func size(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, u := float64(n)/1024, 0
	for f >= 1023.95 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[u]
}

// span writes a duration in the unit that a person would choose.
func span(d time.Duration) string {
	if d < 0 {
		return "minus " + span(-d)
	}
	switch {
	case d < 2*time.Minute:
		return count(int(d/time.Second), "second")
	case d < 2*time.Hour:
		return count(int(d/time.Minute), "minute")
	case d <= 72*time.Hour:
		return count(int(d/time.Hour), "hour")
	}
	return count(int(d/(24*time.Hour)), "day")
}

// moment writes a time for a person.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// list writes "a", "a and b" or "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// sentences joins those that say something.
func sentences(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		if p == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p + ".")
	}
	return b.String()
}
