package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asMain makes the test binary the program: a receiver closes its own process
// for sending, which no other test would survive.
const asMain = "DARKDIODE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asMain+"=1")
	return cmd
}

func keyFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "link.key")
	if err := os.WriteFile(name, []byte("# a key\n000102030405060708090a0b0c0d0e0f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// A listener is a receiver on loopback.
type listener struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	lines  chan string // of stderr, after "ready"
	before []string    // up to it
}

func listen(t *testing.T, port int, args ...string) *listener {
	t.Helper()
	l := &listener{lines: make(chan string, 1000)}
	l.cmd = program(t, append([]string{"receive", "--backend", "udp", "--address", "127.0.0.1", "--port", fmt.Sprint(port), "--ring", "4194304", "--unproven"}, args...)...)
	stderr, err := l.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.cmd.Stdout = &l.stdout
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		l.before = append(l.before, lines.Text())
		if strings.HasPrefix(lines.Text(), "ready;") {
			break
		}
	}
	go func() {
		defer close(l.lines)
		for lines.Scan() {
			l.lines <- lines.Text()
		}
	}()
	return l
}

// until reads lines up to the one that begins with prefix.
func (l *listener) until(t *testing.T, prefix string) {
	t.Helper()
	var seen []string
	for line := range l.lines {
		if seen = append(seen, line); strings.HasPrefix(line, prefix) {
			return
		}
	}
	t.Fatalf("the receiver never said %q but\n%s", prefix, strings.Join(seen, "\n"))
}

// wait waits for its end.
func (l *listener) wait() error {
	for range l.lines { // until its end
	}
	return l.cmd.Wait()
}

