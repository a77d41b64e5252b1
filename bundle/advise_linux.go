package bundle

import (
	"os"

	"golang.org/x/sys/unix"
)

// The advice below never decides anything, so its errors do not matter: file
// systems that do not know it are slower.

// startWriteback lets the kernel begin to write a range.
func startWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// dropCache says that a file will not be read again soon.
func dropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// readAhead says that a file will be read from front to end.
func readAhead(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
}
