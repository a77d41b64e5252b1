package helm

import (
	"encoding/json"
	"fmt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A Chart is the artifact made of a chart. Its layers are the chart's own bytes
// and, where there is one, the provenance file's.
type Chart struct {
	Manifest []byte // of media type spec.OCIManifest
	Config   []byte // of media type spec.HelmConfig
}

// Convert makes the artifact of a chart. prov is its provenance file, or nil.
// want is the index's entry; where it has a digest, the chart must have it.
// Errors are refusals: CodeChart and CodeProvenance, of the class ErrIntegrity
// where the bytes are not those that were promised, else ErrUnavailable.
func Convert(chart, prov []byte, want Entry) (*Chart, error) {
	subject := subjectOf(want)
	if len(chart) > MaxChart {
		return nil, unusable(CodeChart, subject, fmt.Sprintf("has %d bytes, at most %d are taken", len(chart), MaxChart), nil)
	}
	sum := artifact.Sum(chart)
	if !want.Digest.IsZero() && sum != want.Digest {
		return nil, other(CodeChart, subject, "the chart is not what the index says", want.Digest.String(), sum.String())
	}
	m, err := metadataOf(chart, want)
	if err != nil {
		return nil, err
	}
	layers := []spec.Descriptor{describe(spec.HelmChart, chart)}
	if prov != nil {
		if err := checkProvenance(prov, want, sum); err != nil {
			return nil, err
		}
		layers = append(layers, describe(spec.HelmProvenance, prov))
	}
	config, err := json.Marshal(m)
	if err != nil {
		return nil, unusable(CodeChart, subject, "Chart.yaml cannot be written as JSON", err)
	}
	head := describe(spec.HelmConfig, config)
	manifest, err := json.Marshal(spec.Manifest{
		SchemaVersion: 2, MediaType: spec.OCIManifest,
		Config: &head, Layers: layers, Annotations: m.annotations(),
	})
	if err != nil {
		return nil, unusable(CodeChart, subject, "the manifest cannot be written", err)
	}
	// Chart.yaml's annotations stand in it, and they may be too long for that.
	if _, err := spec.ParseManifest(manifest, spec.OCIManifest); err != nil {
		return nil, unusable(CodeChart, subject, "the manifest would be none", err)
	}
	return &Chart{Manifest: manifest, Config: config}, nil
}

// metadataOf reads a chart's metadata, which must be of the chart wanted.
func metadataOf(chart []byte, want Entry) (*metadata, error) {
	subject := subjectOf(want)
	if err := spec.CheckName(want.Name); err != nil {
		return nil, unusable(CodeChart, subject, "cannot be an artifact", err)
	}
	a, err := readArchive(chart, want.Name)
	if err != nil {
		return nil, unusable(CodeChart, subject, "the archive cannot be read", err)
	}
	m, err := readMetadata(a.chart, a.requirements)
	if err != nil {
		return nil, unusable(CodeChart, subject, "the metadata cannot be read", err)
	}
	if m.Name != want.Name || m.Version != want.Version {
		return nil, other(CodeChart, subject, "the archive is of another chart", want.Name+" "+want.Version, m.Name+" "+m.Version)
	}
	if err := spec.CheckTag(Tag(m.Version)); err != nil {
		return nil, unusable(CodeChart, subject, "the version cannot be a tag", err)
	}
	return m, nil
}

// describe makes the descriptor of some bytes.
func describe(mediaType string, b []byte) spec.Descriptor {
	return spec.Descriptor{MediaType: mediaType, Digest: spec.FromSHA256(artifact.Sum(b)), Size: int64(len(b))}
}
