package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sealWithRoot(t testing.TB, outbox string, root map[string][]byte) (*fixture, error) {
	t.Helper()
	c, m := smallContent()
	signer, key := testSigner(t, "exporter-a")
	s, err := seal(t.Context(), outbox, m, c.open, signer, SealOptions{VolumeSize: small.volume, Root: root}, small)
	return &fixture{content: c, m: m, sealed: s, trust: Trust{Keys: []TrustedKey{key}}, outbox: outbox}, err
}

func TestRootFiles(t *testing.T) {
	f, err := sealWithRoot(t, t.TempDir(), testRoot())
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, data := range tree(t, f.sealed.Dir) {
		size += int64(len(data))
	}
	if size != f.sealed.Bytes {
		t.Fatalf("%d bytes on disk, %d reported", size, f.sealed.Bytes)
	}
	// What else lies there is left alone.
	writeTree(t, f.sealed.Dir, map[string]string{
		"root/README": "x", "root/0.root.json": "x", "root/01.root.json": "x", "root/3.ROOT.json": "x", "root/1.root.json.bak": "x", "root/.tmp-1.root.json": "x", "root/1000000000.root.json": "x",
	})
	r := f.openBundle(t)
	got, err := r.RootFiles()
	if diff := cmp.Diff(testRoot(), got); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	if w, err := attempt(t, f, f.sealed.Dir); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
	none := sealSmall(t, t.TempDir())
	if got, err := none.openBundle(t).RootFiles(); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	if _, err := os.Lstat(filepath.Join(none.sealed.Dir, rootDir)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a folder without files: %v", err)
	}
	// The id does not depend on them, and a rerun wants the same ones.
	if none.sealed.ID != f.sealed.ID {
		t.Fatal("root files changed the id")
	}
	if _, err := sealWithRoot(t, f.outbox, testRoot()); err != nil {
		t.Fatal(err)
	}
	other := testRoot()
	other["2.root.json"] = []byte("other")
	if _, err := sealWithRoot(t, f.outbox, other); err == nil || !strings.Contains(err.Error(), "root/2.root.json differs") {
		t.Fatal(err)
	}
}

func TestSealRefusesRootFiles(t *testing.T) {
	many := make(map[string][]byte)
	for i := range maxRootFiles + 1 {
		many[fmt.Sprintf("%d.root.json", i+1)] = []byte("x")
	}
	heavy := make(map[string][]byte)
	for i := range maxRootTotal/maxRootFile + 1 {
		heavy[fmt.Sprintf("%d.root.json", i+1)] = make([]byte, maxRootFile)
	}
	for name, root := range map[string]map[string][]byte{
		"empty":  {"1.root.json": nil},
		"large":  {"1.root.json": make([]byte, maxRootFile+1)},
		"zero":   {"0.root.json": []byte("x")},
		"zeros":  {"01.root.json": []byte("x")},
		"signed": {"+1.root.json": []byte("x")},
		"path":   {"../1.root.json": []byte("x")},
		"other":  {"root.json": []byte("x")},
		"far":    {"1000000000.root.json": []byte("x")},
		"many":   many,
		"heavy":  heavy,
	} {
		t.Run(name, func(t *testing.T) {
			outbox := t.TempDir()
			if _, err := sealWithRoot(t, outbox, root); err == nil || !strings.Contains(err.Error(), "root file") {
				t.Fatal(err)
			}
			if left := tree(t, outbox); len(left) > 0 {
				t.Fatal(left)
			}
		})
	}
}

func TestHostileRootFiles(t *testing.T) {
	f, err := sealWithRoot(t, t.TempDir(), testRoot())
	if err != nil {
		t.Fatal(err)
	}
	files := tree(t, f.sealed.Dir)
	one := func(dir string) string { return filepath.Join(dir, rootDir, "1.root.json") }
	for name, tc := range map[string]struct {
		spoil func(dir string) error
		text  string
	}{
		"large":   {func(d string) error { return os.Truncate(one(d), maxRootFile+1) }, "at most"},
		"empty":   {func(d string) error { return os.Truncate(one(d), 0) }, "empty"},
		"pipe":    {func(d string) error { return errors.Join(os.Remove(one(d)), syscall.Mkfifo(one(d), 0o644)) }, "regular"},
		"symlink": {func(d string) error { return errors.Join(os.Remove(one(d)), os.Symlink("2.root.json", one(d))) }, "regular"},
		"folder":  {func(d string) error { return errors.Join(os.Remove(one(d)), os.Mkdir(one(d), 0o755)) }, "regular"},
		"many": {func(d string) error {
			var errs []error
			for i := range maxRootFiles {
				errs = append(errs, os.WriteFile(filepath.Join(d, rootDir, fmt.Sprintf("%d.root.json", 100+i)), []byte("x"), 0o644))
			}
			return errors.Join(errs...)
		}, "more than"},
		"heavy": {func(d string) error {
			var errs []error
			for i := range maxRootTotal/maxRootFile + 1 {
				name := filepath.Join(d, rootDir, fmt.Sprintf("%d.root.json", 100+i))
				errs = append(errs, os.WriteFile(name, nil, 0o644), os.Truncate(name, maxRootFile))
			}
			return errors.Join(errs...)
		}, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "b")
			writeTree(t, dir, files)
			if err := tc.spoil(dir); err != nil {
				t.Fatal(err)
			}
			got, err := f.openBundle(t, dir).RootFiles()
			wantCode(t, err, CodeFormat)
			if got != nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, %v, want %s", got, err, tc.text)
			}
		})
	}
	t.Run("media that differ", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "b")
		writeTree(t, dir, map[string]string{"root/3.root.json": "third"})
		got, err := f.openBundle(t, f.sealed.Dir, dir).RootFiles()
		if err != nil || len(got) != 4 {
			t.Fatal(got, err)
		}
		writeTree(t, dir, map[string]string{"root/2.root.json": "another"})
		_, err = f.openBundle(t, f.sealed.Dir, dir).RootFiles()
		wantCode(t, err, CodeFormat)
	})
	t.Run("the folder is a symlink", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "b")
		writeTree(t, dir, files)
		if err := errors.Join(os.Rename(filepath.Join(dir, rootDir), filepath.Join(dir, "r")), os.Symlink("r", filepath.Join(dir, rootDir))); err != nil {
			t.Fatal(err)
		}
		if got, err := f.openBundle(t, dir).RootFiles(); err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
	})
}

// FuzzRootNumber: what is accepted is the one way to write the number.
func FuzzRootNumber(f *testing.F) {
	for _, s := range []string{"1.root.json", "999999999.root.json", "01.root.json", "-1.root.json", "1e3.root.json", "\u0661.root.json"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		n, ok := rootNumber(name)
		if ok && (n < 1 || n > 999_999_999 || fmt.Sprintf("%d%s", n, rootExt) != name) {
			t.Fatalf("%q is %d", name, n)
		}
	})
}
