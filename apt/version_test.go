package apt

import (
	"cmp"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	// Each list rises strictly. The cases are deb-version(7)'s and those that
	// other tools get wrong: a revision after the first hyphen, digits beyond
	// 64 bits, a tilde before the end.
	for _, list := range [][]string{
		{"~~", "~~a", "~", "", "a"},
		{"1.0~beta1~svn1245", "1.0~beta1", "1.0", "1.0-0.1", "1.0-1", "1.0.0"},
		{"0:9", "1:0", "10:0"},
		{"1.2-3-4", "1.2-3-10", "1.2-4-1"},
		{"99999999999999999999999", "100000000000000000000000"},
		{"1", "1a", "1b", "1+", "1."},
		{"2.36-9", "2.36-9+deb12u1", "2.36-9+deb12u10", "2.36-10"},
		{"1.0Z", "1.0a", "1.0+"},
	} {
		for i, a := range list {
			for j, b := range list {
				if got, want := CompareVersions(a, b), cmp.Compare(i, j); got != want {
					t.Errorf("CompareVersions(%q, %q) = %d, want %d", a, b, got, want)
				}
			}
		}
	}
	for _, pair := range [][2]string{{"1.0", "1.00"}, {"0:1", "1"}, {"1", "1-0"}, {"1-", "1"}, {"00:1.0-0", "1.0"}} {
		if got := CompareVersions(pair[0], pair[1]); got != 0 {
			t.Errorf("CompareVersions(%q, %q) = %d, want 0", pair[0], pair[1], got)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for _, v := range []string{"1", "0:1-1", "a1", "1.0~rc1+dfsg-2ubuntu3", "1:2:3"} {
		if err := checkVersion(v); err != nil {
			t.Errorf("%q: %v", v, err)
		}
	}
	for _, v := range []string{"", ":1", "a:1", "-1", "1 2", "1_2", "1\n", "1é"} {
		if checkVersion(v) == nil {
			t.Errorf("%q is accepted", v)
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	seeds := []string{"", "1", "1.0-1", "1:1.0~rc1-1+b1", "~", "0012.9a-", "9999999999999999999999-1-2"}
	for _, a := range seeds {
		for _, b := range seeds {
			f.Add(a, b, "1.0a+-~")
		}
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, ba := CompareVersions(a, b), CompareVersions(b, a)
		if ab != -ba {
			t.Errorf("%q and %q: %d and %d", a, b, ab, ba)
		}
		if CompareVersions(a, a) != 0 {
			t.Errorf("%q is not equal to itself", a)
		}
		if ab <= 0 && CompareVersions(b, c) <= 0 && CompareVersions(a, c) > 0 {
			t.Errorf("%q <= %q <= %q, but the first is greater than the last", a, b, c)
		}
	})
}
