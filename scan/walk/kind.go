package walk

import (
	"bytes"
	"encoding/binary"
	"io"
	"unicode/utf8"
)

// headSize is how much of a file its kind is told by, tailSize how much of its
// end is searched for the end record of a zip archive: the record with the
// longest comment.
const (
	headSize = 4 << 10
	tailSize = 22 + 0xffff
)

// magics are beginnings that say enough. Pickles, tar archives, and what needs
// a second look have functions of their own.
var magics = []struct {
	magic string
	kind  Kind
}{
	{"PK\x03\x04", Zip},
	{"PK\x05\x06", Zip},           // without entries
	{"PK\x07\x08PK\x03\x04", Zip}, // once split
	{"PK00PK\x03\x04", Zip},       // was to be split
	{"\x1f\x8b\x08", Gzip},
	{"\xfd7zXZ\x00", XZ},
	{"\x28\xb5\x2f\xfd", Zstd},
	{"\x04\x22\x4d\x18", LZ4},
	{"\x02\x21\x4c\x18", LZ4}, // the form of the Linux kernel
	{"7z\xbc\xaf\x27\x1c", SevenZip},
	{"!<arch>\n", Ar},
	{"\x7fELF", ELF},
	{"\xfe\xed\xfa\xce", MachO},
	{"\xfe\xed\xfa\xcf", MachO},
	{"\xce\xfa\xed\xfe", MachO},
	{"\xcf\xfa\xed\xfe", MachO},
	{"GGUF", GGUF},
	{"\x93NUMPY", NPY},
	{"\x89HDF\r\n\x1a\n", HDF5},
	{"%PDF-", PDF},
	{"\x89PNG\r\n\x1a\n", Image},
	{"\xff\xd8\xff", Image},
	{"GIF87a", Image},
	{"GIF89a", Image},
	{"II*\x00", Image},
	{"MM\x00*", Image},
	{"OggS", Media},
	{"fLaC", Media},
	{"ID3", Media},
	{"\x1a\x45\xdf\xa3", Media},
	{"wOFF", Media},
	{"wOF2", Media},
	{"OTTO", Media},
	{"ttcf", Media},
	{"SQLite format 3\x00", Database},
	{"\x00asm\x01\x00\x00\x00", Wasm},
	{"#!", Script},
}

// sniff says what a file is by its head, the first headSize bytes or all.
func sniff(head []byte, r io.ReaderAt, size int64) Kind {
	if len(head) == 0 {
		return Empty
	}
	for _, m := range magics {
		if len(head) >= len(m.magic) && string(head[:len(m.magic)]) == m.magic {
			return m.kind
		}
	}
	if k := second(head, r, size); k != "" {
		return k
	}
	switch {
	case isTar(head):
		return Tar
	case isPickle(head):
		return Pickle
	}
	return textOr(head, size)
}

// second tells kinds whose beginning alone is not enough.
func second(head []byte, r io.ReaderAt, size int64) Kind {
	at := func(off int, s string) bool { return len(head) >= off+len(s) && string(head[off:off+len(s)]) == s }
	le := binary.LittleEndian
	switch {
	case at(0, "BZh") && len(head) >= 10 && head[3] >= '1' && head[3] <= '9' && (at(4, "1AY&SY") || at(4, "\x17\x72\x45\x38\x50\x90")):
		return Bzip2
	case at(1, "\x2a\x4d\x18") && head[0]&0xf0 == 0x50:
		return behindSkippable(r, size)
	case at(0, "MZ") && len(head) >= 64 && bytes.IndexByte(head[:64], 0) >= 0:
		return PE
	case at(0, "\xca\xfe\xba\xbe") && len(head) >= 8:
		// A Java class has its version there, 45 or more; a universal binary
		// the number of its architectures.
		if binary.BigEndian.Uint32(head[4:])&0xffff >= 45 {
			return Class
		}
		return MachO
	case at(0, "RIFF") && at(8, "WEBP"), at(0, "BM") && len(head) >= 6 && int64(le.Uint32(head[2:])) == size,
		at(0, "\x00\x00\x01\x00") && len(head) >= 22 && le.Uint16(head[4:]) > 0 && le.Uint16(head[4:]) < 256 && head[9] == 0:
		return Image
	case at(0, "RIFF") && (at(8, "WAVE") || at(8, "AVI ")), at(4, "ftyp"), at(0, "\x00\x01\x00\x00") && len(head) >= 12 && head[4] == 0 && head[5] > 0 && head[5] < 64:
		return Media
	case at(2, "\r\n") && le.Uint16(head) >= 3000 && le.Uint16(head) < 4000 && len(head) >= 16,
		at(2, "\r\n") && le.Uint16(head) >= 20000 && le.Uint16(head) < 63000 && len(head) >= 8 && !isText(head):
		return PYC
	case len(head) > 8 && head[8] == '{':
		// The length of the header, which starts with a brace.
		if n := le.Uint64(head); n >= 2 && n <= 1<<32 && int64(n) <= size-8 { // bounded just before
			return Safetensors
		}
	}
	return ""
}

