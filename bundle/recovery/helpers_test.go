package recovery

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func signer(name string) bundle.Signer {
	seed := artifact.Sum([]byte(name))
	return bundle.Signer{Name: name, Signer: ed25519.NewKeyFromSeed(seed[:])}
}

func trust() bundle.Trust {
	return bundle.Trust{Keys: []bundle.TrustedKey{{Name: "exporter-a", Role: bundle.RoleExporter, Public: signer("exporter-a").Public()}}}
}

// sealBlobs seals a bundle in volumes of at most 1 MiB.
func sealBlobs(t testing.TB, outbox string, blobs ...[]byte) *bundle.Sealed {
	t.Helper()
	store := make(map[artifact.Digest][]byte)
	m := &bundle.Manifest{
		Stream: "main", Seq: 1,
		Issued: time.Date(2026, 11, 22, 20, 15, 0, 0, time.UTC), Expires: time.Date(2027, 2, 20, 20, 15, 0, 0, time.UTC),
		Sources: []bundle.SourceRef{{Name: "apt/bookworm", Snapshot: artifact.Sum([]byte("snapshot")), Artifacts: 1, Files: 3, Bytes: 4}},
	}
	for _, b := range append(blobs, []byte("snapshot")) {
		d := artifact.Sum(b)
		store[d] = b
		m.Blobs = append(m.Blobs, bundle.Blob{Digest: d, Size: int64(len(b))})
	}
	s, err := bundle.Seal(t.Context(), outbox, m, func(d artifact.Digest) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(store[d])), nil
	}, signer("exporter-a"), bundle.SealOptions{VolumeSize: bundle.MinVolumeSize})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealBundle seals a bundle of three volumes, the last of which is small.
func sealBundle(t testing.TB) string {
	t.Helper()
	return sealBlobs(t, t.TempDir(), noise(1, 2<<20), noise(2, 50<<10)).Dir
}

// verified opens the bundle as the inside does, and reads all.
func verified(t testing.TB, dirs ...string) error {
	t.Helper()
	r, err := bundle.Open(dirs...)
	if err != nil {
		return err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, _, err := r.Verify(trust()); err != nil {
		return err
	}
	_, err = r.Check(t.Context(), nil)
	return err
}

// fake makes a folder of files that is called like a bundle.
func fake(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "main-000001-0123456789abcdef")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		write(t, dir, name, data)
	}
	return dir
}

// few are files of a few blocks, one of them empty.
func few() map[string]string {
	return map[string]string{
		"bundle.dsse.json": string(noise(1, 700)), "volumes.json": string(noise(2, 300)),
		"root/1.root.json": "", "volumes/volume-00001.tar": string(noise(3, 5000)),
	}
}

func createFake(t testing.TB, dir string, o Options) *Made {
	t.Helper()
	m, err := createWith(t.Context(), dir, o, realDisk())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func write(t testing.TB, dir, name, data string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree reads a folder for comparison. One that is not there is empty.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		files[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// copyTree makes a medium of files.
func copyTree(t testing.TB, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n, data := range files {
		write(t, dir, n, data)
	}
	return dir
}

func sorted(files map[string]string) []string { return slices.Sorted(maps.Keys(files)) }

// damaged lists what a state names.
func damaged(st *State) []string {
	var names []string
	for _, d := range slices.Concat(st.Damaged, st.Recovery) {
		names = append(names, d.Path)
	}
	return names
}

// repaired repairs the medium and compares what came out with what was there
// before the damage: exactly the files named.
func repaired(t testing.TB, want map[string]string, names []string, media ...string) {
	t.Helper()
	var before []map[string]string
	for _, m := range media {
		before = append(before, tree(t, m))
	}
	out := filepath.Join(t.TempDir(), "out")
	st, err := Repair(t.Context(), out, media...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names, damaged(st)); diff != "" {
		t.Fatal(diff)
	}
	wanted := make(map[string]string)
	for _, n := range names {
		wanted[n] = want[n]
	}
	if diff := cmp.Diff(wanted, tree(t, filepath.Join(out, st.Name))); diff != "" {
		t.Fatal(clipDiff(diff))
	}
	if extra := sorted(tree(t, out)); len(extra) != len(names) {
		t.Fatalf("the output has more: %v", extra)
	}
	for i, m := range media {
		if diff := cmp.Diff(before[i], tree(t, m)); diff != "" {
			t.Fatalf("a medium was changed: %s", clipDiff(diff))
		}
	}
}

func clipDiff(s string) string { return s[:min(len(s), 2000)] }

// refused wants an ERR_RECOVERY or ERR_RECOVERY_FORMAT refusal.
func refused(t testing.TB, err error, code string, texts ...string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code || !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("got %v, want %s", err, code)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Fatalf("%v: does not say %q", err, text)
		}
	}
}
