package pypi

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

const (
	linux312 = "cp312-manylinux_2_28_x86_64"
	win311   = "cp311-win_amd64"
)

// outside is a source over a fake index, with a store.
type outside struct {
	*Source
	store *store.Store
	dir   string // the store's
	index *pypitest.Index
	url   string
}

// newOutside serves index and makes a source for lock files and targets.
func newOutside(t *testing.T, index http.Handler, locks map[string]string, change func(*Config)) *outside {
	t.Helper()
	srv := httptest.NewServer(index)
	t.Cleanup(srv.Close)
	cfg := Config{Index: srv.URL + "/simple", AllowHTTP: true, Targets: []string{linux312}}
	dir := folder(t, locks)
	for name := range locks {
		cfg.Locks = append(cfg.Locks, LockConfig{File: filepath.Join(dir, name)})
	}
	slices.SortFunc(cfg.Locks, func(a, b LockConfig) int { return strings.Compare(a.File, b.File) })
	if change != nil {
		change(&cfg)
	}
	pool := fetch.NewPool(cfg.PerHost(), 10)
	var clients []*fetch.Client
	for _, fc := range cfg.Fetches("pypi/main") {
		fc.MaxRetries = -1
		client, err := fetch.New(pool, fc)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	storeDir := t.TempDir()
	st, err := store.Open(storeDir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSource(cfg, "pypi/main", clients, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := &outside{Source: s, store: st, dir: storeDir, url: srv.URL}
	o.index, _ = index.(*pypitest.Index)
	return o
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// resolve answers with the filenames that were chosen.
func (o *outside) resolve(t *testing.T) (*artifact.Snapshot, []string, []string) {
	t.Helper()
	snap, notes, err := o.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			names = append(names, f.Path)
		}
	}
	return snap, names, notes
}

// fetchAll fetches every file of the snapshot.
func (o *outside) fetchAll(ctx context.Context, snap *artifact.Snapshot) error {
	var errs []error
	for f := range snap.Files {
		errs = append(errs, o.Fetch(ctx, f))
	}
	return errors.Join(errs...)
}

func yanked(f pypitest.File, reason string) pypitest.File {
	f.Yanked, f.YankedReason = true, reason
	return f
}

func TestResolveAndFetch(t *testing.T) {
	old := pypitest.Wheel("foo_bar-1.0-cp312-cp312-manylinux1_x86_64.whl", ">=3.8")
	best := pypitest.Wheel("foo_bar-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", ">=3.8")
	build := pypitest.Wheel("foo_bar-1.0-2-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", ">=3.8", pypitest.Entry{Name: "foo_bar/build2.py"})
	win := pypitest.Wheel("foo_bar-1.0-cp311-cp311-win_amd64.whl", ">=3.8")
	newer := pypitest.Wheel("foo_bar-1.1-py3-none-any.whl", "")
	source := pypitest.Sdist("foo_bar-1.0.tar.gz")
	pure := yanked(pypitest.Wheel("Pure-2.0+local.1-py3-none-any.whl", ""), "broken <b>")
	pure.UploadTime = "2026-01-02T03:04:05.678901Z"
	winOnly := pypitest.Wheel("colorama-3-py2.py3-none-any.whl", "")
	index := pypitest.New(old, best, build, win, newer, source, pure, winOnly)
	locks := map[string]string{
		"a.txt": pypitest.Pin(old, best, build, win, source) + "\ncolorama==3 ; sys_platform == 'win32' --hash=sha256:" + winOnly.SHA256() + "\n",
		"b.txt": "\n" + pypitest.Pin(pure) + "\n" + pypitest.Pin(best, win) + "\n",
	}
	for _, html := range []bool{false, true} {
		index.HTML = html
		o := newOutside(t, index, locks, func(c *Config) { c.Targets = []string{linux312, win311} })
		before := index.Count("GET /simple/")
		snap, names, notes := o.resolve(t)
		want := []string{winOnly.Name, best.Name, win.Name, build.Name, pure.Name}
		if d := cmp.Diff(want, names, cmp.Transformer("sort", func(s []string) []string { return slices.Sorted(slices.Values(s)) })); d != "" {
			t.Errorf("html %v: %s", html, d)
		}
		if n := index.Count("GET /simple/") - before; n != 3 {
			t.Errorf("%d pages asked for, want one for each of 3 projects", n)
		}
		if text := strings.Join(notes, "\n"); !strings.Contains(text, "pure 2.0+local.1 is yanked upstream: broken <b>") {
			t.Errorf("notes: %s", text)
		}
		if i := slices.IndexFunc(snap.Artifacts, func(a artifact.Artifact) bool { return a.Name == "foo-bar" }); snap.Artifacts[i].Why != "a.txt:1, b.txt:3" || snap.Artifacts[i].Version != "1.0" {
			t.Errorf("got %+v", snap.Artifacts[i])
		}
		if err := o.fetchAll(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
		for f := range snap.Files {
			if !o.store.Has(f.Digest) || strings.ContainsAny(f.URL, "#?") {
				t.Errorf("%+v is not in the store, or its URL is not bare", f)
			}
		}
		meta, ok := snap.MetaFile("index.json")
		if !ok {
			t.Fatal("no index.json")
		}
		b, err := o.store.ReadAll(meta.Digest, maxIndex)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(`"yanked_reason":"broken \u003cb\u003e"`)) || bytes.Contains(b, []byte("serial")) || bytes.Contains(b, []byte("upload_time")) == html {
			t.Errorf("index.json: %s", b)
		}
		// The same state gives the same bytes.
		again, _, err := o.Resolve(t.Context(), snap)
		if err != nil {
			t.Fatal(err)
		}
		one, err1 := snap.Encode()
		two, err2 := again.Encode()
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(one, two) {
			t.Errorf("two runs differ: %v\n%s\n%s", err, one, two)
		}
		// Everything is there: fetching asks for nothing.
		before = index.Count("GET /files/")
		if err := o.fetchAll(t.Context(), snap); err != nil || index.Count("GET /files/") != before {
			t.Errorf("fetched again: %v", err)
		}
	}
}

func TestResolvePylock(t *testing.T) {
	wheel := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	tagged := pypitest.Wheel("foo-1.0-cp312-abi3-manylinux2014_x86_64.whl", "")
	lock := func(files ...string) map[string]string {
		return map[string]string{"pylock.toml": pylockHead + "[[packages]]\nname = \"foo\"\nversion = \"1.0\"\nwheels = [" + strings.Join(files, ", ") + "]\n"}
	}
	file := func(f pypitest.File, size string) string {
		return `{name = "` + f.Name + `", hashes = {sha256 = "` + f.SHA256() + `"}` + size + `}`
	}
	nohash := wheel
	nohash.NoHash = true
	wrongHash := wheel
	wrongHash.Hash = hashA
	for name, c := range map[string]struct {
		index []pypitest.File
		locks map[string]string
		want  string
		code  string
		class error
	}{
		"best tag":          {[]pypitest.File{wheel, tagged}, lock(file(wheel, ""), file(tagged, "")), tagged.Name, "", nil},
		"no hash":           {[]pypitest.File{nohash}, lock(file(wheel, "")), wheel.Name, "", nil},
		"hash differs":      {[]pypitest.File{wrongHash}, lock(file(wheel, "")), "", "PYPI-HASH-MISMATCH", artifact.ErrIntegrity},
		"size differs":      {[]pypitest.File{wheel}, lock(file(wheel, ", size = 1")), "", "PYPI-SIZE-MISMATCH", artifact.ErrIntegrity},
		"not offered":       {[]pypitest.File{wheel}, lock(file(wheel, ""), file(tagged, "")), "", "PYPI-NO-FILE", artifact.ErrUnavailable},
		"none fits":         {[]pypitest.File{wheel}, lock(strings.ReplaceAll(file(wheel, ""), "py3", "py2")), "", "PYPI-NO-FILE", artifact.ErrUnavailable},
		"no shape":          {[]pypitest.File{wheel}, lock(strings.ReplaceAll(file(wheel, ""), ".whl", ".egg")), "", "PYPI-NO-FILE", artifact.ErrUnavailable},
		"no shape nor hash": {[]pypitest.File{nohash}, lock(strings.ReplaceAll(file(wheel, ""), ".whl", ".egg")), "", "PYPI-NO-FILE", artifact.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutside(t, pypitest.New(c.index...), c.locks, nil)
			if c.code != "" {
				_, _, err := o.Resolve(t.Context(), nil)
				wantRefusal(t, err, c.class, c.code, "foo 1.0 (pylock.toml:5)")
				return
			}
			snap, names, _ := o.resolve(t)
			if d := cmp.Diff([]string{c.want}, names); d != "" {
				t.Error(d)
			}
			if err := o.fetchAll(t.Context(), snap); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFirstUseOfLock: the hash of a lock is proof enough of a file of which the
// index names none, where such files count.
func TestFirstUseOfLock(t *testing.T) {
	bare := func(f pypitest.File) pypitest.File {
		f.NoHash, f.UploadTime = true, long
		return f
	}
	wheel, win := bare(pypitest.Wheel("foo-1.0-py3-none-any.whl", "")), bare(pypitest.Wheel("foo-1.0-cp312-cp312-win_amd64.whl", ""))
	pin := func(hashes ...string) string {
		return "foo==1.0 --hash=sha256:" + strings.Join(hashes, " --hash=sha256:") + "\n"
	}
	for name, c := range map[string]struct {
		lock    string
		code    string
		fetched int // by resolving
	}{
		"one hash":     {pin(wheel.SHA256()), "", 0},
		"several":      {pin(win.SHA256(), wheel.SHA256()), "", 1},
		"none is it":   {pin(hashA, win.SHA256()), "PYPI-HASH-MISMATCH", 1},
		"another file": {pin(win.SHA256()), "", 0}, // which fetching tells
	} {
		for _, resolved := range []bool{false, true} {
			index := pypitest.New(wheel, win)
			index.NoMetadata = true
			locks := map[string]string{"r.txt": c.lock}
			change := func(mode string) func(*Config) {
				return func(conf *Config) {
					conf.MissingHash = mode
					if resolved {
						conf.Requirements, conf.Locks = []RequirementsConfig{{File: conf.Locks[0].File}}, nil
					}
				}
			}
			refused := newOutside(t, index, locks, change(""))
			if _, _, err := refused.Resolve(t.Context(), nil); err == nil {
				t.Errorf("%s, resolved %v: a file without a hash counts by default", name, resolved)
			}
			o := newOutside(t, index, locks, change(hashRecord))
			before := index.Count("GET /files/")
			snap, _, err := o.Resolve(t.Context(), nil)
			if c.code != "" {
				wantRefusal(t, err, artifact.ErrIntegrity, c.code, wheel.Name)
				continue
			}
			if err != nil {
				t.Fatalf("%s, resolved %v: %v", name, resolved, err)
			}
			if n := index.Count("GET /files/") - before; n != c.fetched && !resolved { // METADATA is read of it, too
				t.Errorf("%s: %d requests for files, want %d", name, n, c.fetched)
			}
			if err := o.fetchAll(t.Context(), snap); (err != nil) != (name == "another file") {
				t.Errorf("%s, resolved %v: %v", name, resolved, err)
			}
			before = index.Count("GET /files/")
			if again, _, err := o.Resolve(t.Context(), nil); err != nil || cmp.Diff(snap, again) != "" || index.Count("GET /files/") > before && !resolved {
				t.Errorf("%s, resolved %v: again: %v, %d requests", name, resolved, err, index.Count("GET /files/")-before)
			}
		}
	}
}

func TestResolveRefused(t *testing.T) {
	wheel := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	other := pypitest.Wheel("foo-1.0-cp312-cp312-win_amd64.whl", "")
	spoil := func(f pypitest.File, fn func(*pypitest.File)) pypitest.File { fn(&f); return f }
	for name, c := range map[string]struct {
		index *pypitest.Index
		lock  string
		code  string
		class error
		text  string
	}{
		"not found":       {pypitest.New(), pypitest.Pin(wheel), "PYPI-NOT-FOUND", artifact.ErrUnavailable, "foo"},
		"no such version": {pypitest.New(wheel), "foo==2.0 --hash=sha256:" + hashA, "PYPI-NO-FILE", artifact.ErrUnavailable, "no file of that version"},
		"tags":            {pypitest.New(other), pypitest.Pin(other), "PYPI-NO-FILE", artifact.ErrUnavailable, "win_amd64.whl: its tags do not fit"},
		"lock incomplete": {pypitest.New(wheel, other), pypitest.Pin(other), "PYPI-NO-FILE", artifact.ErrUnavailable, "is not in the lock"},
		"other bytes":     {pypitest.New(wheel), "foo==1.0 --hash=sha256:" + hashA, "PYPI-HASH-MISMATCH", artifact.ErrIntegrity, "none of the lock's hashes"},
		"requires python": {pypitest.New(spoil(wheel, func(f *pypitest.File) { f.RequiresPython = ">=3.13" })), pypitest.Pin(wheel), "PYPI-NO-FILE", artifact.ErrUnavailable, "requires Python >=3.13"},
		"no hash":         {pypitest.New(spoil(wheel, func(f *pypitest.File) { f.NoHash = true })), pypitest.Pin(wheel), "PYPI-NO-HASH", artifact.ErrIntegrity, "no sha256"},
		"sdist":           {pypitest.New(pypitest.Sdist("foo-1.0.tar.gz")), pypitest.Pin(pypitest.Sdist("foo-1.0.tar.gz")), "PYPI-NO-FILE", artifact.ErrUnavailable, "allow_sdist is off"},
		"quarantined":     {func() *pypitest.Index { x := pypitest.New(wheel); x.Status["foo"] = "quarantined"; return x }(), pypitest.Pin(wheel), "PYPI-QUARANTINED", artifact.ErrUnavailable, "quarantine"},
		"api version":     {func() *pypitest.Index { x := pypitest.New(wheel); x.APIVersion = "2.0"; return x }(), pypitest.Pin(wheel), "PYPI-API-VERSION", artifact.ErrUnavailable, "2.0"},
		"link name":       {pypitest.New(spoil(wheel, func(f *pypitest.File) { f.URL = "/files/bar-1.0-py3-none-any.whl" })), pypitest.Pin(wheel), "PYPI-FILENAME", artifact.ErrIntegrity, "differ"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutside(t, c.index, map[string]string{"requirements.txt": "# head\n" + c.lock}, nil)
			_, _, err := o.Resolve(t.Context(), nil)
			wantRefusal(t, err, c.class, c.code, "foo")
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q in it", err, c.text)
			}
		})
	}
}

// Every pin that fails is named, not only the first.
func TestResolveNamesAll(t *testing.T) {
	o := newOutside(t, pypitest.New(), map[string]string{"requirements.txt": "one==1 --hash=sha256:" + hashA + "\ntwo==2 --hash=sha256:" + hashA}, nil)
	_, _, err := o.Resolve(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "pypi/main: one") || !strings.Contains(err.Error(), "pypi/main: two") {
		t.Errorf("got %v", err)
	}
}

func TestResolveNothing(t *testing.T) {
	o := newOutside(t, pypitest.New(), nil, nil)
	snap, names, notes := o.resolve(t)
	if len(names) != 0 || len(snap.Meta) != 1 || len(notes) != 1 || !strings.HasSuffix(notes[0], "nothing is wanted") {
		t.Errorf("got %v %v", names, notes)
	}
}

func TestResolveSdist(t *testing.T) {
	source := pypitest.Sdist("foo-1.0.tar.gz")
	lock := map[string]string{"requirements.txt": pypitest.Pin(source)}
	allow := func(c *Config) { c.AllowSdist, c.AssumeOld = true, true }
	o := newOutside(t, pypitest.New(source, pypitest.Wheel("setuptools-80.0-py3-none-any.whl", "")), lock, allow)
	snap, names, notes := o.resolve(t)
	if d := cmp.Diff([]string{source.Name, "setuptools-80.0-py3-none-any.whl"}, names); d != "" || len(notes) != 2 || !strings.Contains(notes[1], "source archive") {
		t.Errorf("%s %q", d, notes)
	}
	_, _, err := newOutside(t, pypitest.New(source), lock, allow).Resolve(t.Context(), nil)
	wantRefusal(t, err, ErrLock, "PYPI-CONFLICT", "the build of foo 1.0")
	if err := o.fetchAll(t.Context(), snap); err != nil {
		t.Error(err)
	}
}

func TestResolveChangedFile(t *testing.T) {
	wheel := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	prev := &artifact.Snapshot{Artifacts: []artifact.Artifact{{Name: "foo", Version: "1.0", Files: []artifact.File{{Path: wheel.Name, Digest: artifact.Sum(nil)}}}}}
	o := newOutside(t, pypitest.New(wheel), map[string]string{"r.txt": pypitest.Pin(wheel)}, nil)
	_, _, err := o.Resolve(t.Context(), prev)
	wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-FILE-CHANGED", wheel.Name)
}

func TestOtherHost(t *testing.T) {
	wheel := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	files := httptest.NewServer(pypitest.New(wheel))
	defer files.Close()
	host := strings.TrimPrefix(files.URL, "http://")
	linked, redirected := wheel, wheel
	linked.URL = files.URL + "/files/" + wheel.Name
	redirected.Redirect = linked.URL
	lock := map[string]string{"r.txt": pypitest.Pin(wheel)}

	o := newOutside(t, pypitest.New(linked), lock, nil)
	_, _, err := o.Resolve(t.Context(), nil)
	if !errors.Is(err, fetch.ErrHost) || !strings.Contains(err.Error(), host) {
		t.Errorf("link: got %v, want the host named", err)
	}
	o = newOutside(t, pypitest.New(redirected), lock, nil)
	snap, _, _ := o.resolve(t)
	if err := o.fetchAll(t.Context(), snap); !errors.Is(err, fetch.ErrHost) || o.store.Has(snap.Artifacts[0].Files[0].Digest) {
		t.Errorf("redirect: got %v", err)
	}
	for _, f := range []pypitest.File{linked, redirected} {
		o = newOutside(t, pypitest.New(f), lock, func(c *Config) { c.AllowHosts = []string{host} })
		snap, _, _ = o.resolve(t)
		if err := o.fetchAll(t.Context(), snap); err != nil {
			t.Errorf("allowed: %v", err)
		}
	}
}

func TestPageLimit(t *testing.T) {
	wheel := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	large := func(n int) *pypitest.Index {
		x := pypitest.New(wheel)
		x.Pages["foo"] = pypitest.Page{ContentType: typeJSON, Body: `{"meta":{"api-version":"1.0"},"name":"foo","pad":"` + strings.Repeat("x", n) +
			`","files":[{"filename":"` + wheel.Name + `","url":"/files/` + wheel.Name + `","hashes":{"sha256":"` + wheel.SHA256() + `"}}]}`}
		return x
	}
	lock := map[string]string{"r.txt": pypitest.Pin(wheel)}
	o := newOutside(t, large(2000), lock, func(c *Config) { c.MaxPage = 1000 })
	_, _, err := o.Resolve(t.Context(), nil)
	wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-PAGE-LIMIT", "foo")
	// A page over smallPage is read in a second try.
	o = newOutside(t, large(smallPage+1), lock, nil)
	if _, names, _ := o.resolve(t); len(names) != 1 {
		t.Errorf("got %v", names)
	}
}

func TestFetchFaults(t *testing.T) {
	wheel := pypitest.Wheel("foo-1.0-py3-none-any.whl", "", pypitest.Entry{Name: "foo/data", Body: strings.Repeat("0123456789", 5000), Store: true})
	lock := map[string]string{"r.txt": pypitest.Pin(wheel)}
	t.Run("cut body is resumed", func(t *testing.T) {
		f := wheel
		f.Cut = 20000
		o := newOutside(t, pypitest.New(f), lock, nil)
		snap, _, _ := o.resolve(t)
		err := o.fetchAll(t.Context(), snap)
		if err != nil {
			err = o.fetchAll(t.Context(), snap) // the client may leave it to the next run
		}
		if err != nil || !o.store.Has(snap.Artifacts[0].Files[0].Digest) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("other bytes", func(t *testing.T) {
		f := wheel
		f.Hash, f.Body = wheel.SHA256(), append(bytes.Clone(wheel.Body[:len(wheel.Body)-1]), 'x')
		o := newOutside(t, pypitest.New(f), lock, nil)
		snap, _, _ := o.resolve(t)
		if err := o.fetchAll(t.Context(), snap); !errors.Is(err, artifact.ErrIntegrity) || o.store.Has(snap.Artifacts[0].Files[0].Digest) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("wrong size", func(t *testing.T) {
		f := wheel
		f.Size = 5
		o := newOutside(t, pypitest.New(f), lock, nil)
		snap, _, _ := o.resolve(t)
		if err := o.fetchAll(t.Context(), snap); err == nil || o.store.Has(snap.Artifacts[0].Files[0].Digest) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("bad wheel", func(t *testing.T) {
		f := wheel
		f.Body = append([]byte("MZ"), wheel.Body...)
		o := newOutside(t, pypitest.New(f), map[string]string{"r.txt": pypitest.Pin(f)}, nil)
		snap, _, _ := o.resolve(t)
		for range 2 { // also when the blob is there already
			wantRefusal(t, o.fetchAll(t.Context(), snap), artifact.ErrIntegrity, "PYPI-WHEEL", wheel.Name)
		}
	})
	t.Run("other metadata", func(t *testing.T) {
		f := wheel
		f.Metadata = []byte("something else")
		o := newOutside(t, pypitest.New(f), lock, nil)
		snap, _, _ := o.resolve(t)
		wantRefusal(t, o.fetchAll(t.Context(), snap), artifact.ErrIntegrity, "PYPI-METADATA-MISMATCH", wheel.Name)
	})
	t.Run("damaged blob", func(t *testing.T) {
		o := newOutside(t, pypitest.New(wheel), lock, nil)
		snap, _, _ := o.resolve(t)
		if err := o.fetchAll(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
		damage(t, o.store, snap.Artifacts[0].Files[0].Digest)
		if err := o.fetchAll(t.Context(), snap); err != nil || o.index.Count("GET /files/") != 2 {
			t.Errorf("not fetched again: %v", err)
		}
	})
}

// damage flips a byte of a blob on disk.
func damage(t *testing.T, st *store.Store, d artifact.Digest) {
	t.Helper()
	f, err := st.File(d)
	if err != nil {
		t.Fatal(err)
	}
	name := f.Name()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each file of testdata/pages is one hostile page. Its comment names the
// refusal (or "ok") and a text of it; the lock pins foo 1.0 with a hash of a's.
func TestHostilePages(t *testing.T) {
	files, err := filepath.Glob("testdata/pages/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d pages found, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil || len(a.Files) != 1 {
				t.Fatalf("%d files, %v", len(a.Files), err)
			}
			code, text, _ := strings.Cut(strings.TrimSpace(string(a.Comment)), " ")
			x := pypitest.New()
			kind := map[string]string{"page.json": typeJSON, "page.html": typePlain, "page.v2": "application/vnd.pypi.simple.v2+json", "page.octets": "application/octet-stream"}[a.Files[0].Name]
			x.Pages["foo"] = pypitest.Page{ContentType: kind, Body: string(a.Files[0].Data)}
			o := newOutside(t, x, map[string]string{"r.txt": "foo==1.0 --hash=sha256:" + hashA}, nil)
			_, _, err = o.Resolve(t.Context(), nil)
			if code == "ok" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			r, ok := errors.AsType[*artifact.Refusal](err)
			switch {
			case code == "HOST":
				if !errors.Is(err, fetch.ErrHost) {
					t.Fatalf("got %v", err)
				}
			case !ok || r.Code != code || !strings.Contains(err.Error(), text):
				t.Fatalf("got %v, want %s and %q", err, code, text)
			}
		})
	}
}
