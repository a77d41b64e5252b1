package apt

import "github.com/darkmirror/darkmirror/mirror/artifact"

// Codes of this package's refusals. They are stable: scripts match on them.
const (
	codeSignature   = "APT-SIGNATURE"    // no good signature by a pinned key
	codeExpired     = "APT-EXPIRED"      // Valid-Until has passed
	codeFuture      = "APT-FUTURE"       // Date is ahead of the clock
	codeRollback    = "APT-ROLLBACK"     // Date is older than what was accepted before
	codeSuite       = "APT-SUITE"        // a Release of another suite
	codeRelease     = "APT-RELEASE"      // a Release that cannot be read
	codeWeakHash    = "APT-WEAK-HASH"    // no SHA-256 for a file that is needed
	codeIndex       = "APT-INDEX"        // an index that is not what Release says, or broken
	codeNoIndex     = "APT-NO-INDEX"     // no index for a component and architecture
	codeStanza      = "APT-STANZA"       // a stanza that cannot be read
	codePath        = "APT-PATH"         // a Filename that is not a safe path
	codeConflict    = "APT-CONFLICT"     // one name, two contents
	codeRelation    = "APT-RELATION"     // a relation field that cannot be read
	codeClosure     = "APT-CLOSURE"      // a seed cannot be installed from what there is
	codeDeb         = "APT-DEB"          // a .deb that is not what its stanza says, or broken
	codeNotUpstream = "APT-NOT-UPSTREAM" // something that upstream's index does not list
	codeIdentity    = "APT-IDENTITY"     // Origin, Label or Codename would change
	codeClock       = "APT-CLOCK"        // the clock stands before the last publication
)

func integrity(code, subject, reason string) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: subject, Reason: reason}
}

func sequence(code, subject, reason string) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrSequence, Code: code, Subject: subject, Reason: reason}
}

func unavailable(code, subject, reason string) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: subject, Reason: reason}
}
