package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// B12 for encrypted volumes, of which both ends are needed early.
func TestEachEncryptedByteIsReadOnce(t *testing.T) {
	c := make(content)
	blobs := []Blob{c.add([]byte("a")), c.add([]byte("b")), c.add(noise(1, 700_000)), c.add(noise(2, 400_001)), c.add(prose(3, 300_000))}
	for i := range uint64(60) { // small ones, one behind the other
		blobs = append(blobs, c.add(noise(10+i, 50+int(i)*97)))
	}
	f := encryptContent(t, c, newManifest(blobs...), newToy(1, "recip-aa"), SealOptions{VolumeSize: 512 << 10})
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
			r, err := Open(f.out.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer closeIt(t, r)
			r.open = l.open
			r.UseDecrypter(f.toy)
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
			if l.twice != 0 || l.opens != len(f.out.Volumes) || l.opens < 3 {
				t.Fatalf("%d bytes read twice, %d opens of %d volumes", l.twice, l.opens, len(f.out.Volumes))
			}
			if name != "check" {
				return
			}
			for vol, seen := range l.read {
				for i, ok := range seen {
					if !ok {
						t.Fatalf("%s: byte %d was not read", vol, i)
					}
				}
			}
			// The liar works: reading again is refused, not accepted.
			if err := copyAll(t.Context(), r, f.content); err == nil {
				t.Fatal("other bytes were accepted the second time")
			}
		})
	}
}

// holed cannot read one byte.
type holed struct {
	io.ReaderAt
	hole int64
}

var errHole = errors.New("hole")

func (h holed) ReadAt(p []byte, off int64) (int, error) {
	if h.hole < off || h.hole >= off+int64(len(p)) {
		return h.ReaderAt.ReadAt(p, off)
	}
	n, err := h.ReaderAt.ReadAt(p[:h.hole-off], off)
	return n, errors.Join(err, errHole)
}

// Both readers give the bytes below them, in any order and of any length, and
// a hole spoils only reads of it.
func TestReadersOfVolumes(t *testing.T) {
	const size = 3*headSize + 77
	data := noise(1, size)
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, make := range map[string]func(src io.ReaderAt) io.ReaderAt{
		"cipher": func(src io.ReaderAt) io.ReaderAt {
			return &cipherFile{f: src, size: size, head: data[:headSize]}
		},
		"plain": func(src io.ReaderAt) io.ReaderAt { return &plainFile{src: src, size: size} },
	} {
		for _, hole := range []int64{-1, 2*headSize + 5} {
			r := make(holed{bytes.NewReader(data), hole})
			at := int64(0)
			for i := range 3000 {
				off, n := rnd.Int64N(size+1), rnd.IntN(1<<rnd.IntN(19))
				switch i % 4 {
				case 1: // on from the last
					off = at
				case 2: // the end
					off = max(0, size-int64(n))
				}
				p := bytes.Repeat([]byte{0xaa}, n)
				got, err := r.ReadAt(p, off)
				want := data[off:min(size, off+int64(n))]
				hit := hole >= off && hole < off+int64(len(want))
				switch {
				case !bytes.Equal(p[:got], want[:got]):
					t.Fatalf("%s: other bytes at %d", name, off)
				case hit && !errors.Is(err, errHole):
					t.Fatalf("%s: %d at %d: %v, want the hole", name, n, off, err)
				case !hit && got != len(want):
					t.Fatalf("%s: %d of %d bytes at %d: %v", name, got, len(want), off, err)
				case !hit && got < n && !errors.Is(err, io.EOF):
					t.Fatalf("%s: a short read says %v", name, err)
				}
				at = min(off+int64(got), size)
			}
			for _, off := range []int64{-1, size + 1} {
				if _, err := r.ReadAt([]byte{0}, off); err == nil {
					t.Fatalf("%s: read at %d", name, off)
				}
			}
		}
	}
}

