package translog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/darkmirror/darkmirror/bundle"
)

// originPrefix starts the name of a log. The rest is the start of the id of
// its key: a key signs one log.
const originPrefix = "darkmirror/log/"

// A key signs and verifies notes: [note.Signer] and [note.Verifier] over a
// bundle's key.
type key struct {
	name   string
	hash   uint32
	pub    crypto.PublicKey
	signer crypto.Signer // nil: verifies only
}

// newKey takes the two kinds of keys that bundles have: Ed25519 (C2SP
// signature type 0x01, whose key id is the hash of name, type and key) and
// ECDSA P-256 (type 0x02, whose key id is the hash of the SPKI).
func newKey(pub crypto.PublicKey) (*key, error) {
	id := bundle.KeyID(pub)
	sum, err := hex.DecodeString(id)
	if err != nil || id == "" {
		return nil, fmt.Errorf("transparency log: key of type %T is not supported, want Ed25519 or ECDSA P-256", pub)
	}
	k := &key{name: originPrefix + id[:16], pub: pub, hash: binary.BigEndian.Uint32(sum)}
	if ed, ok := pub.(ed25519.PublicKey); ok {
		h := sha256.Sum256(append([]byte(k.name+"\n\x01"), ed...))
		k.hash = binary.BigEndian.Uint32(h[:])
	}
	return k, nil
}

// Name is the log's origin.
func (k *key) Name() string { return k.name }

// KeyHash is C2SP's key id.
func (k *key) KeyHash() uint32 { return k.hash }

// Verify reports whether sig is the key's signature of msg.
func (k *key) Verify(msg, sig []byte) bool {
	switch pub := k.pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(pub, msg, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(pub, sum[:], sig)
	}
	return false
}

// Sign signs msg. A faulty token's signature is not used.
func (k *key) Sign(msg []byte) ([]byte, error) {
	opts := crypto.Hash(0)
	if _, ok := k.pub.(*ecdsa.PublicKey); ok {
		opts = crypto.SHA256
	}
	sig, err := crypto.SignMessage(k.signer, rand.Reader, msg, opts)
	if err != nil {
		return nil, err
	}
	if !k.Verify(msg, sig) {
		return nil, errors.New("the signature does not verify")
	}
	return sig, nil
}

// A checkpoint is a signed tree head.
type checkpoint struct {
	raw  []byte
	tree tlog.Tree
}

// sign makes the checkpoint of a tree.
func (k *key) sign(t tlog.Tree) (*checkpoint, error) {
	raw, err := note.Sign(&note.Note{Text: checkpointText(k.name, t)}, k)
	if err != nil {
		return nil, fmt.Errorf("transparency log: sign checkpoint of %d entries: %w", t.N, err)
	}
	return &checkpoint{raw: raw, tree: t}, nil
}

func checkpointText(origin string, t tlog.Tree) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, t.N, t.Hash)
}

// openCheckpoint verifies a checkpoint; without a key it only reads it.
// Signatures of others, such as witnesses, are passed over.
func openCheckpoint(raw []byte, k *key) (*checkpoint, error) {
	refuse := func(reason string, err error) (*checkpoint, error) {
		return nil, refusal("checkpoint", reason, err)
	}
	if len(raw) > maxCheckpoint {
		return refuse(fmt.Sprintf("%d bytes, at most %d are read", len(raw), maxCheckpoint), nil)
	}
	var known note.Verifiers
	if k != nil {
		known = note.VerifierList(k)
	}
	n, err := note.Open(raw, known)
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok && k == nil {
		n, err = unverified.Note, nil
	} else if ok {
		r := refusal("checkpoint", "this log's key has not signed it", nil)
		r.Want = fmt.Sprintf("%s+%08x", k.name, k.hash)
		var have []string
		for _, s := range unverified.Note.UnverifiedSigs {
			have = append(have, fmt.Sprintf("%s+%08x", clip(s.Name), s.Hash))
		}
		r.Got = strings.Join(have[:min(len(have), 4)], ", ")
		return nil, r
	}
	if err != nil {
		return refuse("it is not a signed note of this log's key", err)
	}
	for _, s := range n.Sigs {
		// The note package also takes other spellings of the same bytes.
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return refuse("its signature is not in its one form", err)
		}
	}
	origin, t, err := parseText(n.Text)
	if err != nil {
		return refuse("malformed", err)
	}
	if k != nil && origin != k.name {
		return refuse(fmt.Sprintf("it is of the log %q, this one is %q", clip(origin), k.name), nil)
	}
	if !strings.HasPrefix(origin, originPrefix) {
		return refuse(fmt.Sprintf("it is of the log %q, which is not one of bundles", clip(origin)), nil)
	}
	return &checkpoint{raw: raw, tree: t}, nil
}

// parseText reads the three lines of a checkpoint in their one form.
func parseText(text string) (origin string, t tlog.Tree, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] == "" {
		return "", t, errors.New("want three lines: log, size, root hash")
	}
	if t.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || t.N < 0 || t.N > maxEntries {
		return "", t, fmt.Errorf("size %q: want 0 to %d", clip(lines[1]), maxEntries)
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(hash) != tlog.HashSize {
		return "", t, fmt.Errorf("root hash %q is not one", clip(lines[2]))
	}
	copy(t.Hash[:], hash)
	if checkpointText(lines[0], t) != text {
		return "", t, errors.New("size or root hash is not in its one form")
	}
	return lines[0], t, nil
}

// own refuses further signatures: this log does not write them.
func (c *checkpoint) own() error {
	if sigs := c.raw[bytes.LastIndex(c.raw, []byte("\n\n"))+2:]; bytes.Count(sigs, []byte("\n")) != 1 {
		return refusal("checkpoint", "there are more signatures in it than this log writes", nil)
	}
	return nil
}

// VerifyCheckpoint verifies a checkpoint with the log's key and returns how
// many entries it covers.
func VerifyCheckpoint(raw []byte, pub crypto.PublicKey) (size int64, err error) {
	k, err := newKey(pub)
	if err != nil {
		return 0, err
	}
	c, err := openCheckpoint(raw, k)
	if err != nil {
		return 0, err
	}
	return c.tree.N, nil
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
