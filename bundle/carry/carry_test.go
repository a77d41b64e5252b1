package carry

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/label"
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

// sealBundle seals a bundle of four volumes, the last of which is small.
func sealBundle(t testing.TB, outbox string) *bundle.Sealed {
	t.Helper()
	return sealBlobs(t, outbox, noise(1, 2<<20), noise(2, 1<<20), noise(3, 100<<10))
}

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

func volume(n int) string { return fmt.Sprintf("volumes/volume-%05d.tar", n) }

// sticks makes n empty media.
func sticks(t testing.TB, n int) []string {
	t.Helper()
	list := make([]string, n)
	for i := range list {
		list[i] = t.TempDir()
	}
	return list
}

// stamp says of each file below dir what a change would change.
func stamp(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files[rel] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// names lists the regular files of a medium, below the bundle's folder.
func names(t testing.TB, medium string, s *bundle.Sealed) []string {
	t.Helper()
	var list []string
	for name, what := range stamp(t, medium) {
		if strings.HasPrefix(what, "-") {
			rel, ok := strings.CutPrefix(name, filepath.Base(s.Dir)+"/")
			if !ok {
				t.Fatalf("%s lies outside the bundle's folder", name)
			}
			list = append(list, rel)
		}
	}
	slices.Sort(list)
	return list
}

var documents = []string{"bundle.dsse.json", "label.html", "label.txt", "volumes.json"}

// verified opens the bundle on the media as the inside does, and reads all.
func verified(t testing.TB, s *bundle.Sealed, media ...string) error {
	t.Helper()
	var dirs []string
	for _, m := range media {
		dirs = append(dirs, filepath.Join(m, filepath.Base(s.Dir)))
	}
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
	warnings, err := r.Check(t.Context(), nil)
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	return err
}

func read(t testing.TB, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, data string, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// want compares a report, but for the text of faults.
func want(t testing.TB, got *Report, s *bundle.Sealed, media ...Medium) {
	t.Helper()
	if got == nil {
		t.Fatal("no report")
	}
	for i := range media {
		for _, v := range media[i].Volumes {
			media[i].Bytes += s.Volumes[v-1].Size
		}
	}
	if diff := cmp.Diff(&Report{Folder: filepath.Base(s.Dir), ID: s.ID, Media: media}, got, cmpopts.IgnoreFields(Medium{}, "Err")); diff != "" {
		t.Fatal(diff)
	}
}

func TestCopy(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	before := stamp(t, s.Dir)
	stick := t.TempDir()
	write(t, "keep", stick, "holiday.jpg")
	var moved, items int64
	rep, err := Copy(t.Context(), s.Dir, Options{Media: []string{stick}, OnEvent: func(e artifact.Event) {
		if e.Stage == "carry" {
			moved, items = moved+e.Bytes-e.TotalBytes, items+int64(e.Items-e.TotalItems)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	all := []int{1, 2, 3, 4}
	want(t, rep, s, Medium{Dir: stick, Volumes: all, Written: all})
	if rep.Media[0].Err != nil || moved != 0 || items != 0 {
		t.Fatalf("%v; progress missed its end by %d bytes and %d items", rep.Media[0].Err, moved, items)
	}
	if err := verified(t, s, stick); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, stamp(t, s.Dir)); diff != "" {
		t.Fatalf("the source was changed: %s", diff)
	}
	if err := os.Remove(filepath.Join(stick, "holiday.jpg")); err != nil {
		t.Fatalf("a file of others: %v", err)
	}
	if diff := cmp.Diff(append(slices.Clone(documents), volume(1), volume(2), volume(3), volume(4)), names(t, stick, s)); diff != "" {
		t.Fatal(diff)
	}
	text := read(t, stick, rep.Folder, "label.txt")
	for _, say := range []string{"main 000001, full", "Volumes here   1-4 of 4\n", "Signed by      " + bundle.Fingerprint(signer("exporter-a").Public()) + "\n", "apt/bookworm: 1 artifact, 3 files, 4 B"} {
		if !strings.Contains(text, say) {
			t.Errorf("the label does not say %q:\n%s", say, text)
		}
	}
	if page := read(t, stick, rep.Folder, "label.html"); !strings.Contains(page, "<dd>1-4 of 4</dd>") {
		t.Errorf("the page does not say it: %s", page)
	}

	// Again: nothing is written.
	there := stamp(t, stick)
	rep, err = Copy(t.Context(), s.Dir, Options{Media: []string{stick}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: stick, Volumes: all})
	if diff := cmp.Diff(there, stamp(t, stick)); diff != "" {
		t.Fatalf("the second run wrote: %s", diff)
	}
}

// stick is a layer with faults, by the folder of the medium.
type stick struct {
	device
	free    map[string]int64 // shrinks while something is written
	size    map[string]int64 // of the whole medium
	maxFile int64
	// broken is asked before each use: "create", "write", "sync", "reread".
	broken func(medium, use, name string) error
	// kept changes what the device keeps of a piece that is written.
	kept func(medium, name string, p []byte) []byte
	// wrote is told of each piece that was written.
	wrote func(medium string, n int)
	uses  []string
}

func (s *stick) space(root *os.Root) (space, error) {
	sp, err := s.device.space(root)
	if free, ok := s.free[root.Name()]; ok {
		sp.free, sp.block = free, 4096
	}
	if size, ok := s.size[root.Name()]; ok {
		sp.free, sp.block = size, 4096
		err = errors.Join(err, fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				sp.free -= (info.Size() + 4095) / 4096 * 4096
			}
			return err
		}))
	}
	if s.maxFile > 0 {
		sp.maxFile, sp.kind = s.maxFile, "FAT32"
	}
	return sp, err
}

func (s *stick) fails(root *os.Root, use, name string) error {
	s.uses = append(s.uses, use+" "+filepath.Base(name))
	if s.broken == nil {
		return nil
	}
	return s.broken(root.Name(), use, name)
}

func (s *stick) create(root *os.Root, name string) (output, error) {
	if err := s.fails(root, "create", name); err != nil {
		return nil, err
	}
	f, err := s.device.create(root, name)
	return &brokenFile{f, s, root, name}, err
}

func (s *stick) reread(root *os.Root, name string) (io.ReadCloser, int64, error) {
	if err := s.fails(root, "reread", name); err != nil {
		return nil, 0, err
	}
	return s.device.reread(root, name)
}

type brokenFile struct {
	output
	s    *stick
	root *os.Root
	name string
}

func (b *brokenFile) Write(p []byte) (int, error) {
	if err := b.s.fails(b.root, "write", b.name); err != nil {
		return 0, err
	}
	if b.s.free != nil {
		b.s.free[b.root.Name()] -= int64(len(p))
	}
	n := len(p)
	if b.s.kept != nil {
		p = b.s.kept(b.root.Name(), b.name, p)
	}
	_, err := b.output.Write(p)
	if b.s.wrote != nil {
		b.s.wrote(b.root.Name(), n)
	}
	return n, err
}

func (b *brokenFile) Sync() error {
	return errors.Join(b.s.fails(b.root, "sync", b.name), b.output.Sync())
}

// The first medium that has room takes the next volume; what is small fits
// where what is large does not.
func TestFirstThatHasRoom(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	media := sticks(t, 3)
	// The documents and two volumes; one large volume; plenty.
	l := &stick{free: map[string]int64{media[0]: 2<<20 + 700<<10, media[1]: 1<<20 + 500<<10, media[2]: 1 << 30}}
	rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, l)
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s,
		Medium{Dir: media[0], Volumes: []int{1, 2, 4}, Written: []int{1, 2, 4}},
		Medium{Dir: media[1], Volumes: []int{3}, Written: []int{3}},
		Medium{Dir: media[2]})
	if err := verified(t, s, media[1], media[0]); err != nil {
		t.Fatal(err)
	}
	for i, say := range []string{"1-2, 4 of 4", "3 of 4"} {
		if text := read(t, media[i], rep.Folder, "label.txt"); !strings.Contains(text, "Volumes here   "+say+"\n") {
			t.Errorf("the label does not say %q: %s", say, text)
		}
	}
	if left, err := os.ReadDir(media[2]); err != nil || len(left) > 0 {
		t.Fatalf("a medium that is not needed was written to: %v %v", left, err)
	}
}