// Which files count where two kinds lie in one folder.
func TestMixedFolders(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	plain, carried := tree(t, f.sealed.Dir), tree(t, f.out.Dir)
	vol := filepath.Join(volumesDir, volumeName(2))
	pick := func(from map[string]string, with map[string]string, without ...string) string {
		dir := filepath.Join(t.TempDir(), filepath.Base(f.out.Dir))
		files := make(map[string]string)
		for name, data := range from {
			if !slices.Contains(without, name) {
				files[name] = data
			}
		}
		for name, data := range with {
			files[name] = data
		}
		writeTree(t, dir, files)
		return dir
	}
	some := func(from map[string]string, names ...string) map[string]string {
		m := make(map[string]string)
		for _, n := range names {
			m[n] = from[n]
		}
		return m
	}
	t.Run("plain files beside", func(t *testing.T) {
		w, err := f.attempt(t, f.toy, pick(carried, plain))
		if err != nil || len(w) != 2+len(f.out.Volumes) || !strings.Contains(w[0], "unencrypted") || !strings.Contains(w[0], CodeUncovered) {
			t.Fatal(w, err)
		}
	})
	t.Run("a plain volume in place of its encrypted file", func(t *testing.T) {
		_, err := f.attempt(t, f.toy, pick(carried, some(plain, vol), vol+encryptedExt))
		wantCode(t, err, CodeVolume)
		if !strings.Contains(err.Error(), "volume-00002.tar.age (2 of") || !strings.Contains(err.Error(), "missing") {
			t.Fatal(err)
		}
	})
	t.Run("an encrypted volume in place of a plain one", func(t *testing.T) {
		_, err := attempt(t, f.fixture, pick(plain, some(carried, vol+encryptedExt), vol))
		wantCode(t, err, CodeVolume)
	})
	t.Run("encrypted files beside plain ones", func(t *testing.T) {
		without := pick(plain, carried, carriedName)
		if err := os.Remove(filepath.Join(without, carriedName)); err != nil {
			t.Fatal(err)
		}
		if w, err := attempt(t, f.fixture, without); err != nil || len(w) > 0 {
			t.Fatal(w, err)
		}
	})
	t.Run("no list", func(t *testing.T) {
		_, err := f.attempt(t, f.toy, pick(carried, nil, carriedName))
		wantCode(t, err, CodeFormat)
	})
	t.Run("two media", func(t *testing.T) {
		one := pick(carried, nil, vol+encryptedExt)
		two := pick(some(carried, vol+encryptedExt), nil)
		if w, err := f.attempt(t, f.toy, two, one); err != nil || len(w) > 0 {
			t.Fatal(w, err)
		}
		if err := f.checkCarried(t, two, one); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a bad copy and a good one", func(t *testing.T) {
		one := pick(carried, nil)
		flip(t, filepath.Join(one, vol+encryptedExt), 100)
		if w, err := f.attempt(t, f.toy, one, f.out.Dir); err != nil || len(w) > 0 {
			t.Fatal(w, err)
		}
		if err := f.checkCarried(t, one, f.out.Dir); err != nil {
			t.Fatal(err)
		}
		wantCode(t, f.checkCarried(t, one), CodeVolume)
	})
}

// A stranger knows the recipients and even the content, and encrypts it anew.
func TestStrangerEncryptsAnew(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	plain, carried := tree(t, f.sealed.Dir), tree(t, f.out.Dir)
	stranger := newToy(2, "recip-aa")
	for name, code := range map[string]string{
		envelopeName: CodeFormat, volumesName: CodeVolumes, filepath.Join(volumesDir, volumeName(1)): CodeVolume,
	} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			dir := f.copyTree(t)
			anew := stranger.seal([]byte(plain[name]))
			if len(anew) != len(carried[name+encryptedExt]) || bytes.Equal(anew, []byte(carried[name+encryptedExt])) {
				t.Fatal("the same file, or of another size")
			}
			if err := os.WriteFile(filepath.Join(dir, name+encryptedExt), anew, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := f.attempt(t, f.toy, dir)
			wantCode(t, err, code)
			wantCode(t, f.checkCarried(t, dir), code)
		})
	}
	t.Run("everything, with a list of their own", func(t *testing.T) {
		signer, key := testSigner(t, "exporter-b")
		list := Carried{Bundle: f.sealed.ID, Stream: "main", Seq: 1, Envelope: artifact.Sum([]byte(plain[envelopeName])), Recipients: stranger.Recipients()}
		dir := f.copyTree(t)
		put := func(name string) {
			d := document{name + encryptedExt, stranger.seal([]byte(plain[name]))}
			list.Files = append(list.Files, listed(d))
			writeTree(t, dir, map[string]string{d.name: string(d.data)})
		}
		put(envelopeName)
		put(volumesName)
		for i := range f.out.Volumes {
			put(filepath.Join(volumesDir, volumeName(i+1)))
		}
		data, err := signCarried(&list, signer)
		if err != nil {
			t.Fatal(err)
		}
		writeTree(t, dir, map[string]string{carriedName: string(data)})
		_, err = f.attempt(t, f.toy, dir)
		wantCode(t, err, CodeKey)
		if !strings.Contains(err.Error(), carriedName) {
			t.Errorf("%v does not name %s", err, carriedName)
		}
		wantCode(t, f.checkCarried(t, dir), CodeKey)
		// It is the signature that refuses it.
		f := *f
		f.fixture = &fixture{content: f.content, trust: Trust{Keys: append(f.trust.Keys, key)}}
		if w, err := f.attempt(t, f.toy, dir); err != nil || len(w) > 0 {
			t.Fatal(w, err)
		}
	})
}

