//go:build failpoint

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// killPushes is the server to which a client pushes, and its undisturbed end.
type killPushes struct {
	template string
	images   *killImages
	passages map[string]int
	want     map[string]string
}

// TestKillServe kills the embedded registry with SIGKILL at every fail point
// that it passes while a client pushes to it, starts it again and lets the
// client do the same from the start. What clients are then shown, and every
// file but unfinished uploads, which a client may take up again for a day,
// must be as if nothing had been.
func TestKillServe(t *testing.T) {
	w := newKillWorld(t)
	p := w.pushes(t)
	for _, place := range slices.Sorted(maps.Keys(p.passages)) {
		for nth := 1; nth <= p.passages[place]; nth++ {
			if nth != 1 && nth != p.passages[place] && os.Getenv(killEnv) != "all" {
				continue
			}
			t.Run(fmt.Sprintf("%s:%d", place, nth), func(t *testing.T) {
				t.Parallel()
				w.slots <- struct{}{}
				defer func() { <-w.slots }()
				name := fmt.Sprintf("serve-%s-%d", place, nth)
				w.copy(t, p.template, name)
				dir := w.path(name)
				defer func() {
					if err := os.RemoveAll(dir); err != nil {
						t.Error(err)
					}
				}()
				if !w.pushed(t, dir, p.images, fmt.Sprintf("DARKMIRROR_FAILPOINT=%s:%d", place, nth)) {
					t.Fatal("it was not killed")
				}
				if w.pushed(t, dir, p.images) {
					t.Fatal("it was killed again")
				}
				if diff := cmp.Diff(p.want, killPushed(t, dir)); diff != "" {
					t.Errorf("after the second push (-undisturbed +killed):\n%s", diff)
				}
			})
		}
	}
}

// pushes makes the template and traces what a client does, twice.
func (w *killWorld) pushes(t *testing.T) *killPushes {
	t.Helper()
	p := &killPushes{template: "serve", images: newKillImages()}
	up := ocitest.New()
	srv := newKillServer(t, up)
	up.Put("app", "1.0", p.images.old)
	w.write(t, "push.token", []byte("push-token\n"))
	w.imagesOutside(t, "serve-outside", srv, "app:1.0")
	w.must(t, "serve-outside", "export")
	w.copy(t, "serve-outside/state/outbox", "serve-inbox")
	w.imagesInside(t, "serve", "serve-inbox")
	config := w.path("serve/darkmirror.yaml")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(b), "\n"), func(l string) bool {
		return strings.Contains(l, "registry:") || strings.Contains(l, "allow_http:")
	})
	w.write(t, "serve/darkmirror.yaml", []byte(strings.Join(lines, "")))
	w.must(t, "serve", "import")
	// An upload that nobody came back to.
	stale := "serve/state/store/uploads/" + strings.Repeat("5a", 16)
	w.write(t, stale, []byte("begun"))
	old := time.Now().Add(-30 * 24 * time.Hour)
	if err := os.Chtimes(w.path(stale), old, old); err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"serve-undisturbed", "serve-again"} {
		w.copy(t, "serve", run)
		dir := w.path(run)
		if w.pushed(t, dir, p.images, "DARKMIRROR_FAILPOINT_TRACE="+dir+".trace") {
			t.Fatal("it was killed")
		}
		state := killPushed(t, dir)
		if p.want == nil {
			p.want, p.passages = state, killTrace(t, dir+".trace")
			continue
		}
		if diff := cmp.Diff(p.want, state); diff != "" {
			t.Fatalf("two undisturbed runs differ:\n%s", diff)
		}
	}
	return p
}

// killPushed describes a server's folder, without unfinished uploads.
func killPushed(t testing.TB, dir string) map[string]string {
	t.Helper()
	state := killState(t, dir)
	maps.DeleteFunc(state, func(name, _ string) bool {
		return strings.HasPrefix(name, "state/store/uploads/") || filepath.Base(name) == ".tmp"
	})
	return state
}

