// Package layout reads images that lie on this host: OCI image layouts, as a
// folder or in a tar, and archives of "docker save", the old form and the new
// one, which is an OCI layout too.
//
// Specifications: OCI image-spec v1.1.1, image-layout.md; for the old form
// Docker's "Image Specification v1.2" (manifest.json), whose archives hold
// uncompressed layers and no registry manifest: one is made of them.
//
// Invariants:
//   - Nothing outside the folder is read: it is opened with os.Root, and no link
//     in it is followed. A tar's symbolic links are names of its own entries and
//     of nothing else, one step far: docker and podman share layers so. Hard
//     links are refused.
//   - A tar is read in one way only: names that stand twice, sparse files, and a
//     tar without its end are refused. So are keys of JSON that stand twice.
//   - What [Layout.Open] hands out is not verified; its caller knows the
//     digest.
//   - The manifest that is made of an old archive depends on its bytes alone:
//     the config unchanged, the layers as they lie there.
//
// Limits: documents by spec.MaxManifest, configs by [maxConfig], entries of a
// tar by [maxEntries] and their names by [maxNames], references by
// spec.MaxMembers, layers of an old archive by [maxLayers]. Layers are never held
// in memory.
package layout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxConfig bounds an image's config. Real ones have tens of kilobytes.
	maxConfig = 8 << 20
	// layoutVersion is the only one there is.
	layoutVersion = "1.0.0"
)

// CodeLayout is the refusal of what is no layout and no archive, or a broken
// one.
const CodeLayout = "OCI-LAYOUT"

// Annotations that name an entry of index.json. containerd writes the full
// name, everybody the tag.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

// A Ref is an entry of index.json, or an image of an old archive.
type Ref struct {
	// Name is "registry.example/team/app:1.0", a tag alone, or empty.
	Name       string
	Descriptor spec.Descriptor
}

// A Layout is a set of images. It may be used concurrently. The files that it
// reads must not change meanwhile.
type Layout struct {
	name  string
	files files
	refs  []Ref
	made  map[spec.Digest][]byte // manifests of an old archive
	blobs map[spec.Digest]string // where its configs and layers lie
}

// files are the files of a folder or of a tar.
type files interface {
	// open opens a regular file; the error matches fs.ErrNotExist where there
	// is none of that name.
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

func refuse(name, reason string, err error) error {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeLayout, Subject: name, Reason: reason, Err: err}
}

// OpenLayout opens a folder.
func OpenLayout(dir string) (*Layout, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("layout: %w", err)
	}
	l := &Layout{name: dir, files: folder{root}}
	if err := l.readIndex(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return l, nil
}

// OpenArchive opens a tar. Its entries are listed once.
func OpenArchive(file string) (*Layout, error) {
	t, err := openTar(file)
	if err != nil {
		return nil, err
	}
	l := &Layout{name: file, files: t}
	switch {
	case t.has("oci-layout"):
		err = l.readIndex()
	case t.has("manifest.json"):
		err = l.readDocker(t)
	default:
		err = refuse(file, "holds neither oci-layout nor manifest.json: no image archive", nil)
	}
	if err != nil {
		return nil, errors.Join(err, t.f.Close())
	}
	return l, nil
}

// Close closes the folder or file. Readers of a tar end with it.
func (l *Layout) Close() error { return l.files.Close() }

// Refs are the images, in the order of the file that lists them.
func (l *Layout) Refs() []Ref { return l.refs }

// Open opens a blob or manifest; size is what lies there. The error matches
// fs.ErrNotExist where the layout does not have it.
func (l *Layout) Open(d spec.Digest) (io.ReadCloser, int64, error) {
	if b, ok := l.made[d]; ok {
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
	name, ok := l.blobs[d]
	if !ok {
		if l.blobs != nil {
			return nil, 0, fmt.Errorf("%s: %s: %w", l.name, d, fs.ErrNotExist)
		}
		name = path.Join("blobs", d.Algorithm(), d.Hex())
	}
	r, size, err := l.files.open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", l.name, err)
	}
	return r, size, nil
}

