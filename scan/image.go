package scan

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// whiteout is the mark of image-spec, layer.md, "Whiteouts": a file of that
// name hides the file whose name follows; opaque hides its folder's content.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// isWhiteout reports whether a file of a layer hides another. It lies in the
// layer's own tar archive: blob, compressed content, name; or blob, name.
func isWhiteout(f *walk.File) bool {
	return strings.HasPrefix(path.Base(f.Name()), whiteout) && len(rooted(f.Path[1:])) == 1
}

// rooted drops the nameless elements of a path: a layer's compression.
func rooted(p []string) []string {
	return slices.DeleteFunc(slices.Clone(p), func(s string) bool { return s == "" })
}

// A piece is a blob in its place in an artifact.
type piece struct {
	blob
	where []string // from the artifact to the blob, for people
	wants string   // what its media type says it is: "layer", or ""
}

// A platform is one image of an artifact: its layers, lowest first.
type platform struct {
	name   string
	digest string
	layers []int // into the pieces
}

// isManifest tells a manifest by the path that package oci gives it.
func isManifest(f artifact.File) bool { return path.Base(path.Dir(f.Path)) == "manifests" }

// pieces lists what of an artifact is walked. For images the manifests say
// what a blob is and where it belongs; elsewhere every file stands for itself.
func (s *session) pieces(sub Subject) ([]piece, []platform, error) {
	if !strings.HasPrefix(sub.Source, "oci/") {
		list := make([]piece, len(sub.Artifact.Files))
		for i, f := range sub.Artifact.Files {
			list[i] = piece{blob: blob{file: f, digest: f.Digest}, where: []string{f.Path}}
		}
		return list, nil, nil
	}
	t := &tree{s: s, sub: sub, files: make(map[string]artifact.File), placed: make(map[artifact.Digest]int)}
	for _, f := range sub.Artifact.Files {
		t.files[path.Base(f.Path)] = f
	}
	if err := t.read(); err != nil {
		return nil, nil, err
	}
	return t.list, t.platforms, nil
}

// A tree is an image with everything below it, as its manifests tell.
type tree struct {
	s         *session
	sub       Subject
	files     map[string]artifact.File // by digest as it is written
	list      []piece
	placed    map[artifact.Digest]int
	platforms []platform
}

// read visits the manifests that no other manifest names first, then what
// they name; what nothing names is walked all the same.
func (t *tree) read() error {
	manifests := make(map[string]*spec.Manifest)
	child := make(map[string]bool)
	for name, f := range t.files {
		if !isManifest(f) {
			continue
		}
		raw, err := t.s.small(f.Digest, spec.MaxManifest)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		m, err := spec.ParseManifest(raw, "")
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		manifests[name] = m
		for _, d := range m.Manifests {
			child[string(d.Digest)] = true
		}
	}
	for _, f := range t.sub.Artifact.Files {
		name := path.Base(f.Path)
		if m := manifests[name]; m != nil && !child[name] {
			t.manifest(name, m, manifests, nil, "")
		}
	}
	for _, f := range t.sub.Artifact.Files {
		t.place(f, false, []string{f.Path}, "")
	}
	return nil
}

// maxNesting bounds indexes within indexes; a loop cannot be, since a digest
// cannot contain itself, but a hostile one may be deep.
const maxNesting = 8

func (t *tree) manifest(name string, m *spec.Manifest, all map[string]*spec.Manifest, where []string, plat string) {
	f := t.files[name]
	kind := "manifest"
	if len(m.Manifests) > 0 {
		kind = "index"
	}
	at := append(slices.Clone(where), kind+" "+short(name))
	if plat != "" {
		at[len(at)-1] = plat + " " + short(name)
	}
	t.place(f, false, at, "")
	if len(at) > maxNesting {
		return
	}
	for _, d := range m.Manifests {
		if c := all[string(d.Digest)]; c != nil {
			p := ""
			if d.Platform != nil {
				p = d.Platform.String()
			}
			t.manifest(string(d.Digest), c, all, at, p)
		}
	}
	if m.Config != nil {
		t.member(m.Config.Digest, at, "config", false)
	}
	img := platform{name: plat, digest: name}
	root := false
	for n, d := range m.Layers {
		layer := isLayer(d.MediaType)
		root = root || layer
		if at := t.member(d.Digest, at, fmt.Sprintf("layer %d", n+1), layer); at >= 0 && layer {
			img.layers = append(img.layers, at)
		}
	}
	if root {
		if img.name == "" {
			img.name = "image"
		}
		t.platforms = append(t.platforms, img)
	}
}

// member places a blob that a manifest names, and answers its index or -1.
func (t *tree) member(d spec.Digest, where []string, what string, layer bool) int {
	f, ok := t.files[string(d)]
	if !ok {
		return -1 // a layer that is distributed elsewhere, or not selected
	}
	wants := ""
	if layer {
		wants = "layer"
	}
	return t.place(f, layer, append(slices.Clone(where), what+" "+short(string(d))), wants)
}

func (t *tree) place(f artifact.File, layer bool, where []string, wants string) int {
	if at, ok := t.placed[f.Digest]; ok {
		return at
	}
	t.placed[f.Digest] = len(t.list)
	t.list = append(t.list, piece{blob: blob{file: f, layer: layer, digest: f.Digest}, where: where, wants: wants})
	return len(t.list) - 1
}

// isLayer reports whether a media type is that of a root file system's layer,
// in image-spec or Docker's form.
func isLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.")
}

// short is a digest as people compare it: the first twelve hex digits.
func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

// small reads a whole blob of at most limit bytes.
func (s *session) small(d artifact.Digest, limit int64) (_ []byte, err error) {
	c, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := c.Close(); cerr != nil && err == nil {
			err = cerr
		}
	}()
	b, err := io.ReadAll(io.NewSectionReader(c, 0, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return b, nil
}

// merge lays layers over one another, lowest first, and answers the evidence
// that is still seen in the end.
func merge(layers []*blobResult) []Evidence {
	seen := make(map[string]Evidence)
	for _, l := range layers {
		for _, w := range l.record.Whiteouts {
			hide(seen, w)
		}
		for _, ev := range l.record.Evidence {
			// What lies in an archive of the root file system is named by the
			// archive first, so that it goes when the archive goes.
			seen[clean1(strings.Join(rooted(ev.Path), "\x00"))] = ev
		}
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	list := make([]Evidence, len(keys))
	for i, k := range keys {
		list[i] = seen[k]
	}
	return list
}

// clean1 is a name as layers may write it, "./usr/lib" or "usr/lib", in one
// form.
func clean1(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// hide takes away what a whiteout of a layer hides of the layers below it.
func hide(seen map[string]Evidence, marker string) {
	dir, base := path.Split(clean1(marker))
	if base == opaque {
		for k := range seen {
			if strings.HasPrefix(k, dir) {
				delete(seen, k)
			}
		}
		return
	}
	gone := dir + strings.TrimPrefix(base, whiteout)
	for k := range seen {
		if k == gone || strings.HasPrefix(k, gone+"/") || strings.HasPrefix(k, gone+"\x00") {
			delete(seen, k)
		}
	}
}
