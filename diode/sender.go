package diode

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/diode/fec"
)

// Datagrams sends packets of one size, one after the other; link.Sender is
// one. It blocks to keep its pace.
type Datagrams interface {
	Send(packets []byte) error
}

// SymbolSize and ControlSize are the lengths of the two kinds of datagrams.
func SymbolSize(payload int) int { return payload + Overhead }

// ControlSize is the length of a descriptor or heartbeat on the wire.
const ControlSize = controlSize + Overhead

// SenderConfig says how to send.
type SenderConfig struct {
	Key *Key
	// K and Parity are the rows of a pass, Payload the bytes of a symbol,
	// Columns the most that a generation has: fec.Plan has all four.
	K, Parity, Payload, Columns int
	// Passes is how often everything is sent, at least once; RepairPasses how
	// many passes of parity rows follow.
	Passes, RepairPasses int
	// Outage is what the link is planned to survive. Objects that are shorter
	// on the wire are sent once more, at least this much later.
	Outage time.Duration
	Rate   float64 // bits a second on the wire, for heartbeats and Outage; 0: unknown
	// Spool is a folder for the parity of one generation; "" is the system's.
	Spool string
	// Symbols and Control send the two kinds of datagrams.
	Symbols, Control Datagrams
	// OnProgress is called with bytes of objects and parity sent so far.
	OnProgress func(sent int64)
}

// An Object is a file to send.
type Object struct {
	// Name is what the file is called inside; see [CheckName].
	Name string
	Path string
	// Digest is the file's SHA-256 where it is known; otherwise the file is
	// read once more.
	Digest *[sha256.Size]byte
	// Ticket narrows the sending to what the inside asked for.
	Ticket *Ticket
}

// A Sender sends objects. Use it from one goroutine.
type Sender struct {
	c       SenderConfig
	code    *fec.Code
	session *transfer // heartbeats and filler

	controlMu sync.Mutex
	mu        sync.Mutex
	known     []*sending // descriptors that go out now
	sent      atomic.Int64
	bytes     atomic.Int64
	buf       []byte
	took      time.Duration
}

// Took is how long the symbols of the last Send were on their way, without
// hashing, warm-up and what follows the end.
func (s *Sender) Took() time.Duration { return s.took }

// A transfer hands out sequence numbers.
type transfer struct {
	id  uint64
	seq atomic.Uint64
}

func newTransfer() *transfer {
	var p [8]byte
	_, _ = rand.Read(p[:]) // never fails
	return &transfer{id: binary.BigEndian.Uint64(p[:])}
}

// A sending is one object on its way.
type sending struct {
	Object
	file     *os.File
	info     os.FileInfo
	transfer *transfer
	desc     descriptor // guarded by Sender.mu
	until    time.Time  // when its descriptors end; zero: not yet
}

// batch is how many symbols go to the socket at once.
const batch = 44

// NewSender checks the settings; errors are [ErrConfig].
func NewSender(c SenderConfig) (*Sender, error) {
	d := descriptor{geometry: geometry{k: c.K, payload: c.Payload, columns: c.Columns}, parity: c.Parity, pass: 1, name: "x"}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if c.Key == nil || c.Symbols == nil || c.Control == nil {
		return nil, fmt.Errorf("%w: a sender needs a key and two sockets", ErrConfig)
	}
	if c.Passes < 1 || c.RepairPasses < 0 || c.Passes+c.RepairPasses > 1000 {
		return nil, fmt.Errorf("%w: passes %d and %d: want 1 to 1000 in all", ErrConfig, c.Passes, c.RepairPasses)
	}
	if c.OnProgress == nil {
		c.OnProgress = func(int64) {}
	}
	code, err := fec.New(c.K)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return &Sender{c: c, code: code, session: newTransfer(), buf: make([]byte, batch*SymbolSize(c.Payload))}, nil
}

