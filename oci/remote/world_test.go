package remote

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A world is a fake registry, its token server and its storage host, each on a
// host of its own, and clients of them.
type world struct {
	t       *testing.T
	r       *ocitest.Registry
	url     string
	tokens  string
	storage string
	hosts   []string

	mu     sync.Mutex
	log    bytes.Buffer
	events int64
}

// Write collects the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func newWorld(t *testing.T, opts ...ocitest.Option) *world {
	t.Helper()
	w := &world{t: t, r: ocitest.New(opts...)}
	w.url = w.serve(w.r)
	w.tokens = w.serve(w.r.TokenServer())
	w.storage = w.serve(w.r.Storage())
	return w
}

// serve starts a server and allows its host.
func (w *world) serve(h http.Handler) string {
	w.t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	w.t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	w.hosts = append(w.hosts, strings.TrimPrefix(srv.URL, "http://"))
	return srv.URL
}

// fetch is a client of the allow-list.
func (w *world) fetch(tune ...func(*fetch.Config)) *fetch.Client {
	w.t.Helper()
	c := fetch.Config{
		Name: "oci/test", Hosts: w.hosts, AllowHTTP: true, RetryWait: time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(w, nil)),
	}
	for _, f := range tune {
		f(&c)
	}
	fc, err := fetch.New(fetch.NewPool(0, 0), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return fc
}

// client is a new one, as of another process.
func (w *world) client(tune ...func(*Config)) *Client {
	w.t.Helper()
	c := Config{
		Name: "oci/test", Registry: w.url, Log: slog.New(slog.NewTextHandler(w, nil)),
		OnEvent: func(e artifact.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events += e.Bytes
		},
	}
	for _, f := range tune {
		f(&c)
	}
	cl, err := New(c, w.fetch())
	if err != nil {
		w.t.Fatal(err)
	}
	cl.pause = func(time.Duration) time.Duration { return time.Millisecond }
	return cl
}

// kept is a tune that keeps upload sessions and sends chunks of n bytes.
func kept(dir string, n int64) func(*Config) {
	return func(c *Config) { c.StateDir, c.Chunk = dir, n }
}

// as is a tune that logs in.
func as(user, password string) func(*Config) {
	return func(c *Config) { c.User, c.Password = user, password }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused holds that err is a refusal of a class with a code.
func refused(t *testing.T, err error, class error, code string) *artifact.Refusal {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		t.Fatalf("want the refusal %s, got %v", code, err)
	}
	if r.Code != code || !errors.Is(err, class) {
		t.Fatalf("want %s of class %v, got %v", code, class, err)
	}
	return r
}

// A blob is content for a push that counts how often it was opened.
type blob struct {
	b      []byte
	opened int
	closed int
}

func (b *blob) open() (io.ReadSeekCloser, error) {
	b.opened++
	return &handle{Reader: bytes.NewReader(b.b), of: b}, nil
}

type handle struct {
	*bytes.Reader
	of *blob
}

func (h *handle) Close() error {
	h.of.closed++
	return nil
}

// onlyReader hides WriteTo, so that a test reads as a file is read.
func (h *handle) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{h.Reader})
}

func (b *blob) digest() spec.Digest { return spec.Digest("sha256:").Sum(b.b) }

// push pushes b to "app" and holds how it came there.
func (w *world) push(c *Client, b *blob, how string, from ...string) {
	w.t.Helper()
	got, err := c.PushBlob(w.t.Context(), "app", b.digest(), int64(len(b.b)), b.open, from...)
	if err != nil {
		w.t.Fatal(err)
	}
	if got != how {
		w.t.Errorf("want %s, got %s", how, got)
	}
	if have, ok := w.r.Blob("app", b.digest()); !ok || !bytes.Equal(have, b.b) {
		w.t.Errorf("the blob is not there")
	}
	if b.opened != b.closed {
		w.t.Errorf("content was opened %d times and closed %d times", b.opened, b.closed)
	}
}

// A tlsWorld has its registry behind TLS.
type tlsWorld struct {
	*world
	ca string
}

func newTLSWorld(t *testing.T) *tlsWorld {
	t.Helper()
	w := &tlsWorld{world: newWorld(t)}
	srv := httptest.NewUnstartedServer(w.r)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.ca = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(w.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	w.url = srv.URL
	w.hosts = append(w.hosts, strings.TrimPrefix(srv.URL, "https://"))
	return w
}

func (w *tlsWorld) tlsClient(tune func(*fetch.Config), more ...func(*Config)) *Client {
	w.t.Helper()
	c := Config{Name: "oci/test", Registry: w.url}
	for _, f := range more {
		f(&c)
	}
	cl, err := New(c, w.fetch(func(c *fetch.Config) { c.CAFile = w.ca }, tune))
	if err != nil {
		w.t.Fatal(err)
	}
	cl.pause = func(time.Duration) time.Duration { return time.Millisecond }
	return cl
}
