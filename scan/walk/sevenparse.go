package walk

import "encoding/binary"

// header reads what follows the first byte of a header.
func (d *sevenParser) header() *sevenInfo {
	info := &sevenInfo{}
	id := d.byte()
	if id == sevenMainStreams {
		info = d.streams()
		id = d.byte()
	}
	if id == sevenFilesInfo {
		d.files(info)
		id = d.byte()
	}
	if d.err == nil && id != sevenEnd {
		d.fail("7z: property %#x in the header", id)
	}
	return info
}

// streams reads where the packed bytes are, and how they are packed.
func (d *sevenParser) streams() *sevenInfo {
	info := &sevenInfo{}
	id := d.byte()
	if id == sevenPackInfo {
		d.packInfo(info)
		id = d.byte()
	}
	if id == sevenUnpackInfo {
		d.unpackInfo(info)
		id = d.byte()
	}
	if id == sevenSubStreams {
		d.subStreams(info)
		id = d.byte()
	}
	if d.err == nil && id != sevenEnd {
		d.fail("7z: property %#x among the streams", id)
	}
	d.place(info)
	return info
}

func (d *sevenParser) packInfo(info *sevenInfo) {
	info.packAt = d.number()
	n := d.count()
	if !d.expect(sevenSize, "the sizes") {
		return
	}
	total := info.packAt
	for range n {
		size := d.number()
		if total > d.end || size > d.end-total {
			d.fail("7z: packed streams behind the end")
			return
		}
		total += size
		info.sizes = append(info.sizes, size)
	}
	id := d.byte()
	if id == sevenCRC {
		d.defined(n, 4, false)
		id = d.byte()
	}
	if d.err == nil && id != sevenEnd {
		d.fail("7z: property %#x among the packed streams", id)
	}
}

func (d *sevenParser) unpackInfo(info *sevenInfo) {
	if !d.expect(sevenFolder, "a folder") {
		return
	}
	n := d.count()
	if d.byte() != 0 {
		d.fail("7z: folders outside of the header")
	}
	for range n {
		if d.err != nil {
			return
		}
		info.folders = append(info.folders, d.folder())
	}
	if !d.expect(sevenUnpackSize, "the unpacked sizes") {
		return
	}
	for i := range info.folders {
		fo := &info.folders[i]
		for range fo.coders {
			fo.sizes = append(fo.sizes, d.number())
		}
		if d.err != nil {
			return
		}
		fo.measure()
	}
	id := d.byte()
	if id == sevenCRC {
		d.defined(n, 4, false)
		id = d.byte()
	}
	if d.err == nil && id != sevenEnd {
		d.fail("7z: property %#x among the folders", id)
	}
}

// folder reads a chain of coders. The library wants each coder behind those
// that feed it, so that the last one gives the files.
func (d *sevenParser) folder() sevenFolderInfo {
	fo := sevenFolderInfo{streams: 1}
	n := d.count()
	if n == 0 || n > maxCoders {
		d.fail("7z: a folder of %d coders", n)
		return fo
	}
	in, out := 0, 0
	for range n {
		c := d.coder()
		if d.err != nil {
			return fo
		}
		in, out = in+c.in, out+c.out
		fo.coders = append(fo.coders, c)
	}
	bound := make([]bool, out)
	for range out - 1 {
		from, to := d.number(), d.number()
		if from >= uint64(in) || to >= uint64(out) || bound[to] { // not negative
			d.fail("7z: coders that are bound to nothing")
			return fo
		}
		bound[to] = true
	}
	for i, b := range bound {
		if !b {
			fo.main = i
		}
	}
	fo.ports = in - (out - 1)
	if fo.ports < 1 {
		d.fail("7z: a folder without packed streams")
		return fo
	}
	if fo.ports > 1 {
		for range fo.ports {
			if d.number() >= uint64(in) { // not negative
				d.fail("7z: a packed stream for no coder")
			}
		}
	}
	return fo
}

func (d *sevenParser) coder() sevenCoder {
	flags := d.byte()
	c := sevenCoder{method: string(d.take(uint64(flags & 0xf))), in: 1, out: 1}
	if flags&0x10 != 0 {
		in, out := d.number(), d.number()
		if in == 0 || in > maxCoderPorts || out != 1 {
			d.fail("7z: a coder with %d inputs and %d outputs", in, out)
			return c
		}
		c.in = int(in) // bounded just above
	}
	if flags&0x20 != 0 {
		c.properties = d.take(d.number())
	}
	if flags&0xc0 != 0 {
		d.fail("7z: a coder with unknown flags %#x", flags)
	}
	return c
}

