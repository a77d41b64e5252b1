//go:build failpoint

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// killChunk is the chunk that a push sends; what is smaller goes in one
	// piece.
	killChunk = 64 << 20
	// killNowhere stands in a template for the address of a target.
	killNowhere = "127.0.0.1:1"
)

// A killTarget is the registry that one run pushes into.
type killTarget struct {
	*ocitest.Registry
	host string
}

// killTargets are the targets by the folder of the run.
type killTargets struct{ byDir sync.Map }

func (k *killTargets) of(t testing.TB, dir string) *killTarget {
	t.Helper()
	v, ok := k.byDir.Load(dir)
	if !ok {
		t.Fatalf("%s has no target", dir)
	}
	return v.(*killTarget) //nolint:forcetypeassert // nothing else is stored
}

// prepare gives a folder a target and writes its address into the
// configuration.
func (k *killTargets) prepare(opts ...ocitest.Option) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		t.Helper()
		r := ocitest.New(opts...)
		target := &killTarget{r, strings.TrimPrefix(newKillServer(t, r), "http://")}
		k.byDir.Store(dir, target)
		t.Cleanup(func() { k.byDir.Delete(dir) }) // it holds whole layers
		name := filepath.Join(dir, "darkmirror.yaml")
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.ReplaceAll(b, []byte(killNowhere), []byte(target.host)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// newKillServer serves until the test ends, and answers where.
func newKillServer(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// killWhole wants what the tags of a registry point at to be whole, of all that
// the objects are, and lists what it has of them.
func killWhole(t testing.TB, r *ocitest.Registry, objects []*ocitest.Object) map[string]string {
	t.Helper()
	state := make(map[string]string)
	known := make(map[spec.Digest]*ocitest.Object)
	for _, o := range objects {
		for _, m := range o.All() {
			known[m.Digest] = m
		}
	}
	for _, repo := range r.Repositories() {
		for tag, d := range r.Tags(repo) {
			state["target "+repo+":"+tag] = string(d)
			o := known[d]
			if o == nil {
				continue // the list of referrers
			}
			for _, m := range o.All() {
				if raw, _, _, ok := r.Manifest(repo, string(m.Digest)); !ok || !bytes.Equal(raw, m.Raw) {
					t.Errorf("%s:%s lacks manifest %s", repo, tag, m.Digest)
				}
				for i, d := range killDigests(m) {
					if got, ok := r.Blob(repo, d); !ok || !bytes.Equal(got, m.Blobs[i]) {
						t.Errorf("%s:%s lacks blob %s", repo, tag, d)
					}
				}
			}
		}
		for _, o := range known {
			if _, _, _, ok := r.Manifest(repo, string(o.Digest)); ok {
				state["target "+repo+"@"+string(o.Digest)] = "manifest"
			}
			for _, d := range killDigests(o) {
				if _, ok := r.Blob(repo, d); ok {
					state["target "+repo+"@"+string(d)] = "blob"
				}
			}
		}
	}
	return state
}

// killDigests are what a manifest calls its blobs: config and layers, in the
// order of the object's.
func killDigests(o *ocitest.Object) []spec.Digest {
	m, err := spec.ParseManifest(o.Raw, "")
	if err != nil {
		panic(err) // the test made it
	}
	var ds []spec.Digest
	for _, d := range m.Blobs() {
		ds = append(ds, d.Digest)
	}
	return ds
}

// killCheckImages wants what the embedded registry shows to be whole.
func killCheckImages(t testing.TB, dir string) {
	t.Helper()
	published, ok, err := oci.ReadPublished(filepath.Join(dir, "state/published/oci/platform"))
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return
	}
	// Looked at in a copy of the names: opening the store makes folders.
	st, err := store.Open(filepath.Join(dir, "state/store"))
	if err != nil {
		t.Fatal(err)
	}
	set, err := published.Load(st)
	if err != nil || len(set.Repositories) == 0 {
		t.Fatalf("what is published cannot be read: %v", err)
	}
	for _, r := range set.Repositories {
		for _, m := range slices.Concat(r.Manifests, r.Blobs) {
			b := killCheckFile(t, killBlob(dir, m.Blob.Hex()), m.Blob.Hex(), m.Size)
			if got := m.Digest.Sum(b); got != m.Digest {
				t.Errorf("%s@%s is %s", r.Name, m.Digest, got)
			}
		}
	}
}

// killImages are what the upstream has, at first and later.
type killImages struct {
	old, now, odd, two, sbom, sig *ocitest.Object
}

func (k *killImages) all() []*ocitest.Object {
	return []*ocitest.Object{k.old, k.now, k.odd, k.two, k.sbom, k.sig}
}

// killOdd is an image whose layer is named by its SHA-512.
func killOdd(layer []byte) *ocitest.Object {
	o := ocitest.Image(layer)
	raw := bytes.Replace(o.Raw, []byte(spec.Digest("sha256:").Sum(layer)), []byte(spec.Digest("sha512:").Sum(layer)), 1)
	return ocitest.Custom(o.MediaType, raw, o.Blobs...)
}

func newKillImages() *killImages {
	base := ocitest.Layer(300<<10, 1)
	k := &killImages{
		old: ocitest.Index(ocitest.Image(base, ocitest.Layer(4<<10, 2)), ocitest.ImageFor("linux/arm64", ocitest.Layer(5<<10, 3))),
		now: ocitest.Index(ocitest.Image(base, ocitest.Layer(6<<10, 4)), ocitest.ImageFor("linux/arm64", ocitest.Layer(5<<10, 3))),
		odd: killOdd(ocitest.Layer(70<<10, 5)),
		two: ocitest.Image(base, ocitest.Layer(3<<10, 6)),
	}
	k.sbom = ocitest.Artifact("application/spdx+json", k.old, []byte("parts"))
	k.sig = ocitest.Signature(k.old)
	return k
}

// imagesOutside writes a configuration outside that asks for these images.
func (w *killWorld) imagesOutside(t testing.TB, dir, upstream string, images ...string) {
	t.Helper()
	w.write(t, dir+"/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: outside
state_dir: state
signing_key: %s
volume_size: 1MiB
oci:
  - name: platform
    registry: %s
    host: registry.example
    allow_http: true
    images: [%s]
`, w.path("signing.key"), upstream, strings.Join(images, ", ")))
}

// imagesInside writes a configuration inside with a target.
func (w *killWorld) imagesInside(t testing.TB, dir, inbox string) {
	t.Helper()
	w.write(t, dir+"/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: inside
state_dir: state
inbox: [%s]
trust: [%s]
serve:
  push_token_file: %s
oci:
  - name: platform
    registry: http://%s/mirror
    allow_http: true
`, w.path(inbox), w.path("signing.key.pub"), w.path("push.token"), killNowhere))
}

