package provenance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// signedAt is when all forged things are signed, long before any test runs:
// nothing may ask for the present time.
var signedAt = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

// A forge is a small Sigstore: certificate authority, certificate log and
// transparency log, and a workflow that signs. sigstore-go's own stand-in
// gives no certificate timestamps and none of the extensions that name a
// publisher.
type forge struct {
	t                       testing.TB
	ca, inter, ctLog, rekor *ecdsa.PrivateKey
	caCert, interCert       *x509.Certificate
}

func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{t: t, ca: newKey(t), inter: newKey(t), ctLog: newKey(t), rekor: newKey(t)}
	f.caCert = f.authority("root", f.ca, nil, nil)
	f.interCert = f.authority("intermediate", f.inter, f.caCert, f.ca)
	return f
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (f *forge) authority(name string, key *ecdsa.PrivateKey, parent *x509.Certificate, signer *ecdsa.PrivateKey) *x509.Certificate {
	f.t.Helper()
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Organization: []string{"forge.example"}, CommonName: name},
		NotBefore:             signedAt.AddDate(-1, 0, 0),
		NotAfter:              signedAt.AddDate(25, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if parent == nil {
		parent, signer = c, key
	} else {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}
	return f.certificate(c, parent, &key.PublicKey, signer)
}

func (f *forge) certificate(c, parent *x509.Certificate, pub *ecdsa.PublicKey, signer *ecdsa.PrivateKey) *x509.Certificate {
	f.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, signer)
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// root writes trusted_root.json.
func (f *forge) root() map[string]any {
	log := func(host string, key *ecdsa.PrivateKey) map[string]any {
		id := keyID(f.t, key)
		return map[string]any{
			"baseUrl":       "https://" + host,
			"hashAlgorithm": "SHA2_256",
			"publicKey": map[string]any{
				"rawBytes":   spki(f.t, key),
				"keyDetails": "PKIX_ECDSA_P256_SHA_256",
				"validFor":   map[string]any{"start": "2020-01-01T00:00:00Z"},
			},
			"logId": map[string]any{"keyId": id[:]},
		}
	}
	return map[string]any{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"tlogs":     []any{log("rekor.example", f.rekor)},
		"ctlogs":    []any{log("ct.example", f.ctLog)},
		"certificateAuthorities": []any{map[string]any{
			"uri":       "https://ca.example",
			"subject":   map[string]any{"organization": "forge.example", "commonName": "root"},
			"certChain": map[string]any{"certificates": []any{map[string]any{"rawBytes": f.interCert.Raw}, map[string]any{"rawBytes": f.caCert.Raw}}},
			"validFor":  map[string]any{"start": "2020-01-01T00:00:00Z"},
		}},
	}
}

func (f *forge) pinned() *Root {
	f.t.Helper()
	r, err := ParseRoot(marshal(f.t, f.root()))
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// An order says what the workflow signs, and what goes wrong.
type order struct {
	statement string
	san       string
	claims    map[int]string // Fulcio's extensions, by the last number of their OID
	at        time.Time      // of the transparency log
	noSCT     bool
	signer    *ecdsa.PrivateKey // in place of the key that is certified
}

const (
	forgedFile   = "demo_pkg-1.0-py3-none-any.whl"
	forgedCommit = "0123456789abcdef0123456789abcdef01234567"
)

var (
	forgedDigest  = artifact.Sum([]byte("demo"))
	forgedSubject = Subject{Filename: forgedFile, SHA256: forgedDigest}
)

func forgedStatement(predicate, name string, digest artifact.Digest) string {
	return fmt.Sprintf(`{"_type":%q,"subject":[{"name":%q,"digest":{"sha256":%q}}],"predicateType":%q,"predicate":null}`,
		statementType, name, digest.Hex(), predicate)
}

// github is an order as a workflow of GitHub places it.
func github() order {
	const workflow = "https://github.com/demo/pkg/.github/workflows/release.yml@refs/tags/v1"
	return order{
		statement: forgedStatement(PredicatePublish, forgedFile, forgedDigest),
		san:       workflow,
		claims: map[int]string{
			8: issuerGitHub, 9: workflow, 12: "https://github.com/demo/pkg", 13: forgedCommit, 14: "refs/tags/v1", 18: workflow,
		},
		at: signedAt,
	}
}

var githubPublisher = map[string]any{"kind": "GitHub", "claims": nil, "repository": "demo/pkg", "workflow": "release.yml", "environment": "pypi"}

// sign fills the order: an attestation object.
func (f *forge) sign(o order) map[string]any {
	f.t.Helper()
	key := newKey(f.t)
	leaf := f.leaf(o, key)
	if o.signer != nil {
		key = o.signer
	}
	const kind = "application/vnd.in-toto+json"
	pae := fmt.Sprintf("DSSEv1 %d %s %d %s", len(kind), kind, len(o.statement), o.statement)
	sig := ecdsaSign(f.t, key, []byte(pae))
	return map[string]any{
		"version":  1,
		"envelope": map[string]any{"statement": []byte(o.statement), "signature": sig},
		"verification_material": map[string]any{
			"certificate":          leaf.Raw,
			"transparency_entries": []any{f.entry(leaf, []byte(o.statement), sig, o.at)},
		},
	}
}

// leaf issues the signing certificate, valid for ten minutes. The certificate
// log signs it as it is without the log's own timestamp (RFC 6962, 3.2).
func (f *forge) leaf(o order, key *ecdsa.PrivateKey) *x509.Certificate {
	f.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7),
		NotBefore:    signedAt.Add(-5 * time.Minute),
		NotAfter:     signedAt.Add(5 * time.Minute),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if u, err := url.Parse(o.san); err == nil && u.Scheme != "" {
		c.URIs = []*url.URL{u}
	} else {
		c.EmailAddresses = []string{o.san}
	}
	for n := range 23 {
		v, ok := o.claims[n]
		if ok && n == 8 { // the issuer, which has an older extension as well
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(v)})
		}
		if ok {
			der, err := asn1.MarshalWithParams(v, "utf8")
			if err != nil {
				f.t.Fatal(err)
			}
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: der})
		}
	}
	bare := f.certificate(c, f.interCert, &key.PublicKey, f.inter)
	if o.noSCT {
		return bare
	}
	issuer := sha256.Sum256(f.interCert.RawSubjectPublicKeyInfo)
	id := keyID(f.t, f.ctLog)
	at := binary.BigEndian.AppendUint64(nil, uint64(signedAt.UnixMilli()))

	signed := append([]byte{0, 0}, at...) // v1, certificate_timestamp
	signed = append(signed, 0, 1)         // precert_entry
	signed = append(signed, issuer[:]...)
	signed = append(signed, byte(len(bare.RawTBSCertificate)>>16), byte(len(bare.RawTBSCertificate)>>8), byte(len(bare.RawTBSCertificate)))
	signed = append(append(signed, bare.RawTBSCertificate...), 0, 0)
	sig := ecdsaSign(f.t, f.ctLog, signed)

	sct := append([]byte{0}, id[:]...)
	sct = append(append(sct, at...), 0, 0, 4, 3) // no extensions; sha256, ecdsa
	sct = append(binary.BigEndian.AppendUint16(sct, uint16(len(sig))), sig...)
	list := binary.BigEndian.AppendUint16(nil, uint16(len(sct)+2))
	list = append(binary.BigEndian.AppendUint16(list, uint16(len(sct))), sct...)
	der, err := asn1.Marshal(list)
	if err != nil {
		f.t.Fatal(err)
	}
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: der})
	return f.certificate(c, f.interCert, &key.PublicKey, f.inter)
}

