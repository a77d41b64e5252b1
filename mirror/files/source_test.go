package files

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// fetchAll brings every file of a snapshot into the store.
func fetchAll(t *testing.T, s *Source, snap *artifact.Snapshot) {
	t.Helper()
	var wg sync.WaitGroup
	for f := range snap.Files {
		wg.Go(func() {
			if err := s.Fetch(t.Context(), f); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func contents(t *testing.T, st *store.Store, snap *artifact.Snapshot) tree {
	t.Helper()
	all := tree{}
	for f := range snap.Files {
		b, err := st.ReadAll(f.Digest, 1<<20)
		must(t, err)
		all[f.Path] = string(b)
	}
	return all
}

func TestFolder(t *testing.T) {
	dir, st := t.TempDir(), openStore(t)
	put(t, dir, tree{
		"main.cvd": "main", "daily.cvd": "daily", "freshclam.dat": "x", "own/site.ndb": "ours", "own/empty.ndb": "",
		"alias.cvd": "-> daily.cvd", "other/x.cvd": "no", "out": "-> /etc/passwd", "loop": "-> loop", "up": "-> ..",
	})
	must(t, unix.Mkfifo(filepath.Join(dir, "clamd.ctl"), 0o600))
	c := clamav(dir)
	c.Sets[0].Match = []string{"*.cvd", "own/*.ndb"}
	c.Sets[0].MaxAge = time.Hour
	s := newSource(t, c, st, nil)
	if s.Name() != sourceName {
		t.Errorf("name %s", s.Name())
	}
	snap, notes, err := s.Resolve(t.Context(), nil)
	must(t, err)
	b, err := snap.Encode()
	must(t, err)
	if len(notes) != 1 || !strings.Contains(notes[0], "5 files") || strings.Contains(string(b), dir) {
		t.Errorf("notes %q, snapshot %s", notes, b)
	}
	for range st.All {
		t.Fatal("a plan copies files")
	}
	fetchAll(t, s, snap)
	want := tree{
		"clamav/main.cvd": "main", "clamav/daily.cvd": "daily", "clamav/own/site.ndb": "ours", "clamav/own/empty.ndb": "", "clamav/alias.cvd": "daily",
	}
	same(t, want, contents(t, st, snap))

	// The version is what a person gets from sha256sum.
	sums := ""
	for _, f := range snap.Artifacts[0].Files {
		sums += f.Digest.Hex() + "  " + strings.TrimPrefix(f.Path, "clamav/") + "\n"
	}
	same(t, artifact.Sum([]byte(sums)).Hex()[:12], snap.Artifacts[0].Version)

	// The same folder gives the same snapshot, whatever the times of its files.
	must(t, os.Chtimes(filepath.Join(dir, "main.cvd"), time.Time{}, time.Unix(1, 0)))
	again, _, err := s.Resolve(t.Context(), snap)
	must(t, err)
	b2, err := again.Encode()
	must(t, err)
	same(t, string(b), string(b2))
}

func TestFolderRefusals(t *testing.T) {
	socket := func(t *testing.T, dir string) { must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)) }
	for what, c := range map[string]struct {
		files   tree
		prepare func(*testing.T, string)
		match   string
		code    string
	}{
		"a link out":          {tree{"a": "-> /etc/passwd"}, nil, "", CodeLink},
		"a link up":           {tree{"a": "-> ../x"}, nil, "", CodeLink},
		"a link up and back":  {tree{"b": "1", "a": "-> /proc/self/root/etc/passwd"}, nil, "", CodeLink},
		"a link to nowhere":   {tree{"a": "-> b"}, nil, "", CodeLink},
		"a link to itself":    {tree{"a": "-> a"}, nil, "", CodeLink},
		"a link to a folder":  {tree{"d/a": "1", "l": "-> d"}, nil, "", CodeLink},
		"a link to look into": {tree{"d/a": "1", "l": "-> d"}, nil, "*/a", CodeLink},
		"no regular file":     {tree{"a": "1"}, socket, "", CodeFile},
		"a link to none":      {tree{"a": "-> fifo"}, socket, "a", CodeFile},
		"a name":              {tree{"-a": "1"}, nil, "", CodePath},
		"a backslash":         {tree{`a\b`: "1"}, nil, "", CodePath},
		"two of one name":     {tree{"A": "1", "a": "1"}, nil, "", CodePath},
		"nothing":             {tree{"d/": ""}, nil, "", CodeEmpty},
		"nothing that matches": {
			tree{"a": "1", "d/b.cvd": "1"}, nil, "*.cvd", CodeEmpty,
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "folder")
			must(t, os.WriteFile(filepath.Join(filepath.Dir(dir), "x"), []byte("outside"), 0o600))
			put(t, dir, c.files)
			if c.prepare != nil {
				c.prepare(t, dir)
			}
			config := clamav(dir)
			if c.match != "" {
				config.Sets[0].Match = []string{c.match}
			}
			snap, _, err := newSource(t, config, openStore(t), nil).Resolve(t.Context(), nil)
			l := lostSet(t, err)
			refused(t, l.Err, c.code, artifact.ErrUnavailable)
			if l.Name != "clamav" || len(snap.Artifacts) != 0 {
				t.Errorf("lost %s, kept %v", l.Name, snap.Artifacts)
			}
		})
	}
	_, _, err := newSource(t, clamav("/nowhere"), openStore(t), nil).Resolve(t.Context(), nil)
	refused(t, lostSet(t, err).Err, CodeFile, artifact.ErrUnavailable)
}