// Send sends objects, all passes of them. It ends with nil when the last
// packet has left; whether anything arrived nobody can know.
func (s *Sender) Send(ctx context.Context, objects []Object) (err error) {
	var all []*sending
	defer func() {
		for _, o := range all {
			err = errors.Join(err, o.file.Close())
		}
	}()
	for _, o := range objects {
		one, err := s.prepare(ctx, o)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	spool, err := os.CreateTemp(s.c.Spool, ".darkdiode-parity-*")
	if err != nil {
		return fmt.Errorf("%w: spool: %w", ErrConfig, err)
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	// Nobody else needs its name, and a kill leaves nothing.
	if err := os.Remove(spool.Name()); err != nil {
		return err
	}
	done := make(chan struct{})
	stop := make(chan struct{})
	var controlErr error
	go func() {
		defer close(done)
		controlErr = s.control(stop, len(all))
	}()
	err = s.passes(ctx, all, spool)
	close(stop)
	<-done
	return errors.Join(err, controlErr)
}

// prepare opens an object and cuts it.
func (s *Sender) prepare(ctx context.Context, o Object) (_ *sending, err error) {
	if err := CheckName(o.Name); err != nil {
		return nil, err
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s: only regular files are sent", ErrConfig, o.Path)
	}
	one := &sending{Object: o, file: f, info: info, transfer: newTransfer()}
	one.desc = descriptor{
		geometry: geometry{k: s.c.K, payload: s.c.Payload, size: info.Size()}, parity: s.c.Parity,
		pass: 1, passes: s.c.Passes + s.c.RepairPasses, name: o.Name,
	}
	one.desc.columns = columns(info.Size(), s.c.K, s.c.Payload, s.c.Columns)
	if o.Digest != nil {
		one.desc.digest = *o.Digest
	} else if one.desc.digest, err = digest(ctx, f); err != nil {
		return nil, err
	}
	if err := one.desc.check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConfig, o.Path, err)
	}
	if o.Ticket != nil {
		if err := one.checkTicket(); err != nil {
			return nil, err
		}
	}
	return one, nil
}

// columns spreads an object evenly over the fewest generations of at most
// most columns, so that the last one is as strong as the others.
func columns(size int64, k, payload, most int) int {
	symbols := (size + int64(payload) - 1) / int64(payload)
	perColumn := int64(k)
	wide := max(1, (symbols+perColumn-1)/perColumn)
	n := (wide + int64(most) - 1) / int64(most)
	return int((wide + n - 1) / n)
}

func digest(ctx context.Context, f *os.File) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		n, err := f.ReadAt(buf, at)
		h.Write(buf[:n])
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return [sha256.Size]byte(h.Sum(nil)), nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// passes is the order of everything.
func (s *Sender) passes(ctx context.Context, all []*sending, spool *os.File) error {
	if err := s.filler(ctx, warmUp); err != nil {
		return err
	}
	start := time.Now()
	for pass := 1; pass <= s.c.Passes+s.c.RepairPasses; pass++ {
		for _, o := range all {
			if err := s.pass(ctx, o, pass, spool); err != nil {
				return err
			}
		}
	}
	s.took = time.Since(start)
	if err := s.short(ctx, all, spool); err != nil {
		return err
	}
	if err := s.filler(ctx, warmUp); err != nil {
		return err
	}
	return sleep(ctx, afterEnd)
}

// short sends again what an outage may have swallowed whole.
func (s *Sender) short(ctx context.Context, all []*sending, spool *os.File) error {
	if s.c.Outage == 0 || s.c.Rate == 0 {
		return nil
	}
	var again []*sending
	for _, o := range all {
		protected := float64(s.c.Parity) * float64(o.desc.columns) * wireBits(s.c.Payload) / s.c.Rate
		if protected < s.c.Outage.Seconds() && o.Ticket == nil {
			again = append(again, o)
		}
	}
	if len(again) == 0 {
		return nil
	}
	if err := s.filler(ctx, s.c.Outage); err != nil {
		return err
	}
	for _, o := range again {
		s.mu.Lock()
		o.desc.passes++
		s.mu.Unlock()
		if err := s.pass(ctx, o, o.desc.passes, spool); err != nil {
			return err
		}
	}
	return nil
}

// wireBits is what a symbol takes on an Ethernet line: preamble, header, check
// and gap, IPv4 and UDP.
func wireBits(payload int) float64 { return 8 * float64(payload+Overhead+28+38) }

