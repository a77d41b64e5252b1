package oneway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childVar makes the test binary a receiver that is sealed: Seal is for good.
const childVar = "ONEWAY_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "":
		os.Exit(m.Run())
	case "udp":
		os.Exit(childMain(udpChild))
	case "packet":
		os.Exit(childMain(packetChild))
	default:
		fmt.Fprintln(os.Stderr, "unknown child")
		os.Exit(2)
	}
}

// A report is what a child tells its parent, one line of JSON each.
type report struct {
	Addr     string   // where to send to
	Sealed   State    // at the end
	Detail   string   // of the layer
	Received string   // what came after the seal
	Failed   []string // what went wrong
}

// A child collects what went wrong.
type child struct {
	out    *json.Encoder
	failed []string
}

func childMain(run func(*child) report) int {
	c := &child{out: json.NewEncoder(os.Stdout)}
	r := run(c)
	r.Failed = c.failed
	if err := c.out.Encode(r); err != nil {
		return 1
	}
	return 0
}

func (c *child) failf(format string, args ...any) {
	c.failed = append(c.failed, fmt.Sprintf(format, args...))
}

func (c *child) want(what string, got, want error) {
	if !errors.Is(got, want) {
		c.failf("%s: got %v, want %v", what, got, want)
	}
}

// worked is for what has to work, before the seal or in spite of it.
func (c *child) worked(what string, err error) {
	if err != nil {
		c.failf("%s: %v", what, err)
	}
}

// sockets are what the child has open when it is sealed.
type childSockets struct {
	listening *net.UDPConn // the link's
	connected *net.UDPConn // a mistake
	netlink   int
}

func udpChild(c *child) (r report) {
	dir, err := os.MkdirTemp("", "oneway")
	c.worked("temporary folder", err)
	defer func() { _ = os.RemoveAll(dir) }()
	s := childSockets{}
	s.listening, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	c.worked("listen", err)
	s.connected, err = net.DialUDP("udp4", nil, s.listening.LocalAddr().(*net.UDPAddr))
	c.worked("connect", err)
	s.netlink, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	c.worked("netlink", err)
	if len(c.failed) > 0 {
		return r
	}
	c.before(s)
	c.worked("Seal", Seal())
	c.after(s)
	c.runtime(dir)
	c.worked("tell the address", c.out.Encode(report{Addr: s.listening.LocalAddr().String()}))
	r.Received = c.receive(s.listening)
	l, err := Sealed()
	c.worked("Sealed", err)
	r.Sealed, r.Detail = l.State, l.Detail
	c.close(s, dir)
	return r
}

// before shows that what is refused later works now.
func (c *child) before(s childSockets) {
	l, err := Sealed()
	c.worked("Sealed", err)
	if l.State != Missing || Strict([]Layer{l}) == nil {
		c.failf("before the seal: %+v", l)
	}
	_, err = s.connected.Write([]byte("before"))
	c.worked("write", err)
	c.worked("sendto", unix.Sendto(fdOf(s.listening), []byte("before"), 0, sockaddr(s.listening)))
	for range 2 {
		buf := make([]byte, 16)
		n, err := s.listening.Read(buf)
		c.worked("read", err)
		if string(buf[:n]) != "before" {
			c.failf("read %q", buf[:n])
		}
	}
	c.worked("run a program", runNothing())
	for name, err := range c.sending(s) {
		if errors.Is(err, unix.EPERM) {
			c.failf("%s gives EPERM before the seal", name)
		}
	}
	n, err := unix.FcntlInt(uintptr(fdOf(s.listening)), unix.F_DUPFD_CLOEXEC, 0)
	c.worked("dup", err)
	c.worked("close", unix.Close(n))
}

