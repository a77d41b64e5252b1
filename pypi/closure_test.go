package pypi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// long is an upload time that every minimum age is content with.
const long = "2020-01-01T00:00:00Z"

func aged(files ...pypitest.File) []pypitest.File {
	for i := range files {
		if files[i].UploadTime == "" {
			files[i].UploadTime = long
		}
	}
	return files
}

// resolving is a source that resolves packages from an index of files.
func resolving(t *testing.T, index *pypitest.Index, packages []string, change func(*Config)) *outside {
	t.Helper()
	return newOutside(t, index, nil, func(c *Config) {
		c.Packages = packages
		if change != nil {
			change(c)
		}
	})
}

// refused checks that resolving is refused with a code and with words.
func (o *outside) refused(t *testing.T, code string, words ...string) {
	t.Helper()
	_, _, err := o.Resolve(t.Context(), nil)
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in %v", w, err)
		}
	}
}

func TestClosure(t *testing.T) {
	index := pypitest.New(aged(
		pypitest.Requiring("app-2.0-py3-none-any.whl", ">=3.9", "Requires-Dist: lib[fast]>=1,<3", "Requires-Dist: win ; sys_platform == 'win32'", "Requires-Dist: missing ; python_version < '3'"),
		pypitest.Requiring("app-3.0-py3-none-any.whl", ">=3.13"),
		pypitest.Requiring("lib-2.0-cp312-cp312-manylinux_2_17_x86_64.whl", "", "Provides-Extra: fast", "Requires-Dist: fastlib ; extra == 'fast'"),
		pypitest.Requiring("lib-2.0-py3-none-any.whl", "", "Provides-Extra: fast", "Requires-Dist: fastlib ; extra == 'fast'"),
		pypitest.Requiring("lib-3.0-py3-none-any.whl", ""),
		pypitest.Requiring("fastlib-1.0-py3-none-any.whl", ""),
		pypitest.Requiring("fastlib-1.1-cp39-cp39-win32.whl", ""),
		pypitest.Requiring("win-1.0-py3-none-any.whl", ""),
	)...)
	o := resolving(t, index, []string{"app"}, func(c *Config) { c.Targets = append(c.Targets, win311) })
	snap, names, notes := o.resolve(t)
	want := []string{"app-2.0-py3-none-any.whl", "fastlib-1.0-py3-none-any.whl", "lib-2.0-cp312-cp312-manylinux_2_17_x86_64.whl", "lib-2.0-py3-none-any.whl", "win-1.0-py3-none-any.whl"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"packages: 3 packages for " + linux312, "packages: 4 packages for " + win311}, notes); d != "" {
		t.Errorf("notes (-want +got):\n%s", d)
	}
	why := map[string]string{}
	for _, a := range snap.Artifacts {
		why[a.Name] = a.Why
	}
	if d := cmp.Diff(map[string]string{"app": "packages[0]", "lib": "app 2.0", "fastlib": "lib 2.0", "win": "app 2.0"}, why); d != "" {
		t.Errorf("why (-want +got):\n%s", d)
	}
	requests := index.Requests()
	slices.Sort(requests)
	if n := len(requests); n != len(slices.Compact(requests)) {
		t.Errorf("asked twice: %q", requests)
	}
	for _, r := range requests {
		if strings.HasSuffix(r, ".whl") {
			t.Errorf("a wheel was fetched to resolve: %s", r)
		}
	}
	if err := o.fetchAll(t.Context(), snap); err != nil {
		t.Error(err)
	}
	again, _, _ := o.resolve(t)
	if d := cmp.Diff(snap, again); d != "" {
		t.Errorf("resolving again differs:\n%s", d)
	}
}