// images traces the scenarios of images: a plan, an export, and the import of
// two bundles into a registry that has no referrers API.
func (w *killWorld) images(t *testing.T) {
	t.Helper()
	k := newKillImages()
	up := ocitest.New()
	srv := newKillServer(t, up)
	up.Put("app", "1.0", k.old)
	up.Put("app", "", k.sbom)
	up.Put("app", ocitest.SignatureTag(k.old), k.sig)
	up.Put("odd", "1", k.odd)
	up.AddBlobAs("odd", killDigests(k.odd)[1], k.odd.Blobs[1])
	w.write(t, "push.token", []byte("push-token\n"))

	w.imagesOutside(t, "images", srv, "app:1.0", "odd:1")
	w.copy(t, "images", "images-plan")
	w.must(t, "images", "plan", "--save", "plan.json")
	w.copy(t, "images", "images-export")
	w.must(t, "images", "export", "--plan", "plan.json")
	up.Put("app", "1.0", k.now)
	up.Put("two", "1.0", k.two)
	w.imagesOutside(t, "images", srv, "app:1.0", "two:1.0", "odd:1")
	w.must(t, "images", "plan", "--save", "plan.json")
	w.must(t, "images", "export", "--plan", "plan.json")
	// What is planned and killed sees upstream as it is now, from the start.
	w.imagesOutside(t, "images-plan", srv, "app:1.0", "odd:1")

	w.copy(t, "images/state/outbox", "images-inbox")
	w.imagesInside(t, "images-import", "images-inbox")
	targets := &killTargets{}
	outbox := killCheckOutbox(w.path("images/state/outbox"))
	for _, s := range []*killScenario{
		{name: "images-plan", template: "images-plan", args: []string{"plan", "--save", "plan.json"}, only: regexp.MustCompile(`^store\.(upload|synced|renamed)`), check: outbox},
		{name: "images-export", template: "images-export", args: []string{"export", "--plan", "plan.json"}, only: regexp.MustCompile(`^fetch\.`), check: outbox},
		{
			name: "images-import", template: "images-import", args: []string{"import"}, only: regexp.MustCompile(`^(oci|remote|import|durable|ledger\.published)[.-]`),
			prepare: targets.prepare(ocitest.NoReferrersAPI()),
			check: func(t testing.TB, dir string) {
				t.Helper()
				killCheckImages(t, dir)
				killWhole(t, targets.of(t, dir).Registry, k.all())
			},
			beside: func(t testing.TB, dir string) map[string]string {
				t.Helper()
				return killWhole(t, targets.of(t, dir).Registry, k.all())
			},
		},
	} {
		w.trace(t, s)
	}
}

