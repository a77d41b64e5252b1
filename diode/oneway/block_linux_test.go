package oneway

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// answerTime is how long a stock kernel may take; it waits up to a second
// before it reports a group.
const answerTime = 20 * time.Second

// silentTime is how long nothing may come. What could come has been counted
// as dropped before; this is for what nobody thought of.
const silentTime = 500 * time.Millisecond

// A kernel that nobody has silenced answers everything: the lab hears.
func TestStockKernelAnswers(t *testing.T) {
	newLab(t)
	peer := newTap(t, "peer0")
	up(t)
	waiting := map[string]stimulus{}
	for _, s := range stimuli() {
		waiting[s.name] = s
	}
	for deadline := time.Now().Add(answerTime); len(waiting) > 0 && time.Now().Before(deadline); {
		for _, s := range waiting {
			peer.send(s.frame)
		}
		for f := peer.next(300 * time.Millisecond); f != nil; f = peer.next(300 * time.Millisecond) {
			for name, s := range waiting {
				if s.answer(f) {
					delete(waiting, name)
				}
			}
		}
	}
	for name := range waiting {
		t.Errorf("no answer to: %s", name)
	}
	if c := sent(t, "rx0"); c.Packets == 0 || c.Bytes == 0 {
		t.Errorf("counters have not moved: %+v", c)
	}
}

// A blocked interface says nothing in all its life, whatever comes, whatever
// the host does, and its taps see everything.
func TestBlockSilence(t *testing.T) {
	newLab(t)
	if err := Block("rx0", Options{}); err != nil {
		t.Fatal(err)
	}
	peer := newTap(t, "peer0")
	up(t)
	rx := newTap(t, "rx0")
	before := counted(t).ingress.packets // by linkUp
	var frames [][]byte
	for range 3 {
		for _, s := range stimuli() {
			frames = append(frames, s.frame)
		}
	}
	frames = append(frames, garbage(400)...)
	for i, f := range frames {
		peer.send(f)
		got := rx.next(answerTime)
		if diff := cmp.Diff(f, got); diff != "" {
			t.Fatalf("frame %d as the tap of rx0 saw it: %s", i, diff)
		}
	}
	if got, want := counted(t).ingress.packets-before, uint64(len(frames)); got != want {
		t.Errorf("%d frames were dropped before the IP stack, want %d", got, want)
	}
	hostSends(t, rx)
	ip(t, "link set rx0 down")
	ip(t, "link set rx0 up")
	silent(t, peer)
}

