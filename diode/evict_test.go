package diode

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

// What was not whole for a day makes room on the disk for what comes now, and
// not before that.
func TestStaleMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		whole := room
		t.Cleanup(func() { room = whole })
		stop := b.receive()
		b.wire.change = symbolsOf(func(_ int, h header) bool { return h.row != 3 && h.row < 20 })
		old := b.file("old", 20_000, 1)
		b.transmit(old)
		stop()
		b.wire.change = nil
		good := b.file("good", 20_000, 2)
		// The disk is full but for a little while the old one is there.
		there := filepath.Join(b.inbox, stateDir, b.objects()[0])
		room = func(*os.File) (int64, bool, error) {
			if _, err := os.Stat(there); err == nil {
				return 19_000, false, nil
			}
			return 1 << 30, false, nil
		}
		stop = b.receive()
		b.transmit(good)
		stop()
		b.absent(good)
		if len(b.objects()) != 1 {
			t.Fatalf("%q is there, want the old one alone", b.objects())
		}
		for _, name := range b.objects() {
			long := time.Now().Add(-stale - time.Minute)
			if err := os.Chtimes(filepath.Join(b.inbox, stateDir, name, progressFile), long, long); err != nil {
				t.Fatal(err)
			}
		}
		stop = b.receive()
		b.transmit(good)
		stop()
		b.same(good)
		if e := b.last(Dropped); e.Name != "old" {
			t.Errorf("dropped: %+v", e)
		}
	})
}

// objects are the folders of what is not whole.
func (b *bed) objects() (names []string) {
	all, err := filepath.Glob(filepath.Join(b.inbox, stateDir, "*", dataFile))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, name := range all {
		names = append(names, filepath.Base(filepath.Dir(name)))
	}
	return names
}