// entry logs a signature: the second of three leaves.
func (f *forge) entry(leaf *x509.Certificate, statement, sig []byte, at time.Time) map[string]any {
	f.t.Helper()
	verifier := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	payload := sha256.Sum256(statement)
	envelope := sha256.Sum256(sig) // anything: nobody can compute it again
	body := fmt.Sprintf(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"%x"},`+
		`"payloadHash":{"algorithm":"sha256","value":"%x"},"signatures":[{"signature":%q,"verifier":%q}]}}`,
		envelope, payload, b64(sig), b64(verifier))
	return f.logged([]byte(body), at)
}

func (f *forge) logged(body []byte, at time.Time) map[string]any {
	f.t.Helper()
	id := keyID(f.t, f.rekor)
	promise := fmt.Sprintf(`{"body":%q,"integratedTime":%d,"logID":%q,"logIndex":12345}`, b64(body), at.Unix(), hex.EncodeToString(id[:]))

	before, after := sha256.Sum256([]byte("before")), sha256.Sum256([]byte("after"))
	tree := merkle(1, merkle(1, before[:], merkle(0, body)), after[:])
	note := "rekor.example - 1\n3\n" + b64(tree) + "\n"
	line := append(id[:4:4], ecdsaSign(f.t, f.rekor, []byte(note))...)

	return map[string]any{
		"logIndex":         "12345",
		"logId":            map[string]any{"keyId": id[:]},
		"kindVersion":      map[string]any{"kind": "dsse", "version": "0.0.1"},
		"integratedTime":   fmt.Sprint(at.Unix()),
		"inclusionPromise": map[string]any{"signedEntryTimestamp": ecdsaSign(f.t, f.rekor, []byte(promise))},
		"inclusionProof": map[string]any{
			"logIndex": "1", "treeSize": "3", "rootHash": tree, "hashes": []any{before[:], after[:]},
			"checkpoint": map[string]any{"envelope": note + "\n— rekor.example " + b64(line) + "\n"},
		},
		"canonicalizedBody": body,
	}
}

func merkle(prefix byte, parts ...[]byte) []byte {
	sum := sha256.Sum256(append([]byte{prefix}, bytes.Join(parts, nil)...))
	return sum[:]
}

// object makes a provenance object of one bundle.
func object(t testing.TB, publisher map[string]any, attestations ...map[string]any) []byte {
	t.Helper()
	return marshal(t, map[string]any{
		"version":             1,
		"attestation_bundles": []any{map[string]any{"publisher": publisher, "attestations": attestations}},
	})
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func spki(t testing.TB, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func keyID(t testing.TB, k *ecdsa.PrivateKey) [32]byte {
	t.Helper()
	return sha256.Sum256(spki(t, k))
}

func ecdsaSign(t testing.TB, k *ecdsa.PrivateKey, data []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(data)
	sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// at walks a tree of maps and slices by a dotted path; numbers index slices.
func at(t testing.TB, tree any, path string) (parent map[string]any, key string) {
	t.Helper()
	parts := strings.Split(path, ".")
	for _, p := range parts[:len(parts)-1] {
		switch v := tree.(type) {
		case map[string]any:
			tree = v[p]
		case []any:
			tree = v[p[0]-'0']
		}
	}
	m, ok := tree.(map[string]any)
	key = parts[len(parts)-1]
	if _, there := m[key]; !ok || !there {
		t.Fatalf("no %s in the object", path)
	}
	return m, key
}
