package walk

import (
	"errors"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/bodgit/sevenzip"
)

// openSeven opens a 7z archive. Its header is read twice: here, with every
// count checked and every dictionary measured, and then by the library.
func (w *walker) openSeven(f *File, p place) (*opened, error) {
	info, err := readSeven(f, maxHeld-w.held)
	if err != nil {
		return nil, w.flawed(err, p, f.Path)
	}
	if info.stop < f.Size {
		w.problem(CodeTrailing, p, f.Path, "7z: %d bytes behind the end", f.Size-info.stop)
	}
	if info.files > w.o.Limits.Entries-w.entries {
		w.notScanned(CodeEntries, f.Path, "7z: %d files, more than are left of %d", info.files, w.o.Limits.Entries)
		return nil, nil
	}
	if info.files == 0 {
		return &opened{walk: func() error { return nil }}, nil
	}
	if len(info.folders) == 0 {
		info.folders = []sevenFolderInfo{{}} // all files are empty
	}
	memory := int64(0)
	for i, fo := range info.folders {
		memory = max(memory, fo.memory)
		switch {
		case fo.encrypted:
			return nil, w.flawed(&flaw{code: CodeEncrypted, notScanned: true, text: "7z: encrypted"}, p, f.Path)
		case fo.unknown:
			return nil, w.flawed(&flaw{code: CodeMethod, notScanned: true, text: "7z: packed by a method that is not read"}, p, f.Path)
		case fo.main != max(0, len(info.folders[i].coders)-1):
			return nil, w.flawed(&flaw{code: CodeMethod, notScanned: true, text: "7z: coders in an order that is not read"}, p, f.Path)
		}
	}
	if memory > maxHeld-w.held {
		return nil, w.flawed(&flaw{code: CodeSize, notScanned: true, text: "7z: needs too much memory to unpack"}, p, f.Path)
	}
	var z *sevenzip.Reader
	if err := contained(func() (err error) {
		z, err = sevenzip.NewReader(f.content, f.Size)
		return err
	}); err != nil {
		return nil, w.flawed(malformed("7z: %v", err), p, f.Path)
	}
	w.held += memory
	s := &sevenWalk{w: w, f: f, p: p, info: info, names: newNames(false), broken: make(map[int]bool)}
	return &opened{
		walk: func() error {
			defer func() { w.held -= memory }()
			for _, e := range z.File {
				if err := w.count(f); err != nil {
					return err
				}
				if err := s.entry(e); err != nil {
					return err
				}
			}
			return nil
		},
	}, nil
}

// contained runs code of the library, whose panics are errors of the archive.
func contained(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = malformed("%v", r)
		}
	}()
	return do()
}

// containedReader reads through the library and sums up what it gives.
type containedReader struct {
	r   io.Reader
	crc uint32
}

// Read passes on.
func (c *containedReader) Read(p []byte) (n int, err error) {
	cerr := contained(func() error {
		n, err = c.r.Read(p)
		return nil
	})
	if cerr != nil {
		return 0, cerr
	}
	c.crc = crc32.Update(c.crc, crc32.IEEETable, p[:n])
	return n, err
}

type sevenWalk struct {
	w      *walker
	f      *File
	p      place
	info   *sevenInfo
	names  *names
	broken map[int]bool // folders: what follows a broken file cannot be read
}

func (s *sevenWalk) entry(e *sevenzip.File) error {
	mode := e.Mode()
	child := s.w.entry(s.f, e.Name, mode)
	if why := s.names.check(e.Name); why != "" {
		s.w.problem(CodePath, s.p, child.Path, "7z: %s", why)
	}
	kind := seenFile
	switch {
	case mode.IsDir():
		kind = seenFolder
	case mode&fs.ModeSymlink != 0:
		kind = seenLink
	}
	if code, text := s.names.add(e.Name, kind); code != "" {
		s.w.problem(code, s.p, child.Path, "7z: %s", text)
	}
	if kind != seenLink && mode&fs.ModeType != 0 {
		if mode&fs.ModeType != fs.ModeDir {
			s.w.problem(CodeDevice, s.p, child.Path, "7z: a device or pipe")
		}
		return s.w.file(child, s.p.in(), checks{})
	}
	if s.broken[e.Stream] && e.UncompressedSize > 0 {
		s.w.notScanned(CodeMalformed, child.Path, "7z: lies behind a file that could not be read")
		return child.Release()
	}
	bad, err := s.content(e, child)
	if err := s.w.flawed(err, s.p, child.Path); err != nil || child.content == nil {
		s.broken[e.Stream] = true
		return errors.Join(err, child.Release())
	}
	s.broken[e.Stream] = s.broken[e.Stream] || bad
	if kind == seenLink {
		return s.link(child)
	}
	return s.w.file(child, s.p.in(), checks{digested: true})
}

// content unpacks a file. bad says that nothing behind it can be read.
func (s *sevenWalk) content(e *sevenzip.File, child *File) (bad bool, err error) {
	size := int64(min(e.UncompressedSize, 1<<62)) // bounded
	var rc io.ReadCloser
	if err := contained(func() (err error) {
		rc, err = e.Open()
		return err
	}); err != nil {
		return true, malformed("7z: %v", err)
	}
	r := &containedReader{r: rc}
	packed := int64(0)
	if size > 0 {
		packed = s.info.folders[min(max(e.Stream, 0), len(s.info.folders)-1)].packed
	}
	if err := s.w.unpack(child, r, size, packed); err != nil {
		return true, err
	}
	if err := contained(rc.Close); err != nil {
		return true, malformed("7z: %v", err)
	}
	if child.Size != size || e.CRC32 != 0 && r.crc != e.CRC32 {
		return false, &flaw{code: CodeCRC, text: "7z: length or checksum is wrong"}
	}
	return false, nil
}

func (s *sevenWalk) link(child *File) error {
	target := make([]byte, min(child.Size, maxLink+1))
	if _, err := io.ReadFull(child.Reader(), target); err != nil {
		return errors.Join(err, child.Release())
	}
	// A link has no bytes of its own; what held its target goes.
	named := s.w.entry(s.f, child.Path[len(child.Path)-1], child.Mode)
	return errors.Join(child.Release(), s.w.link(named, s.p, string(target)))
}
