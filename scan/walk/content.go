package walk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"sync"
)

// maxHeld bounds what archives that are open at once may hold in memory:
// directories of zip archives, and dictionaries of 7z archives, whose largest
// usual one is this. Streams are decompressed to their end before anything in
// them is opened.
const maxHeld = 64 << 20

// copySize is the buffer through which bytes are hashed and unpacked; the
// tail of a small file is still in it then.
const copySize = 128 << 10

// tools are what a walk needs again and again.
type tools struct {
	buf    []byte
	head   []byte
	sha    hash.Hash
	stream streamTools
}

// toolbox keeps tools from one walk to the next.
var toolbox = sync.Pool{New: func() any {
	return &tools{buf: make([]byte, copySize), head: make([]byte, headSize), sha: sha256.New()}
}}

// putBack keeps the tools for the next walk, but none of the bytes of this.
func (t *tools) putBack() {
	if t.stream.in != nil {
		t.stream.in.Reset(nil)
	}
	toolbox.Put(t)
}

// A fault is the first error of reading bytes, which says nothing of an
// archive.
type fault struct {
	mu  sync.Mutex
	err error
}

func (f *fault) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *fault) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// watched bytes remember an error of the disk.
type watched struct {
	r    io.ReaderAt
	size int64
	f    *fault
}

func (w *walker) watch(r io.ReaderAt, size int64) io.ReaderAt { return &watched{r, size, &w.disk} }

// ReadAt passes on.
func (r *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.r.ReadAt(p, off)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		r.f.set(fmt.Errorf("read: %w", err))
	case off+int64(n) < r.size && n < len(p):
		r.f.set(fmt.Errorf("read: %d bytes, want %d: %w", max(0, off)+int64(n), r.size, io.ErrUnexpectedEOF))
	}
	return n, err
}

// A hostError is one of this machine: the scratch folder's.
type hostError struct{ error }

// examine reads a file once: what kind it is, its digest unless that is known,
// and its checksum if that is to be compared.
func (w *walker) examine(f *File, p place, c checks) error {
	t := w.tools
	head := t.head[:0]
	var sum uint32
	if !c.digested {
		t.sha.Reset()
	}
	for off := int64(0); off < f.Size; {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		b := t.buf[:min(int64(len(t.buf)), f.Size-off)]
		if c.digested {
			b = b[:min(len(b), headSize)]
		}
		if n, err := f.content.ReadAt(b, off); n < len(b) {
			return errors.Join(fmt.Errorf("read %q: %w", f.Name(), err), w.disk.get())
		}
		if off == 0 {
			head = append(head, b[:min(len(b), headSize)]...)
		}
		if c.digested {
			break
		}
		_, _ = t.sha.Write(b) // a hash does not fail
		if c.crc {
			sum = crc32.Update(sum, crc32.IEEETable, b)
		}
		off += int64(len(b))
	}
	if !c.digested {
		t.sha.Sum(f.Digest[:0])
	}
	if c.crc && sum != c.sum {
		w.problem(CodeCRC, c.of, f.Path, "the checksum is %08x, the archive says %08x", sum, c.sum)
	}
	f.Kind = sniff(head, f.content, f.Size)
	if f.Kind == Data && p.tree && emptyTar(head, f.Size) {
		f.Kind = Tar
	}
	return w.disk.get()
}

// emptyTar tells the tar archive of an empty layer, which is zeros alone.
func emptyTar(head []byte, size int64) bool {
	const block, most = 512, 10240 // the largest record that writers pad to
	return size >= 2*block && size <= most && size%block == 0 && len(bytes.Trim(head, "\x00")) == 0
}

// endsAsZip reports whether a file that starts as something else ends as a
// zip archive.
func (w *walker) endsAsZip(f *File) bool {
	const lenEnd = 22
	if f.Size < lenEnd {
		return false
	}
	n := min(f.Size, tailSize)
	tail := w.tools.buf[:n]
	if m, err := f.content.ReadAt(tail, f.Size-n); int64(m) < n {
		w.disk.set(err)
		return false
	}
	for i := 0; ; i++ {
		next := bytes.Index(tail[i:], []byte("PK\x05\x06"))
		if next < 0 {
			return false
		}
		if i += next; w.isEnd(f, tail[i:], f.Size-n+int64(i)) {
			return true
		}
	}
}

