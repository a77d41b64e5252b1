package oneway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Seal takes from this process, all threads of it and for good, the system
// calls that send, make sockets, start programs, or reach into other
// processes: they give EPERM. Sockets that are open now can be received from,
// and neither written nor copied; closing them reports success and does
// nothing, they end with the process. Sockets of AF_UNIX keep write(2), which
// a journal needs. It needs no privileges.
//
// Call it after every socket is open, and read the counters and the clock as
// before.
func Seal() error {
	m, err := machine()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	fds, err := openSockets()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	p, err := filter(m, fds)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	raw, err := bpf.Assemble(p)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := loadFilter(raw); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

// loadFilter gives the filter to all threads. The library's own does not look
// at the result, by which the kernel names a thread that did not take it.
func loadFilter(raw []bpf.RawInstruction) error {
	prog := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		prog[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// The thread that promises no_new_privs has to be the one that asks; the
	// kernel hands both to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(seccomp.FilterFlagTSync),
		uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	switch {
	case errno != 0:
		return fmt.Errorf("load the filter of system calls: %w: needs CONFIG_SECCOMP_FILTER", errno)
	case thread != 0:
		return fmt.Errorf("load the filter of system calls: thread %d has one of its own", thread)
	}
	return nil
}

// Sealed tries every call that [Seal] takes, without arguments that could do
// anything, and looks at every thread.
func Sealed() (Layer, error) {
	l := Layer{Name: layerSeccomp, Required: true, Hint: "needs CONFIG_SECCOMP_FILTER, and comes after every socket is open"}
	m, err := machine()
	if err != nil {
		l.State, l.Detail, l.Hint = Unknown, err.Error(), "receive on amd64 or arm64"
		return l, nil
	}
	tried := 0
	for _, name := range denied {
		n, ok := number(m, name)
		if !ok {
			continue
		}
		if err := try(n); !errors.Is(err, unix.EPERM) {
			l.State, l.Detail = Missing, fmt.Sprintf("%s gave %s, want %s", name, describe(err), unix.ErrnoName(unix.EPERM))
			return l, nil
		}
		tried++
	}
	fds, err := openSockets()
	if err != nil {
		return Layer{}, fmt.Errorf("look at the seal: %w", err)
	}
	for _, fd := range fds {
		if err := tryWrite(fd); !errors.Is(err, unix.EPERM) {
			l.State, l.Detail = Missing, fmt.Sprintf("write to the socket of file descriptor %d gave %s: it was opened after the seal", fd, describe(err))
			return l, nil
		}
	}
	threads, err := filteredThreads()
	if err != nil {
		l.State, l.Detail = Missing, err.Error()
		return l, nil
	}
	l.State, l.Hint = OK, ""
	l.Detail = fmt.Sprintf("%d system calls refused in all %d threads, writes to %d sockets too", tried, threads, len(fds))
	return l, nil
}

// try makes a call with arguments that no kernel takes.
func try(number uint32) error {
	const none = ^uintptr(0)
	if _, _, errno := unix.RawSyscall6(uintptr(number), none, none, none, none, none, none); errno != 0 {
		return errno
	}
	return nil
}

// tryWrite writes from where no memory is, so that nothing could be sent.
func tryWrite(fd int) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), ^uintptr(0), 1); errno != 0 {
		return errno
	}
	return nil
}

func describe(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(errno)
	}
	return "no error"
}

// filteredThreads counts the threads, each of which has a filter.
func filteredThreads() (int, error) {
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		if s := string(data); !strings.Contains(s, "\nSeccomp:\t2\n") || !strings.Contains(s, "\nNoNewPrivs:\t1\n") {
			return 0, fmt.Errorf("%s shows a thread without a filter", f)
		}
		n++
	}
	if n == 0 {
		return 0, errors.New("no thread is to be seen under /proc/self/task")
	}
	return n, nil
}
