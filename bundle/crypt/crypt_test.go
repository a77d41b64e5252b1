package crypt_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/crypt"
)

// person has an identity file and a recipients file of their own.
type person struct{ identity, recipient string }

func classical(t testing.TB) person {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return person{id.String(), id.Recipient().String()}
}

func hybrid(t testing.TB) person {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return person{id.String(), id.Recipient().String()}
}

func encrypter(t testing.TB, to ...person) *crypt.Encrypter {
	t.Helper()
	file := "# who may read it\n\n"
	for _, p := range to {
		file += p.recipient + "\n"
	}
	list, err := crypt.ParseRecipients([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	e, err := crypt.NewEncrypter(list)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func decrypter(t testing.TB, with ...person) *crypt.Decrypter {
	t.Helper()
	file := "# created: 2026-11-22\n"
	for _, p := range with {
		file += "# public key: " + p.recipient + "\r\n" + p.identity + "\r\n"
	}
	list, err := crypt.ParseIdentities([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	d, err := crypt.NewDecrypter(list)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func encrypt(t testing.TB, e *crypt.Encrypter, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := e.Encrypt(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	a, b, h, k := classical(t), classical(t), hybrid(t), hybrid(t)
	for name, tc := range map[string]struct {
		to   []person
		with []person
		ok   bool
	}{
		"one":                  {[]person{a}, []person{a}, true},
		"first of two":         {[]person{a, b}, []person{a}, true},
		"second of two":        {[]person{a, b}, []person{b}, true},
		"hybrid":               {[]person{h}, []person{h}, true},
		"second of two hybrid": {[]person{h, k}, []person{k}, true},
		"several identities":   {[]person{b}, []person{h, a, b}, true},
		"another":              {[]person{a}, []person{b}, false},
		"another hybrid":       {[]person{h}, []person{k}, false},
		"of the other kind":    {[]person{h}, []person{a}, false},
	} {
		for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 200_000} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				data := bytes.Repeat([]byte{'x'}, size)
				data = append(data[:size/2], bytes.Repeat([]byte{'y'}, size-size/2)...)
				file := encrypt(t, encrypter(t, tc.to...), data)
				src, n, err := decrypter(t, tc.with...).Decrypt(bytes.NewReader(file), int64(len(file)))
				if !tc.ok {
					if !errors.Is(err, bundle.ErrNoIdentity) || src != nil {
						t.Fatal(err)
					}
					return
				}
				if err != nil || n != int64(size) {
					t.Fatal(n, err)
				}
				got, err := io.ReadAll(io.NewSectionReader(src, 0, n))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes: %v", len(got), err)
				}
			})
		}
	}
}

// The header of the most recipients lies within what bundle keeps of a file,
// 128 KiB: it is what the digest of a file's head is about.
func TestHeaderOfManyRecipients(t *testing.T) {
	var to []person
	for range bundle.MaxRecipients {
		to = append(to, hybrid(t))
	}
	file := encrypt(t, encrypter(t, to...), nil)
	if most := 128<<10 - 4096; len(file) > most {
		t.Fatalf("%d bytes, want at most %d", len(file), most)
	}
	if _, n, err := decrypter(t, to[63]).Decrypt(bytes.NewReader(file), int64(len(file))); err != nil || n != 0 {
		t.Fatal(n, err)
	}
}

func TestParseRecipients(t *testing.T) {
	a, b, h := classical(t), classical(t), hybrid(t)
	list, err := crypt.ParseRecipients([]byte("# site B\n" + a.recipient + "\r\n\n#\n" + b.recipient))
	if err != nil || len(list) != 2 || list[0].String() != a.recipient || list[1].String() != b.recipient {
		t.Fatal(list, err)
	}
	many := ""
	for range bundle.MaxRecipients + 1 {
		many += classical(t).recipient + "\n"
	}
	for name, tc := range map[string]struct{ file, text string }{
		"empty":         {"", "nobody"},
		"comments only": {"# a\n\n# b\n", "nobody"},
		"identity":      {a.recipient + "\n" + b.identity, "line 2: this is an identity"},
		"mistyped":      {strings.Replace(a.recipient, "age1", "age1q", 1), "line 1: not an X25519 recipient"},
		"cut short":     {h.recipient[:500], "not a hybrid recipient"},
		"indented":      {" " + a.recipient, "not an age recipient"},
		"ssh":           {"ssh-ed25519 AAAA", "SSH keys"},
		"plugin":        {"age1yubikey1qqqq", "plugin"},
		"twice":         {a.recipient + "\n" + a.recipient, "line 2: recipient " + list[0].Fingerprint() + " is listed twice"},
		"mixed":         {a.recipient + "\n" + h.recipient, "cannot be mixed"},
		"mixed, other":  {h.recipient + "\n" + a.recipient, "cannot be mixed"},
		"many":          {many, "line 65: more than 64"},
		"large":         {strings.Repeat("#", 256<<10+1), "at most"},
		"binary":        {"\x00\xff\xfe", "not an age recipient"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := crypt.ParseRecipients([]byte(tc.file))
			if list != nil || err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, %v, want %s", list, err, tc.text)
			}
			noSecret(t, err.Error(), b.identity)
		})
	}
	ha, err := crypt.ParseRecipients([]byte(h.recipient))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := crypt.NewEncrypter(append(ha, list...)); err == nil {
		t.Fatal("mixed recipients were accepted")
	}
	if _, err := crypt.NewEncrypter(nil); err == nil {
		t.Fatal("nobody was accepted")
	}
	if _, err := crypt.NewEncrypter(make([]crypt.Recipient, 1)); err == nil {
		t.Fatal("an empty recipient was accepted")
	}
}

