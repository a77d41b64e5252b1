package crypt_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/crypt"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// goldenAge was written once, by the first version that encrypts, and is never
// regenerated: a version that cannot read it must not be released. Each bundle
// has two recipients of which one identity is kept.
const goldenAge = "../../testdata/bundles/v1-age"

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldenAge, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// goldenChain makes bytes from nothing but SHA-256.
func goldenChain(n int) []byte {
	var b []byte
	for i := uint64(0); len(b) < n; i++ {
		d := artifact.Sum(binary.BigEndian.AppendUint64([]byte("golden age"), i))
		b = append(b, d[:]...)
	}
	return b[:n]
}

func TestGoldenAge(t *testing.T) {
	name, pub, err := bundle.ParsePublicKey(golden(t, "exporter.pub"))
	if err != nil {
		t.Fatal(err)
	}
	trust := bundle.Trust{Keys: []bundle.TrustedKey{{Name: name, Role: bundle.RoleExporter, Public: pub}}}
	ids, err := crypt.ParseIdentities(golden(t, "test-identities.txt"))
	if err != nil || len(ids) != 2 {
		t.Fatal(ids, err)
	}
	found, err := bundle.Find(goldenAge)
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	for i, want := range []struct {
		kind, id, prev string
		recipients     []string
	}{
		{
			"classical", "sha256:72930407dc30795e2292329d0790d581be6e969edd940bc29693236b0f4e32da", "",
			[]string{"age1atf4up9c3gdd..mqwkvnw4", "age1wdam0czser9u..ks0d3re8"},
		},
		{
			"hybrid", "sha256:49fe2836b9ab818750f29f85f77364bb8a06e24b93dc921e5ea27fdc6aa06d67", "sha256:72930407dc30795e2292329d0790d581be6e969edd940bc29693236b0f4e32da",
			[]string{"age1pq148cr6y5j0..gurwlg0c", "age1pq1973ezmj3n..yy99272c"},
		},
	} {
		t.Run(want.kind, func(t *testing.T) {
			r, err := bundle.Open(found[i].Dirs...)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			c, _, err := r.CheckCarried(t.Context(), trust, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.recipients, c.Recipients); diff != "" || c.Bundle.String() != want.id || ids[i].Fingerprint() != want.recipients[1] {
				t.Fatal(diff, c.Bundle, ids[i])
			}
			d, err := crypt.NewDecrypter(ids[i : i+1])
			if err != nil {
				t.Fatal(err)
			}
			r.UseDecrypter(d)
			m, rep, err := r.Verify(trust)
			if err != nil || rep.ID.String() != want.id || m.Prev != want.prev || m.Seq != uint64(i+1) || m.Stream != "golden-age" {
				t.Fatal(m, rep, err)
			}
			content := make(map[artifact.Digest][]byte)
			for _, data := range [][]byte{
				[]byte(`{"golden":"a","kind":"` + want.kind + `"}`), []byte(`{"golden":"b","kind":"` + want.kind + `"}`), goldenChain(9000), []byte("a small file\n"), nil,
			} {
				content[artifact.Sum(data)] = data
			}
			for _, b := range m.Blobs {
				var got bytes.Buffer
				if err := r.Copy(t.Context(), b, &got); err != nil {
					t.Fatal(err)
				}
				if data, ok := content[b.Digest]; !ok || !bytes.Equal(data, got.Bytes()) {
					t.Fatalf("blob %s", b.Digest)
				}
				delete(content, b.Digest)
			}
			if len(content) > 0 {
				t.Fatalf("not carried: %v", slices.Collect(maps.Keys(content)))
			}
			if w, err := r.Check(t.Context(), nil); err != nil || len(w) > 0 {
				t.Fatal(w, err)
			}
			vols, err := r.Volumes()
			if err != nil || len(vols) != 5 {
				t.Fatal(vols, err)
			}
			root, err := r.RootFiles()
			if diff := cmp.Diff(map[string][]byte{"1.root.json": []byte("{\"golden\":1}\n"), "2.root.json": []byte("{\"golden\":2}\n")}, root); err != nil || diff != "" {
				t.Fatal(err, diff)
			}
		})
	}
}