// What does not fit is named, with its bytes, and goes to another stick.
func TestFinishedOnAnotherStick(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	media := sticks(t, 2)
	rep, err := copyTo(t.Context(), s.Dir, Options{Media: media[:1]}, &stick{free: map[string]int64{media[0]: 1<<20 + 500<<10}})
	more, ok := errors.AsType[*RoomError](err)
	if !ok {
		t.Fatal(err)
	}
	need := s.Volumes[1].Size + s.Volumes[2].Size
	if diff := cmp.Diff([]int{2, 3}, more.Volumes); diff != "" || more.Need != need || len(more.Media) != 1 {
		t.Fatalf("%+v, want %d bytes for %s", more, need, diff)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("bundle 000001 of stream main: no medium takes volumes 2, 3: %d bytes more are needed\n%s: ", need, media[0])) {
		t.Error(err)
	}
	want(t, rep, s, Medium{Dir: media[0], Volumes: []int{1, 4}, Written: []int{1, 4}})
	rep, err = Copy(t.Context(), s.Dir, Options{Media: media[1:], Only: []int{3, 2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: media[1], Volumes: []int{2, 3}, Written: []int{2, 3}})
	if err := verified(t, s, media...); err != nil {
		t.Fatal(err)
	}
	// A label names what lies there, whichever run wrote it.
	rep, err = Copy(t.Context(), s.Dir, Options{Media: media[1:], Only: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: media[1], Volumes: []int{1, 2, 3}, Written: []int{1}})
	if text := read(t, media[1], rep.Folder, "label.txt"); !strings.Contains(text, "1-3 of 4") {
		t.Error(text)
	}
}

// A full stick whose last run was killed gets its documents and its label,
// even if nothing more fits.
func TestFullStickIsFinished(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	media := sticks(t, 1)
	if _, err := Copy(t.Context(), s.Dir, Options{Media: media, Only: []int{1, 2}}); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(media[0], filepath.Base(s.Dir))
	label := read(t, folder, "label.txt")
	write(t, "NOT FINISHED", folder, "label.txt")
	if err := os.Remove(filepath.Join(folder, "bundle.dsse.json")); err != nil {
		t.Fatal(err)
	}
	_, err := copyTo(t.Context(), s.Dir, Options{Media: media}, &stick{free: map[string]int64{media[0]: 50 << 10}})
	if more, ok := errors.AsType[*RoomError](err); !ok || !slices.Equal(more.Volumes, []int{3, 4}) {
		t.Fatal(err)
	}
	if got := read(t, folder, "label.txt"); got != label {
		t.Error(got)
	}
	if diff := cmp.Diff(append(slices.Clone(documents), volume(1), volume(2)), names(t, media[0], s)); diff != "" {
		t.Fatal(diff)
	}
}

// Where nothing fits, nothing is written.
func TestNothingFits(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	for name, l := range map[string]*stick{
		"no room":    {free: map[string]int64{}},
		"fat":        {maxFile: 90 << 10},
		"full stick": {broken: func(_, use, _ string) error { return errors.New(use + " was called") }, free: map[string]int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			media := sticks(t, 2)
			if l.free != nil {
				l.free[media[0]], l.free[media[1]] = 4096, 100<<10
			}
			rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, l)
			more, ok := errors.AsType[*RoomError](err)
			if !ok || len(more.Volumes) != 4 || len(more.Media) != 2 {
				t.Fatal(err)
			}
			want(t, rep, s, Medium{Dir: media[0]}, Medium{Dir: media[1]})
			for _, m := range media {
				if left, err := os.ReadDir(m); err != nil || len(left) > 0 {
					t.Fatalf("something was written: %v %v", left, err)
				}
			}
			if l.maxFile > 0 && !strings.Contains(err.Error(), "FAT32 holds no file over 92160 bytes: cut the bundle anew") {
				t.Error(err)
			}
		})
	}
}

