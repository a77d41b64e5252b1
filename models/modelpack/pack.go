package modelpack

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/repo"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// Names of the model-spec and of the image-spec.
const (
	packType       = "application/vnd.cncf.model.manifest.v1+json"
	packConfig     = "application/vnd.cncf.model.config.v1+json"
	noteFilepath   = "org.cncf.model.filepath"
	noteMetadata   = "org.cncf.model.file.metadata+json"
	noteUntested   = "org.cncf.model.file.mediatype.untested"
	noteTitle      = "org.opencontainers.image.title"
	noteRevision   = "org.opencontainers.image.revision"
	fileMode       = 0o644
	licenceRefMost = 64 // characters of a licence's name
)

// layerTypes are the raw layers of the model-spec.
var layerTypes = map[repo.Kind]string{
	repo.Weight:  "application/vnd.cncf.model.weight.v1.raw",
	repo.Config:  "application/vnd.cncf.model.weight.config.v1.raw",
	repo.Doc:     "application/vnd.cncf.model.doc.v1.raw",
	repo.Code:    "application/vnd.cncf.model.code.v1.raw",
	repo.Dataset: "application/vnd.cncf.model.dataset.v1.raw",
}

// formats are the words of the model-spec for what weights are, by extension.
var formats = map[string]string{
	".safetensors": "safetensors", ".gguf": "gguf", ".onnx": "onnx", ".bin": "pt", ".pt": "pt", ".pth": "pt",
}

// spdx are the licences that the hub calls as SPDX does, for which letter case
// is all one.
const spdx = " afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0" +
	" cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0" +
	" cc-by-sa-4.0 cc0-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1" +
	" osl-3.0 postgresql unlicense wtfpl zlib "

// An image is what the tags of one revision name.
type image struct {
	manifests []oci.MadeManifest // children first
	blobs     []oci.MadeBlob
}

// A modelConfig is the model-spec's configuration of an artifact.
type modelConfig struct {
	Descriptor modelDescriptor `json:"descriptor"`
	ModelFS    modelFS         `json:"modelfs"`
	Config     modelTraits     `json:"config"`
}

type modelDescriptor struct {
	Name     string   `json:"name"`
	Revision string   `json:"revision"`
	Licenses []string `json:"licenses,omitempty"` // SPDX expressions
}

type modelFS struct {
	Type    string        `json:"type"`
	DiffIDs []spec.Digest `json:"diffIds"`
}

type modelTraits struct {
	Format string `json:"format,omitempty"`
}

// A fileMetadata is what the model-spec tells of a raw layer's file.
type fileMetadata struct {
	Name     string    `json:"name"`
	Mode     uint32    `json:"mode"`
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Size     int64     `json:"size"`
	ModTime  time.Time `json:"mtime"`
	Typeflag byte      `json:"typeflag"` // 0: a file
}

// epoch is the time of every file: a hub tells none.
var epoch = time.Unix(0, 0).UTC()

// pack makes the ModelPack artifact of a revision.
func (t *Target) pack(_ context.Context, r *models.Revision) (*image, error) {
	im := &image{}
	layers := make([]spec.Descriptor, len(r.Files))
	c := modelConfig{
		Descriptor: modelDescriptor{Name: path.Base(r.Repo.ID), Revision: r.Commit, Licenses: licences(r.Licence)},
		ModelFS:    modelFS{Type: "layers", DiffIDs: make([]spec.Digest, len(r.Files))},
		Config:     modelTraits{Format: format(r)},
	}
	for i := range r.Files {
		f := &r.Files[i]
		meta, err := json.Marshal(fileMetadata{Name: path.Base(f.Path), Mode: fileMode, Size: f.Size, ModTime: epoch})
		if err != nil {
			return nil, err
		}
		layers[i] = spec.Descriptor{
			MediaType: layerType(r.Repo, f.Path), Digest: spec.FromSHA256(f.Blob), Size: f.Size,
			// The kind is told from the name.
			Annotations: map[string]string{noteFilepath: f.Path, noteTitle: f.Path, noteMetadata: string(meta), noteUntested: "true"},
		}
		c.ModelFS.DiffIDs[i] = layers[i].Digest
		im.blobs = append(im.blobs, oci.MadeBlob{Digest: f.Blob, Size: f.Size})
	}
	config, err := t.keep(im, packConfig, c)
	if err != nil {
		return nil, err
	}
	_, err = t.add(im, r, &spec.Manifest{MediaType: spec.OCIManifest, ArtifactType: packType, Config: config, Layers: layers})
	return im, err
}

// keep puts a JSON document into the store as a blob of the image.
func (t *Target) keep(im *image, mediaType string, v any) (*spec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d, err := t.st.PutBytes(b)
	if err != nil {
		return nil, err
	}
	im.blobs = append(im.blobs, oci.MadeBlob{Digest: d, Size: int64(len(b))})
	return &spec.Descriptor{MediaType: mediaType, Digest: spec.FromSHA256(d), Size: int64(len(b))}, nil
}

// add encodes a manifest of the image.
func (t *Target) add(im *image, r *models.Revision, m *spec.Manifest) (*spec.Descriptor, error) {
	m.SchemaVersion = 2
	m.Annotations = map[string]string{noteTitle: r.Repo.String(), noteRevision: r.Commit}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) > spec.MaxMembers || len(b) > spec.MaxManifest {
		return nil, t.refuse(r.Repo.String()+"@"+r.Commit, fmt.Sprintf("has %d files, too many for a manifest: want at most %d, in %d bytes", len(r.Files), spec.MaxMembers, spec.MaxManifest), nil)
	}
	im.manifests = append(im.manifests, oci.MadeManifest{MediaType: m.MediaType, Raw: b})
	return &spec.Descriptor{MediaType: m.MediaType, Digest: spec.FromSHA256(artifact.Sum(b)), Size: int64(len(b))}, nil
}

// layerType is the media type of a file. Of a dataset, what is neither text
// for people nor a program is data, whatever it is called.
func layerType(name hub.Repo, file string) string {
	k := repo.KindOf(file)
	if name.Kind == hub.Dataset && (k == repo.Weight || k == repo.Config) {
		k = repo.Dataset
	}
	return layerTypes[k]
}

// format is what the weights are, where all of them are the same.
func format(r *models.Revision) string {
	found := ""
	for i := range r.Files {
		p := r.Files[i].Path
		if repo.KindOf(p) != repo.Weight {
			continue
		}
		f := formats[strings.ToLower(path.Ext(p))]
		if f == "" || found != "" && f != found {
			return ""
		}
		found = f
	}
	return found
}

// licences are an SPDX expression of the card's word, which is the hub's own
// for a licence that SPDX does not list.
func licences(l repo.Licence) []string {
	id := strings.ToLower(l.ID)
	if strings.Contains(spdx, " "+id+" ") {
		return []string{id}
	}
	if id == "other" {
		id = l.Name
	}
	if id == "" || id == "unknown" || len(id) > licenceRefMost {
		return nil
	}
	return []string{"LicenseRef-" + strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' {
			return c
		}
		return '-'
	}, id)}
}
