package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// attempt takes a bundle through everything that an importer and a verifier
// do, and says what was refused and what was warned of.
func attempt(t *testing.T, f *fixture, dirs ...string) (warnings []string, err error) {
	t.Helper()
	r, err := Open(dirs...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, _, err := r.Verify(f.trust); err != nil {
		return nil, err
	}
	vols, err := r.Volumes()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, v := range vols {
		errs = append(errs, v.Err(len(vols)))
	}
	warnings, err = r.Check(t.Context(), nil)
	copied := copyAll(t.Context(), r, f.content) // panics on wrong bytes
	if (err == nil) != (copied == nil) {
		t.Fatalf("check says %v, copy says %v", err, copied)
	}
	return warnings, errors.Join(append(errs, err, copied)...)
}

// B4: each byte of each file is flipped. Each flip is refused with a code or
// reported, and never is another byte accepted (copyAll panics then).
func TestTamperMatrix(t *testing.T) {
	c := make(content)
	m := newManifest(c.add([]byte("a")), c.add([]byte("b")), c.add(prose(1, minCompress)), c.add(noise(2, 1800)))
	signer, key := testSigner(t, "exporter-a")
	s, err := seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: small.volume}, small)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{content: c, m: m, sealed: s, trust: Trust{Keys: []TrustedKey{key}}}
	files := tree(t, s.Dir)
	var mu sync.Mutex
	seen := make(map[string]int)
	t.Run("shards", func(t *testing.T) {
		const shards = 4
		for shard := range shards {
			if testing.Short() && shard > 0 {
				break // every fourth byte
			}
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "b")
				writeTree(t, dir, files)
				for name, data := range files {
					for code, n := range tamper(t, f, dir, name, []byte(data), shard, shards) {
						mu.Lock()
						seen[code] += n
						mu.Unlock()
					}
				}
				if w, err := attempt(t, f, dir); err != nil || len(w) > 0 {
					t.Fatalf("the bundle was not restored: %v %v", w, err)
				}
			})
		}
	})
	t.Log(seen)
	for _, code := range []string{"warning", CodeFormat, CodeKey, CodeSignature, CodeVolumes, CodeSegment} {
		if seen[code] == 0 {
			t.Errorf("no flip gave %s: %v", code, seen)
		}
	}
}

