package bundle

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// verifying is a source that hashes what it gives, as the store does.
type verifying struct {
	src  io.Reader
	hash hash.Hash
}

func (v *verifying) Read(p []byte) (int, error) {
	n, err := v.src.Read(p)
	_, _ = v.hash.Write(p[:n])
	return n, err
}

func (*verifying) Close() error { return nil }

// endless repeats a block, from memory.
type endless struct {
	block []byte
	at    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.block[e.at:])
	e.at = (e.at + n) % len(e.block)
	return n, nil
}

// BenchmarkBundle seals and checks one large blob that does not shrink. The
// target is 0.6 GB/s for sealing and 0.7 GB/s for checking, disk permitting.
func BenchmarkBundle(b *testing.B) {
	const size = 2 << 30
	block := noise(1, 7<<20)
	source := func() io.ReadCloser {
		return &verifying{io.LimitReader(&endless{block: block}, size), sha256.New()}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(&endless{block: block}, size)); err != nil {
		b.Fatal(err)
	}
	big := artifact.Digest(h.Sum(nil))
	c := make(content)
	blobs := []Blob{c.add([]byte("a")), c.add([]byte("b")), {Digest: big, Size: size}}
	open := func(d artifact.Digest) (io.ReadCloser, error) {
		if d == big {
			return source(), nil
		}
		return io.NopCloser(bytes.NewReader(c[d])), nil
	}
	signer, key := testSigner(b, "exporter-a")
	b.Run("seal", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			_, err := Seal(b.Context(), b.TempDir(), newManifest(blobs...), open, signer, SealOptions{})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	sealed, err := Seal(b.Context(), b.TempDir(), newManifest(blobs...), open, signer, SealOptions{})
	if err != nil {
		b.Fatal(err)
	}
	f := &fixture{sealed: sealed, trust: Trust{Keys: []TrustedKey{key}}}
	b.Run("check", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := f.openBundle(b).Check(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := f.openBundle(b).Copy(b.Context(), Blob{Digest: big}, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
