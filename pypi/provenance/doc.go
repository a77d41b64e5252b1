// Package provenance verifies the digital attestations that an index offers
// beside a file (its "provenance" URL), offline, with a pinned trust root.
//
// Specifications: index hosted attestations (PEP 740), in-toto Statement v1,
// DSSE v1, Sigstore's trusted_root.json. A provenance object is a re-shaped
// Sigstore bundle: certificate, entries of the transparency log, and a DSSE
// envelope split into statement and signature. It is put together again (as
// in sigstore-go, issue 653 and pull request 654, and as in pypi-attestations
// 0.0.30) and given to sigstore-go. What PEP 740 leaves to the verifier follows
// pypi-attestations: names are compared parsed (pull requests 124 and 127
// took "ultranormalisation" away), a publisher's identity by the certificate's
// extensions.
//
// Invariants, for an object that [Root.Verify] takes:
//   - There is at least one attestation, and all of them hold.
//   - Each was signed by a key whose certificate chains to a pinned authority
//     at the time that a pinned log signed for, and carries a timestamp of a
//     pinned certificate log.
//   - Each log entry has a promise and a proof of inclusion, signed by a
//     pinned log, for this certificate, signature and statement.
//   - The statement names one subject, this file: name and SHA-256.
//   - The certificate belongs to the publisher that the object names.
//   - Nothing is read but the arguments: no network, no file, no clock. What
//     was true when it was signed is true inside, years later.
//
// Not checked, because nothing signed says it: a publisher's environment, and
// the signatures that others than the pinned log put on a checkpoint. The
// predicate of SLSA provenance is signed by the workflow and not judged here.
//
// An entry of Rekor's second version names no time, and the specification has
// no place yet for a timestamp from elsewhere: such an entry is refused.
//
// Limits are named constants in object.go, statement.go, json.go and root.go.
package provenance
