package signer

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/darkmirror/darkmirror/bundle"
)

const (
	// minIDPrefix is how many hex digits of a key id name a key: two keys do
	// not share 64 bits by accident.
	minIDPrefix = 16
	idDigits    = 64
	// maxOpenSSHMessage is the longest request that OpenSSH's agent reads; it
	// hangs up on a longer one without a word.
	maxOpenSSHMessage = 256 << 10
)

// An agentKey is a key of an agent. Its pub is nil, and why says the reason,
// where it cannot sign bundles.
type agentKey struct {
	ssh     ssh.PublicKey
	comment string
	pub     crypto.PublicKey
	id      string
	why     string
}

// String describes the key for an error message.
func (k *agentKey) String() string {
	s := fmt.Sprintf("%s %s %q", clip(k.ssh.Type()), ssh.FingerprintSHA256(k.ssh), clip(k.comment))
	if k.id != "" {
		s += " key id " + k.id[:minIDPrefix]
	}
	return s
}

// asker opens a connection to an agent, uses it and closes it. A run may last
// hours, and the agent be started again meanwhile.
type asker func(use func(agent.Agent) error) error

// askAt makes an asker that gives up when ctx ends: an agent may wait for a
// person to confirm.
func askAt(ctx context.Context, socket string) asker {
	return func(use func(agent.Agent) error) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		// Hidden behind an io.ReadWriter, the client starts no goroutine.
		err = use(agent.NewClient(struct{ io.ReadWriter }{conn}))
		if !stop() {
			return errors.Join(context.Cause(ctx), err)
		}
		return errors.Join(err, conn.Close())
	}
}

// openAgent finds a key in the agent that listens on the socket.
func openAgent(ctx context.Context, socket, selector string) (bundle.Signer, error) {
	switch {
	case selector == "":
		return bundle.Signer{}, errors.New("ssh-agent: no key is named: want agent:SHA256:... (fingerprint), agent:<16 or more hex digits of the key id> or agent:<comment>")
	case socket == "":
		return bundle.Signer{}, errors.New("ssh-agent: SSH_AUTH_SOCK is not set, so there is no agent to ask")
	}
	ask := askAt(ctx, socket)
	var found []*agent.Key
	if err := ask(func(c agent.Agent) (err error) {
		found, err = c.List()
		return err
	}); err != nil {
		return bundle.Signer{}, fmt.Errorf("ssh-agent at %s: list keys: %w", socket, err)
	}
	k, err := selectKey(parseKeys(found), selector)
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("ssh-agent at %s: %w", socket, err)
	}
	return bundle.Signer{Name: nameOf(k.comment, k.id), Signer: &agentSigner{ask: ask, key: k}}, nil
}

// parseKeys leaves out what is no key at all.
func parseKeys(found []*agent.Key) []*agentKey {
	var keys []*agentKey
	for _, f := range found {
		pub, err := ssh.ParsePublicKey(f.Blob)
		if err != nil {
			continue
		}
		k := &agentKey{ssh: pub, comment: f.Comment}
		keys = append(keys, k)
		switch typ := pub.Type(); typ {
		case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256:
			plain, ok := pub.(ssh.CryptoPublicKey)
			if !ok {
				k.why = fmt.Sprintf("a key of type %s cannot be read", typ)
				continue
			}
			k.pub, k.id = plain.CryptoPublicKey(), bundle.KeyID(plain.CryptoPublicKey())
		case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
			k.why = fmt.Sprintf("a key of type %s signs other bytes (flags and a counter beside a hash of the message), which readers of bundles do not accept", typ)
		default:
			k.why = fmt.Sprintf("a key of type %s is not supported, want %s or %s", clip(typ), ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256)
		}
	}
	return keys
}

