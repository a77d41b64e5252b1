package packaging

import (
	"slices"
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
		again, err := ParseSpecifiers(set.normal().String())
		if err != nil || again.Contains(v) != all || again.NamesPrerelease() != set.NamesPrerelease() {
			t.Fatalf("%q: normal form %q: %v", s, set.normal(), err)
		}
	})
}

// FuzzRequirement: never panics; what is written is read again as the same.
func FuzzRequirement(f *testing.F) {
	seed(f, `a[b,c]>=1,<2 ; python_version < "3" and (os_name == 'nt' or extra == "x")`, "a @ https://files.example/x ; os_name == 'nt'",
		"a ; 'x' in extras", "a (>1) ; '3' in python_version", "a ; platform_release >= '5' or "+strings.Repeat("(", 33), "a===b,>=\n1 ;os.name=='\\x41\\''", "a @ u;x\t; extra=='A_b'")
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
		again, err := ParseRequirement(r.String())
		if err != nil || again.String() != r.String() {
			t.Fatalf("%q: %q becomes %q: %v", s, r, again, err)
		}
		if again.Marker.Eval(&target.Env) != r.Marker.Eval(&target.Env) || again.Marker.Holds(&target.Env, r.Extras) != r.Marker.Holds(&target.Env, r.Extras) {
			t.Fatalf("%q: marker %q", s, r.Marker)
		}
	})
}

// FuzzMarker: what is decided without knowing the machine and the extras is
// decided so with them.
func FuzzMarker(f *testing.F) {
	seed(f, "os_name == 'nt' or platform_release > '5'", "'a' in extras and 'b' not in dependency_groups", "os_name < sys_platform", "'x' != extras", `platform_version == "\N{DASH}"`,
		`'\u0041\101\x41' === python_version`, "python_full_version ~= '3.12.0'", "((os_name == 'a')or(extra=='x'))and python_version in '3.12'")
	target, err := ParseTarget("cp312-manylinux_2_28_x86_64")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMarker(s)
		if err != nil {
			return
		}
		again, err := ParseMarker(m.Normal())
		if err != nil || again.Normal() != m.Normal() {
			t.Fatalf("%q: normal form %q becomes %q: %v", s, m.Normal(), again.Normal(), err)
		}
		known := target.Env
		known.PlatformRelease, known.PlatformVersion = "6.1", "#1"
		if got := m.Eval(&target.Env); got != Maybe && truth(m.Holds(&known, nil)) != got {
			t.Fatalf("%q: %v, but with all known %v", s, got, m.Holds(&known, nil))
		}
	})
}

// FuzzFilter: Filter keeps the order, and keeps what the rule says.
func FuzzFilter(f *testing.F) {
	seed(f, ">=1\x001.0 2.0a1 3", "\x002a1 1.dev0", ">=1a1,!=2\x001a1 2 3rc1", "===1\x001 1.0")
	f.Fuzz(func(t *testing.T, s string) {
		spec, list, _ := strings.Cut(s, "\x00")
		set, err := ParseSpecifiers(spec)
		if err != nil {
			return
		}
		var all, finals []string
		var versions []Version
		for text := range strings.FieldsSeq(list) {
			v, err := ParseVersion(text)
			if err != nil {
				return
			}
			versions = append(versions, v)
			if set.Contains(v) {
				all = append(all, v.Text())
				if !v.IsPrerelease() {
					finals = append(finals, v.Text())
				}
			}
		}
		byDefault := all
		if len(finals) > 0 && !set.NamesPrerelease() {
			byDefault = finals
		}
		for i, want := range [][]string{byDefault, all, finals} {
			var got []string
			for _, v := range set.Filter(versions, policies[i]) {
				got = append(got, v.Text())
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q, policy %d: got %q, want %q", s, i, got, want)
			}
		}
	})
}

// FuzzDescription: never panics; a target has an order of tags and an
// environment that is whole.
func FuzzDescription(f *testing.F) {
	seed(f, "3.12.1\n\nmanylinux_2_28_x86_64\n\n", "3.10.14\npypy310_pp73\nmacosx_14_0_arm64\nos_name=posix\n", "\n\n\npython_full_version=3.12.0\npy3-none-any", "3.13.0\ncp313t\nwin_arm64\nplatform_release=1\ncp313-cp313t-win_arm64")
	f.Fuzz(func(t *testing.T, s string) {
		part := strings.Split(s, "\n")
		if len(part) < 5 {
			return
		}
		d := Description{Python: part[0], ABI: part[1], Platform: part[2], Markers: make(map[string]string), Tags: strings.Fields(part[4])}
		if strings.HasPrefix(d.ABI, "pypy") {
			d.Implementation, d.ImplementationVersion = "pp", "7.3"
		}
		if name, value, ok := strings.Cut(part[3], "="); ok {
			d.Markers[name] = value
		}
		target, err := d.Target()
		if err != nil {
			return
		}
		if target.Python.IsZero() || target.Env.PythonVersion == "" || target.Env.OSName == "" || target.Env.ImplementationVersion == "" || len(target.Tags()) == 0 || len(target.Tags()) > maxTags {
			t.Fatalf("%q: %+v", s, target)
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
	seed(f, []byte("Metadata-Version: 2.4\nName: foo\nVersion: 1.0\nRequires-Python: >=3\nDescription: a\n b\n\nbody"), []byte("\ufeffName:x\r\nVersion:1\r\n\r\n"), []byte(" x\n"), []byte("Name: a\nName: b"),
		[]byte("Metadata-Version: 2.2\nName: a\nVersion: 1\nRequires-Dist: b[c]>1;\n extra=='D_e'\nRequires-Dist: ?\nProvides-Extra: D_e\nDynamic: Requires-Dist\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMetadata(b)
		if err != nil {
			return
		}
		if n, err := NormalizeName(m.Name); err != nil || n != m.Name || m.Version.IsZero() {
			t.Fatalf("%+v", m)
		}
		for _, line := range m.Malformed {
			if len(line) > 200 {
				t.Fatalf("a malformed line of %d bytes", len(line))
			}
		}
		for _, r := range m.Requires {
			if _, err := ParseRequirement(r.String()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