func TestFolderAge(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, tree{"main.cvd": "old", "daily.cvd": "new"})
	c := clamav(dir)
	c.Sets[0].MaxAge = 24 * time.Hour
	s := newSource(t, c, openStore(t), nil)
	now := time.Now()
	must(t, os.Chtimes(filepath.Join(dir, "main.cvd"), time.Time{}, now.Add(-1000*time.Hour)))
	for _, age := range []struct {
		daily time.Duration
		ok    bool
	}{{0, true}, {23 * time.Hour, true}, {25 * time.Hour, false}, {-time.Hour, true}, {-25 * time.Hour, false}} {
		must(t, os.Chtimes(filepath.Join(dir, "daily.cvd"), time.Time{}, now.Add(-age.daily)))
		_, _, err := s.Resolve(t.Context(), nil)
		if age.ok {
			must(t, err)
			continue
		}
		refused(t, lostSet(t, err).Err, CodeStale, artifact.ErrSequence)
	}
}

// A hooked context calls its hook whenever it is asked: at each entry and at
// each read.
type hooked struct {
	context.Context
	hook func()
}

func (h hooked) Err() error {
	h.hook()
	return h.Context.Err()
}

func TestFolderThatChanges(t *testing.T) {
	big := strings.Repeat("x", 300<<10) // several reads
	for what, c := range map[string]struct {
		change func(dir string, n int) error
		want   tree // nil: refused
	}{
		"a file once": {func(dir string, n int) error {
			if n != 8 {
				return nil
			}
			return os.WriteFile(filepath.Join(dir, "big"), []byte("new"), 0o600)
		}, tree{"clamav/big": "new", "clamav/small": "1"}},
		"replaced once": {func(dir string, n int) error {
			if n != 8 {
				return nil
			}
			return errors.Join(os.WriteFile(filepath.Join(dir, "..", "new"), []byte(strings.Repeat("y", len(big))), 0o600),
				os.Rename(filepath.Join(dir, "..", "new"), filepath.Join(dir, "big")))
		}, tree{"clamav/big": strings.Repeat("y", len(big)), "clamav/small": "1"}},
		"gone and come": {func(dir string, n int) error {
			if n != 8 {
				return nil
			}
			return errors.Join(os.Remove(filepath.Join(dir, "small")), os.WriteFile(filepath.Join(dir, "third"), []byte("3"), 0o600))
		}, tree{"clamav/big": big, "clamav/third": "3"}},
		"always": {func(dir string, n int) error {
			return os.WriteFile(filepath.Join(dir, "small"), []byte(strconv.Itoa(n)), 0o600)
		}, nil},
		"growing": {func(dir string, n int) error {
			return os.WriteFile(filepath.Join(dir, "big"), []byte(strings.Repeat("z", n)), 0o600)
		}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			dir, st := filepath.Join(t.TempDir(), "folder"), openStore(t)
			put(t, dir, tree{"big": big, "small": "1"})
			n := 0
			ctx := hooked{t.Context(), func() { n++; must(t, c.change(dir, n)) }}
			s := newSource(t, clamav(dir), st, nil)
			snap, _, err := s.Resolve(ctx, nil)
			if n < 8 {
				t.Fatalf("asked %d times: the change never came", n)
			}
			if c.want == nil {
				refused(t, lostSet(t, err).Err, CodeChanging, artifact.ErrUnavailable)
				return
			}
			must(t, err)
			fetchAll(t, s, snap)
			same(t, c.want, contents(t, st, snap))
		})
	}
}

