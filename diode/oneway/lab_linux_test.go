package oneway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The two ends of the link: rx0 is the receiver's, peer0 the sender's.
var (
	rxMAC    = net.HardwareAddr{2, 0, 0, 0, 9, 1}
	peerMAC  = net.HardwareAddr{2, 0, 0, 0, 9, 2}
	rx4      = netip.MustParseAddr("10.9.0.1")
	peer4    = netip.MustParseAddr("10.9.0.2")
	rx6      = netip.MustParseAddr("fd00:9::1")
	peer6    = netip.MustParseAddr("fd00:9::2")
	rxLink   = netip.MustParseAddr("fe80::1")
	peerLink = netip.MustParseAddr("fe80::2")
	group4   = netip.MustParseAddr("239.1.2.3")
	allNodes = netip.MustParseAddr("ff02::1")
)

// needRoot skips a test with all its parts.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to make a network namespace; run the tests of this package as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT RUN: needs the program ip (iproute2) to make a link")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		done <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("NOT RUN: needs CAP_SYS_ADMIN to make a network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

// newLab makes a network namespace with the two ends, both down, for the
// calling test's thread, which ends with the test. The sender's end has no
// voice of its own: what arrives there comes from the receiver.
func newLab(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread() // never unlocked: the thread is of no use to others
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	// One processor: what is sent on one end has been seen by the other end's
	// taps and hooks before this thread runs again.
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for i := range 1024 {
		if all.IsSet(i) {
			one.Set(i)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	ip(t, "link add rx0 address "+rxMAC.String()+" type veth peer name peer0 address "+peerMAC.String())
	ip(t, "link set rx0 addrgenmode none")
	ip(t, "link set peer0 addrgenmode none arp off")
	if err := disableIPv6("peer0"); err != nil {
		t.Fatal(err)
	}
}

// up gives the receiver addresses, a group and neighbours, and brings both
// ends up: all that makes a kernel talk.
func up(t *testing.T) {
	t.Helper()
	ip(t, "address add 10.9.0.1/24 dev rx0")
	off, err := ipv6Off("rx0")
	if err != nil {
		t.Fatal(err)
	}
	if !off {
		ip(t, "address add fd00:9::1/64 dev rx0 nodad")
		ip(t, "address add fe80::1/64 dev rx0 nodad")
	}
	linkUp(t)
	ip(t, "neigh replace 10.9.0.2 lladdr "+peerMAC.String()+" dev rx0 nud permanent")
	join(t)
}

// linkUp brings both ends up and waits until frames reach the receiver: the
// queues of an interface open some time after its flags say so.
func linkUp(t *testing.T) {
	t.Helper()
	ip(t, "link set peer0 up")
	ip(t, "link set rx0 up")
	peer, rx := newTap(t, "peer0"), newTap(t, "rx0")
	defer peer.close()
	defer rx.close()
	probe := ethernet(rxMAC, 0x88b6, []byte("probe"))
	for deadline := time.Now().Add(answerTime); time.Now().Before(deadline); {
		switch err := sendto(peer.fd, probe, &unix.SockaddrLinklayer{Ifindex: peer.index}); {
		case errors.Is(err, unix.ENETDOWN):
		case err != nil:
			t.Fatal(err)
		case rx.next(10*time.Millisecond) != nil:
			return
		}
	}
	t.Fatal("the link does not come up")
}

// join makes the receiver a member of a group that routers ask for.
func join(t *testing.T) {
	t.Helper()
	fd := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	r := &unix.IPMreqn{Multiaddr: group4.As4(), Ifindex: int32(iface(t, "rx0").Index)}
	if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, r); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func iface(t *testing.T, name string) *net.Interface {
	t.Helper()
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return ifc
}

func sent(t *testing.T, name string) Counters {
	t.Helper()
	c, err := ReadCounters(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func socket(t *testing.T, family, typ, proto int) int {
	t.Helper()
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// A tap sees every frame of an interface.
type tap struct {
	t     *testing.T
	fd    int
	index int
}

func newTap(t *testing.T, name string) *tap {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{t: t, fd: fd, index: iface(t, name).Index}
	t.Cleanup(p.close)
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: p.index}); err != nil {
		t.Fatal(err)
	}
	// The error that says that the interface is down, kept for the next call.
	if _, err := unix.GetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *tap) close() {
	p.t.Helper()
	if p.fd < 0 {
		return
	}
	if err := unix.Close(p.fd); err != nil {
		p.t.Fatal(err)
	}
	p.fd = -1
}

// send puts a frame on the wire.
func (p *tap) send(frame []byte) {
	p.t.Helper()
	if err := sendto(p.fd, frame, &unix.SockaddrLinklayer{Ifindex: p.index}); err != nil {
		p.t.Fatalf("send % x: %v", frame[:min(len(frame), 60)], err)
	}
}

// next waits for a frame that came in, not one that went out, or nil.
func (p *tap) next(wait time.Duration) []byte {
	p.t.Helper()
	tv := unix.NsecToTimeval(wait.Nanoseconds())
	if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(p.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // the link went down since
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			p.t.Fatal(err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			return buf[:n]
		}
	}
}

// A stimulus makes a stock kernel answer.
type stimulus struct {
	name   string
	frame  []byte
	answer func(frame []byte) bool
}

func stimuli() []stimulus {
	return []stimulus{
		{"ARP request", ethernet(broadcastMAC(), unix.ETH_P_ARP, arpRequest()), isARPReply},
		{"ICMP echo", ipv4(rx4, unix.IPPROTO_ICMP, echo()), isICMP(0)},
		{"UDP to a closed port", ipv4(rx4, unix.IPPROTO_UDP, udp(9, nil)), isICMP(3)},
		{"IGMP query", ipv4(netip.MustParseAddr("224.0.0.1"), unix.IPPROTO_IGMP, igmpQuery()), isIGMPReport},
		{"neighbour solicitation", ipv6Frame(rx6, peer6, 255, nil, neighbourSolicitation()), isICMPv6(136)},
		{"multicast listener query", ipv6Frame(allNodes, peerLink, 1, routerAlert(), listenerQuery()), isICMPv6(131, 143)},
		{"ICMPv6 echo", ipv6Frame(rxLink, peerLink, 64, nil, []byte{128, 0, 0, 0, 0, 1, 0, 1}), isICMPv6(129, 135)},
		{"TCP to a closed port", ipv4(rx4, unix.IPPROTO_TCP, tcpSyn()), isTCPReset},
	}
}

// garbage are frames of all kinds, the same each time.
func garbage(n int) [][]byte {
	r := rand.New(rand.NewPCG(9, 9))
	frames := make([][]byte, n)
	for i := range frames {
		typ := uint16(r.Uint32())
		for typ == unix.ETH_P_8021Q || typ == unix.ETH_P_8021AD { // taken apart before the hook
			typ = uint16(r.Uint32())
		}
		if i%2 == 0 {
			typ = []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP, unix.ETH_P_LLDP, 0x88b5}[r.IntN(5)]
		}
		to := rxMAC
		if i%3 == 0 {
			to = broadcastMAC()
		}
		payload := make([]byte, 46+r.IntN(1400))
		for j := range payload {
			payload[j] = byte(r.Uint32())
		}
		frames[i] = ethernet(to, typ, payload)
	}
	return frames
}

func broadcastMAC() net.HardwareAddr { return bytes.Repeat([]byte{0xff}, 6) }

func ethernet(to net.HardwareAddr, typ uint16, payload []byte) []byte {
	f := append(append([]byte{}, to...), peerMAC...)
	f = append(binary.BigEndian.AppendUint16(f, typ), payload...)
	if len(f) < 60 {
		f = append(f, make([]byte, 60-len(f))...)
	}
	return f
}

func arpRequest() []byte {
	p := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	p = append(append(p, peerMAC...), peer4.AsSlice()...)
	return append(append(p, make([]byte, 6)...), rx4.AsSlice()...)
}

// ipv4 makes a frame; groups go to the MAC of the all-hosts group.
func ipv4(to netip.Addr, proto byte, payload []byte) []byte {
	return ipv4Offset(to, proto, 0, payload)
}

func ipv4Offset(to netip.Addr, proto byte, fragment uint16, payload []byte) []byte {
	h := []byte{0x45, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(20+len(payload)))
	h = binary.BigEndian.AppendUint16(h, 1)
	h = binary.BigEndian.AppendUint16(h, fragment)
	ttl := byte(64)
	mac := rxMAC
	if to.IsMulticast() {
		ttl, mac = 1, net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}
	}
	h = append(h, ttl, proto, 0, 0)
	h = append(append(h, peer4.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return ethernet(mac, unix.ETH_P_IP, append(h, payload...))
}

func echo() []byte {
	p := []byte{8, 0, 0, 0, 0, 1, 0, 1, 'e', 'c', 'h', 'o'}
	binary.BigEndian.PutUint16(p[2:], checksum(p))
	return p
}

// udp has no checksum, as IPv4 allows.
func udp(port uint16, payload []byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, 40000)
	p = binary.BigEndian.AppendUint16(p, port)
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(payload)))
	return append(append(p, 0, 0), payload...)
}

