package weights

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/pickle"
)

const (
	// maxInflated bounds what a zlib stream is inflated to: joblib's files of
	// whole forests have some hundred megabytes.
	maxInflated = 4 << 30
	// oldJoblib opens joblib's files before version 0.10: ZF, the length of
	// what follows as text in 19 bytes, and a zlib stream.
	oldJoblib     = "ZF"
	oldJoblibHead = len(oldJoblib) + 19
)

// zlibStart says where in a file a zlib stream begins. Python's zlib.compress
// and joblib write it without a container, which is why the walker does not
// open it.
func zlibStart(head []byte) (int64, bool) {
	if bytes.HasPrefix(head, []byte(oldJoblib)) && len(head) >= oldJoblibHead+2 && zlibHeader(head[oldJoblibHead:]) {
		return int64(oldJoblibHead), true
	}
	return 0, zlibHeader(head)
}

// zlibHeader holds what RFC 1950 says of the first two bytes: deflate, a
// window of 32 KiB or less, a check, and no dictionary.
func zlibHeader(b []byte) bool {
	return len(b) >= 2 && b[0]&0x0f == 8 && b[0]>>4 <= 7 && (uint(b[0])<<8|uint(b[1]))%31 == 0 && b[1]&0x20 == 0
}

// zlib judges the pickle in a compressed stream. A file that only looks like
// one, as one in a thousand does, is none of its business.
func (v *visit) zlib(skip int64) (form, error) {
	rep, err := scanZlib(io.NewSectionReader(v.content, skip, v.f.Size-skip))
	switch {
	case errors.Is(err, errNoZlib):
		return form{}, nil
	case errors.Is(err, errInflated):
		v.unseen("MODEL-ZLIB-LIMIT", "%v", err)
		return form{name: "zlib"}, nil
	case v.ctx.Err() != nil:
		return form{}, v.ctx.Err()
	case err != nil:
		return form{}, fmt.Errorf("inflate %s: %w", v.f.Name(), err)
	}
	const where = " in a zlib stream"
	switch {
	case rep.Safe, acts(rep), len(rep.Globals) > 0, !isBroken(rep), v.claim == claimPickle:
		v.judge(rep, where)
	default:
		v.add(v.severity(scan.Medium), "MODEL-ZLIB", "a zlib stream that holds no pickle; what it holds was not looked at")
	}
	return form{name: "zlib", pickle: true}, nil
}

var (
	errNoZlib   = errors.New("not a zlib stream")
	errInflated = fmt.Errorf("a zlib stream of more than %d bytes", int64(maxInflated))
)

// scanZlib judges what a zlib stream holds. A stream that breaks is a pickle
// that ends early.
func scanZlib(r io.Reader) (*pickle.Report, error) {
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, errNoZlib
	}
	in := &inflated{r: z, left: maxInflated}
	if _, err := in.peek(); err != nil {
		return nil, errNoZlib // the first block does not inflate
	}
	rep, err := pickle.Scan(in, pickle.Options{Profile: pickle.Numpy})
	if err != nil {
		return nil, err
	}
	if !in.full {
		return rep, nil
	}
	return nil, errInflated
}

// inflated reads a bounded stream and ends where it breaks, noting why.
type inflated struct {
	r    io.Reader
	left int64
	full bool // more came than may
	head []byte
}

// peek holds that the stream begins.
func (i *inflated) peek() (byte, error) {
	var b [1]byte
	if _, err := io.ReadFull(i.r, b[:]); err != nil {
		return 0, err
	}
	i.head = b[:]
	return b[0], nil
}

func (i *inflated) Read(p []byte) (int, error) {
	if len(i.head) > 0 && len(p) > 0 {
		n := copy(p, i.head)
		i.head = i.head[n:]
		return n, nil
	}
	if i.left <= 0 {
		i.full = true
		return 0, io.EOF
	}
	n, err := i.r.Read(p[:min(int64(len(p)), i.left)])
	i.left -= int64(n)
	if err != nil && !isStream(err) {
		return n, err
	}
	if err != nil {
		return n, io.EOF
	}
	return n, nil
}

// isStream reports an error of the stream, and not of the file below.
func isStream(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, zlib.ErrChecksum) || errors.Is(err, zlib.ErrHeader) {
		return true
	}
	return isCorrupt(err)
}

func isCorrupt(err error) bool {
	_, ok := errors.AsType[flate.CorruptInputError](err)
	return ok
}

// lzma reports a stream of the form that came before xz, which joblib loads
// and which nothing here opens. joblib's own test data has some.
func (v *visit) lzma() error {
	const text = "a bare LZMA stream, which joblib loads; what it holds was not looked at"
	if v.place == library {
		v.add(scan.Medium, "MODEL-LZMA", text)
	} else {
		v.unseen("MODEL-LZMA", text)
	}
	return nil
}
