package remote

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const mib = 1 << 20

func TestPushBlob(t *testing.T) {
	w := newWorld(t)
	c := w.client(kept(t.TempDir(), mib))
	for _, n := range []int{0, 1, 1000, mib - 1, mib, mib + 1, 3*mib + 5} {
		w.push(c, &blob{b: ocitest.Noise(n, uint64(n))}, Uploaded)
	}
	if n := w.r.Count("PATCH", ""); n != 1+2+4 {
		t.Errorf("want 7 chunks, got %d", n)
	}
	if n := w.r.Count("POST", ""); n != 7 {
		t.Errorf("want 7 sessions, got %d", n)
	}
	if w.events != 1+1000+(mib-1)+mib+(mib+1)+(3*mib+5) {
		t.Errorf("events tell of %d bytes", w.events)
	}
	w.r.ResetLog()
	for _, n := range []int{0, 1000, 3*mib + 5} {
		b := &blob{b: ocitest.Noise(n, uint64(n))}
		w.push(c, b, Present)
		if b.opened != 0 {
			t.Error("a blob that is there was opened")
		}
	}
	if n := w.r.Writes(); n != 0 {
		t.Errorf("the same again needs no writes, got %v", w.r.Requests())
	}
	if n := len(w.r.Requests()); n != 3 {
		t.Errorf("want one request a blob, got %v", w.r.Requests())
	}
}

func TestPushImage(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	img := ocitest.Image(ocitest.Noise(100, 1))
	push := func() {
		t.Helper()
		for _, b := range img.Blobs {
			content := &blob{b: b}
			if _, err := c.PushBlob(t.Context(), "app", content.digest(), int64(len(b)), content.open); err != nil {
				t.Fatal(err)
			}
		}
		head, err := c.Head(t.Context(), "app", "1.0")
		must(t, err)
		if head != nil && head.Digest == img.Digest {
			return
		}
		subject, err := c.PushManifest(t.Context(), "app", "1.0", img.Raw, img.MediaType)
		must(t, err)
		if subject {
			t.Error("an image without a subject is said to have one")
		}
	}
	push()
	raw, kind, _, _ := w.r.Manifest("app", "1.0")
	if !bytes.Equal(raw, img.Raw) || kind != img.MediaType {
		t.Errorf("the manifest came as %s, %d bytes", kind, len(raw))
	}
	w.r.ResetLog()
	push()
	if n := w.r.Writes(); n != 0 {
		t.Errorf("an unchanged image needs no writes, got %v", w.r.Requests())
	}
	must(t, c.DeleteManifest(t.Context(), "app", "1.0"))
	if err := c.DeleteManifest(t.Context(), "app", "1.0"); !IsNotFound(err) {
		t.Errorf("want not found, got %v", err)
	}
}

func TestPushSHA512(t *testing.T) {
	w := newWorld(t)
	b := &blob{b: ocitest.Noise(3*mib, 1)}
	sum := sha512.Sum512(b.b)
	d := spec.Digest("sha512:" + hex.EncodeToString(sum[:]))
	w.r.Set(ocitest.CutUpload(mib+mib/2, 1))
	how, err := w.client(kept(t.TempDir(), mib)).PushBlob(t.Context(), "app", d, int64(len(b.b)), b.open)
	must(t, err)
	if got, ok := w.r.Blob("app", d); how != Uploaded || !ok || !bytes.Equal(got, b.b) {
		t.Errorf("%s: got %d bytes", how, len(got))
	}
}

