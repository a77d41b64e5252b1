// Package clamav has files looked at by ClamAV: by a clamd that the operator
// runs, over its Unix socket, or by the clamscan program where there is none.
//
// It follows the protocol of clamd(8): commands with the prefix z, IDSESSION,
// INSTREAM with chunks of a big-endian length and so many bytes. Of signature
// files the header of .cvd, .cld and .cud is read, as clamav-cvd(5) has it.
//
// Invariants:
//   - It fails closed. Before a run, the engine must answer, find the EICAR
//     test file, report what exceeds its limits, and have signatures that are
//     known and recent enough; otherwise no file is looked at
//     ([scan.ErrEngine]).
//   - Every byte of a file that is no opened archive is sent, and the number
//     of bytes sent is compared with the file's size.
//   - A reply that is not one of those that are known is an error. "Limits",
//     "Encrypted" and "Broken" are neither malware nor clean: they are
//     [scan.KindNotScanned].
//   - Nothing is executed but the configured program, without a shell and
//     without an environment.
//
// Limits: clamd takes no file of 2 GiB or more; larger ones are sent in
// windows that overlap by [overlap] bytes, so a signature that spans more is
// not found in them, nor one that needs the file's start. A reply has at most
// [maxReply] bytes. What clamd has loaded is known by the number of the
// official signatures alone: for others, it must have read its folder again
// since that changed.
package clamav

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

const (
	name = "clamav"
	// settings is raised when what is sent, or how a reply is read, changes.
	settings = "files/2"
	// maxStream is what is sent as one file: 1.9 GiB, below clamd's own
	// 2^31-1 and the StreamMaxLength of 2000M that docs/scan.md asks for.
	maxStream = 19 << 30 / 10
	// hardStream is clamd's own bound, whatever its configuration says.
	hardStream = 1<<31 - 1
	// window and overlap are of larger files.
	window  = 1 << 30
	overlap = 16 << 20
	// connections is how many files clamd gets at once: on two cores, with 4
	// it does a third to two thirds more than with one, with 8 no more.
	connections = 4
	// programs is how many clamscan run at once: each loads all signatures,
	// which is more than a gigabyte of memory with the official ones.
	programs = 1
	// timeout is for one file; clamd's own MaxScanTime is ten minutes in the
	// configuration that docs/scan.md asks for.
	timeout = 15 * time.Minute
)

// Config says where the engine is.
type Config struct {
	Socket  string // path of clamd's Unix socket
	Program string // absolute path of clamscan, if there is no socket
	// Database is the folder of the signature files: digested and dated for
	// the record, and given to clamscan, which needs it. With clamd it may be
	// left out where clamd has official signatures and so numbers them.
	Database string
	// Scratch is where clamscan puts what it reads; empty for its own choice.
	Scratch string
	// MaxAge bounds the age of the signatures; zero for no bound.
	MaxAge time.Duration
	// Connections, Timeout and MaxStream have defaults.
	Connections int
	Timeout     time.Duration
	MaxStream   int64
}

// A Scanner is an [scan.Inspector] and a [scan.Starter]. Its methods may be
// called from several goroutines at once.
type Scanner struct {
	config   Config
	patience time.Duration // for what needs no looking at a file
	slots    chan struct{} // one for each file that is being looked at

	mu       sync.Mutex
	idle     []*session // connections that wait
	engine   scan.Engine
	limit    streamLimit
	warnings []string
}

// New makes a scanner; nothing is contacted before Start.
func New(c Config) (*Scanner, error) {
	switch {
	case c.Socket == "" && c.Program == "":
		return nil, errors.New("clamav: neither a socket nor a program is set")
	case c.Program != "" && c.Socket != "":
		return nil, errors.New("clamav: a socket and a program are set; want one of them")
	case c.Program != "" && c.Database == "":
		return nil, errors.New("clamav: clamscan needs a folder of signatures")
	case c.Program != "" && !filepath.IsAbs(c.Program):
		return nil, fmt.Errorf("clamav: program %q, want an absolute path", c.Program)
	case c.MaxStream < 0 || c.MaxStream > hardStream:
		return nil, fmt.Errorf("clamav: streams of %d bytes, want at most %d, which ClamAV takes", c.MaxStream, hardStream)
	case c.Connections < 0 || c.Timeout < 0 || c.MaxAge < 0:
		return nil, fmt.Errorf("clamav: %d connections, timeout %s, age %s: want none negative", c.Connections, c.Timeout, c.MaxAge)
	}
	if c.Program != "" {
		c.Connections = cmp.Or(c.Connections, programs)
	}
	c.Connections = cmp.Or(c.Connections, connections)
	c.Timeout = cmp.Or(c.Timeout, timeout)
	c.MaxStream = cmp.Or(c.MaxStream, maxStream)
	return &Scanner{
		config:   c,
		patience: askTimeout,
		slots:    make(chan struct{}, c.Connections),
		engine:   scan.Engine{Name: name, Settings: settings},
	}, nil
}

// Engine is known after Start.
func (s *Scanner) Engine() scan.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine
}

// Warnings are what Start found that stops no run but should be mended, each
// on one line.
func (s *Scanner) Warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.warnings)
}

// ByContent is true: a file's name means nothing to ClamAV here.
func (s *Scanner) ByContent() bool { return true }

// A verdict is what ClamAV says of one stream: what it found, or nothing.
type verdict struct {
	found string
	// refused is set where it would not take so much.
	refused bool
}