// The limits of one medium do not concern another.
func TestLargeFileGoesPastFAT(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	media := sticks(t, 1)
	rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, &stick{maxFile: s.Volumes[3].Size})
	more, ok := errors.AsType[*RoomError](err)
	if !ok || !slices.Equal(more.Volumes, []int{1, 2, 3}) {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: media[0], Volumes: []int{4}, Written: []int{4}})
}

func TestNoVerify(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	for _, no := range []bool{false, true} {
		media := sticks(t, 1)
		l := &stick{}
		if _, err := copyTo(t.Context(), s.Dir, Options{Media: media, NoVerify: no}, l); err != nil {
			t.Fatal(err)
		}
		count := make(map[string]int)
		for _, u := range l.uses {
			count[u]++
		}
		for _, v := range []string{"1", "2", "3", "4"} {
			// At once under its temporary name, and once all is written; the
			// last one needs no second look.
			first, second := count["reread .tmp-volume-0000"+v+".tar"], count["reread volume-0000"+v+".tar"]
			wantFirst, wantSecond := 1, 1
			if v == "4" {
				wantSecond = 0
			}
			if no {
				wantFirst, wantSecond = 0, 0
			}
			if first != wantFirst || second != wantSecond {
				t.Errorf("NoVerify %v: volume %s was read back %d times at once and %d times later", no, v, first, second)
			}
		}
	}
}

