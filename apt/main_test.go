package apt

import (
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// A world is a fake upstream, a source that reads it and the inside that
// publishes it. Outside and inside share a store, as if a bundle had crossed.
type world struct {
	t       *testing.T
	up      *apttest.Upstream
	server  *httptest.Server
	keyring string
	st      *store.Store
	dir     string // the publisher's
}

func newWorld(t *testing.T, suites ...apttest.Suite) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.up, err = apttest.New(); err != nil {
		t.Fatal(err)
	}
	for _, s := range suites {
		w.add(s)
	}
	w.server = httptest.NewServer(w.up)
	t.Cleanup(w.server.Close)
	dir := t.TempDir()
	w.dir = filepath.Join(dir, "inside")
	w.keyring = filepath.Join(dir, "upstream.asc")
	key, err := w.up.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.keyring, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if w.st, err = store.Open(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) add(s apttest.Suite) {
	w.t.Helper()
	if err := w.up.Add(s); err != nil {
		w.t.Fatal(err)
	}
}

// config reads suite "test", component main, of the upstream.
func (w *world) config(seeds ...string) Config {
	return Config{
		Name: "main", Architectures: []string{"amd64"}, Packages: seeds, AllowHTTP: true,
		Archives: []Archive{{Name: "debian", URL: w.server.URL, Suites: []string{"test"}, Components: []string{"main"}, SignedBy: []string{w.keyring}}},
	}
}

func (w *world) source(c Config) *Source {
	w.t.Helper()
	return sourceOf(w.t, c, w.st, w.server.URL)
}

func sourceOf(t *testing.T, c Config, st *store.Store, base string) *Source {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	client, err := fetch.New(fetch.NewPool(4, 8), fetch.Config{Name: "apt/main", Hosts: []string{u.Host}, AllowHTTP: true, UserAgent: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSource(c, "apt/main", client, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// resolve runs plan and fetch.
func (w *world) resolve(c Config) *artifact.Snapshot {
	w.t.Helper()
	s := w.source(c)
	snap, _, err := s.Resolve(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for f := range snap.Files {
		if err := s.Fetch(w.t.Context(), f); err != nil {
			w.t.Fatal(err)
		}
	}
	return snap
}

func (w *world) publisher() *Publisher {
	w.t.Helper()
	p, err := NewPublisher(PublishConfig{
		Name: "main", Archives: []PublishArchive{{Name: "debian", SignedBy: []string{w.keyring}}},
	}, "apt/main", w.st, w.dir, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// publish verifies and publishes.
func (w *world) publish(snap *artifact.Snapshot, seq uint64, now time.Time) {
	w.t.Helper()
	p := w.publisher()
	if err := p.Verify(w.t.Context(), snap, nil); err != nil {
		w.t.Fatal(err)
	}
	if _, err := p.Publish(w.t.Context(), snap, seq, now); err != nil {
		w.t.Fatal(err)
	}
}

// names lists a snapshot's artifacts as "name version".
func artifactNames(snap *artifact.Snapshot) []string {
	b, err := snap.Encode()
	if err != nil {
		panic(err)
	}
	s, err := artifact.DecodeSnapshot(b)
	if err != nil {
		panic(err)
	}
	var all []string
	for _, a := range s.Artifacts {
		all = append(all, a.Name+" "+a.Version)
	}
	return all
}

// threePackages: jq needs libjq1, other stands alone.
const threePackages = `Package: jq
Version: 1.6-2.1
Architecture: amd64
Depends: libjq1 (= 1.6-2.1), libc6 (>= 2.34) | libc6.1
Description: command-line JSON processor
 It has a long description, which is
 .
 kept byte for byte.

Package: libjq1
Version: 1.6-2.1
Architecture: amd64

Package: libc6
Version: 2.36-9
Architecture: amd64

Package: other
Version: 1:3.0+x~1
Architecture: all
`
