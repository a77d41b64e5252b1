package link

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// good is a card of which nothing is to be said.
func good() *Card {
	off := false
	return &Card{
		Name: "eth1", Driver: "ixgbe", MTU: 9000, Up: true, Carrier: true, Speed: 10e9, Ring: &CardRing{4096, 4096}, Pause: &CardPause{}, EEE: &off,
		Features: map[string]Feature{"tx-udp-segmentation": {On: true}, "rx-udp-gro-forwarding": {}, "rx-gro-list": {}}, Errors: &CardErrors{Frames: 1000},
	}
}

// found is the finding of a name; each name is there once, and whatever is not
// well says what mends it.
func found(t *testing.T, all []Finding, name string) (f Finding) {
	t.Helper()
	n := 0
	for _, one := range all {
		if one.Name == name {
			f = one
			n++
		}
		if bad := one.State == FindingWarn || one.State == FindingFail; bad != (one.Mend != "") || one.Detail == "" {
			t.Errorf("%+v: want a detail, and what mends it if and only if it is to be mended", one)
		}
	}
	if n != 1 {
		t.Errorf("%d findings are named %s, want one: %+v", n, name, all)
	}
	return f
}

func TestGoodCard(t *testing.T) {
	all := append(CheckSenderCard(good(), 5e9, 9000), CheckReceiverCard(good())...)
	all = append(all, CheckKernel(&Kernel{ReceiveMax: 1 << 30, Backlog: 1000, Available: 1 << 33, Governors: []string{"performance"}}, DefaultRing, true)...)
	for _, f := range append(all, CheckRing(DefaultRing, 1e9, 1<<33)) {
		if f.State != FindingOK || f.Mend != "" || f.Failed() {
			t.Errorf("a good host: %+v", f)
		}
	}
	bare := &Card{Name: "eth1", MTU: 1500, Up: true, Carrier: true}
	for _, f := range append(CheckSenderCard(bare, 1e9, 0), CheckReceiverCard(bare)...) {
		if f.State != FindingOK && f.State != FindingUnknown {
			t.Errorf("a driver that tells nothing: %+v", f)
		}
	}
}

func TestCardFindings(t *testing.T) {
	on := true
	for what, tt := range map[string]struct {
		change     func(c *Card)
		rate       float64
		mtu        int
		name       string
		send, recv FindingState // "" where that side does not look
		mend       string
	}{
		"down":        {change: func(c *Card) { c.Up = false }, name: "card", send: "fail", recv: "fail", mend: "ip link set dev eth1 up"},
		"dark":        {change: func(c *Card) { c.Carrier = false }, name: "card", send: "fail", recv: "fail", mend: "light|fibre"},
		"rate":        {rate: 11e9, name: "speed", send: "fail", mend: "9.5 Gbit/s or less"},
		"tight rate":  {rate: 9.9e9, name: "speed", send: "warn", mend: "9.5 Gbit/s"},
		"no rate":     {name: "speed", send: "unknown"},
		"short":       {change: func(c *Card) { c.MTU = 1500 }, mtu: 9000, rate: 1e9, name: "mtu", send: "fail", recv: "ok", mend: "ip link set dev eth1 mtu 9000"},
		"shortest":    {change: func(c *Card) { c.MTU = 576 }, rate: 1e9, name: "mtu", send: "fail", recv: "fail", mend: "mtu 1500"},
		"short, fast": {change: func(c *Card) { c.MTU = 1500 }, rate: 5e9, name: "mtu", send: "warn", recv: "ok", mend: "mtu 9000, on both sides"},
		"short, said": {change: func(c *Card) { c.MTU = 1500 }, rate: 5e9, mtu: 1500, name: "mtu", send: "ok", recv: "ok"},
		"soft cuts":   {change: func(c *Card) { c.Features["tx-udp-segmentation"] = Feature{} }, name: "offload", send: "warn", recv: "ok", mend: "ethtool -K eth1 tx-udp-segmentation on"},
		"cannot cut":  {change: func(c *Card) { c.Features["tx-udp-segmentation"] = Feature{Fixed: true} }, name: "offload", send: "ok", recv: "ok"},
		"merged":      {change: func(c *Card) { c.Features["rx-udp-gro-forwarding"] = Feature{On: true} }, name: "offload", send: "ok", recv: "fail", mend: "ethtool -K eth1 rx-udp-gro-forwarding off"},
		"merged twice": {change: func(c *Card) {
			c.Features["rx-udp-gro-forwarding"], c.Features["rx-gro-list"] = Feature{On: true}, Feature{On: true}
		}, name: "offload", send: "ok", recv: "fail", mend: "ethtool -K eth1 rx-udp-gro-forwarding off rx-gro-list off"},
		"descriptors": {change: func(c *Card) { c.Ring.Now = 512 }, name: "rx-ring", recv: "warn", mend: "ethtool -G eth1 rx 4096"},
		"damaged":     {change: func(c *Card) { c.Errors.Damaged = 3 }, name: "arrivals", recv: "warn", mend: "clean the fibre"},
		"missed":      {change: func(c *Card) { c.Errors.Missed = 3 }, name: "arrivals", recv: "warn", mend: "a lower rate"},
		"missed, few": {change: func(c *Card) { c.Errors.Missed, c.Ring.Now = 3, 512 }, name: "arrivals", recv: "warn", mend: "ethtool -G eth1 rx 4096"},
		"obeys pause": {change: func(c *Card) { c.Pause.RX = true }, name: "pause", send: "warn", recv: "ok", mend: "ethtool -A eth1 autoneg off rx off tx off"},
		"sends pause": {change: func(c *Card) { c.Pause.TX = true }, name: "pause", send: "ok", recv: "fail", mend: "ethtool -A eth1 autoneg off rx off tx off"},
		"eee":         {change: func(c *Card) { c.EEE = &on }, name: "eee", send: "warn", recv: "warn", mend: "ethtool --set-eee eth1 eee off"},
	} {
		c := good()
		if tt.change != nil {
			tt.change(c)
		}
		for side, want := range map[string]FindingState{"sender": tt.send, "receiver": tt.recv} {
			if want == "" {
				continue
			}
			all := CheckReceiverCard(c)
			if side == "sender" {
				all = CheckSenderCard(c, tt.rate, tt.mtu)
			}
			f := found(t, all, tt.name)
			if f.State != want {
				t.Errorf("%s, %s: %+v, want %s", what, side, f, want)
			}
			if f.Mend != "" {
				named := false
				for m := range strings.SplitSeq(tt.mend, "|") {
					named = named || strings.Contains(f.Mend, m)
				}
				if !named {
					t.Errorf("%s, %s: mended by %q, want %q", what, side, f.Mend, tt.mend)
				}
			}
		}
	}
}