// Inspect sends one file. Archives that the walker has opened are not sent:
// their entries are.
func (s *Scanner) Inspect(ctx context.Context, f *walk.File) ([]scan.Finding, error) {
	if f.Opened || !f.Regular() || f.Size == 0 {
		return nil, nil
	}
	length := f.Size
	if f.Size > s.config.MaxStream {
		length = s.windowSize()
	}
	var list []scan.Finding
	end := int64(0) // up to which every byte was sent
	for start := int64(0); ; start = end - s.overlapSize() {
		n := min(length, f.Size-start)
		v, sent, err := s.look(ctx, io.NewSectionReader(f.Reader(), start, n), n)
		if err != nil {
			return nil, err
		}
		found, refused := s.finding(v, n), v.refused
		if found == nil && sent != n {
			found, refused = notScanned("CLAMAV-SHORT", fmt.Sprintf("ClamAV got %d of %d bytes from byte %d on", sent, n, start)), true
		}
		if found != nil {
			if length < f.Size {
				found.Text += fmt.Sprintf(" (in bytes %d to %d)", start, start+n)
			}
			list = add(list, *found)
		}
		end = start + n
		// Malware settles it, and what was refused once is refused again.
		if end == f.Size || refused || found != nil && found.Kind == scan.KindMalware {
			return list, nil
		}
	}
}

// add keeps one finding of each identifier.
func add(list []scan.Finding, f scan.Finding) []scan.Finding {
	if slices.ContainsFunc(list, func(x scan.Finding) bool { return x.ID == f.ID }) {
		return list
	}
	return append(list, f)
}

// windowSize and overlapSize shrink with MaxStream, which tests set.
func (s *Scanner) windowSize() int64  { return min(window, s.config.MaxStream) }
func (s *Scanner) overlapSize() int64 { return min(overlap, s.windowSize()/4) }

func notScanned(id, text string) *scan.Finding {
	return &scan.Finding{Kind: scan.KindNotScanned, ID: id, Severity: scan.High, Text: text}
}

// finding is what a verdict on n bytes amounts to; nil for a clean one.
func (s *Scanner) finding(v verdict, n int64) *scan.Finding {
	switch {
	case v.refused:
		return notScanned("CLAMAV-STREAM-LIMIT", fmt.Sprintf("clamd takes no stream of %d bytes%s; set StreamMaxLength 2000M in clamd.conf", n, s.known()))
	case v.found == "":
		return nil
	case strings.HasPrefix(v.found, "Heuristics.Limits."), strings.HasPrefix(v.found, "Heuristics.Encrypted."), strings.HasPrefix(v.found, "Heuristics.Broken."):
		return notScanned("CLAMAV-"+strings.ToUpper(strings.ReplaceAll(v.found, ".", "-")), "ClamAV could not look at all of it: "+v.found)
	}
	return &scan.Finding{Kind: scan.KindMalware, ID: v.found, Severity: scan.Critical, Text: "malware, says ClamAV " + s.Engine().Version}
}

// known tells the limit that Start has found out, if it did.
func (s *Scanner) known() string {
	if l := s.streamLimit(); l.refused > 0 {
		return fmt.Sprintf(", at most about %d MiB", l.taken>>20)
	}
	return ""
}

func (s *Scanner) streamLimit() streamLimit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit
}

// look has one stream looked at, by the daemon or the program. sent counts
// the bytes that went out for a verdict.
func (s *Scanner) look(ctx context.Context, r io.ReadSeeker, size int64) (v verdict, sent int64, err error) {
	if l := s.streamLimit(); l.refused > 0 && size >= l.refused {
		return verdict{refused: true}, 0, nil // as it would say after all the bytes
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return v, 0, context.Cause(ctx)
	}
	defer func() { <-s.slots }()
	bound, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	if s.config.Program != "" {
		v, sent, err = s.run(bound, r)
	} else {
		v, sent, err = s.stream(bound, r, size)
	}
	switch {
	case err == nil:
		return v, sent, nil
	case ctx.Err() != nil:
		return verdict{}, 0, context.Cause(ctx)
	case bound.Err() != nil && !errors.Is(err, scan.ErrEngine):
		return verdict{}, 0, s.late(ctx, size)
	}
	return verdict{}, 0, err
}

// late says what to make of a verdict that did not come in time: a file that
// takes too long holds itself up, a daemon that hangs holds everything up.
func (s *Scanner) late(ctx context.Context, size int64) error {
	err := fmt.Errorf("no verdict on %d bytes within %s: %w", size, s.config.Timeout, context.DeadlineExceeded)
	if s.config.Program == "" {
		if perr := s.ping(ctx); perr != nil {
			return notReady("%w; and %w", err, perr)
		}
	}
	return err
}

// Close gives the connections up.
func (s *Scanner) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.idle {
		errs = append(errs, c.conn.Close())
	}
	s.idle = nil
	return errors.Join(errs...)
}

// notReady makes an error of the engine.
func notReady(format string, args ...any) error {
	return fmt.Errorf("%w: %w", scan.ErrEngine, fmt.Errorf(format, args...))
}

// quote clips and escapes text of the other side.
func quote(s string) string { return fmt.Sprintf("%.200q", s) }

var (
	_ scan.Inspector = (*Scanner)(nil)
	_ scan.Starter   = (*Scanner)(nil)
)
