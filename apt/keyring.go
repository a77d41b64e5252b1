package apt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	// maxKeyring bounds a keyring file. Debian's has 60 KB.
	maxKeyring = 4 << 20
	// maxSignatures bounds the signatures of one Release. Debian has three.
	maxSignatures = 16
	// maxSignatureFile bounds Release.gpg.
	maxSignatureFile = 256 << 10
)

// A keyring is the keys pinned for one archive.
type keyring struct {
	keys openpgp.EntityList
	// expiredLater accepts a key that has expired since it signed. Inside, a
	// bundle may arrive late; that the Release was timely was settled outside,
	// and a replay is caught by its Date. Revoked keys are refused all the same.
	expiredLater bool
}

// loadKeyring reads files of public keys, armored or binary.
func loadKeyring(files []string) (*keyring, error) {
	k := &keyring{}
	for _, name := range files {
		b, err := readLimited(name, maxKeyring)
		if err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
		keys, err := parseKeys(b)
		if err != nil {
			return nil, fmt.Errorf("keyring %s: %w", name, err)
		}
		k.keys = append(k.keys, keys...)
	}
	if len(k.keys) == 0 {
		return nil, errors.New("keyring: no key")
	}
	return k, nil
}

// readLimited reads a whole small file.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name) // #nosec G304 -- named by the configuration, or made by us
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: over %d bytes", name, limit)
	}
	return b, nil
}

// parseKeys reads public keys: binary packets, or armored blocks of which
// there may be several.
func parseKeys(b []byte) (openpgp.EntityList, error) {
	const begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
	if !bytes.Contains(b, []byte(begin)) {
		return openpgp.ReadKeyRing(bytes.NewReader(b))
	}
	var all openpgp.EntityList
	for {
		i := bytes.Index(b, []byte(begin))
		if i < 0 {
			return all, nil
		}
		b = b[i:]
		n := bytes.Index(b, []byte(end))
		if n < 0 {
			return nil, errors.New("a key block has no end")
		}
		keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(b[:n+len(end)]))
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
		b = b[n+len(end):]
	}
}

// fingerprints lists the primary keys and their signing subkeys.
func (k *keyring) fingerprints() []string {
	var all []string
	for _, e := range k.keys {
		all = append(all, fmt.Sprintf("%X", e.PrimaryKey.Fingerprint))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A verification is the outcome of looking at every signature of a document.
type verification struct {
	text    []byte   // what is signed
	signers []string // fingerprints (or key ids) of all signatures, as claimed
	good    []string // fingerprints of the keys whose signature is good
	reasons []string // why the others are not
}

// verifyInline checks an InRelease. Nothing but blanks may stand outside the
// signed block, and only text inside it is returned.
func (k *keyring) verifyInline(doc []byte, now time.Time) (*verification, error) {
	const begin = "-----BEGIN PGP SIGNED MESSAGE-----"
	if !bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte(begin)) {
		return nil, errors.New("does not begin with a signed message")
	}
	block, rest := clearsign.Decode(bytes.TrimLeft(doc, " \t\r\n"))
	if block == nil {
		return nil, errors.New("not a complete signed message")
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("unsigned text after the signed message")
	}
	sigs, err := io.ReadAll(io.LimitReader(block.ArmoredSignature.Body, maxSignatureFile))
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	v, err := k.verify(block.Bytes, sigs, now)
	if err != nil {
		return nil, err
	}
	v.text = block.Plaintext
	return v, nil
}

// verifyDetached checks a Release against its Release.gpg, which holds
// signatures only, armored or binary.
func (k *keyring) verifyDetached(text, sig []byte, now time.Time) (*verification, error) {
	packets, err := dearmorSignatures(sig)
	if err != nil {
		return nil, err
	}
	v, err := k.verify(text, packets, now)
	if err != nil {
		return nil, err
	}
	v.text = text
	return v, nil
}

// dearmorSignatures returns binary packets. Text around or between armored
// blocks is refused: it is no signature, and it was once a way in.
func dearmorSignatures(sig []byte) ([]byte, error) {
	const begin, end = "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"
	rest := bytes.TrimSpace(sig)
	if !bytes.HasPrefix(rest, []byte("-----")) {
		return sig, nil
	}
	var packets []byte
	for len(rest) > 0 {
		n := bytes.Index(rest, []byte(end))
		if !bytes.HasPrefix(rest, []byte(begin)) || n < 0 {
			return nil, errors.New("text beside the signatures")
		}
		block, err := armor.Decode(bytes.NewReader(rest[:n+len(end)]))
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		for key := range block.Header {
			if key != "Version" && key != "Comment" && key != "Hash" {
				return nil, fmt.Errorf("armor header %q", clip(key))
			}
		}
		b, err := io.ReadAll(block.Body)
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		packets = append(packets, b...)
		rest = bytes.TrimSpace(rest[n+len(end):])
	}
	return packets, nil
}

// verify looks at every signature packet. Anything else among them is an
// error; an unknown co-signer is not.
func (k *keyring) verify(message, packets []byte, now time.Time) (*verification, error) {
	v := &verification{}
	cfg := &packet.Config{Time: func() time.Time { return now }}
	r := packet.NewOpaqueReader(bytes.NewReader(packets))
	for n := 0; ; n++ {
		op, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("signature packets: %w", err)
		}
		if n == maxSignatures {
			return nil, fmt.Errorf("more than %d signatures", maxSignatures)
		}
		const tagSignature = 2
		if op.Tag != tagSignature {
			return nil, fmt.Errorf("packet with tag %d among the signatures", op.Tag)
		}
		signer, key, err := k.verifyOne(message, op, cfg)
		v.signers = append(v.signers, signer)
		if err != nil {
			v.reasons = append(v.reasons, signer+": "+err.Error())
			continue
		}
		v.good = append(v.good, key)
	}
	return v, nil
}

