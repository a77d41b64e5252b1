package clamav

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// A daemon is a clamd of the test. It finds streams that hold "bad" and the
// EICAR file, and reports archives that are nested too deep; the fields make
// it misbehave.
type daemon struct {
	version string
	blind   bool   // finds nothing
	silent  bool   // passes what exceeds its limits
	reply   string // in place of every verdict, with %d for the command's number
	limit   int    // StreamMaxLength
	hang    bool   // never answers a stream
	dieAt   int64  // at that stream, it goes away for good

	socket   string
	listener net.Listener
	streams  atomic.Int64
	mu       sync.Mutex
	conns    []net.Conn
}

func (d *daemon) start(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm") //nolint:usetesting // a test's own folder has too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	d.socket = filepath.Join(dir, "s")
	if d.listener, err = net.Listen("unix", d.socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	go func() {
		for {
			c, err := d.listener.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conns = append(d.conns, c)
			d.mu.Unlock()
			go d.serve(c)
		}
	}()
	return d
}

func (d *daemon) stop() {
	_ = d.listener.Close()
	d.hangUp()
}

// hangUp closes the connections, as clamd does with idle ones.
func (d *daemon) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.conns = nil
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
		switch cmd {
		case "zPING\x00":
			fmt.Fprint(c, "PONG\x00")
		case "zVERSION\x00":
			fmt.Fprint(c, d.version+"\x00")
		case "zIDSESSION\x00":
			session = true
			continue
		case "zINSTREAM\x00":
			n++
			if !d.instream(c, r, n) {
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

func (d *daemon) instream(c net.Conn, r *bufio.Reader, n int) bool {
	if at := d.streams.Add(1); d.dieAt > 0 && at >= d.dieAt {
		go d.stop()
		return false
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
			fmt.Fprint(c, "INSTREAM size limit exceeded. ERROR\x00")
			return false
		}
		if _, err := io.CopyN(&all, r, int64(size)); err != nil {
			return false
		}
	}
	if d.hang {
		_, _ = io.Copy(io.Discard, r)
		return false
	}
	probe := all.String() == eicar() || bytes.HasPrefix(all.Bytes(), []byte("PK"))
	switch {
	case d.reply != "" && !probe:
		if _, err := io.WriteString(c, strings.ReplaceAll(d.reply, "%d", fmt.Sprint(n))); err != nil {
			return false
		}
	case !d.blind && all.String() == eicar():
		fmt.Fprintf(c, "%d: stream: Eicar-Test-Signature FOUND\x00", n)
	case !d.silent && bytes.HasPrefix(all.Bytes(), []byte("PK")):
		fmt.Fprintf(c, "%d: stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\x00", n)
	case bytes.Contains(all.Bytes(), []byte("bad")):
		fmt.Fprintf(c, "%d: stream: Test.Bad FOUND\x00", n)
	default:
		fmt.Fprintf(c, "%d: stream: OK\x00", n)
	}
	return true
}

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fresh is the version text of a daemon with signatures of an hour ago.
const fresh = "ClamAV 1.4.6/27807/Sun Nov 22 11:00:00 2026"

func scanner(t *testing.T, c Config) *Scanner {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
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

func TestInspect(t *testing.T) {
	s := ready(t, (&daemon{version: fresh}).start(t), Config{MaxAge: 24 * time.Hour})
	if e := s.Engine(); e.Version != "1.4.6/27807" || !e.Dated.Equal(now.Add(-time.Hour)) || e.Name != "clamav" {
		t.Errorf("engine %+v", e)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			body, want := "something good", ""
			if i%2 == 0 {
				body, want = "something bad", "Test.Bad"
			}
			list, err := s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte(body), "a"))
			got := ""
			if len(list) == 1 && list[0].Kind == scan.KindMalware && list[0].Severity == scan.Critical {
				got = list[0].ID
			}
			if err != nil || got != want {
				t.Errorf("%s: %+v, %v, want %q", body, list, err, want)
			}
		})
	}
	wg.Wait()
}