// counted is what the table of rx0 has counted.
func counted(t *testing.T) *table {
	t.Helper()
	rules, _, err := inspect("rx0")
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// hostSends does what other programs of the host do, all of it in vain.
func hostSends(t *testing.T, rx *tap) {
	t.Helper()
	before := counted(t).egress.packets
	fd := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	for range 5 {
		if err := unix.Sendto(fd, []byte("out"), 0, &unix.SockaddrInet4{Port: 9, Addr: peer4.As4()}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	if err := sendto(rx.fd, stimuli()[0].frame, &unix.SockaddrLinklayer{Ifindex: rx.index}); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("send on a packet socket: got %v, want ENOBUFS", err)
	}
	// write(2) on a packet socket, which no filter of calls can take.
	if _, err := unix.Write(rx.fd, stimuli()[0].frame); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("write on a packet socket: got %v, want ENOBUFS", err)
	}
	if got := counted(t).egress.packets - before; got < 7 {
		t.Errorf("the egress chain counted %d frames, want at least 7", got)
	}
}

// silent fails on any frame that has come or still comes.
func silent(t *testing.T, peer *tap) {
	t.Helper()
	heard := 0
	for f := peer.next(silentTime); f != nil; f = peer.next(silentTime) {
		if heard++; heard < 5 {
			t.Errorf("the peer heard % x", f[:min(len(f), 60)])
		}
	}
	if heard > 0 {
		t.Errorf("the peer heard %d frames, want 0", heard)
	}
	if c := sent(t, "rx0"); c.Packets != 0 || c.Bytes != 0 || c.Errors != 0 {
		t.Errorf("rx0 has sent: %+v", c)
	}
}

// For a UDP socket, datagrams to its port come in and nothing else does.
func TestBlockUDP(t *testing.T) {
	needRoot(t)
	const port, other = 7337, 7338
	for _, tt := range []struct {
		name   string
		o      Options
		local  netip.Addr
		frame  func(port uint16, payload string) []byte
		reject map[string][]byte
	}{
		{
			name: "any address", o: Options{UDPPort: port}, local: rx4,
			frame: func(port uint16, payload string) []byte {
				return ipv4(rx4, unix.IPPROTO_UDP, udp(port, []byte(payload)))
			},
			reject: map[string][]byte{
				"first fragment": ipv4Offset(rx4, unix.IPPROTO_UDP, 0x2000, udp(port, []byte("fragment"))),
				"later fragment": ipv4Offset(rx4, unix.IPPROTO_UDP, 3, udp(port, []byte("fragment"))),
				"TCP":            ipv4(rx4, unix.IPPROTO_TCP, tcpSyn()),
			},
		},
		{
			name: "IPv4", o: Options{UDPPort: port, Addr: rx4}, local: rx4,
			frame: func(port uint16, payload string) []byte {
				return ipv4(rx4, unix.IPPROTO_UDP, udp(port, []byte(payload)))
			},
			reject: map[string][]byte{"another address": ipv4(netip.MustParseAddr("127.0.0.1"), unix.IPPROTO_UDP, udp(port, nil))},
		},
		{
			name: "IPv6", o: Options{UDPPort: port, Addr: rx6}, local: rx6,
			frame: func(port uint16, payload string) []byte {
				return ipv6Proto(rx6, peer6, unix.IPPROTO_UDP, 64, nil, udp(port, []byte(payload)), 6)
			},
			reject: map[string][]byte{"another address": ipv6Proto(rxLink, peerLink, unix.IPPROTO_UDP, 64, nil, udp(port, nil), 6)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newLab(t)
			if err := Block("rx0", tt.o); err != nil {
				t.Fatal(err)
			}
			if off, err := ipv6Off("rx0"); err != nil || off == tt.o.ipv6() {
				t.Errorf("IPv6 is off: %t, %v", off, err)
			}
			peer := newTap(t, "peer0")
			up(t)
			link, closed := bound(t, tt.local, port), bound(t, tt.local, other)
			t.Cleanup(func() { _ = unix.Close(closed) })
			dropped := counted(t).ingress.packets // by linkUp
			rejected := [][]byte{tt.frame(other, "other")}
			for _, s := range stimuli() {
				rejected = append(rejected, s.frame)
			}
			for _, f := range tt.reject {
				rejected = append(rejected, f)
			}
			for _, f := range rejected {
				peer.send(f)
			}
			peer.send(tt.frame(port, "in"))
			if got := datagram(t, link); got != "in" {
				t.Errorf("the socket of the link got %q", got)
			}
			rules := counted(t)
			if got, want := rules.ingress.packets-dropped, uint64(len(rejected)); got != want {
				t.Errorf("%d frames were dropped, want %d", got, want)
			}
			for name, fd := range map[string]int{"link": link, "other": closed} {
				if _, _, err := unix.Recvfrom(fd, make([]byte, 64), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
					t.Errorf("the socket %s has more: %v", name, err)
				}
			}
			// Nobody listens any more: port unreachable, which is dropped.
			if err := unix.Close(link); err != nil {
				t.Fatal(err)
			}
			peer.send(tt.frame(port, "in"))
			if counted(t).egress.packets == rules.egress.packets {
				t.Error("the kernel has not tried to say that the port is closed, so nothing was shown")
			}
			silent(t, peer)
		})
	}
}

func bound(t *testing.T, addr netip.Addr, port int) int {
	t.Helper()
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: port})
	if addr.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: port}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	return fd
}