func TestKernelFindings(t *testing.T) {
	k := Kernel{ReceiveMax: 212992, Backlog: 1000, Dropped: 7, Governors: []string{"performance", "powersave"}}
	all := CheckKernel(&k, 160<<20, true)
	for name, mend := range map[string]string{
		"backlog":  "sysctl -w net.core.netdev_max_backlog=10000",
		"rmem-max": "sysctl -w net.core.rmem_max=83886080",
		"governor": "cpupower frequency-set -g performance",
	} {
		if f := found(t, all, name); f.State != FindingWarn || f.Mend != mend {
			t.Errorf("%+v, want a warning mended by %q", f, mend)
		}
	}
	if f := found(t, CheckKernel(&k, 160<<20, false), "rmem-max"); f.State != FindingOK {
		t.Errorf("the ring needs no socket buffer: %+v", f)
	}
	if f := found(t, CheckKernel(&Kernel{}, 160<<20, true), "rmem-max"); f.State != FindingUnknown {
		t.Errorf("nothing is known: %+v", f)
	}
}

func TestRingFindings(t *testing.T) {
	for _, tt := range []struct {
		bytes     int
		rate      float64
		available int64
		want      FindingState
		text      string
	}{
		{160 << 20, 1e9, 1 << 33, FindingOK, "160 MiB hold 1.342s of the sender's 1 Gbit/s"},
		{160 << 20, 1e6, 0, FindingOK, "160 MiB hold 2.56s of the sender's 1 Mbit/s"},
		{160 << 20, 0, 0, FindingOK, "not known"},
		{160 << 20, 5e9, 0, FindingWarn, "hold 268ms of the sender's 5 Gbit/s"},
		{16 << 20, 5e9, 0, FindingFail, "hold 27ms"},
		{160 << 20, 1e9, 256 << 20, FindingFail, "more than half of the 256 MiB"},
	} {
		f := CheckRing(tt.bytes, tt.rate, tt.available)
		if found(t, []Finding{f}, "ring"); f.State != tt.want || !strings.Contains(f.Detail, tt.text) {
			t.Errorf("%+v: %+v", tt, f)
		}
	}
	// What it asks for is enough.
	if f := CheckRing(16<<20, 5e9, 0); f.Mend != "a ring of 299 MiB or more" || CheckRing(299<<20, 5e9, 0).State != FindingOK {
		t.Errorf("%+v, and with that: %+v", f, CheckRing(299<<20, 5e9, 0))
	}
}

