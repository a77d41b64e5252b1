package diode

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBeat: between transfers a sender beats. The inside tells nobody yet, idle,
// sending, a cut and a goodbye apart, and counts what it missed.
func TestBeat(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		cut, off, dropped := false, time.Duration(0), int64(0)
		b.wire.change = func(p []byte, out func([]byte)) {
			if cut {
				dropped++
				return
			}
			if h, payload, _ := testKey.open(p); h.kind == typeHeartbeat && off != 0 {
				hb, err := parseHeartbeat(payload)
				if err != nil {
					t.Error(err)
				}
				hb.clock = hb.clock.Add(-off)
				hb.encode(payload)
				testKey.sign(p)
			}
			out(p)
			if h, _, _ := testKey.open(p); h.kind == typeHeartbeat {
				out(p) // twice, which is not news
			}
		}
		set := func(f func()) {
			b.wire.mu.Lock()
			defer b.wire.mu.Unlock()
			f()
		}
		r, err := NewReceiver(b.config())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- r.Run(ctx, b.wire) }()
		want := func(state SenderState, link string, missed int64) {
			t.Helper()
			time.Sleep(2100 * time.Millisecond)
			if s := r.Status(); s.Sender != state || s.Link != link || s.Missed != missed {
				t.Errorf("sender %s, link %s, %d missed; want %s, %s, %d", s.Sender, s.Link, s.Missed, state, link, missed)
			}
		}
		want(SenderUnknown, "down", 0)
		bctx, stop := context.WithCancel(t.Context())
		go func() { done <- Beat(bctx, testKey, port{b.wire, ControlSize}, 1e9) }()
		want(SenderIdle, "up", 0)
		if a := r.Status().Ahead; a == nil || *a < 0 || *a > 0.1 {
			t.Errorf("this clock is %v ahead, want about nothing", a)
		}
		set(func() { off = time.Hour })
		want(SenderIdle, "up", 0)
		if a := r.Status().Ahead; a == nil || *a < 3599 || *a > 3601 {
			t.Errorf("this clock is %v ahead, want an hour", a)
		}
		set(func() { off = 0 })
		want(SenderIdle, "up", 0)
		s, err := NewSender(b.send)
		if err != nil {
			t.Fatal(err)
		}
		sent, o := make(chan error, 1), b.file("a", 200*20*16*128, 1)
		go func() { sent <- s.Send(t.Context(), []Object{o}) }()
		want(SenderSending, "up", 0)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		want(SenderIdle, "up", 0)
		if e := b.last(SenderGone); e.Kind == SenderGone {
			t.Error("a sender left, another is still there, and it was said that nobody is")
		}
		set(func() { cut = true })
		time.Sleep(10 * time.Second)
		want(SenderSilent, "down", 0)
		if e := b.last(LinkDown); e.Kind != LinkDown {
			t.Error("the line was cut and nobody said so")
		}
		set(func() { cut = false })
		if dropped < 12 {
			t.Errorf("%d heartbeats in 12 seconds", dropped)
		}
		want(SenderIdle, "up", dropped)
		stop()
		want(SenderLeft, "down", dropped)
		b.mu.Lock()
		gone := 0
		for _, e := range b.events {
			if e.Kind == SenderGone {
				gone++
			}
		}
		b.mu.Unlock()
		if gone != 1 {
			t.Errorf("it was said %d times that the sender left", gone)
		}
		m := string(r.Status().Metrics())
		for _, line := range []string{`darkdiode_sender{state="gone"} 1`, `darkdiode_sender{state="idle"} 0`, fmt.Sprintf("darkdiode_heartbeats_missed_total %d\n", dropped), "darkdiode_clock_ahead_seconds 0.000\n"} {
			if !strings.Contains(m, line) {
				t.Errorf("metrics lack %q", line)
			}
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLostCount: what was lost is told, though all of it was repaired.
func TestLostCount(t *testing.T) {
	bubble(t, func(t *testing.T, b *bed) {
		n, lost := 0, int64(0)
		b.wire.change = func(p []byte, out func([]byte)) {
			if h, _, _ := testKey.open(p); h.kind == typeSymbol || h.kind == typeFiller {
				if n++; n%50 == 0 {
					lost++
					return
				}
			}
			out(p)
		}
		stop := b.receive()
		o := b.file("a", 50*20*16*128, 1)
		b.transmit(o)
		s := stop().Status()
		b.same(o)
		if lost == 0 || s.Sent-s.Arrived != lost || s.Counts.Repaired == 0 {
			t.Errorf("%d sent and %d arrived, want %d fewer; %d repaired", s.Sent, s.Arrived, lost, s.Counts.Repaired)
		}
	})
}

// TestSessions: those of senders that were killed make room for new ones.
func TestSessions(t *testing.T) {
	h := health{sessions: map[uint64]*session{}}
	now := time.Unix(1e9, 0)
	for id := range uint64(3 * maxSessions) {
		now = now.Add(time.Second)
		if !h.beat(id, 1, &heartbeat{state: stateSending, clock: now, sent: 1 << 60, waiting: 1}, now) {
			t.Fatalf("session %d was refused", id)
		}
	}
	if len(h.sessions) != maxSessions || h.sessions[3*maxSessions-1] == nil {
		t.Errorf("%d sessions are known, want the last %d", len(h.sessions), maxSessions)
	}
	if n := h.waiting(now); n != 4 { // those of the last three seconds
		t.Errorf("%d objects wait, want 4", n)
	}
	// A session begun anew, as one who lies would have it.
	if !h.beat(3*maxSessions-1, 2, &heartbeat{clock: now.Add(-time.Hour), sent: 0}, now) || h.sent != 0 || h.missed != 0 {
		t.Errorf("%d sent, %d missed of a session that says nonsense", h.sent, h.missed)
	}
	if h.beat(3*maxSessions-1, 2, &heartbeat{}, now) {
		t.Error("the same heartbeat twice")
	}
}
