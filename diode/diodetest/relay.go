package diodetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	batch      = 64
	packetSize = 9216
	buffers    = 64 << 20
)

// Relay passes packets from a socket to an address until ctx ends.
func Relay(ctx context.Context, in *net.UDPConn, to netip.AddrPort, f *Filter) (err error) {
	out, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := errors.Join(enlarge(in, unix.SO_RCVBUFFORCE), enlarge(out, unix.SO_SNDBUFFORCE)); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	reader, writer := ipv4.NewPacketConn(in), ipv4.NewPacketConn(out)
	msgs := make([]ipv4.Message, batch)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, packetSize)}
	}
	w := &writeBatch{conn: writer, to: net.UDPAddrFromAddrPort(to)}
	for ctx.Err() == nil {
		if err := in.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		n, err := reader.ReadBatch(msgs, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			f.Flush(w.add)
			if err := w.flush(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		for _, m := range msgs[:n] {
			f.Feed(m.Buffers[0][:m.N], w.add)
			if w.err != nil {
				return w.err
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

// enlarge sets a socket's buffer, past the host's limit where that is
// permitted.
func enlarge(c *net.UDPConn, option int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		if serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, buffers); errors.Is(serr, unix.EPERM) { //nolint:gosec // a descriptor
			serr = nil
		}
	})
	return errors.Join(err, serr)
}

// A writeBatch gathers packets for one call.
type writeBatch struct {
	conn *ipv4.PacketConn
	to   *net.UDPAddr
	msgs []ipv4.Message
	free [][]byte
	err  error
}

func (w *writeBatch) add(p []byte) {
	var b []byte
	if n := len(w.free); n > 0 {
		b, w.free = w.free[n-1], w.free[:n-1]
	} else {
		b = make([]byte, 0, packetSize)
	}
	w.msgs = append(w.msgs, ipv4.Message{Buffers: [][]byte{append(b[:0], p...)}, Addr: w.to})
	if len(w.msgs) == batch {
		w.err = errors.Join(w.err, w.flush())
	}
}

func (w *writeBatch) flush() error {
	todo := w.msgs
	for len(todo) > 0 {
		n, err := w.conn.WriteBatch(todo, 0)
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("relay: %w", err)
		}
		todo = todo[max(n, 1):]
	}
	for _, m := range w.msgs {
		w.free = append(w.free, m.Buffers[0])
	}
	w.msgs = w.msgs[:0]
	return nil
}
