package apt

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

const (
	// maxDict bounds an xz dictionary; xz -9 uses 64 MiB, Debian 8.
	maxDict = 64 << 20
	// maxWindow bounds a zstd window; zstd --long=27 uses 128 MiB.
	maxWindow = 128 << 20
	// maxOutput and maxRatio bound an index whose plain size is not listed.
	maxOutput = 2 << 30
	maxRatio  = 64
)

// A compression is one form in which an index may be offered.
type compression struct {
	ext  string
	open func(io.Reader) (io.ReadCloser, error)
}

// compressions in order of choice: what transfers least comes first.
var compressions = []compression{
	{".xz", openXZ},
	{".zst", openZstd},
	{".gz", openGzip},
	{".bz2", openBzip2},
	{"", func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(r), nil }},
}

func openXZ(r io.Reader) (io.ReadCloser, error) {
	x, err := xz.NewReader(r, maxDict)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

func openGzip(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }

func openBzip2(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }

// decompress opens r by the extension of a file name and gives at most limit
// bytes; more are an error. Reading to io.EOF has checked the whole stream.
func decompress(r io.Reader, ext string, limit int64) (io.ReadCloser, error) {
	for _, c := range compressions {
		if c.ext == ext {
			return bound(r, limit, c.open)
		}
	}
	return nil, fmt.Errorf("unknown compression %q", clip(ext))
}

func bound(r io.Reader, limit int64, open func(io.Reader) (io.ReadCloser, error)) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	z, err := open(in)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return &bounded{z: z, in: in, left: limit, limit: limit}, nil
}

// bounded stops a decompressor at a limit, and at its end asks for input that
// it left unread.
type bounded struct {
	z           io.ReadCloser
	in          io.Reader
	left, limit int64
}

func (b *bounded) Read(p []byte) (int, error) {
	// One byte more than allowed may be asked for: it tells "full" from "over".
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.z.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, fmt.Errorf("decompresses to more than %d bytes", b.limit)
	}
	if errors.Is(err, io.EOF) {
		var one [1]byte
		extra, ierr := io.ReadFull(b.in, one[:])
		if extra > 0 {
			return n, errors.New("data after the end of the compressed stream")
		}
		if !errors.Is(ierr, io.EOF) {
			return n, ierr // the store's reader found damage at the end
		}
	}
	return n, err
}

func (b *bounded) Close() error { return b.z.Close() }
