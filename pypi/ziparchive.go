package pypi

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxEntries bounds the files of an archive. The largest wheels known
	// (accelerator libraries) have about 20,000.
	maxEntries = 200_000
	// maxDirectory bounds the central directory: maxEntries with long names.
	maxDirectory = 64 << 20
	// maxEntryName bounds one name; longer paths fail on common systems.
	maxEntryName = 1024
	// maxUnpacked bounds what an archive unpacks to. The largest wheels are
	// about 4 GiB packed.
	maxUnpacked = 64 << 30
	// bombSize and bombRatio are the index's own rule for what is a bomb.
	bombSize  = 64 << 20
	bombRatio = 50
)

// A zipEntry is one file of a checked archive.
type zipEntry struct {
	name   string
	flags  uint16
	method uint16
	crc    uint32
	packed int64
	size   int64
	start  int64 // of the packed bytes
	folder bool
}

// A zipArchive is an archive that can be read in one way only.
type zipArchive struct {
	r       io.ReaderAt
	entries []zipEntry
}

const (
	sigLocal     = 0x04034b50
	sigCentral   = 0x02014b50
	sigEnd       = 0x06054b50
	sigEnd64     = 0x06064b50
	sigLocator64 = 0x07064b50

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
	// 11). Not encryption (0, 6, 13), patches (5), nor a data descriptor (3),
	// with which a reader has to guess where an entry ends; the index refuses
	// those too, and no wheel in use was found to have them.
	flagsAllowed = 1<<1 | 1<<2 | 1<<11
	flagUTF8     = 1 << 11
)

var le = binary.LittleEndian

// openZip checks that r is a ZIP archive in which the end record lies at the
// very end, the central directory right before it, and the local entries,
// which say the same as the directory, fill everything before that without a
// gap. Two programs then cannot see different files in it.
func openZip(r io.ReaderAt, size int64) (*zipArchive, error) {
	dir, err := findDirectory(r, size)
	if err != nil {
		return nil, err
	}
	z := &zipArchive{r: r}
	offsets, err := z.readDirectory(dir)
	if err != nil {
		return nil, err
	}
	if err := z.checkNames(); err != nil {
		return nil, err
	}
	return z, z.checkLocals(offsets, dir.offset)
}

// directory says where the central directory lies.
type directory struct {
	offset, size int64
	entries      uint64
}

