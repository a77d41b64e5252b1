// Package clamav has files looked at by ClamAV: by a clamd that the operator
// runs, over its Unix socket, or by the clamscan program where there is none.
//
// It follows the protocol of clamd(8): commands with the prefix z, IDSESSION,
// INSTREAM with chunks of a big-endian length and so many bytes. Signature
// files are looked at as far as the header of .cvd and .cld goes.
//
// Invariants:
//   - It fails closed. Before a run, the engine must answer, find the EICAR
//     test file, report what exceeds its limits, and have signatures that are
//     recent enough; otherwise no file is looked at ([scan.ErrEngine]).
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
// [maxReply] bytes.
package clamav

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

const (
	name = "clamav"
	// settings is raised when what is sent, or how a reply is read, changes.
	settings = "files/1"
	// maxStream is what is sent as one file: below clamd's own 2^31-1 and the
	// StreamMaxLength of 2000M that docs/scan.md asks for.
	maxStream = 1900 << 20
	// window and overlap are of larger files.
	window  = 1 << 30
	overlap = 16 << 20
	// connections is how many files clamd gets at once: with 4 it does more
	// than twice of what it does with one, with 8 no more.
	connections = 4
	// timeout is for one file; clamd's own MaxScanTime is ten minutes in the
	// configuration that docs/scan.md asks for.
	timeout = 15 * time.Minute
)

// Config says where the engine is.
type Config struct {
	Socket  string // path of clamd's Unix socket
	Program string // path of clamscan, if there is no socket
	// Database is the folder of the signature files: digested and dated for
	// the record, and given to clamscan, which needs it.
	Database string
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
	config Config
	slots  chan struct{} // one for each file that is being looked at

	mu      sync.Mutex
	idle    []*session // connections that wait
	version string
	data    data
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
	}
	c.Connections = cmp.Or(c.Connections, connections)
	c.Timeout = cmp.Or(c.Timeout, timeout)
	c.MaxStream = cmp.Or(c.MaxStream, maxStream)
	return &Scanner{config: c, slots: make(chan struct{}, c.Connections)}, nil
}

// Engine is known after Start.
func (s *Scanner) Engine() scan.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return scan.Engine{Name: name, Version: s.version, Database: s.data.digest, Dated: s.data.dated, Settings: settings}
}

// ByContent is true: a file's name means nothing to ClamAV here.
func (s *Scanner) ByContent() bool { return true }

// notReady makes an error of the engine.
func notReady(format string, args ...any) error {
	return fmt.Errorf("%w: %w", scan.ErrEngine, fmt.Errorf(format, args...))
}

// Start asks whether the engine can work. Its errors are [scan.ErrEngine].
func (s *Scanner) Start(ctx context.Context, now time.Time) error {
	d, err := readData(s.config.Database)
	if err != nil {
		return notReady("signatures: %w", err)
	}
	version, dated, err := s.askVersion(ctx)
	if err != nil {
		return err
	}
	if !dated.IsZero() {
		d.dated = dated // what the engine has loaded, not what lies in a folder
	}
	if d.dated.IsZero() {
		// Verdicts are kept for the signatures that they were made with.
		return notReady("which signatures it has is not known: it has none of the official ones; name the folder of its files")
	}
	if s.config.MaxAge > 0 {
		if age := now.Sub(d.dated); age > s.config.MaxAge {
			return notReady("its signatures are of %s, %s old; at most %s are allowed", d.dated.UTC().Format(time.RFC3339), age.Round(time.Minute), s.config.MaxAge)
		}
	}
	s.mu.Lock()
	s.version, s.data = version, d
	s.mu.Unlock()
	return s.selfTest(ctx)
}

func (s *Scanner) askVersion(ctx context.Context) (version string, dated time.Time, err error) {
	text := ""
	if s.config.Program != "" {
		text, err = s.programVersion(ctx)
	} else {
		if text, err = s.ask(ctx, "PING"); err == nil && text != "PONG" {
			err = fmt.Errorf("%s: answers PING with %s", s.config.Socket, quote(text))
		}
		if err == nil {
			text, err = s.ask(ctx, "VERSION")
		}
	}
	if err != nil {
		return "", dated, notReady("%w", err)
	}
	return parseVersion(text)
}

