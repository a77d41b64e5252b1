package modelpack

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxLayers is below what runtimes stack upon another: 127 in docker.
	maxLayers = 100
	// ownLayer is from where a file has a layer of its own: layers are pulled
	// side by side, and the next revision has those that stay.
	ownLayer = 16 << 20
	// whiteout begins the names that take files of other layers away
	// (image-spec, layer.md).
	whiteout = ".wh."
)

// architectures are those that engines run on. The files are the same.
var architectures = []string{"amd64", "arm64"}

// An imageConfig is the image-spec's configuration of an image that runs
// nothing.
type imageConfig struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	Config       struct{} `json:"config"`
	RootFS       rootFS   `json:"rootfs"`
}

type rootFS struct {
	Type    string        `json:"type"`
	DiffIDs []spec.Digest `json:"diff_ids"`
}

// car makes the modelcar of a revision.
func (t *Target) car(ctx context.Context, r *models.Revision) (*image, error) {
	for i := range r.Files {
		for part := range strings.SplitSeq(r.Files[i].Path, "/") {
			if strings.HasPrefix(part, whiteout) {
				return nil, t.refuse(r.Repo.String()+"@"+r.Commit, "in a layer of an image "+r.Files[i].Path+" would take other files away", nil)
			}
		}
	}
	im := &image{}
	var layers []spec.Descriptor
	var ids []spec.Digest // of what is not compressed, the same
	for _, l := range split(r.Files) {
		b, err := t.materialise(ctx, l)
		if err != nil {
			return nil, err
		}
		d := spec.FromSHA256(b.Digest)
		layers = append(layers, spec.Descriptor{MediaType: spec.OCILayer, Digest: d, Size: b.Size})
		ids = append(ids, d)
		im.blobs = append(im.blobs, b)
	}
	index := &spec.Manifest{MediaType: spec.OCIIndex}
	for _, arch := range architectures {
		config, err := t.keep(im, spec.OCIConfig, imageConfig{Architecture: arch, OS: "linux", RootFS: rootFS{"layers", ids}})
		if err != nil {
			return nil, err
		}
		child, err := t.add(im, r, &spec.Manifest{MediaType: spec.OCIManifest, Config: config, Layers: layers})
		if err != nil {
			return nil, err
		}
		child.Platform = &spec.Platform{Architecture: arch, OS: "linux"}
		index.Manifests = append(index.Manifests, *child)
	}
	_, err := t.add(im, r, index)
	return im, err
}

// split groups files into layers: the small ones in the first, each large one
// by itself, or as few together as it takes.
func split(files []models.File) []layer {
	var small, large layer
	for _, f := range files {
		if f.Size < ownLayer {
			small = append(small, f)
		} else {
			large = append(large, f)
		}
	}
	var list []layer
	if len(small) > 0 {
		list = append(list, small)
	}
	together := max(1, (len(large)+maxLayers-2)/(maxLayers-1))
	return slices.AppendSeq(list, slices.Chunk(large, together))
}

// folders are the parents of a file, from the outermost.
func folders(name string) []string {
	var list []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		list = append(list, dir)
	}
	slices.Reverse(list)
	return list
}