// layered makes the inside of an image with one large layer, imported as far as
// its target.
func (w *killWorld) layered(t *testing.T, name string, size int) *ocitest.Object {
	t.Helper()
	o := ocitest.Image(ocitest.Layer(size, 8))
	up := ocitest.New()
	srv := newKillServer(t, up)
	up.Put("app", "1.0", o)
	w.write(t, "push.token", []byte("push-token\n"))
	w.imagesOutside(t, name+"-outside", srv, "app:1.0")
	w.must(t, name+"-outside", "export")
	w.copy(t, name+"-outside/state/outbox", name+"-inbox")
	w.imagesInside(t, name, name+"-inbox")
	w.killAt(t, w.path(name), "import.staged", 1, "import")
	return o
}

// layer traces the scenario of a layer that goes up in chunks.
func (w *killWorld) layer(t *testing.T) {
	t.Helper()
	o := w.layered(t, "layer", killChunk+1<<20)
	targets := &killTargets{}
	w.trace(t, &killScenario{
		name: "layer", template: "layer", args: []string{"import"}, only: regexp.MustCompile(`^remote\.(chunk|complete|session-save)`),
		prepare: targets.prepare(),
		check: func(t testing.TB, dir string) {
			t.Helper()
			killWhole(t, targets.of(t, dir).Registry, []*ocitest.Object{o})
		},
		beside: func(t testing.TB, dir string) map[string]string {
			t.Helper()
			return killWhole(t, targets.of(t, dir).Registry, []*ocitest.Object{o})
		},
	})
}

// A killSwitch kills a process when so many bytes of a layer have come in.
type killSwitch struct {
	left int64
	proc atomic.Pointer[os.Process]
}

// watch is an option of the registry that the bytes go to.
func (k *killSwitch) watch(_ http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodPatch {
		r.Body = &killReader{r.Body, k}
	}
	return false
}

type killReader struct {
	io.ReadCloser
	k *killSwitch
}

func (r *killReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.k.left -= int64(n); r.k.left < 0 {
		if proc := r.k.proc.Swap(nil); proc != nil {
			_ = proc.Kill() // it may have ended, which the test finds out
		}
	}
	return n, err
}

