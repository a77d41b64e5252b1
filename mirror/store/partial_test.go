package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func partial(t *testing.T, s *Store, b []byte) *Partial {
	t.Helper()
	p, err := s.Partial(artifact.Sum(b), int64(len(b)))
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

func write(t *testing.T, p *Partial, b []byte) {
	t.Helper()
	n, err := p.Write(b)
	if err != nil || n != len(b) {
		t.Fatalf("wrote %d of %d: %v", n, len(b), err)
	}
}

func TestPartialResumes(t *testing.T) {
	s, b := open(t), noise(2*bufferSize+3, 1)
	d := artifact.Sum(b)
	for _, cut := range []int{1, 1000, bufferSize + 1} {
		p := partial(t, s, b)
		write(t, p, b[p.Size():cut])
		must(t, p.SetValidator(`"v1"`))
		must(t, p.Close())
		s = reopen(t, s.dir)
	}
	p := partial(t, s, b)
	if p.Size() != bufferSize+1 || p.Total() != int64(len(b)) || p.Validator() != `"v1"` {
		t.Fatalf("size %d, total %d, validator %q", p.Size(), p.Total(), p.Validator())
	}
	write(t, p, b[p.Size():])
	must(t, p.Commit())
	if got, err := s.ReadAll(d, 1<<30); err != nil || !bytes.Equal(got, b) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{blobName(d)}, files(t, s)); diff != "" {
		t.Error(diff)
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after commit: %v", err)
	}
	if err := p.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second commit: %v", err)
	}
}

func TestPartialIsExclusive(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := partial(t, s, b)
	write(t, p, b[:50])
	_, err := s.Partial(artifact.Sum(b), 100)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), artifact.Sum(b).String()) {
		t.Fatalf("second opener: %v", err)
	}
	must(t, p.Close())
	q := partial(t, s, b)
	if q.Size() != 50 {
		t.Errorf("size %d", q.Size())
	}
}

// TestLockedNameIsTheFile: one who waited for the lock of a file that was
// committed meanwhile must not write into the finished blob.
func TestLockedNameIsTheFile(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := partial(t, s, b)
	late, err := os.OpenFile(p.name(), os.O_RDWR, 0)
	must(t, err)
	write(t, p, b)
	must(t, p.Commit())
	ours, err := tryLock(late)
	if ours || err != nil {
		t.Errorf("the blob was taken for a partial file: %v, %v", ours, err)
	}
	must(t, late.Close())
}

func TestPartialRefusesMore(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := partial(t, s, b)
	write(t, p, b[:90])
	n, err := p.Write(b[:11])
	if n != 0 {
		t.Errorf("wrote %d", n)
	}
	refused(t, err, "STORE-SIZE")
	write(t, p, b[90:])
	must(t, p.Commit())
}

func TestPartialCommitRefuses(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := partial(t, s, b)
	write(t, p, b[:99])
	must(t, p.SetValidator(`"v1"`))
	refused(t, p.Commit(), "STORE-DIGEST") // too short
	write(t, p, noise(100, 2))
	refused(t, p.Commit(), "STORE-DIGEST") // other bytes
	if p.Size() != 0 || p.Validator() != "" || s.Has(p.want) {
		t.Errorf("kept %d bytes, validator %q", p.Size(), p.Validator())
	}
	// The same Partial may be filled again.
	write(t, p, b)
	must(t, p.Commit())
	if !s.Has(p.want) {
		t.Error("absent")
	}
}

