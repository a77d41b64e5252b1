//go:build failpoint

package s3

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// killFiles are those of the branch before and after it moves.
func killFiles() (first, second map[string]string) {
	first, second = small(), small()
	second["config.json"], second["another.safetensors"] = `{"a": 1}`, noise(2, part+1)
	delete(second, "README.md")
	return first, second
}

// killWork publishes two sets into a store that goes on living; it may be
// repeated after a kill anywhere.
func killWork(t *testing.T, dir, url string) {
	w := newWorld(t, dir)
	target := w.target(t, Options{Endpoint: url}, fetch.Config{})
	first, second := killFiles()
	gone := w.rev(t, "team/gone", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	publish(t, target, gone, w.rev(t, "team/model", c1, []string{"main", "v1"}, first))
	publish(t, target, w.rev(t, "team/model", c2, []string{"main"}, second))
}

// killEnd is what there is: names, with the SHA-256 that the store knows.
func killEnd(f *fake) map[string]string {
	end := map[string]string{"uploads": strconv.Itoa(f.open())}
	for key, o := range f.objects {
		end[key] = o.sum
	}
	return end
}

// TestKill kills -9 a run at every fail point, looks at what a reader finds
// then, runs it again, and compares the end with that of an undisturbed run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("S3_KILL_DIR"); dir != "" {
		killWork(t, dir, os.Getenv("S3_KILL_URL"))
		return
	}
	run := func(f *fake, dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "S3_KILL_DIR="+dir, "S3_KILL_URL="+f.url)...)
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
			t.Logf("%s", out)
		}
		return err
	}
	calm, trace := newFake(t), filepath.Join(t.TempDir(), "trace")
	if err := run(calm, t.TempDir(), "DARKMIRROR_FAILPOINT_TRACE="+trace); err != nil {
		t.Fatal(err)
	}
	want := killEnd(calm)
	passed, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		if strings.HasPrefix(name, "s3.") {
			points[name]++
		}
	}
	for _, name := range []string{"s3.record", "s3.recorded", "s3.put", "s3.put-done", "s3.opened", "s3.part-sent", "s3.part-copied", "s3.complete", "s3.completed", "s3.point", "s3.pointed", "s3.remove", "s3.removed"} {
		if points[name] == 0 {
			t.Errorf("%s was not passed: %v", name, points)
		}
	}
	all := os.Getenv("DARKMIRROR_KILL") == "all"
	for _, name := range slices.Sorted(maps.Keys(points)) {
		for n := range points[name] {
			// The short form dies at the first and the last passage.
			if !all && n != 0 && n != points[name]-1 {
				continue
			}
			f, dir, at := newFake(t), t.TempDir(), name+":"+strconv.Itoa(n+1)
			err := run(f, dir, "DARKMIRROR_FAILPOINT="+at)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: not killed: %v", at, err)
			}
			readable(t, f, at)
			if err := run(f, dir); err != nil {
				t.Fatalf("%s: the second run: %v", at, err)
			}
			if diff := cmp.Diff(want, killEnd(f)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}

// readable follows every ref as a reader does, to files that must be whole, and
// looks for objects that nobody would ever take away.
func readable(t *testing.T, f *fake, at string) {
	t.Helper()
	first, second := killFiles()
	f.mu.Lock()
	defer f.mu.Unlock()
	target := &Target{opt: Options{Name: "models/llm"}}
	var listed map[string]*object
	if m := f.objects[target.manifestKey()]; m != nil {
		var err error
		if listed, err = target.decode(m.body); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	for key := range f.objects {
		if key != target.manifestKey() && listed[key] == nil {
			t.Errorf("%s: %s is not in the manifest", at, key)
		}
	}
	for _, u := range f.uploads {
		if listed[u.key] == nil {
			t.Errorf("%s: an upload of %s is not in the manifest", at, u.key)
		}
	}
	for _, ref := range []string{"main", "v1"} {
		o := f.objects["team/model/refs/"+ref]
		if o == nil {
			continue
		}
		files := map[string]map[string]string{c1: first, c2: second}[string(o.body)]
		if files == nil {
			t.Errorf("%s: %s holds %q", at, ref, o.body)
		}
		for path, text := range files {
			if o := f.objects["team/model/"+string(o.body)+"/"+path]; o == nil || string(o.body) != text {
				t.Errorf("%s: %s names a commit whose %s is not there", at, ref, path)
			}
		}
	}
}
