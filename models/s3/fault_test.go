package s3

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/models"
)

// model is the one revision of most tests, and where its weights lie.
func model(t *testing.T, w *world) (models.Revision, string) {
	t.Helper()
	return w.rev(t, "team/model", c1, []string{"main"}, small()), "team/model/" + c1 + "/model.safetensors"
}

// whole reports whether the bucket holds the model, and no upload is left.
func whole(t *testing.T, f *fake) {
	t.Helper()
	for path, text := range small() {
		if o := f.get("team/model/" + c1 + "/" + path); o == nil || string(o.body) != text {
			t.Errorf("%s is not what was sent", path)
		}
	}
	if o := f.get("team/model/refs/main"); o == nil || string(o.body) != c1 {
		t.Error("refs/main does not name the commit")
	}
	if n := f.open(); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// TestBusy has a store that says 503 to every request twice, and asks for a
// pause: it gets the pause, and every object.
func TestBusy(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	said := make(map[string]int)
	f.fault = func(op string, rw http.ResponseWriter, r *http.Request) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if said[op]++; said[op] > 2 {
			return false
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead { // these the client repeats, with pauses of its own
			rw.Header().Set("Retry-After", "7")
		}
		return refuse(rw, http.StatusServiceUnavailable, "SlowDown", "reduce your request rate")
	}
	rev, _ := model(t, w)
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	var longest atomic.Int64
	target.pause = func(d time.Duration) time.Duration {
		longest.Store(max(longest.Load(), int64(d)))
		return 0
	}
	publish(t, target, rev)
	whole(t, f)
	if d := time.Duration(longest.Load()); d < 7*time.Second {
		t.Errorf("the longest pause was %v, want what the store asks for", d)
	}
	publish(t, target)
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}

// TestLostAnswer has a store that puts the parts together, or opens an upload,
// and does not live to say so.
func TestLostAnswer(t *testing.T) {
	for _, verb := range []string{"OPEN", "COMPLETE", "PART", "PUT"} {
		t.Run(verb, func(t *testing.T) {
			f, w := newFake(t), newWorld(t, t.TempDir())
			var once atomic.Bool
			f.fault = func(op string, _ http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(op, verb+" ") || !once.CompareAndSwap(false, true) {
					return false
				}
				f.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			rev, _ := model(t, w)
			publish(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), rev)
			whole(t, f)
			if !once.Load() {
				t.Error("no answer was lost")
			}
		})
	}
}

// TestResume stops a run in the middle of a file: the next one, with another
// Target, sends the parts that have not arrived and no other.
func TestResume(t *testing.T) {
	for _, sums := range []bool{true, false} {
		f, w := newFake(t), newWorld(t, t.TempDir())
		f.sums = sums
		rev, key := model(t, w)
		ctx, stop := context.WithCancel(t.Context())
		f.fault = func(op string, _ http.ResponseWriter, _ *http.Request) bool {
			if op != "PART "+key+" 2" {
				return false
			}
			for f.arrived() != 2 {
				time.Sleep(time.Millisecond)
			}
			stop()
			panic(http.ErrAbortHandler)
		}
		target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
		if _, err := target.Publish(ctx, &models.Set{Revisions: []models.Revision{rev}}, 1, time.Time{}); !errors.Is(err, context.Canceled) {
			t.Fatalf("%v, want the run to stop", err)
		}
		if f.get("team/model/refs/main") != nil || f.get("team/model/"+c1+"/config.json") != nil || f.open() != 1 {
			t.Fatalf("a reader finds %v, and %d uploads are open", f.keys(), f.open())
		}
		f.set(nil)
		f.mu.Lock()
		for _, u := range f.uploads {
			u.parts[3] = newObject([]byte(noise(4, 1000)), nil) // another's, of the same size
		}
		f.mu.Unlock()
		f.reset()
		publish(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), rev)
		whole(t, f)
		if f.count("OPEN") != 0 || f.count("COMPLETE") != 1 || slices.Contains(f.log, "PART "+key+" 1") {
			t.Errorf("want the parts 2 and 3 sent, and no other:\n%s", strings.Join(f.log, "\n"))
		}
	}
}

// TestAbandoned stops a run when an object is there and a second upload of it
// as well, which nobody needs.
func TestAbandoned(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	rev, key := model(t, w)
	ctx, stop := context.WithCancel(t.Context())
	var once atomic.Bool
	f.fault = func(op string, _ http.ResponseWriter, r *http.Request) bool {
		switch {
		case op == "OPEN "+key && once.CompareAndSwap(false, true):
			f.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case op == "HEAD "+key:
			stop()
			panic(http.ErrAbortHandler)
		}
		return false
	}
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	if _, err := target.Publish(ctx, &models.Set{Revisions: []models.Revision{rev}}, 1, time.Time{}); !errors.Is(err, context.Canceled) || f.open() != 1 {
		t.Fatalf("%v, and %d uploads", err, f.open())
	}
	f.set(nil)
	f.reset()
	publish(t, target, rev)
	whole(t, f)
	if n := f.count("PART"); n != 0 {
		t.Errorf("%d parts were sent again", n)
	}
}

