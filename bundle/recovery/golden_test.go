package recovery

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// goldenV1 holds recovery files that were written once, by the first version of
// this package, and are never regenerated: a version that cannot read them, or
// makes others, must not be released.
const goldenV1 = "testdata/v1"

// goldenSums are their digests.
var goldenSums = map[string]string{
	"recovery-00001.rs": "sha256:62d1bd90c6210bad94f64a5b859680312204f52e980f11c457ffd8fbd5cbdec1",
	"recovery-00002.rs": "sha256:fd9dcc016d4a4ae008be91590a783bafea53f713276e404cc3aeeb0594b8f81e",
}

// goldenBundle makes the files that they are for from nothing but SHA-256, so
// that they do not depend on any other code.
func goldenBundle(t testing.TB) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for name, size := range map[string]int{
		"bundle.dsse.json": 1500, "volumes.json": 700, "root/1.root.json": 0, "root/2.root.json": 100,
		"volumes/volume-00001.tar": 5 * 4096, "volumes/volume-00002.tar": 4097,
	} {
		var data []byte
		for i := uint64(0); len(data) < size; i++ {
			d := artifact.Sum(binary.BigEndian.AppendUint64([]byte(name), i))
			data = append(data, d[:]...)
		}
		files[name] = string(data[:size])
	}
	return files
}

func goldenFiles(t testing.TB) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for name, want := range goldenSums {
		b, err := os.ReadFile(filepath.Join(goldenV1, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := artifact.Sum(b).String(); got != want {
			t.Errorf("%s was changed: %s", name, got)
		}
		files["recovery/"+name] = string(b)
	}
	return files
}

func TestGoldenIsRead(t *testing.T) {
	whole := goldenBundle(t)
	damagedFiles := make(map[string]string)
	for name, data := range goldenFiles(t) {
		whole[name] = data
		damagedFiles[name] = data
	}
	names := []string{"root/1.root.json", "root/2.root.json", "volumes/volume-00002.tar"}
	for name, data := range whole {
		damagedFiles[name] = data
	}
	for _, name := range names {
		delete(damagedFiles, name)
	}
	repaired(t, whole, names, copyTree(t, "golden-000007-26ac17878d62e469", damagedFiles))
}

func TestGoldenIsMade(t *testing.T) {
	dir := copyTree(t, "golden-000007-26ac17878d62e469", goldenBundle(t))
	if _, err := createWith(t.Context(), dir, Options{Percent: 30, MaxFile: 12_000}, realDisk()); err != nil {
		t.Fatal(err)
	}
	got := tree(t, dir)
	for name, want := range goldenFiles(t) {
		if got[name] != want {
			t.Errorf("%s is made otherwise: %s", name, artifact.Sum([]byte(got[name])))
		}
		delete(got, name)
	}
	if diff := cmp.Diff(goldenBundle(t), got); diff != "" {
		t.Errorf("made more: %s", fmt.Sprint(sorted(got)))
	}
}
