package provenance

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// maxObject bounds a provenance object. Real ones have about 10 KiB for
	// each attestation.
	maxObject = 4 << 20
	// maxBundles and maxAttestations bound the work. An index keeps one of
	// each kind of statement for a file, from one publisher.
	maxBundles      = 8
	maxAttestations = 8
	// maxCertificate bounds a signing certificate; real ones have under 2 KiB.
	maxCertificate = 16 << 10
	// maxStatement bounds a signed statement; SLSA provenance has about 2 KiB.
	maxStatement = 1 << 20
	// maxSignature takes RSA of 16384 bits; ECDSA needs 72 bytes.
	maxSignature = 2 << 10
	// maxEntries bounds the log entries of an attestation; real ones have one.
	maxEntries = 4
	// maxBody bounds a log entry: hashes, signature, certificate in base64.
	maxBody = 64 << 10
	// maxHashes is the depth of a tree of 2^63 leaves, and one for its root.
	maxHashes = 64
	// maxCheckpoint bounds a signed tree head; real ones have 250 bytes, and
	// more with each witness.
	maxCheckpoint = 32 << 10
	// hashSize is that of SHA-256, the only hash of these logs.
	hashSize = 32
)

// An attested is an attestation object: one signed statement with what is
// needed to verify it.
type attested struct {
	certificate []byte // DER
	entries     []entry
	statement   []byte
	signature   []byte
}

// An entry is one of Sigstore's TransparencyLogEntry messages. The tags write
// it as protobuf's JSON, which sigstore-go reads.
type entry struct {
	LogIndex int64 `json:"logIndex,string"`
	LogID    struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
	KindVersion struct {
		Kind    string `json:"kind"`
		Version string `json:"version"`
	} `json:"kindVersion"`
	IntegratedTime   int64 `json:"integratedTime,string"`
	InclusionPromise struct {
		SignedEntryTimestamp []byte `json:"signedEntryTimestamp"`
	} `json:"inclusionPromise"`
	InclusionProof struct {
		LogIndex   int64    `json:"logIndex,string"`
		RootHash   []byte   `json:"rootHash"`
		TreeSize   int64    `json:"treeSize,string"`
		Hashes     [][]byte `json:"hashes"`
		Checkpoint struct {
			Envelope string `json:"envelope"`
		} `json:"checkpoint"`
	} `json:"inclusionProof"`
	CanonicalizedBody []byte `json:"canonicalizedBody"`
}

// A group is an attestation bundle: what one publisher attests.
type group struct {
	publisher    Publisher
	attestations []attested
}

func parseObject(data []byte) ([]group, error) {
	if len(data) > maxObject {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(data), maxObject)
	}
	var groups []group
	err := document(data, func(r *reader) []field {
		return []field{
			{"version", true, r.one},
			{"attestation_bundles", true, func() error {
				return r.array(maxBundles, func() error {
					g, err := r.group()
					groups = append(groups, g)
					return err
				})
			}},
		}
	})
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return nil, errors.New("no attestation bundle in it")
	}
	return groups, nil
}

func (r *reader) group() (g group, err error) {
	err = r.object(
		field{"publisher", true, func() (err error) {
			g.publisher, err = r.publisher()
			return err
		}},
		field{"attestations", true, func() error {
			return r.array(maxAttestations, func() error {
				a, err := r.attestation()
				g.attestations = append(g.attestations, a)
				return err
			})
		}},
	)
	if err == nil && len(g.attestations) == 0 {
		err = errors.New("no attestation in it")
	}
	return g, err
}

