package bundle

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// An Approval is what a person approves or co-signs.
type Approval struct {
	// ID is the bundle that the person was shown. A folder that holds
	// another by now is refused.
	ID artifact.Digest
	// Now is the time of signing; an expired bundle is refused, and so
	// is one that has not at least MinLeft to go.
	Now     time.Time
	MinLeft time.Duration
}

// Approve adds an approver's signature to the envelope of a sealed bundle and
// reports who has signed then. The manifest's bytes, and with them the id of
// the bundle, stay as they are. Approving again with the same key changes
// nothing.
//
// The trust must hold the exporter's key; where it holds approvers' keys, the
// signer's must be among them. A key that is trusted as an exporter's cannot
// approve. A kill at any step leaves the envelope before or the one after, and
// a rerun finishes. The caller keeps other writers away from the folder.
func Approve(dir string, signer Signer, t Trust, a Approval) (*Report, error) {
	return countersign(dir, signer, RoleApprover, t, a)
}

// CoSign adds the signature of a further exporter, as [Approve] adds an
// approver's and with the same promises. The trust must hold the signer's key
// as an exporter's, and that of an exporter who has signed already.
func CoSign(dir string, signer Signer, t Trust, a Approval) (*Report, error) {
	return countersign(dir, signer, RoleExporter, t, a)
}

// countersign adds a signature in a role.
func countersign(dir string, signer Signer, role Role, t Trust, a Approval) (*Report, error) {
	if a.ID == (artifact.Digest{}) || a.Now.IsZero() {
		return nil, errors.New("sign bundle: the bundle's id and the time are needed")
	}
	// How many must sign is the inside's business.
	t.Exporters, t.Approvals = 0, 0
	keys, err := countersigner(signer, role, t)
	if err != nil {
		return nil, err
	}
	data, err := readEnvelope(dir)
	if err != nil {
		return nil, err
	}
	e, payload, err := openEnvelope(data)
	if err != nil {
		return nil, err
	}
	// The signer's key is trusted while this is looked at, so that a forged
	// signature under its id is refused and not taken for its own.
	t.Keys = keys
	rep, err := e.verify(payload, t)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(payload)
	if err != nil {
		return nil, err
	}
	if err := a.check(m, rep.ID); err != nil {
		return nil, err
	}
	if e.has(signer) {
		// An earlier run may have died just before this.
		if err := durable.SyncDir(dir); err != nil {
			return nil, err
		}
		return rep, nil
	}
	if err := e.add(payload, signer); err != nil {
		return nil, err
	}
	out, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	// What is written is what a reader will accept.
	if e, payload, err = openEnvelope(out); err != nil {
		return nil, err
	}
	if rep, err = e.verify(payload, t); err != nil {
		return nil, err
	}
	if err := replaceEnvelope(dir, out); err != nil {
		return nil, err
	}
	return rep, nil
}

// countersigner checks that the signer may sign in the role and returns the
// keys of the trust with its own among them.
func countersigner(s Signer, role Role, t Trust) ([]TrustedKey, error) {
	if s.Signer == nil {
		return nil, errors.New("sign bundle: no signing key")
	}
	id := KeyID(s.Public())
	if id == "" {
		return nil, fmt.Errorf("signing key %s: %s is not supported, want %s", s.Name, algorithm(s.Public()), algorithms)
	}
	if _, err := t.index(); err != nil {
		return nil, err
	}
	known := slices.IndexFunc(t.Keys, func(k TrustedKey) bool { return KeyID(k.Public) == id })
	switch {
	case known >= 0 && t.Keys[known].Role != role:
		return nil, refusal(CodeKey, string(role)+"'s key "+clip(s.Name), "it is trusted as "+string(t.Keys[known].Role)+" and a key has one role", nil)
	case known >= 0:
		return t.Keys, nil
	case t.count(role) > 0:
		r := refusal(CodeKey, string(role)+"'s key "+clip(s.Name), "it is not one of the trusted "+string(role)+"s' keys", nil)
		r.Got = "key " + shortID(id)
		return nil, r
	}
	return append(slices.Clone(t.Keys), TrustedKey{Name: s.Name, Role: role, Public: s.Public()}), nil
}

// check compares what is there with what the person saw, and with the time.
func (a Approval) check(m *Manifest, id artifact.Digest) error {
	if id != a.ID {
		r := refusal(CodeApproval, m.String(), "it is not the bundle that was shown", nil)
		r.Want, r.Got = a.ID.String(), id.String()
		return r
	}
	if now := a.Now.Add(max(0, a.MinLeft)); !now.Before(m.Expires) {
		reason := "the bundle has expired"
		if a.Now.Before(m.Expires) {
			reason = "the bundle expires before it can be carried"
		}
		return &artifact.Refusal{
			Class: artifact.ErrSequence, Code: CodeExpired, Subject: m.String(), Reason: reason,
			Want: "time before " + m.Expires.UTC().Format(time.RFC3339), Got: now.UTC().Format(time.RFC3339),
		}
	}
	return nil
}

// has reports whether the signer has signed.
func (e *envelope) has(s Signer) bool {
	id := KeyID(s.Public())
	return slices.ContainsFunc(e.Signatures, func(have signature) bool { return have.KeyID == id })
}

// add appends the signer's signature.
func (e *envelope) add(payload []byte, s Signer) error {
	if len(e.Signatures) == maxSignatures {
		return refusal(CodeApproval, envelopeName, fmt.Sprintf("it has %d signatures already, the most that a reader accepts", maxSignatures), nil)
	}
	sig, err := sign(s, PAE(PayloadType, payload))
	if err != nil {
		return err
	}
	e.Signatures = append(e.Signatures, signature{KeyID: KeyID(s.Public()), Sig: base64.StdEncoding.EncodeToString(sig)})
	return nil
}

func readEnvelope(dir string) (_ []byte, err error) {
	m, err := openMedium(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	defer func() { err = errors.Join(err, m.close()) }()
	data, err := readSmall(m.root, envelopeName, maxEnvelope)
	if err != nil {
		return nil, refusal(CodeFormat, dir, "the envelope cannot be read", err)
	}
	return data, nil
}

// replaceEnvelope removes what a killed run left and puts the new
// envelope in the place of the old one.
func replaceEnvelope(dir string, data []byte) error {
	failpoint.Here("bundle.approval-signed")
	if err := durable.Sweep(dir); err != nil {
		return fmt.Errorf("sign bundle: %w", err)
	}
	failpoint.Here("bundle.approval-swept")
	if err := durable.WriteFile(filepath.Join(dir, envelopeName), data, fileMode); err != nil {
		return fmt.Errorf("sign bundle: %w", err)
	}
	failpoint.Here("bundle.approval-written")
	return nil
}
