package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// A NeighbourState says whether datagrams can leave without an answer.
type NeighbourState string

// States of a neighbour.
const (
	NeighbourPermanent NeighbourState = "permanent"
	NeighbourKnown     NeighbourState = "known" // will expire, and then nobody answers
	NeighbourMissing   NeighbourState = "missing"
	NeighbourNotNeeded NeighbourState = "not needed" // loopback, point to point, no ARP
)

// A Neighbour is the next hop to an address.
type Neighbour struct {
	State     NeighbourState
	Interface string
	NextHop   netip.Addr
	Hardware  net.HardwareAddr
	Hint      string // a command that makes the entry permanent
}

// errNoRoute says that no route leads there.
var errNoRoute = errors.New("no route")

// A route is one of the kernel's main table.
type route struct {
	to      netip.Prefix
	gateway netip.Addr
	index   int
	metric  uint32
}

// routeTo finds the route of an address, as the main table has it.
func routeTo(a netip.Addr, iface string) (best route, err error) {
	index := 0
	if iface != "" {
		i, err := interfaceNamed(iface)
		if err != nil {
			return best, err
		}
		index = i.Index
	}
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	data, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, family)
	if err != nil {
		return best, fmt.Errorf("read routes: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return best, fmt.Errorf("read routes: %w", err)
	}
	found := false
	for i := range messages {
		r, ok := parseRoute(&messages[i], a)
		if !ok || index != 0 && r.index != index || !r.to.Contains(a.WithZone("")) {
			continue
		}
		if !found || r.to.Bits() > best.to.Bits() || r.to.Bits() == best.to.Bits() && r.metric < best.metric {
			best, found = r, true
		}
	}
	if !found {
		return best, fmt.Errorf("%w to %s", errNoRoute, a)
	}
	return best, nil
}

func parseRoute(m *syscall.NetlinkMessage, like netip.Addr) (r route, ok bool) {
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
		return r, false
	}
	bits, table, kind := int(m.Data[1]), m.Data[4], m.Data[7]
	if table != unix.RT_TABLE_MAIN && table != unix.RT_TABLE_LOCAL || kind != unix.RTN_UNICAST && kind != unix.RTN_LOCAL {
		return r, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return r, false
	}
	to := netip.IPv4Unspecified()
	if like.Is6() {
		to = netip.IPv6Unspecified()
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_OIF:
			if len(a.Value) == 4 {
				r.index = int(binary.NativeEndian.Uint32(a.Value))
			}
		case unix.RTA_PRIORITY:
			if len(a.Value) == 4 {
				r.metric = binary.NativeEndian.Uint32(a.Value)
			}
		}
	}
	r.to = netip.PrefixFrom(to, bits)
	return r, to.IsValid() && r.to.IsValid()
}

// MTU is that of the interface on the way to an address.
func MTU(a netip.Addr, iface string) (int, error) {
	i, _, err := wayTo(a.Unmap(), iface)
	if err != nil {
		return 0, err
	}
	return i.MTU, nil
}

// wayTo is the interface and the next hop.
func wayTo(a netip.Addr, iface string) (*net.Interface, netip.Addr, error) {
	r, err := routeTo(a, iface)
	if errors.Is(err, errNoRoute) && iface != "" {
		// An interface without an address has no route, and can be sent from.
		i, ierr := interfaceNamed(iface)
		return i, a, ierr
	}
	if err != nil {
		return nil, a, err
	}
	i, err := net.InterfaceByIndex(r.index)
	if err != nil {
		return nil, a, fmt.Errorf("interface %d: %w", r.index, err)
	}
	if r.gateway.IsValid() {
		return i, r.gateway, nil
	}
	return i, a, nil
}

// FindNeighbour tells whether datagrams can leave for an address.
func FindNeighbour(a netip.Addr, iface string) (Neighbour, error) {
	a = a.Unmap()
	i, hop, err := wayTo(a, iface)
	if err != nil {
		return Neighbour{}, err
	}
	n := Neighbour{State: NeighbourMissing, Interface: i.Name, NextHop: hop}
	n.Hint = fmt.Sprintf("ip neigh replace %s lladdr <the receiver's hardware address> dev %s nud permanent", hop.WithZone(""), i.Name)
	noARP, err := withoutARP(i)
	if err != nil {
		return n, err
	}
	if noARP || hop.IsMulticast() || hop.IsLoopback() {
		n.State, n.Hint = NeighbourNotNeeded, ""
		return n, nil
	}
	data, err := syscall.NetlinkRIB(unix.RTM_GETNEIGH, unix.AF_UNSPEC)
	if err != nil {
		return n, fmt.Errorf("read neighbours: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return n, fmt.Errorf("read neighbours: %w", err)
	}
	for k := range messages {
		n.read(&messages[k], i.Index, hop.WithZone(""))
	}
	if n.State == NeighbourPermanent {
		n.Hint = ""
	}
	return n, nil
}

func withoutARP(i *net.Interface) (bool, error) {
	if i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 {
		return true, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }() // only asked a question
	req, err := unix.NewIfreq(i.Name)
	if err != nil {
		return false, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return false, fmt.Errorf("flags of %s: %w", i.Name, err)
	}
	return req.Uint16()&unix.IFF_NOARP != 0, nil
}

// read takes a message of the neighbour table.
func (n *Neighbour) read(m *syscall.NetlinkMessage, index int, hop netip.Addr) {
	const size = 12 // struct ndmsg
	if m.Header.Type != unix.RTM_NEWNEIGH || len(m.Data) < size || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
		return
	}
	state := binary.NativeEndian.Uint16(m.Data[8:])
	var dst netip.Addr
	var hardware net.HardwareAddr
	for p := m.Data[size:]; len(p) >= unix.SizeofRtAttr; {
		length, kind := int(binary.NativeEndian.Uint16(p)), binary.NativeEndian.Uint16(p[2:])
		if length < unix.SizeofRtAttr || length > len(p) {
			return
		}
		value := p[unix.SizeofRtAttr:length]
		switch kind {
		case unix.NDA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			hardware = append(net.HardwareAddr{}, value...)
		}
		p = p[min(len(p), (length+3)&^3):]
	}
	if dst != hop {
		return
	}
	switch {
	case state&unix.NUD_PERMANENT != 0:
		n.State = NeighbourPermanent
	case state&unix.NUD_NOARP != 0:
		n.State = NeighbourNotNeeded
	case state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) != 0:
		n.State = NeighbourKnown
	default:
		return
	}
	n.Hardware = hardware
}
