package clamav

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/scan/walk"
)

// A daemon is a clamd of the test. It finds streams that hold "bad" and the
// EICAR file, and reports archives that are nested too deep or encrypted; the
// fields make it misbehave.
type daemon struct {
	version  string
	commands string // in place of those that are needed
	blind    bool   // finds nothing
	silent   bool   // passes what exceeds its limits
	trusting bool   // passes what is encrypted
	reply    string // in place of every verdict, with %d for the command's number
	limit    int    // StreamMaxLength
	plain    bool   // does not number its word about that
	slow     time.Duration
	hang     atomic.Bool // never answers a stream
	deaf     atomic.Bool // never answers anything
	dieAt    int64       // at that stream, it goes away for good
	dropAt   int64       // from that stream on, it hangs up in the middle, and lives

	socket   string
	listener net.Listener
	streams  atomic.Int64
	conns    atomic.Int64
	mu       sync.Mutex
	open     []net.Conn
}

// shortDir is a folder whose name leaves room for a socket.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "dm") //nolint:usetesting // a test's own folder has too long a name for a socket
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func (d *daemon) start(t *testing.T) *daemon {
	t.Helper()
	d.socket = filepath.Join(shortDir(t), "s")
	var err error
	if d.listener, err = net.Listen("unix", d.socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	go func() {
		for {
			c, err := d.listener.Accept()
			if err != nil {
				return
			}
			d.conns.Add(1)
			d.mu.Lock()
			d.open = append(d.open, c)
			d.mu.Unlock()
			go d.serve(c)
		}
	}()
	return d
}

func (d *daemon) stop() {
	_ = d.listener.Close()
	d.hangUp("")
}

// hangUp closes the connections with a word, as clamd does with idle ones.
func (d *daemon) hangUp(word string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.open {
		_, _ = io.WriteString(c, word)
		_ = c.Close()
	}
	d.open = nil
}

func (d *daemon) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	session, n := false, 0
	for {
		cmd, err := r.ReadString(0)
		if err != nil {
			return
		}
		if d.deaf.Load() {
			_, _ = io.Copy(io.Discard, r)
			time.Sleep(time.Minute)
			return
		}
		switch cmd {
		case "zPING\x00":
			fmt.Fprint(c, "PONG\x00")
		case "zVERSION\x00":
			fmt.Fprint(c, d.version+"\x00")
		case "zVERSIONCOMMANDS\x00":
			commands := d.commands
			if commands == "" {
				commands = "SCAN QUIT RELOAD PING CONTSCAN VERSIONCOMMANDS VERSION END STATS IDSESSION INSTREAM"
			}
			fmt.Fprint(c, d.version+"| COMMANDS: "+commands+"\x00")
		case "zIDSESSION\x00":
			session = true
			continue
		case "zINSTREAM\x00":
			n++
			if !d.instream(c, r, n, session) {
				return
			}
		default:
			fmt.Fprint(c, "UNKNOWN COMMAND\x00")
		}
		if !session {
			return
		}
	}
}

func (d *daemon) instream(c net.Conn, r *bufio.Reader, n int, session bool) bool {
	if session {
		at := d.streams.Add(1)
		if d.dieAt > 0 && at >= d.dieAt {
			_ = d.listener.Close()
			go d.stop()
			return false
		}
		if d.dropAt > 0 && at >= d.dropAt {
			return false
		}
	}
	var all bytes.Buffer
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return false
		}
		size := binary.BigEndian.Uint32(head[:])
		if size == 0 {
			break
		}
		if d.limit > 0 && all.Len()+int(size) > d.limit {
			if session && !d.plain {
				fmt.Fprintf(c, "%d: ", n)
			}
			fmt.Fprint(c, "INSTREAM size limit exceeded. ERROR\x00")
			return false
		}
		if _, err := io.CopyN(&all, r, int64(size)); err != nil {
			return false
		}
	}
	if d.hang.Load() {
		_, _ = io.Copy(io.Discard, r)
		return false
	}
	time.Sleep(d.slow)
	return d.judge(c, n, all.Bytes())
}

func (d *daemon) judge(c net.Conn, n int, body []byte) bool {
	archive := bytes.HasPrefix(body, []byte("PK"))
	encrypted := archive && body[6]&1 != 0
	test := string(body) == eicar()
	found := ""
	switch {
	case d.reply != "" && !archive && !test:
		text := strings.ReplaceAll(d.reply, "%d", fmt.Sprint(n))
		_, err := io.WriteString(c, text)
		return err == nil && strings.HasSuffix(text, "\x00") // one that breaks off is its last
	case test && !d.blind:
		found = "Eicar-Test-Signature"
	case encrypted && !d.trusting:
		found = "Heuristics.Encrypted.Zip"
	case archive && !encrypted && !d.silent:
		found = "Heuristics.Limits.Exceeded.MaxRecursion"
	case bytes.Contains(body, []byte("locked")):
		found = "Heuristics.Encrypted.PDF"
		if bytes.Contains(body, []byte("bad")) {
			found = "Test.Bad"
		}
	case bytes.Contains(body, []byte("bad")):
		found = "Test.Bad"
	}
	text := "OK"
	if found != "" {
		text = found + " FOUND"
	}
	fmt.Fprintf(c, "%d: stream: %s\x00", n, text)
	return true
}

// now is the time of the tests, to the second as clamd tells it.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// said is how a daemon here says its version with signatures of that time.
func said(number int, at time.Time) string {
	return fmt.Sprintf("ClamAV 1.4.6/%d/%s", number, at.In(time.Local).Format(time.ANSIC))
}

// fresh is the version text of a daemon with signatures of an hour ago.
var fresh = said(27807, now.Add(-time.Hour))

func scanner(tb testing.TB, c Config) *Scanner {
	tb.Helper()
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			tb.Error(err)
		}
	})
	return s
}

func ready(t *testing.T, d *daemon, c Config) *Scanner {
	t.Helper()
	c.Socket = d.socket
	s := scanner(t, c)
	if err := s.Start(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	return s
}

// text is a file of these bytes.
func text(body string) *walk.File { return walk.NewFile(walk.Text, []byte(body), "a") }
