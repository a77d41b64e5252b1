package ocitest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// An Object is a manifest with everything below it, on its way into a
// registry. The same arguments always make the same bytes.
type Object struct {
	spec.Descriptor
	Raw      []byte
	Blobs    [][]byte
	Children []*Object
}

// CosignSignature is the media type of cosign's signed claims.
const CosignSignature = "application/vnd.dev.cosign.simplesigning.v1+json"

// Image is an image for linux/amd64 with these layers, which are taken for
// uncompressed tars.
func Image(layers ...[]byte) *Object { return ImageFor("linux/amd64", layers...) }

// ImageFor is an image for a platform, "linux/arm64/v8".
func ImageFor(platform string, layers ...[]byte) *Object {
	parts := strings.Split(platform+"//", "/")
	p := &spec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	config := struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
		Config       struct {
			Env []string `json:"Env"`
		} `json:"config"`
		Rootfs struct {
			Type    string        `json:"type"`
			DiffIDs []spec.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}{Architecture: p.Architecture, OS: p.OS, Variant: p.Variant}
	config.Config.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	config.Rootfs.Type = "layers"
	m := &spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIManifest}
	for _, l := range layers {
		config.Rootfs.DiffIDs = append(config.Rootfs.DiffIDs, digestOf(l))
		m.Layers = append(m.Layers, describe(spec.OCILayer, l))
	}
	c := encode(config)
	d := describe(spec.OCIConfig, c)
	m.Config = &d
	o := object(m, append([][]byte{c}, layers...))
	o.Platform = p
	return o
}

// Index is an index of these objects.
func Index(children ...*Object) *Object {
	m := &spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIIndex, Manifests: []spec.Descriptor{}}
	for _, c := range children {
		m.Manifests = append(m.Manifests, c.Descriptor)
	}
	o := object(m, nil)
	o.Children = children
	return o
}

// Artifact is something of a type, an SBOM or a signature, that refers to
// subject; nil makes an artifact that refers to nothing.
func Artifact(artifactType string, subject *Object, payload []byte) *Object {
	empty := []byte("{}")
	config := describe(spec.OCIEmpty, empty)
	m := &spec.Manifest{
		SchemaVersion: 2, MediaType: spec.OCIManifest, ArtifactType: artifactType, Config: &config,
		Layers: []spec.Descriptor{describe(artifactType, payload)},
	}
	if subject != nil {
		m.Subject = &spec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	}
	o := object(m, [][]byte{empty, payload})
	o.ArtifactType = artifactType
	return o
}

// Chart is a Helm chart as helm pushes one: chart is a .tgz.
func Chart(chartYAML map[string]string, chart []byte) *Object {
	c := encode(chartYAML)
	config := describe(spec.HelmConfig, c)
	return object(&spec.Manifest{
		SchemaVersion: 2, MediaType: spec.OCIManifest, Config: &config,
		Layers: []spec.Descriptor{describe(spec.HelmChart, chart)},
	}, [][]byte{c, chart})
}

// Signature is a signature of subject in cosign's manner; it belongs under
// [SignatureTag].
func Signature(subject *Object) *Object {
	claim := encode(map[string]any{"critical": map[string]any{
		"identity": map[string]string{"docker-reference": ""},
		"image":    map[string]string{"docker-manifest-digest": string(subject.Digest)},
		"type":     "cosign container image signature",
	}, "optional": nil})
	layer := describe(CosignSignature, claim)
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "bm8gcmVhbCBzaWduYXR1cmU="}
	c := encode(map[string]any{"architecture": "", "os": "", "rootfs": map[string]any{"type": "layers", "diff_ids": []spec.Digest{layer.Digest}}})
	config := describe(spec.OCIConfig, c)
	return object(&spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIManifest, Config: &config, Layers: []spec.Descriptor{layer}}, [][]byte{c, claim})
}

// SignatureTag is the tag under which cosign looks for a signature of o.
func SignatureTag(o *Object) string { return "sha256-" + o.Digest.Hex() + ".sig" }

// Custom is a manifest of the caller's own making, unchecked.
func Custom(mediaType string, raw []byte, blobs ...[]byte) *Object {
	return &Object{Descriptor: describe(mediaType, raw), Raw: raw, Blobs: blobs}
}

// Put gives a repository an object with all that is below it; tag may be
// empty.
func (r *Registry) Put(repo, tag string, o *Object) spec.Digest {
	for _, c := range o.Children {
		r.Put(repo, "", c)
	}
	for _, b := range o.Blobs {
		r.AddBlob(repo, b)
	}
	return r.AddManifest(repo, tag, o.MediaType, o.Raw)
}

// Sign gives a repository a signature of o in cosign's manner.
func (r *Registry) Sign(repo string, o *Object) *Object {
	s := Signature(o)
	r.Put(repo, SignatureTag(o), s)
	return s
}

// All lists o and every object below it.
func (o *Object) All() []*Object {
	list := []*Object{o}
	for _, c := range o.Children {
		list = append(list, c.All()...)
	}
	return list
}

// Noise is n bytes that do not compress, always the same for a seed.
func Noise(n int, seed uint64) []byte {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(s).Read(b) // it never fails
	return b
}

// Layer is an uncompressed layer of exactly n bytes with one file, which does
// not compress. A tar archive is a number of blocks of 512 bytes, three at
// least; n is that too.
func Layer(n int, seed uint64) []byte {
	const block = 512
	if n%block != 0 || n < 4*block {
		panic("a layer of that size cannot be made")
	}
	return Tar(map[string]string{"data": string(Noise(n-3*block, seed))})
}

// Tar is an uncompressed layer with these files.
func Tar(files map[string]string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Format: tar.FormatUSTAR}))
		_, err := w.Write([]byte(files[name]))
		must(err)
	}
	must(w.Close())
	return buf.Bytes()
}

func object(m *spec.Manifest, blobs [][]byte) *Object {
	raw := encode(m)
	return &Object{Descriptor: describe(m.MediaType, raw), Raw: raw, Blobs: blobs}
}

func describe(mediaType string, b []byte) spec.Descriptor {
	return spec.Descriptor{MediaType: mediaType, Digest: digestOf(b), Size: int64(len(b))}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// must is for what cannot fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
