package clamav

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// The tests here are of the real clamd, as Debian has it, with a database of
// our own. It is found by DARKMIRROR_CLAMD or at its usual place. Without it
// they are skipped, unless DARKMIRROR_NEED_CLAMD is set.

// marker is what the signature Darkmirror.Test.Marker of clamd.sh finds.
var marker = "darkmirror-" + "test-" + "marker-" + "7d1f0c"

// A realClamd is one that runs.
type realClamd struct {
	socket   string
	database string
	dir      string
	stop     func()
}

func needClamd(tb testing.TB) {
	tb.Helper()
	path := os.Getenv("DARKMIRROR_CLAMD")
	if path == "" {
		path = "/usr/sbin/clamd"
	}
	if _, err := os.Stat(path); err == nil {
		return
	}
	if os.Getenv("DARKMIRROR_NEED_CLAMD") != "" {
		tb.Fatalf("%s is missing (Debian: clamav-daemon)", path)
	}
	tb.Skipf("%s is missing (Debian: clamav-daemon)", path)
}

// startClamd runs one with lines of configuration and signature files of the
// test's own.
func startClamd(tb testing.TB, extra string, signatures ...string) *realClamd {
	tb.Helper()
	needClamd(tb)
	dir := shortDir(tb)
	c := &realClamd{socket: filepath.Join(dir, "clamd.sock"), database: filepath.Join(dir, "db"), dir: dir}
	writeFile(tb, filepath.Join(dir, "extra.conf"), extra, time.Now())
	for _, path := range signatures {
		body, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		writeFile(tb, filepath.Join(c.database, filepath.Base(path)), string(body), time.Now())
	}
	cmd := exec.CommandContext(tb.Context(), "sh", "../../testdata/scan/clamd.sh", dir)
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	// The script ends its daemon, unless it is killed. It is told once.
	interrupt := sync.OnceValue(func() error { return cmd.Process.Signal(os.Interrupt) })
	cmd.Cancel = interrupt
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends is told by what it says
		close(ended)
	}()
	c.stop = sync.OnceFunc(func() {
		_ = interrupt() // it may have ended
		<-ended
	})
	tb.Cleanup(c.stop)
	for {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			return c
		}
		select {
		case <-ended:
			tb.Fatalf("clamd does not start:\n%s", &words)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill ends the daemon as if it had crashed.
func (c *realClamd) kill(tb testing.TB) {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "clamd.pid"))
	if err != nil {
		tb.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		tb.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		tb.Error(err)
	}
}