func readAt(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if off < 0 {
		return nil, io.ErrUnexpectedEOF
	}
	if _, err := r.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if err != nil {
		// ReadAt may report the end together with all bytes.
		if m, err := r.ReadAt(b, off); m != n {
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return b, nil
}

func findDirectory(r io.ReaderAt, size int64) (directory, error) {
	var d directory
	end, err := readAt(r, size-lenEnd, lenEnd)
	if err != nil {
		return d, err
	}
	switch {
	case le.Uint32(end) != sigEnd || le.Uint16(end[20:]) != 0:
		return d, errors.New("no end record at the very end: a comment, data behind it, or not a ZIP archive")
	case le.Uint16(end[4:]) != 0 || le.Uint16(end[6:]) != 0:
		return d, errors.New("split over several disks")
	case le.Uint16(end[8:]) != le.Uint16(end[10:]):
		return d, errors.New("two entry counts that differ")
	}
	d.entries, d.size, d.offset = uint64(le.Uint16(end[10:])), int64(le.Uint32(end[12:])), int64(le.Uint32(end[16:]))
	stop := size - lenEnd
	need64 := d.entries == 0xffff || d.size == 0xffffffff || d.offset == 0xffffffff
	var loc []byte
	if stop >= lenLocator64+lenEnd64 {
		if loc, err = readAt(r, stop-lenLocator64, lenLocator64); err != nil {
			return d, err
		}
	}
	switch {
	case loc != nil && le.Uint32(loc) == sigLocator64:
		stop -= lenLocator64 + lenEnd64
		if d, err = directory64(r, loc, stop, d); err != nil {
			return d, err
		}
	case need64:
		return d, errors.New("zip64 locator missing")
	}
	if d.size < 0 || d.offset < 0 || d.size > maxDirectory || d.offset > size || d.offset+d.size != stop {
		return d, errors.New("the central directory does not end where the end record starts")
	}
	if d.entries == 0 || d.entries > maxEntries {
		return d, fmt.Errorf("%d entries, want 1 to %d", d.entries, maxEntries)
	}
	return d, nil
}

// directory64 reads the zip64 end record at offset at; small holds what the
// plain end record says, which must agree where it is not saturated.
func directory64(r io.ReaderAt, loc []byte, at int64, small directory) (directory, error) {
	var d directory
	if le.Uint32(loc[4:]) != 0 || le.Uint64(loc[8:]) != uint64(max(at, 0)) || le.Uint32(loc[16:]) > 1 {
		return d, errors.New("the zip64 locator points elsewhere")
	}
	end, err := readAt(r, at, lenEnd64)
	if err != nil {
		return d, err
	}
	switch {
	case le.Uint32(end) != sigEnd64 || le.Uint64(end[4:]) != lenEnd64-12:
		return d, errors.New("malformed zip64 end record")
	case le.Uint32(end[16:]) != 0 || le.Uint32(end[20:]) != 0 || le.Uint64(end[24:]) != le.Uint64(end[32:]):
		return d, errors.New("split over several disks")
	}
	d.entries = le.Uint64(end[32:])
	if le.Uint64(end[40:]) > maxDirectory || le.Uint64(end[48:]) > 1<<62 {
		return d, errors.New("central directory too large")
	}
	d.size, d.offset = int64(le.Uint64(end[40:])), int64(le.Uint64(end[48:])) //nolint:gosec // bounded just above
	if small.entries != 0xffff && small.entries != d.entries || small.size != 0xffffffff && small.size != d.size ||
		small.offset != 0xffffffff && small.offset != d.offset {
		return d, errors.New("the end record and the zip64 end record differ")
	}
	return d, nil
}

// header is what local and central headers share.
type header struct {
	flags, method uint16
	crc           uint32
	packed, size  uint64
	name          string
}

// readDirectory fills z.entries and returns the offsets of the local headers.
func (z *zipArchive) readDirectory(d directory) ([]int64, error) {
	r := io.NewSectionReader(z.r, d.offset, d.size)
	buf := newByteReader(r)
	z.entries = make([]zipEntry, 0, min(d.entries, 1<<14))
	var offsets []int64
	var total, packed int64
	for range d.entries {
		h, offset, mode, err := readCentral(buf)
		if err != nil {
			return nil, fmt.Errorf("central directory, entry %d: %w", len(z.entries)+1, err)
		}
		if h.packed > maxUnpacked || h.size > maxUnpacked || offset > 1<<62 {
			return nil, fmt.Errorf("%q: too large", clip(h.name))
		}
		e := zipEntry{
			name: h.name, flags: h.flags, method: h.method, crc: h.crc,
			packed: int64(h.packed), size: int64(h.size),
			folder: strings.HasSuffix(h.name, "/"),
		}
		if err := checkEntry(&e, h, mode); err != nil {
			return nil, fmt.Errorf("%q: %w", clip(h.name), err)
		}
		total, packed = total+e.size, packed+e.packed
		if total > maxUnpacked {
			return nil, fmt.Errorf("unpacks to over %d bytes", int64(maxUnpacked))
		}
		z.entries = append(z.entries, e)
		offsets = append(offsets, int64(offset))
	}
	if buf.left() != 0 {
		return nil, errors.New("more in the central directory than its entries")
	}
	if total > bombSize && total/bombRatio > packed {
		return nil, fmt.Errorf("unpacks to %d bytes from %d: a bomb", total, packed)
	}
	return offsets, nil
}

func readCentral(b *byteReader) (h header, offset uint64, mode uint32, err error) {
	f, err := b.next(lenCentral)
	if err != nil {
		return h, 0, 0, err
	}
	if le.Uint32(f) != sigCentral {
		return h, 0, 0, errors.New("wrong signature")
	}
	h = header{flags: le.Uint16(f[8:]), method: le.Uint16(f[10:]), crc: le.Uint32(f[16:]), packed: uint64(le.Uint32(f[20:])), size: uint64(le.Uint32(f[24:]))}
	nName, nExtra, nComment := int(le.Uint16(f[28:])), int(le.Uint16(f[30:])), int(le.Uint16(f[32:]))
	disk := le.Uint16(f[34:])
	mode, offset = le.Uint32(f[38:])>>16, uint64(le.Uint32(f[42:]))
	if nName == 0 || nName > maxEntryName {
		return h, 0, 0, fmt.Errorf("name of %d bytes", nName)
	}
	if f, err = b.next(nName); err != nil {
		return h, 0, 0, err
	}
	h.name = string(f)
	if f, err = b.next(nExtra); err != nil {
		return h, 0, 0, err
	}
	wide := []*uint64{}
	for _, v := range []*uint64{&h.size, &h.packed, &offset} {
		if *v == 0xffffffff {
			wide = append(wide, v)
		}
	}
	if err = readExtra(f, wide, false); err != nil {
		return h, 0, 0, err
	}
	if _, err = b.next(nComment); err != nil {
		return h, 0, 0, err
	}
	if disk != 0 {
		return h, 0, 0, errors.New("on another disk")
	}
	return h, offset, mode, nil
}

// readExtra walks the extra fields and fills the saturated values from the
// zip64 field, which must be there exactly if something is saturated. A
// writer may keep room for both sizes in a local header.
func readExtra(b []byte, wide []*uint64, local bool) error {
	found := false
	for len(b) > 0 {
		if len(b) < 4 || len(b) < 4+int(le.Uint16(b[2:])) {
			return errors.New("malformed extra field")
		}
		id, data := le.Uint16(b), b[4:4+int(le.Uint16(b[2:]))]
		b = b[4+len(data):]
		switch id {
		case extraUnicodePath:
			return errors.New("a second name in an extra field")
		case extraZip64:
			if found || len(data) != 8*len(wide) && (!local || len(wide) > 0) {
				return errors.New("malformed zip64 field")
			}
			found = true
			for i, v := range wide {
				*v = le.Uint64(data[8*i:])
			}
		}
	}
	if !found && len(wide) > 0 {
		return errors.New("zip64 field missing")
	}
	return nil
}

// checkEntry holds the rules for a single entry.
func checkEntry(e *zipEntry, h header, mode uint32) error {
	const typeMask, typeFile, typeFolder = 0o170000, 0o100000, 0o040000
	switch {
	case h.flags&^uint16(flagsAllowed) != 0:
		return fmt.Errorf("flags %#x: encrypted, patched or with a data descriptor", h.flags)
	case e.method != methodStored && e.method != methodDeflated:
		return fmt.Errorf("compression method %d; only stored and deflated are allowed", e.method)
	case e.method == methodStored && e.packed != e.size:
		return errors.New("stored with two sizes")
	case e.folder && (e.size != 0 || e.method == methodStored && e.packed != 0):
		return errors.New("a folder with content")
	}
	switch mode & typeMask {
	case 0:
	case typeFile:
		if e.folder {
			return errors.New("a folder marked as a file")
		}
	case typeFolder:
		if !e.folder {
			return errors.New("a file marked as a folder")
		}
	default:
		return errors.New("a link or a special file")
	}
	if h.flags&flagUTF8 == 0 && !ascii(e.name) {
		return errors.New("name in an unknown encoding")
	}
	return checkEntryName(strings.TrimSuffix(e.name, "/"))
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// checkEntryName refuses names that could leave the folder an archive is
// unpacked into.
func checkEntryName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return errors.New("name is not UTF-8")
	case strings.HasPrefix(name, "/"):
		return errors.New("absolute name")
	case len(name) > 1 && name[1] == ':':
		return errors.New("name with a drive letter")
	}
	for seg := range strings.SplitSeq(name, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return errors.New("name with an empty, . or .. part")
		}
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return errors.New("name with a control character or a backslash")
		}
	}
	return nil
}