// An opened archive is seen by its entries; folders, links and empty files
// have no bytes.
func TestInspectPassesOver(t *testing.T) {
	d := (&daemon{version: fresh}).start(t)
	s := ready(t, d, Config{})
	before := d.streams.Load()
	opened := walk.NewFile(walk.Zip, []byte("bad"), "a.zip")
	opened.Opened = true
	link := walk.NewFile(walk.Empty, nil, "l")
	link.Mode = os.ModeSymlink
	for _, f := range []*walk.File{opened, link, walk.NewFile(walk.Empty, nil, "empty")} {
		if list, err := s.Inspect(t.Context(), f); err != nil || list != nil {
			t.Errorf("%s: %+v, %v", f.Name(), list, err)
		}
	}
	if n := d.streams.Load() - before; n != 0 {
		t.Errorf("%d streams were sent", n)
	}
}

func TestStartRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		daemon *daemon
		config Config
		want   string
	}{
		"no socket":       {nil, Config{Socket: filepath.Join(dir, "nobody.sock")}, "does not answer"},
		"other program":   {&daemon{version: "Something 1"}, Config{}, "want ClamAV"},
		"old signatures":  {&daemon{version: "ClamAV 1.4.6/27000/Sun Nov  1 11:00:00 2026"}, Config{MaxAge: 24 * time.Hour}, "at most 24h"},
		"unknown data":    {&daemon{version: "ClamAV 1.4.6"}, Config{}, "which signatures it has is not known"},
		"no signatures":   {&daemon{version: fresh, blind: true}, Config{}, "EICAR"},
		"silent limits":   {&daemon{version: fresh, silent: true}, Config{}, "AlertExceedsMax"},
		"empty folder":    {&daemon{version: fresh}, Config{Database: dir}, "no signature file"},
		"folder not here": {&daemon{version: fresh}, Config{Database: filepath.Join(dir, "no")}, "no such file"},
		"odd date":        {&daemon{version: "ClamAV 1.4.6/27000/yesterday"}, Config{}, "date of its signatures"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.daemon != nil {
				c.config.Socket = c.daemon.start(t).socket
			}
			err := scanner(t, c.config).Start(t.Context(), now)
			if !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Start: %v, want ErrEngine with %q", err, c.want)
			}
		})
	}
}

// Nothing but the known replies is a verdict, and none of the others is clean.
func TestReplies(t *testing.T) {
	for reply, want := range map[string]string{
		"%d: stream: OK\x00":                                            "clean",
		"%d: stream: Some.Name FOUND\x00":                               "malware Some.Name",
		"%d: stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\x00":  "not-scanned CLAMAV-HEURISTICS-LIMITS-EXCEEDED-MAXFILESIZE",
		"%d: stream: Heuristics.Encrypted.Zip FOUND\x00":                "not-scanned CLAMAV-HEURISTICS-ENCRYPTED-ZIP",
		"%d: stream: Heuristics.Phishing.Email.SpoofedDomain FOUND\x00": "malware Heuristics.Phishing.Email.SpoofedDomain",
		"%d: stream: Can't allocate memory ERROR\x00":                   "error",
		"%d: stream:  FOUND\x00":                                        "error",
		"%d: stream: OK FOUND OK\x00":                                   "error",
		"7%d: stream: OK\x00":                                           "error", // of another command
		"stream: OK\x00":                                                "error",
		"%d: other: OK\x00":                                             "error",
		"\x00":                                                          "error",
		"%d: INSTREAM size limit exceeded. ERROR\x00":                   "not-scanned CLAMAV-STREAM-LIMIT",
		strings.Repeat("x", maxReply+10) + "\x00":                       "engine",
		"%d: COMMAND READ TIMED OUT\x00":                                "error",
	} {
		t.Run("", func(t *testing.T) {
			s := ready(t, (&daemon{version: fresh, reply: reply}).start(t), Config{})
			list, err := s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte("text"), "a"))
			got := "clean"
			switch {
			case errors.Is(err, scan.ErrEngine):
				got = "engine"
			case err != nil:
				got = "error"
			case len(list) == 1:
				got = list[0].Kind + " " + list[0].ID
			}
			if got != want {
				t.Errorf("%.60q: %s (%v), want %s", reply, got, err, want)
			}
		})
	}
}

