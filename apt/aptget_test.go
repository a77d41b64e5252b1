package apt

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/apt/apttest"
)

// aptRoot is a private apt: its own sources, lists, cache and status file, and
// nothing of this host's configuration.
type aptRoot struct {
	t   *testing.T
	env []string
	dir string
}

func newAptRoot(t *testing.T, sources string) *aptRoot {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt-get is not on PATH: what it makes of a published archive is not shown by this run")
	}
	r := &aptRoot{t: t, dir: t.TempDir()}
	for _, d := range []string{"etc/apt/preferences.d", "etc/apt/apt.conf.d", "state/lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf(`Dir "%[1]s";
Dir::Etc "%[1]s/etc/apt";
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Log "%[1]s/log";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Bin::solvers:: "/usr/lib/apt/solvers";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "0";
Acquire::http::Proxy "DIRECT";
Debug::NoLocking "true";
`, r.dir)
	for name, text := range map[string]string{"apt.conf": conf, "status": "", "etc/apt/sources.list": sources} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.env = append(os.Environ(), "APT_CONFIG="+filepath.Join(r.dir, "apt.conf"), "LC_ALL=C", "http_proxy=", "https_proxy=")
	return r
}

func (r *aptRoot) run(args ...string) (string, error) {
	cmd := exec.CommandContext(r.t.Context(), "apt-get", args...)
	cmd.Env = r.env
	cmd.Dir = r.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *aptRoot) must(args ...string) string {
	r.t.Helper()
	out, err := r.run(args...)
	if err != nil {
		r.t.Fatalf("apt-get %v: %v\n%s", args, err, out)
	}
	return out
}

func TestAptGet(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages, Date: time.Now().Add(-time.Hour)})
	w.publish(w.resolve(w.config("jq", "other")), 1, time.Now())
	p := w.publisher()
	inside := httptest.NewServer(NewHandler(p.Tree(), w.dir, w.st, nil))
	defer inside.Close()
	key := filepath.Join(p.Tree(), keyringBinary)
	r := newAptRoot(t, fmt.Sprintf("deb [signed-by=%s] %s/debian test main\n", key, inside.URL))

	out := r.must("update")
	for _, bad := range []string{"W:", "E:", "Err:", "Ign:"} {
		if strings.Contains(out, bad) {
			t.Errorf("apt-get update is not content:\n%s", out)
		}
	}
	r.must("install", "--yes", "--download-only", "jq", "other")
	debs, err := filepath.Glob(filepath.Join(r.dir, "cache/archives/*.deb"))
	if err != nil || len(debs) != 4 {
		t.Errorf("%v, %v", debs, err)
	}
	// Nothing new: InRelease is not sent again.
	if out := r.must("update"); !strings.Contains(out, "Hit:1") {
		t.Errorf("a second update fetches again:\n%s", out)
	}
	// A new publication is seen at once.
	w.add(apttest.Suite{Packages: strings.ReplaceAll(threePackages, "1.6-2.1", "1.6-2.2")})
	w.publish(w.resolve(w.config("jq")), 2, time.Now())
	if out := r.must("update"); !strings.Contains(out, "Get:1") {
		t.Errorf("the new publication is not seen:\n%s", out)
	}
	if out := r.must("install", "--simulate", "jq"); !strings.Contains(out, "jq (1.6-2.2 ") {
		t.Errorf("the new version is not offered:\n%s", out)
	}

	// Another key is refused: the test above is about signatures too.
	strange, err := apttest.NewKey("strange")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := apttest.PublicKey(strange)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.asc")
	if err := os.WriteFile(wrong, pub, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := newAptRoot(t, fmt.Sprintf("deb [signed-by=%s] %s/debian test main\n", wrong, inside.URL)).run("update"); err == nil {
		t.Errorf("apt-get takes any key:\n%s", out)
	}
}

// TestAptGetWhilePublishing updates in a loop while the archive changes 20
// times under it: no update may fail.
func TestAptGetWhilePublishing(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	a, b := w.resolve(w.config("jq")), w.resolve(w.config("jq", "other"))
	w.publish(a, 0, time.Now())
	p := w.publisher()
	inside := httptest.NewServer(NewHandler(p.Tree(), w.dir, w.st, nil))
	defer inside.Close()
	r := newAptRoot(t, fmt.Sprintf("deb [signed-by=%s] %s/debian test main\n", filepath.Join(p.Tree(), keyringBinary), inside.URL))

	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 20 {
			snap := a
			if i%2 == 0 {
				snap = b
			}
			if _, err := p.Publish(t.Context(), snap, uint64(i+1), time.Now()); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	updates, failed := 0, 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		// A fresh client each time, so that every update fetches the index.
		if err := os.RemoveAll(filepath.Join(r.dir, "state/lists")); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(r.dir, "state/lists/partial"), 0o755); err != nil {
			t.Fatal(err)
		}
		updates++
		if out, err := r.run("update"); err != nil || strings.Contains(out, "Err:") || strings.Contains(out, "W:") {
			failed++
			t.Errorf("update %d: %v\n%s", updates, err, out)
		}
	}
	wg.Wait()
	t.Logf("%d updates during 20 publications, %d failed", updates, failed)
	if updates < 5 {
		t.Errorf("%d updates: the test shows little", updates)
	}
}
