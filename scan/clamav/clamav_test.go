package clamav

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

func TestInspect(t *testing.T) {
	d := (&daemon{version: fresh}).start(t)
	s := ready(t, d, Config{MaxAge: 24 * time.Hour})
	want := scan.Engine{Name: "clamav", Version: "1.4.6/27807", Dated: now.Add(-time.Hour), Settings: settings}
	if diff := cmp.Diff(want, s.Engine()); diff != "" {
		t.Errorf("engine (-want +got):\n%s", diff)
	}
	if w := s.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	before := d.conns.Load()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			body, want := "something good", ""
			if i%2 == 0 {
				body, want = "something bad", "Test.Bad"
			}
			list, err := s.Inspect(t.Context(), text(body))
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
	if n := d.conns.Load() - before; n >= connections {
		t.Errorf("%d new connections for 40 files; want those that are open to be used again", n)
	}
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
	own := filepath.Join(dir, "own")
	writeFile(t, filepath.Join(own, "a.ndb"), "x:0:*:00", now.Add(-48*time.Hour))
	for name, c := range map[string]struct {
		daemon *daemon
		config Config
		want   string
	}{
		"no socket":         {nil, Config{Socket: filepath.Join(dir, "nobody.sock")}, "clamd does not answer"},
		"other program":     {&daemon{version: "Something 1"}, Config{}, "want ClamAV"},
		"other protocol":    {&daemon{version: fresh, commands: "PING VERSION SCAN"}, Config{}, "no command IDSESSION"},
		"old signatures":    {&daemon{version: said(27000, now.Add(-21*24*time.Hour))}, Config{MaxAge: 24 * time.Hour}, "504h0m0s old; at most 24h"},
		"old own ones":      {&daemon{version: "ClamAV 1.4.6"}, Config{MaxAge: 24 * time.Hour, Database: own}, "48h0m0s old; at most 24h"},
		"of the future":     {&daemon{version: said(27000, now.Add(48*time.Hour))}, Config{MaxAge: 24 * time.Hour}, "48h0m0s from now"},
		"unknown ones":      {&daemon{version: "ClamAV 1.4.6"}, Config{}, "which signatures it has is not known"},
		"no signatures":     {&daemon{version: fresh, blind: true}, Config{}, "EICAR"},
		"silent limits":     {&daemon{version: fresh, silent: true}, Config{}, "AlertExceedsMax"},
		"limit of nothing":  {&daemon{version: fresh, limit: 100}, Config{}, "StreamMaxLength"},
		"empty folder":      {&daemon{version: fresh}, Config{Database: dir}, "no signature file"},
		"folder not here":   {&daemon{version: fresh}, Config{Database: filepath.Join(dir, "no")}, "no such file"},
		"odd date":          {&daemon{version: "ClamAV 1.4.6/27000/yesterday"}, Config{}, "date of its signatures"},
		"odd number":        {&daemon{version: "ClamAV 1.4.6/x/" + now.Format(time.ANSIC)}, Config{}, "number of its signatures"},
		"half a version":    {&daemon{version: "ClamAV 1.4.6/27000"}, Config{}, "its version is"},
		"no version at all": {&daemon{version: ""}, Config{}, "it calls itself"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.daemon != nil {
				c.config.Socket = c.daemon.start(t).socket
			}
			s := scanner(t, c.config)
			err := s.Start(t.Context(), now)
			if !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Start: %v, want ErrEngine with %q", err, c.want)
			}
		})
	}
}

