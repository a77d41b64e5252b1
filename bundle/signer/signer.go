// Package signer opens the keys that sign bundles where they live: in a file,
// in an ssh-agent, in a PKCS#11 token.
//
// Specifications: the ssh-agent protocol (draft-ietf-sshm-ssh-agent) with
// RFC 8709 and RFC 5656 signatures; PKCS#11 3.0 with URIs of RFC 7512.
//
// Invariants: a private key that is not in a file never enters the process; no
// PIN comes from a URI or the environment; the bytes that are signed are those
// that docs/bundle-format.md says, so that no reader can tell where the key
// lives.
//
// Limits: Ed25519 and ECDSA P-256 keys. An ssh-agent takes the whole message,
// OpenSSH's at most 256 KiB of it. PKCS#11 needs cgo and the build tag pkcs11.
package signer

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"

	"github.com/darkmirror/darkmirror/bundle"
)

const (
	agentPrefix  = "agent:"
	pkcs11Prefix = "pkcs11:"
	// maxKeyFile is one more than what a key file may have, so that a larger
	// one is refused by its reader.
	maxKeyFile = 16<<10 + 1
	// maxText bounds outside text in an error message.
	maxText = 80
	// maxListed bounds how many keys an error message lists.
	maxListed = 16
)

// Open opens the key that spec names:
//
//   - a file with a PKCS#8 key in PEM;
//   - "agent:" and an OpenSSH fingerprint (SHA256:...), the first 16 or more
//     hex digits of the key id, or the key's comment: a key of the ssh-agent
//     at SSH_AUTH_SOCK;
//   - a "pkcs11:" URI with module-path, token, object or id, and pin-source.
//
// The signer works until ctx ends or the function is called, which is never
// nil without an error.
func Open(ctx context.Context, spec string) (bundle.Signer, func() error, error) {
	var (
		s   bundle.Signer
		err error
		end = func() error { return nil }
	)
	switch {
	case strings.HasPrefix(spec, agentPrefix):
		s, err = openAgent(ctx, os.Getenv("SSH_AUTH_SOCK"), strings.TrimPrefix(spec, agentPrefix))
	case strings.HasPrefix(spec, pkcs11Prefix):
		var u *uri
		if u, err = parseURI(spec); err == nil {
			s, end, err = openToken(ctx, u)
		}
	default:
		s, err = openFile(spec)
	}
	if err != nil {
		return bundle.Signer{}, nil, err
	}
	return s, end, nil
}

func openFile(name string) (_ bundle.Signer, err error) {
	f, err := os.Open(name)
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("signing key: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("signing key: %w", err)
	}
	label, key, err := bundle.ParsePrivateKey(data)
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("signing key %s: %w", name, err)
	}
	return bundle.Signer{Name: nameOf(label, bundle.KeyID(key.Public())), Signer: key}, nil
}

// nameOf is the label that came with a key where it can be a key's name, and
// else one made of the key's id.
func nameOf(label, id string) string {
	// Names of keys and of streams follow the same rule.
	if bundle.CheckStream(label) == nil {
		return label
	}
	return "key-" + id[:8]
}

// marshalECDSA encodes a signature as the bundle format wants it.
func marshalECDSA(r, s *big.Int) ([]byte, error) {
	if r == nil || s == nil || r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 256 || s.BitLen() > 256 {
		return nil, errors.New("ECDSA signature: r and s are not two positive numbers of at most 256 bits")
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// clip shortens outside text for an error message.
func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "..."
	}
	return s
}

// list joins what was there for an error message.
func list(have []string) string {
	switch n := len(have); {
	case n == 0:
		return "none"
	case n > maxListed:
		return strings.Join(have[:maxListed], "; ") + fmt.Sprintf("; and %d more", n-maxListed)
	}
	return strings.Join(have, "; ")
}