// What changes after the plan was made is not carried, and is no attack.
func TestFetchOfAChangedFolder(t *testing.T) {
	for what, change := range map[string]func(string) error{
		"other bytes": func(name string) error { return os.WriteFile(name, []byte("DAILY"), 0o600) },
		"longer":      func(name string) error { return os.WriteFile(name, []byte("daily and more"), 0o600) },
		"gone":        os.Remove,
		"a link out": func(name string) error {
			return errors.Join(os.Remove(name), os.Symlink("/proc/self/cmdline", name))
		},
		"a pipe": func(name string) error { return errors.Join(os.Remove(name), unix.Mkfifo(name, 0o600)) },
	} {
		t.Run(what, func(t *testing.T) {
			dir, st := t.TempDir(), openStore(t)
			put(t, dir, tree{"daily.cvd": "daily"})
			s := newSource(t, clamav(dir), st, nil)
			snap, _, err := s.Resolve(t.Context(), nil)
			must(t, err)
			must(t, change(filepath.Join(dir, "daily.cvd")))
			f := snap.Artifacts[0].Files[0]
			err = newSource(t, clamav(dir), st, nil).Fetch(t.Context(), f) // a plan that was saved
			refused(t, err, CodeChanged, artifact.ErrUnavailable)
			if errors.Is(err, artifact.ErrIntegrity) || st.Has(f.Digest) {
				t.Errorf("%v, in the store: %v", err, st.Has(f.Digest))
			}
		})
	}
	dir, st := t.TempDir(), openStore(t)
	put(t, dir, tree{"a": "1"})
	s := newSource(t, clamav(dir), st, nil)
	for _, path := range []string{"other/a", "clamav", "clamav/", "clamav/../clamav/a", "clamav//a"} {
		err := s.Fetch(t.Context(), artifact.File{Path: path, Digest: artifact.Sum([]byte("1")), Size: 1})
		refused(t, err, CodeChanged, artifact.ErrUnavailable)
	}
}

// A set that cannot be had stays as it was sealed; so does its version.
func TestSetsBeforeAndAfter(t *testing.T) {
	dir, st := t.TempDir(), openStore(t)
	put(t, dir, tree{"one/a": "1", "two/a": "2"})
	c := Config{Name: "db", Sets: []Set{{Name: "one", Folder: dir + "/one"}, {Name: "two", Folder: dir + "/two", Version: "2.0"}}}
	s := newSource(t, c, st, nil)
	first, _, err := s.Resolve(t.Context(), nil)
	must(t, err)
	fetchAll(t, s, first)

	must(t, os.RemoveAll(dir+"/one"))
	second, _, err := s.Resolve(t.Context(), first)
	l := lostSet(t, err)
	if l.Name != "one" || l.Version != first.Artifacts[0].Version {
		t.Errorf("lost %+v", l)
	}
	same(t, len(first.Artifacts), len(second.Artifacts))
	same(t, contents(t, st, first), contents(t, st, second))

	put(t, dir, tree{"one/a": "new", "two/a": "changed"})
	third, _, err := s.Resolve(t.Context(), first)
	l = lostSet(t, err)
	refused(t, l.Err, CodeVersion, artifact.ErrIntegrity)
	if l.Name != "two" || third.Artifacts[0].Version == first.Artifacts[0].Version {
		t.Errorf("lost %+v, first set %s", l, third.Artifacts[0].Version)
	}
	// What could not be fetched is put back as it was.
	without := *third
	without.Artifacts = third.Artifacts[1:]
	kept, err := s.Keep(&without, first, third.Artifacts[:1])
	must(t, err)
	kept.Schema = artifact.SnapshotSchema
	same(t, contents(t, st, first), contents(t, st, kept))
	if _, err := kept.Encode(); err != nil {
		t.Error(err)
	}
	none, err := s.Keep(&without, &artifact.Snapshot{}, third.Artifacts[:1])
	must(t, err)
	same(t, len(without.Artifacts), len(none.Artifacts))
}