func (c *realClamd) ready(tb testing.TB, cfg Config) *Scanner {
	tb.Helper()
	cfg.Socket, cfg.Database = c.socket, c.database
	s := scanner(tb, cfg)
	if err := s.Start(tb.Context(), time.Now()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// found names the findings of an inspection.
func found(tb testing.TB, s *Scanner, body []byte) string {
	tb.Helper()
	list, err := s.Inspect(tb.Context(), walk.NewFile(walk.Data, body, "a"))
	if err != nil {
		return "error: " + err.Error()
	}
	names := make([]string, len(list))
	for i, f := range list {
		names[i] = f.Kind + " " + f.ID
	}
	return strings.Join(names, ", ")
}

const (
	isEicar  = "malware Eicar-Test-Signature.UNOFFICIAL"
	isMarker = "malware Darkmirror.Test.Marker.UNOFFICIAL"
)

func TestRealClamd(t *testing.T) {
	c := startClamd(t, "")
	s := c.ready(t, Config{MaxAge: time.Hour, MaxStream: 1 << 20})
	if e := s.Engine(); !strings.HasPrefix(e.Version, "1.") || e.Database.IsZero() || time.Since(e.Dated) > time.Hour {
		t.Errorf("engine %+v", e)
	}
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	// Windows of 1 MiB start every 768 KiB.
	at := func(n int) []byte {
		b := bytes.Repeat([]byte("."), 3<<20)
		copy(b[n:], marker)
		return b
	}
	for name, x := range map[string]struct {
		body []byte
		want string
	}{
		"eicar":                 {[]byte(eicar()), isEicar},
		"marker":                {[]byte("text " + marker), isMarker},
		"clean":                 {[]byte("text"), ""},
		"one byte":              {[]byte("x"), ""},
		"just one chunk":        {make([]byte, chunk-len(instream)-8), ""},
		"a byte more":           {make([]byte, chunk-len(instream)-7), ""},
		"clean, several chunks": {make([]byte, 900<<10), ""},
		"just one stream":       {make([]byte, 1<<20), ""},
		"clean, windows":        {make([]byte, 3<<20), ""},
		"across a border":       {at(1<<20 - 8), isMarker},
		"in the overlap":        {at(768<<10 - 8), isMarker},
		"in the last window":    {at(3<<20 - len(marker)), isMarker},
		"encrypted":             {[]byte(encryptedZip()), "not-scanned CLAMAV-HEURISTICS-ENCRYPTED-ZIP"},
		"too deep":              {[]byte(nestedZips(nesting)), "not-scanned CLAMAV-HEURISTICS-LIMITS-EXCEEDED-MAXRECURSION"},
	} {
		if got := found(t, s, x.body); got != x.want {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
	c.stop()
	if _, err := s.Inspect(t.Context(), text("text")); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("after clamd ended: %v, want ErrEngine", err)
	}
	if err := s.Start(t.Context(), time.Now()); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("start without a socket: %v, want ErrEngine", err)
	}
}

func TestRealStreamLimit(t *testing.T) {
	c := startClamd(t, "StreamMaxLength 3M\nAlertEncrypted no\n")
	s := c.ready(t, Config{})
	if got, want := s.streamLimit(), (streamLimit{3 << 20, 4 << 20}); got != want {
		t.Errorf("found the limit %+v, want %+v", got, want)
	}
	if w := strings.Join(s.Warnings(), "\n"); !strings.Contains(w, "about 3 MiB") || !strings.Contains(w, "AlertEncrypted") || len(s.Warnings()) != 2 {
		t.Errorf("warnings %q, want one for each of both settings", w)
	}
	for size, want := range map[int]string{
		3 << 20:     "",
		3<<20 + 1:   "not-scanned CLAMAV-STREAM-LIMIT", // clamd hangs up in the middle
		3<<20 + 700: "not-scanned CLAMAV-STREAM-LIMIT",
		9 << 20:     "not-scanned CLAMAV-STREAM-LIMIT", // not even sent
	} {
		if got := found(t, s, make([]byte, size)); got != want {
			t.Errorf("%d bytes: %q, want %q", size, got, want)
		}
	}
	if got := found(t, s, []byte(marker)); got != isMarker {
		t.Errorf("afterwards: %q", got)
	}
}

func TestRealRefused(t *testing.T) {
	mute := startClamd(t, "AlertExceedsMax no\n")
	s := scanner(t, Config{Socket: mute.socket, Database: mute.database})
	if err := s.Start(t.Context(), time.Now()); !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), "AlertExceedsMax") {
		t.Errorf("passes its limits in silence: %v, want ErrEngine", err)
	}
	s = scanner(t, Config{Socket: mute.socket})
	if err := s.Start(t.Context(), time.Now()); !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), "which signatures") {
		t.Errorf("unknown signatures: %v, want ErrEngine", err)
	}
}

// Killed while it is looking at many files: none of them is clean.
func TestRealKilled(t *testing.T) {
	c := startClamd(t, "")
	s := c.ready(t, Config{})
	body := bytes.Repeat([]byte("a file with much text in it\n"), 200_000)
	var clean, lost atomic.Int64
	var g errgroup.Group
	for range connections {
		g.Go(func() error {
			for {
				list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, body, "a"))
				switch {
				case errors.Is(err, scan.ErrEngine):
					lost.Add(1)
					return nil
				case err != nil || list != nil:
					return fmt.Errorf("%+v, %w", list, err)
				}
				if clean.Add(1) == 2*connections {
					c.kill(t)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if clean.Load() < 2*connections || lost.Load() != connections {
		t.Errorf("%d files were clean before clamd was killed, and %d of %d saw that", clean.Load(), lost.Load(), connections)
	}
}

// officialLike makes a container as the official signatures are, though not
// signed, with the number and today's date.
func officialLike(t *testing.T, number int) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "COPYING"), "nothing\n", time.Now())
	writeFile(t, filepath.Join(dir, "daily.ndb"), fmt.Sprintf("Darkmirror.Test.Daily:0:*:%x\n", "darkmirror-daily-"+"marker"), time.Now())
	cmd := exec.CommandContext(t.Context(), "/usr/bin/sigtool", "--build=daily.cud", "--unsigned", "--datadir="+dir, "--cvd-version="+strconv.Itoa(number))
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader("1\ntester\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sigtool: %v\n%s", err, out)
	}
	return filepath.Join(dir, "daily.cud")
}

