//go:build failpoint

package ollama

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// work publishes one set and then another; it may be repeated after a kill
// anywhere.
func work(t *testing.T, dir string) {
	w := worldIn(t, dir)
	if err := w.st.Sweep(func(artifact.Digest) bool { return true }); err != nil {
		t.Fatal(err)
	}
	target := w.target(t, Options{})
	first := map[string]string{"a-Q8_0.gguf": llama(q80, kv{"tokenizer.chat_template", jinja}), "a-F16.gguf": llama(f16)}
	second := map[string]string{"a-Q8_0.gguf": first["a-Q8_0.gguf"], "b-Q4_K_M.gguf": llama(q4km)}
	publish(t, target, w.rev(t, "gone/model", c1, []string{"main"}, map[string]string{"x-F16.gguf": llama(f16)}), w.rev(t, "team/model", c1, []string{"main", "v1"}, first))
	moved := w.rev(t, "team/model", c2, []string{"main"}, second)
	publish(t, target, moved)
	spoilt := filepath.Join(w.dir, blobPath(artifact.Sum([]byte(second["a-Q8_0.gguf"]))))
	if err := errors.Join(os.Remove(spoilt), os.WriteFile(spoilt, []byte("[]"), 0o600)); err != nil {
		t.Fatal(err)
	}
	publish(t, target, moved)
}

// whole reports a manifest that names a blob which is not there.
func whole(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "manifests", "*", "*", "*", "*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var m manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return err
		}
		for _, l := range append(m.Layers, m.Config) {
			if _, err := os.Stat(filepath.Join(dir, blobPath(l.Digest))); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestKill kills -9 a run at every passage of every fail point, looks at what
// Ollama finds then, runs it again, and compares the end with that of an
// undisturbed run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("OLLAMA_KILL_DIR"); dir != "" {
		work(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "OLLAMA_KILL_DIR="+dir)...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) > 0 {
			t.Logf("%s", out)
		}
		return err
	}
	calm, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if err := run(calm, "DARKMIRROR_FAILPOINT_TRACE="+trace); err != nil {
		t.Fatal(err)
	}
	want := worldIn(t, calm).tree(t)
	passed, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	points := make(map[string]int)
	for name := range strings.FieldsSeq(string(passed)) {
		if strings.HasPrefix(name, "ollama.") || strings.HasPrefix(name, "models.place-") {
			points[name]++
		}
	}
	for _, name := range []string{"ollama.announce", "models.place-linked", "ollama.manifest", "ollama.manifest-removed", "ollama.blob-removed", "ollama.settle", "ollama.vanish"} {
		if points[name] == 0 {
			t.Fatalf("%s is not passed: %v", name, points)
		}
	}
	for name, times := range points {
		for n := range times {
			dir, at := t.TempDir(), name+":"+strconv.Itoa(n+1)
			err := run(dir, "DARKMIRROR_FAILPOINT="+at)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: not killed: %v", at, err)
			}
			if err := whole(filepath.Join(dir, "ollama")); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			if err := run(dir); err != nil {
				t.Fatal(at, err)
			}
			if diff := cmp.Diff(want, worldIn(t, dir).tree(t)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}
