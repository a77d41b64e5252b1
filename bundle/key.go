package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// maxKeyFile bounds a key file; a key has about 300 bytes.
const maxKeyFile = 16 << 10

// CodeThreshold refuses a bundle that some exporters have signed, and fewer
// than the inside asks for.
const CodeThreshold = "ERR_THRESHOLD"

const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
	// namePrefix starts the comment line that names a key. A PEM header
	// would make other tools refuse the file; text before the block is
	// skipped by all of them.
	namePrefix = "# name: "
)

// A Signer signs bundles. Its name is for people. Its key is Ed25519 or ECDSA
// P-256, and a [crypto.MessageSigner] is given whole messages.
type Signer struct {
	Name string
	crypto.Signer
}

// A Role says what a key may sign.
type Role string

// Roles. The role root is reserved. A key file says nothing of its key's role:
// whoever trusts the key says it.
const (
	// RoleExporter signs what leaves the outside; see [Seal] and [CoSign].
	RoleExporter Role = "exporter"
	// RoleApprover signs what may be carried, after a person has looked at
	// it; see [Approve].
	RoleApprover Role = "approver"
)

// A TrustedKey is a public key that the inside was given by hand.
type TrustedKey struct {
	Name   string
	Role   Role
	Public crypto.PublicKey
}

// Trust is what the inside trusts: good signatures of so many exporters and so
// many approvers are needed.
type Trust struct {
	Keys []TrustedKey
	// Exporters is how many different keys in the role exporter must have
	// signed; 0 for one.
	Exporters int
	// Approvals is how many different keys in the role approver must have
	// signed; 0 for none.
	Approvals int
}

// count counts the keys in a role.
func (t Trust) count(r Role) int {
	n := 0
	for _, k := range t.Keys {
		if k.Role == r {
			n++
		}
	}
	return n
}

// exporters is how many exporters must have signed.
func (t Trust) exporters() int { return max(1, t.Exporters) }

// CheckSigner says whether a key can sign bundles: its algorithm is supported,
// and a signature that it makes now verifies. It is asked before a long run,
// whose last step the signature is. What is signed on trial is of another
// payload type and can never stand for a bundle.
func CheckSigner(s Signer) error {
	_, err := sign(s, PAE(trialType, []byte("{}")))
	return err
}

// GenerateKey makes an Ed25519 key pair and returns both halves as PEM that
// carry the name.
func GenerateKey(name string) (private, public []byte, err error) {
	if err := checkWord("key name", name); err != nil {
		return nil, nil, err
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, fmt.Errorf("encode private key: %w", err)
	}
	if public, err = MarshalPublicKey(name, pub); err != nil {
		return nil, nil, err
	}
	return encodePEM(name, pemPrivate, der), public, nil
}

// ParsePrivateKey reads a PKCS#8 key in PEM, Ed25519 or ECDSA P-256. The name
// is empty when the file carries none.
func ParsePrivateKey(file []byte) (name string, key crypto.Signer, err error) {
	name, der, err := decodePEM(file, pemPrivate)
	if err != nil {
		return "", nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// The cause might quote key material.
		return "", nil, errors.New("private key: not PKCS#8")
	}
	priv, ok := parsed.(crypto.Signer)
	if !ok {
		return "", nil, fmt.Errorf("private key: %T is not supported, want %s", parsed, algorithms)
	}
	if _, err := spki(priv.Public()); err != nil {
		return "", nil, fmt.Errorf("private key: %w", err)
	}
	return name, priv, nil
}

// MarshalPublicKey writes a key as SPKI in PEM with its name.
func MarshalPublicKey(name string, pub crypto.PublicKey) ([]byte, error) {
	if err := checkWord("key name", name); err != nil {
		return nil, err
	}
	der, err := spki(pub)
	if err != nil {
		return nil, err
	}
	return encodePEM(name, pemPublic, der), nil
}

// ParsePublicKey reads what [MarshalPublicKey] wrote, or an SPKI PEM of
// another tool; the name is then empty.
func ParsePublicKey(file []byte) (name string, pub crypto.PublicKey, err error) {
	name, der, err := decodePEM(file, pemPublic)
	if err != nil {
		return "", nil, err
	}
	pub, err = x509.ParsePKIXPublicKey(der)
	if err != nil {
		return "", nil, fmt.Errorf("public key: %w", err)
	}
	again, err := spki(pub)
	if err != nil {
		return "", nil, err
	}
	if !bytes.Equal(der, again) {
		return "", nil, errors.New("public key: not in DER form")
	}
	return name, pub, nil
}

