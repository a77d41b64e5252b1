package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// interval is how long a log stays silent at most while something is done.
const interval = 10 * time.Second

// progress turns events into bars on a terminal, and otherwise into a line,
// or a JSON object, every ten seconds.
type progress struct {
	w       io.Writer
	machine bool
	quiet   bool

	mu     sync.Mutex
	stage  stageState
	bars   *mpb.Progress
	bar    *mpb.Bar
	label  *atomic.Pointer[string] // what the bar shows; its goroutine must not wait for mu
	notes  int
	stop   chan struct{}
	ended  sync.Once
	ticked sync.WaitGroup
}

type stageState struct {
	name              string
	started           time.Time
	bytes, totalBytes int64
	items, totalItems int
	shown             bool
}

// startProgress begins; the caller calls finish before it prints anything
// else to w.
func startProgress(w io.Writer, f format, quiet bool) *progress {
	p := &progress{w: w, machine: f.machine(), quiet: quiet, stop: make(chan struct{})}
	if quiet {
		return p
	}
	if terminal(w) && !p.machine {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
		return p
	}
	p.ticked.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-t.C:
				p.mu.Lock()
				p.line()
				p.mu.Unlock()
			}
		}
	})
	return p
}

// event takes one event; it may be called from any goroutine.
func (p *progress) event(ev artifact.Event) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ev.Note != "" {
		p.note(ev)
	}
	if ev.Stage != p.stage.name {
		if ev.TotalBytes == 0 && ev.TotalItems == 0 {
			return // a straggler of a stage that is over, or a note alone
		}
		p.begin(ev.Stage)
	}
	p.stage.bytes += ev.Bytes
	p.stage.items += ev.Items
	if ev.TotalBytes != 0 || ev.TotalItems != 0 {
		p.stage.totalBytes, p.stage.totalItems = ev.TotalBytes, ev.TotalItems
		if p.bar != nil {
			p.bar.SetTotal(p.stage.total(), false)
		}
	}
	if p.bar != nil {
		text := p.stage.text()
		p.label.Store(&text)
		p.bar.SetCurrent(p.stage.current())
	}
}

// note keeps remarks readable: the first twenty are printed.
func (p *progress) note(ev artifact.Event) {
	const most = 20
	if p.notes++; p.notes > most || p.bars != nil || p.machine {
		return
	}
	fmt.Fprintf(p.w, "%-7s %s: %s\n", ev.Stage, clean(ev.Source), clean(ev.Note))
}

func (s *stageState) total() int64 {
	if s.totalBytes > 0 {
		return s.totalBytes
	}
	return int64(s.totalItems)
}

func (s *stageState) current() int64 {
	if s.totalBytes > 0 {
		return min(s.bytes, s.totalBytes)
	}
	return int64(s.items)
}

func (p *progress) begin(name string) {
	p.endBar()
	p.stage = stageState{name: name, started: time.Now()}
	if p.bars == nil {
		return
	}
	label := new(atomic.Pointer[string])
	p.label = label
	p.bar = p.bars.AddBar(0,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-8s", name))),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			if s := label.Load(); s != nil {
				return *s
			}
			return ""
		})))
}

func (p *progress) endBar() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bar = nil
	}
}

func (s *stageState) text() string {
	took := time.Since(s.started)
	switch {
	case s.totalBytes > 0:
		rate := float64(s.bytes) / max(took.Seconds(), 0.001)
		left := "?"
		if s.bytes > 0 {
			left = short(time.Duration(float64(max(0, s.totalBytes-s.bytes)) / rate * float64(time.Second)))
		}
		return fmt.Sprintf("%s of %s, %s/s, %s left", size(s.bytes), size(s.totalBytes), size(int64(rate)), left)
	case s.totalItems > 0:
		return fmt.Sprintf("%d of %d, %s", s.items, s.totalItems, short(took))
	}
	return short(took)
}

// line prints where the stage stands, for a log.
func (p *progress) line() {
	if p.stage.name == "" {
		return
	}
	p.stage.shown = true
	if p.machine {
		b, err := json.Marshal(map[string]any{
			"schema": "darkmirror.progress/v1", "stage": p.stage.name, "bytes": p.stage.bytes, "total_bytes": p.stage.totalBytes,
			"items": p.stage.items, "total_items": p.stage.totalItems, "seconds": int(time.Since(p.stage.started).Seconds()),
		})
		if err == nil {
			fmt.Fprintf(p.w, "%s\n", b)
		}
		return
	}
	fmt.Fprintf(p.w, "%-7s %s\n", p.stage.name, p.stage.text())
}

// finish ends all output; it may be called more than once.
func (p *progress) finish() { p.ended.Do(p.end) }

func (p *progress) end() {
	if p.quiet {
		return
	}
	p.mu.Lock()
	p.endBar()
	bars := p.bars
	p.mu.Unlock()
	if bars != nil {
		bars.Wait()
		return
	}
	close(p.stop)
	p.ticked.Wait()
}
