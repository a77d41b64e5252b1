package diode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stateDir = ".darkdiode"
	// maxObjects are under way at once; files, maps and parity of each.
	maxObjects = 16
	// maxTransfers bounds the transfer numbers that are remembered at once.
	maxTransfers = 64
	// maxOpen bounds the open generations of an object; the third closes the
	// oldest. Two, since packets of neighbours may be out of order.
	maxOpen = 2
	// maxEarly bounds the packets kept until their descriptor comes: a tenth
	// of a second at 1.3 Gb/s.
	maxEarly = 16 << 20
	// earlyTicks is how long they are kept, in seconds.
	earlyTicks = 2
	// slabSize is what is written at once; slabs is how many are under way.
	slabSize = 512 << 10
	slabs    = 32
	// slabTime is how long a slab that is not full waits for more. A kill loses
	// what is in it, as it loses what is in the socket.
	slabTime = 5 * time.Millisecond
	// maxJobs bounds what waits for a worker.
	maxJobs = 4*maxObjects*maxOpen + slabs
	// lightSize is what a small object has at most: repaired and hashed in a
	// tenth of a second, it need not wait for one that takes many.
	lightSize = 16 << 20
	// quiet is after how long an object without packets makes room for
	// another, in ticks.
	quiet = 3
	// stale is after how long an object of which nothing came makes room on the
	// disk for another. Until then repair may come, by a pass or a ticket.
	stale = 24 * time.Hour
	// defaultParity bounds what parity may take of the disk.
	defaultParity = 4 << 30
)

// A Socket gives the receiver its packets; link.Receiver is one. Run calls
// packet for each datagram, whose bytes are good during the call only, and
// idle when none waits, at least every 100 ms and after every 64 packets or
// so, both from one goroutine.
type Socket interface {
	Run(ctx context.Context, packet func([]byte), idle func()) error
}

// ReceiverConfig says where and how to receive.
type ReceiverConfig struct {
	// Inbox is the folder that whole files appear in.
	Inbox string
	// Keys are accepted; two while a key is being changed.
	Keys []*Key
	// ByDigest names files by their digest and trusts no name of the link.
	ByDigest bool
	// Parity bounds the disk space for parity; 0 is 4 GiB.
	Parity int64
	// Tickets makes the receiver tell, for each object that a pass left
	// incomplete, what would complete it.
	Tickets bool
	// OnEvent is called from one goroutine and must not block for long.
	OnEvent func(Event)
	Log     *slog.Logger
}

// An Event tells what became of an object, or of the link.
type Event struct {
	Kind   EventKind
	Object string // its number
	Name   string
	Size   int64
	// Reason says why it was rejected or failed; Ticket what would complete
	// it; Missing is the number of generations that are not whole.
	Reason  string
	Ticket  string
	Missing int
}

// An EventKind is a word for logs and scripts.
type EventKind string

// Kinds of events.
const (
	Started    EventKind = "started"
	Completed  EventKind = "completed"
	Incomplete EventKind = "incomplete" // a pass has ended and left gaps
	Rejected   EventKind = "rejected"
	Failed     EventKind = "failed"  // wrong digest; everything of it was dropped
	Dropped    EventKind = "dropped" // it was not whole, and made room for another
	LinkUp     EventKind = "link-up"
	LinkDown   EventKind = "link-down"
	SenderGone EventKind = "sender-gone" // it said that it leaves
)

// A Receiver puts objects together. Make one with [NewReceiver], call Run
// once.
type Receiver struct {
	c     ReceiverConfig
	inbox *os.Root
	state *os.Root
	lock  *os.File
	boot  string

	// Of the packets' thread.
	transfers map[uint64]*object
	objects   map[objectID]*object
	last      uint64 // transfer of the last symbol, and its object
	lastObj   *object
	early     earlyBuffer
	accepted  *acceptedList
	slab      *slab
	slabbed   time.Time // when the slab was first seen with something in it
	tick      int64
	ticked    time.Time
	heard     time.Time
	up        bool
	health    health
	ending    bool  // the queue is closed
	parity    int64 // bytes of parity symbols that were accepted

	counts   counters
	snapshot atomic.Pointer[Status]

	free   *slabPool
	queue  chan work // to the writer
	heavy  chan work // to a worker
	light  chan work // to the other, of small objects
	saves  chan []*saving
	saving atomic.Bool
	jobs   atomic.Int64 // for the workers, not done with

	mu     sync.Mutex
	events []func() // of other goroutines, to be run by the packets' thread
	failed error
	cancel context.CancelFunc
}

