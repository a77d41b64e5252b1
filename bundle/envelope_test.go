package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// The test vector of the DSSE protocol page.
func TestPAE(t *testing.T) {
	got := string(PAE("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	if got := string(PAE("", nil)); got != "DSSEv1 0  0 " {
		t.Fatalf("got %q", got)
	}
}

func TestKeysRoundTrip(t *testing.T) {
	private, public, err := GenerateKey("exporter-a")
	if err != nil {
		t.Fatal(err)
	}
	name, key, err := ParsePrivateKey(private)
	if err != nil || name != "exporter-a" {
		t.Fatal(name, err)
	}
	pubName, pub, err := ParsePublicKey(public)
	if err != nil || pubName != "exporter-a" {
		t.Fatal(pubName, err)
	}
	if !key.Public().(ed25519.PublicKey).Equal(pub) {
		t.Fatal("the halves differ")
	}
	again, err := MarshalPublicKey(name, key.Public())
	if err != nil || !cmp.Equal(again, public) {
		t.Fatal("public key changed", err)
	}
	if id := KeyID(pub); len(id) != 64 || Fingerprint(pub) != id[:4]+" "+id[4:8] {
		t.Fatalf("id %q, fingerprint %q", KeyID(pub), Fingerprint(pub))
	}
	// Files of other tools carry no name.
	_, rest, _ := strings.Cut(string(public), "\n")
	if name, _, err := ParsePublicKey([]byte(rest)); err != nil || name != "" {
		t.Fatal(name, err)
	}
}

// The id of RFC 8410's example key, as `openssl pkey -pubin -outform DER |
// sha256sum` gives it.
func TestKeyIDOracle(t *testing.T) {
	const file = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
	_, pub, err := ParsePublicKey([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=")
	if err != nil {
		t.Fatal(err)
	}
	if want := artifact.Sum(der).Hex(); KeyID(pub) != want {
		t.Fatalf("got %s, want %s", KeyID(pub), want)
	}
}

func TestKeyFilesRefused(t *testing.T) {
	private, public, err := GenerateKey("exporter-a")
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"empty":        "",
		"private":      string(private),
		"two blocks":   string(public) + string(public),
		"text after":   string(public) + "x",
		"text before":  "x\n" + string(public),
		"two names":    "# name: b\n" + string(public),
		"bad name":     strings.Replace(string(public), "exporter-a", "Exporter A", 1),
		"headers":      strings.Replace(string(public), "KEY-----\n", "KEY-----\nA: b\n\n", 1),
		"other curve":  string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ecDER})),
		"not DER":      string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})),
		"larger input": strings.Repeat("#\n", maxKeyFile) + string(public),
	} {
		if _, _, err := ParsePublicKey([]byte(file)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := ParsePrivateKey(public); err == nil {
		t.Error("a public key was taken for a private one")
	}
	if KeyID(&ec.PublicKey) != "" || Fingerprint(&ec.PublicKey) != "" {
		t.Error("an unsupported key has an id")
	}
	if _, _, err := GenerateKey("no spaces"); err == nil {
		t.Error("bad name accepted")
	}
}

func TestTrustRefused(t *testing.T) {
	_, a := testSigner(t, "exporter-a")
	other, root := a, a
	other.Role, root.Role = RoleApprover, "root"
	_, b := testSigner(t, "approver-b")
	b.Role = RoleApprover
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		keys []TrustedKey
		want string
	}{
		"none":      {nil, "there are none"},
		"twice":     {[]TrustedKey{a, a}, "also named"},
		"two roles": {[]TrustedKey{a, other}, "two roles"},
		"role":      {[]TrustedKey{root}, "not supported"},
		"approvers": {[]TrustedKey{other, b}, "none of them is an exporter's"},
		"algorithm": {[]TrustedKey{{Name: "e", Role: RoleExporter, Public: &ec.PublicKey}}, "not supported"},
		"half key":  {[]TrustedKey{{Name: "e", Role: RoleExporter, Public: ed25519.PublicKey("short")}}, "not supported"},
		"no key":    {[]TrustedKey{{Name: "e", Role: RoleExporter}}, "not supported"},
		"nil key":   {[]TrustedKey{{Name: "e", Role: RoleExporter, Public: (*ecdsa.PublicKey)(nil)}}, "not supported"},
		"no curve":  {[]TrustedKey{{Name: "e", Role: RoleExporter, Public: &ecdsa.PublicKey{}}}, "not supported"},
	} {
		_, err := Trust{Keys: tc.keys}.index()
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		wantCode(t, err, CodeKey)
	}
}

