package carry

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// on fails one use of one file of one medium, and everything after it if the
// stick is dead by then.
func on(medium, use, base string, err error, dead bool) func(string, string, string) error {
	failed := false
	return func(m, u, name string) error {
		if m != medium {
			return nil
		}
		if u == use && strings.HasSuffix(name, base) || failed && dead {
			failed = true
			return err
		}
		return nil
	}
}

// flip lets a medium keep another byte of a file than it was given.
func flip(medium, base string) func(string, string, []byte) []byte {
	return func(m, name string, p []byte) []byte {
		if m != medium || !strings.HasSuffix(name, base) {
			return p
		}
		p = slices.Clone(p)
		p[len(p)/2] ^= 0x10
		return p
	}
}

// A broken stick costs what lay on it: the volume goes to the next medium, and
// what was right stays.
func TestBrokenStick(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	for name, tc := range map[string]struct {
		fault func(a string) *stick
		keeps []int // of the broken medium
		say   string
	}{
		"write error": {func(a string) *stick {
			return &stick{broken: on(a, "write", "volume-00002.tar", syscall.EIO, false)}
		}, []int{1}, "bad: write volumes/volume-00002.tar: input/output error"},
		"full": {func(a string) *stick {
			return &stick{broken: on(a, "write", "volume-00003.tar", syscall.ENOSPC, false)}
		}, []int{1, 2}, "full: write volumes/volume-00003.tar: no space left on device"},
		"sync error": {func(a string) *stick {
			return &stick{broken: on(a, "sync", "volume-00002.tar", syscall.EIO, false)}
		}, []int{1}, "bad: sync volumes/volume-00002.tar"},
		"create error": {func(a string) *stick {
			return &stick{broken: on(a, "create", "volume-00001.tar", syscall.EROFS, false)}
		}, nil, "bad: create volumes/volume-00001.tar: read-only file system"},
		"unreadable": {func(a string) *stick {
			return &stick{broken: on(a, "reread", ".tmp-volume-00002.tar", syscall.EIO, false)}
		}, []int{1}, "bad: read back volumes/volume-00002.tar: input/output error"},
		"flipped bit": {func(a string) *stick {
			return &stick{kept: flip(a, "volume-00003.tar")}
		}, []int{1, 2}, "bad: volumes/volume-00003.tar: what was read back is not what was written"},
		"flipped bit in the last": {func(a string) *stick {
			return &stick{kept: flip(a, "volume-00004.tar")}
		}, []int{1, 2, 3}, "bad: volumes/volume-00004.tar: what was read back is not what was written"},
		"flipped bit in the index": {func(a string) *stick {
			return &stick{kept: flip(a, "volumes.json")}
		}, nil, "bad: volumes.json: what was read back is not what was written"},
		"flipped bit in the first label": {func(a string) *stick {
			return &stick{kept: flip(a, "label.txt")}
		}, nil, "bad: label.txt: what was read back is not what was written"},
		"pulled out": {func(a string) *stick {
			return &stick{broken: on(a, "write", "volume-00002.tar", syscall.ENODEV, true)}
		}, nil, "bad: write volumes/volume-00002.tar: no such device"},
	} {
		t.Run(name, func(t *testing.T) {
			media := sticks(t, 2)
			var notes []string
			rep, err := copyTo(t.Context(), s.Dir, Options{Media: media, OnEvent: func(e artifact.Event) {
				if e.Note != "" {
					notes = append(notes, e.Note)
				}
			}}, tc.fault(media[0]))
			if err != nil {
				t.Fatal(err)
			}
			rest := slices.DeleteFunc([]int{1, 2, 3, 4}, func(v int) bool { return slices.Contains(tc.keeps, v) })
			want(t, rep, s, Medium{Dir: media[0], Volumes: tc.keeps, Written: tc.keeps}, Medium{Dir: media[1], Volumes: rest, Written: rest})
			if got := rep.Media[0].Err; got == nil || !strings.HasPrefix(got.Error(), media[0]+": ") || rep.Media[1].Err != nil {
				t.Fatalf("%v, %v", got, rep.Media[1].Err)
			}
			if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, tc.say) }) {
				t.Errorf("notes %q, want %q", notes, tc.say)
			}
			if err := verified(t, s, media[1], media[0]); err != nil {
				t.Fatal(err)
			}
			if text := read(t, media[1], rep.Folder, "label.txt"); strings.Contains(text, "NOT FINISHED") {
				t.Error(text)
			}
			for _, n := range names(t, media[0], s) {
				if strings.Contains(n, ".tmp-") {
					t.Errorf("%s was left behind", n)
				}
			}
			if tc.keeps == nil {
				return
			}
			if err := verified(t, s, media...); err != nil {
				t.Fatal(err)
			}
			if text := read(t, media[0], rep.Folder, "label.txt"); strings.Contains(text, "NOT FINISHED") {
				t.Error(text)
			}
		})
	}
}

