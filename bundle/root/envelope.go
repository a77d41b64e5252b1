package root

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// anyRoot is the subject of refusals of a file that cannot be read.
const anyRoot = "root file"

type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// A file is an envelope that was taken apart; no signature was looked at.
type file struct {
	env     envelope
	payload []byte
	root    *Root
	data    []byte
}

// open takes an envelope apart and reads its payload.
func open(data []byte) (*file, error) {
	f, err := openEnvelope(data)
	if err != nil {
		return nil, err
	}
	return f, f.parse()
}

func openEnvelope(data []byte) (*file, error) {
	f := &file{data: slices.Clone(data)}
	if err := f.open(); err != nil {
		return nil, refusal(anyRoot, "not a root file", err)
	}
	return f, nil
}

func (f *file) open() error {
	if len(f.data) > maxFile {
		return fmt.Errorf("%d bytes, at most %d are read", len(f.data), maxFile)
	}
	if err := strictjson.Unmarshal(f.data, &f.env); err != nil {
		return err
	}
	if f.env.PayloadType != PayloadType {
		return fmt.Errorf("payloadType %q, want %q", clip(f.env.PayloadType), PayloadType)
	}
	if n := len(f.env.Signatures); n == 0 || n > maxSignatures {
		return fmt.Errorf("%d signatures, want 1 to %d", n, maxSignatures)
	}
	seen := make(map[string]bool, len(f.env.Signatures))
	for _, s := range f.env.Signatures {
		if _, err := artifact.ParseHex(s.KeyID); err != nil {
			return fmt.Errorf("keyid %q, want 64 lower-case hex digits", clip(s.KeyID))
		}
		if seen[s.KeyID] {
			return fmt.Errorf("the same key signed twice: %s", s.KeyID)
		}
		seen[s.KeyID] = true
	}
	var err error
	if f.payload, err = decodeBase64(f.env.Payload); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return nil
}

func (f *file) parse() error {
	var r Root
	err := strictjson.Unmarshal(f.payload, &r)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return refusal(anyRoot, "not a root file", err)
	}
	r.digest = artifact.Sum(f.payload)
	f.root = &r
	return nil
}

// Parse reads a root file for showing. Nothing of it is verified.
func Parse(data []byte) (*Root, error) {
	f, err := open(data)
	if err != nil {
		return nil, err
	}
	return f.root, nil
}

// Sign makes a root file. It refuses what would not verify as a payload, and
// does not look at how many sign: others may follow by [AddSignature].
func Sign(r *Root, signers ...bundle.Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, errors.New("sign root file: no signing key")
	}
	payload, err := r.payload()
	if err != nil {
		return nil, err
	}
	f := &file{env: envelope{PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload)}, payload: payload}
	if err := f.parse(); err != nil {
		return nil, err
	}
	for _, s := range signers {
		if s.Signer != nil && f.signature(bundle.KeyID(s.Public())) >= 0 {
			return nil, fmt.Errorf("sign root file: key %s is there twice", clip(s.Name))
		}
		if err := f.add(s); err != nil {
			return nil, err
		}
	}
	return f.encode()
}

// AddSignature adds a signature to a root file: another holder of a root key
// signs the same payload, elsewhere, later. Signing again with the same key
// changes nothing. The key may be one of the version before, which is not at
// hand here; one that the file lists in another role is refused.
func AddSignature(data []byte, s bundle.Signer) ([]byte, error) {
	f, err := open(data)
	if err != nil {
		return nil, err
	}
	if s.Signer == nil {
		return nil, errors.New("sign root file: no signing key")
	}
	if i := f.signature(bundle.KeyID(s.Public())); i >= 0 {
		// A forged one under the signer's id is not taken for its own.
		if err := f.verify(f.env.Signatures[i], Key{ID: bundle.KeyID(s.Public()), Name: s.Name}, s.Public()); err != nil {
			return nil, err
		}
		return f.data, nil
	}
	if err := f.add(s); err != nil {
		return nil, err
	}
	return f.encode()
}

// signature gives the index of a key's signature, or -1.
func (f *file) signature(id string) int {
	return slices.IndexFunc(f.env.Signatures, func(s signature) bool { return s.KeyID == id })
}

