package clamav

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeFile(tb testing.TB, path, body string, at time.Time) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		tb.Fatal(err)
	}
}

const anyDigest = "00112233445566778899aabbccddeeff"

// container is a file with a header and no signatures behind it.
func container(number int, at time.Time) string {
	head := fmt.Sprintf("ClamAV-VDB:%s:%d:2000000:90:%s:signature:builder:%d", at.Format("02 Jan 2006 15-04 -0700"), number, anyDigest, at.Unix())
	return head + strings.Repeat(" ", cvdHeader-len(head)) + "body"
}

func TestReadData(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string, at time.Time) {
		t.Helper()
		writeFile(t, filepath.Join(dir, name), body, at)
	}
	read := func() data {
		t.Helper()
		d, err := readData(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	old := now.Add(-48 * time.Hour)
	write("own.ndb", "x:0:*:00", old)
	write("freshclam.dat", "not a signature", now)
	a := read()
	if !a.dated.Equal(old) || a.digest.IsZero() || a.number != 0 {
		t.Fatalf("%+v", a)
	}
	write("freshclam.dat", "other", now)
	if b := read(); b.digest != a.digest {
		t.Error("a file that is no signature changes the digest")
	}
	write("own.ndb", "x:0:*:01", old)
	b := read()
	if b.digest == a.digest {
		t.Error("another signature leaves the digest")
	}
	if err := os.Rename(filepath.Join(dir, "own.ndb"), filepath.Join(dir, "OWN.NDB")); err != nil {
		t.Fatal(err)
	}
	if c := read(); c.digest == b.digest || c.digest.IsZero() {
		t.Error("another name leaves the digest")
	}
	// ClamAV follows links and reads rules of other kinds.
	elsewhere := filepath.Join(t.TempDir(), "rules")
	writeFile(t, elsewhere, "rule a { condition: true }", old)
	if err := os.Symlink(elsewhere, filepath.Join(dir, "rules.yar")); err != nil {
		t.Fatal(err)
	}
	c := read()
	writeFile(t, elsewhere, "rule b { condition: true }", old)
	if d := read(); d.digest == c.digest {
		t.Error("a rule behind a link changed, and the digest did not")
	}
	write("daily.cvd", container(27806, now.Add(-time.Hour)), now.Add(-1000*time.Hour))
	write("daily.cld", container(27807, now), now.Add(-1000*time.Hour))
	if d := read(); !d.dated.Equal(now) || d.number != 27807 || !d.built.Equal(now) {
		t.Errorf("with headers: %+v", d)
	}
	for _, body := range []string{"short", strings.Repeat("x", 600)} {
		write("daily.cvd", body, now)
		if _, err := readData(dir); err == nil || !strings.Contains(err.Error(), "daily.cvd") {
			t.Errorf("%.20q: %v, want an error that names the file", body, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "daily.cvd")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "x.hdb")); err != nil {
		t.Fatal(err)
	}
	if _, err := readData(dir); err == nil {
		t.Error("a link to nowhere was passed over")
	}
}

func TestParseHeader(t *testing.T) {
	good := []string{"ClamAV-VDB", "07 Nov 2026 08-25 -0400", "27807", "2077000", "90", anyDigest, "c2ln", "builder", "1794054300"}
	with := func(i int, v string) string {
		f := append([]string(nil), good...)
		f[i] = v
		return strings.Join(f, ":")
	}
	at := time.Date(2026, 11, 7, 12, 25, 0, 0, time.UTC)
	for _, text := range []string{
		strings.Join(good, ":"),
		strings.Join(good, ":") + strings.Repeat(" ", 300),
		strings.Join(good[:8], ":"), // of old
		with(5, "X"),                // not signed
	} {
		h, err := parseHeader(text)
		if err != nil || !h.built.Equal(at) || h.number != 27807 || h.signatures != 2077000 {
			t.Errorf("%s: %+v, %v", text, h, err)
		}
	}
	for _, text := range []string{
		"", ":::::::", strings.Join(good[:7], ":"), strings.Join(good, ":") + ":more", strings.Join(good, ":") + "\x00",
		with(0, "ClamAV-Diff"), with(1, "yesterday"), with(1, ""), with(2, "-1"), with(2, "x"), with(2, "99999999999"),
		with(3, "0"), with(3, ""), with(4, "f"), with(5, "00"), with(5, ""), with(5, strings.Repeat("g", 32)),
		with(6, ""), with(7, ""), with(8, ""), with(8, "-5"), with(8, "99999999999999"),
	} {
		if h, err := parseHeader(text); err == nil {
			t.Errorf("%q was read as %+v", text, h)
		}
	}
}
