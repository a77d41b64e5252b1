package linkend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/link"
	"github.com/darkmirror/darkmirror/diode/oneway"
)

// ReceiveOptions say where packets come from and where files go.
type ReceiveOptions struct {
	Inbox     string
	Keys      []*diode.Key
	Interface string
	Addr      netip.Addr
	Port      uint16
	Backend   string // auto, packet or udp
	Ring      int    // bytes; 0: the default
	Tickets   bool
	ByDigest  bool
	// Block drops, by nftables, what the kernel would send or answer.
	Block bool
	// Unproven goes on where the proof does not hold.
	Unproven bool
	// Status and Metrics are files that are replaced every second; "" for
	// none.
	Status, Metrics string
	// UntilIdle ends the run when nothing but heartbeats came for this long after
	// something had, and nothing is being repaired or hashed; 0: never.
	UntilIdle time.Duration
	OnEvent   func(diode.Event)
	// OnReady is called once, with the proof and the socket's back end, before
	// the first packet is taken.
	OnReady func(backend string, layers []oneway.Layer)
	Log     *slog.Logger
}

// Received is what a run has seen.
type Received struct {
	Counts diode.Counts
	Link   link.ReceiverStats
	Status *diode.Status
}

// Rules are what the interface has to be for a socket of this kind.
func (o ReceiveOptions) Rules(backend string) oneway.Options {
	rules := oneway.Options{Addr: o.Addr}
	if backend == "udp" {
		rules.UDPPort = cmp.Or(o.Port, DefaultPort)
	}
	return rules
}

