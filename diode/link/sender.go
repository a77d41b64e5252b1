package link

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SenderConfig says where datagrams go.
type SenderConfig struct {
	To        netip.AddrPort
	From      netip.AddrPort // optional
	Interface string         // optional
	Rate      float64        // bits a second on the wire; 0: as fast as it goes
	Size      int            // bytes of every datagram
	Burst     int            // datagrams a system call; 0: [DefaultBurst], more at high rates
	Log       *slog.Logger
}

// SenderStats counts.
type SenderStats struct {
	Packets, Bytes int64
	Refused        int64 // calls that failed because somebody answered, or no route was there
	Lost           int64 // packets that these calls did not send; Packets does not count them
	Retried        int64 // calls that the kernel had no buffers for
}

// A mode is a way to hand datagrams to the kernel.
type mode int32

const (
	modeGSO mode = iota
	modeBatch
	modePlain
)

func (m mode) String() string { return [...]string{"gso", "sendmmsg", "plain"}[m] }

// A Sender sends datagrams of one size. Send is for one goroutine.
type Sender struct {
	c     SenderConfig
	fd    int
	to    unix.Sockaddr
	raw   []byte // to, as the kernel has it
	mode  atomic.Int32
	pace  pacer
	batch []mmsghdr
	iov   []unix.Iovec

	packets, bytes, refused, lost, retried atomic.Int64
	// calls stand for the system's in tests.
	calls calls
}

// calls are the system calls that send.
type calls struct {
	segments func(fd int, p []byte, to unix.Sockaddr) error
	batch    func(fd int, m []mmsghdr) (int, error)
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// Dial opens a socket. Nothing is sent.
func Dial(c SenderConfig) (*Sender, error) {
	if !sockaddrOK(c.To) {
		return nil, fmt.Errorf("send to %s: want an address and a port", c.To)
	}
	if c.Size < 1 || c.Size > maxSegments {
		return nil, fmt.Errorf("datagrams of %d bytes: want 1 to %d", c.Size, maxSegments)
	}
	if c.Burst == 0 {
		c.Burst = burstFor(c)
	}
	if c.Burst < 1 || c.Burst > maxBurst {
		return nil, fmt.Errorf("burst of %d: want 1 to %d", c.Burst, maxBurst)
	}
	c.Burst = min(c.Burst, maxSegments/c.Size)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.To = netip.AddrPortFrom(c.To.Addr().Unmap(), c.To.Port())
	s := &Sender{c: c, calls: calls{sendSegments, sendBatch}}
	s.pace.bits = float64(8 * (c.Size + headerOf(c.To.Addr()) + ethernet))
	s.pace.rate = c.Rate
	var err error
	if s.fd, err = socket(c.To.Addr()); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, unix.Close(s.fd))
	}
	return s, nil
}

// burstFor is a fifth of a millisecond's datagrams: enough to be worth a call
// and a pause, and little for a queue on the way.
func burstFor(c SenderConfig) int {
	bits := float64(8 * (c.Size + headerOf(c.To.Addr()) + ethernet))
	if c.Rate <= 0 {
		return maxBurst
	}
	return int(min(maxBurst, max(DefaultBurst, c.Rate*burstTime.Seconds()/bits)))
}

func socket(a netip.Addr) (int, error) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	zone := 0
	if z := a.Addr().Zone(); z != "" {
		i, err := interfaceNamed(z)
		if err != nil {
			return nil, err
		}
		zone = i.Index
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}, nil
}

