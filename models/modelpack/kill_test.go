//go:build failpoint

package modelpack

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

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
)

// killSets are two sets: a branch moves, a repository goes, another comes.
func killSets(w *world) (first, second *models.Set) {
	first = set(w.revision("team/gone", "a", "main", small(5)), w.revision("team/model", "a", "main", small(1)))
	second = set(w.revision("datasets/team/new", "a", "main", small(7)), w.revision("team/model", "b", "main", small(1)))
	return first, second
}

// killWork publishes both, as two imports would. It may be repeated after a
// kill anywhere.
func killWork(t *testing.T, dir string) {
	w := openWorld(t, dir, Options{ModelPack: true, Modelcar: true})
	if err := w.st.Sweep(func(artifact.Digest) bool { return false }); err != nil {
		t.Fatal(err)
	}
	first, second := killSets(w)
	if _, err := os.Stat(filepath.Join(dir, "second")); err != nil {
		w.publish(first.Revisions...)
		if err := os.WriteFile(filepath.Join(dir, "second"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.publish(second.Revisions...)
}

// killEnd is what there is afterwards: tags with what they name, and blobs.
func killEnd(t *testing.T, dir string) []string {
	w := openWorld(t, dir, Options{ModelPack: true, Modelcar: true})
	if err := w.st.Sweep(func(artifact.Digest) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := w.st.Check(t.Context(), func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	out := whole(w)
	for d := range w.stored() {
		out = append(out, d.String())
	}
	left, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out
}

// whole reads everything that a tag names.
func whole(w *world) []string {
	w.t.Helper()
	var out []string
	for _, at := range []string{"team/gone", "team/gone-modelcar", "team/model", "team/model-modelcar", "datasets/team/new"} {
		for _, tag := range w.tags(at) {
			m := w.manifest(at, tag)
			out = append(out, at+":"+tag+" "+m.Annotations[noteRevision])
			if m.IsIndex() {
				for _, child := range m.Manifests {
					w.unpack(at, w.manifest(at, string(child.Digest)))
				}
			}
			for _, b := range m.Blobs() {
				w.blob(at, b)
			}
		}
	}
	return out
}

// TestKill kills -9 a run at every passage of every fail point, reads what a
// client would find then, lets the run be repeated, and compares the end with
// that of an undisturbed one.
func TestKill(t *testing.T) {
	if dir := os.Getenv("MODELPACK_KILL_DIR"); dir != "" {
		killWork(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "MODELPACK_KILL_DIR="+dir)...)
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
			t.Logf("%s", out)
		}
		return err
	}
	calm, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if err := run(calm, "DARKMIRROR_FAILPOINT_TRACE="+trace); err != nil {
		t.Fatal(err)
	}
	want := killEnd(t, calm)
	passed, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		points[name]++
	}
	for _, name := range []string{"models.modelpack-layer", "models.modelpack-alias", "oci.manifests-made", "oci.record-made", "oci.publish", "oci.published"} {
		if points[name] == 0 {
			t.Errorf("%s was not passed", name)
		}
	}
	all := os.Getenv("DARKMIRROR_KILL") == "all"
	for _, name := range slices.Sorted(maps.Keys(points)) {
		times := points[name]
		for n := range times {
			// The short form dies at the first and the last passage.
			if !all && n != 0 && n != times-1 {
				continue
			}
			dir := t.TempDir()
			at := name + ":" + strconv.Itoa(n+1)
			err := run(dir, "DARKMIRROR_FAILPOINT="+at)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: not killed: %v", at, err)
			}
			whole(openWorld(t, dir, Options{ModelPack: true, Modelcar: true}))
			if err := run(dir); err != nil {
				t.Fatalf("%s: the second run: %v", at, err)
			}
			if diff := cmp.Diff(want, killEnd(t, dir)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}
