package pypi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pipLine is what pip reads on one line.
type pipLine struct {
	Where      string   `json:"where"`
	Name       string   `json:"name"`
	Extras     []string `json:"extras"`
	Marker     bool     `json:"marker"`
	Constraint bool     `json:"constraint"`
	Hashes     []string `json:"hashes"`
}

// TestRequirementsAsPip holds the reader against what a real pip reads; see
// testdata/clients/req_files.py.
func TestRequirementsAsPip(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "requirements.json"))
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Cases []struct {
			Name    string
			Files   map[string][]byte
			Refused *string
			Want    struct {
				Lines       []pipLine
				Allowed     map[string][]string
				Prereleases []string
			}
		}
	}
	if err := json.Unmarshal(b, &recorded); err != nil || len(recorded.Cases) < 50 {
		t.Fatalf("%d cases, %v", len(recorded.Cases), err)
	}
	for _, c := range recorded.Cases {
		t.Run(c.Name, func(t *testing.T) {
			files := make(map[string]string)
			for name, body := range c.Files {
				files[name] = string(body)
			}
			r, err := ReadRequirements(filepath.Join(folder(t, files), "r.txt"))
			if c.Refused != nil {
				if err == nil {
					t.Fatalf("read, though pip does not: %+v", r.Wants)
				}
				if *c.Refused != "" {
					wantRefusal(t, err, ErrLock, "PYPI-LOCK"+*c.Refused, "r.txt")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// pip tells requirements and constraints in one row.
			want, got := c.Want.Lines, append(append([]pipLine{}, pipLines(r.Wants, false)...), pipLines(r.Constraints, true)...)
			slices.SortStableFunc(want, func(a, b pipLine) int { return truth(a.Constraint) - truth(b.Constraint) })
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-pip +read):\n%s", d)
			}
			for project, kinds := range c.Want.Allowed {
				wheel, sdist := r.Formats.Allowed(project)
				if wheel != slices.Contains(kinds, "binary") || sdist != slices.Contains(kinds, "source") {
					t.Errorf("%s: wheel %v, source archive %v; pip: %v", project, wheel, sdist, kinds)
				}
			}
			pre := slices.Sorted(slices.Values(r.PrereleasesOf))
			if r.Prereleases {
				pre = []string{allProjects}
			}
			if d := cmp.Diff(c.Want.Prereleases, append([]string{}, pre...)); d != "" {
				t.Errorf("pre-releases (-pip +read):\n%s", d)
			}
		})
	}
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func pipLines(wants []Want, constraint bool) []pipLine {
	var out []pipLine
	for _, w := range wants {
		l := pipLine{Where: w.Where, Name: w.Requirement.Name, Extras: append([]string{}, w.Requirement.Extras...), Marker: w.Requirement.Marker.String() != "", Constraint: constraint, Hashes: []string{}}
		slices.Sort(l.Extras)
		for _, h := range w.Hashes {
			l.Hashes = append(l.Hashes, h.String())
		}
		slices.Sort(l.Hashes)
		out = append(out, l)
	}
	return out
}

