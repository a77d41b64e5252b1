package apt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestDiscover reads the hosts of testdata/discover: files below "etc/", and
// what is found under "want".
func TestDiscover(t *testing.T) {
	hosts, err := filepath.Glob("testdata/discover/*.txt")
	if err != nil || len(hosts) < 3 {
		t.Fatalf("%d hosts, %v", len(hosts), err)
	}
	for _, host := range hosts {
		t.Run(strings.TrimSuffix(filepath.Base(host), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(host)
			if err != nil {
				t.Fatal(err)
			}
			root, want := t.TempDir(), ""
			for _, f := range txtar.Parse(b).Files {
				if f.Name == "want" {
					want = string(f.Data)
					continue
				}
				name := filepath.Join(root, f.Name)
				if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, discovered(Discover(root))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func discovered(found []FoundArchive, skipped []Skipped) string {
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, " ") + "\n") }
	for _, f := range found {
		line("found", f.Origin, f.URL, strings.Join(f.Suites, ","), strings.Join(f.Components, ","), strings.Join(f.Architectures, ","), strings.Join(f.SignedBy, ","))
		if !f.CheckValidUntil {
			line("  valid-until is not checked")
		}
		if f.Key != "" {
			line("  key", strings.ReplaceAll(f.Key, "\n", "/"))
		}
		for _, n := range f.Notes {
			line("  note", n)
		}
	}
	for _, s := range skipped {
		line("skipped", s.Origin, s.Text, "("+s.Reason+")")
	}
	return b.String()
}

func TestDiscoverNothing(t *testing.T) {
	if found, skipped := Discover(t.TempDir()); len(found)+len(skipped) != 0 {
		t.Errorf("%v, %v", found, skipped)
	}
}

func fuzzSources(f *testing.F, parse func(string) ([]sourceEntry, []sourceProblem)) {
	f.Fuzz(func(t *testing.T, text string) {
		entries, problems := parse(text)
		for _, e := range entries {
			if len(e.uris) == 0 || len(e.suites) == 0 || e.line < 1 || e.line > strings.Count(text, "\n")+1 {
				t.Errorf("%+v", e)
			}
		}
		for _, p := range problems {
			if p.line < 1 || p.reason == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}

func FuzzOneLineSources(f *testing.F) {
	f.Add("deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main # c\n")
	f.Add("deb cdrom:[Debian 12]/ bookworm main\n")
	f.Add("deb-src x y")
	f.Add("deb [ x")
	fuzzSources(f, parseOneLine)
}

func FuzzDeb822Sources(f *testing.F) {
	f.Add("Types: deb\n# c\nURIs: https://mirror.example/debian\nSuites: a\n b\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n")
	f.Add(" x\n\nTypes: deb\nTypes: deb\n")
	fuzzSources(f, parseDeb822Sources)
}