// tamper flips each byte of one file that falls to this shard and counts the
// answers.
func tamper(t *testing.T, f *fixture, dir, name string, data []byte, shard, shards int) map[string]int {
	known := []string{CodeFormat, CodeKey, CodeSignature, CodeVolumes, CodeVolume, CodeSegment, CodeBlob}
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, file)
	masks := []byte{0x01, 0x20} // other letters and digits, other case
	if strings.HasSuffix(name, ".tar") {
		masks = []byte{0xff}
	}
	seen := make(map[string]int)
	for i := shard; i < len(data); i += shards {
		for _, mask := range masks {
			if _, err := file.WriteAt([]byte{data[i] ^ mask}, int64(i)); err != nil {
				t.Fatal(err)
			}
			warnings, err := attempt(t, f, dir)
			switch got := codes(err); {
			case err == nil && len(warnings) == 0:
				t.Fatalf("%s: byte %d ^ %#x was accepted silently", name, i, mask)
			case err == nil:
				seen["warning"]++
			case len(got) == 0 || !slices.Contains(known, got[0]) || !errors.Is(err, artifact.ErrIntegrity):
				t.Fatalf("%s: byte %d ^ %#x: %v has no known code", name, i, mask, err)
			default:
				seen[got[0]]++
			}
		}
		if _, err := file.WriteAt(data[i:i+1], int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	return seen
}

// Every length from nothing to all: nothing is accepted that is cut short.
func TestTruncation(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	files := tree(t, f.sealed.Dir)
	for name, data := range files {
		for n := 0; n < len(data); n += max(1, len(data)/40) {
			dir := filepath.Join(t.TempDir(), "b")
			writeTree(t, dir, files)
			if err := os.Truncate(filepath.Join(dir, name), int64(n)); err != nil {
				t.Fatal(err)
			}
			if _, err := attempt(t, f, dir); !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestVolumesOfSeveralMedia(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	files := tree(t, f.sealed.Dir)
	n := len(f.sealed.Volumes)
	vol := func(i int) string { return filepath.Join(volumesDir, volumeName(i)) }
	// pick copies the documents, if wanted, and some volumes.
	pick := func(docs bool, vols ...int) string {
		some := make(map[string]string)
		if docs {
			some[envelopeName], some[volumesName] = files[envelopeName], files[volumesName]
		}
		for _, i := range vols {
			some[vol(i)] = files[vol(i)]
		}
		dir := filepath.Join(t.TempDir(), filepath.Base(f.sealed.Dir))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeTree(t, dir, some)
		return dir
	}
	var odd, even, all []int
	for i := 1; i <= n; i++ {
		all = append(all, i)
		if i%2 == 1 {
			odd = append(odd, i)
		} else {
			even = append(even, i)
		}
	}
	for name, dirs := range map[string][]string{
		"one":                {pick(true, all...)},
		"two":                {pick(true, odd...), pick(true, even...)},
		"documents last":     {pick(false, odd...), pick(false, even...), pick(true)},
		"duplicated":         {pick(true, all...), pick(true, all...)},
		"partly duplicated":  {pick(true, odd...), pick(true, all...)},
		"no volumes folder":  {pick(true), pick(false, all...)},
		"foreign files near": {withForeign(t, pick(true, all...))},
	} {
		t.Run(name, func(t *testing.T) {
			if w, err := attempt(t, f, dirs...); err != nil || len(w) > 0 {
				t.Fatal(w, err)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		_, err := attempt(t, f, pick(true, 1), pick(true, 3))
		wantCode(t, err, CodeVolume)
		for i := 2; i <= n; i++ {
			if want := fmt.Sprintf("%s (%d of %d): missing", volumeName(i), i, n); (i == 3) == strings.Contains(err.Error(), want) {
				t.Errorf("%s in %v", want, err)
			}
		}
		ve, ok := errors.AsType[*VolumeError](err)
		if !ok || ve.Volume != 2 || ve.Name != volumeName(2) {
			t.Fatalf("no volume in %v", err)
		}
	})
}

func withForeign(t *testing.T, dir string) string {
	writeTree(t, dir, map[string]string{
		"README": "x", "volumes/volume-99999.tar": "x", "volumes/.Trash": "x", "root/1.root.json": "later", "autorun.inf": "x",
	})
	return dir
}

func TestVolumeStates(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	files := tree(t, f.sealed.Dir)
	name := volumeName(2)
	other := func() string { // a volume of another bundle, of the same size
		c := make(content)
		m := newManifest(c.add([]byte("x")), c.add([]byte("y")), c.add(noise(77, 20_000)))
		signer, _ := testSigner(t, "exporter-a")
		s, err := seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: small.volume}, small)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range s.Volumes {
			if v.Size == f.sealed.Volumes[1].Size {
				return tree(t, s.Dir)[filepath.Join(volumesDir, v.Name)]
			}
		}
		t.Fatal("no volume of that size")
		return ""
	}()
	for what, tc := range map[string]struct {
		spoil func(path string) error
		state VolumeState
		text  string
	}{
		"missing":   {os.Remove, Missing, "missing"},
		"truncated": {func(p string) error { return os.Truncate(p, 100) }, Truncated, "truncated (want 4096 bytes, got 100 bytes)"},
		"larger":    {func(p string) error { return os.Truncate(p, 1<<20) }, Foreign, "foreign (want 4096 bytes, got 1048576 bytes)"},
		"other":     {func(p string) error { return os.WriteFile(p, []byte(other), 0o644) }, Have, "corrupt, or of another bundle"},
		"symlink": {func(p string) error {
			return errors.Join(os.Rename(p, p+".real"), os.Symlink(filepath.Base(p)+".real", p))
		}, Foreign, "foreign"},
		"symlink out": {func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink(filepath.Join(f.sealed.Dir, volumesDir, name), p))
		}, Foreign, "foreign"},
		"pipe":   {func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644)) }, Foreign, "foreign"},
		"folder": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, Foreign, "foreign"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "b")
			writeTree(t, dir, files)
			if err := tc.spoil(filepath.Join(dir, volumesDir, name)); err != nil {
				t.Fatal(err)
			}
			r := f.openBundle(t, dir)
			vols, err := r.Volumes()
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range vols {
				want := Have
				if i == 1 {
					want = tc.state
				}
				if v.State != want || v.Index != i+1 || v.Name != volumeName(i+1) {
					t.Errorf("%+v, want %s", v, want)
				}
			}
			_, err = attempt(t, f, dir)
			wantCode(t, err, CodeVolume)
			if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("got %v, want %s", err, tc.text)
			}
		})
	}
}

