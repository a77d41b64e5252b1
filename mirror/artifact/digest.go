// Package artifact is darkmirror's vocabulary: digests, files, artifacts,
// snapshots, progress events and refusals. It does no I/O and depends on the
// standard library alone, so that every other package may import it.
//
// Invariants:
//   - Bytes are named by their SHA-256 and by nothing else.
//   - A [Snapshot] holds no clock reading and no host data: the same upstream
//     state always gives the same encoding, hence the same digest.
//
// Limits stand beside the function that enforces them ([MaxPath],
// [MaxSnapshot], [MaxFiles]).
package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A Digest is the SHA-256 of some bytes. The zero Digest names nothing.
type Digest [sha256.Size]byte

// digestPrefix is how a digest is written in text, as OCI and pip do.
const digestPrefix = "sha256:"

// ErrDigestSyntax reports text that is not a digest.
var ErrDigestSyntax = errors.New("not a sha256 digest (want sha256: and 64 lower-case hex digits)")

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads "sha256:" and 64 lower-case hex digits.
func ParseDigest(s string) (Digest, error) {
	rest, ok := strings.CutPrefix(s, digestPrefix)
	if !ok {
		return Digest{}, fmt.Errorf("%q: %w", clip(s), ErrDigestSyntax)
	}
	return ParseHex(rest)
}

// ParseHex reads 64 lower-case hex digits without a prefix.
func ParseHex(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) || strings.ToLower(s) != s {
		return Digest{}, fmt.Errorf("%q: %w", clip(s), ErrDigestSyntax)
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("%q: %w", clip(s), ErrDigestSyntax)
	}
	return d, nil
}

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// Hex returns 64 lower-case hex digits.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// String returns "sha256:" and 64 lower-case hex digits.
func (d Digest) String() string { return digestPrefix + d.Hex() }

// Short returns the first twelve hex digits, for people. Never compare it.
func (d Digest) Short() string { return d.Hex()[:12] }

// MarshalText writes the form that [ParseDigest] reads.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the form that [Digest.MarshalText] writes.
func (d *Digest) UnmarshalText(b []byte) error {
	v, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = v
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