func TestStartHangs(t *testing.T) {
	d := (&daemon{version: fresh}).start(t)
	d.deaf.Store(true)
	s := scanner(t, Config{Socket: d.socket})
	s.patience = 50 * time.Millisecond
	if err := s.Start(t.Context(), now); !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("a daemon that hangs: %v, want ErrEngine", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Start(ctx, now); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "daily.cvd"), container(27808, now.Add(-2*time.Hour)), now)
	for name, c := range map[string]struct {
		daemon  *daemon
		config  Config
		want    string
		setting string
		dated   time.Duration
	}{
		"trusting":      {&daemon{version: fresh, trusting: true}, Config{}, "AlertEncrypted", settings, time.Hour},
		"small streams": {&daemon{version: fresh, limit: 25 << 20}, Config{}, "about 25 MiB at most", settings + " stream=26214400", time.Hour},
		"not reloaded":  {&daemon{version: fresh}, Config{Database: dir}, "27807, and its folder holds 27808", settings, time.Hour},
		// The file tells the date better.
		"as in the folder": {&daemon{version: said(27808, now)}, Config{Database: dir}, "", settings, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := ready(t, c.daemon.start(t), c.config)
			w := s.Warnings()
			if c.want == "" && len(w) != 0 || c.want != "" && (len(w) != 1 || !strings.Contains(w[0], c.want)) {
				t.Errorf("warnings %q, want one with %q", w, c.want)
			}
			if e := s.Engine(); e.Settings != c.setting || !e.Dated.Equal(now.Add(-c.dated)) {
				t.Errorf("engine %+v, want settings %q of %s ago", e, c.setting, c.dated)
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
		"%d: stream: Heuristics.Broken.Executable FOUND\x00":            "not-scanned CLAMAV-HEURISTICS-BROKEN-EXECUTABLE",
		"%d: stream: Heuristics.Phishing.Email.SpoofedDomain FOUND\x00": "malware Heuristics.Phishing.Email.SpoofedDomain",
		"%d: INSTREAM size limit exceeded. ERROR\x00":                   "not-scanned CLAMAV-STREAM-LIMIT",
		"INSTREAM size limit exceeded. ERROR\x00":                       "not-scanned CLAMAV-STREAM-LIMIT",
		"%d: stream: Can't allocate memory ERROR\x00":                   "error",
		"%d: stream:  FOUND\x00":                                        "error",
		"%d: stream: FOUND\x00":                                         "error",
		"%d: stream: Two Words FOUND\x00":                               "error",
		"%d: stream: \x1b[31mRed FOUND\x00":                             "error",
		"%d: stream: OK FOUND OK\x00":                                   "error",
		"%d: stream: OK\n\x00":                                          "error",
		"%d: stream: ok\x00":                                            "error",
		"7%d: stream: OK\x00":                                           "error", // of another command
		"0%d: stream: OK\x00":                                           "error",
		"stream: OK\x00":                                                "error",
		"%d: other: OK\x00":                                             "error",
		"%d: COMMAND READ TIMED OUT\x00":                                "error",
		"UNKNOWN COMMAND\x00":                                           "error",
		"\x00":                                                          "error",
		strings.Repeat("x", maxReply+10) + "\x00":                       "error",
		// It hangs up each time, and is there when it is asked.
		"%d: stream: OK":                  "error",
		"%d: stream: Some.Na":             "error",
		"COMMAND READ TIMED OUT\n":        "error",
		strings.Repeat("x", maxReply-100): "error",
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			s := ready(t, (&daemon{version: fresh, reply: reply}).start(t), Config{})
			list, err := s.Inspect(t.Context(), text("text"))
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
	for _, word := range []string{"", "COMMAND READ TIMED OUT\n", "COMMAND READ TIMED OUT\x00"} {
		d.hangUp(word)
		if list, err := s.Inspect(t.Context(), text("bad")); err != nil || len(list) != 1 {
			t.Errorf("after idle connections were closed with %q: %+v, %v", word, list, err)
		}
	}
	d.stop()
	if _, err := s.Inspect(t.Context(), text("bad")); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("without a daemon: %v, want ErrEngine", err)
	}
}

func TestKilledInTheMiddle(t *testing.T) {
	s := ready(t, (&daemon{version: fresh, dieAt: 6}).start(t), Config{})
	var err error
	for range 10 {
		var list []scan.Finding
		if list, err = s.Inspect(t.Context(), text("good")); err != nil {
			break
		} else if list != nil {
			t.Fatalf("found %+v", list)
		}
	}
	if !errors.Is(err, scan.ErrEngine) {
		t.Errorf("after clamd was killed: %v, want ErrEngine", err)
	}
}

// One file on which clamd hangs up is held; the others go on.
func TestHangsUp(t *testing.T) {
	s := ready(t, (&daemon{version: fresh, dropAt: 5}).start(t), Config{})
	list, err := s.Inspect(t.Context(), text("good"))
	if err != nil || list != nil {
		t.Fatalf("before: %+v, %v", list, err)
	}
	_, err = s.Inspect(t.Context(), text("good"))
	if err == nil || errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), "hung up 3 times") {
		t.Errorf("%v, want an error of the file alone", err)
	}
}

