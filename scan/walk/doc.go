// Package walk opens archives, strictly and once, for every scanner: it hands
// on a blob, then whatever lies in it, in it, and so on, each file with its
// kind by content, its digest and its whole path.
//
// Formats: zip (APPNOTE.TXT 6.3.10 by package strictzip; wheels, jars, torch
// and NumPy files), tar (POSIX pax and ustar, GNU, v7), ar (deb(5), GNU and
// BSD), 7z, and one compressed stream of gzip (RFC 1952), bzip2, xz, zstd (RFC
// 8878) or LZ4. A zip archive behind other bytes is found too, as Python, Java
// and self-extracting programs would find it. Anything else is a file.
//
// Invariants:
//   - Every byte of an archive is accounted for: what lies before, between or
//     behind entries is a [Problem], as is what two readers may read in two
//     ways. What could be read is visited all the same.
//   - Nothing is left out in silence: what was not looked at is a problem with
//     NotScanned.
//   - What is decompressed is decompressed once, bounded while it is, and kept
//     in memory or in a file without a name; what is not compressed is read
//     where it lies. Nothing gets a name in a file system, and no link or
//     device is made.
//   - A layer of a file system, and the trees of a .deb, may have what file
//     systems have; see [Options]. In archives that lie in one, defects are
//     "low": distributions carry archives that are broken on purpose.
//   - The same bytes, name and options give the same files, in the same order,
//     and the same problems.
//
// Limits: see [Limits] and [DefaultLimits]. The ratio is measured while a
// stream is unpacked, against the stream's own packed size and, for all
// streams together, against the blob's. Memory stays under 256 MiB whatever
// comes: a decompressor has up to 64 MiB, one at a time; archives that are
// open at once hold up to 64 MiB of directories and dictionaries together,
// beyond the entries that [Limits] allows; an entry is in memory up to
// [Options].Memory.
//
// The codes of problems stand in codes.go.
package walk
