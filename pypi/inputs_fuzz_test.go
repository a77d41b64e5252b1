package pypi

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// lockSeeds are the locks of a real uv, and some made by hand.
func lockSeeds(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "uv", "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{
		[]byte(uvHead + uvRoot(`dependencies = [{ name = "a", extra = ["x"], marker = "extra == 'extra-3-app-x'" }]`) + uvPackageText("a", "1", "[package.optional-dependencies]", `x = [{ name = "a" }]`)),
		[]byte(uvHead + "conflicts = [[{ package = \"app\", extra = \"x\" }, { package = \"app\" }]]\n" + uvRoot("[package.dev-dependencies]", "x = []")),
		[]byte(uvHead + "[manifest]\nmembers = [\"app\"]\nrequirements = [{ name = \"app\", specifier = \"<2\" }]\n" + uvRoot()),
	}
	for _, name := range files {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, p := range a.Files {
			if strings.HasSuffix(p.Name, ".lock") {
				seeds = append(seeds, p.Data)
			}
		}
	}
	return seeds
}

// FuzzUVLock: what is accepted can be read for any target, with the same
// answer twice, and a narrower choice never gives more.
func FuzzUVLock(f *testing.F) {
	seed(f, lockSeeds(f)...)
	target, err := packaging.ParseTarget("cp312-manylinux_2_28_x86_64")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseUVLock(b, "uv.lock")
		if err != nil {
			return
		}
		checkPins(t, l)
		all, err := l.forTarget(target)
		if err != nil {
			return
		}
		again, err := l.forTarget(target)
		if err != nil || !slices.Equal(all, again) {
			t.Fatalf("another answer: %v", err)
		}
		if err := l.Choose(Choice{Extras: []string{}, Groups: []string{}}); err != nil {
			t.Fatal(err)
		}
		few, err := l.forTarget(target)
		if err != nil {
			return // two versions that were open are certain now
		}
		for _, p := range few {
			if !slices.Contains(all, p) {
				t.Fatalf("%s %s is there only if less is chosen", p.Name, p.Version)
			}
		}
	})
}

// checkWants checks what every want must hold.
func checkWants(t *testing.T, r *Requirements) {
	t.Helper()
	for _, w := range append(slices.Clone(r.Wants), r.Constraints...) {
		if n, err := packaging.NormalizeName(w.Requirement.Name); err != nil || n != w.Requirement.Name || w.Requirement.URL != "" || w.Where == "" {
			t.Fatalf("%+v", w)
		}
		for _, d := range w.Hashes {
			if d.IsZero() {
				t.Fatalf("%+v", w)
			}
		}
	}
}

func FuzzPyproject(f *testing.F) {
	seed(f, []byte(pyprojectText), []byte("[dependency-groups]\na = [{include-group = \"b\"}, \"x>1\"]\nb = []"),
		[]byte("[project]\nname = \"x\"\ndependencies = [\"x[a]\"]\n[project.optional-dependencies]\na = [\"x[a]\", \"y\"]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parsePyproject(b, "pyproject.toml")
		if err != nil {
			return
		}
		checkWants(t, r)
		if err := r.Choose(Choice{Extras: []string{}, Groups: []string{}}); err != nil {
			t.Fatal(err)
		}
		for _, w := range r.Wants {
			if w.Extra != "" || w.Group != "" {
				t.Fatalf("%+v is chosen by nobody", w)
			}
		}
	})
}

// FuzzRewriteLock: rewriting again changes nothing; what is read of a lock
// stays the same.
func FuzzRewriteLock(f *testing.F) {
	for _, s := range lockSeeds(f) {
		f.Add("uv.lock", s)
	}
	f.Add("pylock.toml", []byte(pylockHead+"[[packages]]\nname = \"x\"\nversion = \"1\"\nindex = '''https://index.example/simple'''\nwheels = [{url = \"https://files.example/packages/x-1-py3-none-any.whl\", hashes = {sha256 = \""+hashA+"\"}}]\n"))
	f.Add("r.txt", []byte("-ihttps://index.example/simple # https://x\nfoo @ https://files.example/packages/x ; os_name == 'a'\\\n"))
	f.Add("r.txt", []byte("--find-links \"https://index.example/simple\"\u2028-f https://files.example/packages\r"))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		out, changes, err := RewriteLock(name, b, insidePrefixes)
		if err != nil {
			return
		}
		if len(changes) == 0 && !bytes.Equal(b, out) {
			t.Fatal("changed, but nothing is told")
		}
		again, more, err := RewriteLock(name, out, insidePrefixes)
		if err != nil || len(more) != 0 || !bytes.Equal(out, again) {
			t.Fatalf("again: %d changes, %v", len(more), err)
		}
		if kindOf(name) != kindUV {
			return
		}
		before, errBefore := parseUVLock(b, "uv.lock")
		after, errAfter := parseUVLock(out, "uv.lock")
		if (errBefore == nil) != (errAfter == nil) {
			t.Fatalf("read before: %v, after: %v", errBefore, errAfter)
		}
		if errBefore == nil && len(before.Pins) != len(after.Pins) {
			t.Fatalf("%d pins, now %d", len(before.Pins), len(after.Pins))
		}
	})
}

// FuzzCatalogue: what is chosen was offered, in order, and once.
func FuzzCatalogue(f *testing.F) {
	seed(f, "numpy: newest 3", "requests: all", `pip: ">=23"`, "x: newest 2 >=1,<2 prereleases")
	var versions []packaging.Version
	for _, s := range []string{"1", "1.0", "1.1rc1", "2+a", "2+b", "3.dev1"} {
		v, err := packaging.ParseVersion(s)
		if err != nil {
			f.Fatal(err)
		}
		versions = append(versions, v)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCatalogue(s)
		if err != nil {
			return
		}
		got := c.Choose(versions)
		if !slices.IsSortedFunc(got, packaging.Version.Compare) || len(got) > len(versions) || c.All && len(got) != len(versions) {
			t.Fatalf("%q: %v", s, got)
		}
		for _, v := range got {
			if !c.Specifiers.Contains(v) {
				t.Fatalf("%q chooses %s", s, v)
			}
		}
	})
}

// FuzzDecideMarker: a marker that is decided can be read, and says nothing
// else where no extra and no group is named.
func FuzzDecideMarker(f *testing.F) {
	seed(f, "extra == 'extra-3-app-x' or extra != 'y'", "'a' in extras and 'b' not in dependency_groups", `os_name == "extra == 'x'"`, "(extra=='x'and(os_name=='nt'))")
	target, err := packaging.ParseTarget("cp312-win_amd64")
	if err != nil {
		f.Fatal(err)
	}
	open := func(string, string) packaging.Truth { return packaging.Maybe }
	f.Fuzz(func(t *testing.T, s string) {
		m, err := packaging.ParseMarker(s)
		if err != nil {
			return
		}
		d, err := decideMarker(s, open)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if !namesChoice(s) && m.Eval(&target.Env) != d.Eval(&target.Env) {
			t.Fatalf("%q means something else", s)
		}
	})
}