// signed makes an envelope and lets a test spoil it before it is encoded.
func signed(t *testing.T, payload []byte, spoil func(*envelope), signers ...Signer) []byte {
	t.Helper()
	e := envelope{PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	for _, s := range signers {
		e.Signatures = append(e.Signatures, signature{KeyID(s.Public()), signatureOf(t, s, payload)})
	}
	if spoil != nil {
		spoil(&e)
	}
	b, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func verifyBytes(data []byte, t Trust) (*Report, error) {
	e, payload, err := openEnvelope(data)
	if err != nil {
		return nil, err
	}
	return e.verify(payload, t)
}

func TestEnvelope(t *testing.T) {
	a, keyA := testSigner(t, "exporter-a")
	b, keyB := testSigner(t, "exporter-b")
	x, _ := testSigner(t, "stranger")
	trust := Trust{Keys: []TrustedKey{keyA, keyB}}
	body := []byte("{}")
	flip := func(s string) string {
		c := byte('A')
		if s[5] == 'A' {
			c = 'B'
		}
		return s[:5] + string(c) + s[6:]
	}
	for name, tc := range map[string]struct {
		data []byte
		want string // code; empty: accepted
	}{
		"one":               {signed(t, body, nil, a), ""},
		"two":               {signed(t, body, nil, a, b), ""},
		"with a stranger":   {signed(t, body, nil, x, a), ""},
		"stranger alone":    {signed(t, body, nil, x), CodeKey},
		"key twice":         {signed(t, body, nil, a, a), CodeKey},
		"none":              {signed(t, body, nil), CodeFormat},
		"other payload":     {signed(t, body, func(e *envelope) { e.Payload = "e30K" }, a), CodeSignature},
		"flipped signature": {signed(t, body, func(e *envelope) { e.Signatures[0].Sig = flip(e.Signatures[0].Sig) }, a), CodeSignature},
		"one of two bad":    {signed(t, body, func(e *envelope) { e.Signatures[1].Sig = flip(e.Signatures[1].Sig) }, a, b), CodeSignature},
		"short signature":   {signed(t, body, func(e *envelope) { e.Signatures[0].Sig = "e30K" }, a), CodeSignature},
		"signature text":    {signed(t, body, func(e *envelope) { e.Signatures[0].Sig = "?" }, a), CodeSignature},
		"swapped key id":    {signed(t, body, func(e *envelope) { e.Signatures[0].KeyID = KeyID(keyB.Public) }, a), CodeSignature},
		"unknown key id":    {signed(t, body, func(e *envelope) { e.Signatures[0].KeyID = "" }, a), CodeKey},
		"type":              {signed(t, body, func(e *envelope) { e.PayloadType = "text/plain" }, a), CodeFormat},
		"line break":        {signed(t, body, func(e *envelope) { e.Payload += "\n" }, a), CodeFormat},
		"no padding":        {signed(t, body, func(e *envelope) { e.Payload = strings.TrimRight(e.Payload, "=") }, a), CodeFormat},
		"loose bits":        {signed(t, []byte("{"), func(e *envelope) { e.Payload = "ex==" }, a), CodeFormat},
		"URL alphabet":      {signed(t, body, func(e *envelope) { e.Payload = "-_8=" }, a), CodeFormat},
		"empty payload":     {signed(t, nil, nil, a), CodeFormat},
		"many signatures":   {signed(t, body, func(e *envelope) { e.Signatures = make([]signature, maxSignatures+1) }, a), CodeFormat},
		"too large":         {make([]byte, maxEnvelope+1), CodeFormat},
		"case variant":      {[]byte(strings.Replace(string(signed(t, body, nil, a)), "payloadType", "payloadtype", 1)), CodeFormat},
		"duplicate":         {[]byte(strings.Replace(string(signed(t, body, nil, a)), "{", `{"payload":"e30=",`, 1)), CodeFormat},
		"unknown field":     {[]byte(strings.Replace(string(signed(t, body, nil, a)), "{", `{"x":1,`, 1)), CodeFormat},
		"trailing":          {append(signed(t, body, nil, a), '{', '}'), CodeFormat},
		"null":              {[]byte(`{"payloadType":"` + PayloadType + `","payload":"e30=","signatures":null}`), CodeFormat},
	} {
		t.Run(name, func(t *testing.T) {
			rep, err := verifyBytes(tc.data, trust)
			if tc.want != "" {
				if rep != nil {
					t.Fatalf("a report beside an error: %+v", rep)
				}
				wantCode(t, err, tc.want)
				return
			}
			if err != nil || len(rep.SignedBy) == 0 || rep.ID != artifact.Sum(body) {
				t.Fatal(rep, err)
			}
		})
	}
	rep, err := verifyBytes(signed(t, body, nil, x, b, a), trust)
	if err != nil || !cmp.Equal(rep.SignedBy, []string{"exporter-b", "exporter-a"}) || !cmp.Equal(rep.Unknown, []string{KeyID(x.Public())}) {
		t.Fatal(rep, err)
	}
}

func TestSignEnvelopeRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := testSigner(t, "exporter-a")
	for name, s := range map[string]Signer{
		"none":      {Name: "e"},
		"algorithm": {Name: "e", Signer: ec},
		"faulty":    {Name: "e", Signer: faulty{a}},
	} {
		if _, err := signEnvelope([]byte("{}"), s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// faulty signs like a broken token.
type faulty struct{ crypto.Signer }

func (f faulty) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	sig, err := f.Signer.Sign(r, msg, o)
	if err == nil {
		sig[7] ^= 1
	}
	return sig, err
}
