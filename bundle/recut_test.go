package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// sealSized seals the bundle of [sealSmall] for another volume size.
func sealSized(t testing.TB, size int64) *fixture {
	t.Helper()
	c, m := smallContent()
	signer, key := testSigner(t, "exporter-a")
	s, err := seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: size}, small)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{content: c, m: m, sealed: s, trust: Trust{Keys: []TrustedKey{key}}}
}

// recutSmall is Recut with the limits of the small bundle.
func recutSmall(ctx context.Context, outbox string, size int64, media ...string) (*Sealed, error) {
	r, err := Open(media...)
	if err != nil {
		return nil, err
	}
	out, err := recut(ctx, r, outbox, SealOptions{VolumeSize: size}, small)
	return out, errors.Join(err, r.Close())
}

// B11: split, join, and the way back: the bytes are those of Seal.
func TestRecutGivesWhatSealGives(t *testing.T) {
	sizes := []int64{4 << 10, 5<<10 + 7, 8 << 10, 64 << 10, 1 << 30}
	for _, from := range sizes {
		src := sealSized(t, from)
		before := tree(t, src.sealed.Dir)
		for _, to := range sizes {
			t.Run(fmt.Sprint(from, " to ", to), func(t *testing.T) {
				want := sealSized(t, to)
				got, err := recutSmall(t.Context(), filepath.Join(t.TempDir(), "new", "outbox"), to, src.sealed.Dir)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tree(t, want.sealed.Dir), tree(t, got.Dir)); diff != "" {
					t.Fatal(diff)
				}
				if filepath.Base(got.Dir) != filepath.Base(want.sealed.Dir) {
					t.Fatalf("folder %s, want %s", got.Dir, want.sealed.Dir)
				}
				want.sealed.Dir = got.Dir
				if diff := cmp.Diff(want.sealed, got); diff != "" {
					t.Fatal(diff)
				}
				if _, err := attempt(t, src, got.Dir); err != nil {
					t.Fatal(err)
				}
			})
		}
		if diff := cmp.Diff(before, tree(t, src.sealed.Dir)); diff != "" {
			t.Fatalf("the medium was changed: %s", diff)
		}
	}
}

