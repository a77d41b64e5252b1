package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// hashApart is how much is worth hashing twice at the same time.
const hashApart = 64 << 10

// Copy writes a whole blob to w. Bytes are written as they are read, so w
// holds nothing that may be used unless Copy returns nil.
func (r *Reader) Copy(ctx context.Context, b Blob, w io.Writer) (err error) {
	src, err := r.Blob(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	size := r.m.Blobs[r.blobs[b.Digest]].Size
	// The plain writer keeps io from choosing a smaller buffer.
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, src, make([]byte, min(chunkSize, max(size, 512))))
	return err
}

// Blob reads a whole blob. Its bytes are those that were signed only if the
// end is reached: a wrong digest is reported in place of io.EOF, and the last
// bytes are not given out. Blobs that are read in manifest order read every
// volume from front to end. After an error a further call uses another copy
// of the volume, if there is one.
func (r *Reader) Blob(ctx context.Context, b Blob) (io.ReadCloser, error) {
	if err := r.layout(); err != nil {
		return nil, err
	}
	i, ok := r.blobs[b.Digest]
	if !ok {
		return nil, fmt.Errorf("%s carries no blob %s", r.m, b.Digest)
	}
	s := &storedReader{r: r, stop: ctx.Err, b: &r.m.Blobs[i], seg: sha256.New()}
	for ref := range s.b.segments {
		s.segs = append(s.segs, ref)
	}
	s.extents = r.index.Extents[r.first[i] : r.first[i]+len(s.segs)]
	if s.b.Enc == EncNone {
		if len(s.segs) > 1 {
			s.whole = sha256.New()
		}
		return s, nil
	}
	dict, err := r.dictionary(s.b)
	if err != nil {
		return nil, err
	}
	return newFrameReader(&segmentReader{src: s}, s.b, dict)
}

// dictionary reads the blob that b was compressed against; nil for none.
func (r *Reader) dictionary(b *Blob) ([]byte, error) {
	if b.Dict == "" {
		return nil, nil
	}
	d, err := artifact.ParseDigest(b.Dict)
	if err != nil {
		return nil, err
	}
	err = errors.New("no store to read it from")
	if r.dicts != nil {
		var dict []byte
		if dict, err = r.dicts(d, MaxDict); err == nil {
			return dict, nil
		}
	}
	return nil, &artifact.Refusal{
		Class: artifact.ErrSequence, Code: CodeRequires, Subject: r.m.String(),
		Reason: fmt.Sprintf("blob %s is a change of %s, which is not here", b.Digest.Short(), b.Dict), Err: err,
	}
}

// A storedReader gives the stored bytes of a blob and checks each segment at
// its end.
type storedReader struct {
	r       *Reader
	stop    func() error // of the caller's context
	b       *Blob
	segs    []segmentRef
	extents [][]extent
	seg     hash.Hash
	whole   hash.Hash // of the blob, where it is more than its one segment
	beside  sync.WaitGroup
	piece   []byte // what hashWhole takes

	cur, ext int
	pos      int64 // in the extent
	err      error // sticky
}

func (s *storedReader) Close() error { return nil }

// Proves names the digest that what was read has when the end is reached.
func (s *storedReader) Proves() artifact.Digest { return s.b.Digest }

func (s *storedReader) Read(p []byte) (int, error) {
	if s.err != nil || len(p) == 0 {
		return 0, s.err
	}
	n, err := s.read(p)
	s.err = err
	if err != nil {
		n = 0 // bytes that failed a check go nowhere
	}
	return n, err
}

