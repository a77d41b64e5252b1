package spec

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func desc(mediaType, hex string, size int) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":%d}`, mediaType, hex, size)
}

func image(layers ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, OCIManifest, desc(OCIConfig, hexA, 2), strings.Join(layers, ","))
}

func index(children ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, OCIIndex, strings.Join(children, ","))
}

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest([]byte(image(desc(OCILayer, hexB, 7))), "")
	if err != nil {
		t.Fatal(err)
	}
	if m.IsIndex() || m.MediaType != OCIManifest || m.Type() != OCIConfig {
		t.Errorf("got %+v", m)
	}
	want := []Descriptor{{MediaType: OCIConfig, Digest: "sha256:" + hexA, Size: 2}, {MediaType: OCILayer, Digest: "sha256:" + hexB, Size: 7}}
	if d := cmp.Diff(want, m.Blobs()); d != "" {
		t.Error(d)
	}
	m, err = ParseManifest([]byte(index(desc(OCIManifest, hexB, 7))), OCIIndex)
	if err != nil || !m.IsIndex() || len(m.Blobs()) != 0 {
		t.Errorf("index: %+v, %v", m, err)
	}
	// Without a media type of its own, what offers it says what it is.
	m, err = ParseManifest([]byte(strings.Replace(image(), `"mediaType":"`+OCIManifest+`",`, "", 1)), DockerManifest)
	if err != nil || m.MediaType != DockerManifest {
		t.Errorf("without media type: %+v, %v", m, err)
	}
	// An annotation's keys may differ in letter case alone.
	annotated := strings.TrimSuffix(image(), "}") + `,"annotations":{"a":"1","A":"2"}}`
	if m, err = ParseManifest([]byte(annotated), ""); err != nil || m.Annotations["A"] != "2" {
		t.Errorf("annotations: %+v, %v", m, err)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	sub := strings.TrimSuffix(image(), "}") + `,"subject":` + desc(OCIManifest, hexB, -1) + "}"
	for name, c := range map[string]struct{ raw, contentType, code, text string }{
		"schema 1 by type":  {image(), DockerSigned1, CodeSchema1, "schema 1"},
		"schema 1 by bytes": {`{"schemaVersion":1,"fsLayers":[]}`, "", CodeSchema1, "schema 1"},
		"too large":         {strings.Repeat(" ", MaxManifest) + image(), "", CodeManifestSize, "at most 4194304"},
		"no JSON":           {"<html>", "", CodeManifest, ""},
		"two values":        {image() + image(), "", CodeManifest, "more than one"},
		"key twice":         {strings.Replace(image(), `"config"`, `"layers":[],"config"`, 1), "", CodeManifest, `"layers" stands twice`},
		"key twice by case": {strings.Replace(image(), `"config"`, `"Layers":[],"config"`, 1), "", CodeManifest, `"layers" stands twice`},
		"no schema version": {`{}`, "", CodeManifest, "schemaVersion"},
		"no config":         {`{"schemaVersion":2,"layers":[]}`, OCIManifest, CodeManifest, "config: missing"},
		"other type":        {image(), OCIIndex, CodeManifest, "offered as"},
		"no manifest type":  {strings.Replace(image(), OCIManifest, OCIConfig, 1), "", CodeManifest, "is no manifest"},
		"both":              {strings.TrimSuffix(image(), "}") + `,"manifests":[]}`, "", CodeManifest, "an image with manifests"},
		"both, index":       {strings.TrimSuffix(index(), "}") + `,"layers":[]}`, "", CodeManifest, "an index with config or layers"},
		"bad digest":        {image(strings.Replace(desc(OCILayer, hexB, 1), hexB, "..", 1)), "", CodeManifest, "layers[0].digest"},
		"md5":               {image(strings.Replace(desc(OCILayer, hexB, 1), "sha256:"+hexB, "md5:d41d8cd98f00b204e9800998ecf8427e", 1)), "", CodeManifest, "sha512"},
		"negative size":     {image(desc(OCILayer, hexB, -1)), "", CodeManifest, "layers[0].size: -1 is negative"},
		"two sizes":         {image(desc(OCILayer, hexB, 1), desc(OCILayer, hexB, 2)), "", CodeManifest, "has sizes 1 and 2"},
		"child too large":   {index(desc(OCIManifest, hexB, MaxManifest+1)), "", CodeManifest, "manifests[0].size"},
		"no media type":     {image(desc("", hexB, 1)), "", CodeManifest, "layers[0].mediaType"},
		"subject":           {sub, "", CodeManifest, "subject.size"},
		"deep":              {`{"schemaVersion":2,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, "", CodeManifest, "nested deeper"},
		"many":              {image(strings.Repeat(desc(OCILayer, hexB, 1)+",", MaxMembers) + desc(OCILayer, hexB, 1)), "", CodeManifest, "at most 10000"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ParseManifest([]byte(c.raw), c.contentType)
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || m != nil {
				t.Fatalf("accepted: %+v, %v", m, err)
			}
			if r.Code != c.code || !strings.Contains(err.Error(), c.text) || !errors.Is(err, artifact.ErrIntegrity) {
				t.Errorf("got %v, want code %s and %q", err, c.code, c.text)
			}
		})
	}
}

// FuzzParseManifest: never panics; what is accepted is accepted again under
// the media type that was found, and holds the package's invariants.
func FuzzParseManifest(f *testing.F) {
	for _, s := range []string{image(desc(OCILayer, hexB, 7)), index(desc(OCIManifest, hexB, 7)), `{"schemaVersion":1}`, `{"schemaVersion":2,"manifests":[{}]}`, "[]"} {
		f.Add([]byte(s), "")
	}
	f.Add([]byte(image()), DockerManifest)
	f.Fuzz(func(t *testing.T, raw []byte, contentType string) {
		m, err := ParseManifest(raw, contentType)
		if err != nil {
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		again, err := ParseManifest(raw, m.MediaType)
		if err != nil {
			t.Fatalf("accepted once only: %v", err)
		}
		if d := cmp.Diff(m, again); d != "" {
			t.Fatal(d)
		}
		for _, d := range append(m.Blobs(), m.Manifests...) {
			if _, err := ParseDigest(string(d.Digest)); err != nil || d.Size < 0 || d.MediaType == "" {
				t.Fatalf("descriptor %+v", d)
			}
		}
	})
}

func TestDigest(t *testing.T) {
	b := []byte("darkmirror")
	for _, alg := range []string{SHA256, SHA512} {
		d := Digest(alg + ":").Sum(b)
		got, err := ParseDigest(string(d))
		if err != nil || got != d || d.Algorithm() != alg {
			t.Errorf("%s: %v, %v", alg, got, err)
		}
		if sum, ok := d.SHA256(); ok != (alg == SHA256) || ok && sum != artifact.Sum(b) {
			t.Errorf("%s: as SHA-256 %v, %v", alg, sum, ok)
		}
	}
	for _, s := range []string{"", "sha256", "sha256:", "sha256:" + hexA[1:], "sha256:" + strings.ToUpper(hexA), "sha512:" + hexA, "sha1:" + hexA[:40], "sha256:" + hexA + " "} {
		if d, err := ParseDigest(s); err == nil {
			t.Errorf("%q accepted as %v", s, d)
		}
	}
}

func TestNames(t *testing.T) {
	for _, ok := range []string{"a", "library/nginx", "registry.example/team/app-2", "a__b/c", "a--b", "127.0.0.1-5000/x"} {
		if err := CheckName(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "/a", "a/", "a//b", "A", "a_", "-a", "a..b", "a___b", "a/../b", "a:b", "a b", strings.Repeat("a", 256), "a._b"} {
		if CheckName(bad) == nil {
			t.Errorf("name %q accepted", bad)
		}
	}
	for _, ok := range []string{"1", "latest", "_x", "v1.0-rc1", strings.Repeat("a", 128)} {
		if err := CheckTag(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".a", "-a", "a b", "a/b", "a+b", strings.Repeat("a", 129), "ä"} {
		if CheckTag(bad) == nil {
			t.Errorf("tag %q accepted", bad)
		}
	}
}

func TestParseReference(t *testing.T) {
	for s, want := range map[string]Reference{
		"library/nginx:1.27":        {Repository: "library/nginx", Tag: "1.27"},
		"a@sha256:" + hexA:          {Repository: "a", Digest: "sha256:" + hexA},
		"team/a:1@sha256:" + hexA:   {Repository: "team/a", Tag: "1", Digest: "sha256:" + hexA},
		"a/b/c:v1.0-rc.1":           {Repository: "a/b/c", Tag: "v1.0-rc.1"},
		"registry.example/x:latest": {Repository: "registry.example/x", Tag: "latest"},
	} {
		got, err := ParseReference(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "a", "library/nginx", "a:", "a:b:c", "A:1", "a@sha256:xyz", "a@", "a/../b:1", ":1", "registry.example:5000/x"} {
		if got, err := ParseReference(bad); err == nil {
			t.Errorf("%q accepted as %+v", bad, got)
		}
	}
}

// FuzzParseReference: what is accepted is written back the same.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"library/nginx:1.27", "a@sha256:" + hexA, "x:y@sha512:z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err == nil && r.String() != s {
			t.Fatalf("%q became %q", s, r)
		}
	})
}

func TestTagsOfDigests(t *testing.T) {
	d := Digest("sha256:" + hexA)
	if got := ReferrersTag(d); got != "sha256-"+hexA {
		t.Error(got)
	}
	if got := CosignTags(d); len(got) != 3 || got[0] != "sha256-"+hexA+".sig" {
		t.Error(got)
	}
	long := Digest("sha512:" + hexA + hexB)
	if got := CosignTags(long); got != nil {
		t.Error(got)
	}
	for _, tag := range append(CosignTags(d), ReferrersTag(d), ReferrersTag(long)) {
		if err := CheckTag(tag); err != nil {
			t.Error(err)
		}
	}
}
