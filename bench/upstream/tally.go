package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A count is what one path was asked for.
type count struct {
	Requests int   `json:"requests"`
	Ranges   int   `json:"ranges"`
	Bytes    int64 `json:"bytes"` // of bodies, as handed to the network
}

// Counters are all counts since the last reset.
type Counters struct {
	count
	Paths map[string]count `json:"paths"`
}

// A tally counts and throttles what its handler answers.
type tally struct {
	next http.Handler
	rate throttle

	mu    sync.Mutex
	all   count
	paths map[string]count
}

func newTally(next http.Handler) *tally {
	return &tally{next: next, paths: make(map[string]count)}
}

// ServeHTTP answers; what is below /-/ is not counted.
func (t *tally) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch command, own := strings.CutPrefix(r.URL.Path, "/-/"); {
	case !own:
		c := count{Requests: 1}
		if r.Header.Get("Range") != "" {
			c.Ranges = 1
		}
		t.add(r.URL.Path, c)
		t.next.ServeHTTP(&counted{ResponseWriter: w, t: t, path: r.URL.Path}, r)
	case command == "counters":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(t.counters()) // the asker may have gone
	case command == "reset" && r.Method == http.MethodPost:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all, t.paths = count{}, make(map[string]count)
	case command == "rate" && r.Method == http.MethodPost:
		n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "bytes: want a number", http.StatusBadRequest)
			return
		}
		t.rate.set(n)
	default:
		http.NotFound(w, r)
	}
}

func (t *tally) counters() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Counters{t.all, maps.Clone(t.paths)}
}

func (t *tally) add(path string, c count) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.paths[path]
	for _, to := range []*count{&t.all, &p} {
		to.Requests += c.Requests
		to.Ranges += c.Ranges
		to.Bytes += c.Bytes
	}
	t.paths[path] = p
}

// counted is a body that is counted and throttled.
type counted struct {
	http.ResponseWriter
	t    *tally
	path string
}

// Write waits for its turn.
func (c *counted) Write(p []byte) (int, error) {
	c.t.rate.wait(len(p))
	n, err := c.ResponseWriter.Write(p)
	c.t.add(c.path, count{Bytes: int64(n)})
	return n, err
}

// A throttle spreads bytes over time.
type throttle struct {
	mu   sync.Mutex
	rate int64
	free time.Time // when the line is free again
}

func (t *throttle) set(rate int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate, t.free = rate, time.Time{}
}

func (t *throttle) wait(n int) {
	t.mu.Lock()
	if t.rate == 0 {
		t.mu.Unlock()
		return
	}
	now := time.Now()
	if t.free.Before(now) {
		t.free = now
	}
	t.free = t.free.Add(time.Duration(n) * time.Second / time.Duration(t.rate))
	until := t.free
	t.mu.Unlock()
	time.Sleep(time.Until(until))
}
