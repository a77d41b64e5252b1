package walk

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
)

const (
	tarBlock = 512
	// windowSize is read at once where headers are: those of many small files
	// lie in it together with their bytes.
	windowSize = 32 << 10
)

// A window reads bytes in order and here and there through one buffer.
type window struct {
	r    io.ReaderAt
	size int64
	pos  int64 // of Read
	buf  []byte
	from int64 // of buf
}

var windows = sync.Pool{New: func() any { return &window{buf: make([]byte, 0, windowSize)} }}

func newWindow(f *File) *window {
	in := windows.Get().(*window) // the pool holds nothing else
	*in = window{r: f.content, size: f.Size, buf: in.buf[:0]}
	return in
}

func (in *window) close() {
	in.r = nil
	windows.Put(in)
}

// at gives up to n bytes at off, valid until the next call.
func (in *window) at(off int64, n int) ([]byte, error) {
	if off < 0 || off >= in.size {
		return nil, io.EOF
	}
	n = int(min(int64(n), in.size-off))
	if off < in.from || off+int64(n) > in.from+int64(len(in.buf)) {
		in.buf, in.from = in.buf[:min(int64(cap(in.buf)), in.size-off)], off
		if m, err := in.r.ReadAt(in.buf, off); m < len(in.buf) {
			in.buf = in.buf[:0]
			return nil, errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return in.buf[off-in.from:][:n], nil
}

// Read gives what the window has.
func (in *window) Read(p []byte) (int, error) {
	b, err := in.at(in.pos, min(len(p), cap(in.buf)))
	in.pos += int64(len(b))
	return copy(p, b), err
}

// Seek lets archive/tar pass over the bytes of entries.
func (in *window) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += in.pos
	case io.SeekEnd:
		off += in.size
	}
	if off < 0 {
		return 0, errors.New("negative position")
	}
	in.pos = off
	return off, nil
}

// A tarWalk goes through a tar archive. archive/tar reads the headers; what
// it is silent about is looked up in the blocks themselves.
type tarWalk struct {
	w     *walker
	f     *File
	p     place
	in    *window
	tr    *tar.Reader
	names *names
	end   int64 // of the entry before
}

// openTar opens a tar archive if it is empty or its first header is right.
func (w *walker) openTar(f *File, p place) (*opened, error) {
	t := &tarWalk{w: w, f: f, p: p, in: newWindow(f), names: newNames(p.tree)}
	t.tr = tar.NewReader(t.in)
	h, err := t.tr.Next()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, tar.ErrInsecurePath) {
		t.in.close()
		return nil, w.flawed(malformed("tar: %v", err), p, f.Path)
	}
	drop := func() error {
		t.in.close()
		return nil
	}
	return &opened{drop: drop, walk: func() error {
		defer t.in.close()
		return t.walk(h, err)
	}}, nil
}

// walk goes on behind the first header.
func (t *tarWalk) walk(h *tar.Header, err error) error {
	for {
		if errors.Is(err, io.EOF) {
			return t.w.flawed(t.behind(), t.p, t.f.Path)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return t.w.flawed(malformed("tar: behind byte %d: %v", t.end, err), t.p, t.f.Path)
		}
		if err := t.w.count(t.f); err != nil {
			return err
		}
		if err := t.entry(h); err != nil {
			return t.w.flawed(err, t.p, t.f.Path)
		}
		h, err = t.tr.Next()
	}
}

// A raw header is what the blocks before an entry's bytes say.
type rawHeader struct {
	flag  byte
	size  int64
	ok    bool // the size can be read
	name  string
	start int64 // of the header block
	twice bool  // an extended header is there twice, or in two forms
	any   bool  // there are extended headers
	more  bool  // of an old sparse entry: blocks of its map follow
}

