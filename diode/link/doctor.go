package link

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A FindingState is how grave a finding is.
type FindingState string

// States of findings.
const (
	FindingOK   FindingState = "ok"
	FindingWarn FindingState = "warn" // it works, and could work better
	FindingFail FindingState = "fail" // it does not work
	// FindingUnknown is what nobody tells.
	FindingUnknown FindingState = "unknown"
)

// A Finding is what was found about one thing of a host that the link needs.
type Finding struct {
	State FindingState `json:"state"`
	Name  string       `json:"name"`
	// Detail says what is wrong, or that nothing is.
	Detail string `json:"detail"`
	// Mend is the command that mends it, or where there is none, what does.
	Mend string `json:"mend,omitempty"`
}

// Failed reports whether the link does not work as it is.
func (f Finding) Failed() bool { return f.State == FindingFail }

func ok(name, format string, args ...any) Finding {
	return Finding{State: FindingOK, Name: name, Detail: fmt.Sprintf(format, args...)}
}

func unknown(name, detail string) Finding {
	return Finding{State: FindingUnknown, Name: name, Detail: detail}
}

func warn(name, mend, format string, args ...any) Finding {
	return Finding{State: FindingWarn, Name: name, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

func fail(name, mend, format string, args ...any) Finding {
	return Finding{State: FindingFail, Name: name, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

// gbit writes bits a second as people do.
func gbit(bits float64) string {
	if bits < 1e9 {
		return fmt.Sprintf("%.4g Mbit/s", bits/1e6)
	}
	return fmt.Sprintf("%.4g Gbit/s", bits/1e9)
}

const (
	// fastRate is where the longest frames begin to matter: below, a processor
	// has time for any.
	fastRate = 2e9
	// mostMTU is the longest frame that a symbol fills.
	mostMTU = 9000
	// leastMTU is what a network without fragments has.
	leastMTU = 1280
)

// CheckSenderCard looks at the card that sends, for a rate in bits a second (0:
// not known) and the MTU that the path is said to have (0: the card's).
func CheckSenderCard(c *Card, rate float64, mtu int) []Finding {
	return append([]Finding{
		c.state("the card sends nothing while it sees no light: give its receiving side some, from a splitter or the converter, or switch that off in the converter"),
		c.fits(rate),
		c.frames(rate, mtu),
		c.segmentation(),
	}, c.talk("PAUSE frames of a switch or converter make it wait, and no frame tells why", "")...)
}

// CheckReceiverCard looks at the card that receives. Whether it can send is the
// matter of another package; what its hardware says of its own accord is looked
// at here too.
func CheckReceiverCard(c *Card) []Finding {
	return append([]Finding{
		c.state("no light comes: look at the fibre and at the sender's card"),
		c.frames(0, 0),
		c.merging(),
		c.descriptors(),
		c.arrivals(),
	}, c.talk("", "it sends PAUSE frames when it is full: a way back that no rule of this host stops")...)
}

func (c *Card) state(dark string) Finding {
	const name = "card"
	driver := c.Driver
	if driver == "" {
		driver = "driver not known"
	}
	switch {
	case !c.Up:
		return fail(name, "ip link set dev "+c.Name+" up", "%s (%s) is down", c.Name, driver)
	case !c.Carrier:
		return fail(name, dark, "%s (%s) has no carrier", c.Name, driver)
	case c.Speed == 0:
		return ok(name, "%s (%s) is up; the driver does not tell its speed", c.Name, driver)
	}
	return ok(name, "%s (%s) is up at %s", c.Name, driver, gbit(c.Speed))
}

// fits compares the rate with the card's speed.
func (c *Card) fits(rate float64) Finding {
	const name, most = "speed", 0.95 // other programs send too, and a full queue drops
	mend := fmt.Sprintf("a rate of %s or less", gbit(most*c.Speed))
	switch {
	case c.Speed == 0 || rate == 0:
		return unknown(name, "the driver does not tell the card's speed, or no rate is set")
	case rate > c.Speed:
		return fail(name, mend, "the card's %s are less than the rate of %s: the rest would be dropped", gbit(c.Speed), gbit(rate))
	case rate > most*c.Speed:
		return warn(name, mend, "the rate of %s leaves nothing of the card's %s for anything else", gbit(rate), gbit(c.Speed))
	}
	return ok(name, "%s of the card's %s", gbit(rate), gbit(c.Speed))
}

func (c *Card) frames(rate float64, mtu int) Finding {
	const name = "mtu"
	set := func(n int) string { return fmt.Sprintf("ip link set dev %s mtu %d", c.Name, n) }
	switch {
	case c.MTU < mtu:
		return fail(name, set(mtu), "%s takes packets of %d bytes, the path is said to take %d", c.Name, c.MTU, mtu)
	case c.MTU < leastMTU:
		return fail(name, set(1500), "%s takes packets of %d bytes, want %d or more", c.Name, c.MTU, leastMTU)
	case rate >= fastRate && mtu == 0 && c.MTU < mostMTU:
		return warn(name, set(mostMTU)+", on both sides", "%s takes packets of %d bytes; with %d, %s cost a quarter less of both processors", c.Name, c.MTU, mostMTU, gbit(rate))
	}
	return ok(name, "%s takes packets of %d bytes", c.Name, c.MTU)
}

// segmentation is the sender's offload: one call for many packets.
func (c *Card) segmentation() Finding {
	const name, feature = "offload", "tx-udp-segmentation"
	f, known := c.Features[feature]
	switch {
	case !known:
		return unknown(name, "the driver does not tell whether it cuts datagrams")
	case f.On:
		return ok(name, "the card cuts datagrams (%s)", feature)
	case f.Fixed:
		return ok(name, "the kernel cuts datagrams: this card cannot (%s)", feature)
	}
	return warn(name, "ethtool -K "+c.Name+" "+feature+" on", "the kernel cuts datagrams, though the card could (%s)", feature)
}

// merging is the receiver's: datagrams that were merged for a socket that is
// not ours come as one that is too long.
func (c *Card) merging() Finding {
	const name = "offload"
	var on []string
	for _, feature := range []string{"rx-udp-gro-forwarding", "rx-gro-list"} {
		if c.Features[feature].On {
			on = append(on, feature)
		}
	}
	switch {
	case c.Features == nil:
		return unknown(name, "the driver does not tell whether datagrams are merged")
	case len(on) > 0:
		return fail(name, "ethtool -K "+c.Name+" "+strings.Join(on, " off ")+" off", "the kernel merges datagrams before they are read (%s): all are lost", strings.Join(on, ", "))
	}
	return ok(name, "datagrams are not merged")
}

func (c *Card) descriptors() Finding {
	const name = "rx-ring"
	switch {
	case c.Ring == nil:
		return unknown(name, "the driver does not tell how many descriptors it has")
	case c.Ring.Now < c.Ring.Most:
		return warn(name, fmt.Sprintf("ethtool -G %s rx %d", c.Name, c.Ring.Most), "%s has %d descriptors of at most %d: a short burst is more than it holds", c.Name, c.Ring.Now, c.Ring.Most)
	}
	return ok(name, "%s has all of its %d descriptors", c.Name, c.Ring.Most)
}

// arrivals looks at what the card itself has lost.
func (c *Card) arrivals() Finding {
	const name = "arrivals"
	e := c.Errors
	switch {
	case e == nil:
		return unknown(name, "the kernel does not count")
	case e.Damaged > 0:
		return warn(name, "clean the fibre's ends, or another transceiver; then look whether ip -s link show dev "+c.Name+" counts on",
			"%d frames came damaged, beside %d that did not, since the interface exists", e.Damaged, e.Frames)
	case e.Missed > 0:
		mend := "a lower rate at the sender"
		if c.Ring != nil && c.Ring.Now < c.Ring.Most {
			mend = fmt.Sprintf("ethtool -G %s rx %d", c.Name, c.Ring.Most)
		}
		return warn(name, mend, "the card had no room for %d frames, beside %d that it had, since the interface exists", e.Missed, e.Frames)
	}
	return ok(name, "%d frames, none damaged or missed by the card", e.Frames)
}

// talk is what the hardware does on its own. The texts say what is bad about
// PAUSE frames that are obeyed and that are sent; "" is nothing.
func (c *Card) talk(obeyed, sent string) []Finding {
	pause := ok("pause", "PAUSE frames are off")
	mend := "ethtool -A " + c.Name + " autoneg off rx off tx off"
	switch {
	case c.Pause == nil:
		pause = unknown("pause", "the driver does not tell about PAUSE frames")
	case c.Pause.TX && sent != "":
		pause = fail("pause", mend, "%s", sent)
	case c.Pause.RX && obeyed != "":
		pause = warn("pause", mend, "%s", obeyed)
	case c.Pause.TX || c.Pause.RX:
		pause = ok("pause", "PAUSE frames are on, and do no harm on this side")
	}
	eee := ok("eee", "Energy Efficient Ethernet is off")
	switch {
	case c.EEE == nil:
		eee = unknown("eee", "the driver does not tell about Energy Efficient Ethernet")
	case *c.EEE:
		eee = warn("eee", "ethtool --set-eee "+c.Name+" eee off", "Energy Efficient Ethernet is on: the card talks with the other side about sleep, and waking loses packets")
	}
	return []Finding{pause, eee}
}

// CheckKernel looks at what a receiver's kernel is set to. socket tells that
// packets come by a socket, whose buffer has a bound, and not by the ring.
func CheckKernel(k *Kernel, ring int, socket bool) []Finding {
	return []Finding{k.backlog(), k.buffer(int64(ring), socket), k.governor()}
}

func (k *Kernel) backlog() Finding {
	const name, usual = "backlog", 10000
	if k.Dropped == 0 {
		return ok(name, "no packet was dropped before it was read (softnet_stat)")
	}
	return warn(name, fmt.Sprintf("sysctl -w net.core.netdev_max_backlog=%d", max(usual, 2*k.Backlog)),
		"%d packets of all interfaces were dropped since the start of this host, as the processors' queues of %d were full (softnet_stat)", k.Dropped, k.Backlog)
}

func (k *Kernel) buffer(ring int64, socket bool) Finding {
	const name = "rmem-max"
	// The kernel doubles what is asked for, for its own bookkeeping.
	want := ring / 2
	switch {
	case !socket:
		return ok(name, "the ring does not need it")
	case k.ReceiveMax == 0:
		return unknown(name, "net.core.rmem_max cannot be read here")
	case k.ReceiveMax < want:
		return warn(name, fmt.Sprintf("sysctl -w net.core.rmem_max=%d", want),
			"a socket's buffer has at most %d bytes, want %d, unless the receiver has CAP_NET_ADMIN", k.ReceiveMax, want)
	}
	return ok(name, "a socket's buffer may have %d bytes", k.ReceiveMax)
}

func (k *Kernel) governor() Finding {
	const name, best = "governor", "performance"
	switch {
	case len(k.Governors) == 0:
		return unknown(name, "the processors' frequency is not this kernel's to set")
	case slices.Equal(k.Governors, []string{best}):
		return ok(name, best)
	}
	return warn(name, "cpupower frequency-set -g "+best, "the processors' frequency is governed by %s: they wake slowly for the first packets", strings.Join(k.Governors, ", "))
}

// CheckRing looks at the room for packets that wait to be read: how long it
// lasts at the sender's rate (0: not known), and whether this host has it.
func CheckRing(bytes int, rate float64, available int64) Finding {
	const name = "ring"
	const least, wanted = 0.1, 0.5 // seconds
	if available > 0 && int64(bytes) > available/2 {
		return fail(name, fmt.Sprintf("a ring of %d MiB or less", available/2>>20), "%d MiB are more than half of the %d MiB of memory that are free", bytes>>20, available>>20)
	}
	if rate == 0 {
		return ok(name, "%d MiB; the sender's rate is not known", bytes>>20)
	}
	// A block is handed over after its time though it is not full.
	lasts := min(float64(bytes)*8/rate, float64(bytes/blockSize)*retire/1000)
	mend := fmt.Sprintf("a ring of %d MiB or more", int(math.Ceil(wanted*rate/8))>>20+1)
	text := fmt.Sprintf("%d MiB hold %s of the sender's %s", bytes>>20, time.Duration(lasts*float64(time.Second)).Round(time.Millisecond), gbit(rate))
	switch {
	case lasts < least:
		return fail(name, mend, "%s: a disk that hesitates is longer", text)
	case lasts < wanted:
		return warn(name, mend, "%s: a busy disk may hesitate for longer", text)
	}
	return ok(name, "%s", text)
}

const (
	// clockOff and clockWrong are how far the clocks of both sides may differ:
	// what is dated on one side is judged on the other, by the day.
	clockOff, clockWrong = time.Minute, time.Hour
	// beatAge is how old a heartbeat may be to tell the time.
	beatAge = time.Hour
)

// mendClock names no side: a link tells that clocks differ, not which is wrong.
const mendClock = "timedatectl set-time 'YYYY-MM-DD HH:MM:SS' on the side that is wrong, by a clock that you trust"

const clockLayout = "2006-01-02 15:04:05 MST"

// CheckOwnClock looks at this host's clock alone. earliest has surely passed.
func CheckOwnClock(now, earliest time.Time) Finding {
	const name = "clock"
	if now.Before(earliest) {
		return fail(name, mendClock, "this host believes that it is %s", now.UTC().Format(clockLayout))
	}
	return ok(name, "it is %s here", now.UTC().Format(clockLayout))
}

// CheckClock compares this host's clock with the sender's. ahead is what the
// last heartbeat told, that long ago; nil: none came.
func CheckClock(now, earliest time.Time, ahead *time.Duration, age time.Duration) Finding {
	const name = "clock"
	if own := CheckOwnClock(now, earliest); own.State != FindingOK {
		return own
	}
	if ahead == nil || age > beatAge {
		return unknown(name, fmt.Sprintf("it is %s here; no heartbeat of the last hour tells the sender's time", now.UTC().Format(clockLayout)))
	}
	off := ahead.Abs().Round(time.Second)
	side := "ahead of"
	if *ahead < 0 {
		side = "behind"
	}
	switch {
	case off >= clockWrong:
		return fail(name, mendClock, "this clock is %s %s the sender's: ages and expiry dates are judged wrong", off, side)
	case off >= clockOff:
		return warn(name, mendClock, "this clock is %s %s the sender's", off, side)
	}
	return ok(name, "this clock and the sender's agree within %s", max(time.Second, off))
}
