package walk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const (
	sevenStart = 32
	// maxSevenHeader bounds the header: 65,536 files with names of 100 bytes.
	maxSevenHeader = 16 << 20
	// maxSevenFiles bounds the files of one 7z archive, of which the library
	// keeps 400 bytes each.
	maxSevenFiles = 1 << 16
	// maxSevenWork bounds files times folders: the library looks for a file's
	// folder from the first one.
	maxSevenWork  = 1 << 28
	maxCoders     = 8
	maxCoderPorts = 8
)

// Properties of a 7z header, as 7zFormat.txt names them.
const (
	sevenEnd            = 0x00
	sevenHeader         = 0x01
	sevenMainStreams    = 0x04
	sevenFilesInfo      = 0x05
	sevenPackInfo       = 0x06
	sevenUnpackInfo     = 0x07
	sevenSubStreams     = 0x08
	sevenSize           = 0x09
	sevenCRC            = 0x0a
	sevenFolder         = 0x0b
	sevenUnpackSize     = 0x0c
	sevenNumStreams     = 0x0d
	sevenEmptyStream    = 0x0e
	sevenEmptyFile      = 0x0f
	sevenNames          = 0x11
	sevenCTime          = 0x12
	sevenATime          = 0x13
	sevenMTime          = 0x14
	sevenAttributes     = 0x15
	sevenEncodedHeader  = 0x17
	sevenDummy          = 0x19
	methodCopy          = "\x00"
	methodLZMA          = "\x03\x01\x01"
	methodLZMA2         = "\x21"
	methodDelta         = "\x03"
	methodBCJ           = "\x03\x03\x01\x03"
	methodBCJ2          = "\x03\x03\x01\x1b"
	methodPPC           = "\x03\x03\x02\x05"
	methodARM           = "\x03\x03\x05\x01"
	methodSPARC         = "\x03\x03\x08\x05"
	methodDeflate       = "\x04\x01\x08"
	methodBzip2         = "\x04\x02\x02"
	methodAES           = "\x06\xf1\x07\x01"
	bzip2Memory         = 4 << 20
	smallCoderMemory    = 1 << 18
	sevenBadCountFormat = "7z: a count of %d where %d bytes are left"
)

// A sevenFolderInfo is one stream of packed files.
type sevenFolderInfo struct {
	coders    []sevenCoder
	ports     int // packed streams
	packed    int64
	sizes     []uint64 // unpacked, of each coder
	main      int      // the coder that gives the files
	streams   uint64   // files
	memory    int64
	encrypted bool
	unknown   bool // a method that is not read
}

type sevenCoder struct {
	method     string
	in, out    int
	properties []byte
}

// A sevenInfo is what a header tells of an archive, every count checked. It
// is read here before the library reads it, which allocates whatever is
// declared.
type sevenInfo struct {
	folders []sevenFolderInfo
	files   int
	sizes   []uint64 // of the packed streams
	packAt  uint64
	stop    int64 // where the archive ends
}

// readSeven reads the header of a 7z archive. held is the memory that may be
// used for dictionaries.
func readSeven(f *File, held int64) (*sevenInfo, error) {
	b := make([]byte, sevenStart)
	if f.Size < sevenStart {
		return nil, malformed("7z: ends early")
	}
	if _, err := io.ReadFull(f.Reader(), b); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if crc32.ChecksumIEEE(b[12:]) != le.Uint32(b[8:]) {
		return nil, malformed("7z: the checksum of the start header is wrong")
	}
	off, size := le.Uint64(b[12:]), le.Uint64(b[20:])
	left := uint64(f.Size - sevenStart) // not negative, as checked above
	switch {
	case off > left || size > left-off:
		return nil, malformed("7z: the header lies behind the end")
	case size > maxSevenHeader:
		return nil, &flaw{code: CodeSize, notScanned: true, text: "7z: a header of more than 16 MiB"}
	case size == 0:
		return &sevenInfo{stop: sevenStart}, nil
	}
	h := make([]byte, size)
	if n, err := f.content.ReadAt(h, sevenStart+int64(off)); n < len(h) { //nolint:gosec // at most left
		return nil, err
	}
	if crc32.ChecksumIEEE(h) != le.Uint32(b[28:]) {
		return nil, malformed("7z: the checksum of the header is wrong")
	}
	if h[0] == sevenEncodedHeader {
		var err error
		if h, err = decodeHeader(f, h[1:], int64(off), held); err != nil { //nolint:gosec // at most left
			return nil, err
		}
	}
	if len(h) == 0 || h[0] != sevenHeader {
		return nil, malformed("7z: no header")
	}
	d := &sevenParser{b: h[1:], end: off}
	info := d.header()
	if d.err == nil && len(d.b) > 0 {
		d.fail("7z: data behind the header")
	}
	if d.err != nil {
		return nil, d.err
	}
	info.stop = sevenStart + int64(off+size) //nolint:gosec // at most left
	return info, nil
}

