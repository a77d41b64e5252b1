package translog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// badEntries are those that no log takes.
func badEntries() map[string]Entry {
	change := func(f func(*Entry)) Entry {
		e := entry(1)
		f(&e)
		return e
	}
	return map[string]Entry{
		"zero":            {},
		"event":           change(func(e *Entry) { e.Event = "sold" }),
		"stream":          change(func(e *Entry) { e.Stream = "A b" }),
		"no seq":          change(func(e *Entry) { e.Seq = 0 }),
		"seq":             change(func(e *Entry) { e.Seq = maxSeq + 1 }),
		"no bundle":       change(func(e *Entry) { e.Bundle = artifact.Digest{} }),
		"no time":         change(func(e *Entry) { e.Time = time.Time{} }),
		"year 10000":      change(func(e *Entry) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }),
		"signers":         change(func(e *Entry) { e.Signers = make([]string, maxSigners+1) }),
		"empty signer":    change(func(e *Entry) { e.Signers = []string{""} }),
		"long signer":     change(func(e *Entry) { e.Signers = []string{strings.Repeat("x", maxName+1)} }),
		"line in signer":  change(func(e *Entry) { e.Signers = []string{"a\nb"} }),
		"long detail":     change(func(e *Entry) { e.Detail = strings.Repeat("x", maxText+1) }),
		"escape":          change(func(e *Entry) { e.Detail = "\x1b[m" }),
		"C1 control":      change(func(e *Entry) { e.Detail = "\u0085" }),
		"line separator":  change(func(e *Entry) { e.Detail = "\u2028" }),
		"replacement":     change(func(e *Entry) { e.Detail = "\ufffd" }),
		"broken UTF-8":    change(func(e *Entry) { e.Detail = "\xff" }),
		"lone byte order": change(func(e *Entry) { e.Detail = "\xef\xbb" }),
	}
}

func TestEntryEncoding(t *testing.T) {
	// The longest that there can be stays within what is read.
	e := entry(1)
	e.Stream, e.Detail = strings.Repeat("a", 64), strings.Repeat(`"`, maxText)
	e.Signers = nil
	for range maxSigners {
		e.Signers = append(e.Signers, strings.Repeat(`\`, maxName))
	}
	e.Seq = maxSeq
	long, err := e.encode()
	if err != nil || len(long) > maxLine {
		t.Fatal(len(long), err)
	}
	if _, err := decode(long); err != nil {
		t.Fatal(err)
	}
	good, err := entry(1).encode()
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	for name, bad := range map[string]string{
		"empty":         "",
		"space":         text + " ",
		"line feed":     text + "\n",
		"order":         strings.Replace(text, `"event":"sealed","stream":"main"`, `"stream":"main","event":"sealed"`, 1),
		"escaped <":     strings.Replace(text, "<", `\u003c`, 1),
		"escaped a":     strings.Replace(text, "sealed", `se\u0061led`, 1),
		"other case":    strings.Replace(text, `"seq"`, `"Seq"`, 1),
		"twice":         strings.Replace(text, `"seq":1`, `"seq":2,"seq":1`, 1),
		"unknown":       strings.Replace(text, `"seq":1`, `"seq":1,"x":1`, 1),
		"missing":       strings.Replace(text, `"seq":1,`, ``, 1),
		"no detail":     strings.Replace(text, `,"detail":"a <b> & \"c\""`, ``, 1),
		"null":          strings.Replace(text, `["exporter-a"]`, `null`, 1),
		"float":         strings.Replace(text, `"seq":1`, `"seq":1.0`, 1),
		"negative":      strings.Replace(text, `"seq":1`, `"seq":-1`, 1),
		"zone":          strings.Replace(text, "Z", "+00:00", 1),
		"fraction":      strings.Replace(text, "01Z", "01.5Z", 1),
		"no time":       strings.Replace(text, "2026-11-23T10:00:01Z", "", 1),
		"upper digest":  strings.Replace(text, "sha256:6b", "sha256:6B", 1),
		"zero digest":   strings.Replace(text, text[strings.Index(text, "sha256:"):strings.Index(text, `","time`)], "sha256:"+strings.Repeat("0", 64), 1),
		"no digest":     strings.Replace(text, text[strings.Index(text, "sha256:"):strings.Index(text, `","time`)], "", 1),
		"unknown event": strings.Replace(text, "sealed", "sold", 1),
		"too long":      strings.Repeat(" ", maxLine+1),
	} {
		if bad == text {
			t.Fatalf("%s: the test changes nothing", name)
		}
		if e, err := decode([]byte(bad)); err == nil {
			t.Errorf("%s: read as %+v", name, e)
		}
	}
	for name, e := range badEntries() {
		if line, err := e.encode(); err == nil {
			t.Errorf("%s: %s", name, line)
		}
	}
}

// A line that is read is the one encoding of its entry.
func FuzzDecode(f *testing.F) {
	seeds := []Entry{entry(1), {Event: Lost, Stream: "a", Seq: 2, Time: entry(1).Time}}
	for _, e := range seeds {
		line, err := e.encode()
		if err != nil || len(line) == 0 {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decode(data)
		if err != nil {
			return
		}
		if again, err := e.encode(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q becomes %q: %v", data, again, err)
		}
		if bytes.ContainsAny(data, "\n\r") {
			t.Fatalf("%q holds a line break", data)
		}
	})
}
