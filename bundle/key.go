package bundle

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// maxKeyFile bounds a key file; an Ed25519 key has about 200 bytes.
const maxKeyFile = 16 << 10

const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
	// namePrefix starts the comment line that names a key. A PEM header
	// would make other tools refuse the file; text before the block is
	// skipped by all of them.
	namePrefix = "# name: "
)

// A Signer signs bundles. Its name is for people.
type Signer struct {
	Name string
	crypto.Signer
}

// A Role says what a key may sign.
type Role string

// Roles. The role root is reserved. A key file says nothing of its key's role:
// whoever trusts the key says it.
const (
	// RoleExporter signs what leaves the outside.
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

// Trust is what the inside trusts. One good signature of a key in the role
// exporter is needed, and those of so many approvers.
type Trust struct {
	Keys []TrustedKey
	// Approvals is how many different keys in the role approver must have
	// signed; 0 for none.
	Approvals int
}

// approvers counts the keys in the role approver.
func (t Trust) approvers() int {
	n := 0
	for _, k := range t.Keys {
		if k.Role == RoleApprover {
			n++
		}
	}
	return n
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

// ParsePrivateKey reads a PKCS#8 Ed25519 key in PEM. The name is empty when
// the file carries none.
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
	priv, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return "", nil, fmt.Errorf("private key: %T is not supported, want Ed25519", parsed)
	}
	return name, priv, nil
}

// MarshalPublicKey writes an Ed25519 key as SPKI in PEM with its name.
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

func spki(pub crypto.PublicKey) ([]byte, error) {
	key, ok := pub.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key: %T is not supported, want Ed25519", pub)
	}
	return x509.MarshalPKIXPublicKey(key)
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
	if block == nil || block.Type != kind || len(block.Headers) != 0 {
		return "", nil, fmt.Errorf("key file: want one PEM block %q", kind)
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
			return nil, refuse(k, fmt.Sprintf("%T is not supported, want Ed25519", k.Public))
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
	switch n := t.approvers(); {
	case n == len(t.Keys):
		return nil, refusal(CodeKey, "trusted keys", "none of them is an exporter's", nil)
	case t.Approvals < 0 || t.Approvals > n:
		// It could never be reached.
		return nil, refusal(CodeKey, "trusted keys", fmt.Sprintf("%d approvals are asked for and %d approvers' keys are trusted", t.Approvals, n), nil)
	}
	return byID, nil
}