// checkNames refuses two entries of one name, also if only the case of
// letters tells them apart, and a file that another entry takes for a folder.
func (z *zipArchive) checkNames() error {
	seen := make(map[string]bool, len(z.entries)) // true: a file
	for i := range z.entries {
		e := &z.entries[i]
		key := strings.ToLower(strings.TrimSuffix(e.name, "/"))
		if _, dup := seen[key]; dup {
			return fmt.Errorf("%q is there twice, perhaps in other letter case", clip(e.name))
		}
		seen[key] = !e.folder
	}
	for key := range seen {
		for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
			if seen[key[:i]] {
				return fmt.Errorf("%q is a file and a folder", clip(key[:i]))
			}
		}
	}
	return nil
}

// checkLocals compares every local header with the directory and sees that
// the entries fill [0, end) without gap or overlap.
func (z *zipArchive) checkLocals(offsets []int64, end int64) error {
	order := make([]int, len(offsets))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case offsets[a] < offsets[b]:
			return -1
		case offsets[a] > offsets[b]:
			return 1
		}
		return 0
	})
	next := int64(0)
	for _, i := range order {
		e := &z.entries[i]
		if offsets[i] != next {
			return fmt.Errorf("%q: data before or between entries, or entries that overlap", clip(e.name))
		}
		head, err := z.checkLocal(e, next, end)
		if err != nil {
			return fmt.Errorf("%q: local header: %w", clip(e.name), err)
		}
		e.start = next + head
		next = e.start + e.packed
	}
	if next != end {
		return errors.New("data between the entries and the central directory")
	}
	return nil
}

