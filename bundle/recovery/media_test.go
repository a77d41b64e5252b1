package recovery

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// After a repair the inside takes the bundle with the repaired folder named
// first, whatever was damaged; with the media first, what was missing.
func TestInsideTakesIt(t *testing.T) {
	dir := sealBundle(t)
	if _, err := Create(t.Context(), dir, Options{Volumes: 1}); err != nil {
		t.Fatal(err)
	}
	whole := tree(t, dir)
	for _, name := range []string{"bundle.dsse.json", "volumes.json", "volumes/volume-00002.tar"} {
		for _, how := range []string{"flip", "missing", "shorter"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				files := maps.Clone(whole)
				switch data := files[name]; how {
				case "flip":
					files[name] = flipped(data, len(data)/2)
				case "missing":
					delete(files, name)
				case "shorter":
					files[name] = data[:len(data)/2]
				}
				medium, out := copyTree(t, filepath.Base(dir), files), t.TempDir()
				if err := verified(t, medium); err == nil {
					t.Fatal("the damage is not seen")
				}
				st, err := Repair(t.Context(), out, medium)
				if err != nil {
					t.Fatal(err)
				}
				fixed := filepath.Join(out, st.Name)
				if err := verified(t, fixed, medium); err != nil {
					t.Errorf("repaired folder first: %v", err)
				}
				if how != "missing" {
					return
				}
				if err := verified(t, medium, fixed); err != nil {
					t.Errorf("medium first: %v", err)
				}
			})
		}
	}
}

// flipped changes one byte.
func flipped(s string, at int) string { return s[:at] + string([]byte{s[at] ^ 1}) + s[at+1:] }

// Two media hold the bundle in parts, each with damage of its own; a block is
// taken from whichever has it right.
func TestSeveralMedia(t *testing.T) {
	dir := sealBundle(t)
	made, err := Create(t.Context(), dir, Options{Percent: 1})
	if err != nil {
		t.Fatal(err)
	}
	whole := tree(t, dir)
	const one, two, rec = "volumes/volume-00001.tar", "volumes/volume-00002.tar", "recovery/recovery-00001.rs"
	a, b := maps.Clone(whole), maps.Clone(whole)
	// Of the first volume each has another half; that is more than parity
	// repairs.
	half := strings.Repeat("x", 1<<19)
	a[one] = half + a[one][1<<19:]
	b[one] = b[one][:1<<19] + half
	// The second is whole on b alone. The index is damaged here at its
	// beginning, there at its end.
	a[two] = flipped(a[two], 12345)
	a["volumes.json"] = flipped(a["volumes.json"], 17)
	a[rec], b[rec] = flipped(a[rec], 100), flipped(b[rec], len(b[rec])-100)
	name := filepath.Base(dir)
	ma, mb := copyTree(t, name, a), copyTree(t, name, b)
	if err := verified(t, ma, mb); err == nil {
		t.Fatal("the damage is not seen")
	}
	names := []string{"volumes.json", one, two, rec}
	st, err := Check(t.Context(), ma, filepath.Dir(mb)) // a folder, and what holds one
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names, damaged(st)); diff != "" || st.Whole || !st.Repairable || st.Name != name {
		t.Fatalf("%s %+v", diff, st)
	}
	for _, d := range st.Damaged {
		if d.Blocks != 0 || d.Bytes != 0 || d.Missing || !d.Repairable {
			t.Errorf("%+v", d)
		}
	}
	repaired(t, whole, names, ma, mb)
	repaired(t, whole, names, mb, ma, ma)

	// Each alone is beyond the parity, and says where.
	_, err = Repair(t.Context(), filepath.Join(t.TempDir(), "out"), ma)
	refused(t, err, CodeRecovery, one+": 524288 bytes, at 0-524287")
	st, err = Check(t.Context(), ma)
	if err != nil || st.Repairable || made.ParityBlocks > 2 {
		t.Fatalf("%+v %v", st, err)
	}
	// With both and a repaired folder nothing is wanting.
	out := t.TempDir()
	if _, err := Repair(t.Context(), out, ma, mb); err != nil {
		t.Fatal(err)
	}
	if err := verified(t, filepath.Join(out, name), ma, mb); err != nil {
		t.Fatal(err)
	}
}

// What was read twice may differ the second time.
func TestChangesMeanwhile(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 20})
	flipAt(t, filepath.Join(dir, "volumes.json"), 7)
	s, folders, err := openMedia([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := closeMedia(folders); err != nil {
			t.Error(err)
		}
	}()
	sc, err := look(t.Context(), s, folders)
	if err != nil {
		t.Fatal(err)
	}
	flipAt(t, filepath.Join(dir, "bundle.dsse.json"), 3)
	out := t.TempDir()
	r := &repairer{scan: sc, open: newOpenFiles(), disk: realDisk(), wanted: []int{2}}
	err = r.run(t.Context(), out)
	refused(t, err, CodeRecovery, "blocks that were right are not any more")
	if left := tree(t, out); len(left) != 0 {
		t.Fatalf("left %v", sorted(left))
	}
	if err := r.open.close(); err != nil {
		t.Fatal(err)
	}
}

