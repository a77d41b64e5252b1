package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"time"
)

// A blob is a file that is made while it is read.
type blob struct {
	parts  []part
	size   int64
	sha256 string
}

// A part is bytes, or size bytes of a key stream.
type part struct {
	data []byte
	key  []byte
	size int64
}

// noise is a part that does not compress.
func noise(seed, name string, size int64) part {
	key := sha256.Sum256([]byte(seed + "\x00" + name))
	return part{key: key[:aes.BlockSize], size: size}
}

// stream gives a part's key stream from offset off.
func (p part) stream(off int64) (cipher.Stream, error) {
	block, err := aes.NewCipher(p.key)
	if err != nil {
		return nil, err
	}
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off/aes.BlockSize)) //nolint:gosec // an offset is not negative
	s := cipher.NewCTR(block, iv[:])
	var skip [aes.BlockSize]byte
	s.XORKeyStream(skip[:off%aes.BlockSize], skip[:off%aes.BlockSize])
	return s, nil
}

// copyTo writes a part.
func (p part) copyTo(w io.Writer) error {
	if p.key == nil {
		_, err := w.Write(p.data)
		return err
	}
	s, err := p.stream(0)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for left := p.size; left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		clear(b)
		s.XORKeyStream(b, b)
		if _, err := w.Write(b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	return nil
}

// A builder gathers the parts of a blob and hashes them.
type builder struct {
	blob
	sum   hash.Hash
	known bool // what is written is a part that parts has already
}

func newBuilder() *builder { return &builder{sum: sha256.New()} }

// Write adds bytes.
func (b *builder) Write(p []byte) (int, error) {
	b.size += int64(len(p))
	if b.known {
		return b.sum.Write(p)
	}
	if n := len(b.parts); n > 0 && b.parts[n-1].key == nil {
		b.parts[n-1].data = append(b.parts[n-1].data, p...)
		b.parts[n-1].size += int64(len(p))
	} else {
		b.parts = append(b.parts, part{data: append([]byte{}, p...), size: int64(len(p))})
	}
	return b.sum.Write(p)
}

// begin adds noise whose bytes are written next: they are hashed, not kept.
func (b *builder) begin(p part) {
	b.parts = append(b.parts, p)
	b.known = true
}

func (b *builder) end() { b.known = false }

func (b *builder) done() *blob {
	b.sha256 = hex.EncodeToString(b.sum.Sum(nil))
	return &b.blob
}

// ServeHTTP answers with the blob or a range of it.
func (b *blob) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"`+b.sha256[:32]+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, &reader{b: b})
}

// A reader reads a blob from any offset.
type reader struct {
	b   *blob
	off int64
	at  int64         // where the stream stands
	s   cipher.Stream // of the part at off, if it is noise
}

// Seek moves; it does not read.
func (r *reader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.off
	case io.SeekEnd:
		off += r.b.size
	}
	if off < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.off = off
	return off, nil
}

// Read reads within one part.
func (r *reader) Read(p []byte) (int, error) {
	in := r.off
	for _, pt := range r.b.parts {
		if in >= pt.size {
			in -= pt.size
			continue
		}
		n := int(min(int64(len(p)), pt.size-in))
		if pt.key == nil {
			copy(p[:n], pt.data[in:])
		} else {
			if r.s == nil || r.at != r.off || in == 0 {
				s, err := pt.stream(in)
				if err != nil {
					return 0, err
				}
				r.s = s
			}
			clear(p[:n])
			r.s.XORKeyStream(p[:n], p[:n])
		}
		r.off += int64(n)
		r.at = r.off
		return n, nil
	}
	return 0, io.EOF
}
