package diode

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// control sends descriptors and heartbeats until stop. The first heartbeat is
// sent before.
func (s *Sender) control(stop <-chan struct{}, objects int) error {
	t := time.NewTicker(descriptorEvery)
	defer t.Stop()
	for tick := 1; ; tick++ {
		if tick%int(heartbeatEvery/descriptorEvery) == 0 {
			if err := s.heartbeat(stateSending, objects); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return s.heartbeat(stateLeaving, 0)
		case <-t.C:
		}
		for _, o := range s.current() {
			if err := s.describe(o); err != nil {
				return err
			}
		}
	}
}

// current lists the sendings whose descriptors go out, and forgets those
// that ended long enough ago.
func (s *Sender) current() []*sending {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.known = slices.DeleteFunc(s.known, func(o *sending) bool { return !o.until.IsZero() && now.After(o.until) })
	return slices.Clone(s.known)
}

// describe sends the descriptor of an object.
func (s *Sender) describe(o *sending) error {
	s.mu.Lock()
	d, tr := o.desc, o.transfer
	s.mu.Unlock()
	d.clock = time.Now()
	seq := tr.seq.Add(1) - 1
	if seq > math.MaxUint32 {
		return nil // no nonce twice: the next batch takes a new transfer, and describes it
	}
	return s.controls.send(header{kind: typeDescriptor, transfer: tr.id, sequence: uint32(seq)}, d.encode)
}

func (s *Sender) heartbeat(state byte, waiting int) error {
	hb := heartbeat{state: state, waiting: waiting, sent: uint64(s.sent.Load()), rate: uint64(s.c.Rate)}
	s.mu.Lock()
	for _, o := range s.known {
		if !o.desc.ended {
			hb.transfer = o.transfer.id
		}
	}
	s.mu.Unlock()
	return s.controls.beat(s.session, hb)
}

// checkTicket refuses a ticket that does not fit the object.
func (o *sending) checkTicket() error {
	if have := o.desc.object().short(); have != o.Ticket.Object {
		return fmt.Errorf("%w: the ticket is for object %s; %s with these parameters is %s", ErrConfig, o.Ticket.Object, o.Path, have)
	}
	n := o.desc.generations()
	for _, w := range o.Ticket.Wanted {
		if w.To >= n {
			return fmt.Errorf("%w: the ticket asks for generation %d; %s has %d", ErrConfig, w.To, o.Path, n)
		}
	}
	return nil
}

// Number is how a ticket names an object that is sent with these parameters.
// It reads the file unless the digest is known.
func Number(o Object, k, payload, mostColumns int) (_ string, err error) {
	f, err := os.Open(o.Path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	d := descriptor{geometry: geometry{k: k, payload: payload, columns: columns(info.Size(), k, payload, mostColumns), size: info.Size()}, name: o.Name}
	if o.Digest != nil {
		d.digest = *o.Digest
	} else if d.digest, err = digest(context.Background(), f); err != nil {
		return "", err
	}
	return d.object().short(), nil
}

// ticket sends what the inside asked for and no more.
func (s *Sender) ticket(ctx context.Context, o *sending, spool *os.File) error {
	most := s.code.MaxParity()
	for _, w := range o.Ticket.Wanted {
		for n := w.From; n <= w.To; n++ {
			first, rows := ticketRows(o.Ticket.Row, w.Rows, most)
			if w.All { // with all of the data, any parity does
				first, rows = 0, min(s.c.Parity, most)
			}
			if err := s.generation(ctx, o, n, w.All, first, rows, spool); err != nil {
				return err
			}
		}
	}
	return nil
}

// ticketRows are the parity rows that answer for a ticket: those that the inside
// has seen nothing of. Where too few of them are left, all that exist, since
// which of the others are there is not in the ticket.
func ticketRows(row, rows, most int) (first, n int) {
	if row+rows > most {
		return 0, most
	}
	return row, rows
}

// readSymbols reads symbols that lie one after the other in a file into the
// payloads of packets, without a copy in between.
func readSymbols(f *os.File, p []byte, size, payload int, at, end int64) error {
	n := len(p) / size
	if at+int64(n*payload) <= end {
		iov := make([][]byte, n)
		for i := range iov {
			iov[i] = p[i*size+headerSize : i*size+headerSize+payload]
		}
		got, err := unix.Preadv(int(f.Fd()), iov, at)
		if err == nil && got == n*payload {
			return nil
		}
		// Short or interrupted: below, one by one.
	}
	for i := range n {
		one := p[i*size+headerSize : i*size+headerSize+payload]
		have := max(0, min(int64(payload), end-at))
		if got, err := f.ReadAt(one[:have], at); int64(got) < have {
			return err
		}
		clear(one[have:])
		at += int64(payload)
	}
	return nil
}