// noSecret fails if text holds a piece of an identity.
func noSecret(t *testing.T, text, identity string) {
	t.Helper()
	_, secret, ok := strings.Cut(identity, "1")
	if !ok || len(secret) < 50 {
		t.Fatal("no identity")
	}
	for i := 0; i+8 <= len(secret); i++ {
		if strings.Contains(strings.ToUpper(text), secret[i:i+8]) {
			t.Fatalf("%q holds a secret", text)
		}
	}
}

func TestParseIdentities(t *testing.T) {
	a, h := classical(t), hybrid(t)
	list, err := crypt.ParseIdentities([]byte("# a\n" + a.identity + "\n" + h.identity + "\n"))
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for i, p := range []person{a, h} {
		r, err := crypt.ParseRecipients([]byte(p.recipient))
		if err != nil || list[i].Fingerprint() != r[0].Fingerprint() {
			t.Fatalf("%s and %s: %v", list[i].Fingerprint(), r[0].Fingerprint(), err)
		}
		for _, text := range []string{fmt.Sprint(list[i]), fmt.Sprintf("%#v", list[i]), fmt.Sprintf("%+v", list)} {
			noSecret(t, text, p.identity)
		}
	}
	scrypt, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	scrypt.SetWorkFactor(2)
	var locked, armored bytes.Buffer
	aw := armor.NewWriter(&armored)
	for _, dst := range []io.Writer{&locked, aw} {
		w, err := age.Encrypt(dst, scrypt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write([]byte(a.identity))
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := aw.Close(); err != nil {
		t.Fatal(err)
	}
	many := ""
	for range 65 {
		many += classical(t).identity + "\n"
	}
	for name, tc := range map[string]struct{ file, text string }{
		"empty":        {"\n", "nobody"},
		"passphrase":   {locked.String(), "encrypted with a passphrase"},
		"armored":      {armored.String(), "encrypted with a passphrase"},
		"recipient":    {a.recipient, "this is a recipient"},
		"cut short":    {a.identity[:40], "line 1: not an age identity"},
		"mistyped":     {"\n" + strings.Replace(a.identity, "1", "1Q", 1), "line 2: not an age identity"},
		"lower case":   {strings.ToLower(a.identity), "not an age identity"},
		"hybrid short": {h.identity[:60], "not an age identity"},
		"ssh":          {"-----BEGIN OPENSSH PRIVATE KEY-----\nx", "SSH"},
		"plugin":       {"AGE-PLUGIN-YUBIKEY-1XXXX", "plugins"},
		"twice":        {a.identity + "\n" + a.identity, "listed twice"},
		"many":         {many, "more than 64"},
		"large":        {strings.Repeat("#", 256<<10+1), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := crypt.ParseIdentities([]byte(tc.file))
			if list != nil || err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, %v, want %s", list, err, tc.text)
			}
			noSecret(t, err.Error(), a.identity)
			noSecret(t, err.Error(), h.identity)
		})
	}
	if _, err := crypt.NewDecrypter(nil); err == nil {
		t.Fatal("nobody was accepted")
	}
	if _, err := crypt.NewDecrypter(make([]crypt.Identity, 1)); err == nil {
		t.Fatal("an empty identity was accepted")
	}
}

// Fingerprints are written into signed lists and compared by people: they do
// not change.
func TestFingerprints(t *testing.T) {
	list, err := crypt.ParseRecipients([]byte("age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list[0].Fingerprint(), "age1zvkyg2lqzraa..equnujwj"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	p := hybrid(t)
	if list, err = crypt.ParseRecipients([]byte(p.recipient)); err != nil {
		t.Fatal(err)
	}
	if got, want := list[0].Fingerprint(), p.recipient[:16]+".."+p.recipient[len(p.recipient)-8:]; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
}

// FuzzParse: never panics, quotes no identity, and what is accepted is read
// again as the same.
func FuzzParse(f *testing.F) {
	a, h := classical(f), hybrid(f)
	for _, p := range []person{a, h} {
		if p.identity == "" || p.recipient == "" {
			f.Fatal("an empty seed")
		}
		f.Add([]byte(p.recipient + "\n# x\n"))
		f.Add([]byte(p.identity + "\n# x\n"))
	}
	f.Add([]byte("age-encryption.org/v1\n-> scrypt"))
	f.Fuzz(func(t *testing.T, file []byte) {
		list, err := crypt.ParseRecipients(file)
		if (err == nil) != (len(list) > 0) {
			t.Fatal(list, err)
		}
		text := ""
		for _, r := range list {
			text += r.String() + "\n"
		}
		if again, err := crypt.ParseRecipients([]byte(text)); len(list) > 0 && (err != nil || len(again) != len(list)) {
			t.Fatal(again, err)
		}
		ids, err := crypt.ParseIdentities(file)
		if (err == nil) != (len(ids) > 0) {
			t.Fatal(ids, err)
		}
		if err != nil && bytes.Contains(file, []byte(a.identity)) {
			noSecret(t, err.Error(), a.identity)
		}
	})
}

// FuzzDecrypt: a file from outside never panics, and what comes out of it was
// put in.
func FuzzDecrypt(f *testing.F) {
	a := classical(f)
	data := []byte("some content")
	file := encrypt(f, encrypter(f, a), data)
	if len(file) == 0 {
		f.Fatal("an empty seed")
	}
	f.Add(file)
	f.Add(file[:len(file)-1])
	f.Add([]byte("age-encryption.org/v1\n-> X25519 x\n\n--- x\n"))
	d := decrypter(f, a)
	f.Fuzz(func(t *testing.T, file []byte) {
		src, n, err := d.Decrypt(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		got, err := io.ReadAll(io.NewSectionReader(src, 0, n))
		if err == nil && !bytes.Equal(got, data) {
			t.Fatalf("forged: %q", got)
		}
	})
}