func TestPartialCloseLeavesNoEmptyFile(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := partial(t, s, b)
	must(t, p.SetValidator(`"v1"`))
	write(t, p, b[:10])
	must(t, p.Reset())
	must(t, p.Close())
	must(t, p.Close())
	if got := files(t, s); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestPartialOfNothing(t *testing.T) {
	s := open(t)
	p := partial(t, s, nil)
	must(t, p.Commit())
	if n, err := s.Size(artifact.Sum(nil)); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestPartialOfWhatIsThere(t *testing.T) {
	s, b := open(t), noise(100, 1)
	before, err := os.Stat(s.path(put(t, s, b)))
	must(t, err)
	p := partial(t, s, b)
	write(t, p, b)
	must(t, p.Commit())
	// Hard links of the first file stay links of the blob.
	if after, err := os.Stat(s.path(p.want)); err != nil || !os.SameFile(before, after) {
		t.Errorf("a whole blob was replaced: %v", err)
	}
	if diff := cmp.Diff([]string{blobName(p.want)}, files(t, s)); diff != "" {
		t.Error(diff)
	}
}

// TestPartialHeals: what killed runs and failing disks leave in partial/.
func TestPartialHeals(t *testing.T) {
	b := noise(1000, 1)
	for name, c := range map[string]struct {
		data      []byte
		validator string // "" writes no file
		size      int64
		want      string
	}{
		"whole, not committed":      {b, `"v"`, 1000, `"v"`},
		"part":                      {b[:10], `"v"`, 10, `"v"`},
		"part without a validator":  {b[:10], "", 10, ""},
		"empty with a validator":    {nil, `"v"`, 0, ""},
		"more than the total":       {noise(1001, 2), `"v"`, 0, ""},
		"validator that is cut off": {b[:10], "\x00\x00", 10, ""},
		"validator of two lines":    {b[:10], "a\r\nx: y", 10, ""},
		"validator that is endless": {b[:10], strings.Repeat("a", maxValidator+1), 10, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			file := filepath.Join(s.partial, artifact.Sum(b).Hex())
			must(t, os.WriteFile(file, c.data, 0o600))
			if c.validator != "" {
				must(t, os.WriteFile(file+validatorExt, []byte(c.validator), 0o600))
			}
			p := partial(t, s, b)
			if p.Size() != c.size || p.Validator() != c.want {
				t.Fatalf("size %d, validator %q", p.Size(), p.Validator())
			}
			write(t, p, b[c.size:])
			must(t, p.Commit())
			if diff := cmp.Diff([]string{blobName(p.want)}, files(t, s)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSetValidatorForgets(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := partial(t, s, b)
	for _, v := range []string{"", "a\nb", "\xff", strings.Repeat("a", maxValidator+1)} {
		must(t, p.SetValidator(`"v1"`))
		must(t, p.SetValidator(v))
		if _, err := os.Lstat(p.name() + validatorExt); p.Validator() != "" || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%.10q: kept %q, %v", v, p.Validator(), err)
		}
	}
}

// mountTmpfs mounts a file system of that size on dir, where the test may.
func mountTmpfs(t *testing.T, dir, size string) bool {
	t.Helper()
	err := unix.Mount("none", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, unix.EPERM) {
		return false
	}
	must(t, err)
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return true
}

// spaceOf checks that err says what is missing where.
func spaceOf(t *testing.T, err error, path string) {
	t.Helper()
	e, ok := errors.AsType[*SpaceError](err)
	if !ok || e.Path != path || e.Needed <= 0 || e.Free < 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v (%+v)", err, e)
	}
}

// TestDiskFull: on a full file system a write is a *SpaceError, nothing is
// left of a Put, and a Partial keeps what it has.
func TestDiskFull(t *testing.T) {
	b := noise(1<<20, 1)
	d := artifact.Sum(b)
	dir := t.TempDir()
	if !mountTmpfs(t, dir, "600k") {
		full := devFull(t)
		s := reopen(t, dir)
		err := s.create(d, 10, func(*os.File) error { _, err := full.Write(b); return err })
		spaceOf(t, err, dir)
		p := partial(t, s, b)
		mine := p.f
		p.f = full
		_, err = p.Write(b)
		p.f = mine
		spaceOf(t, err, dir)
		return
	}
	s := reopen(t, dir)
	spaceOf(t, s.Put(t.Context(), bytes.NewReader(b), d, int64(len(b))), dir)
	_, err := s.PutBytes(b)
	spaceOf(t, err, dir)
	if got := files(t, s); len(got) != 0 {
		t.Fatalf("left: %v", got)
	}
	p := partial(t, s, b)
	n, err := p.Write(b)
	spaceOf(t, err, dir)
	if n == 0 || p.Size() != int64(n) {
		t.Errorf("wrote %d, size %d", n, p.Size())
	}
	must(t, p.Close())
	must(t, unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=4m"))
	p = partial(t, s, b)
	write(t, p, b[p.Size():])
	must(t, p.Commit())
	if got, err := s.ReadAll(d, 1<<20); err != nil || !bytes.Equal(got, b) {
		t.Error(err)
	}
}

// devFull is a file on which every write finds no space.
func devFull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// FuzzPartial: whatever bytes and validator a crash left, opening never fails,
// and the right bytes written from where it stands, or anew, make the blob.
func FuzzPartial(f *testing.F) {
	b := noise(300, 1)
	for _, seed := range []struct{ data, validator []byte }{
		{b[:100], []byte(`"tag"`)},
		{b, []byte("Sun, 22 Nov 2026 20:00:00 GMT")},
		{noise(300, 2), []byte{0}},
		{noise(301, 2), []byte("\r\n")},
		{nil, nil},
	} {
		f.Add(seed.data, seed.validator)
	}
	f.Fuzz(func(t *testing.T, data, validator []byte) {
		s := open(t)
		file := filepath.Join(s.partial, artifact.Sum(b).Hex())
		must(t, errors.Join(os.WriteFile(file, data, 0o600), os.WriteFile(file+validatorExt, validator, 0o600)))
		p, err := s.Partial(artifact.Sum(b), int64(len(b)))
		must(t, err)
		if v := p.Validator(); strings.ContainsAny(v, "\r\n\x00") || len(v) > maxValidator {
			t.Fatalf("validator %q", v)
		}
		write(t, p, b[p.Size():])
		if err := p.Commit(); err != nil {
			refused(t, err, "STORE-DIGEST")
			write(t, p, b)
			must(t, p.Commit())
		}
		must(t, p.Close())
		if got, err := s.ReadAll(artifact.Sum(b), 300); err != nil || !bytes.Equal(got, b) {
			t.Fatal(err)
		}
	})
}