func TestClockFindings(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ahead := func(d time.Duration) *time.Duration { return &d }
	for _, tt := range []struct {
		now   time.Time
		ahead *time.Duration
		age   time.Duration
		want  FindingState
		text  string
	}{
		{now, ahead(300 * time.Millisecond), time.Second, FindingOK, "agree within 1s"},
		{now, ahead(-59 * time.Second), 0, FindingOK, "agree within 59s"},
		{now, ahead(90 * time.Second), 0, FindingWarn, "1m30s ahead of the sender's"},
		{now, ahead(-2 * time.Hour), 0, FindingFail, "2h0m0s behind the sender's"},
		{now, nil, 0, FindingUnknown, "2027-03-01 12:00:00 UTC"},
		{now, ahead(0), 2 * time.Hour, FindingUnknown, "no heartbeat of the last hour"},
		{time.Unix(1000, 0), ahead(0), 0, FindingFail, "1970-01-01 00:16:40 UTC"},
	} {
		f := CheckClock(tt.now, since, tt.ahead, tt.age)
		if found(t, []Finding{f}, "clock"); f.State != tt.want || !strings.Contains(f.Detail, tt.text) {
			t.Errorf("%+v: %+v", tt, f)
		}
	}
	if f := CheckOwnClock(now, since); f.State != FindingOK {
		t.Errorf("%+v", f)
	}
}

func TestParseKernel(t *testing.T) {
	if n, err := parseSoftnet("00001234 0000000a 0000 00\n00000001 00000006 0\n"); n != 16 || err != nil {
		t.Errorf("%d dropped, %v; want 16", n, err)
	}
	for _, bad := range []string{"1\n", "1 x\n", "1 123456789\n"} {
		if n, err := parseSoftnet(bad); err == nil {
			t.Errorf("softnet_stat %q: %d", bad, n)
		}
	}
	if n, err := parseAvailable("MemTotal:  1 kB\nMemAvailable:   2048 kB\n"); n != 2<<20 || err != nil {
		t.Errorf("%d bytes, %v; want 2 MiB", n, err)
	}
	for _, bad := range []string{"", "MemAvailable: x kB\n", "MemAvailable: 99999999999999 kB\n"} {
		if n, err := parseAvailable(bad); err == nil {
			t.Errorf("meminfo %q: %d", bad, n)
		}
	}
	if e := parseErrors(make([]byte, 100)); e != nil {
		t.Errorf("counters of a short answer: %+v", e)
	}
	k, err := ReadKernel()
	if err != nil || k.Available == 0 {
		t.Errorf("%+v, %v", k, err)
	}
}

// TestReadLoopback asks without any right.
func TestReadLoopback(t *testing.T) {
	c, err := ReadCard("lo")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "lo" || c.MTU < leastMTU || !c.Up || c.Errors == nil || len(c.Features) == 0 || c.Ring != nil {
		t.Errorf("%+v", c)
	}
	for _, name := range []string{"", "no-such-link", strings.Repeat("x", 300)} {
		if _, err := ReadCard(name); err == nil {
			t.Errorf("ReadCard(%q) has no error", name)
		}
	}
}

// TestReadCard changes what can be changed of an interface without hardware.
func TestReadCard(t *testing.T) {
	inNamespace(t, func() {
		if _, err := exec.LookPath("ethtool"); err != nil {
			t.Skip("NOT RUN: needs the program ethtool, to change an interface")
		}
		ip(t, "link", "add", "d0", "mtu", "4000", "type", "veth", "peer", "name", "d1")
		read := func() *Card {
			t.Helper()
			c, err := ReadCard("d0")
			if err != nil {
				t.Error(err)
				return &Card{}
			}
			return c
		}
		if c := read(); c.Up || c.Carrier || c.MTU != 4000 || c.Driver != "veth" {
			t.Errorf("down: %+v", c)
		}
		ip(t, "link", "set", "d0", "up")
		if c := read(); !c.Up || c.Carrier {
			t.Errorf("up, the other end is not: %+v", c)
		}
		ip(t, "link", "set", "d1", "up")
		// veth claims 10 Gbit/s.
		if c := read(); !c.Carrier || c.Speed != 10e9 || !c.Features["tx-udp-segmentation"].On || c.Features["rx-gro-list"].On {
			t.Errorf("up: %+v", c)
		}
		for _, args := range [][]string{{"tx-udp-segmentation", "off"}, {"gro", "on"}, {"rx-udp-gro-forwarding", "on"}} {
			if out, err := exec.Command("ethtool", append([]string{"-K", "d0"}, args...)...).CombinedOutput(); err != nil {
				t.Errorf("ethtool %s: %v\n%s", args, err, out)
			}
		}
		c := read()
		got := []Feature{c.Features["tx-udp-segmentation"], c.Features["rx-udp-gro-forwarding"]}
		if diff := cmp.Diff([]Feature{{}, {On: true}}, got); diff != "" {
			t.Errorf("features (-want +got):\n%s", diff)
		}
		if f := found(t, CheckReceiverCard(c), "offload"); f.State != FindingFail {
			t.Errorf("%+v", f)
		}
		ip(t, "address", "add", "10.9.0.1/24", "dev", "d0")
		n, err := FindNeighbour(netip.MustParseAddr("10.9.0.2"), "")
		if err != nil || n.Interface != "d0" {
			t.Errorf("the way to 10.9.0.2: %+v, %v", n, err)
		}
	})
}
