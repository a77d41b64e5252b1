package clamav

import (
	"encoding/binary"
	"hash/crc32"
)

// nesting is deeper than ClamAV goes: its MaxRecursion is 17 and may be set up
// to 100 in its configuration, which nobody does.
const nesting = 110

// nestedZips is a zip in a zip and so on, a few kilobytes: the cheapest file
// that exceeds a limit of ClamAV, to see whether it says so.
func nestedZips(depth int) string {
	b := []byte("in the innermost")
	for range depth {
		b = storedZip("a.zip", b)
	}
	return string(b)
}

// storedZip is a zip archive of one entry that is not compressed.
func storedZip(name string, body []byte) []byte {
	le := binary.LittleEndian
	sum, size, n := crc32.ChecksumIEEE(body), uint32(len(body)), uint16(len(name)) //nolint:gosec // a few kilobytes
	var out []byte
	out = le.AppendUint32(out, 0x04034b50)
	common := func() {
		out = le.AppendUint16(out, 20) // version needed
		out = append(out, 0, 0, 0, 0)  // no flags, stored
		out = append(out, 0, 0, 0x21, 0)
		out = le.AppendUint32(out, sum)
		out = le.AppendUint32(out, size)
		out = le.AppendUint32(out, size)
		out = le.AppendUint16(out, n)
		out = append(out, 0, 0) // no extra field
	}
	common()
	out = append(append(out, name...), body...)
	directory := uint32(len(out)) //nolint:gosec // as above
	out = le.AppendUint32(out, 0x02014b50)
	out = append(out, 20, 0) // made by
	common()
	out = append(out, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // no comment, first disk, no attributes
	out = le.AppendUint32(out, 0)                   // of the local header
	out = append(out, name...)
	length := uint32(len(out)) - directory //nolint:gosec // as above
	out = le.AppendUint32(out, 0x06054b50)
	out = append(out, 0, 0, 0, 0, 1, 0, 1, 0)
	out = le.AppendUint32(out, length)
	out = le.AppendUint32(out, directory)
	return append(out, 0, 0)
}
