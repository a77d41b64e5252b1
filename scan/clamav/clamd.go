package clamav

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	// chunk is how much is sent at once; clamd copies chunks into a file.
	chunk = 128 << 10
	// maxReply bounds a reply: a name and a word.
	maxReply = 64 << 10
	// dialTimeout and attempts are for a daemon that is reloading.
	dialTimeout = 10 * time.Second
	attempts    = 3
	// askTimeout is for the first words: a daemon that is loading the official
	// signatures, of 300 MiB, says nothing for half a minute.
	askTimeout = 3 * time.Minute
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

func (s *Scanner) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "unix", s.config.Socket)
	if err != nil {
		return nil, fmt.Errorf("clamd does not answer: %w", err)
	}
	return c, nil
}

// ask sends one command on a connection of its own.
func (s *Scanner) ask(ctx context.Context, command string) (_ string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := s.dial(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	defer closeOnDone(ctx, c)()
	if _, err := io.WriteString(c, "z"+command+"\x00"); err != nil {
		return "", fmt.Errorf("%s: %w", s.config.Socket, err)
	}
	return readReply(bufio.NewReader(c))
}

// closeOnDone makes reads and writes end when ctx does; the result ends that.
func closeOnDone(ctx context.Context, c net.Conn) func() bool {
	return context.AfterFunc(ctx, func() {
		// A deadline in the past ends what is under way; the owner closes.
		_ = c.SetDeadline(time.Unix(1, 0))
	})
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
	return &session{conn: conn, r: bufio.NewReader(conn), fresh: true, buf: make([]byte, 4+chunk)}, nil
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
func (s *Scanner) stream(ctx context.Context, r io.ReadSeeker, size int64) (verdict, error) {
	var last error
	for n := 0; n < attempts; {
		if n > 0 {
			select {
			case <-time.After(backoff(n)):
			case <-ctx.Done():
				return verdict{}, context.Cause(ctx)
			}
		}
		c, err := s.take(ctx)
		if err != nil {
			last = err
			n++
			continue
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return verdict{}, errors.Join(err, c.conn.Close())
		}
		v, keep, err := c.instream(ctx, r, size)
		if err == nil && keep {
			s.give(c)
			return v, nil
		}
		// What is not kept is of no use any more; how closing it ends neither.
		_ = c.conn.Close()
		switch _, lost := errors.AsType[*lostError](err); {
		case err == nil:
			return v, nil
		case ctx.Err() != nil:
			return verdict{}, context.Cause(ctx)
		case !lost:
			return verdict{}, err
		}
		last = err
		if c.fresh {
			n++ // one that had waited costs no attempt
		}
	}
	return verdict{}, notReady("%s: %w", s.config.Socket, last)
}

// A lostError says that clamd went away before it answered.
type lostError struct{ err error }

func (e *lostError) Error() string { return "clamd went away: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// instream sends size bytes of r and reads the verdict. keep says whether the
// connection can be used again.
func (c *session) instream(ctx context.Context, r io.Reader, size int64) (v verdict, keep bool, err error) {
	defer closeOnDone(ctx, c.conn)()
	c.n++
	werr := c.send(r, size)
	if werr != nil {
		if rerr, ok := errors.AsType[*readError](werr); ok {
			return v, false, rerr.err
		}
	}
	// Where clamd has had enough it says so and closes: its words are read
	// after a write that failed, too.
	text, err := readReply(c.r)
	if err != nil {
		return v, false, &lostError{errors.Join(werr, err)}
	}
	v, err = parseReply(text, c.n)
	return v, werr == nil && !v.refused, err
}

// A readError is of the file and not of the connection.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

func (c *session) send(r io.Reader, size int64) error {
	if _, err := io.WriteString(c.conn, "zINSTREAM\x00"); err != nil {
		return err
	}
	var sent int64
	for sent < size {
		n, err := io.ReadFull(r, c.buf[4:4+min(chunk, size-sent)])
		if err != nil {
			return &readError{err}
		}
		binary.BigEndian.PutUint32(c.buf, uint32(n)) //nolint:gosec // at most chunk
		if _, err := c.conn.Write(c.buf[:4+n]); err != nil {
			return err
		}
		sent += int64(n)
	}
	_, err := c.conn.Write([]byte{0, 0, 0, 0})
	return err
}

// readReply reads up to the zero byte that ends a reply.
func readReply(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for b.Len() <= maxReply {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return "", err
		}
		if c == 0 {
			return b.String(), nil
		}
		b.WriteByte(c)
	}
	return "", fmt.Errorf("a reply of more than %d bytes", maxReply)
}

// parseReply reads "1: stream: OK", "1: stream: NAME FOUND" or an error. The
// number is that of the command; one of another command would be a verdict on
// another file.
func parseReply(text string, number int) (verdict, error) {
	bad := func() (verdict, error) {
		return verdict{}, fmt.Errorf("clamd answers %s, which is no verdict", quote(text))
	}
	id, rest, ok := strings.Cut(text, ": ")
	if strings.HasPrefix(text, "INSTREAM size limit exceeded") {
		id, rest, ok = strconv.Itoa(number), text, true // some versions do not number it
	}
	if !ok || id != strconv.Itoa(number) {
		return bad()
	}
	if rest == "INSTREAM size limit exceeded. ERROR" {
		return verdict{refused: true}, nil
	}
	what, ok := strings.CutPrefix(rest, "stream: ")
	if !ok {
		return bad()
	}
	if what == "OK" {
		return verdict{}, nil
	}
	found, ok := strings.CutSuffix(what, " FOUND")
	if !ok || found == "" {
		return bad() // an ERROR of clamd's own too: it did not look
	}
	return verdict{found: found}, nil
}