// A connection that clamd has closed is not the end; a daemon that is gone is.
func TestConnections(t *testing.T) {
	d := (&daemon{version: fresh}).start(t)
	s := ready(t, d, Config{})
	d.hangUp()
	if list, err := s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte("bad"), "a")); err != nil || len(list) != 1 {
		t.Errorf("after idle connections were closed: %+v, %v", list, err)
	}
	d.stop()
	if _, err := s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte("bad"), "a")); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("without a daemon: %v, want ErrEngine", err)
	}
}

func TestKilledInTheMiddle(t *testing.T) {
	d := (&daemon{version: fresh, dieAt: 6}).start(t)
	s := ready(t, d, Config{})
	var err error
	for range 10 {
		var list []scan.Finding
		if list, err = s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte("good"), "a")); err != nil {
			break
		} else if list != nil {
			t.Fatalf("found %+v", list)
		}
	}
	if !errors.Is(err, scan.ErrEngine) {
		t.Errorf("after clamd was killed: %v, want ErrEngine", err)
	}
}

// clamd says that it has had enough and closes; the words are read although
// writing fails.
func TestStreamLimit(t *testing.T) {
	s := ready(t, (&daemon{version: fresh, limit: 300 << 10}).start(t), Config{})
	list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, make([]byte, 8<<20), "a"))
	if err != nil || len(list) != 1 || list[0].Kind != scan.KindNotScanned || !strings.Contains(list[0].Text, "StreamMaxLength") {
		t.Errorf("%+v, %v, want not-scanned for StreamMaxLength", list, err)
	}
	if list, err = s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte("bad"), "a")); err != nil || len(list) != 1 {
		t.Errorf("the next file: %+v, %v", list, err)
	}
}

// A file over the bound is sent in windows that overlap, so that what lies
// across a border is seen whole.
func TestWindows(t *testing.T) {
	const most = 64 << 10
	d := (&daemon{version: fresh}).start(t)
	s := ready(t, d, Config{MaxStream: most})
	for _, at := range []int{0, most - 1, most - 2, most, 2*most - most/4, 5*most - 3, 5*most + 7} {
		body := bytes.Repeat([]byte("."), 5*most+10)
		copy(body[at:], "bad")
		list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, body, "a"))
		if err != nil || len(list) != 1 {
			t.Errorf("at %d: %+v, %v", at, list, err)
		}
	}
	before := d.streams.Load()
	if list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, make([]byte, 5*most), "a")); err != nil || list != nil {
		t.Errorf("clean: %+v, %v", list, err)
	}
	// Windows start every 48 KiB of 320.
	if n := d.streams.Load() - before; n != 7 {
		t.Errorf("%d windows, want 7", n)
	}
}

