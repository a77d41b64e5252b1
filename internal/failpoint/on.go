//go:build failpoint

// Package failpoint names the steps at which a process may die; see off.go.
//
// Environment, read once: DARKMIRROR_FAILPOINT=NAME or NAME:N dies at the
// first or Nth passage of NAME; DARKMIRROR_FAILPOINT_TRACE=FILE appends each
// passed name to FILE.
package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var state = sync.OnceValue(func() *points {
	p := &points{left: 1}
	name, nth, _ := strings.Cut(os.Getenv("DARKMIRROR_FAILPOINT"), ":")
	p.die = name
	if n, err := strconv.Atoi(nth); err == nil {
		p.left = n
	}
	if file := os.Getenv("DARKMIRROR_FAILPOINT_TRACE"); file != "" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			panic(err)
		}
		p.trace = f
	}
	return p
})

type points struct {
	mu    sync.Mutex
	die   string
	left  int
	trace *os.File
}

// Here marks a step; see the package comment.
func Here(name string) {
	p := state()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trace != nil {
		if _, err := p.trace.WriteString(name + "\n"); err != nil {
			panic(err)
		}
	}
	if name != p.die {
		return
	}
	if p.left--; p.left == 0 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {} // SIGKILL is on its way
	}
}