// A blob of two segments, real limits, the exported function.
func TestRecutLargeBlob(t *testing.T) {
	const size = MaxSegment + 3<<20 + 5
	var large artifact.Digest
	copy(large[:], newHash(t, noiseReader(size)))
	signer, _ := testSigner(t, "exporter-a")
	sealAt := func(volume int64) *Sealed {
		c := make(content)
		m := newManifest(c.add([]byte("a")), c.add([]byte("b")), Blob{Digest: large, Size: size})
		s, err := Seal(t.Context(), t.TempDir(), m, func(d artifact.Digest) (io.ReadCloser, error) {
			if d == large {
				return io.NopCloser(noiseReader(size)), nil
			}
			return c.open(d)
		}, signer, SealOptions{VolumeSize: volume})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	from, want := sealAt(0), sealAt(9<<20)
	var bytes, items int64
	got, err := Recut(t.Context(), []string{from.Dir}, t.TempDir(), SealOptions{VolumeSize: 9 << 20, OnEvent: func(e artifact.Event) {
		if e.Stage != "recut" {
			t.Errorf("event %+v", e)
		}
		bytes, items = bytes+e.Bytes-e.TotalBytes, items+int64(e.Items-e.TotalItems)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Volumes) < 8 || len(from.Volumes) != 1 {
		t.Fatalf("%d volumes from %d", len(got.Volumes), len(from.Volumes))
	}
	if diff := cmp.Diff(want.Volumes, got.Volumes); diff != "" {
		t.Fatal(diff)
	}
	for _, name := range []string{envelopeName, volumesName} {
		if string(readFile(t, want.Dir, name)) != string(readFile(t, got.Dir, name)) {
			t.Errorf("%s differs", name)
		}
	}
	if bytes != 0 || items != 0 {
		t.Errorf("progress missed its end by %d bytes and %d items", bytes, items)
	}
	// The exported function has the limits of the format, and its default.
	if _, err := Recut(t.Context(), []string{from.Dir}, t.TempDir(), SealOptions{VolumeSize: MinVolumeSize - 1}); err == nil {
		t.Error("a cap below the least was taken")
	}
	if _, err := Recut(t.Context(), []string{from.Dir}, t.TempDir(), SealOptions{VolumeSize: maxVolumeSize + 1}); err == nil {
		t.Error("a cap above the most was taken")
	}
	same, err := Recut(t.Context(), []string{from.Dir}, filepath.Dir(from.Dir), SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(from, same); diff != "" {
		t.Fatal(diff)
	}
}

// The volumes of a bundle lie on two media, one of them on both.
func TestRecutFromSeveralMedia(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	files := tree(t, f.sealed.Dir)
	one, two := t.TempDir(), t.TempDir()
	for i, v := range f.sealed.Volumes {
		name := filepath.Join(volumesDir, v.Name)
		if i%2 == 0 || i == 1 {
			writeTree(t, one, map[string]string{name: files[name]})
		}
		if i%2 == 1 {
			writeTree(t, two, map[string]string{name: files[name]})
		}
	}
	writeTree(t, two, map[string]string{envelopeName: files[envelopeName], volumesName: files[volumesName]})
	got, err := recutSmall(t.Context(), t.TempDir(), 64<<10, one, two)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, sealSized(t, 64<<10).sealed.Dir), tree(t, got.Dir)); diff != "" {
		t.Fatal(diff)
	}
	// Without the second medium, every volume that is missing is named, and
	// nothing was begun.
	writeTree(t, one, map[string]string{envelopeName: files[envelopeName], volumesName: files[volumesName]})
	outbox := filepath.Join(t.TempDir(), "outbox")
	_, err = recutSmall(t.Context(), outbox, 64<<10, one)
	wantCode(t, err, CodeVolume)
	if n := len(codes(err)); n != len(f.sealed.Volumes)/2-1 {
		t.Fatalf("%d volumes are named: %v", n, err)
	}
	if _, err := os.Lstat(outbox); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the outbox was made: %v", err)
	}
}

// B12: a medium that would answer otherwise the second time.
func TestRecutReadsOnce(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	l := &liar{read: make(map[string][]bool), last: make(map[string]int64)}
	r, err := Open(f.sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	r.open = l.open
	got, err := recut(t.Context(), r, t.TempDir(), SealOptions{VolumeSize: 64 << 10}, small)
	if err != nil {
		t.Fatal(err)
	}
	if l.twice > 0 || l.back > 0 || l.opens != len(f.sealed.Volumes) {
		t.Fatalf("%d bytes were read twice, %d reads went back, %d volumes opened", l.twice, l.back, l.opens)
	}
	if diff := cmp.Diff(tree(t, sealSized(t, 64<<10).sealed.Dir), tree(t, got.Dir)); diff != "" {
		t.Fatal(diff)
	}
}

// What is not what was signed leaves nothing behind.
func TestRecutRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"flipped byte": {func(t *testing.T, dir string) {
			name := filepath.Join(volumesDir, volumeName(2))
			data := readFile(t, dir, name)
			data[tarBlock+1] ^= 1
			writeTree(t, dir, map[string]string{name: string(data)})
		}, CodeSegment},
		"truncated volume": {func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, volumesDir, volumeName(1)), 100); err != nil {
				t.Fatal(err)
			}
		}, CodeVolume},
		"no volumes.json": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, volumesName)); err != nil {
				t.Fatal(err)
			}
		}, CodeVolumes},
		"damaged envelope": {func(t *testing.T, dir string) {
			writeTree(t, dir, map[string]string{envelopeName: "{}"})
		}, CodeFormat},
		"volumes.json that lies": {func(t *testing.T, dir string) {
			r, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer closeIt(t, r)
			if _, err := r.Unverified(); err != nil {
				t.Fatal(err)
			}
			if err := r.layout(); err != nil {
				t.Fatal(err)
			}
			r.index.Extents[0][0].Off--
			doc, err := r.index.encode()
			if err != nil {
				t.Fatal(err)
			}
			writeTree(t, dir, map[string]string{volumesName: string(doc)})
		}, CodeSegment},
	} {
		t.Run(name, func(t *testing.T) {
			f := sealSmall(t, t.TempDir())
			tc.spoil(t, f.sealed.Dir)
			outbox := t.TempDir()
			got, err := recutSmall(t.Context(), outbox, 64<<10, f.sealed.Dir)
			wantCode(t, err, tc.want)
			if got != nil {
				t.Errorf("a result beside an error: %+v", got)
			}
			if left, err := os.ReadDir(outbox); err != nil || len(left) != 0 {
				t.Fatalf("left behind: %v %v", left, err)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		f := sealSmall(t, t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		outbox := t.TempDir()
		if _, err := recutSmall(ctx, outbox, 64<<10, f.sealed.Dir); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(outbox); err != nil || len(left) != 0 {
			t.Fatalf("left behind: %v %v", left, err)
		}
	})
}

// A copy that cannot be read is replaced by the next one.
func TestRecutUnreadableCopy(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	two := filepath.Join(t.TempDir(), "two")
	writeTree(t, two, tree(t, f.sealed.Dir))
	r, err := Open(f.sealed.Dir, two)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	r.open = func(m *medium, name string) (volumeSource, int64, error) {
		if m.dir == f.sealed.Dir && name == volumeName(1) {
			return nil, 0, errors.New("input/output error")
		}
		return openVolume(m, name)
	}
	got, err := recut(t.Context(), r, t.TempDir(), SealOptions{VolumeSize: 64 << 10}, small)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, sealSized(t, 64<<10).sealed.Dir), tree(t, got.Dir)); diff != "" {
		t.Fatal(diff)
	}
}

