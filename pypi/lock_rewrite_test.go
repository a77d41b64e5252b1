package pypi

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var insidePrefixes = map[string]string{
	"https://index.example/simple":    "https://mirror.example/pypi/main/simple/",
	"https://files.example/packages/": "https://mirror.example/pypi/main/packages",
}

// again rewrites once more and wants nothing to change.
func again(t *testing.T, name string, out []byte, prefixes map[string]string) {
	t.Helper()
	twice, changes, err := RewriteLock(name, out, prefixes)
	if err != nil || len(changes) != 0 || string(twice) != string(out) {
		t.Errorf("rewriting again: %d changes, %v\n%s", len(changes), err, cmp.Diff(string(out), string(twice)))
	}
}

// TestRewriteUVLocks rewrites locks of a real uv. Nothing but the URLs may
// change, and what is read of the lock stays the same.
func TestRewriteUVLocks(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "uv", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if !strings.HasSuffix(f.Name, ".lock") {
				continue
			}
			out, changes, err := RewriteLock("uv.lock", f.Data, insidePrefixes)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			want := strings.NewReplacer(
				"https://index.example/simple", "https://mirror.example/pypi/main/simple",
				"https://files.example/packages", "https://mirror.example/pypi/main/packages",
			).Replace(string(f.Data))
			if d := cmp.Diff(want, string(out)); d != "" {
				t.Errorf("%s: %s", file, d)
			}
			if n := strings.Count(string(f.Data), "://"); n != len(changes) {
				t.Errorf("%s: %d URLs, %d changes", file, n, len(changes))
			}
			again(t, "uv.lock", out, insidePrefixes)
			if d := cmp.Diff(pinsText(t, f.Data), pinsText(t, out)); d != "" {
				t.Errorf("%s: %s", file, d)
			}
		}
	}
}

func pinsText(t *testing.T, lock []byte) []string {
	t.Helper()
	var out []string
	for _, p := range mustUV(t, string(lock)).Pins {
		for _, f := range p.Files {
			out = append(out, p.Where+" "+p.Name+" "+f.Name+" "+f.Digest.Hex())
		}
	}
	return out
}

func TestRewritePylock(t *testing.T) {
	in := pylockHead + `extras = ['x']
[[packages]]
name = "torch" # https://index.example/simple stays
version = "2.9.0+cu130"
index = 'https://index.example/simple/'
attestation-identities = [{ kind = "Publisher", repository = "https://git.example/torch" }]
wheels = [
  { url = "https://files.example/packages/a/torch-2.9.0%2Bcu130-py3-none-any.whl",  hashes = { sha256 = "` + hashA + `" } }, # c
  {   url="` + `\u0068ttps://files.example/packages/b/torch-2.9.0%2Bcu130-cp312-none-any.whl" , hashes = { sha256 = "` + hashB + `" } },
]
sdist.url = """
https://files.example/packages/c/torch-2.9.0+cu130.tar.gz"""
tool.x.url = "https://elsewhere.example/"
[packages.tool.y]
index = "https://elsewhere.example/"
[[packages]]
name = "here"
directory = { path = "here" }
[tool.uv]
index = [{ url = "https://elsewhere.example/simple" }]
`
	want := strings.NewReplacer(
		"'https://index.example/simple/'", `"https://mirror.example/pypi/main/simple/"`,
		`"https://files.example/packages/a/`, `"https://mirror.example/pypi/main/packages/a/`,
		`"\u0068ttps://files.example/packages/b/`, `"https://mirror.example/pypi/main/packages/b/`,
		"\"\"\"\nhttps://files.example/packages/c/torch-2.9.0+cu130.tar.gz\"\"\"", `"https://mirror.example/pypi/main/packages/c/torch-2.9.0+cu130.tar.gz"`,
	).Replace(in)
	out, changes, err := RewriteLock("pylock.toml", []byte(in), insidePrefixes)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(out)); d != "" {
		t.Error(d)
	}
	if len(changes) != 4 || changes[0] != (Change{"pylock.toml:9", "https://index.example/simple/", "https://mirror.example/pypi/main/simple/"}) || changes[3].Where != "pylock.toml:15" {
		t.Errorf("%+v", changes)
	}
	again(t, "pylock.toml", out, insidePrefixes)
}