// add signs the payload, keeping the order by key.
func (f *file) add(s bundle.Signer) error {
	if s.Signer == nil {
		return errors.New("sign root file: no signing key")
	}
	id := bundle.KeyID(s.Public())
	if role := f.root.roleOf(id); role != "" && role != RoleRoot {
		return fmt.Errorf("sign root file: key %s has the role %s, and root files are signed by root keys", clip(s.Name), role)
	}
	if len(f.env.Signatures) == maxSignatures {
		return fmt.Errorf("sign root file: it has %d signatures already, the most that a reader accepts", maxSignatures)
	}
	sig, err := sign(s, bundle.PAE(PayloadType, f.payload))
	if err != nil {
		return err
	}
	f.env.Signatures = append(f.env.Signatures, signature{KeyID: id, Sig: base64.StdEncoding.EncodeToString(sig)})
	slices.SortFunc(f.env.Signatures, func(a, b signature) int { return strings.Compare(a.KeyID, b.KeyID) })
	return nil
}

// encode writes the envelope; what a reader would refuse is not written.
func (f *file) encode() ([]byte, error) {
	data, err := json.Marshal(&f.env)
	if err != nil {
		return nil, fmt.Errorf("encode root file: %w", err)
	}
	if _, err := open(data); err != nil {
		return nil, err
	}
	return data, nil
}

// checkThreshold wants good signatures of the root role of r, which is the
// file's own statement or the one before.
func (f *file) checkThreshold(r *Root) error {
	var have []string
	for _, s := range f.env.Signatures {
		if !slices.Contains(r.Roles.Root.Keys, s.KeyID) {
			continue
		}
		k := r.Keys[r.key(s.KeyID)]
		public, err := k.parse()
		if err != nil {
			return refusal(f.root.String(), "a root key cannot be used", err)
		}
		if err := f.verify(s, k, public); err != nil {
			return err
		}
		// open has refused a key that signed twice.
		have = append(have, k.String())
	}
	if len(have) >= r.Roles.Root.Threshold {
		return nil
	}
	no := refusal(f.root.String(), fmt.Sprintf("too few signatures of the root keys of version %d: have their holders sign it", r.Version), nil)
	no.Want = fmt.Sprintf("%d of %d", r.Roles.Root.Threshold, len(r.Roles.Root.Keys))
	no.Got = strconv.Itoa(len(have))
	if len(have) > 0 {
		no.Got += ": " + strings.Join(have, ", ")
	}
	return no
}

// verify checks one signature.
func (f *file) verify(s signature, k Key, public crypto.PublicKey) error {
	sig, err := decodeBase64(s.Sig)
	if err == nil && !verifies(public, bundle.PAE(f.env.PayloadType, f.payload), sig) {
		err = errors.New("altered, or signed by something else")
	}
	if err != nil {
		return refusal(f.root.String(), "the signature of "+k.String()+" does not fit", err)
	}
	return nil
}

// sign signs msg as the algorithm of the signer's own key wants it. The
// signature is verified before it is used: a ceremony is not repeated for a
// faulty token.
func sign(s bundle.Signer, msg []byte) ([]byte, error) {
	public := s.Public()
	if bundle.KeyID(public) == "" {
		return nil, fmt.Errorf("signing key %s: %T is not supported, want Ed25519 or ECDSA P-256", clip(s.Name), public)
	}
	random, opts := rand.Reader, crypto.Hash(0)
	if _, ok := public.(*ecdsa.PublicKey); ok {
		opts = crypto.SHA256
	}
	if _, ok := s.Signer.(*ecdsa.PrivateKey); ok {
		// RFC 6979: the same key and bytes give the same signature.
		random = nil
	}
	sig, err := crypto.SignMessage(s.Signer, random, msg, opts)
	if err != nil {
		return nil, fmt.Errorf("sign root file with %s: %w", clip(s.Name), err)
	}
	if !verifies(public, msg, sig) {
		return nil, fmt.Errorf("sign root file with %s: the signature does not verify", clip(s.Name))
	}
	return sig, nil
}

// verifies reports whether sig is the key's signature of msg: Ed25519 over msg
// itself, ECDSA P-256 over its SHA-256.
func verifies(public crypto.PublicKey, msg, sig []byte) bool {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, msg, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(key, sum[:], sig)
	}
	return false
}
