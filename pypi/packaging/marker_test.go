package packaging

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustTarget(t *testing.T, s string) *Target {
	t.Helper()
	target, err := ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// What a target cannot know is Maybe, and decides only where nothing else
// does.
func TestMarkerUnknown(t *testing.T) {
	env := &mustTarget(t, "cp312-manylinux_2_28_x86_64").Env
	for in, want := range map[string]Truth{
		`"dev" in extras`:                             Maybe,
		`"dev" not in dependency_groups`:              Maybe,
		`platform_release >= "5"`:                     Maybe,
		`platform_version == "x"`:                     Maybe,
		`os_name == "nt" and "dev" in extras`:         False,
		`os_name == "posix" or "dev" in extras`:       True,
		`os_name == "posix" and "dev" in extras`:      Maybe,
		`extra == "test"`:                             False,
		`extra != "test"`:                             True,
		`python_version >= "3.9" and extra == "Test"`: False,
	} {
		m, err := ParseMarker(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Eval(env); got != want {
			t.Errorf("%s: got %v, want %v", in, got, want)
		}
	}
	withExtra := *env
	withExtra.Extra = "my_Extra"
	m, err := ParseMarker(`extra == "my-extra"`)
	if err != nil || m.Eval(&withExtra) != True {
		t.Errorf("extras are not compared in normal form: %v", err)
	}
}

func TestMarkerRefused(t *testing.T) {
	for _, s := range []string{
		"", "foo == 'a'", "python_version", "'a' == 'b'", "extras == 'a'", "extras in 'a'", "os_name ~= 'a'",
		strings.Repeat("(", 40) + "os_name == 'a'" + strings.Repeat(")", 40),
		"os_name == '" + strings.Repeat("x", maxMarker) + "'",
		"os_name == 'a' or", "os_name == 'a", "os_name is 'a'", "os_name not 'a'",
	} {
		if _, err := ParseMarker(s); err == nil {
			t.Errorf("%q accepted", clip(s))
		}
	}
}

func TestParseRequirement(t *testing.T) {
	r, err := ParseRequirement(`Requests [Security,tests.x] >= 2.8.1, == 2.8.* ; python_version < "2.7"`)
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "requests" || cmp.Diff([]string{"security", "tests-x"}, r.Extras) != "" || len(r.Specifiers) != 2 || r.Marker.String() != `python_version < "2.7"` {
		t.Errorf("got %+v", r)
	}
	r, err = ParseRequirement(`pip @ https://index.example/pip.zip#sha1=da9234ee ; os_name == "nt"`)
	if err != nil || r.URL != "https://index.example/pip.zip#sha1=da9234ee" || r.Marker.String() != `os_name == "nt"` {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, s := range []string{"A", "A.B-C_D", "aa(>1)", "name<=1", "name>=3,<2", "name[quux]", "name[]", "name @ http://index.example/x"} {
		if _, err := ParseRequirement(s); err != nil {
			t.Errorf("%q refused: %v", s, err)
		}
	}
	for _, s := range []string{"", "name[", "name[a", "name[a b]", "name (>1", "name >", "name @", "./x.whl", "https://index.example/x.whl", "name ; ", "name ==1 ==2", "name\u200b", "na me"} {
		if _, err := ParseRequirement(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestParseTarget(t *testing.T) {
	target := mustTarget(t, "cp312-manylinux_2_28_x86_64")
	want := Environment{
		OSName: "posix", SysPlatform: "linux", PlatformMachine: "x86_64", PlatformSystem: "Linux", PythonVersion: "3.12", PythonFullVersion: "3.12.0",
		ImplementationName: "cpython", PlatformPythonImpl: "CPython", ImplementationVersion: "3.12.0",
	}
	if d := cmp.Diff(want, target.Env); d != "" {
		t.Error(d)
	}
	if got := mustTarget(t, "cp313t-win_arm64@3.13.2").Env; got.PythonFullVersion != "3.13.2" || got.PlatformMachine != "ARM64" || got.OSName != "nt" {
		t.Errorf("got %+v", got)
	}
	for _, s := range []string{
		"", "cp312", "cp37-win_amd64", "cp27-win32", "cp312t-win32", "cp312-linux_x86_64", "cp312-manylinux2014_x86_64", "cp312-manylinux_2_4_x86_64", "cp312-manylinux_2_16_aarch64",
		"cp312-manylinux_2_028_x86_64", "cp312-manylinux_2_28_pdp11", "cp312-macosx_10_15_arm64", "cp312-macosx_9_0_x86_64", "cp312-win_amd64@3.13.0", "cp312-win_amd64@3.12", "CP312-win32", "cp308-win32",
	} {
		if _, err := ParseTarget(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestTagOrder(t *testing.T) {
	// Best first, for each target; what does not fit is marked by a !.
	for target, names := range map[string][]string{
		"cp312-manylinux_2_28_x86_64": {
			"x-1-cp312-cp312-linux_x86_64.whl", "x-1-cp312-cp312-manylinux_2_28_x86_64.whl", "x-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "x-1-cp312-cp312-manylinux1_x86_64.whl",
			"x-1-cp312-abi3-manylinux2014_x86_64.whl", "x-1-cp312-none-manylinux2014_x86_64.whl", "x-1-cp39-abi3-manylinux_2_28_x86_64.whl",
			"x-1-py3-none-manylinux2014_x86_64.whl", "x-1-cp312-none-any.whl", "x-1-py3-none-any.whl",
			"!x-1-cp313-abi3-manylinux2014_x86_64.whl", "!x-1-cp312-cp312-manylinux_2_34_x86_64.whl", "!x-1-cp312-cp312-musllinux_1_2_x86_64.whl", "!x-1-cp312-cp312t-manylinux2014_x86_64.whl",
			"!x-1-cp312-cp312-manylinux_2_28_aarch64.whl", "!x-1-py2-none-any.whl", "!x-1-cp311-cp311-manylinux2014_x86_64.whl",
		},
		"cp313t-musllinux_1_2_aarch64": {
			"x-1-cp313-cp313t-musllinux_1_2_aarch64.whl", "x-1-cp313-cp313t-musllinux_1_1_aarch64.whl", "x-1-cp313-none-any.whl", "x-1-py3-none-any.whl",
			"!x-1-cp313-cp313-musllinux_1_2_aarch64.whl", "!x-1-cp313-abi3-musllinux_1_2_aarch64.whl", "!x-1-cp313-cp313t-musllinux_1_3_aarch64.whl",
		},
		"cp311-macosx_13_0_arm64": {
			"x-1-cp311-cp311-macosx_13_0_arm64.whl", "x-1-cp311-cp311-macosx_11_0_arm64.whl", "x-1-cp311-cp311-macosx_11_0_universal2.whl", "x-1-cp311-cp311-macosx_10_9_universal2.whl",
			"!x-1-cp311-cp311-macosx_14_0_arm64.whl", "!x-1-cp311-cp311-macosx_10_9_x86_64.whl",
		},
	} {
		last := -1
		for _, n := range names {
			file, none := strings.CutPrefix(n, "!")
			w, err := ParseWheelName(file)
			if err != nil {
				t.Fatal(err)
			}
			rank, ok := mustTarget(t, target).Rank(w)
			switch {
			case ok == none:
				t.Errorf("%s: %s fits: %v", target, file, ok)
			case ok && rank <= last:
				t.Errorf("%s: %s is not behind the one before", target, file)
			case ok:
				last = rank
			}
		}
	}
}
