package packaging

import (
	"errors"
	"strings"
	"testing"
)

func TestNormalizeName(t *testing.T) {
	for in, want := range map[string]string{
		"numpy": "numpy", "Flask": "flask", "ruamel.yaml": "ruamel-yaml", "a": "a", "A.-_b": "a-b", "zope.interface_x": "zope-interface-x", "0x": "0x",
	} {
		if got, err := NormalizeName(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "torch\u200b", "num py", "nump\u0443", "-a", "a-", "_a", "a.", "a/b", "a\x00", "ſoo", "a\n", " a", strings.Repeat("a", maxName+1)} {
		if got, err := NormalizeName(in); err == nil {
			t.Errorf("%q accepted as %q", in, got)
		}
	}
}

func TestCheckFilename(t *testing.T) {
	for _, s := range []string{"a", "x-1.0+cu130-py3-none-any.whl", "x-1!2.0.tar.gz", "ü.zip", strings.Repeat("a", 255)} {
		if err := CheckFilename(s); err != nil {
			t.Errorf("%q refused: %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "..", "../x", "a/b", "a\\b", "a:b", "a\x00b", "a\nb", "a\x1b[31m", "a\u0085", "a\u202eb", "\xff", "-r", "~x", strings.Repeat("a", 256)} {
		if err := CheckFilename(s); !errors.Is(err, ErrFilename) {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func TestParseWheelName(t *testing.T) {
	w, err := ParseWheelName("Foo_Bar.baz-1!1.0.POST2+Cu_130-12ab-cp311.cp312-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl")
	if err != nil {
		t.Fatal(err)
	}
	if w.Project != "foo-bar-baz" || w.Version.String() != "1!1.0.post2+cu.130" || w.Build != (Build{"12", "ab"}) {
		t.Errorf("got %+v", w)
	}
	if strings.Join(w.Pythons, " ") != "cp311 cp312" || strings.Join(w.Platforms, " ") != "manylinux2014_x86_64 manylinux_2_17_x86_64" {
		t.Errorf("got %+v", w)
	}
	for _, s := range []string{
		"x-1.0-py3-none-any.zip", "x-1.0-py3-none.whl", "x-1.0-1-py3-none-any-variant.whl", "x-1.0-b1-py3-none-any.whl", "x__y-1.0-py3-none-any.whl",
		"-1.0-py3-none-any.whl", "x--py3-none-any.whl", "x-1.0-py3-none-.whl", "x-1.0-py3..py2-none-any.whl", "x-1.0-py3-none-a ny.whl", "x-foo-py3-none-any.whl",
		"../../etc/x-1.0-py3-none-any.whl", "x-1.0-py3-no+ne-any.whl", "con.whl", "x\u200b-1.0-py3-none-any.whl", "x-1.0-" + strings.Repeat("a.", 65) + "a-none-any.whl",
	} {
		if _, err := ParseWheelName(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestBuildOrder(t *testing.T) {
	names := []string{"x-1-py3-none-any.whl", "x-1-0-py3-none-any.whl", "x-1-1-py3-none-any.whl", "x-1-1a-py3-none-any.whl", "x-1-9-py3-none-any.whl", "x-1-010-py3-none-any.whl"}
	for i := 1; i < len(names); i++ {
		a, errA := ParseWheelName(names[i-1])
		b, errB := ParseWheelName(names[i])
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Build.Compare(b.Build) >= 0 {
			t.Errorf("%s is not before %s", names[i-1], names[i])
		}
	}
}

func TestParseSdistName(t *testing.T) {
	for in, want := range map[string]string{"foo-bar-1.0.tar.gz": "foo-bar 1.0", "Foo.Bar-1.0rc1.zip": "foo-bar 1.0rc1", "x-2!1.tar.gz": "x 2!1"} {
		s, err := ParseSdistName(in)
		if err != nil || s.Project+" "+s.Version.String() != want {
			t.Errorf("%q: got %v %v", in, s, err)
		}
	}
	for _, in := range []string{"foo.tar.gz", "foo-1.0.tar.bz2", "foo-1.0.tgz", "foo-x.tar.gz", "-1.0.tar.gz", "nul.tar.gz", "foo-1.0.TAR.GZ", "a/foo-1.0.tar.gz"} {
		if _, err := ParseSdistName(in); err == nil {
			t.Errorf("%q accepted", in)
		}
	}
}
