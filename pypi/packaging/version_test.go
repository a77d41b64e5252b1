package packaging

import (
	"strings"
	"testing"
)

func mustVersion(t *testing.T, s string) Version {
	t.Helper()
	v, err := ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The summary of permitted suffixes and relative ordering in PEP 440, with
// its other examples put in their places.
func TestVersionOrderOfPEP440(t *testing.T) {
	order := strings.Fields(`1.dev0 1.0.dev456 1.0a1 1.0a2.dev456 1.0a12.dev456 1.0a12 1.0b1.dev456 1.0b2 1.0b2.post345.dev456
		1.0b2.post345 1.0rc1.dev456 1.0rc1 1.0 1.0+abc.5 1.0+abc.7 1.0+5 1.0.post456.dev34 1.0.post456 1.0.15 1.1.dev1 1.1
		2012.4 2013.10 1!1.0 1!1.1 1!2.0`)
	for i := range order {
		for j := range order {
			got := mustVersion(t, order[i]).Compare(mustVersion(t, order[j]))
			if want := min(1, max(-1, i-j)); got != want {
				t.Errorf("%s against %s: got %d, want %d", order[i], order[j], got, want)
			}
		}
	}
}

func TestVersionNormalForm(t *testing.T) {
	for in, want := range map[string]string{
		"1.1RC1": "1.1rc1", "00": "0", "09000": "9000", "1.1.a1": "1.1a1", "1.1-a1": "1.1a1", "1.0a.1": "1.0a1", "1.1alpha1": "1.1a1", "1.1c3": "1.1rc3",
		"1.2a": "1.2a0", "1.2-post2": "1.2.post2", "1.2.post-2": "1.2.post2", "1.0-r4": "1.0.post4", "1.2.post": "1.2.post0", "1.0-1": "1.0.post1",
		"1.2-dev2": "1.2.dev2", "1.2.dev": "1.2.dev0", "1.0+ubuntu-1": "1.0+ubuntu.1", "v1.0": "1.0", " 1.0 \n": "1.0", "1.0+FOO0100": "1.0+foo0100", "1.0+00100": "1.0+100",
	} {
		if got := mustVersion(t, in).String(); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	if mustVersion(t, "1.0").Compare(mustVersion(t, "1.0.0")) != 0 {
		t.Error("1.0 and 1.0.0 differ")
	}
}

// Letters that only look like ASCII without regard to case.
func TestVersionFoldedLetters(t *testing.T) {
	for _, s := range []string{"1.0+\u212a", "1.0po\u017ft1", "1.0+\u017f", "\u0661.0"} {
		if v, err := ParseVersion(s); err == nil {
			t.Errorf("%q accepted as %s", s, v)
		}
		if _, err := ParseSpecifiers("==" + s); err == nil {
			t.Errorf("==%q accepted", s)
		}
	}
}

// The examples in the text of PEP 440.
func TestSpecifiersOfPEP440(t *testing.T) {
	for _, c := range []struct{ spec, yes, no string }{
		{"~=2.2", "2.2 2.3 2.2.post3", "2.1 3.0 2.2rc1"},
		{"~=1.4.5", "1.4.5 1.4.9", "1.5 1.4.4"},
		{"~=2.2.post3", "2.2.post3 2.3", "2.2 3"},
		{"~=1.4.5a4", "1.4.5a4 1.4.5 1.4.8", "1.4.5a3 1.5"},
		{"==1.1", "1.1 1.1.0 1.1+local", "1.1.post1 1.1a1"},
		{"==1.1.*", "1.1 1.1.post1 1.1a1 1.1.5", "1.2 1.0 1.10"},
		{"==1.1+abc", "1.1+abc", "1.1 1.1+abd"},
		{"!=1.1.*", "1.2 1.10", "1.1.post1 1.1"},
		{"!=1.1", "1.1.post1", "1.1 1.1+x"},
		{">1.7", "1.7.1", "1.7 1.7.0.post1 1.7+x"},
		{">1.7.post2", "1.7.1 1.7.0.post3", "1.7.0 1.7.post2"},
		{"<3.1", "3.0.9", "3.1 3.1.dev0 3.1rc1"},
		{"<=1.1", "1.1 1.1+local", "1.1.post1"},
		{"===foobar", "", "1.0"},
		{"===1.0", "1.0", "1.0.0"},
		{">=1.0, !=1.3.4.*, < 2.0", "1.0 1.3.5", "1.3.4.1 2.0 2.0a1"},
		{"", "1 2!3", ""},
	} {
		set, err := ParseSpecifiers(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		for v := range strings.FieldsSeq(c.yes) {
			if !set.Contains(mustVersion(t, v)) {
				t.Errorf("%q does not contain %s", c.spec, v)
			}
		}
		for v := range strings.FieldsSeq(c.no) {
			if set.Contains(mustVersion(t, v)) {
				t.Errorf("%q contains %s", c.spec, v)
			}
		}
	}
	for _, s := range []string{"1.0", "==", "==foo", "~=1", "~=1.*", ">=1.*", ">=1+a", "==1.0a1.*", "=1", "=>1", "=== a b", strings.Repeat("==1,", 1025), strings.Repeat(">1,", 300)} {
		if _, err := ParseSpecifiers(s); err == nil {
			t.Errorf("%q accepted", clip(s))
		}
	}
}
