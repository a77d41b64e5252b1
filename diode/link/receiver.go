package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ReceiverConfig says what to receive.
type ReceiverConfig struct {
	// Backend is "packet", "udp", or "auto": packet where that is permitted.
	Backend   string
	Interface string // packet needs it
	Port      uint16
	Addr      netip.Addr // optional: only datagrams to it
	RingBytes int        // of the ring or the socket's buffer; 0: [DefaultRing]
	Log       *slog.Logger
}

// ReceiverStats counts.
type ReceiverStats struct {
	Packets     int64 `json:"packets"`
	Bytes       int64 `json:"bytes"`
	KernelDrops int64 `json:"kernel_drops"` // the ring or the buffer was full
	Freezes     int64 `json:"freezes"`      // times that the ring was full
	Malformed   int64 `json:"malformed"`    // frames that are no whole datagram
	OtherPort   int64 `json:"other_port"`
	RingBytes   int   `json:"ring_bytes"` // as the kernel granted them
}

// A Receiver takes datagrams. Run is called once.
type Receiver struct {
	c       ReceiverConfig
	fd      int
	backend string
	ring    *ring
	batch   tally // of Run

	packets, bytes, drops, freezes, malformed, other atomic.Int64
}

// pollTime bounds how long a receiver waits before it looks at its context,
// in milliseconds.
const pollTime = 100

// rxPriority is a nice value.
const rxPriority = -10

// Listen opens the socket and whatever it needs.
func Listen(c ReceiverConfig) (*Receiver, error) {
	if c.Port == 0 {
		return nil, errors.New("receive: no port")
	}
	if c.RingBytes == 0 {
		c.RingBytes = DefaultRing
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Addr = c.Addr.Unmap()
	r := &Receiver{c: c, fd: -1}
	switch c.Backend {
	case "packet", "udp":
		r.backend = c.Backend
	case "auto", "":
		r.backend = "packet"
		err := errors.New("no interface is named")
		if c.Interface != "" {
			if err = r.openRing(); err == nil {
				return r, nil
			}
			if !isAny(err, unix.EPERM, unix.EACCES) {
				return nil, err
			}
		}
		c.Log.Info("receiving from a UDP socket", slog.Any("because", err))
		r.backend = "udp"
	default:
		return nil, fmt.Errorf("back end %q: want auto, packet or udp", c.Backend)
	}
	if r.backend == "packet" {
		if c.Interface == "" {
			return nil, errors.New("the packet back end needs the name of an interface")
		}
		return r, r.openRing()
	}
	return r, r.openUDP()
}

// Backend is packet or udp.
func (r *Receiver) Backend() string { return r.backend }

// FD is the socket, for filters.
func (r *Receiver) FD() int { return r.fd }

// Close closes the socket.
func (r *Receiver) Close() error {
	var err error
	if r.ring != nil {
		err = r.ring.unmap()
		r.ring = nil
	}
	if r.fd >= 0 {
		err = errors.Join(err, unix.Close(r.fd))
		r.fd = -1
	}
	return err
}

// Stats counts what came; any goroutine may ask.
func (r *Receiver) Stats() ReceiverStats {
	size := r.c.RingBytes
	if r.ring != nil {
		size = len(r.ring.mem)
	}
	return ReceiverStats{
		Packets: r.packets.Load(), Bytes: r.bytes.Load(), KernelDrops: r.drops.Load(), Freezes: r.freezes.Load(),
		Malformed: r.malformed.Load(), OtherPort: r.other.Load(), RingBytes: size,
	}
}

// Run calls packet for every datagram, whose bytes are good during the call
// only, and idle when none waits, every 100 ms, and between batches. Both are
// called from the goroutine of Run, which keeps its thread: run it in one of its own.
func (r *Receiver) Run(ctx context.Context, packet func([]byte), idle func()) error {
	// The thread goes with its goroutine, and with it its priority: this one
	// empties the ring before any other of this host works on what was in it.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, rxPriority) // needs CAP_SYS_NICE, and does without
	if r.backend == "packet" {
		return r.runRing(ctx, packet, idle)
	}
	return r.runUDP(ctx, packet, idle)
}

// A tally counts datagrams of one block or batch: an atomic addition for each
// would wait for what was copied before it.
type tally struct{ packets, bytes int64 }

func (t *tally) took(payload []byte) {
	t.packets++
	t.bytes += int64(len(payload))
}

// count adds a tally and empties it.
func (r *Receiver) count(t *tally) {
	r.packets.Add(t.packets)
	r.bytes.Add(t.bytes)
	*t = tally{}
}
