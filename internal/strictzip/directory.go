package strictzip

import (
	"bytes"
	"errors"
	"io"
)

// directory says where the central directory lies.
type directory struct {
	at      int64 // where it is
	offset  int64 // where the end record says it is
	size    int64
	entries uint64
}

func readAt(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	return b, fill(r, off, b)
}

func fill(r io.ReaderAt, off int64, b []byte) error {
	if off < 0 {
		return io.ErrUnexpectedEOF
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil // ReadAt may report the end together with all bytes
	}
	if errors.Is(err, io.EOF) {
		return errors.Join(io.ErrUnexpectedEOF, err)
	}
	return err
}

// findEnd returns the offset of the end record and the end of the archive.
func (a *Archive) findEnd(size int64) (at int64, end []byte, err error) {
	if size < lenEnd {
		return 0, nil, defect(Malformed, "unexpected EOF: %d bytes hold no ZIP archive", size)
	}
	if end, err = readAt(a.r, size-lenEnd, lenEnd); err != nil {
		return 0, nil, err
	}
	if le.Uint32(end) == sigEnd && le.Uint16(end[20:]) == 0 && (a.o.Report == nil && !a.o.Comment) {
		return size - lenEnd, end, nil
	}
	none := defect(Malformed, "no end record at the very end: a comment, data behind it, or not a ZIP archive")
	if !a.o.Comment && a.o.Report == nil {
		return 0, nil, none
	}
	n := min(size, maxEndRecord)
	tail, err := readAt(a.r, size-n, int(n))
	if err != nil {
		return 0, nil, err
	}
	last, exact, found := -1, -1, 0
	for i := len(tail) - lenEnd; i >= 0; i-- {
		i = bytes.LastIndex(tail[:i+4], []byte("PK\x05\x06"))
		if i < 0 {
			break
		}
		stop := i + lenEnd + int(le.Uint16(tail[i+20:]))
		if last < 0 && stop <= len(tail) {
			last = i
		}
		if stop == len(tail) {
			exact, found = i, found+1
		}
	}
	switch {
	case last < 0:
		return 0, nil, none
	case found > 1 || exact >= 0 && exact != last:
		return 0, nil, defect(Malformed, "two end records")
	case exact < 0:
		if err := a.tolerate(defect(Trailing, "data behind the end record")); err != nil {
			return 0, nil, err
		}
	case le.Uint16(tail[last+20:]) > 0 && !a.o.Comment:
		return 0, nil, none
	}
	return size - n + int64(last), tail[last : last+lenEnd], nil
}

func (a *Archive) findDirectory(size int64) (directory, error) {
	var d directory
	stop, end, err := a.findEnd(size)
	if err != nil {
		return d, err
	}
	switch {
	case le.Uint16(end[4:]) != 0 || le.Uint16(end[6:]) != 0:
		return d, defect(Malformed, "split over several disks")
	case le.Uint16(end[8:]) != le.Uint16(end[10:]):
		return d, defect(Malformed, "two entry counts that differ")
	}
	d.entries, d.size, d.offset = uint64(le.Uint16(end[10:])), int64(le.Uint32(end[12:])), int64(le.Uint32(end[16:]))
	need64 := d.entries == 0xffff || d.size == saturated || d.offset == saturated
	var loc []byte
	if stop >= lenLocator64+lenEnd64 {
		if loc, err = readAt(a.r, stop-lenLocator64, lenLocator64); err != nil {
			return d, err
		}
	}
	switch {
	case loc != nil && le.Uint32(loc) == sigLocator64:
		stop -= lenLocator64 + lenEnd64
		if d, err = a.directory64(loc, stop, d); err != nil {
			return d, err
		}
	case need64:
		return d, defect(Malformed, "zip64 locator missing")
	}
	return d, a.checkDirectory(&d, stop)
}

// checkDirectory sees that the directory ends at stop and fills in where it
// lies. With data before the archive, offsets may count from the archive's
// start.
func (a *Archive) checkDirectory(d *directory, stop int64) error {
	switch {
	case d.size < 0 || d.offset < 0 || d.offset > maxOffset:
		return defect(Malformed, "the central directory does not end where the end record starts")
	case d.size > a.o.Limits.Directory:
		return defect(TooMany, "a central directory of %d bytes, at most %d are read", d.size, a.o.Limits.Directory)
	case d.entries > uint64(max(a.o.Limits.Entries, 0)) || d.entries == 0 && !a.o.Empty:
		k := TooMany
		if d.entries == 0 {
			k = Malformed
		}
		return defect(k, "%d entries, want 1 to %d", d.entries, a.o.Limits.Entries)
	}
	d.at = stop - d.size
	if d.at == d.offset {
		return nil
	}
	wrong := defect(Malformed, "the central directory does not end where the end record starts")
	if d.at < d.offset || a.o.Report == nil {
		return wrong
	}
	if d.entries == 0 {
		return a.tolerate(defect(Prefix, "%d bytes before the archive", d.at-d.offset))
	}
	// Data before the archive moves everything, so a header must be there.
	sig := make([]byte, 4)
	if err := fill(a.r, d.at, sig); err != nil {
		return err
	}
	if le.Uint32(sig) != sigCentral {
		return wrong
	}
	return nil
}