func TestMount(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	b := &blob{b: ocitest.Noise(1000, 1)}
	w.r.AddBlob("base", b.b)
	w.push(c, b, Mounted, "app", "nowhere", "base")
	if n := w.r.Received("", ""); n != 0 {
		t.Errorf("a mount sent %d bytes", n)
	}
	if n := w.r.Uploads(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	w.r.Set(ocitest.NoMount())
	w.r.ResetLog()
	other := &blob{b: ocitest.Noise(1000, 2)}
	w.r.AddBlob("base", other.b)
	w.push(c, other, Uploaded, "base")
	if n := w.r.Count("POST", ""); n != 1 {
		t.Errorf("the session of the mount was not used: %v", w.r.Requests())
	}
}

// A kill, or a cut, in the middle of a chunked upload costs one chunk at most:
// proved by the bytes that the registry read.
func TestResumeAfterKill(t *testing.T) {
	const size, chunk = 10*mib + 17, mib
	for _, c := range []struct {
		name string
		opts []ocitest.Option
		// most is what is sent twice at most; puts is what is sent in all.
		most int64
	}{
		{"registry keeps the part", nil, 0},
		{"registry keeps chunks", []ocitest.Option{dropPart()}, chunk},
		{"relative locations", []ocitest.Option{ocitest.RelativeLocation()}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.opts...)
			dir := t.TempDir()
			b := &blob{b: ocitest.Noise(size, 1)}
			ctx, kill := context.WithCancel(t.Context())
			seen := int64(0)
			dying := w.client(kept(dir, chunk), func(c *Config) {
				c.OnEvent = func(e artifact.Event) {
					if seen += e.Bytes; seen > 5*mib+mib/2 {
						kill()
					}
				}
			})
			// Events come every MiB, so that the kill falls to the end of a
			// chunk; a cut lets it fall into the middle of one.
			w.r.Set(ocitest.CutUpload(5*mib+mib/2, 1))
			dying.pause = func(time.Duration) time.Duration {
				kill()
				return time.Minute
			}
			if _, err := dying.PushBlob(ctx, "app", b.digest(), size, b.open); !errors.Is(err, context.Canceled) {
				t.Fatalf("want the push killed, got %v", err)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*.json")); err != nil || len(left) != 1 {
				t.Fatalf("want one session, got %v, %v", left, err)
			}
			w.push(w.client(kept(dir, chunk)), b, Uploaded)
			if again := w.r.Received("PATCH", "") - size; again < 0 || again > c.most {
				t.Errorf("%d bytes were sent again, at most %d may be", again, c.most)
			}
			if n := w.r.Count("POST", ""); n != 1 {
				t.Errorf("want one session, got %d", n)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 0 {
				t.Errorf("files are left: %v, %v", left, err)
			}
		})
	}
}

// dropPart lets the registry forget what it has of a chunk that was cut: the
// status then tells the end of the last whole chunk.
func dropPart() ocitest.Option { return ocitest.DropPart() }

func TestResumeAfterCuts(t *testing.T) {
	const size, chunk = 10 * mib, mib
	for name, c := range map[string]struct {
		opt  ocitest.Option
		most int64
	}{
		"part kept":    {ocitest.NoMount(), 0},
		"part dropped": {ocitest.DropPart(), 4 * chunk},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.opt, ocitest.CutUpload(2*mib+12345, 4))
			b := &blob{b: ocitest.Noise(size, 1)}
			w.push(w.client(kept(t.TempDir(), chunk)), b, Uploaded)
			if again := w.r.Received("PATCH", "") - size; again < 0 || again > c.most {
				t.Errorf("%d bytes were sent again, at most %d may be", again, c.most)
			}
			if w.events != size {
				t.Errorf("events tell of %d bytes", w.events)
			}
			cuts := 0
			for _, q := range w.r.Requests() {
				if q.Method == http.MethodPatch && q.Status == 0 {
					cuts++
				}
			}
			if cuts < 3 {
				t.Errorf("want 3 cuts or 4, got %d", cuts)
			}
		})
	}
}

