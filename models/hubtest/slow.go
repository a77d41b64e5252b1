package hubtest

import (
	"net"
	"sync"
	"time"
)

// A slowListener makes connections that carry so many bytes a second to the
// client and wait before the first.
type slowListener struct {
	net.Listener
	rate  int64
	delay time.Duration
}

// Accept slows what it takes.
func (l *slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c, rate: l.rate, delay: l.delay, end: make(chan struct{})}, nil
}

type slowConn struct {
	net.Conn
	rate  int64
	delay time.Duration
	first sync.Once
	free  time.Time // when the line is free again; the server writes one at a time

	once sync.Once
	end  chan struct{}
}

// Read waits before the first request is read.
func (c *slowConn) Read(p []byte) (int, error) {
	if c.delay > 0 {
		c.first.Do(func() { c.sleep(c.delay) })
	}
	return c.Conn.Read(p)
}

// Write sends pieces of a twentieth of a second, at least a packet. It sleeps
// when it is some milliseconds ahead of its time, and catches up when it was
// woken late: timers are not finer than that.
func (c *slowConn) Write(p []byte) (int, error) {
	if c.rate <= 0 {
		return c.Conn.Write(p)
	}
	const (
		packet = 1 << 10
		ahead  = 5 * time.Millisecond
		late   = 50 * time.Millisecond
	)
	sent := 0
	for sent < len(p) {
		piece := p[sent:]
		if most := max(c.rate/20, packet); int64(len(piece)) > most {
			piece = piece[:most]
		}
		if oldest := time.Now().Add(-late); c.free.Before(oldest) {
			c.free = oldest
		}
		c.free = c.free.Add(time.Duration(float64(len(piece)) / float64(c.rate) * float64(time.Second)))
		n, err := c.Conn.Write(piece)
		sent += n
		if err != nil {
			return sent, err
		}
		if wait := time.Until(c.free); wait > ahead {
			c.sleep(wait)
		}
	}
	return sent, nil
}

// Close ends a wait too.
func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}

func (c *slowConn) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.end:
	}
}
