//go:build failpoint

package registry

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// killWork is a client that pushes, over HTTP, everything that there is, and
// deletes some of it. It may be repeated after a kill of the server anywhere.
func killWork(t *testing.T, dir string) {
	w := openWorld(t, dir, Options{PushToken: secret})
	srv := httptest.NewServer(w.h)
	defer srv.Close()
	w.url = srv.URL
	up := upstream(t, "app", "up", 9, nil)
	if _, err := os.Stat(filepath.Join(dir, "platform", "current.json")); errors.Is(err, fs.ErrNotExist) {
		w.publish("platform", 1, up)
	}
	const repo = "platform/app"
	image := w.pushImage(repo, "v1", 1)
	// Chunks, taken up where the registry says.
	b := noise(900, 4)
	if r := w.do(http.MethodHead, app+"/blobs/"+string(digestOf(b)), nil); r.status == http.StatusNotFound {
		at := w.want(w.do(http.MethodPost, app+"/blobs/uploads/", nil), http.StatusAccepted, "").header.Get("Location")
		w.want(w.do(http.MethodPatch, at, bytes.NewReader(b[:500])), http.StatusAccepted, "")
		w.want(w.do(http.MethodPut, at+"?digest="+string(digestOf(b)), bytes.NewReader(b[500:])), http.StatusCreated, "")
	}
	// A referrer, an index over a published image, tags that move.
	sig := imageOf(describe(noise(900, 4)))
	sig.Subject = &image
	w.want(w.put(repo, "sig", sig), http.StatusCreated, "")
	w.want(w.put(repo, "both", indexOf(image, up.descriptor())), http.StatusCreated, "")
	w.want(w.put(repo, "moved", sig), http.StatusCreated, "")
	w.want(w.put(repo, "moved", indexOf(image)), http.StatusCreated, "")
	// Something that goes again: a referrer with two tags, its config, a tag.
	gone := imageOf(w.pushBlob(repo, noise(70, 6)))
	gone.Subject = &image
	d := string(digestOf(encode(t, gone)))
	w.want(w.do(http.MethodPut, app+"/manifests/"+d+"?tag=a&tag=b", bytes.NewReader(encode(t, gone)), "Content-Type", spec.OCIManifest), http.StatusCreated, "")
	for _, path := range []string{"/manifests/" + d, "/blobs/" + string(gone.Config.Digest)} {
		if r := w.do(http.MethodDelete, app+path, nil); r.status != http.StatusAccepted && r.status != http.StatusNotFound {
			t.Fatalf("delete %s: %d %s", path, r.status, r.body)
		}
	}
}

// killEnd is what a new server says afterwards, and which files are there.
// On the way every image that has a tag must be whole.
func killEnd(t *testing.T, dir string) []string {
	w := openWorld(t, dir, Options{PushToken: secret})
	srv := httptest.NewServer(w.h)
	defer srv.Close()
	w.url = srv.URL
	if err := w.store.Check(t.Context(), func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	whole(t, w)
	image := imageOf(describe(noise(100, 1)), describe(noise(5000, 101)))
	out := []string{"tags " + strings.Join(w.tags(app), " ")}
	for _, d := range w.referrers(app, digestOf(encode(t, image)), "") {
		out = append(out, "referrer "+string(d))
	}
	err := filepath.WalkDir(filepath.Join(dir, "platform", "pushed"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != tempFile {
			rel, _ := filepath.Rel(dir, p)
			b, rerr := os.ReadFile(p)
			err = rerr
			out = append(out, rel+" "+string(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// whole checks that what a tag names is here with all that it names.
func whole(t *testing.T, w *world) {
	t.Helper()
	for _, repo := range []string{"app"} {
		v, err := w.h.source("platform").view(t.Context(), repo)
		if err != nil {
			t.Fatal(err)
		}
		if !v.exists() {
			return
		}
		tags, err := v.tags()
		if err != nil {
			t.Fatal(err)
		}
		tgt := &target{view: v, name: "platform/" + repo}
		for _, tag := range tags {
			e, err := v.resolve(tag)
			if err != nil {
				t.Errorf("tag %s: %v", tag, err)
				continue
			}
			m, err := v.parse(e.blob, e.mediaType)
			if err != nil {
				t.Errorf("tag %s: %v", tag, err)
				continue
			}
			if _, err := tgt.plan(m); err != nil {
				t.Errorf("tag %s: %v", tag, err)
			}
		}
	}
}

// TestKill kills -9 the server at every passage of every fail point, looks at
// what a new one finds, lets the client push again, and compares the end with
// that of an undisturbed run.
func TestKill(t *testing.T) {
	if dir := os.Getenv("REGISTRY_KILL_DIR"); dir != "" {
		killWork(t, dir)
		return
	}
	run := func(dir string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$", "-test.count=1")
		cmd.Env = append(os.Environ(), append(env, "REGISTRY_KILL_DIR="+dir)...)
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
	for _, name := range []string{
		"blob-kept", "blob-known", "blob-stored", "file-removed", "file-renamed", "file-synced", "file-written", "folder-made", "manifest-kept",
		"manifest-known", "manifest-removed", "manifest-stored", "members-kept", "referrer-written", "tagged", "untagged",
	} {
		if points["registry."+name] == 0 {
			t.Errorf("registry.%s was not passed", name)
		}
	}
	all := os.Getenv("DARKMIRROR_KILL") == "all"
	for name, times := range points {
		for n := range times {
			// The short form dies at the first and the last passage.
			if !all && (!strings.HasPrefix(name, "registry.") || n != 0 && n != times-1) {
				continue
			}
			dir := t.TempDir()
			at := name + ":" + strconv.Itoa(n+1)
			err := run(dir, "DARKMIRROR_FAILPOINT="+at)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s: not killed: %v", at, err)
			}
			whole(t, openWorld(t, dir, Options{PushToken: secret}))
			if err := run(dir); err != nil {
				t.Fatalf("%s: the second run: %v", at, err)
			}
			if diff := cmp.Diff(want, killEnd(t, dir)); diff != "" {
				t.Errorf("%s: %s", at, diff)
			}
		}
	}
}
