package diode

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// symbols numbers the symbols that pass; the first is 0.
func symbolsOf(f func(n int, h header) bool) func(p []byte, out func([]byte)) {
	n := 0
	return func(p []byte, out func([]byte)) {
		h, _, v := testKey.open(p)
		if v == accepted && h.kind == typeSymbol {
			n++
			if !f(n-1, h) {
				return
			}
		}
		out(p)
	}
}

// TestBurst cuts the line for as long as the parity of a generation outlasts,
// at every place of a transfer: within data, parity, and across both borders.
func TestBurst(t *testing.T) {
	const burst = 4 * 16
	for at := 0; at < 2*24*16; at += 16 - 1 {
		bubble(t, func(_ *testing.T, b *bed) {
			b.wire.change = symbolsOf(func(n int, _ header) bool { return n < at || n >= at+burst })
			o := b.file("a", 2*20*16*128, 1)
			stop := b.receive()
			b.transmit(o)
			stop()
			b.same(o)
		})
		if t.Failed() {
			t.Fatalf("a gap of %d packets from %d on", burst, at)
		}
	}
}

// TestTicket loses more than repair can bear: what is missing is named, the
// ticket is short, and it brings exactly what is missing.
func TestTicket(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		b.wire.change = symbolsOf(func(_ int, h header) bool {
			// Generation 1 loses 7 rows of one column and all parity but a
			// row; generation 3 all.
			return (h.generation != 1 || h.column != 5 || h.row >= 7) && (h.generation != 1 || h.row <= 20) && h.generation != 3
		})
		o := b.file("a", 5*20*16*128, 1)
		stop := b.receive()
		b.transmit(o)
		b.absent(o)
		e := b.last(Incomplete)
		tk, err := ParseTicket(strings.ToLower(e.Ticket))
		if err != nil {
			t.Fatalf("ticket %q: %v", e.Ticket, err)
		}
		if len(e.Ticket) > MaxTicket || e.Missing != 2 {
			t.Errorf("%d generations missing, want 2; ticket %q", e.Missing, e.Ticket)
		}
		want := []Wanted{{From: 1, To: 1, Rows: 6}, {From: 3, To: 3, All: true}}
		if diff := cmp.Diff(want, tk.Wanted); diff != "" {
			t.Errorf("wanted (-want +got):\n%s", diff)
		}
		b.wire.change = nil
		b.wire.sizes[SymbolSize(128)] = 0
		again := o
		again.Ticket = tk
		b.transmit(again)
		b.same(o)
		stop()
		// 6 rows, a generation with its parity, and filler of a second.
		rows := 6 + 24
		filler := int(time.Second/packetTime) + 64
		if n := b.wire.sizes[SymbolSize(128)]; n < rows*16 || n > rows*16+filler {
			t.Errorf("the ticket made the sender send %d packets, want %d and at most %d of filler", n, rows*16, filler)
		}
		wrong := b.file("b", 5*20*16*128, 2)
		wrong.Ticket = tk
		s, err := NewSender(b.send)
		if err != nil {
			t.Fatal(err)
		}
		b.wire.sizes[SymbolSize(128)] = 0
		if err := s.Send(context.Background(), []Object{wrong}); err == nil || b.wire.sizes[SymbolSize(128)] != 0 {
			t.Errorf("the ticket of another object: error %v, %d packets sent", err, b.wire.sizes[SymbolSize(128)])
		}
	})
}

// TestRepairPass brings back by parity that was never sent before.
func TestRepairPass(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		b.send.RepairPasses = 2
		b.wire.change = symbolsOf(func(_ int, h header) bool { return h.row >= 7 && h.row < 24 || h.row >= 24 })
		o := b.file("a", 3*20*16*128, 1)
		stop := b.receive()
		b.transmit(o)
		c := stop().Counts()
		b.same(o)
		if want := int64(7 * 16 * 3); c.Repaired != want {
			t.Errorf("repaired %d symbols, want %d", c.Repaired, want)
		}
	})
}

// TestPasses joins late: the second pass brings what was before.
func TestPasses(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		b.send.Passes = 2
		n := 0
		b.wire.change = func(p []byte, out func([]byte)) {
			if n++; n > 30000 { // warm-up, and more than one generation
				out(p)
			}
		}
		o := b.file("a", 100*20*16*128, 1)
		stop := b.receive()
		b.transmit(o)
		c := stop().Counts()
		b.same(o)
		if c.Unneeded+c.Duplicate == 0 {
			t.Error("the second pass brought nothing twice: the receiver was not late")
		}
	})
}

