package fetch

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

var _ Partial = (*store.Partial)(nil)

// TestMain sets a proxy before net/http reads the environment, which it does
// once: every test here proves that it is not used unless asked for.
func TestMain(m *testing.M) {
	for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		if err := os.Setenv(k, "http://proxy.example:3128"); err != nil {
			panic(err)
		}
	}
	for _, k := range []string{"NO_PROXY", "no_proxy"} {
		if err := os.Unsetenv(k); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// A world is a network of a few named servers, each a real one on loopback.
type world struct {
	t     *testing.T
	pool  *Pool
	ca    string // PEM file
	cert  tls.Certificate
	hosts []string

	mu     sync.Mutex
	addr   map[string]string // "index.example:443" to the true address
	events []artifact.Event
	pauses []time.Duration
	log    bytes.Buffer
	dials  []string
}

// newWorld starts a server for each base URL.
func newWorld(t *testing.T, servers map[string]http.HandlerFunc) *world {
	t.Helper()
	w := &world{t: t, pool: NewPool(0, 0), addr: make(map[string]string)}
	w.certify()
	w.pool.dial = w.dial
	for base, h := range servers {
		w.serve(base, h)
	}
	return w
}

func (w *world) serve(base string, h http.HandlerFunc, tune ...func(*httptest.Server)) *httptest.Server {
	w.t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for _, f := range tune {
		f(srv)
	}
	u, err := url.Parse(base)
	if err != nil {
		w.t.Fatal(err)
	}
	port := u.Port()
	if u.Scheme == "https" {
		if srv.TLS == nil {
			srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		srv.TLS.Certificates = []tls.Certificate{w.cert}
		srv.StartTLS()
		if port == "" {
			port = "443"
		}
	} else {
		srv.Start()
		if port == "" {
			port = "80"
		}
	}
	w.t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addr[net.JoinHostPort(u.Hostname(), port)] = srv.Listener.Addr().String()
	w.hosts = append(w.hosts, u.Host)
	return srv
}

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	to, ok := w.addr[addr]
	w.dials = append(w.dials, addr)
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no such server: %s", addr)
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

// certify makes an authority and a certificate for every name of the tests.
func (w *world) certify() {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"index.example", "files.example", "sub.index.example"},
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	w.ca = w.file("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (w *world) file(name string, b []byte) string {
	w.t.Helper()
	name = filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return name
}

// client allows every server of the world, and does not really pause.
func (w *world) client(tune ...func(*Config)) *Client {
	w.t.Helper()
	cfg := Config{
		Name: "pypi/main", Hosts: w.hosts, AllowHTTP: true, CAFile: w.ca, MaxRetries: 3, IdleTimeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(&lockedWriter{w}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnEvent: func(e artifact.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
	}
	for _, f := range tune {
		f(&cfg)
	}
	c, err := New(w.pool, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	c.pause = func(d time.Duration) time.Duration {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pauses = append(w.pauses, d)
		return time.Millisecond
	}
	return c
}

type lockedWriter struct{ w *world }

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(p)
}

// told is everything that a person may see: log, events and the error.
func (w *world) told(err error) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.log.String()
	for _, e := range w.events {
		text += fmt.Sprintf("%+v\n", e)
	}
	for ; err != nil; err = errors.Unwrap(err) {
		text += fmt.Sprintf("%v\n%+v\n", err, err)
	}
	return text
}

// bytesReported adds the events up, and checks that none goes back.
func (w *world) bytesReported() (sum int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Bytes < 0 || e.Stage != "fetch" || e.Source != "pypi/main" {
			w.t.Errorf("event %+v", e)
		}
		sum += e.Bytes
	}
	return sum
}

func (w *world) notes() (notes []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Note != "" {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

// A target is a partial in a store of its own.
type target struct {
	*store.Partial
	store *store.Store
	want  []byte
	// resets counts the calls, to see when the start was forgotten.
	resets int
}

func (t *target) Reset() error {
	t.resets++
	return t.Partial.Reset()
}

// newTarget has the first bytes of want already, as a killed run leaves them.
func newTarget(t *testing.T, want, there []byte, validator string) *target {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Partial(artifact.Sum(want), int64(len(want)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.Write(there); err != nil {
		t.Fatal(err)
	}
	if validator != "" {
		if err := p.SetValidator(validator); err != nil {
			t.Fatal(err)
		}
	}
	return &target{Partial: p, store: s, want: want}
}

// check that the file arrived whole.
func (t *target) check(tt *testing.T, err error) {
	tt.Helper()
	if err != nil {
		tt.Fatal(err)
	}
	got, err := t.store.ReadAll(artifact.Sum(t.want), int64(len(t.want)))
	if err != nil || !bytes.Equal(got, t.want) {
		tt.Fatalf("%d bytes arrived: %v", len(got), err)
	}
}

// noise is n bytes in which no part looks like another.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16 ^ i>>8*7 ^ i*31)
	}
	return b
}

// A journal keeps the requests that a server saw.
type journal struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (j *journal) add(r *http.Request) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seen = append(j.seen, r.Clone(context.Background()))
	return len(j.seen)
}

func (j *journal) all() []*http.Request {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seen
}

// steps answers the nth request with the nth handler, the last for ever.
func (j *journal) steps(hs ...http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n := j.add(r)
		hs[min(n, len(hs))-1](w, r)
	}
}

// file serves b as Go's own file server does, ranges and conditions included.
func file(b []byte, etag string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "x.whl", time.Time{}, bytes.NewReader(b))
	}
}

// cut serves b from the asked offset, but ends after n bytes of it.
func cut(b []byte, etag string, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		file(b, etag)(&cutter{ResponseWriter: w, left: n}, r)
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left]) // the connection ends here anyhow
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// refused checks class and code.
func refused(t *testing.T, err error, code string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code || !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("got %v, want an integrity refusal %s", err, code)
	}
}

// unavailable checks for an *Error with that status.
func unavailable(t *testing.T, err error, code int) Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != code || !errors.Is(err, artifact.ErrUnavailable) || errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("got %v, want an *Error with status %d", err, code)
	}
	return *e
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q lacks %q", text, p)
		}
	}
}