// verifyOne checks one signature. go-crypto itself refuses MD5, SHA-1 and
// RIPEMD-160, revoked and expired keys and critical unknown notations.
func (k *keyring) verifyOne(message []byte, op *packet.OpaquePacket, cfg *packet.Config) (signer, key string, err error) {
	signer = "unknown"
	p, err := op.Parse()
	if err != nil {
		return signer, "", err
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return signer, "", errors.New("not a signature")
	}
	switch {
	case sig.IssuerFingerprint != nil:
		signer = fmt.Sprintf("%X", sig.IssuerFingerprint)
	case sig.IssuerKeyId != nil:
		signer = fmt.Sprintf("%016X", *sig.IssuerKeyId)
	}
	if !strongHash(sig) {
		return signer, "", fmt.Errorf("signed with %v, which no longer counts", sig.Hash)
	}
	var one bytes.Buffer
	if err := op.Serialize(&one); err != nil {
		return signer, "", err
	}
	raw := one.Bytes()
	_, entity, err := openpgp.VerifyDetachedSignature(k.keys, bytes.NewReader(message), bytes.NewReader(raw), cfg)
	if k.expiredLater && errors.Is(err, pgperrors.ErrKeyExpired) && sig.CreationTime.Before(cfg.Now()) {
		then := &packet.Config{Time: func() time.Time { return sig.CreationTime }}
		_, entity, err = openpgp.VerifyDetachedSignature(k.keys, bytes.NewReader(message), bytes.NewReader(raw), then)
	}
	if err != nil {
		return signer, "", err
	}
	return signer, fmt.Sprintf("%X", entity.PrimaryKey.Fingerprint), nil
}

// strongHash names what counts, so that a change of the library's defaults
// cannot weaken it.
func strongHash(sig *packet.Signature) bool {
	switch sig.Hash.String() {
	case "SHA-256", "SHA-384", "SHA-512", "SHA3-256", "SHA3-512":
		return true
	}
	return false
}

// accepted turns a verification without a good signature into a refusal that
// shows which keys signed and which are trusted.
func (k *keyring) accepted(subject string, v *verification, err error) error {
	if err == nil && len(v.good) > 0 {
		return nil
	}
	ref := integrity(codeSignature, subject, "no good signature by a key pinned for this archive")
	ref.Want = strings.Join(k.fingerprints(), " or ")
	if err != nil {
		ref.Reason = "signature cannot be used"
		ref.Err = err
		return ref
	}
	ref.Got = cmp.Or(strings.Join(v.signers, ", "), "no signature")
	if len(v.reasons) > 0 {
		ref.Err = errors.New(strings.Join(v.reasons, "; "))
	}
	return ref
}

// acceptedRelease parses an InRelease or Release that was verified when it was
// accepted.
func acceptedRelease(doc []byte) (*Release, error) {
	if block, _ := clearsign.Decode(bytes.TrimLeft(doc, " \t\r\n")); block != nil {
		doc = block.Plaintext
	}
	return parseRelease(doc)
}
