package diode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A wire carries packets from a sender to a receiver in memory. change, if
// set, stands for the line: it calls out for what arrives.
type wire struct {
	mu     sync.Mutex
	change func(p []byte, out func([]byte))
	ch     chan []byte
	sizes  map[int]int
}

func newWire() *wire { return &wire{ch: make(chan []byte, 4096), sizes: map[int]int{}} }

// A port is the sending end for packets of one size.
type port struct {
	w    *wire
	size int
}

// packetTime is how long a packet takes on the wire.
const packetTime = 20 * time.Microsecond

func (p port) Send(packets []byte) error {
	time.Sleep(time.Duration(len(packets)/p.size) * packetTime)
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for ; len(packets) > 0; packets = packets[p.size:] {
		one := bytes.Clone(packets[:p.size])
		p.w.sizes[p.size]++
		if p.w.change == nil {
			p.w.ch <- one
			continue
		}
		p.w.change(one, func(q []byte) { p.w.ch <- bytes.Clone(q) })
	}
	return nil
}

// Run is the receiving end.
func (w *wire) Run(ctx context.Context, packet func([]byte), idle func()) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case p := <-w.ch:
			packet(p)
			if n%64 == 0 {
				idle()
			}
			continue
		default:
		}
		idle()
		select {
		case <-ctx.Done():
			return nil
		case p := <-w.ch:
			packet(p)
		case <-t.C:
		}
	}
}

var testKey = func() *Key {
	k, err := NewKey([]byte("0123456789abcdef"))
	if err != nil {
		panic(err)
	}
	return k
}()

// A bed is a sender and a receiver with a wire between them.
type bed struct {
	t      testing.TB
	wire   *wire
	send   SenderConfig
	inbox  string
	outbox string

	mu     sync.Mutex
	events []Event
}

func newBed(t *testing.T) *bed {
	b := &bed{t: t, wire: newWire(), inbox: t.TempDir(), outbox: t.TempDir()}
	b.send = SenderConfig{
		Key: testKey, K: 20, Parity: 4, Payload: 128, Columns: 16, Passes: 1, Spool: t.TempDir(),
		Symbols: port{b.wire, SymbolSize(128)}, Control: port{b.wire, ControlSize},
	}
	return b
}

func (b *bed) file(name string, size int, seed uint64) Object {
	b.t.Helper()
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = rng.Read(data)
	path := filepath.Join(b.outbox, filepath.Base(name))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return Object{Name: name, Path: path}
}

func (b *bed) config() ReceiverConfig {
	return ReceiverConfig{Inbox: b.inbox, Keys: []*Key{testKey}, Tickets: true, OnEvent: func(e Event) {
		b.mu.Lock()
		b.events = append(b.events, e)
		b.mu.Unlock()
	}}
}

// receive starts a receiver; stop ends it and gives it back.
func (b *bed) receive() (stop func() *Receiver) {
	b.t.Helper()
	r, err := NewReceiver(b.config())
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, b.wire) }()
	return func() *Receiver {
		b.t.Helper()
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("receiver: %v", err)
		}
		if err := r.Close(); err != nil {
			b.t.Errorf("close: %v", err)
		}
		return r
	}
}

func (b *bed) transmit(objects ...Object) {
	b.t.Helper()
	s, err := NewSender(b.send)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := s.Send(context.Background(), objects); err != nil {
		b.t.Fatal(err)
	}
	// What the receiver does with the last packets happens now.
	time.Sleep(3 * time.Second)
}

func (b *bed) kinds() (all []EventKind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.Kind != LinkUp && e.Kind != LinkDown && e.Kind != SenderGone && e.Kind != Started {
			all = append(all, e.Kind)
		}
	}
	return all
}

func (b *bed) last(k EventKind) (e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.events {
		if one.Kind == k {
			e = one
		}
	}
	return e
}

// same compares what arrived with what was sent.
func (b *bed) same(o Object) {
	b.t.Helper()
	want, err := os.ReadFile(o.Path)
	if err != nil {
		b.t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(b.inbox, o.Name))
	if err != nil {
		b.t.Errorf("%s: %v", o.Name, err)
		return
	}
	if !bytes.Equal(got, want) {
		b.t.Errorf("%s: %d bytes arrived that differ from the %d sent", o.Name, len(got), len(want))
	}
}

func (b *bed) absent(o Object) {
	b.t.Helper()
	if _, err := os.Stat(filepath.Join(b.inbox, o.Name)); !errors.Is(err, fs.ErrNotExist) {
		b.t.Errorf("%s is in the inbox: %v", o.Name, err)
	}
}

// left lists the folders of objects that were not finished.
func (b *bed) left() (names []string) {
	b.t.Helper()
	all, err := filepath.Glob(filepath.Join(b.inbox, stateDir, "*", objectFile))
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// bubble runs a test with a clock of its own: seconds of the protocol take
// none of ours.
func bubble(t *testing.T, f func(t *testing.T, b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, newBed(t))
	})
}

func TestTransfer(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, 129, 20 * 128, 20*16*128 - 1, 20 * 16 * 128, 20*16*128 + 1, 3*20*16*128 + 777} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T, b *bed) {
				o := b.file("main-000042/volumes/volume-00001.tar", size, 1)
				stop := b.receive()
				b.transmit(o)
				r := stop()
				b.same(o)
				if left := b.left(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				c := r.Counts()
				if c.Repaired != 0 || c.BadTag+c.Malformed+c.NotOurs != 0 {
					t.Errorf("counts of a clean transfer: %+v", c)
				}
				if want := int64(size+127) / 128; c.Symbols != want {
					t.Errorf("took %d symbols, want the %d data symbols and no parity", c.Symbols, want)
				}
			})
		})
	}
}

// TestLoss loses every pattern that the code can bear: whatever packets of a
// pass are lost, up to m of a codeword, comes back.
func TestLoss(t *testing.T) {
	for seed := range uint64(8) {
		bubble(t, func(t *testing.T, b *bed) {
			rng := rand.New(rand.NewPCG(seed, 1))
			lost := map[[2]int]int{}
			b.wire.change = func(p []byte, out func([]byte)) {
				h, _, v := testKey.open(p)
				if v != accepted {
					t.Errorf("sent a packet with verdict %d", v)
				}
				at := [2]int{int(h.generation), int(h.column)}
				if h.kind == typeSymbol && lost[at] < 4 && rng.IntN(4) == 0 {
					lost[at]++
					return
				}
				out(p)
				if rng.IntN(20) == 0 {
					out(p)
				}
			}
			o := b.file("a.bin", 5*20*16*128+4711, seed)
			stop := b.receive()
			b.transmit(o)
			c := stop().Counts()
			b.same(o)
			if c.Repaired == 0 {
				t.Error("nothing was repaired")
			}
			t.Logf("seed %d: %d repaired, %d duplicate, %d unneeded", seed, c.Repaired, c.Duplicate, c.Unneeded)
		})
	}
}

func digestOf(p []byte) [sha256.Size]byte { return sha256.Sum256(p) }
