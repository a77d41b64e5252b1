package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Codes of the refusals of this package.
const (
	CodeFormat    = "PYPI-PROVENANCE-FORMAT"    // not a provenance object or statement of the specification
	CodeSignature = "PYPI-PROVENANCE-SIGNATURE" // signature, certificate, its log or the transparency log
	CodeSubject   = "PYPI-PROVENANCE-SUBJECT"   // signed, but for another file
	CodePublisher = "PYPI-PROVENANCE-PUBLISHER" // signed, but by another publisher, or one that cannot be checked
	CodeRoot      = "PYPI-PROVENANCE-ROOT"      // the trust root
)

// An Attestation is a verified statement about a file. All of it is signed,
// but for what [Publisher] says of its own.
type Attestation struct {
	Predicate string // [PredicatePublish] or [PredicateSLSA]
	Publisher Publisher
	// Issuer and Identity are who signed: the issuer of the token, and the
	// certificate's subject alternative name.
	Issuer   string
	Identity string
	// IntegratedTime is when the transparency log took the entry, in UTC.
	IntegratedTime time.Time
	// Repository and Workflow are URIs, Ref and Commit what was built; they
	// are empty where a publisher has none of it.
	Repository, Workflow, Ref, Commit string
}

// Verify reads a provenance object and verifies every attestation in it for
// the file. The result holds at least one and has the object's order. Every
// error is a [*artifact.Refusal].
func (r *Root) Verify(object []byte, s Subject) ([]Attestation, error) {
	groups, err := parseObject(object)
	if err != nil {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: CodeFormat, Subject: s.Filename,
			Reason: "not a provenance object", Err: err,
		}
	}
	var as []Attestation
	for i, g := range groups {
		for j := range g.attestations {
			a, err := r.attestation(&g.attestations[j], g.publisher, s)
			if err != nil {
				if no, ok := errors.AsType[*artifact.Refusal](err); ok {
					no.Subject = fmt.Sprintf("%s: attestation %d of bundle %d", s.Filename, j+1, i+1)
				}
				return nil, err
			}
			as = append(as, a)
		}
	}
	return as, nil
}

func (r *Root) attestation(a *attested, p Publisher, s Subject) (Attestation, error) {
	var result *verify.VerificationResult
	// One bundle for each entry: of several, sigstore-go passes over those
	// whose log it does not know.
	for _, e := range a.entries {
		one, err := r.signed(a, e)
		if err != nil {
			return Attestation{}, refuse(CodeSignature, "the attestation does not verify with the pinned trust root", "", "", err)
		}
		if result == nil {
			result = one
		}
	}
	st, err := parseStatement(a.statement)
	if err != nil {
		return Attestation{}, refuse(CodeFormat, "the signed statement is malformed", "", "", err)
	}
	if err := st.check(s); err != nil {
		return Attestation{}, err
	}
	c := result.Signature.Certificate
	if err := p.check(c); err != nil {
		return Attestation{}, err
	}
	return Attestation{
		Predicate:      st.predicate,
		Publisher:      p,
		Issuer:         c.Issuer,
		Identity:       c.SubjectAlternativeName,
		IntegratedTime: result.VerifiedTimestamps[0].Timestamp.UTC(),
		Repository:     c.SourceRepositoryURI,
		Workflow:       c.BuildConfigURI,
		Ref:            c.SourceRepositoryRef,
		Commit:         c.SourceRepositoryDigest,
	}, nil
}

// signed verifies certificate, log entry and signature. Subject and identity
// are compared by the caller, which knows what to say of them.
func (r *Root) signed(a *attested, e entry) (*verify.VerificationResult, error) {
	b, err := a.bundle(e)
	if err != nil {
		return nil, err
	}
	result, err := r.verifier.Verify(b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return nil, err
	}
	if result.Signature == nil || result.Signature.Certificate == nil || len(result.VerifiedTimestamps) == 0 {
		return nil, errors.New("signed without a certificate or without a time")
	}
	return result, nil
}

// bundle is the Sigstore bundle that the attestation was made from.
func (a *attested) bundle(e entry) (*bundle.Bundle, error) {
	type signature struct {
		Sig []byte `json:"sig"`
	}
	var b struct {
		MediaType string `json:"mediaType"`
		Material  struct {
			Certificate struct {
				RawBytes []byte `json:"rawBytes"`
			} `json:"certificate"`
			Entries []entry `json:"tlogEntries"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Payload     []byte      `json:"payload"`
			PayloadType string      `json:"payloadType"`
			Signatures  []signature `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	// The first version that carries a certificate without its chain.
	b.MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	b.Material.Certificate.RawBytes = a.certificate
	b.Material.Entries = []entry{e}
	b.Envelope.Payload = a.statement
	b.Envelope.PayloadType = "application/vnd.in-toto+json"
	b.Envelope.Signatures = []signature{{a.signature}}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	out := new(bundle.Bundle)
	if err := out.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	return out, nil
}

// refuse makes a refusal; Verify adds where it stands.
func refuse(code, reason, want, got string, err error) error {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Reason: reason, Want: want, Got: got, Err: err}
}
