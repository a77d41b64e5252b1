package clamav

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"
	"time"
)

const (
	// chunk is how much is sent at once; clamd copies chunks into a file.
	chunk = 128 << 10
	// dialTimeout and attempts are for a daemon that is reloading.
	dialTimeout = 10 * time.Second
	attempts    = 3
	// askTimeout is for the first words: a daemon that is loading the official
	// signatures, of 300 MiB, says nothing for half a minute.
	askTimeout = 3 * time.Minute
	// instream begins a stream.
	instream = "zINSTREAM\x00"
)

// backoff is how long to wait before another attempt.
func backoff(n int) time.Duration { return time.Duration(n*n) * 300 * time.Millisecond }

// A session is a connection in clamd's IDSESSION mode, which takes one
// command after the other and numbers its replies.
type session struct {
	conn  net.Conn
	r     *bufio.Reader
	n     int  // commands sent
	fresh bool // nothing was exchanged yet
	buf   []byte
}

func (s *Scanner) dial(ctx context.Context) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "unix", s.config.Socket)
	if err != nil {
		return nil, fmt.Errorf("clamd does not answer: %w; start it, or name the LocalSocket of its clamd.conf", err)
	}
	return c.(*net.UnixConn), nil //nolint:forcetypeassert // what dialling a "unix" address gives
}

// errSilent is a connection that clamd closes without a word.
var errSilent = errors.New("closed without an answer")

// ask sends one command on a connection of its own.
func (s *Scanner) ask(ctx context.Context, command string) (string, error) {
	text, err := s.exchange(ctx, []byte("z"+command+"\x00"))
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return text, nil
}

// exchange sends all that there is to send on a connection of its own and
// reads one reply; [errSilent] if there is none.
func (s *Scanner) exchange(ctx context.Context, b []byte) (_ string, err error) {
	bound, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	c, err := s.dial(bound)
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, c.Close())
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case err != nil && bound.Err() != nil:
			err = fmt.Errorf("%s: no answer within %s: %w", s.config.Socket, s.patience, context.Cause(bound))
		case err != nil:
			err = fmt.Errorf("%s: %w", s.config.Socket, err)
		}
	}()
	defer closeOnDone(bound, c)()
	if _, err := c.Write(b); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	text, err := readReply(bufio.NewReader(c))
	if errors.Is(err, io.EOF) {
		err = errSilent
	}
	return text, err
}

// closeOnDone makes reads and writes end when ctx does; the result ends that.
func closeOnDone(ctx context.Context, c net.Conn) func() bool {
	return context.AfterFunc(ctx, func() {
		// A deadline in the past ends what is under way; the owner closes.
		_ = c.SetDeadline(time.Unix(1, 0))
	})
}

// A streamLimit is what is known of clamd's StreamMaxLength. The zero value
// is no limit that matters.
type streamLimit struct {
	taken   int64 // a length that it takes
	refused int64 // one that it does not
}

// findLimit finds clamd's StreamMaxLength, if it is below what would be sent,
// to the MiB.
func (s *Scanner) findLimit(ctx context.Context) (streamLimit, error) {
	const step = 1 << 20
	ok, err := s.takes(ctx, s.config.MaxStream)
	if err != nil || ok {
		return streamLimit{}, err
	}
	taken := int64(sort.Search(int(s.config.MaxStream/step), func(i int) bool {
		if err == nil {
			ok, err = s.takes(ctx, int64(i+1)*step)
		}
		return err != nil || !ok
	})) * step
	if err != nil {
		return streamLimit{}, err
	}
	return streamLimit{taken: taken, refused: min(taken+step, s.config.MaxStream)}, nil
}

// takes reports whether clamd would take a stream of n bytes. It compares the
// length of a chunk with what is left of its limit before it reads the chunk,
// so the length alone is sent: it objects to it, or hangs up without a word.
func (s *Scanner) takes(ctx context.Context, n int64) (bool, error) {
	text, err := s.exchange(ctx, binary.BigEndian.AppendUint32([]byte(instream), uint32(n))) //nolint:gosec // at most hardStream
	switch {
	case errors.Is(err, errSilent):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("length of a stream: %w", err)
	case text != tooLong:
		return false, fmt.Errorf("%s: answers the length of a stream with %s", s.config.Socket, quote(text))
	}
	return false, nil
}

