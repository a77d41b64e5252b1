package packaging

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func versionsOf(t testing.TB, s string) []Version {
	t.Helper()
	var out []Version
	for text := range strings.FieldsSeq(s) {
		v, err := ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		spec, in string
		want     [3]string // by default, allowed, refused
	}{
		{"", "1.0 2.0a1", [3]string{"1.0", "1.0 2.0a1", "1.0"}},
		{"", "2.0a1 1.0.dev1", [3]string{"2.0a1 1.0.dev1", "2.0a1 1.0.dev1", ""}},
		{">=1", "2.0a1 1.0 1.5b1 3.0", [3]string{"1.0 3.0", "2.0a1 1.0 1.5b1 3.0", "1.0 3.0"}},
		{">=2.0a1", "2.0a1 1.0 3.0", [3]string{"2.0a1 3.0", "2.0a1 3.0", "3.0"}},
		{">=2", "1.0 2.0a1 2.1rc1", [3]string{"2.1rc1", "2.1rc1", ""}},
		{">=1,!=1.5a1", "1.5a1 1.6a1 1.0", [3]string{"1.0", "1.6a1 1.0", "1.0"}},
		{"===1.5A1", "1.5a1 1.0", [3]string{"1.5a1", "1.5a1", ""}},
		{">9", "1.0", [3]string{}},
	} {
		set, err := ParseSpecifiers(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		for i, pre := range policies {
			var got []string
			for _, v := range set.Filter(versionsOf(t, c.in), pre) {
				got = append(got, v.Text())
			}
			if strings.Join(got, " ") != c.want[i] {
				t.Errorf("%q of %q, policy %d: got %q, want %q", c.spec, c.in, pre, got, c.want[i])
			}
		}
	}
}

func TestHolds(t *testing.T) {
	env := mustTarget(t, "cp312-manylinux_2_28_x86_64").Env
	env.Extra = "ignored"
	for _, c := range []struct {
		marker, extras string
		want           bool
	}{
		{"", "", true},
		{"extra == 'a'", "", false},
		{"extra == 'A_b'", "a.B", true},
		{"extra == 'b'", "a b", true},
		{"extra == 'a' and extra == 'b'", "a b", false}, // one extra at a time
		{"'a' in extras and 'b' in extras", "a b", true},
		{"extra != 'a'", "a b", true},
		{"extra == ''", "", true},
		{"os_name == 'nt' or extra == 'x'", "x", true},
		{"'x' in dependency_groups", "x", false},
		{"platform_release == ''", "", true},
		{"platform_version != ''", "", false},
		{"extra == 'ignored'", "", false},
	} {
		var m Marker
		if c.marker != "" {
			var err error
			if m, err = ParseMarker(c.marker); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Holds(&env, strings.Fields(c.extras)); got != c.want {
			t.Errorf("%q with %q: got %v", c.marker, c.extras, got)
		}
	}
}

func TestRequirementString(t *testing.T) {
	for in, want := range map[string]string{
		"A.B_c":                     "a-b-c",
		"a [z, Y_y,z] >= 1, == 2":   "a[y-y,z]==2,>=1",
		"a (==1.0,==1.0.0)":         "a==1.0",
		"a@ https://x.example/a":    "a @ https://x.example/a",
		"a[b] @ u;c ; os_name=='x'": `a[b] @ u;c ; os_name == "x"`,
		`a;os.name=='"' or (python_version<'3')and((extra=='B_c' or "x" in extras))`: `a; os_name == '"' or python_version < "3" and (extra == "b-c" or "x" in extras)`,
		`a;os_name=='\'or os_name == 'x\\'`:                                          "",
		`a;os_name=='tab\tend\\'`:                                                    `a; os_name == "tab\x09end\x5c"`,
		"a===1.0;os_name=='x'":                                                       `a===1.0; os_name == "x"`,
	} {
		r, err := ParseRequirement(in)
		if (err != nil) != (want == "") {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if err == nil && r.String() != want {
			t.Errorf("%q: got %s, want %s", in, r, want)
		}
	}
}

// numpyLike is as many versions as the largest projects have.
func numpyLike(b *testing.B) []Version {
	b.Helper()
	var texts []string
	for i := range 5000 {
		texts = append(texts, fmt.Sprintf("%d.%d.%d%s", i%7, i%31, i%13, []string{"", "rc1", ".post1", ".dev20260101", "a2"}[i%5]))
	}
	return versionsOf(b, strings.Join(texts, " "))
}

func BenchmarkParseVersion(b *testing.B) {
	for _, s := range []string{"1.26.4", "2.0.0rc1", "2.11.0+cu130"} {
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseVersion(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSort(b *testing.B) {
	list := numpyLike(b)
	b.ReportAllocs()
	for b.Loop() {
		slices.SortFunc(slices.Clone(list), Version.Compare)
	}
}

func BenchmarkContains(b *testing.B) {
	list := numpyLike(b)
	set, err := ParseSpecifiers(">=1.22.4,<5,!=2.3.*,~=3.1,>3.2")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range list {
			set.Contains(list[i])
		}
	}
}

func BenchmarkHolds(b *testing.B) {
	target, err := ParseTarget("cp312-manylinux_2_28_x86_64")
	if err != nil {
		b.Fatal(err)
	}
	m, err := ParseMarker(`python_version >= "3.9" and (sys_platform == "win32" or extra == "test")`)
	if err != nil {
		b.Fatal(err)
	}
	extras := []string{"dev", "test"}
	b.ReportAllocs()
	for b.Loop() {
		m.Holds(&target.Env, extras)
	}
}

// Comparing and asking do not allocate.
func TestAllocations(t *testing.T) {
	list := versionsOf(t, "1.0 1.0.post1 2.0rc1+local 3.1.4.dev5")
	set, err := ParseSpecifiers(">=1,<4,!=2.*,~=1.0,>0.9,<=3,==1.*")
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		for i := range list {
			list[i].Compare(list[(i+1)%len(list)])
			set.Contains(list[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
