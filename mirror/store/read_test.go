package store

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// spoilers damage a blob of 3 buffers in every way that a disk or a hand may.
var spoilers = map[string]func(t *testing.T, name string){
	"first byte": func(t *testing.T, name string) { flip(t, name, 0) },
	"last byte":  func(t *testing.T, name string) { flip(t, name, 3*bufferSize-1) },
	"cut":        func(t *testing.T, name string) { must(t, os.Truncate(name, 2*bufferSize)) },
	"emptied":    func(t *testing.T, name string) { must(t, os.Truncate(name, 0)) },
	"longer":     func(t *testing.T, name string) { must(t, os.Truncate(name, 3*bufferSize+1)) },
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsNeverServed: each way out refuses a damaged blob, moves it away,
// and lets it be written again.
func TestDamageIsNeverServed(t *testing.T) {
	ways := map[string]func(t *testing.T, s *Store, d artifact.Digest) error{
		"Open": func(t *testing.T, s *Store, d artifact.Digest) error {
			r, err := s.Open(d)
			must(t, err)
			b, err := io.ReadAll(r)
			if artifact.Sum(b) == d {
				t.Error("whole")
			}
			return errors.Join(err, r.Close())
		},
		"Open, copied": func(t *testing.T, s *Store, d artifact.Digest) error {
			r, err := s.Open(d)
			must(t, err)
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		},
		"ReadAll": func(_ *testing.T, s *Store, d artifact.Digest) error {
			_, err := s.ReadAll(d, 1<<30)
			return err
		},
		"File": func(_ *testing.T, s *Store, d artifact.Digest) error {
			_, err := s.File(d)
			return err
		},
		"Link": func(t *testing.T, s *Store, d artifact.Digest) error {
			name := filepath.Join(t.TempDir(), "x")
			err := s.Link(d, name)
			if _, serr := os.Lstat(name); !errors.Is(serr, fs.ErrNotExist) {
				t.Errorf("linked all the same: %v", serr)
			}
			return err
		},
		"Check": func(t *testing.T, s *Store, _ artifact.Digest) (err error) {
			must(t, s.Check(t.Context(), func(e error) { err = errors.Join(err, e) }))
			return err
		},
	}
	b := noise(3*bufferSize, 9)
	for way, read := range ways {
		for how, spoil := range spoilers {
			t.Run(way+"/"+how, func(t *testing.T) {
				s := open(t)
				d := put(t, s, b)
				if way != "Check" {
					must(t, s.Check(t.Context(), func(err error) { t.Error(err) }))
				}
				spoil(t, s.path(d))
				err := read(t, s, d)
				refused(t, err, "STORE-DAMAGED")
				aside := "quarantine/" + d.Hex() + "-1"
				if !strings.Contains(err.Error(), s.path(d)) || !strings.Contains(err.Error(), filepath.Join(s.dir, aside)) {
					t.Errorf("the refusal names no path: %v", err)
				}
				if s.Has(d) {
					t.Error("a damaged blob still counts as present")
				}
				put(t, s, b)
				if got, err := s.ReadAll(d, 1<<30); err != nil || !bytes.Equal(got, b) {
					t.Errorf("not healed: %v", err)
				}
				if diff := cmp.Diff([]string{blobName(d), aside}, files(t, s)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestOpenWithholdsTheEnd: whoever reads exactly the size, and never asks for
// the end of the file, still does not get a damaged blob.
func TestOpenWithholdsTheEnd(t *testing.T) {
	s, b := open(t), noise(100_000, 1)
	d := put(t, s, b)
	flip(t, s.path(d), 5)
	r, err := s.Open(d)
	must(t, err)
	n, err := io.ReadFull(r, make([]byte, len(b)))
	refused(t, err, "STORE-DAMAGED")
	if n == len(b) {
		t.Error("all bytes were handed out")
	}
	_, err = r.Read(make([]byte, 1))
	refused(t, err, "STORE-DAMAGED") // sticky
	must(t, r.Close())
}

// TestFileRemembers: a verified blob is not hashed again while it is the same
// file, and is hashed again once it is not, however little has changed.
func TestFileRemembers(t *testing.T) {
	s, b := open(t), noise(1000, 1)
	d := put(t, s, b)
	settle()
	take := func() {
		t.Helper()
		f, err := s.File(d)
		must(t, err)
		got, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("served other bytes: %v", err)
		}
	}
	take()
	known := s.shard[d[0]].verified[d]
	if known == (identity{}) {
		t.Fatal("nothing was remembered")
	}
	// A link of our own keeps the memory, though it moves the change time.
	must(t, s.Link(d, filepath.Join(s.dir, "linked")))
	moved := s.shard[d[0]].verified[d]
	if moved == known || !moved.sameContent(known) {
		t.Errorf("after Link: %+v, before: %+v", moved, known)
	}
	take()
	if s.shard[d[0]].verified[d] != moved {
		t.Error("hashed again without need")
	}
	// flip puts the modification time back: only the change time tells.
	flip(t, s.path(d), 500)
	_, err := s.File(d)
	refused(t, err, "STORE-DAMAGED")
	if s.Has(d) || len(s.shard[d[0]].verified) != 0 {
		t.Error("still trusted")
	}
}

// settle waits until new changes show in the time stamps of old files.
func settle() { time.Sleep(clockTick + 10*time.Millisecond) }

// TestFreshIsNotRemembered: within one tick of the file system's clock a
// change would not show, so nothing is remembered.
func TestFreshIsNotRemembered(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	at := func(d time.Duration) bool { return identity{ctime: now.Add(d).UnixNano()}.settled(now) }
	if at(0) || at(-clockTick/2) || at(clockTick/2) || !at(-time.Second) || !at(time.Hour) {
		t.Error("a file changed just now counts as settled, or an old one does not")
	}
	whole := now.Truncate(time.Second) // no fraction: perhaps a clock of seconds
	if (identity{ctime: whole.UnixNano()}).settled(now.Add(time.Second)) {
		t.Error("a time stamp of whole seconds is trusted within two")
	}
}

func TestMemoryOfVerifiedIsBounded(t *testing.T) {
	var sh shard
	for i := range 10 * maxVerified {
		sh.remember(artifact.Sum([]byte{byte(i), byte(i >> 8)}), identity{ino: 1})
	}
	if len(sh.verified) != maxVerified {
		t.Errorf("%d remembered", len(sh.verified))
	}
}

// TestConcurrentFileAndLink: many readers, linkers and writers of one blob.
func TestConcurrentFileAndLink(t *testing.T) {
	s, b := open(t), noise(300_000, 1)
	d := put(t, s, b)
	dir := t.TempDir()
	var g errgroup.Group
	for i := range 24 {
		g.Go(func() error {
			if err := s.Link(d, filepath.Join(dir, string(rune('a'+i%12)))); err != nil {
				return err
			}
			f, err := s.File(d)
			if err != nil {
				return err
			}
			got, err := io.ReadAll(f)
			if err == nil && !bytes.Equal(got, b) {
				err = errors.New("other bytes")
			}
			return errors.Join(err, f.Close())
		})
	}
	must(t, g.Wait())
}

// TestConcurrentDamage: those who find the same damage agree, and none of
// them moves away what was written anew meanwhile.
func TestConcurrentDamage(t *testing.T) {
	s, b := open(t), noise(200_000, 1)
	d := put(t, s, b)
	flip(t, s.path(d), 1)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			f, err := s.File(d)
			if err == nil {
				return f.Close() // another goroutine has healed it
			}
			if !errors.Is(err, artifact.ErrIntegrity) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return s.Put(t.Context(), bytes.NewReader(b), d, int64(len(b)))
		})
	}
	must(t, g.Wait())
	if diff := cmp.Diff([]string{blobName(d), "quarantine/" + d.Hex() + "-1"}, files(t, s)); diff != "" {
		t.Error(diff)
	}
	if got, err := s.ReadAll(d, 1<<20); err != nil || !bytes.Equal(got, b) {
		t.Error(err)
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	s, b := open(t), noise(100, 1)
	for range maxQuarantined + 3 {
		d := put(t, s, b)
		flip(t, s.path(d), 1)
		_, err := s.ReadAll(d, 100)
		refused(t, err, "STORE-DAMAGED")
	}
	if got := files(t, s); len(got) != maxQuarantined {
		t.Errorf("%d files: %v", len(got), got)
	}
}

func TestLink(t *testing.T) {
	s, b := open(t), noise(1000, 1)
	d := put(t, s, b)
	name := filepath.Join(t.TempDir(), "x.whl")
	for range 2 { // the second time the name is there already
		must(t, s.Link(d, name))
		a, err := os.Stat(name)
		must(t, err)
		c, err := os.Stat(s.path(d))
		if err != nil || !os.SameFile(a, c) {
			t.Fatalf("not a hard link: %v", err)
		}
	}
	same := filepath.Join(t.TempDir(), "copy")
	must(t, os.WriteFile(same, b, 0o600))
	must(t, s.Link(d, same))
	for what, make := range map[string]func(string) error{
		"other bytes":  func(n string) error { return os.WriteFile(n, noise(1000, 2), 0o600) },
		"other length": func(n string) error { return os.WriteFile(n, b[:10], 0o600) },
		"a folder":     func(n string) error { return os.Mkdir(n, 0o700) },
		"a symlink":    func(n string) error { return os.Symlink(s.path(d), n) },
	} {
		taken := filepath.Join(t.TempDir(), "taken")
		must(t, make(taken))
		before, err := os.Lstat(taken)
		must(t, err)
		if err := s.Link(d, taken); !errors.Is(err, artifact.ErrIntegrity) {
			t.Errorf("%s: %v", what, err)
		}
		if after, err := os.Lstat(taken); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: was replaced", what)
		}
	}
}

// TestIs: a link is the blob until the store has another file for it.
func TestIs(t *testing.T) {
	s, b := open(t), noise(1000, 1)
	d := put(t, s, b)
	dir := t.TempDir()
	link, same := filepath.Join(dir, "link"), filepath.Join(dir, "copy")
	must(t, errors.Join(s.Link(d, link), os.WriteFile(same, b, 0o600)))
	is := func(name string) bool {
		fi, err := os.Lstat(name)
		must(t, err)
		return s.Is(d, fi)
	}
	if !is(link) || is(same) {
		t.Fatalf("the link is the blob: %v, the copy: %v", is(link), is(same))
	}
	flip(t, link, 5)
	if _, err := s.File(d); !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("damaged: %v", err)
	}
	if is(link) {
		t.Error("the link is a blob that is not there")
	}
	put(t, s, b)
	if is(link) || !is(s.path(d)) {
		t.Error("the damaged file is still taken for the blob")
	}
}

// TestLinkCopies: where a hard link is impossible a copy is made, from a file
// system that is another one in truth where the test can have one.
func TestLinkCopies(t *testing.T) {
	s, b := open(t), noise(2*bufferSize+5, 1)
	d := put(t, s, b)
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	if mountTmpfs(t, dir, "4m") {
		must(t, s.Link(d, name))
		must(t, s.Link(d, name)) // the same bytes, another inode
	} else {
		f, err := s.File(d)
		must(t, err)
		must(t, errors.Join(s.copyTo(d, f, name), f.Close()))
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%d bytes: %v", len(got), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the copy: %v, %v", entries, err)
	}
}

func TestRenameNewReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, errors.Join(os.WriteFile(a, []byte("a"), 0o600), os.WriteFile(b, []byte("b"), 0o600)))
	if err := renameNew(a, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(b); err != nil || string(got) != "b" {
		t.Errorf("%q, %v", got, err)
	}
}
