// Package helm turns charts of classic Helm repositories (an index.yaml and
// .tgz files) into the OCI artifacts that "helm push" makes of them.
//
// Specifications: Helm's "The Chart Repository Guide" (index.yaml), "Charts"
// (Chart.yaml), "Helm Provenance and Integrity" (.prov), and "Use OCI-based
// registries" (media types, "_" in place of "+" in a tag); where these are
// silent, what Helm 4.2 does: how it reads YAML, which values it takes, what it
// writes into the config and the annotations.
//
// Invariants:
//   - The same chart and provenance give the same manifest bytes: no clock, no
//     "created" annotation but the chart's own.
//   - A chart is what its index entry says: digest, name and version.
//   - Nothing is unpacked to a disk. Every entry of an archive lies in the folder
//     named as the chart, and none is a link, so that any reader finds the one
//     Chart.yaml that was read here.
//   - YAML that two readers may see differently is refused: anchors, aliases,
//     merge keys, tags, and keys that stand twice.
//   - A provenance file is compared with the chart by digest. Its signature is
//     not checked: that takes the key of the chart's author, which Helm asks for
//     where the chart is used.
//
// Limits: [MaxIndex], [MaxVersions], [MaxChart], [MaxProvenance], and the
// constants beside the code that reads an archive.
package helm

import (
	"fmt"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// MaxIndex bounds an index.yaml. The largest public ones are about 30 MiB.
	MaxIndex = 64 << 20
	// MaxVersions bounds the versions in one index. The largest public ones
	// have some 30,000.
	MaxVersions = 300_000
	// MaxChart bounds a chart. They are templates: a few hundred kilobytes.
	MaxChart = 32 << 20
	// MaxProvenance bounds a provenance file: a Chart.yaml and a signature.
	MaxProvenance = 1 << 20
)

// Codes of refusals.
const (
	CodeIndex      = "HELM-INDEX"      // an index.yaml is malformed
	CodeChart      = "HELM-CHART"      // a chart is malformed, or another than the index says
	CodeProvenance = "HELM-PROVENANCE" // a provenance file is malformed, or of another chart
)

// Tag is the tag of a version: a tag cannot have the "+" of a version's build
// metadata, and Helm writes "_" in its place.
func Tag(version string) string { return strings.ReplaceAll(version, "+", "_") }

// unusable refuses what is broken.
func unusable(code, subject, reason string, err error) error {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: subject, Reason: reason, Err: err}
}

// other refuses bytes that are not those which were promised.
func other(code, subject, reason, want, got string) error {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: subject, Reason: reason, Want: clip(want), Got: clip(got)}
}

func subjectOf(e Entry) string { return fmt.Sprintf("chart %s %s", clip(e.Name), clip(e.Version)) }

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
