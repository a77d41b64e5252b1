package root

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// testKey makes a key from its name: P-256 where the name ends in "-p256",
// Ed25519 otherwise.
func testKey(name string) crypto.Signer {
	seed := artifact.Sum([]byte(name))
	if !strings.HasSuffix(name, "-p256") {
		return ed25519.NewKeyFromSeed(seed[:])
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		panic(err)
	}
	return key
}

func signer(name string) bundle.Signer { return bundle.Signer{Name: name, Signer: testKey(name)} }

func signers(names ...string) []bundle.Signer {
	var list []bundle.Signer
	for _, name := range names {
		list = append(list, signer(name))
	}
	return list
}

func public(name string) Key {
	k, err := NewKey(name, testKey(name).Public())
	if err != nil {
		panic(err)
	}
	return k
}

func id(name string) string { return public(name).ID }

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// now is when most tests happen; version 1 is good for a year.
var (
	issued  = at("2026-11-22T20:15:00Z")
	now     = at("2026-12-01T00:00:00Z")
	expires = at("2027-11-22T00:00:00Z")
)

// newRoot is version 1: two of three root keys, one exporter, one of two
// approvers, one key inside.
func newRoot() *Root {
	var keys []Key
	role := func(threshold int, names ...string) Role {
		r := Role{Threshold: threshold}
		for _, name := range names {
			keys = append(keys, public(name))
			r.Keys = append(r.Keys, id(name))
		}
		return r
	}
	roles := Roles{
		Root:     role(2, "alice", "bob", "carol-p256"),
		Exporter: role(1, "bastion"),
		Approver: role(1, "dora", "emil-p256"),
		Inside:   role(1, "importer"),
	}
	return New("main", issued, expires, keys, roles)
}

func mustSign(t testing.TB, r *Root, names ...string) []byte {
	t.Helper()
	data, err := Sign(r, signers(names...)...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fingerprint is what a person would compare.
func fingerprint(t testing.TB, data []byte) string {
	t.Helper()
	f, err := openEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	return artifact.Sum(f.payload).String()
}

// v1 is a verified version 1.
func v1(t testing.TB) *Verified {
	t.Helper()
	data := mustSign(t, newRoot(), "alice", "bob")
	v, err := First(data, fingerprint(t, data), now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// next makes the version after r, changed.
func next(r *Root, change func(*Root)) *Root {
	n := r.NextVersion(r.Issued.AddDate(0, 1, 0), r.Expires.AddDate(0, 1, 0))
	if change != nil {
		change(n)
	}
	return n
}

// forge signs any payload, whatever the rules say.
func forge(t testing.TB, payload []byte, names ...string) []byte {
	t.Helper()
	env := envelope{PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []signature{}}
	for _, s := range signers(names...) {
		sig, err := sign(s, bundle.PAE(PayloadType, payload))
		if err != nil {
			t.Fatal(err)
		}
		env.Signatures = append(env.Signatures, signature{bundle.KeyID(s.Public()), base64.StdEncoding.EncodeToString(sig)})
	}
	return encode(t, env)
}

// forgeRoot signs any statement.
func forgeRoot(t testing.TB, r *Root, names ...string) []byte {
	t.Helper()
	return forge(t, encode(t, r), names...)
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused wants an ERR_ROOT integrity refusal that says all of the words.
func refused(t testing.TB, err error, words ...string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != CodeRoot || !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("got %v, want an integrity refusal %s", err, CodeRoot)
	}
	says(t, err, words...)
}

// says wants an error that says all of the words.
func says(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\ndoes not say %q", err, w)
		}
	}
}

// replaceOnce wants old to be there once.
func replaceOnce(t testing.TB, data []byte, old, with string) []byte {
	t.Helper()
	if bytes.Count(data, []byte(old)) != 1 {
		t.Fatalf("%q is not there once in %s", old, data)
	}
	return bytes.Replace(slices.Clone(data), []byte(old), []byte(with), 1)
}
