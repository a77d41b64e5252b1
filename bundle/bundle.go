// Package bundle is the signed format that carries package files over an air
// gap: it seals bundles outside and finds, verifies and reads them inside. It
// knows no upstream, no store and no network.
//
// Specification: docs/bundle-format.md, version 1; the envelope is DSSE
// (Dead Simple Signing Envelope) 1.0.2.
//
// Invariants:
//   - The manifest is verified as the bytes that were signed, and parsed only
//     after that.
//   - Only digests from the manifest decide what is accepted. volumes.json,
//     volume digests, folder names and key ids are hints.
//   - Nothing is decompressed before the digest of its stored bytes is good.
//   - A medium is only read, each byte once; no symlink is followed on it and
//     no tar header is parsed.
//   - A folder without the prefix ".tmp-" in the outbox is a whole bundle.
//   - Same manifest, blobs, key, options and build: same bytes.
//
// Limits are the constants of this file and those beside the code that they
// bound; docs/bundle-format.md lists them with their reasons.
package bundle

import (
	"errors"
	"fmt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Names inside a bundle folder.
const (
	envelopeName = "bundle.dsse.json"
	volumesName  = "volumes.json"
	volumesDir   = "volumes"
)

const (
	// MaxManifest bounds a manifest; about 450,000 blobs fit. It is held in
	// memory.
	MaxManifest = 64 << 20
	// maxVolumesJSON bounds volumes.json for the same reason.
	maxVolumesJSON = 64 << 20
	// maxEnvelope is a manifest in base64 and room for 64 signatures.
	maxEnvelope = MaxManifest/3*4 + 64<<10
	// maxSignatures bounds the work of an envelope of signatures.
	maxSignatures = 64
	// maxBlobs bounds blobs, requires and the artifacts of a source.
	maxBlobs = 1_000_000
	// maxSources bounds the sources of a stream; a site has tens.
	maxSources = 4096
	// maxVolumes is 1 TB in volumes of 1 MiB.
	maxVolumes = 1_000_000
	// maxInt is the greatest integer that every JSON reader holds exactly.
	maxInt = 1 << 53
	// MaxSegment bounds a segment: what a bad sector costs.
	MaxSegment = 64 << 20
	// MaxZstdSegment bounds a segment of a compressed blob: it is held in
	// memory until its digest is known to be good.
	MaxZstdSegment = 8 << 20
	// maxText bounds names and reasons; they are for people.
	maxText = 1024
)

// Codes of refusals; docs/bundle-format.md says what each means.
const (
	CodeFormat    = "ERR_FORMAT"
	CodeKey       = "ERR_KEY"
	CodeSignature = "ERR_SIG"
	CodeApproval  = "ERR_APPROVAL"
	CodeVersion   = "ERR_VERSION"
	CodeVolumes   = "ERR_VOLUMES"
	CodeVolume    = "ERR_VOLUME"
	CodeSegment   = "ERR_SEGMENT"
	CodeBlob      = "ERR_BLOB"
	CodeStream    = "ERR_STREAM"
	CodeReplay    = "ERR_REPLAY"
	CodeFork      = "ERR_FORK"
	CodeGap       = "ERR_GAP"
	CodeExpired   = "ERR_EXPIRED"
	CodeFuture    = "ERR_FUTURE"
	CodeRequires  = "ERR_REQUIRES"
	// CodeUncovered starts a warning, never a refusal.
	CodeUncovered = "ERR_UNCOVERED"
)

// refusal is an integrity refusal.
func refusal(code, subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: subject, Reason: reason, Err: err}
}

// errNoManifest reports a Reader that is used before its manifest was read:
// a mistake of the program.
var errNoManifest = errors.New("bundle: Verify or Unverified must come first")

// CheckStream accepts the name of a stream: 1 to 64 lower-case letters,
// digits, "-" and "_", beginning with a letter or digit.
func CheckStream(s string) error { return checkWord("stream", s) }

func checkWord(what, s string) error {
	ok := s != "" && len(s) <= 64 && s[0] != '-' && s[0] != '_'
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("%s %q: want 1 to 64 lower-case letters, digits, '-' and '_'", what, clip(s))
	}
	return nil
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
