package files

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const sourceName = "files/db"

// tree is files by path; a folder ends in "/", a link starts with "-> ".
type tree map[string]string

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	must(t, err)
	return st
}

// put makes a folder hold what the tree says, beside what it has.
func put(t testing.TB, dir string, files tree) {
	t.Helper()
	for name, text := range files {
		at := filepath.Join(dir, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(at), 0o750))
		switch to, link := strings.CutPrefix(text, "-> "); {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(at, 0o750))
		case link:
			must(t, os.Symlink(to, at))
		default:
			must(t, os.WriteFile(at, []byte(text), 0o600))
		}
	}
}

// read lists what a folder has; empty folders count, and one that is not
// there has nothing.
func read(t testing.TB, dir string) tree {
	t.Helper()
	all := tree{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			list, err := os.ReadDir(name)
			if err == nil && len(list) == 0 && rel != "." {
				all[rel+"/"] = ""
			}
			return err
		case d.Type() == fs.ModeSymlink:
			text, err := os.Readlink(name)
			all[rel] = "-> " + text
			return err
		}
		b, err := os.ReadFile(name)
		all[rel] = string(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func same(t testing.TB, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// refused fails unless err is a refusal with that code, of that class.
func refused(t testing.TB, err error, code string, class error) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code || !errors.Is(err, class) {
		t.Fatalf("got %v, want %s of class %v", err, code, class)
	}
}

// lostSet is the one set that is missing, and why.
func lostSet(t testing.TB, err error) artifact.Lost {
	t.Helper()
	in, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok || len(in.Items) != 1 {
		t.Fatalf("got %v, want one set that is missing", err)
	}
	return in.Items[0]
}

func clamav(dir string) Config {
	return Config{Name: "db", Sets: []Set{{Name: "clamav", Folder: dir}}}
}

func newSource(t testing.TB, c Config, st *store.Store, client *fetch.Client) *Source {
	t.Helper()
	s, err := NewSource(c, sourceName, client, st, nil)
	must(t, err)
	return s
}

// An upstream is a server with files.
type upstream struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte
	answer func(http.ResponseWriter, *http.Request) bool // true: it did
	asked  []string
}

func newUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{files: make(map[string][]byte)}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	b, ok := u.files[r.URL.RequestURI()]
	answer := u.answer
	u.asked = append(u.asked, r.Method+" "+r.URL.RequestURI())
	u.mu.Unlock()
	switch {
	case answer != nil && answer(w, r):
	case !ok:
		http.NotFound(w, r)
	default:
		http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader(string(b)))
	}
}

// add offers a file and answers its pin, without the size.
func (u *upstream) add(uri, text string) Pinned {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.files[uri] = []byte(text)
	return Pinned{URL: u.URL + uri, SHA256: artifact.Sum([]byte(text)).Hex()}
}

func (u *upstream) requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.asked
	u.asked = nil
	return all
}

// client reaches the addresses of a configuration as the program would.
func client(t testing.TB, c Config) *fetch.Client {
	t.Helper()
	fc := c.Fetch(sourceName)
	for _, a := range c.Addresses() {
		u, err := url.Parse(a)
		must(t, err)
		fc.Hosts = append(fc.Hosts, u.Host)
	}
	fc.MaxRetries, fc.RetryWait = -1, time.Millisecond
	cl, err := fetch.New(fetch.NewPool(0, 0), fc)
	must(t, err)
	return cl
}

// snapshotOf puts files into the store and makes a snapshot of them: sets by
// "NAME VERSION", where no version is one that is told from the content.
func snapshotOf(t testing.TB, st *store.Store, sets map[string]tree) *artifact.Snapshot {
	t.Helper()
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: sourceName, Meta: []artifact.File{}, Artifacts: []artifact.Artifact{}}
	for key, files := range sets {
		s := &fileSet{}
		s.name, s.version, _ = strings.Cut(key, " ")
		for name, text := range files {
			d, err := st.PutBytes([]byte(text))
			must(t, err)
			s.files = append(s.files, setFile{path: name, digest: d, size: int64(len(text))})
		}
		if s.version == "" {
			s.version = "x"
			must(t, s.check()) // sorts
			s.version = derive(s.files)
		}
		must(t, s.check())
		snap.Artifacts = append(snap.Artifacts, s.artifact("test"))
	}
	return snap
}
