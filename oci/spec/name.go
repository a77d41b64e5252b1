package spec

import (
	"fmt"
	"strings"
)

const (
	// MaxName bounds a repository name; registries limit host and name
	// together to 255.
	MaxName = 255
	// MaxTag is the specification's bound.
	MaxTag = 128
)

// CheckName accepts a repository name of the distribution specification:
// lower-case words joined by ".", "_", "__" or "-", in segments joined by "/".
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("repository name %q: want 1 to %d characters", clip(name), MaxName)
	}
	for seg := range strings.SplitSeq(name, "/") {
		if !segmentOK(seg) {
			return fmt.Errorf("repository name %q: segment %q: want lower-case letters and digits, joined by '.', '_', '__' or '-'", clip(name), clip(seg))
		}
	}
	return nil
}

// segmentOK matches [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func segmentOK(s string) bool {
	word := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	if s == "" || !word(s[0]) || !word(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if word(s[i]) {
			i++
			continue
		}
		start := i
		for !word(s[i]) { // the last byte is a word's
			i++
		}
		if sep := s[start:i]; sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
	}
	return true
}

// CheckTag accepts a tag: a letter, digit or "_", then up to 127 of these, "."
// and "-".
func CheckTag(tag string) error {
	ok := tag != "" && len(tag) <= MaxTag
	for i, c := range []byte(tag) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		case i > 0 && (c == '.' || c == '-'):
		default:
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf("tag %q: want at most %d letters, digits, '_', '.' and '-'", clip(tag), MaxTag)
	}
	return nil
}

// ReferrersTag is the tag under which referrers of d are listed where a
// registry has no referrers API (distribution-spec, "Referrers Tag Schema").
func ReferrersTag(d Digest) string {
	hex := d.Hex()
	return d.Algorithm() + "-" + hex[:min(len(hex), 64)]
}

// CosignTags are the tags under which cosign keeps what it attaches to d. There
// are none for a SHA-512: they would be longer than a tag may be.
func CosignTags(d Digest) []string {
	if d.Algorithm() != SHA256 {
		return nil
	}
	base := d.Algorithm() + "-" + d.Hex()
	return []string{base + ".sig", base + ".att", base + ".sbom"}
}

// A Reference is a repository with a tag, a digest, or both.
type Reference struct {
	Repository string
	Tag        string // empty where only the digest is given
	Digest     Digest // empty where only the tag is given
}

// ParseReference reads "library/nginx:1.27", "library/nginx@sha256:..." or
// both. There is no default tag: a configuration says what it means.
func ParseReference(s string) (Reference, error) {
	var r Reference
	rest, digest, pinned := strings.Cut(s, "@")
	if pinned {
		d, err := ParseDigest(digest)
		if err != nil {
			return Reference{}, fmt.Errorf("image %q: %w", clip(s), err)
		}
		r.Digest = d
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Tag = rest[i+1:]
		rest = rest[:i]
		if err := CheckTag(r.Tag); err != nil {
			return Reference{}, fmt.Errorf("image %q: %w", clip(s), err)
		}
	}
	r.Repository = rest
	if err := CheckName(rest); err != nil {
		return Reference{}, fmt.Errorf("image %q: %w", clip(s), err)
	}
	if r.Tag == "" && !pinned {
		return Reference{}, fmt.Errorf("image %q: a tag or a digest is missing", clip(s))
	}
	return r, nil
}

// String is the form that [ParseReference] reads.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}
