package root

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// chain makes versions 1 to n; each revokes an exporter and adds one, and the
// root keys change one by one.
func chain(t testing.TB, n int) map[int][]byte {
	t.Helper()
	roots := []string{"alice", "bob", "carol-p256"}
	r := newRoot()
	files := map[int][]byte{1: mustSign(t, r, roots...)}
	for v := 2; v <= n; v++ {
		was := roots[v%3]
		holder := fmt.Sprintf("holder-%d", v)
		exporter := fmt.Sprintf("bastion-%d", v)
		r = next(r, func(r *Root) {
			old := r.Roles.Exporter.Keys[0]
			if err := errors.Join(
				r.Rotate(RoleRoot, id(was), public(holder)),
				r.Revoke(old, uint64(10*v), "each year another", r.Issued),
				r.Add(RoleExporter, public(exporter)),
			); err != nil {
				t.Fatal(err)
			}
		})
		files[v] = mustSign(t, r, append(roots, holder)...)
		roots[v%3] = holder
	}
	return files
}

// pinned is a store with version 1 of a chain.
func pinned(t testing.TB, dir string, files map[int][]byte) *Store {
	t.Helper()
	s := openStore(t, dir)
	if err := s.Pin(files[1], fingerprint(t, files[1]), now); err != nil {
		t.Fatal(err)
	}
	return s
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func version(s *Store) int {
	if v, ok := s.Current(); ok {
		return v.Root().Version
	}
	return 0
}

// only gives some files of a chain.
func only(files map[int][]byte, versions ...int) map[int][]byte {
	some := make(map[int][]byte)
	for _, v := range versions {
		some[v] = files[v]
	}
	return some
}

// tree reads a folder.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	if err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		got[rel] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// B6: from version 1 to 4 through the chain, in one step and in several.
func TestAdvance(t *testing.T) {
	files := chain(t, 4)
	dir := t.TempDir()
	s := pinned(t, filepath.Join(dir, "one"), files)
	applied, err := s.Advance(files, now)
	if diff := cmp.Diff([]int{2, 3, 4}, applied); diff != "" || err != nil || version(s) != 4 {
		t.Fatal(diff, err, version(s))
	}
	several := pinned(t, filepath.Join(dir, "several"), files)
	for _, v := range []int{2, 3, 4} {
		applied, err := several.Advance(only(files, 1, v), now)
		if diff := cmp.Diff([]int{v}, applied); diff != "" || err != nil {
			t.Fatal(diff, err)
		}
		// It is on disk, and applied once.
		several = openStore(t, filepath.Join(dir, "several"))
		if applied, err := several.Advance(only(files, v), now); len(applied) != 0 || err != nil || version(several) != v {
			t.Fatal(applied, err, version(several))
		}
	}
	if diff := cmp.Diff(tree(t, filepath.Join(dir, "one")), tree(t, filepath.Join(dir, "several"))); diff != "" {
		t.Fatal(diff)
	}
	got, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"1.root.json": files[1], "2.root.json": files[2], "3.root.json": files[3], "4.root.json": files[4]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	// A further signature on an old file is the same root file.
	more, err := AddSignature(files[2], signer("mallory"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Advance(map[int][]byte{2: more}, now); err != nil {
		t.Fatal(err)
	}
}

func TestAdvanceRefuses(t *testing.T) {
	files := chain(t, 4)
	// Another version 2, of the same keys.
	one, err := Parse(files[1])
	if err != nil {
		t.Fatal(err)
	}
	fork := mustSign(t, next(one, nil), "alice", "bob", "carol-p256")
	spoilt := bytes.Replace(files[4], []byte(`"sig":"`), []byte(`"sig":"A`), 1)
	for name, c := range map[string]struct {
		at    int // the version that the store has
		files map[int][]byte
		says  []string
	}{
		"skipped":           {1, only(files, 3), []string{"skipped version", "want 2.root.json, got 3.root.json"}},
		"skipped later":     {1, only(files, 2, 4), []string{"skipped version", "want 3.root.json, got 4.root.json"}},
		"fork of old":       {3, map[int][]byte{2: fork, 4: files[4]}, []string{"another root file of this version", "in other hands"}},
		"fork of current":   {2, map[int][]byte{2: fork}, []string{"another root file of this version"}},
		"after a fork":      {1, map[int][]byte{2: fork, 3: files[3]}, []string{"3.root.json", "follows another root file"}},
		"old under new":     {2, map[int][]byte{3: files[1]}, []string{"3.root.json", "rollback"}},
		"new under old":     {2, map[int][]byte{1: files[3]}, []string{"1.root.json", "another root file of this version"}},
		"later under next":  {1, map[int][]byte{2: files[3]}, []string{"2.root.json", "skipped version"}},
		"garbage old":       {2, map[int][]byte{1: []byte("x")}, []string{"1.root.json", "not a root file"}},
		"garbage new":       {2, map[int][]byte{3: {}}, []string{"3.root.json", "not a root file"}},
		"bad last":          {1, map[int][]byte{2: files[2], 3: files[3], 4: spoilt}, []string{"4.root.json"}},
		"too few, old keys": {1, map[int][]byte{2: forgeRoot(t, next(one, nil), "alice")}, []string{"too few signatures of the root keys of version 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := pinned(t, dir, files)
			for v := 2; v <= c.at; v++ {
				if _, err := s.Advance(only(files, v), now); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			applied, err := s.Advance(c.files, now)
			refused(t, err, c.says...)
			if len(applied) != 0 || version(s) != c.at {
				t.Errorf("applied %v, now at %d", applied, version(s))
			}
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Errorf("something was written: %s", diff)
			}
		})
	}
	s := pinned(t, t.TempDir(), files)
	_, err = s.Advance(files, time.Time{})
	says(t, err, "the time is needed")
}

// Only the last version's expiry counts, and an expired end is kept.
func TestAdvanceExpiry(t *testing.T) {
	files := chain(t, 4)
	last, err := Parse(files[4])
	if err != nil {
		t.Fatal(err)
	}
	// All but the last have expired.
	s := pinned(t, t.TempDir(), files)
	if applied, err := s.Advance(files, last.Expires.Add(-time.Second)); err != nil || len(applied) != 3 {
		t.Fatal(applied, err)
	}
	// The last has, too.
	dir := t.TempDir()
	s = pinned(t, dir, files)
	applied, err := s.Advance(only(files, 2, 3), last.Expires)
	refused(t, err, "root file 3 of stream main", "it has expired")
	if diff := cmp.Diff([]int{2, 3}, applied); diff != "" {
		t.Fatal(diff)
	}
	s = openStore(t, dir)
	if version(s) != 3 {
		t.Fatalf("the walk was not kept: %d", version(s))
	}
	// Nothing new: still expired.
	_, err = s.Advance(nil, last.Expires)
	refused(t, err, "it has expired")
	// The next one heals it.
	if applied, err := s.Advance(only(files, 4), last.Expires.Add(-time.Second)); err != nil || len(applied) != 1 {
		t.Fatal(applied, err)
	}
}

func TestPin(t *testing.T) {
	files := chain(t, 4)
	dir := t.TempDir()
	s := openStore(t, dir)
	if _, ok := s.Current(); ok {
		t.Fatal("an empty store has a root")
	}
	_, err := s.Advance(files, now)
	refused(t, err, "no root file is pinned")
	_, err = s.Files()
	refused(t, err, "no root file is pinned")
	refused(t, s.Pin(files[1], fingerprint(t, files[2]), now), "not the root file that was compared")
	refused(t, s.Pin(files[1], fingerprint(t, files[1]), expires), "it has expired")
	if diff := cmp.Diff(map[string]string{}, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	// Any version may be the first; those before it are left alone.
	if err := s.Pin(files[2], fingerprint(t, files[2]), now); err != nil {
		t.Fatal(err)
	}
	if applied, err := s.Advance(files, now); err != nil || len(applied) != 2 || version(s) != 4 {
		t.Fatal(applied, err)
	}
	got, err := s.Files()
	if err != nil || len(got) != 3 || got["1.root.json"] != nil {
		t.Fatal(maps.Keys(got), err)
	}
	// Again: nothing changes, and the chain does not go back.
	before := tree(t, dir)
	s = openStore(t, dir)
	for _, v := range []int{2, 3} {
		if err := s.Pin(files[v], fingerprint(t, files[v]), expires.AddDate(9, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	other := newRoot()
	other.Stream = "other"
	data := mustSign(t, other, "alice", "bob")
	refused(t, s.Pin(data, fingerprint(t, data), now), "another root file is pinned")
	refused(t, s.Pin(files[1], fingerprint(t, files[1]), now), "another root file is pinned")
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" || version(s) != 4 {
		t.Fatal(diff)
	}
}

// A store that was altered or restored by half is not trusted.
func TestDamagedStore(t *testing.T) {
	files := chain(t, 4)
	fork := mustSign(t, next(newRoot(), nil), "alice", "bob", "carol-p256")
	whole := t.TempDir()
	if _, err := pinned(t, whole, files).Advance(files, now); err != nil {
		t.Fatal(err)
	}
	pin := tree(t, whole)["root/pinned.json"]
	for name, c := range map[string]struct {
		file, content string
		remove        bool
	}{
		"last file lost":     {file: "4.root.json", remove: true},
		"middle file lost":   {file: "2.root.json", remove: true},
		"first file lost":    {file: "1.root.json", remove: true},
		"file empty":         {file: "3.root.json"},
		"file of another":    {file: "3.root.json", content: string(files[2])},
		"fork":               {file: "2.root.json", content: string(fork)},
		"too large":          {file: "2.root.json", content: string(files[2]) + strings.Repeat(" ", maxFile)},
		"pin empty":          {file: pinName},
		"pin of other first": {file: pinName, content: strings.Replace(pin, fingerprint(t, files[1]), fingerprint(t, files[2]), 1)},
		"pin goes back":      {file: pinName, content: strings.Replace(pin, `"highest":4`, `"highest":3`, 1)},
		"pin goes on":        {file: pinName, content: strings.Replace(pin, `"highest":4`, `"highest":5`, 1)},
		"pin starts later":   {file: pinName, content: strings.Replace(pin, `"first":1`, `"first":2`, 1)},
		"pin backwards":      {file: pinName, content: strings.Replace(pin, `"first":1`, `"first":9`, 1)},
		"pin without limit":  {file: pinName, content: strings.Replace(pin, `"highest":4`, `"highest":999999999`, 1)},
		"pin of next schema": {file: pinName, content: strings.Replace(pin, pinSchema, "darkmirror.root-pin/v2", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			if c.content == pin {
				t.Fatal("nothing was damaged")
			}
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			at := filepath.Join(dir, folder, c.file)
			var err error
			if c.remove {
				err = os.Remove(at)
			} else {
				err = os.WriteFile(at, []byte(c.content), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(dir)
			refused(t, err, "the store of root files is damaged")
			if s != nil {
				t.Error("a store beside an error")
			}
		})
	}
	// What a killed run left beyond the pin counts for nothing.
	dir := t.TempDir()
	pinned(t, dir, files)
	for name, data := range map[string][]byte{"2.root.json": fork, ".tmp-1": nil, "note.txt": nil} {
		if err := os.WriteFile(filepath.Join(dir, folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := openStore(t, dir)
	if version(s) != 1 {
		t.Fatal(version(s))
	}
	if _, err := s.Advance(files, now); err != nil || version(openStore(t, dir)) != 4 {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, folder, ".tmp-1")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a leftover was not removed")
	}
}

// What cannot be read is no damage.
func TestUnreadableStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, folder, pinName), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := OpenStore(dir)
	says(t, err, "open the store of root files")
	if errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("%v is called damage", err)
	}
	// Nor can it be written.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	files := chain(t, 1)
	s := &Store{dir: filepath.Join(file, folder)}
	says(t, s.Pin(files[1], fingerprint(t, files[1]), now), "store root files")
	if _, ok := s.Current(); ok {
		t.Error("a store that could not be written is pinned")
	}
}

func TestChainTooLong(t *testing.T) {
	v := v1(t)
	s := &Store{dir: t.TempDir()}
	for range maxChain {
		s.chain = append(s.chain, v)
	}
	refused(t, s.write([]*Verified{v}), "a chain of 1001 root files")
}