// TestRoad sends a folder over loopback into an inbox.
func TestRoad(t *testing.T) {
	key, inbox, port := keyFile(t), t.TempDir(), freePort(t)
	folder := filepath.Join(t.TempDir(), "main-000042-0123456789abcdef")
	files := map[string][]byte{"bundle.dsse.json": []byte("{}"), "volumes/volume-00001.tar": bytes.Repeat([]byte("tar "), 100_000), "volumes/empty": {}}
	for name, data := range files {
		name = filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	receiver := listen(t, port, "--inbox", inbox, "--key", key, "--until-idle", "2s", "--json", "--status", filepath.Join(t.TempDir(), "status.json"))
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"send", "--to", fmt.Sprintf("127.0.0.1:%d", port), "--mtu", "1500", "--key", key, "--rate", "200m", "--spool", t.TempDir(), folder}, &out, &errs)
	if code != exitOK || !strings.HasPrefix(out.String(), "sent 3 files, 400002 bytes, in ") {
		t.Errorf("send: %d, %q, %q", code, out.String(), errs.String())
	}
	if err := receiver.wait(); err != nil {
		t.Errorf("receive: %v", err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(inbox, filepath.Base(folder), name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	if n := strings.Count(receiver.stdout.String(), `"event":"completed"`); n != 3 {
		t.Errorf("%d files reported, want 3:\n%s", n, receiver.stdout.String())
	}
	if log := strings.Join(receiver.before, "\n"); !strings.Contains(log, "seccomp") {
		t.Errorf("the proof was not shown:\n%s", log)
	}
}

// TestPriority: three programs send to one receiver. One beats, one sends a big
// file, and what comes later and is urgent arrives before it.
func TestPriority(t *testing.T) {
	key, inbox, port, dir := keyFile(t), t.TempDir(), freePort(t), t.TempDir()
	for name, size := range map[string]int{"big": 6_000_000, "small": 20_000} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name), size/len(name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	receiver := listen(t, port, "--inbox", inbox, "--key", key, "--until-idle", "2s")
	to := []string{"send", "--to", fmt.Sprintf("127.0.0.1:%d", port), "--mtu", "1500", "--key", key, "--spool", dir, "--line", filepath.Join(dir, "line")}
	beat := program(t, append(to, "--beat")...)
	if err := beat.Start(); err != nil {
		t.Fatal(err)
	}
	receiver.until(t, "link-up")
	big := program(t, append(to, "--rate", "20m", "--priority", "bulk", filepath.Join(dir, "big"))...)
	if err := big.Start(); err != nil {
		t.Fatal(err)
	}
	receiver.until(t, "started  big")
	var out, errs bytes.Buffer
	if code := run(t.Context(), append(to, "--rate", "20m", "--priority", "urgent", filepath.Join(dir, "small")), &out, &errs); code != exitOK {
		t.Errorf("urgent: %d, %q, %q", code, out.String(), errs.String())
	}
	if err := big.Wait(); err != nil {
		t.Error(err)
	}
	// The one that beats says goodbye, and the receiver hears nothing any more.
	if err := beat.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := beat.Wait(); err != nil {
		t.Error(err)
	}
	receiver.until(t, "sender-gone")
	if err := receiver.wait(); err != nil {
		t.Errorf("receive: %v", err)
	}
	if want := "complete  small  20000 bytes\ncomplete  big  6000000 bytes\n"; receiver.stdout.String() != want {
		t.Errorf("arrived %q, want %q", receiver.stdout.String(), want)
	}
}

// TestCheck looks at the loopback interface, where something can be said and
// nothing has to be mended.
func TestCheck(t *testing.T) {
	for _, args := range [][]string{
		{"send", "--check", "--to", "127.0.0.1:9", "--rate", "1g"},
		{"receive", "--check", "--interface", "lo"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitOK || !strings.Contains(out.String(), "ok       card         lo ") {
			t.Errorf("%q: %d, %q, %q", args, code, out.String(), errs.String())
		}
		out.Reset()
		if code := run(t.Context(), append(args, "--json"), &out, &errs); code != exitOK || !strings.HasPrefix(out.String(), `{"findings":[{"state":"ok","name":"card"`) {
			t.Errorf("%q as JSON: %d, %q", args, code, out.String())
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"receive", "--check", "--interface", "no-such-link"}, &out, &errs); code != exitUsage || !strings.Contains(out.String(), "mend: name the interface") {
		t.Errorf("no such interface: %d, %q, %q", code, out.String(), errs.String())
	}
}

func TestUsage(t *testing.T) {
	key := keyFile(t)
	open := filepath.Join(t.TempDir(), "open.key")
	if err := os.WriteFile(open, []byte("000102030405060708090a0b0c0d0e0f"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"want send, receive or version":   {"copy"},
		"want an address and a port":      {"send", "--key", key, "--rate", "1g", file},
		"--rate is missing":               {"send", "--to", "127.0.0.1:9", "--key", key, file},
		"want bits a second":              {"send", "--to", "127.0.0.1:9", "--key", key, "--rate", "fast", file},
		"want a share below one":          {"send", "--to", "127.0.0.1:9", "--key", key, "--rate", "1g", "--loss", "2", file},
		"--key is missing":                {"send", "--to", "127.0.0.1:9", "--rate", "1g", file},
		"everybody may read the link key": {"send", "--to", "127.0.0.1:9", "--rate", "1g", "--key", open, file},
		"up to four parts":                {"send", "--to", "127.0.0.1:9", "--mtu", "1500", "--rate", "1g", "--key", key, file},
		"name at least one file":          {"send", "--to", "127.0.0.1:9", "--mtu", "1500", "--rate", "1g", "--key", key},
		"it was misread or mistyped":      {"send", "--to", "127.0.0.1:9", "--mtu", "1500", "--rate", "1g", "--key", key, "--name", "a", "--ticket", "DT1 AAAAAAAA r0 1:1 0000", filepath.Join(filepath.Dir(key), "link.key")},
		"--inbox is missing":              {"receive", "--key", key},
		"receive takes flags only":        {"receive", "--inbox", t.TempDir(), "--key", key, "eth1"},
		"want 1 to 65535":                 {"receive", "--inbox", t.TempDir(), "--key", key, "--port", "70000"},
		"want urgent, normal or bulk":     {"send", "--to", "127.0.0.1:9", "--mtu", "1500", "--rate", "1g", "--key", key, "--priority", "asap", file},
		"--beat sends no files":           {"send", "--to", "127.0.0.1:9", "--key", key, "--beat", file},
		"outlasts at most":                {"send", "--to", "127.0.0.1:9", "--mtu", "1500", "--rate", "1g", "--outage", "1h", "--dry-run"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitUsage || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: exit %d, %q, want %d and %q", args, code, errs.String(), exitUsage, want)
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"send", "--to", "127.0.0.1:9", "--mtu", "1500", "--rate", "1g", "--outage", "500ms", "--dry-run"}, &out, &errs); code != exitOK || !strings.Contains(out.String(), "200 data and 20 parity rows") {
		t.Errorf("plan: %d, %q, %q", code, out.String(), errs.String())
	}
}