// A registry that loses an upload with a cut gets the blob anew, three times.
func TestUploadLost(t *testing.T) {
	w := newWorld(t, ocitest.LoseUploadOnCut(), ocitest.CutUpload(mib+mib/2, 3))
	b := &blob{b: ocitest.Noise(4*mib, 1)}
	w.push(w.client(kept(t.TempDir(), mib)), b, Uploaded)
	if n := w.r.Count("POST", ""); n != 4 {
		t.Errorf("want 4 sessions, got %d", n)
	}

	w = newWorld(t, ocitest.LoseUploadOnCut(), ocitest.CutUpload(mib+mib/2, 100))
	dir := t.TempDir()
	_, err := w.client(kept(dir, mib)).PushBlob(t.Context(), "app", b.digest(), 4*mib, b.open)
	r := refused(t, err, artifact.ErrUnavailable, CodeUpload)
	if !strings.Contains(r.Reason, "3 restarts") || !strings.Contains(r.Subject, string(b.digest())) {
		t.Errorf("%v", r)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

// A registry that is restarted forgets its sessions.
func TestUploadForgotten(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	b := &blob{b: ocitest.Noise(4*mib, 1)}
	w.interrupt(dir, b)
	w.r.DropUploads()
	w.push(w.client(kept(dir, mib)), b, Uploaded)
	if n := w.r.Count("POST", ""); n != 2 {
		t.Errorf("want 2 sessions, got %d", n)
	}
}

// interrupt pushes b with a kill in its middle.
func (w *world) interrupt(dir string, b *blob) {
	w.t.Helper()
	ctx, kill := context.WithCancel(w.t.Context())
	defer kill()
	w.r.Set(ocitest.CutUpload(2*mib+mib/2, 1))
	c := w.client(kept(dir, mib))
	c.pause = func(time.Duration) time.Duration {
		kill()
		return time.Minute
	}
	if _, err := c.PushBlob(ctx, "app", b.digest(), int64(len(b.b)), b.open); !errors.Is(err, context.Canceled) {
		w.t.Fatalf("want the push killed, got %v", err)
	}
}

// What lies in the folder of the sessions is not believed.
func TestSessionFile(t *testing.T) {
	for name, spoil := range map[string]func(*session){
		"other blob":     func(s *session) { s.Digest = string(spec.Digest("sha256:").Sum(nil)) },
		"other registry": func(s *session) { s.Registry = "https://files.example" },
		"other host":     func(s *session) { s.URL = "https://files.example/upload" },
		"offset":         func(s *session) { s.Offset = 1 << 40 },
		"hash":           func(s *session) { s.Hash = []byte("x") },
		"schema":         func(s *session) { s.Schema = "darkmirror.upload/v2" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir := t.TempDir()
			b := &blob{b: ocitest.Noise(4*mib, 1)}
			w.interrupt(dir, b)
			file := w.client(kept(dir, mib)).sessionFile("app", b.digest())
			raw, err := os.ReadFile(file)
			must(t, err)
			var s session
			must(t, json.Unmarshal(raw, &s))
			if s.Offset != 2*mib {
				t.Fatalf("want two chunks kept, got %d", s.Offset)
			}
			spoil(&s)
			raw, err = json.Marshal(s)
			must(t, err)
			must(t, os.WriteFile(file, raw, 0o600))
			w.push(w.client(kept(dir, mib)), b, Uploaded)
			if n := w.r.Count("POST", ""); n != 2 {
				t.Errorf("the session was believed: %d sessions", n)
			}
		})
	}
	// A hash of other bytes is found out at the end.
	w := newWorld(t)
	dir := t.TempDir()
	b := &blob{b: ocitest.Noise(4*mib, 1)}
	w.interrupt(dir, b)
	c := w.client(kept(dir, mib))
	s, err := c.resume(c.sessionFile("app", b.digest()), "app", b.digest(), 4*mib)
	must(t, err)
	s.hash = b.digest().New()
	must(t, s.save(c.sessionFile("app", b.digest())))
	_, err = w.client(kept(dir, mib)).PushBlob(t.Context(), "app", b.digest(), 4*mib, b.open)
	_ = refused(t, err, artifact.ErrIntegrity, CodeDigest)
	w.push(w.client(kept(dir, mib)), b, Uploaded)
}

func TestSweepSessions(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	old := time.Now().Add(-30 * 24 * time.Hour)
	for _, name := range []string{"upload-1.json", ".tmp-1", "other"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		must(t, os.Chtimes(filepath.Join(dir, name), old, old))
	}
	must(t, os.WriteFile(filepath.Join(dir, "upload-2.json"), nil, 0o600))
	w.client(kept(dir, mib))
	var got []string
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff([]string{"other", "upload-2.json"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNoChunks(t *testing.T) {
	for _, status := range []int{http.StatusMethodNotAllowed, http.StatusLengthRequired, http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented} {
		w := newWorld(t, ocitest.NoChunks(status))
		b := &blob{b: ocitest.Noise(4*mib, 1)}
		w.push(w.client(kept(t.TempDir(), mib)), b, Uploaded)
		if n := w.r.Count("PATCH", ""); n != 1 {
			t.Errorf("%d: want one chunk tried, got %d", status, n)
		}
		if n := w.r.Uploads(); n != 0 {
			t.Errorf("%d: %d sessions are left", status, n)
		}
	}
}

func TestRangeRefused(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	b := &blob{b: ocitest.Noise(6*mib, 1)}
	w.interrupt(dir, b)
	w.r.Set(ocitest.RefuseRange(2))
	w.push(w.client(kept(dir, mib)), b, Uploaded)
	if n := w.r.Count("POST", ""); n != 1 {
		t.Errorf("416 started the blob anew: %d sessions", n)
	}
	if again := w.r.Received("PATCH", "") - 6*mib; again != 0 {
		t.Errorf("%d bytes were sent again", again)
	}
}

// A registry that took less of a chunk than it was sent says so in Range.
func TestShortChunk(t *testing.T) {
	w := newWorld(t, ocitest.TakeLess(300_000))
	b := &blob{b: ocitest.Noise(4*mib, 1)}
	w.push(w.client(kept(t.TempDir(), mib)), b, Uploaded)
	if n := w.r.Count("POST", ""); n != 1 {
		t.Errorf("want one session, got %d", n)
	}
}

func TestMinChunk(t *testing.T) {
	w := newWorld(t, ocitest.MinChunk(3*mib))
	b := &blob{b: ocitest.Noise(7*mib, 1)}
	w.push(w.client(kept(t.TempDir(), mib)), b, Uploaded)
	if p, n := w.r.Count("PATCH", ""), w.r.Received("PUT", ""); p != 2 || n != mib {
		t.Errorf("want two chunks of 3 MiB and the rest with the PUT, got %d and %d bytes", p, n)
	}
}

// Content that is not what it shall be never becomes a blob.
func TestContentWrong(t *testing.T) {
	for name, size := range map[string]int{"whole": 1000, "chunks": 3 * mib, "chunks and rest": 3*mib + 1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ocitest.Before(noPutOfDigest))
			b := &blob{b: ocitest.Noise(size, 1)}
			d := b.digest()
			b.b = bytes.Clone(b.b)
			b.b[size-1] ^= 1
			dir := t.TempDir()
			_, err := w.client(kept(dir, mib)).PushBlob(t.Context(), "app", d, int64(size), b.open)
			if r := refused(t, err, artifact.ErrIntegrity, CodeDigest); r.Want != string(d) || r.Got != string(b.digest()) {
				t.Errorf("want %s, got %s: %v", r.Want, r.Got, r)
			}
			for _, q := range w.r.Requests() {
				if q.Method == http.MethodPut && q.Status >= 200 {
					t.Errorf("the registry got it all: %v", q)
				}
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 0 {
				t.Errorf("files are left: %v, %v", left, err)
			}
		})
	}
	w := newWorld(t)
	b := &blob{b: ocitest.Noise(3*mib, 1)}
	d := b.digest()
	b.b = b.b[:2*mib+5]
	_, err := w.client(kept(t.TempDir(), mib)).PushBlob(t.Context(), "app", d, 3*mib, b.open)
	_ = refused(t, err, artifact.ErrIntegrity, CodeSize)
	broken := func() (io.ReadSeekCloser, error) { return nil, errors.New("disk on fire") }
	_, err = w.client().PushBlob(t.Context(), "app", d, 3*mib, broken)
	if err == nil || errors.Is(err, artifact.ErrUnavailable) || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("want our own trouble, got %v", err)
	}
}

// noPutOfDigest answers nothing: it is the place to see that a PUT came.
func noPutOfDigest(http.ResponseWriter, *http.Request) bool { return false }

// A final PUT whose answer is lost is not repeated.
func TestPutAnswerLost(t *testing.T) {
	for name, size := range map[string]int{"whole": 1000, "chunks": 3 * mib} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var once sync.Once
			inner := w.r
			cutting := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
				if q.Method != http.MethodPut {
					inner.ServeHTTP(rw, q)
					return
				}
				inner.ServeHTTP(discard{http.Header{}}, q)
				lost := false
				once.Do(func() { lost = true })
				if lost {
					panic(http.ErrAbortHandler)
				}
			}))
			b := &blob{b: ocitest.Noise(size, 1)}
			w.push(w.client(kept(t.TempDir(), mib), func(c *Config) { c.Registry = cutting }), b, Uploaded)
			if n := w.r.Count("PUT", ""); n != 1 {
				t.Errorf("want one PUT, got %d", n)
			}
		})
	}
}

