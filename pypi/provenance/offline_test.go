package provenance

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// noNetwork fails the test at the first request, name look-up or dial.
type noNetwork struct{ t *testing.T }

func (n noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("a request to %s", r.URL.Host)
	return nil, errors.New("no network")
}

func (n noNetwork) dial(_ context.Context, _, address string) (net.Conn, error) {
	n.t.Errorf("a dial to %s", address)
	return nil, errors.New("no network")
}

func TestNoRequest(t *testing.T) {
	n := noNetwork{t}
	transport, client, resolver := http.DefaultTransport, http.DefaultClient, net.DefaultResolver
	t.Cleanup(func() { http.DefaultTransport, http.DefaultClient, net.DefaultResolver = transport, client, resolver })
	http.DefaultTransport, http.DefaultClient = n, &http.Client{Transport: n}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: n.dial}
	verifyAll(t)
}

// verifyAll takes each road through the package once: real objects, and one
// that is refused.
func verifyAll(t *testing.T) {
	root := realRoot(t)
	for name, c := range realCases(t) {
		if _, err := root.Verify(c.object, Subject{Filename: c.file, SHA256: hexDigest(t, c.sha256)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := root.Verify(c.object, forgedSubject); err == nil {
			t.Errorf("%s: accepted for another file", name)
		}
	}
}

// TestNoDescriptor verifies in a process that cannot open anything: neither a
// socket nor a file, whichever way a library would go about it.
func TestNoDescriptor(t *testing.T) {
	const child = "DARKMIRROR_NO_DESCRIPTOR"
	if os.Getenv(child) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestNoDescriptor$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestNoDescriptor") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	root, cases := realRoot(t), realCases(t)
	rootJSON := realFile(t, "trusted_root.json")
	none := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	// The limit must bite, or the test shows nothing.
	if _, err := os.Open("testdata"); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("opening a file: %v, want %v", err, syscall.EMFILE)
	}
	var d net.Dialer
	if _, err := d.DialContext(t.Context(), "udp", "127.0.0.1:9"); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("opening a socket: %v, want %v", err, syscall.EMFILE)
	}
	if _, err := ParseRoot(rootJSON); err != nil {
		t.Error(err)
	}
	for name, c := range cases {
		if _, err := root.Verify(c.object, Subject{Filename: c.file, SHA256: hexDigest(t, c.sha256)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The library can fetch trust roots; the parts that do are not called here,
// and nothing here could make a request.
func TestImports(t *testing.T) {
	allowed := []string{
		"github.com/sigstore/sigstore-go/pkg/bundle",
		"github.com/sigstore/sigstore-go/pkg/fulcio/certificate",
		"github.com/sigstore/sigstore-go/pkg/root",
		"github.com/sigstore/sigstore-go/pkg/verify",
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		looked++
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case path == "net" || path == "os" || path == "syscall" || strings.HasPrefix(path, "net/") || strings.HasPrefix(path, "os/"):
				t.Errorf("%s imports %s", name, path)
			case strings.HasPrefix(path, "github.com/sigstore/") && !slices.Contains(allowed, path):
				t.Errorf("%s imports %s", name, path)
			}
		}
		for _, id := range f.Unresolved {
			if strings.HasPrefix(id.Name, "Fetch") {
				t.Errorf("%s uses %s", name, id.Name)
			}
		}
	}
	if looked == 0 {
		t.Fatal("no file of the package found")
	}
}
