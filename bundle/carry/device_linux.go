package carry

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// fatFile is the largest file of FAT32, whose length has 32 bits.
const fatFile = 4<<30 - 1

// writebackEvery is how far writing runs ahead of the device: else a stick
// takes gigabytes into memory in seconds, and then nothing moves for minutes.
const writebackEvery = 32 << 20

// device is the real layer.
type device struct{}

func (device) space(root *os.Root) (s space, err error) {
	d, err := root.Open(".")
	if err != nil {
		return space{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		return space{}, fmt.Errorf("statfs: %w", err)
	}
	block := int64(st.Bsize) //nolint:unconvert // 32 bits on some machines
	if block < 1 || st.Bavail > math.MaxInt64/uint64(block) {
		return space{}, fmt.Errorf("statfs: %d blocks of %d bytes", st.Bavail, block)
	}
	s = space{free: int64(st.Bavail) * block, block: block, maxFile: math.MaxInt64} //nolint:gosec // checked above
	if int64(st.Type) == unix.MSDOS_SUPER_MAGIC {                                   //nolint:unconvert // as above
		s.maxFile, s.kind = fatFile, "FAT32"
	}
	return s, nil
}

func (device) create(root *os.Root, name string) (output, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, err
	}
	// The umask is the outside's; a file system without modes refuses.
	_ = f.Chmod(fileMode)
	return &outFile{File: f}, nil
}

// An outFile lets the device begin early and waits for it.
type outFile struct {
	*os.File
	size, begun int64
}

func (o *outFile) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	o.size += int64(n)
	if err != nil || o.size-o.begun < writebackEvery {
		return n, err
	}
	// Waiting for the piece before takes its error from the fsync at the end.
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	fd := int(o.Fd())
	serr := unix.SyncFileRange(fd, o.begun, o.size-o.begun, unix.SYNC_FILE_RANGE_WRITE)
	if o.begun > 0 && serr == nil {
		serr = unix.SyncFileRange(fd, o.begun-writebackEvery, writebackEvery, wait)
	}
	o.begun = o.size
	if errors.Is(serr, unix.EIO) || errors.Is(serr, unix.ENOSPC) || errors.Is(serr, unix.EDQUOT) {
		return n, serr
	}
	return n, nil // a file system that does not know it is slower
}

func (device) reread(root *os.Root, name string) (_ io.ReadCloser, size int64, err error) {
	const plain = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := root.OpenFile(name, plain|unix.O_DIRECT, 0)
	direct := err == nil
	if errors.Is(err, unix.EINVAL) { // tmpfs of old kernels, some FUSE
		f, err = root.OpenFile(name, plain, 0)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	in := &inFile{File: f, direct: direct}
	if !direct {
		in.dropCache()
	}
	return in, info.Size(), nil
}

// An inFile reads past the page cache. A file system may take O_DIRECT when
// the file is opened and refuse it when it is read.
type inFile struct {
	*os.File
	direct bool
}

func (i *inFile) Read(p []byte) (int, error) {
	n, err := i.File.Read(p)
	if !i.direct || !errors.Is(err, unix.EINVAL) {
		return n, err
	}
	i.direct = false
	flags, err := unix.FcntlInt(i.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(i.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT)
	}
	if err != nil {
		return 0, err
	}
	i.dropCache()
	return i.File.Read(p)
}

// dropCache is the next best: clean pages are dropped, and the file was
// synced.
func (i *inFile) dropCache() {
	_ = unix.Fadvise(int(i.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func syncFS(f *os.File) error { return unix.Syncfs(int(f.Fd())) }

// alignedBuffer gives whole pages, which every device's blocks divide.
func alignedBuffer(n int) ([]byte, func() error, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("allocate %d bytes: %w", n, err)
	}
	return b, func() error { return unix.Munmap(b) }, nil
}
