package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// made is an image of some layers, and an index over it where that is asked
// for. Its blobs are in the store.
func made(t *testing.T, st *store.Store, repo, tag string, index bool, layers ...[]byte) Made {
	t.Helper()
	m := Made{Repository: repo, Tag: tag, Derived: "model", Why: "team/model@1"}
	keep := func(mediaType string, b []byte) spec.Descriptor {
		d, err := st.PutBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		m.Blobs = append(m.Blobs, MadeBlob{d, int64(len(b))})
		return spec.Descriptor{MediaType: mediaType, Digest: spec.FromSHA256(d), Size: int64(len(b))}
	}
	add := func(v spec.Manifest) spec.Descriptor {
		v.SchemaVersion = 2
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		m.Manifests = append(m.Manifests, MadeManifest{v.MediaType, raw})
		return spec.Descriptor{MediaType: v.MediaType, Digest: spec.FromSHA256(artifact.Sum(raw)), Size: int64(len(raw))}
	}
	config := keep(spec.OCIConfig, []byte(`{"made":"`+repo+tag+`"}`))
	v := spec.Manifest{MediaType: spec.OCIManifest, Config: &config}
	for _, l := range layers {
		v.Layers = append(v.Layers, keep(spec.OCILayer, l))
	}
	child := add(v)
	if index {
		add(spec.Manifest{MediaType: spec.OCIIndex, Manifests: []spec.Descriptor{child}})
	}
	return m
}

// Images that were made here are published as those of a bundle are.
func TestAssemble(t *testing.T) {
	w := newWorld(t)
	a, b := ocitest.Noise(4000, 1), ocitest.Noise(5000, 2)
	images := []Made{
		made(t, w.st, "team/model", "main", false, a, b, a), // one layer twice
		made(t, w.st, "team/model", "v1", true, a),
		made(t, w.st, "team/car", "main", true, b),
	}
	twin := images[0] // another tag of the same image
	twin.Tag = "latest"
	images = append(images, twin)
	snap, err := Assemble("oci/platform", w.st, images)
	if err != nil {
		t.Fatal(err)
	}
	set := w.set(snap)
	var got []string
	for i := range set.Repositories {
		r := &set.Repositories[i]
		checkOrder(t, r, w.st)
		for _, tag := range r.Tags() {
			got = append(got, r.Name+":"+tag.Name+" "+string(tag.Digest))
		}
	}
	var want []string
	for _, m := range images {
		root := m.Manifests[len(m.Manifests)-1].Raw
		want = append(want, m.Repository+":"+m.Tag+" "+artifact.Sum(root).String())
	}
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(set.Repositories[1].Manifests); n != 3 {
		t.Errorf("%d manifests in %s, want 3: those of two tags are one", n, set.Repositories[1].Name)
	}

	slices.Reverse(images)
	again, err := Assemble("oci/platform", w.st, images)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encoded(t, snap), encoded(t, again)) {
		t.Error("the order of the images makes another snapshot")
	}

	s := w.site(PublishConfig{Registry: "/mirror"})
	if text := s.publish(snap); !strings.Contains(text, "4 images   /v2/platform/") || !strings.Contains(text, "4 pushed, 0 unchanged") {
		t.Errorf("text: %q", text)
	}
	for i := range set.Repositories {
		s.same(w, &set.Repositories[i], "mirror/"+set.Repositories[i].Name)
	}
}

func encoded(t *testing.T, snap *artifact.Snapshot) []byte {
	t.Helper()
	b, err := snap.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Nothing made is a snapshot too: all that was there is gone.
func TestAssembleNothing(t *testing.T) {
	w := newWorld(t)
	s := w.site(PublishConfig{})
	full, err := Assemble("oci/platform", w.st, []Made{made(t, w.st, "team/model", "main", false, ocitest.Noise(10, 1))})
	if err != nil {
		t.Fatal(err)
	}
	s.publish(full)
	empty, err := Assemble("oci/platform", w.st, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(empty)
	at, ok, err := ReadPublished(s.dir)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	set, err := at.Load(w.st)
	if err != nil || len(set.Repositories) != 0 {
		t.Errorf("still there: %+v, %v", set, err)
	}
}

func TestAssembleRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Made)
		code  string
		class error
	}{
		"name":        {func(m *Made) { m.Repository = "Team/model" }, CodeNames, artifact.ErrUnavailable},
		"tag":         {func(m *Made) { m.Tag = "a/b" }, CodeNames, artifact.ErrUnavailable},
		"no manifest": {func(m *Made) { m.Manifests = nil }, CodeIncomplete, artifact.ErrIntegrity},
		"blob":        {func(m *Made) { m.Blobs[1].Digest[0]++ }, CodeIncomplete, artifact.ErrIntegrity},
		"size":        {func(m *Made) { m.Blobs[1].Size++ }, CodeIncomplete, artifact.ErrIntegrity},
		"twice":       {func(m *Made) { m.Repository = "team/other" }, CodeNames, artifact.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			st := openStore(t)
			bad := made(t, st, "team/model", "main", false, ocitest.Noise(10, 1))
			c.spoil(&bad)
			snap, err := Assemble("oci/platform", st, []Made{bad, made(t, st, "team/other", "main", false, ocitest.Noise(10, 2))})
			if snap != nil || !errors.Is(err, c.class) {
				t.Fatalf("got %v, %v", snap, err)
			}
			wantCode(t, err, c.code)
		})
	}
}

// What the manifests say is checked like that of any other image.
func TestAssembledIsVerified(t *testing.T) {
	w := newWorld(t)
	m := made(t, w.st, "team/model", "main", false, ocitest.Noise(10, 1))
	m.Blobs = m.Blobs[:1]
	snap, err := Assemble("oci/platform", w.st, []Made{m})
	if err != nil {
		t.Fatal(err)
	}
	err = w.site(PublishConfig{}).pub.Verify(t.Context(), snap, nil)
	wantCode(t, err, CodeIncomplete)
}
