package fetch

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Budget bounds the requests to some hosts: never more than a number of them
// within any span of a length, retries and redirects included. It may be
// shared, and used concurrently. A nil one bounds nothing.
type Budget struct {
	per   time.Duration
	hosts []string

	mu   sync.Mutex
	sent []time.Time // a ring, as long as the number of requests
	next int         // the oldest of them
}

// NewBudget allows n requests within each span of that length to those hosts,
// named as [Host] gives them.
func NewBudget(n int, per time.Duration, hosts ...string) *Budget {
	return &Budget{per: per, hosts: hosts, sent: make([]time.Time, max(n, 1))}
}

// spend waits until one more request may go to that host.
func (b *Budget) spend(ctx context.Context, host string) error {
	if b == nil || !slices.Contains(b.hosts, host) {
		return nil
	}
	timer := time.NewTimer(b.take(time.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take books the next request and says how long it has to wait.
func (b *Budget) take(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := now
	if old := b.sent[b.next]; !old.IsZero() {
		if free := old.Add(b.per); free.After(now) {
			at = free
		}
	}
	b.sent[b.next] = at
	b.next = (b.next + 1) % len(b.sent)
	return at.Sub(now)
}

// A Bandwidth bounds how fast bodies arrive. It may be shared, and used
// concurrently. A nil one bounds nothing.
type Bandwidth struct{ l *rate.Limiter }

// NewBandwidth allows so many bytes a second; nil, which bounds nothing, for
// less than one.
func NewBandwidth(bytesPerSecond int64) *Bandwidth {
	if bytesPerSecond < 1 {
		return nil
	}
	return &Bandwidth{rate.NewLimiter(rate.Limit(bytesPerSecond), copyBuffer)}
}

// wait waits until there is room for the next read, and bounds it. What was
// read is told to spent.
func (b *Bandwidth) wait(ctx context.Context, p []byte) ([]byte, error) {
	if b == nil {
		return p, nil
	}
	return p[:min(len(p), copyBuffer)], b.l.WaitN(ctx, 0)
}

// spent books what a read has brought, which the next one waits for.
func (b *Bandwidth) spent(n int) {
	if b != nil && n > 0 {
		b.l.ReserveN(time.Now(), n)
	}
}
