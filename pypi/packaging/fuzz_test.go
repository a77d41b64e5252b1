package packaging

import (
	"strings"
	"testing"
)

// seed adds the seeds and fails if there are none.
func seed[T string | []byte](f *testing.F, seeds ...T) {
	f.Helper()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
}

// FuzzVersion: the normal form is a version, equal to what was read, and
// stays as it is.
func FuzzVersion(f *testing.F) {
	seed(f, "1.0", "1!2.0rc1.post3.dev4+ubuntu-1", "v1.0-alpha.1", "2026.11.22-3", "1.0+a_b.05", "٢.0", "1.0\n")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVersion(s)
		if err != nil {
			return
		}
		w, err := ParseVersion(v.String())
		if err != nil || v.Compare(w) != 0 || w.String() != v.String() {
			t.Fatalf("%q: normal form %q: %v", s, v, err)
		}
		set, err := ParseSpecifiers("==" + v.String())
		if err != nil || !set.Contains(v) {
			t.Fatalf("%q is not equal to itself: %v", s, err)
		}
	})
}

func FuzzSpecifiers(f *testing.F) {
	seed(f, ">=1.0,<2", "~=1.4.5a4", "==1.*", "!=1.1+x", "===foo bar", ">1,,<=2.dev3")
	v, err := ParseVersion("1.4.5")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := ParseSpecifiers(s)
		if err != nil {
			return
		}
		all := true
		for _, c := range set {
			all = all && Specifiers{c}.Contains(v)
		}
		if all != set.Contains(v) {
			t.Fatalf("%q: the set and its clauses differ", s)
		}
	})
}

// FuzzRequirement: never panics; a marker that is read again says the same.
func FuzzRequirement(f *testing.F) {
	seed(f, `a[b,c]>=1,<2 ; python_version < "3" and (os_name == 'nt' or extra == "x")`, "a @ https://files.example/x ; os_name == 'nt'",
		"a ; 'x' in extras", "a (>1) ; '3' in python_version", "a ; platform_release >= '5' or "+strings.Repeat("(", 33))
	target, err := ParseTarget("cp312-manylinux_2_28_x86_64")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRequirement(s)
		if err != nil {
			return
		}
		if n, err := NormalizeName(r.Name); err != nil || n != r.Name {
			t.Fatalf("%q: name %q", s, r.Name)
		}
		if r.Marker.String() == "" {
			return
		}
		again, err := ParseMarker(r.Marker.String())
		if err != nil || again.Eval(&target.Env) != r.Marker.Eval(&target.Env) {
			t.Fatalf("%q: marker %q: %v", s, r.Marker, err)
		}
	})
}

// FuzzFilename: what is accepted is safe and in normal form.
func FuzzFilename(f *testing.F) {
	seed(f, "x-1.0-1a-py2.py3-none-any.whl", "X.y_z-1!2+l-cp312-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "foo-bar-1.0.tar.gz", "../x-1.0.zip", "con.zip", "x-1.0-py3-none-any.whl\x00")
	f.Fuzz(func(t *testing.T, s string) {
		project, v, err := ParseDistName(s)
		if err != nil {
			return
		}
		if err := CheckFilename(s); err != nil || strings.ContainsAny(s, "/\\\x00\n ") {
			t.Fatalf("%q accepted: %v", s, err)
		}
		if n, err := NormalizeName(project); err != nil || n != project || v.IsZero() {
			t.Fatalf("%q: %q %v", s, project, err)
		}
	})
}

func FuzzTarget(f *testing.F) {
	seed(f, "cp312-manylinux_2_28_x86_64", "cp313t-musllinux_1_2_aarch64@3.13.1", "cp39-macosx_10_15_x86_64", "cp311-win32", "cp399-macosx_99_99_arm64")
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseTarget(s)
		if err != nil {
			return
		}
		if len(target.Tags()) == 0 || len(target.Tags()) > 100_000 || target.Env.OSName == "" {
			t.Fatalf("%q: %d tags", s, len(target.Tags()))
		}
	})
}

func FuzzMetadata(f *testing.F) {
	seed(f, []byte("Metadata-Version: 2.4\nName: foo\nVersion: 1.0\nRequires-Python: >=3\nDescription: a\n b\n\nbody"), []byte("\ufeffName:x\r\nVersion:1\r\n\r\n"), []byte(" x\n"), []byte("Name: a\nName: b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMetadata(b)
		if err != nil {
			return
		}
		if n, err := NormalizeName(m.Name); err != nil || n != m.Name || m.Version.IsZero() {
			t.Fatalf("%+v", m)
		}
	})
}