// selectKey finds the one key that the selector names.
func selectKey(keys []*agentKey, selector string) (*agentKey, error) {
	var hits []*agentKey
	var refused *agentKey
	var have []string
	seen := make(map[string]bool)
	for _, k := range keys {
		have = append(have, k.String())
		switch {
		case !k.named(selector):
		case k.id == "":
			refused = k
		case !seen[k.id]:
			// A forwarded agent may list a key twice.
			seen[k.id] = true
			hits = append(hits, k)
		}
	}
	switch {
	case len(hits) == 1:
		return hits[0], nil
	case len(hits) > 1:
		var names []string
		for _, k := range hits {
			names = append(names, k.String())
		}
		return nil, fmt.Errorf("%q names %d keys, name one by its fingerprint: %s", clip(selector), len(hits), list(names))
	case refused != nil:
		// A certificate and its key share a comment; it counts where there
		// is nothing else.
		return nil, fmt.Errorf("key %q: %s", clip(selector), refused.why)
	}
	return nil, fmt.Errorf("no key %q, the agent holds: %s", clip(selector), list(have))
}

// named reports whether the selector means this key.
func (k *agentKey) named(selector string) bool {
	if isHex(selector) && len(selector) >= minIDPrefix && len(selector) <= idDigits && strings.HasPrefix(k.id, selector) {
		return true
	}
	return selector == k.comment || selector == ssh.FingerprintSHA256(k.ssh)
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// agentSigner signs whole messages: an agent hashes for itself.
type agentSigner struct {
	ask asker
	key *agentKey
}

// Public returns the public key.
func (s *agentSigner) Public() crypto.PublicKey { return s.key.pub }

// Sign is for Ed25519, which takes the message as it is.
func (s *agentSigner) Sign(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 {
		return nil, errors.New("ssh-agent: it hashes the message itself and cannot sign a digest")
	}
	return s.SignMessage(rand, msg, opts)
}

// SignMessage has the agent sign msg and converts the signature to the form of
// the standard library.
func (s *agentSigner) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	want := crypto.Hash(0)
	if s.key.ssh.Type() == ssh.KeyAlgoECDSA256 {
		want = crypto.SHA256
	}
	if opts.HashFunc() != want {
		return nil, fmt.Errorf("ssh-agent: a key of type %s signs with %v, not with %v", s.key.ssh.Type(), want, opts.HashFunc())
	}
	var sig *ssh.Signature
	err := s.ask(func(c agent.Agent) (err error) {
		sig, err = c.Sign(s.key.ssh, msg)
		return err
	})
	if err != nil {
		err = fmt.Errorf("ssh-agent: sign with %s: %w", s.key, err)
		if len(msg)+len(s.key.ssh.Marshal())+64 > maxOpenSSHMessage {
			err = fmt.Errorf("%w (the message has %d bytes and OpenSSH's agent takes %d; a key in a file or an ECDSA key by PKCS#11 has no such limit)", err, len(msg), maxOpenSSHMessage)
		}
		return nil, err
	}
	return convert(s.key.ssh.Type(), sig)
}

// convert checks the form of an agent's signature; whether it verifies is the
// caller's to ask.
func convert(typ string, sig *ssh.Signature) ([]byte, error) {
	if sig.Format != typ || len(sig.Rest) != 0 {
		return nil, fmt.Errorf("ssh-agent: signature of type %q with %d further bytes, want %q and none", clip(sig.Format), len(sig.Rest), typ)
	}
	if typ == ssh.KeyAlgoED25519 {
		if len(sig.Blob) != ed25519.SignatureSize {
			return nil, fmt.Errorf("ssh-agent: signature of %d bytes, want %d", len(sig.Blob), ed25519.SignatureSize)
		}
		return sig.Blob, nil
	}
	var pair struct{ R, S *big.Int }
	if err := ssh.Unmarshal(sig.Blob, &pair); err != nil {
		return nil, fmt.Errorf("ssh-agent: ECDSA signature: %w", err)
	}
	der, err := marshalECDSA(pair.R, pair.S)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	return der, nil
}