// TestRemoteMetadata: an index without METADATA files costs parts of the
// wheels, and whole wheels only where the server has no parts.
func TestRemoteMetadata(t *testing.T) {
	big := pypitest.Requiring("a-1.0-py3-none-any.whl", "", "Requires-Dist: b")
	entries := append([]pypitest.Entry{{Name: "a/big.bin", Body: strings.Repeat("0123456789", 100_000), Store: true}}, entriesOf(t, big)...)
	big.Body = pypitest.Zip(pypitest.WithRecord(entries, "a-1.0.dist-info/RECORD")...)
	files := aged(big, pypitest.Requiring("b-1.0-py3-none-any.whl", ""))
	for name, c := range map[string]struct {
		html, noRanges bool
	}{"json": {}, "html": {html: true}, "no ranges": {noRanges: true}} {
		t.Run(name, func(t *testing.T) {
			index := pypitest.New(files...)
			index.NoMetadata, index.HTML, index.NoRanges = true, c.html, c.noRanges
			o := resolving(t, index, []string{"a"}, func(cfg *Config) { cfg.AssumeOld = true })
			snap, names, _ := o.resolve(t)
			if d := cmp.Diff([]string{"a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"}, names); d != "" {
				t.Fatal(d)
			}
			f := snap.Artifacts[0].Files[0]
			if o.store.Has(f.Digest) != c.noRanges {
				t.Errorf("the wheel is in the store: %v", !c.noRanges)
			}
			if err := o.fetchAll(t.Context(), snap); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMissingStatus: an index that says 403 of a project that it lacks ends the
// run, unless the configuration knows it.
func TestMissingStatus(t *testing.T) {
	index := pypitest.New(aged(pypitest.Requiring("a-2.0-py3-none-any.whl", "", "Requires-Dist: gone"), pypitest.Requiring("a-1.0-py3-none-any.whl", ""))...)
	barred := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/simple/gone/" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		index.ServeHTTP(w, r)
	})
	packages := func(c *Config) { c.Packages = []string{"a"} }
	_, _, err := newOutside(t, barred, nil, packages).Resolve(t.Context(), nil)
	if e, ok := errors.AsType[*fetch.Error](err); !ok || e.Status != http.StatusForbidden {
		t.Errorf("by default: %v", err)
	}
	known := func(c *Config) { c.MissingStatus = []int{http.StatusForbidden} }
	_, names, _ := newOutside(t, barred, nil, func(c *Config) { packages(c); known(c) }).resolve(t)
	if d := cmp.Diff([]string{"a-1.0-py3-none-any.whl"}, names); d != "" {
		t.Error(d)
	}
	_, _, err = newOutside(t, barred, map[string]string{"r.txt": "gone==1 --hash=sha256:" + hashA}, known).Resolve(t.Context(), nil)
	wantRefusal(t, err, artifact.ErrUnavailable, "PYPI-NOT-FOUND", "gone")
	// A pinned index has its own.
	o := newOutside(t, barred, nil, func(c *Config) {
		packages(c)
		c.Pinned = []PinnedIndex{{Projects: []string{"gone"}, Index: c.Index, MissingStatus: []int{http.StatusForbidden}}}
	})
	if _, names, _ = o.resolve(t); len(names) != 1 {
		t.Errorf("pinned: %q", names)
	}
}

// TestMetadataLost: METADATA that the index names and does not have is read out
// of the wheel, and has to be the one that was named.
func TestMetadataLost(t *testing.T) {
	files := aged(pypitest.Requiring("a-1.0-py3-none-any.whl", "", "Requires-Dist: b"), pypitest.Requiring("b-1.0-py3-none-any.whl", ""))
	for name, c := range map[string]struct {
		noRanges bool
		status   int // in place of 404
	}{"ranges": {}, "no ranges": {noRanges: true}, "barred": {status: http.StatusForbidden}} {
		t.Run(name, func(t *testing.T) {
			index := pypitest.New(files...)
			index.LostMetadata, index.NoRanges = true, c.noRanges
			var handler http.Handler = index
			if c.status != 0 {
				handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, ".metadata") {
						w.WriteHeader(c.status)
						return
					}
					index.ServeHTTP(w, r)
				})
			}
			o := newOutside(t, handler, nil, func(cfg *Config) { cfg.Packages = []string{"a"} })
			snap, names, notes := o.resolve(t)
			if d := cmp.Diff([]string{"a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"}, names); d != "" {
				t.Fatal(d)
			}
			if text := strings.Join(notes, "\n"); !strings.Contains(text, "that of a-1.0-py3-none-any.whl first of 2") {
				t.Errorf("notes: %s", text)
			}
			if err := o.fetchAll(t.Context(), snap); err != nil {
				t.Error(err)
			}
		})
	}
	lying := aged(pypitest.Requiring("a-1.0-py3-none-any.whl", ""))
	lying[0].Metadata = append(lying[0].Metadata, '\n')
	index := pypitest.New(lying...)
	index.LostMetadata = true
	resolving(t, index, []string{"a"}, nil).refused(t, "PYPI-METADATA-MISMATCH", "a-1.0-py3-none-any.whl")
}

