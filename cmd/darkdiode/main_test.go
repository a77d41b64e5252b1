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
	receiver := program(t, "receive", "--inbox", inbox, "--key", key, "--backend", "udp", "--address", "127.0.0.1",
		"--port", fmt.Sprint(port), "--ring", "4194304", "--unproven", "--until-idle", "2s", "--json", "--status", filepath.Join(t.TempDir(), "status.json"))
	stderr, err := receiver.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	receiver.Stdout = &stdout
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	var log []string
	for lines.Scan() {
		log = append(log, lines.Text())
		if strings.HasPrefix(lines.Text(), "ready;") {
			break
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
			log = append(log, lines.Text())
		}
	}()
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"send", "--to", fmt.Sprintf("127.0.0.1:%d", port), "--mtu", "1500", "--key", key, "--rate", "200m", folder}, &out, &errs)
	if code != exitOK || !strings.HasPrefix(out.String(), "sent 3 files, 400002 bytes, in ") {
		t.Errorf("send: %d, %q, %q", code, out.String(), errs.String())
	}
	<-drained
	if err := receiver.Wait(); err != nil {
		t.Errorf("receive: %v\n%s", err, strings.Join(log, "\n"))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(inbox, filepath.Base(folder), name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	if n := strings.Count(stdout.String(), `"event":"completed"`); n != 3 {
		t.Errorf("%d files reported, want 3:\n%s", n, stdout.String())
	}
	if !strings.Contains(strings.Join(log, "\n"), "seccomp") {
		t.Errorf("the proof was not shown:\n%s", strings.Join(log, "\n"))
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
