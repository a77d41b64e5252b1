package diode

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A Line is what several senders share; link.Line is one. One sender at a time
// has it.
type Line interface {
	// Take waits until this sender has the line; idle tells that nobody had it.
	Take(ctx context.Context) (idle bool, err error)
	// Yield lets go first whoever is more urgent, and comes back with the line.
	// It is called before every batch of packets.
	Yield(ctx context.Context) error
	// Release gives up the line.
	Release() error
}

// alone is the line of a sender that shares it with nobody.
type alone struct{}

func (alone) Take(context.Context) (bool, error) { return true, nil }
func (alone) Yield(context.Context) error        { return nil }
func (alone) Release() error                     { return nil }

// A controller sends descriptors and heartbeats. It is safe for concurrent use.
type controller struct {
	key *Key
	mu  sync.Mutex
	out Datagrams
}

func (c *controller) send(h header, encode func([]byte)) error {
	var p [ControlSize]byte
	c.key.put(p[:], h)
	encode(p[headerSize:])
	c.key.sign(p[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Send(p[:])
}

// beat sends a heartbeat of a session.
func (c *controller) beat(session *transfer, hb heartbeat) error {
	hb.clock = time.Now()
	return c.send(header{kind: typeHeartbeat, transfer: session.id, sequence: uint32(session.seq.Add(1))}, hb.encode)
}

// Beat sends a heartbeat every second until ctx ends, and a last one that says
// so: with it the inside tells a link on which nothing is sent from one that is
// cut. Senders may run meanwhile. rate is for people.
func Beat(ctx context.Context, key *Key, control Datagrams, rate float64) error {
	if key == nil || control == nil {
		return fmt.Errorf("%w: heartbeats need a key and a socket", ErrConfig)
	}
	c, session := controller{key: key, out: control}, newTransfer()
	t := time.NewTicker(heartbeatEvery)
	defer t.Stop()
	for {
		if err := c.beat(session, heartbeat{state: stateIdle, rate: uint64(rate)}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return c.beat(session, heartbeat{state: stateLeaving})
		case <-t.C:
		}
	}
}
