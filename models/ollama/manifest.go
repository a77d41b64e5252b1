package ollama

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
)

const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	configType   = "application/vnd.docker.container.image.v1+json"
	layerType    = "application/vnd.ollama.image." // model, projector, template, system, params, license

	// maxManifest bounds a manifest that is read: of a model with thousands
	// of tensors as layers it has 1 MiB.
	maxManifest = 8 << 20
	// maxDocument bounds a template, a system prompt or parameters.
	maxDocument = 1 << 20
)

// A manifest is what Ollama keeps of a tag.
type manifest struct {
	SchemaVersion int     `json:"schemaVersion"`
	MediaType     string  `json:"mediaType"`
	Config        layer   `json:"config"`
	Layers        []layer `json:"layers"`
}

type layer struct {
	MediaType string          `json:"mediaType"`
	Digest    artifact.Digest `json:"digest"`
	Size      int64           `json:"size"`
	// content is that of a document of ours; others lie in the store.
	content []byte
}

// A config tells people what a model is.
type config struct {
	Format       string   `json:"model_format"`
	Family       string   `json:"model_family"`
	Families     []string `json:"model_families"`
	Type         string   `json:"model_type"`
	FileType     string   `json:"file_type"`
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	RootFS       rootFS   `json:"rootfs"`
}

type rootFS struct {
	Type    string            `json:"type"`
	DiffIDs []artifact.Digest `json:"diff_ids"`
}

// stored is a layer whose content is a file of the revision.
func stored(kind string, f *models.File) layer {
	return layer{MediaType: layerType + kind, Digest: f.Blob, Size: f.Size}
}

// made is a layer whose content is ours.
func made(mediaType string, b []byte) layer {
	return layer{MediaType: mediaType, Digest: artifact.Sum(b), Size: int64(len(b)), content: b}
}

// encode writes JSON as Ollama does, with a newline.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	err := json.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

// A model is one GGUF file of a revision with what belongs to it.
type model struct {
	file   *models.File
	head   head
	quant  string // its tag on main
	layers []layer
}

// manifest writes what a tag of the model stands for. All layers, the
// configuration too, are returned in all.
func (m *model) manifest() (b []byte, all []layer, err error) {
	c := config{
		Format: "gguf", Family: m.head.Family, Families: []string{m.head.Family}, Type: m.head.size(),
		FileType: cmp.Or(m.head.FileType, "unknown"), Architecture: "amd64", OS: "linux", RootFS: rootFS{Type: "layers"},
	}
	for _, l := range m.layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	text, err := encode(c)
	if err != nil {
		return nil, nil, err
	}
	about := made(configType, text)
	b, err = encode(manifest{SchemaVersion: 2, MediaType: manifestType, Config: about, Layers: m.layers})
	return b, append([]layer{about}, m.layers...), err
}

// documents are the layers that all models of a revision share: what its
// author says in files of Ollama's own form, and the licence. A file that only
// has such a name is none.
func (r *repository) documents(rev *models.Revision) ([]layer, error) {
	var list []layer
	for _, kind := range []string{"template", "system", "params"} {
		f, ok := rev.File(kind)
		if !ok || f.Size > maxDocument {
			continue
		}
		b, err := r.st.ReadAll(f.Blob, maxDocument)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		var params map[string]any
		if kind == "params" && json.Unmarshal(b, &params) != nil || !utf8.Valid(b) {
			continue
		}
		list = append(list, stored(kind, f))
	}
	for _, p := range rev.Licence.Files {
		if f, ok := rev.File(p); ok && !strings.HasPrefix(strings.ToLower(path.Base(p)), "readme") && f.Size <= maxDocument {
			list = append(list, stored("license", f))
		}
	}
	return list, nil
}

// chatLayers are the template and the parameters of a model whose own template
// is known, where its author brings none.
func chatLayers(h head, has []layer) ([]layer, error) {
	c, ok := chats()[h.Chat]
	for _, l := range has {
		ok = ok && l.MediaType != layerType+"template"
	}
	if !ok {
		return nil, nil
	}
	list := []layer{made(layerType+"template", []byte(c.template))}
	for _, l := range has {
		if l.MediaType == layerType+"params" {
			return list, nil
		}
	}
	params, err := encode(map[string][]string{"stop": c.stop})
	return append(list, made(layerType+"params", params)), err
}
