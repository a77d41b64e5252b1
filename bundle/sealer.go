package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// smallPart: a segment of at most so much is never cut, and no part but the
// last is smaller; volumes below 1 MiB, in tests, scale it down.
const smallPart = 64 << 10

// A sealer streams blobs into volumes. Four goroutines share the work: the
// feeder reads, plans and compresses; two hashers compute the digests of
// segments and of volumes; the writer writes. Each field belongs to the one
// that its group names.
type sealer struct {
	m     *Manifest
	open  func(artifact.Digest) (io.ReadCloser, error)
	event func(artifact.Event)
	lim   limits
	limit int64 // of a volume

	// feeder
	pool    pipeline
	segQ    queue
	volQ    queue
	writeQ  queue
	comp    *compressor
	head    []byte
	packed  bytes.Buffer  // what a frame has more than its whole segments
	infos   []*VolumeInfo // SHA256 is the hasher's until run returns
	pos     int64         // in the current volume
	extents [][]extent
	stored  []storedBlob
	skip    bool // the segment is hashed elsewhere

	// hasher of segments
	seg hash.Hash

	// hasher of volumes
	vol hash.Hash

	// writer
	dir string
	cur *volumeFile
}

// storedBlob gathers the segments of a blob; digests are the hasher's until
// run returns.
type storedBlob struct {
	lens    []int64
	digests []*artifact.Digest
}

func newSealer(m *Manifest, open func(artifact.Digest) (io.ReadCloser, error), dir string, o SealOptions, lim limits) (*sealer, error) {
	comp, err := newCompressor()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		return nil, err
	}
	event := o.OnEvent
	if event == nil {
		event = func(artifact.Event) {}
	}
	return &sealer{
		m: m, open: open, event: event, lim: lim, limit: o.VolumeSize,
		comp: comp, head: make([]byte, 0, sampleSize), extents: make([][]extent, 0, len(m.Blobs)),
		stored: make([]storedBlob, len(m.Blobs)), seg: sha256.New(), vol: sha256.New(), dir: dir,
	}, nil
}

func (s *sealer) volumes() []VolumeInfo {
	list := make([]VolumeInfo, len(s.infos))
	for i, v := range s.infos {
		list[i] = *v
	}
	return list
}

// run writes all volumes and completes the manifest's blobs.
func (s *sealer) run(ctx context.Context) (err error) {
	defer func() {
		if s.cur != nil {
			err = errors.Join(err, s.cur.f.Close())
		}
	}()
	err = runPipeline(ctx, 3, func(ctx context.Context, p pipeline, qs []queue) error {
		s.pool, s.segQ, s.volQ, s.writeQ = p, qs[0], qs[1], qs[2]
		for i := range s.m.Blobs {
			if err := s.addBlob(ctx, i); err != nil {
				return fmt.Errorf("seal blob %s: %w", s.m.Blobs[i].Digest, err)
			}
		}
		return s.endVolume(ctx)
	})
	if err != nil {
		return err
	}
	for i := range s.m.Blobs {
		b := &s.m.Blobs[i]
		for n, d := range s.stored[i].digests {
			b.Segments = append(b.Segments, Segment{Digest: *d, Len: s.stored[i].lens[n]})
		}
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return err
	}
	failpoint.Here("bundle.volumes-synced")
	return nil
}

