package apt

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestStanzaReader(t *testing.T) {
	const text = "\n\nPackage: a\nDepends: b,\n c\n .\nX:\n\n\n\npackage: d\nY: z"
	for name, r := range map[string]io.Reader{
		"whole":    strings.NewReader(text),
		"one byte": iotest.OneByteReader(strings.NewReader(text)),
	} {
		t.Run(name, func(t *testing.T) {
			sr := newStanzaReader(r)
			st, err := sr.next()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(st.get("DEPENDS")); got != "b,\n c\n ." {
				t.Errorf("Depends = %q", got)
			}
			if st.offset != 2 || string(st.raw) != "Package: a\nDepends: b,\n c\n .\nX:\n" {
				t.Errorf("offset %d, raw %q", st.offset, st.raw)
			}
			if st, err = sr.next(); err != nil || string(st.get("Package")) != "d" || string(st.raw) != "package: d\nY: z" {
				t.Errorf("%q, %v", st.raw, err)
			}
			if _, err = sr.next(); !errors.Is(err, io.EOF) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestStanzaReaderRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"A: b\r\n":                             "control byte 0x0d at byte 4",
		"A: \x00\n":                            "control byte 0x00 at byte 3",
		"A: b\n\n B: c\n":                      "continuation line before a field at byte 6",
		"A: b\na: c\n":                         "field a twice in one stanza at byte 5",
		"A b\n":                                `"A b\n" is not a field at byte 0`,
		": b\n":                                `": b\n" is not a field at byte 0`,
		"-A: b\n":                              `"-A: b\n" is not a field at byte 0`,
		"#A: b\n":                              `"#A: b\n" is not a field at byte 0`,
		"A: " + strings.Repeat("x", maxStanza): "stanza longer than 16777216 bytes at byte 0",
	} {
		sr := newStanzaReader(strings.NewReader(text))
		var err error
		for err == nil {
			_, err = sr.next()
		}
		if err.Error() != want {
			t.Errorf("%q: %v, want %s", clip(text), err, want)
		}
	}
}

// A broken connection is no end of file.
func TestStanzaReaderError(t *testing.T) {
	broken := errors.New("broken")
	sr := newStanzaReader(io.MultiReader(strings.NewReader("A: b\n"), iotest.ErrReader(broken)))
	if _, err := sr.next(); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
}

func FuzzStanzas(f *testing.F) {
	for _, s := range []string{
		"", "\n", "Package: a\nVersion: 1\n\nPackage: b\nDescription: x\n y\n .\n z\n", "A:\n\n\n\nB: c",
		" A: b\n", "A: b\nA: c\n", "A: \x01\n", "A:b\n \t\n\nC: d\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		sr := newStanzaReader(iotest.HalfReader(bytes.NewReader(text)))
		var back []byte
		for {
			st, err := sr.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			// Between stanzas there are empty lines and nothing else.
			gap := text[len(back):st.offset]
			if len(bytes.Trim(gap, "\n")) != 0 {
				t.Fatalf("%q was passed over", gap)
			}
			back = append(append(back, gap...), st.raw...)
			var fields []byte
			for _, fl := range st.fields {
				fields = append(append(append(fields, fl.name...), ':'), fl.value...)
			}
			if diff := cmp.Diff(string(st.raw), string(fields)); diff != "" {
				t.Fatal(diff)
			}
		}
		if rest := text[len(back):]; len(bytes.Trim(rest, "\n")) != 0 || !bytes.HasPrefix(text, back) {
			t.Fatalf("read back %q of %q", back, text)
		}
	})
}