func TestAddressesAreFetched(t *testing.T) {
	u, st := newUpstream(t), openStore(t)
	plain, query := u.add("/dir/driver.run", "driver"), u.add("/get?file=tool&token=secret", "tool")
	query.Path, query.Size = "bin/tool", 4
	c := Config{Name: "db", AllowHTTP: true, Sets: []Set{{Name: "tool", Version: "1.0", URLs: []Pinned{plain, query}}}}
	s := newSource(t, c, st, client(t, c))
	snap, _, err := s.Resolve(t.Context(), nil)
	must(t, err)
	same(t, []string{"HEAD /dir/driver.run"}, u.requests())
	b, err := snap.Encode()
	must(t, err)
	if strings.Contains(string(b), "secret") || !strings.Contains(string(b), u.URL+"/dir/driver.run") {
		t.Errorf("snapshot %s", b)
	}
	fetchAll(t, newSource(t, c, st, client(t, c)), snap)
	same(t, tree{"tool/driver.run": "driver", "tool/bin/tool": "tool"}, contents(t, st, snap))
	u.requests()

	// Nothing is asked for that is here.
	_, _, err = s.Resolve(t.Context(), snap)
	must(t, err)
	fetchAll(t, s, snap)
	same(t, 0, len(u.requests()))
	// Nor the size of what was sealed before.
	_, _, err = newSource(t, c, openStore(t), client(t, c)).Resolve(t.Context(), snap)
	must(t, err)
	same(t, 0, len(u.requests()))

	// A plan of another configuration.
	other := c
	other.Sets = []Set{{Name: "tool", Version: "1.0", URLs: []Pinned{{URL: plain.URL, SHA256: anyDigest}}}}
	for f := range snap.Files {
		err := newSource(t, other, openStore(t), client(t, other)).Fetch(t.Context(), f)
		refused(t, err, CodeChanged, artifact.ErrUnavailable)
	}
	if _, err := NewSource(c, sourceName, nil, st, nil); err == nil {
		t.Error("addresses without a client")
	}
}

func TestAddressRefusals(t *testing.T) {
	elsewhere := newUpstream(t)
	elsewhere.add("/a", "right")
	for what, c := range map[string]struct {
		pin     func(*Pinned)
		answer  func(http.ResponseWriter, *http.Request) bool
		resolve func(*testing.T, error)
		fetch   func(*testing.T, error)
	}{
		"another file": {func(p *Pinned) { p.SHA256 = anyDigest; p.Size = 5 }, nil, nil, func(t *testing.T, err error) {
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Errorf("got %v", err)
			}
		}},
		"a wrong size": {func(p *Pinned) { p.Size = 4 }, nil, nil, func(t *testing.T, err error) {
			refused(t, err, "FETCH-SIZE", artifact.ErrIntegrity)
		}},
		"a size that is not told": {nil, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Transfer-Encoding", "chunked")
			return r.Method == http.MethodHead
		}, func(t *testing.T, err error) {
			refused(t, lostSet(t, err).Err, CodeSize, artifact.ErrUnavailable)
		}, nil},
		"no such file": {nil, func(w http.ResponseWriter, r *http.Request) bool {
			http.NotFound(w, r)
			return true
		}, func(t *testing.T, err error) {
			if l := lostSet(t, err); !errors.Is(l.Err, artifact.ErrUnavailable) {
				t.Errorf("got %v", l.Err)
			}
		}, nil},
		"sent elsewhere": {func(p *Pinned) { p.Size = 5 }, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL+"/a", http.StatusFound)
			return true
		}, nil, func(t *testing.T, err error) {
			if !errors.Is(err, fetch.ErrHost) {
				t.Errorf("got %v", err)
			}
		}},
		"asked elsewhere": {nil, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL+"/a", http.StatusFound)
			return true
		}, func(t *testing.T, err error) {
			if _, part := errors.AsType[*artifact.Incomplete](err); part || !errors.Is(err, fetch.ErrHost) {
				t.Errorf("got %v", err)
			}
		}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			u, st := newUpstream(t), openStore(t)
			pin := u.add("/a", "right")
			u.answer = c.answer
			if c.pin != nil {
				c.pin(&pin)
			}
			config := Config{Name: "db", AllowHTTP: true, Sets: []Set{{Name: "tool", URLs: []Pinned{pin}}}}
			s := newSource(t, config, st, client(t, config))
			snap, _, err := s.Resolve(t.Context(), nil)
			if c.resolve != nil {
				c.resolve(t, err)
				return
			}
			must(t, err)
			f := snap.Artifacts[0].Files[0]
			c.fetch(t, s.Fetch(t.Context(), f))
			if st.Has(f.Digest) {
				t.Error("it is in the store")
			}
		})
	}
	same(t, 0, len(elsewhere.requests()))
}

