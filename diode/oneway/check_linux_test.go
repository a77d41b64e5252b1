package oneway

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const devText = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 113160     990    0    0    0     0          0         0   113160     990    0    0    0     0       0          0
  eth1:1000 7 1 2 3 4 5 6 2000 8 9 10 11 12 13 14
eth1:0: 1 1 0 0 0 0 0 0 18446744073709551615 5 0 0 0 0 0 0
 short: 1 2 3
   bad: 1 1 0 0 0 0 0 0 x 5 0 0 0 0 0 0
`

func TestParseDev(t *testing.T) {
	for _, tt := range []struct {
		iface string
		want  Counters
		err   string
	}{
		{iface: "lo", want: Counters{"lo", 990, 113160, 0}},
		{iface: "eth1", want: Counters{"eth1", 8, 2000, 9}},
		{iface: "eth1:0", want: Counters{"eth1:0", 5, 1<<64 - 1, 0}},
		{iface: "eth", err: "no interface eth"},
		{iface: "face |bytes", err: "no interface"},
		{iface: "short", err: "interface short: 3 columns, want 16"},
		{iface: "bad", err: "invalid syntax"},
	} {
		got, err := parseDev(devText, tt.iface)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %s", tt.iface, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.iface, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.iface, diff)
		}
	}
}

func TestReadCounters(t *testing.T) {
	c, err := ReadCounters("lo")
	if err != nil {
		t.Fatal(err)
	}
	if c.Interface != "lo" {
		t.Errorf("interface is %q", c.Interface)
	}
	if _, err := ReadCounters("no-such-link"); err == nil {
		t.Error("counters of an interface that is not there")
	}
}

// The loopback interface has an address and no drops: whoever looks, with
// privileges or without, it is no proof.
func TestCheckOpenInterface(t *testing.T) {
	for _, o := range []Options{{}, {UDPPort: 7337}} {
		layers, err := Check("lo", o)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range layers {
			names = append(names, l.Name)
			if l.State != OK && l.Detail == "" {
				t.Errorf("%s is %s without a word why", l.Name, l.State)
			}
			if l.State == OK && (l.Name == layerEgress || l.Name == layerIngress) {
				t.Errorf("%s is ok: %s", l.Name, l.Detail)
			}
		}
		want := []string{layerAddress, layerARP, layerIPv6, layerEgress, layerIngress, layerSocket, layerCounters}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Error(diff)
		}
		if Strict(layers) == nil {
			t.Error("an open interface passes")
		}
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "all", "default", ".", "..", "../lo", "no-such-link"} {
		if _, err := Check(name, Options{}); err == nil {
			t.Errorf("Check(%q) has no error", name)
		}
		if err := Block(name, Options{}); err == nil {
			t.Errorf("Block(%q) has no error", name)
		}
		if err := Unblock(name); err == nil {
			t.Errorf("Unblock(%q) has no error", name)
		}
	}
}
