package oneway

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// denied are the system calls that a receiver never makes once its sockets are
// open.
var denied = [...]string{
	// Sending, and sockets to send with. setsockopt could move a socket to
	// another interface, join a group, or map a transmit ring.
	"sendto", "sendmsg", "sendmmsg", "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "setsockopt",
	// Other ways to submit a write.
	"io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "io_submit",
	// Other programs, other processes' memory and sockets.
	"execve", "execveat", "ptrace", "process_vm_writev", "pidfd_getfd",
	// The kernel's: a program on the interface may send.
	"bpf", "init_module", "finit_module", "kexec_load", "kexec_file_load",
}

// onSockets are calls that files need, denied on sockets only. Copies of a
// descriptor would be another number. arg is where the descriptor stands.
// arm64 has no dup2.
var onSockets = [...]struct {
	name string
	arg  uint32
}{
	{"write", 0},
	{"writev", 0},
	{"pwrite64", 0},
	{"pwritev", 0},
	{"pwritev2", 0},
	{"sendfile", 0},
	{"splice", 2},
	{"dup", 0},
	{"dup2", 0},
	{"dup3", 0},
	{"ioctl", 0}, // turns ARP on again, or the link off and on
}

// maxSockets keeps the jumps of the filter in a byte. A receiver has two.
const maxSockets = 64

// Where struct seccomp_data has what; the machines that Seal knows store the
// low half of an argument first.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

const (
	allow  = uint32(seccomp.ActionAllow)
	refuse = uint32(seccomp.ActionErrno) | uint32(unix.EPERM)
	// absent is what a kernel says that does not know the call.
	absent = uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)
	// pretend is errno 0: the call is not made and reports success.
	pretend = uint32(seccomp.ActionErrno)
)

// machine is the system call table of this machine.
func machine() (*arch.Info, error) {
	switch runtime.GOARCH {
	case "amd64", "arm64":
		return arch.GetInfo("")
	}
	return nil, fmt.Errorf("system calls of %s cannot be filtered: want amd64 or arm64", runtime.GOARCH)
}

// filter makes the program. It is ours and not the library's because that one
// lets calls of another ABI pass (amd64 takes those of i386 by an interrupt),
// and compares 64 bits of a descriptor of which the kernel takes 32.
func filter(m *arch.Info, sockets []int) ([]bpf.Instruction, error) {
	if len(sockets) > maxSockets {
		return nil, fmt.Errorf("%d open sockets, want at most %d", len(sockets), maxSockets)
	}
	// Calls that are newer than the table could send in ways not thought of;
	// those of the x32 ABI, which shares amd64's name, have high numbers too.
	newest := uint32(slices.Max(slices.Collect(maps.Keys(m.SyscallNumbers))))
	p := []bpf.Instruction{
		load(offArch),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(m.ID), SkipTrue: 1},
		bpf.RetConstant{Val: refuse},
		load(offNumber),
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newest, SkipFalse: 1},
		bpf.RetConstant{Val: absent},
	}
	for _, name := range denied {
		n, ok := number(m, name)
		if !ok {
			return nil, fmt.Errorf("%s has no system call %s", m.Name, name)
		}
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: 1}, bpf.RetConstant{Val: refuse})
	}
	if len(sockets) > 0 {
		for _, c := range onSockets {
			p = appendIf(p, m, c.name, onFiles(c.arg, sockets, refuse))
		}
		p = appendIf(p, m, "fcntl", append([]bpf.Instruction{
			load(offArgs + 8),
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.F_DUPFD, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.F_DUPFD_CLOEXEC, SkipTrue: 1},
			bpf.RetConstant{Val: allow},
		}, onFiles(0, sockets, refuse)...))
		// The number of a closed socket would go to the next file that is
		// opened, which then could not be written. The sockets end with the
		// process.
		p = appendIf(p, m, "close", onFiles(0, sockets, pretend))
	}
	return append(p, bpf.RetConstant{Val: allow}), nil
}

// appendIf runs body for one system call. The body returns in every case.
func appendIf(p []bpf.Instruction, m *arch.Info, name string, body []bpf.Instruction) []bpf.Instruction {
	n, ok := number(m, name)
	if !ok {
		return p
	}
	p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: uint8(len(body))})
	return append(p, body...)
}

// onFiles answers a call on one of the descriptors, and allows the others.
func onFiles(arg uint32, fds []int, answer uint32) []bpf.Instruction {
	p := []bpf.Instruction{load(offArgs + 8*arg)}
	for _, fd := range fds {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(fd), SkipFalse: 1}, bpf.RetConstant{Val: answer})
	}
	return append(p, bpf.RetConstant{Val: allow})
}

func load(offset uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offset, Size: 4} }

func number(m *arch.Info, name string) (uint32, bool) {
	n, ok := m.SyscallNames[name]
	return uint32(n), ok
}