func datagram(t *testing.T, fd int) string {
	t.Helper()
	tv := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// states is what Check says, by layer.
func states(t *testing.T, o Options) map[string]State {
	t.Helper()
	layers, err := Check("rx0", o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]State{}
	for _, l := range layers {
		got[l.Name] = l.State
		t.Logf("%-11s %-8s %s", l.Name, l.State, l.Detail)
		if (l.State == OK) != (l.Hint == "") && l.Name != layerSocket {
			t.Errorf("%s is %s with the hint %q", l.Name, l.State, l.Hint)
		}
	}
	return got
}

func wantStates(t *testing.T, o Options, want map[string]State) {
	t.Helper()
	if diff := cmp.Diff(want, states(t, o)); diff != "" {
		t.Error(diff)
	}
}

// with is the state of a good receiver but for the changes.
func with(change map[string]State) map[string]State {
	m := map[string]State{
		layerAddress: OK, layerARP: OK, layerIPv6: OK, layerEgress: OK, layerIngress: OK, layerSocket: OK, layerCounters: OK,
	}
	for name, s := range change {
		m[name] = s
	}
	return m
}

// Each state has a lab and a test of its own: a lab belongs to one thread.
func TestCheckOpen(t *testing.T) {
	newLab(t)
	ip(t, "link set peer0 up")
	wantStates(t, Options{}, with(map[string]State{
		layerARP: Missing, layerIPv6: Missing, layerEgress: Missing, layerIngress: Missing, layerCounters: Unknown,
	}))
}

func TestCheckDown(t *testing.T) {
	newLab(t)
	block(t, Options{})
	wantStates(t, Options{}, with(map[string]State{layerEgress: Unknown, layerIngress: Unknown, layerCounters: Unknown}))
}

func TestCheckBlocked(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name   string
		o      Options
		before func(t *testing.T)
		want   map[string]State
		strict bool
	}{
		{name: "packet", strict: true},
		{name: "again", before: func(t *testing.T) { block(t, Options{UDPPort: 1}); block(t, Options{}) }, strict: true},
		{name: "address", before: func(t *testing.T) { ip(t, "address add 10.9.0.1/24 dev rx0") }, want: map[string]State{layerAddress: Missing}},
		{name: "udp", o: Options{UDPPort: 7337}, before: func(t *testing.T) {
			ip(t, "address add 10.9.0.1/24 dev rx0")
		}, want: map[string]State{layerAddress: Missing}, strict: true},
		{name: "udp of an IPv6 address", o: Options{UDPPort: 7337, Addr: rx6}, before: func(t *testing.T) {
			ip(t, "address add fd00:9::1/64 dev rx0 nodad")
		}, want: map[string]State{layerAddress: Missing, layerIPv6: Missing}, strict: true},
		{name: "arp", before: func(t *testing.T) { ip(t, "link set rx0 arp on") }, want: map[string]State{layerARP: Missing}},
		{name: "ipv6", before: func(t *testing.T) {
			if err := os.WriteFile(ipv6Switch("rx0"), []byte("0"), 0); err != nil {
				t.Fatal(err)
			}
		}, want: map[string]State{layerIPv6: Missing}},
		{name: "unblocked", before: func(t *testing.T) {
			for range 2 {
				if err := Unblock("rx0"); err != nil {
					t.Fatal(err)
				}
			}
		}, want: map[string]State{layerEgress: Missing, layerIngress: Missing, layerCounters: Unknown}},
		{name: "ingress for another port", o: Options{UDPPort: 7337}, before: func(t *testing.T) {
			block(t, Options{UDPPort: 7338})
		}, want: map[string]State{layerIngress: Missing}, strict: true},
		{name: "ingress altered", before: func(t *testing.T) { alter(t, chainIngress) }, want: map[string]State{layerIngress: Missing}},
		{name: "egress altered", before: func(t *testing.T) { alter(t, chainEgress) }, want: map[string]State{
			// The rule is for one EtherType that the trial does not try.
			layerEgress: Missing,
		}},
		{name: "rules of somebody else", before: func(t *testing.T) {
			foreign(t, nftables.ChainPolicyDrop, 0)
			if err := Unblock("rx0"); err != nil {
				t.Fatal(err)
			}
		}, want: map[string]State{layerIngress: Missing}},
		{name: "somebody else drops for us", before: func(t *testing.T) {
			// As after a renaming: our table is on another interface.
			ip(t, "link add other0 type veth peer name other1")
			if err := errors.Join(Unblock("rx0"), install(tableName("rx0"), "other0", Options{})); err != nil {
				t.Fatal(err)
			}
			foreign(t, nftables.ChainPolicyDrop, 0)
		}, want: map[string]State{layerEgress: Unknown, layerIngress: Unknown}},
		{name: "a packet socket elsewhere", before: func(t *testing.T) { newTap(t, "peer0") }, want: map[string]State{layerSocket: Missing}},
		{name: "the link's packet socket", before: func(t *testing.T) { newTap(t, "rx0") }, strict: true},
		{name: "a connected socket", before: func(t *testing.T) {
			ip(t, "address add 10.9.0.1/24 dev rx0") // a route to the peer
			if err := unix.Connect(socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0), &unix.SockaddrInet4{Port: 9, Addr: peer4.As4()}); err != nil {
				t.Fatal(err)
			}
		}, want: map[string]State{layerSocket: Missing, layerAddress: Missing}},
		{name: "a TCP socket", before: func(t *testing.T) { socket(t, unix.AF_INET, unix.SOCK_STREAM, 0) }, want: map[string]State{layerSocket: Missing}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newLab(t)
			block(t, tt.o)
			linkUp(t)
			if tt.before != nil {
				tt.before(t)
			}
			wantStates(t, tt.o, with(tt.want))
			layers, err := Check("rx0", tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if err := Strict(layers); (err == nil) != tt.strict {
				t.Errorf("Strict: %v", err)
			}
			if c := sent(t, "rx0"); c.Packets != 0 && tt.want[layerEgress] != Missing {
				t.Errorf("Check has sent: %+v", c)
			}
		})
	}
}

// In a lab: if it were not refused, it would silence the host.
func TestBlockLoopback(t *testing.T) {
	newLab(t)
	if err := Block("lo", Options{}); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
	if rules, _, err := inspect("lo"); rules != nil || err != nil {
		t.Errorf("lo has %+v, %v", rules, err)
	}
}

