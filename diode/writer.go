package diode

import (
	"fmt"
	"os"
)

// A segmentKind is the file that a segment goes to.
type segmentKind int

const (
	dataSegment segmentKind = iota
	paritySegment
)

// A segment is a run of neighbouring symbols in a slab.
type segment struct {
	generation *generation
	kind       segmentKind
	at         int64 // in its file
	from, to   int   // in the slab
	bit, count int
}

// A slab carries symbols from the packets' thread to the disk.
type slab struct {
	buf  []byte
	segs []segment
}

// work is what goes through the writer, in order: a slab to write; a
// generation or an object that is for the worker once everything before it is
// on disk; or a function to be called then.
type work struct {
	slab       *slab
	generation *generation
	object     *object
	call       func() error
}

// keep appends a symbol to the slab.
func (r *Receiver) keep(g *generation, kind segmentKind, at int64, bit int, p []byte) {
	s := r.slab
	if len(s.buf)+len(p) > cap(s.buf) {
		r.flush()
		s = r.slab
	}
	from := len(s.buf)
	s.buf = append(s.buf, p...)
	if n := len(s.segs); n > 0 {
		l := &s.segs[n-1]
		if l.generation == g && l.kind == kind && l.bit+l.count == bit && l.at+int64(l.to-l.from) == at {
			l.to = len(s.buf)
			l.count++
			return
		}
	}
	s.segs = append(s.segs, segment{g, kind, at, from, len(s.buf), bit, 1})
}

// flush hands the slab to the writer and takes an empty one. It waits when
// the disk is slower than the link: meanwhile the socket's ring holds what
// comes.
func (r *Receiver) flush() {
	if len(r.slab.buf) == 0 {
		return
	}
	r.queue <- work{slab: r.slab}
	select {
	case r.slab = <-r.free:
	default:
		r.counts.stalls.Add(1)
		r.slab = <-r.free
	}
}

// after has the writer call f when all that was received before is written.
func (r *Receiver) after(f func() error) {
	r.flush()
	r.queue <- work{call: f}
}

// write is the writer. After a failure it drops what comes, so that nobody
// waits for it.
func (r *Receiver) write() {
	defer close(r.jobs)
	broken := false
	for w := range r.queue {
		switch {
		case w.slab != nil:
			for _, seg := range w.slab.segs {
				if broken {
					break
				}
				if err := writeSegment(seg, w.slab.buf); err != nil {
					broken = true
					r.fail(err)
				}
			}
			w.slab.buf, w.slab.segs = w.slab.buf[:0], w.slab.segs[:0]
			r.free <- w.slab
		case w.call != nil:
			if err := w.call(); err != nil {
				r.fail(err)
			}
		case !broken:
			r.jobs <- w
		}
	}
}

func writeSegment(s segment, buf []byte) error {
	files := s.generation.object.files
	var f *os.File
	if s.kind == dataSegment {
		f = files.data
	} else {
		var err error
		if f, err = files.parityFile(s.generation.n); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(buf[s.from:s.to], s.at); err != nil {
		return fmt.Errorf("write %s of object %s: %w", files.name, files.dir, err)
	}
	s.generation.wrote(s.bit, s.count)
	return nil
}
