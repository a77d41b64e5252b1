//go:build failpoint

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// A killScenario is one command in one state.
type killScenario struct {
	name     string
	template string // the folder to begin with
	args     []string
	only     *regexp.Regexp // the fail points that matter; nil: all
	first    int            // exit status of the undisturbed run, if not 0; the next run's is 0
	check    func(testing.TB, string)
	prepare  func(testing.TB, string)                   // what lies beside the folder, if anything does
	beside   func(testing.TB, string) map[string]string // and how it ends

	passages map[string]int
	want     map[string]string
}

// begin makes what lies beside a folder that was just copied.
func (s *killScenario) begin(t testing.TB, dir string) {
	t.Helper()
	if s.prepare != nil {
		s.prepare(t, dir)
	}
}

// end describes the folder and what lies beside it.
func (s *killScenario) end(t testing.TB, dir string) map[string]string {
	t.Helper()
	state := killState(t, dir)
	if s.beside != nil {
		maps.Copy(state, s.beside(t, dir))
	}
	return state
}

// A killWorld is the upstreams, the folders of both sides, and the scenarios.
type killWorld struct {
	dir       string
	exe       string
	host      string
	debs      *apttest.Upstream
	wheels    map[string]pypitest.File
	slots     chan struct{}
	scenarios []*killScenario

	mu     sync.Mutex
	ranges []string // Range headers that were sent
	onBig  func()   // before the big wheel is served
}

const killBig = "big-1.0-py3-none-any.whl"

func newKillWorld(t *testing.T) *killWorld {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &killWorld{dir: killDir(t), exe: exe, slots: make(chan struct{}, killAtOnce), wheels: make(map[string]pypitest.File)}
	noise := make([]byte, 3<<20) // three volumes of the least size
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for _, f := range []pypitest.File{
		pypitest.Wheel(killBig, "", pypitest.Entry{Name: "big/noise", Body: string(noise), Store: true}),
		pypitest.Wheel("flat-1.0-py3-none-any.whl", "", pypitest.Entry{Name: "flat/text", Body: strings.Repeat("the same line\n", 9000), Store: true}),
		pypitest.Wheel("later-1.0-py3-none-any.whl", ">=3.9"),
	} {
		w.wheels[strings.Split(f.Name, "-")[0]] = f
	}
	if w.debs, err = apttest.New(); err != nil {
		t.Fatal(err)
	}
	index := pypitest.New(slices.Collect(maps.Values(w.wheels))...)
	mux := http.NewServeMux()
	mux.Handle("/simple/", index)
	mux.Handle("/files/", index)
	mux.HandleFunc("/files/"+killBig, func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.ranges = append(w.ranges, r.Header.Get("Range"))
		hook := w.onBig
		w.mu.Unlock()
		if hook != nil {
			hook()
		}
		index.ServeHTTP(rw, r)
	})
	mux.Handle("/debian/", http.StripPrefix("/debian", w.debs))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	w.host = srv.URL
	keyring, err := w.debs.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := bundle.GenerateKey("exporter")
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "upstream.asc", keyring)
	w.write(t, "signing.key", private)
	w.write(t, "signing.key.pub", public)
	return w
}

