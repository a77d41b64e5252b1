package registry

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// TestMemory pushes and pulls layers, a large one and many at once, and reads
// the most that the server's process ever occupied.
func TestMemory(t *testing.T) {
	if dir := os.Getenv("REGISTRY_MEMORY_DIR"); dir != "" {
		w := openWorld(t, dir, Options{PushToken: secret})
		srv := httptest.NewServer(w.h)
		defer srv.Close()
		if _, err := fmt.Fprintf(os.Stdout, "at %s\n", srv.URL); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends it
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.count=1")
	cmd.Env = append(os.Environ(), "REGISTRY_MEMORY_DIR="+t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, url: strings.TrimSpace(strings.TrimPrefix(line, "at ")), token: secret}
	const large, small = 256 << 20, 8 << 20
	if err := roundTrip(w, 0, large); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for i := range 16 {
		g.Go(func() error { return roundTrip(w, i+1, small) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	peak := peakMemory(t, cmd.Process.Pid)
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("the server occupied %d MiB at most", peak>>20)
	if peak > memoryLimit || peak == 0 {
		t.Errorf("the server occupied %d MiB, want at most %d", peak>>20, memoryLimit>>20)
	}
}

// layer is size bytes that nobody keeps.
func layer(seed, size int) io.Reader {
	return io.LimitReader(&pattern{block: noise(64<<10, byte(seed))}, int64(size))
}

type pattern struct {
	block []byte
	at    int
}

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, p.block[p.at:])
	p.at = (p.at + n) % len(p.block)
	return n, nil
}

// roundTrip pushes a layer as a stream and pulls it.
func roundTrip(w *world, seed, size int) error {
	h := sha256.New()
	if _, err := io.Copy(h, layer(seed, size)); err != nil {
		return err
	}
	d := fmt.Sprintf("sha256:%x", h.Sum(nil))
	r, err := w.try(w.t.Context(), http.MethodPost, app+"/blobs/uploads/?digest="+d, layer(seed, size))
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return fmt.Errorf("push: %d %s", r.status, r.body)
	}
	resp, err := http.Get(w.url + app + "/blobs/" + d)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	h.Reset()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); got != d || spec.Digest(got) != spec.Digest(resp.Header.Get("Docker-Content-Digest")) {
		return fmt.Errorf("pulled %s, want %s", got, d)
	}
	return nil
}

// peakMemory is the resident set of a process at its largest.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	return 0
}
