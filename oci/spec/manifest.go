package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// MaxManifest bounds a manifest in bytes. Registries take at least 4 MiB
	// by the specification, and most take no more.
	MaxManifest = 4 << 20
	// MaxMembers bounds the descriptors of one manifest. The largest known
	// index has a few hundred.
	MaxMembers = 10_000
	// MaxAnnotations bounds the bytes of one descriptor's annotations.
	MaxAnnotations = 1 << 20
)

// Codes of refusals.
const (
	CodeManifest     = "OCI-MANIFEST"      // malformed
	CodeManifestSize = "OCI-MANIFEST-SIZE" // over [MaxManifest]
	CodeSchema1      = "OCI-SCHEMA1"       // Docker schema 1
)

// A Platform says what an image of an index runs on.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// String is "linux/arm64/v8".
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// A Descriptor names bytes: a member of a manifest.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// Foreign reports whether a layer's bytes may lie outside the registry: its
// media type says so. Such layers must not be taken for ordinary ones.
func (d Descriptor) Foreign() bool {
	return strings.Contains(d.MediaType, ".layer.nondistributable.") || strings.Contains(d.MediaType, ".rootfs.foreign.")
}

// IsManifest reports whether d names a manifest by its media type. An index's
// child may be one without saying so; see [Manifest.Manifests].
func (d Descriptor) IsManifest() bool {
	switch d.MediaType {
	case OCIManifest, OCIIndex, DockerManifest, DockerList:
		return true
	}
	return false
}

// A Manifest is a view of a manifest's bytes. Exactly one of Manifests (an
// index) and Config with Layers (an image or another artifact) is in use.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *Descriptor       `json:"config,omitempty"`
	Layers        []Descriptor      `json:"layers,omitempty"`
	Manifests     []Descriptor      `json:"manifests,omitempty"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// IsIndex reports whether m lists manifests.
func (m *Manifest) IsIndex() bool { return m.MediaType == OCIIndex || m.MediaType == DockerList }

// Blobs are the config and the layers, in that order.
func (m *Manifest) Blobs() []Descriptor {
	if m.Config == nil {
		return m.Layers
	}
	return append([]Descriptor{*m.Config}, m.Layers...)
}

// Type is what a referrers response names as artifactType: the manifest's own,
// or else its config's media type.
func (m *Manifest) Type() string {
	if m.ArtifactType == "" && m.Config != nil {
		return m.Config.MediaType
	}
	return m.ArtifactType
}

// ParseManifest reads a manifest. contentType is what the registry or the
// parent's descriptor calls it, without parameters, and may be empty. The
// result's MediaType is never empty. Every error is an ErrIntegrity refusal
// (CodeManifest, CodeManifestSize, CodeSchema1) without a subject: the caller
// knows the reference.
func ParseManifest(raw []byte, contentType string) (*Manifest, error) {
	refuse := func(code, reason string, err error) (*Manifest, error) {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: "manifest", Reason: reason, Err: err}
	}
	if len(raw) > MaxManifest {
		return refuse(CodeManifestSize, fmt.Sprintf("has %d bytes, at most %d are taken", len(raw), MaxManifest), nil)
	}
	if contentType == DockerSchema1 || contentType == DockerSigned1 {
		return refuse(CodeSchema1, "is Docker schema 1, which no current registry takes: build the image anew", nil)
	}
	var m Manifest
	if err := decode(raw, &m); err != nil {
		return refuse(CodeManifest, "is malformed", err)
	}
	if m.SchemaVersion == 1 {
		return refuse(CodeSchema1, "is Docker schema 1, which no current registry takes: build the image anew", nil)
	}
	if err := m.settle(contentType); err != nil {
		return refuse(CodeManifest, "is malformed", err)
	}
	if err := m.check(); err != nil {
		return refuse(CodeManifest, "is malformed", err)
	}
	return &m, nil
}

// decode reads one JSON value. A field that stands twice, in whatever letter
// case, is refused: two readers would see two images.
func decode(raw []byte, m *Manifest) error {
	if err := checkJSON(raw); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(m); err != nil {
		return err
	}
	return nil
}

// settle decides what m is. Where the bytes and the content type disagree the
// manifest is refused: the same bytes must not be two things.
func (m *Manifest) settle(contentType string) error {
	if m.SchemaVersion != 2 {
		return fmt.Errorf("schemaVersion: want 2, got %d", m.SchemaVersion)
	}
	known := Descriptor{MediaType: contentType}.IsManifest()
	switch {
	case m.MediaType != "" && known && m.MediaType != contentType:
		return fmt.Errorf("mediaType: %q, but it is offered as %q", clip(m.MediaType), clip(contentType))
	case m.MediaType == "" && known:
		m.MediaType = contentType
	case m.MediaType == "" && m.Config == nil && m.Layers == nil && m.Manifests != nil:
		m.MediaType = OCIIndex
	case m.MediaType == "" && m.Config != nil:
		m.MediaType = OCIManifest
	}
	if !(Descriptor{MediaType: m.MediaType}).IsManifest() {
		return fmt.Errorf("mediaType: %q is no manifest", clip(m.MediaType))
	}
	switch {
	case m.IsIndex() && (m.Config != nil || m.Layers != nil):
		return fmt.Errorf("an index with config or layers")
	case !m.IsIndex() && m.Manifests != nil:
		return fmt.Errorf("an image with manifests")
	case !m.IsIndex() && m.Config == nil:
		return fmt.Errorf("config: missing")
	}
	return nil
}

// check holds what every descriptor must have; errors name the JSON path.
func (m *Manifest) check() error {
	if n := len(m.Layers) + len(m.Manifests); n > MaxMembers {
		return fmt.Errorf("%d members, at most %d are taken", n, MaxMembers)
	}
	sizes := make(map[Digest]int64)
	one := func(at string, d *Descriptor) error {
		if _, err := ParseDigest(string(d.Digest)); err != nil {
			return fmt.Errorf("%s.digest: %w", at, err)
		}
		if d.Size < 0 {
			return fmt.Errorf("%s.size: %d is negative", at, d.Size)
		}
		if d.MediaType == "" || len(d.MediaType) > 255 || strings.ContainsFunc(d.MediaType, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%s.mediaType: missing or not a media type", at)
		}
		if old, ok := sizes[d.Digest]; ok && old != d.Size {
			return fmt.Errorf("%s.size: %s has sizes %d and %d", at, d.Digest, old, d.Size)
		}
		sizes[d.Digest] = d.Size
		return nil
	}
	if m.Config != nil {
		if err := one("config", m.Config); err != nil {
			return err
		}
	}
	for i := range m.Layers {
		if err := one(fmt.Sprintf("layers[%d]", i), &m.Layers[i]); err != nil {
			return err
		}
	}
	for i := range m.Manifests {
		at := fmt.Sprintf("manifests[%d]", i)
		if err := one(at, &m.Manifests[i]); err != nil {
			return err
		}
		if m.Manifests[i].Size > MaxManifest {
			return fmt.Errorf("%s.size: %d, at most %d are taken for a manifest", at, m.Manifests[i].Size, MaxManifest)
		}
	}
	if m.Subject != nil {
		return one("subject", m.Subject)
	}
	return nil
}
