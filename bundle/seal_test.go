package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestSealRoundTrip(t *testing.T) {
	f := sealSmall(t, filepath.Join(t.TempDir(), "new", "outbox"))
	if f.sealed.Dir != filepath.Join(f.outbox, "main-000001-"+f.sealed.ID.Hex()[:16]) {
		t.Fatalf("folder %s", f.sealed.Dir)
	}
	r, err := Open(f.sealed.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	m, rep, err := r.Verify(f.trust)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.m, m); diff != "" {
		t.Fatalf("manifest changed:\n%s", diff)
	}
	if rep.ID != f.sealed.ID || !cmp.Equal(rep.SignedBy, []string{"exporter-a"}) || len(rep.Steps) != 4 {
		t.Fatalf("report %+v", rep)
	}
	if got := m.Held[0].Reason; got != "tab?here ?" {
		t.Fatalf("reason %q", got)
	}
	// The layout has what the test is about: a compressed blob in several
	// segments, and segments cut over volumes.
	var zstds, cut int
	for _, b := range m.Blobs {
		if b.Enc == EncZstd && len(b.Segments) > 1 {
			zstds++
		}
	}
	if err := r.layout(); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.index.Extents {
		if len(e) > 1 {
			cut++
		}
	}
	if zstds != 1 || cut == 0 || len(f.sealed.Volumes) < 3 {
		t.Fatalf("%d compressed, %d cut, %d volumes", zstds, cut, len(f.sealed.Volumes))
	}
	if err := copyAll(t.Context(), r, f.content); err != nil {
		t.Fatal(err)
	}
	warnings, err := r.Check(t.Context(), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", warnings, err)
	}
	var size int64
	for _, data := range tree(t, f.sealed.Dir) {
		size += int64(len(data))
	}
	if size != f.sealed.Bytes {
		t.Fatalf("%d bytes on disk, %d reported", size, f.sealed.Bytes)
	}
}

func TestSealIsDeterministic(t *testing.T) {
	a := sealSmall(t, t.TempDir())
	b := sealSmall(t, t.TempDir())
	// A third input in other orders, times in another zone.
	c, m := smallContent()
	for i, j := 0, len(m.Blobs)-1; i < j; i, j = i+1, j-1 {
		m.Blobs[i], m.Blobs[j] = m.Blobs[j], m.Blobs[i]
	}
	m.Sources[0], m.Sources[1] = m.Sources[1], m.Sources[0]
	m.Issued = m.Issued.Local().Add(123456)
	signer, _ := testSigner(t, "exporter-a")
	s, err := seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: small.volume}, small)
	if err != nil {
		t.Fatal(err)
	}
	want := tree(t, a.sealed.Dir)
	for _, dir := range []string{b.sealed.Dir, s.Dir} {
		if filepath.Base(dir) != filepath.Base(a.sealed.Dir) {
			t.Fatalf("names %s and %s", dir, a.sealed.Dir)
		}
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// A rerun after a run that was killed once it had renamed its folder.
func TestSealTwiceFindsTheFirst(t *testing.T) {
	a := sealSmall(t, t.TempDir())
	b := sealSmall(t, a.outbox)
	if diff := cmp.Diff(a.sealed, b.sealed); diff != "" {
		t.Fatal(diff)
	}
	entries, err := os.ReadDir(a.outbox)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
	if err := os.Truncate(filepath.Join(a.sealed.Dir, volumesDir, volumeName(1)), 5); err != nil {
		t.Fatal(err)
	}
	c, m := smallContent()
	signer, _ := testSigner(t, "exporter-a")
	_, err = seal(t.Context(), a.outbox, m, c.open, signer, SealOptions{VolumeSize: small.volume}, small)
	if err == nil || !strings.Contains(err.Error(), "volume-00001.tar differs") {
		t.Fatalf("got %v", err)
	}
}

func TestVolumesArePlainTar(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	parts := make(map[string][]byte)
	var order []string
	for _, v := range f.sealed.Volumes {
		data, err := os.ReadFile(filepath.Join(f.sealed.Dir, volumesDir, v.Name))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(data)) != v.Size || v.Size > small.volume || artifact.Sum(data) != v.SHA256 {
			t.Fatalf("%s: %d bytes, described as %+v", v.Name, len(data), v)
		}
		tr := tar.NewReader(bytes.NewReader(data))
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 || h.Format != tar.FormatUSTAR {
				t.Fatalf("header %+v", h)
			}
			// Our header is the one that archive/tar writes.
			var buf bytes.Buffer
			if err := tar.NewWriter(&buf).WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			mine := tarHeader(h.Name, h.Size)
			if !bytes.Equal(mine[:], buf.Bytes()) {
				t.Fatalf("header of %s differs from archive/tar's:\n%q\n%q", h.Name, mine, buf.Bytes())
			}
			body, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(filepath.Base(h.Name), ".")
			if _, ok := parts[name]; !ok {
				order = append(order, name)
			}
			parts[name] = append(parts[name], body...)
		}
	}
	// Joined in order, the entries are the stored bytes.
	n := 0
	for _, b := range f.m.Blobs {
		if b.StoredSize == 0 {
			continue
		}
		if order[n] != b.Digest.Hex() || int64(len(parts[order[n]])) != b.StoredSize {
			t.Fatalf("entry %d is %s of %d bytes, want %s of %d", n, order[n], len(parts[order[n]]), b.Digest, b.StoredSize)
		}
		if b.Enc == EncNone && artifact.Sum(parts[order[n]]) != b.Digest {
			t.Fatalf("%s: wrong bytes", b.Digest)
		}
		n++
	}
	if n != len(order) {
		t.Fatalf("%d entries, want %d", len(order), n)
	}
}