// NewReceiver opens an inbox. [ErrLocked] means that another receiver has it.
func NewReceiver(c ReceiverConfig) (_ *Receiver, err error) {
	if len(c.Keys) == 0 {
		return nil, fmt.Errorf("%w: no link key", ErrConfig)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	if c.Parity == 0 {
		c.Parity = defaultParity
	}
	r := &Receiver{
		c: c, transfers: map[uint64]*object{}, objects: map[objectID]*object{}, health: health{sessions: map[uint64]*session{}},
		free: newSlabPool(), queue: make(chan work, 2*slabs),
		heavy: make(chan work, maxJobs), light: make(chan work, maxJobs), saves: make(chan []*saving, 1),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.boot, err = bootID(); err != nil {
		return nil, err
	}
	if r.inbox, err = os.OpenRoot(c.Inbox); err != nil {
		return nil, fmt.Errorf("%w: inbox: %w", ErrConfig, err)
	}
	if err := r.inbox.Mkdir(stateDir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if r.state, err = r.inbox.OpenRoot(stateDir); err != nil {
		return nil, err
	}
	if r.lock, err = r.state.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("inbox %s: %w", c.Inbox, ErrLocked)
	}
	if r.accepted, err = openAccepted(r.state); err != nil {
		return nil, err
	}
	r.slab, _ = r.free.get()
	return r, nil
}

// Busy reports whether something is being repaired, hashed or moved. What ends a
// receiver for want of packets waits for that.
func (r *Receiver) Busy() bool { return r.jobs.Load() > 0 }

// Close gives the inbox back.
func (r *Receiver) Close() error {
	var err error
	if r.state != nil {
		err = r.state.Close()
	}
	if r.inbox != nil {
		err = errors.Join(err, r.inbox.Close())
	}
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
	}
	return err
}

// Run receives until ctx ends, which is no error, or the inbox fails.
func (r *Receiver) Run(ctx context.Context, s Socket) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.cancel = cancel
	r.ticked = time.Now()
	r.heard = r.ticked
	var wg sync.WaitGroup
	wg.Go(r.write)
	wg.Go(func() { r.work(r.heavy) })
	wg.Go(func() { r.work(r.light) })
	wg.Go(r.save)
	err := r.reopen()
	if err == nil {
		err = s.Run(ctx, r.packet, r.idle)
	}
	// In the order of the flow: what one still has, the next one gets.
	r.ending = true
	r.counts.fold()
	r.startSaving()
	r.flush()
	close(r.queue)
	wg.Wait()
	r.runEvents()
	for _, o := range r.objects {
		for _, g := range o.open {
			err = errors.Join(err, g.unmap())
		}
		err = errors.Join(err, o.files.close())
	}
	r.publish()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(err, r.failed)
}

// fail ends the run: the disk is full or broken.
func (r *Receiver) fail(err error) {
	r.mu.Lock()
	if r.failed == nil {
		r.failed = err
	}
	r.mu.Unlock()
	r.cancel()
}

// later has the packets' thread call f.
func (r *Receiver) later(f func()) {
	r.mu.Lock()
	r.events = append(r.events, f)
	r.mu.Unlock()
}

func (r *Receiver) runEvents() {
	for {
		r.mu.Lock()
		events := r.events
		r.events = nil
		r.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, f := range events {
			f()
		}
	}
}

// idle is called by the socket when nothing waits, and now and then when
// something does.
func (r *Receiver) idle() {
	now := time.Now()
	r.counts.fold()
	r.flushOld(now)
	r.runEvents()
	if now.Sub(r.ticked) >= time.Second {
		r.ticked = now
		r.tick++
		r.everySecond(now)
	}
}

// everySecond saves, looks after the link, and publishes the status.
func (r *Receiver) everySecond(now time.Time) {
	if r.up && now.Sub(r.heard) > silence {
		r.up = false
		r.c.OnEvent(Event{Kind: LinkDown, Reason: "no packet with a good tag for 3 s"})
	}
	for _, o := range r.objects {
		r.tell(o)
	}
	r.early.forget(r.tick - earlyTicks)
	r.startSaving()
	r.publish()
}
