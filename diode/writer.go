package diode

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// writePriority is a nice value: before everything but the packets' thread.
const writePriority = -9

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

// A slabPool holds the empty slabs. The one that came back last is given out
// first, since the processor's caches still have it.
type slabPool struct {
	mu    sync.Mutex
	list  []*slab
	again chan struct{} // one came back
}

func newSlabPool() *slabPool {
	p := &slabPool{again: make(chan struct{}, 1)}
	for range slabs {
		p.list = append(p.list, &slab{buf: make([]byte, 0, slabSize)})
	}
	return p
}

func (p *slabPool) put(s *slab) {
	p.mu.Lock()
	p.list = append(p.list, s)
	p.mu.Unlock()
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// get is for one goroutine; waited tells that there was none.
func (p *slabPool) get() (s *slab, waited bool) {
	for {
		p.mu.Lock()
		if n := len(p.list); n > 0 {
			s = p.list[n-1]
			p.list = p.list[:n-1]
		}
		p.mu.Unlock()
		if s != nil {
			return s, waited
		}
		waited = true
		<-p.again
	}
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

// size is that of the object of a job.
func (w work) size() int64 {
	if w.generation != nil {
		return w.generation.object.size
	}
	return w.object.size
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
	r.slabbed = time.Time{}
	r.queue <- work{slab: r.slab}
	stalled := false
	if r.slab, stalled = r.free.get(); stalled {
		r.counts.stalls.Add(1)
	}
}

// flushOld hands on a slab that has waited long enough to be filled: every one
// handed on wakes the writer.
func (r *Receiver) flushOld(now time.Time) {
	switch {
	case len(r.slab.buf) == 0:
	case r.slabbed.IsZero():
		r.slabbed = now
	case now.Sub(r.slabbed) >= slabTime:
		r.flush()
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
	defer func() {
		close(r.heavy)
		close(r.light)
		close(r.saves)
	}()
	// When the writer waits for a processor, so do packets soon. The thread ends
	// with this goroutine.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, writePriority) // needs CAP_SYS_NICE, and does without
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
			r.free.put(w.slab)
		case w.call != nil:
			if err := w.call(); err != nil {
				r.fail(err)
			}
		case broken:
		case w.size() <= lightSize:
			r.light <- w
		default:
			r.heavy <- w
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
