package diode

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	// Line is shared with other senders; nil: with nobody.
	Line Line
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
	c        SenderConfig
	code     *fec.Code
	session  *transfer // heartbeats and filler
	controls controller

	mu    sync.Mutex
	known []*sending // descriptors that go out now
	sent  atomic.Int64
	bytes atomic.Int64
	buf   []byte
	took  time.Duration
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
	if c.Line == nil {
		c.Line = alone{}
	}
	code, err := fec.New(c.K)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return &Sender{
		c: c, code: code, session: newTransfer(), controls: controller{key: c.Key, out: c.Control},
		buf: make([]byte, batch*SymbolSize(c.Payload)),
	}, nil
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
	idle, err := s.c.Line.Take(ctx)
	if err != nil {
		return err
	}
	// Before anything that the heartbeats count.
	if err := s.heartbeat(stateSending, len(all)); err != nil {
		return errors.Join(err, s.c.Line.Release())
	}
	done := make(chan struct{})
	stop := make(chan struct{})
	var controlErr error
	go func() {
		defer close(done)
		controlErr = s.control(stop, len(all))
	}()
	err = errors.Join(s.passes(ctx, all, spool, idle), s.c.Line.Release())
	if err == nil {
		err = sleep(ctx, afterEnd)
	}
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
