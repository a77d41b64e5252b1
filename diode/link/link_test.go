package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frame4 makes an Ethernet frame with an IPv4 datagram.
func frame4(port uint16, payload []byte, options, tags int) []byte {
	f := make([]byte, 12)
	for range tags {
		f = append(f, 0x81, 0, 0, 7)
	}
	f = append(f, 8, 0)
	ip := make([]byte, 20+4*options)
	ip[0] = 0x40 | byte(5+options)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+8+len(payload)))
	ip[8], ip[9] = 64, protoUDP
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[10:], ^checksum(ip))
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	return append(append(append(f, ip...), udp...), payload...)
}

func frame6(port uint16, payload []byte) []byte {
	f := append(make([]byte, 12), 0x86, 0xdd)
	ip := make([]byte, 40)
	ip[0], ip[6] = 0x60, protoUDP
	binary.BigEndian.PutUint16(ip[4:], uint16(8+len(payload)))
	ip[39] = 1
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	return append(append(append(f, ip...), udp...), payload...)
}

func TestParse(t *testing.T) {
	payload := []byte("what was sent")
	for name, f := range map[string][]byte{
		"plain":   frame4(7337, payload, 0, 0),
		"options": frame4(7337, payload, 3, 0),
		"tag":     frame4(7337, payload, 0, 1),
		"tags":    frame4(7337, payload, 1, 2),
		"padded":  append(frame4(7337, payload, 0, 0), make([]byte, 20)...),
		"ipv6":    frame6(7337, payload),
	} {
		d, ok := parse(f)
		if !ok || d.port != 7337 || !bytes.Equal(d.payload, payload) {
			t.Errorf("%s: %v, port %d, %q", name, ok, d.port, d.payload)
		}
	}
	for name, change := range map[string]func(f []byte){
		"ARP":           func(f []byte) { f[13] = 6 },
		"version":       func(f []byte) { f[14] = 0x65 },
		"short header":  func(f []byte) { f[14] = 0x44 },
		"too long":      func(f []byte) { f[16] = 9 },
		"fragment":      func(f []byte) { f[20] = 0x20 },
		"later part":    func(f []byte) { f[21] = 1 },
		"TCP":           func(f []byte) { f[23] = 6 },
		"checksum":      func(f []byte) { f[24]++ },
		"length of udp": func(f []byte) { f[39]++ },
	} {
		f := frame4(7337, payload, 0, 0)
		change(f)
		if name != "checksum" { // the header is right but for that
			f[24], f[25] = 0, 0
			binary.BigEndian.PutUint16(f[24:], ^checksum(f[14:34]))
		}
		if d, ok := parse(f); ok {
			t.Errorf("%s: taken as %+v", name, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(frame4(7337, []byte("x"), 0, 0))
	f.Add(frame4(7337, []byte("x"), 10, 2))
	f.Add(frame6(7337, []byte("x")))
	f.Fuzz(func(t *testing.T, p []byte) {
		d, ok := parse(p)
		if ok && len(d.payload) > len(p)-42 {
			t.Fatalf("%d bytes out of a frame of %d", len(d.payload), len(p))
		}
	})
}

// TestPace runs the schedule against a clock of its own.
func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	late := time.Duration(0)
	p := pacer{rate: 1e9, bits: 12000, now: func() time.Time { return now }, until: func(t time.Time) { now = t.Add(late) }}
	run := func(n int) time.Duration {
		start := now
		for range n {
			p.wait(16)
		}
		return now.Sub(start)
	}
	want := 10000 * 16 * 12000 * time.Nanosecond
	if got := run(10000); got < want*99/100 || got > want*101/100 {
		t.Errorf("a second took %s, want %s", got, want)
	}
	// Nothing goes more than the shortest pause before its time.
	first, sent := now, 0
	p.next = now
	for range 1000 {
		p.wait(4)
		due := first.Add(time.Duration(sent) * 12000 * time.Nanosecond)
		if early := due.Sub(now); early > ahead {
			t.Fatalf("packet %d went %s early, want at most %s", sent, early, ahead)
		}
		sent += 4
		now = now.Add(time.Microsecond)
	}
	// A clock that wakes late is made up for.
	late = 70 * time.Microsecond
	if got := run(10000); got < want*99/100 || got > want*101/100 {
		t.Errorf("with a late clock: %s, want %s", got, want)
	}
	// A stall is not.
	late = 0
	now = now.Add(3 * time.Second)
	if got := run(10000); got < want*99/100 {
		t.Errorf("after a stall: %s, want %s less at most a millisecond", got, want)
	}
}

// loop makes a receiver on loopback and a sender to it.
func loop(t *testing.T, size int) (*Receiver, *Sender) {
	t.Helper()
	r, err := Listen(ReceiverConfig{Backend: "udp", Port: freePort(t), Addr: netip.MustParseAddr("127.0.0.1"), RingBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Dial(SenderConfig{To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.c.Port), Size: size, Rate: 1e8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, s
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return a.Port()
}

// receive takes n datagrams.
func receive(t *testing.T, r *Receiver, n int, send func()) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan [][]byte, 1)
	go func() {
		var all [][]byte
		if err := r.Run(ctx, func(p []byte) {
			if all = append(all, bytes.Clone(p)); len(all) == n {
				cancel()
			}
		}, func() {}); err != nil {
			t.Error(err)
		}
		got <- all
	}()
	send()
	return <-got
}

// TestModes sends by each way, and falls back from one to the next.
func TestModes(t *testing.T) {
	const size, n = 500, 100
	packets := make([]byte, n*size)
	for i := range n {
		binary.BigEndian.PutUint32(packets[i*size:], uint32(i))
	}
	for name, breakIt := range map[string]struct {
		change func(s *Sender)
		want   string
	}{
		"gso":   {func(*Sender) {}, "gso"},
		"batch": {func(s *Sender) { s.calls.segments = failing(unix.EIO) }, "sendmmsg"},
		"plain": {func(s *Sender) {
			first := true
			s.calls.segments = func(fd int, p []byte, to unix.Sockaddr) error {
				if first {
					first = false
					return unix.EINVAL
				}
				return sendSegments(fd, p, to)
			}
			s.calls.batch = func(int, []mmsghdr) (int, error) { return 0, unix.ENOSYS }
		}, "plain"},
		"no buffers at first": {func(s *Sender) {
			tries := 0
			s.calls.segments = func(fd int, p []byte, to unix.Sockaddr) error {
				if tries++; tries%3 != 0 {
					return unix.ENOBUFS
				}
				return sendSegments(fd, p, to)
			}
		}, "gso"},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := loop(t, size)
			breakIt.change(s)
			got := receive(t, r, n, func() {
				if err := s.Send(packets); err != nil {
					t.Error(err)
				}
			})
			if len(got) != n || !bytes.Equal(bytes.Join(got, nil), packets) {
				t.Errorf("%d datagrams arrived, want %d in order", len(got), n)
			}
			if s.Mode() != breakIt.want || s.Stats().Packets != n {
				t.Errorf("mode %s, %+v, want %s", s.Mode(), s.Stats(), breakIt.want)
			}
		})
	}
}

func failing(err error) func(int, []byte, unix.Sockaddr) error {
	return func(int, []byte, unix.Sockaddr) error { return err }
}

// TestRefusedIsNoise: nobody listens, and somebody says so.
func TestRefusedIsNoise(t *testing.T) {
	s, err := Dial(SenderConfig{To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t)), Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	s.calls.segments = failing(unix.ECONNREFUSED)
	if err := s.Send(make([]byte, 3200)); err != nil || s.Stats().Refused == 0 || s.Stats().Lost != 32 || s.Stats().Packets != 0 {
		t.Errorf("error %v, %+v", err, s.Stats())
	}
	s.calls.segments = failing(unix.EBADF)
	if err := s.Send(make([]byte, 3200)); err == nil {
		t.Error("a closed socket is no error")
	}
}

// TestSocketCannotSend: what Listen gives can be read and not written.
func TestSocketCannotSend(t *testing.T) {
	r, _ := loop(t, 100)
	to := &unix.SockaddrInet4{Port: int(r.c.Port), Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Sendto(r.FD(), []byte("x"), unix.MSG_NOSIGNAL, to); err == nil {
		t.Error("the receiver's socket sent a datagram")
	}
}

func TestConfig(t *testing.T) {
	ok := netip.MustParseAddrPort("127.0.0.1:9")
	for name, c := range map[string]SenderConfig{
		"no address": {Size: 100},
		"no size":    {To: ok},
		"too long":   {To: ok, Size: 70000},
		"burst":      {To: ok, Size: 100, Burst: 65},
		"interface":  {To: ok, Size: 100, Interface: "no-such-one"},
	} {
		if _, err := Dial(c); err == nil {
			t.Errorf("send: %s: accepted", name)
		}
	}
	for name, c := range map[string]ReceiverConfig{
		"no port":      {Backend: "udp"},
		"back end":     {Backend: "raw", Port: 9},
		"no interface": {Backend: "packet", Port: 9},
		"interface":    {Backend: "packet", Port: 9, Interface: "no-such-one"},
	} {
		if _, err := Listen(c); err == nil {
			t.Errorf("receive: %s: accepted", name)
		}
	}
}

// inNamespace runs f in a network namespace of its own.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT RUN: needs root, for a network namespace")
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		// The thread is thrown away with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Errorf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestNeighbour(t *testing.T) {
	inNamespace(t, func() {
		ip(t, "link", "set", "lo", "up")
		ip(t, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
		ip(t, "address", "add", "10.9.0.1/24", "dev", "d0")
		ip(t, "link", "set", "d0", "up")
		ip(t, "link", "set", "d1", "up")
		ip(t, "route", "add", "10.10.0.0/16", "via", "10.9.0.7")
		state := func(a string, want NeighbourState, hop string) {
			t.Helper()
			n, err := FindNeighbour(netip.MustParseAddr(a), "")
			if err != nil || n.State != want || n.NextHop.String() != hop {
				t.Errorf("%s: %+v, %v; want %s by %s", a, n, err, want, hop)
			}
			if (want == NeighbourMissing || want == NeighbourKnown) && !strings.Contains(n.Hint, hop) {
				t.Errorf("%s: hint %q", a, n.Hint)
			}
		}
		state("10.9.0.2", NeighbourMissing, "10.9.0.2")
		state("10.10.3.4", NeighbourMissing, "10.9.0.7")
		state("127.0.0.1", NeighbourNotNeeded, "127.0.0.1")
		ip(t, "neighbour", "add", "10.9.0.7", "lladdr", "02:00:00:00:00:07", "dev", "d0", "nud", "reachable")
		state("10.10.3.4", NeighbourKnown, "10.9.0.7")
		ip(t, "neighbour", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "d0", "nud", "permanent")
		state("10.9.0.2", NeighbourPermanent, "10.9.0.2")
		if mtu, err := MTU(netip.MustParseAddr("10.9.0.2"), ""); mtu != 1500 || err != nil {
			t.Errorf("mtu %d, %v", mtu, err)
		}
		if _, err := FindNeighbour(netip.MustParseAddr("192.0.2.1"), ""); err == nil {
			t.Error("no route, and no error")
		}
	})
}

// TestRing reads an interface without an address, by every kind of frame.
func TestRing(t *testing.T) {
	inNamespace(t, func() {
		ip(t, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
		ip(t, "link", "set", "d1", "arp", "off")
		ip(t, "link", "set", "d0", "up")
		ip(t, "link", "set", "d1", "up")
		r, err := Listen(ReceiverConfig{Backend: "packet", Interface: "d1", Port: 7337, RingBytes: 2 << 20})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = r.Close() }()
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }()
		d0, err := net.InterfaceByName("d0")
		if err != nil {
			t.Error(err)
			return
		}
		to := &unix.SockaddrLinklayer{Ifindex: d0.Index, Halen: 6, Addr: [8]byte{2, 0, 0, 0, 0, 9}}
		want := []string{"plain", "options", "one tag", "two tags", "six"}
		frames := [][]byte{
			frame4(7338, []byte("other port"), 0, 0), frame4(7337, []byte(want[0]), 0, 0), make([]byte, 60), frame4(7337, []byte(want[1]), 2, 0),
			frame4(7337, []byte(want[2]), 0, 1), frame4(7337, []byte(want[3]), 0, 2), frame6(7338, []byte("other port")), frame6(7337, []byte(want[4])),
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, to); err != nil {
				t.Error(err)
			}
		}
		var got []string
		if err := r.Run(ctx, func(p []byte) {
			if got = append(got, string(p)); len(got) == len(want) {
				cancel()
			}
		}, func() {}); err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
