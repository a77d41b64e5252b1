package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func newUpload(t *testing.T, s *Store) *Upload {
	t.Helper()
	u, err := s.NewUpload()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func resume(t *testing.T, s *Store, id string) *Upload {
	t.Helper()
	u, err := s.ResumeUpload(id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// add appends b and compares size and sum.
func add(t *testing.T, u *Upload, b []byte) {
	t.Helper()
	before := u.Size()
	if n, err := u.ReadFrom(bytes.NewReader(b)); err != nil || n != int64(len(b)) || u.Size() != before+n {
		t.Fatalf("read %d of %d bytes, size %d: %v", n, len(b), u.Size(), err)
	}
}

func commitUpload(t *testing.T, u *Upload) artifact.Digest {
	t.Helper()
	d, err := u.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestUpload(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "one": 1, "small": 1000, "a buffer": bufferSize, "flushed": flushEvery + bufferSize + 7} {
		t.Run(name, func(t *testing.T) {
			s, b := open(t), noise(size, 1)
			u := newUpload(t, s)
			if n, err := s.Uploads(); err != nil || n != 1 {
				t.Fatalf("%d uploads, %v", n, err)
			}
			add(t, u, b)
			if u.Sum() != artifact.Sum(b) {
				t.Errorf("sum %s", u.Sum())
			}
			got, err := io.ReadAll(u.Reader())
			if err != nil || !bytes.Equal(got, b) {
				t.Fatalf("reads %d bytes: %v", len(got), err)
			}
			if s.Has(artifact.Sum(b)) {
				t.Error("a blob before Commit")
			}
			d := commitUpload(t, u)
			if got, err := s.ReadAll(d, int64(size)); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("blob of %d bytes: %v", len(got), err)
			}
			if diff := cmp.Diff([]string{blobName(d)}, files(t, s)); diff != "" {
				t.Error(diff)
			}
			if fi, err := os.Stat(s.path(d)); err != nil || fi.Mode() != blobMode {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
		})
	}
}

// Pieces over several openings, and a second upload of the same bytes.
func TestUploadResumed(t *testing.T) {
	s, b := open(t), noise(5000, 2)
	for range 2 {
		u := newUpload(t, s)
		for i := 0; i < len(b); i += 1000 {
			add(t, u, b[i:i+1000])
			must(t, u.Close())
			must(t, u.Close())
			if n, err := s.UploadSize(u.ID()); err != nil || n != int64(i+1000) {
				t.Fatalf("size %d, %v", n, err)
			}
			u = resume(t, reopen(t, s.dir), u.ID())
			if u.Size() != int64(i+1000) || u.Sum() != artifact.Sum(b[:i+1000]) || u.saved != u.n {
				t.Fatalf("resumed at %d with %d hashed before, sum %s", u.Size(), u.saved, u.Sum())
			}
		}
		if d := commitUpload(t, u); d != artifact.Sum(b) {
			t.Fatalf("committed %s", d)
		}
		if diff := cmp.Diff([]string{blobName(artifact.Sum(b))}, files(t, s)); diff != "" {
			t.Error(diff)
		}
	}
}

// The kept hash state is used only for the file that it is of, and whatever
// it says, the sum is that of the bytes.
func TestUploadState(t *testing.T) {
	b := noise(3000, 3)
	edit := func(change func(*uploadState)) func(*testing.T, string) {
		return func(t *testing.T, name string) {
			st, err := readState(name + stateExt)
			must(t, err)
			change(&st)
			raw, err := json.Marshal(st)
			must(t, err)
			must(t, os.WriteFile(name+stateExt, raw, 0o600))
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, name string)
		used   bool
		size   int
	}{
		"untouched":   {func(*testing.T, string) {}, true, 2000},
		"no state":    {func(t *testing.T, name string) { must(t, os.Remove(name+stateExt)) }, false, 2000},
		"torn":        {func(t *testing.T, name string) { must(t, os.Truncate(name+stateExt, 40)) }, false, 2000},
		"huge":        {func(t *testing.T, name string) { must(t, os.Truncate(name+stateExt, 1<<20)) }, false, 2000},
		"other boot":  {edit(func(st *uploadState) { st.Boot = "another" }), false, 2000},
		"other file":  {edit(func(st *uploadState) { st.Ino = "1" }), false, 2000},
		"other disk":  {edit(func(st *uploadState) { st.Dev = "1" }), false, 2000},
		"wrong count": {edit(func(st *uploadState) { st.Size-- }), false, 2000},
		"negative":    {edit(func(st *uploadState) { st.Size = -1 }), false, 2000},
		"no hash":     {edit(func(st *uploadState) { st.SHA256 = []byte("short") }), false, 2000},
		"other hash":  {edit(func(st *uploadState) { st.SHA256[0] ^= 1 }), false, 2000},
		"file shorter than hashed": {func(t *testing.T, name string) {
			must(t, os.Truncate(name, 1500))
		}, false, 1500},
		"killed while writing": {func(t *testing.T, name string) {
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.Write(b[2000:2500])
			must(t, errors.Join(err, f.Close()))
		}, true, 2500},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			u := newUpload(t, s)
			add(t, u, b[:2000])
			must(t, u.Close())
			c.change(t, u.name())
			u = resume(t, s, u.ID())
			if u.Size() != int64(c.size) || u.Sum() != artifact.Sum(b[:c.size]) {
				t.Fatalf("%d bytes, sum %s", u.Size(), u.Sum())
			}
			if used := u.saved == 2000; used != c.used {
				t.Errorf("state used: %v", used)
			}
			add(t, u, b[c.size:])
			if d := commitUpload(t, u); d != artifact.Sum(b) {
				t.Errorf("committed %s", d)
			}
		})
	}
}

func TestUploadExclusive(t *testing.T) {
	s := open(t)
	u := newUpload(t, s)
	if _, err := s.ResumeUpload(u.ID()); !errors.Is(err, ErrBusy) {
		t.Fatalf("second opener: %v", err)
	}
	must(t, u.Close())
	u = resume(t, s, u.ID())
	add(t, u, []byte("x"))
	id := u.ID()
	must(t, u.Discard())
	for _, id := range []string{id, "", "..", "../blobs", strings.Repeat("g", 32), strings.Repeat("A", 32), id + stateExt} {
		if _, err := s.ResumeUpload(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("resume %q: %v", id, err)
		}
		if _, err := s.UploadSize(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("size of %q: %v", id, err)
		}
	}
	if got := files(t, s); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if _, err := u.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after Discard: %v", err)
	}
	if _, err := u.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("commit after Discard: %v", err)
	}
}