// discard takes an answer that never arrives.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func TestStall(t *testing.T) {
	w := newWorld(t, ocitest.StallUpload(mib+mib/2))
	c := w.client(kept(t.TempDir(), mib))
	c.stall = 100 * time.Millisecond
	// More than the socket's buffers take.
	b := &blob{b: ocitest.Noise(40*mib, 1)}
	c.c.Chunk = 20 * mib
	w.push(c, b, Uploaded)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !strings.Contains(w.log.String(), errStalled.Error()) {
		t.Errorf("no stall was seen: %s", w.log.String())
	}
}

func TestBusyUpload(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	n := 0
	w.r.Set(ocitest.Before(func(rw http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.Method == http.MethodHead {
			return false
		}
		// Every third: asking for the state and sending again are two.
		if n++; n%3 != 0 {
			return false
		}
		rw.WriteHeader(http.StatusServiceUnavailable)
		return true
	}))
	w.push(w.client(kept(t.TempDir(), mib)), &blob{b: ocitest.Noise(5*mib, 1)}, Uploaded)
	w.r.Set(ocitest.Healthy(), ocitest.Busy(100, http.StatusTooManyRequests, "3600"))
	b := &blob{b: ocitest.Noise(9, 1)}
	fc := w.fetch(func(c *fetch.Config) { c.MaxWait = time.Second })
	c, err := New(Config{Name: "oci/test", Registry: w.url}, fc)
	must(t, err)
	_, err = c.PushBlob(t.Context(), "app", b.digest(), 9, b.open)
	_ = refused(t, err, artifact.ErrUnavailable, CodeRateLimit)
}