// addBlob reads one blob, once.
func (s *sealer) addBlob(ctx context.Context, i int) (err error) {
	b := &s.m.Blobs[i]
	src, err := s.open(b.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	b.Enc, b.StoredSize = EncNone, b.Size
	var r io.Reader = src
	dict, err := s.dictionary(b)
	if err != nil {
		return err
	}
	if dict == nil && b.Size >= minCompress {
		s.head = s.head[:min(b.Size, sampleSize)]
		if err := readFull(src, s.head); err != nil {
			return err
		}
		r = io.MultiReader(bytes.NewReader(s.head), src)
		if s.comp.pays(s.head) {
			b.Enc = EncZstd
		}
	}
	switch {
	case dict != nil:
		enc, eerr := newDictEncoder(dict)
		if eerr != nil {
			return eerr
		}
		b.Enc = EncZstd
		err = s.compress(ctx, i, r, enc)
	case b.Enc == EncZstd:
		err = s.compress(ctx, i, r, s.comp.enc)
	default:
		p, ok := src.(proven)
		err = s.store(ctx, i, r, ok && p.Proves() == b.Digest)
	}
	if err != nil {
		return err
	}
	s.event(artifact.Event{Stage: "seal", Items: 1})
	return atEOF(src)
}

// dictionary reads what b is to be compressed against. A blob that is too
// small or too large for that loses its Dict.
func (s *sealer) dictionary(b *Blob) (dict []byte, err error) {
	if b.Dict == "" {
		return nil, nil
	}
	if b.Size < MinDict || b.Size > MaxDict {
		b.Dict = ""
		return nil, nil
	}
	d, err := artifact.ParseDigest(b.Dict)
	if err != nil {
		return nil, err
	}
	src, err := s.open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dict, err = io.ReadAll(io.LimitReader(src, MaxDict+1))
	if err == nil && len(dict) > MaxDict {
		b.Dict = ""
		return nil, nil
	}
	return dict, err
}

// A proven source hashes what it hands out, and ends with an error where the
// whole is not what Proves names.
type proven interface{ Proves() artifact.Digest }

// store writes a blob as it is. One whose source is proven, and which is its
// own only segment, is hashed there alone.
func (s *sealer) store(ctx context.Context, i int, r io.Reader, hashed bool) error {
	b := &s.m.Blobs[i]
	many := b.Size > s.lim.segment
	fill := func(p []byte) error {
		s.event(artifact.Event{Stage: "seal", Bytes: int64(len(p))})
		return readFull(r, p)
	}
	seg := 0
	for left := b.Size; ; {
		n := min(left, s.lim.segment)
		sum := new(artifact.Digest)
		if many {
			seg++
			s.stored[i].lens = append(s.stored[i].lens, n)
			s.stored[i].digests = append(s.stored[i].digests, sum)
		}
		s.skip = hashed && !many
		err := s.addSegment(ctx, b.Digest, seg, n, sum, fill)
		s.skip = false
		if err != nil {
			return err
		}
		if left -= n; left > 0 {
			continue
		}
		if many || hashed {
			// The source has the whole under its eyes; a third hash of
			// every byte would cost a third of the speed.
			return nil
		}
		return s.segQ.send(ctx, func() error { return sameSource(b.Digest, *sum) })
	}
}

// sameSource compares what was read with what was asked for.
func sameSource(want, got artifact.Digest) error {
	if want == got {
		return nil
	}
	r := refusal(CodeBlob, "blob "+want.Short(), "the source gave other bytes", nil)
	r.Want, r.Got = want.String(), got.String()
	return r
}

// compress writes a blob as one zstd frame. A segment is gathered in memory,
// since its length stands in the tar header before it.
func (s *sealer) compress(ctx context.Context, i int, r io.Reader, enc *zstd.Encoder) error {
	b := &s.m.Blobs[i]
	buf := &s.packed
	buf.Reset()
	// Else it would double its way up to twice what is needed.
	buf.Grow(int(min(b.Size, s.lim.zstd) + min(b.Size, chunkSize) + 64<<10))
	flush := func(n int64) error {
		sum := new(artifact.Digest)
		s.stored[i].lens = append(s.stored[i].lens, n)
		s.stored[i].digests = append(s.stored[i].digests, sum)
		b.StoredSize += n
		return s.addSegment(ctx, b.Digest, len(s.stored[i].lens), n, sum, func(p []byte) error { return readFull(buf, p) })
	}
	b.StoredSize = 0
	whole := sha256.New()
	piece := make([]byte, min(b.Size, chunkSize))
	enc.Reset(buf)
	for left := b.Size; left > 0; {
		p := piece[:min(left, chunkSize)]
		if err := readFull(r, p); err != nil {
			return err
		}
		s.event(artifact.Event{Stage: "seal", Bytes: int64(len(p))})
		// A hash does not fail.
		_, _ = whole.Write(p)
		if _, err := enc.Write(p); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		left -= int64(len(p))
		for int64(buf.Len()) >= s.lim.zstd {
			if err := flush(s.lim.zstd); err != nil {
				return err
			}
		}
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	for buf.Len() > 0 {
		if err := flush(min(int64(buf.Len()), s.lim.zstd)); err != nil {
			return err
		}
	}
	return sameSource(b.Digest, artifact.Digest(whole.Sum(nil)))
}

// addSegment writes one segment, cut where a volume is full. seg counts from
// 1, or is 0 for the only one. fill gives the next bytes.
func (s *sealer) addSegment(ctx context.Context, d artifact.Digest, seg int, size int64, sum *artifact.Digest, fill func([]byte) error) error {
	list := []extent{}
	for left := size; left > 0; {
		n, err := s.room(ctx, left)
		if err != nil {
			return err
		}
		part := 0
		if n < left || len(list) > 0 {
			part = len(list) + 1
		}
		h := tarHeader(entryName(d, seg, part), n)
		if err := s.write(ctx, h[:]); err != nil {
			return err
		}
		list = append(list, extent{Vol: int64(len(s.infos)), Off: s.pos, Len: n})
		if err := s.addBytes(ctx, n, fill); err != nil {
			return err
		}
		if err := s.write(ctx, make([]byte, tarPad(n))); err != nil {
			return err
		}
		left -= n
	}
	s.extents = append(s.extents, list)
	if s.skip {
		return nil
	}
	return s.segQ.send(ctx, func() error {
		s.seg.Sum(sum[:0])
		s.seg.Reset()
		return nil
	})
}

func (s *sealer) addBytes(ctx context.Context, n int64, fill func([]byte) error) error {
	for left := n; left > 0; {
		users := int32(3)
		if s.skip {
			users--
		}
		c, err := s.pool.get(ctx, users, left)
		if err != nil {
			return err
		}
		p := c.buf
		if err := fill(p); err != nil {
			return err
		}
		if !s.skip {
			err = s.segQ.send(ctx, func() error {
				defer c.release()
				_, _ = s.seg.Write(p) // a hash does not fail
				return nil
			})
			if err != nil {
				return err
			}
		}
		if err := s.toVolume(ctx, p, c.release); err != nil {
			return err
		}
		left -= int64(len(p))
		s.pos += int64(len(p))
	}
	return nil
}

// write adds few bytes of our own, which do not change any more.
func (s *sealer) write(ctx context.Context, p []byte) error {
	s.pos += int64(len(p))
	return s.toVolume(ctx, p, func() {})
}

// toVolume writes and hashes p, and calls done after each.
func (s *sealer) toVolume(ctx context.Context, p []byte, done func()) error {
	err := s.volQ.send(ctx, func() error {
		defer done()
		_, _ = s.vol.Write(p) // a hash does not fail
		return nil
	})
	if err != nil {
		return err
	}
	return s.writeQ.send(ctx, func() error {
		defer done()
		return s.cur.write(p)
	})
}

// room says how many of left bytes go behind a header into the current
// volume, and begins the next volume where too few would.
func (s *sealer) room(ctx context.Context, left int64) (int64, error) {
	least := min(smallPart, s.limit/16)
	if s.pos > 0 {
		if n := s.space(); n >= left || left > least && n >= least {
			return min(n, left), nil
		}
		if err := s.endVolume(ctx); err != nil {
			return 0, err
		}
	}
	if len(s.infos) == maxVolumes {
		return 0, fmt.Errorf("more than %d volumes of %d bytes", maxVolumes, s.limit)
	}
	info := &VolumeInfo{Name: volumeName(len(s.infos) + 1)}
	s.infos = append(s.infos, info)
	err := s.writeQ.send(ctx, func() (err error) {
		s.cur, err = createVolume(s.dir, info.Name)
		failpoint.Here("bundle.volume-created")
		return err
	})
	return min(s.space(), left), err
}

// space is what a single further entry may hold.
func (s *sealer) space() int64 { return (s.limit - s.pos - tarEnd - tarBlock) &^ (tarBlock - 1) }

// endVolume closes the current volume, if there is one.
func (s *sealer) endVolume(ctx context.Context) error {
	if s.pos == 0 {
		return nil
	}
	if err := s.write(ctx, make([]byte, tarEnd)); err != nil {
		return err
	}
	info := s.infos[len(s.infos)-1]
	info.Size = s.pos
	s.pos = 0
	err := s.volQ.send(ctx, func() error {
		s.vol.Sum(info.SHA256[:0])
		s.vol.Reset()
		return nil
	})
	if err != nil {
		return err
	}
	return s.writeQ.send(ctx, func() error {
		v := s.cur
		s.cur = nil
		return v.finish()
	})
}

// readFull fills p or says that the source is too short.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refusal(CodeBlob, "source", "ends before the size that was given", nil)
	}
	return err
}

// atEOF wants the end of the source: a verifying reader says there that the
// bytes were wrong.
func atEOF(r io.Reader) error {
	var one [1]byte
	for {
		n, err := r.Read(one[:])
		switch {
		case n > 0:
			return refusal(CodeBlob, "source", "goes on after the size that was given", nil)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
