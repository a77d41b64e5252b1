package clamav

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/scan"
)

func seed(f *testing.F, list []string) {
	f.Helper()
	if len(list) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range list {
		f.Add(s)
	}
}

// Whatever clamd says, only "OK" of this very command is clean, and a name is
// fit for a report.
func FuzzReply(f *testing.F) {
	seed(f, []string{
		"3: stream: OK\x00", "3: stream: A.B-1 FOUND\x00", "INSTREAM size limit exceeded. ERROR\x00", "3: INSTREAM size limit exceeded. ERROR\x00",
		"3: stream: no memory ERROR\x00", "33: stream: OK\x00", "3: stream: OK", "COMMAND READ TIMED OUT\n", "\x00\x00", strings.Repeat("3", 70000),
	})
	f.Fuzz(func(t *testing.T, s string) {
		text, err := readReply(bufio.NewReader(strings.NewReader(s)))
		if err != nil {
			return
		}
		if len(text) > maxReply || !strings.HasPrefix(s, text+"\x00") {
			t.Fatalf("%q is read as %q", s, text)
		}
		v, err := parseReply(text, 3)
		switch {
		case err != nil && v != (verdict{}):
			t.Errorf("%q: a verdict %+v beside an error", text, v)
		case err != nil:
		case v.refused && text != tooLong && text != "3: "+tooLong:
			t.Errorf("%q is taken for a refusal", text)
		case v.found != "" && text != "3: stream: "+v.found+" FOUND":
			t.Errorf("%q is taken for %+v", text, v)
		case v == (verdict{}) && text != "3: stream: OK":
			t.Errorf("%q is taken for clean", text)
		}
	})
}

// What clamscan says is clean only with "OK", once, and the end that fits.
func FuzzOutput(f *testing.F) {
	seed(f, []string{"stdin: OK\n", "stdin: A FOUND\n", "LibClamAV Warning: x\nstdin: OK\n", "stdin: OK\nstdin: OK\n", "stdin: Access denied. ERROR\n", "", "ERROR: Malformed database\n"})
	f.Fuzz(func(t *testing.T, s string) {
		for code := range 4 {
			v, err := parseOutput(s, code)
			switch {
			case err != nil && (v != (verdict{}) || errors.Is(err, scan.ErrEngine) && code < 2):
				t.Errorf("%q, %d: %+v, %v", s, code, v, err)
			case err == nil && v == (verdict{}) && (code != 0 || strings.Count("\n"+s, "\nstdin: ") != 1 || !strings.Contains("\n"+s+"\n", "\nstdin: OK\n")):
				t.Errorf("%q, %d is taken for clean", s, code)
			case err == nil && v.found != "" && (code != 1 || !isName(v.found)):
				t.Errorf("%q, %d is taken for %q", s, code, v.found)
			}
		}
	})
}

func FuzzVersion(f *testing.F) {
	seed(f, []string{"ClamAV 1.4.6", said(27807, now), "ClamAV ", "ClamAV 1/0/" + now.Format(time.ANSIC), "ClamAV 1/2", "ClamAV 1/2/3/4"})
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseVersion(s)
		if err != nil {
			if v != (version{}) {
				t.Errorf("%q: %+v beside an error", s, v)
			}
			return
		}
		if (v.number == 0) != v.dated.IsZero() || !isName(v.program) || !strings.HasPrefix(s, "ClamAV "+v.program) {
			t.Errorf("%q is read as %+v", s, v)
		}
	})
}

func FuzzHeader(f *testing.F) {
	seed(f, []string{
		container(27807, now)[:cvdHeader],
		fmt.Sprintf("ClamAV-VDB:07 Nov 2026 08-25 -0400:1:2:3:%s:s:b", anyDigest),
		"ClamAV-VDB:07 Nov 2026 08-25 -0400:1:2:3:X:X:b:5",
	})
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHeader(s)
		if err != nil {
			if h != (header{}) {
				t.Errorf("%q: %+v beside an error", s, h)
			}
			return
		}
		if h.signatures == 0 || h.built.IsZero() || !strings.Contains(s, fmt.Sprintf("%d", h.signatures)) {
			t.Errorf("%q is read as %+v", s, h)
		}
	})
}