// sending tries the calls that send or make sockets. None of them can do harm
// where it is allowed.
func (c *child) sending(s childSockets) map[string]error {
	errs := map[string]error{}
	fd := fdOf(s.listening)
	closing := func(name string, fd int, err error) {
		errs[name] = err
		if err == nil {
			c.worked("close", unix.Close(fd))
		}
	}
	for name, family := range map[string]int{"unix": unix.AF_UNIX, "inet": unix.AF_INET, "inet6": unix.AF_INET6, "netlink": unix.AF_NETLINK} {
		n, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		closing("socket "+name, n, err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	closing("socketpair", pair[0], err)
	if err == nil {
		c.worked("close", unix.Close(pair[1]))
	}
	errs["sendto"] = unix.Sendto(-1, nil, 0, sockaddr(s.listening))
	errs["sendmsg"] = unix.Sendmsg(-1, nil, nil, nil, 0)
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, ^uintptr(0), 0, 0, 0, 0, 0)
	errs["sendmmsg"] = errno
	errs["connect"] = unix.Connect(-1, sockaddr(s.listening))
	errs["bind"] = unix.Bind(-1, sockaddr(s.listening))
	errs["listen"] = unix.Listen(-1, 1)
	_, _, err = unix.Accept4(-1, 0)
	errs["accept4"] = err
	errs["setsockopt"] = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0)
	errs["execve"] = unix.Exec("", nil, nil)
	_, _, errno = unix.RawSyscall6(unix.SYS_EXECVEAT, ^uintptr(0), ^uintptr(0), 0, 0, 0, 0)
	errs["execveat"] = errno
	_, _, errno = unix.RawSyscall6(unix.SYS_PROCESS_VM_WRITEV, 1<<30, 0, 0, 0, 0, 0)
	errs["process_vm_writev"] = errno
	return errs
}

// after shows that it is refused now.
func (c *child) after(s childSockets) {
	for name, err := range c.sending(s) {
		c.want(name, err, unix.EPERM)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0)
	c.want("ptrace", errno, unix.EPERM)
	_, _, errno = unix.RawSyscall(unix.SYS_IO_URING_SETUP, 1, ^uintptr(0), 0)
	c.want("io_uring_setup", errno, unix.EPERM)
	_, err := net.Dial("udp4", "127.0.0.1:9")
	c.want("net.Dial", err, unix.EPERM)
	_, err = net.Listen("tcp4", "127.0.0.1:0")
	c.want("net.Listen", err, unix.EPERM)
	c.want("exec.Command", runNothing(), unix.EPERM)
	_, err = s.listening.WriteToUDP([]byte("after"), s.listening.LocalAddr().(*net.UDPAddr))
	c.want("WriteToUDP", err, unix.EPERM)
	c.afterWrites(s)
}

// afterWrites tries the ways to write to a socket without a call for sockets.
func (c *child) afterWrites(s childSockets) {
	_, err := s.connected.Write([]byte("after"))
	c.want("write to a connected socket", err, unix.EPERM)
	buf := []byte("after")
	for _, fd := range []int{fdOf(s.listening), fdOf(s.connected), s.netlink} {
		_, err = unix.Write(fd, buf)
		c.want("write", err, unix.EPERM)
		_, err = unix.Writev(fd, [][]byte{buf})
		c.want("writev", err, unix.EPERM)
		_, err = unix.Dup(fd)
		c.want("dup", err, unix.EPERM)
		c.want("dup3", unix.Dup3(fd, 200, unix.O_CLOEXEC), unix.EPERM)
		_, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		c.want("fcntl", err, unix.EPERM)
		// The kernel takes the low 32 bits.
		_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(uint64(fd)|1<<32), ^uintptr(0), 1)
		c.want("write with high bits", errno, unix.EPERM)
	}
	self, err := os.Open("/proc/self/exe")
	c.worked("open", err)
	_, err = unix.Sendfile(fdOf(s.connected), int(self.Fd()), nil, 1)
	c.want("sendfile", err, unix.EPERM)
	c.worked("close", self.Close())
	var p [2]int
	c.worked("pipe", unix.Pipe2(p[:], unix.O_CLOEXEC))
	_, err = unix.Write(p[1], buf)
	c.worked("write to a pipe", err)
	_, err = unix.Splice(p[0], nil, fdOf(s.connected), nil, len(buf), 0)
	c.want("splice", err, unix.EPERM)
	c.worked("close", errors.Join(unix.Close(p[0]), unix.Close(p[1])))
}