// TestKillUpload kills a push in the middle of its second chunk. What is sent
// again afterwards is one chunk at most, whether the registry keeps the part
// that came or not.
func TestKillUpload(t *testing.T) {
	const size = 2*killChunk + 4<<20
	w := newKillWorld(t)
	o := w.layered(t, "upload", size)
	for name, opts := range map[string][]ocitest.Option{"kept": nil, "dropped": {ocitest.DropPart()}} {
		t.Run(name, func(t *testing.T) {
			k := &killSwitch{left: killChunk + killChunk/2}
			targets := &killTargets{}
			w.copy(t, "upload", "upload-"+name)
			dir := w.path("upload-" + name)
			targets.prepare(append(opts, ocitest.Before(k.watch))...)(t, dir)
			target := targets.of(t, dir)

			var out bytes.Buffer
			cmd := exec.CommandContext(t.Context(), w.exe, "import", "-q")
			cmd.Args[0] = "darkmirror"
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			k.proc.Store(cmd.Process)
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("not killed: %v\n%s", err, out.String())
			}
			killCheckImages(t, dir)
			if tags := target.Tags("mirror/registry.example/app"); len(tags) != 0 {
				t.Errorf("tags of an image that is not whole: %v", tags)
			}
			if status, out := w.program(t, dir, nil, "import"); status != 0 {
				t.Fatalf("the rerun: exit %d\n%s", status, out)
			}
			killWhole(t, target.Registry, []*ocitest.Object{o})
			if got := target.Tags("mirror/registry.example/app")["1.0"]; got != o.Digest {
				t.Errorf("the tag points at %q, want %s", got, o.Digest)
			}
			if sent := target.Received(http.MethodPatch, "/blobs/uploads/"); sent < size || sent > size+killChunk {
				t.Errorf("%d bytes were sent for a layer of %d, want one chunk of %d again at most", sent, size, killChunk)
			}
			if n := target.Count(http.MethodPost, "/blobs/uploads/"); n > 3 {
				t.Errorf("%d uploads were begun, want the layer's and its config's, and no second for the layer", n)
			}
		})
	}
}

// TestKillDownload kills a pull in the middle of a large layer. What is asked
// for again afterwards is the rest of it.
func TestKillDownload(t *testing.T) {
	const size = 16 << 20
	w := newKillWorld(t)
	o := ocitest.Image(ocitest.Layer(size, 9))
	up := ocitest.New()
	srv := newKillServer(t, up)
	up.Put("app", "1.0", o)
	// The config is fetched first, for its platform, and then the layer.
	w.imagesOutside(t, "download", srv, "app:1.0]\n    platforms: [linux/amd64")
	layer := "/blobs/" + string(killDigests(o)[1])
	for _, place := range []string{"fetch.quarter", "fetch.half", "fetch.threequarters"} {
		t.Run(place, func(t *testing.T) {
			w.copy(t, "download", "download-"+place)
			dir := w.path("download-" + place)
			w.killAt(t, dir, place, 2, "export")
			up.ResetLog()
			if status, out := w.program(t, dir, nil, "export"); status != 0 {
				t.Fatalf("the rerun: exit %d\n%s", status, out)
			}
			most := map[string]int64{"fetch.quarter": size * 3 / 4, "fetch.half": size / 2, "fetch.threequarters": size / 4}[place]
			if n := up.Count(http.MethodGet, layer); n != 1 {
				t.Errorf("the layer was asked for %d times, want once", n)
			}
			if sent := up.Sent(http.MethodGet, layer); sent == 0 || sent > most {
				t.Errorf("%d bytes of the layer came again, want %d at most", sent, most)
			}
			if b, err := os.ReadFile(killBlob(dir, artifact.Sum(o.Blobs[1]).Hex())); err != nil || !bytes.Equal(b, o.Blobs[1]) {
				t.Errorf("the layer in the store has %d bytes: %v", len(b), err)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "state/store/partial/*")); err != nil || len(left) != 0 {
				t.Errorf("left over: %q %v", left, err)
			}
			found, err := bundle.Find(filepath.Join(dir, "state/outbox"))
			if err != nil || len(found) != 1 {
				t.Errorf("%d bundles: %v", len(found), err)
			}
		})
	}
}