// clamd says that it has had enough and closes; the words are read although
// writing fails.
func TestStreamLimit(t *testing.T) {
	for _, plain := range []bool{false, true} {
		d := (&daemon{version: fresh, limit: 300 << 10, plain: plain}).start(t)
		s := ready(t, d, Config{})
		if got, want := s.streamLimit(), (streamLimit{0, 1 << 20}); got != want {
			t.Errorf("found the limit %+v, want %+v", got, want)
		}
		before := d.streams.Load()
		for _, size := range []int{8 << 20, 1 << 20, 400 << 10} {
			list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, make([]byte, size), "a"))
			if err != nil || len(list) != 1 || list[0].Kind != scan.KindNotScanned || !strings.Contains(list[0].Text, "StreamMaxLength") {
				t.Errorf("%d: %+v, %v, want not-scanned for StreamMaxLength", size, list, err)
			}
		}
		if n := d.streams.Load() - before; n != 1 {
			t.Errorf("%d streams, want only that which may have passed", n)
		}
		if list, err := s.Inspect(t.Context(), text("bad")); err != nil || len(list) != 1 || list[0].Kind != scan.KindMalware {
			t.Errorf("the next file: %+v, %v", list, err)
		}
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
		if err != nil || len(list) != 1 || !strings.Contains(list[0].Text, "in bytes ") {
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
	// What could not be looked at in one window hides nothing in the next.
	body := bytes.Repeat([]byte("."), 5*most)
	copy(body, "locked")
	copy(body[most:], "locked")
	copy(body[4*most:], "bad")
	list, err := s.Inspect(t.Context(), walk.NewFile(walk.Data, body, "a"))
	if err != nil || len(list) != 2 || list[0].Kind != scan.KindNotScanned || list[1].Kind != scan.KindMalware {
		t.Errorf("locked, then bad: %+v, %v", list, err)
	}
}

func TestTimeoutAndCancel(t *testing.T) {
	d := (&daemon{version: fresh}).start(t)
	s := ready(t, d, Config{Timeout: 80 * time.Millisecond})
	d.hang.Store(true)
	if _, err := s.Inspect(t.Context(), text("x")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), "no verdict on 1 bytes within 80ms") {
		t.Errorf("a file that takes too long: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := s.Inspect(ctx, text("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in the middle: %v", err)
	}
	if _, err := s.Inspect(ctx, text("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	d.deaf.Store(true)
	s.patience = 50 * time.Millisecond
	if _, err := s.Inspect(t.Context(), text("x")); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("a daemon that hangs: %v, want ErrEngine", err)
	}
}

func TestSlow(t *testing.T) {
	s := ready(t, (&daemon{version: fresh, slow: 20 * time.Millisecond}).start(t), Config{Timeout: 5 * time.Second})
	if list, err := s.Inspect(t.Context(), text("bad")); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{
		{},
		{Socket: "/s", Program: "/p"},
		{Program: "/p"},
		{Program: "clamscan", Database: "/d"},
		{Socket: "/s", MaxStream: 1 << 31},
		{Socket: "/s", MaxStream: -1},
		{Socket: "/s", Connections: -1},
		{Socket: "/s", Timeout: -1},
		{Socket: "/s", MaxAge: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
