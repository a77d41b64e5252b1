package bundle

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// forged is a bundle that an exporter signed although a blob in it is wrong:
// what a taken-over bastion could send. size and want are what it claims of
// the blob; stored are its segments.
func forge(t *testing.T, enc string, size int64, want artifact.Digest, stored ...[]byte) *fixture {
	t.Helper()
	c := make(content)
	m := newManifest(c.add([]byte("a")), c.add([]byte("b")))
	m.normalize()
	signer, key := testSigner(t, "exporter-a")
	blob := Blob{Digest: want, Size: size, Enc: enc}
	all := [][]byte{c[m.Blobs[0].Digest], c[m.Blobs[1].Digest]}
	for _, s := range stored {
		blob.StoredSize += int64(len(s))
		blob.Segments = append(blob.Segments, Segment{artifact.Sum(s), int64(len(s))})
		all = append(all, s)
	}
	for i := range m.Blobs {
		m.Blobs[i].Enc, m.Blobs[i].StoredSize = EncNone, m.Blobs[i].Size
	}
	m.Blobs = append(m.Blobs, blob)
	payload, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseManifest(payload); err != nil {
		t.Fatal(err)
	}
	// One volume without tar headers: the reader does not need them.
	index := volumeIndex{Bundle: artifact.Sum(payload), VolumeSize: 1}
	var vol bytes.Buffer
	for _, s := range all {
		index.Extents = append(index.Extents, []extent{{1, int64(vol.Len()), int64(len(s))}})
		vol.Write(s)
	}
	index.Volumes = []VolumeInfo{{volumeName(1), int64(vol.Len()), artifact.Sum(vol.Bytes())}}
	doc, err := index.encode()
	if err != nil {
		t.Fatal(err)
	}
	env, err := signEnvelope(payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{envelopeName: string(env), volumesName: string(doc), filepath.Join(volumesDir, volumeName(1)): vol.String()})
	return &fixture{content: c, m: m, sealed: &Sealed{Dir: dir, ID: index.Bundle}, trust: Trust{Keys: []TrustedKey{key}}}
}

func frame(t *testing.T, data io.Reader, o ...zstd.EOption) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, append(o, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// counter counts what reaches the importer's store.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestForgedBlobs(t *testing.T) {
	text := prose(1, 50_000)
	good := frame(t, bytes.NewReader(text))
	half := len(good) / 2
	bomb := frame(t, io.LimitReader(zeros{}, 1<<30))
	wide := frame(t, bytes.NewReader(noise(1, 3<<20)), zstd.WithWindowSize(64<<20))
	for name, tc := range map[string]struct {
		size   int64
		digest artifact.Digest
		stored [][]byte
		want   string
	}{
		"good":                 {50_000, artifact.Sum(text), [][]byte{good[:half], good[half:]}, ""},
		"bomb of 1 GiB":        {150_000, digest("x"), [][]byte{bomb}, "more than the signed size"},
		"a byte too long":      {49_999, artifact.Sum(text[:49_999]), [][]byte{good}, "more than the signed size"},
		"a byte too short":     {50_001, artifact.Sum(append(bytes.Clone(text), 0)), [][]byte{good}, "ends 1 bytes before its signed size"},
		"other bytes":          {50_000, digest("x"), [][]byte{good}, "the whole is not what was signed"},
		"no frame":             {50_000, artifact.Sum(text), [][]byte{text[:1000]}, "frame is broken"},
		"frame cut":            {50_000, artifact.Sum(text), [][]byte{good[:half]}, CodeBlob},
		"rubbish behind":       {50_000, artifact.Sum(text), [][]byte{good, []byte("rubbish")}, "frame is broken"},
		"second frame behind":  {50_000, artifact.Sum(text), [][]byte{good, good}, "more than the signed size"},
		"window of 64 MiB":     {3 << 20, artifact.Sum(noise(1, 3<<20)), [][]byte{wide}, "frame is broken"},
		"nothing, in a frame":  {0, artifact.Sum(nil), [][]byte{frame(t, strings.NewReader(""), zstd.WithZeroFrames(true))}, ""},
		"something in nothing": {0, artifact.Sum(nil), [][]byte{frame(t, strings.NewReader("x"))}, "more than the signed size"},
	} {
		t.Run(name, func(t *testing.T) {
			if int64(len(bytes.Join(tc.stored, nil))) > tc.size+tc.size/128+1024 {
				t.Fatalf("%d bytes stored for %d: the manifest would be refused", len(bytes.Join(tc.stored, nil)), tc.size)
			}
			f := forge(t, EncZstd, tc.size, tc.digest, tc.stored...)
			r := f.openBundle(t)
			var got counter
			err := r.Copy(t.Context(), r.m.Blobs[2], &got)
			_, checkErr := r.Check(t.Context(), nil)
			if got.n > tc.size {
				t.Fatalf("%d bytes came out of a blob of %d", got.n, tc.size)
			}
			if tc.want == "" {
				if err != nil || checkErr != nil {
					t.Fatal(err, checkErr)
				}
				return
			}
			for _, err := range []error{err, checkErr} {
				wantCode(t, err, CodeBlob)
				if !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("got %v, want %s", err, tc.want)
				}
			}
		})
	}
}

