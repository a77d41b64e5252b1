package oneway

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// packetChild receives on rx0 of the namespace that it was started in: open,
// check, seal, receive.
func packetChild(c *child) (r report) {
	ifc, err := net.InterfaceByName("rx0")
	c.worked("interface", err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	c.worked("packet socket", err)
	if len(c.failed) > 0 {
		return r
	}
	c.worked("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: ifc.Index}))
	tv := unix.NsecToTimeval(answerTime.Nanoseconds())
	c.worked("timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	frame := ethernet(rxMAC, 0x88b5, []byte("out"))
	_, err = unix.Write(fd, frame)
	c.want("write before the seal", err, unix.ENOBUFS)
	layers, err := Check("rx0", Options{})
	c.worked("Check", err)
	before, err := ReadCounters("rx0")
	c.worked("counters", err)
	c.worked("Seal", Seal())
	l, err := Sealed()
	c.worked("Sealed", err)
	r.Sealed, r.Detail = l.State, l.Detail
	c.worked("Strict", Strict(append(layers, l)))
	_, err = unix.Write(fd, frame)
	c.want("write after the seal", err, unix.EPERM)
	c.worked("tell the interface", c.out.Encode(report{Addr: "rx0"}))
	buf := make([]byte, 2048)
	for n := 0; ; n++ {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			n--
			continue
		}
		if err != nil {
			c.failf("receive: %v", err)
			break
		}
		if etherType(buf) == 0x88b5 {
			r.Received = fmt.Sprintf("%d frames, then %s", n, buf[14:min(size, 16)])
			break
		}
	}
	now, err := ReadCounters("rx0")
	c.worked("counters", err)
	c.worked("Unchanged", before.Unchanged(now))
	return r
}
