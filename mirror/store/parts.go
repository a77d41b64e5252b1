package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// partsExt names the file beside a download that comes in parts.
	partsExt = ".parts"
	// partsMagic begins it; the last byte is the version.
	partsMagic = "dmparts\x01"
	// partsHeader is its length with total and part size, partRecord that of
	// one part: bytes received, and their CRC-32C.
	partsHeader = len(partsMagic) + 16
	partRecord  = 16
	// maxParts bounds the parts of one file: 100 TB in the largest parts
	// that anybody asks for are 1.5 million.
	maxParts = 2_000_000
	// catchUp is how many buffers one write hashes that others have left: so
	// many that the hash does not fall behind, and so few that the connection
	// of whoever hashes does not stand still for long.
	catchUp = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Parts is a blob on its way in that arrives in several places at once. Its
// bytes survive [Parts.Close] and a kill. Beside the file lies a record of
// what was received of each part, with a checksum, written after the bytes:
// whatever a kill or a power failure leaves, only parts that match are kept,
// and at most one write of each part is lost.
//
// The digest is computed while the parts arrive, in the order of the file.
// Bytes that come where the hash stands go into it at once; others are read
// back when it gets there, out of the page cache as a rule.
//
// A Parts may be used concurrently, each part by one goroutine at a time, but
// for Reset, Commit and Close, which are called alone. A file of one part has
// no record: its length says all.
type Parts struct {
	s        *Store
	want     artifact.Digest
	size     int64
	partSize int64
	f        *os.File // nil after Close or a successful Commit
	rec      *os.File // nil for a file of one part

	// writing is held while the file is written: the kernel lets one writer of
	// a file in at a time, and the others would spin.
	writing sync.Mutex

	mu   sync.Mutex
	part []part
	next int // no part before it is free

	hashing sync.Mutex
	h       hash.Hash
	hashed  int64 // bytes in h; guarded by hashing
}

// A part is what is known of one. n and crc belong to whoever has taken it,
// but are changed under Parts.mu, since others look at n.
type part struct {
	n     int64
	crc   uint32
	taken bool
}

// Parts opens the download of want, of which size bytes are expected, in
// parts of partSize bytes; where an earlier run has begun it, with its parts
// and what it left of them. Only one opener at a time has it; another gets an
// error matching [ErrBusy].
func (s *Store) Parts(want artifact.Digest, size, partSize int64) (_ *Parts, err error) {
	if size < 0 || partSize <= 0 || size/partSize >= maxParts {
		return nil, fmt.Errorf("parts of %s: %d bytes in parts of %d", want, size, partSize)
	}
	p := &Parts{s: s, want: want, size: size, partSize: partSize, h: sha256.New()}
	if p.f, err = lockFile(p.name()); err != nil {
		return nil, fmt.Errorf("parts of %s: %w", want, s.spaced(err, size))
	}
	failpoint.Here("store.parts-opened")
	if err := p.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("parts of %s: %w", want, s.spaced(err, size)), p.close())
	}
	return p, nil
}

func (p *Parts) name() string { return p.s.partialName(p.want) }

// open reads what an earlier run left, or starts anew.
func (p *Parts) open() error {
	ok, err := p.recover()
	if err != nil {
		return err
	}
	if !ok {
		return p.Reset()
	}
	// With a validator a sequential download would trust the bytes.
	return removeIfThere(p.name() + validatorExt)
}

// recover reports whether what lies there can be gone on with.
func (p *Parts) recover() (bool, error) {
	fi, err := p.f.Stat()
	if err != nil {
		return false, err
	}
	b, err := readParts(p.name() + partsExt)
	if err != nil {
		return false, err
	}
	if fi.Size() > p.size {
		return false, nil
	}
	if b == nil {
		if p.size > p.partSize {
			return false, nil
		}
		p.part = []part{{n: fi.Size()}} // one part, without a record
		return true, nil
	}
	if !p.decode(b) {
		return false, nil
	}
	if p.rec, err = os.OpenFile(p.name()+partsExt, os.O_RDWR|unix.O_NOFOLLOW, 0); err != nil {
		return false, err
	}
	for i := range p.part {
		if err := p.check(i); err != nil {
			return false, err
		}
	}
	return true, nil
}