// parseVersion reads "ClamAV 1.4.6" or "ClamAV 1.4.6/27807/Mon Jan  2
// 15:04:05 2006", whose last part is the date of the official signatures.
func parseVersion(text string) (version string, dated time.Time, err error) {
	rest, ok := strings.CutPrefix(text, "ClamAV ")
	if !ok {
		return "", dated, notReady("it calls itself %s, want ClamAV", quote(text))
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) == 3 {
		if dated, err = time.Parse(time.ANSIC, parts[2]); err != nil {
			return "", dated, notReady("date of its signatures: %w", err)
		}
		return parts[0] + "/" + parts[1], dated, nil
	}
	return rest, dated, nil
}

// selfTest sends what must be found and what must be reported.
func (s *Scanner) selfTest(ctx context.Context) error {
	v, err := s.look(ctx, strings.NewReader(eicar()), int64(len(eicar())))
	if err != nil {
		return asEngine(err)
	}
	if v.found == "" {
		return notReady("it does not find the EICAR test file: it has no signatures, or not those that it should")
	}
	nested := nestedZips(nesting)
	if v, err = s.look(ctx, strings.NewReader(nested), int64(len(nested))); err != nil {
		return asEngine(err)
	}
	if v.found == "" {
		return notReady("it passes in silence what exceeds its limits; set AlertExceedsMax yes in clamd.conf")
	}
	return nil
}

func asEngine(err error) error {
	if errors.Is(err, scan.ErrEngine) || errors.Is(err, context.Canceled) {
		return err
	}
	return notReady("%w", err)
}

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
	sent := int64(0)
	for start := int64(0); ; {
		n := f.Size - start
		if f.Size > s.config.MaxStream {
			n = min(n, s.windowSize())
		}
		v, err := s.look(ctx, io.NewSectionReader(f.Reader(), start, n), n)
		if err != nil {
			return nil, err
		}
		if list := s.findings(v, n); list != nil {
			return list, nil
		}
		sent = start + n
		if sent == f.Size {
			break
		}
		start = sent - s.overlapSize()
	}
	if sent != f.Size {
		return nil, fmt.Errorf("%d of %d bytes were sent", sent, f.Size)
	}
	return nil, nil
}

// windowSize and overlapSize shrink with MaxStream, which tests set.
func (s *Scanner) windowSize() int64  { return min(window, s.config.MaxStream) }
func (s *Scanner) overlapSize() int64 { return min(overlap, s.windowSize()/4) }

// findings turns a verdict on n bytes into findings; nil for a clean one.
func (s *Scanner) findings(v verdict, n int64) []scan.Finding {
	notScanned := func(id, text string) []scan.Finding {
		return []scan.Finding{{Kind: scan.KindNotScanned, ID: id, Severity: scan.High, Text: text}}
	}
	switch {
	case v.refused:
		return notScanned("CLAMAV-STREAM-LIMIT", fmt.Sprintf("clamd takes no stream of %d bytes; raise StreamMaxLength in clamd.conf, at most to 2000M", n))
	case v.found == "":
		return nil
	case strings.HasPrefix(v.found, "Heuristics.Limits."), strings.HasPrefix(v.found, "Heuristics.Encrypted."), strings.HasPrefix(v.found, "Heuristics.Broken."):
		return notScanned("CLAMAV-"+strings.ToUpper(strings.ReplaceAll(v.found, ".", "-")), "ClamAV could not look at all of it: "+v.found)
	}
	return []scan.Finding{{Kind: scan.KindMalware, ID: v.found, Severity: scan.Critical, Text: "malware, says ClamAV " + s.Engine().Version}}
}

// look has one stream looked at, by the daemon or the program.
func (s *Scanner) look(ctx context.Context, r io.ReadSeeker, size int64) (verdict, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return verdict{}, context.Cause(ctx)
	}
	defer func() { <-s.slots }()
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	if s.config.Program != "" {
		return s.run(ctx, r)
	}
	return s.stream(ctx, r, size)
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

// quote clips and escapes text of the other side.
func quote(s string) string { return fmt.Sprintf("%.200q", s) }

// eicar is the test file that every antivirus finds, put together so that
// this source is no finding itself.
func eicar() string {
	return "X5O!P%@AP[4" + `\PZX54(P^)7CC)7}$` + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*"
}

var (
	_ scan.Inspector = (*Scanner)(nil)
	_ scan.Starter   = (*Scanner)(nil)
)