// A bundle without volumes is its documents.
func TestHeartbeat(t *testing.T) {
	m := &bundle.Manifest{
		Stream: "main", Seq: 2, Base: 1, Prev: artifact.Sum(nil).String(),
		Issued: time.Date(2026, 11, 22, 20, 15, 0, 0, time.UTC), Expires: time.Date(2027, 2, 20, 20, 15, 0, 0, time.UTC),
		Sources:  []bundle.SourceRef{{Name: "pypi/main", Snapshot: artifact.Sum([]byte("old"))}},
		Requires: []bundle.Require{{Seq: 1, Blobs: []artifact.Digest{artifact.Sum([]byte("old"))}}},
	}
	s, err := bundle.Seal(t.Context(), t.TempDir(), m, nil, signer("exporter-a"), bundle.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	media := sticks(t, 2)
	rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, &stick{free: map[string]int64{media[0]: 10, media[1]: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: media[0]}, Medium{Dir: media[1]})
	if diff := cmp.Diff(documents, names(t, media[1], s)); diff != "" {
		t.Fatal(diff)
	}
	if err := verified(t, s, media[1]); err != nil {
		t.Fatal(err)
	}
	_, err = copyTo(t.Context(), s.Dir, Options{Media: media[:1]}, &stick{free: map[string]int64{media[0]: 10}})
	if more, ok := errors.AsType[*RoomError](err); !ok || !strings.Contains(more.Error(), "no medium takes the bundle's documents") {
		t.Fatal(err)
	}
}

// The chain of root files lies on every medium, and so does what is small of
// the recovery data; large recovery files lie once.
func TestRootAndRecovery(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	write(t, `{"version":1}`, s.Dir, "root", "1.root.json")
	write(t, `{"rows":2}`, s.Dir, "recovery", "recovery.json")
	large := string(noise(9, 1<<20+5))
	write(t, large, s.Dir, "recovery", "recovery-00001.bin")
	write(t, "not ours", s.Dir, "recovery", ".tmp-1")
	write(t, "not ours", s.Dir, "recovery", "Notes of X.txt")
	if err := os.Symlink("/etc/passwd", filepath.Join(s.Dir, "root", "2.root.json")); err != nil {
		t.Fatal(err)
	}
	media := sticks(t, 2)
	l := &stick{free: map[string]int64{media[0]: 2<<20 + 800<<10, media[1]: 1 << 30}}
	rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, l)
	if err != nil {
		t.Fatal(err)
	}
	const lies = "recovery/recovery-00001.bin"
	if diff := cmp.Diff([]string{lies}, rep.Media[1].Recovery); diff != "" || rep.Media[1].Bytes != s.Volumes[2].Size+int64(len(large)) {
		t.Fatalf("%s: %+v", diff, rep)
	}
	small := append(slices.Clone(documents), "recovery/recovery.json", "root/1.root.json")
	for i, more := range [][]string{{volume(1), volume(2), volume(4)}, {volume(3), lies}} {
		list := append(slices.Clone(small), more...)
		slices.Sort(list)
		if diff := cmp.Diff(list, names(t, media[i], s)); diff != "" {
			t.Error(diff)
		}
	}
	if read(t, media[1], rep.Folder, lies) != large || read(t, media[0], rep.Folder, "root", "1.root.json") != `{"version":1}` {
		t.Fatal("other bytes")
	}
	// A second run knows the recovery file; one for a single volume does not
	// carry it.
	there := stamp(t, media[1])
	if rep, err = Copy(t.Context(), s.Dir, Options{Media: media}); err != nil || len(rep.Media[1].Recovery) != 1 || len(rep.Media[0].Written)+len(rep.Media[1].Written) != 0 {
		t.Fatal(rep, err)
	}
	if diff := cmp.Diff(there, stamp(t, media[1])); diff != "" {
		t.Fatal(diff)
	}
	media = sticks(t, 1)
	if rep, err = Copy(t.Context(), s.Dir, Options{Media: media, Only: []int{2}}); err != nil || len(rep.Media[0].Recovery) != 0 {
		t.Fatal(rep, err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "root", "3.root.json"), make([]byte, maxSmall+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), s.Dir, Options{Media: sticks(t, 1)}); err == nil || !strings.Contains(err.Error(), "root/3.root.json") {
		t.Fatal(err)
	}
}

