package oci

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A Made is an image that was not read from a registry but made here, under
// one tag.
type Made struct {
	Repository string
	Tag        string
	Derived    string // as in [Image]: "model"
	Why        string // what it was made from
	// Manifests are the children, if there are any, and last the one that the
	// tag names.
	Manifests []MadeManifest
	// Blobs are the configs and layers. They are in the store.
	Blobs []MadeBlob
}

// A MadeManifest is the bytes of a manifest or an index.
type MadeManifest struct {
	MediaType string
	Raw       []byte
}

// A MadeBlob is a config or a layer.
type MadeBlob struct {
	Digest artifact.Digest
	Size   int64
}

// Assemble makes the snapshot that a [Publisher] of source publishes as
// exactly these images. It keeps the manifests and the record in the store.
// The same images, in whatever order, give the same snapshot. What the
// manifests say is not its business: [Publisher.Verify] reads them, as it
// does those of a bundle.
func Assemble(source string, st *store.Store, images []Made) (*artifact.Snapshot, error) {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Made) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), strings.Compare(a.Tag, b.Tag))
	})
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: source, Meta: []artifact.File{}, Artifacts: []artifact.Artifact{}}
	rec := &record{Repositories: []recordRepository{}}
	for i := range images {
		im := &images[i]
		if i > 0 && images[i-1].Repository == im.Repository && images[i-1].Tag == im.Tag {
			return nil, im.refuse(source, CodeNames, "is made twice", nil)
		}
		if err := im.check(source); err != nil {
			return nil, err
		}
		if n := len(rec.Repositories); n == 0 || rec.Repositories[n-1].Name != im.Repository {
			rec.Repositories = append(rec.Repositories, recordRepository{Name: im.Repository})
		}
		a, err := im.keep(source, st, &rec.Repositories[len(rec.Repositories)-1])
		if err != nil {
			return nil, err
		}
		snap.Artifacts = append(snap.Artifacts, *a)
	}
	failpoint.Here("oci.manifests-made")
	b, err := rec.encode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	d, err := st.PutBytes(b)
	if err != nil {
		return nil, err
	}
	failpoint.Here("oci.record-made")
	snap.Meta = append(snap.Meta, artifact.File{Path: recordPath, Digest: d, Size: int64(len(b))})
	if err := snap.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return snap, nil
}

func (m *Made) refuse(source, code, reason string, err error) error {
	class := artifact.ErrUnavailable
	if code == CodeIncomplete {
		class = artifact.ErrIntegrity
	}
	return &artifact.Refusal{Class: class, Code: code, Subject: fmt.Sprintf("%s: %s:%s", source, m.Repository, m.Tag), Reason: reason, Err: err}
}

// check holds what the names must be.
func (m *Made) check(source string) error {
	if err := spec.CheckName(m.Repository); err != nil {
		return m.refuse(source, CodeNames, "no registry takes the name", err)
	}
	if err := spec.CheckTag(m.Tag); err != nil {
		return m.refuse(source, CodeNames, "no registry takes the tag", err)
	}
	if len(m.Manifests) == 0 {
		return m.refuse(source, CodeIncomplete, "has no manifest", nil)
	}
	return nil
}

// keep stores the manifests, lists them in the repository's record, and
// answers the artifact.
func (m *Made) keep(source string, st *store.Store, r *recordRepository) (*artifact.Artifact, error) {
	a := &artifact.Artifact{Name: m.Repository, Version: m.Tag, Why: m.Why}
	for _, b := range m.Blobs {
		size, err := st.Size(b.Digest)
		if err != nil || size != b.Size {
			return nil, m.refuse(source, CodeIncomplete, fmt.Sprintf("blob %s of %d bytes is not in the store", b.Digest, b.Size), err)
		}
		a.Files = append(a.Files, artifact.File{Path: blobPath(m.Repository, spec.FromSHA256(b.Digest)), Digest: b.Digest, Size: b.Size})
	}
	var root spec.Digest
	for _, part := range m.Manifests {
		sum, err := st.PutBytes(part.Raw)
		if err != nil {
			return nil, err
		}
		root = spec.FromSHA256(sum)
		a.Files = append(a.Files, artifact.File{Path: manifestPath(m.Repository, root), Digest: sum, Size: int64(len(part.Raw))})
		if !slices.ContainsFunc(r.Manifests, func(o recordManifest) bool { return o.Digest == root }) {
			r.Manifests = append(r.Manifests, recordManifest{root, part.MediaType})
		}
	}
	slices.SortFunc(a.Files, func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) })
	a.Files = slices.Compact(a.Files) // two files of a model may be the same bytes
	r.Images = append(r.Images, Image{Version: m.Tag, Tag: m.Tag, Root: root, Derived: m.Derived})
	return a, nil
}