func TestRequirementsHostile(t *testing.T) {
	hash := " --hash=sha256:" + hashA
	ring := make(map[string]string)
	var wide strings.Builder
	for i := range maxIncludeDepth + 1 {
		ring["d"+string(rune('a'+i))] = "-r d" + string(rune('b'+i)) + "\n"
	}
	for range maxIncludes + 1 {
		wide.WriteString("-r one\n")
	}
	for name, c := range map[string]struct{ text, code string }{
		"deep":               {"-r da", "-INCLUDE"},
		"wide":               {wide.String(), "-INCLUDE"},
		"fan of fans":        {"-r fan1\n", "-INCLUDE"},
		"requires no pin":    {"--require-hashes\nfoo>=1" + hash, "-UNPINNED"},
		"requires no hash":   {"--require-hashes\nfoo==1", "-UNHASHED"},
		"constraint extras":  {"foo\n-c extras", "-SYNTAX"},
		"sha512 alone":       {"foo>1 --hash=sha512:00", "-UNHASHED"},
		"name":               {"to\u200brch", "-SYNTAX"},
		"many hashes":        {"foo==1" + strings.Repeat(hash, maxHashes+1), "-HASH"},
		"many requirements":  {strings.Repeat("a\n", maxPins+1), "-LIMIT"},
		"long line":          {"a" + strings.Repeat(">1,", 1<<17), "-SYNTAX"},
		"many names":         {"--no-binary " + strings.Repeat("a", 100) + manyNames(), "-OPTION"},
		"name of an option":  {"--no-binary to\u200brch", "-OPTION"},
		"surrogate":          {"\xff\xfef\x00\x00\xd8", "-SYNTAX"},
		"utf-32 out of it":   {"\xff\xfe\x00\x00\xff\xff\xff\xff", "-SYNTAX"},
		"binary":             {"\x00\x01\x02", "-SYNTAX"},
		"password in a path": {"https://user:secret@files.example/foo-1.zip", "-SYNTAX"},
		"password behind @":  {"foo @ https://user:secret@files.example/foo-1.zip", "-URL"},
		"password in -r":     {"-r https://user:secret@files.example/r.txt", "-INCLUDE"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"requirements.in": c.text, "one": "x", "extras": "foo[a]<2"}
			for n, body := range ring {
				files[n] = body
			}
			for i := range 5 {
				files["fan"+string(rune('1'+i))] = strings.Repeat("-r fan"+string(rune('2'+i))+"\n", 10)
			}
			files["fan6"] = "x"
			_, err := ReadRequirements(filepath.Join(folder(t, files), "requirements.in"))
			wantRefusal(t, err, ErrLock, "PYPI-LOCK"+c.code, "")
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a password is told: %v", err)
			}
		})
	}
}

func manyNames() string {
	var b strings.Builder
	for i := range maxOptionNames + 1 {
		b.WriteString(",n")
		b.WriteString(strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/50))
	}
	return b.String()
}

func TestPinned(t *testing.T) {
	hash := " --hash=sha256:" + hashA + "\n"
	for text, want := range map[string]bool{
		"foo==1" + hash:                    true,
		"foo==1" + hash + "bar===2" + hash: true,
		"foo==1" + hash + "bar==2\n":       false,
		"foo>=1" + hash:                    false,
		"foo==1.*" + hash:                  false,
		"":                                 false,
	} {
		r, err := ReadRequirements(filepath.Join(folder(t, map[string]string{"r.txt": text}), "r.txt"))
		if err != nil {
			t.Fatal(err)
		}
		if r.Pinned() != want {
			t.Errorf("%q: pinned %v", text, r.Pinned())
		}
	}
}

func TestParseWant(t *testing.T) {
	w, err := ParseWant(` requests[socks]>=2.4 ; sys_platform == "linux" # why`, "packages[0]")
	if err != nil {
		t.Fatal(err)
	}
	if w.Requirement.Name != "requests" || !slices.Equal(w.Requirement.Extras, []string{"socks"}) || w.Where != "packages[0]" {
		t.Errorf("%+v", w)
	}
	if w, err = ParseWant("torch==2.9.0+cu130 --hash=sha256:"+hashA, "packages[1]"); err != nil || len(w.Hashes) != 1 {
		t.Errorf("%+v %v", w, err)
	}
	for text, code := range map[string]string{
		"":                            "-SYNTAX",
		"# nothing":                   "-SYNTAX",
		"a\nb":                        "-SYNTAX",
		"-r x.txt":                    "-OPTION",
		"--pre":                       "-OPTION",
		"./x":                         "-SYNTAX",
		"foo @ https://files.example": "-URL",
		"foo==${V}":                   "-VARIABLE",
		"foo --hash=md5:00":           "-HASH",
	} {
		_, err := ParseWant(text, "packages[3]")
		wantRefusal(t, err, ErrLock, "PYPI-LOCK"+code, "packages[3]")
	}
}