// KeyID is the hex SHA-256 of the key's SPKI, or "" for a key of an
// algorithm that is not supported.
func KeyID(pub crypto.PublicKey) string {
	der, err := spki(pub)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Fingerprint is the start of the key id as people compare it: "7b1c 90e2".
// Never decide by it.
func Fingerprint(pub crypto.PublicKey) string { return shortID(KeyID(pub)) }

func shortID(id string) string {
	if len(id) < 8 {
		return ""
	}
	return id[:4] + " " + id[4:8]
}

// algorithms are those of the keys that are supported, for error texts.
const algorithms = "Ed25519 or ECDSA P-256"

// spki encodes a key of a supported algorithm, and no other: what has a key id
// can be verified with.
func spki(pub crypto.PublicKey) ([]byte, error) {
	switch key := pub.(type) {
	case ed25519.PublicKey:
		if len(key) == ed25519.PublicKeySize {
			return x509.MarshalPKIXPublicKey(key)
		}
	case *ecdsa.PublicKey:
		if key != nil && key.Curve == elliptic.P256() {
			return x509.MarshalPKIXPublicKey(key)
		}
	}
	return nil, fmt.Errorf("public key: %s is not supported, want %s", algorithm(pub), algorithms)
}

// algorithm names what a key is, for error texts.
func algorithm(pub crypto.PublicKey) string {
	if key, ok := pub.(*ecdsa.PublicKey); ok && key != nil && key.Curve != nil {
		return "ECDSA " + key.Params().Name
	}
	return fmt.Sprintf("%T", pub)
}

// sign signs msg as the algorithm of the signer's own key wants it. The
// signature is verified before it is used, so that a faulty token cannot
// produce a bundle that nobody accepts.
func sign(s Signer, msg []byte) ([]byte, error) {
	if s.Signer == nil {
		return nil, errors.New("no signing key")
	}
	pub := s.Public()
	if _, err := spki(pub); err != nil {
		return nil, fmt.Errorf("signing key %s: %w", s.Name, err)
	}
	random, opts := rand.Reader, crypto.Hash(0)
	if _, ok := pub.(*ecdsa.PublicKey); ok {
		opts = crypto.SHA256
	}
	if _, ok := s.Signer.(*ecdsa.PrivateKey); ok {
		// RFC 6979: the same key and bytes give the same signature. A token
		// draws its own random numbers.
		random = nil
	}
	// A signer that hashes for itself, such as an ssh-agent, gets msg.
	sig, err := crypto.SignMessage(s.Signer, random, msg, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.Name, err)
	}
	if !verifies(pub, msg, sig) {
		return nil, fmt.Errorf("sign with %s: the signature does not verify", s.Name)
	}
	return sig, nil
}

// verifies reports whether sig is the key's signature of msg: Ed25519 over msg
// itself (64 bytes), ECDSA P-256 over its SHA-256 (ASN.1 DER).
func verifies(pub crypto.PublicKey, msg, sig []byte) bool {
	switch key := pub.(type) {
	case ed25519.PublicKey:
		return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, msg, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(key, sum[:], sig)
	}
	return false
}

func encodePEM(name, kind string, der []byte) []byte {
	return append([]byte(namePrefix+name+"\n"), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
}

// decodePEM wants comment lines, one block of that kind, and nothing after.
func decodePEM(file []byte, kind string) (name string, der []byte, err error) {
	if len(file) > maxKeyFile {
		return "", nil, fmt.Errorf("key file: %d bytes, at most %d are read", len(file), maxKeyFile)
	}
	block, rest := pem.Decode(file)
	switch {
	case block == nil:
		return "", nil, fmt.Errorf("key file: want one PEM block %q, got none", kind)
	case block.Type == "EC "+kind:
		return "", nil, fmt.Errorf("key file: %q is SEC 1, convert it to PKCS#8", block.Type)
	case block.Type != kind || len(block.Headers) != 0:
		return "", nil, fmt.Errorf("key file: want one PEM block %q without headers, got %q", kind, clip(block.Type))
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return "", nil, errors.New("key file: something follows the PEM block")
	}
	head, _, _ := bytes.Cut(file, []byte("-----BEGIN"))
	for line := range strings.Lines(string(head)) {
		line = strings.TrimRight(line, "\r\n")
		switch value, isName := strings.CutPrefix(line, namePrefix); {
		case isName && name == "":
			if err := checkWord("key name", value); err != nil {
				return "", nil, fmt.Errorf("key file: %w", err)
			}
			name = value
		case isName:
			return "", nil, errors.New("key file: two names")
		case line != "" && !strings.HasPrefix(line, "#"):
			return "", nil, errors.New("key file: text before the PEM block that is not a comment")
		}
	}
	return name, block.Bytes, nil
}

// index checks the trusted keys and returns them by key id.
func (t Trust) index() (map[string]TrustedKey, error) {
	refuse := func(k TrustedKey, reason string) error {
		return refusal(CodeKey, "trusted key "+clip(k.Name), reason, nil)
	}
	if len(t.Keys) == 0 {
		return nil, refusal(CodeKey, "trusted keys", "there are none", nil)
	}
	byID := make(map[string]TrustedKey, len(t.Keys))
	for _, k := range t.Keys {
		id := KeyID(k.Public)
		if id == "" {
			return nil, refuse(k, algorithm(k.Public)+" is not supported, want "+algorithms)
		}
		if other, dup := byID[id]; dup && other.Role != k.Role {
			return nil, refuse(k, fmt.Sprintf("the same key has two roles, %s and %s", other.Role, k.Role))
		} else if dup {
			return nil, refuse(k, "the same key is also named "+clip(other.Name))
		}
		byID[id] = k
	}
	for _, k := range t.Keys {
		if k.Role != RoleExporter && k.Role != RoleApprover {
			return nil, refuse(k, fmt.Sprintf("role %q is not supported", clip(string(k.Role))))
		}
	}
	// A threshold out of reach could never be met.
	switch exporters, approvers := t.count(RoleExporter), t.count(RoleApprover); {
	case exporters == 0:
		return nil, refusal(CodeKey, "trusted keys", "none of them is an exporter's", nil)
	case t.Exporters < 0 || t.Exporters > exporters:
		return nil, refusal(CodeKey, "trusted keys", fmt.Sprintf("%d exporters' signatures are asked for and %d exporters' keys are trusted", t.Exporters, exporters), nil)
	case t.Approvals < 0 || t.Approvals > approvers:
		return nil, refusal(CodeKey, "trusted keys", fmt.Sprintf("%d approvals are asked for and %d approvers' keys are trusted", t.Approvals, approvers), nil)
	}
	return byID, nil
}
