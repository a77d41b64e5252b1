package remote

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// stallTime is how long a request's body may make no progress.
const stallTime = 60 * time.Second

var errStalled = errors.New("the registry takes no bytes any more")

// A piece is the body of one request: so many bytes of a blob from where its
// content stands. They are hashed on their way, in the buffer that the
// connection reads into, so that nothing is copied for it. At the end of the
// blob the last bytes are held back where the digest is wrong: the registry
// then never gets the whole.
//
// net/http may go on reading for a while after a reply has come; detach ends
// that.
type piece struct {
	mu    sync.Mutex
	src   io.Reader
	left  int64
	hash  hash.Hash             // nil where the content is proven
	check func(hash.Hash) error // nil where the blob does not end here
	tell  func(int64)
	err   error // what was wrong on our own side

	stall time.Duration
	timer *time.Timer
	stop  context.CancelCauseFunc

	// Where net/http reads the file itself:
	file  *os.File
	end   int64
	at    int64 // reported so far
	done  chan struct{}
	watch sync.WaitGroup
}

var errDetached = errors.New("the request is over")

// Read reads, hashes and, at the end, checks.
func (p *piece) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.src == nil {
		return 0, errDetached
	}
	if p.err != nil {
		return 0, p.err
	}
	if p.left == 0 {
		p.timer.Stop()
		return 0, io.EOF
	}
	p.timer.Reset(p.stall)
	n, err := p.src.Read(b[:min(int64(len(b)), p.left)])
	if p.hash != nil {
		_, _ = p.hash.Write(b[:n]) // hash.Hash never fails
	}
	p.left -= int64(n)
	if p.left > 0 && err != nil {
		if errors.Is(err, io.EOF) {
			err = errShort
		}
		p.err = &ownError{err}
		return 0, p.err
	}
	if p.left == 0 && p.check != nil {
		if err := p.check(p.hash); err != nil {
			p.err = &ownError{err}
			return 0, p.err
		}
	}
	p.tell(int64(n))
	return n, nil
}

// Close does nothing: the content is another's.
func (p *piece) Close() error { return nil }

// detach takes the content away from the request, and says what was wrong
// with it.
func (p *piece) detach() error {
	if p.file != nil {
		close(p.done)
		p.watch.Wait()
		_, err := p.look()
		p.left = p.end - p.at
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.src = nil
	p.timer.Stop()
	return p.err
}

// reader is what net/http reads for a piece. The rest of a verified file is
// the file itself, which the kernel sends without a copy; its offset then
// tells how far it came. net/http knows it only unwrapped, and closes it: so
// it gets a descriptor of its own, which has the offset in common.
func (u *uploader) reader(p *piece, n int64) (io.Reader, error) {
	if u.proven == nil || n == 0 || u.s.Offset+n != u.size {
		return p, nil
	}
	fd, err := unix.FcntlInt(u.proven.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &ownError{fmt.Errorf("%s: %w", u.proven.Name(), err)}
	}
	p.follow(u.proven, u.s.Offset, u.size)
	return os.NewFile(uintptr(fd), u.proven.Name()), nil
}

// follow watches a file's offset in place of the reads.
func (p *piece) follow(f *os.File, start, end int64) {
	p.file, p.end, p.at, p.done = f, end, start, make(chan struct{})
	every := min(p.stall/4, 250*time.Millisecond)
	p.watch.Go(func() {
		since := time.Now()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-p.done:
				return
			}
			switch moved, err := p.look(); {
			case err != nil || p.at >= end:
				return
			case moved:
				since = time.Now()
			case time.Since(since) > p.stall:
				p.stop(errStalled)
				return
			}
		}
	})
}

// look tells how far the file has come since the last look.
func (p *piece) look() (moved bool, err error) {
	at, err := p.file.Seek(0, io.SeekCurrent)
	if err != nil || at <= p.at {
		return false, err
	}
	p.tell(at - p.at)
	p.at = at
	return true, nil
}

// newPiece makes a body that ends its request by stop when it stalls. The
// clock starts with the first byte: waiting for a connection is no stall.
func (u *uploader) newPiece(n int64, stop context.CancelCauseFunc) *piece {
	p := &piece{src: u.content, left: n, hash: u.s.hash, tell: u.progress, stall: u.c.stall, stop: stop}
	p.timer = time.AfterFunc(p.stall, func() { stop(errStalled) })
	p.timer.Stop()
	if u.proven != nil {
		p.hash = nil
	} else if u.s.Offset+n == u.size {
		p.check = u.verify
	}
	return p
}

// errShort is a content that ends before its size.
var errShort = errors.New("the content ends early")

// An ownError is trouble on our own side, which no other try mends.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// verify holds the hash of all that was sent to the digest.
func (u *uploader) verify(h hash.Hash) error {
	if got := u.d.With(h); got != u.d {
		return u.c.refuse(CodeDigest, u.a.ref, "the content is not what it shall be pushed as", string(u.d), string(got))
	}
	return nil
}

// own explains trouble on our own side.
func (u *uploader) own(err error) error {
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r
	}
	if errors.Is(err, errShort) {
		return u.c.refuse(CodeSize, u.a.ref, errShort.Error(), strconv.FormatInt(u.size, 10), "less")
	}
	return fmt.Errorf("%s: %s %s: %w", u.c.c.Name, u.a.op, u.a.ref, err)
}

// seek brings the content to an offset, and the hash with it: from where it
// stands when it is at or before that, else from the beginning.
func (u *uploader) seek(ctx context.Context, offset int64) error {
	if u.content == nil {
		var err error
		if u.content, err = u.open(); err != nil {
			return &ownError{err}
		}
		if v, ok := u.content.(Verified); ok && v.Digest == u.d {
			u.proven = v.File
		}
	}
	if u.proven != nil {
		u.s.Offset, u.s.unhashed = offset, true
		if _, err := u.proven.Seek(offset, io.SeekStart); err != nil {
			return &ownError{err}
		}
		return nil
	}
	if offset < u.s.Offset || u.s.unhashed {
		u.s.unhashed = false
		u.s.Offset, u.s.hash = 0, spec.Digest(u.s.Digest).New()
	}
	if _, err := u.content.Seek(u.s.Offset, io.SeekStart); err != nil {
		return &ownError{err}
	}
	for u.s.Offset < offset {
		if ctx.Err() != nil {
			return u.c.problem(u.a, ctx.Err())
		}
		n, err := io.CopyN(u.s.hash, u.content, min(offset-u.s.Offset, 8<<20))
		u.s.Offset += n
		if errors.Is(err, io.EOF) {
			err = errShort
		}
		if err != nil {
			return &ownError{err}
		}
	}
	return nil
}