// B10: the least cap, a blob of several volumes.
func TestVolumeCap(t *testing.T) {
	c := make(content)
	blobs := []Blob{c.add([]byte("a")), c.add([]byte("b")), c.add(noise(1, 5<<20)), c.add(noise(2, 1<<19)), c.add(noise(3, 1000))}
	signer, key := testSigner(t, "exporter-a")
	m := newManifest(blobs...)
	s, err := Seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: MinVolumeSize})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Volumes) < 6 {
		t.Fatalf("%d volumes", len(s.Volumes))
	}
	for _, v := range s.Volumes {
		if v.Size > MinVolumeSize {
			t.Fatalf("%s has %d bytes", v.Name, v.Size)
		}
	}
	if most := m.Size() * 105 / 100; s.Bytes > most {
		t.Fatalf("%d bytes written for %d", s.Bytes, m.Size())
	}
	f := &fixture{content: c, sealed: s, trust: Trust{Keys: []TrustedKey{key}}}
	r := f.openBundle(t)
	if err := copyAll(t.Context(), r, c); err != nil {
		t.Fatal(err)
	}
	if w, err := r.Check(t.Context(), nil); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
	if _, err := Seal(t.Context(), t.TempDir(), m, c.open, signer, SealOptions{VolumeSize: MinVolumeSize - 1}); err == nil {
		t.Fatal("a cap below the least was taken")
	}
}

// noiseReader is a large blob that is made while it is read.
func noiseReader(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{7}), size)
}

