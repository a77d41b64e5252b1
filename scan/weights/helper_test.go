package weights

import (
	"fmt"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

func newInspector(t testing.TB, c Config) *Inspector {
	t.Helper()
	i, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// inspect judges bytes under a path and writes each finding as "severity ID".
func inspect(t testing.TB, c Config, kind walk.Kind, content string, path ...string) []scan.Finding {
	t.Helper()
	return inspectFile(t, c, walk.NewFile(kind, []byte(content), path...))
}

func inspectFile(t testing.TB, c Config, f *walk.File) []scan.Finding {
	t.Helper()
	list, err := newInspector(t, c).Inspect(t.Context(), f)
	if err != nil {
		t.Fatalf("%v: %v", f.Path, err)
	}
	return list
}

// short writes findings as "severity ID", a "?" in front of what was not
// scanned.
func short(list []scan.Finding) string {
	var out []string
	for _, f := range list {
		s := f.Severity + " " + f.ID
		if f.Kind == scan.KindNotScanned {
			s = "?" + s
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// want holds what is found, and that every finding says something.
func want(t testing.TB, list []scan.Finding, expected string, words ...string) {
	t.Helper()
	if got := short(list); got != expected {
		t.Errorf("got %q, want %q\n%s", got, expected, texts(list))
	}
	for _, f := range list {
		if f.Text == "" || strings.ContainsAny(f.Text, "\n\x00") || f.Kind != scan.KindModel && f.Kind != scan.KindNotScanned || !strings.HasPrefix(f.ID, "MODEL-") {
			t.Errorf("a finding that is none: %+v", f)
		}
	}
	for _, w := range words {
		if !strings.Contains(texts(list), w) {
			t.Errorf("%q is not in:\n%s", w, texts(list))
		}
	}
}

func texts(list []scan.Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%s: %s\n", f.ID, f.Text)
	}
	return b.String()
}
