package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Card is what the kernel and its driver tell of an interface. What the
// driver does not tell is nil or 0.
type Card struct {
	Name    string
	Driver  string
	MTU     int
	Up      bool
	Carrier bool
	Speed   float64 // bits a second
	// Ring are the descriptors of received frames.
	Ring  *CardRing
	Pause *CardPause
	EEE   *bool // Energy Efficient Ethernet is on
	// Features are those of the driver by their names, as in ethtool -k.
	Features map[string]Feature
	Errors   *CardErrors
}

// A CardRing is how many descriptors of received frames there are.
type CardRing struct{ Now, Most int }

// CardPause says which PAUSE frames are obeyed and sent.
type CardPause struct{ RX, TX bool }

// A Feature can be changed unless it is fixed.
type Feature struct{ On, Fixed bool }

// CardErrors count received frames since the interface exists.
type CardErrors struct {
	Frames  uint64
	Missed  uint64 // the card had no descriptor or no room
	Damaged uint64 // wrong check sum on the wire
}

// ReadCard asks for what is known of an interface.
func ReadCard(name string) (_ *Card, err error) {
	i, err := interfaceNamed(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	c := &Card{Name: name, MTU: i.MTU, Up: i.Flags&net.FlagUp != 0}
	if err := c.readLink(i.Index); err != nil {
		return nil, fmt.Errorf("ask for %s: %w", name, err)
	}
	if info, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
		c.Driver = unix.ByteSliceToString(info.Driver[:])
	}
	a := asker{fd, name}
	c.Speed = a.speed()
	c.Ring, c.Pause, c.EEE, c.Features = a.ring(), a.pause(), a.eee(), a.features()
	return c, nil
}

// An asker makes the calls of ethtool(8). A driver that does not know one
// answers EOPNOTSUPP, and nothing is known then.
type asker struct {
	fd   int
	name string
}

// ask has the kernel fill in p, whose first word is the command.
func (a asker) ask(p []byte) bool {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq
	}
	if len(a.name) >= len(request.name) {
		return false
	}
	copy(request.name[:], a.name)
	request.data = unsafe.Pointer(&p[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(a.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(p)
	return errno == 0
}

// words asks a command whose answer is a row of numbers; nil: it was refused.
func (a asker) words(command uint32, n int) []uint32 {
	p := make([]byte, 4*n)
	binary.NativeEndian.PutUint32(p, command)
	if !a.ask(p) {
		return nil
	}
	w := make([]uint32, n)
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(p[4*i:])
	}
	return w
}

// speed is that of struct ethtool_link_settings: the second word, in Mbit/s.
func (a asker) speed() float64 {
	const size, masks, most = 48, 15, 127
	p := make([]byte, size+3*4*most)
	ask := func() bool {
		binary.NativeEndian.PutUint32(p, unix.ETHTOOL_GLINKSETTINGS)
		return a.ask(p)
	}
	if !ask() {
		return 0
	}
	// The first answer is how long the masks are, as a negative number.
	if n := -int8(p[masks]); n > 0 {
		clear(p)
		p[masks] = byte(n)
		if !ask() {
			return 0
		}
	}
	switch mbit := binary.NativeEndian.Uint32(p[4:]); mbit {
	case 0, 0xffff, 0xffffffff: // unknown, of old drivers too
		return 0
	default:
		return float64(mbit) * 1e6
	}
}

func (a asker) ring() *CardRing {
	w := a.words(unix.ETHTOOL_GRINGPARAM, 9)
	if w == nil || w[1] == 0 {
		return nil
	}
	return &CardRing{Now: int(w[5]), Most: int(w[1])}
}

func (a asker) pause() *CardPause {
	w := a.words(unix.ETHTOOL_GPAUSEPARAM, 4)
	if w == nil {
		return nil
	}
	return &CardPause{RX: w[2] != 0, TX: w[3] != 0}
}

func (a asker) eee() *bool {
	w := a.words(unix.ETHTOOL_GEEE, 10)
	if w == nil {
		return nil
	}
	on := w[5] != 0
	return &on
}

// features reads names and states; both are long, and their length is asked
// first.
func (a asker) features() map[string]Feature {
	const set, head, name = 4, 16, 32 // ETH_SS_FEATURES
	p := make([]byte, head+4)
	binary.NativeEndian.PutUint32(p, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint64(p[8:], 1<<set)
	if !a.ask(p) {
		return nil
	}
	n := int(binary.NativeEndian.Uint32(p[head:]))
	if n < 1 || n > 1024 {
		return nil
	}
	names := make([]byte, 12+n*name)
	binary.NativeEndian.PutUint32(names, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(names[4:], set)
	binary.NativeEndian.PutUint32(names[8:], uint32(n))
	if !a.ask(names) {
		return nil
	}
	blocks := (n + 31) / 32
	states := make([]byte, 8+blocks*16) // available, requested, active, never changed
	binary.NativeEndian.PutUint32(states, unix.ETHTOOL_GFEATURES)
	binary.NativeEndian.PutUint32(states[4:], uint32(blocks))
	if !a.ask(states) {
		return nil
	}
	all := map[string]Feature{}
	for i := range n {
		text, _, _ := bytes.Cut(names[12+i*name:12+(i+1)*name], []byte{0})
		block := states[8+i/32*16:]
		bit := func(at int) bool { return binary.NativeEndian.Uint32(block[at:])>>(i%32)&1 != 0 }
		all[string(text)] = Feature{On: bit(8), Fixed: !bit(0) || bit(12)}
	}
	return all
}

// readLink asks by netlink for the carrier, which flags show late, and for the
// counters: those of files are of the network namespace that /sys was mounted
// in.
func (c *Card) readLink(index int) error {
	data, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return err
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return err
		}
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.IFLA_CARRIER:
				c.Carrier = len(a.Value) > 0 && a.Value[0] != 0
			case unix.IFLA_STATS64:
				c.Errors = parseErrors(a.Value)
			}
		}
	}
	return nil
}

// parseErrors reads struct rtnl_link_stats64.
func parseErrors(p []byte) *CardErrors {
	const frames, damaged, fifo, missed = 0, 12, 14, 15
	if len(p) < 8*(missed+1) {
		return nil
	}
	at := func(n int) uint64 { return binary.NativeEndian.Uint64(p[8*n:]) }
	return &CardErrors{Frames: at(frames), Missed: at(fifo) + at(missed), Damaged: at(damaged)}
}