// rawSockaddr is an address in the kernel's own form, for sendmmsg.
func rawSockaddr(a netip.AddrPort, zone uint32) []byte {
	if a.Addr().Is4() {
		p := make([]byte, unix.SizeofSockaddrInet4)
		*(*uint16)(unsafe.Pointer(&p[0])) = unix.AF_INET
		p[2], p[3] = byte(a.Port()>>8), byte(a.Port())
		ip := a.Addr().As4()
		copy(p[4:], ip[:])
		return p
	}
	p := make([]byte, unix.SizeofSockaddrInet6)
	*(*uint16)(unsafe.Pointer(&p[0])) = unix.AF_INET6
	p[2], p[3] = byte(a.Port()>>8), byte(a.Port())
	ip := a.Addr().As16()
	copy(p[8:], ip[:])
	*(*uint32)(unsafe.Pointer(&p[24])) = zone
	return p
}

func (s *Sender) prepare() error {
	if s.c.Interface != "" {
		if err := unix.BindToDevice(s.fd, s.c.Interface); err != nil {
			return fmt.Errorf("send from interface %s: %w", s.c.Interface, err)
		}
	}
	if s.c.From.IsValid() {
		from, err := sockaddr(s.c.From)
		if err != nil {
			return err
		}
		if err := unix.Bind(s.fd, from); err != nil {
			return fmt.Errorf("send from %s: %w", s.c.From, err)
		}
	}
	// What is too long must fail and not be cut into fragments: a lost
	// fragment loses all of a datagram.
	level, option := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if s.c.To.Addr().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	if err := unix.SetsockoptInt(s.fd, level, option, unix.IP_PMTUDISC_PROBE); err != nil {
		return fmt.Errorf("forbid fragments: %w", err)
	}
	var err error
	if s.to, err = sockaddr(s.c.To); err != nil {
		return err
	}
	zone := uint32(0)
	if six, ok := s.to.(*unix.SockaddrInet6); ok {
		zone = six.ZoneId
	}
	s.raw = rawSockaddr(s.c.To, zone)
	if err := unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_SEGMENT, s.c.Size); err != nil {
		s.fall(modeBatch, err)
	}
	return nil
}

// fall goes down to a simpler mode, for good.
func (s *Sender) fall(to mode, err error) {
	s.c.Log.Info("sending falls back", slog.String("from", s.Mode()), slog.String("to", to.String()), slog.Any("because", err))
	if mode(s.mode.Load()) == modeGSO {
		// With the option set, the kernel would go on cutting.
		_ = unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0) // not there on kernels that refused it
	}
	s.mode.Store(int32(to))
}

// Mode is how datagrams reach the kernel: gso, sendmmsg or plain.
func (s *Sender) Mode() string { return mode(s.mode.Load()).String() }

// Stats counts what was sent; any goroutine may ask.
func (s *Sender) Stats() SenderStats {
	return SenderStats{Packets: s.packets.Load(), Bytes: s.bytes.Load(), Refused: s.refused.Load(), Lost: s.lost.Load(), Retried: s.retried.Load()}
}

// Close closes the socket.
func (s *Sender) Close() error { return unix.Close(s.fd) }

// Send sends packets that lie one after the other, and waits to keep the pace.
func (s *Sender) Send(packets []byte) error {
	if len(packets)%s.c.Size != 0 {
		return fmt.Errorf("send %d bytes: want a multiple of %d", len(packets), s.c.Size)
	}
	for len(packets) > 0 {
		n := min(len(packets)/s.c.Size, s.c.Burst)
		s.pace.wait(n)
		lost, err := s.burst(packets[:n*s.c.Size])
		if err != nil {
			return fmt.Errorf("send to %s: %w", s.c.To, err)
		}
		s.lost.Add(int64(lost))
		s.packets.Add(int64(n - lost))
		s.bytes.Add(int64((n - lost) * s.c.Size))
		packets = packets[n*s.c.Size:]
	}
	return nil
}

// retryAfter is how long the kernel gets to find buffers, and retries how
// often.
const (
	retryAfter = 200 * time.Microsecond
	retries    = 5000
)