// take gives a connection that waits, or a new one.
func (s *Scanner) take(ctx context.Context) (*session, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "zIDSESSION\x00"); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.config.Socket, err), conn.Close())
	}
	return &session{conn: conn, r: bufio.NewReader(conn), fresh: true, buf: make([]byte, chunk)}, nil
}

func (s *Scanner) give(c *session) {
	c.fresh = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, c)
}

// stream has clamd look at r. A connection that waited may have been closed
// by clamd meanwhile, and a daemon that reloads may not answer at once: it is
// tried again, from the start. A daemon that stays away is an error of the
// engine.
func (s *Scanner) stream(ctx context.Context, r io.ReadSeeker, size int64) (v verdict, sent int64, err error) {
	var last error
	for n := 0; n < attempts; {
		if n > 0 {
			select {
			case <-time.After(backoff(n)):
			case <-ctx.Done():
				return verdict{}, 0, context.Cause(ctx)
			}
		}
		c, err := s.take(ctx)
		if err != nil {
			last = err
			n++
			continue
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return verdict{}, 0, errors.Join(err, c.conn.Close())
		}
		v, sent, keep, err := c.instream(ctx, r, size)
		if err == nil && keep {
			s.give(c)
			return v, sent, nil
		}
		// What is not kept is of no use any more; how closing it ends neither.
		_ = c.conn.Close()
		switch _, lost := errors.AsType[*lostError](err); {
		case err == nil:
			return v, sent, nil
		case ctx.Err() != nil:
			return verdict{}, 0, context.Cause(ctx)
		case !lost:
			return verdict{}, 0, err
		}
		last = err
		if c.fresh {
			n++ // one that had waited costs no attempt
		}
	}
	return verdict{}, 0, s.gone(ctx, last)
}

// gone says what to make of the last of several failures: clamd is not there
// any more, or it is there and hangs up whenever it gets this file.
func (s *Scanner) gone(ctx context.Context, last error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.ping(ctx); err != nil {
		return notReady("%s: %w", s.config.Socket, last)
	}
	return fmt.Errorf("%s: clamd hung up %d times on this file, and answers otherwise; its log may tell why: %w", s.config.Socket, attempts, last)
}

// A lostError says that clamd went away before it answered.
type lostError struct{ err error }

func (e *lostError) Error() string { return "clamd went away: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// instream sends size bytes of r and reads the verdict. keep says whether the
// connection can be used again.
func (c *session) instream(ctx context.Context, r io.Reader, size int64) (v verdict, sent int64, keep bool, err error) {
	defer closeOnDone(ctx, c.conn)()
	c.n++
	sent, werr := c.send(r, size)
	if rerr, ok := errors.AsType[*readError](werr); ok {
		return v, sent, false, rerr.err
	}
	// Where clamd has had enough it says so and closes: its words are read
	// after a write that failed, too.
	text, err := readReply(c.r)
	if _, bad := errors.AsType[*replyError](err); bad {
		return v, sent, false, err
	}
	if err == nil && strings.TrimSpace(text) == timedOut {
		err = errors.New(timedOut)
	}
	if err != nil {
		return v, sent, false, &lostError{errors.Join(werr, err)}
	}
	v, err = parseReply(text, c.n)
	if err == nil && werr != nil && !v.refused {
		// A verdict on a part of the file is none.
		return verdict{}, sent, false, &lostError{fmt.Errorf("it answered %s before it had all: %w", quote(text), werr)}
	}
	return v, sent, werr == nil && !v.refused, err
}

// A readError is of the file and not of the connection.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// send writes the command, size bytes in chunks, and the end; what is small
// goes in one piece, for a daemon is woken by each.
func (c *session) send(r io.Reader, size int64) (sent int64, err error) {
	const lengths = 8 // of a chunk, and the zero one at the end
	at := copy(c.buf, instream)
	for sent < size {
		n := int(min(size-sent, int64(len(c.buf)-at-lengths)))
		if _, err := io.ReadFull(r, c.buf[at+4:at+4+n]); err != nil {
			return sent, &readError{fmt.Errorf("read after %d of %d bytes: %w", sent, size, err)}
		}
		binary.BigEndian.PutUint32(c.buf[at:], uint32(n)) //nolint:gosec // at most chunk
		at += 4 + n
		if sent+int64(n) == size {
			binary.BigEndian.PutUint32(c.buf[at:], 0)
			at += 4
		}
		if _, err := c.conn.Write(c.buf[:at]); err != nil {
			return sent, err
		}
		sent += int64(n)
		at = 0
	}
	return sent, nil
}