// entriesOf is what Requiring put into a wheel, without RECORD.
func entriesOf(t *testing.T, f pypitest.File) []pypitest.Entry {
	t.Helper()
	stem := strings.Join(strings.Split(f.Name, "-")[:2], "-") + ".dist-info/"
	return []pypitest.Entry{
		{Name: stem + "METADATA", Body: string(f.Metadata)},
		{Name: stem + "WHEEL", Body: "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	}
}

func TestMetadataThatLies(t *testing.T) {
	lying := pypitest.Requiring("a-1.0-py3-none-any.whl", "")
	lying.Metadata = []byte("Metadata-Version: 2.1\nName: a\nVersion: 1.0\nRequires-Dist: b\n")
	o := resolving(t, pypitest.New(aged(lying, pypitest.Requiring("b-1.0-py3-none-any.whl", ""))...), []string{"a"}, nil)
	snap, _, _ := o.resolve(t)
	if err := o.fetchAll(t.Context(), snap); err == nil || !strings.Contains(err.Error(), "PYPI-METADATA") {
		t.Errorf("a wheel whose METADATA is another than was resolved with: %v", err)
	}
	other := pypitest.Requiring("a-1.0-py3-none-any.whl", "")
	other.Metadata = []byte("Metadata-Version: 2.1\nName: b\nVersion: 1.0\n")
	resolving(t, pypitest.New(aged(other)...), []string{"a"}, nil).refused(t, "PYPI-METADATA", "of another project")
}

func TestMinAge(t *testing.T) {
	now := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	at := func(f pypitest.File, age time.Duration) pypitest.File {
		f.UploadTime = now.Add(-age).Format(time.RFC3339Nano)
		return f
	}
	const day = 24 * time.Hour
	old, young := pypitest.Requiring("a-1.0-py3-none-any.whl", ""), pypitest.Requiring("a-2.0-py3-none-any.whl", "")
	unknown := pypitest.Requiring("a-3.0-py3-none-any.whl", "")
	week, none := 7*day, time.Duration(0)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"fourteen days": {nil, "a-1.0-py3-none-any.whl"},
		"seven":         {func(c *Config) { c.MinAge = &week }, "a-2.0-py3-none-any.whl"},
		"none":          {func(c *Config) { c.MinAge = &none }, "a-3.0-py3-none-any.whl"},
		"unknown":       {func(c *Config) { c.AssumeOld = true }, "a-3.0-py3-none-any.whl"},
		"any age":       {func(c *Config) { c.AnyAge = []string{"a*"} }, "a-3.0-py3-none-any.whl"},
	} {
		t.Run(name, func(t *testing.T) {
			o := resolving(t, pypitest.New(at(old, 14*day+time.Hour), at(young, 10*day), unknown), []string{"a"}, c.change)
			o.now = func() time.Time { return now }
			if _, names, _ := o.resolve(t); !slices.Equal(names, []string{c.want}) {
				t.Errorf("got %v, want %s", names, c.want)
			}
		})
	}
	o := resolving(t, pypitest.New(at(young, day), unknown), []string{"a"}, nil)
	o.now = func() time.Time { return now }
	o.refused(t, "PYPI-CONFLICT", "packages[0] requires a", "1 newer than 14 days", "1 without an upload time")
}

func TestPinnedIndex(t *testing.T) {
	cuda := pypitest.New(aged(pypitest.Requiring("torch-2.0+cu130-cp312-cp312-manylinux_2_28_x86_64.whl", "", "Requires-Dist: numpy", "Requires-Dist: acme-core"))...)
	cuda.HTML = true
	srv := httptest.NewServer(cuda)
	t.Cleanup(srv.Close)
	main := pypitest.New(aged(pypitest.Requiring("torch-9.0-py3-none-any.whl", ""), pypitest.Requiring("numpy-1.0-py3-none-any.whl", ""), pypitest.Requiring("acme_core-1.0-py3-none-any.whl", ""))...)
	change := func(c *Config) {
		c.Pinned = []PinnedIndex{{Projects: []string{"torch", "nvidia-*"}, Index: srv.URL + "/simple/", AssumeOld: true}}
	}
	o := resolving(t, main, []string{"torch"}, change)
	snap, names, _ := o.resolve(t)
	if d := cmp.Diff([]string{"acme_core-1.0-py3-none-any.whl", "numpy-1.0-py3-none-any.whl", "torch-2.0+cu130-cp312-cp312-manylinux_2_28_x86_64.whl"}, names); d != "" {
		t.Error(d)
	}
	if err := o.fetchAll(t.Context(), snap); err != nil {
		t.Error(err)
	}
	if main.Count("GET /simple/torch") != 0 || cuda.Count("GET /simple/numpy") != 0 || cuda.Count("GET /simple/torch") != 1 {
		t.Errorf("asked the wrong index: %q and %q", main.Requests(), cuda.Requests())
	}
	reserved := resolving(t, main, []string{"torch"}, func(c *Config) {
		change(c)
		c.Internal = []string{"acme-*"}
	})
	before := main.Count("GET /simple/acme")
	reserved.refused(t, "PYPI-CONFLICT", "torch 2.0+cu130 requires acme-core", "acme-core: the name is reserved as internal")
	if main.Count("GET /simple/acme") != before {
		t.Error("a reserved name was asked for outside")
	}
}

func TestSdistInClosure(t *testing.T) {
	static := aged(
		pypitest.Sdist("a-1.0.tar.gz", "Requires-Dist: b"), pypitest.Requiring("b-1.0-py3-none-any.whl", ""),
		pypitest.Requiring("setuptools-80.0-py3-none-any.whl", "", "Requires-Dist: vendored"), pypitest.Requiring("vendored-1.0-py3-none-any.whl", ""),
		withFile(pypitest.Sdist("c-1.0.tar.gz"), "pyproject.toml", "[build-system]\nrequires = ['maker>=1 ; os_name == \"posix\"', 'other ; os_name == \"nt\"']\n"),
		pypitest.Sdist("maker-1.0.tar.gz"),
	)
	o := resolving(t, pypitest.New(static...), []string{"a"}, func(c *Config) { c.AllowSdistOf = []string{"a"} })
	_, names, notes := o.resolve(t)
	if d := cmp.Diff([]string{"a-1.0.tar.gz", "b-1.0-py3-none-any.whl", "setuptools-80.0-py3-none-any.whl", "vendored-1.0-py3-none-any.whl"}, names); d != "" {
		t.Error(d)
	}
	if !slices.ContainsFunc(notes, func(n string) bool {
		return strings.HasPrefix(n, "the build of a 1.0: 2 packages for "+linux312+"; a build may ask for more")
	}) {
		t.Errorf("notes: %q", notes)
	}
	// What a build needs may have to be built as well.
	chain := resolving(t, pypitest.New(static...), []string{"c"}, func(c *Config) { c.AllowSdist = true })
	snap, names, _ := chain.resolve(t)
	if d := cmp.Diff([]string{"c-1.0.tar.gz", "maker-1.0.tar.gz", "setuptools-80.0-py3-none-any.whl", "vendored-1.0-py3-none-any.whl"}, names); d != "" {
		t.Error(d)
	}
	if snap.Artifacts[1].Name != "maker" || snap.Artifacts[1].Why != "the build of c 1.0" {
		t.Errorf("%+v", snap.Artifacts[1])
	}
	resolving(t, pypitest.New(static...), []string{"a"}, nil).refused(t, "PYPI-CONFLICT", "1 only as a source archive")
	dynamic := aged(pypitest.Sdist("a-1.0.tar.gz", "Dynamic: Requires-Dist"))
	resolving(t, pypitest.New(dynamic...), []string{"a"}, func(c *Config) { c.AllowSdist = true }).
		refused(t, "PYPI-CONFLICT", "a 1.0 cannot be used: a source archive whose requirements are known only to its build")
}

// withFile adds a file to a source archive's top folder.
func withFile(f pypitest.File, name, body string) pypitest.File {
	stem := strings.TrimSuffix(f.Name, ".tar.gz")
	project, version, _ := strings.Cut(stem, "-")
	f.Body = pypitest.TarGz(
		pypitest.Entry{Name: stem + "/PKG-INFO", Body: "Metadata-Version: 2.2\nName: " + project + "\nVersion: " + version + "\n"},
		pypitest.Entry{Name: stem + "/" + name, Body: body},
	)
	return f
}

func TestConflict(t *testing.T) {
	index := pypitest.New(aged(
		pypitest.Requiring("a-1.0-py3-none-any.whl", "", "Requires-Dist: c<2"), pypitest.Requiring("b-1.0-py3-none-any.whl", "", "Requires-Dist: c>=2"),
		pypitest.Requiring("c-1.0-py3-none-any.whl", ""), pypitest.Requiring("c-2.0-py3-none-any.whl", ""),
	)...)
	resolving(t, index, []string{"a", "b"}, nil).refused(t, "PYPI-CONFLICT", linux312, "packages[0] requires a", "a 1.0 requires c<2", "b 1.0 requires c>=2")
	index.Status["c"] = "quarantined"
	resolving(t, index, []string{"a"}, nil).refused(t, "PYPI-CONFLICT", "c: the index has put it into quarantine")
	resolving(t, index, []string{"gone"}, nil).refused(t, "PYPI-CONFLICT", "gone: the index does not have it")
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(down.Close)
	o := resolving(t, index, []string{"a"}, func(c *Config) { c.Index = down.URL })
	if _, _, err := o.Resolve(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("an index that refuses: %v", err)
	}
}

func TestCatalogue(t *testing.T) {
	index := pypitest.New(aged(
		pypitest.Requiring("a-1.0-py3-none-any.whl", "", "Requires-Dist: gone"), pypitest.Requiring("a-2.0-py3-none-any.whl", ""),
		pypitest.Requiring("a-3.0-cp311-cp311-win_amd64.whl", ""), pypitest.Requiring("a-4.0-cp27-none-win32.whl", ""), yanked(pypitest.Requiring("a-5.0-py3-none-any.whl", ""), ""),
	)...)
	both := func(c *Config) { c.Catalogue, c.Targets = []string{"a: newest 2"}, []string{linux312, win311} }
	_, names, notes := resolving(t, index, nil, both).resolve(t)
	if d := cmp.Diff([]string{"a-1.0-py3-none-any.whl", "a-2.0-py3-none-any.whl", "a-3.0-cp311-cp311-win_amd64.whl"}, names); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"catalogue[0]: 2 versions of a for " + win311, "catalogue[0]: 2 versions of a for " + linux312}, notes); d != "" {
		t.Error(d)
	}
	resolving(t, index, nil, func(c *Config) { c.Catalogue = []string{"a: >=4"} }).refused(t, "PYPI-LOCK-CATALOGUE", "a: >=4: no version that any target can use")
}

