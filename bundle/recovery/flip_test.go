package recovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// flipAt changes one byte of a file in place.
func flipAt(t testing.TB, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// Every byte of every file, the recovery file included: a flip is found, named
// and within a block or what stands around them, and repaired.
func TestEveryByte(t *testing.T) {
	dir := fake(t, few())
	made := createFake(t, dir, Options{Percent: 20})
	if made.DataBlocks != 4 || made.ParityBlocks != 1 || made.Block != minBlock || made.Files != 1 {
		t.Fatalf("made %+v", made)
	}
	want := tree(t, dir)
	if n := len(want["recovery/recovery-00001.rs"]); n < minBlock+2*frameSize {
		t.Fatalf("the recovery file has %d bytes", n)
	}
	for _, name := range sorted(want) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, out := copyTree(t, filepath.Base(dir), want), t.TempDir()
			for at := range int64(len(want[name])) {
				flipAt(t, filepath.Join(dir, name), at)
				repairByte(t, dir, out, name, want[name], at)
				flipAt(t, filepath.Join(dir, name), at)
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Fatal(clipDiff(diff))
			}
		})
	}
}

// repairByte wants one byte of one file found and repaired.
func repairByte(t *testing.T, dir, out, name, want string, at int64) {
	t.Helper()
	st, err := repairWith(t.Context(), out, unsynced(), []string{dir})
	if err != nil {
		t.Fatalf("%s, byte %d: %v", name, at, err)
	}
	if diff := cmp.Diff([]string{name}, damaged(st)); diff != "" || st.Whole || !st.Repairable {
		t.Fatalf("%s, byte %d: %s %+v", name, at, diff, st)
	}
	d := append(st.Damaged, st.Recovery...)[0]
	if d.Missing || len(d.Ranges) != 1 || d.Ranges[0][0] > at || d.Ranges[0][1] <= at || d.Ranges[0][1]-d.Ranges[0][0] > minBlock {
		t.Fatalf("%s, byte %d: %+v", name, at, d)
	}
	got, err := os.ReadFile(filepath.Join(out, st.Name, name))
	if err != nil || string(got) != want {
		t.Fatalf("%s, byte %d: repaired otherwise, %v", name, at, err)
	}
	if err := os.RemoveAll(filepath.Join(out, st.Name)); err != nil {
		t.Fatal(err)
	}
}

// Each file in turn is missing, empty, shorter, longer, or has a byte more or
// less in its middle.
func TestEveryFile(t *testing.T) {
	dir := fake(t, few())
	createFake(t, dir, Options{Percent: 100, MaxFile: 7_000}) // a row each
	want := tree(t, dir)
	if _, ok := want["recovery/recovery-00004.rs"]; !ok {
		t.Fatalf("made %v", sorted(want))
	}
	spoil := map[string]func(data string) (string, bool){
		"missing":   func(string) (string, bool) { return "", false },
		"empty":     func(string) (string, bool) { return "", true },
		"shorter":   func(s string) (string, bool) { return s[:max(1, len(s))-1], true },
		"longer":    func(s string) (string, bool) { return s + "x", true },
		"one more":  func(s string) (string, bool) { return s[:len(s)/2] + "x" + s[len(s)/2:], true },
		"one less":  func(s string) (string, bool) { return s[:len(s)/2] + s[min(len(s), len(s)/2+1):], true },
		"one first": func(s string) (string, bool) { return "x" + s, true },
		"none first": func(s string) (string, bool) {
			return s[min(1, len(s)):], true
		},
	}
	for _, name := range sorted(want) {
		for how, f := range spoil {
			data, there := f(want[name])
			if there && data == want[name] {
				continue // of an empty file nothing can be taken
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				files := make(map[string]string)
				for n, d := range want {
					files[n] = d
				}
				delete(files, name)
				if there {
					files[name] = data
				}
				medium := copyTree(t, filepath.Base(dir), files)
				st, err := Check(t.Context(), medium)
				if err != nil || st.Whole || !st.Repairable {
					t.Fatalf("%+v, %v", st, err)
				}
				if all := append(st.Damaged, st.Recovery...); len(all) != 1 || all[0].Missing == there || all[0].Bytes == 0 && len(want[name]) > 0 {
					t.Fatalf("found %+v", all)
				}
				repaired(t, want, []string{name}, medium)
			})
		}
	}
}

// A real bundle: a flip in each block, and each file gone, are repaired, and
// the inside takes what comes out.
func TestSealed(t *testing.T) {
	dir := sealBundle(t)
	made, err := Create(t.Context(), dir, Options{Volumes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(made.Survives, "any 1 volume") {
		t.Fatalf("%+v", made)
	}
	want := tree(t, dir)
	out := t.TempDir()
	try := func(t *testing.T, name string) {
		t.Helper()
		st, err := repairWith(t.Context(), out, unsynced(), []string{dir})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff([]string{name}, damaged(st)); diff != "" {
			t.Fatalf("%s: %s", name, diff)
		}
		got, err := os.ReadFile(filepath.Join(out, st.Name, name))
		if err != nil || string(got) != want[name] {
			t.Fatalf("%s: repaired otherwise, %v", name, err)
		}
	}
	clean := func(t *testing.T) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(out, filepath.Base(dir))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range sorted(want) {
		file := filepath.Join(dir, name)
		step := made.Block - 1 // so that each block has one, and never at the same place
		if len(want[name]) > 64<<10 {
			step = 7*made.Block - 1
		}
		for at := int64(0); at < int64(len(want[name])); at += step {
			flipAt(t, file, at)
			try(t, name)
			flipAt(t, file, at)
			clean(t)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "recovery/") {
			// There is no other that has the index.
			_, err := Check(t.Context(), dir)
			refused(t, err, CodeFormat, "no usable index in 0 recovery files")
			write(t, dir, name, want[name])
			continue
		}
		try(t, name)
		if err := verified(t, filepath.Join(out, filepath.Base(dir)), dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := verified(t, dir, filepath.Join(out, filepath.Base(dir))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		clean(t)
		write(t, dir, name, want[name])
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Fatal(clipDiff(diff))
	}
}

// unsynced is a disk whose syncs do nothing: thousands of repairs in a row are
// not about power losses.
func unsynced() disk {
	return disk{
		create: func(root *os.Root, name string) (output, error) {
			out, err := realDisk().create(root, name)
			return noSync{out}, err
		},
		syncDir: func(string) error { return nil },
	}
}

type noSync struct{ output }

func (noSync) Sync() error { return nil }
