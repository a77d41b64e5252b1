package oci

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

func TestResolveTakesTheClosure(t *testing.T) {
	for name, opts := range map[string][]ocitest.Option{"referrers API": nil, "fallback tag": {ocitest.NoReferrersAPI()}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "team/app:1.0")
			w.reg.Set(opts...)
			s := w.signed("team/app", "1.0", 1)
			w.fallback("team/app", s.index, s.sbom)
			w.fallback("team/app", s.sbom, s.sbomSig)
			snap, notes := w.resolve(nil)
			set := w.set(snap)
			if len(set.Repositories) != 1 || set.Repositories[0].Name != "registry.example/team/app" {
				t.Fatalf("repositories: %+v", set.Repositories)
			}
			r := &set.Repositories[0]
			var want []string
			for _, o := range []*ocitest.Object{s.index, s.amd64, s.arm64, s.sbom, s.sbomSig, s.cosign} {
				want = append(want, string(o.Digest))
			}
			slices.Sort(want)
			if d := cmp.Diff(want, digestsOf(r.Manifests)); d != "" {
				t.Errorf("manifests: %s", d)
			}
			checkOrder(t, r, w.st)
			for _, m := range r.Manifests {
				raw, _, _, ok := w.reg.Manifest("team/app", string(m.Digest))
				have, err := w.st.ReadAll(m.Blob, spec.MaxManifest)
				if !ok || err != nil || string(raw) != string(have) {
					t.Errorf("%s: the bytes differ from upstream's (%v)", m.Digest, err)
				}
			}
			im := r.Images[0]
			if im.Root != s.index.Digest || im.Tag != "1.0" || len(im.Attached) != 1 || im.Attached[0].Digest != s.cosign.Digest {
				t.Errorf("image: %+v", im)
			}
			if !contains(notes, "3 referrers: 1 application/spdx+json, 1 application/vnd.example.signature, 1 cosign .sig") {
				t.Errorf("notes: %q", notes)
			}
			pub, err := NewPublisher(PublishConfig{Name: "platform"}, "oci/platform", nil, w.st, t.TempDir(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := pub.Verify(t.Context(), snap, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// What did not change is found out by HEAD and by asking for referrers; no
// manifest is read twice, and the snapshot is the same.
func TestResolveUnchanged(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	first, _ := w.resolve(nil)
	w.reg.ResetLog()
	second, notes := w.resolve(first)
	a, err := first.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Encode()
	if err != nil || string(a) != string(b) {
		t.Errorf("the snapshot changed: %v", err)
	}
	if n := w.reg.Count("GET", "/manifests/") + w.reg.Count("GET", "/blobs/"); n != 0 {
		t.Errorf("%d manifests and blobs were read again", n)
	}
	if contains(notes, "elsewhere") {
		t.Errorf("notes: %q", notes)
	}
	// A tag that moved is told, and only what is new is read.
	w.signed("team/app", "1.0", 50)
	third, notes := w.resolve(first)
	if !contains(notes, "app:1.0 now points elsewhere") {
		t.Errorf("notes: %q", notes)
	}
	if w.set(third).Repositories[0].Images[0].Root == w.set(first).Repositories[0].Images[0].Root {
		t.Error("the tag did not move")
	}
	// A referrer that came later crosses with the next bundle.
	sbom := ocitest.Artifact("application/vnd.cyclonedx+json", w.objectOf("team/app", "1.0"), []byte("{}"))
	w.reg.Put("team/app", "", sbom)
	fourth, _ := w.resolve(third)
	if !slices.Contains(digestsOf(w.set(fourth).Repositories[0].Manifests), string(sbom.Digest)) {
		t.Error("a later referrer was not found")
	}
}

func (w *world) objectOf(repo, ref string) *ocitest.Object {
	raw, mediaType, d, ok := w.reg.Manifest(repo, ref)
	if !ok {
		w.t.Fatalf("%s:%s is not there", repo, ref)
	}
	return &ocitest.Object{Descriptor: spec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}, Raw: raw}
}

func TestResolveLosesOneImage(t *testing.T) {
	w := newWorld(t, "team/app:1.0", "team/gone:1", "team/old:1")
	w.signed("team/app", "1.0", 1)
	w.reg.AddManifest("team/old", "1", spec.DockerSigned1, []byte(`{"schemaVersion":1,"fsLayers":[]}`))
	snap, lost := w.lost(nil)
	if len(snap.Artifacts) != 1 || snap.Artifacts[0].Name != "registry.example/team/app" {
		t.Errorf("artifacts: %+v", snap.Artifacts)
	}
	if len(lost) != 2 || lost[0].Name != "registry.example/team/gone" || lost[1].Name != "registry.example/team/old" {
		t.Fatalf("lost: %+v", lost)
	}
	wantCode(t, lost[0].Err, CodeMissing)
	wantCode(t, lost[1].Err, spec.CodeSchema1)
	if errors.Is(lost[1].Err, artifact.ErrIntegrity) {
		t.Error("an old format is no forgery")
	}
}

// An image that cannot be had any more stays inside as it was.
func TestResolveKeepsWhatWasSealed(t *testing.T) {
	w := newWorld(t, "team/app:1.0", "team/other:2")
	w.signed("team/app", "1.0", 1)
	w.signed("team/other", "2", 30)
	first, _ := w.resolve(nil)
	w.reg.Untag("team/other", "2")
	snap, lost := w.lost(first)
	if len(lost) != 1 || !strings.Contains(lost[0].Err.Error(), "stays as it was sealed before") {
		t.Errorf("lost: %+v", lost)
	}
	a, err := first.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := snap.Encode(); err != nil || string(a) != string(b) {
		t.Errorf("the snapshot changed: %v", err)
	}
}

func TestResolveByDigest(t *testing.T) {
	w := newWorld(t)
	s := w.signed("team/app", "1.0", 1)
	w.cfg.Images = []string{"team/app@" + string(s.amd64.Digest), "team/app:0.9@" + string(s.index.Digest)}
	snap, _ := w.resolve(nil)
	var got []Image
	for _, im := range w.set(snap).Repositories[0].Images {
		got = append(got, Image{Version: im.Version, Tag: im.Tag, Root: im.Root})
	}
	want := []Image{{Version: "0.9", Tag: "0.9", Root: s.index.Digest}, {Version: string(s.amd64.Digest), Root: s.amd64.Digest}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSelectionIsEmpty(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	w.cfg.Select = []Select{{Repository: "team/app", Semver: ">=2"}}
	_, lost := w.lost(nil)
	wantCode(t, lost[0].Err, CodeEmpty)
	w.cfg.Select[0].Optional = true
	w.resolve(nil)
}

func TestPlatforms(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	amd64, arm64 := ocitest.ImageFor("linux/amd64", ocitest.Noise(9, 1)), ocitest.ImageFor("linux/arm64", ocitest.Noise(9, 2))
	attest := ocitest.ImageFor("unknown/unknown", ocitest.Noise(9, 3))
	attest.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", attestationOf: string(amd64.Digest)}
	other := ocitest.ImageFor("unknown/unknown", ocitest.Noise(9, 4))
	other.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", attestationOf: string(arm64.Digest)}
	index := ocitest.Index(amd64, arm64, attest, other)
	w.reg.Put("team/app", "1.0", index)
	w.cfg.Platforms = []string{"linux/amd64"}

	snap, notes := w.resolve(nil)
	r := &w.set(snap).Repositories[0]
	im := r.Images[0]
	if im.Original != index.Digest || im.Root == index.Digest || !slices.Equal(im.Dropped, []string{"linux/arm64"}) {
		t.Errorf("image: %+v", im)
	}
	if d := cmp.Diff(sorted(amd64.Digest, attest.Digest, im.Root), digestsOf(r.Manifests)); d != "" {
		t.Errorf("manifests: %s", d)
	}
	raw, err := w.st.ReadAll(r.Manifests[len(r.Manifests)-1].Blob, spec.MaxManifest)
	if err != nil {
		t.Fatal(err)
	}
	var top struct{ Annotations map[string]string }
	if err := json.Unmarshal(raw, &top); err != nil || top.Annotations[originalDigest] != string(index.Digest) || top.Annotations[droppedPlatform] != "linux/arm64" {
		t.Errorf("annotations %v, %v", top.Annotations, err)
	}
	if !contains(notes, "app:1.0 without linux/arm64") {
		t.Errorf("notes: %q", notes)
	}
	again, _ := w.resolve(snap)
	if w.set(again).Repositories[0].Images[0].Root != im.Root {
		t.Error("written anew, the index differs")
	}
	f := slices.IndexFunc(snap.Artifacts[0].Files, func(f artifact.File) bool { return f.Path == manifestPath(r.Name, im.Root) })
	if snap.Artifacts[0].Files[f].URL != "" {
		t.Error("an index that was written here is said to come from upstream")
	}

	w.cfg.Platforms = []string{"windows/amd64"}
	_, lost := w.lost(nil)
	wantCode(t, lost[0].Err, CodePlatform)
	if !strings.Contains(lost[0].Err.Error(), "linux/amd64, linux/arm64") {
		t.Errorf("the platforms that are there are not named: %v", lost[0].Err)
	}
	// All platforms wanted: nothing is written anew.
	w.cfg.Platforms = []string{"linux/amd64", "linux/arm64"}
	snap, _ = w.resolve(nil)
	if im := w.set(snap).Repositories[0].Images[0]; im.Root != index.Digest || im.Original != "" {
		t.Errorf("image: %+v", im)
	}
}

func sorted(ds ...spec.Digest) []string {
	var list []string
	for _, d := range ds {
		list = append(list, string(d))
	}
	slices.Sort(list)
	return list
}

func TestPlatformsBreakNothing(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	s := w.signed("team/app", "1.0", 1)
	w.cfg.Platforms = []string{"linux/amd64"}
	_, lost := w.lost(nil)
	wantCode(t, lost[0].Err, CodePlatformPin)
	if !strings.Contains(lost[0].Err.Error(), "application/spdx+json") {
		t.Errorf("what refers to the index is not named: %v", lost[0].Err)
	}
	w.cfg.Images = []string{"team/app@" + string(s.index.Digest)}
	_, lost = w.lost(nil)
	wantCode(t, lost[0].Err, CodePlatformPin)
	w.cfg.AllowRewrite = true
	snap, _ := w.resolve(nil)
	if got := digestsOf(w.set(snap).Repositories[0].Manifests); len(got) != 2 || slices.Contains(got, string(s.sbom.Digest)) {
		t.Errorf("manifests: %q", got)
	}
}

func TestSinglePlatform(t *testing.T) {
	w := newWorld(t, "team/app:1.0", "team/chart:1")
	w.reg.Put("team/app", "1.0", ocitest.ImageFor("linux/arm64", ocitest.Noise(9, 1)))
	w.reg.Put("team/chart", "1", ocitest.Chart(map[string]string{"name": "chart", "version": "1"}, ocitest.Noise(9, 2)))
	w.cfg.Platforms = []string{"linux/amd64"}
	snap, lost := w.lost(nil)
	wantCode(t, lost[0].Err, CodePlatform)
	if len(snap.Artifacts) != 1 || snap.Artifacts[0].Name != "registry.example/team/chart" {
		t.Errorf("a chart has no platform: %+v", snap.Artifacts)
	}
	w.cfg.Platforms = []string{"linux/arm64"}
	w.resolve(nil)
}

func TestForeignLayers(t *testing.T) {
	w := newWorld(t, "team/win:1")
	config, layer, own := []byte(`{"os":"windows","architecture":"amd64"}`), ocitest.Noise(999, 5), ocitest.Noise(50, 6)
	desc := func(mediaType string, b []byte, urls ...string) spec.Descriptor {
		return spec.Descriptor{MediaType: mediaType, Digest: spec.FromSHA256(artifact.Sum(b)), Size: int64(len(b)), URLs: urls}
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": spec.DockerManifest, "config": desc("application/vnd.docker.container.image.v1+json", config),
		"layers": []spec.Descriptor{
			desc("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", layer, "https://127.0.0.1/secret", "http://blobs.example/x", "https://blobs.example/layer"),
			desc("application/vnd.docker.image.rootfs.diff.tar.gzip", own),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reg.AddBlob("team/win", config)
	w.reg.AddBlob("team/win", own)
	w.reg.AddManifest("team/win", "1", spec.DockerManifest, raw)
	_, lost := w.lost(nil)
	wantCode(t, lost[0].Err, CodeForeign)
	if !strings.Contains(lost[0].Err.Error(), "https://blobs.example/layer") {
		t.Errorf("the address is not named: %v", lost[0].Err)
	}

	w.cfg.ForeignLayers = foreignSkip
	snap, _ := w.resolve(nil)
	r := &w.set(snap).Repositories[0]
	if len(r.Blobs) != 2 || !slices.Equal(r.Images[0].Skipped, []spec.Digest{spec.FromSHA256(artifact.Sum(layer))}) {
		t.Errorf("blobs %d, image %+v", len(r.Blobs), r.Images[0])
	}
	pub, err := NewPublisher(PublishConfig{Name: "platform"}, "oci/platform", nil, w.st, t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Verify(t.Context(), snap, nil); err != nil {
		t.Error(err)
	}

	// To fetch one, its host has to be allowed, and only https to a public
	// host is taken from the manifest.
	w.cfg.ForeignLayers = foreignFetch
	s := w.source()
	snap, _, err = s.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(snap.Artifacts[0].Files, func(f artifact.File) bool { return f.Digest == artifact.Sum(layer) })
	f := snap.Artifacts[0].Files[i]
	if f.URL != "https://blobs.example/layer" {
		t.Errorf("address %s", f.URL)
	}
	if err := s.Fetch(t.Context(), f); !errors.Is(err, fetch.ErrHost) || !strings.Contains(err.Error(), "blobs.example") {
		t.Errorf("got %v, want a refusal that names the host", err)
	}
}

func TestIndexOfUnknownChildren(t *testing.T) {
	w := newWorld(t, "team/odd:1")
	image := ocitest.Image(ocitest.Noise(20, 1))
	w.reg.Put("team/odd", "", image)
	blob := w.reg.AddBlob("team/odd", ocitest.Noise(30, 2))
	blob.MediaType = "application/vnd.example.thing"
	child := image.Descriptor
	child.MediaType = "application/vnd.example.manifest"
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": spec.OCIIndex, "manifests": []spec.Descriptor{child, blob}})
	if err != nil {
		t.Fatal(err)
	}
	w.reg.Set(ocitest.Lenient())
	w.reg.AddManifest("team/odd", "1", spec.OCIIndex, raw)
	snap, _ := w.resolve(nil)
	r := &w.set(snap).Repositories[0]
	if len(r.Manifests) != 2 || len(r.Blobs) != 3 {
		t.Errorf("%d manifests, %d blobs; want 2 and 3", len(r.Manifests), len(r.Blobs))
	}
}

func TestFetchRefusesOtherBytes(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	layer := ocitest.Noise(5000, 1)
	w.reg.Put("team/app", "1.0", ocitest.Image(layer))
	s := w.source()
	snap, _, err := s.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.reg.Set(ocitest.Replace(spec.FromSHA256(artifact.Sum(layer)), ocitest.Noise(5000, 2)))
	bad := 0
	for _, f := range snap.Artifacts[0].Files {
		if err := s.Fetch(t.Context(), f); err != nil {
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Errorf("class of %v", err)
			}
			if w.st.Has(f.Digest) {
				t.Error("the wrong bytes are in the store")
			}
			bad++
		}
	}
	if bad != 1 {
		t.Errorf("%d files were refused, want 1", bad)
	}
}

func TestManifestOfAnotherDigest(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	image := ocitest.Image(ocitest.Noise(50, 1))
	w.reg.Put("team/app", "1.0", image)
	w.reg.Set(ocitest.Replace(image.Digest, ocitest.Image(ocitest.Noise(50, 2)).Raw))
	_, _, err := w.source().Resolve(t.Context(), nil)
	if !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("got %v", err)
	}
}

func TestSHA512(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	layer, config := ocitest.Noise(5000, 1), []byte(`{"os":"linux","architecture":"amd64"}`)
	d := spec.Digest("sha512:").Sum(layer)
	w.reg.AddBlobAs("team/app", d, layer)
	cd := w.reg.AddBlob("team/app", config)
	cd.MediaType = spec.OCIConfig
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": spec.OCIManifest, "config": cd,
		"layers": []spec.Descriptor{{MediaType: spec.OCILayer, Digest: d, Size: int64(len(layer))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.reg.AddManifest("team/app", "1.0", spec.OCIManifest, raw)
	snap, _ := w.resolve(nil)
	r := &w.set(snap).Repositories[0]
	if !slices.ContainsFunc(r.Blobs, func(m Member) bool { return m.Digest == d && m.Blob == artifact.Sum(layer) }) {
		t.Errorf("blobs: %+v", r.Blobs)
	}
	w.reg.ResetLog()
	w.resolve(snap)
	if n := w.reg.Count("GET", "/blobs/"); n != 0 {
		t.Errorf("the layer was read %d times more", n)
	}
}

func TestPrivateRegistry(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	tokens := httptest.NewServer(w.reg.TokenServer())
	t.Cleanup(tokens.Close)
	w.reg.Set(ocitest.TokenAuth("u", "secret", tokens.URL+"/token"))
	_, _, err := w.source().Resolve(t.Context(), nil)
	if !errors.Is(err, fetch.ErrHost) {
		t.Errorf("the token server's host was not refused: %v", err)
	}
	host, err := fetch.Host(tokens.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg.AllowHosts = []string{host}
	_, _, err = w.source().Resolve(t.Context(), nil)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("without a login: %v", err)
	}
	w.cfg.User, w.cfg.PasswordFile = "u", writeFile(t, "secret\n")
	w.resolve(nil)
	w.cfg.PasswordFile = writeFile(t, "wrong")
	_, _, err = w.source().Resolve(t.Context(), nil)
	if !hasCode(err, "OCI-AUTH") || strings.Contains(err.Error(), "wrong\n") {
		t.Errorf("with a wrong password: %v", err)
	}
}