// B3: a compressed segment is not decompressed unless it is good, not even
// its beginning.
func TestNothingIsDecompressedBeforeItsDigest(t *testing.T) {
	text := prose(1, 50_000)
	good := frame(t, bytes.NewReader(text))
	f := forge(t, EncZstd, 50_000, artifact.Sum(text), good)
	path := filepath.Join(f.sealed.Dir, volumesDir, volumeName(1))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1 // the last byte of the only segment
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	r := f.openBundle(t)
	var got counter
	err = r.Copy(t.Context(), r.m.Blobs[2], &got)
	if c := codes(err); got.n != 0 || len(c) != 1 || c[0] != CodeSegment {
		t.Fatalf("%d bytes came out: %v", got.n, err)
	}
	_, err = r.Check(t.Context(), nil)
	if c := codes(err); len(c) != 1 || c[0] != CodeVolume {
		t.Fatalf("got %v", err)
	}
}

// Segments may be good while the whole is not.
func TestForgedLargeBlob(t *testing.T) {
	big := make([]byte, MaxSegment)
	f := forge(t, EncNone, MaxSegment+1, digest("x"), big, []byte{1})
	r := f.openBundle(t)
	err := r.Copy(t.Context(), r.m.Blobs[2], io.Discard)
	wantCode(t, err, CodeBlob)
	_, err = r.Check(t.Context(), nil)
	if c := codes(err); len(c) != 1 || c[0] != CodeBlob {
		t.Fatalf("got %v", err)
	}
}

// B11: a volumes.json that lies, with a good check of its own, makes segments
// fail and nothing else.
func TestLyingVolumesJSON(t *testing.T) {
	for name, lie := range map[string]func(*volumeIndex){
		"shifted":         func(v *volumeIndex) { v.Extents[0][0].Off-- },
		"into the header": func(v *volumeIndex) { v.Extents[0][0].Off = 0 },
		"other volume": func(v *volumeIndex) {
			for _, list := range slices.Backward(v.Extents) {
				if len(list) > 0 {
					list[len(list)-1].Vol = int64(len(v.Volumes))
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, _, f := smallIndex(t)
			if name == "other volume" {
				v.Volumes = append(v.Volumes, VolumeInfo{volumeName(len(v.Volumes) + 1), 4096, digest("x")})
				writeTree(t, f.sealed.Dir, map[string]string{filepath.Join(volumesDir, volumeName(len(v.Volumes))): strings.Repeat("x", 4096)})
			}
			lie(v)
			doc, err := v.encode()
			if err != nil {
				t.Fatal(err)
			}
			writeTree(t, f.sealed.Dir, map[string]string{volumesName: string(doc)})
			_, err = attempt(t, f, f.sealed.Dir)
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatal(err)
			}
			wantCode(t, err, CodeSegment)
		})
	}
}
