package oneway

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge runs the filter on a call. The VM reads big-endian words where the
// kernel reads the machine's; the low half of an argument comes first.
func judge(t *testing.T, p []bpf.Instruction, id arch.AuditArch, number uint32, args ...uint64) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(p)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], number)
	binary.BigEndian.PutUint32(data[offArch:], uint32(id))
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestFilter(t *testing.T) {
	sockets := []int{5, 9}
	lacks := map[string][]string{"aarch64": {"dup2"}}
	for _, m := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		t.Run(m.Name, func(t *testing.T) {
			p, err := filter(m, sockets)
			if err != nil {
				t.Fatal(err)
			}
			call := func(name string, args ...uint64) uint32 {
				t.Helper()
				n, ok := number(m, name)
				if !ok {
					t.Fatalf("no system call %s", name)
				}
				return judge(t, p, m.ID, n, args...)
			}
			for _, name := range denied {
				if got := call(name); got != refuse {
					t.Errorf("%s: %#x", name, got)
				}
			}
			for _, c := range onSockets {
				if slices.Contains(lacks[m.Name], c.name) {
					if _, ok := number(m, c.name); ok {
						t.Errorf("%s is there after all", c.name)
					}
					continue
				}
				at := func(fd uint64) []uint64 {
					args := make([]uint64, c.arg+1)
					args[c.arg] = fd
					return args
				}
				// The kernel takes 32 bits of a descriptor.
				for _, fd := range []uint64{5, 9, 5 | 1<<32, 9 | 0xffff<<48} {
					if got := call(c.name, at(fd)...); got != refuse {
						t.Errorf("%s of socket %#x: %#x", c.name, fd, got)
					}
				}
				for _, fd := range []uint64{0, 1, 2, 4, 6, 1 << 20} {
					if got := call(c.name, at(fd)...); got != allow {
						t.Errorf("%s of file %d: %#x", c.name, fd, got)
					}
				}
			}
			for _, tt := range []struct {
				name string
				args []uint64
				want uint32
			}{
				{"fcntl", []uint64{5, unix.F_DUPFD}, refuse},
				{"fcntl", []uint64{9 | 1<<40, unix.F_DUPFD_CLOEXEC | 1<<32}, refuse},
				{"fcntl", []uint64{5, unix.F_GETFL}, allow},
				{"fcntl", []uint64{6, unix.F_DUPFD}, allow},
				{"close", []uint64{5}, pretend},
				{"close", []uint64{6}, allow},
				{"recvfrom", []uint64{5}, allow},
				{"recvmsg", []uint64{5}, allow},
				{"recvmmsg", []uint64{5}, allow},
				{"getsockopt", []uint64{5}, allow},
				{"read", []uint64{5}, allow},
				{"ppoll", nil, allow},
				{"futex", nil, allow},
				{"mmap", nil, allow},
				{"clone", nil, allow},
				{"openat", nil, allow},
				{"fsync", nil, allow},
				{"exit_group", nil, allow},
			} {
				if got := call(tt.name, tt.args...); got != tt.want {
					t.Errorf("%s%v: got %#x, want %#x", tt.name, tt.args, got, tt.want)
				}
			}
		})
	}
}

// amd64 takes calls of two other ABIs, whose numbers mean other calls.
func TestFilterOtherABI(t *testing.T) {
	p, err := filter(arch.X86_64, nil)
	if err != nil {
		t.Fatal(err)
	}
	socketcall, _ := number(arch.I386, "socketcall")
	if got := judge(t, p, arch.I386.ID, socketcall); got != refuse {
		t.Errorf("i386 socketcall: %#x", got)
	}
	if got := judge(t, p, arch.X32.ID, uint32(arch.X32.SeccompMask|unix.SYS_SENDTO)); got != absent {
		t.Errorf("x32 sendto: %#x", got)
	}
	if got := judge(t, p, arch.X86_64.ID, 100_000); got != absent {
		t.Errorf("a call that is newer than the table: %#x", got)
	}
	read, _ := number(arch.X86_64, "read")
	if got := judge(t, p, arch.X86_64.ID, read); got != allow {
		t.Errorf("read: %#x", got)
	}
}

func TestFilterManySockets(t *testing.T) {
	var fds []int
	for i := range maxSockets {
		fds = append(fds, i+3)
	}
	p, err := filter(arch.X86_64, fds)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bpf.Assemble(p); err != nil {
		t.Fatal(err)
	}
	if len(p) > 4096 { // BPF_MAXINSNS
		t.Errorf("%d instructions", len(p))
	}
	write, _ := number(arch.X86_64, "write")
	if got := judge(t, p, arch.X86_64.ID, write, uint64(maxSockets+2)); got != refuse {
		t.Errorf("write to the last socket: %#x", got)
	}
	if got := judge(t, p, arch.X86_64.ID, write, uint64(maxSockets+3)); got != allow {
		t.Errorf("write past the last socket: %#x", got)
	}
	if _, err := filter(arch.X86_64, append(fds, maxSockets+3)); err == nil {
		t.Error("more sockets than the jumps reach")
	}
}