// An extra or a group may be called "tool" or "url"; what it holds counts.
func TestRewriteExtraNamedTool(t *testing.T) {
	in := uvHead + uvRoot("[package.optional-dependencies]", `tool = [{ name = "a", source = { registry = "https://index.example/simple" } }]`,
		`url = [{ name = "a", source = { registry = "https://index.example/simple" } }]`) + uvPackageText("a", "1")
	_, changes, err := RewriteLock("uv.lock", []byte(strings.ReplaceAll(in, "https://files.example", "https://files.example/packages")), insidePrefixes)
	if err != nil || len(changes) != 4 {
		t.Errorf("%+v %v", changes, err)
	}
}

func TestRewriteRequirements(t *testing.T) {
	in := "# https://index.example/simple stays\r\n" +
		"-i https://index.example/simple # https://index.example/simple too\n" +
		"-ihttps://index.example/simple\n" +
		"--index-url=\"https://index.example/simple/\" --extra-index-url 'https://index.example/simple'\n" +
		"--find-links https://files.example/packages\\\n\n" +
		"foo==1 \\\n    --hash=sha256:" + hashA + "\n" +
		"bar @ https://files.example/packages/x/bar-1.zip#sha256=" + hashA + " ; os_name == 'nt'\n" +
		"--trusted-host index.example\n-r more.txt"
	in = strings.Replace(in, "packages\\\n\n", "packages/ \\\n\n", 1)
	want := strings.NewReplacer( // the first that fits counts
		"# https://index.example/simple", "# https://index.example/simple",
		"https://index.example/simple", "https://mirror.example/pypi/main/simple", "https://files.example/packages", "https://mirror.example/pypi/main/packages").Replace(in)
	out, changes, err := RewriteLock("requirements.txt", []byte(in), insidePrefixes)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(out)); d != "" {
		t.Error(d)
	}
	if len(changes) != 6 || changes[1].Where != "requirements.txt:3" {
		t.Errorf("%+v", changes)
	}
	again(t, "requirements.txt", out, insidePrefixes)
}

func TestRewritePrefixes(t *testing.T) {
	for name, c := range map[string]struct {
		prefixes map[string]string
		url      string
		want     string
	}{
		"whole":             {map[string]string{"https://a.example": "https://m.example/a"}, "https://a.example", "https://m.example/a"},
		"slash stays":       {map[string]string{"https://a.example": "https://m.example/a"}, "https://a.example/", "https://m.example/a/"},
		"slashes given":     {map[string]string{"https://a.example/": "https://m.example/a/"}, "https://a.example/x", "https://m.example/a/x"},
		"part of a part":    {map[string]string{"https://a.example/simple": "https://m.example"}, "https://a.example/simpler", ""},
		"host longer":       {map[string]string{"https://a.example": "https://m.example"}, "https://a.example.org/x", ""},
		"host with port":    {map[string]string{"https://a.example": "https://m.example"}, "https://a.example:8443/x", ""},
		"account":           {map[string]string{"https://a.example": "https://m.example"}, "https://a.example@b.example/x", ""},
		"longest":           {map[string]string{"https://a.example": "https://m.example/a", "https://a.example/b": "https://m.example/b"}, "https://a.example/b/c", "https://m.example/b/c"},
		"inside already":    {map[string]string{"https://a.example": "https://a.example/mirror"}, "https://a.example/mirror/x", "https://a.example/mirror/x"},
		"outside is within": {map[string]string{"https://a.example/pypi": "https://a.example"}, "https://a.example/pypi/x", "https://a.example/x"},
		"query":             {map[string]string{"https://a.example": "https://m.example"}, "https://a.example/x?y=/z#w", "https://m.example/x?y=/z#w"},
		"other scheme":      {map[string]string{"https://a.example": "https://m.example"}, "http://a.example/x", ""},
		"to a folder":       {map[string]string{"https://a.example": "file:///srv/mirror"}, "https://a.example/x", "file:///srv/mirror/x"},
	} {
		t.Run(name, func(t *testing.T) {
			in := []byte("--index-url " + c.url + "\n")
			out, _, err := RewriteLock("r.txt", in, c.prefixes)
			if c.want == "" {
				wantRefusal(t, err, ErrLock, "PYPI-LOCK-UNMAPPED", "r.txt")
				return
			}
			if err != nil || string(out) != "--index-url "+c.want+"\n" {
				t.Fatalf("%s %v", out, err)
			}
			again(t, "r.txt", out, c.prefixes)
		})
	}
}