// A size that is not that of the blob with this digest is refused, wherever it
// comes from.
func TestSizes(t *testing.T) {
	u, st := newUpstream(t), openStore(t)
	one := u.add("/a", "right")
	_, err := st.PutBytes([]byte("right"))
	must(t, err)
	one.Size = 4
	c := Config{Name: "db", AllowHTTP: true, Sets: []Set{{Name: "tool", URLs: []Pinned{one}}}}
	_, _, err = newSource(t, c, st, client(t, c)).Resolve(t.Context(), nil)
	refused(t, lostSet(t, err).Err, CodeSize, artifact.ErrIntegrity)

	// Two sets of one digest, where the server tells one size and the
	// configuration another.
	two := one
	two.Size = 0
	c.Sets = append(c.Sets, Set{Name: "other", URLs: []Pinned{two}})
	_, _, err = newSource(t, c, openStore(t), client(t, c)).Resolve(t.Context(), nil)
	l := lostSet(t, err)
	refused(t, l.Err, CodeSize, artifact.ErrIntegrity)
	same(t, "other", l.Name)

	big := &fileSet{name: "x", version: "1", files: []setFile{{path: "a", size: maxSetBytes}, {path: "b", size: 1}}}
	if err := big.check(); err == nil {
		t.Error("a set over the limit")
	}
	big.files = make([]setFile, maxSetFiles+1)
	if err := big.check(); err == nil {
		t.Error("a set of too many files")
	}
}

func TestRedirectToAnAllowedHost(t *testing.T) {
	u, cdn, st := newUpstream(t), newUpstream(t), openStore(t)
	pin := u.add("/a", "right")
	cdn.add("/b", "right")
	u.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, cdn.URL+"/b", http.StatusFound)
		return true
	}
	c := Config{Name: "db", AllowHTTP: true, AllowHosts: []string{strings.TrimPrefix(cdn.URL, "http://")}, Sets: []Set{{Name: "tool", URLs: []Pinned{pin}}}}
	s := newSource(t, c, st, client(t, c))
	snap, _, err := s.Resolve(t.Context(), nil)
	must(t, err)
	fetchAll(t, s, snap)
	same(t, tree{"tool/a": "right"}, contents(t, st, snap))
}

// A download goes on where it was cut.
func TestResume(t *testing.T) {
	u, st := newUpstream(t), openStore(t)
	text := strings.Repeat("0123456789", 100<<10)
	pin := u.add("/a", text)
	var cuts atomic.Int32
	u.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.Header.Get("Range") != "" {
			return false
		}
		cuts.Add(1)
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		w.Header().Set("Last-Modified", time.Unix(1, 0).UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte(text[:len(text)/2]))
		panic(http.ErrAbortHandler)
	}
	c := Config{Name: "db", AllowHTTP: true, Sets: []Set{{Name: "tool", URLs: []Pinned{pin}}}}
	s := newSource(t, c, st, client(t, c))
	snap, _, err := s.Resolve(t.Context(), nil)
	must(t, err)
	f := snap.Artifacts[0].Files[0]
	if err := s.Fetch(t.Context(), f); err == nil {
		t.Fatal("it was not cut")
	}
	must(t, s.Fetch(t.Context(), f))
	if cuts.Load() != 1 || !st.Has(f.Digest) {
		t.Errorf("%d cuts, in the store: %v", cuts.Load(), st.Has(f.Digest))
	}
}

func TestResolveEnds(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, tree{"a": "1"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	snap, _, err := newSource(t, clamav(dir), openStore(t), nil).Resolve(ctx, nil)
	if !errors.Is(err, context.Canceled) || snap != nil {
		t.Errorf("got %v, %v", snap, err)
	}
}