// Genuine files of other encryptions and bundles, and exchanged ones.
func TestExchangedFiles(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	anew := encryptSmall(t, newToy(2, "recip-aa"))
	c, m := smallContent()
	m.Seq, m.Prev = 2, digest("before").String()
	next := encryptContent(t, c, m, newToy(1, "recip-aa"), SealOptions{VolumeSize: small.volume})
	vols := filepath.Join(volumesDir, f.out.Volumes[0].Name)
	files, others, nexts := tree(t, f.out.Dir), tree(t, anew.out.Dir), tree(t, next.out.Dir)
	for name, tc := range map[string]struct {
		with map[string]string
		code string
	}{
		"volumes exchanged": {map[string]string{
			vols: files[filepath.Join(volumesDir, f.out.Volumes[1].Name)],
			filepath.Join(volumesDir, f.out.Volumes[1].Name): files[vols],
		}, CodeVolume},
		"volume of another encryption": {map[string]string{vols: others[vols]}, CodeVolume},
		"list of another encryption":   {map[string]string{carriedName: others[carriedName]}, CodeFormat},
		"list of the next bundle":      {map[string]string{carriedName: nexts[carriedName]}, CodeFormat},
		"envelope of the next bundle":  {map[string]string{envelopeName + encryptedExt: nexts[envelopeName+encryptedExt]}, CodeFormat},
		"index of the next bundle":     {map[string]string{volumesName + encryptedExt: nexts[volumesName+encryptedExt]}, CodeVolumes},
		"root file":                    {map[string]string{"root/2.root.json": "another"}, CodeFormat},
		"root files exchanged":         {map[string]string{"root/2.root.json": files["root/1.root.json"]}, CodeFormat},
	} {
		t.Run(name, func(t *testing.T) {
			dir := f.copyTree(t)
			writeTree(t, dir, tc.with)
			_, err := f.attempt(t, f.toy, dir)
			wantCode(t, err, tc.code)
			wantCode(t, f.checkCarried(t, dir), tc.code)
		})
	}
	t.Run("an exporter's list of another bundle with these files", func(t *testing.T) {
		signer, _ := testSigner(t, "exporter-a")
		l, err := openCarried([]byte(files[carriedName]))
		if err != nil || l.parse() != nil {
			t.Fatal(err)
		}
		list := *l.Carried
		list.Seq++
		data, err := signCarried(&list, signer)
		if err != nil {
			t.Fatal(err)
		}
		dir := f.copyTree(t)
		writeTree(t, dir, map[string]string{carriedName: string(data)})
		_, err = f.attempt(t, f.toy, dir)
		wantCode(t, err, CodeFormat)
		if !strings.Contains(err.Error(), "another bundle") {
			t.Fatal(err)
		}
	})
}

// A recipient knows the file key and can forge all behind the head.
func TestRecipientForgesAVolume(t *testing.T) {
	c := make(content)
	m := newManifest(c.add([]byte("a")), c.add([]byte("b")), c.add(noise(1, 300_000)))
	f := encryptContent(t, c, m, newToy(1, "recip-aa"), SealOptions{VolumeSize: 1 << 20})
	name := filepath.Join(volumesDir, volumeName(1))
	data := readFile(t, filepath.Join(f.sealed.Dir, name))
	data[200_000] ^= 1
	forged := f.toy.seal(data)
	dir := f.copyTree(t)
	if got := readFile(t, filepath.Join(dir, name+encryptedExt)); !bytes.Equal(got[:headSize], forged[:headSize]) || bytes.Equal(got, forged) {
		t.Fatal("no forgery")
	}
	writeTree(t, dir, map[string]string{name + encryptedExt: string(forged)})
	_, err := f.attempt(t, f.toy, dir)
	wantCode(t, err, CodeSegment)
	wantCode(t, err, CodeVolume)
	wantCode(t, f.checkCarried(t, dir), CodeVolume)
}

// Every length: nothing is accepted that is cut short, with or without an
// identity.
func TestTruncatedEncrypted(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	for name, data := range tree(t, f.out.Dir) {
		for n := 0; n < len(data); n += max(1, len(data)/12) {
			dir := f.copyTree(t)
			if err := os.Truncate(filepath.Join(dir, name), int64(n)); err != nil {
				t.Fatal(err)
			}
			if _, err := f.attempt(t, f.toy, dir); !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
			if err := f.checkCarried(t, dir); !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
		}
	}
}

// All bad files are named at once, each as what it is.
func TestCheckCarriedNamesAll(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	dir := f.copyTree(t)
	for _, name := range []string{envelopeName + encryptedExt, "root/10.root.json"} {
		flip(t, filepath.Join(dir, name), 3)
	}
	for _, name := range []string{volumesName + encryptedExt, "volumes/volume-00002.tar.age"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	err := f.checkCarried(t, dir)
	if diff := cmp.Diff([]string{CodeFormat, CodeFormat, CodeVolume, CodeVolumes}, codes(err)); diff != "" {
		t.Fatal(diff, err)
	}
	ve, ok := errors.AsType[*VolumeError](err)
	if !ok || ve.Volume != 2 || ve.Name != "volume-00002.tar.age" || !strings.Contains(ve.Error(), fmt.Sprintf("(2 of %d): missing", len(f.out.Volumes))) {
		t.Fatalf("%v in %v", ve, err)
	}
	plain := sealSmall(t, t.TempDir())
	if err := f.checkCarried(t, plain.sealed.Dir); !errors.Is(err, errNotEncrypted) {
		t.Fatal(err)
	}
}
