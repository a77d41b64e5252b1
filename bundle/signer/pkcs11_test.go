//go:build cgo && pkcs11

package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/darkmirror/darkmirror/bundle"
)

// softHSM is where distributions put the library.
func softHSM(t *testing.T) string {
	t.Helper()
	for _, path := range []string{
		"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so",
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("NOT RUN: libsofthsm2.so is not here, so no PKCS#11 token was tried; the package softhsm2 has it")
	return ""
}

const (
	testPIN   = "5261"
	testSOPIN = "918273"
)

// A hsm is a SoftHSM with the token "darkmirror test" in a folder of the test.
type hsm struct {
	lib, pinFile string
}

func (h *hsm) uri(path, query string) string {
	return "pkcs11:" + path + "?module-path=" + h.lib + query
}

// newHSM makes a token and lets fill put keys into it.
func newHSM(t *testing.T, fill func(*pkcs11.Ctx, pkcs11.SessionHandle) error) *hsm {
	t.Helper()
	h := &hsm{lib: softHSM(t), pinFile: filepath.Join(t.TempDir(), "pin")}
	tokens, conf := t.TempDir(), filepath.Join(t.TempDir(), "softhsm2.conf")
	if err := errors.Join(
		os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600),
		os.WriteFile(h.pinFile, []byte(testPIN+"\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	lib := pkcs11.New(h.lib)
	if lib == nil {
		t.Fatal("the library cannot be loaded")
	}
	defer lib.Destroy()
	if err := lib.Initialize(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lib.Finalize(); err != nil {
			t.Error(err)
		}
	}()
	slots, err := lib.GetSlotList(true)
	if err != nil || len(slots) == 0 {
		t.Fatal(slots, err)
	}
	if err := lib.InitToken(slots[0], testSOPIN, "darkmirror test"); err != nil {
		t.Fatal(err)
	}
	// The token moves to another slot.
	if slots, err = lib.GetSlotList(true); err != nil {
		t.Fatal(err)
	}
	s, err := lib.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return lib.Login(s, pkcs11.CKU_SO, testSOPIN) },
		func() error { return lib.InitPIN(s, testPIN) },
		func() error { return lib.Logout(s) },
		func() error { return lib.Login(s, pkcs11.CKU_USER, testPIN) },
		func() error { return fill(lib, s) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// generate makes a key pair in the token.
func generate(lib *pkcs11.Ctx, s pkcs11.SessionHandle, mechanism uint, curve, label, id string, more ...*pkcs11.Attribute) error {
	common := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(id)),
	}
	public := append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, []byte(curve)), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
	}, common...)
	private := append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
	}, common...)
	_, _, err := lib.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, append(private, more...))
	return err
}

const (
	edwardsKeyPairGen = 0x1055 // CKM_EC_EDWARDS_KEY_PAIR_GEN
	curveP384         = "\x06\x05\x2b\x81\x04\x00\x22"
)