// The documents themselves may be anything on a hostile medium.
func TestHostileDocuments(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	files := tree(t, f.sealed.Dir)
	for name, code := range map[string]string{envelopeName: CodeFormat, volumesName: CodeVolumes} {
		for what, spoil := range map[string]func(path string) error{
			"missing": os.Remove,
			"symlink": func(p string) error {
				return errors.Join(os.Rename(p, p+".real"), os.Symlink(filepath.Base(p)+".real", p))
			},
			"pipe":  func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644)) },
			"large": func(p string) error { return os.Truncate(p, 200<<20) },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "b")
				writeTree(t, dir, files)
				if err := spoil(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				_, err := attempt(t, f, dir)
				wantCode(t, err, code)
			})
		}
	}
	t.Run("volumes is a symlink", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "b")
		writeTree(t, dir, files)
		if err := errors.Join(os.Rename(filepath.Join(dir, volumesDir), filepath.Join(dir, "v")), os.Symlink("v", filepath.Join(dir, volumesDir))); err != nil {
			t.Fatal(err)
		}
		_, err := attempt(t, f, dir)
		wantCode(t, err, CodeVolume)
	})
}

// lyingVolume gives each byte rightly once. It fails the test when a byte is
// read again, and would then give another.
type lyingVolume struct {
	volumeSource
	name string
	l    *liar
}

type liar struct {
	read map[string][]bool
	last map[string]int64 // end of the last read, for the order
	back int              // reads that went backwards
	twice,
	opens int
}

func (l *liar) open(m *medium, name string) (volumeSource, int64, error) {
	f, size, err := openVolume(m, name)
	if err != nil {
		return nil, 0, err
	}
	l.opens++
	if l.read[name] == nil {
		l.read[name] = make([]bool, size)
	}
	return &lyingVolume{f, name, l}, size, nil
}

func (v *lyingVolume) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.volumeSource.ReadAt(p, off)
	if off < v.l.last[v.name] {
		v.l.back++
	}
	v.l.last[v.name] = off + int64(n)
	for i := range p[:n] {
		if seen := &v.l.read[v.name][off+int64(i)]; *seen {
			v.l.twice++
			p[i] ^= 0xff
		} else {
			*seen = true
		}
	}
	return n, err
}

// B3, B12: volumes are not touched before the manifest is verified; each byte
// is read once, from front to end.
func TestEachByteIsReadOnce(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	for name, use := range map[string]func(*Reader) error{
		"copy": func(r *Reader) error { return copyAll(t.Context(), r, f.content) },
		"check": func(r *Reader) error {
			w, err := r.Check(t.Context(), nil)
			if len(w) > 0 {
				t.Error(w)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &liar{read: make(map[string][]bool), last: make(map[string]int64)}
			r, err := Open(f.sealed.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer closeIt(t, r)
			r.open = l.open
			if _, _, err := r.Verify(f.trust); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Volumes(); err != nil {
				t.Fatal(err)
			}
			if l.opens != 0 {
				t.Fatalf("%d volumes were opened before they were needed", l.opens)
			}
			if err := use(r); err != nil {
				t.Fatal(err)
			}
			if l.twice != 0 || l.back != 0 || l.opens != len(f.sealed.Volumes) {
				t.Fatalf("%d bytes read twice, %d reads backwards, %d opens of %d volumes", l.twice, l.back, l.opens, len(f.sealed.Volumes))
			}
			// The liar works: reading again is refused, not accepted.
			if err := copyAll(t.Context(), r, f.content); err == nil {
				t.Fatal("other bytes were accepted the second time")
			}
		})
	}
}

// brokenVolume cannot be read from some offset on.
type brokenVolume struct {
	volumeSource
	from int64
}

func (v *brokenVolume) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > v.from {
		return 0, syscall.EIO
	}
	return v.volumeSource.ReadAt(p, off)
}