// raw reads the blocks from the end of the entry before.
func (t *tarWalk) raw() (rawHeader, error) {
	var h rawHeader
	var pax, global, long, link int
	for off := t.end; ; {
		b, err := t.in.at(off, tarBlock)
		if err != nil || len(b) < tarBlock {
			return h, malformed("tar: ends within a header")
		}
		h.size, h.ok = tarNumber(b[124:136])
		h.flag, h.start = b[156], off
		switch h.flag {
		case tar.TypeXHeader:
			pax++
		case tar.TypeGNULongName:
			long++
		case tar.TypeGNULongLink:
			link++
		default:
			if h.flag == tar.TypeXGlobalHeader {
				global++
			}
			name, _, _ := bytes.Cut(b[:100], []byte{0})
			h.name, h.more = string(name), b[482] != 0
			h.any = pax+long+link > 0
			h.twice = max(pax, long, link) > 1 || pax > 0 && long+link > 0 || global > 0 && h.any
			return h, nil
		}
		if !h.ok || h.size < 0 || h.size > t.f.Size-off-tarBlock {
			return h, malformed("tar: an extended header of no good size")
		}
		off += tarBlock + padded(h.size)
	}
}

func padded(n int64) int64 { return (n + tarBlock - 1) &^ (tarBlock - 1) }

// tarNumber reads a number in octal or base-256.
func tarNumber(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		if len(bytes.Trim(b, " \x00")) == 0 {
			return 0, true
		}
		return octal(b)
	}
	if b[0] != 0x80 || b[1]|b[2]|b[3] != 0 {
		return 0, false // negative, or more than 63 bits
	}
	n := binary.BigEndian.Uint64(b[4:])
	return int64(n), n < 1<<62 //nolint:gosec // used only if it fits
}

func headerOnly(flag byte) bool {
	switch flag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return true
	}
	return false
}

// entry visits what a header tells of.
func (t *tarWalk) entry(h *tar.Header) error {
	raw, err := t.raw()
	if err != nil {
		return err
	}
	start := raw.start + tarBlock
	if h.Typeflag == tar.TypeXGlobalHeader {
		t.end = start + padded(raw.size)
		return t.global(h, raw)
	}
	child := t.w.entry(t.f, h.Name, tarMode(h))
	if raw.twice {
		t.w.problem(CodeMalformed, t.p, child.Path, "tar: extended headers twice, or of two kinds, for one entry")
	}
	if t.sparse(h, raw, child, start) {
		return child.Release()
	}
	size := h.Size
	if headerOnly(h.Typeflag) {
		size = 0
	}
	t.end = start + padded(size)
	t.differs(h, raw, child)
	if size > t.f.Size-start {
		return errors.Join(malformed("tar: %s ends early: %d bytes, %d are there", quote(h.Name), size, t.f.Size-start), child.Release())
	}
	t.judge(h, child)
	p := t.p.in()
	if !child.Regular() {
		return t.w.file(child, p, checks{})
	}
	section(child, t.f, start, size)
	return t.w.file(child, p, checks{})
}

// global looks at a header that is for all entries behind it: a comment is
// harmless, but names and sizes of all are not.
func (t *tarWalk) global(h *tar.Header, raw rawHeader) error {
	bad := raw.twice
	for key := range h.PAXRecords {
		bad = bad || key == "path" || key == "size" || key == "linkpath" || strings.HasPrefix(key, "GNU.sparse.")
	}
	if bad {
		t.w.problem(CodeMalformed, t.p, t.f.Path, "tar: a global header that changes names or sizes")
	}
	return nil
}

// sparse passes over a sparse entry. Its bytes are not what a reader of plain
// tar sees, and unpacked it may be of any size.
func (t *tarWalk) sparse(h *tar.Header, raw rawHeader, child *File, start int64) bool {
	is := raw.flag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		is = is || strings.HasPrefix(key, "GNU.sparse.")
	}
	if !is {
		return false
	}
	t.w.notScanned(CodeSparse, child.Path, "tar: a sparse file of %d bytes, which is not expanded and was not looked at", h.Size)
	for more := raw.flag == tar.TypeGNUSparse && raw.more; more; start += tarBlock {
		b, err := t.in.at(start, tarBlock)
		if err != nil || len(b) < tarBlock {
			break // archive/tar says so next
		}
		more = b[504] != 0
	}
	size := raw.size
	if n, err := strconv.ParseInt(h.PAXRecords["size"], 10, 63); err == nil {
		size = n
	}
	t.end = start + padded(max(0, size))
	return true
}

