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
		b = storedZip("a.zip", b, 0)
	}
	return string(b)
}

// eicar is the test file that every antivirus finds, put together so that
// this source is no finding itself.
func eicar() string {
	return "X5O!P%@AP[4" + `\PZX54(P^)7CC)7}$` + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*"
}

// encryptedZip is a zip archive whose entry says that it is encrypted.
func encryptedZip() string {
	return string(storedZip("a.txt", []byte("twelve bytes, and what they hide"), flagEncrypted))
}

// flagEncrypted is the bit of a zip entry that is encrypted.
const flagEncrypted = 1

// storedZip is a zip archive of one entry that is not compressed.
func storedZip(name string, body []byte, flags uint16) []byte {
	le := binary.LittleEndian
	sum, size, n := crc32.ChecksumIEEE(body), uint32(len(body)), uint16(len(name)) //nolint:gosec // a few kilobytes
	var out []byte
	out = le.AppendUint32(out, 0x04034b50)
	common := func() {
		out = le.AppendUint16(out, 20) // version needed
		out = le.AppendUint16(out, flags)
		out = append(out, 0, 0) // stored
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
