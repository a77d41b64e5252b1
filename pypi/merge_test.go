package pypi

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// site is a folder of a site's own packages and what is published of it.
type site struct {
	*inside
	folder string
}

func newSite(t *testing.T, files ...pypitest.File) *site {
	t.Helper()
	s := &site{inside: newInside(t, nil, nil), folder: t.TempDir()}
	s.pub.hide = true
	s.put(t, files...)
	s.publishFolder(t)
	return s
}

func (s *site) put(t *testing.T, files ...pypitest.File) {
	t.Helper()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(s.folder, f.Name), f.Body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *site) publishFolder(t *testing.T) {
	t.Helper()
	if _, err := s.pub.PublishFolder(t.Context(), s.folder, time.Now()); err != nil {
		t.Fatal(err)
	}
}

func newMerged(t *testing.T, local, imported []*inside, reserved ...string) *Handler {
	t.Helper()
	handlers := func(of []*inside) []*Handler {
		var out []*Handler
		for _, in := range of {
			out = append(out, NewHandler(in.dir, in.store, nil))
		}
		return out
	}
	h, err := NewMerged(handlers(local), handlers(imported), reserved, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The site's own name hides the imported one whole: its page, every file, in
// both shapes. Other names are served.
func TestMergedShadows(t *testing.T) {
	outside := newInside(t, sample(), nil) // baz and foo-bar
	outside.publish(t, 1)
	own := pypitest.Wheel("baz-0.1-py3-none-any.whl", "")
	local := newSite(t, own)
	h := newMerged(t, []*inside{local.inside}, []*inside{outside})
	if w := do(t, h, "/simple/", "Accept", typeJSON); w.Body.String() != `{"meta":{"api-version":"1.4"},"projects":[{"name":"baz"},{"name":"foo-bar"}]}` {
		t.Error(w.Body.String())
	}
	w := do(t, h, "/simple/baz/", "Accept", typeJSON)
	if !strings.Contains(w.Body.String(), own.Name) || strings.Contains(w.Body.String(), "baz-2.0") {
		t.Error(w.Body.String())
	}
	hidden := sample()[2]
	for _, path := range []string{packagesPath(hidden), "files/" + hidden.SHA256() + "/" + hidden.Name} {
		if w := do(t, h, "/"+path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, f := range []pypitest.File{own, sample()[0], sample()[1]} {
		if w := do(t, h, "/"+packagesPath(f)); w.Body.String() != string(f.Body) {
			t.Errorf("%s: %d", f.Name, w.Code)
		}
	}
	// The site gives the name up: the imported one is back.
	if err := os.Remove(filepath.Join(local.folder, own.Name)); err != nil {
		t.Fatal(err)
	}
	local.publishFolder(t)
	if w := do(t, h, "/"+packagesPath(hidden)); w.Code != http.StatusOK {
		t.Errorf("given up: %d", w.Code)
	}
}

// Reserved names never come from outside, whether the site has them or not.
func TestMergedReserved(t *testing.T) {
	outside := newInside(t, sample(), nil)
	outside.publish(t, 1)
	own := pypitest.Wheel("foo_baz-1.0-py3-none-any.whl", "")
	local := newSite(t, own)
	h := newMerged(t, []*inside{local.inside}, []*inside{outside}, "foo-*")
	for _, path := range []string{"/simple/foo-bar/", "/simple/Foo_Bar", "/" + packagesPath(sample()[0]), "/files/" + sample()[1].SHA256() + "/" + sample()[1].Name} {
		if w := do(t, h, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/simple/foo-baz/", "/" + packagesPath(own), "/simple/baz/"} {
		if w := do(t, h, path); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// The first of two imported indexes wins whole, as the order says.
func TestMergedOrder(t *testing.T) {
	one, two := pypitest.Wheel("torch-1.0-py3-none-any.whl", ""), pypitest.Wheel("torch-2.0-py3-none-any.whl", "")
	var ins []*inside
	for _, f := range []pypitest.File{one, two} {
		in := newInside(t, []pypitest.File{f}, nil)
		in.publish(t, 1)
		ins = append(ins, in)
	}
	for range 2 {
		h := newMerged(t, nil, ins)
		w := do(t, h, "/simple/torch/", "Accept", typeJSON)
		if !strings.Contains(w.Body.String(), one.Name) || strings.Contains(w.Body.String(), two.Name) {
			t.Error(w.Body.String())
		}
		slices.Reverse(ins)
		one, two = two, one
	}
}

// While the site's own index cannot be read, nothing is served: its names
// would come from outside.
func TestMergedFailsClosed(t *testing.T) {
	outside := newInside(t, sample(), nil)
	outside.publish(t, 1)
	local := newInside(t, nil, nil) // never published
	h := newMerged(t, []*inside{local}, []*inside{outside})
	if w := do(t, h, "/simple/baz/"); w.Code != http.StatusInternalServerError {
		t.Errorf("never published: %d", w.Code)
	}
	if err := os.WriteFile(filepath.Join(local.dir, currentName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := do(t, h, "/simple/baz/"); w.Code != http.StatusInternalServerError {
		t.Errorf("damaged: %d", w.Code)
	}
	local.publish(t, 1)
	if w := do(t, h, "/simple/baz/"); w.Code != http.StatusOK {
		t.Errorf("published: %d", w.Code)
	}
	// Damaged later, the old one goes on.
	if err := os.WriteFile(filepath.Join(local.dir, currentName), []byte("{} "), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := do(t, h, "/simple/baz/"); w.Code != http.StatusOK {
		t.Errorf("damaged later: %d", w.Code)
	}
	if _, err := NewMerged(nil, nil, nil, nil); err == nil {
		t.Error("no index was accepted")
	}
	if _, err := NewMerged(nil, []*Handler{NewHandler(local.dir, local.store, nil)}, []string{"Foo_Bar"}, nil); err == nil {
		t.Error("a name that no project has was accepted")
	}
}

// The serial never shrinks, though a project changes hands.
func TestMergedSerial(t *testing.T) {
	outside := newInside(t, sample(), nil)
	outside.publish(t, 70)
	local := newSite(t)
	h := newMerged(t, []*inside{local.inside}, []*inside{outside})
	last := uint64(0)
	for i := range 4 {
		if i == 2 {
			outside.load(t, sample()[1:], nil)
			outside.publish(t, 71)
		} else {
			local.put(t, pypitest.Wheel(fmt.Sprintf("baz-%d.0-py3-none-any.whl", i), ""))
			local.publishFolder(t)
		}
		n, err := strconv.ParseUint(do(t, h, "/simple/baz/").Header().Get("X-PyPI-Last-Serial"), 10, 64)
		if err != nil || n <= last {
			t.Errorf("%d after %d, %v", n, last, err)
		}
		last = n
	}
}

func TestPublishFolder(t *testing.T) {
	wheel, sdist := pypitest.Wheel("own_pkg-1.0-py3-none-any.whl", ">=3.9"), pypitest.Sdist("own_pkg-0.9.tar.gz")
	s := newSite(t, wheel)
	sub := filepath.Join(s.folder, "sub", ".hidden")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"sub/" + sdist.Name: sdist.Body, "README.txt": []byte("x"), ".tmp.whl": []byte("x"), "sub/.hidden/x-1.0-py3-none-any.whl": []byte("x"),
	} {
		if err := os.WriteFile(filepath.Join(s.folder, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A link out of the folder is not followed.
	if err := os.Symlink("/etc/hostname", filepath.Join(s.folder, "evil-1.0-py3-none-any.whl")); err != nil {
		t.Fatal(err)
	}
	s.publishFolder(t)
	h := NewHandler(s.dir, s.store, nil)
	w := do(t, h, "/simple/own-pkg/", "Accept", typeJSON)
	for _, want := range []string{wheel.Name, sdist.Name, `"requires-python":"\u003e=3.9"`, `"core-metadata"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is missing: %s", want, w.Body.String())
		}
	}
	if w := do(t, h, "/simple/", "Accept", typeJSON); strings.Count(w.Body.String(), `"name"`) != 1 {
		t.Error(w.Body.String())
	}
	for _, f := range []pypitest.File{wheel, sdist} {
		if w := do(t, h, "/"+packagesPath(f)); w.Body.String() != string(f.Body) {
			t.Errorf("%s: %d", f.Name, w.Code)
		}
	}
	before, err := os.ReadFile(filepath.Join(s.dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	s.publishFolder(t)
	if after, err := os.ReadFile(filepath.Join(s.dir, currentName)); err != nil || string(after) != string(before) {
		t.Errorf("publishing again changed something: %v", err)
	}
	// Anything wrong changes nothing.
	for name, b := range map[string][]byte{
		"bad-1.0-py3-none-any.whl": []byte("PK"), "noname.whl": wheel.Body, "sub/" + wheel.Name: wheel.Body,
		wheel.Name: pypitest.Wheel(wheel.Name, ">=3.10").Body,
	} {
		at := filepath.Join(s.folder, name)
		was, rerr := os.ReadFile(at)
		if err := os.WriteFile(at, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if text, err := s.pub.PublishFolder(t.Context(), s.folder, time.Now()); err == nil || text != "" {
			t.Errorf("%s: accepted: %q", name, text)
		} else if name == wheel.Name && !errors.Is(err, artifact.ErrIntegrity) {
			t.Errorf("other bytes: %v", err)
		}
		if rerr == nil {
			err = os.WriteFile(at, was, 0o600)
		} else {
			err = os.Remove(at)
		}
		if err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(filepath.Join(s.dir, currentName)); err != nil || string(after) != string(before) {
			t.Errorf("%s: the publication changed: %v", name, err)
		}
	}
}
