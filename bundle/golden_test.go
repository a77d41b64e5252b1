package bundle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// goldenV1 was written once, by the first version of this package, and is
// never regenerated: a version that cannot read it must not be released.
const goldenV1 = "../testdata/bundles/v1"

const goldenID = "sha256:26ac17878d62e4691c06b9bc13c90abc4928634514fbc3e7a5a0a496a388f2d4"

// goldenContent makes the blobs of the golden bundle from nothing but SHA-256,
// so that they do not depend on any other code.
func goldenContent(t testing.TB) (content, map[string]Blob) {
	t.Helper()
	var random []byte
	for i := uint64(0); len(random) < 20_000; i++ {
		d := artifact.Sum(binary.BigEndian.AppendUint64([]byte("golden"), i))
		random = append(random, d[:]...)
	}
	var text bytes.Buffer
	for i := range 600 {
		fmt.Fprintf(&text, "Package: lib%s\nVersion: 1.%d\n", artifact.Sum([]byte{byte(i), byte(i >> 8)}).Hex()[:8], i)
	}
	c := make(content)
	blobs := map[string]Blob{
		"wheel": c.add(append([]byte("PK\x03\x04"), random...)), "packages": c.add(text.Bytes()),
		"note": c.add([]byte("a small file\n")), "empty": c.add(nil),
	}
	file := func(path, name string) artifact.File {
		return artifact.File{Path: path, Digest: blobs[name].Digest, Size: blobs[name].Size}
	}
	for name, s := range map[string]*artifact.Snapshot{
		"pypi/main": {Source: "pypi/main", Artifacts: []artifact.Artifact{
			{Name: "demo", Version: "1.0", Why: "requirements.txt:1", Files: []artifact.File{file("demo-1.0-py3-none-any.whl", "wheel"), file("demo-1.0.txt", "note")}},
		}},
		"apt/bookworm": {
			Source:    "apt/bookworm",
			Meta:      []artifact.File{file("dists/bookworm/main/binary-amd64/Packages", "packages")},
			Artifacts: []artifact.Artifact{{Name: "demo", Version: "1.0-1", Why: "demo", Files: []artifact.File{file("pool/main/d/demo/demo_1.0-1_amd64.deb", "empty")}}},
		},
	} {
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		blobs[name] = c.add(b)
	}
	return c, blobs
}

func goldenManifest(blobs map[string]Blob) *Manifest {
	m := &Manifest{
		Stream: "golden", Seq: 7, Base: 6, Prev: digest("golden 6").String(),
		Issued: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"),
		Sources: []SourceRef{
			{"apt/bookworm", blobs["apt/bookworm"].Digest, 1, 2, blobs["packages"].Size},
			{"pypi/main", blobs["pypi/main"].Digest, 1, 2, blobs["wheel"].Size + blobs["note"].Size},
		},
		Requires: []Require{{3, []artifact.Digest{digest("golden 3")}}},
		Held:     []LeftOut{{"pypi/main", "evil", "6.6", "MALWARE", "known malicious"}},
		Missing:  []LeftOut{{"apt/bookworm", "gone", "1", "FETCH", "not there any more"}},
		Scanners: []Scanner{{"scanner", "1.2.3", digest("golden database"), "2026-11-22"}},
		Withdraw: []Withdrawal{{digest("golden bad"), "malware", "ADV-1"}},
	}
	for _, b := range blobs {
		m.Blobs = append(m.Blobs, b)
	}
	return m
}

func TestGoldenV1(t *testing.T) {
	pem, err := os.ReadFile(filepath.Join(goldenV1, "exporter.pub"))
	if err != nil {
		t.Fatal(err)
	}
	name, pub, err := ParsePublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	found, err := Find(goldenV1)
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	c, blobs := goldenContent(t)
	f := &fixture{content: c, sealed: &Sealed{Dir: found[0].Dirs[0]}, trust: Trust{Keys: []TrustedKey{{Name: name, Role: RoleExporter, Public: pub}}}}
	r := f.openBundle(t)
	if got := r.id.String(); got != goldenID {
		t.Fatalf("id %s, want %s", got, goldenID)
	}
	// The claims, but for how the blobs are stored: compressed bytes are the
	// library's affair.
	want := goldenManifest(blobs)
	want.normalize()
	got := *r.m
	got.Blobs = nil
	for _, b := range r.m.Blobs {
		got.Blobs = append(got.Blobs, Blob{Digest: b.Digest, Size: b.Size})
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Fatal(diff)
	}
	if err := copyAll(t.Context(), r, c); err != nil {
		t.Fatal(err)
	}
	if w, err := r.Check(t.Context(), nil); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
	// It has what it was made for.
	var packed, parts int
	for _, b := range r.m.Blobs {
		if b.Enc == EncZstd && len(b.Segments) > 1 {
			packed++
		}
	}
	for _, list := range r.index.Extents {
		parts = max(parts, len(list))
	}
	if packed != 1 || parts < 2 || len(r.vols) < 2 {
		t.Fatalf("%d compressed blobs, %d parts, %d volumes", packed, parts, len(r.vols))
	}
	// The manifest is still written as it was.
	_, payload, err := openEnvelope(r.envelope)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.m.encode(); err != nil || !bytes.Equal(again, payload) {
		t.Fatalf("the encoding of a manifest has changed: %v", err)
	}
}