func tcpSyn() []byte {
	p := []byte{0x9c, 0x40, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}
	pseudo := append(append(peer4.AsSlice(), rx4.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(p)))
	binary.BigEndian.PutUint16(p[16:], checksum(append(pseudo, p...)))
	return p
}

// igmpQuery is version 2, to be answered within a tenth of a second.
func igmpQuery() []byte {
	p := []byte{0x11, 1, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(p[2:], checksum(p))
	return p
}

// ipv6Frame fills the checksum in; extension stands before ICMPv6 or UDP.
func ipv6Frame(to, from netip.Addr, hops byte, extension, payload []byte) []byte {
	return ipv6Proto(to, from, unix.IPPROTO_ICMPV6, hops, extension, payload, 2)
}

func ipv6Proto(to, from netip.Addr, proto, hops byte, extension, payload []byte, sum int) []byte {
	payload = bytes.Clone(payload)
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	binary.BigEndian.PutUint16(payload[sum:], checksum(append(pseudo, payload...)))
	next := proto
	if len(extension) > 0 {
		next = unix.IPPROTO_HOPOPTS
	}
	h := []byte{0x60, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(len(extension)+len(payload)))
	h = append(h, next, hops)
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	mac := rxMAC
	if to.IsMulticast() {
		mac = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	}
	return ethernet(mac, unix.ETH_P_IPV6, append(append(h, extension...), payload...))
}

func neighbourSolicitation() []byte {
	p := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, rx6.AsSlice()...)
	return append(append(p, 1, 1), peerMAC...)
}