func (s *storedReader) read(p []byte) (int, error) {
	if err := s.stop(); err != nil {
		return 0, err
	}
	if s.cur == len(s.segs) {
		return 0, io.EOF
	}
	list := s.extents[s.cur]
	if len(list) == 0 { // an empty blob
		s.cur++
		if err := s.sameSegment(s.cur - 1); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	e := list[s.ext]
	p = p[:min(int64(len(p)), e.Len-s.pos)]
	if err := s.r.readAt(int(e.Vol), p, e.Off+s.pos); err != nil {
		return 0, err
	}
	s.hash(p)
	if s.pos += int64(len(p)); s.pos < e.Len {
		return len(p), nil
	}
	s.pos = 0
	if s.ext++; s.ext < len(list) {
		return len(p), nil
	}
	s.ext = 0
	s.cur++
	if err := s.sameSegment(s.cur - 1); err != nil {
		return 0, err
	}
	if s.cur == len(s.segs) && s.whole != nil {
		if err := sameBlob(s.b.Digest, s.whole); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// hash makes no garbage: it is called for every piece of a large blob, and
// memory is to stay flat.
func (s *storedReader) hash(p []byte) {
	if s.whole != nil {
		s.piece = p
		s.beside.Add(1)
		if len(p) >= hashApart {
			go s.hashWhole()
		} else {
			s.hashWhole()
		}
	}
	_, _ = s.seg.Write(p) // a hash does not fail
	s.beside.Wait()
}

func (s *storedReader) hashWhole() {
	_, _ = s.whole.Write(s.piece)
	s.beside.Done()
}

// sameSegment compares what was read with what was signed.
func (s *storedReader) sameSegment(n int) error {
	got := artifact.Digest(s.seg.Sum(nil))
	s.seg.Reset()
	if got == s.segs[n].Digest {
		return nil
	}
	err := s.r.segmentErr(s.b, s.segs[n], s.extents[n], got)
	for _, e := range s.extents[n] {
		s.r.nextCopy(int(e.Vol))
	}
	return err
}

// segmentErr names a segment and where its bytes came from.
func (r *Reader) segmentErr(b *Blob, s segmentRef, list []extent, got artifact.Digest) error {
	reason := fmt.Sprintf("segment %d of %d of blob %s is not what was signed", max(1, s.n), max(1, len(b.Segments)), b.Digest)
	if len(list) == 0 {
		ref := refusal(CodeSegment, r.m.String(), reason, nil)
		ref.Want, ref.Got = s.Digest.String(), got.String()
		return ref
	}
	err := r.volumeErr(int(list[0].Vol), CodeSegment, reason, nil)
	err.Refusal.Want, err.Refusal.Got = s.Digest.String(), got.String()
	if last := list[len(list)-1].Vol; last != list[0].Vol {
		err.Refusal.Subject += fmt.Sprintf(" and on to %s", volumeName(int(last)))
	}
	return err
}

func sameBlob(want artifact.Digest, h hash.Hash) error {
	if got := artifact.Digest(h.Sum(nil)); got != want {
		return wrongBlob(want, got)
	}
	return nil
}

func wrongBlob(want, got artifact.Digest) error {
	r := refusal(CodeBlob, "blob "+want.Short(), "the whole is not what was signed", nil)
	r.Want, r.Got = want.String(), got.String()
	return r
}

// A segmentReader gives out bytes of segments that are good, and of no
// others: it holds one in memory.
type segmentReader struct {
	src  *storedReader
	buf  []byte
	left []byte
}

func (s *segmentReader) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		if s.src.cur == len(s.src.segs) {
			return 0, io.EOF
		}
		n := s.src.segs[s.src.cur].Len
		if int64(cap(s.buf)) < n {
			s.buf = make([]byte, n)
		}
		s.buf = s.buf[:n]
		if _, err := io.ReadFull(s.src, s.buf); err != nil {
			return 0, err
		}
		s.left = s.buf
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// A frameReader decompresses a blob, up to its signed size and no byte more.
type frameReader struct {
	dec  *zstd.Decoder
	b    *Blob
	left int64
	sum  hash.Hash
	err  error // sticky
}

func newFrameReader(src io.Reader, b *Blob, dict []byte) (*frameReader, error) {
	dec, err := newDecoder(src, dict)
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &frameReader{dec: dec, b: b, left: b.Size, sum: sha256.New()}, nil
}

// Proves names the digest that what was read has when the end is reached.
func (f *frameReader) Proves() artifact.Digest { return f.b.Digest }

func (f *frameReader) Close() error {
	f.dec.Close()
	return nil
}

func (f *frameReader) Read(p []byte) (int, error) {
	if f.err != nil || len(p) == 0 {
		return 0, f.err
	}
	n, err := f.read(p)
	f.err = err
	if err != nil {
		n = 0
	}
	return n, err
}

func (f *frameReader) read(p []byte) (int, error) {
	if f.left == 0 { // an empty blob, or all was given out
		if err := f.end(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n, err := f.dec.Read(p[:min(int64(len(p)), f.left)])
	// A hash does not fail.
	_, _ = f.sum.Write(p[:n])
	f.left -= int64(n)
	switch {
	case f.left == 0:
		return n, f.end()
	case errors.Is(err, io.EOF):
		return 0, refusal(CodeBlob, "blob "+f.b.Digest.Short(), fmt.Sprintf("ends %d bytes before its signed size", f.left), nil)
	case err != nil:
		return 0, f.broken(err)
	}
	return n, nil
}

// end wants the end of the frame and the right digest.
func (f *frameReader) end() error {
	var one [1]byte
	for {
		n, err := f.dec.Read(one[:])
		switch {
		case n > 0:
			return refusal(CodeBlob, "blob "+f.b.Digest.Short(), "refused", errTooLong)
		case errors.Is(err, io.EOF):
			return sameBlob(f.b.Digest, f.sum)
		case err != nil:
			return f.broken(err)
		}
	}
}

// broken tells a bad frame, which somebody signed, from bad stored bytes.
func (f *frameReader) broken(err error) error {
	if _, ok := errors.AsType[*artifact.Refusal](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return refusal(CodeBlob, "blob "+f.b.Digest.Short(), "its zstd frame is broken", err)
}