func TestRefuses(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	stick := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(stick, link); err != nil {
		t.Fatal(err)
	}
	cut, err := bundle.Recut(t.Context(), []string{s.Dir}, t.TempDir(), bundle.SealOptions{VolumeSize: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	approved := sealBundle(t, t.TempDir())
	_, err = bundle.Approve(approved.Dir, signer("approver-a"), trust(), bundle.Approval{ID: s.ID, Now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		o   Options
		say string
	}{
		"no medium":        {Options{}, "no medium is given"},
		"missing medium":   {Options{Media: []string{filepath.Join(stick, "none")}}, "no such file"},
		"twice":            {Options{Media: []string{stick, stick}}, "given twice"},
		"twice by a link":  {Options{Media: []string{stick, link}}, "given twice"},
		"itself":           {Options{Media: []string{filepath.Dir(s.Dir)}}, "holds the bundle itself"},
		"volume 0":         {Options{Media: []string{stick}, Only: []int{0}}, "no volume 0: want 1 to 4"},
		"volume 5":         {Options{Media: []string{stick}, Only: []int{1, 5}}, "no volume 5: want 1 to 4"},
		"another cut":      {Options{Media: []string{stick, filepath.Dir(cut.Dir)}}, "this bundle in another cut"},
		"other signatures": {Options{Media: []string{stick, filepath.Dir(approved.Dir)}}, "signatures that the source lacks"},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := []string{stick, s.Dir, cut.Dir, approved.Dir}
			var before []map[string]string
			for _, d := range dirs {
				before = append(before, stamp(t, d))
			}
			rep, err := Copy(t.Context(), s.Dir, tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.say) || rep != nil {
				t.Fatalf("%v, %v, want %q", rep, err, tc.say)
			}
			for i, d := range dirs {
				if diff := cmp.Diff(before[i], stamp(t, d)); diff != "" {
					t.Errorf("%s was changed: %s", d, diff)
				}
			}
		})
	}
	// The other way round the medium lacks a signature, and gets it.
	if _, err := Copy(t.Context(), approved.Dir, Options{Media: []string{filepath.Dir(s.Dir)}}); err != nil {
		t.Fatal(err)
	}
	if read(t, s.Dir, "bundle.dsse.json") != read(t, approved.Dir, "bundle.dsse.json") {
		t.Fatal("the approval was not carried")
	}
}

// A source that is not what was sealed ends the run, and no wrong byte gets a
// name.
func TestBadSource(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string)
		code  string
		left  []string
	}{
		"flipped": {func(t *testing.T, dir string) {
			data := []byte(read(t, dir, volume(3)))
			data[1000] ^= 1
			write(t, string(data), dir, volume(3))
		}, bundle.CodeVolume, []string{volume(1), volume(2)}},
		"missing": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, volume(2))); err != nil {
				t.Fatal(err)
			}
		}, bundle.CodeVolume, nil},
		"truncated": {func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, volume(2)), 5); err != nil {
				t.Fatal(err)
			}
		}, bundle.CodeVolume, nil},
		"link": {func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(filepath.Join(dir, volume(2))), os.Symlink("volume-00001.tar", filepath.Join(dir, volume(2)))); err != nil {
				t.Fatal(err)
			}
		}, bundle.CodeVolume, nil},
		"index": {func(t *testing.T, dir string) { write(t, "{}", dir, "volumes.json") }, bundle.CodeVolumes, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := sealBundle(t, t.TempDir())
			tc.spoil(t, s.Dir)
			media := sticks(t, 2)
			rep, err := Copy(t.Context(), s.Dir, Options{Media: media})
			if !errors.Is(err, artifact.ErrIntegrity) || !strings.Contains(err.Error(), "["+tc.code+"]") || rep != nil {
				t.Fatalf("%v, %v", rep, err)
			}
			var left []string
			for _, n := range names(t, media[0], s) {
				if strings.HasPrefix(n, "volumes/") {
					left = append(left, n)
				}
			}
			if diff := cmp.Diff(tc.left, left); diff != "" {
				t.Error(diff)
			}
			if tc.left != nil && !strings.HasPrefix(read(t, media[0], filepath.Base(s.Dir), "label.txt"), "NOT FINISHED") {
				t.Error("the label is not true")
			}
			if left, err := os.ReadDir(media[1]); err != nil || len(left) > 0 {
				t.Fatal(left, err)
			}
			// With the volume as it was, the run is finished.
			whole := sealBundle(t, t.TempDir())
			if rep, err = Copy(t.Context(), whole.Dir, Options{Media: media[:1]}); err != nil || len(rep.Media[0].Written) != 4-len(tc.left) {
				t.Fatal(rep, err)
			}
		})
	}
}

