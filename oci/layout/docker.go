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

// A dockerImage is an entry of the old form's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readDocker reads an old archive. Its layers are hashed here, once: nothing
// in the archive names the bytes of a layer but the config's diff_ids, which
// are compared.
func (l *Layout) readDocker() error {
	b, err := l.read("manifest.json", spec.MaxManifest)
	if err != nil {
		return err
	}
	var images []dockerImage
	if err := json.Unmarshal(b, &images); err != nil {
		return refuse(l.name, "manifest.json cannot be read", err)
	}
	l.made, l.blobs = make(map[spec.Digest][]byte), make(map[spec.Digest]string)
	hashed := make(map[string]spec.Descriptor)
	for i, im := range images {
		d, err := l.image(im, hashed)
		if err != nil {
			return fmt.Errorf("%s: manifest.json, image %d: %w", l.name, i, err)
		}
		if len(im.RepoTags) == 0 {
			l.refs = append(l.refs, Ref{"", d})
		}
		for _, name := range im.RepoTags {
			l.refs = append(l.refs, Ref{name, d})
		}
		if len(l.refs) > spec.MaxMembers {
			return refuse(l.name, fmt.Sprintf("lists more than %d images", spec.MaxMembers), nil)
		}
	}
	if len(l.refs) == 0 {
		return refuse(l.name, "manifest.json lists no image", nil)
	}
	return nil
}

// image makes the manifest of one image.
func (l *Layout) image(im dockerImage, hashed map[string]spec.Descriptor) (spec.Descriptor, error) {
	config, err := l.read(path.Clean(im.Config), maxConfig)
	if err != nil {
		return spec.Descriptor{}, err
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return spec.Descriptor{}, refuse(l.name, "the config "+clip(im.Config)+" cannot be read", err)
	}
	if len(c.RootFS.DiffIDs) != len(im.Layers) {
		return spec.Descriptor{}, refuse(l.name, fmt.Sprintf("the config names %d layers, manifest.json %d", len(c.RootFS.DiffIDs), len(im.Layers)), nil)
	}
	m := spec.Manifest{
		SchemaVersion: 2, MediaType: spec.OCIManifest,
		Config: &spec.Descriptor{MediaType: spec.OCIConfig, Digest: spec.FromSHA256(artifact.Sum(config)), Size: int64(len(config))},
	}
	l.blobs[m.Config.Digest] = path.Clean(im.Config)
	for i, name := range im.Layers {
		d, err := l.layer(path.Clean(name), c.RootFS.DiffIDs[i], hashed)
		if err != nil {
			return spec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return spec.Descriptor{}, err
	}
	d := spec.Descriptor{MediaType: spec.OCIManifest, Digest: spec.FromSHA256(artifact.Sum(raw)), Size: int64(len(raw))}
	l.made[d.Digest] = raw
	return d, nil
}

// layer hashes one layer, and its content where it is compressed, and compares
// with the config.
func (l *Layout) layer(name, diffID string, hashed map[string]spec.Descriptor) (_ spec.Descriptor, err error) {
	if d, ok := hashed[name+" "+diffID]; ok {
		return d, nil
	}
	r, size, err := l.files.open(name)
	if err != nil {
		return spec.Descriptor{}, refuse(l.name, "a layer cannot be read", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stored := sha256.New()
	tee := io.TeeReader(r, stored)
	head := make([]byte, 2)
	n, err := io.ReadFull(tee, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return spec.Descriptor{}, refuse(l.name, "layer "+clip(name)+" cannot be read", err)
	}
	d := spec.Descriptor{MediaType: spec.OCILayer, Size: size}
	content := io.MultiReader(bytes.NewReader(head[:n]), tee)
	if n == 2 && head[0] == 0x1f && head[1] == 0x8b {
		d.MediaType += "+gzip"
		z, err := gzip.NewReader(content)
		if err != nil {
			return spec.Descriptor{}, refuse(l.name, "layer "+clip(name)+" cannot be read", err)
		}
		content = z
	}
	unpacked := sha256.New()
	buf := make([]byte, 256<<10)
	if _, err := io.CopyBuffer(struct{ io.Writer }{unpacked}, content, buf); err != nil {
		return spec.Descriptor{}, refuse(l.name, "layer "+clip(name)+" cannot be read", err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, tee, buf); err != nil { // what lies behind the gzip
		return spec.Descriptor{}, refuse(l.name, "layer "+clip(name)+" cannot be read", err)
	}
	if got := spec.FromSHA256(artifact.Digest(unpacked.Sum(nil))); string(got) != diffID {
		return spec.Descriptor{}, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: l.name + ": layer " + clip(name),
			Reason: "is not the one that the image's config names", Want: clip(diffID), Got: string(got),
		}
	}
	d.Digest = spec.FromSHA256(artifact.Digest(stored.Sum(nil)))
	l.blobs[d.Digest] = name
	hashed[name+" "+diffID] = d
	return d, nil
}
