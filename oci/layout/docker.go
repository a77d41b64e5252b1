package layout

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// maxLayers bounds the layers of all images of an old archive, as often as they
// are named: each takes some 200 bytes of a manifest. An image has 127 at most.
const maxLayers = 50_000

// A dockerImage is an entry of the old form's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// A dockerManifest is what is made of an entry: a spec.Manifest, but for the
// list of layers that must stand there even when it is empty.
type dockerManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        spec.Descriptor   `json:"config"`
	Layers        []spec.Descriptor `json:"layers"`
}

// A dockerLayer is a layer that was hashed.
type dockerLayer struct {
	spec.Descriptor
	diffID string // the digest of its content, unpacked
}

// readDocker reads an old archive. Its layers are hashed here, once: nothing
// in the archive names the bytes of a layer but the config's diff_ids, which
// are compared.
func (l *Layout) readDocker(t *tarFile) error {
	b, err := l.read("manifest.json", spec.MaxManifest)
	if err != nil {
		return err
	}
	var images []dockerImage
	if err := unmarshal(b, &images); err != nil {
		return refuse(l.name, "manifest.json cannot be read", err)
	}
	if len(images) == 0 {
		return refuse(l.name, "manifest.json lists no image", nil)
	}
	refs, layers := 0, 0
	for _, im := range images {
		refs += max(1, len(im.RepoTags))
		layers += len(im.Layers)
	}
	if refs > spec.MaxMembers || layers > maxLayers {
		return refuse(l.name, fmt.Sprintf("lists %d images with %d layers, at most %d and %d are taken", refs, layers, spec.MaxMembers, maxLayers), nil)
	}
	l.made, l.blobs = make(map[spec.Digest][]byte), make(map[spec.Digest]string)
	hashed := make(map[string]dockerLayer)
	for i, im := range images {
		d, err := l.image(t, im, hashed)
		if err != nil {
			return fmt.Errorf("%s: manifest.json, image %d: %w", l.name, i, err)
		}
		if len(im.RepoTags) == 0 {
			l.refs = append(l.refs, Ref{"", d})
		}
		for _, name := range im.RepoTags {
			l.refs = append(l.refs, Ref{name, d})
		}
	}
	return nil
}

// image makes the manifest of one image.
func (l *Layout) image(t *tarFile, im dockerImage, hashed map[string]dockerLayer) (spec.Descriptor, error) {
	config, err := l.read(path.Clean(im.Config), maxConfig)
	if err != nil {
		return spec.Descriptor{}, err
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := unmarshal(config, &c); err != nil {
		return spec.Descriptor{}, refuse(l.name, "the config "+clip(im.Config)+" cannot be read", err)
	}
	if len(c.RootFS.DiffIDs) != len(im.Layers) {
		return spec.Descriptor{}, refuse(l.name, fmt.Sprintf("the config names %d layers, manifest.json %d", len(c.RootFS.DiffIDs), len(im.Layers)), nil)
	}
	m := dockerManifest{
		SchemaVersion: 2, MediaType: spec.OCIManifest,
		Config: spec.Descriptor{MediaType: spec.OCIConfig, Digest: spec.FromSHA256(artifact.Sum(config)), Size: int64(len(config))},
		Layers: make([]spec.Descriptor, 0, len(im.Layers)),
	}
	l.blobs[m.Config.Digest] = path.Clean(im.Config)
	for i, name := range im.Layers {
		d, err := l.layer(t, path.Clean(name), c.RootFS.DiffIDs[i], hashed)
		if err != nil {
			return spec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return spec.Descriptor{}, err
	}
	if _, err := spec.ParseManifest(raw, spec.OCIManifest); err != nil {
		return spec.Descriptor{}, refuse(l.name, "an image cannot be an OCI image", err)
	}
	d := spec.Descriptor{MediaType: spec.OCIManifest, Digest: spec.FromSHA256(artifact.Sum(raw)), Size: int64(len(raw))}
	l.made[d.Digest] = raw
	return d, nil
}

// layer describes one layer, whose content must be the one that the config
// names. Each file is hashed once, under however many names it is listed.
func (l *Layout) layer(t *tarFile, name, diffID string, hashed map[string]dockerLayer) (spec.Descriptor, error) {
	file, err := t.resolve(name)
	if err != nil {
		return spec.Descriptor{}, refuse(l.name, "a layer cannot be read", err)
	}
	d, ok := hashed[file]
	if !ok {
		if d, err = hashLayer(t, file); err != nil {
			return spec.Descriptor{}, refuse(l.name, "layer "+clip(name)+" cannot be read", err)
		}
		hashed[file] = d
	}
	if d.diffID != diffID {
		return spec.Descriptor{}, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: l.name + ": layer " + clip(name),
			Reason: "is not the one that the image's config names", Want: clip(diffID), Got: d.diffID,
		}
	}
	l.blobs[d.Digest] = file
	return d.Descriptor, nil
}

// hashLayer hashes a layer as it lies there, and its content where it is
// compressed, in one pass.
func hashLayer(t *tarFile, name string) (_ dockerLayer, err error) {
	r, size, err := t.open(name)
	if err != nil {
		return dockerLayer{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stored := sha256.New()
	tee := io.TeeReader(r, stored)
	head := make([]byte, 2)
	n, err := io.ReadFull(tee, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return dockerLayer{}, err
	}
	d := dockerLayer{Descriptor: spec.Descriptor{MediaType: spec.OCILayer, Size: size}}
	content := io.MultiReader(bytes.NewReader(head[:n]), tee)
	packed := n == 2 && head[0] == 0x1f && head[1] == 0x8b
	if packed {
		d.MediaType += "+gzip"
		if content, err = gzip.NewReader(content); err != nil {
			return dockerLayer{}, err
		}
	}
	unpacked := sha256.New()
	buf := make([]byte, 256<<10)
	//nolint:gosec // hashed, never held; deflate makes at most 1032 times the archive of it
	if _, err := io.CopyBuffer(struct{ io.Writer }{unpacked}, content, buf); err != nil {
		return dockerLayer{}, err
	}
	if packed { // what gzip has not asked for
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, tee, buf); err != nil {
			return dockerLayer{}, err
		}
	}
	d.diffID = artifact.Digest(unpacked.Sum(nil)).String()
	d.Digest = spec.FromSHA256(artifact.Digest(stored.Sum(nil)))
	return d, nil
}
