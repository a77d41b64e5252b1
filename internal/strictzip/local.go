package strictzip

import (
	"cmp"
	"slices"
)

// checkLocals compares every local header with the directory and sees that
// the entries fill everything before it without gap or overlap.
func (a *Archive) checkLocals(dir directory) error {
	order := make([]int32, len(a.Entries))
	for i := range order {
		order[i] = int32(i) // bounded by the limit of entries
	}
	slices.SortStableFunc(order, func(x, y int32) int { return cmp.Compare(a.Entries[x].local, a.Entries[y].local) })
	c := locals{a: a, base: dir.at - dir.offset, end: dir.at, buf: make([]byte, 0, lenLocal+MaxName)}
	if len(order) == 0 {
		if dir.at > 0 && c.base == 0 {
			return a.tolerate(defect(Prefix, "%d bytes before the archive", dir.at))
		}
		return nil
	}
	next := c.base
	for n, i := range order {
		e := &a.Entries[i]
		e.local += c.base
		if err := c.place(e, next, n == 0); err != nil {
			return of(e.Name, err)
		}
		stop := dir.at
		if n+1 < len(order) {
			stop = min(a.Entries[order[n+1]].local+c.base, dir.at)
		}
		if err := c.check(e); err != nil {
			return of(e.Name, err)
		}
		var err error
		if next, err = c.behind(e, stop); err != nil {
			return of(e.Name, err)
		}
	}
	if next != dir.at {
		return a.tolerate(defect(Gap, "data between the entries and the central directory"))
	}
	return nil
}

// locals goes through the local headers in the order in which they lie.
type locals struct {
	a    *Archive
	base int64 // what offsets count from
	end  int64 // of the entries
	buf  []byte
}

// place sees that an entry lies where the one before ended.
func (c *locals) place(e *Entry, next int64, first bool) error {
	const text = "data before or between entries, or entries that overlap"
	switch {
	case e.local < next:
		return defect(Malformed, text)
	case first && e.local > 0:
		// c.base is above 0 only where such data is let pass.
		return c.a.tolerate(&Defect{Kind: Prefix, Name: clip(e.Name), Text: text})
	case e.local > next:
		return c.a.tolerate(&Defect{Kind: Gap, Name: clip(e.Name), Text: text})
	}
	return nil
}

// check compares the local header with the directory and fills in where the
// packed bytes start.
func (c *locals) check(e *Entry) error {
	bad := func(text string) error { return defect(Malformed, "local header: %s", text) }
	// The name is read with the header, to ask the reader once.
	f := c.buf[:lenLocal+len(e.Name)]
	if e.local+int64(len(f)) > c.end {
		return bad("reaches into the central directory")
	}
	if err := fill(c.a.r, e.local, f); err != nil {
		return err
	}
	if le.Uint32(f) != sigLocal {
		return bad("wrong signature")
	}
	nName, nExtra := int(le.Uint16(f[26:])), int(le.Uint16(f[28:]))
	if nName != len(e.Name) || string(f[lenLocal:]) != e.Name {
		return bad("another name than in the directory")
	}
	crc, packed, size := le.Uint32(f[14:]), uint64(le.Uint32(f[18:])), uint64(le.Uint32(f[22:]))
	head := int64(lenLocal + nName + nExtra)
	if e.local+head+e.Packed > c.end {
		return bad("reaches into the central directory")
	}
	if nExtra > 0 {
		extra, err := readAt(c.a.r, e.local+lenLocal+int64(nName), nExtra)
		if err != nil {
			return err
		}
		var wide []*uint64
		if size == saturated || packed == saturated {
			wide = []*uint64{&size, &packed} // both are there in a local header
		}
		if err := readExtra(extra, wide, true); err != nil {
			return bad(err.Error())
		}
	}
	// With a descriptor the header may leave out what stands there.
	unknown := e.flags&flagDescriptor != 0
	differs := func(local, want uint64) bool { return local != want && (!unknown || local != 0) }
	switch {
	case le.Uint16(f[6:]) != e.flags:
		return bad("other flags than in the directory")
	case le.Uint16(f[8:]) != e.method:
		return bad("another compression method than in the directory")
	case differs(uint64(crc), uint64(e.CRC)) || differs(packed, uint64(max(e.Packed, 0))) || differs(size, uint64(max(e.Size, 0))):
		return bad("other sizes or checksum than in the directory")
	}
	e.start = e.local + head
	return nil
}

// behind reads the data descriptor, if there is one, and returns where the
// entry ends. The next one starts at stop, so that all of its forms can be
// told apart.
func (c *locals) behind(e *Entry, stop int64) (int64, error) {
	end := e.start + e.Packed
	if e.flags&flagDescriptor == 0 {
		return end, nil
	}
	b := make([]byte, max(0, min(24, stop-end)))
	if err := fill(c.a.r, end, b); err != nil {
		return 0, err
	}
	full := b
	for _, signed := range []bool{true, false} {
		for _, n := range []int{8, 4} {
			b := full
			if signed {
				if len(b) < 4 || le.Uint32(b) != sigDescriptor {
					continue
				}
				b = b[4:]
			}
			if len(b) < 4+2*n || le.Uint32(b) != e.CRC || size(b[4:], n) != uint64(max(e.Packed, 0)) || size(b[4+n:], n) != uint64(max(e.Size, 0)) {
				continue
			}
			return end + int64(len(full)-len(b)) + int64(4+2*n), nil
		}
	}
	return 0, defect(Malformed, "the data descriptor says something else than the directory")
}

func size(b []byte, n int) uint64 {
	if n == 8 {
		return le.Uint64(b)
	}
	return uint64(le.Uint32(b))
}