func TestToken(t *testing.T) {
	h := newHSM(t, func(lib *pkcs11.Ctx, s pkcs11.SessionHandle) error {
		return errors.Join(
			generate(lib, s, edwardsKeyPairGen, curveEd25519Name, "exporter-a", "\x01"),
			generate(lib, s, pkcs11.CKM_EC_KEY_PAIR_GEN, curveP256, "Token of B", "\x02"),
			generate(lib, s, pkcs11.CKM_EC_KEY_PAIR_GEN, curveP384, "p384", "\x03"),
			generate(lib, s, pkcs11.CKM_EC_KEY_PAIR_GEN, curveP256, "each-time", "\x04", pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, true)),
			generate(lib, s, pkcs11.CKM_EC_KEY_PAIR_GEN, curveP256, "twin", "\x05"),
			generate(lib, s, pkcs11.CKM_EC_KEY_PAIR_GEN, curveP256, "twin", "\x06"),
		)
	})
	pin := "&pin-source=" + url.PathEscape(h.pinFile)
	open := func(path string) (bundle.Signer, func() error) {
		t.Helper()
		s, closeKey, err := Open(t.Context(), h.uri(path, pin))
		if err != nil {
			t.Fatal(err)
		}
		return s, closeKey
	}
	for path, want := range map[string]struct {
		ed   bool
		name string // empty: made of the key id
	}{
		"token=darkmirror%20test;object=exporter-a":                                                     {true, "exporter-a"},
		"token=darkmirror%20test;id=%01":                                                                {true, "exporter-a"},
		"token=darkmirror%20test;object=Token%20of%20B;id=%02":                                          {false, ""},
		"token=darkmirror%20test;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;id=%02;type=private": {false, ""},
		"token=darkmirror%20test;object=each-time":                                                      {false, "each-time"},
		"token=darkmirror%20test;object=twin;id=%05":                                                    {false, "twin"},
	} {
		s, closeKey := open(path)
		if want.name == "" {
			want.name = "key-" + bundle.KeyID(s.Public())[:8]
		}
		if s.Name != want.name {
			t.Errorf("%s: name %q, want %q", path, s.Name, want.name)
		}
		if _, ed := s.Public().(ed25519.PublicKey); ed != want.ed {
			t.Errorf("%s: %T", path, s.Public())
		}
		for range 2 {
			if err := bundle.CheckSigner(s); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			verify(t, s)
		}
		if err := errors.Join(closeKey(), closeKey()); err != nil {
			t.Error(err)
		}
		wantError(t, bundle.CheckSigner(s), "session is closed")
	}
	badPIN := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(badPIN, []byte("0000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	twoLines := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(twoLines, []byte("0000\n1111\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	noLib := filepath.Join(t.TempDir(), "lib.so")
	if err := os.WriteFile(noLib, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string][]string{
		h.uri("token=other;id=%01", pin):                                 {`no token with token="other"`, `"darkmirror test" serial`},
		h.uri("token=darkmirror%20test;model=x;id=%01", pin):             {`model="x"`},
		h.uri("token=darkmirror%20test;object=none", pin):                {`0 private keys with object="none"`, `object="exporter-a" id=01`, `object="Token of B" id=02`},
		h.uri("token=darkmirror%20test;object=twin", pin):                {`2 private keys with object="twin"`, `object="twin" id=06`},
		h.uri("token=darkmirror%20test;object=exporter-a;id=%02", pin):   {"0 private keys"},
		h.uri("token=darkmirror%20test;object=p384", pin):                {`object="p384"`, "curve 06052b81040022 is not supported"},
		h.uri("token=darkmirror%20test;id=%01", ""):                      {"wants a PIN", "pin-source"},
		h.uri("token=darkmirror%20test;id=%01", "&pin-source="+badPIN):   {"log in with the PIN of " + badPIN, "CKR_PIN_INCORRECT"},
		h.uri("token=darkmirror%20test;id=%01", "&pin-source="+twoLines): {"want one line"},
		h.uri("token=darkmirror%20test;id=%01", "&pin-source=/none"):     {"PIN: open /none"},
		"pkcs11:token=a;id=%01?module-path=" + noLib:                     {"cannot be loaded"},
		"pkcs11:token=a;id=%01?module-path=/none.so":                     {"/none.so"},
	} {
		s, closeKey, err := Open(t.Context(), spec)
		if s.Signer != nil || closeKey != nil {
			t.Errorf("%s: something beside the error", spec)
		}
		wantError(t, err, want...)
		if strings.Contains(err.Error(), testPIN) || strings.Contains(err.Error(), "0000") {
			t.Errorf("the PIN is in %q", err)
		}
	}
	// Two signers of one library would end each other's session.
	_, closeKey := open("token=darkmirror%20test;id=%01")
	_, _, err := Open(t.Context(), h.uri("token=darkmirror%20test;id=%02", pin))
	wantError(t, err, "CKR_CRYPTOKI_ALREADY_INITIALIZED")
	if err := closeKey(); err != nil {
		t.Fatal(err)
	}
	// What does not fit the key is refused before the token sees it.
	s, closeKey := open("token=darkmirror%20test;id=%02")
	for _, tc := range []struct {
		n    int
		opts crypto.Hash
	}{{32, 0}, {31, crypto.SHA256}, {64, crypto.SHA512}} {
		_, err := s.Sign(rand.Reader, make([]byte, tc.n), tc.opts)
		wantError(t, err, "signs with SHA-256")
	}
	if err := closeKey(); err != nil {
		t.Fatal(err)
	}
}

func TestParsePoint(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	octets := func(b []byte) string {
		der, err := asn1.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(der)
	}
	// A point that looks like an OCTET STRING and is none.
	like := "\x04\x1e" + strings.Repeat("\x07", 30)
	for name, tc := range map[string]struct {
		params, point string
		want          crypto.PublicKey
	}{
		"P-256":           {curveP256, octets(point), key.Public()},
		"P-256, raw":      {curveP256, string(point), key.Public()},
		"Ed25519":         {curveEd25519, octets([]byte(like)), ed25519.PublicKey(like)},
		"Ed25519, raw":    {curveEd25519Name, like, ed25519.PublicKey(like)},
		"no point":        {curveP256, "", nil},
		"off the curve":   {curveP256, octets(append([]byte{4}, make([]byte, 64)...)), nil},
		"compressed":      {curveP256, octets(append([]byte{2}, point[1:33]...)), nil},
		"short":           {curveEd25519, octets([]byte(like)[1:]), nil},
		"trailing":        {curveEd25519, octets([]byte(like)) + "x", nil},
		"no curve":        {"", octets(point), nil},
		"explicit params": {"\x30\x00", octets(point), nil},
	} {
		pub, err := parsePoint(tc.params, tc.point)
		if (err == nil) != (tc.want != nil) || tc.want != nil && bundle.KeyID(pub) != bundle.KeyID(tc.want) {
			t.Errorf("%s: %v %v", name, pub, err)
		}
	}
}

// Whatever a token says of a key, what is read can be verified with.
func FuzzParsePoint(f *testing.F) {
	f.Add(curveP256, "\x04\x41\x04"+strings.Repeat("\x01", 64))
	f.Add(curveEd25519, "\x04\x20"+strings.Repeat("\x01", 32))
	f.Add(curveEd25519Name, strings.Repeat("\x01", 32))
	f.Fuzz(func(t *testing.T, params, point string) {
		if pub, err := parsePoint(params, point); err == nil && bundle.KeyID(pub) == "" {
			t.Fatalf("%T", pub)
		}
	})
}
