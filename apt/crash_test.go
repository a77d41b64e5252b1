//go:build failpoint

package apt

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// TestCrashChild is the process that gets killed; it does nothing by itself.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv("APT_CRASH_DIR")
	if dir == "" {
		return
	}
	b, err := os.ReadFile(os.Getenv("APT_CRASH_SNAPSHOT"))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	now, err := time.Parse(time.RFC3339, os.Getenv("APT_CRASH_NOW"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(os.Getenv("APT_CRASH_STORE"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPublisher(PublishConfig{
		Name: "main", Archives: []PublishArchive{{Name: "debian", SignedBy: []string{os.Getenv("APT_CRASH_KEYRING")}}},
	}, "apt/main", st, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), snap, 2, now); err != nil {
		t.Fatal(err)
	}
}

// TestCrash kills a publication at every fail point that it passes, looks at
// what clients then see, and publishes again: the end is that of a run that
// nothing disturbed.
func TestCrash(t *testing.T) {
	for _, base := range []bool{false, true} {
		w := newWorld(t, apttest.Suite{Packages: threePackages})
		a, b := w.resolve(w.config("jq")), w.resolve(w.config("libjq1", "other"))
		then := time.Now().UTC().Truncate(time.Second)
		now := then.Add(retainTime + 2*time.Hour) // so that there is something to sweep

		fresh := func() {
			w.dir = filepath.Join(t.TempDir(), "inside")
			if base {
				for i, snap := range []*artifact.Snapshot{a, w.resolve(w.config("libc6")), w.resolve(w.config("libc6", "other"))} {
					w.publish(snap, uint64(i), then.Add(time.Duration(i)*time.Second))
				}
			}
		}
		fresh()
		trace := filepath.Join(t.TempDir(), "trace")
		if err := w.child(b, now, "DARKMIRROR_FAILPOINT_TRACE="+trace); err != nil {
			t.Fatal(err)
		}
		want := comparable(state(t, w.dir))
		passed, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		points := strings.Fields(string(passed))
		slices.Sort(points)
		points = slices.Compact(points)
		if len(points) < 15 {
			t.Fatalf("only %v were passed", points)
		}
		for _, point := range points {
			fresh()
			err := w.child(b, now, "DARKMIRROR_FAILPOINT="+point)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: %v, want death by SIGKILL", point, err)
			}
			if base {
				w.readable(point)
			}
			if err := w.child(b, now); err != nil {
				t.Fatalf("%s: again: %v", point, err)
			}
			if diff := cmp.Diff(want, comparable(state(t, w.dir))); diff != "" {
				t.Errorf("%s: the end differs:\n%s", point, diff)
			}
			w.readable(point)
		}
		t.Logf("%d fail points: %s", len(points), strings.Join(points, " "))
	}
}

// comparable leaves out what holds the key or the random part of a signature.
func comparable(files map[string]string) map[string]string {
	for name := range files {
		if strings.HasSuffix(name, ".gpg") || strings.HasSuffix(name, ".asc") || strings.HasSuffix(name, "/InRelease") {
			files[name] = "(key or signature)"
		}
	}
	return files
}

// readable reads the published archive as a client.
func (w *world) readable(point string) {
	w.t.Helper()
	p := w.publisher()
	inside := httptest.NewServer(NewHandler(p.Tree(), w.dir, w.st, nil))
	defer inside.Close()
	c := w.config("libc6")
	c.Archives[0].URL = inside.URL + "/debian"
	c.Archives[0].SignedBy = []string{filepath.Join(p.Tree(), keyringText)}
	src := sourceOf(w.t, c, newStore(w.t), inside.URL)
	src.Now = func() time.Time { return time.Now().Add(retainTime + 3*time.Hour) }
	snap, _, err := src.Resolve(w.t.Context(), nil)
	if ref, ok := errors.AsType[*artifact.Refusal](err); ok && ref.Code == codeClosure {
		return // read whole; the subset of this moment lacks libc6
	}
	if err != nil {
		w.t.Errorf("%s: a client fails: %v", point, err)
		return
	}
	for f := range snap.Files {
		if err := src.Fetch(w.t.Context(), f); err != nil {
			w.t.Errorf("%s: a client fails: %v", point, err)
		}
	}
}

func (w *world) child(snap *artifact.Snapshot, now time.Time, env ...string) error {
	w.t.Helper()
	b, err := snap.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.t.TempDir(), "snapshot")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), "APT_CRASH_DIR="+w.dir, "APT_CRASH_SNAPSHOT="+file, "APT_CRASH_NOW="+now.Format(time.RFC3339),
		"APT_CRASH_STORE="+filepath.Join(filepath.Dir(w.keyring), "store"), "APT_CRASH_KEYRING="+w.keyring)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}