// differs compares the header with what extended headers make of it: a reader
// that does not know these reads something else.
func (t *tarWalk) differs(h *tar.Header, raw rawHeader, child *File) {
	const octalMost = 1<<33 - 1
	tell := func(format string, args ...any) {
		t.w.problem(CodeMalformed, t.p, child.Path, "tar: "+format, args...)
	}
	if _, ok := h.PAXRecords["size"]; ok && h.Size <= octalMost && raw.size != h.Size {
		tell("the extended header says %d bytes, the header %d", h.Size, raw.size)
	}
	if headerOnly(h.Typeflag) && h.Size != 0 {
		tell("a link, folder or device of %d bytes", h.Size)
	}
	if name, ok := h.PAXRecords["path"]; ok && len(name) <= 100 && raw.name != name && plain(name) {
		tell("the extended header says %s, the header %s", quote(name), quote(raw.name))
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
	default:
		tell("an entry of the unknown type %q", h.Typeflag)
	}
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// judge looks at an entry's name, type and target.
func (t *tarWalk) judge(h *tar.Header, child *File) {
	if why := t.names.check(h.Name); why != "" {
		t.w.problem(CodePath, t.p, child.Path, "tar: %s", why)
	}
	kind := seenFile
	switch h.Typeflag {
	case tar.TypeDir:
		kind = seenFolder
	case tar.TypeSymlink:
		kind = seenLink
		child.Link = clip(h.Linkname, maxLink)
		if !t.p.tree && leads(h.Name, h.Linkname) || len(h.Linkname) > maxLink {
			t.w.problem(CodeLink, t.p, child.Path, "tar: a link that leads out of the archive, to %s", quote(h.Linkname))
		}
	case tar.TypeLink:
		child.Link = clip(h.Linkname, maxLink)
		t.hardLink(h, child)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if !t.p.tree {
			t.w.problem(CodeDevice, t.p, child.Path, "tar: a device or pipe")
		}
	}
	if code, text := t.names.add(h.Name, kind); code != "" {
		t.w.problem(code, t.p, child.Path, "tar: %s", text)
	}
}

// hardLink: a second name must be of a file of this archive. That of a layer
// may lie in a layer below.
func (t *tarWalk) hardLink(h *tar.Header, child *File) {
	switch {
	case t.names.check(h.Linkname) != "":
		t.w.problem(CodeLink, t.p, child.Path, "tar: a hard link that leads out of the archive, to %s", quote(h.Linkname))
	case !t.p.tree && !t.names.has(h.Linkname):
		t.w.problem(CodeLink, t.p, child.Path, "tar: a hard link to what is not in the archive before it, %s", quote(h.Linkname))
	}
}

// tarMode is the mode as package fs has it. A hard link is irregular: it has
// no bytes of its own.
func tarMode(h *tar.Header) fs.FileMode {
	const setUser, setGroup, sticky = 0o4000, 0o2000, 0o1000
	m := fs.FileMode(h.Mode & 0o777) // nine bits
	if h.Mode&setUser != 0 {
		m |= fs.ModeSetuid
	}
	if h.Mode&setGroup != 0 {
		m |= fs.ModeSetgid
	}
	if h.Mode&sticky != 0 {
		m |= fs.ModeSticky
	}
	switch h.Typeflag {
	case tar.TypeDir:
		m |= fs.ModeDir
	case tar.TypeSymlink:
		m |= fs.ModeSymlink
	case tar.TypeLink:
		m |= fs.ModeIrregular
	case tar.TypeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case tar.TypeBlock:
		m |= fs.ModeDevice
	case tar.TypeFifo:
		m |= fs.ModeNamedPipe
	}
	return m
}

// behind looks at what follows the last entry: zeros, or nothing.
func (t *tarWalk) behind() error {
	for off := t.end; off < t.f.Size; {
		if err := t.w.ctx.Err(); err != nil {
			return err
		}
		b, err := t.in.at(off, windowSize)
		if err != nil {
			return err
		}
		if len(bytes.TrimLeft(b, "\x00")) > 0 {
			return &flaw{code: CodeTrailing, text: "tar: data behind the end of the archive"}
		}
		off += int64(len(b))
	}
	return nil
}