// TestHeld has no room for the commit that a branch moves to: the ref and what
// it names stay until there is.
func TestHeld(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	old, _ := model(t, w)
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	publish(t, target, old)
	f.set(func(op string, rw http.ResponseWriter, _ *http.Request) bool {
		return strings.HasPrefix(op, "PUT team/model/"+c2) && refuse(rw, http.StatusForbidden, "QuotaExceeded", "full")
	})
	rev := w.rev(t, "team/model", c2, []string{"main"}, map[string]string{"config.json": "{}", "new": "1"})
	if _, err := put(t, target, rev); code(err) != CodeSpace {
		t.Errorf("%v, want %s", err, CodeSpace)
	}
	whole(t, f)
	f.set(nil)
	publish(t, target, rev)
	base := "team/model/"
	if diff := cmp.Diff([]string{base + c2 + "/config.json", base + c2 + "/new", base + "refs/main"}, f.keys()); diff != "" {
		t.Error(diff)
	}
}

// TestGone has a bundle replaced while one of its files is half way: nothing
// of it stays.
func TestGone(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	rev, key := model(t, w)
	f.fault = func(op string, rw http.ResponseWriter, _ *http.Request) bool {
		return op == "PART "+key+" 3" && refuse(rw, http.StatusForbidden, "QuotaExceeded", "full")
	}
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	if _, err := put(t, target, rev); code(err) != CodeSpace || f.open() != 1 {
		t.Fatalf("%v, and %d uploads are open", err, f.open())
	}
	publish(t, target)
	if keys := f.keys(); len(keys) != 0 || f.open() != 0 {
		t.Errorf("left: %v, and %d uploads", keys, f.open())
	}
}

// TestSpoiled has a store that keeps other bytes than it gets: once, and it
// gets them again; always, and the revision is refused while others are put.
func TestSpoiled(t *testing.T) {
	for _, c := range []struct {
		name, file   string
		sums, always bool
	}{
		{"a part", "model.safetensors", true, false},
		{"a part, always", "model.safetensors", true, true},
		{"a part, without checksums", "model.safetensors", false, false},
		{"a part, always and without checksums", "model.safetensors", false, true},
		{"a file", "README.md", true, false},
		{"a file, always", "README.md", true, true},
		{"a file, always and without checksums", "README.md", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, w := newFake(t), newWorld(t, t.TempDir())
			rev, _ := model(t, w)
			fine := w.rev(t, "team/other", c1, []string{"main"}, map[string]string{"config.json": "{}"})
			var n atomic.Int32 // requests run side by side
			f.sums = c.sums
			f.spoil = func(op string, b []byte) []byte {
				if strings.Contains(op, c.file) && len(b) > 0 && !strings.HasSuffix(op, " 2") && (n.Add(1) == 1 || c.always) {
					b[0] ^= 1
				}
				return b
			}
			_, err := put(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), rev, fine)
			if n.Load() == 0 {
				t.Fatal("nothing was spoiled")
			}
			if !c.always {
				if err != nil {
					t.Fatal(err)
				}
				whole(t, f)
				if n := f.count("PART"); c.sums && c.file != "README.md" && n != 4 {
					t.Errorf("%d parts were sent, want 3 and the spoiled one again", n)
				}
				return
			}
			if _, partial := errors.AsType[*artifact.Incomplete](err); !partial || code(err) != CodeDamaged || !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("%v, want %s", err, CodeDamaged)
			}
			if f.get("team/model/refs/main") != nil || f.get("team/model/"+c1+"/"+c.file) != nil || f.get("team/other/refs/main") == nil {
				t.Errorf("the bucket holds %v", f.keys())
			}
		})
	}
}

