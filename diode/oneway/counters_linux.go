package oneway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// devFile has the counters of the calling thread's network namespace. The
// files under /sys/class/net have those of the namespace that /sys was mounted
// in: under a unit with a namespace of its own they may show another interface
// of the same name, which sends nothing because it is not there. Netlink needs
// a socket, and after [Seal] there is none.
const devFile = "/proc/thread-self/net/dev"

// Columns of devFile after the colon: eight of reception, then transmission.
const (
	columnTxBytes   = 8
	columnTxPackets = 9
	columnTxErrors  = 10
	columnsDev      = 16
)

// ReadCounters reads what the interface has sent. It opens no socket, so that
// it works after [Seal].
func ReadCounters(iface string) (Counters, error) {
	data, err := os.ReadFile(devFile)
	if err != nil {
		return Counters{}, fmt.Errorf("read counters of %s: %w", iface, err)
	}
	c, err := parseDev(string(data), iface)
	if err != nil {
		return Counters{}, fmt.Errorf("read counters: %s: %w", devFile, err)
	}
	return c, nil
}

// parseDev finds the interface in the text of devFile.
func parseDev(text, iface string) (Counters, error) {
	for line := range strings.Lines(text) {
		// A name may have a colon in it, a number may not.
		i := strings.LastIndexByte(line, ':')
		if i < 0 || strings.TrimSpace(line[:i]) != iface {
			continue
		}
		f := strings.Fields(line[i+1:])
		if len(f) < columnsDev {
			return Counters{}, fmt.Errorf("interface %s: %d columns, want %d", iface, len(f), columnsDev)
		}
		c := Counters{Interface: iface}
		var errs [3]error
		c.Bytes, errs[0] = strconv.ParseUint(f[columnTxBytes], 10, 64)
		c.Packets, errs[1] = strconv.ParseUint(f[columnTxPackets], 10, 64)
		c.Errors, errs[2] = strconv.ParseUint(f[columnTxErrors], 10, 64)
		if err := errors.Join(errs[:]...); err != nil {
			return Counters{}, fmt.Errorf("interface %s: %w", iface, err)
		}
		return c, nil
	}
	return Counters{}, fmt.Errorf("no interface %s: name one of this network namespace", iface)
}

// find looks the interface up in the calling thread's namespace.
func find(iface string) (*net.Interface, error) {
	// The name becomes part of a path: /proc/sys/net/ipv6/conf/all would
	// speak of every interface.
	if iface == "" || iface == "all" || iface == "default" || iface == "." || iface == ".." || strings.ContainsAny(iface, "/ \t\n") {
		return nil, fmt.Errorf("interface %q: not a name of an interface", iface)
	}
	ifc, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	return ifc, nil
}
