package apt

import (
	"crypto"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const releaseText = `Origin: Test
Label: Test-Security
Suite: oldstable-security
Codename: bookworm-security
Version: 12
Date: Sat,  1 Nov 2025 09:59:31 UTC
Valid-Until: Sat, 8 Nov 2025 09:59:31 +0000
NotAutomatic: yes
Acquire-By-Hash: yes
Architectures: amd64 amd64v3 all
Components: updates/main updates/contrib
SHA256:
 ` + zeros + `        5 main/binary-amd64/Packages
 ` + zeros + ` 6 contrib/binary-amd64/Packages.gz
`

const zeros = "00000000000000000000000000000000000000000000000000000000000000aa"

func TestParseRelease(t *testing.T) {
	r, err := parseRelease([]byte(releaseText))
	if err != nil {
		t.Fatal(err)
	}
	d := time.Date(2025, 11, 1, 9, 59, 31, 0, time.UTC)
	if !r.Date.Equal(d) || !r.ValidUntil.Equal(d.AddDate(0, 0, 7)) || !r.NotAutomatic || r.ButAutomaticUpgrades || !r.AcquireByHash || r.NoSupportAll || r.weak {
		t.Errorf("%+v", r)
	}
	for suite, want := range map[string]bool{"oldstable-security": true, "bookworm-security": true, "bookworm": false, "bookworm-security/updates": true} {
		if r.isSuite(suite) != want {
			t.Errorf("isSuite(%s) = %v", suite, !want)
		}
	}
	if n, ok := r.index("updates/main", "amd64"); !ok || n.dir() != "main/binary-amd64" {
		t.Errorf("%v %v", n, ok)
	}
	if _, ok := r.index("main", "arm64"); ok {
		t.Error("an index that is not listed")
	}
	if diff := cmp.Diff([]string{"i386", "all"}, r.wanted([]string{"i386"})); diff != "" {
		t.Error(diff)
	}
}

func TestParseReleaseRefuses(t *testing.T) {
	for name, swap := range map[string][2]string{
		"no date":        {"Date: Sat,  1 Nov 2025 09:59:31 UTC\n", ""},
		"other zone":     {"09:59:31 UTC", "09:59:31 +0200"},
		"no time":        {"09:59:31 UTC", ""},
		"short digest":   {zeros, zeros[1:]},
		"negative size":  {"        5 main", " -5 main"},
		"path":           {"main/binary-amd64/Packages\n", "../main/Packages\n"},
		"two contents":   {"contrib/binary-amd64/Packages.gz", "main/binary-amd64/Packages"},
		"two paragraphs": {"SHA256:", "\nSHA256:"},
		"label of lines": {"Label: Test-Security", "Label: Test\n Signed"},
	} {
		text := strings.Replace(releaseText, swap[0], swap[1], 1)
		if text == releaseText {
			t.Fatalf("%s: nothing replaced", name)
		}
		if r, err := parseRelease([]byte(text)); err == nil || r != nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// The one signature that differs from a refused one in its hash alone is good:
// so the SHA-1 of TestDefects is refused for its hash.
func TestHashesThatCount(t *testing.T) {
	key, err := apttest.NewKey("hash")
	if err != nil {
		t.Fatal(err)
	}
	k := &keyring{keys: openpgp.EntityList{key}}
	for hash, want := range map[crypto.Hash]int{crypto.SHA256: 1, crypto.SHA512: 1, crypto.SHA1: 0} {
		doc, err := apttest.Clearsign(key, releaseText, hash)
		if err != nil {
			t.Fatal(err)
		}
		v, err := k.verifyInline(doc, time.Now())
		if err != nil || len(v.good) != want || len(v.signers) != 1 {
			t.Errorf("%v: %d good of %v, %v", hash, len(v.good), v.signers, err)
		}
	}
}

func FuzzRelease(f *testing.F) {
	f.Add([]byte(releaseText))
	f.Add([]byte("Date: Sat, 1 Nov 2025 09:59:31 GMT\nMD5Sum:\n x 1 y\n"))
	f.Add([]byte("Date: x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRelease(text)
		if err != nil {
			if r != nil {
				t.Error("a Release beside an error")
			}
			return
		}
		for name, e := range r.files {
			if err := artifact.CheckPath(name); err != nil || e.size < 0 {
				t.Errorf("%q: %v, size %d", name, err, e.size)
			}
		}
		if d, err := parseDate(formatDate(r.Date)); r.Date.Year() > 0 && r.Date.Year() < 10000 && (err != nil || !d.Equal(r.Date)) {
			t.Errorf("%v becomes %v, %v", r.Date, d, err)
		}
	})
}

// FuzzInRelease: whatever is around or in a signed document, either it is
// refused or what is parsed is the very text that was signed.
func FuzzInRelease(f *testing.F) {
	key, err := apttest.NewKey("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	k := &keyring{keys: openpgp.EntityList{key}}
	const text = "Suite: test\n- dash\nDate: Sat, 1 Nov 2025 09:59:31 UTC\n"
	doc, err := apttest.Clearsign(key, text, 0)
	if err != nil {
		f.Fatal(err)
	}
	v, err := k.verifyInline(doc, time.Now())
	if err != nil || len(v.good) != 1 || string(v.text)+"\n" != text {
		f.Fatalf("%+v, %v", v, err)
	}
	f.Add(0, []byte{})
	f.Add(0, []byte("Evil: yes\n"))
	f.Add(len(doc), []byte("\nEvil: yes\n"))
	f.Add(strings.Index(string(doc), "Suite"), []byte("Evil: yes\n"))
	f.Add(strings.Index(string(doc), "Hash"), []byte("Evil: yes\n"))
	f.Add(len(doc)/2, []byte("\n-----BEGIN PGP SIGNED MESSAGE-----\n\nx\n"))
	f.Fuzz(func(t *testing.T, at int, b []byte) {
		if at < 0 || at > len(doc) {
			return
		}
		mutant := string(doc[:at]) + string(b) + string(doc[at:])
		v, err := k.verifyInline([]byte(mutant), time.Now())
		if err != nil || len(v.good) == 0 {
			return
		}
		if string(v.text)+"\n" != text {
			t.Errorf("%q is taken for signed", v.text)
		}
	})
}