// An index that lies makes no file: what is computed must have its digest.
func TestIndexLies(t *testing.T) {
	for name, lie := range map[string]struct {
		unit  int64  // whose digest is wrong
		spoil string // the file that is missing
	}{
		"data":   {0, "bundle.dsse.json"},
		"parity": {4, "recovery/recovery-00002.rs"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fake(t, few())
			createFake(t, dir, Options{Percent: 50, MaxFile: 7_000})
			s, folders, err := openMedia([]string{dir})
			if err != nil {
				t.Fatal(err)
			}
			if err := closeMedia(folders); err != nil {
				t.Fatal(err)
			}
			s.setSum(lie.unit, sum{1}) // in s.data too
			s = newSet(s.index, s.data)
			for i := range s.Rows {
				file := s.path(len(s.Files) + i)
				whole := tree(t, dir)[file]
				write(t, dir, file, string(s.start(i))+whole[s.bodyAt():s.bodyAt()+s.bodyLen(i)]+string(s.end(i)))
			}
			if err := os.Remove(filepath.Join(dir, lie.spoil)); err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			_, err = Repair(t.Context(), out, dir)
			refused(t, err, CodeRecovery, "the recovery files contradict themselves")
			if left := tree(t, out); len(left) != 0 {
				t.Fatalf("left %v", sorted(left))
			}
		})
	}
}

func TestBeyond(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 20})
	write(t, dir, "volumes.json", "")
	if err := os.Remove(filepath.Join(dir, "bundle.dsse.json")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	out := filepath.Join(t.TempDir(), "out")
	_, err := Repair(t.Context(), out, dir)
	refused(t, err, CodeRecovery, "bundle.dsse.json is missing, 700 bytes", "volumes.json: 300 bytes, at 0-299")
	if left := tree(t, out); len(left) != 0 {
		t.Fatalf("left %v", sorted(left))
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	st, err := Check(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &State{Name: filepath.Base(dir), Damaged: []Damage{
		{Path: "bundle.dsse.json", Missing: true, Blocks: 1, Bytes: 700, Ranges: [][2]int64{{0, 700}}},
		{Path: "volumes.json", Blocks: 1, Bytes: 300, Ranges: [][2]int64{{0, 300}}},
	}}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Fatal(diff)
	}
}

// A refusal is of bounded length, however much is lost.
func TestBeyondIsBounded(t *testing.T) {
	files := make(map[string]string)
	for i := range 60 {
		files["volumes/"+strings.Repeat("v", i+1)] = string(noise(byte(i), 100))
	}
	dir := fake(t, files)
	createFake(t, dir, Options{Percent: 1})
	for name := range files {
		write(t, dir, name, "")
	}
	_, err := Repair(t.Context(), t.TempDir(), dir)
	refused(t, err, CodeRecovery, "and 40 more files")
}

func TestWhole(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 50})
	write(t, dir, "label.txt", "differs from medium to medium")
	write(t, dir, ".tmp-x", "left by a killed run")
	write(t, dir, "notes", "not covered")
	out := filepath.Join(t.TempDir(), "out")
	for _, media := range [][]string{{dir}, {filepath.Dir(dir)}, {dir, t.TempDir()}, {t.TempDir(), filepath.Dir(dir), dir}} {
		st, err := Repair(t.Context(), out, media...)
		if diff := cmp.Diff(&State{Name: filepath.Base(dir), Whole: true, Repairable: true}, st); diff != "" || err != nil {
			t.Fatal(diff, err)
		}
	}
	if _, err := os.Lstat(out); !os.IsNotExist(err) {
		t.Fatalf("an output was made: %v", err)
	}
}