// decodeHeader unpacks a packed header, by the methods that writers use for
// it.
func decodeHeader(f *File, b []byte, end, held int64) ([]byte, error) {
	d := &sevenParser{b: b, end: uint64(end)} //nolint:gosec // not negative
	info := d.streams()
	if d.err != nil {
		return nil, d.err
	}
	if len(d.b) > 0 || len(info.folders) != 1 {
		return nil, malformed("7z: a packed header of %d parts", len(info.folders))
	}
	fo := &info.folders[0]
	c := fo.coders[0]
	size := fo.sizes[fo.main]
	switch {
	case fo.encrypted:
		return nil, &flaw{code: CodeEncrypted, notScanned: true, text: "7z: the header is encrypted"}
	case len(fo.coders) != 1 || c.method != methodLZMA && c.method != methodLZMA2 && c.method != methodCopy:
		return nil, &flaw{code: CodeMethod, notScanned: true, text: "7z: the header is packed by an unknown method"}
	case size > maxSevenHeader || fo.memory > held:
		return nil, &flaw{code: CodeSize, notScanned: true, text: "7z: the header needs too much memory to unpack"}
	}
	var r io.Reader = io.NewSectionReader(f.content, sevenStart+int64(info.packAt), fo.packed) //nolint:gosec // at most end
	var err error
	switch c.method {
	case methodLZMA:
		head := binary.LittleEndian.AppendUint64(bytes.Clone(c.properties), size)
		r, err = lzma.ReaderConfig{DictCap: maxHeld}.NewReader(io.MultiReader(bytes.NewReader(head), r))
	case methodLZMA2:
		r, err = lzma.Reader2Config{DictCap: int(max(fo.memory, lzma.MinDictCap))}.NewReader2(r)
	}
	if err != nil {
		return nil, malformed("7z: packed header: %v", err)
	}
	h := make([]byte, size)
	if _, err := io.ReadFull(r, h); err != nil {
		return nil, malformed("7z: packed header: %v", err)
	}
	return h, nil
}

// A sevenParser reads a header. The first error stays; everything read
// behind it is zero.
type sevenParser struct {
	b   []byte
	end uint64 // where the packed streams end at the latest
	err error
}

func (d *sevenParser) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.b = nil
}

func (d *sevenParser) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail("7z: the header ends early")
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *sevenParser) byte() byte {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return sevenEnd
}

// number reads a number of variable length.
func (d *sevenParser) number() uint64 {
	first := d.byte()
	var v uint64
	mask := byte(0x80)
	for i := range 8 {
		if first&mask == 0 {
			return v | uint64(first&(mask-1))<<(8*i)
		}
		v |= uint64(d.byte()) << (8 * i)
		mask >>= 1
	}
	return v
}

// count reads a number of things that take a byte each at least.
func (d *sevenParser) count() int {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.fail(sevenBadCountFormat, n, len(d.b))
		return 0
	}
	return int(n) //nolint:gosec // bounded just above
}

func (d *sevenParser) expect(id byte, what string) bool {
	if got := d.byte(); d.err == nil && got != id {
		d.fail("7z: property %#x where %s is expected", got, what)
	}
	return d.err == nil
}

// bits passes over n bits and counts those that are set.
func (d *sevenParser) bits(n int) []bool {
	b := d.take(uint64(n+7) / 8) //nolint:gosec // not negative
	if d.err != nil {
		return make([]bool, n)
	}
	set := make([]bool, n)
	for i := range set {
		set[i] = b[i/8]&(0x80>>(i%8)) != 0
	}
	return set
}

// defined passes over values of so many bytes each, of which some may be left
// out.
func (d *sevenParser) defined(n, size int, external bool) {
	set := n
	if d.byte() == 0 {
		set = 0
		for _, ok := range d.bits(n) {
			if ok {
				set++
			}
		}
	}
	if external && d.byte() != 0 {
		d.fail("7z: properties outside of the header")
	}
	d.take(uint64(set) * uint64(size)) //nolint:gosec // not negative
}
