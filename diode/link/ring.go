package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	blockSize = 1 << 20
	// frameSize is only the kernel's sanity check in version 3.
	frameSize = 16384
	// retire hands over a block that is not full, in milliseconds: what the
	// last packets of a transfer wait, and how much time a block holds at least
	// while nobody reads. Shorter, and a slow link fills the ring with blocks that
	// are nearly empty: at 1 Gb/s a block is full after 8 ms, and with 2 ms a ring
	// that should hold a second held a third of one.
	retire = 16

	// Offsets of struct tpacket_block_desc and struct tpacket3_hdr.
	blockStatus, blockPackets, blockFirst = 8, 12, 16
	frameNext, frameSnap, frameLen        = 0, 12, 16
	frameMAC                              = 24
	frameHeader                           = 48
)

// A ring is memory that the kernel fills, block by block.
type ring struct {
	mem    []byte
	blocks int
}

func (g *ring) unmap() error { return unix.Munmap(g.mem) }

func interfaceNamed(name string) (*net.Interface, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return i, nil
}

// openRing opens a packet socket. Protocol 0 until it is bound, so that
// nothing of other interfaces gets in; then ETH_P_ALL, since taps of single
// protocols come after the hook where incoming packets are dropped for the
// kernel itself.
func (r *Receiver) openRing() (err error) {
	i, err := interfaceNamed(r.c.Interface)
	if err != nil {
		return err
	}
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("ring of version 3: %w", err)
	}
	// Not on old kernels; what we never send cannot come back.
	_ = unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err := attach(r.fd, filter(r.c.Port)); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	blocks := max(2, r.c.RingBytes/blockSize)
	req := &unix.TpacketReq3{
		Block_size: blockSize, Block_nr: uint32(blocks), Frame_size: frameSize, Frame_nr: uint32(blocks * (blockSize / frameSize)), Retire_blk_tov: retire,
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, req); err != nil {
		return fmt.Errorf("ring of %d bytes: %w", blocks*blockSize, err)
	}
	mem, err := unix.Mmap(r.fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map ring of %d bytes: %w", blocks*blockSize, err)
	}
	r.ring = &ring{mem, blocks}
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_ALL), Ifindex: i.Index}); err != nil {
		return fmt.Errorf("listen on %s: %w", r.c.Interface, err)
	}
	return nil
}

func swap(v uint16) uint16 { return v<<8 | v>>8 }

// filter drops in the kernel what is no datagram for the port, so that it
// does not fill the ring. What it does not understand, such as a VLAN tag, it
// lets pass: [parse] decides.
func filter(port uint16) []unix.SockFilter {
	const (
		ldh  = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		ldb  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		ldxb = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
		ldhi = unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		jeq  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		{Code: ldh, K: 12},
		{Code: jeq, K: 0x86dd, Jt: 6, Jf: 0}, // 8: IPv6
		{Code: jeq, K: 0x0800, Jt: 0, Jf: 9}, // 12: something else passes
		{Code: ldb, K: 23},
		{Code: jeq, K: unix.IPPROTO_UDP, Jt: 0, Jf: 8}, // 13: drop
		{Code: ldxb, K: 14},
		{Code: ldhi, K: 16},
		{Code: jeq, K: uint32(port), Jt: 4, Jf: 5},
		{Code: ldb, K: 20},                             // 8
		{Code: jeq, K: unix.IPPROTO_UDP, Jt: 0, Jf: 3}, // 13: drop
		{Code: ldh, K: 56},
		{Code: jeq, K: uint32(port), Jt: 0, Jf: 1},
		{Code: ret, K: 0x40000}, // 12: pass
		{Code: ret, K: 0},       // 13: drop
	}
}

func attach(fd int, f []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]})
}

// runRing walks the blocks.
func (r *Receiver) runRing(ctx context.Context, packet func([]byte), idle func()) error {
	for at := 0; ; {
		block := r.ring.mem[at*blockSize : (at+1)*blockSize]
		status := (*uint32)(unsafe.Pointer(&block[blockStatus]))
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			idle()
			if err := ctx.Err(); err != nil {
				return nil //nolint:nilerr // the end of a run is no error
			}
			if err := r.poll(); err != nil {
				return err
			}
			continue
		}
		err := r.block(block, packet, idle)
		r.count(&r.batch)
		if err != nil {
			return err
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		at = (at + 1) % r.ring.blocks
		idle()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// poll waits for a block, and asks what was dropped.
func (r *Receiver) poll() error {
	fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN | unix.POLLERR}}
	if _, err := unix.Poll(fds, pollTime); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for packets: %w", err)
	}
	r.countDrops()
	if fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
		// The cable is out or the interface went down. It may come back.
		if _, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return fmt.Errorf("interface %s: %w", r.c.Interface, err)
		}
	}
	return nil
}

func (r *Receiver) countDrops() {
	st, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		r.drops.Add(int64(st.Drops))
		r.freezes.Add(int64(st.Freeze_q_cnt))
	}
}

// block walks the frames of a block. The numbers in it are the kernel's; they
// are checked all the same.
func (r *Receiver) block(block []byte, packet func([]byte), idle func()) error {
	n := *(*uint32)(unsafe.Pointer(&block[blockPackets]))
	at := *(*uint32)(unsafe.Pointer(&block[blockFirst]))
	for i := range n {
		if uint64(at)+frameHeader > blockSize {
			return fmt.Errorf("the ring is damaged: a frame at %d", at)
		}
		f := block[at:]
		snap, whole := *(*uint32)(unsafe.Pointer(&f[frameSnap])), *(*uint32)(unsafe.Pointer(&f[frameLen]))
		mac := uint64(*(*uint16)(unsafe.Pointer(&f[frameMAC])))
		if mac+uint64(snap) > uint64(len(f)) {
			return fmt.Errorf("the ring is damaged: a frame of %d bytes at %d", snap, at)
		}
		r.frame(f[mac:mac+uint64(snap)], snap == whole, packet)
		if i%64 == 63 {
			idle()
		}
		next := *(*uint32)(unsafe.Pointer(&f[frameNext]))
		if next == 0 {
			break
		}
		at += next
	}
	return nil
}

func (r *Receiver) frame(f []byte, whole bool, packet func([]byte)) {
	d, ok := parse(f)
	switch {
	case !ok || !whole:
		r.malformed.Add(1)
	case d.port != r.c.Port || r.c.Addr.IsValid() && d.to != r.c.Addr:
		r.other.Add(1)
	default:
		r.batch.took(d.payload)
		packet(d.payload)
	}
}
