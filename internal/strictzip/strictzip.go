// Package strictzip reads ZIP archives that can be read in one way only.
//
// Specification: APPNOTE.TXT 6.3.10 of PKWARE, without encryption, patches,
// splitting and every compression but stored (0) and deflated (8).
//
// Invariants of an archive that [Open] accepts with zero [Options]:
//   - The end record lies at the very end, the central directory right before
//     it, and the local entries fill everything before that without gap or
//     overlap.
//   - Local headers say the same as the directory; there are no data
//     descriptors and no second names.
//   - Names are relative UTF-8 without . and .. parts, unique even where
//     letter case does not count, and no file is a folder too.
//   - There are no links and no special files.
//   - What a [Reader] gives has the length and checksum of the directory.
//
// Two programs then cannot see different files in it. Options allow what
// archives other than wheels have. Whatever they allow, entries never overlap
// and sizes, checksums and local headers agree.
//
// Limits: see [Limits] and the constants.
package strictzip

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
)

// Limits that are zero in [Options].
const (
	// MaxEntries bounds the files of an archive. The largest wheels known
	// (accelerator libraries) have about 20,000.
	MaxEntries = 200_000
	// MaxDirectory bounds the central directory: MaxEntries with long names.
	MaxDirectory = 64 << 20
	// MaxUnpacked bounds what an archive unpacks to. The largest wheels are
	// about 4 GiB packed.
	MaxUnpacked = 64 << 30
	// BombSize and BombRatio are the index's own rule for what is a bomb.
	BombSize  = 64 << 20
	BombRatio = 50
	// MaxName bounds one name; longer paths fail on common systems.
	MaxName = 1024
)

// Limits of an archive. Zero values are the constants.
type Limits struct {
	Entries   int64
	Directory int64 // bytes of the central directory
	Unpacked  int64 // bytes that the directory declares in all
	Ratio     int64 // of declared to packed bytes, above BombSize
}

// Options say what an archive may have beyond what a wheel may.
type Options struct {
	// Descriptors allows data descriptors behind entries (flag bit 3), which
	// must agree with the directory.
	Descriptors bool
	// Comment allows a comment at the end that does not look like an end
	// record itself.
	Comment bool
	// Empty allows an archive without entries.
	Empty  bool
	Limits Limits
	// Report, if not nil, is told of every defect that leaves the archive
	// readable by its directory; the archive is then accepted with it. Data
	// before the archive, between entries and behind the end, names, links,
	// and entries that cannot be read are such defects.
	Report func(*Defect)
}

// A Kind is what is wrong with an archive.
type Kind string

// Kinds of defects.
const (
	Malformed    Kind = "malformed"
	Gap          Kind = "gap"       // data between the entries
	Prefix       Kind = "prefix"    // data before the first
	Trailing     Kind = "trailing"  // data behind the end
	Path         Kind = "path"      // a name that could leave the folder or is read differently
	Duplicate    Kind = "duplicate" // one name twice, or a file that is a folder too
	Collision    Kind = "collision" // names that only letter case tells apart
	Link         Kind = "link"      // a symbolic link
	Device       Kind = "device"    // a special file
	Encrypted    Kind = "encrypted"
	Method       Kind = "method"   // a compression that is not read
	Checksum     Kind = "checksum" // content of another length or checksum
	TooMany      Kind = "too many" // entries, or a directory too large
	TooLarge     Kind = "too large"
	TooEffective Kind = "bomb"
)

// A Defect is why an archive is refused. Other errors of this package are the
// reader's own.
type Defect struct {
	Kind Kind
	Name string // of the entry, clipped; "" for the archive as a whole
	Text string
}

// Error is the text, with the name of the entry.
func (d *Defect) Error() string {
	if d.Name == "" {
		return d.Text
	}
	return fmt.Sprintf("%q: %s", d.Name, d.Text)
}

func defect(k Kind, format string, args ...any) *Defect {
	return &Defect{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// An Entry is one file of an archive.
type Entry struct {
	Name   string
	Mode   fs.FileMode // 0 if the archive does not tell
	Size   int64
	Packed int64
	CRC    uint32
	Stored bool
	Folder bool
	// Unreadable entries are encrypted or packed by another method.
	Unreadable bool

	flags, method uint16
	local         int64 // offset of the local header
	start         int64 // offset of the packed bytes
}

// An Archive is an archive that can be read in one way only.
type Archive struct {
	Entries []Entry
	r       io.ReaderAt
	o       Options
}

const (
	sigLocal      = 0x04034b50
	sigCentral    = 0x02014b50
	sigEnd        = 0x06054b50
	sigEnd64      = 0x06064b50
	sigLocator64  = 0x07064b50
	sigDescriptor = 0x08074b50

	lenLocal     = 30
	lenCentral   = 46
	lenEnd       = 22
	lenEnd64     = 56
	lenLocator64 = 20

	methodStored   = 0
	methodDeflated = 8

	extraZip64       = 0x0001
	extraUnicodePath = 0x7075 // a second name for the same file

	// flagsAllowed: the deflate level (bits 1 and 2) and UTF-8 names (bit
	// 11). Not patches (5), nor by default a data descriptor (3), with which
	// a reader in one pass has to guess where an entry ends; the index
	// refuses those too, and no wheel in use was found to have them.
	flagsAllowed    = 1<<1 | 1<<2 | 1<<11
	flagsEncrypted  = 1<<0 | 1<<6 | 1<<13
	flagDescriptor  = 1 << 3
	flagUTF8        = 1 << 11
	saturated       = 0xffffffff
	maxOffset       = 1 << 62
	maxEndRecord    = lenEnd + 0xffff // with the longest comment
	firstAllocation = 1 << 14         // entries, before the directory is believed
)

var le = binary.LittleEndian

// Open checks an archive as the package comment tells.
func Open(r io.ReaderAt, size int64, o Options) (*Archive, error) {
	o.Limits.Entries = cmp.Or(o.Limits.Entries, MaxEntries)
	o.Limits.Directory = cmp.Or(o.Limits.Directory, MaxDirectory)
	o.Limits.Unpacked = cmp.Or(o.Limits.Unpacked, MaxUnpacked)
	o.Limits.Ratio = cmp.Or(o.Limits.Ratio, BombRatio)
	a := &Archive{r: r, o: o}
	dir, err := a.findDirectory(size)
	if err != nil {
		return nil, err
	}
	if err := a.readDirectory(dir); err != nil {
		return nil, err
	}
	if err := a.checkNames(); err != nil {
		return nil, err
	}
	if err := a.checkLocals(dir); err != nil {
		return nil, err
	}
	return a, nil
}

// tolerate reports a defect that leaves the archive readable, or returns it.
func (a *Archive) tolerate(d *Defect) error {
	if a.o.Report == nil {
		return d
	}
	a.o.Report(d)
	return nil
}

// of tells which entry an error is about, unless it is the reader's.
func of(name string, err error) error {
	if d, ok := err.(*Defect); ok { //nolint:errorlint // made here, never wrapped
		d.Name = clip(name)
	}
	return err
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// Find returns the entry of that exact name.
func (a *Archive) Find(name string) (*Entry, bool) {
	for i := range a.Entries {
		if a.Entries[i].Name == name {
			return &a.Entries[i], true
		}
	}
	return nil, false
}
