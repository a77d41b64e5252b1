package provenance

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxRoot bounds a trust root; that of Sigstore's public instance has 7 KiB.
const maxRoot = 1 << 20

// A Root is a pinned trust root: certificate authorities, certificate logs and
// transparency logs. It never changes and may be used concurrently.
type Root struct {
	digest   artifact.Digest
	until    time.Time
	verifier *verify.Verifier
}

// ParseRoot reads Sigstore's trusted_root.json. Whoever gives the bytes
// answers for them: a trust root carries no signature of its own.
func ParseRoot(json []byte) (*Root, error) {
	refuse := func(reason string, err error) (*Root, error) {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeRoot, Subject: "trust root", Reason: reason, Err: err}
	}
	if len(json) > maxRoot {
		return refuse("too large", fmt.Errorf("%d bytes, at most %d are read", len(json), maxRoot))
	}
	tr, err := root.NewTrustedRootFromJSON(json)
	if err != nil {
		return refuse("not a trusted_root.json", err)
	}
	// A root that lacks one of these verifies nothing; say it here, not at
	// each file.
	switch {
	case len(tr.FulcioCertificateAuthorities()) == 0:
		return refuse("names no certificate authority", nil)
	case len(tr.CTLogs()) == 0:
		return refuse("names no certificate log", nil)
	case len(tr.RekorLogs()) == 0:
		return refuse("names no transparency log", nil)
	}
	until, err := validUntil(tr)
	if err != nil {
		return refuse("not usable", err)
	}
	v, err := verify.NewVerifier(tr,
		verify.WithTransparencyLog(1),
		verify.WithIntegratedTimestamps(1),
		verify.WithSignedCertificateTimestamps(1),
		// The predicate is not judged here: no tree of it is built.
		verify.WithoutStatementPredicate(),
	)
	if err != nil {
		return refuse("not usable", err)
	}
	return &Root{digest: artifact.Sum(json), until: until, verifier: v}, nil
}

// Digest names the bytes that were read, for the evidence.
func (r *Root) Digest() artifact.Digest { return r.digest }

// ValidUntil returns the time after which nothing can be signed that this
// root verifies, as far as it says so: a newer root is needed for newer files.
// What was signed before stays verifiable.
func (r *Root) ValidUntil() time.Time { return r.until }

// validUntil takes the longest of each kind, and the shortest of the kinds.
func validUntil(tr *root.TrustedRoot) (time.Time, error) {
	var until time.Time
	for _, ca := range tr.FulcioCertificateAuthorities() {
		f, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok || f.Root == nil {
			return time.Time{}, errors.New("a certificate authority without certificate")
		}
		end := f.ValidityPeriodEnd
		for _, c := range append([]*x509.Certificate{f.Root}, f.Intermediates...) {
			if end.IsZero() || c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(until) {
			until = end
		}
	}
	for _, logs := range []map[string]*root.TransparencyLog{tr.CTLogs(), tr.RekorLogs()} {
		if end, open := longest(logs); !open && end.Before(until) {
			until = end
		}
	}
	return until.UTC(), nil
}

func longest(logs map[string]*root.TransparencyLog) (end time.Time, open bool) {
	for _, l := range logs {
		if l.ValidityPeriodEnd.IsZero() {
			return time.Time{}, true
		}
		if l.ValidityPeriodEnd.After(end) {
			end = l.ValidityPeriodEnd
		}
	}
	return end, false
}
