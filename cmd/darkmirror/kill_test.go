//go:build failpoint

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

const (
	// killEnv asks for every passage of every fail point ("all") in place of
	// the first and the last of each.
	killEnv = "DARKMIRROR_KILL"
	// killLeast is how many named places must have been killed at.
	killLeast = 60
	// killAtOnce bounds the programs that run side by side, whatever
	// -parallel says: the machine that this is promised for has two cores.
	killAtOnce = 2
	// killPatience ends a program that hangs.
	killPatience = time.Minute
)

// killElsewhere names the fail points that no scenario passes, and why.
var killElsewhere = map[string]string{
	"store.copy-created": "a link across file systems",
	"store.copied":       "a link across file systems",
}

// TestKillExport kills the outside program with SIGKILL at every fail point
// that it passes, while it plans, exports for the first time, exports a
// delta, adopts the bundle of an earlier killed run, or marks one as lost,
// and runs it again. The whole folder must then be that of a run that nobody
// disturbed, byte for byte: bundles, store, plan; and the ledger record for
// record. Between kill and rerun every bundle in the outbox must be whole.
func TestKillExport(t *testing.T) {
	w := newKillWorld(t)
	w.outside(t)
	w.run(t)
}

// TestKillImport does the same inside, for the import of two bundles into
// nothing, for one late import that also sweeps what old publications left,
// and for one that meets a damaged blob. Between kill and rerun, whatever
// clients are offered must be whole.
//
// Two things of the published trees depend on the run: times, which are
// masked, and signatures, which are verified instead, as is the key where
// the import makes it.
func TestKillImport(t *testing.T) {
	w := newKillWorld(t)
	w.outside(t)
	w.scenarios = nil
	w.inside(t)
	w.run(t)
}

// TestKillPlaces holds the scenarios to the fail points that are in the
// code: one that nothing passes is not tested.
func TestKillPlaces(t *testing.T) {
	w := newKillWorld(t)
	w.outside(t)
	w.inside(t)
	passed := make(map[string]bool)
	for _, s := range w.scenarios {
		for name := range s.passages {
			if s.only == nil || s.only.MatchString(name) {
				passed[name] = true
			}
		}
	}
	if len(passed) < killLeast {
		t.Errorf("%d fail points are killed at, want %d at least", len(passed), killLeast)
	}
	want := killPlacesInSource(t)
	for name, why := range killElsewhere {
		if passed[name] || !want[name] {
			t.Errorf("%s is listed as not passed (%s): passed %v, in the source %v", name, why, passed[name], want[name])
		}
		delete(want, name)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(passed))); diff != "" {
		t.Errorf("fail points in the source, and those killed at (-source +killed):\n%s", diff)
	}
	t.Logf("%d fail points", len(passed))
}

