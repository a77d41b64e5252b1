package diode

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

// mapHeader is the length of what stands before the bits.
const mapHeader = 64

var mapMagic = []byte{'D', 'K', 'M', 'B', 1, 0, 0, 0}

// mapSize is the size of a live map: all rows that can exist.
func mapSize(g geometry) int { return mapHeader + (allRows*g.columns+7)/8 }

// putMapHeader names what the map belongs to.
func putMapHeader(p []byte, id objectID, n int, g geometry) {
	clear(p[:mapHeader])
	copy(p, mapMagic)
	copy(p[8:], id[:])
	binary.BigEndian.PutUint32(p[24:], uint32(n))
	binary.BigEndian.PutUint16(p[28:], uint16(g.k))
	binary.BigEndian.PutUint16(p[30:], uint16(g.payload))
	binary.BigEndian.PutUint32(p[32:], uint32(g.columns))
}

// checkMap accepts the bytes of a live map of this generation, and of a saved
// one with its digest.
func checkMap(p []byte, id objectID, n int, g geometry, saved bool) error {
	want := mapSize(g)
	if saved {
		want += sha256.Size
	}
	if len(p) != want {
		return fmt.Errorf("bitmap of generation %d: %d bytes, want %d", n, len(p), want)
	}
	var h [mapHeader]byte
	putMapHeader(h[:], id, n, g)
	if !bytes.Equal(h[:], p[:mapHeader]) {
		return fmt.Errorf("bitmap of generation %d belongs to something else", n)
	}
	if saved {
		body := p[:len(p)-sha256.Size]
		if sum := sha256.Sum256(body); !bytes.Equal(sum[:], p[len(body):]) {
			return fmt.Errorf("bitmap of generation %d: %w", n, ErrDigest)
		}
	}
	return nil
}

// setRange sets count bits from bit on.
func setRange(p []byte, bit, count int) {
	for count > 0 && bit&7 != 0 {
		p[bit>>3] |= 1 << (bit & 7)
		bit++
		count--
	}
	for ; count >= 8; count -= 8 {
		p[bit>>3] = 0xff
		bit += 8
	}
	for ; count > 0; count-- {
		p[bit>>3] |= 1 << (bit & 7)
		bit++
	}
}

func bitSet(p []byte, bit int) bool { return p[bit>>3]&(1<<(bit&7)) != 0 }

// ones counts the bits set before bit end.
func ones(p []byte, end int) int {
	n := 0
	for _, b := range p[:end>>3] {
		n += bits.OnesCount8(b)
	}
	if end&7 != 0 {
		n += bits.OnesCount8(p[end>>3] & (1<<(end&7) - 1))
	}
	return n
}

// openMap maps a live map into memory, making the file if it is not there or
// is not what it should be. The pages are the kernel's: a killed process
// loses nothing.
func openMap(root *os.Root, name string, id objectID, n int, g geometry) (_ []byte, err error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size := int64(mapSize(g))
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != size {
		// A kill between the two leaves zeros, which say nothing.
		if err := errors.Join(f.Truncate(0), f.Truncate(size)); err != nil {
			return nil, err
		}
		// The pages are wanted now: a full disk must be an error here and not
		// a fault later.
		if err := allocate(f, size); err != nil {
			return nil, err
		}
	}
	p, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	if checkMap(p, id, n, g, false) != nil {
		clear(p)
		putMapHeader(p, id, n, g)
	}
	return p, nil
}

// allocate makes room for size bytes. A file system that cannot promise is
// asked no more.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return f.Truncate(size)
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			return fmt.Errorf("%w: %d bytes for %s", ErrSpace, size, f.Name())
		}
		return fmt.Errorf("make room for %s: %w", f.Name(), err)
	}
}