// The rate is held; the clock of the test is not the real one.
func TestBandwidth(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	var bytes int64
	for _, v := range s.Volumes {
		bytes += v.Size
	}
	for _, bound := range []int64{0, 100 << 10} {
		media := sticks(t, 1)
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			if _, err := Copy(t.Context(), s.Dir, Options{Media: media, Bandwidth: bound}); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			if bound == 0 {
				if took != 0 {
					t.Errorf("without a bound the run waited %v", took)
				}
				return
			}
			// One piece may go at once.
			least := time.Duration(bytes-chunkSize) * time.Second / time.Duration(bound)
			if took < least || took > 2*least {
				t.Errorf("%d bytes in %v, want about %v", bytes, took, least)
			}
		})
	}
}

// What the label's code says is what lies there.
func TestLabelNamesBundle(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	src, err := openSource(s.Dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := src.close(); err != nil {
			t.Error(err)
		}
	}()
	got, err := label.Parse(src.claim.Code())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(label.Label{Stream: "main", Seq: 1, ID: s.ID, Volumes: 4}, got); diff != "" {
		t.Fatal(diff)
	}
	for id, say := range map[string]string{
		bundle.KeyID(signer("x").Public()): bundle.Fingerprint(signer("x").Public()),
		"":                                 "a key without a usable id",
		strings.Repeat("\x1b", 64):         "a key without a usable id",
	} {
		if got := fingerprint(id); got != say {
			t.Errorf("%q: %q, want %q", id, got, say)
		}
	}
}
