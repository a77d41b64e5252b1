package crypt_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/crypt"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// store is a fake store.
type store map[artifact.Digest][]byte

func (s store) add(b []byte) bundle.Blob {
	d := artifact.Sum(b)
	s[d] = b
	return bundle.Blob{Digest: d, Size: int64(len(b))}
}

func (s store) open(d artifact.Digest) (io.ReadCloser, error) {
	b, ok := s[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func signer(name string) (bundle.Signer, bundle.TrustedKey) {
	seed := artifact.Sum([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return bundle.Signer{Name: name, Signer: key}, bundle.TrustedKey{Name: name, Role: bundle.RoleExporter, Public: key.Public()}
}

// A sealed bundle and what it was encrypted to.
type sealed struct {
	store store
	plain *bundle.Sealed
	out   *bundle.Sealed
	trust bundle.Trust
}

func seal(t testing.TB, e *crypt.Encrypter, blobs ...[]byte) *sealed {
	t.Helper()
	s := &sealed{store: make(store)}
	a, b := s.store.add([]byte(`{"a":1}`)), s.store.add([]byte(`{"b":1}`))
	m := &bundle.Manifest{
		Stream: "main", Seq: 1, Issued: time.Date(2026, 11, 22, 20, 15, 0, 0, time.UTC), Expires: time.Date(2027, 2, 20, 20, 15, 0, 0, time.UTC),
		Sources: []bundle.SourceRef{{Name: "apt/bookworm", Snapshot: a.Digest}, {Name: "pypi/main", Snapshot: b.Digest}},
		Blobs:   []bundle.Blob{a, b},
	}
	for _, data := range blobs {
		m.Blobs = append(m.Blobs, s.store.add(data))
	}
	key, trusted := signer("exporter-a")
	s.trust.Keys = []bundle.TrustedKey{trusted}
	var err error
	s.plain, err = bundle.Seal(t.Context(), t.TempDir(), m, s.store.open, key, bundle.SealOptions{VolumeSize: bundle.MinVolumeSize, Root: map[string][]byte{"1.root.json": []byte(`{"root":1}`)}})
	if err != nil {
		t.Fatal(err)
	}
	s.out = s.encrypt(t, e)
	return s
}

func (s *sealed) encrypt(t testing.TB, e *crypt.Encrypter) *bundle.Sealed {
	t.Helper()
	key, _ := signer("exporter-a")
	out, err := bundle.Encrypt(t.Context(), []string{s.plain.Dir}, filepath.Join(t.TempDir(), "out"), e, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// read takes a bundle through everything, and panics on wrong bytes.
func (s *sealed) read(t testing.TB, d bundle.Decrypter, dir string) (warnings []string, err error) {
	t.Helper()
	r, err := bundle.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	r.UseDecrypter(d)
	m, _, err := r.Verify(s.trust)
	if err != nil {
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
	errs = append(errs, err)
	for _, b := range m.Blobs {
		var got bytes.Buffer
		if err := r.Copy(t.Context(), b, &got); err != nil {
			errs = append(errs, err)
		} else if !bytes.Equal(got.Bytes(), s.store[b.Digest]) {
			panic("wrong bytes were accepted: " + b.Digest.String())
		}
	}
	return warnings, errors.Join(errs...)
}

func (s *sealed) checkCarried(t testing.TB, dir string) error {
	t.Helper()
	r, err := bundle.Open(dir)
	if err != nil {
		return err
	}
	c, rep, err := r.CheckCarried(t.Context(), s.trust, nil)
	if err == nil && (c.Bundle != s.plain.ID || !slices.Equal(rep.SignedBy, []string{"exporter-a"})) {
		t.Errorf("%+v by %+v", c, rep)
	}
	return errors.Join(err, r.Close())
}

// clone copies a bundle's folder.
func clone(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// files lists a folder's files by their path in it.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	if err != nil || len(all) == 0 {
		t.Fatal(err, len(all))
	}
	return all
}

func code(err error) string {
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r.Code
	}
	return fmt.Sprint(err)
}

func TestBundle(t *testing.T) {
	a, b, h, k, stranger := classical(t), classical(t), hybrid(t), hybrid(t), classical(t)
	for name, tc := range map[string]struct{ to, with []person }{
		"classical":            {[]person{a}, []person{a}},
		"two, the first":       {[]person{a, b}, []person{a}},
		"two, the second":      {[]person{a, b}, []person{stranger, b}},
		"hybrid":               {[]person{h}, []person{h}},
		"two hybrid, a second": {[]person{h, k}, []person{a, k}},
	} {
		t.Run(name, func(t *testing.T) {
			// Blobs in several volumes, whose chunks and segments do not
			// fall together.
			s := seal(t, encrypter(t, tc.to...), noise(1, 900_000), noise(2, 1_300_001), noise(3, 70_000), noise(4, 1), nil, bytes.Repeat([]byte("text "), 20_000))
			if len(s.out.Volumes) < 3 {
				t.Fatalf("%d volumes", len(s.out.Volumes))
			}
			if w, err := s.read(t, decrypter(t, tc.with...), s.out.Dir); err != nil || len(w) > 0 {
				t.Fatal(w, err)
			}
			if err := s.checkCarried(t, s.out.Dir); err != nil {
				t.Fatal(err)
			}
			_, err := s.read(t, decrypter(t, stranger), s.out.Dir)
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || r.Code != bundle.CodeDecrypt || r.Class != nil || !errors.Is(err, bundle.ErrNoIdentity) {
				t.Fatalf("got %v", err)
			}
			for _, p := range append(slices.Clone(tc.to), stranger) {
				if list, err := crypt.ParseRecipients([]byte(p.recipient)); err != nil || !strings.Contains(r.Error(), list[0].Fingerprint()) {
					t.Errorf("%v does not name %s: %v", r, p.recipient, err)
				}
			}
		})
	}
}

// B16, B4: each byte of each file of a tiny encrypted bundle is flipped. Each
// flip is refused with a code, with an identity and without one. Under the
// race detector every fourth byte is; the plain run takes them all.
func TestTamperMatrix(t *testing.T) {
	a, b := classical(t), classical(t)
	s := seal(t, encrypter(t, a, b), noise(1, 300))
	d := decrypter(t, a)
	all := files(t, s.out.Dir)
	want := []string{"bundle.dsse.json.age", "carried.dsse.json", "root/1.root.json", "volumes.json.age", "volumes/volume-00001.tar.age"}
	var names []string
	for name := range all {
		names = append(names, name)
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Fatal(names)
	}
	var mu sync.Mutex
	seen := make(map[string]int)
	t.Run("shards", func(t *testing.T) {
		const shards = 4
		for shard := range shards {
			if shard > 0 && (testing.Short() || underRace) {
				t.Log("every fourth byte only")
				break
			}
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				dir := clone(t, s.out.Dir)
				for _, name := range names {
					for i := shard; i < len(all[name]); i += shards {
						got := s.flip(t, d, dir, name, all[name], i)
						mu.Lock()
						seen[name+" "+got]++
						mu.Unlock()
					}
				}
				if w, err := s.read(t, d, dir); err != nil || len(w) > 0 {
					t.Fatalf("the bundle was not restored: %v %v", w, err)
				}
			})
		}
	})
	t.Log(seen)
	for _, what := range []string{
		"bundle.dsse.json.age ERR_FORMAT", "carried.dsse.json ERR_FORMAT", "carried.dsse.json ERR_SIG", "carried.dsse.json ERR_KEY",
		"root/1.root.json ERR_FORMAT", "volumes.json.age ERR_VOLUMES", "volumes/volume-00001.tar.age ERR_VOLUME",
	} {
		if seen[what] == 0 {
			t.Errorf("no flip gave %s", what)
		}
	}
}

// flip flips one byte of a file, and says what came of it.
func (s *sealed) flip(t *testing.T, d bundle.Decrypter, dir, name string, data []byte, i int) string {
	t.Helper()
	path := filepath.Join(dir, name)
	masks := []byte{0x01, 0x20} // other letters and digits, other case
	if strings.HasSuffix(name, ".age") {
		masks = []byte{0xff}
	}
	var got string
	for _, mask := range masks {
		spoiled := slices.Clone(data)
		spoiled[i] ^= mask
		if err := os.WriteFile(path, spoiled, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.read(t, d, dir)
		if !errors.Is(err, artifact.ErrIntegrity) {
			t.Fatalf("%s: byte %d ^ %#x: %v", name, i, mask, err)
		}
		got = code(err)
		if err := s.checkCarried(t, dir); !errors.Is(err, artifact.ErrIntegrity) {
			t.Fatalf("%s: byte %d ^ %#x without an identity: %v", name, i, mask, err)
		}
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return got
}

// Bytes that are flipped in a large volume, at the borders of everything.
func TestTamperLargeVolume(t *testing.T) {
	a := classical(t)
	s := seal(t, encrypter(t, a), noise(1, 700_000))
	d := decrypter(t, a)
	dir := clone(t, s.out.Dir)
	name := "volumes/" + s.out.Volumes[0].Name
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	header := bytes.Index(data, []byte("\n--- ")) + 49 // MAC and line feed
	for _, at := range []int{
		0, header - 1, header, header + 15, header + 16, header + 16 + 65551, header + 16 + 65552,
		128<<10 - 1, 128 << 10, 400_000, len(data) - 65552, len(data) - 1,
	} {
		s.flip(t, d, dir, name, data, at)
	}
	if w, err := s.read(t, d, dir); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
}

// Who knows a recipient can encrypt to it, and is refused all the same: the
// same content, and other content of the same length.
func TestStrangerEncryptsAnew(t *testing.T) {
	a := classical(t)
	e := encrypter(t, a)
	s := seal(t, e, noise(1, 300_000))
	for _, name := range []string{"bundle.dsse.json", "volumes.json", "volumes/volume-00001.tar"} {
		for what, change := range map[string]func([]byte){"same": func([]byte) {}, "other": func(b []byte) { b[len(b)/2] ^= 1 }} {
			t.Run(name+" "+what, func(t *testing.T) {
				content, err := os.ReadFile(filepath.Join(s.plain.Dir, name))
				if err != nil {
					t.Fatal(err)
				}
				change(content)
				dir := clone(t, s.out.Dir)
				if err := os.WriteFile(filepath.Join(dir, name+".age"), encrypt(t, e, content), 0o644); err != nil {
					t.Fatal(err)
				}
				if _, err := s.read(t, decrypter(t, a), dir); !errors.Is(err, artifact.ErrIntegrity) || !strings.Contains(err.Error(), "not the listed one") {
					t.Fatal(err)
				}
				if err := s.checkCarried(t, dir); !errors.Is(err, artifact.ErrIntegrity) {
					t.Fatal(err)
				}
			})
		}
	}
}

// Encrypting is random: the same bundle gives other bytes, and what is inside
// is the same.
func TestEncryptingIsRandom(t *testing.T) {
	a := classical(t)
	e := encrypter(t, a)
	s := seal(t, e, noise(1, 300))
	again := s.encrypt(t, e)
	one, two := files(t, s.out.Dir), files(t, again.Dir)
	for name := range one {
		if same := bytes.Equal(one[name], two[name]); same != (name == "root/1.root.json") {
			t.Errorf("%s is the same: %v", name, same)
		}
	}
	if again.ID != s.out.ID || filepath.Base(again.Dir) != filepath.Base(s.out.Dir) {
		t.Fatalf("%+v and %+v", again, s.out)
	}
	if w, err := s.read(t, decrypter(t, a), again.Dir); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
}

// reads notes what age reads of a file.
type reads struct {
	bundle.Decrypter
	src   io.ReaderAt
	spans *[][2]int64
}

func (r reads) Decrypt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	r.src = src
	return r.Decrypter.Decrypt(r, size)
}

func (r reads) ReadAt(p []byte, off int64) (int, error) {
	*r.spans = append(*r.spans, [2]int64{off, off + int64(len(p))})
	return r.src.ReadAt(p, off)
}

// What package bundle relies on to read a medium once: age reads the header,
// then the last chunk, and then each chunk once from front to end. Only what
// it keeps, 128 KiB at the front and the last chunk, is read again.
func TestOrderOfReads(t *testing.T) {
	a := classical(t)
	s := seal(t, encrypter(t, a), noise(1, 500_000), noise(2, 1000), noise(3, 77), noise(4, 300_000))
	size := s.out.Volumes[0].Size
	var spans [][2]int64
	r, err := bundle.Open(s.out.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := decrypter(t, a)
	r.UseDecrypter(d)
	if _, _, err := r.Verify(s.trust); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Volumes(); err != nil {
		t.Fatal(err)
	}
	r.UseDecrypter(reads{Decrypter: d, spans: &spans})
	if w, err := r.Check(t.Context(), nil); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
	end := int64(128 << 10)
	ends := 0
	for _, span := range spans {
		switch {
		case span[1] <= 128<<10: // kept
		case span[1] == size:
			ends++ // kept as well
		case span[0] < end && span[0] >= 128<<10:
			t.Errorf("%v is read again", span)
		default:
			end = max(end, span[1])
		}
	}
	if ends != 2 || end < size-65552 {
		t.Fatalf("the end was read %d times, the middle up to %d of %d", ends, end, size)
	}
}
