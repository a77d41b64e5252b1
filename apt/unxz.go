package apt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"

	"github.com/mikelolasagasti/xz"
)

// smallDict is the dictionary that a control.tar.xz gets, whatever it asks for.
// Packages made with xz -9 ask for 64 MiB, two thirds of all the memory that
// an export may use, for a tar of a few KiB. A tar that really refers further
// back than this is refused as broken.
const smallDict = 16 << 20

// An unxz keeps one xz decoder for many small streams: each decoder brings the
// dictionary that its stream names, 8 MiB for a control file of 1 KiB.
type unxz struct {
	mu sync.Mutex
	x  *xz.Reader
}

// use runs f on the decompressed stream. It waits for its turn.
func (u *unxz) use(r io.Reader, limit int64, f func(io.Reader) error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	z, err := bound(r, limit, func(in io.Reader) (io.ReadCloser, error) {
		var err error
		if in, err = shrinkDict(in); err != nil {
			return nil, err
		}
		if u.x == nil {
			u.x, err = xz.NewReader(in, maxDict)
		} else {
			err = u.x.Reset(in)
		}
		return io.NopCloser(u.x), err
	})
	if err == nil {
		err = f(z)
	}
	if err != nil {
		u.x = nil // its state is not worth a thought
	}
	return err
}

// shrinkDict rewrites the header of an xz stream's first block so that it asks
// for smallDict at most. What is decoded stays under the stream's own checks.
// A header that is not of the usual kind (one LZMA2 filter) is left as it is.
func shrinkDict(r io.Reader) (_ io.Reader, err error) {
	const (
		streamHeader = 12
		lzma2        = 0x21
		dictByte     = 24 // smallDict as the format writes it
	)
	var head [streamHeader + 1]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return bytes.NewReader(head[:n]), nil // the decoder says what is wrong
		}
		return nil, err
	}
	block := make([]byte, 4*(int(head[streamHeader])+1))
	block[0] = head[streamHeader]
	n, err = io.ReadFull(r, block[1:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	rest := io.MultiReader(bytes.NewReader(head[:streamHeader]), bytes.NewReader(block[:1+n]), r)
	if err != nil || block[0] == 0 {
		return rest, nil
	}
	at := 2
	for _, flag := range []byte{0x40, 0x80} { // compressed size, plain size
		if block[1]&flag != 0 {
			for at < len(block)-1 && block[at]&0x80 != 0 {
				at++
			}
			at++
		}
	}
	if block[1]&3 != 0 || at+2 >= len(block)-4 || block[at] != lzma2 || block[at+1] != 1 || block[at+2] <= dictByte {
		return rest, nil
	}
	sum := block[len(block)-4:]
	if binary.LittleEndian.Uint32(sum) != crc32.ChecksumIEEE(block[:len(block)-4]) {
		return rest, nil
	}
	block[at+2] = dictByte
	binary.LittleEndian.PutUint32(sum, crc32.ChecksumIEEE(block[:len(block)-4]))
	return rest, nil
}
