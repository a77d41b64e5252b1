package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// ecSigner is a P-256 key that depends on the name alone.
func ecSigner(t testing.TB, name string) (Signer, TrustedKey) {
	t.Helper()
	seed := artifact.Sum([]byte(name))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return Signer{Name: name, Signer: key}, TrustedKey{Name: name, Role: RoleExporter, Public: key.Public()}
}

// A key, its id and a signature over the PAE of "{}" as OpenSSL 3.0 made them.
const (
	opensslPrivate = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXPReeOow7MRlD9hV
EDkx/MuDQKC5zLWH/ZhTItg8B1OhRANCAATWqcIj7wTm785qO5ZFGnL/+Mm/pVWK
39bqJO/+Ui21dDzFIQq8e1LaxlnT1B8m5X1V8pELA7dDXlgl/YNnra92
-----END PRIVATE KEY-----
`
	opensslPublic = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE1qnCI+8E5u/OajuWRRpy//jJv6VV
it/W6iTv/lIttXQ8xSEKvHtS2sZZ09QfJuV9VfKRCwO3Q15YJf2DZ62vdg==
-----END PUBLIC KEY-----
`
	// The same key as a compressed point, and as SEC 1.
	opensslCompressed = `-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgAC1qnCI+8E5u/OajuWRRpy//jJv6VV
it/W6iTv/lIttXQ=
-----END PUBLIC KEY-----
`
	opensslSEC1 = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFz0XnjqMOzEZQ/YVRA5MfzLg0Cgucy1h/2YUyLYPAdToAoGCCqGSM49
AwEHoUQDQgAE1qnCI+8E5u/OajuWRRpy//jJv6VVit/W6iTv/lIttXQ8xSEKvHtS
2sZZ09QfJuV9VfKRCwO3Q15YJf2DZ62vdg==
-----END EC PRIVATE KEY-----
`
	opensslID        = "7b4e21b29f9fb61f02aa17d2faaedf185b1f9446529ccdec6998fa0912a0e2f0"
	opensslSignature = "MEUCIQDX9C4VhGp9Mcf7JJV7KS78IZN340AamX/ixC8oiT9AmgIgcC/l/rnRaPswMENLkSbLeVKDkj6+4uIe4pfXATOAxDQ="
)

func TestECDSAOracle(t *testing.T) {
	_, key, err := ParsePrivateKey([]byte(opensslPrivate))
	if err != nil {
		t.Fatal(err)
	}
	_, pub, err := ParsePublicKey([]byte(opensslPublic))
	if err != nil {
		t.Fatal(err)
	}
	if KeyID(pub) != opensslID || KeyID(key.Public()) != opensslID {
		t.Fatalf("ids %s and %s, want %s", KeyID(pub), KeyID(key.Public()), opensslID)
	}
	again, err := MarshalPublicKey("a", pub)
	if err != nil || string(again) != "# name: a\n"+opensslPublic {
		t.Fatalf("%s %v", again, err)
	}
	trust := Trust{Keys: []TrustedKey{{Name: "token", Role: RoleExporter, Public: pub}}}
	data, err := json.Marshal(&envelope{
		PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString([]byte("{}")),
		Signatures: []signature{{KeyID: opensslID, Sig: opensslSignature}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := verifyBytes(data, trust); err != nil || !slices.Equal(rep.SignedBy, []string{"token"}) {
		t.Fatal(rep, err)
	}
	// And what we sign is what the standard says: SHA-256 of the PAE.
	sig, err := sign(Signer{Name: "token", Signer: key}, PAE(PayloadType, []byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("DSSEv1 41 " + PayloadType + " 2 {}"))
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), sum[:], sig) {
		t.Fatal("the signature does not verify")
	}
}

func TestECDSAFilesRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		opensslSEC1: "convert it to PKCS#8",
		string(pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der})): "ECDSA P-384 is not supported, want Ed25519 or ECDSA P-256",
	} {
		if _, key, err := ParsePrivateKey([]byte(file)); key != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v %v, want %s", key, err, want)
		}
	}
	if _, pub, err := ParsePublicKey([]byte(opensslCompressed)); err == nil {
		t.Errorf("a compressed point was taken, and would give the key a second id: %s", KeyID(pub))
	}
}

// The algorithm is the trusted key's, whatever the signature looks like.
func TestECDSAEnvelope(t *testing.T) {
	e, keyE := ecSigner(t, "token-a")
	a, keyA := testSigner(t, "exporter-a")
	trust := Trust{Keys: []TrustedKey{keyE, keyA}}
	body := []byte("{}")
	put := func(i int, sig []byte) func(*envelope) {
		return func(v *envelope) { v.Signatures[i].Sig = base64.StdEncoding.EncodeToString(sig) }
	}
	raw := func(opts crypto.Hash, input []byte, s Signer) []byte {
		sig, err := s.Sign(rand.Reader, input, opts)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	msg := PAE(PayloadType, body)
	sum, other := sha256.Sum256(msg), sha256.Sum256(body)
	good := raw(crypto.SHA256, sum[:], e)
	// r and s without ASN.1, as tokens and JOSE write them.
	joined := make([]byte, 64)
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"token":                     {signed(t, body, nil, e), ""},
		"both":                      {signed(t, body, nil, a, e), ""},
		"Ed25519 under its id":      {signed(t, body, put(0, raw(crypto.Hash(0), msg, a)), e), CodeSignature},
		"ECDSA under the other's":   {signed(t, body, put(0, good), a), CodeSignature},
		"Ed25519 of the digest":     {signed(t, body, put(0, raw(crypto.Hash(0), sum[:], a)), a), CodeSignature},
		"over the payload alone":    {signed(t, body, put(0, raw(crypto.SHA256, other[:], e)), e), CodeSignature},
		"trailing byte":             {signed(t, body, put(0, append(slices.Clone(good), 0)), e), CodeSignature},
		"raw r and s":               {signed(t, body, put(0, joined), e), CodeSignature},
		"empty":                     {signed(t, body, put(0, nil), e), CodeSignature},
		"r and s of zero":           {signed(t, body, put(0, []byte{0x30, 6, 2, 1, 0, 2, 1, 0}), e), CodeSignature},
		"same key twice, both good": {signed(t, body, put(1, good), e, e), CodeKey},
	} {
		t.Run(name, func(t *testing.T) {
			rep, err := verifyBytes(tc.data, trust)
			if tc.want != "" {
				wantCode(t, err, tc.want)
				return
			}
			if err != nil || !slices.Contains(rep.SignedBy, "token-a") {
				t.Fatal(rep, err)
			}
		})
	}
	for i := range good {
		spoilt := slices.Clone(good)
		spoilt[i] ^= 1
		if _, err := verifyBytes(signed(t, body, put(0, spoilt), e), trust); err == nil {
			t.Errorf("byte %d flipped: accepted", i)
		}
	}
}

// A whole bundle of a P-256 key: sealed, sealed again, approved, read.
func TestECDSABundle(t *testing.T) {
	outbox := t.TempDir()
	e, keyE := ecSigner(t, "token-a")
	a, keyA := ecSigner(t, "token-b")
	keyA.Role = RoleApprover
	c, m := smallContent()
	f := &fixture{content: c, m: m, outbox: outbox, trust: Trust{Keys: []TrustedKey{keyE, keyA}, Approvals: 1}}
	var err error
	if f.sealed, err = seal(t.Context(), outbox, m, c.open, e, SealOptions{VolumeSize: small.volume}, small); err != nil {
		t.Fatal(err)
	}
	before := tree(t, f.sealed.Dir)
	if _, err := seal(t.Context(), outbox, m, c.open, e, SealOptions{VolumeSize: small.volume}, small); err != nil {
		t.Fatal("sealed again:", err)
	}
	if diff := cmp.Diff(before, tree(t, f.sealed.Dir)); diff != "" {
		t.Fatal(diff)
	}
	_, err = verifyDir(t, f.sealed.Dir, f.trust)
	wantCode(t, err, CodeApproval)
	mustApprove(t, f, a)
	once := tree(t, f.sealed.Dir)
	mustApprove(t, f, a)
	if diff := cmp.Diff(once, tree(t, f.sealed.Dir)); diff != "" {
		t.Fatal(diff)
	}
	if err := copyAll(t.Context(), f.openBundle(t), c); err != nil {
		t.Fatal(err)
	}
}

// asks records what a signer is asked to sign.
type asks struct {
	crypto.Signer
	got [][]byte
}

func (a *asks) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	a.got = append(a.got, slices.Clone(msg))
	return a.Signer.Sign(r, msg, o)
}

// broken refuses to sign.
type broken struct{ crypto.Signer }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, io.ErrClosedPipe
}

func TestCheckSigner(t *testing.T) {
	a, keyA := testSigner(t, "exporter-a")
	e, _ := ecSigner(t, "token-a")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Signer{a, e} {
		if err := CheckSigner(s); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	for want, s := range map[string]Signer{
		"no signing key": {Name: "x"},
		"signing key x: public key: ECDSA P-384 is not supported, want Ed25519 or ECDSA P-256": {Name: "x", Signer: p384},
		"sign with x: the signature does not verify":                                           {Name: "x", Signer: faulty{a}},
		"sign with y: the signature does not verify":                                           {Name: "y", Signer: faulty{e}},
		"sign with x: io: read/write on closed pipe":                                           {Name: "x", Signer: broken{a}},
	} {
		if err := CheckSigner(s); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	// What is signed on trial never verifies as a bundle.
	rec := &asks{Signer: a}
	if err := CheckSigner(Signer{Name: "x", Signer: rec}); err != nil || len(rec.got) != 1 {
		t.Fatal(len(rec.got), err)
	}
	trial := ed25519.Sign(a.Signer.(ed25519.PrivateKey), rec.got[0])
	data := signed(t, []byte("{}"), func(v *envelope) { v.Signatures[0].Sig = base64.StdEncoding.EncodeToString(trial) }, a)
	_, err = verifyBytes(data, Trust{Keys: []TrustedKey{keyA}})
	wantCode(t, err, CodeSignature)
}

// randomECDSA signs as a token does: never the same twice.
type randomECDSA struct{ *ecdsa.PrivateKey }

func (r randomECDSA) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, r.PrivateKey, digest)
}

// TestSealAgainWithToken: a rerun after a kill finds the bundle there, though
// its signature is another one.
func TestSealAgainWithToken(t *testing.T) {
	outbox := t.TempDir()
	sealBy := func(key *ecdsa.PrivateKey) (*Sealed, error) {
		c, m := smallContent()
		return Seal(t.Context(), outbox, m, c.open, Signer{Name: "token", Signer: randomECDSA{key}}, SealOptions{VolumeSize: MinVolumeSize})
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	first, err := sealBy(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	again, err := sealBy(keys[0])
	if err != nil || first.Dir != again.Dir || first.ID != again.ID {
		t.Errorf("sealed as %s, again as %+v, %v", first.Dir, again, err)
	}
	if _, err := sealBy(keys[1]); err == nil {
		t.Error("another key's bundle of the same content counts as the same")
	}
}