// killPlacesInSource lists the literals of every failpoint.Here.
func killPlacesInSource(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.') {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Here" {
				return true
			}
			if lit, ok := call.Args[0].(*ast.BasicLit); ok {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					all[s] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A killScenario is one command in one state.
type killScenario struct {
	name     string
	template string // the folder to begin with
	args     []string
	only     *regexp.Regexp // the fail points that matter; nil: all
	first    int            // exit status of the undisturbed run, if not 0; the next run's is 0
	check    func(testing.TB, string)

	passages map[string]int
	want     map[string]string
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
	var fs unix.Statfs_t
	if err := unix.Statfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Bavail*uint64(fs.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "darkmirror-kill-")
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

// want is what one export asks for.
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
	// A plan sees upstream as it is now, with what was sealed last and, for a
	// second scenario, without anything.
	last := killWants()[4]
	w.configure(t, "plan", 5, &last)

	for _, s := range []*killScenario{
		{name: "plan", template: "plan", args: []string{"plan", "--save", "plan.json"}},
		{name: "export", template: "export-1", args: []string{"export", "--plan", "plan.json"}},
		{name: "delta", template: "export-2", args: []string{"export", "--plan", "plan.json"}},
		{name: "adopt", template: "adopt", args: []string{"export", "--plan", "plan.json"}},
		{name: "lost", template: "lost", args: []string{"mark-lost", "2"}, only: regexp.MustCompile(`^ledger\.lost`)},
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
	config := func(dir, inbox string) {
		w.write(t, dir+"/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: inside
state_dir: state
inbox: [%s]
trust: [%s]
pypi:
  - name: main
apt:
  - name: debian
    valid_for: 240h
    archives:
      - name: debian
        signed_by: [%s]
`, w.path(inbox), w.path("signing.key.pub"), w.path("upstream.asc")))
	}
	config("import", "inbox-2")

	config("late", "inbox-4")
	w.must(t, "late", "import")
	w.age(t, "late/state/published/apt/debian/publications")
	config("late", "inbox-5")

	w.copy(t, "import", "damaged")
	w.killAt(t, w.path("damaged"), "import.staged", 1, "import")
	w.damage(t, "damaged", w.wheels["flat"].SHA256())

	for _, s := range []*killScenario{
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

// trace runs a scenario twice undisturbed: for its fail points and for its
// end, which must be the same both times or nothing could be compared.
func (w *killWorld) trace(t *testing.T, s *killScenario) {
	t.Helper()
	for _, run := range []string{"-undisturbed", "-again"} {
		dir := w.path(s.name + run)
		w.copy(t, s.template, s.name+run)
		status, out := w.program(t, dir, []string{"DARKMIRROR_FAILPOINT_TRACE=" + dir + ".trace"}, s.args...)
		if status != s.first {
			t.Fatalf("%s: exit %d, want %d\n%s", s.name, status, s.first, out)
		}
		if s.first != 0 {
			w.must(t, s.name+run, s.args...)
		}
		s.check(t, dir)
		state := killState(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if s.want == nil {
			s.want, s.passages = state, killTrace(t, dir+".trace")
			continue
		}
		if diff := cmp.Diff(s.want, state); diff != "" {
			t.Fatalf("%s: two undisturbed runs differ:\n%s", s.name, diff)
		}
	}
	w.scenarios = append(w.scenarios, s)
}

// run is the test proper.
func (w *killWorld) run(t *testing.T) {
	places, cases := make(map[string]bool), 0
	for _, s := range w.scenarios {
		for _, place := range slices.Sorted(maps.Keys(s.passages)) {
			if s.only != nil && !s.only.MatchString(place) {
				continue
			}
			places[place] = true
			for nth := 1; nth <= s.passages[place]; nth++ {
				if nth != 1 && nth != s.passages[place] && os.Getenv(killEnv) != "all" {
					continue
				}
				cases++
				t.Run(fmt.Sprintf("%s/%s:%d", s.name, place, nth), func(t *testing.T) {
					t.Parallel()
					w.slots <- struct{}{}
					defer func() { <-w.slots }()
					w.kill(t, s, place, nth)
				})
			}
		}
	}
	t.Logf("%d fail points, %d kills", len(places), cases)
}

// kill is one kill and what comes after it.
func (w *killWorld) kill(t *testing.T, s *killScenario, place string, nth int) {
	name := fmt.Sprintf("kill-%s-%s-%d", s.name, place, nth)
	dir := w.path(name)
	w.copy(t, s.template, name)
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	w.killAt(t, dir, place, nth, s.args...)
	s.check(t, dir)
	status, out := w.program(t, dir, nil, s.args...)
	if s.first != 0 && status == s.first {
		status, out = w.program(t, dir, nil, s.args...)
	}
	if status != 0 {
		t.Fatalf("the rerun: exit %d\n%s", status, out)
	}
	s.check(t, dir)
	if diff := cmp.Diff(s.want, killState(t, dir)); diff != "" {
		t.Errorf("after the rerun (-undisturbed +killed):\n%s", diff)
	}
}

// killState describes a folder: each file by mode, size and digest, the
// ledger by its records. A leftover of any kind shows, but for three that are
// harmless: empty folders; empty names in quarantine, where a kill kept
// evidence from getting a name; and the temporary file of plan --save beside
// its FILE, in a folder of the user's where nothing may be swept.
func killState(t testing.TB, dir string) map[string]string {
	t.Helper()
	state := make(map[string]string)
	key := killPrivateKey(t, dir)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		base := filepath.Base(rel)
		switch {
		case strings.HasPrefix(rel, durable.TempPrefix):
			return nil
		case base == "ledger.db":
			state[rel] = killLedger(t, dir)
			return nil
		case strings.HasPrefix(rel, "state/store/quarantine/"):
			if len(b) == 0 {
				return nil
			}
			rel = rel[:strings.LastIndexByte(rel, '-')]
		case strings.HasPrefix(rel, "state/store/blobs/"):
			if got := artifact.Sum(b).Hex(); got != base {
				t.Errorf("%s has digest %s", rel, got)
			}
		case base == "plan.json":
			b = regexp.MustCompile(`"made": "[^"]*"`).ReplaceAll(b, nil)
		case strings.HasPrefix(rel, "state/published/apt/"):
			b = killMaskApt(t, dir, rel, b, key)
		}
		state[rel] = fmt.Sprintf("%v %d %s", info.Mode(), len(b), artifact.Sum(b).Hex())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// killPrivateKey is the archive key of the inside, once there is one.
func killPrivateKey(t testing.TB, dir string) openpgp.EntityList {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "state/published/apt/debian/signing-key.asc"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	if err != nil || len(keys) != 1 || keys[0].PrivateKey == nil {
		t.Fatalf("signing-key.asc: %d keys: %v", len(keys), err)
	}
	return keys
}

var (
	killReleaseTimes     = regexp.MustCompile(`(?m)^(Date|Valid-Until): .*$`)
	killPublicationTimes = regexp.MustCompile(`"(at|date)":"[^"]*"`)
)

// killMaskApt takes out of a published file what depends on the time and on the
// key, and checks that the rest belongs to that key.
func killMaskApt(t testing.TB, dir, rel string, b []byte, key openpgp.EntityList) []byte {
	t.Helper()
	switch base := filepath.Base(rel); {
	case base == "signing-key.asc":
		return nil // killPrivateKey has read it
	case strings.HasPrefix(base, "darkmirror-archive-keyring."):
		read := openpgp.ReadKeyRing
		if strings.HasSuffix(base, ".asc") {
			read = openpgp.ReadArmoredKeyRing
		}
		ring, err := read(bytes.NewReader(b))
		if err != nil || len(ring) != 1 || !bytes.Equal(ring[0].PrimaryKey.Fingerprint, key[0].PrimaryKey.Fingerprint) {
			t.Errorf("%s is not the keyring of the signing key: %v", rel, err)
		}
		return nil
	case base == "InRelease":
		return killReleaseTimes.ReplaceAll(killSignedText(t, rel, b, key), nil)
	case base == "Release":
		return killReleaseTimes.ReplaceAll(b, nil)
	case base == "Release.gpg":
		text, err := os.ReadFile(filepath.Join(dir, filepath.Dir(rel), "Release"))
		if err != nil {
			t.Error(err)
		}
		if _, err := openpgp.CheckArmoredDetachedSignature(key, bytes.NewReader(text), bytes.NewReader(b), nil); err != nil {
			t.Errorf("%s: %v", rel, err)
		}
		return nil
	case strings.Contains(rel, "/publications/"):
		return killPublicationTimes.ReplaceAll(b, nil)
	}
	return b
}

func killSignedText(t testing.TB, name string, b []byte, key openpgp.EntityList) []byte {
	t.Helper()
	block, rest := clearsign.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Errorf("%s is not one signed text", name)
		return nil
	}
	if _, err := block.VerifySignature(key, nil); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return block.Plaintext
}

// killLedger prints what the ledger and the status command say, without the
// runs and the times of this run.
func killLedger(t testing.TB, dir string) string {
	t.Helper()
	led, err := ledger.OpenReadOnly(filepath.Join(dir, "state/ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := led.Close(); err != nil {
			t.Error(err)
		}
	}()
	var all []any
	var errs []error
	add := func(v any, err error) {
		all, errs = append(all, v), append(errs, err)
	}
	add(led.Sealed("main"))
	add(led.Published())
	add(led.Floor())
	add(led.Streams())
	last, _, err := led.LastImported("main")
	errs = append(errs, err)
	for seq := range last.Seq {
		rec, ok, err := led.Imported("main", seq+1)
		add(rec, err)
		add(ok, nil)
	}
	carried := make(map[string]uint64)
	blobs, err := filepath.Glob(filepath.Join(dir, "state/store/blobs/sha256/??/*"))
	errs = append(errs, err)
	for _, name := range blobs {
		d, err := artifact.ParseHex(filepath.Base(name))
		if err != nil {
			continue // a leftover, which the caller reports
		}
		seq, ok, err := led.Carried("main", d)
		errs = append(errs, err)
		if ok {
			carried[d.Hex()] = seq
		}
	}
	add(carried, nil)
	runs, err := led.Runs(1)
	errs = append(errs, err)
	for _, r := range runs {
		add([]any{r.Command, r.ExitCode, r.Note}, nil)
	}
	var out, msg bytes.Buffer
	if code := run(t.Context(), []string{"status", "-o", "json", "--config", filepath.Join(dir, "darkmirror.yaml")}, streams{out: &out, err: &msg}); code != 0 {
		t.Errorf("status: exit %d\n%s", code, msg.String())
	}
	var status map[string]any
	errs = append(errs, json.Unmarshal(out.Bytes(), &status))
	delete(status, "runs")
	add(status, nil)
	b, err := json.MarshalIndent(all, "", " ")
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	times := regexp.MustCompile(`"time": "[^"]*"`)
	return strings.ReplaceAll(string(times.ReplaceAll(b, nil)), dir, "DIR")
}

// killCheckOutbox wants every bundle in the outbox to be, byte for byte, one of
// those in the folder good. Half a bundle has another name.
func killCheckOutbox(good string) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		t.Helper()
		outbox := filepath.Join(dir, "state/outbox")
		entries, err := os.ReadDir(outbox)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), durable.TempPrefix) {
				continue
			}
			want, got := killState(t, filepath.Join(good, e.Name())), killState(t, filepath.Join(outbox, e.Name()))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("bundle %s is not whole:\n%s", e.Name(), diff)
			}
		}
	}
}

