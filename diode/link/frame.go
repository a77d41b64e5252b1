package link

import (
	"encoding/binary"
	"net/netip"
)

// A datagram is what a frame carries.
type datagram struct {
	to      netip.Addr
	port    uint16
	payload []byte
}

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
	protoUDP = 17
)

// parse reads a UDP datagram out of an Ethernet frame: up to two VLAN tags;
// IPv4 with options, with a right header checksum and in one piece; IPv6
// without extension headers. ok is false for anything else.
func parse(f []byte) (d datagram, ok bool) {
	if len(f) < 14 {
		return d, false
	}
	kind, rest := binary.BigEndian.Uint16(f[12:]), f[14:]
	for range 2 {
		if kind != typeVLAN && kind != typeQinQ || len(rest) < 4 {
			break
		}
		kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch kind {
	case typeIPv4:
		return parse4(rest)
	case typeIPv6:
		return parse6(rest)
	}
	return d, false
}

func parse4(p []byte) (d datagram, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return d, false
	}
	header := int(p[0]&15) * 4
	total := int(binary.BigEndian.Uint16(p[2:]))
	// More fragments, or not the first one.
	fragment := binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	if header < 20 || total < header+8 || total > len(p) || fragment || p[9] != protoUDP || checksum(p[:header]) != 0xffff {
		return d, false
	}
	d.to = netip.AddrFrom4([4]byte(p[16:20]))
	return d, d.udp(p[header:total])
}

func parse6(p []byte) (d datagram, ok bool) {
	if len(p) < 40 || p[0]>>4 != 6 || p[6] != protoUDP {
		return d, false
	}
	length := int(binary.BigEndian.Uint16(p[4:]))
	if length < 8 || 40+length > len(p) {
		return d, false
	}
	d.to = netip.AddrFrom16([16]byte(p[24:40]))
	return d, d.udp(p[40 : 40+length])
}

// udp reads the header of a datagram, which must fill its packet.
func (d *datagram) udp(p []byte) bool {
	if int(binary.BigEndian.Uint16(p[4:])) != len(p) {
		return false
	}
	d.port = binary.BigEndian.Uint16(p[2:])
	d.payload = p[8:]
	return true
}

// checksum is the ones' complement sum; 0xffff for a header that is right.
func checksum(p []byte) uint16 {
	var sum uint32
	for ; len(p) >= 2; p = p[2:] {
		sum += uint32(p[0])<<8 | uint32(p[1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