// With no other medium the run names what remains; another stick finishes it.
func TestOnlyStickBreaks(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	media := sticks(t, 2)
	rep, err := copyTo(t.Context(), s.Dir, Options{Media: media[:1]}, &stick{broken: on(media[0], "write", "volume-00002.tar", syscall.EIO, false)})
	more, ok := errors.AsType[*RoomError](err)
	if !ok || !slices.Equal(more.Volumes, []int{2, 3, 4}) || !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if need := s.Volumes[1].Size + s.Volumes[2].Size + s.Volumes[3].Size; more.Need != need {
		t.Errorf("%d bytes, want %d", more.Need, need)
	}
	want(t, rep, s, Medium{Dir: media[0], Volumes: []int{1}, Written: []int{1}})
	if _, err := Copy(t.Context(), s.Dir, Options{Media: media[1:], Only: more.Volumes}); err != nil {
		t.Fatal(err)
	}
	if err := verified(t, s, media...); err != nil {
		t.Fatal(err)
	}
}

// A stick that claims more room than it has. What is written beyond its end
// is dropped, or lands on its beginning.
func TestStickThatLies(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	t.Run("drops", func(t *testing.T) {
		media := sticks(t, 2)
		left := 2<<20 + 500<<10
		l := &stick{kept: func(m, _ string, p []byte) []byte {
			if m != media[0] {
				return p
			}
			keep := max(0, min(left, len(p)))
			left -= len(p)
			return slices.Concat(p[:keep], make([]byte, len(p)-keep))
		}}
		rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, l)
		if err != nil {
			t.Fatal(err)
		}
		want(t, rep, s, Medium{Dir: media[0], Volumes: []int{1, 2}, Written: []int{1, 2}}, Medium{Dir: media[1], Volumes: []int{3, 4}, Written: []int{3, 4}})
		if err := verified(t, s, media...); err != nil {
			t.Fatal(err)
		}
	})
	// wraps spoils, once so much is written, a file that was written long ago.
	wraps := func(t *testing.T, medium, victim string) *stick {
		written := 0
		return &stick{wrote: func(m string, n int) {
			if m != medium {
				return
			}
			before := written
			if written += n; before <= 2<<20 && written > 2<<20 {
				name := filepath.Join(m, filepath.Base(s.Dir), victim)
				data := []byte(read(t, name))
				data[len(data)/3] ^= 1
				write(t, string(data), name)
			}
		}}
	}
	t.Run("overwrites a volume", func(t *testing.T) {
		media := sticks(t, 2)
		rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, wraps(t, media[0], volume(1)))
		if err != nil {
			t.Fatal(err)
		}
		want(t, rep, s, Medium{Dir: media[0], Volumes: []int{2, 3, 4}, Written: []int{2, 3, 4}}, Medium{Dir: media[1], Volumes: []int{1}, Written: []int{1}})
		if rep.Media[0].Err == nil || !strings.Contains(rep.Media[0].Err.Error(), "volume-00001.tar") {
			t.Fatal(rep.Media[0].Err)
		}
		if _, err := os.Lstat(filepath.Join(media[0], rep.Folder, volume(1))); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the wrong volume is still there: %v", err)
		}
		if err := verified(t, s, media...); err != nil {
			t.Fatal(err)
		}
		if text := read(t, media[0], rep.Folder, "label.txt"); !strings.Contains(text, "Volumes here   2-4 of 4") {
			t.Error(text)
		}
	})
	t.Run("overwrites the envelope", func(t *testing.T) {
		media := sticks(t, 2)
		rep, err := copyTo(t.Context(), s.Dir, Options{Media: media}, wraps(t, media[0], "bundle.dsse.json"))
		if err != nil {
			t.Fatal(err)
		}
		all := []int{1, 2, 3, 4}
		want(t, rep, s, Medium{Dir: media[0]}, Medium{Dir: media[1], Volumes: all, Written: all})
		// In whatever order the media are read, the bad one does not mislead.
		if err := verified(t, s, media...); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("overwrites what an earlier run wrote", func(t *testing.T) {
		media := sticks(t, 2)
		if _, err := Copy(t.Context(), s.Dir, Options{Media: media[:1], Only: []int{1}}); err != nil {
			t.Fatal(err)
		}
		rep, err := copyTo(t.Context(), s.Dir, Options{Media: media, Only: []int{2, 3, 4}}, wraps(t, media[0], volume(1)))
		if err != nil {
			t.Fatal(err)
		}
		want(t, rep, s, Medium{Dir: media[0], Volumes: []int{2, 3, 4}, Written: []int{2, 3, 4}}, Medium{Dir: media[1], Volumes: []int{1}, Written: []int{1}})
	})
	t.Run("alone", func(t *testing.T) {
		media := sticks(t, 1)
		_, err := copyTo(t.Context(), s.Dir, Options{Media: media}, wraps(t, media[0], volume(1)))
		if more, ok := errors.AsType[*RoomError](err); !ok || !slices.Equal(more.Volumes, []int{1}) || !errors.Is(err, errDiffers) {
			t.Fatal(err)
		}
	})
}

// What a kill or a pulled stick leaves is healed, and nothing that is whole is
// written again.
func TestHeals(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	folder := filepath.Base(s.Dir)
	whole := t.TempDir()
	if _, err := Copy(t.Context(), s.Dir, Options{Media: []string{whole}}); err != nil {
		t.Fatal(err)
	}
	wantFiles := names(t, whole, s)
	for name, tc := range map[string]struct {
		spoil   func(t *testing.T, dir string)
		written []int
	}{
		"temporary files": {func(t *testing.T, dir string) {
			write(t, "half", dir, "volumes", ".tmp-volume-00002.tar")
			write(t, "half", dir, ".tmp-label.txt")
			write(t, "half", dir, ".tmp-bundle.dsse.json")
		}, nil},
		"missing volume": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, volume(3))); err != nil {
				t.Fatal(err)
			}
		}, []int{3}},
		"empty volume": {func(t *testing.T, dir string) { write(t, "", dir, volume(2)) }, []int{2}},
		"long volume":  {func(t *testing.T, dir string) { write(t, read(t, dir, volume(2))+"x", dir, volume(2)) }, []int{2}},
		"wrong volumes": {func(t *testing.T, dir string) {
			for _, v := range []int{1, 4} {
				data := []byte(read(t, dir, volume(v)))
				data[len(data)-1] ^= 1
				write(t, string(data), dir, volume(v))
			}
		}, []int{1, 4}},
		"link": {func(t *testing.T, dir string) {
			name := filepath.Join(dir, volume(2))
			if err := errors.Join(os.Remove(name), os.Symlink("volume-00001.tar", name)); err != nil {
				t.Fatal(err)
			}
		}, []int{2}},
		"link out of the medium": {func(t *testing.T, dir string) {
			name := filepath.Join(dir, volume(2))
			if err := errors.Join(os.Remove(name), os.Symlink("/etc/passwd", name)); err != nil {
				t.Fatal(err)
			}
		}, []int{2}},
		"torn envelope": {func(t *testing.T, dir string) { write(t, `{"payloadType"`, dir, "bundle.dsse.json") }, nil},
		"torn index":    {func(t *testing.T, dir string) { write(t, "", dir, "volumes.json") }, nil},
		"no documents": {func(t *testing.T, dir string) {
			for _, d := range documents {
				if err := os.Remove(filepath.Join(dir, d)); err != nil {
					t.Fatal(err)
				}
			}
		}, nil},
		"torn label": {func(t *testing.T, dir string) { write(t, "NOT FINISHED", dir, "label.txt") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			stick := t.TempDir()
			if err := os.CopyFS(filepath.Join(stick, folder), os.DirFS(filepath.Join(whole, folder))); err != nil {
				t.Fatal(err)
			}
			tc.spoil(t, filepath.Join(stick, folder))
			rep, err := Copy(t.Context(), s.Dir, Options{Media: []string{stick}})
			if err != nil {
				t.Fatal(err)
			}
			want(t, rep, s, Medium{Dir: stick, Volumes: []int{1, 2, 3, 4}, Written: tc.written})
			if diff := cmp.Diff(wantFiles, names(t, stick, s)); diff != "" {
				t.Fatal(diff)
			}
			for _, n := range wantFiles {
				if read(t, stick, folder, n) != read(t, whole, folder, n) {
					t.Errorf("%s differs", n)
				}
			}
			if err := verified(t, s, stick); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A damaged volume that this run was not asked for may be all that somebody
// has: it stays, and no label speaks of it.
func TestLeavesWhatItWasNotAskedFor(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	stick := t.TempDir()
	if _, err := Copy(t.Context(), s.Dir, Options{Media: []string{stick}, Only: []int{1, 2}}); err != nil {
		t.Fatal(err)
	}
	write(t, "damaged", stick, filepath.Base(s.Dir), volume(1))
	rep, err := Copy(t.Context(), s.Dir, Options{Media: []string{stick}, Only: []int{4}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: stick, Volumes: []int{2, 4}, Written: []int{4}})
	if got := read(t, stick, rep.Folder, volume(1)); got != "damaged" {
		t.Fatalf("got %q", got)
	}
	if text := read(t, stick, rep.Folder, "label.txt"); !strings.Contains(text, "Volumes here   2, 4 of 4") {
		t.Error(text)
	}
}

// A link on the medium leads nowhere.
func TestHostileMedium(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	outside := t.TempDir()
	write(t, "mine", outside, "volume-00001.tar")
	write(t, "mine", outside, ".tmp-volume-00001.tar")
	for name, link := range map[string]string{"folder": filepath.Base(s.Dir), "volumes": filepath.Join(filepath.Base(s.Dir), "volumes")} {
		t.Run(name, func(t *testing.T) {
			media := sticks(t, 2)
			if err := os.MkdirAll(filepath.Dir(filepath.Join(media[0], link)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside, filepath.Join(media[0], link)); err != nil {
				t.Fatal(err)
			}
			before := stamp(t, outside)
			rep, err := Copy(t.Context(), s.Dir, Options{Media: media})
			if err != nil {
				t.Fatal(err)
			}
			all := []int{1, 2, 3, 4}
			want(t, rep, s, Medium{Dir: media[0]}, Medium{Dir: media[1], Volumes: all, Written: all})
			if rep.Media[0].Err == nil || !strings.Contains(rep.Media[0].Err.Error(), "escapes") {
				t.Error(rep.Media[0].Err)
			}
			if diff := cmp.Diff(before, stamp(t, outside)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// Stopped in the middle of a volume: it has no name yet, and what is left is
// healed.
func TestInterrupted(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	stick := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	rep, err := Copy(ctx, s.Dir, Options{Media: []string{stick}, OnEvent: func(e artifact.Event) {
		if e.Stage == "carry" && strings.HasSuffix(e.Item, "volume-00002.tar") {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || rep != nil {
		t.Fatal(rep, err)
	}
	if diff := cmp.Diff(append(slices.Clone(documents), volume(1)), names(t, stick, s)); diff != "" {
		t.Fatal(diff)
	}
	rep, err = Copy(t.Context(), s.Dir, Options{Media: []string{stick}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, s, Medium{Dir: stick, Volumes: []int{1, 2, 3, 4}, Written: []int{2, 3, 4}})
}

// needRoot says loudly that a check did not run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT CHECKED: mounting a small tmpfs needs root; continuous integration runs this test as root")
	}
}

func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("NOT CHECKED: no tmpfs could be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// Real small file systems: the room is known before, and where it was a lie,
// the file system's own ENOSPC sends the volume to the next one.
func TestSmallFileSystems(t *testing.T) {
	needRoot(t)
	s := sealBundle(t, t.TempDir())
	t.Run("honest", func(t *testing.T) {
		a, b := mount(t, "size=2m"), mount(t, "size=3m")
		rep, err := Copy(t.Context(), s.Dir, Options{Media: []string{a, b}})
		if err != nil {
			t.Fatal(err)
		}
		want(t, rep, s, Medium{Dir: a, Volumes: []int{1, 4}, Written: []int{1, 4}}, Medium{Dir: b, Volumes: []int{2, 3}, Written: []int{2, 3}})
		for _, m := range rep.Media {
			if m.Err != nil {
				t.Error(m.Err)
			}
		}
		if err := verified(t, s, a, b); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("full after all", func(t *testing.T) {
		a, b := mount(t, "size=2m"), mount(t, "size=8m")
		l := &stick{free: map[string]int64{a: 1 << 30, b: 1 << 30}}
		rep, err := copyTo(t.Context(), s.Dir, Options{Media: []string{a, b}}, l)
		if err != nil {
			t.Fatal(err)
		}
		want(t, rep, s, Medium{Dir: a, Volumes: []int{1}, Written: []int{1}}, Medium{Dir: b, Volumes: []int{2, 3, 4}, Written: []int{2, 3, 4}})
		if !errors.Is(rep.Media[0].Err, syscall.ENOSPC) {
			t.Fatal(rep.Media[0].Err)
		}
		if err := verified(t, s, a, b); err != nil {
			t.Fatal(err)
		}
		if text := read(t, a, rep.Folder, "label.txt"); !strings.Contains(text, "Volumes here   1 of 4") || strings.Contains(text, "NOT FINISHED") {
			t.Error(text)
		}
	})
	t.Run("too small for anything", func(t *testing.T) {
		a := mount(t, "size=64k")
		_, err := Copy(t.Context(), s.Dir, Options{Media: []string{a}})
		if more, ok := errors.AsType[*RoomError](err); !ok || len(more.Volumes) != 4 {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(a); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
	})
}

// A medium that is mounted read-only is a source, and no target.
func TestReadOnlyMedium(t *testing.T) {
	needRoot(t)
	s := sealBundle(t, t.TempDir())
	medium := mount(t, "size=16m")
	rep, err := Copy(t.Context(), s.Dir, Options{Media: []string{medium}})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", medium, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("NOT CHECKED: the tmpfs could not be made read-only: %v", err)
	}
	from := filepath.Join(medium, rep.Folder)
	next := t.TempDir()
	if _, err := Copy(t.Context(), from, Options{Media: []string{next}}); err != nil {
		t.Fatal(err)
	}
	if err := verified(t, s, next); err != nil {
		t.Fatal(err)
	}
	// A whole bundle needs no writing; anything else does.
	if _, err := Copy(t.Context(), s.Dir, Options{Media: []string{medium}}); err != nil {
		t.Fatal(err)
	}
	other := sealBlobs(t, t.TempDir(), noise(7, 1000))
	_, err = Copy(t.Context(), other.Dir, Options{Media: []string{medium}})
	if _, ok := errors.AsType[*RoomError](err); !ok || !errors.Is(err, syscall.EROFS) {
		t.Fatal(err)
	}
	cut, err := bundle.Recut(t.Context(), []string{from}, t.TempDir(), bundle.SealOptions{VolumeSize: 2 << 20})
	if err != nil || len(cut.Volumes) != 2 {
		t.Fatal(cut, err)
	}
}

// What is read back comes from the device where the file system can do that,
// and has every length right.
func TestReread(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	buf, free, err := alignedBuffer(chunkSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(root.Close(), free()); err != nil {
			t.Error(err)
		}
	}()
	probe, err := root.OpenFile("probe", os.O_CREATE|os.O_RDONLY|syscall.O_DIRECT, 0o600)
	direct := err == nil
	if direct {
		if err := probe.Close(); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 511, 512, 4095, 4096, 4097, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 777} {
		data := noise(5, size)
		out, err := device{}.create(root, "f")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(out.Sync(), out.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := (device{}).create(root, "f"); !errors.Is(err, os.ErrExist) {
			t.Fatalf("a file was replaced: %v", err)
		}
		in, got, err := device{}.reread(root, "f")
		if err != nil || got != int64(size) {
			t.Fatal(got, err)
		}
		var back []byte
		for len(back) < size {
			n, err := in.Read(buf)
			if err != nil && !errors.Is(err, io.EOF) || n == 0 {
				t.Fatal(n, err)
			}
			back = append(back, buf[:n]...)
		}
		if !slices.Equal(back, data) {
			t.Fatalf("%d bytes: other bytes were read back", size)
		}
		if f, ok := in.(*inFile); !ok || f.direct != direct {
			t.Fatalf("%d bytes: read past the page cache: %v, want %v", size, !direct, direct)
		}
		if err := errors.Join(in.Close(), root.Remove("f")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (device{}).reread(root, "d"); err == nil {
		t.Fatal("a folder was read")
	}
}

// A file system that takes O_DIRECT and then refuses to read.
func TestRereadWithoutDirect(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	write(t, string(noise(6, 5000)), name)
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		t.Skip("NOT CHECKED: the file system of the temporary folder knows no O_DIRECT")
	}
	if err != nil {
		t.Fatal(err)
	}
	in := &inFile{File: f, direct: true}
	// An odd address and length: the kernel refuses them on every disk.
	buf := make([]byte, 5001)
	n, err := in.Read(buf[1:])
	if err != nil || n != 5000 || !slices.Equal(buf[1:], noise(6, 5000)) {
		t.Fatal(n, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
}
