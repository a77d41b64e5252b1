//go:build cgo && pkcs11

package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"
)

// Names of PKCS#11 3.0 that the module, which speaks 2.40, lacks.
const (
	keyTypeEdwards = 0x40   // CKK_EC_EDWARDS
	mechanismEdDSA = 0x1057 // CKM_EDDSA
)

// Curves as CKA_EC_PARAMS names them in DER: by an object identifier, Edwards
// curves also by a printable name.
const (
	curveP256        = "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
	curveEd25519     = "\x06\x03\x2b\x65\x70"
	curveEd25519Name = "\x13\x0cedwards25519"
)

// maxObjects bounds how many objects of one name are looked at.
const maxObjects = 64

// A tokenKey signs in the token.
type tokenKey struct {
	token   *token
	private pkcs11.ObjectHandle
	always  bool // the PIN is asked for at each signature
	label   string
	pub     crypto.PublicKey
}

// key finds the one private key that the URI names, and its public half.
func (t *token) key(u *uri) (*tokenKey, error) {
	what := fmt.Sprintf("object=%q id=%x", u.object, u.id)
	private, err := t.objects(pkcs11.CKO_PRIVATE_KEY, u.object, []byte(u.id))
	if err != nil {
		return nil, err
	}
	if len(private) != 1 {
		all, err := t.objects(pkcs11.CKO_PRIVATE_KEY, "", nil)
		if err != nil {
			return nil, err
		}
		have := make([]string, 0, len(all))
		for _, o := range all {
			have = append(have, fmt.Sprintf("object=%q id=%x", clip(t.text(o, pkcs11.CKA_LABEL)), clip(t.text(o, pkcs11.CKA_ID))))
		}
		return nil, fmt.Errorf("%d private keys with %s, want one; there are: %s", len(private), what, list(have))
	}
	k := &tokenKey{token: t, private: private[0], label: t.text(private[0], pkcs11.CKA_LABEL)}
	k.always = t.text(k.private, pkcs11.CKA_ALWAYS_AUTHENTICATE) == "\x01"
	if k.pub, err = t.public(k.private, u); err != nil {
		return nil, fmt.Errorf("key %s: %w", what, err)
	}
	return k, nil
}

// objects finds objects of a class; an empty label or id matches all.
func (t *token) objects(class uint, label string, id []byte) (_ []pkcs11.ObjectHandle, err error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	if len(id) != 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	if err := t.lib.FindObjectsInit(*t.session, template); err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	defer func() { err = errors.Join(err, t.lib.FindObjectsFinal(*t.session)) }()
	found, _, err := t.lib.FindObjects(*t.session, maxObjects)
	if err != nil {
		return nil, fmt.Errorf("find objects: %w", err)
	}
	return found, nil
}

// text is an attribute, or empty where the object has none.
func (t *token) text(o pkcs11.ObjectHandle, attribute uint) string {
	got, err := t.lib.GetAttributeValue(*t.session, o, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil || len(got) != 1 {
		return ""
	}
	return string(got[0].Value)
}

// public reads the public half, which has the private key's id.
func (t *token) public(private pkcs11.ObjectHandle, u *uri) (crypto.PublicKey, error) {
	label := u.object
	id := t.text(private, pkcs11.CKA_ID)
	if id != "" {
		label = ""
	}
	found, err := t.objects(pkcs11.CKO_PUBLIC_KEY, label, []byte(id))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("the token holds %d public keys with its id %x, want one", len(found), clip(id))
	}
	return parsePoint(t.text(found[0], pkcs11.CKA_EC_PARAMS), t.text(found[0], pkcs11.CKA_EC_POINT))
}

// parsePoint reads a public key's CKA_EC_PARAMS and CKA_EC_POINT. The point is
// in an OCTET STRING, which some tokens leave out.
func parsePoint(params, point string) (crypto.PublicKey, error) {
	switch params {
	case curveP256:
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), unwrap(point, 65))
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		return pub, nil
	case curveEd25519, curveEd25519Name:
		raw := unwrap(point, ed25519.PublicKeySize)
		if len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("public key: point of %d bytes, want %d", len(raw), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(raw), nil
	}
	return nil, fmt.Errorf("public key: curve %x is not supported, want Ed25519 or P-256", clip(params))
}

// unwrap takes the OCTET STRING off. What has the right length as it is has
// none: a point may by chance begin like one.
func unwrap(point string, size int) []byte {
	raw := []byte(point)
	var inner []byte
	if rest, err := asn1.Unmarshal(raw, &inner); len(raw) != size && err == nil && len(rest) == 0 {
		return inner
	}
	return raw
}

// Public returns the public key.
func (k *tokenKey) Public() crypto.PublicKey { return k.pub }

// Sign signs a message with Ed25519, a SHA-256 digest with ECDSA: a token need
// not know the hash, nor take a long message.
func (k *tokenKey) Sign(_ io.Reader, input []byte, opts crypto.SignerOpts) ([]byte, error) {
	mechanism, want := uint(mechanismEdDSA), crypto.Hash(0)
	_, ec := k.pub.(*ecdsa.PublicKey)
	if ec {
		mechanism, want = pkcs11.CKM_ECDSA, crypto.SHA256
	}
	if opts.HashFunc() != want || ec && len(input) != want.Size() {
		return nil, fmt.Errorf("PKCS#11: %T signs with %v, not with %v of %d bytes", k.pub, want, opts.HashFunc(), len(input))
	}
	raw, err := k.sign(mechanism, input)
	if err != nil {
		return nil, fmt.Errorf("PKCS#11: sign %d bytes with key %q: %w", len(input), clip(k.label), err)
	}
	if !ec {
		return raw, nil
	}
	if len(raw) != 64 {
		return nil, fmt.Errorf("PKCS#11: key %q: ECDSA signature of %d bytes, want 64", clip(k.label), len(raw))
	}
	return marshalECDSA(new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:]))
}

func (k *tokenKey) sign(mechanism uint, input []byte) ([]byte, error) {
	t := k.token
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.session == nil {
		return nil, errors.New("the session is closed")
	}
	if err := t.lib.SignInit(*t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, k.private); err != nil {
		return nil, err
	}
	if k.always {
		if err := t.lib.Login(*t.session, pkcs11.CKU_CONTEXT_SPECIFIC, t.pin); err != nil {
			return nil, fmt.Errorf("log in for this signature: %w", err)
		}
	}
	return t.lib.Sign(*t.session, input)
}
