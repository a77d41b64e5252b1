// Package spec is the vocabulary of container registries: digests,
// descriptors, manifests, media types, repository names and tags, read from
// outside bytes within limits.
//
// Specifications: OCI image-spec v1.1.1 (descriptor.md, manifest.md,
// image-index.md), distribution-spec v1.1.1 (names and tags), and Docker's
// "Image Manifest V 2, Schema 2", which registries still serve.
//
// Invariants:
//   - A manifest is never written anew: what is parsed here is a view of bytes
//     that are stored, signed and pushed as they came.
//   - What [ParseManifest] accepts has well-formed digests, no negative size,
//     and no digest with two sizes.
//   - Unknown fields are ignored, as the specification demands of readers;
//     nothing that is not understood is relied upon.
//
// Limits: [MaxManifest], [MaxMembers], [MaxName], [MaxTag].
package spec

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Digest is a digest as registries write it: "sha256:" or "sha512:" and
// lower-case hex digits. Only [ParseDigest] makes one of outside text.
type Digest string

// Algorithms of digests.
const (
	SHA256 = "sha256"
	SHA512 = "sha512"
)

// ParseDigest reads a digest; other algorithms than those above are refused.
func ParseDigest(s string) (Digest, error) {
	alg, digits, _ := strings.Cut(s, ":")
	size := 0
	switch alg {
	case SHA256:
		size = sha256.Size
	case SHA512:
		size = sha512.Size
	default:
		return "", fmt.Errorf("digest %q: want sha256: or sha512: and lower-case hex digits", clip(s))
	}
	if len(digits) != 2*size || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fmt.Errorf("digest %q: want %d lower-case hex digits", clip(s), 2*size)
	}
	return Digest(s), nil
}

// FromSHA256 writes an artifact's digest as registries do.
func FromSHA256(d artifact.Digest) Digest { return Digest(d.String()) }

// Sum is the digest of b by d's algorithm, to compare with d.
func (d Digest) Sum(b []byte) Digest {
	h := d.New()
	_, _ = h.Write(b) // hash.Hash never fails
	return d.With(h)
}

// New starts a hash by d's algorithm.
func (d Digest) New() hash.Hash {
	if d.Algorithm() == SHA512 {
		return sha512.New()
	}
	return sha256.New()
}

// With is the digest that h, made by [Digest.New], has come to.
func (d Digest) With(h hash.Hash) Digest {
	return Digest(d.Algorithm() + ":" + hex.EncodeToString(h.Sum(nil)))
}

// Algorithm is "sha256" or "sha512".
func (d Digest) Algorithm() string {
	alg, _, _ := strings.Cut(string(d), ":")
	return alg
}

// Hex is d without its algorithm.
func (d Digest) Hex() string {
	_, digits, _ := strings.Cut(string(d), ":")
	return digits
}

// SHA256 is d as the store knows it; false for another algorithm.
func (d Digest) SHA256() (artifact.Digest, bool) {
	v, err := artifact.ParseDigest(string(d))
	return v, err == nil
}

func (d Digest) String() string { return string(d) }

// Media types that darkmirror acts upon; all others pass as they are.
const (
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	DockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	OCIConfig      = "application/vnd.oci.image.config.v1+json"
	OCILayer       = "application/vnd.oci.image.layer.v1.tar"
	OCIEmpty       = "application/vnd.oci.empty.v1+json"
	HelmConfig     = "application/vnd.cncf.helm.config.v1+json"
	HelmChart      = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	HelmProvenance = "application/vnd.cncf.helm.chart.provenance.v1.prov"
)

// Accept is the Accept header for a manifest of any kind.
const Accept = OCIIndex + ", " + OCIManifest + ", " + DockerList + ", " + DockerManifest + ", " + DockerSigned1 + ";q=0.1, */*;q=0.1"

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