// burst hands one burst to the kernel, by a simpler mode where this one does
// not work. It answers how many packets of it were not sent.
func (s *Sender) burst(p []byte) (lost int, err error) {
	for try := 0; ; {
		n, err := s.call(p)
		p = p[n*s.c.Size:]
		if err == nil {
			if len(p) == 0 {
				return 0, nil
			}
			continue
		}
		m := mode(s.mode.Load())
		switch {
		case errors.Is(err, unix.EINTR):
		case isAny(err, unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM) && try < retries:
			s.retried.Add(1)
			try++
			time.Sleep(retryAfter)
		case isAny(err, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENETDOWN, unix.EHOSTDOWN, unix.EPERM):
			// Somebody answered, or a cable is out: on a link that never
			// answers, that is noise. The rest of the burst is lost with it.
			s.refused.Add(1)
			return len(p) / s.c.Size, nil
		case m == modeGSO && isAny(err, unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.ENOPROTOOPT):
			s.fall(modeBatch, err)
		case m == modeBatch && isAny(err, unix.ENOSYS, unix.EIO, unix.EINVAL, unix.EOPNOTSUPP):
			s.fall(modePlain, err)
		default:
			return 0, err
		}
	}
}

func isAny(err error, list ...unix.Errno) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// call makes one system call and answers how many datagrams it took.
func (s *Sender) call(p []byte) (int, error) {
	switch mode(s.mode.Load()) {
	case modeGSO:
		if err := s.calls.segments(s.fd, p, s.to); err != nil {
			return 0, err
		}
		return len(p) / s.c.Size, nil
	case modeBatch:
		return s.calls.batch(s.fd, s.messages(p))
	default:
		if err := s.calls.segments(s.fd, p[:s.c.Size], s.to); err != nil {
			return 0, err
		}
		return 1, nil
	}
}

func sendSegments(fd int, p []byte, to unix.Sockaddr) error { return unix.Sendto(fd, p, 0, to) }

func sendBatch(fd int, m []mmsghdr) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (s *Sender) messages(p []byte) []mmsghdr {
	if s.batch == nil {
		s.batch, s.iov = make([]mmsghdr, s.c.Burst), make([]unix.Iovec, s.c.Burst)
	}
	n := len(p) / s.c.Size
	for i := range n {
		s.iov[i].Base = &p[i*s.c.Size]
		s.iov[i].SetLen(s.c.Size)
		s.batch[i] = mmsghdr{hdr: unix.Msghdr{Name: &s.raw[0], Namelen: uint32(len(s.raw)), Iov: &s.iov[i], Iovlen: 1}}
	}
	return s.batch[:n]
}

// credit is how much time may be caught up after a stall. More would be a
// burst at the line's speed, which overruns the other side.
const credit = time.Millisecond

// ahead is how early a burst may go: a shorter pause costs the processor more
// than the burst itself. What went early, the next pause makes up for.
const ahead = 100 * time.Microsecond

// A pacer keeps a rate by an absolute schedule.
type pacer struct {
	rate, bits float64
	next       time.Time
	// now and until stand for the clock in tests.
	now   func() time.Time
	until func(time.Time)
}

// wait returns when n datagrams may go.
func (p *pacer) wait(n int) {
	if p.rate <= 0 {
		return
	}
	if p.now == nil {
		p.now, p.until = time.Now, sleepUntil
	}
	now := p.now()
	if p.next.Before(now.Add(-credit)) {
		p.next = now.Add(-credit)
		if p.next.IsZero() {
			p.next = now
		}
	}
	if p.next.Sub(now) > ahead {
		p.until(p.next)
	}
	p.next = p.next.Add(time.Duration(float64(n) * p.bits / p.rate * float64(time.Second)))
}

// sleepUntil sleeps in the kernel: the runtime's timers are coarser. What it
// sleeps too long is caught up, since the schedule is absolute.
func sleepUntil(t time.Time) {
	d := time.Until(t)
	if d <= 0 {
		return
	}
	if d > 10*time.Millisecond {
		timer := time.NewTimer(d)
		<-timer.C
		return
	}
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal ends it early; the next wait makes up for it
}
