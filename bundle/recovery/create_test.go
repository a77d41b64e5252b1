package recovery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/crypt"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestCreate(t *testing.T) {
	dir := sealBundle(t)
	before := tree(t, dir)
	var moved, items int64
	o := Options{Percent: 20, OnEvent: func(e artifact.Event) {
		if e.Stage != "recovery" {
			t.Errorf("stage %q", e.Stage)
		}
		moved, items = moved+e.Bytes-e.TotalBytes, items+int64(e.Items-e.TotalItems)
	}}
	made, err := Create(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	after := tree(t, dir)
	want := &Made{
		Files: 1, Bytes: int64(len(after["recovery/recovery-00001.rs"])), DataBlocks: made.DataBlocks, ParityBlocks: (made.DataBlocks + 4) / 5,
		Block: 4096, Survives: made.Survives,
	}
	if diff := cmp.Diff(want, made); diff != "" || made.DataBlocks < 150 {
		t.Fatalf("%s %+v", diff, made)
	}
	if moved != 0 || items != 0 {
		t.Errorf("progress missed its end by %d bytes and %d items", moved, items)
	}
	for name, data := range before {
		if after[name] != data {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before)+1 {
		t.Errorf("made %v", sorted(after))
	}
	if err := verified(t, dir); err != nil {
		t.Fatal(err)
	}

	// Again: nothing to do, and what is there stays.
	stamp := func() os.FileInfo {
		info, err := os.Stat(filepath.Join(dir, "recovery", "recovery-00001.rs"))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := stamp()
	again, err := Create(t.Context(), dir, Options{Percent: 20})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, again); diff != "" || !os.SameFile(first, stamp()) || !first.ModTime().Equal(stamp().ModTime()) {
		t.Fatalf("it was written again: %s", diff)
	}
	// With other options, or of other content: refused.
	if _, err := Create(t.Context(), dir, Options{Percent: 21}); err == nil || !strings.Contains(err.Error(), "other options; remove it first") {
		t.Errorf("other options: %v", err)
	}
	flipAt(t, filepath.Join(dir, "recovery", "recovery-00001.rs"), first.Size()/2)
	if _, err := Create(t.Context(), dir, Options{Percent: 20}); err == nil || !strings.Contains(err.Error(), "does not fit what is there now: recovery/recovery-00001.rs") {
		t.Errorf("other content: %v", err)
	}
}

// The same bundle in another folder, and by another order of files on disk,
// gives the same bytes.
func TestCreateIsDeterministic(t *testing.T) {
	var trees []map[string]string
	for range 2 {
		dir := fake(t, map[string]string{"bundle.dsse.json": string(noise(1, 3000)), "volumes/a": string(noise(2, 900_000)), "volumes/b": string(noise(3, 700_000))})
		createFake(t, dir, Options{Percent: 30, MaxFile: 300_000})
		trees = append(trees, tree(t, dir))
	}
	if diff := cmp.Diff(trees[0], trees[1]); diff != "" || len(trees[0]) < 5 {
		t.Fatalf("%v", sorted(trees[0]))
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := sealBundle(t)
	for name, o := range map[string]Options{
		"nothing asked for": {}, "percent": {Percent: 101}, "below": {Percent: -1}, "volumes": {Volumes: -1}, "size": {Percent: 1, MaxFile: -1},
		"small medium": {Percent: 1, MaxFile: 100},
	} {
		if _, err := Create(t.Context(), dir, o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o := Options{Percent: 10}
	if _, err := Create(t.Context(), t.TempDir(), o); err == nil {
		t.Error("a folder that is no bundle was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Create(ctx, dir, o); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	volume := filepath.Join(dir, "volumes", "volume-00002.tar")
	if err := os.Truncate(volume, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), dir, o); !errors.Is(err, artifact.ErrIntegrity) || !strings.Contains(err.Error(), "volume-00002.tar") {
		t.Errorf("a truncated volume: %v", err)
	}
	for name := range tree(t, dir) {
		if strings.Contains(name, "recovery") {
			t.Errorf("left %s", name)
		}
	}
}

// An encrypted bundle needs no identity to be repaired.
func TestEncrypted(t *testing.T) {
	plain := sealBundle(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := crypt.ParseRecipients([]byte(id.Recipient().String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := crypt.NewEncrypter(recipients)
	if err != nil {
		t.Fatal(err)
	}
	s, err := bundle.Encrypt(t.Context(), []string{plain}, filepath.Join(t.TempDir(), "out"), e, signer("exporter-a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), s.Dir, Options{Volumes: 1}); err != nil {
		t.Fatal(err)
	}
	whole := tree(t, s.Dir)
	for _, name := range []string{"carried.dsse.json", "volumes/volume-00001.tar.age"} {
		data, ok := whole[name]
		if !ok {
			t.Fatalf("no %s: %v", name, sorted(whole))
		}
		if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
			t.Fatal(err)
		}
		repaired(t, whole, []string{name}, s.Dir)
		write(t, s.Dir, name, data)
	}
	if err := os.Truncate(filepath.Join(s.Dir, "volumes", "volume-00001.tar.age"), 10); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, "recovery")); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), s.Dir, Options{Volumes: 1}); !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("a truncated volume: %v", err)
	}
}

// budget is a disk that is full after so many bytes, or fails to sync.
type budget struct{ left, syncs int64 }

func (b *budget) disk() disk {
	return disk{
		create: func(root *os.Root, name string) (output, error) {
			out, err := realDisk().create(root, name)
			return &budgetFile{out, b}, err
		},
		syncDir: func(string) error { return b.sync() },
	}
}

func (b *budget) sync() error {
	if b.syncs--; b.syncs < 0 {
		return syscall.EIO
	}
	return nil
}

type budgetFile struct {
	output
	b *budget
}

func (f *budgetFile) WriteAt(p []byte, off int64) (int, error) {
	if f.b.left -= int64(len(p)); f.b.left < 0 {
		return 0, syscall.ENOSPC
	}
	return f.output.WriteAt(p, off)
}

func (f *budgetFile) Sync() error { return f.b.sync() }

// Whatever write or sync fails, nothing is left, and a second run succeeds.
func TestFullDisk(t *testing.T) {
	dir := fake(t, few())
	o := Options{Percent: 100, MaxFile: 10_000}
	const much = 1 << 40
	plain := tree(t, dir)
	failed := 0
	for n := int64(0); ; n++ {
		b := &budget{left: n * 1000, syncs: much}
		if n >= 40 {
			b = &budget{left: much, syncs: n - 40}
		}
		_, err := createWith(t.Context(), dir, o, b.disk())
		if err == nil {
			if n < 40 {
				continue // no byte is wanting
			}
			break
		}
		failed++
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		got := tree(t, dir)
		if len(got) != len(plain) && !errors.Is(err, syscall.EIO) {
			t.Fatalf("step %d left %v", n, sorted(got))
		}
		// The last sync comes after the rename: all of it is there.
		for name := range got {
			if strings.HasPrefix(name, ".tmp-") {
				t.Fatalf("step %d left %s", n, name)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, "recovery")); err != nil {
			t.Fatal(err)
		}
	}
	if failed < 10 {
		t.Fatalf("%d steps failed", failed)
	}
}

func TestFullOutput(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 100, MaxFile: 10_000})
	whole := tree(t, dir)
	names := []string{"bundle.dsse.json", "volumes/volume-00001.tar", "recovery/recovery-00002.rs"}
	for _, name := range names {
		flipAt(t, filepath.Join(dir, name), 150)
	}
	total := int64(0)
	for _, name := range names {
		total += int64(len(whole[name]))
	}
	for left := int64(0); left < total; left += 300 {
		out := t.TempDir()
		_, err := repairWith(t.Context(), out, (&budget{left: left, syncs: 1 << 40}).disk(), []string{dir})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%d bytes of %d: %v", left, total, err)
		}
		if got := tree(t, out); len(got) != 0 {
			t.Fatalf("left %v", sorted(got))
		}
	}
	// Six syncs of files and folders come before the rename.
	for syncs := range int64(6) {
		out := t.TempDir()
		_, err := repairWith(t.Context(), out, (&budget{left: 1 << 40, syncs: syncs}).disk(), []string{dir})
		if got := tree(t, out); !errors.Is(err, syscall.EIO) || len(got) != 0 {
			t.Fatalf("%d syncs: left %v, %v", syncs, sorted(got), err)
		}
	}
	out := t.TempDir()
	if _, err := repairWith(t.Context(), out, (&budget{left: total, syncs: 7}).disk(), []string{dir}); err != nil {
		t.Fatal(err)
	}
	repaired(t, whole, names, dir)
}