// runtime shows that Go goes on: new threads, timers, collection, files.
func (c *child) runtime(dir string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var started sync.WaitGroup
	release := make(chan struct{})
	const threads = 32
	started.Add(threads)
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread() // a thread each, which ends with it
			_, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			started.Done()
			<-release
			mu.Lock()
			defer mu.Unlock()
			c.want("socket in a new thread", err, unix.EPERM)
		})
	}
	started.Wait()
	close(release)
	wg.Wait()
	garbage := 0
	for range 200 {
		garbage += len(make([]byte, 1<<16))
	}
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	if garbage == 0 || stats.NumGC == 0 {
		c.failf("no collection")
	}
	select {
	case <-time.After(time.Millisecond):
	case <-time.NewTimer(time.Minute).C:
		c.failf("timers do not run")
	}
	c.worked("counters", c.counters())
	c.worked("files", files(dir))
}

func (c *child) counters() error {
	_, err := ReadCounters("lo")
	return err
}

// files does what a receiver does with files.
func files(dir string) (err error) {
	name := filepath.Join(dir, "object.part")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(filepath.Join(dir, "object"))) }()
	_, werr := f.WriteAt([]byte("content"), 1<<20)
	if err := errors.Join(werr, f.Sync(), f.Truncate(1<<20+7), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name, filepath.Join(dir, "object")); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, "object"))
	if err != nil {
		return err
	}
	if len(data) != 1<<20+7 || string(data[1<<20:]) != "content" {
		return errors.New("read other content")
	}
	return nil
}

// receive takes what the parent sends.
func (c *child) receive(conn *net.UDPConn) string {
	c.worked("deadline", conn.SetReadDeadline(time.Now().Add(time.Minute)))
	buf := make([]byte, 64)
	n, _, err := conn.ReadFromUDP(buf)
	c.worked("receive", err)
	return string(buf[:n])
}

// close shows that a file never gets the number of a sealed socket.
func (c *child) close(s childSockets, dir string) {
	sealed := map[int]bool{fdOf(s.listening): true, fdOf(s.connected): true, s.netlink: true}
	c.worked("close the link", s.listening.Close())
	c.worked("close", s.connected.Close())
	c.worked("close", unix.Close(s.netlink))
	for range 8 {
		f, err := os.CreateTemp(dir, "journal")
		c.worked("create", err)
		_, err = f.WriteString("state")
		c.worked("write to a file", err)
		if sealed[int(f.Fd())] {
			c.failf("a file has the number %d of a socket", f.Fd())
		}
		defer func() { _ = f.Close() }()
	}
}

func fdOf(c *net.UDPConn) int {
	fd := -1
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

func sockaddr(c *net.UDPConn) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: c.LocalAddr().(*net.UDPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
}

// startChild runs the test binary again. Its reports come from next.
func startChild(t *testing.T, kind string) (next func() report) {
	t.Helper()
	// The test's own context ends before its cleanup, which waits.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+kind)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = cmd.Process.Kill() // it may wait for what does not come
		}
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("child: %v: %s", err, errs.String())
		}
	})
	lines := bufio.NewScanner(out)
	return func() (r report) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no report from the child: %v: %s", lines.Err(), errs.String())
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		for _, f := range r.Failed {
			t.Error(f)
		}
		return r
	}
}

func TestSeal(t *testing.T) {
	next := startChild(t, "udp")
	ready := next()
	if ready.Addr == "" {
		t.Fatal("the child is not ready")
	}
	conn, err := net.Dial("udp4", ready.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("in")); err != nil {
		t.Fatal(err)
	}
	r := next()
	if r.Received != "in" {
		t.Errorf("received %q after the seal", r.Received)
	}
	if r.Sealed != OK {
		t.Errorf("Sealed is %s: %s", r.Sealed, r.Detail)
	}
	t.Log(r.Detail)
}

func TestSealedOfAnOpenProcess(t *testing.T) {
	l, err := Sealed()
	if err != nil {
		t.Fatal(err)
	}
	if l.State != Missing || !l.Required || l.Hint == "" || !strings.Contains(l.Detail, "sendto gave EFAULT") {
		t.Errorf("got %+v", l)
	}
	if errors.Is(try(uint32(syscall.SYS_GETPID)), unix.EPERM) {
		t.Error("getpid is refused")
	}
}

// runNothing starts this program without the environment that makes it a
// child: with it, every child would start another.
func runNothing() error {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = []string{}
	return cmd.Run()
}