// measure says what a folder's coders need.
func (fo *sevenFolderInfo) measure() {
	for i, c := range fo.coders {
		need := uint64(smallCoderMemory)
		switch c.method {
		case methodCopy, methodDelta, methodBCJ, methodBCJ2, methodPPC, methodARM, methodSPARC, methodDeflate:
		case methodBzip2:
			need = bzip2Memory
		case methodLZMA:
			if len(c.properties) != 5 {
				fo.unknown = true
				break
			}
			// The library's dictionary is no larger than what it unpacks.
			need += min(uint64(binary.LittleEndian.Uint32(c.properties[1:])), fo.sizes[i])
		case methodLZMA2:
			if len(c.properties) != 1 || c.properties[0] > 40 {
				fo.unknown = true
				break
			}
			p := c.properties[0]
			need += uint64(2|p&1) << (p/2 + 11)
		case methodAES:
			fo.encrypted = true
		default:
			fo.unknown = true
		}
		fo.memory += int64(min(need, 1<<40)) // bounded
	}
}

// subStreams reads how many files lie in each folder, in the library's
// reading.
func (d *sevenParser) subStreams(info *sevenInfo) {
	if len(info.folders) == 0 {
		d.fail("7z: files in no folder")
		return
	}
	id := d.byte()
	total := uint64(len(info.folders))
	if id == sevenNumStreams {
		total = 0
		for i := range info.folders {
			n := d.number()
			if n == 0 || n > maxSevenFiles {
				d.tooMany(n)
				return
			}
			info.folders[i].streams, total = n, total+n
		}
		id = d.byte()
	}
	if total > maxSevenFiles {
		d.tooMany(total)
		return
	}
	several := total > uint64(len(info.folders))
	if several && id != sevenSize {
		d.fail("7z: property %#x where the sizes of files are expected", id)
		return
	}
	if id == sevenSize {
		for _, fo := range info.folders {
			left := fo.sizes[fo.main]
			for range fo.streams - 1 {
				n := d.number()
				if n > left {
					d.fail("7z: files larger than their folder")
					return
				}
				left -= n
			}
		}
		id = d.byte()
	}
	if id == sevenCRC {
		d.defined(int(total), 4, false) // bounded just above
		id = d.byte()
	}
	if d.err == nil && id != sevenEnd {
		d.fail("7z: property %#x among the files' streams", id)
	}
}

func (d *sevenParser) tooMany(n uint64) {
	if n == 0 {
		d.fail("7z: a folder without files")
		return
	}
	if d.err == nil {
		d.err = &flaw{code: CodeEntries, notScanned: true, text: "7z: more than 65536 files"}
	}
	d.b = nil
}

// place gives every folder its packed streams.
func (d *sevenParser) place(info *sevenInfo) {
	next := 0
	for i := range info.folders {
		fo := &info.folders[i]
		if fo.ports > len(info.sizes)-next {
			d.fail("7z: fewer packed streams than folders want")
			return
		}
		for _, n := range info.sizes[next:][:fo.ports] {
			fo.packed += int64(n) //nolint:gosec // together less than the file
		}
		next += fo.ports
	}
}

// files reads names and attributes.
func (d *sevenParser) files(info *sevenInfo) {
	n := d.number()
	if n > maxSevenFiles {
		d.tooMany(n)
		return
	}
	if n*uint64(len(info.folders)) > maxSevenWork {
		d.tooMany(n)
		return
	}
	info.files = int(n) // bounded just above
	empty := 0
	var had [256]bool
	for d.err == nil {
		id := d.byte()
		if id == sevenEnd {
			break
		}
		size := d.number()
		if d.err != nil || size > uint64(len(d.b)) || had[id] && id != sevenDummy {
			d.fail("7z: property %#x of the files is too long, or there twice", id)
			return
		}
		had[id] = true
		rest := d.b[size:]
		d.b = d.b[:size]
		d.fileProperty(id, info.files, &empty)
		if d.err == nil && len(d.b) > 0 {
			d.fail("7z: property %#x of the files has another length", id)
		}
		if d.err == nil {
			d.b = rest
		}
	}
	want := uint64(0)
	for _, fo := range info.folders {
		want += fo.streams
	}
	if d.err == nil && uint64(info.files-empty) != want { //nolint:gosec // not negative
		d.fail("7z: %d files with content for %d streams", info.files-empty, want)
	}
}

func (d *sevenParser) fileProperty(id byte, files int, empty *int) {
	switch id {
	case sevenEmptyStream:
		for _, is := range d.bits(files) {
			if is {
				*empty++
			}
		}
	case sevenEmptyFile:
		d.bits(*empty)
	case sevenNames:
		if d.byte() != 0 {
			d.fail("7z: names outside of the header")
		}
		n := 0
		for i := 0; i+1 < len(d.b); i += 2 {
			if d.b[i]|d.b[i+1] == 0 {
				n++
			}
		}
		if len(d.b)%2 != 0 || n != files {
			d.fail("7z: %d names for %d files", n, files)
		}
		d.b = d.b[len(d.b):]
	case sevenCTime, sevenATime, sevenMTime:
		d.defined(files, 8, true)
	case sevenAttributes:
		d.defined(files, 4, true)
	case sevenDummy:
		d.b = d.b[len(d.b):]
	default:
		d.fail("7z: unknown property %#x of the files", id)
	}
}
