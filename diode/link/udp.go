package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams are taken at once, and datagramSize the
	// longest of a jumbo frame.
	batchSize    = 64
	datagramSize = 9216
)

// openUDP opens a socket that can be read and never written.
func (r *Receiver) openUDP() (err error) {
	addr := r.c.Addr
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	if r.fd, err = socket(addr); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.c.Interface != "" {
		if err := unix.BindToDevice(r.fd, r.c.Interface); err != nil {
			return fmt.Errorf("receive from interface %s: %w", r.c.Interface, err)
		}
	}
	// The first passes the limit of the host and needs CAP_NET_ADMIN.
	if unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, r.c.RingBytes) != nil {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, r.c.RingBytes); err != nil {
			return fmt.Errorf("socket buffer of %d bytes: %w", r.c.RingBytes, err)
		}
	}
	got, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return err
	}
	if got < r.c.RingBytes {
		r.c.Log.Warn("the socket's buffer is smaller than asked for", slog.Int("want", r.c.RingBytes), slog.Int("got", got), slog.String("mend", "sysctl net.core.rmem_max, or CAP_NET_ADMIN"))
	}
	r.c.RingBytes = got
	at, err := sockaddr(netip.AddrPortFrom(addr, r.c.Port))
	if err != nil {
		return err
	}
	if err := unix.Bind(r.fd, at); err != nil {
		return fmt.Errorf("listen on port %d: %w", r.c.Port, err)
	}
	tv := unix.NsecToTimeval(pollTime * 1e6)
	if err := unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	return shut(r.fd, at)
}

// errOpen says that a test datagram was not refused with EPIPE.
var errOpen = errors.New("a datagram to this host itself was not refused")

// shut makes the socket unable to send. The call says that there is no
// connection, and takes effect all the same: so it is tried.
func shut(fd int, own unix.Sockaddr) error {
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("shut the socket for writing: %w", err)
	}
	// To this socket itself: should it work, nothing leaves the host.
	err := unix.Sendto(fd, nil, unix.MSG_NOSIGNAL, loopback(own))
	if !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("the socket can still be written to: %w", errors.Join(err, errOpen))
	}
	return nil
}

func loopback(a unix.Sockaddr) unix.Sockaddr {
	if six, ok := a.(*unix.SockaddrInet6); ok {
		return &unix.SockaddrInet6{Port: six.Port, Addr: netip.IPv6Loopback().As16()}
	}
	port := 0
	if four, ok := a.(*unix.SockaddrInet4); ok {
		port = four.Port
	}
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

func (r *Receiver) runUDP(ctx context.Context, packet func([]byte), idle func()) error {
	buf := make([]byte, batchSize*datagramSize)
	iov, m := make([]unix.Iovec, batchSize), make([]mmsghdr, batchSize)
	for i := range m {
		iov[i].Base = &buf[i*datagramSize]
		iov[i].SetLen(datagramSize)
		m[i].hdr.Iov, m[i].hdr.Iovlen = &iov[i], 1
	}
	for ctx.Err() == nil {
		// Waits for the first, takes what is there.
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&m[0])), batchSize, unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 {
			if isAny(errno, unix.EAGAIN, unix.EINTR, unix.ECONNREFUSED) {
				r.countSocketDrops()
				idle()
				continue
			}
			return fmt.Errorf("receive: %w", errno)
		}
		for i := range int(n) {
			if m[i].hdr.Flags&unix.MSG_TRUNC != 0 {
				r.malformed.Add(1)
				continue
			}
			p := buf[i*datagramSize : i*datagramSize+int(m[i].len)]
			r.batch.took(p)
			packet(p)
		}
		r.count(&r.batch)
		idle()
	}
	r.countSocketDrops()
	return nil
}

// countSocketDrops asks the socket's memory figures: the ninth is what did
// not fit.
func (r *Receiver) countSocketDrops() {
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 && size == uint32(unsafe.Sizeof(info)) {
		r.drops.Store(int64(info[8]))
	}
}
