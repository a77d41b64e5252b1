package oneway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openSockets lists the sockets of this process that lead to a network or to
// the kernel. Those of AF_UNIX stay on the host: a journal's are among them.
func openSockets() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("list open files: %w", err)
	}
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("list open files: %w", err)
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		switch {
		case errors.Is(err, unix.ENOTSOCK), errors.Is(err, unix.EBADF):
		case err != nil:
			return nil, fmt.Errorf("look at file descriptor %d: %w", fd, err)
		case domain != unix.AF_UNIX:
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds, nil
}

// sockets looks for open sockets that a receiver has no use for.
func sockets(ifc *net.Interface) Layer {
	l := Layer{Name: layerSocket}
	fds, err := openSockets()
	if err != nil {
		l.State, l.Detail, l.Hint = Unknown, err.Error(), "mount /proc"
		return l
	}
	var bad []string
	for _, fd := range fds {
		why, err := fault(fd, ifc.Index)
		switch {
		case errors.Is(err, unix.EBADF): // closed in the meantime
		case err != nil:
			l.State, l.Detail = Unknown, fmt.Sprintf("file descriptor %d: %v", fd, err)
			return l
		case why != "":
			bad = append(bad, fmt.Sprintf("file descriptor %d is %s", fd, why))
		}
	}
	if len(bad) > 0 {
		l.State, l.Detail = Missing, strings.Join(bad, ", ")
		l.Hint = "close it before the proof: a receiver has one socket, for the link"
		return l
	}
	l.State, l.Detail = OK, fmt.Sprintf("of %d open sockets none is connected or on another interface", len(fds))
	return l
}

// fault says what is wrong with a socket, or nothing.
func fault(fd, index int) (string, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return "", err
	}
	switch domain {
	case unix.AF_NETLINK:
		return "", nil
	case unix.AF_PACKET:
		// write(2) on it sends a frame where it is bound to.
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return "", err
		}
		if ll, ok := sa.(*unix.SockaddrLinklayer); !ok || ll.Ifindex != index {
			return "a packet socket that is not bound to this interface", nil
		}
		return "", nil
	case unix.AF_INET, unix.AF_INET6:
		return inetFault(fd)
	default:
		return fmt.Sprintf("a socket of address family %d", domain), nil
	}
}

func inetFault(fd int) (string, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", err
	}
	if typ != unix.SOCK_DGRAM {
		// TCP acknowledges on its own.
		return fmt.Sprintf("an internet socket of type %d", typ), nil
	}
	// write(2) needs a peer. The filter of system calls stops the others.
	switch _, err := unix.Getpeername(fd); {
	case errors.Is(err, unix.ENOTCONN):
		return "", nil
	case err != nil:
		return "", err
	default:
		return "a connected UDP socket", nil
	}
}
