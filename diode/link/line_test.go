package link

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A holder has a line now and then, and says since when.
type holder struct {
	*Line
	mu    *sync.Mutex
	now   *string // who has the line; "" for nobody
	name  string
	spent time.Duration
}

// A table is where holders come together: no two may have the line.
type table struct {
	t    *testing.T
	file string
	mu   sync.Mutex
	now  string
}

func newTable(t *testing.T) *table {
	return &table{t: t, file: filepath.Join(t.TempDir(), "line")}
}

func (b *table) line(name string, class Class) *holder {
	b.t.Helper()
	l, err := OpenLine(b.file, class, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	return &holder{Line: l, mu: &b.mu, now: &b.now, name: name}
}

func (h *holder) set(t *testing.T, from, to string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if *h.now != from {
		t.Errorf("%s: %q has the line, want %q", h.name, *h.now, from)
	}
	*h.now = to
}

// send has the line for so long, in steps of a millisecond, and gives way.
func (h *holder) send(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	idle, err := h.Take(ctx)
	if err != nil {
		return
	}
	_ = idle
	h.set(t, "", h.name)
	for h.spent < d && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		h.spent += time.Millisecond
		h.set(t, h.name, "") // a Yield may give it away
		if err := h.Yield(ctx); err != nil {
			return
		}
		h.set(t, "", h.name)
	}
	h.set(t, h.name, "")
	if err := h.Release(); err != nil {
		t.Error(err)
	}
}

// TestLineUrgent: what is urgent has the line at once, what is not gets it back,
// and equals go one after the other.
func TestLineUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTable(t)
		bulk, next, urgent := b.line("bulk", Bulk), b.line("next", Bulk), b.line("urgent", Urgent)
		var wg sync.WaitGroup
		start := time.Now()
		var done [3]time.Duration
		wg.Go(func() { bulk.send(t.Context(), t, 3*time.Second); done[0] = time.Since(start) })
		time.Sleep(100 * time.Millisecond)
		wg.Go(func() { next.send(t.Context(), t, time.Second); done[1] = time.Since(start) })
		time.Sleep(900 * time.Millisecond)
		wg.Go(func() { urgent.send(t.Context(), t, 100*time.Millisecond); done[2] = time.Since(start) })
		wg.Wait()
		if late := done[2] - 1100*time.Millisecond; late < 0 || late > 100*time.Millisecond {
			t.Errorf("the urgent sender was done %s later than on a line of its own", late)
		}
		if late := done[0] - 3100*time.Millisecond; late < 0 || late > 200*time.Millisecond {
			t.Errorf("the sender that gave way was done %s later than it had to", late)
		}
		if late := done[1] - 4100*time.Millisecond; late < 0 || late > 300*time.Millisecond {
			t.Errorf("the one that waited was done %s later than it had to", late)
		}
	})
}

// TestLinePatience: without end something urgent, and yet a twelfth to a tenth
// of the line for what is not; and another urgent one comes in between within a
// second.
func TestLinePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTable(t)
		urgent, bulk, other := b.line("urgent", Urgent), b.line("bulk", Bulk), b.line("other", Urgent)
		ctx, cancel := context.WithTimeout(t.Context(), 110*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { urgent.send(ctx, t, time.Hour) })
		time.Sleep(10 * time.Millisecond)
		wg.Go(func() { bulk.send(ctx, t, time.Hour) })
		wg.Wait()
		if bulk.spent < 8*time.Second || bulk.spent > 11*time.Second {
			t.Errorf("what is not urgent had the line for %s of 110 s", bulk.spent)
		}
		if sum := bulk.spent + urgent.spent; sum < 105*time.Second {
			t.Errorf("the line was used for %s of 110 s", sum)
		}
		if err := errors.Join(urgent.Release(), bulk.Release()); err != nil {
			t.Fatal(err)
		}
		// The bulk has its slice when the other comes.
		b.now = ""
		ctx, cancel = context.WithCancel(t.Context())
		first, patient := b.line("first", Urgent), b.line("patient", Bulk)
		wg.Go(func() { first.send(ctx, t, patience+100*time.Millisecond) })
		time.Sleep(time.Millisecond)
		wg.Go(func() { patient.send(ctx, t, time.Hour) })
		time.Sleep(patience + 200*time.Millisecond)
		b.mu.Lock()
		now := b.now
		b.mu.Unlock()
		if now != "patient" {
			t.Fatalf("%q has the line, want the one that was patient", now)
		}
		start := time.Now()
		idle, err := other.Take(ctx)
		if err != nil || idle {
			t.Errorf("idle %v, %v", idle, err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("something urgent waited %s, want at most a second", d)
		}
		cancel()
		wg.Wait()
	})
}

// TestLineGone: a sender that ends without a word, or gives up, is in nobody's
// way.
func TestLineGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTable(t)
		killed, next := b.line("killed", Urgent), b.line("next", Bulk)
		if idle, err := killed.Take(t.Context()); err != nil || !idle {
			t.Fatalf("idle %v, %v", idle, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := next.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("two have the line: %v", err)
		}
		if err := killed.Close(); err != nil {
			t.Fatal(err)
		}
		if idle, err := next.Take(t.Context()); err != nil || !idle {
			t.Errorf("after the end of the other: idle %v, %v", idle, err)
		}
		// The one that gave up above does not want it any more.
		bulk := b.line("bulk", Bulk)
		if err := next.Release(); err != nil {
			t.Fatal(err)
		}
		if idle, err := bulk.Take(t.Context()); err != nil || !idle {
			t.Errorf("idle %v, %v", idle, err)
		}
	})
}

func TestClass(t *testing.T) {
	for _, c := range []Class{Urgent, Normal, Bulk} {
		if got, err := ParseClass(c.String()); err != nil || got != c {
			t.Errorf("%s is read as %s, %v", c, got, err)
		}
	}
	if got, err := ParseClass(""); err != nil || got != Normal {
		t.Errorf("no name: %s, %v", got, err)
	}
	if _, err := ParseClass("asap"); err == nil {
		t.Error("a name that is none")
	}
	if _, err := OpenLine(filepath.Join(t.TempDir(), "line"), classes, nil); err == nil {
		t.Error("a class that is none")
	}
	if _, err := OpenLine(filepath.Join(t.TempDir(), "no", "line"), Normal, nil); err == nil {
		t.Error("a folder that is not there")
	}
}
