package bundle

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A toy stands in for age, which this package does not import, and has its
// shape: a header that names recipients, chunks sealed under their number, the
// last one marked and read first. The same salt gives the same bytes.
type toy struct {
	salt byte
	to   []string
	// decrypted counts the files that were opened, pointed to by all copies.
	decrypted *int
}

const (
	toyChunk = 4096
	toySeal  = 16
	toyName  = 8
)

func newToy(salt byte, to ...string) toy { return toy{salt, to, new(int)} }

// Recipients of a toy are names of eight characters.
func (y toy) Recipients() []string { return slices.Clone(y.to) }

func (y toy) header() []byte {
	h := []byte{'t', 'o', 'y', y.salt, byte(len(y.to))}
	for _, name := range y.to {
		h = append(h, name[:toyName]...)
	}
	return h
}

func toyAEAD(header []byte) cipher.AEAD {
	key := artifact.Sum(header)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

func toyNonce(n int64, last bool) []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint64(nonce, uint64(n))
	if last {
		nonce[11] = 1
	}
	return nonce
}

type toyWriter struct {
	dst io.Writer
	a   cipher.AEAD
	buf []byte
	n   int64
}

func (y toy) Encrypt(dst io.Writer) (io.WriteCloser, error) {
	h := y.header()
	_, err := dst.Write(h)
	return &toyWriter{dst: dst, a: toyAEAD(h)}, err
}

func (w *toyWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	for len(w.buf) > toyChunk {
		if err := w.flush(w.buf[:toyChunk], false); err != nil {
			return 0, err
		}
		w.buf = w.buf[toyChunk:]
	}
	return len(p), nil
}

func (w *toyWriter) Close() error { return w.flush(w.buf, true) }

func (w *toyWriter) flush(p []byte, last bool) error {
	_, err := w.dst.Write(w.a.Seal(nil, toyNonce(w.n, last), p, nil))
	w.n++
	return err
}

// seal encrypts a whole file.
func (y toy) seal(data []byte) []byte {
	var out bytes.Buffer
	w, err := y.Encrypt(&out)
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return out.Bytes()
}

type toyReader struct {
	src    io.ReaderAt
	a      cipher.AEAD
	start  int64
	sealed int64
	size   int64
	chunks int64
	at     int64
	cached []byte
}

// Decrypt reads the header byte by byte, so that a buffer behind it is not
// what makes a test pass.
func (y toy) Decrypt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	*y.decrypted++
	h := make([]byte, 5)
	if _, err := src.ReadAt(h, 0); err != nil {
		return nil, 0, err
	}
	names := make([]byte, toyName*int(h[4]))
	if err := readFullAt(src, names, 5); err != nil {
		return nil, 0, err
	}
	mine := false
	for name := range slices.Chunk(names, toyName) {
		mine = mine || slices.Contains(y.to, string(name))
	}
	if !bytes.Equal(h[:3], []byte("toy")) {
		return nil, 0, errors.New("no toy")
	}
	if !mine {
		return nil, 0, fmt.Errorf("%w, tried %v", ErrNoIdentity, y.to)
	}
	h = append(h, names...)
	r := &toyReader{src: src, a: toyAEAD(h), start: int64(len(h)), sealed: size - int64(len(h)), at: -1}
	r.chunks = (r.sealed + toyChunk + toySeal - 1) / (toyChunk + toySeal)
	r.size = r.sealed - r.chunks*toySeal
	if r.size < 0 {
		return nil, 0, errors.New("cut short")
	}
	_, err := r.chunk(r.chunks - 1)
	return r, r.size, err
}

func (r *toyReader) chunk(n int64) ([]byte, error) {
	if n == r.at {
		return r.cached, nil
	}
	off := n * (toyChunk + toySeal)
	p := make([]byte, min(toyChunk+toySeal, r.sealed-off))
	if err := readFullAt(r.src, p, r.start+off); err != nil {
		return nil, err
	}
	p, err := r.a.Open(nil, toyNonce(n, n == r.chunks-1), p, nil)
	if err != nil {
		return nil, fmt.Errorf("chunk %d: %w", n, err)
	}
	r.at, r.cached = n, p
	return p, nil
}

func (r *toyReader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < r.size {
		c, err := r.chunk(off / toyChunk)
		if err != nil {
			return n, err
		}
		m := copy(p[n:], c[off%toyChunk:])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
