package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func open(t *testing.T) *Store {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "deep", "store"))
}

func reopen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// noise is n bytes that differ from seed to seed.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	_, _ = r.Read(b) // never fails
	return b
}

func put(t *testing.T, s *Store, b []byte) artifact.Digest {
	t.Helper()
	d := artifact.Sum(b)
	if err := s.Put(t.Context(), bytes.NewReader(b), d, int64(len(b))); err != nil {
		t.Fatal(err)
	}
	return d
}

// flip changes one byte of a file in place, and nothing else about it.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x20
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Chtimes(name, fi.ModTime(), fi.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// files lists what lies below the store's folder, folders left out.
func files(t *testing.T, s *Store) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(s.dir, p)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func blobName(d artifact.Digest) string { return "blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex() }

// refused checks class and code.
func refused(t *testing.T, err error, code string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code || !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("got %v, want an integrity refusal %s", err, code)
	}
}

func TestPutAndRead(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "one": 1, "small": 1000, "a buffer": bufferSize, "more": 3*bufferSize + 7} {
		t.Run(name, func(t *testing.T) {
			s, b := open(t), noise(size, 1)
			d := put(t, s, b)
			if n, err := s.Size(d); err != nil || n != int64(size) || !s.Has(d) {
				t.Fatalf("size %d, %v", n, err)
			}
			got, err := s.ReadAll(d, int64(size))
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("read %d bytes: %v", len(got), err)
			}
			if diff := cmp.Diff([]string{blobName(d)}, files(t, s)); diff != "" {
				t.Error(diff)
			}
			fi, err := os.Stat(s.path(d))
			if err != nil || fi.Mode() != blobMode {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
			// A second Put does not read.
			if err := s.Put(t.Context(), failing{}, d, int64(size)); err != nil {
				t.Error(err)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the line is dead") }

func TestPutRefuses(t *testing.T) {
	s, b := open(t), noise(1000, 1)
	d, n := artifact.Sum(b), int64(len(b))
	other := noise(1000, 2)
	refused(t, s.Put(t.Context(), bytes.NewReader(other), d, n), "STORE-DIGEST")
	refused(t, s.Put(t.Context(), bytes.NewReader(b), d, n-1), "STORE-SIZE")
	refused(t, s.Put(t.Context(), bytes.NewReader(b), d, n+1), "STORE-SIZE")
	if err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(b[:10]), failing{}), d, n); err == nil ||
		errors.Is(err, artifact.ErrIntegrity) || !strings.Contains(err.Error(), "the line is dead") {
		t.Errorf("a broken reader: %v", err)
	}
	if err := s.Put(t.Context(), bytes.NewReader(b), d, -1); err == nil {
		t.Error("a negative size was accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, bytes.NewReader(b), d, n); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if got := files(t, s); len(got) != 0 || s.Has(d) {
		t.Errorf("left behind: %v", got)
	}
}

func TestPutKnowsWhoIsWrongAboutASize(t *testing.T) {
	s, b := open(t), noise(1000, 1)
	d := put(t, s, b)
	// The promise is wrong: the blob stays.
	refused(t, s.Put(t.Context(), bytes.NewReader(b), d, 999), "STORE-SIZE")
	if !s.Has(d) {
		t.Fatal("a whole blob was removed")
	}
	// The blob is: it goes and is written again.
	if err := os.Truncate(s.path(d), 500); err != nil {
		t.Fatal(err)
	}
	put(t, s, b)
	if got, err := s.ReadAll(d, 1000); err != nil || !bytes.Equal(got, b) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{blobName(d), "quarantine/" + d.Hex() + "-1"}, files(t, s)); diff != "" {
		t.Error(diff)
	}
}

func TestPutBytes(t *testing.T) {
	s := open(t)
	for _, b := range [][]byte{nil, []byte("x"), noise(5000, 3)} {
		d, err := s.PutBytes(b)
		if err != nil || d != artifact.Sum(b) {
			t.Fatalf("%v, %v", d, err)
		}
		if err := os.Truncate(s.path(d), int64(len(b)/2)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.PutBytes(b); err != nil {
			t.Fatal(err)
		}
		if got, err := s.ReadAll(d, 5000); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes: %v", len(got), err)
		}
	}
}

func TestReadAllLimit(t *testing.T) {
	s := open(t)
	d := put(t, s, noise(100, 1))
	_, err := s.ReadAll(d, 99)
	refused(t, err, "STORE-LIMIT")
	if _, err := s.ReadAll(artifact.Sum([]byte("nowhere")), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestAbsent(t *testing.T) {
	s, d := open(t), artifact.Sum([]byte("nowhere"))
	_, sizeErr := s.Size(d)
	_, openErr := s.Open(d)
	_, fileErr := s.File(d)
	for _, err := range []error{sizeErr, openErr, fileErr, s.Link(d, filepath.Join(t.TempDir(), "x"))} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
	if s.Has(d) {
		t.Error("has what it lacks")
	}
}

// A symbolic link in a blob's place is not a blob, wherever it leads.
func TestSymlinkIsNoBlob(t *testing.T) {
	s, b := open(t), noise(10, 1)
	d := put(t, s, b)
	elsewhere := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.Rename(s.path(d), elsewhere), os.Symlink(elsewhere, s.path(d))); err != nil {
		t.Fatal(err)
	}
	if s.Has(d) {
		t.Error("Has follows a link")
	}
	if _, err := s.Open(d); err == nil {
		t.Error("Open follows a link")
	}
}

// TestConcurrentPut: one digest from many goroutines, each sees it present
// and whole when its call returns, and nothing is left beside it.
func TestConcurrentPut(t *testing.T) {
	s := open(t)
	blobs := [][]byte{noise(200_000, 1), noise(10, 2), {}}
	var g errgroup.Group
	for range 8 {
		for _, b := range blobs {
			g.Go(func() error {
				d := artifact.Sum(b)
				if err := s.Put(t.Context(), bytes.NewReader(b), d, int64(len(b))); err != nil {
					return err
				}
				if _, err := s.PutBytes(b); err != nil {
					return err
				}
				got, err := s.ReadAll(d, 1<<20)
				if err == nil && !bytes.Equal(got, b) {
					err = errors.New("other bytes")
				}
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s); len(got) != len(blobs) {
		t.Errorf("files: %v", got)
	}
}

func TestAllIsSorted(t *testing.T) {
	s := open(t)
	want := make(map[artifact.Digest]int64)
	for i := range byte(50) {
		b := noise(int(i), i)
		want[put(t, s, b)] = int64(i)
	}
	if err := os.WriteFile(filepath.Join(s.blobs, "00", "stray"), nil, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	got := make(map[artifact.Digest]int64)
	var order []artifact.Digest
	for d, n := range s.All {
		got[d] = n
		order = append(order, d)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !slices.IsSortedFunc(order, func(a, b artifact.Digest) int { return bytes.Compare(a[:], b[:]) }) {
		t.Error("not sorted")
	}
	for range s.All {
		break // must stop when told to
	}
}

// TestSweep: leftovers of runs killed at each step go, the rest stays.
func TestSweep(t *testing.T) {
	s := open(t)
	whole, doomed := noise(1000, 1), noise(1000, 2)
	d, wanted, unwanted, done := put(t, s, whole), artifact.Sum(doomed), artifact.Sum([]byte("u")), artifact.Sum(whole)
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("blobs/sha256/"+durable.TempPrefix+"1", whole[:500]) // killed in Put
	write("partial/"+durable.TempPrefix+"x", []byte("v"))      // killed in SetValidator
	write("partial/"+wanted.Hex(), doomed[:100])
	write("partial/"+wanted.Hex()+validatorExt, []byte(`"v"`))
	write("partial/"+unwanted.Hex(), doomed[:100])
	write("partial/"+unwanted.Hex()+validatorExt, []byte(`"v"`))
	write("partial/"+done.Hex(), whole[:10])                                           // its blob came by another way
	write("partial/"+done.Hex()+validatorExt, []byte(`"v"`))                           // killed between rename and removal
	write("partial/"+artifact.Sum([]byte("o")).Hex()+validatorExt, []byte(`"orphan"`)) // killed in Close
	write("quarantine/"+unwanted.Hex()+"-1", doomed)
	s = reopen(t, s.dir)
	keepAll := func(x artifact.Digest) bool { return x != unwanted }
	if err := s.Sweep(keepAll); err != nil {
		t.Fatal(err)
	}
	want := []string{
		blobName(d), "partial/" + wanted.Hex(), "partial/" + wanted.Hex() + validatorExt, "quarantine/" + unwanted.Hex() + "-1",
	}
	if diff := cmp.Diff(want, files(t, s)); diff != "" {
		t.Error(diff)
	}
	if err := s.Sweep(nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{want[0], want[3]}, files(t, s)); diff != "" {
		t.Error(diff)
	}
}

func TestFree(t *testing.T) {
	n, err := open(t).Free()
	if err != nil || n <= 0 {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestOpenRefusesAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name); !errors.Is(err, unix.ENOTDIR) {
		t.Fatalf("got %v", err)
	}
}

// proven hands out bytes that it has checked itself, or fails at their end.
type proven struct {
	io.Reader
	d   artifact.Digest
	end error
}

func (p *proven) Proves() artifact.Digest { return p.d }

func (p *proven) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if errors.Is(err, io.EOF) && p.end != nil {
		err = p.end
	}
	return n, err
}

func TestPutOfProvenBytes(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := []byte("checked where it came from")
	d := artifact.Sum(b)
	refused := errors.New("not what was signed")
	if err := s.Put(t.Context(), &proven{bytes.NewReader(b), d, refused}, d, int64(len(b))); !errors.Is(err, refused) || s.Has(d) {
		t.Fatalf("refused bytes: %v, kept %v", err, s.Has(d))
	}
	if err := s.Put(t.Context(), &proven{bytes.NewReader(b[1:]), d, nil}, d, int64(len(b))); !errors.Is(err, artifact.ErrIntegrity) || s.Has(d) {
		t.Fatalf("too few bytes: %v, kept %v", err, s.Has(d))
	}
	// What proves another digest proves nothing here.
	if err := s.Put(t.Context(), &proven{bytes.NewReader([]byte("other")), artifact.Sum([]byte("other")), nil}, d, 5); !errors.Is(err, artifact.ErrIntegrity) || s.Has(d) {
		t.Fatalf("other bytes: %v, kept %v", err, s.Has(d))
	}
	if err := s.Put(t.Context(), &proven{bytes.NewReader(b), d, nil}, d, int64(len(b))); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadAll(d, 100); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%q, %v", got, err)
	}
}