// TestShort loses an object that is shorter than the outage with all its
// parity: it is sent again later.
func TestShort(t *testing.T) {
	bubble(t, func(_ *testing.T, b *bed) {
		b.send.Outage, b.send.Rate = 100*time.Millisecond, wireBits(128)/packetTime.Seconds()
		b.wire.change = symbolsOf(func(n int, _ header) bool { return n >= 12+4 })
		o := b.file("a", 1000, 1)
		stop := b.receive()
		b.transmit(o)
		stop()
		b.same(o)
	})
}

// TestRestart ends the receiver ten times in the middle. What it had is not
// asked for again.
func TestRestart(t *testing.T) {
	for _, powerCut := range []bool{false, true} {
		bubble(t, func(t *testing.T, b *bed) {
			o := b.file("a", 60*20*16*128, 1)
			s, err := NewSender(b.send)
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			stop := b.receive()
			go func() { sent <- s.Send(context.Background(), []Object{o}) }()
			time.Sleep(520 * time.Millisecond)
			for range 10 {
				// A saved map a second.
				time.Sleep(30 * time.Millisecond)
				stop()
				if powerCut {
					b.cutPower(t)
				}
				stop = b.receive()
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			stop()
			b.same(o)
			if k := b.kinds(); !slices.Equal(k, []EventKind{Completed}) {
				t.Errorf("power cut %v: events %v, want one completed", powerCut, k)
			}
		})
	}
}

// cutPower makes the state what it would be after a power cut: the boot is
// another, and the live maps are anything.
func (b *bed) cutPower(t *testing.T) {
	t.Helper()
	live, err := filepath.Glob(filepath.Join(b.inbox, stateDir, "*", "live-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range live {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		p := bytes.Repeat([]byte{0xff}, int(info.Size()))
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		copy(p, old[:mapHeader])
		if err := os.WriteFile(name, p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := filepath.Glob(filepath.Join(b.inbox, stateDir, "*", progressFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		boot, err := bootID()
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.Replace(data[:len(data)-32], []byte(boot), []byte("another"), 1)
		sum := digestOf(body)
		if err := os.WriteFile(name, append(body, sum[:]...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGarbage sends what a stranger, a broken line and a recorder may send,
// three for each packet. Nothing changes but counters.
func TestGarbage(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		other, err := NewKey([]byte("another key 16 b"))
		if err != nil {
			t.Fatal(err)
		}
		other.hint = testKey.hint // the worst: only the tag tells
		rng := rand.New(rand.NewPCG(1, 2))
		var old []byte
		b.wire.change = func(p []byte, out func([]byte)) {
			out(p)
			if old == nil || rng.IntN(50) == 0 {
				old = bytes.Clone(p)
			}
			switch rng.IntN(6) {
			case 0:
				q := make([]byte, rng.IntN(9000))
				for i := range q {
					q[i] = byte(rng.Uint32())
				}
				out(q)
			case 1:
				out(p[:rng.IntN(len(p))])
			case 2:
				q := bytes.Clone(p)
				q[rng.IntN(len(q))] ^= 1 << rng.IntN(8)
				out(q)
			case 3:
				out(old)
			case 4: // a forged packet of a fake transfer
				q := bytes.Clone(p)
				other.put(q, header{kind: byte(rng.IntN(6)), transfer: rng.Uint64(), generation: rng.Uint32(), column: rng.Uint32(), row: uint16(rng.Uint32())})
				other.sign(q)
				out(q)
			default: // one who holds the key and lies
				q := bytes.Clone(p)
				testKey.put(q, header{kind: typeSymbol, transfer: rng.Uint64(), generation: rng.Uint32(), column: rng.Uint32(), row: uint16(rng.Uint32())})
				testKey.sign(q)
				out(q)
			}
		}
		o := b.file("a", 20*20*16*128, 1)
		stop := b.receive()
		b.transmit(o)
		c := stop().Counts()
		b.same(o)
		if k := b.kinds(); !slices.Equal(k, []EventKind{Completed}) {
			t.Errorf("events %v, want one completed", k)
		}
		if c.NotOurs == 0 || c.BadTag == 0 || c.Duplicate == 0 {
			t.Errorf("the garbage was not counted: %+v", c)
		}
		if c.Repaired != 0 {
			t.Errorf("%d symbols repaired of a transfer that lost none", c.Repaired)
		}
	})
}

// TestHostileDescriptor holds a key and announces what cannot be.
func TestHostileDescriptor(t *testing.T) {
	good := descriptor{geometry: geometry{k: 20, payload: 128, columns: 16, size: 4096}, parity: 4, pass: 1, passes: 1, name: "a"}
	for name, change := range map[string]func(p []byte){
		"name":       func(p []byte) { p[69] = 12; copy(p[nameAt:], "../../escape") },
		"absolute":   func(p []byte) { p[69] = 4; copy(p[nameAt:], "/etc") },
		"hidden":     func(p []byte) { p[69] = 15; copy(p[nameAt:], ".darkdiode/lock") },
		"no name":    func(p []byte) { p[69] = 0; p[nameAt] = 0 },
		"long name":  func(p []byte) { p[68] = 2 },
		"k":          func(p []byte) { p[2], p[3] = 1, 0 },
		"no k":       func(p []byte) { p[2], p[3] = 0, 0 },
		"size":       func(p []byte) { p[20] = 1 },
		"columns":    func(p []byte) { p[8] = 1 },
		"no columns": func(p []byte) { p[11] = 0 },
		"payload":    func(p []byte) { p[7]++ },
		"matrix":     func(p []byte) { p[16] = 2 },
		"tail":       func(p []byte) { p[511] = 1 },
		"version":    func(p []byte) { p[1] = 2 },
	} {
		var p [controlSize]byte
		good.encode(p[:])
		if _, err := parseDescriptor(p[:]); err != nil {
			t.Fatalf("the good one: %v", err)
		}
		change(p[:])
		if d, err := parseDescriptor(p[:]); err == nil {
			t.Errorf("%s: accepted as %+v", name, d)
		}
	}
}

// TestWrongDigest announces another digest than the file has.
func TestWrongDigest(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		o := b.file("a", 50000, 1)
		o.Digest = &[32]byte{1}
		stop := b.receive()
		b.transmit(o)
		stop()
		b.absent(o)
		if k := b.kinds(); !slices.Equal(k, []EventKind{Failed}) {
			t.Errorf("events %v, want one failed", k)
		}
		if left := b.left(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// TestNameTaken: a folder has the name. It is refused, and the receiver goes on.
func TestNameTaken(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		if err := os.MkdirAll(filepath.Join(b.inbox, "a", "b"), 0o700); err != nil {
			t.Fatal(err)
		}
		o, next := b.file("a", 5000, 1), b.file("c", 5000, 2)
		stop := b.receive()
		b.transmit(o, next)
		stop()
		b.same(next)
		if e := b.last(Failed); !strings.Contains(e.Reason, "the name is taken") {
			t.Errorf("reason %q", e.Reason)
		}
	})
}

// TestSeveral sends files from two senders at once into one inbox.
func TestSeveral(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		var all [2][]Object
		for i := range 12 {
			all[i%2] = append(all[i%2], b.file("dir/"+string(rune('a'+i)), 30000+i, uint64(i)))
		}
		stop := b.receive()
		done := make(chan error, 2)
		for _, objects := range all {
			s, err := NewSender(b.send)
			if err != nil {
				t.Fatal(err)
			}
			go func() { done <- s.Send(context.Background(), objects) }()
		}
		for range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		time.Sleep(3 * time.Second)
		stop()
		for _, objects := range all {
			for _, o := range objects {
				b.same(o)
			}
		}
	})
}

// TestLink tells silence from a sender that left.
func TestLink(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		stop := b.receive()
		b.transmit(b.file("a", 5000, 1))
		if e := b.last(SenderGone); e.Kind != SenderGone {
			t.Error("the sender left and nobody heard")
		}
		if e := b.last(LinkDown); e.Kind == LinkDown {
			t.Error("link down though the sender said that it leaves")
		}
		b.wire.change = func(p []byte, out func([]byte)) {
			if h, _, _ := testKey.open(p); h.kind != typeHeartbeat || p[headerSize+3] != stateLeaving {
				out(p)
			}
		}
		b.transmit(b.file("b", 5000, 2))
		time.Sleep(3 * time.Second)
		if e := b.last(LinkDown); e.Kind != LinkDown {
			t.Error("the line went silent and nobody said so")
		}
		stop()
	})
}

// TestLock: one receiver an inbox.
func TestLock(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		stop := b.receive()
		if _, err := NewReceiver(b.config()); err == nil || !strings.Contains(err.Error(), "locked") {
			t.Errorf("a second receiver: %v", err)
		}
		stop()
	})
}
