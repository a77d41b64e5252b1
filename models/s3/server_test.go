//go:build s3server

package s3

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/models"
)

// These tests need a server: testdata/s3/run.sh starts one with the keys of
// world_test.go and a bucket, and reads with another client what they leave.

// setting is a variable that run.sh sets.
func setting(t *testing.T, name string) string {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		t.Fatalf("%s is not set: run testdata/s3/run.sh", name)
	}
	return s
}

// expect adds to the list of what another client must find: names and SHA-256.
func expect(t *testing.T, prefix string, revs ...models.Revision) {
	t.Helper()
	name := setting(t, "DARKMIRROR_S3_WANT")
	want := make(map[string]string)
	b, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, &want)
	} else if os.IsNotExist(err) {
		err = nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range revs {
		at := prefix + "/" + r.Repo.String() + "/"
		for _, f := range r.Files {
			want[at+r.Commit+"/"+f.Path] = f.Blob.Hex()
		}
		for _, ref := range r.Refs {
			want[at+"refs/"+ref] = artifact.Sum([]byte(r.Commit)).Hex()
		}
	}
	if b, err = json.Marshal(want); err == nil {
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestServer publishes two sets, one after the other, and finds what has been
// damaged below the server.
func TestServer(t *testing.T) {
	w := newWorld(t, t.TempDir())
	var changes atomic.Int64
	w.wrap = func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				changes.Add(1)
			}
			return next.RoundTrip(r)
		})
	}
	o := Options{Endpoint: setting(t, "DARKMIRROR_S3"), Prefix: "some models/llm"}
	target := w.target(t, o, fetch.Config{})
	first := w.rev(t, "team/model", c1, []string{"main", "pr/1"}, small())
	gone := w.rev(t, "datasets/team/gone", c1, []string{"main"}, map[string]string{"data.csv": "1"})
	t.Log(publish(t, target, gone, first))
	changes.Store(0)
	t.Log(publish(t, target, gone, first))
	if n := changes.Load(); n != 0 {
		t.Errorf("a run without changes made %d", n)
	}
	files := small()
	files["config.json"] = `{"a": 1}`
	second := w.rev(t, "team/model", c2, []string{"main"}, files)
	t.Log(publish(t, target, second))
	if strings.Contains(w.log.String(), "level=WARN") {
		t.Errorf("%s", w.log.String())
	}

	name := filepath.Join(setting(t, "DARKMIRROR_S3_DATA"), "bucket", "some models", "llm", "team", "model", c2, "model.safetensors")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), part); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	o.Verify = verifyFull
	text := publish(t, w.target(t, o, fetch.Config{}), second)
	if want := "1 revision, 1 put, 4 unchanged, 1 damaged and put again"; !strings.HasPrefix(text, want) {
		t.Errorf("%q, want %q", text, want)
	}
	expect(t, o.Prefix, second)
}

// TestServerRefusals has the server refuse us.
func TestServerRefusals(t *testing.T) {
	for want, o := range map[string]Options{
		CodeBucket: {Bucket: "nobodys"},
		CodeLogin:  {AccessKey: accessKey, SecretKey: "wrong-secret-of-the-test"},
		CodeRegion: {Region: "nowhere"},
	} {
		w := newWorld(t, t.TempDir())
		o.Endpoint = setting(t, "DARKMIRROR_S3")
		rev := w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"config.json": "{}"})
		_, err := put(t, w.target(t, o, fetch.Config{}), rev)
		if code(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
		t.Log(err)
	}
}

// killSize is that of the file in whose middle the run is killed.
const killSize = 256 << 20

// bigModel makes it anew in a store, which has it already after the first run.
func bigModel(t *testing.T, w *world) models.Revision {
	return w.rev(t, "team/big", c1, []string{"main"}, map[string]string{"config.json": "{}", "model.safetensors": noise(9, killSize)})
}

func bigTarget(t *testing.T, w *world, endpoint string) *Target {
	target := w.target(t, Options{Endpoint: endpoint, Prefix: "killed", Name: "models/big"}, fetch.Config{})
	target.part = leastPart // as in the program
	return target
}

// TestServerKill kills -9 a run in the middle of a file. The next run sends no
// part that has arrived, and all of both no more than the requests that were
// on their way beyond the file.
func TestServerKill(t *testing.T) {
	if url := os.Getenv("S3_SERVER_KILL"); url != "" {
		w := newWorld(t, os.Getenv("S3_SERVER_KILL_DIR"))
		publish(t, bigTarget(t, w, url), bigModel(t, w))
		return
	}
	server, dir := setting(t, "DARKMIRROR_S3"), t.TempDir()
	w := newWorld(t, dir)
	rev := bigModel(t, w)
	r := newRelay(t, strings.TrimPrefix(server, "http://"))
	work := func(limit int64) error {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServerKill$")
		cmd.Env = append(os.Environ(), "S3_SERVER_KILL="+r.url, "S3_SERVER_KILL_DIR="+dir)
		r.at(limit, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := work(killSize / 2); err == nil {
		t.Fatal("the run was not killed")
	}
	first := r.n.Swap(0)
	time.Sleep(time.Second) // what the kernel still holds arrives, or is thrown away
	target := bigTarget(t, w, server)
	key := "killed/team/big/" + c1 + "/model.safetensors"
	ids, err := target.uploads(t.Context(), key)
	if err != nil || len(ids) != 1 {
		t.Fatalf("uploads %v, %v", ids, err)
	}
	u := &upload{run: &run{Target: target}, o: &object{key: key}}
	there, err := u.arrived(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := work(1 << 40); err != nil {
		t.Fatal(err)
	}
	again := r.n.Load()
	const slack = 1 << 20 // headers and documents
	parts := int64(killSize / leastPart)
	t.Logf("killed at %d MiB with %d of %d parts there; then %d MiB were sent, %d MiB in all twice",
		first>>20, len(there), parts, again>>20, (first+again-killSize)>>20)
	if missing := (parts - int64(len(there))) * leastPart; again < missing || again > missing+slack {
		t.Errorf("%d bytes were sent, want the %d that were missing", again, missing)
	}
	if twice := first + again - killSize; twice > parallel*leastPart+slack {
		t.Errorf("%d bytes were sent twice", twice)
	}
	if ids, err := target.uploads(t.Context(), key); err != nil || len(ids) != 0 {
		t.Errorf("left: uploads %v, %v", ids, err)
	}
	expect(t, "killed", rev)
}

// A relay passes connections on and counts what the clients send.
type relay struct {
	url   string
	n     atomic.Int64
	limit atomic.Int64
	mu    sync.Mutex
	then  func()
}

func newRelay(t *testing.T, target string) *relay {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{url: "http://" + l.Addr().String()}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			go r.pass(client, target)
		}
	}()
	return r
}

// at has a function called when so many bytes have passed.
func (r *relay) at(limit int64, then func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit.Store(limit)
	r.then = then
}

func (r *relay) pass(client net.Conn, target string) {
	defer func() { _ = client.Close() }()
	server, err := new(net.Dialer).Dial("tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	_, _ = io.Copy(io.MultiWriter(server, r), client)
}

// Write counts.
func (r *relay) Write(p []byte) (int, error) {
	if n := r.n.Add(int64(len(p))); n >= r.limit.Load() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.then()
	}
	return len(p), nil
}
