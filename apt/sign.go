package apt

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// keyBackdate sets a new key's birth back, so that a Release dated a little in
// the past is not older than the key that signs it.
const keyBackdate = 24 * time.Hour

// A signer holds the key that signs inside.
type signer struct {
	key *openpgp.Entity
}

// loadSigner reads an armored private key. If there is none and mayCreate is
// set, it makes one: Ed25519 in version 4 packets, which every gpgv in use can
// read, without a passphrase, readable by its owner alone.
func loadSigner(file, who string, mayCreate bool, now time.Time) (*signer, error) {
	b, err := readLimited(file, maxKeyring)
	if errors.Is(err, fs.ErrNotExist) && mayCreate {
		if b, err = newKey(who, now); err != nil {
			return nil, err
		}
		failpoint.Here("apt.key-made")
		if err := durable.WriteFile(file, b, 0o600); err != nil {
			return nil, err
		}
		failpoint.Here("apt.key-written")
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", file, err)
	}
	if len(keys) != 1 || keys[0].PrivateKey == nil || keys[0].PrivateKey.Encrypted {
		return nil, fmt.Errorf("signing key %s: want one private key without a passphrase", file)
	}
	s := &signer{keys[0]}
	if _, err := s.signing(now); err != nil {
		return nil, fmt.Errorf("signing key %s: %w", file, err)
	}
	return s, nil
}

func newKey(who string, now time.Time) ([]byte, error) {
	born := now.Add(-keyBackdate)
	key, err := openpgp.NewEntity("darkmirror "+who+" archive signing key", "", "", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return born },
	})
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	key.Subkeys = nil // there is nothing to encrypt
	var out bytes.Buffer
	err = armored(&out, openpgp.PrivateKeyType, func(w io.Writer) error {
		return key.SerializePrivateWithoutSigning(w, nil)
	})
	return out.Bytes(), err
}

func armored(w io.Writer, kind string, fill func(io.Writer) error) error {
	a, err := armor.Encode(w, kind, nil)
	if err != nil {
		return err
	}
	if err := fill(a); err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n")
	return err
}

// born is before anything that the key may sign.
func (s *signer) born() time.Time { return s.key.PrimaryKey.CreationTime }

func (s *signer) signing(now time.Time) (*packet.PrivateKey, error) {
	k, ok := s.key.SigningKey(now)
	if !ok || k.PrivateKey == nil {
		return nil, errors.New("cannot sign now: expired, revoked or not meant for it")
	}
	return k.PrivateKey, nil
}

func signConfig(at time.Time) *packet.Config {
	return &packet.Config{DefaultHash: crypto.SHA512, Time: func() time.Time { return at }}
}

// inline returns the text as an InRelease.
func (s *signer) inline(text []byte, at time.Time) ([]byte, error) {
	k, err := s.signing(at)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, k, signConfig(at))
	if err != nil {
		return nil, err
	}
	// The line end before the signature is not part of the text.
	if _, err := w.Write(bytes.TrimSuffix(text, []byte("\n"))); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// detached returns an armored signature: a Release.gpg.
func (s *signer) detached(text []byte, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&out, s.key, bytes.NewReader(text), signConfig(at)); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// verifies reports whether documents on disk are this key's signatures of text.
func (s *signer) verifies(text, inline, release, detached []byte, now time.Time) bool {
	k := &keyring{keys: openpgp.EntityList{s.key}, expiredLater: true}
	v, err := k.verifyInline(inline, now)
	if err != nil || len(v.good) == 0 || !bytes.Equal(append(v.text, '\n'), text) || !bytes.Equal(release, text) {
		return false
	}
	v, err = k.verifyDetached(text, detached, now)
	return err == nil && len(v.good) > 0
}

// publicFiles are the keyrings for clients, binary and armored.
func (s *signer) publicFiles() (binary, text []byte, err error) {
	var b, a bytes.Buffer
	if err := s.key.Serialize(&b); err != nil {
		return nil, nil, err
	}
	if err := armored(&a, openpgp.PublicKeyType, s.key.Serialize); err != nil {
		return nil, nil, err
	}
	return b.Bytes(), a.Bytes(), nil
}

// writeIfChanged leaves a file alone that is right already, so that its times
// and every cache stay valid.
func writeIfChanged(name string, b []byte, perm os.FileMode) error {
	old, err := readLimited(name, int64(len(b))+1)
	if err == nil && bytes.Equal(old, b) {
		return nil
	}
	return durable.WriteFile(name, b, perm)
}