// directory64 reads the zip64 end record at offset at; small holds what the
// plain end record says, which must agree where it is not saturated.
func (a *Archive) directory64(loc []byte, at int64, small directory) (directory, error) {
	var d directory
	end, err := readAt(a.r, at, lenEnd64)
	if err != nil {
		return d, err
	}
	says := le.Uint64(loc[8:])
	moved := a.o.Report != nil && says < uint64(max(at, 0)) // by data before the archive
	switch {
	case le.Uint32(loc[4:]) != 0 || says != uint64(max(at, 0)) && !moved || le.Uint32(loc[16:]) > 1:
		return d, defect(Malformed, "the zip64 locator points elsewhere")
	case le.Uint32(end) != sigEnd64 || le.Uint64(end[4:]) != lenEnd64-12:
		return d, defect(Malformed, "malformed zip64 end record")
	case le.Uint32(end[16:]) != 0 || le.Uint32(end[20:]) != 0 || le.Uint64(end[24:]) != le.Uint64(end[32:]):
		return d, defect(Malformed, "split over several disks")
	}
	d.entries = le.Uint64(end[32:])
	if le.Uint64(end[40:]) > maxOffset || le.Uint64(end[48:]) > maxOffset {
		return d, defect(Malformed, "central directory too large")
	}
	d.size, d.offset = int64(le.Uint64(end[40:])), int64(le.Uint64(end[48:])) //nolint:gosec // bounded just above
	if small.entries != 0xffff && small.entries != d.entries || small.size != saturated && small.size != d.size ||
		small.offset != saturated && small.offset != d.offset {
		return d, defect(Malformed, "the end record and the zip64 end record differ")
	}
	if moved && d.offset+d.size != int64(says) { //nolint:gosec // less than at
		return d, defect(Malformed, "the zip64 locator points elsewhere")
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

// readDirectory fills the entries.
func (a *Archive) readDirectory(d directory) error {
	buf := newByteReader(io.NewSectionReader(a.r, d.at, d.size))
	a.Entries = make([]Entry, 0, min(d.entries, firstAllocation))
	var total, packed int64
	for range d.entries {
		h, offset, mode, err := readCentral(buf)
		if err != nil {
			if _, ok := errors.AsType[*Defect](err); ok {
				return defect(Malformed, "central directory, entry %d: %v", len(a.Entries)+1, err)
			}
			return err
		}
		if h.packed > MaxUnpacked || h.size > MaxUnpacked || offset > maxOffset {
			return of(h.name, defect(TooLarge, "too large"))
		}
		e := Entry{
			Name: h.name, flags: h.flags, method: h.method, CRC: h.crc,
			Packed: int64(h.packed), Size: int64(h.size), local: int64(offset), // bounded just above
			Stored: h.method == methodStored,
			Folder: h.name[len(h.name)-1] == '/',
		}
		if err := a.checkEntry(&e, mode); err != nil {
			return of(h.name, err)
		}
		total, packed = total+e.Size, packed+e.Packed
		if total > a.o.Limits.Unpacked {
			return defect(TooLarge, "unpacks to over %d bytes", a.o.Limits.Unpacked)
		}
		a.Entries = append(a.Entries, e)
	}
	if buf.left() != 0 {
		return defect(Malformed, "more in the central directory than its entries")
	}
	if total > BombSize && total/a.o.Limits.Ratio > packed {
		return defect(TooEffective, "unpacks to %d bytes from %d: a bomb", total, packed)
	}
	return nil
}

func readCentral(b *byteReader) (h header, offset uint64, mode uint32, err error) {
	f, err := b.next(lenCentral)
	if err != nil {
		return h, 0, 0, short(err)
	}
	if le.Uint32(f) != sigCentral {
		return h, 0, 0, defect(Malformed, "wrong signature")
	}
	h = header{flags: le.Uint16(f[8:]), method: le.Uint16(f[10:]), crc: le.Uint32(f[16:]), packed: uint64(le.Uint32(f[20:])), size: uint64(le.Uint32(f[24:]))}
	nName, nExtra, nComment := int(le.Uint16(f[28:])), int(le.Uint16(f[30:])), int(le.Uint16(f[32:]))
	disk := le.Uint16(f[34:])
	mode, offset = le.Uint32(f[38:])>>16, uint64(le.Uint32(f[42:]))
	if nName == 0 || nName > MaxName {
		return h, 0, 0, defect(Malformed, "name of %d bytes", nName)
	}
	if f, err = b.next(nName); err != nil {
		return h, 0, 0, short(err)
	}
	h.name = string(f)
	if f, err = b.next(nExtra); err != nil {
		return h, 0, 0, short(err)
	}
	var wide [3]*uint64
	n := 0
	for _, v := range [...]*uint64{&h.size, &h.packed, &offset} {
		if *v == saturated {
			wide[n] = v
			n++
		}
	}
	if err := readExtra(f, wide[:n], false); err != nil {
		return h, 0, 0, err
	}
	if err := b.skip(nComment); err != nil {
		return h, 0, 0, short(err)
	}
	if disk != 0 {
		return h, 0, 0, defect(Malformed, "on another disk")
	}
	return h, offset, mode, nil
}

// short makes the early end of a section a defect.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return defect(Malformed, "ends early")
	}
	return err
}

// readExtra walks the extra fields and fills the saturated values from the
// zip64 field, which must be there exactly if something is saturated. A
// writer may keep room for both sizes in a local header.
func readExtra(b []byte, wide []*uint64, local bool) error {
	found := false
	for len(b) > 0 {
		if len(b) < 4 || len(b) < 4+int(le.Uint16(b[2:])) {
			return defect(Malformed, "malformed extra field")
		}
		id, data := le.Uint16(b), b[4:4+int(le.Uint16(b[2:]))]
		b = b[4+len(data):]
		switch id {
		case extraUnicodePath:
			return defect(Malformed, "a second name in an extra field")
		case extraZip64:
			if found || len(data) != 8*len(wide) && (!local || len(wide) > 0) {
				return defect(Malformed, "malformed zip64 field")
			}
			found = true
			for i, v := range wide {
				*v = le.Uint64(data[8*i:])
			}
		}
	}
	if !found && len(wide) > 0 {
		return defect(Malformed, "zip64 field missing")
	}
	return nil
}
