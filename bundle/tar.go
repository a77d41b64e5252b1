package bundle

import (
	"fmt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	tarBlock = 512
	// tarEnd is the end of an archive: two zero blocks.
	tarEnd = 2 * tarBlock
)

// entryName is the name of a tar entry. seg and part count from 1; 0 means
// that the blob has no list of segments, or that the segment is whole. It has
// at most 100 bytes, which ustar holds without a prefix, up to 100,000
// segments of 10,000 parts.
func entryName(d artifact.Digest, seg, part int) string {
	name := "blobs/sha256/" + d.Hex()
	if seg > 0 {
		name += fmt.Sprintf(".seg-%04d", seg)
	}
	if part > 0 {
		name += fmt.Sprintf(".part-%04d", part)
	}
	return name
}

// tarHeader is the only header that a volume holds for an entry: a fixed
// function of name and size. archive/tar would give the same bytes today; a
// verifier compares them for ever, so they are made here.
func tarHeader(name string, size int64) [tarBlock]byte {
	var h [tarBlock]byte
	copy(h[0:100], name)
	copy(h[100:], "0000644\x00")                  // mode
	copy(h[108:], "0000000\x00")                  // uid
	copy(h[116:], "0000000\x00")                  // gid
	copy(h[124:], fmt.Sprintf("%011o\x00", size)) // segments are far below 8 GiB
	copy(h[136:], "00000000000\x00")              // mtime
	copy(h[148:], "        ")                     // checksum counts as spaces
	h[156] = '0'                                  // regular file
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000\x00") // device numbers, as other tars write them
	copy(h[337:], "0000000\x00")
	var sum int64
	for _, c := range h {
		sum += int64(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// tarPad is the length of the zeros after so many bytes of data.
func tarPad(n int64) int64 { return -n & (tarBlock - 1) }