// Tokens end in the middle of a long upload.
func TestLongUpload(t *testing.T) {
	w := tokenWorld(t, ocitest.TokenUses(3))
	b := &blob{b: ocitest.Noise(10*mib, 1)}
	w.push(w.client(as("me", password), kept(t.TempDir(), mib)), b, Uploaded)
	if n := len(w.on(ocitest.OnToken)); n < 4 {
		t.Errorf("want a new token now and then, got %d", n)
	}
	if n := w.r.Count("POST", ""); n > 2 {
		t.Errorf("the blob started anew: %v", w.r.Requests())
	}
}

func TestDenied(t *testing.T) {
	w := newWorld(t, ocitest.Before(func(rw http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPut {
			return false
		}
		rw.Header().Set("X-Request-Id", "id-7")
		rw.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(rw, `{"errors":[{"code":"DENIED","message":"adding 2.9 MiB of storage resource"}]}`)
		return true
	}))
	b := &blob{b: ocitest.Noise(1000, 1)}
	_, err := w.client().PushBlob(t.Context(), "app", b.digest(), 1000, b.open)
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("want an Error, got %v", err)
	}
	want := &Error{
		Source: "oci/test", Op: "push blob", Ref: "app@" + string(b.digest()), Registry: w.client().Host(),
		Status: 403, Code: "DENIED", Message: "adding 2.9 MiB of storage resource", RequestID: "id-7",
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if n := w.r.Count("POST", ""); n != 1 {
		t.Errorf("a denied blob was tried %d times", n)
	}
}