// TestFirstUse: a file without a hash gets one when it is fetched first, and
// keeps it.
func TestFirstUse(t *testing.T) {
	bare := func(f pypitest.File) pypitest.File {
		f.NoHash = true
		return f
	}
	index := pypitest.New(aged(bare(pypitest.Requiring("a-1.0-py3-none-any.whl", "", "Requires-Dist: b")), bare(pypitest.Requiring("a-2.0-py3-none-any.whl", "")), pypitest.Requiring("b-1.0-py3-none-any.whl", ""))...)
	index.NoMetadata = true
	resolving(t, index, []string{"a<2"}, nil).refused(t, "PYPI-CONFLICT", "a: 2 of its 2 versions do not count: 2 without a sha256 on the index")
	o := resolving(t, index, []string{"a<2"}, func(c *Config) { c.MissingHash = hashRecord })
	snap, names, _ := o.resolve(t)
	if d := cmp.Diff([]string{"a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"}, names); d != "" {
		t.Fatal(d)
	}
	if f := snap.Artifacts[0].Files[0]; !o.store.Has(f.Digest) || f.Size == 0 {
		t.Errorf("%+v is not in the store", f)
	}
	if index.Count("GET /files/a-2.0") != 0 {
		t.Error("a file that nobody wants was fetched")
	}
	if err := o.fetchAll(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	// The next run holds the index to the same bytes.
	before := index.Count("GET /files/a-1.0")
	again, _, err := o.Resolve(t.Context(), snap)
	if err != nil || index.Count("GET /files/a-1.0") > before+1 {
		t.Fatalf("%v; asked %d times", err, index.Count("GET /files/a-1.0")-before)
	}
	if d := cmp.Diff(snap, again); d != "" {
		t.Error(d)
	}
	// Also when the run between them did not want the file: its snapshot lacks it.
	before = index.Count("GET /files/a-1.0")
	if again, _, err = o.Resolve(t.Context(), nil); err != nil || index.Count("GET /files/a-1.0") > before+1 {
		t.Fatalf("%v; asked %d times", err, index.Count("GET /files/a-1.0")-before)
	}
	if d := cmp.Diff(snap, again); d != "" {
		t.Error(d)
	}
	changed := bare(pypitest.Requiring("a-1.0-py3-none-any.whl", "", "Requires-Dist: b", "Summary: other"))
	o2 := resolving(t, pypitest.New(aged(changed, pypitest.Requiring("b-1.0-py3-none-any.whl", ""))...), []string{"a<2"}, func(c *Config) { c.MissingHash = hashRecord })
	next, _, err := o2.Resolve(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	if err := o2.fetchAll(t.Context(), next); !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("another file under the same name: %v", err)
	}
}
