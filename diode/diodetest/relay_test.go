package diodetest

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// stuck is when a test gives up; nothing is measured by it.
const stuck = 20 * time.Second

func listen(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func addr(c *net.UDPConn) netip.AddrPort {
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// relay starts one between two sockets; stop ends it and gives its counts.
func relay(t testing.TB, i Impairment) (to netip.AddrPort, from *net.UDPConn, stop func() Counts) {
	t.Helper()
	in, from := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f := New(i)
	go func() { done <- Relay(ctx, in, addr(from), f) }()
	return addr(in), from, func() Counts {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return f.Counts()
	}
}

func receive(t *testing.T, from *net.UDPConn) []byte {
	t.Helper()
	if err := from.SetReadDeadline(time.Now().Add(stuck)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, maxDatagram)
	n, _, err := from.ReadFromUDPAddrPort(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// TestRelay: what comes out of the socket is what the filter says, packet by
// packet and byte by byte.
func TestRelay(t *testing.T) {
	i := everything()
	i.ReorderEvery = 0 // what is held goes on when nothing comes for a while: a question of time
	to, from, stop := relay(t, i)
	sender := listen(t)
	oracle := New(i)
	for window := range 60 {
		// Few at once: no socket buffer of a host is too small for them.
		var want [][]byte
		for k := range 16 {
			p := packet(window*16 + k)
			oracle.Feed(p, func(p []byte) { want = append(want, bytes.Clone(p)) })
			if _, err := sender.WriteToUDPAddrPort(p, to); err != nil {
				t.Fatal(err)
			}
		}
		for k, p := range want {
			if got := receive(t, from); !bytes.Equal(got, p) {
				t.Fatalf("window %d, packet %d of %d: %x, want %x", window, k, len(want), got, p)
			}
		}
	}
	if got, want := stop(), oracle.Counts(); got != want || got.Lost == 0 || got.Garbage == 0 {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}

// TestRelayFlushes: a packet that waits for others comes though they do not.
func TestRelayFlushes(t *testing.T) {
	to, from, stop := relay(t, Impairment{ReorderEvery: 1, ReorderBy: 1000})
	sender := listen(t)
	if _, err := sender.WriteToUDPAddrPort(packet(7), to); err != nil {
		t.Fatal(err)
	}
	if got := number(receive(t, from)); got != 7 {
		t.Errorf("packet %d came, want 7", got)
	}
	if got, want := stop(), (Counts{In: 1, Out: 1, Reordered: 1}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}

// TestRelayHoldsNothingBack: what waits when the relay ends comes then.
func TestRelayHoldsNothingBack(t *testing.T) {
	in, from := listen(t), listen(t)
	f := New(Impairment{ReorderEvery: 1, ReorderBy: 1000})
	f.Feed(packet(3), func(p []byte) { t.Errorf("packet %d came too early", number(p)) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Relay(ctx, in, addr(from), f); err != nil {
		t.Fatal(err)
	}
	if got := number(receive(t, from)); got != 3 {
		t.Errorf("packet %d came, want 3", got)
	}
}

// TestRelayEnds: the socket can be read from afterwards, without a deadline.
func TestRelayEnds(t *testing.T) {
	in, from, sender := listen(t), listen(t), listen(t)
	if err := in.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Relay(ctx, in, addr(from), New(Impairment{})); err != nil {
		t.Fatal(err)
	}
	if _, err := sender.WriteToUDPAddrPort(packet(1), addr(in)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, packetSize)
	n, _, err := in.ReadFromUDPAddrPort(p)
	if err != nil || number(p[:n]) != 1 {
		t.Errorf("read %x, %v after the relay", p[:n], err)
	}
}

func TestRelayRefuses(t *testing.T) {
	in := listen(t)
	err := Relay(t.Context(), in, netip.MustParseAddrPort("[::1]:9"), New(Impairment{}))
	if err == nil || !strings.Contains(err.Error(), "[::1]:9: want one of IPv4") {
		t.Errorf("an address of IPv6: %v", err)
	}
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Relay(t.Context(), closed, addr(in), New(Impairment{})); err == nil {
		t.Error("a closed socket was accepted")
	}
}

// BenchmarkRelay passes packets of 1456 bytes on, as many at once as a sender's
// burst has. Sender and receiver take part of the time.
func BenchmarkRelay(b *testing.B) {
	const size, burst = 1456, 64
	to, from, stop := relay(b, Impairment{})
	out, in := ipv4.NewPacketConn(listen(b)), ipv4.NewPacketConn(from)
	packets, room := make([]ipv4.Message, burst), make([]ipv4.Message, burst)
	for i := range packets {
		packets[i] = ipv4.Message{Buffers: [][]byte{make([]byte, size)}, Addr: net.UDPAddrFromAddrPort(to)}
		room[i] = ipv4.Message{Buffers: [][]byte{make([]byte, size)}}
	}
	b.SetBytes(burst * size)
	b.ReportAllocs()
	for b.Loop() {
		for rest := packets; len(rest) > 0; {
			n, err := out.WriteBatch(rest, 0)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := from.SetReadDeadline(time.Now().Add(stuck)); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < burst; {
			n, err := in.ReadBatch(room, 0)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
	if c := stop(); c.In != c.Out || c.Lost != 0 {
		b.Errorf("counts %+v: want as many out as in", c)
	}
}
