package oneway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const hintBlock = "install the drops (needs CAP_NET_ADMIN), before the link is up; a firewall that is reloaded may have removed them"

// A trial is an attempt to send.
type trial struct {
	state        State
	detail, hint string
	// frames is how many were dropped.
	frames uint64
	// raw tells that frames were tried, not datagrams.
	raw bool
}

// trialKinds are the EtherTypes that are tried, the harmless one first: if the
// egress is open, it is the only one that leaves. The others are what kernels
// and daemons send, since a rule might drop one kind and let another pass.
var trialKinds = [...]struct {
	name string
	typ  uint16
}{
	{"EtherType 0x88b5, for local experiments", 0x88b5},
	{"ARP", unix.ETH_P_ARP},
	{"IPv4", unix.ETH_P_IP},
	{"IPv6", unix.ETH_P_IPV6},
	{"LLDP", unix.ETH_P_LLDP},
}

// tryEgress sends frames from the interface to itself.
func tryEgress(ifc *net.Interface, o Options) trial {
	t := trial{state: OK, raw: true}
	// Twice: by the queue, and past it as fast senders do.
	for _, bypass := range [...]bool{false, true} {
		err := t.frame(ifc, bypass)
		if o.udp() && errors.Is(err, os.ErrPermission) {
			return tryDatagram(ifc)
		}
		if err != nil {
			return unknownTrial(ifc, err)
		}
		if t.state != OK {
			return t
		}
	}
	t.detail = strconv.FormatUint(t.frames, 10) + " of " + strconv.FormatUint(t.frames, 10) + " trial frames were dropped"
	return t
}

func unknownTrial(ifc *net.Interface, err error) trial {
	t := trial{state: Unknown, detail: "egress cannot be tried: " + err.Error()}
	switch {
	case errors.Is(err, os.ErrPermission):
		t.hint = "needs CAP_NET_RAW, and must come before the system calls are filtered"
	case errors.Is(err, unix.ENETDOWN):
		t.hint = "ip link set dev " + ifc.Name + " up, after the drops are installed"
	}
	return t
}

// frame tries every kind once. It sets t.state to Missing if one was taken.
func (t *trial) frame(ifc *net.Interface, bypass bool) (err error) {
	// Protocol 0: nothing is received.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if bypass {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return fmt.Errorf("packet socket: queue bypass: %w", err)
		}
	}
	var payload [46]byte // the least of Ethernet
	for _, k := range trialKinds {
		to := &unix.SockaddrLinklayer{Protocol: bigEndian(k.typ), Ifindex: ifc.Index, Halen: uint8(min(len(ifc.HardwareAddr), 8))}
		copy(to.Addr[:], ifc.HardwareAddr)
		switch err := sendto(fd, payload[:], to); {
		case errors.Is(err, unix.ENOBUFS):
			t.frames++
		case err != nil:
			return fmt.Errorf("send on %s: %w", ifc.Name, err)
		default:
			t.state, t.detail, t.hint = Missing, "a trial frame ("+k.name+") was not dropped", hintBlock
			return nil
		}
	}
	return nil
}

// tryDatagram needs no privileges: a broadcast needs no neighbour, and with
// IP_RECVERR the kernel reports the drop. The port is discard's.
func tryDatagram(ifc *net.Interface) trial {
	err := broadcast(ifc)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return trial{state: OK, detail: "a trial datagram was dropped (frames need CAP_NET_RAW)", frames: 1}
	case err != nil:
		return unknownTrial(ifc, err)
	default:
		return trial{state: Missing, detail: "a trial datagram to the broadcast address was not dropped", hint: hintBlock}
	}
}

func broadcast(ifc *net.Interface) (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("datagram socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.BindToDevice(fd, ifc.Name); err != nil {
		return fmt.Errorf("datagram socket: bind to %s: %w", ifc.Name, err)
	}
	for _, opt := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_BROADCAST, 1},
		{unix.SOL_IP, unix.IP_RECVERR, 1},
		{unix.SOL_IP, unix.IP_TTL, 1},
	} {
		if err := unix.SetsockoptInt(fd, opt.level, opt.name, opt.value); err != nil {
			return fmt.Errorf("datagram socket: option %d: %w", opt.name, err)
		}
	}
	return sendto(fd, make([]byte, 18), &unix.SockaddrInet4{Port: 9, Addr: [4]byte{255, 255, 255, 255}})
}

// sendto is repeated when a signal of the runtime interrupts it.
func sendto(fd int, p []byte, to unix.Sockaddr) error {
	for {
		if err := unix.Sendto(fd, p, unix.MSG_DONTWAIT, to); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
