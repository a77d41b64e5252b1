package diodetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// batch is how many packets one system call takes.
	batch = 64
	// maxDatagram is more than any has; none is cut.
	maxDatagram = 1 << 16
	// socketBuffer holds half a second at 1 Gb/s, so that the relay itself loses
	// nothing that it does not count.
	socketBuffer = 64 << 20
	// idle is how long nothing has to come until packets that wait for later
	// ones go on without them.
	idle = 100 * time.Millisecond
)

// Relay passes packets from a socket to an address until ctx ends. What
// reordering holds goes out when nothing has come for a while, and at the end.
// The filter's counts are to be read after Relay has returned.
func Relay(ctx context.Context, in *net.UDPConn, to netip.AddrPort, f *Filter) (err error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if !to.Addr().Is4() {
		return fmt.Errorf("relay: address %s: want one of IPv4", to)
	}
	out, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := errors.Join(
		enlarge(in, syscall.SO_RCVBUFFORCE, in.SetReadBuffer),
		enlarge(out, syscall.SO_SNDBUFFORCE, out.SetWriteBuffer),
	); err != nil {
		return fmt.Errorf("relay: socket buffers: %w", err)
	}
	if err := pass(ctx, in, newWriteBatch(out, to), f); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}

func pass(ctx context.Context, in *net.UDPConn, w *writeBatch, f *Filter) (err error) {
	// The socket is the caller's, who may go on with it.
	defer func() { err = errors.Join(err, in.SetReadDeadline(time.Time{})) }()
	reader := ipv4.NewPacketConn(in)
	msgs := make([]ipv4.Message, batch)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, maxDatagram)}
	}
	for ctx.Err() == nil {
		if err := in.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return err
		}
		n, err := reader.ReadBatch(msgs, 0)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			f.Flush(w.add)
		case err != nil:
			return err
		default:
			for _, m := range msgs[:n] {
				f.Feed(m.Buffers[0][:m.N], w.add)
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
	f.Flush(w.add)
	return w.flush()
}

// enlarge sets a socket's buffer, past the host's limit where that is
// permitted, up to it elsewhere.
func enlarge(c *net.UDPConn, force int, set func(int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	err = raw.Control(func(fd uintptr) {
		forced = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, force, socketBuffer)
	})
	if err == nil && errors.Is(forced, syscall.EPERM) {
		return set(socketBuffer)
	}
	return errors.Join(err, forced)
}

// A writeBatch gathers packets for one call. The first error stays: flush
// returns it, and nothing is sent after it.
type writeBatch struct {
	conn *ipv4.PacketConn
	msgs []ipv4.Message
	n    int
	err  error
}

func newWriteBatch(out *net.UDPConn, to netip.AddrPort) *writeBatch {
	w := &writeBatch{conn: ipv4.NewPacketConn(out), msgs: make([]ipv4.Message, batch)}
	addr := net.UDPAddrFromAddrPort(to)
	for i := range w.msgs {
		w.msgs[i] = ipv4.Message{Buffers: [][]byte{nil}, Addr: addr}
	}
	return w
}

// add copies a packet.
func (w *writeBatch) add(p []byte) {
	buffer := &w.msgs[w.n].Buffers[0]
	*buffer = append((*buffer)[:0], p...)
	if w.n++; w.n == batch {
		w.err = w.flush()
	}
}

func (w *writeBatch) flush() error {
	for sent := 0; sent < w.n && w.err == nil; {
		n, err := w.conn.WriteBatch(w.msgs[sent:w.n], 0)
		if err == nil && n < 1 {
			err = errors.New("the kernel took no packet")
		}
		w.err = err
		sent += n
	}
	w.n = 0
	return w.err
}