// isEnd tells an end record, at offset at, by the directory that it names.
func (w *walker) isEnd(f *File, b []byte, at int64) bool {
	const lenEnd = 22
	if len(b) < lenEnd || len(b) < lenEnd+int(binary.LittleEndian.Uint16(b[20:])) || binary.LittleEndian.Uint16(b[10:]) == 0 {
		return false
	}
	var sig [4]byte
	is := func(off int64, want string) bool {
		if off < 0 {
			return false
		}
		n, err := f.content.ReadAt(sig[:], off)
		return n == len(sig) && (err == nil || errors.Is(err, io.EOF)) && string(sig[:]) == want
	}
	return is(at-int64(binary.LittleEndian.Uint32(b[12:])), "PK\x01\x02") || is(at-20, "PK\x06\x07")
}

// room says how much a stream of so many packed bytes may unpack to, and what
// is to be told if that is not enough.
func (w *walker) room(packed int64) (int64, *flaw) {
	l := w.o.Limits
	times := func(n int64) int64 {
		if n > math.MaxInt64/l.Ratio {
			return math.MaxInt64
		}
		return max(ratioFloor, n*l.Ratio)
	}
	n, fl := times(packed), &flaw{
		code: CodeRatio, notScanned: true,
		text: fmt.Sprintf("%d bytes unpack to more than %d: a bomb", packed, times(packed)),
	}
	if all := times(w.size) - w.unpacked; all < n {
		n, fl = all, &flaw{
			code: CodeRatio, notScanned: true, stop: true,
			text: fmt.Sprintf("%d bytes unpack to more than %d in all: a bomb; the rest of the blob was not looked at", w.size, times(w.size)),
		}
	}
	if all := l.Unpacked - w.unpacked; all < n {
		n, fl = all, &flaw{
			code: CodeSize, notScanned: true, stop: true,
			text: fmt.Sprintf("unpacks to more than %d bytes in all; the rest of the blob was not looked at", l.Unpacked),
		}
	}
	return n, fl
}

// unpack reads a stream to its end into f: into memory, or a nameless file
// in the scratch folder. size is what is declared, -1 if nothing is. On a flaw
// of the stream itself f holds what came before it; on other errors nothing.
func (w *walker) unpack(f *File, src io.Reader, size, packed int64) (err error) {
	most, over := w.room(packed)
	if size > most {
		return over
	}
	s := sink{memory: w.o.Memory, folder: w.o.Scratch}
	if size > 0 && size <= w.o.Memory {
		s.mem = make([]byte, 0, size)
	}
	t := w.tools
	t.sha.Reset()
	for err == nil {
		if w.ctx.Err() != nil {
			return errors.Join(context.Cause(w.ctx), s.drop())
		}
		var n int
		n, err = src.Read(t.buf)
		w.unpacked += int64(n)
		if s.size+int64(n) > most {
			return errors.Join(over, s.drop())
		}
		_, _ = t.sha.Write(t.buf[:n]) // a hash does not fail
		if werr := s.write(t.buf[:n]); werr != nil {
			return errors.Join(&hostError{werr}, s.drop())
		}
	}
	f.Size = s.size
	t.sha.Sum(f.Digest[:0])
	if s.file == nil {
		f.content = bytes.NewReader(s.mem)
	} else {
		f.content, f.temp = w.watch(s.file, s.size), s.file
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return asFlaw(err)
}

// A sink takes bytes into memory, and into a file when they are too many.
type sink struct {
	memory int64
	folder string
	mem    []byte
	file   *os.File
	size   int64
}

func (s *sink) write(b []byte) error {
	s.size += int64(len(b))
	if s.file == nil && s.size <= s.memory {
		s.mem = append(s.mem, b...)
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.folder, "unpacked-")
		if err != nil {
			return fmt.Errorf("scratch file: %w", err)
		}
		// Without a name it goes when it is closed, however this ends.
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("scratch file: %w", err), f.Close())
		}
		s.file = f
		if _, err := f.Write(s.mem); err != nil {
			return fmt.Errorf("scratch file: %w", err)
		}
		s.mem = nil
	}
	if _, err := s.file.Write(b); err != nil {
		return fmt.Errorf("scratch file: %w", err)
	}
	return nil
}

func (s *sink) drop() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