// A broken line keeps what came before it.
func TestUploadBrokenLine(t *testing.T) {
	s, b := open(t), noise(bufferSize+5000, 4)
	u := newUpload(t, s)
	broken := errors.New("the line broke")
	n, err := u.ReadFrom(io.MultiReader(bytes.NewReader(b[:bufferSize+100]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || n != bufferSize+100 || u.Size() != n {
		t.Fatalf("%d bytes, size %d: %v", n, u.Size(), err)
	}
	if n, err := u.ReadFrom(stuck{}); !errors.Is(err, io.ErrNoProgress) || n != 0 {
		t.Fatalf("a reader without progress: %d, %v", n, err)
	}
	add(t, u, b[bufferSize+100:])
	if d := commitUpload(t, u); d != artifact.Sum(b) {
		t.Errorf("committed %s", d)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestSweepUploads(t *testing.T) {
	s := open(t)
	now := time.Now()
	must(t, s.SweepUploads(time.Hour, now)) // no folder yet
	old, open, fresh := newUpload(t, s), newUpload(t, s), newUpload(t, s)
	for _, u := range []*Upload{old, open, fresh} {
		add(t, u, []byte("abc"))
		must(t, u.Close())
	}
	open = resume(t, s, open.ID())
	dir := filepath.Join(s.dir, uploadDir)
	orphan := strings.Repeat("0", 32)
	for _, name := range []string{orphan + stateExt, ".tmp-" + orphan, "not-ours"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	before := now.Add(-2 * time.Hour)
	for _, name := range []string{old.ID(), old.ID() + stateExt, open.ID(), open.ID() + stateExt, fresh.ID() + stateExt, orphan + stateExt, ".tmp-" + orphan, "not-ours"} {
		must(t, os.Chtimes(filepath.Join(dir, name), before, before))
	}
	must(t, s.Sweep(nil)) // the importer's sweep has nothing to say here
	must(t, s.SweepUploads(time.Hour, now))
	left := make(map[string]bool)
	for _, name := range files(t, s) {
		left[strings.TrimPrefix(name, uploadDir+"/")] = true
	}
	want := map[string]bool{open.ID(): true, open.ID() + stateExt: true, fresh.ID(): true, fresh.ID() + stateExt: true, "not-ours": true}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Error(diff)
	}
	must(t, open.Close())
	u := resume(t, s, fresh.ID())
	if u.Sum() != artifact.Sum([]byte("abc")) {
		t.Errorf("the fresh one has sum %s", u.Sum())
	}
	must(t, u.Close())
}

// A kept state is read from a folder that others may have written to.
func FuzzUploadState(f *testing.F) {
	seeds := []string{
		`{"boot":"b","dev":"1","ino":"2","size":3,"sha256":"AAAA"}`, `{}`, `null`, `{"size":-1}`, ``,
		`{"boot":"b","dev":"1","ino":"2","size":9007199254740993,"sha256":""}`,
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := Open(dir)
		must(t, err)
		u := newUpload(t, s)
		add(t, u, []byte("hello"))
		must(t, u.Close())
		must(t, os.WriteFile(u.name()+stateExt, raw, 0o600))
		u = resume(t, s, u.ID())
		if u.Sum() != artifact.Sum([]byte("hello")) {
			t.Errorf("sum %s", u.Sum())
		}
		must(t, u.Discard())
	})
}

func BenchmarkUpload(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "store"))
	if err != nil {
		b.Fatal(err)
	}
	data := noise(64<<20, 9)
	b.SetBytes(int64(len(data)))
	for i := 0; b.Loop(); i++ {
		data[0], data[1] = byte(i), byte(i>>8)
		u, err := s.NewUpload()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := u.ReadFrom(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		if _, err := u.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