func block(t *testing.T, o Options) {
	t.Helper()
	if err := Block("rx0", o); err != nil {
		t.Fatal(err)
	}
}

// alter lets an EtherType through a chain of ours.
func alter(t *testing.T, name string) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: tableName("rx0"), Family: nftables.TableFamilyNetdev}
	c.InsertRule(&nftables.Rule{
		Table: table, Chain: &nftables.Chain{Name: name, Table: table},
		Exprs: append(protocolIs(0x88b6), &expr.Verdict{Kind: expr.VerdictAccept}),
	})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// foreign installs an egress chain of somebody else, which drops one EtherType
// or does what its policy says.
func foreign(t *testing.T, policy nftables.ChainPolicy, typ uint16) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Name: "firewall", Family: nftables.TableFamilyNetdev})
	ch := c.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookEgress,
		Priority: nftables.ChainPriorityFilter, Policy: &policy, Device: "rx0",
	})
	if typ != 0 {
		c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: append(protocolIs(typ), &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A trial that gets through is one frame to ourselves, and no proof.
func TestTrialOfHalfADrop(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name  string
		drops uint16
		want  uint16 // the EtherType that leaves
	}{
		{"nothing is dropped", 0, 0x88b5},
		{"only what is tried first", 0x88b5, unix.ETH_P_ARP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newLab(t)
			if err := disableIPv6("rx0"); err != nil {
				t.Fatal(err)
			}
			ip(t, "link set rx0 arp off")
			linkUp(t)
			foreign(t, nftables.ChainPolicyAccept, tt.drops)
			peer := newTap(t, "peer0")
			got := states(t, Options{})
			if got[layerEgress] != Missing || got[layerCounters] != Missing {
				t.Errorf("got %v", got)
			}
			f := peer.next(answerTime)
			if f == nil || etherType(f) != tt.want || string(f[:6]) != string(rxMAC) {
				t.Errorf("the peer heard % x", f)
			}
			if f := peer.next(silentTime); f != nil {
				t.Errorf("the peer heard more: % x", f)
			}
		})
	}
}

// Without privileges little is known, and nothing of that is ok.
func TestCheckWithoutPrivileges(t *testing.T) {
	needRoot(t)
	const udpPort = 7337
	for _, tt := range []struct {
		name string
		drop []int
		o    Options
		open bool
		want map[string]State
	}{
		{"no CAP_NET_ADMIN", []int{unix.CAP_NET_ADMIN}, Options{}, false, map[string]State{layerIngress: Unknown}},
		{"packet", []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, Options{}, false, map[string]State{
			layerEgress: Unknown, layerIngress: Unknown, layerCounters: Unknown,
		}},
		{"udp", []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, Options{UDPPort: udpPort}, false, map[string]State{layerIngress: Unknown}},
		{"udp, open", []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, Options{UDPPort: udpPort}, true, map[string]State{
			layerEgress: Missing, layerIngress: Unknown, layerCounters: Missing,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newLab(t)
			block(t, tt.o)
			linkUp(t)
			if tt.open {
				if err := Unblock("rx0"); err != nil {
					t.Fatal(err)
				}
			}
			dropCapabilities(t, tt.drop...)
			wantStates(t, tt.o, with(tt.want))
			if err := Block("rx0", tt.o); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
				t.Errorf("Block: got %v, want a permission error that names CAP_NET_ADMIN", err)
			}
		})
	}
}

// dropCapabilities is for this thread alone, which is the test's.
func dropCapabilities(t *testing.T, drop ...int) {
	t.Helper()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		t.Fatal(err)
	}
	for _, c := range drop {
		mask := ^uint32(1 << (c % 32))
		d[c/32].Effective &= mask
		d[c/32].Permitted &= mask
	}
	if err := unix.Capset(&h, &d[0]); err != nil {
		t.Fatal(err)
	}
}

// A receiver of packets that is sealed on a blocked interface: the whole.
func TestSealedReceiver(t *testing.T) {
	newLab(t)
	block(t, Options{})
	peer := newTap(t, "peer0")
	linkUp(t)
	next := startChild(t, "packet")
	if next().Addr != "rx0" {
		t.Fatal("the child is not ready")
	}
	for _, s := range stimuli() {
		peer.send(s.frame)
	}
	peer.send(ethernet(rxMAC, 0x88b5, []byte("in")))
	r := next()
	if want := fmt.Sprintf("%d frames, then in", len(stimuli())); r.Received != want {
		t.Errorf("received %q, want %q", r.Received, want)
	}
	if r.Sealed != OK {
		t.Errorf("Sealed is %s: %s", r.Sealed, r.Detail)
	}
	silent(t, peer)
}