// read reads a small file whole.
func (l *Layout) read(name string, limit int64) (_ []byte, err error) {
	r, size, err := l.files.open(name)
	if err != nil {
		return nil, refuse(l.name, name+" cannot be read", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if size > limit {
		return nil, refuse(l.name, fmt.Sprintf("%s has %d bytes, at most %d are read", name, size, limit), nil)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, refuse(l.name, name+" cannot be read", err)
	}
	return b, nil
}

// readIndex reads an OCI layout. An entry that is an index in which every
// child has a name of its own is a list of images, not an image.
func (l *Layout) readIndex() error {
	b, err := l.read("oci-layout", spec.MaxManifest)
	if err != nil {
		return err
	}
	var v struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := unmarshal(b, &v); err != nil || v.Version != layoutVersion {
		return refuse(l.name, fmt.Sprintf("oci-layout names version %q, want %q", clip(v.Version), layoutVersion), err)
	}
	if b, err = l.read("index.json", spec.MaxManifest); err != nil {
		return err
	}
	m, err := spec.ParseManifest(b, spec.OCIIndex)
	if err != nil {
		return refuse(l.name, "index.json cannot be read", err)
	}
	for _, d := range m.Manifests {
		if nameOf(d) == "" && (d.MediaType == spec.OCIIndex || d.MediaType == spec.DockerList) {
			list, err := l.listOf(d)
			if err != nil {
				return err
			}
			if list != nil {
				if err := l.add(list.Manifests...); err != nil {
					return err
				}
				continue
			}
		}
		if err := l.add(d); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) add(list ...spec.Descriptor) error {
	for _, d := range list {
		l.refs = append(l.refs, Ref{nameOf(d), d})
	}
	if len(l.refs) > spec.MaxMembers {
		return refuse(l.name, fmt.Sprintf("lists more than %d images", spec.MaxMembers), nil)
	}
	return nil
}

func nameOf(d spec.Descriptor) string {
	if name := d.Annotations[containerdName]; name != "" {
		return name
	}
	return d.Annotations[refName]
}

// listOf reads an index without a name; it is nil where it is an image of its
// own: where not all of its children have names.
func (l *Layout) listOf(d spec.Descriptor) (*spec.Manifest, error) {
	b, err := l.read(path.Join("blobs", d.Digest.Algorithm(), d.Digest.Hex()), spec.MaxManifest)
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Sum(b); got != d.Digest {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: l.name, Reason: "a manifest has another digest than its name",
			Want: string(d.Digest), Got: string(got),
		}
	}
	m, err := spec.ParseManifest(b, d.MediaType)
	if err != nil {
		return nil, refuse(l.name, string(d.Digest)+" cannot be read", err)
	}
	for _, c := range m.Manifests {
		if nameOf(c) == "" {
			return nil, nil
		}
	}
	if len(m.Manifests) == 0 {
		return nil, nil
	}
	return m, nil
}

// readOnly opens a file without waiting for a writer, should it be a pipe.
const readOnly = os.O_RDONLY | syscall.O_NONBLOCK

// A folder is a layout that is not packed.
type folder struct{ root *os.Root }

func (f folder) open(name string) (io.ReadCloser, int64, error) {
	// Lstat first, of every part: a link is refused, whether or not it stays
	// inside. os.Root holds the border even where one is made meanwhile.
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		fi, err := f.root.Lstat(dir)
		if err != nil {
			return nil, 0, err
		}
		if !fi.IsDir() {
			return nil, 0, fmt.Errorf("%s is no folder but %s", dir, fi.Mode().Type())
		}
	}
	fi, err := f.root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !fi.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no regular file but %s", name, fi.Mode().Type())
	}
	r, err := f.root.OpenFile(name, readOnly, 0)
	if err != nil {
		return nil, 0, err
	}
	at, err := r.Stat()
	if err != nil || !os.SameFile(fi, at) {
		return nil, 0, errors.Join(fmt.Errorf("%s was exchanged while it was opened", name), err, r.Close())
	}
	return r, at.Size(), nil
}

func (f folder) Close() error { return f.root.Close() }

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
