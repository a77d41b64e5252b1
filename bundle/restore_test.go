package bundle

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRestore makes a bundle again, byte for byte, without its key; what is
// not what was signed is refused.
func TestRestore(t *testing.T) {
	c, m := smallContent()
	signer, _ := testSigner(t, "exporter-a")
	first := t.TempDir()
	sealed, err := Seal(t.Context(), first, m, c.open, signer, SealOptions{VolumeSize: MinVolumeSize, Root: map[string][]byte{"1.root.json": []byte("{}")}})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := ReadDocuments(sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	got, err := Restore(t.Context(), again, docs, c.open, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != sealed.ID || got.Bytes != sealed.Bytes {
		t.Errorf("%+v, want %+v", got, sealed)
	}
	if diff := cmp.Diff(tree(t, first), tree(t, again)); diff != "" {
		t.Errorf("restored (-sealed +restored):\n%s", diff)
	}
	// Again: it is there.
	if _, err := Restore(t.Context(), again, docs, c.open, nil); err != nil {
		t.Error(err)
	}
	for d := range c {
		c[d] = append([]byte("x"), c[d]...)
		break
	}
	if _, err := Restore(t.Context(), t.TempDir(), docs, c.open, nil); err == nil {
		t.Error("made from another blob")
	}
}