// TestRefusals gives what stores say our codes and what to do.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		on     string // the request that is refused
		status int
		said   string
		code   string
		text   string
	}{
		{"LIST ", 404, "NoSuchBucket", CodeBucket, "create it"},
		{"LIST ", 403, "AccessDenied", CodeDenied, "s3:ListBucket"},
		{"LIST ", 403, "InvalidAccessKeyId", CodeLogin, "access_key_file"},
		{"LIST ", 403, "SignatureDoesNotMatch", CodeLogin, "secret_key_file"},
		{"LIST ", 403, "RequestTimeTooSkewed", CodeClock, "clock"},
		{"LIST ", 400, "AuthorizationHeaderMalformed", CodeRegion, "s3.region"},
		{"LIST ", 301, "PermanentRedirect", CodeRegion, "s3.endpoint"},
		{"PUT team/", 403, "AccessDenied", CodeDenied, "s3:PutObject"},
		{"PUT team/", 403, "QuotaExceeded", CodeSpace, "quota"},
		{"PUT team/", 507, "XMinioStorageFull", CodeSpace, "quota"},
		{"PUT team/", 400, "KeyTooLongError", CodeName, "leave that file out"},
		{"PUT team/", 400, "Peculiar", CodeRefused, "Peculiar"},
		{"PUT team/", 500, "InternalError", CodeUnreachable, "no answer that helps"},
		{"OPEN ", 403, "AccessDenied", CodeDenied, "s3:PutObject"},
		{"COMPLETE ", 200, "InternalError", CodeUnreachable, "no answer that helps"},
	} {
		t.Run(c.on+c.said, func(t *testing.T) {
			f, w := newFake(t), newWorld(t, t.TempDir())
			f.fault = func(op string, rw http.ResponseWriter, _ *http.Request) bool {
				return strings.HasPrefix(op, c.on) && refuse(rw, c.status, c.said, "about "+accessKey+" and "+secretKey)
			}
			rev, _ := model(t, w)
			_, err := put(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), rev)
			if code(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %s and %q", err, c.code, c.text)
			}
			if _, partial := errors.AsType[*artifact.Incomplete](err); partial == (c.on == "LIST ") {
				t.Errorf("%T", err)
			}
			if f.get("team/model/refs/main") != nil {
				t.Error("there is a ref")
			}
			if log := w.log.String(); strings.Contains(log, secretKey) || strings.Contains(log, accessKey) {
				t.Errorf("a secret in the log: %s", log)
			}
		})
	}
}

// TestUnreachable has no store at all.
func TestUnreachable(t *testing.T) {
	w := newWorld(t, t.TempDir())
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	rev, _ := model(t, w)
	if _, err := put(t, w.target(t, Options{Endpoint: srv.URL}, fetch.Config{MaxRetries: -1}), rev); code(err) != CodeUnreachable {
		t.Errorf("%v, want %s", err, CodeUnreachable)
	}
}

// TestElsewhere has a store that sends us to another host, which must never
// see a request.
func TestElsewhere(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	var seen atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	t.Cleanup(other.Close)
	f.fault = func(_ string, rw http.ResponseWriter, r *http.Request) bool {
		http.Redirect(rw, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	rev, _ := model(t, w)
	_, err := put(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), rev)
	if err == nil || seen.Load() != 0 {
		t.Errorf("%v, and %d requests to another host", err, seen.Load())
	}
}

// TestStall has a network that takes a byte and no more.
func TestStall(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	var once atomic.Bool
	w.wrap = func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("partNumber") == "" || !once.CompareAndSwap(false, true) {
				return next.RoundTrip(r)
			}
			if _, err := r.Body.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
	}
	rev, _ := model(t, w)
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	target.stall = 300 * time.Millisecond
	publish(t, target, rev)
	whole(t, f)
	if !strings.Contains(w.log.String(), errStalled.Error()) {
		t.Errorf("no stall is noted: %s", w.log.String())
	}
}

// TestDenied has a key that may do less: without the list of uploads nothing
// is gone on with; where one file may not be put, no other revision is tried;
// what cannot be deleted stays in the manifest until it can.
func TestDenied(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	deny := func(verb string) {
		f.set(func(op string, rw http.ResponseWriter, _ *http.Request) bool {
			return strings.HasPrefix(op, verb) && refuse(rw, http.StatusForbidden, "AccessDenied", "no")
		})
	}
	rev, _ := model(t, w)
	other := w.rev(t, "team/other", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	third := w.rev(t, "team/third", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	deny("UPLOADS")
	publish(t, target, rev)
	whole(t, f)
	deny("PUT team/")
	if _, err := put(t, target, rev, other, third); code(err) != CodeDenied || strings.Contains(strings.Join(f.log, "\n"), "PUT team/third") {
		t.Errorf("%v, want %s, and that nothing else is tried", err, CodeDenied)
	}
	deny("DELETE")
	before := f.keys()
	if _, err := put(t, target); code(err) != CodeDenied || !strings.Contains(err.Error(), "s3:DeleteObject") {
		t.Errorf("%v, want %s", err, CodeDenied)
	}
	if diff := cmp.Diff(before, f.keys()); diff != "" {
		t.Error(diff)
	}
	f.set(nil)
	publish(t, target)
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("left: %v", keys)
	}
}
