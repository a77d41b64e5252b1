package carry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/bundle"
)

// encryptedBundle is one of those that every version must read; nothing here
// has a key that opens it.
func encryptedBundle(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("../../testdata/bundles/v1-age/golden-age-000001-*")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v: want one encrypted bundle", found, err)
	}
	return found[0]
}

// carriedWhole verifies what lies on media as the inside's gate can: without
// an identity.
func carriedWhole(t *testing.T, media ...string) error {
	t.Helper()
	pub, err := os.ReadFile("../../testdata/bundles/v1-age/exporter.pub")
	if err != nil {
		t.Fatal(err)
	}
	name, key, err := bundle.ParsePublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, m := range media {
		dirs = append(dirs, filepath.Join(m, filepath.Base(encryptedBundle(t))))
	}
	r, err := bundle.Open(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	_, _, err = r.CheckCarried(t.Context(), bundle.Trust{Keys: []bundle.TrustedKey{{Name: name, Role: bundle.RoleExporter, Public: key}}}, nil)
	return err
}

// An encrypted bundle is carried by whoever cannot read it, over as many media
// as it takes, and is the signed one where all of them are.
func TestCarryEncrypted(t *testing.T) {
	src := encryptedBundle(t)
	media := sticks(t, 2)
	first, err := Copy(t.Context(), src, Options{Media: media[:1], Only: []int{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if err := carriedWhole(t, media[0]); err == nil {
		t.Error("two volumes of five pass for the bundle")
	}
	rest, err := Copy(t.Context(), src, Options{Media: media[1:], Only: []int{3, 4, 5}})
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != rest.ID || first.ID.IsZero() || filepath.Base(src) != first.Folder {
		t.Errorf("ids %s and %s, folder %s", first.ID, rest.ID, first.Folder)
	}
	if err := carriedWhole(t, media...); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(media[0], first.Folder, labelText))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"encrypted", "Readable by", "1-2 of 5"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the label lacks %q:\n%s", want, text)
		}
	}
	// Again: nothing is written twice.
	again, err := Copy(t.Context(), src, Options{Media: media})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range again.Media {
		if len(m.Written) != 0 {
			t.Errorf("medium %d: volumes %v were written again", i, m.Written)
		}
	}
}

// A volume that is not what was listed ends the run, and what a medium holds
// of another encryption, or unencrypted, is not mixed with this one.
func TestCarryEncryptedRefuses(t *testing.T) {
	src := filepath.Join(t.TempDir(), filepath.Base(encryptedBundle(t)))
	if err := os.CopyFS(src, os.DirFS(encryptedBundle(t))); err != nil {
		t.Fatal(err)
	}
	medium := sticks(t, 1)
	if _, err := Copy(t.Context(), src, Options{Media: medium}); err != nil {
		t.Fatal(err)
	}

	name := filepath.Join(src, "volumes/volume-00003.tar.age")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Copy(t.Context(), src, Options{Media: sticks(t, 1)})
	if err == nil || !strings.Contains(err.Error(), bundle.CodeVolume) || !strings.Contains(err.Error(), "volume-00003.tar.age") {
		t.Errorf("a flipped bit: %v", err)
	}

	// The other golden bundle under this one's name.
	other, err := filepath.Glob("../../testdata/bundles/v1-age/golden-age-000002-*")
	if err != nil || len(other) != 1 {
		t.Fatalf("%v, %v", other, err)
	}
	full := sticks(t, 1)
	if err := os.CopyFS(filepath.Join(full[0], filepath.Base(src)), os.DirFS(other[0])); err != nil {
		t.Fatal(err)
	}
	before := stamp(t, full[0])
	_, err = Copy(t.Context(), encryptedBundle(t), Options{Media: full})
	if err == nil || !strings.Contains(err.Error(), "another bundle under the same name") {
		t.Errorf("another bundle's folder: %v", err)
	}
	if after := stamp(t, full[0]); !slices.Equal(keys(before), keys(after)) {
		t.Errorf("the medium was changed: %v, was %v", keys(after), keys(before))
	}
}

func keys(m map[string]string) []string {
	var list []string
	for k, v := range m {
		list = append(list, k+" "+v)
	}
	slices.Sort(list)
	return list
}