func TestLocations(t *testing.T) {
	w := newWorld(t)
	other := w.serve(w.r)
	w.r.Set(ocitest.UploadsAt(other))
	b := &blob{b: ocitest.Noise(3*mib, 1)}
	w.push(w.client(kept(t.TempDir(), mib)), b, Uploaded)
	there := 0
	for _, q := range w.r.Requests() {
		if "http://"+q.Host == other {
			there++
		}
	}
	if there != 4 {
		t.Errorf("want 4 requests at the other host, got %d", there)
	}
	for name, at := range map[string]string{"not allowed": "https://files.example", "no URL": "%zz"} {
		t.Run(name, func(t *testing.T) {
			w.r.Set(ocitest.UploadsAt(at))
			b := &blob{b: ocitest.Noise(100, 2)}
			_, err := w.client().PushBlob(t.Context(), "app", b.digest(), 100, b.open)
			if err == nil || strings.Contains(err.Error(), "secret-state") {
				t.Errorf("want a refusal without secrets, got %v", err)
			}
			if name == "not allowed" && !errors.Is(err, fetch.ErrHost) {
				t.Errorf("want the host refused, got %v", err)
			}
		})
	}
}

func TestPushManifestWrong(t *testing.T) {
	w := newWorld(t, ocitest.Lenient())
	c := w.client()
	img := ocitest.Image()
	_, err := c.PushManifest(t.Context(), "app", string(img.Digest), append(bytes.Clone(img.Raw), '\n'), img.MediaType)
	_ = refused(t, err, artifact.ErrIntegrity, CodeDigest)
	_, err = c.PushManifest(t.Context(), "app", "1", make([]byte, spec.MaxManifest+1), img.MediaType)
	_ = refused(t, err, artifact.ErrIntegrity, spec.CodeManifestSize)
	if n := len(w.r.Requests()); n != 0 {
		t.Errorf("something was sent: %v", w.r.Requests())
	}
	w.r.Set(ocitest.ImmutableTags())
	_, err = c.PushManifest(t.Context(), "app", "1", img.Raw, img.MediaType)
	must(t, err)
	_, err = c.PushManifest(t.Context(), "app", "1", img.Raw, img.MediaType)
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != 412 || e.Code != "PRECONDITION" || !strings.Contains(e.Message, "immutable") {
		t.Errorf("want 412, got %v", err)
	}
}

func TestSubject(t *testing.T) {
	img := ocitest.Image()
	sbom := ocitest.Artifact("application/spdx+json", img, []byte("{}"))
	for _, api := range []bool{true, false} {
		w := newWorld(t, ocitest.Lenient())
		if !api {
			w.r.Set(ocitest.NoReferrersAPI())
		}
		subject, err := w.client().PushManifest(t.Context(), "app", string(sbom.Digest), sbom.Raw, sbom.MediaType)
		must(t, err)
		if subject != api {
			t.Errorf("want %v, got %v", api, subject)
		}
	}
}