func routerAlert() []byte { return []byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0} }

// listenerQuery is version 1, to be answered within a millisecond.
func listenerQuery() []byte {
	p := make([]byte, 24)
	p[0], p[5] = 130, 1
	return p
}

func checksum(p []byte) uint16 {
	var sum uint32
	for i, b := range p {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func etherType(f []byte) uint16 { return binary.BigEndian.Uint16(f[12:]) }

func isARPReply(f []byte) bool { return etherType(f) == unix.ETH_P_ARP && f[21] == 2 }

// payload4 is what an IPv4 packet of the protocol carries.
func payload4(f []byte, proto byte) []byte {
	if etherType(f) != unix.ETH_P_IP || f[23] != proto {
		return nil
	}
	return f[14+4*int(f[14]&0x0f):]
}

func isICMP(typ byte) func([]byte) bool {
	return func(f []byte) bool {
		p := payload4(f, unix.IPPROTO_ICMP)
		return p != nil && p[0] == typ
	}
}

func isIGMPReport(f []byte) bool {
	p := payload4(f, unix.IPPROTO_IGMP)
	return p != nil && p[0] != 0x11
}

func isTCPReset(f []byte) bool {
	p := payload4(f, unix.IPPROTO_TCP)
	return p != nil && p[13]&4 != 0
}

func isICMPv6(types ...byte) func([]byte) bool {
	return func(f []byte) bool {
		if etherType(f) != unix.ETH_P_IPV6 {
			return false
		}
		next, at := f[20], 54
		if next == unix.IPPROTO_HOPOPTS {
			next, at = f[at], at+8*(1+int(f[at+1]))
		}
		return next == unix.IPPROTO_ICMPV6 && bytes.IndexByte(types, f[at]) >= 0
	}
}