// pushed starts the server and is its client. It reports whether the server
// was killed.
func (w *killWorld) pushed(t testing.TB, dir string, k *killImages, env ...string) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), w.exe, "serve", "--listen", "127.0.0.1:0")
	cmd.Args[0] = "darkmirror"
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}, env...)
	var msg bytes.Buffer
	cmd.Stderr = &msg
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	base, ok := strings.CutPrefix(strings.TrimSpace(line), "serving on ")
	var done error
	if ok {
		c := &killClient{base: base, http: &http.Client{Timeout: killPatience, Transport: &http.Transport{DisableKeepAlives: true}}}
		done = c.work(k)
	}
	if done == nil && ok {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := errors.AsType[*killStatus](done); ok {
		_ = cmd.Process.Kill() // the test has failed
		_ = cmd.Wait()
		t.Fatalf("%v\n%s", done, msg.String())
	}
	err = cmd.Wait()
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() && ws.Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil || done != nil || !ok {
		t.Fatalf("serve: %v, the client: %v, %q %v\n%s", err, done, line, readErr, msg.String())
	}
	return false
}

// A killClient pushes to the embedded registry. What it does may be repeated
// from the start.
type killClient struct {
	base string
	http *http.Client
}

// A killStatus is an answer that is wrong.
type killStatus struct{ text string }

func (e *killStatus) Error() string { return e.text }

// do sends a request; one of the statuses must come back.
func (c *killClient) do(method, at string, body []byte, contentType string, want ...int) (http.Header, error) {
	if strings.HasPrefix(at, "/") {
		at = c.base + at
	}
	req, err := http.NewRequest(method, at, bytes.NewReader(body)) //nolint:noctx // the client has a timeout
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer push-token")
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if !slices.Contains(want, resp.StatusCode) {
		return nil, &killStatus{fmt.Sprintf("%s %s: %s, want %v: %s", method, at, resp.Status, want, b)}
	}
	return resp.Header, nil
}

const killOctets = "application/octet-stream"

// push pushes a manifest with its blobs. parts is how many requests a blob
// takes.
func (c *killClient) push(repo, ref string, o *ocitest.Object, parts int) error {
	for i, d := range killDigests(o) {
		if err := c.blob(repo, d, o.Blobs[i], parts); err != nil {
			return err
		}
	}
	_, err := c.do(http.MethodPut, "/v2/"+repo+"/manifests/"+ref, o.Raw, o.MediaType, http.StatusCreated)
	return err
}

func (c *killClient) blob(repo string, d spec.Digest, b []byte, parts int) error {
	head, err := c.do(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, killOctets, http.StatusAccepted)
	if err != nil {
		return err
	}
	size := len(b)/parts + 1
	for len(b) > size {
		next, err := c.do(http.MethodPatch, c.at(head), b[:size], killOctets, http.StatusAccepted)
		if err != nil {
			return err
		}
		head, b = next, b[size:]
	}
	_, err = c.do(http.MethodPut, c.at(head)+"?digest="+string(d), b, killOctets, http.StatusCreated)
	return err
}

func (c *killClient) at(head http.Header) string { return head.Get("Location") }

// work pushes an image, one with a layer named by its SHA-512, a signature of
// what was imported, an index of what was imported, and takes some of it away
// again.
func (c *killClient) work(k *killImages) error {
	const app = "platform/registry.example/app"
	child := k.old.Children[0]
	gone := ocitest.Artifact("application/vnd.example.scan", k.old, []byte("withdrawn"))
	steps := []func() error{
		func() error { return c.push("platform/own/two", "1.0", k.two, 3) },
		func() error { return c.push("platform/own/odd", "1", k.odd, 2) },
		func() error { return c.push(app, "sig", k.sig, 1) },
		func() error { return c.push(app, string(k.sbom.Digest), k.sbom, 1) },
		// Of a published child: it is kept although the import may withdraw it.
		func() error { return c.push(app, "child", ocitest.Index(child), 1) },
		func() error { return c.push("platform/own/two", "moved", k.two, 1) },
		func() error {
			_, err := c.do(http.MethodPost, "/v2/platform/own/odd/blobs/uploads/?mount="+string(killDigests(k.two)[1])+"&from=platform/own/two", nil, killOctets, http.StatusCreated)
			return err
		},
		func() error { return c.push(app, string(gone.Digest), gone, 1) },
		func() error { return c.push(app, "gone", gone, 1) },
		func() error {
			_, err := c.do(http.MethodDelete, "/v2/platform/own/two/manifests/moved", nil, killOctets, http.StatusAccepted)
			return err
		},
		func() error {
			_, err := c.do(http.MethodDelete, "/v2/"+app+"/manifests/"+string(gone.Digest), nil, killOctets, http.StatusAccepted)
			return err
		},
		func() error {
			_, err := c.do(http.MethodDelete, "/v2/"+app+"/blobs/"+string(killDigests(gone)[1]), nil, killOctets, http.StatusAccepted)
			return err
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
