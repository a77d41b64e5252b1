package diode

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"
)

// passes is the order of everything. A line on which somebody else has just
// sent is warm.
func (s *Sender) passes(ctx context.Context, all []*sending, spool *os.File, cold bool) error {
	if cold {
		if err := s.filler(ctx, warmUp); err != nil {
			return err
		}
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
	return s.filler(ctx, warmUp)
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
	first, rows := passRows(pass, s.c.Parity, s.code.MaxParity())
	var err error
	if o.Ticket != nil {
		err = s.ticket(ctx, o, spool)
	} else {
		for n := range o.desc.generations() {
			if err = s.generation(ctx, o, n, pass <= s.c.Passes || pass > s.c.Passes+s.c.RepairPasses, first, rows, spool); err != nil {
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

// passRows are the parity rows of a pass: the next ones after the pass before,
// fewer at the end, and from the first again when all that exist were sent.
func passRows(pass, parity, most int) (first, n int) {
	if parity = min(parity, most); parity <= 0 {
		return 0, 0
	}
	pieces := (most + parity - 1) / parity
	first = (pass - 1) % pieces * parity
	return first, min(parity, most-first)
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
		if err := s.mayGo(ctx); err != nil {
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

// mayGo comes before every batch: nothing stands in the buffer.
func (s *Sender) mayGo(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.c.Line.Yield(ctx)
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
		if err := s.mayGo(ctx); err != nil {
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
