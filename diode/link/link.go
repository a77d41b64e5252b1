// Package link moves UDP datagrams one way, fast: out by segmentation offload
// or in batches at a constant pace, in from a ring that the kernel shares with
// this process or from a socket. Linux only.
//
// It also keeps the senders of one host apart ([Line]) and tells what is wrong
// with a card, a kernel or a clock (the Check functions, which only judge what
// [ReadCard] and [ReadKernel] have read).
//
// Specification: packet(7) and Documentation/networking/packet_mmap.rst of the
// kernel for the ring, udp(7) for UDP_SEGMENT, docs/diode-format.md for the
// bytes of a line's file.
//
// Invariants:
//   - A [Receiver]'s socket is never written to. That of the back end "udp" is
//     shut down for writing, which is tried before the first packet.
//   - A [Sender] waits for nobody: what the other side answers is counted.
//   - Loss is not an error. Errors are those of this host.
//
// UDP's checksum is not looked at by the packet back end: the caller has a
// stronger one.
package link

import (
	"net/netip"
	"time"
)

const (
	// ethernet is what a packet takes on the wire beside IP: header and check
	// 18, preamble 8, gap 12.
	ethernet = 38
	// DefaultBurst is the least that go to the kernel at once by default: a
	// fifth of a millisecond at 1 Gb/s.
	DefaultBurst = 16
	burstTime    = 200 * time.Microsecond
	// maxBurst is the kernel's own bound of segments.
	maxBurst = 64
	// maxSegments is how many bytes a call may have.
	maxSegments = 65507
	// DefaultRing holds a second at 1 Gb/s.
	DefaultRing = 160 << 20
)

// headerOf is what IP and UDP add to a datagram.
func headerOf(a netip.Addr) int {
	if a.Is4() || a.Is4In6() {
		return 28
	}
	return 48
}

func sockaddrOK(a netip.AddrPort) bool { return a.IsValid() && a.Port() != 0 }