func TestAddReferrer(t *testing.T) {
	w := newWorld(t, ocitest.NoReferrersAPI(), ocitest.Lenient())
	img := ocitest.Image()
	w.r.Put("app", "1", img)
	c := w.client()
	var list []*ocitest.Object
	for i := range 12 {
		o := ocitest.Artifact("application/spdx+json", img, fmt.Appendf(nil, "%d", i))
		w.r.Put("app", "", o)
		list = append(list, o)
	}
	// Another tool's entry has fields that we do not know.
	known := list[0]
	w.r.AddManifest("app", spec.ReferrersTag(img.Digest), spec.OCIIndex, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"newField":{"a":1}}]}`,
		spec.OCIIndex, known.MediaType, known.Digest, known.Size))
	var wg sync.WaitGroup
	for _, o := range list {
		wg.Go(func() {
			if err := c.AddReferrer(t.Context(), "app", img.Digest, o.Descriptor); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, api, err := c.Referrers(t.Context(), "app", img.Digest)
	must(t, err)
	var want []spec.Digest
	for _, o := range list {
		want = append(want, o.Digest)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, digests(got)); diff != "" || api {
		t.Errorf("api %v: %s", api, diff)
	}
	raw, _, _, _ := w.r.Manifest("app", spec.ReferrersTag(img.Digest))
	if !bytes.Contains(raw, []byte(`"newField":{"a":1}`)) {
		t.Errorf("the other's entry was changed: %s", raw)
	}
	w.r.ResetLog()
	must(t, c.AddReferrer(t.Context(), "app", img.Digest, list[3].Descriptor))
	if n := w.r.Writes(); n != 0 {
		t.Errorf("an entry that is there was written again: %v", w.r.Requests())
	}

	// The order does not depend on who came first.
	again := newWorld(t, ocitest.NoReferrersAPI(), ocitest.Lenient())
	for _, o := range slices.Backward(list[1:]) {
		must(t, again.client().AddReferrer(t.Context(), "app", img.Digest, o.Descriptor))
	}
	other := newWorld(t, ocitest.NoReferrersAPI(), ocitest.Lenient())
	for _, o := range list[1:] {
		must(t, other.client().AddReferrer(t.Context(), "app", img.Digest, o.Descriptor))
	}
	one, _, _, _ := again.r.Manifest("app", spec.ReferrersTag(img.Digest))
	two, _, _, _ := other.r.Manifest("app", spec.ReferrersTag(img.Digest))
	if diff := cmp.Diff(string(one), string(two)); diff != "" {
		t.Error(diff)
	}
}

// Somebody else writes the list between our reading and our writing.
func TestAddReferrerConflict(t *testing.T) {
	w := newWorld(t, ocitest.NoReferrersAPI(), ocitest.Lenient())
	img := ocitest.Image()
	tag := spec.ReferrersTag(img.Digest)
	theirs := ocitest.Artifact("application/spdx+json", img, []byte("theirs"))
	ours := ocitest.Artifact("application/spdx+json", img, []byte("ours"))
	var mu sync.Mutex
	turns := 3
	w.r.Set(ocitest.Before(func(_ http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		// Right after our PUT they put their own list in its place.
		if q.Method == http.MethodHead && strings.HasSuffix(q.URL.Path, tag) && turns > 0 {
			turns--
			w.r.Put("app", tag, ocitest.Index(theirs))
		}
		return false
	}))
	must(t, w.client().AddReferrer(t.Context(), "app", img.Digest, ours.Descriptor))
	got, _, err := w.client().Referrers(t.Context(), "app", img.Digest)
	must(t, err)
	want := []spec.Digest{theirs.Digest, ours.Digest}
	slices.Sort(want)
	if diff := cmp.Diff(want, digests(got)); diff != "" {
		t.Error(diff)
	}
	mu.Lock()
	turns = 1000
	mu.Unlock()
	third := ocitest.Artifact("application/spdx+json", img, []byte("third"))
	err = w.client().AddReferrer(t.Context(), "app", img.Digest, third.Descriptor)
	if err == nil || !errors.Is(err, artifact.ErrUnavailable) {
		t.Errorf("want an end, got %v", err)
	}
}

func TestSamePush(t *testing.T) {
	w := newWorld(t)
	c := w.client(kept(t.TempDir(), mib))
	b := ocitest.Noise(3*mib, 1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[string]int{}
	for range 5 {
		wg.Go(func() {
			one := &blob{b: b}
			how, err := c.PushBlob(t.Context(), "app", one.digest(), int64(len(b)), one.open)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			count[how]++
		})
	}
	wg.Wait()
	if diff := cmp.Diff(map[string]int{Uploaded: 1, Present: 4}, count); diff != "" {
		t.Error(diff)
	}
}

// A file that the store has verified is sent as it lies, and no less safely:
// cut, stalled and resumed uploads end the same.
func TestPushVerifiedFile(t *testing.T) {
	content := ocitest.Noise(5*mib+17, 3)
	name := filepath.Join(t.TempDir(), "blob")
	must(t, os.WriteFile(name, content, 0o600))
	d := spec.FromSHA256(artifact.Sum(content))
	open := func() (io.ReadSeekCloser, error) {
		f, err := os.Open(name)
		return Verified{File: f, Digest: d}, err
	}
	for what, c := range map[string]struct {
		chunk int64
		opts  []ocitest.Option
	}{
		"whole":             {0, nil},
		"whole, cut":        {0, []ocitest.Option{ocitest.CutUpload(2*mib, 2)}},
		"chunks":            {mib, nil},
		"chunks, cut":       {mib, []ocitest.Option{ocitest.CutUpload(2*mib+9, 2)}},
		"chunks, lost":      {mib, []ocitest.Option{ocitest.CutUpload(2*mib+9, 1), ocitest.LoseUploadOnCut()}},
		"chunks not wanted": {mib, []ocitest.Option{ocitest.NoChunks(405)}},
		"stalled":           {0, []ocitest.Option{ocitest.StallUpload(mib)}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, c.opts...)
			cl := w.client(kept(t.TempDir(), c.chunk))
			cl.stall = 100 * time.Millisecond
			var told int64
			cl.c.OnEvent = func(e artifact.Event) { told += e.Bytes }
			how, err := cl.PushBlob(t.Context(), "app", d, int64(len(content)), open)
			must(t, err)
			got, ok := w.r.Blob("app", d)
			if how != Uploaded || !ok || !bytes.Equal(got, content) {
				t.Errorf("%s, there %v, equal %v", how, ok, bytes.Equal(got, content))
			}
			if told < int64(len(content)) {
				t.Errorf("%d of %d bytes were reported", told, len(content))
			}
		})
	}
	// A file that is not what it is said to be: the registry refuses it.
	w := newWorld(t)
	wrong := spec.FromSHA256(artifact.Sum([]byte("other")))
	_, err := w.client().PushBlob(t.Context(), "app", wrong, int64(len(content)), func() (io.ReadSeekCloser, error) {
		f, err := os.Open(name)
		return Verified{File: f, Digest: wrong}, err
	})
	if err == nil {
		t.Error("wrong bytes were taken")
	}
}

// A session of a verified file can be gone on with by somebody who has to
// hash, and the other way round.
func TestResumeHashesAnew(t *testing.T) {
	content := ocitest.Noise(5*mib, 4)
	name := filepath.Join(t.TempDir(), "blob")
	must(t, os.WriteFile(name, content, 0o600))
	d := spec.FromSHA256(artifact.Sum(content))
	file := func() (io.ReadSeekCloser, error) { return os.Open(name) }
	verified := func() (io.ReadSeekCloser, error) {
		f, err := os.Open(name)
		return Verified{File: f, Digest: d}, err
	}
	for what, order := range map[string][2]Content{"then hashed": {verified, file}, "then verified": {file, verified}} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			first := w.client(kept(dir, mib))
			first.c.OnEvent = func(artifact.Event) {
				if w.r.Received("PATCH", "/uploads/") > 2*mib {
					cancel()
				}
			}
			if _, err := first.PushBlob(ctx, "app", d, int64(len(content)), order[0]); err == nil {
				t.Fatal("the first was not interrupted")
			}
			cancel()
			before := w.r.Received("PATCH", "/uploads/")
			_, err := w.client(kept(dir, mib)).PushBlob(t.Context(), "app", d, int64(len(content)), order[1])
			must(t, err)
			if got, ok := w.r.Blob("app", d); !ok || !bytes.Equal(got, content) {
				t.Error("the blob is not there, or another")
			}
			if again := w.r.Received("PATCH", "/uploads/") - before; again > int64(len(content))-2*mib+mib {
				t.Errorf("%d bytes were sent after the restart", again)
			}
		})
	}
}
