package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
)

// wantError fails unless err says all of it.
func wantError(t testing.TB, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}

// wantSigner opens a key, has it sign and compares it with the public key that
// it must have.
func wantSigner(t testing.TB, spec, name string, pub crypto.PublicKey) bundle.Signer {
	t.Helper()
	s, closeKey, err := Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeKey(); err != nil {
			t.Error(err)
		}
	})
	if s.Name != name || bundle.KeyID(s.Public()) != bundle.KeyID(pub) || bundle.KeyID(pub) == "" {
		t.Fatalf("got %s %s, want %s %s", s.Name, bundle.KeyID(s.Public()), name, bundle.KeyID(pub))
	}
	if err := bundle.CheckSigner(s); err != nil {
		t.Fatal(err)
	}
	verify(t, s)
	return s
}

// verify checks a signature by the standard library alone.
func verify(t testing.TB, s bundle.Signer) {
	t.Helper()
	msg := []byte("DSSEv1 1 a 1 b")
	switch pub := s.Public().(type) {
	case ed25519.PublicKey:
		sig, err := crypto.SignMessage(s.Signer, rand.Reader, msg, crypto.Hash(0))
		if err != nil || !ed25519.Verify(pub, msg, sig) {
			t.Fatalf("%x %v", sig, err)
		}
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		sig, err := crypto.SignMessage(s.Signer, rand.Reader, msg, crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(pub, sum[:], sig) {
			t.Fatalf("%x %v", sig, err)
		}
	default:
		t.Fatalf("%T", pub)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, public, err := bundle.GenerateKey("exporter-a")
	if err != nil {
		t.Fatal(err)
	}
	_, pub, err := bundle.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	wantSigner(t, write("ed.pem", private), "exporter-a", pub)

	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	plain := write("ec.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	wantSigner(t, plain, "key-"+bundle.KeyID(ec.Public())[:8], ec.Public())

	for name, tc := range map[string]struct {
		spec string
		want string
	}{
		"public":    {write("pub.pem", public), "PUBLIC KEY"},
		"too large": {write("large.pem", append([]byte(strings.Repeat("#\n", 16<<10)), private...)), "at most"},
		"folder":    {dir, "directory"},
		"not there": {filepath.Join(dir, "none"), "none"},
	} {
		s, closeKey, err := Open(t.Context(), tc.spec)
		if s.Signer != nil || closeKey != nil {
			t.Errorf("%s: something beside the error", name)
		}
		wantError(t, err, tc.want)
	}
	if _, _, err := Open(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestMarshalECDSA(t *testing.T) {
	big256 := new(big.Int).Lsh(big.NewInt(1), 256)
	if der, err := marshalECDSA(big.NewInt(128), big.NewInt(1)); err != nil || string(der) != "\x30\x07\x02\x02\x00\x80\x02\x01\x01" {
		t.Fatalf("%x %v", der, err)
	}
	for _, bad := range [][2]*big.Int{{nil, nil}, {big.NewInt(0), big.NewInt(1)}, {big.NewInt(1), big.NewInt(-1)}, {big256, big.NewInt(1)}} {
		if der, err := marshalECDSA(bad[0], bad[1]); der != nil || err == nil {
			t.Errorf("%v: %x %v", bad, der, err)
		}
	}
}

const goodURI = "pkcs11:token=My%20token;object=exporter-a;id=%01%02;type=private?module-path=/usr/lib/token.so&pin-source=file:///run/pin"

func TestParseURI(t *testing.T) {
	got, err := parseURI(goodURI)
	want := &uri{token: "My token", object: "exporter-a", id: "\x01\x02", modulePath: "/usr/lib/token.so", pinFile: "/run/pin"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(uri{})); err != nil || diff != "" {
		t.Fatal(diff, err)
	}
	for _, pin := range []string{"/run/pin", "file:/run/pin", "file:///run/pin"} {
		if u, err := parseURI("pkcs11:serial=1;object=a?module-path=/m&pin-source=" + pin); err != nil || u.pinFile != "/run/pin" {
			t.Errorf("%s: %+v %v", pin, u, err)
		}
	}
	for spec, want := range map[string]string{
		"pkcs11:":                                                     "no token",
		"pkcs11:object=a?module-path=/m":                              "no token",
		"pkcs11:token=a?module-path=/m":                               "no key",
		"pkcs11:token=a;object=b":                                     "module-path",
		"pkcs11:token=a;object=b?module-path=m.so":                    "absolute path",
		"pkcs11:token=a;object=b;type=cert?module-path=/m":            "type=cert",
		"pkcs11:token=a;slot-id=1;object=b?module-path=/m":            `"slot-id" is not understood`,
		"pkcs11:token=a;object=b?module-path=/m&module-name=":         `"module-name" is not understood`,
		"pkcs11:token=a;token=b;object=b?module-path=/m":              "twice",
		"pkcs11:token=;object=b?module-path=/m":                       "empty",
		"pkcs11:token=%zz;object=b?module-path=/m":                    "percent",
		"pkcs11:token=a;;object=b?module-path=/m":                     `"" is not understood`,
		"pkcs11:token=a;object=b?module-path=/m&pin-source=|pinentry": "no program is started",
		"pkcs11:token=a;object=b?module-path=/m&pin-source=pin":       "absolute path of a file",
		"pkcs11:" + strings.Repeat("a", maxURI):                       "at most",
		"file:x":                                                      "does not begin",
	} {
		u, err := parseURI(spec)
		if u != nil && err == nil {
			t.Errorf("%s: accepted", spec)
			continue
		}
		wantError(t, err, want)
	}
	// A PIN is refused wherever it stands, and never repeated.
	for _, spec := range []string{"pkcs11:token=a;object=b?module-path=/m&pin-value=123456", "pkcs11:pin-value=123456;token=a", "pkcs11:token=a&pin-value=123456;object=b?module-path=/m"} {
		_, err := parseURI(spec)
		wantError(t, err, "pin-value is refused", "pin-source")
		if strings.Contains(err.Error(), "123456") {
			t.Error(err)
		}
	}
}

// Whatever is read, a URI that is accepted names a token, a key and absolute
// paths, and no PIN.
func FuzzParseURI(f *testing.F) {
	f.Add(goodURI)
	f.Add("pkcs11:serial=1;model=m;manufacturer=n;id=%00?module-path=/m")
	f.Add("pkcs11:token=a;object=b?module-path=/m&pin-value=1")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseURI(s)
		if err != nil {
			return
		}
		if u.token+u.serial == "" || u.object+u.id == "" || !filepath.IsAbs(u.modulePath) || u.pinFile != "" && !filepath.IsAbs(u.pinFile) || strings.Contains(s, "pin-value") {
			t.Fatalf("%q: %+v", s, u)
		}
	})
}