// A blob of more than one segment, and flat memory.
func TestLargeBlob(t *testing.T) {
	const size = MaxSegment + 40<<20 + 3
	digest := artifact.Digest{}
	h := newHash(t, noiseReader(size))
	copy(digest[:], h)
	c := make(content)
	blobs := []Blob{c.add([]byte("a")), c.add([]byte("b")), {Digest: digest, Size: size}}
	open := func(d artifact.Digest) (io.ReadCloser, error) {
		if d == digest {
			return io.NopCloser(noiseReader(size)), nil
		}
		return c.open(d)
	}
	signer, key := testSigner(t, "exporter-a")
	m := newManifest(blobs...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := Seal(t.Context(), t.TempDir(), m, open, signer, SealOptions{VolumeSize: 30 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{content: c, sealed: s, trust: Trust{Keys: []TrustedKey{key}}}
	r := f.openBundle(t)
	if w, err := r.Check(t.Context(), nil); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
	src, err := r.Blob(t.Context(), Blob{Digest: digest})
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, src)
	if got := newHash(t, src); !bytes.Equal(got, digest[:]) {
		t.Fatalf("got %x", got)
	}
	runtime.ReadMemStats(&after)
	// All that was ever allocated, by sealing, checking and reading.
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d MiB allocated for a blob of %d MiB", n>>20, size>>20)
	}
	t.Logf("%d MiB allocated", (after.TotalAlloc-before.TotalAlloc)>>20)
	for _, b := range m.Blobs {
		if b.Digest == digest && (len(b.Segments) != 2 || b.Enc != EncNone) {
			t.Fatalf("blob %+v", b)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	signer, _ := testSigner(t, "exporter-a")
	wrong := errors.New("store damaged")
	for name, tc := range map[string]struct {
		spoil func(content, *Manifest) func(artifact.Digest) (io.ReadCloser, error)
		want  string
	}{
		"other bytes": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			c[m.Blobs[3].Digest] = noise(9, 5000)
			return c.open
		}, CodeBlob},
		"other text": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			c[m.Blobs[2].Digest] = prose(9, 6000)
			return c.open
		}, CodeBlob},
		"short": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			c[m.Blobs[3].Digest] = c[m.Blobs[3].Digest][:4000]
			return c.open
		}, CodeBlob},
		"long": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			c[m.Blobs[4].Digest] = append(c[m.Blobs[4].Digest], 0)
			return c.open
		}, CodeBlob},
		"absent": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			delete(c, m.Blobs[4].Digest)
			return c.open
		}, "file does not exist"},
		"error at the end": {func(c content, _ *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			return func(d artifact.Digest) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(c[d]), failing{wrong})), nil
			}
		}, "store damaged"},
		"blob twice": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			m.Blobs = append(m.Blobs, m.Blobs[0])
			return c.open
		}, "twice"},
		"snapshot lacks": {func(c content, m *Manifest) func(artifact.Digest) (io.ReadCloser, error) {
			m.Blobs = m.Blobs[1:]
			return c.open
		}, "neither carried nor required"},
	} {
		t.Run(name, func(t *testing.T) {
			c, m := smallContent()
			outbox := t.TempDir()
			_, err := seal(t.Context(), outbox, m, tc.spoil(c, m), signer, SealOptions{VolumeSize: small.volume}, small)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %s", err, tc.want)
			}
			entries, err := os.ReadDir(outbox)
			if err != nil || len(entries) != 0 {
				t.Fatalf("left behind: %v %v", entries, err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		c, m := smallContent()
		ctx, cancel := context.WithCancel(t.Context())
		outbox := t.TempDir()
		_, err := seal(ctx, outbox, m, func(d artifact.Digest) (io.ReadCloser, error) {
			cancel()
			return c.open(d)
		}, signer, SealOptions{VolumeSize: small.volume}, small)
		entries, dirErr := os.ReadDir(outbox)
		if !errors.Is(err, context.Canceled) || dirErr != nil || len(entries) != 0 {
			t.Fatalf("%v, left behind %v %v", err, entries, dirErr)
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCompressionPolicy(t *testing.T) {
	c, err := newCompressor()
	if err != nil {
		t.Fatal(err)
	}
	text := prose(1, 100_000)
	half := append(noise(1, 1<<20), make([]byte, 1<<20)...)
	for name, tc := range map[string]struct {
		head []byte
		want bool
	}{
		"text":        {text, true},
		"small text":  {text[:minCompress-1], false},
		"noise":       {noise(1, 100_000), false},
		"half":        {half, true},
		"gzip":        {append([]byte("\x1f\x8b\x08"), text...), false},
		"wheel":       {append([]byte("PK\x03\x04"), text...), false},
		"deb":         {append([]byte("!<arch>\ndebian-binary"), text...), false},
		"xz":          {append([]byte("\xfd7zXZ\x00"), text...), false},
		"zstd":        {append([]byte("\x28\xb5\x2f\xfd"), text...), false},
		"safetensors": {append([]byte("\x10\x02\x00\x00\x00\x00\x00\x00{\"w\":"), text...), false},
	} {
		if got := c.pays(tc.head); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestEmptyBundle(t *testing.T) {
	signer, key := testSigner(t, "exporter-a")
	snap := artifact.Sum([]byte("old"))
	m := &Manifest{
		Stream: "main", Seq: 2, Base: 1, Prev: artifact.Sum(nil).String(), Issued: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"),
		Sources:  []SourceRef{{Name: "pypi/main", Snapshot: snap}},
		Requires: []Require{{Seq: 1, Blobs: []artifact.Digest{snap}}},
	}
	s, err := Seal(t.Context(), t.TempDir(), m, content{}.open, signer, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{sealed: s, trust: Trust{Keys: []TrustedKey{key}}}
	r := f.openBundle(t)
	vols, err := r.Volumes()
	if err != nil || len(vols) != 0 {
		t.Fatal(vols, err)
	}
	if w, err := r.Check(t.Context(), nil); err != nil || len(w) != 0 {
		t.Fatal(w, err)
	}
}

// A blob that differs little from what the inside has is carried as the
// difference, and is unreadable without that.
func TestDictionary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	before := make([]byte, 600<<10)
	for i := range before {
		before[i] = byte(rnd.Uint32())
	}
	after := slices.Concat(before[:300<<10], []byte("something new"), before[300<<10:])
	old, cur := artifact.Sum(before), artifact.Sum(after)
	blobs := map[artifact.Digest][]byte{old: before, cur: after}
	read := func(d artifact.Digest, _ int64) ([]byte, error) { return blobs[d], nil }
	open := func(d artifact.Digest) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(blobs[d])), nil
	}
	m := valid()
	m.Seq, m.Base, m.Prev = 2, 1, digest("1").String()
	m.Sources = m.Sources[:1]
	m.Sources[0].Snapshot = cur
	m.Blobs = []Blob{{Digest: cur, Size: int64(len(after)), Dict: old.String()}}
	m.Requires = []Require{{Seq: 1, Blobs: []artifact.Digest{old}}}
	key, _ := testSigner(t, "exporter-a")
	out, err := Seal(t.Context(), t.TempDir(), m, open, key, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Blobs[0].StoredSize; got > 4<<10 {
		t.Fatalf("13 bytes of news take %d bytes", got)
	}
	r, err := Open(out.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	got, err := r.Unverified()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Blob(t.Context(), got.Blobs[0]); !errors.Is(err, artifact.ErrSequence) {
		t.Fatalf("without the dictionary: %v", err)
	}
	r.UseDictionaries(read)
	var b bytes.Buffer
	if err := r.Copy(t.Context(), got.Blobs[0], &b); err != nil || !bytes.Equal(b.Bytes(), after) {
		t.Fatalf("%d bytes, %v", b.Len(), err)
	}
	if w, err := r.Check(t.Context(), nil); err != nil || len(w) > 0 {
		t.Fatalf("check: %v %v", w, err)
	}
	r.UseDictionaries(func(artifact.Digest, int64) ([]byte, error) { return after[:5000], nil })
	if err := r.Copy(t.Context(), got.Blobs[0], io.Discard); !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("with another dictionary: %v", err)
	}
	// It must be required, and not carried.
	bad := *got
	bad.Requires = []Require{{Seq: 1, Blobs: []artifact.Digest{digest("x")}}}
	if err := bad.checkRequires(); err == nil {
		t.Fatal("a dictionary that is not required was accepted")
	}
}