func TestUnreadableVolume(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	copyDir := filepath.Join(t.TempDir(), "copy")
	writeTree(t, copyDir, tree(t, f.sealed.Dir))
	open := func(dirs ...string) *Reader {
		r := f.openBundle(t, dirs...)
		r.open = func(m *medium, name string) (volumeSource, int64, error) {
			s, size, err := openVolume(m, name)
			if err == nil && m.dir == f.sealed.Dir && name != volumeName(1) {
				s = &brokenVolume{s, 1000}
			}
			return s, size, err
		}
		return r
	}
	// Alone: named. All good blobs of the first volume are still had.
	r := open(f.sealed.Dir)
	err := copyAll(t.Context(), r, f.content)
	wantCode(t, err, CodeVolume)
	if !errors.Is(err, syscall.EIO) || strings.Contains(err.Error(), volumeName(1)) {
		t.Fatal(err)
	}
	_, err = open(f.sealed.Dir).Check(t.Context(), nil)
	if got := codes(err); len(got) != len(f.sealed.Volumes)-1 || got[0] != CodeVolume {
		t.Fatalf("want one error for each volume but the first: %v", err)
	}
	// With a second copy: nothing is lost.
	if err := copyAll(t.Context(), open(f.sealed.Dir, copyDir), f.content); err != nil {
		t.Fatal(err)
	}
	if _, err := open(f.sealed.Dir, copyDir).Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// A bad copy is refused; the next attempt takes the other one.
func TestSecondCopyAfterBadSegment(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	bad := filepath.Join(t.TempDir(), "bad")
	files := tree(t, f.sealed.Dir)
	writeTree(t, bad, files)
	name := filepath.Join(volumesDir, volumeName(1))
	data := []byte(files[name])
	data[tarBlock] ^= 1
	if err := os.WriteFile(filepath.Join(bad, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
	r := f.openBundle(t, bad, f.sealed.Dir)
	b := r.m.Blobs[0]
	err := r.Copy(t.Context(), b, io.Discard)
	wantCode(t, err, CodeSegment)
	ve, ok := errors.AsType[*VolumeError](err)
	if !ok || ve.Volume != 1 || !strings.Contains(err.Error(), bad) {
		t.Fatalf("the volume is not named: %v", err)
	}
	var buf bytes.Buffer
	if err := r.Copy(t.Context(), b, &buf); err != nil || !bytes.Equal(buf.Bytes(), f.content[b.Digest]) {
		t.Fatal(err)
	}
}

// B4: what no signature covers is reported and changes nothing.
func TestUncoveredBytes(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	path := filepath.Join(f.sealed.Dir, volumesDir, volumeName(1))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(data, "hidden")                // in the first tar header
	copy(data[len(data)-100:], "smoke") // in the end of the archive
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := attempt(t, f, f.sealed.Dir)
	if err != nil || len(w) != 3 {
		t.Fatal(w, err)
	}
	for i, want := range []string{"bytes 0 to 5 belong to no segment", fmt.Sprintf("bytes %d to %d belong to no segment", len(data)-100, len(data)-96), "its digest is not the one"} {
		if !strings.Contains(w[i], want) || !strings.Contains(w[i], volumeName(1)) || !strings.HasSuffix(w[i], "["+CodeUncovered+"]") {
			t.Errorf("warning %q, want %s", w[i], want)
		}
	}
}

// B23: nothing on the medium changes, names, times and modes included.
func TestMediumIsNotWritten(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	list := func() []string {
		var all []string
		err := filepath.WalkDir(f.outbox, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			i, err := d.Info()
			all = append(all, fmt.Sprint(path, i.Mode(), i.Size(), i.ModTime().UnixNano()))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	err := filepath.WalkDir(f.outbox, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, map[bool]os.FileMode{true: 0o555, false: 0o444}[d.IsDir()])
	})
	if err != nil {
		t.Fatal(err)
	}
	before := list()
	if _, err := attempt(t, f, f.sealed.Dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, list()); diff != "" {
		t.Fatal(diff)
	}
	for _, name := range append(slices.Collect(mapKeys(tree(t, f.outbox))), filepath.Base(f.sealed.Dir)) {
		if name != strings.ToLower(name) || strings.ContainsAny(name, `:*?"<>|\ `) {
			t.Errorf("%q is no name for FAT", name)
		}
	}
	// TempDir's cleanup needs to write again.
	for _, d := range []string{f.outbox, f.sealed.Dir, filepath.Join(f.sealed.Dir, volumesDir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnverified(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	_, stranger := testSigner(t, "stranger")
	r, err := Open(f.sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	if _, err := r.Volumes(); !errors.Is(err, errNoManifest) {
		t.Fatalf("volumes before any manifest: %v", err)
	}
	if m, rep, err := r.Verify(Trust{Keys: []TrustedKey{stranger}}); m != nil || rep != nil {
		t.Fatal("results beside an error")
	} else {
		wantCode(t, err, CodeKey)
	}
	if _, err := r.Blob(t.Context(), f.m.Blobs[0]); !errors.Is(err, errNoManifest) {
		t.Fatalf("a blob after a bad signature: %v", err)
	}
	m, err := r.Unverified()
	if err != nil || m.Seq != 1 {
		t.Fatal(m, err)
	}
	if err := copyAll(t.Context(), r, f.content); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Blob(t.Context(), Blob{Digest: digest("x")}); err == nil {
		t.Fatal("a blob that is not there")
	}
}

func TestOpenNothing(t *testing.T) {
	if _, err := Open(); err == nil {
		t.Error("no folder was opened")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
