//go:build failpoint

package carry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
)

// crashTask tells the test binary, started again as a child, what to carry and
// where: the bundle's folder and the media, a line each.
const crashTask = "CARRY_TEST_TASK"

func TestMain(m *testing.M) {
	task := os.Getenv(crashTask)
	if task == "" {
		os.Exit(m.Run())
	}
	// The child. Its first stick holds two volumes.
	lines := strings.Split(task, "\n")
	l := &stick{size: map[string]int64{lines[1]: 2<<20 + 500<<10}}
	if _, err := copyTo(context.Background(), lines[0], Options{Media: lines[1:]}, l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, point, trace string, task ...string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashTask+"="+strings.Join(task, "\n"), "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
	cmd.Stderr = t.Output()
	return cmd.Run()
}

// contents reads a medium for comparison.
func contents(t *testing.T, medium string, s *bundle.Sealed) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, n := range names(t, medium, s) {
		files[n] = read(t, medium, filepath.Base(s.Dir), n)
	}
	return files
}

// spoilt is what the runs begin with: a stick on which a killed run left a
// wrong volume and a temporary file.
func spoilt(t *testing.T, s *bundle.Sealed) []string {
	t.Helper()
	media := sticks(t, 2)
	write(t, "half a volume", media[0], filepath.Base(s.Dir), volume(1))
	write(t, "half a label", media[0], filepath.Base(s.Dir), ".tmp-label.txt")
	return media
}

// A kill at any step leaves no volume that is wrong under its name but the one
// that was there, no label that promises what is not there, and nothing that
// verifies and is not whole; a rerun gives what an undisturbed run gives.
func TestKillAnywhere(t *testing.T) {
	s := sealBundle(t, t.TempDir())
	source := stamp(t, s.Dir)
	media := spoilt(t, s)
	trace := filepath.Join(t.TempDir(), "trace")
	if err := child(t, "", trace, append([]string{s.Dir}, media...)...); err != nil {
		t.Fatal(err)
	}
	wantFiles := []map[string]string{contents(t, media[0], s), contents(t, media[1], s)}
	if wantFiles[0][volume(1)] == "" || wantFiles[1][volume(3)] == "" {
		t.Fatal("the volumes are not spread over both sticks")
	}
	passed := make(map[string]int)
	var points []string
	for _, name := range strings.Fields(read(t, trace)) {
		passed[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, passed[name]))
	}
	for _, name := range []string{
		"carry.swept", "carry.wrong-found", "carry.created", "carry.written", "carry.synced", "carry.verified", "carry.renamed",
		"carry.folder-synced", "carry.second-look", "carry.all-synced",
	} {
		if passed[name] == 0 {
			t.Errorf("%s was not passed", name)
		}
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			media := spoilt(t, s)
			task := append([]string{s.Dir}, media...)
			err := child(t, point, "", task...)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			on := make(map[string]bool)
			for i := range media {
				for _, v := range halfDone(t, s, media[i], wantFiles, i) {
					on[v] = true
				}
			}
			if err := verified(t, s, media...); (err == nil) != (len(on) == 4) {
				t.Fatalf("with %d volumes the inside says %v", len(on), err)
			}
			if err := child(t, "", "", task...); err != nil {
				t.Fatal(err)
			}
			for i, m := range media {
				if diff := cmp.Diff(wantFiles[i], contents(t, m, s)); diff != "" {
					t.Fatal(diff)
				}
			}
			if diff := cmp.Diff(source, stamp(t, s.Dir)); diff != "" {
				t.Fatalf("the source was changed: %s", diff)
			}
		})
	}
}

// halfDone looks at a medium after a kill and gives the volumes that are right.
func halfDone(t *testing.T, s *bundle.Sealed, medium string, want []map[string]string, nth int) (on []string) {
	t.Helper()
	have := contents(t, medium, s)
	for name, got := range have {
		right := slices.ContainsFunc(want, func(w map[string]string) bool { return w[name] == got })
		switch {
		case strings.Contains(name, ".tmp-"), got == "half a volume":
		case right && strings.HasPrefix(name, "volumes/"):
			on = append(on, name)
		case right:
		case !strings.HasPrefix(name, "label."):
			t.Errorf("%s has a name and wrong bytes", name)
		case !strings.Contains(got, "NOT FINISHED"):
			t.Errorf("%s promises too much:\n%s", name, got)
		}
	}
	for _, name := range []string{"label.txt", "label.html"} {
		if have[name] != want[nth][name] {
			continue
		}
		for v := range want[nth] {
			if strings.HasPrefix(v, "volumes/") && !slices.Contains(on, v) {
				t.Errorf("%s promises %s, which is not there", name, v)
			}
		}
	}
	return on
}