func TestTimeoutAndCancel(t *testing.T) {
	d := (&daemon{version: fresh}).start(t)
	s := ready(t, d, Config{Timeout: 50 * time.Millisecond})
	d.hang = true
	if _, err := s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte("x"), "a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a daemon that hangs: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Inspect(ctx, walk.NewFile(walk.Text, []byte("x"), "a")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReadData(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string, at time.Time) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("own.ndb", "x:0:*:00", now.Add(-48*time.Hour))
	write("freshclam.dat", "not a signature", now)
	a, err := readData(dir)
	if err != nil || !a.dated.Equal(now.Add(-48*time.Hour)) || a.digest.IsZero() {
		t.Fatalf("%+v, %v", a, err)
	}
	write("freshclam.dat", "other", now)
	if b, err := readData(dir); err != nil || b.digest != a.digest {
		t.Errorf("a file that is no signature changes the digest: %v", err)
	}
	write("own.ndb", "x:0:*:01", now.Add(-48*time.Hour))
	if b, err := readData(dir); err != nil || b.digest == a.digest {
		t.Errorf("another signature leaves the digest: %v", err)
	}
	head := fmt.Sprintf("ClamAV-VDB:07 Nov 2026 08-25 -0400:27807:2000000:90:md5:sig:builder:%d", now.Unix())
	write("daily.cvd", head+strings.Repeat(" ", cvdHeader-len(head))+"body", now.Add(-1000*time.Hour))
	if b, err := readData(dir); err != nil || !b.dated.Equal(now) {
		t.Errorf("date of the header: %+v, %v", b, err)
	}
	write("daily.cvd", "short", now)
	if _, err := readData(dir); err == nil {
		t.Error("a .cvd without a header was read")
	}
	write("daily.cvd", strings.Repeat("x", 600), now)
	if _, err := readData(dir); err == nil {
		t.Error("a .cvd with another header was read")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{{}, {Socket: "/s", Program: "/p"}, {Program: "/p"}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"1: stream: OK", "1: stream: A FOUND", "INSTREAM size limit exceeded. ERROR", "ClamAV 1.4.6/27807/Sun Nov 22 11:00:00 2026", "ClamAV-VDB:07 Nov 2026 08-25 -0400:1:2:3:m:s:b:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseReply(s, 1)
		if err == nil && v == (verdict{}) && s != "1: stream: OK" {
			t.Errorf("%q is taken for clean", s)
		}
		_, _, _ = parseVersion(s)
		_, _ = parseHeader(s)
	})
}

// The real clamd, of Debian, with a database of our own.
func TestRealClamd(t *testing.T) {
	dir, err := os.MkdirTemp("", "dm") //nolint:usetesting // as above: a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat("/usr/sbin/clamd"); err != nil && os.Getenv("DARKMIRROR_NEED_CLAMD") == "" {
		t.Skip("clamd is not installed (Debian: clamav-daemon)")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "../../testdata/scan/clamd.sh", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		// The script ends its daemon.
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	for range 300 {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	c := Config{Socket: filepath.Join(dir, "clamd.sock"), Database: filepath.Join(dir, "db"), MaxAge: time.Hour, MaxStream: 1 << 20}
	s := scanner(t, c)
	if err := s.Start(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if e := s.Engine(); !strings.HasPrefix(e.Version, "1.") || e.Database.IsZero() || time.Since(e.Dated) > time.Hour {
		t.Errorf("engine %+v", e)
	}
	marker := "darkmirror-" + "test-" + "marker-" + "7d1f0c"
	across := bytes.Repeat([]byte("."), 3<<20)
	copy(across[1<<20-8:], marker)
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"eicar":                 {[]byte(eicar()), "Eicar-Test-Signature.UNOFFICIAL"},
		"marker":                {[]byte("text " + marker), "Darkmirror.Test.Marker.UNOFFICIAL"},
		"clean":                 {[]byte("text"), ""},
		"clean, several chunks": {make([]byte, 900<<10), ""},
		"clean, windows":        {make([]byte, 3<<20), ""},
		"across a border":       {across, "Darkmirror.Test.Marker.UNOFFICIAL"},
	} {
		list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, c.body, name))
		got := ""
		if len(list) > 0 {
			got = list[0].ID
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %q", name, list, err, c.want)
		}
	}
	stop()
	if _, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, []byte("text"), "a")); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("after clamd ended: %v, want ErrEngine", err)
	}
	// The same files, by the program.
	if _, err := os.Stat("/usr/bin/clamscan"); err != nil {
		t.Fatal("clamscan is missing beside clamd (Debian: clamav)")
	}
	p := scanner(t, Config{Program: "/usr/bin/clamscan", Database: c.Database})
	if err := p.Start(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]int{"text": 0, marker: 1} {
		if list, err := p.Inspect(t.Context(), walk.NewFile(walk.Data, []byte(body), "a")); err != nil || len(list) != want {
			t.Errorf("clamscan: %+v, %v, want %d", list, err, want)
		}
	}
}