// readParts reads a record whole; nil where there is none.
func readParts(name string) (b []byte, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err = io.ReadAll(io.LimitReader(f, int64(partsHeader)+maxParts*partRecord+1))
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// decode reads a record of this file; the part size is the record's.
func (p *Parts) decode(b []byte) bool {
	if len(b) < partsHeader || string(b[:len(partsMagic)]) != partsMagic {
		return false
	}
	size, partSize := binary.BigEndian.Uint64(b[len(partsMagic):]), binary.BigEndian.Uint64(b[len(partsMagic)+8:])
	if size != uint64(p.size) || partSize == 0 || partSize >= size || size/partSize >= maxParts { // #nosec G115 -- size is not negative
		return false
	}
	p.partSize = int64(partSize) // #nosec G115 -- below size
	p.part = make([]part, p.count())
	b = b[partsHeader:]
	if len(b) != len(p.part)*partRecord {
		return false
	}
	for i := range p.part {
		r := b[i*partRecord:]
		start, end := p.bounds(i)
		n := binary.BigEndian.Uint64(r)
		if n > uint64(end-start) { // #nosec G115 -- end is behind start
			return false
		}
		p.part[i] = part{n: int64(n), crc: binary.BigEndian.Uint32(r[8:])} // #nosec G115 -- within the part
	}
	return true
}

// count is the number of parts; an empty file has one.
func (p *Parts) count() int { return int(max(1, (p.size+p.partSize-1)/p.partSize)) }

// bounds are a part's first byte, and the first behind it.
func (p *Parts) bounds(i int) (start, end int64) {
	start = int64(i) * p.partSize
	return start, min(p.size, start+p.partSize)
}

// check reads what is recorded of a part; if it is not there, the part starts
// anew.
func (p *Parts) check(i int) error {
	buf, release := p.s.buffer()
	defer release()
	start, _ := p.bounds(i)
	var sum uint32
	for at, left := start, p.part[i].n; left > 0; {
		n, err := p.f.ReadAt(buf[:min(left, int64(len(buf)))], at)
		sum = crc32.Update(sum, castagnoli, buf[:n])
		at, left = at+int64(n), left-int64(n)
		if errors.Is(err, io.EOF) && left > 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read: %w", err)
		}
	}
	if sum == p.part[i].crc {
		return nil
	}
	p.part[i] = part{}
	return p.record(i)
}

// record writes what is known of a part.
func (p *Parts) record(i int) error {
	if p.rec == nil {
		return nil
	}
	var b [partRecord]byte
	binary.BigEndian.PutUint64(b[:], uint64(p.part[i].n)) // #nosec G115 -- not negative
	binary.BigEndian.PutUint32(b[8:], p.part[i].crc)
	_, err := p.rec.WriteAt(b[:], int64(partsHeader)+int64(i)*partRecord)
	return err
}

// Reset drops what is there.
func (p *Parts) Reset() error {
	if p.f == nil {
		return os.ErrClosed
	}
	// The record goes first: without it the bytes of several parts are
	// worth nothing, with that of other bytes they would be looked at.
	err := p.dropRecord()
	failpoint.Here("store.parts-reset")
	err = errors.Join(err, removeIfThere(p.name()+validatorExt), p.f.Truncate(0))
	if err != nil {
		return err
	}
	p.h.Reset()
	p.hashed, p.next = 0, 0
	p.part = make([]part, p.count())
	if len(p.part) == 1 {
		return nil
	}
	return p.newRecord()
}

func (p *Parts) dropRecord() error {
	err := removeIfThere(p.name() + partsExt)
	if p.rec != nil {
		err = errors.Join(err, p.rec.Close())
		p.rec = nil
	}
	return err
}

func (p *Parts) newRecord() (err error) {
	b := make([]byte, partsHeader+len(p.part)*partRecord)
	copy(b, partsMagic)
	binary.BigEndian.PutUint64(b[len(partsMagic):], uint64(p.size))       // #nosec G115 -- not negative
	binary.BigEndian.PutUint64(b[len(partsMagic)+8:], uint64(p.partSize)) // #nosec G115 -- positive
	if p.rec, err = os.OpenFile(p.name()+partsExt, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	// A kill within leaves a record of another length, which counts as none.
	if _, err := p.rec.WriteAt(b, 0); err != nil {
		return err
	}
	failpoint.Here("store.parts-made")
	return nil
}

// Total is the number of bytes that are expected.
func (p *Parts) Total() int64 { return p.size }

// Size is the number of bytes that are there.
func (p *Parts) Size() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.part {
		n += p.part[i].n
	}
	return n
}

// Missing is the number of parts that are not whole.
func (p *Parts) Missing() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.part {
		if !p.whole(i) {
			n++
		}
	}
	return n
}

func (p *Parts) whole(i int) bool {
	start, end := p.bounds(i)
	return p.part[i].n == end-start
}

// Take gives the first part that is not whole and that nobody has; false
// where there is none.
func (p *Parts) Take() (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; p.next < len(p.part); p.next++ {
		if t := &p.part[p.next]; !t.taken && !p.whole(p.next) {
			t.taken = true
			return p.next, true
		}
	}
	return 0, false
}

// Return gives a part back that was taken, for others to go on with.
func (p *Parts) Return(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part[i].taken = false
	p.next = min(p.next, i)
}

