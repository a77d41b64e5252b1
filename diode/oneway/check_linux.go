package oneway

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Check looks at every layer of the interface and of this process's sockets,
// and changes nothing. It reports all layers but seccomp. An error means that
// there is no such interface or that its counters cannot be read.
//
// Call it after the receiving socket is open and before [Seal].
func Check(iface string, o Options) ([]Layer, error) {
	ifc, err := find(iface)
	if err != nil {
		return nil, err
	}
	before, err := ReadCounters(iface)
	if err != nil {
		return nil, err
	}
	rules, anyEgress, rulesErr := inspect(iface)
	t := trial{state: Missing, detail: "no rule drops what leaves", hint: hintBlock}
	if anyEgress || rulesErr != nil {
		t = tryEgress(ifc, o)
	}
	now, _, nowErr := inspect(iface)
	after, err := ReadCounters(iface)
	if err != nil {
		return nil, err
	}
	moved := before.Unchanged(after)
	if rulesErr == nil {
		rulesErr = nowErr
	}
	counted := rules.dropped(t, now)
	layers := []Layer{
		address(ifc),
		arp(iface),
		ipv6(iface),
		egress(t, moved, now, counted, rulesErr),
		ingress(o, now, counted, rulesErr),
		sockets(ifc),
		counters(t, after, moved),
	}
	for i := range layers {
		layers[i].Required = o.required(layers[i].Name)
	}
	return layers, nil
}

func address(ifc *net.Interface) Layer {
	l := Layer{Name: layerAddress}
	addrs, err := ifc.Addrs()
	if err != nil {
		l.State, l.Detail, l.Hint = Unknown, err.Error(), "look with: ip address show dev "+ifc.Name
		return l
	}
	if len(addrs) == 0 {
		l.State, l.Detail = OK, ifc.Name+" has no IP address"
		return l
	}
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	l.State, l.Detail = Missing, ifc.Name+" has "+strings.Join(names, ", ")
	l.Hint = "ip address flush dev " + ifc.Name
	return l
}

func arp(iface string) Layer {
	l := Layer{Name: layerARP}
	flags, err := interfaceFlags(iface)
	switch {
	case err != nil:
		l.State, l.Detail, l.Hint = Unknown, err.Error(), "look with: ip link show dev "+iface
	case flags&unix.IFF_NOARP != 0:
		l.State, l.Detail = OK, "ARP is off"
	default:
		l.State, l.Detail, l.Hint = Missing, "ARP is on", "ip link set dev "+iface+" arp off"
	}
	return l
}

func ipv6(iface string) Layer {
	l := Layer{Name: layerIPv6}
	off, err := ipv6Off(iface)
	switch {
	case err != nil:
		l.State, l.Detail, l.Hint = Unknown, err.Error(), "look at "+ipv6Switch(iface)
	case off:
		l.State, l.Detail = OK, "IPv6 is off"
	default:
		l.State, l.Detail, l.Hint = Missing, "IPv6 is on", "sysctl -w net/ipv6/conf/"+iface+"/disable_ipv6=1"
	}
	return l
}

func egress(t trial, moved error, rules *table, counted bool, rulesErr error) Layer {
	l := Layer{Name: layerEgress, State: t.state, Detail: t.detail, Hint: t.hint}
	if t.state != OK {
		return l
	}
	switch {
	case moved != nil:
		l.State, l.Detail = Missing, t.detail+", and yet "+moved.Error()
		l.Hint = "find the program that sends on this interface"
	case rulesErr != nil:
		l.Detail += "; the rules cannot be read: " + rulesErr.Error()
	case rules == nil:
		l.Detail += "; by rules that are not ours"
	default:
		if err := rules.egressHolds(); err != nil {
			l.State, l.Detail, l.Hint = Missing, err.Error(), hintBlock
		} else if !counted {
			// A queue that is full refuses frames with the same error.
			l.State, l.Detail = Unknown, t.detail+", but "+rules.name+" has not counted them"
			l.Hint = "if the interface was renamed or made anew: " + hintBlock
		} else {
			l.Detail += ", counted by " + rules.name
		}
	}
	return l
}

func ingress(o Options, rules *table, counted bool, rulesErr error) Layer {
	l := Layer{Name: layerIngress}
	switch {
	case rulesErr != nil:
		l.State, l.Detail = Unknown, "the rules cannot be read: "+rulesErr.Error()
		l.Hint = "needs CAP_NET_ADMIN; look with: nft list ruleset netdev"
	case rules == nil:
		l.State, l.Detail, l.Hint = Missing, "there is no table of ours", hintBlock
	default:
		if err := rules.ingressHolds(o); err != nil {
			l.State, l.Detail, l.Hint = Missing, err.Error(), hintBlock
		} else if !counted {
			// The library does not tell which device a chain hangs on. Both
			// chains were hung on the same one.
			l.State, l.Detail = Unknown, rules.name+" has not counted the trial's frames, so it may hang on another interface"
			l.Hint = hintBlock
		} else if o.udp() {
			l.State, l.Detail = OK, fmt.Sprintf("%s drops all but UDP to port %d", rules.name, o.UDPPort)
		} else {
			l.State, l.Detail = OK, rules.name+" drops all"
		}
	}
	return l
}

func counters(t trial, c Counters, moved error) Layer {
	l := Layer{Name: layerCounters}
	switch {
	case moved != nil:
		l.State, l.Detail, l.Hint = Missing, moved.Error(), "find what sends on this interface: tcpdump -n -e -Q out -i "+c.Interface
	case t.frames == 0:
		l.State, l.Detail, l.Hint = Unknown, "nothing was tried: "+t.detail, t.hint
	default:
		l.State, l.Detail = OK, fmt.Sprintf("stood still during the trial; sent since the interface exists: %d packets", c.Packets)
	}
	return l
}

// interfaceFlags are those of SIOCGIFFLAGS: package net leaves NOARP out.
func interfaceFlags(iface string) (flags uint16, err error) {
	err = withIfreq(iface, func(_ int, r *unix.Ifreq) error {
		flags = r.Uint16()
		return nil
	})
	return flags, err
}

// withIfreq calls f with a request that holds the flags of the interface.
func withIfreq(iface string, f func(fd int, r *unix.Ifreq) error) (err error) {
	r, err := unix.NewIfreq(iface)
	if err != nil {
		return fmt.Errorf("flags of %s: %w", iface, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("flags of %s: socket: %w", iface, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return fmt.Errorf("flags of %s: %w", iface, err)
	}
	return f(fd, r)
}

const ipv6Conf = "/proc/sys/net/ipv6/conf"

func ipv6Switch(iface string) string { return ipv6Conf + "/" + iface + "/disable_ipv6" }

// ipv6Off reports whether the interface has no IPv6. A kernel without IPv6 has
// none.
func ipv6Off(iface string) (bool, error) {
	data, err := os.ReadFile(ipv6Switch(iface))
	if errors.Is(err, fs.ErrNotExist) {
		if _, cerr := os.Stat(ipv6Conf); errors.Is(cerr, fs.ErrNotExist) {
			return kernelWithoutIPv6()
		}
	}
	if err != nil {
		return false, fmt.Errorf("ipv6 of %s: %w", iface, err)
	}
	return strings.TrimSpace(string(data)) == "1", nil
}

// kernelWithoutIPv6 tells a kernel without IPv6 from a /proc that hides it.
func kernelWithoutIPv6() (bool, error) {
	if _, err := os.Stat("/proc/sys/net/core"); err != nil {
		return false, fmt.Errorf("ipv6: %w", err)
	}
	return true, nil
}
