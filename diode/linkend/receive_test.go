package linkend

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/darkmirror/darkmirror/diode"
)

// TestWatch ends a run when nothing comes any more, and not while something is
// being done, or before anything came.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		w := &watch{idle: 3 * time.Second, cancel: func() { ended = true }}
		step := func(what string, seconds int, packets int64, busy, want bool) {
			t.Helper()
			for range seconds {
				time.Sleep(time.Second)
				w.tick(packets, busy)
			}
			if ended != want {
				t.Errorf("%s: ended %v, want %v", what, ended, want)
			}
		}
		step("nothing came", 60, 0, false, false)
		step("packets", 3, 10, false, false)
		step("hashing", 60, 10, true, false)
		step("just done", 2, 10, false, false)
		step("more packets", 1, 11, false, false)
		step("silence", 2, 11, false, false)
		step("silence", 1, 11, false, true)
		ended = false
		w.idle = 0
		step("never", 60, 11, false, false)
	})
}

// TestMonitor: what cannot be written ends a start, and never a run.
func TestMonitor(t *testing.T) {
	var log bytes.Buffer
	var fails error
	m := monitor{log: slog.New(slog.NewTextHandler(&log, nil)), write: func(*diode.Status) error { return fails }}
	st := &diode.Status{}
	lines := func() int { return strings.Count(log.String(), "\n") }
	fails = errors.New("no such folder")
	if err := m.tell(nil); err != nil {
		t.Errorf("nothing is known yet: %v", err)
	}
	if err := m.tell(st); !errors.Is(err, fails) {
		t.Errorf("at the start: %v", err)
	}
	for i, tt := range []struct {
		fails error
		lines int
	}{{nil, 0}, {errors.New("disk full"), 1}, {errors.New("disk full"), 1}, {errors.New("gone"), 2}, {nil, 3}, {nil, 3}} {
		fails = tt.fails
		if err := m.tell(st); err != nil || lines() != tt.lines {
			t.Errorf("%d: %v, %d lines of log, want %d: %s", i, err, lines(), tt.lines, log.String())
		}
	}
}