func (r *reader) attestation() (a attested, err error) {
	err = r.object(
		field{"version", true, r.one},
		field{"envelope", true, func() error {
			return r.object(
				field{"statement", true, r.bytes(&a.statement, maxStatement)},
				field{"signature", true, r.bytes(&a.signature, maxSignature)},
			)
		}},
		field{"verification_material", true, func() error {
			return r.object(
				field{"certificate", true, r.bytes(&a.certificate, maxCertificate)},
				field{"transparency_entries", true, func() error {
					return r.array(maxEntries, func() error {
						e, err := r.entry()
						a.entries = append(a.entries, e)
						return err
					})
				}},
			)
		}},
	)
	if err == nil && len(a.entries) == 0 {
		err = errors.New("no entry of a transparency log in it")
	}
	return a, err
}

func (r *reader) entry() (e entry, err error) {
	proof := &e.InclusionProof
	err = r.object(
		field{"logIndex", true, r.number(&e.LogIndex)},
		field{"logId", true, func() error {
			return r.object(field{"keyId", true, r.bytes(&e.LogID.KeyID, hashSize)})
		}},
		field{"kindVersion", true, func() error {
			return r.object(
				field{"kind", true, r.text(&e.KindVersion.Kind, false)},
				field{"version", true, r.text(&e.KindVersion.Version, false)},
			)
		}},
		field{"integratedTime", true, r.number(&e.IntegratedTime)},
		field{"inclusionPromise", true, func() error {
			return r.object(field{"signedEntryTimestamp", true, r.bytes(&e.InclusionPromise.SignedEntryTimestamp, maxSignature)})
		}},
		field{"inclusionProof", true, func() error {
			return r.object(
				field{"logIndex", true, r.number(&proof.LogIndex)},
				field{"treeSize", true, r.number(&proof.TreeSize)},
				field{"rootHash", true, r.bytes(&proof.RootHash, hashSize)},
				field{"hashes", true, func() error {
					return r.array(maxHashes, func() error {
						var h []byte
						err := r.bytes(&h, hashSize)()
						proof.Hashes = append(proof.Hashes, h)
						return err
					})
				}},
				field{"checkpoint", true, func() error {
					return r.object(field{"envelope", true, r.text(&proof.Checkpoint.Envelope, false)})
				}},
			)
		}},
		field{"canonicalizedBody", true, r.bytes(&e.CanonicalizedBody, maxBody)},
	)
	if err != nil {
		return e, err
	}
	return e, e.check()
}

// The one kind of log entry that a verifier of PEP 740 takes: Rekor's DSSE.
const (
	entryKind    = "dsse"
	entryVersion = "0.0.1"
)

// check holds what sigstore-go does not look at: that kind and version are
// those of the signed body, and that the proof is for the tree that the
// checkpoint signs.
func (e *entry) check() error {
	var kind, version string
	err := document(e.CanonicalizedBody, func(r *reader) []field {
		return []field{
			{"kind", true, r.text(&kind, false)},
			{"apiVersion", true, r.text(&version, false)},
		}
	})
	switch {
	case err != nil:
		return fmt.Errorf("canonicalizedBody: %w", err)
	case kind != entryKind || version != entryVersion:
		return fmt.Errorf("log entry of kind %q %q, want %s %s", clip(kind), clip(version), entryKind, entryVersion)
	case e.KindVersion.Kind != kind || e.KindVersion.Version != version:
		return fmt.Errorf("kindVersion says %q %q, the log entry %s %s", clip(e.KindVersion.Kind), clip(e.KindVersion.Version), kind, version)
	case e.IntegratedTime == 0:
		return errors.New("the log entry names no time")
	}
	checkpoint := e.InclusionProof.Checkpoint.Envelope
	if len(checkpoint) > maxCheckpoint {
		return fmt.Errorf("checkpoint of %d bytes, want at most %d", len(checkpoint), maxCheckpoint)
	}
	_, rest, _ := strings.Cut(checkpoint, "\n")
	if size, _, _ := strings.Cut(rest, "\n"); size != strconv.FormatInt(e.InclusionProof.TreeSize, 10) {
		return fmt.Errorf("the proof is for a tree of %d, the checkpoint for %q", e.InclusionProof.TreeSize, clip(size))
	}
	return nil
}
