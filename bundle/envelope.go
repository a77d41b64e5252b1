package bundle

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// PayloadType is what a bundle's envelope holds.
const PayloadType = "application/vnd.darkmirror.bundle.v1+json"

// trialType is what [CheckSigner] signs.
const trialType = "application/vnd.darkmirror.trial.v1+json"

type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// PAE is DSSE's pre-authentication encoding: the bytes that are signed.
func PAE(typ string, body []byte) []byte {
	b := make([]byte, 0, len(typ)+len(body)+64)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(typ)), 10)
	b = append(b, ' ')
	b = append(b, typ...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, ' ')
	return append(b, body...)
}

// signEnvelope wraps payload.
func signEnvelope(payload []byte, s Signer) ([]byte, error) {
	sig, err := sign(s, PAE(PayloadType, payload))
	if err != nil {
		return nil, err
	}
	return json.Marshal(&envelope{
		PayloadType: PayloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []signature{{KeyID: KeyID(s.Public()), Sig: base64.StdEncoding.EncodeToString(sig)}},
	})
}

// openEnvelope takes an envelope apart; no signature is looked at. Every
// error is an ERR_FORMAT refusal.
func openEnvelope(data []byte) (*envelope, []byte, error) {
	refuse := func(err error) (*envelope, []byte, error) {
		return nil, nil, refusal(CodeFormat, envelopeName, "not a bundle's envelope", err)
	}
	if len(data) > maxEnvelope {
		return refuse(fmt.Errorf("%d bytes, at most %d are read", len(data), maxEnvelope))
	}
	var e envelope
	if err := strictjson.Unmarshal(data, &e); err != nil {
		return refuse(err)
	}
	if e.PayloadType != PayloadType {
		return refuse(fmt.Errorf("payloadType %q, want %q", clip(e.PayloadType), PayloadType))
	}
	if n := len(e.Signatures); n == 0 || n > maxSignatures {
		return refuse(fmt.Errorf("%d signatures, want 1 to %d", n, maxSignatures))
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return refuse(fmt.Errorf("payload: %w", err))
	}
	if len(payload) == 0 || len(payload) > MaxManifest {
		return refuse(fmt.Errorf("payload of %d bytes, want 1 to %d", len(payload), MaxManifest))
	}
	return &e, payload, nil
}

// decodeBase64 accepts one encoding of each value: encoding/base64 skips line
// breaks even when it is strict.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// A Report says what a verified bundle is and who vouches for it.
type Report struct {
	// ID is the digest of the manifest's bytes.
	ID artifact.Digest
	// SignedBy names the trusted exporters' keys that signed, in the
	// envelope's order.
	SignedBy []string
	// Fingerprints are those of the same keys, for people.
	Fingerprints []string
	// ApprovedBy names the trusted approvers' keys that signed, in the same
	// order, and ApproverFingerprints are theirs.
	ApprovedBy           []string
	ApproverFingerprints []string
	// Unknown are the ids of keys that signed too and are not trusted here.
	Unknown []string
	// Steps lists each check that was made, in order, for people.
	Steps []string
}

// verify holds the rules of docs/bundle-format.md, "Order of verification",
// step 3. A key id is only used to find the trusted key; that it is the
// key's own id follows from how Trust.index is built. The trusted key alone
// says which algorithm is meant.
func (e *envelope) verify(payload []byte, t Trust) (*Report, error) {
	keys, err := t.index()
	if err != nil {
		return nil, err
	}
	rep := &Report{ID: artifact.Sum(payload)}
	msg := PAE(e.PayloadType, payload)
	seen := make(map[string]bool)
	for i, s := range e.Signatures {
		where := fmt.Sprintf("%s, signature %d", envelopeName, i+1)
		if seen[s.KeyID] {
			return nil, refusal(CodeKey, where, "the same key signed twice: "+clip(s.KeyID), nil)
		}
		seen[s.KeyID] = true
		k, ok := keys[s.KeyID]
		if !ok {
			rep.Unknown = append(rep.Unknown, clip(s.KeyID))
			continue
		}
		sig, err := decodeBase64(s.Sig)
		if err != nil {
			return nil, refusal(CodeSignature, where, "signature of "+k.Name+" is not base64", err)
		}
		if !verifies(k.Public, msg, sig) {
			return nil, refusal(CodeSignature, where, "signature of "+k.Name+" does not fit the manifest", nil)
		}
		if k.Role == RoleApprover {
			rep.ApprovedBy = append(rep.ApprovedBy, k.Name)
			rep.ApproverFingerprints = append(rep.ApproverFingerprints, shortID(s.KeyID))
		} else {
			rep.SignedBy = append(rep.SignedBy, k.Name)
			rep.Fingerprints = append(rep.Fingerprints, shortID(s.KeyID))
		}
		rep.Steps = append(rep.Steps, fmt.Sprintf("signature: good, %s %s (%s)", k.Role, k.Name, shortID(s.KeyID)))
	}
	if err := rep.checkThresholds(t); err != nil {
		return nil, err
	}
	return rep, nil
}

// checkThresholds counts who signed. A key counts once: a second signature of
// it was refused.
func (r *Report) checkThresholds(t Trust) error {
	switch n := len(r.SignedBy); {
	case n == 0:
		no := refusal(CodeKey, envelopeName, "no signature of a trusted exporter key", nil)
		if len(r.Unknown) > 0 {
			no.Got = "key " + strings.Join(r.Unknown, ", key ")
		}
		return no
	case n < t.exporters():
		return tooFew(CodeThreshold, "too few exporters have signed", "exporters", t.Exporters, r.SignedBy)
	case len(r.ApprovedBy) < t.Approvals:
		return tooFew(CodeApproval, "too few approvals", "approvers", t.Approvals, r.ApprovedBy)
	}
	if t.Exporters > 1 {
		r.Steps = append(r.Steps, fmt.Sprintf("exporters: %d, %d needed", len(r.SignedBy), t.Exporters))
	}
	if t.Approvals > 0 {
		r.Steps = append(r.Steps, fmt.Sprintf("approvals: %d, %d needed", len(r.ApprovedBy), t.Approvals))
	}
	return nil
}

// tooFew says how many must have signed, and who has.
func tooFew(code, reason, who string, want int, have []string) error {
	r := refusal(code, envelopeName, reason, nil)
	r.Want, r.Got = fmt.Sprintf("signatures of %d %s", want, who), strconv.Itoa(len(have))
	if len(have) > 0 {
		r.Got += " (" + strings.Join(have, ", ") + ")"
	}
	return r
}
