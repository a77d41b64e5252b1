package hub

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestParseRepo(t *testing.T) {
	for s, want := range map[string]Repo{
		"team/model":            {Model, "team/model"},
		"gpt2":                  {Model, "gpt2"},
		"Team.x/Model_1-b.c":    {Model, "Team.x/Model_1-b.c"},
		"datasets/team/data":    {Dataset, "team/data"},
		"datasets/squad":        {Dataset, "squad"},
		strings.Repeat("a", 96): {Model, strings.Repeat("a", 96)},
	} {
		got, err := ParseRepo(s)
		if err != nil || got != want {
			t.Errorf("%q: %v %v", s, got, err)
		}
		if err == nil && got.String() != s {
			t.Errorf("%q is written as %q", s, got)
		}
	}
	for _, s := range []string{"", "/", "a/", "/b", "a/b/c", "a b", "-a/b", "a/b.", "a--b/c", "a..b", "../x", "datasets/", "datasets/a/b/c", "a/b\n", "a/é", strings.Repeat("a", 97)} {
		if _, err := ParseRepo(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestRepoPaths(t *testing.T) {
	r := Repo{Dataset, "team/data"}
	for got, want := range map[string]string{
		r.API():         "api/datasets/team/data",
		r.CacheFolder(): "datasets--team--data",
		r.ResolvePath("refs/pr/1", "a b/c+d#e.txt"):            "datasets/team/data/resolve/refs%2Fpr%2F1/a%20b/c+d%23e.txt",
		Repo{Model, "gpt2"}.ResolvePath("main", "config.json"): "gpt2/resolve/main/config.json",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCheckRevision(t *testing.T) {
	for _, s := range []string{"main", "v1.0", "refs/pr/7", strings.Repeat("a", 40), "release/2024-01"} {
		if err := CheckRevision(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "a b", "a..b", "../x", "/a", "a/", "a//b", "-a", "a/-b", ".a", "a.lock", "a@{1}", "@", "a^", "a~1", "a:b", "a?", "a*", "a[", `a\b`, "a\x00", "é", "a.", strings.Repeat("a", 256)} {
		if err := CheckRevision(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestSumBlob(t *testing.T) {
	// git hash-object says so.
	for text, want := range map[string]OID{"": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "hello\n": "ce013625030ba8dba906f756967f9e9ca394464a"} {
		if got := SumBlob([]byte(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func entry(path string) Entry { return Entry{Path: path, Size: 1, OID: SumBlob([]byte("x"))} }

func TestCheckEntries(t *testing.T) {
	if err := CheckEntries([]Entry{entry("a"), entry("b/c"), entry("b/d e")}); err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]Entry{
		"twice":               {entry("a"), entry("a")},
		"case":                {entry("a/B"), entry("A/b")},
		"file and folder":     {entry("a"), entry("a/b")},
		"folder, case":        {entry("A"), entry("a/b")},
		"absolute":            {entry("/a")},
		"escapes":             {entry("a/../../b")},
		"backslash":           {entry(`a\b`)},
		"NUL":                 {entry("a\x00")},
		"no id":               {{Path: "a", Size: 1}},
		"negative":            {{Path: "a", Size: -1, OID: entry("a").OID}},
		"large without LFS":   {{Path: "a", Size: MaxGitFile + 1, OID: entry("a").OID}},
		"LFS without digest":  {{Path: "a", Size: 1, OID: entry("a").OID, LFS: &LFS{PointerSize: 130}}},
		"LFS without pointer": {{Path: "a", Size: 1, OID: entry("a").OID, LFS: &LFS{SHA256: artifact.Sum(nil)}}},
	} {
		if err := CheckEntries(list); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestEntryVerify(t *testing.T) {
	e := Entry{Path: "a", Size: 6, OID: "ce013625030ba8dba906f756967f9e9ca394464a"}
	if err := e.Verify(strings.NewReader("hello\n")); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "hello", "Hello\n", "hello\n\n"} {
		if err := e.Verify(strings.NewReader(text)); !errors.Is(err, ErrNotThis) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"team/model", "datasets/a/b", "main", "refs/pr/1", "a/../b", "a%2Fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := ParseRepo(s); err == nil {
			again, err := ParseRepo(r.String())
			if err != nil || again != r {
				t.Fatalf("%q: %v %v", s, again, err)
			}
			if strings.ContainsAny(r.CacheFolder(), "/\\\x00") {
				t.Fatalf("%q has the folder %q", s, r.CacheFolder())
			}
		}
		if CheckRevision(s) == nil {
			p := Repo{Model, "team/model"}.ResolvePath(s, "x")
			if strings.Count(p, "/") != 4 || bytes.ContainsAny([]byte(p), " \n?#") {
				t.Fatalf("%q gives the path %q", s, p)
			}
		}
	})
}
