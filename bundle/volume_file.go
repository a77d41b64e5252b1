package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// writebackEvery is how much is written before the kernel is told to begin
// with it, so that the fsync at the end finds little to do and the page cache
// stays small.
const writebackEvery = 32 << 20

// directWrite is written past the buffer, which gathers headers, padding and
// small blobs.
const directWrite = 256 << 10

// A volumeFile is a volume that is being written.
type volumeFile struct {
	f       *os.File
	buf     *bufio.Writer
	size    int64
	written int64 // handed to the kernel for writing
}

func createVolume(dir, name string) (*volumeFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	return &volumeFile{f: f, buf: bufio.NewWriterSize(f, directWrite)}, nil
}

func (v *volumeFile) write(p []byte) error {
	if len(p) >= directWrite && v.buf.Buffered() > 0 {
		if err := v.buf.Flush(); err != nil {
			return err
		}
	}
	if _, err := v.buf.Write(p); err != nil {
		return err
	}
	v.size += int64(len(p))
	if v.size-v.written >= writebackEvery {
		startWriteback(v.f, v.written, v.size-v.written)
		v.written = v.size
	}
	return nil
}

// Write is write as an [io.Writer].
func (v *volumeFile) Write(p []byte) (int, error) {
	if err := v.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// finish makes the volume durable.
func (v *volumeFile) finish() error {
	failpoint.Here("bundle.volume-written")
	err := v.buf.Flush()
	failpoint.Here("bundle.volume-flushed")
	if err == nil {
		err = v.f.Sync()
	}
	failpoint.Here("bundle.volume-synced")
	dropCache(v.f)
	if err := errors.Join(err, v.f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", v.f.Name(), err)
	}
	return nil
}