// Receive takes packets until ctx ends.
func Receive(ctx context.Context, o ReceiveOptions) (_ *Received, err error) {
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sparePlaces()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{idle: o.UntilIdle, cancel: cancel, next: o.OnEvent}
	r, err := openInbox(ctx, diode.ReceiverConfig{
		Inbox: o.Inbox, Keys: o.Keys, ByDigest: o.ByDigest, Tickets: o.Tickets, OnEvent: w.event, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if o.Block && o.Interface == "" {
		return nil, fmt.Errorf("%w: blocking needs the name of the interface", diode.ErrConfig)
	}
	s, err := link.Listen(link.ReceiverConfig{
		Backend: o.Backend, Interface: o.Interface, Port: o.Port, Addr: o.Addr, RingBytes: o.Ring, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	// What has to be let in depends on the socket that could be had.
	rules := o.Rules(s.Backend())
	if o.Block {
		if err := oneway.Block(o.Interface, rules); err != nil {
			return nil, err
		}
	}
	before, err := o.prove(s.Backend(), rules)
	if err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer cancel()
		return r.Run(gctx, s)
	})
	g.Go(func() error { return o.publish(gctx, r, s, w, before) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return &Received{Counts: r.Counts(), Link: s.Stats(), Status: r.Status()}, o.still(before)
}

// still compares what the interface has sent with what it had when the proof
// was made: a firewall that is reloaded takes the rules away unnoticed.
func (o ReceiveOptions) still(before *oneway.Counters) error {
	if before == nil {
		return nil
	}
	now, err := oneway.ReadCounters(o.Interface)
	if err != nil {
		return err
	}
	if err := before.Unchanged(now); err != nil && !o.Unproven {
		return fmt.Errorf("something was sent on %s while files were received: %w", o.Interface, err)
	}
	return nil
}

// A receiver that was killed holds its lock until the kernel has taken its
// memory apart.
const (
	lockTries = 50
	lockWait  = 100 * time.Millisecond
)

func openInbox(ctx context.Context, c diode.ReceiverConfig) (*diode.Receiver, error) {
	for try := 1; ; try++ {
		r, err := diode.NewReceiver(c)
		if !errors.Is(err, diode.ErrLocked) || try == lockTries {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockWait):
		}
	}
}

// prove looks at every layer, closes the door of this process, and decides.
func (o ReceiveOptions) prove(backend string, rules oneway.Options) (*oneway.Counters, error) {
	var layers []oneway.Layer
	var counters *oneway.Counters
	if o.Interface == "" {
		layers = append(layers, oneway.Layer{
			Name: "interface", State: oneway.Unknown, Required: true, Detail: "no interface is named, so nothing about it can be known",
			Hint: "name the interface that the link is on",
		})
	} else {
		var err error
		if layers, err = oneway.Check(o.Interface, rules); err != nil {
			return nil, err
		}
		c, err := oneway.ReadCounters(o.Interface)
		if err != nil {
			return nil, err
		}
		counters = &c
	}
	if err := oneway.Seal(); err != nil {
		layers = append(layers, oneway.Layer{Name: "seccomp", State: oneway.Missing, Required: true, Detail: err.Error()})
	} else {
		sealed, err := oneway.Sealed()
		if err != nil {
			return nil, err
		}
		layers = append(layers, sealed)
	}
	if o.OnReady != nil {
		o.OnReady(backend, layers)
	}
	if err := oneway.Strict(layers); err != nil && !o.Unproven {
		return nil, err
	}
	return counters, nil
}

// publish writes the status files, and ends the run where that was asked for.
func (o ReceiveOptions) publish(ctx context.Context, r *diode.Receiver, s *link.Receiver, w *watch, before *oneway.Counters) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	m := monitor{log: o.Log, write: func(st *diode.Status) error { return o.writeStatus(st, s) }}
	for {
		if err := m.tell(r.Status()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return m.tell(r.Status())
		case <-t.C:
			if err := o.still(before); err != nil {
				return err
			}
			c := r.Counts()
			w.tick(c.Packets-c.Heartbeats, r.Busy())
		}
	}
}

// status is the receiver's with what the socket knows.
type status struct {
	*diode.Status
	Backend string             `json:"backend"`
	Socket  link.ReceiverStats `json:"socket"`
}

// A monitor writes what monitoring reads. It must not stop the link: a file that
// cannot be written is an error at the start, where somebody has to correct the
// configuration, and a line of the log later.
type monitor struct {
	write  func(*diode.Status) error
	log    *slog.Logger
	wrote  bool
	failed string // the cause that was logged last
}

func (m *monitor) tell(st *diode.Status) error {
	if st == nil {
		return nil
	}
	err := m.write(st)
	if err != nil && !m.wrote {
		return err
	}
	m.wrote = true
	switch {
	case err == nil && m.failed != "":
		m.failed = ""
		m.log.Warn("the status is written again")
	case err != nil && err.Error() != m.failed:
		m.failed = err.Error()
		m.log.Error("the status cannot be written; packets are taken all the same", slog.Any("error", err))
	}
	return nil
}

func (o ReceiveOptions) writeStatus(st *diode.Status, s *link.Receiver) error {
	sock := s.Stats()
	if o.Status != "" {
		data, err := json.MarshalIndent(status{st, s.Backend(), sock}, "", "  ")
		if err != nil {
			return err
		}
		if err := replace(o.Status, append(data, '\n')); err != nil {
			return err
		}
	}
	if o.Metrics != "" {
		more := fmt.Sprintf("darkdiode_socket_packets_total %d\ndarkdiode_socket_drops_total %d\ndarkdiode_socket_malformed_total %d\n",
			sock.Packets, sock.KernelDrops, sock.Malformed)
		if err := replace(o.Metrics, append(st.Metrics(), more...)); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file that readers see whole. It need not last.
func replace(name string, data []byte) error {
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".tmp")
	if err := os.WriteFile(tmp, data, 0o644); err != nil { //nolint:gosec // read by monitoring
		return err
	}
	return os.Rename(tmp, name)
}

// A watch ends a run that was asked to end when nothing comes any more.
type watch struct {
	idle    time.Duration
	cancel  context.CancelFunc
	next    func(diode.Event)
	packets int64
	since   time.Time
}

func (w *watch) event(e diode.Event) {
	if w.next != nil {
		w.next(e)
	}
}

// tick is called every second with the packets so far. busy is what came before
// and is being worked on.
func (w *watch) tick(packets int64, busy bool) {
	if w.idle == 0 {
		return
	}
	if packets != w.packets || busy {
		w.packets, w.since = packets, time.Now()
		return
	}
	if packets > 0 && time.Since(w.since) >= w.idle {
		w.cancel()
	}
}
