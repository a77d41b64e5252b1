package oneway

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStrict(t *testing.T) {
	egress := Layer{Name: layerEgress, State: OK, Required: true}
	for _, tt := range []struct {
		name   string
		layers []Layer
		want   []string // names of the layers that do not hold
		ok     bool
	}{
		{name: "all hold", layers: []Layer{egress, {Name: layerARP, State: OK, Required: true}}, ok: true},
		{name: "optional missing", layers: []Layer{egress, {Name: layerAddress, State: Missing}}, ok: true},
		{name: "missing", layers: []Layer{egress, {Name: layerARP, State: Missing, Required: true}}, want: []string{layerARP}},
		{name: "unknown", layers: []Layer{{Name: layerEgress, State: Unknown, Required: true}}, want: []string{layerEgress}},
		{name: "no state", layers: []Layer{egress, {Name: layerSocket, Required: true}}, want: []string{layerSocket}},
		{name: "several", layers: []Layer{
			{Name: layerEgress, State: Missing, Required: true}, egress, {Name: layerSeccomp, State: Unknown, Required: true},
		}, want: []string{layerEgress, layerSeccomp}},
		{name: "nothing required", layers: []Layer{{Name: layerEgress, State: OK}}},
		{name: "nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Strict(tt.layers)
			if tt.ok {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e, ok := errors.AsType[*NotSealedError](err)
			if !ok || !errors.Is(err, ErrNotSealed) {
				t.Fatalf("got %v, want a NotSealedError", err)
			}
			var got []string
			for _, l := range e.Layers {
				got = append(got, l.Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNotSealedErrorText(t *testing.T) {
	err := &NotSealedError{Layers: []Layer{
		{Name: layerARP, State: Missing, Detail: "ARP is on", Hint: "ip link set dev eth1 arp off"},
		{Name: layerEgress, State: Unknown, Detail: "egress cannot be tried"},
	}}
	want := `not proven that nothing can be sent back
  arp          missing: ARP is on
               hint: ip link set dev eth1 arp off
  nft-egress   unknown: egress cannot be tried`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if got := (&NotSealedError{}).Error(); !strings.Contains(got, "no layer was looked at") {
		t.Errorf("no layers: %q", got)
	}
}

func TestRequired(t *testing.T) {
	all := []string{layerAddress, layerARP, layerIPv6, layerEgress, layerIngress, layerSocket, layerCounters, layerSeccomp}
	for _, tt := range []struct {
		name     string
		o        Options
		optional []string
	}{
		{"packet", Options{}, nil},
		{"packet ignores the address", Options{Addr: netip.MustParseAddr("fd00::1")}, nil},
		{"udp", Options{UDPPort: 7337}, []string{layerAddress, layerIngress}},
		{"udp of an IPv4 address", Options{UDPPort: 7337, Addr: netip.MustParseAddr("10.9.0.1")}, []string{layerAddress, layerIngress}},
		{"udp of a mapped address", Options{UDPPort: 7337, Addr: netip.MustParseAddr("::ffff:10.9.0.1")}, []string{layerAddress, layerIngress}},
		{"udp of an IPv6 address", Options{UDPPort: 7337, Addr: netip.MustParseAddr("fd00::1")}, []string{layerAddress, layerIPv6, layerIngress}},
	} {
		var got []string
		for _, l := range all {
			if !tt.o.required(l) {
				got = append(got, l)
			}
		}
		if diff := cmp.Diff(tt.optional, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestUnchanged(t *testing.T) {
	c := Counters{Interface: "eth1", Packets: 3, Bytes: 180, Errors: 1}
	if err := c.Unchanged(c); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		name string
		now  Counters
		want string
	}{
		{"packets and bytes", Counters{"eth1", 4, 240, 1}, "the interface has sent: eth1: tx packets went from 3 to 4, tx bytes went from 180 to 240"},
		{"errors", Counters{"eth1", 3, 180, 2}, "the interface has sent: eth1: tx errors went from 1 to 2"},
		{"made anew", Counters{"eth1", 0, 180, 1}, "the interface has sent: eth1: tx packets went from 3 to 0"},
	} {
		err := c.Unchanged(tt.now)
		if !errors.Is(err, ErrSent) || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if err := c.Unchanged(Counters{Interface: "eth2", Packets: 3, Bytes: 180, Errors: 1}); err == nil {
		t.Error("counters of two interfaces compare as equal")
	}
}