// Span is what a part lacks: its next byte's place in the file, and the place
// behind its last one.
func (p *Parts) Span(i int) (next, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	start, end := p.bounds(i)
	return start + p.part[i].n, end
}

// WritePart appends b to a part. Bytes beyond its end are refused
// (STORE-SIZE), and none of b is written.
func (p *Parts) WritePart(i int, b []byte) error {
	if p.f == nil {
		return os.ErrClosed
	}
	at, end := p.Span(i)
	if int64(len(b)) > end-at {
		return wrongSize(p.want, p.size, "more")
	}
	p.writing.Lock()
	_, err := p.f.WriteAt(b, at)
	p.writing.Unlock()
	if err != nil {
		return fmt.Errorf("parts of %s: %w", p.want, p.s.spaced(err, p.size))
	}
	failpoint.Here("store.part-written")
	p.mu.Lock()
	p.part[i].n += int64(len(b))
	if p.rec != nil {
		p.part[i].crc = crc32.Update(p.part[i].crc, castagnoli, b)
	}
	p.mu.Unlock()
	if err := p.record(i); err != nil {
		return fmt.Errorf("parts of %s: %w", p.want, p.s.spaced(err, partRecord))
	}
	failpoint.Here("store.part-recorded")
	return p.hash(at, b)
}

// hash takes b, which was written at that place, into the digest if it is its
// turn, and some of what others have left there. Where somebody else hashes,
// it leaves b to him.
func (p *Parts) hash(at int64, b []byte) error {
	if !p.hashing.TryLock() {
		return nil
	}
	defer p.hashing.Unlock()
	if at == p.hashed {
		_, _ = p.h.Write(b) // hash.Hash never fails
		p.hashed += int64(len(b))
	}
	return p.readBack(catchUp)
}

// readBack hashes at most that many buffers of what is there behind the hash;
// below zero all of it.
func (p *Parts) readBack(buffers int) error {
	buf, release := p.s.buffer()
	defer release()
	for ; buffers != 0; buffers-- {
		end := p.contiguous()
		if p.hashed == end {
			return nil
		}
		n, err := p.f.ReadAt(buf[:min(int64(len(buf)), end-p.hashed)], p.hashed)
		_, _ = p.h.Write(buf[:n]) // hash.Hash never fails
		p.hashed += int64(n)
		if err != nil {
			return fmt.Errorf("parts of %s: read back: %w", p.want, err)
		}
	}
	return nil
}

// contiguous is how far the file has no gap, from where the hash stands.
func (p *Parts) contiguous() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := int(p.hashed / p.partSize)
	for i < len(p.part) && p.whole(i) {
		i++
	}
	if i == len(p.part) {
		return p.size
	}
	start, _ := p.bounds(i)
	return start + p.part[i].n
}

// Commit makes the finished download a blob. If length or digest is wrong the
// bytes are dropped and the refusal is STORE-DIGEST; the Parts may then be
// written anew. After a success only Close is left to call.
func (p *Parts) Commit() error {
	if p.f == nil {
		return os.ErrClosed
	}
	if err := p.readBack(-1); err != nil {
		return err
	}
	if err := p.proven(); err != nil {
		return errors.Join(err, p.Reset())
	}
	failpoint.Here("store.parts-complete")
	if err := seal(p.f); err != nil {
		return fmt.Errorf("parts of %s: %w", p.want, p.s.spaced(err, 0))
	}
	if _, err := p.s.publish(p.name(), p.want); err != nil {
		return fmt.Errorf("parts of %s: %w", p.want, p.s.spaced(err, 0))
	}
	failpoint.Here("store.parts-published")
	err := errors.Join(p.dropRecord(), p.f.Close())
	p.f = nil
	return err
}

func (p *Parts) proven() error {
	if n := p.Size(); n != p.size || p.hashed != p.size {
		err := wrongSize(p.want, p.size, strconv.FormatInt(n, 10))
		err.Code = "STORE-DIGEST"
		return err
	}
	if got := artifact.Digest(p.h.Sum(nil)); got != p.want {
		return wrongDigest(p.want, got)
	}
	return nil
}

// Close keeps the bytes for the next time. It may be called again.
func (p *Parts) Close() error {
	if p.f == nil {
		return nil
	}
	if !slices.ContainsFunc(p.part, func(t part) bool { return t.n > 0 }) {
		return errors.Join(p.dropRecord(), os.Remove(p.name()), p.close())
	}
	return p.close()
}

// close lets go of the files, and of the lock.
func (p *Parts) close() error {
	var err error
	if p.rec != nil {
		err = p.rec.Close()
		p.rec = nil
	}
	err = errors.Join(err, p.f.Close())
	p.f = nil
	return err
}
