package bundle

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	// chunkSize is one read or write.
	chunkSize = 1 << 20
	// chunks bounds the memory of a pipeline and how far reading, hashing
	// and writing may be apart.
	chunks = 16
)

// A chunk is a buffer that several stages look at; the last one returns it.
type chunk struct {
	buf  []byte
	refs atomic.Int32
	pool pipeline
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.pool <- c // has room for all chunks
	}
}

// A pipeline runs stages beside each other: each queue's steps run in order in
// a goroutine of its own. SHA-256 is computed several times over the same
// bytes (segment, volume, blob), which one core could not do at the speed of
// a disk.
type pipeline chan *chunk

// A queue holds steps.
type queue chan func() error

// runPipeline calls feed with n queues and waits for all steps. The first
// error ends everything.
func runPipeline(ctx context.Context, n int, feed func(ctx context.Context, p pipeline, qs []queue) error) error {
	g, gctx := errgroup.WithContext(ctx)
	p := make(pipeline, chunks)
	for range chunks {
		p <- &chunk{pool: p} // buffers are made when they are needed
	}
	qs := make([]queue, n)
	for i := range qs {
		qs[i] = make(queue, 2*chunks)
		g.Go(func() error { return qs[i].run(gctx) })
	}
	g.Go(func() error {
		if err := feed(gctx, p, qs); err != nil {
			return err
		}
		for _, q := range qs {
			close(q)
		}
		return nil
	})
	return g.Wait()
}

func (q queue) run(ctx context.Context) error {
	for {
		select {
		case step, ok := <-q:
			if !ok {
				return nil
			}
			if err := step(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// get waits for a chunk of at most n bytes that stages will release, each
// once.
func (p pipeline) get(ctx context.Context, stages int32, n int64) (*chunk, error) {
	n = min(n, chunkSize)
	select {
	case c := <-p:
		if int64(cap(c.buf)) < n {
			c.buf = make([]byte, n)
		}
		c.buf = c.buf[:n]
		c.refs.Store(stages)
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// send puts a step at the end of the queue.
func (q queue) send(ctx context.Context, step func() error) error {
	select {
	case q <- step:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
