package root

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden was written once, by the first version of this package, and is never
// regenerated: a version that cannot walk it must not be released.
const golden = "testdata/v1"

const goldenFingerprint = "sha256:854d61eec200da79f9312f5e0933f6d82590b337ff009a679cadabcd25f75ebd"

func goldenFiles(t *testing.T) map[int][]byte {
	t.Helper()
	files := make(map[int][]byte)
	for v := 1; v <= 4; v++ {
		data, err := os.ReadFile(filepath.Join(golden, fileName(v)))
		if err != nil {
			t.Fatal(err)
		}
		files[v] = data
	}
	return files
}

// B6: versions 1 to 4, as they were written then, are walked.
func TestGoldenChain(t *testing.T) {
	files := goldenFiles(t)
	s := openStore(t, t.TempDir())
	if err := s.Pin(files[1], goldenFingerprint, now); err != nil {
		t.Fatal(err)
	}
	applied, err := s.Advance(files, now)
	if diff := cmp.Diff([]int{2, 3, 4}, applied); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	v, _ := s.Current()
	for seq, want := range map[uint64]string{
		20: "1 exporters, 1 approvals: approver dora, approver emil-p256, exporter bastion, exporter bastion-2, exporter bastion-3, exporter bastion-4",
		21: "1 exporters, 1 approvals: approver dora, approver emil-p256, exporter bastion-2, exporter bastion-3, exporter bastion-4",
		41: "1 exporters, 1 approvals: approver dora, approver emil-p256, exporter bastion-4",
	} {
		if diff := cmp.Diff(want, show(t, v.Trust(seq))); diff != "" {
			t.Errorf("bundle %d: %s", seq, diff)
		}
	}
}

// The same statements and keys give the same bytes as ever.
func TestGoldenBytes(t *testing.T) {
	if diff := cmp.Diff(goldenFiles(t), chain(t, 4)); diff != "" {
		t.Fatal(diff)
	}
}
