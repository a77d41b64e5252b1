// Package oneway proves that a receiver sends nothing: it closes the ways out
// of an interface and of this process, and looks at each of them before the
// first packet is taken.
//
// Specification: docs/no-back-channel.md.
//
// A stock kernel answers on its own: ARP replies, ICMP echo replies and port
// unreachables, IGMP and MLD reports, IPv6 router and neighbour solicitations,
// duplicate address detection. A bug or an exploit in this process could send,
// and so could another process of the host. Each layer is one reason why that
// does not happen:
//
//	layer        answers                                        required by
//	address      ARP and ICMP replies, IGMP reports             packet
//	arp          ARP replies and requests                       packet, udp
//	ipv6         RS, DAD, NS, NA, MLD                           packet, udp over IPv4
//	nft-egress   all of these, and other processes' frames      packet, udp
//	nft-ingress  the IP stack, which would answer or forward    packet
//	socket       this process by sockets that it should not     packet, udp
//	             have: TCP, connected UDP, another interface
//	counters     whatever slipped past the trial                packet, udp
//	seccomp      a bug or exploit in this process               packet, udp
//
// Address, arp and ipv6 are required beside the egress drop because a firewall
// that is reloaded takes the drop away and leaves them. The udp back end needs
// an address, so address is not required there. It may run without privileges
// after somebody else called [Block]: then it cannot read the rules, so
// nft-ingress is not required either, and the egress drop is tried with a
// broadcast datagram instead of frames. That trial shows IPv4 alone; ARP and
// IPv6 rest on their own layers. The interface of an IPv6 address keeps IPv6.
//
// [Check] reports all of them but seccomp, which [Sealed] reports after [Seal].
//
// Invariants:
//   - What cannot be looked at is [Unknown], never [OK].
//   - Check changes nothing. It sends nothing either where it can read that no
//     rule would drop it. Where it cannot, and the egress is open, its trial
//     puts one frame on the wire: that is the finding.
//   - The rules of Block outlive the process.
//   - No program is executed. Interfaces, rules and counters are those of the
//     calling thread's network namespace.
//
// Limits: Linux 5.16 with CONFIG_NETFILTER_EGRESS; Seal on amd64 and arm64;
// elsewhere everything is Unknown. Root may remove what root has set, and
// programs with CAP_NET_RAW that transmit by AF_XDP pass below the egress hook.
// What the hardware sends is not seen by any of this.
package oneway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// State is what is known about a layer.
type State string

// The states of a layer. An unknown layer proves as little as a missing one.
const (
	OK      State = "ok"
	Missing State = "missing"
	Unknown State = "unknown"
)

// Names of layers.
const (
	layerAddress  = "address"
	layerARP      = "arp"
	layerIPv6     = "ipv6"
	layerEgress   = "nft-egress"
	layerIngress  = "nft-ingress"
	layerSeccomp  = "seccomp"
	layerSocket   = "socket"
	layerCounters = "counters"
)

// A Layer is one reason why nothing can leave.
type Layer struct {
	Name string `json:"name"`
	// State is OK only if somebody looked.
	State State `json:"state"`
	// Detail is what was seen.
	Detail string `json:"detail"`
	// Hint is what to do about it, empty for a layer that is OK.
	Hint string `json:"hint,omitempty"`
	// Required tells that a strict receiver refuses to start without it.
	Required bool `json:"required"`
}

// Options say how packets are received.
type Options struct {
	// UDPPort is the port of the udp back end, or 0 for the packet back end,
	// whose interface drops everything: its taps see packets before that.
	UDPPort uint16
	// Addr is the address that the udp back end takes datagrams for. The zero
	// value means any IPv4 address.
	Addr netip.Addr
}

// udp reports whether the kernel's UDP receives.
func (o Options) udp() bool { return o.UDPPort != 0 }

// ipv6 reports whether the interface cannot do without IPv6.
func (o Options) ipv6() bool { return o.udp() && o.Addr.Unmap().Is6() }

// required is the table of the package comment.
func (o Options) required(layer string) bool {
	switch layer {
	case layerAddress, layerIngress:
		return !o.udp()
	case layerIPv6:
		return !o.ipv6()
	default:
		return true
	}
}

// ErrNotSealed says that the proof does not hold.
var ErrNotSealed = errors.New("not proven that nothing can be sent back")

// A NotSealedError lists the required layers that do not hold.
type NotSealedError struct {
	Layers []Layer
}

// Error is the text that a person reads, of several lines.
func (e *NotSealedError) Error() string {
	var b strings.Builder
	b.WriteString(ErrNotSealed.Error())
	if len(e.Layers) == 0 {
		b.WriteString(": no layer was looked at")
	}
	for _, l := range e.Layers {
		fmt.Fprintf(&b, "\n  %-11s  %s: %s", l.Name, l.State, l.Detail)
		if l.Hint != "" {
			fmt.Fprintf(&b, "\n  %-11s  hint: %s", "", l.Hint)
		}
	}
	return b.String()
}

// Is matches [ErrNotSealed].
func (e *NotSealedError) Is(target error) bool { return target == ErrNotSealed }

// Strict decides whether a receiver may start: every required layer is OK.
// Otherwise the error is a [*NotSealedError]. No required layer at all is no
// proof.
func Strict(layers []Layer) error {
	var open []Layer
	required := 0
	for _, l := range layers {
		if !l.Required {
			continue
		}
		required++
		if l.State != OK {
			open = append(open, l)
		}
	}
	if len(open) > 0 || required == 0 {
		return &NotSealedError{Layers: open}
	}
	return nil
}

// Counters are what an interface has sent since it exists.
type Counters struct {
	Interface string
	Packets   uint64
	Bytes     uint64
	Errors    uint64
}

// ErrSent reports counters that moved.
var ErrSent = errors.New("the interface has sent")

// Unchanged compares c with a later reading. Its error names what moved and
// wraps [ErrSent]. A counter that went back has moved too: the interface was
// made anew, and nobody counted what happened between. An error of sending is
// an attempt that got past the drop.
func (c Counters) Unchanged(now Counters) error {
	if c.Interface != now.Interface {
		return fmt.Errorf("compare counters: readings of two interfaces, %s and %s", c.Interface, now.Interface)
	}
	var moved []string
	for _, m := range []struct {
		name     string
		old, now uint64
	}{
		{"packets", c.Packets, now.Packets},
		{"bytes", c.Bytes, now.Bytes},
		{"errors", c.Errors, now.Errors},
	} {
		if m.old != m.now {
			moved = append(moved, fmt.Sprintf("tx %s went from %d to %d", m.name, m.old, m.now))
		}
	}
	if len(moved) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", ErrSent, c.Interface, strings.Join(moved, ", "))
}