// killCheckServed wants all that clients are offered to be whole: every
// project of the package index, and every archive from its InRelease down to
// the last package.
func killCheckServed(t testing.TB, dir string) {
	t.Helper()
	published := filepath.Join(dir, "state/published")
	if b, err := os.ReadFile(filepath.Join(published, "pypi/main/current.json")); err == nil {
		killCheckIndex(t, dir, b)
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	key := killPrivateKey(t, dir)
	suites, err := filepath.Glob(filepath.Join(published, "apt/debian/tree/debian/dists/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites {
		b, err := os.ReadFile(filepath.Join(suite, "InRelease"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		killCheckSuite(t, suite, string(killSignedText(t, suite, b, key)))
	}
}

func killCheckIndex(t testing.TB, dir string, b []byte) {
	t.Helper()
	var doc struct {
		Projects []struct {
			Files []struct {
				File struct {
					SHA256 artifact.Digest `json:"sha256"`
					Size   int64           `json:"size"`
				} `json:"file"`
				Metadata     string `json:"metadata"`
				MetadataSize int64  `json:"metadata_size"`
			} `json:"files"`
		} `json:"projects"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || len(doc.Projects) == 0 {
		t.Errorf("current.json: %d projects: %v", len(doc.Projects), err)
	}
	for _, p := range doc.Projects {
		for _, f := range p.Files {
			killCheckFile(t, killBlob(dir, f.File.SHA256.Hex()), f.File.SHA256.Hex(), f.File.Size)
			meta := strings.TrimPrefix(f.Metadata, "sha256:")
			killCheckFile(t, killBlob(dir, meta), meta, f.MetadataSize)
		}
	}
}

func killBlob(dir, hex string) string {
	return filepath.Join(dir, "state/store/blobs/sha256", hex[:2], hex)
}

func killCheckFile(t testing.TB, name, sha256 string, size int64) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil || int64(len(b)) != size || artifact.Sum(b).Hex() != sha256 {
		t.Errorf("%s: %d bytes, digest %s, want %d, %s: %v", name, len(b), artifact.Sum(b).Hex(), size, sha256, err)
	}
	return b
}

// killCheckSuite follows a Release as apt does: indices by their hash, packages
// by their Filename.
func killCheckSuite(t testing.TB, suite, release string) {
	t.Helper()
	_, list, _ := strings.Cut(release, "\nSHA256:")
	files := 0
	for line := range strings.Lines(strings.TrimSpace(list)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			t.Errorf("%s: line %q", suite, line)
			continue
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Error(err)
		}
		b := killCheckFile(t, filepath.Join(suite, path.Dir(f[2]), "by-hash/SHA256", f[0]), f[0], size)
		files++
		if path.Base(f[2]) != "Packages" {
			continue
		}
		for st := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
			size, err := strconv.ParseInt(apttest.Field(st, "Size"), 10, 64)
			if err != nil {
				t.Error(err)
			}
			killCheckFile(t, filepath.Join(suite, "../..", apttest.Field(st, "Filename")), apttest.Field(st, "SHA256"), size)
		}
	}
	if files == 0 {
		t.Errorf("%s lists no file", suite)
	}
}

// TestKillSpace fills the file system of an export: before it, under a
// download, and of the names that it may still create, one more each time. It
// ends with exit code 9 and, once there is room, completes as if nothing had
// been.
func TestKillSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	w := newKillWorld(t)
	w.outside(t)
	w.inside(t)
	scenario := func(name string) *killScenario {
		return w.scenarios[slices.IndexFunc(w.scenarios, func(s *killScenario) bool { return s.name == name })]
	}
	t.Run("before", func(t *testing.T) {
		s := scenario("export")
		dir, enlarge := w.mount(t, s.template, "size=12m")
		before := killState(t, dir)
		w.full(t, s, dir)
		after := killState(t, dir)
		delete(before, "state/ledger.db") // the run is recorded
		delete(after, "state/ledger.db")
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("a run that is refused for want of room writes all the same:\n%s", diff)
		}
		enlarge("size=96m")
		w.completes(t, s, dir)
	})
	t.Run("download", func(t *testing.T) {
		s := scenario("export")
		dir, enlarge := w.mount(t, s.template, "size=32m")
		w.mu.Lock()
		w.ranges, w.onBig = nil, func() { killFill(t, filepath.Dir(dir), 1<<20) }
		w.mu.Unlock()
		w.full(t, s, dir)
		w.mu.Lock()
		w.onBig = nil
		w.mu.Unlock()
		enlarge("size=96m")
		w.completes(t, s, dir)
		w.mu.Lock()
		defer w.mu.Unlock()
		if n := len(w.ranges); n < 2 || !strings.HasPrefix(w.ranges[n-1], "bytes=") || w.ranges[n-1] == "bytes=0-" {
			t.Errorf("the big wheel was asked for with %q, want the last to resume", w.ranges)
		}
	})
	step := uint64(1)
	if os.Getenv(killEnv) != "all" {
		step = 4
	}
	for _, name := range []string{"export", "import", "late"} {
		t.Run("names-"+name, func(t *testing.T) {
			t.Parallel()
			w.slots <- struct{}{}
			defer func() { <-w.slots }()
			refused := 0
			for left := uint64(0); w.names(t, scenario(name), left); left += step {
				refused++
			}
			if refused < 3 {
				t.Errorf("only %d runs were refused", refused)
			}
		})
	}
}

// names runs a scenario where so many files and folders can still be made, and
// again with enough. It reports whether there were too few.
func (w *killWorld) names(t *testing.T, s *killScenario, left uint64) (refused bool) {
	t.Helper()
	dir, limit := w.mount(t, s.template, "size=96m")
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	limit(fmt.Sprintf("nr_inodes=%d", fs.Files-fs.Ffree+left))
	status, out := w.program(t, dir, nil, s.args...)
	if status != 9 && status != 0 {
		t.Errorf("room for %d names: exit %d, want 9\n%s", left, status, out)
	}
	s.check(t, dir)
	limit("nr_inodes=100000")
	w.completes(t, s, dir)
	if err := unix.Unmount(filepath.Dir(dir), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	return status != 0
}

// mount copies a template into a small file system of its own. The function
// changes its limits.
func (w *killWorld) mount(t *testing.T, template, limits string) (dir string, remount func(string)) {
	t.Helper()
	at, err := os.MkdirTemp(w.dir, "mount-")
	if err != nil {
		t.Fatal(err)
	}
	err = unix.Mount("tmpfs", at, "tmpfs", 0, limits)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("this root may not mount: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	w.copy(t, template, filepath.Base(at)+"/work")
	return filepath.Join(at, "work"), func(limits string) {
		t.Helper()
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_REMOUNT, limits); err != nil {
			t.Fatal(err)
		}
	}
}

// killFill leaves so many bytes free in dir.
func killFill(t testing.TB, dir string, left int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Error(err)
		return
	}
	n := int64(fs.Bavail)*fs.Bsize - left
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, max(n, 0)), 0o600); err != nil {
		t.Error(err)
	}
}

// full runs a command for which there is no room.
func (w *killWorld) full(t testing.TB, s *killScenario, dir string) {
	t.Helper()
	if status, out := w.program(t, dir, nil, s.args...); status != 9 {
		t.Errorf("exit %d, want 9\n%s", status, out)
	}
	s.check(t, dir)
}

// completes runs a scenario to its end.
func (w *killWorld) completes(t testing.TB, s *killScenario, dir string) {
	t.Helper()
	if status, out := w.program(t, dir, nil, s.args...); status != 0 {
		t.Errorf("with room again: exit %d\n%s", status, out)
	}
	s.check(t, dir)
	if diff := cmp.Diff(s.want, killState(t, dir)); diff != "" {
		t.Errorf("with room again (-undisturbed +full):\n%s", diff)
	}
}