// killDir is a folder in memory where there is one that is large enough. A
// SIGKILL spares what the kernel has, so fsync decides nothing here, but would
// take most of the time.
func killDir(t *testing.T) string {
	t.Helper()
	const shm, room = "/dev/shm", 1 << 30
	var vfs unix.Statfs_t
	if err := unix.Statfs(shm, &vfs); err != nil || vfs.Type != unix.TMPFS_MAGIC || vfs.Bavail*uint64(vfs.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "darkmirror-kill-") //nolint:usetesting // t.TempDir lies where TMPDIR says
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (w *killWorld) path(name string) string { return filepath.Join(w.dir, name) }

func (w *killWorld) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(w.path(name)), 0o700), os.WriteFile(w.path(name), data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A killWant is what one export asks for.
type killWant struct {
	wheels, debs, suites []string
	// packages are what the archive offers at that time, by suite.
	packages map[string]string
}

func killStanza(name, version, more string) string {
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\n%s\n", name, version, more)
}

// killWants are five exports: something new, something changed and something
// gone each time. The suite extra is there at first only. Before the last one
// upstream has built epsilon again, under the same name; no scenario fetches
// the old one.
func killWants() []killWant {
	common := killStanza("alpha", "1.0", "Depends: beta\n") + killStanza("gamma", "1.0", "")
	one := common + killStanza("beta", "1.0", "")
	two := common + killStanza("beta", "2.0", "") + killStanza("epsilon", "1.0", "")
	again := common + killStanza("beta", "2.0", "") + killStanza("epsilon", "1.0", "Section: rebuilt\n")
	test, both := []string{"test"}, []string{"test", "extra"}
	return []killWant{
		{[]string{"big", "flat"}, []string{"alpha", "delta"}, both, map[string]string{"test": one, "extra": killStanza("delta", "1.0", "")}},
		{[]string{"big", "flat", "later"}, []string{"alpha", "gamma"}, test, map[string]string{"test": two}},
		{[]string{"big", "flat", "later"}, []string{"alpha", "epsilon"}, test, nil},
		{[]string{"big", "flat"}, []string{"alpha", "gamma"}, test, nil},
		{[]string{"big", "later"}, []string{"alpha", "epsilon"}, test, map[string]string{"test": again}},
	}
}

// configure writes the outside's configuration for one export into dir and
// has the archive offer what belongs to it.
func (w *killWorld) configure(t testing.TB, dir string, n int, want *killWant) {
	t.Helper()
	for suite, text := range want.packages {
		err := w.debs.Add(apttest.Suite{Name: suite, Packages: text, ByHash: true, Date: time.Now().Add(time.Duration(n-60) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
	}
	var lock strings.Builder
	for _, name := range want.wheels {
		lock.WriteString(pypitest.Pin(w.wheels[name]) + "\n")
	}
	w.write(t, dir+"/requirements.txt", []byte(lock.String()))
	w.write(t, dir+"/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: outside
state_dir: state
signing_key: %s
volume_size: 1MiB
pypi:
  - name: main
    index: %s/simple/
    allow_http: true
    targets: [cp312-manylinux_2_28_x86_64]
    locks: [{file: requirements.txt}]
apt:
  - name: debian
    architectures: [amd64]
    packages: [%s]
    allow_http: true
    archives:
      - name: debian
        url: %s/debian
        suites: [%s]
        components: [main]
        signed_by: [%s]
`, w.path("signing.key"), w.host, strings.Join(want.debs, ", "), w.host, strings.Join(want.suites, ", "), w.path("upstream.asc")))
}

// outside makes all exports, keeps a template before each of those that are
// scenarios, and traces these.
func (w *killWorld) outside(t *testing.T) {
	t.Helper()
	for i, want := range killWants() {
		n := i + 1
		w.configure(t, "outside", n, &want)
		w.must(t, "outside", "plan", "--save", "plan.json")
		if n <= 2 {
			w.copy(t, "outside", fmt.Sprintf("export-%d", n))
		}
		w.must(t, "outside", "export", "--plan", "plan.json")
	}
	// Sealed, not recorded.
	w.copy(t, "export-2", "adopt")
	w.killAt(t, w.path("adopt"), "export.sealed", 1, "export", "--plan", "plan.json")
	w.copy(t, "outside", "lost")
	// This plan begins with nothing, and sees upstream as it is at the end.
	last := killWants()[4]
	w.configure(t, "plan", 5, &last)

	for _, s := range []*killScenario{
		{name: "plan", template: "plan", args: []string{"plan", "--save", "plan.json"}},
		{name: "export", template: "export-1", args: []string{"export", "--plan", "plan.json"}},
		{name: "delta", template: "export-2", args: []string{"export", "--plan", "plan.json"}},
		{name: "adopt", template: "adopt", args: []string{"export", "--plan", "plan.json"}},
		{name: "lost", template: "lost", args: []string{"mark-lost", "2"}, only: regexp.MustCompile(`^(ledger\.mark|translog\.)`)},
	} {
		s.check = killCheckOutbox(w.path("outside/state/outbox"))
		w.trace(t, s)
	}
}

// inside makes the templates of the inside and traces their scenarios.
func (w *killWorld) inside(t *testing.T) {
	t.Helper()
	sealed, err := filepath.Glob(w.path("outside/state/outbox/*"))
	if err != nil || len(sealed) != 5 {
		t.Fatalf("%d bundles in the outbox, want 5: %v", len(sealed), err)
	}
	for i := range sealed {
		for _, to := range []string{"inbox-2", "inbox-4", "inbox-5"}[min(2, i/2):] {
			w.write(t, to+"/.keep", nil)
			w.copy(t, strings.TrimPrefix(sealed[i], w.dir+"/"), to+"/"+filepath.Base(sealed[i]))
		}
	}
	policy := "{rescan: always}"
	config := func(dir, inbox string) {
		w.write(t, dir+"/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: inside
state_dir: state
inbox: [%s]
trust: [%s]
scan: %s
pypi:
  - name: main
apt:
  - name: debian
    valid_for: 240h
    archives:
      - name: debian
        signed_by: [%s]
`, w.path(inbox), w.path("signing.key.pub"), policy, w.path("upstream.asc")))
	}
	config("import", "inbox-2")

	config("late", "inbox-4")
	w.must(t, "late", "import")
	w.age(t, "late/state/published/apt/debian/publications")
	config("late", "inbox-5")

	w.copy(t, "import", "damaged")
	w.killAt(t, w.path("damaged"), "import.staged", 1, "import")
	w.damage(t, "damaged", w.wheels["flat"].SHA256())

	w.copy(t, "import", "withdraw")
	w.must(t, "withdraw", "import")
	policy = "{block: [{artifact: pypi/main flat, reason: withdrawn}]}"
	config("withdraw", "inbox-2")

	for _, s := range []*killScenario{
		{name: "withdraw", template: "withdraw", args: []string{"scan", "--published", "--withdraw"}, first: 4},
		{name: "import", template: "import", args: []string{"import"}},
		{name: "late", template: "late", args: []string{"import"}},
		{name: "damaged", template: "damaged", args: []string{"import"}, first: 5, only: regexp.MustCompile(`^store\.quarantine`)},
	} {
		s.check = killCheckServed
		w.trace(t, s)
	}
}

// age makes all publications a month older, so that the next one may sweep.
func (w *killWorld) age(t testing.TB, dir string) {
	t.Helper()
	files, err := filepath.Glob(w.path(dir + "/*.json"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%d publications, want 4: %v", len(files), err)
	}
	at := regexp.MustCompile(`"at":"[^"]*"`)
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil || len(at.FindAll(b, -1)) != 1 {
			t.Fatalf("%s has no time of its own: %v", name, err)
		}
		old := time.Now().UTC().Add(-30 * 24 * time.Hour).Truncate(time.Second).Format(time.RFC3339)
		if err := os.WriteFile(name, at.ReplaceAll(b, []byte(`"at":"`+old+`"`)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// damage flips a bit of a blob.
func (w *killWorld) damage(t testing.TB, dir, digest string) {
	t.Helper()
	name := w.path(filepath.Join(dir, "state/store/blobs/sha256", digest[:2], digest))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// copy copies a folder with its times, modes and hard links.
func (w *killWorld) copy(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", "--", w.path(from), w.path(to)).CombinedOutput(); err != nil {
		t.Fatalf("cp %s %s: %v\n%s", from, to, err, out)
	}
}

// program runs one command line in dir. The status is -1 for a program that
// was killed.
func (w *killWorld) program(t testing.TB, dir string, env []string, args ...string) (status int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), killPatience)
	defer cancel()
	var b bytes.Buffer
	// TestMain is the program where the first argument says so.
	cmd := exec.CommandContext(ctx, w.exe, append(slices.Clone(args), "-q")...)
	cmd.Args[0] = "darkmirror"
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &b, &b
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}, env...)
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s: no end after %v\n%s", strings.Join(args, " "), killPatience, b.String())
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		if ws.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: ended by %v\n%s", strings.Join(args, " "), ws.Signal(), b.String())
		}
		return -1, b.String()
	}
	return cmd.ProcessState.ExitCode(), b.String()
}

// must runs a command that is no scenario.
func (w *killWorld) must(t testing.TB, dir string, args ...string) {
	t.Helper()
	if status, out := w.program(t, w.path(dir), nil, args...); status != 0 {
		t.Fatalf("%s: %s: exit %d\n%s", dir, strings.Join(args, " "), status, out)
	}
}

// killAt runs a command that must die at the nth passage of a fail point.
func (w *killWorld) killAt(t testing.TB, dir, place string, nth int, args ...string) {
	t.Helper()
	trace := dir + ".killed"
	status, out := w.program(t, dir, []string{fmt.Sprintf("DARKMIRROR_FAILPOINT=%s:%d", place, nth), "DARKMIRROR_FAILPOINT_TRACE=" + trace}, args...)
	if status != -1 {
		t.Fatalf("exit %d, want it killed at %s:%d\n%s", status, place, nth, out)
	}
	passed := killTrace(t, trace)
	if n := passed[place]; n != nth {
		t.Fatalf("killed after passing %s %d times, want %d", place, n, nth)
	}
}

func killTrace(t testing.TB, name string) map[string]int {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(map[string]int)
	for line := range strings.Lines(string(b)) {
		passed[strings.TrimSpace(line)]++
	}
	return passed
}