// pass sends one pass of an object.
func (s *Sender) pass(ctx context.Context, o *sending, pass int, spool *os.File) error {
	s.mu.Lock()
	o.desc.pass, o.desc.ended, o.until = pass, false, time.Time{}
	if !contains(s.known, o) {
		s.known = append(s.known, o)
	}
	s.mu.Unlock()
	// Three at once: one may be lost before the receiver knows anything.
	for range 3 {
		if err := s.describe(o); err != nil {
			return err
		}
	}
	maxParity := s.code.MaxParity()
	first := 0
	if maxParity > 0 {
		first = (pass - 1) * s.c.Parity % maxParity
	}
	// Rows in one piece; near the end of what exists, from the beginning.
	if first+s.c.Parity > maxParity {
		first = 0
	}
	var err error
	if o.Ticket != nil {
		err = s.ticket(ctx, o, spool)
	} else {
		for n := range o.desc.generations() {
			if err = s.generation(ctx, o, n, pass <= s.c.Passes || pass > s.c.Passes+s.c.RepairPasses, first, s.c.Parity, spool); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	info, err := o.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != o.info.Size() || !info.ModTime().Equal(o.info.ModTime()) {
		return fmt.Errorf("%s changed while it was sent; the receiver will refuse it: send it again", o.Path)
	}
	s.mu.Lock()
	o.desc.ended, o.until = true, time.Now().Add(afterEnd)
	s.mu.Unlock()
	return nil
}

func contains(list []*sending, o *sending) bool {
	for _, have := range list {
		if have == o {
			return true
		}
	}
	return false
}

// generation sends one generation: its data rows if wanted, and parity rows
// first to first+parity-1, which are computed meanwhile.
func (s *Sender) generation(ctx context.Context, o *sending, n int, data bool, first, parity int, spool *os.File) error {
	encoded := make(chan error, 1)
	ectx, cancel := context.WithCancel(ctx)
	go func() { encoded <- s.encode(ectx, o, n, first, parity, spool) }()
	var err error
	if data {
		at := int64(n) * o.desc.generation()
		err = s.run(ctx, o, n, o.file, at, at+o.desc.bytes(n), 0, o.desc.symbols(n))
	}
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-encoded)
	cancel()
	if err != nil || parity == 0 {
		return err
	}
	d := o.desc.columns
	return s.run(ctx, o, n, spool, 0, int64(parity)*o.desc.row(), (o.desc.k+first)*d, parity*d)
}

// run sends symbols bit to bit+count-1 of a generation, which lie one after the
// other in a file from at on, up to end; beyond are zeros.
func (s *Sender) run(ctx context.Context, o *sending, n int, f *os.File, at, end int64, bit, count int) error {
	size := SymbolSize(o.desc.payload)
	for count > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(batch, count)
		p := s.buf[:k*size]
		if err := readSymbols(f, p, size, o.desc.payload, at, end); err != nil {
			return fmt.Errorf("read %s: %w", o.Path, err)
		}
		seq, err := s.reserve(o, k)
		if err != nil {
			return err
		}
		for i := range k {
			one := p[i*size : (i+1)*size]
			s.c.Key.put(one, header{
				kind: typeSymbol, transfer: o.transfer.id, sequence: seq + uint32(i), generation: uint32(n),
				column: uint32((bit + i) % o.desc.columns), row: uint16((bit + i) / o.desc.columns),
			})
			s.c.Key.sign(one)
		}
		if err := s.c.Symbols.Send(p); err != nil {
			return err
		}
		s.sent.Add(int64(k))
		s.c.OnProgress(s.bytes.Add(int64(k * o.desc.payload)))
		at += int64(k * o.desc.payload)
		bit += k
		count -= k
	}
	return nil
}

// reserve takes n sequence numbers of the transfer, and a new transfer where
// they would run out.
func (s *Sender) reserve(o *sending, n int) (uint32, error) {
	end := o.transfer.seq.Add(uint64(n))
	if end <= math.MaxUint32 {
		return uint32(end - uint64(n)), nil
	}
	s.mu.Lock()
	o.transfer = newTransfer()
	s.mu.Unlock()
	for range 3 {
		if err := s.describe(o); err != nil {
			return 0, err
		}
	}
	return s.reserve(o, n)
}

// encode computes parity rows of a generation into the spool, row after row.
func (s *Sender) encode(ctx context.Context, o *sending, n, first, parity int, spool *os.File) error {
	if parity == 0 {
		return nil
	}
	g := o.desc.geometry
	wide := tileColumns(g.k, g.payload, g.columns)
	buf := make([]byte, (g.k+parity)*wide*g.payload)
	symbols := g.symbols(n)
	for from := 0; from < g.columns; from += wide {
		if err := ctx.Err(); err != nil {
			return err
		}
		size := min(wide, g.columns-from) * g.payload
		rows := make([][]byte, g.k)
		for r := range rows {
			if r*g.columns+from >= symbols {
				break
			}
			rows[r] = buf[r*size : (r+1)*size]
			if err := readRow(o.file, g, n, r, from, rows[r]); err != nil {
				return fmt.Errorf("read %s: %w", o.Path, err)
			}
		}
		out := make([][]byte, parity)
		for i := range out {
			out[i] = buf[(g.k+i)*size : (g.k+i+1)*size]
		}
		if err := s.code.Encode(rows, first, out); err != nil {
			return err
		}
		for i, p := range out {
			if _, err := spool.WriteAt(p, int64(i)*g.row()+int64(from)*int64(g.payload)); err != nil {
				return fmt.Errorf("spool parity: %w", err)
			}
		}
	}
	return nil
}

// filler keeps the line busy.
func (s *Sender) filler(ctx context.Context, d time.Duration) error {
	size := SymbolSize(s.c.Payload)
	p := s.buf[:16*size]
	clear(p)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range 16 {
			one := p[i*size : (i+1)*size]
			s.c.Key.put(one, header{kind: typeFiller, transfer: s.session.id, sequence: uint32(s.session.seq.Add(1))})
			s.c.Key.sign(one)
		}
		if err := s.c.Symbols.Send(p); err != nil {
			return err
		}
		s.sent.Add(16)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