// checkLocal returns the length of the local header.
func (z *zipArchive) checkLocal(e *zipEntry, at, end int64) (int64, error) {
	// The name is read with the header, to ask the reader once.
	f, err := readAt(z.r, at, lenLocal+len(e.name))
	if err != nil {
		return 0, err
	}
	if le.Uint32(f) != sigLocal {
		return 0, errors.New("wrong signature")
	}
	nName, nExtra := int(le.Uint16(f[26:])), int(le.Uint16(f[28:]))
	if nName != len(e.name) || !bytes.Equal(f[lenLocal:], []byte(e.name)) {
		return 0, errors.New("another name than in the directory")
	}
	packed, size := uint64(le.Uint32(f[18:])), uint64(le.Uint32(f[22:]))
	if nExtra > 0 {
		extra, err := readAt(z.r, at+lenLocal+int64(nName), nExtra)
		if err != nil {
			return 0, err
		}
		var wide []*uint64
		if size == 0xffffffff || packed == 0xffffffff {
			wide = []*uint64{&size, &packed} // both are there in a local header
		}
		if err := readExtra(extra, wide, true); err != nil {
			return 0, err
		}
	}
	switch {
	case le.Uint16(f[6:]) != e.flags:
		return 0, errors.New("other flags than in the directory")
	case le.Uint16(f[8:]) != e.method:
		return 0, errors.New("another compression method than in the directory")
	case le.Uint32(f[14:]) != e.crc || packed != uint64(max(e.packed, 0)) || size != uint64(max(e.size, 0)):
		return 0, errors.New("other sizes or checksum than in the directory")
	}
	head := int64(lenLocal + nName + nExtra)
	if at+head+e.packed > end {
		return 0, errors.New("reaches into the central directory")
	}
	return head, nil
}

// find returns the entry of that exact name.
func (z *zipArchive) find(name string) (*zipEntry, bool) {
	for i := range z.entries {
		if z.entries[i].name == name {
			return &z.entries[i], true
		}
	}
	return nil, false
}

// read unpacks one entry of at most limit bytes and checks its length, its
// checksum, and that nothing is left of its packed bytes.
func (z *zipArchive) read(e *zipEntry, limit int64) ([]byte, error) {
	if e.size > limit {
		return nil, fmt.Errorf("%q: %d bytes, at most %d are read", clip(e.name), e.size, limit)
	}
	src := newByteReader(io.NewSectionReader(z.r, e.start, e.packed))
	var r io.Reader = src
	if e.method == methodDeflated {
		r = flate.NewReader(src) // src is an io.ByteReader: nothing is read ahead
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, e.size+1)); err != nil {
		return nil, fmt.Errorf("%q: %w", clip(e.name), err)
	}
	if int64(b.Len()) != e.size || src.left() != 0 || crc32.ChecksumIEEE(b.Bytes()) != e.crc {
		return nil, fmt.Errorf("%q: length or checksum is wrong", clip(e.name))
	}
	return b.Bytes(), nil
}