// With numbered signatures clamd tells number and date in its own zone.
func TestRealNumbered(t *testing.T) {
	needClamd(t)
	daily := officialLike(t, 27807)
	t.Setenv("TZ", "Asia/Tokyo") // of clamd; the zone of this process is settled
	c := startClamd(t, "", daily)
	d, err := readData(c.database)
	if err != nil || d.number != 27807 || time.Since(d.built) > time.Hour {
		t.Fatalf("folder: %+v, %v", d, err)
	}
	s := c.ready(t, Config{MaxAge: time.Hour})
	if e := s.Engine(); !strings.HasSuffix(e.Version, "/27807") || !e.Dated.Equal(d.built) {
		t.Errorf("engine %+v, want number 27807 of %s", e, d.built)
	}
	if got := found(t, s, []byte("darkmirror-daily-"+"marker")); got != "malware Darkmirror.Test.Daily.UNOFFICIAL" {
		t.Errorf("found %q", got)
	}
	// The folder is newer than what clamd has loaded.
	writeFile(t, filepath.Join(c.database, "daily.cud"), readFile(t, officialLike(t, 27808)), time.Now())
	if s = c.ready(t, Config{}); len(s.Warnings()) != 1 || !strings.Contains(s.Warnings()[0], "27808") {
		t.Errorf("warnings %q, want one for what is not loaded yet", s.Warnings())
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// clamscan says the same as clamd.
func TestRealProgram(t *testing.T) {
	const program = "/usr/bin/clamscan"
	c := startClamd(t, "") // for its signatures
	if _, err := os.Stat(program); err != nil {
		t.Fatal("clamscan is missing beside clamd (Debian: clamav)")
	}
	s := scanner(t, Config{Program: program, Database: c.database, MaxAge: time.Hour, MaxStream: 1 << 20, Scratch: t.TempDir()})
	if err := s.Start(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if e := s.Engine(); !strings.HasPrefix(e.Version, "1.") || e.Database.IsZero() || e.Settings == settings {
		t.Errorf("engine %+v", e)
	}
	across := bytes.Repeat([]byte("."), 2<<20)
	copy(across[1<<20-8:], marker)
	for want, body := range map[string][]byte{
		"":       []byte("text"),
		isEicar:  []byte(eicar()),
		isMarker: across,
		"not-scanned CLAMAV-HEURISTICS-ENCRYPTED-ZIP": []byte(encryptedZip()),
	} {
		if got := found(t, s, body); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	// Signatures that ClamAV cannot read, and none.
	broken := t.TempDir()
	writeFile(t, filepath.Join(broken, "a.ndb"), "this is no signature\n", time.Now())
	for dir, want := range map[string]string{broken: "clamscan", t.TempDir(): "no signature file"} {
		err := scanner(t, Config{Program: program, Database: dir}).Start(t.Context(), time.Now())
		if !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want ErrEngine with %q", err, want)
		}
	}
	slow := scanner(t, Config{Program: program, Database: c.database, Timeout: time.Millisecond})
	if _, err := slow.Inspect(t.Context(), text("x")); err == nil || errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), "no verdict") {
		t.Errorf("past its time: %v", err)
	}
	gone := scanner(t, Config{Program: filepath.Join(broken, "clamscan"), Database: c.database})
	if err := gone.Start(t.Context(), time.Now()); !errors.Is(err, scan.ErrEngine) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no program: %v, want ErrEngine", err)
	}
}