// Only regular files are read; a link counts as missing, wherever it leads.
func TestHostileMedium(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 100})
	whole := tree(t, dir)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(whole["volumes.json"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{secret, "bundle.dsse.json", "/dev/zero", ".", "volumes.json"} {
		name := filepath.Join(dir, "volumes.json")
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
		st, err := Check(t.Context(), dir)
		if err != nil || len(st.Damaged) != 1 || !st.Damaged[0].Missing {
			t.Fatalf("%s: %+v %v", target, st, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "volumes")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "volumes")); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	st, err := Repair(t.Context(), out, dir)
	if err != nil || len(st.Damaged) != 2 {
		t.Fatalf("%+v %v", st, err)
	}
	fixed := tree(t, filepath.Join(out, st.Name))
	for _, n := range []string{"volumes.json", "volumes/volume-00001.tar"} {
		if fixed[n] != whole[n] {
			t.Errorf("%s was repaired otherwise", n)
		}
	}
}

// Media that do not belong together are refused, and so is an output on one.
func TestRefusedMedia(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 50})
	other := fake(t, map[string]string{"bundle.dsse.json": "another"})
	createFake(t, other, Options{Percent: 50})
	_, err := Check(t.Context(), dir, other)
	refused(t, err, CodeFormat, "it is of another making than")
	_, err = Check(t.Context(), t.TempDir())
	refused(t, err, CodeFormat, "no usable index in 0 recovery files")
	if _, err := Check(t.Context()); err == nil {
		t.Error("no medium was accepted")
	}
	if _, err := Check(t.Context(), filepath.Join(dir, "nothing")); err == nil {
		t.Error("a medium that is not there was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Check(ctx, dir); err == nil {
		t.Error("it goes on after it was stopped")
	}

	flipAt(t, filepath.Join(dir, "volumes.json"), 0)
	before := tree(t, dir)
	inside := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "volumes"), inside); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "new", "er"), inside, filepath.Join(inside, "new")} {
		if _, err := Repair(t.Context(), out, dir); err == nil || !strings.Contains(err.Error(), "which is only read") {
			t.Errorf("%s: %v", out, err)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
}

// A second run finds what the first made; another content is left alone.
func TestOutputIsThere(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 50})
	whole := tree(t, dir)
	flipAt(t, filepath.Join(dir, "volumes.json"), 0)
	out := t.TempDir()
	for range 2 {
		if _, err := Repair(t.Context(), out, dir); err != nil {
			t.Fatal(err)
		}
		if got := tree(t, filepath.Join(out, filepath.Base(dir))); len(got) != 1 || got["volumes.json"] != whole["volumes.json"] {
			t.Fatalf("got %v", sorted(got))
		}
	}
	flipAt(t, filepath.Join(out, filepath.Base(dir), "volumes.json"), 5)
	before := tree(t, out)
	if _, err := Repair(t.Context(), out, dir); err == nil || !strings.Contains(err.Error(), "already there") {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, out)); diff != "" {
		t.Fatal(diff)
	}
}

// rotten is a file with sectors that cannot be read: a read ends before the
// first of them with an error.
type rotten struct {
	data     string
	from, to int64
}

func (r rotten) ReadAt(p []byte, off int64) (int, error) {
	n, err := strings.NewReader(r.data).ReadAt(p, off)
	if off < r.to && off+int64(n) > r.from {
		return int(max(0, r.from-off)), syscall.EIO
	}
	return n, err
}

// What cannot be read costs the blocks that it lies in and no others.
func TestBadSectors(t *testing.T) {
	const size = 900_000
	data := string(noise(1, size))
	dir := fake(t, map[string]string{"bundle.dsse.json": data})
	createFake(t, dir, Options{Percent: 20, MaxFile: 300_000})
	s, folders, err := openMedia([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := closeMedia(folders); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]int64{{0, 512}, {4095, 4097}, {500_000, 540_000}, {899_000, 899_001}, {size - 1, size}, {0, size}} {
		sc := &scan{set: s, where: make([]uint16, s.units()), buf: make([]byte, 16*s.Block)}
		right, err := sc.readBlocks(t.Context(), rotten{data, bad[0], bad[1]}, 0, 1)
		if err != nil || right {
			t.Fatalf("%v: %t, %v", bad, right, err)
		}
		for n := range s.unitCount(0) {
			_, off, size := s.at(0, n)
			if lost := sc.where[n] == 0; lost != (off < bad[1] && off+size > bad[0]) {
				t.Errorf("%v: block %d, lost %t", bad, n, lost)
			}
		}
	}
	want := s.start(0)
	sc := &scan{set: s, buf: make([]byte, 100)}
	if got := sc.compare(rotten{string(want), 150, 160}, want, 0, nil); len(got) != 1 || got[0][0] != 150 {
		t.Errorf("a bad sector in the index: %v", got)
	}
	if got := sc.compare(strings.NewReader(string(want)), want, 0, nil); got != nil {
		t.Errorf("nothing is wrong: %v", got)
	}
}

// More files than are open at once, and more to write than at once.
func TestManyFiles(t *testing.T) {
	files := make(map[string]string)
	for i := range 2 * maxOpen {
		files[fmt.Sprintf("volumes/%04d", i)] = string(noise(byte(i), 50+i))
	}
	dir := fake(t, files)
	createFake(t, dir, Options{Percent: 100})
	whole := tree(t, dir)
	var names []string
	for i := range maxOuts + 20 { // neighbours, so that no column loses too many
		name := fmt.Sprintf("volumes/%04d", 100+i)
		names = append(names, name)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	repaired(t, whole, names, dir)
}