// behindSkippable looks past the skippable frames with which a zstd or lz4
// stream may start.
func behindSkippable(r io.ReaderAt, size int64) Kind {
	const most = 16
	var b [8]byte
	off := int64(0)
	for range most {
		if off+4 > size {
			break
		}
		if n, _ := r.ReadAt(b[:min(8, size-off)], off); n < 4 { // errors are seen by who reads all
			break
		}
		switch magic := binary.LittleEndian.Uint32(b[:]); {
		case magic == 0xfd2fb528:
			return Zstd
		case magic == 0x184d2204:
			return LZ4
		case magic&^0xf != 0x184d2a50:
			return Data
		}
		off += 8 + int64(binary.LittleEndian.Uint32(b[4:]))
	}
	return Data
}

// isTar tells a tar archive by the magic of its first header, or, where there
// is none as in the v7 format, by its checksum.
func isTar(head []byte) bool {
	const (
		block  = 512
		sumAt  = 148
		magic  = 257
		sumLen = 8
	)
	if len(head) < block {
		return false
	}
	if string(head[magic:magic+5]) == "ustar" {
		return true
	}
	want, ok := octal(head[sumAt : sumAt+sumLen])
	if !ok || want == 0 || head[0] == 0 {
		return false
	}
	if _, ok := octal(head[124:136]); !ok { // size
		return false
	}
	var unsigned, signed int64
	for i, c := range head[:block] {
		if i >= sumAt && i < sumAt+sumLen {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c)) // as old writers did
	}
	return want == unsigned || want == signed
}

// octal reads a number as tar headers hold it.
func octal(b []byte) (int64, bool) {
	b = bytes.Trim(b, " \x00")
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

// textOr tells text, JSON and data apart.
func textOr(head []byte, size int64) Kind {
	if len(head) >= 2 && (head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff) && size%2 == 0 {
		return Text // UTF-16
	}
	if !isText(head) {
		return Data
	}
	rest := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	if len(rest) > 0 && (rest[0] == '{' || rest[0] == '[') {
		return JSON
	}
	return Text
}

// textBytes are those that texts have: no control characters but the usual.
var textBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != 0x7f
	}
	for _, c := range "\n\r\t\f\v\b\x1b" {
		t[c] = true
	}
	return t
}()

// isText reports whether the bytes are text, in UTF-8 or an older encoding.
func isText(head []byte) bool {
	high := 0
	for _, c := range head {
		if !textBytes[c] {
			return false
		}
		high += int(c >> 7)
	}
	if high == 0 {
		return true
	}
	for cut := range min(utf8.UTFMax, len(head)) { // the head may end within a character
		if utf8.Valid(head[:len(head)-cut]) {
			return true
		}
	}
	// Latin letters stand among many of ASCII; packed data has as many of
	// one as of the other.
	return high*4 < len(head)
}