// What is already there stays as it is, or is refused by name.
func TestRecutIntoWhatIsThere(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	outbox := t.TempDir()
	first, err := recutSmall(t.Context(), outbox, 8<<10, f.sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(first.Dir, volumesDir, volumeName(1)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := recutSmall(t.Context(), outbox, 8<<10, f.sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Fatal(diff)
	}
	after, err := os.Stat(filepath.Join(first.Dir, volumesDir, volumeName(1)))
	if err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Fatalf("the volume was written again: %v", err)
	}
	refused := func(t *testing.T, size int64, say string) {
		t.Helper()
		want := tree(t, outbox)
		_, err := recutSmall(t.Context(), outbox, size, f.sealed.Dir)
		if err == nil || !strings.Contains(err.Error(), "is already there") || !strings.Contains(err.Error(), say) {
			t.Fatalf("got %v, want %q", err, say)
		}
		if diff := cmp.Diff(want, tree(t, outbox)); diff != "" {
			t.Fatal(diff)
		}
	}
	refused(t, 4<<10, "cut for volumes of 8192 bytes, want 4096")

	// Approved there since: the same bundle.
	_, exporter := testSigner(t, "exporter-a")
	approver, _ := testSigner(t, "approver-a")
	trust, approval := Trust{Keys: []TrustedKey{exporter}}, Approval{ID: first.ID, Now: f.m.Issued}
	if _, err := Approve(first.Dir, approver, trust, approval); err != nil {
		t.Fatal(err)
	}
	if got, err := recutSmall(t.Context(), outbox, 8<<10, f.sealed.Dir); err != nil || got.ID != first.ID || got.Bytes <= first.Bytes {
		t.Fatal(got, err)
	}
	// An approval that the source has and the target has not.
	second, _ := testSigner(t, "approver-b")
	if _, err := Approve(f.sealed.Dir, second, trust, approval); err != nil {
		t.Fatal(err)
	}
	refused(t, 8<<10, "other signatures")

	if err := os.Remove(filepath.Join(first.Dir, volumesDir, volumeName(2))); err != nil {
		t.Fatal(err)
	}
	f = sealSmall(t, t.TempDir())
	refused(t, 8<<10, volumeName(2)+" (2 of 2)")
	if err := os.Remove(filepath.Join(first.Dir, envelopeName)); err != nil {
		t.Fatal(err)
	}
	refused(t, 8<<10, "the envelope cannot be read")
}

// Approvals are carried along, those of keys that nobody here knows as well.
func TestRecutKeepsSignatures(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	approver, key := testSigner(t, "approver-a")
	key.Role = RoleApprover
	f.trust.Keys, f.trust.Approvals = append(f.trust.Keys, key), 1
	if _, err := Approve(f.sealed.Dir, approver, f.trust, Approval{ID: f.sealed.ID, Now: f.m.Issued}); err != nil {
		t.Fatal(err)
	}
	got, err := recutSmall(t.Context(), t.TempDir(), 64<<10, f.sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(readFile(t, got.Dir, envelopeName)) != string(readFile(t, f.sealed.Dir, envelopeName)) {
		t.Fatal("the envelope changed")
	}
	f.sealed = got
	r := f.openBundle(t)
	cut, err := r.Cut()
	if err != nil {
		t.Fatal(err)
	}
	want := &Cut{
		Folder: filepath.Base(got.Dir), VolumeSize: 64 << 10, Volumes: got.Volumes,
		KeyIDs: []string{KeyID(f.trust.Keys[0].Public), KeyID(key.Public)},
	}
	if diff := cmp.Diff(want, cut); diff != "" {
		t.Fatal(diff)
	}
}

// The chain of root files is the same in every cut.
func TestRecutKeepsRootFiles(t *testing.T) {
	root := map[string][]byte{"1.root.json": []byte("one"), "2.root.json": []byte("two")}
	sealed := func(size int64) *Sealed {
		c, m := smallContent()
		signer, _ := testSigner(t, "exporter-a")
		s, err := seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: size, Root: root}, small)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	from, want := sealed(4<<10), sealed(8<<10)
	writeTree(t, from.Dir, map[string]string{"root/notes.txt": "not ours", "recovery/recovery.json": "of the other cut"})
	outbox := t.TempDir()
	for range 2 {
		got, err := recutSmall(t.Context(), outbox, 8<<10, from.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tree(t, want.Dir), tree(t, got.Dir)); diff != "" {
			t.Fatal(diff)
		}
		if got.Bytes != want.Bytes {
			t.Fatalf("%d bytes, want %d", got.Bytes, want.Bytes)
		}
	}
	writeTree(t, from.Dir, map[string]string{"root/3.root.json": "three"})
	if _, err := recutSmall(t.Context(), outbox, 8<<10, from.Dir); err == nil || !strings.Contains(err.Error(), "it has other root files") {
		t.Fatal(err)
	}
}

func TestRecutEmptyBundle(t *testing.T) {
	signer, _ := testSigner(t, "exporter-a")
	snap := artifact.Sum([]byte("old"))
	m := &Manifest{
		Stream: "main", Seq: 2, Base: 1, Prev: artifact.Sum(nil).String(), Issued: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"),
		Sources:  []SourceRef{{Name: "pypi/main", Snapshot: snap}},
		Requires: []Require{{Seq: 1, Blobs: []artifact.Digest{snap}}},
	}
	s, err := Seal(t.Context(), t.TempDir(), m, content{}.open, signer, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := Seal(t.Context(), t.TempDir(), m, content{}.open, signer, SealOptions{VolumeSize: MinVolumeSize})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Recut(t.Context(), []string{s.Dir}, t.TempDir(), SealOptions{VolumeSize: MinVolumeSize})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, want.Dir), tree(t, got.Dir)); diff != "" {
		t.Fatal(diff)
	}
	if _, err := os.Stat(filepath.Join(got.Dir, volumesDir)); err != nil {
		t.Fatal(err)
	}
}

// A volume of the source may belong to another cut of the same bundle, with
// the right size by chance: its segments are not what was signed.
func TestRecutMixedCuts(t *testing.T) {
	a, b := sealSized(t, 4<<10), sealSized(t, 5<<10+7)
	files := tree(t, a.sealed.Dir)
	name := filepath.Join(volumesDir, volumeName(2))
	other := tree(t, b.sealed.Dir)[name]
	other = (other + strings.Repeat("\x00", len(files[name])))[:len(files[name])]
	writeTree(t, a.sealed.Dir, map[string]string{name: other})
	_, err := recutSmall(t.Context(), t.TempDir(), 64<<10, a.sealed.Dir)
	wantCode(t, err, CodeSegment)
	v, ok := errors.AsType[*VolumeError](err)
	if !ok || !slices.Contains([]int{1, 2}, v.Volume) {
		t.Fatal(err)
	}
}
