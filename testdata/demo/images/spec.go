package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Media types.
const (
	mediaIndex     = "application/vnd.oci.image.index.v1+json"
	mediaManifest  = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig    = "application/vnd.oci.image.config.v1+json"
	mediaLayer     = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaEmpty     = "application/vnd.oci.empty.v1+json"
	mediaHelm      = "application/vnd.cncf.helm.config.v1+json"
	mediaChart     = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	mediaSPDX      = "application/spdx+json"
	mediaSigning   = "application/vnd.dev.cosign.simplesigning.v1+json"
	mediaSignature = "application/vnd.dev.cosign.artifact.sig.v1+json"

	// signatureKey is the annotation in which cosign keeps a signature.
	signatureKey = "dev.cosignproject.cosign/signature"
)

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *platform         `json:"platform,omitempty"`
}

// A manifest is a manifest or an index.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// encode is for our own structures, which always can be encoded.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