func TestRewriteRefused(t *testing.T) {
	one := map[string]string{"https://a.example": "https://m.example"}
	uv := func(source string) string {
		return uvHead + "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = " + source + "\n"
	}
	var many strings.Builder
	for i := range 9 {
		fmt.Fprintf(&many, "--find-links https://b%d.example\n", i)
	}
	for name, c := range map[string]struct {
		file, text string
		prefixes   map[string]string
		code       string
	}{
		"no prefixes":      {"uv.lock", uvHead, nil, "-PREFIX"},
		"prefix relative":  {"uv.lock", uvHead, map[string]string{"a.example": "https://m.example"}, "-PREFIX"},
		"prefix account":   {"uv.lock", uvHead, map[string]string{"https://user:secret@a.example": "https://m.example"}, "-PREFIX"},
		"prefix query":     {"uv.lock", uvHead, map[string]string{"https://a.example?x": "https://m.example"}, "-PREFIX"},
		"prefix quote":     {"uv.lock", uvHead, map[string]string{"https://a.example": "https://m.example/\""}, "-PREFIX"},
		"prefix line":      {"uv.lock", uvHead, map[string]string{"https://a.example": "https://m.example/\n-r x"}, "-PREFIX"},
		"prefix variable":  {"uv.lock", uvHead, map[string]string{"https://a.example": "https://m.example/${X}"}, "-PREFIX"},
		"chain":            {"uv.lock", uvHead, map[string]string{"https://a.example": "https://b.example", "https://b.example/": "https://c.example"}, "-PREFIX"},
		"twice":            {"uv.lock", uvHead, map[string]string{"https://a.example": "https://b.example", "https://a.example/": "https://c.example"}, "-PREFIX"},
		"other registry":   {"uv.lock", uv(`{ registry = "https://user:secret@b.example/simple" }`), one, "-UNMAPPED"},
		"git":              {"uv.lock", uv(`{ git = "https://b.example/a?rev=1#2" }`), one, "-UNMAPPED"},
		"not toml":         {"uv.lock", "version = ", one, "-SYNTAX"},
		"key twice":        {"uv.lock", uvHead + "version = 1", one, "-SYNTAX"},
		"deep key twice":   {"uv.lock", uvHead + "[[package]]\nname = \"a\"\nsdist = { url = \"https://a.example/a\", url = \"https://a.example/b\" }", one, "-SYNTAX"},
		"table twice":      {"uv.lock", uvHead + "[options]\nx = 1\n[options]\ny = 1", one, "-SYNTAX"},
		"neither":          {"x.toml", "[tool]\nx = 1", one, "-SYNTAX"},
		"deep":             {"uv.lock", uvHead + "x = " + strings.Repeat("[", 1<<20), one, "-SYNTAX"},
		"pylock":           {"pylock.toml", "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\narchive.url = \"https://b.example/a.zip\"", one, "-UNMAPPED"},
		"requirements":     {"r.txt", "-i https://a.example\n-r https://user:secret@b.example/r.txt", one, "-UNMAPPED"},
		"repository":       {"r.txt", "-e git+https://a.example/x", one, "-UNMAPPED"},
		"account variable": {"r.txt", "-i https://${USER}:${SECRET}@a.example/x", one, "-UNMAPPED"},
		"continued":        {"r.txt", "-i https://a.example/\\\nx", one, "-SYNTAX"},
		"not utf-8":        {"r.txt", "-i https://a.example/\xff", one, "-SYNTAX"},
		"many":             {"r.txt", many.String(), one, "-UNMAPPED"},
	} {
		t.Run(name, func(t *testing.T) {
			out, changes, err := RewriteLock(c.file, []byte(c.text), c.prefixes)
			wantRefusal(t, err, ErrLock, "PYPI-LOCK"+c.code, "")
			if out != nil || changes != nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s %v %v", out, changes, err)
			}
		})
	}
}

// A page of comments and strings in which nothing is a URL stays as it is.
func TestRewriteNothing(t *testing.T) {
	in := "version = 1\n# url = \"https://b.example\"\nx = 'url = \"https://b.example\"'\nurl = \"relative/path\"\n"
	out, changes, err := RewriteLock("uv.lock", []byte(in), map[string]string{"https://a.example": "https://m.example"})
	if err != nil || string(out) != in || len(changes) != 0 {
		t.Errorf("%q %v %v", out, changes, err)
	}
}
