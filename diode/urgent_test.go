package diode

import (
	"context"
	"encoding"
	"hash"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/diode/link"
)

// shared makes senders that share the bed's line.
func (b *bed) shared(class link.Class) *Sender {
	b.t.Helper()
	l, err := link.OpenLine(filepath.Join(b.outbox, "line"), class, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	c := b.send
	c.Line = l
	s, err := NewSender(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// TestUrgent: a small file overtakes a big one within a second, the line never
// carries more than one sender's, and both arrive.
func TestUrgent(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		big, small := b.file("big", 400*20*16*128, 1), b.file("revocations/volume-00001.tar", 40_000, 2)
		var mu sync.Mutex
		var order []uint64 // transfers of symbols, as they change
		b.wire.change = func(p []byte, out func([]byte)) {
			if h, _, _ := testKey.open(p); h.kind == typeSymbol {
				mu.Lock()
				if n := len(order); n == 0 || order[n-1] != h.transfer {
					order = append(order, h.transfer)
				}
				mu.Unlock()
			}
			out(p)
		}
		completed := map[string]time.Time{}
		c := b.config()
		c.OnEvent = func(e Event) {
			if e.Kind == Completed {
				mu.Lock()
				completed[e.Name] = time.Now()
				mu.Unlock()
			}
		}
		r, err := NewReceiver(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.Run(ctx, b.wire); err != nil {
				t.Error(err)
			}
		})
		bulk, urgent := b.shared(link.Bulk), b.shared(link.Urgent)
		done := make(chan error, 2)
		go func() { done <- bulk.Send(t.Context(), []Object{big}) }()
		time.Sleep(2 * time.Second) // a quarter of its time
		start := time.Now()
		go func() { done <- urgent.Send(t.Context(), []Object{small}) }()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		b.same(big)
		b.same(small)
		if d := completed[small.Name].Sub(start); d < 0 || d > time.Second {
			t.Errorf("the urgent file was whole after %s, want at most a second", d)
		}
		if !completed[big.Name].After(completed[small.Name]) {
			t.Error("the big file was not overtaken")
		}
		if len(order) != 3 || order[0] != order[2] {
			t.Errorf("symbols of transfers %x, want the big one's, the urgent one's, the big one's", order)
		}
		if n := r.Counts().Repaired; n != 0 {
			t.Errorf("%d symbols were repaired of a line that lost none", n)
		}
	})
}

// A stuck hash stands for a worker that has gigabytes to do.
type stuck struct {
	hash.Hash
	gate chan struct{}
}

func (s stuck) Write(p []byte) (int, error) {
	<-s.gate
	return s.Hash.Write(p)
}

func (s stuck) MarshalBinary() ([]byte, error) {
	return s.Hash.(encoding.BinaryMarshaler).MarshalBinary()
}

// TestSmallPasses: a small file is whole while a big one is being hashed.
func TestSmallPasses(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		b.send.K, b.send.Parity, b.send.Payload, b.send.Columns = 20, 4, 8896, 32
		b.send.Symbols = port{b.wire, SymbolSize(8896)}
		big, small := b.file("big", lightSize+1, 1), b.file("small", 50_000, 2)
		gate := make(chan struct{})
		var r *Receiver
		var whole []string
		c := b.config()
		c.OnEvent = func(e Event) {
			switch {
			case e.Kind == Completed:
				whole = append(whole, e.Name)
			case e.Kind == Started && e.Name == big.Name:
				for _, o := range r.objects {
					o.files.hash = stuck{o.files.hash, gate}
				}
			}
		}
		var err error
		if r, err = NewReceiver(c); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx, b.wire) }()
		b.transmit(big, small)
		if !r.Busy() {
			t.Error("a receiver that hashes says that it has nothing to do")
		}
		close(gate)
		time.Sleep(3 * time.Second)
		if r.Busy() {
			t.Error("a receiver that has all says that it is busy")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if want := []string{small.Name, big.Name}; !slices.Equal(whole, want) {
			t.Errorf("whole in the order %q, want %q", whole, want)
		}
		b.same(big)
		b.same(small)
	})
}
