package diode

import "slices"

// An earlyBuffer keeps symbols whose descriptor has not come yet.
type earlyBuffer struct {
	packets []earlyPacket
	bytes   int
	// told are transfers that were rejected, so that it is said once.
	told []uint64
}

type earlyPacket struct {
	tick     int64
	transfer uint64
	data     []byte
}

// keep copies a packet; false: there is no room.
func (e *earlyBuffer) keep(tick int64, transfer uint64, p []byte) bool {
	if slices.Contains(e.told, transfer) {
		return false
	}
	if e.bytes+len(p) > maxEarly {
		return false
	}
	e.bytes += len(p)
	e.packets = append(e.packets, earlyPacket{tick, transfer, slices.Clone(p)})
	return true
}

// forget drops what has waited for its descriptor in vain: one comes ten times
// a second.
func (e *earlyBuffer) forget(tick int64) {
	n := 0
	for n < len(e.packets) && e.packets[n].tick < tick {
		e.bytes -= len(e.packets[n].data)
		n++
	}
	e.packets = slices.Delete(e.packets, 0, n)
}

// replay gives back the packets of a transfer, in order.
func (e *earlyBuffer) replay(transfer uint64, f func([]byte)) {
	if len(e.packets) == 0 {
		return
	}
	all := e.packets
	e.packets, e.bytes = nil, 0
	for _, p := range all {
		if p.transfer == transfer {
			f(p.data)
		} else {
			e.packets = append(e.packets, p)
			e.bytes += len(p.data)
		}
	}
}

// rejected reports whether that was said before, drops what was kept of the
// transfer, and remembers it.
func (e *earlyBuffer) rejected(transfer uint64) bool {
	if slices.Contains(e.told, transfer) {
		return true
	}
	e.replay(transfer, func([]byte) {})
	if len(e.told) >= maxTransfers {
		e.told = e.told[1:]
	}
	e.told = append(e.told, transfer)
	return false
}
