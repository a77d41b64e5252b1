package diode

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A seventeenth and an eighteenth object come while the sixteen that are open
// wait for their repair: none of these is closed under the worker's hands.
func TestEvictSparesRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		gate := make(chan struct{})
		b.wire.change = symbolsOf(func(_ int, h header) bool { return h.row != 3 })
		var r *Receiver
		c := b.config()
		first := true
		c.OnEvent = func(e Event) {
			if e.Kind != Started || !first {
				return
			}
			first = false
			for _, o := range r.objects {
				o.files.hash = stuck{o.files.hash, gate}
			}
		}
		var err error
		if r, err = NewReceiver(c); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx, b.wire) }()
		for i := range 18 {
			b.transmit(b.file(fmt.Sprintf("f%02d", i), 20_000, uint64(i+1)))
		}
		close(gate)
		time.Sleep(5 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the receiver ended: %v", err)
		}
		if n := r.Counts().Objects; n < 16 {
			t.Errorf("%d objects arrived, want the 16 that were open", n)
		}
	})
}

// Sixteen objects of which nothing but descriptors arrives, each sent four
// times: the table of transfers is full of what never ends. Another object
// arrives all the same.
func TestForgottenTransfers(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		stop := b.receive()
		b.wire.change = symbolsOf(func(int, header) bool { return false })
		var lost []Object
		for i := range maxObjects {
			lost = append(lost, b.file(fmt.Sprintf("lost%02d", i), 20_000, uint64(i+1)))
		}
		for range maxTransfers/maxObjects + 1 {
			for _, o := range lost {
				b.transmit(o)
			}
		}
		b.wire.change = nil
		good := b.file("good", 20_000, 99)
		b.transmit(good)
		r := stop()
		b.same(good)
		if n := r.Counts().Rejected; n != 0 {
			t.Errorf("%d descriptors were rejected", n)
		}
	})
}
