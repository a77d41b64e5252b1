package pypi

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// uvFolders hold locks that a real uv made, with what it would install. The
// variable names one more, which testdata/clients/inputs.sh fills afresh.
func uvFolders() []string {
	folders := []string{filepath.Join("testdata", "uv")}
	if more := os.Getenv("DARKMIRROR_UV_LOCKS"); more != "" {
		folders = append(folders, more)
	}
	return folders
}

// choiceOf reads "all" or "extras=a,b groups=c".
func choiceOf(t *testing.T, words []string) Choice {
	t.Helper()
	var c Choice
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		list := strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		if list == nil {
			list = []string{}
		}
		switch key {
		case "all":
		case "extras":
			c.Extras = list
		case "groups":
			c.Groups = list
		default:
			t.Fatalf("%q", w)
		}
	}
	return c
}

// TestUVLocks holds what is read of a uv.lock against what uv would install:
// for every target and choice, the union over the ways to install.
func TestUVLocks(t *testing.T) {
	answers := 0
	for _, dir := range uvFolders() {
		files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			t.Run(filepath.Base(name), func(t *testing.T) {
				a, err := txtar.ParseFile(name)
				if err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return strings.HasSuffix(f.Name, ".lock") })
				if i < 0 {
					t.Fatal("no lock")
				}
				for _, f := range a.Files {
					words := strings.Fields(f.Name)
					if len(words) < 3 || words[0] != "want" {
						continue
					}
					answers++
					got := uvAnswer(t, a.Files[i].Data, words[1], choiceOf(t, words[2:]))
					if d := cmp.Diff(strings.Fields(string(f.Data)), got); d != "" {
						t.Errorf("%s (-uv +read):\n%s", f.Name, d)
					}
				}
			})
		}
	}
	if answers < 100 {
		t.Errorf("only %d answers of uv", answers)
	}
}

// uvAnswer is what a target installs, or "refused".
func uvAnswer(t *testing.T, lock []byte, target string, c Choice) []string {
	t.Helper()
	l, err := parseUVLock(lock, "uv.lock")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Choose(c); err != nil {
		t.Fatal(err)
	}
	pins, err := l.forTarget(mustTarget(t, target))
	if err != nil {
		return []string{"refused"}
	}
	got := make([]string, 0, len(pins))
	for _, p := range pins {
		got = append(got, p.Name+"=="+p.Version.Text())
	}
	slices.Sort(got)
	return got
}

const uvHead = "version = 1\nrevision = 3\nrequires-python = \">=3.9\"\n"

// uvPackageText is a package of the index with one wheel.
func uvPackageText(name, version string, more ...string) string {
	return fmt.Sprintf("[[package]]\nname = %q\nversion = %q\nsource = { registry = \"https://index.example/simple\" }\n"+
		"wheels = [{ url = \"https://files.example/%s-%s-py3-none-any.whl\", hash = \"sha256:%s\", size = 7 }]\n%s\n",
		name, version, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(version, "+", "%2B"), hashA, strings.Join(more, "\n"))
}

// uvRoot is the project itself.
func uvRoot(more ...string) string {
	return "[[package]]\nname = \"app\"\nversion = \"1\"\nsource = { virtual = \".\" }\n" + strings.Join(more, "\n") + "\n"
}

func mustUV(t *testing.T, text string) *Lock {
	t.Helper()
	l, err := parseUVLock([]byte(text), "uv.lock")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func pinNames(pins []*Pin) []string {
	var out []string
	for _, p := range pins {
		out = append(out, p.Name+" "+p.Version.String())
	}
	return out
}

func TestUVLockFiles(t *testing.T) {
	l := mustUV(t, uvHead+uvRoot(`dependencies = [{ name = "torch" }, { name = "old" }]`)+uvPackageText("torch", "2.12.1+cu130")+
		"[[package]]\nname = \"old\"\nversion = \"1.0\"\nsource = { registry = \"../wheels\" }\nsdist = { path = \"old-1.0.tar.gz\", hash = \"sha256:"+hashB+"\" }\nwheels = [\n"+
		"  { path = \"old-1.0-py2-none-any.whl\", hash = \"sha256:"+hashA+"\", size = 9, upload-time = \"2026-01-01T00:00:00Z\", zstd = { hash = \"sha256:00\", size = 1 } },\n"+
		"  { filename = \"old-1.0-cp312-none-win32.whl\", hash = \"md5:00\" },\n]\n")
	var got []string
	for _, p := range l.Pins {
		for _, f := range p.Files {
			got = append(got, fmt.Sprintf("%s %s %s %d", p.Where, f.Name, f.Digest.Hex()[:2], f.Size))
		}
	}
	want := []string{
		"uv.lock:9 torch-2.12.1+cu130-py3-none-any.whl aa 7",
		"uv.lock:15 old-1.0-py2-none-any.whl aa 9",
		"uv.lock:15 old-1.0.tar.gz bb -1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	notes := strings.Join(l.Notes, "\n")
	if !strings.Contains(notes, "not carried, being the project itself: app") || !strings.Contains(notes, "locked from another index than the most") {
		t.Errorf("notes: %s", notes)
	}
	pins, err := l.forTarget(mustTarget(t, "cp312-win_amd64"))
	if d := cmp.Diff([]string{"torch 2.12.1+cu130", "old 1.0"}, pinNames(pins)); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	// The wheel without a sha256 matters to the target that would take it.
	_, err = l.forTarget(mustTarget(t, "cp312-win32"))
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-UNHASHED", "uv.lock:15")
}

func TestUVLockWalk(t *testing.T) {
	twice := uvPackageText("a", "1") + uvPackageText("a", "2")
	for name, c := range map[string]struct {
		text string
		want []string
		code string
	}{
		"nobody needs it": {uvRoot() + uvPackageText("a", "1"), nil, ""},
		"cycle":           {uvRoot(`dependencies = [{ name = "a" }]`) + uvPackageText("a", "1", `dependencies = [{ name = "b" }]`) + uvPackageText("b", "1", `dependencies = [{ name = "a" }, { name = "app" }]`), []string{"a 1", "b 1"}, ""},
		"extra": {
			uvRoot(`dependencies = [{ name = "a", extra = ["x"] }]`) + uvPackageText("a", "1", "[package.optional-dependencies]", `x = [{ name = "b" }]`, `y = [{ name = "c" }]`) + uvPackageText("b", "1") + uvPackageText("c", "1"),
			[]string{"a 1", "b 1"},
			"",
		},
		"marker":        {uvRoot(`dependencies = [{ name = "a", marker = "sys_platform == 'darwin'" }]`) + uvPackageText("a", "1"), nil, ""},
		"fork":          {uvRoot(`dependencies = [{ name = "a" }]`) + uvPackageText("a", "1", `resolution-markers = ["sys_platform == 'darwin'"]`) + uvPackageText("a", "2", `resolution-markers = ["sys_platform == 'win32'", "sys_platform == 'linux'"]`), []string{"a 2"}, ""},
		"by version":    {uvRoot(`dependencies = [{ name = "a", version = "1.0" }]`) + twice, []string{"a 1"}, ""},
		"two certain":   {uvRoot(`dependencies = [{ name = "a" }]`) + twice, nil, "PYPI-LOCK-CONFLICT"},
		"two open":      {uvRoot("[package.optional-dependencies]", `x = [{ name = "a", version = "1" }]`, `y = [{ name = "a", version = "2" }]`) + twice, []string{"a 1", "a 2"}, ""},
		"git":           {uvRoot(`dependencies = [{ name = "a" }]`) + "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { git = \"https://git.example/a?rev=1#2\" }\n", nil, "PYPI-LOCK-URL"},
		"path":          {uvRoot(`dependencies = [{ name = "a" }]`) + "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { editable = \"../a\" }\n", nil, "PYPI-LOCK-URL"},
		"git not for":   {uvRoot(`dependencies = [{ name = "a", marker = "os_name == 'java'" }]`) + "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { url = \"https://files.example/a-1.zip\" }\n", nil, ""},
		"other python":  {"", nil, "PYPI-LOCK-PYTHON"},
		"other system":  {"supported-markers = [\"sys_platform == 'linux'\"]\n" + uvRoot(), nil, "PYPI-LOCK-ENVIRONMENT"},
		"no fork":       {"resolution-markers = [\"sys_platform == 'linux'\"]\n" + uvRoot(), nil, "PYPI-LOCK-ENVIRONMENT"},
		"group":         {uvRoot("[package.dev-dependencies]", `dev = [{ name = "a" }]`) + uvPackageText("a", "1"), []string{"a 1"}, ""},
		"group renamed": {uvRoot("[package.dependency-groups]", `dev = [{ name = "a" }]`) + uvPackageText("a", "1"), []string{"a 1"}, ""},
		"manifest":      {"[manifest]\nrequirements = [{ name = \"a\", specifier = \">1\" }]\n[manifest.dependency-groups]\ndev = [{ name = \"b\" }]\n" + twice + uvPackageText("b", "1"), []string{"a 2", "b 1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := "cp312-win_amd64"
			if name == "other python" {
				target = "cp38-win_amd64"
			}
			pins, err := mustUV(t, uvHead+c.text).forTarget(mustTarget(t, target))
			if c.code != "" {
				wantRefusal(t, err, ErrLock, c.code, "uv.lock")
				return
			}
			if d := cmp.Diff(c.want, pinNames(pins)); err != nil || d != "" {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

func TestUVLockRefused(t *testing.T) {
	many := strings.Repeat(uvPackageText("a", "1"), maxVersionsOf+1)
	for name, c := range map[string]struct{ text, code, where string }{
		"no version":      {"", "PYPI-LOCK-VERSION", "uv.lock"},
		"major":           {"version = 2\npackage = 5", "PYPI-LOCK-VERSION", "uv.lock"},
		"poetry":          {"[[package]]\nname = \"a\"\n[metadata]\nlock-version = \"2.1\"", "PYPI-LOCK-VERSION", "uv.lock"},
		"not toml":        {uvHead + "[[package", "PYPI-LOCK-SYNTAX", "uv.lock:4"},
		"key twice":       {uvHead + "revision = 2", "PYPI-LOCK-SYNTAX", "uv.lock"},
		"deep":            {uvHead + "x = " + strings.Repeat("[", 1<<20), "PYPI-LOCK-SYNTAX", "uv.lock"},
		"name":            {uvHead + uvRoot() + uvPackageText("A_b", "1"), "PYPI-LOCK-SYNTAX", ":9"},
		"no source":       {uvHead + "[[package]]\nname = \"a\"\nversion = \"1\"", "PYPI-LOCK-SYNTAX", ":4"},
		"unknown source":  {uvHead + "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { carrier = \"pigeon\" }", "PYPI-LOCK-SYNTAX", ":4"},
		"unpinned":        {uvHead + "[[package]]\nname = \"a\"\nsource = { registry = \"https://index.example\" }", "PYPI-LOCK-UNPINNED", ":4"},
		"no files":        {uvHead + "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { registry = \"https://index.example\" }", "PYPI-LOCK-SYNTAX", ":4"},
		"dangling":        {uvHead + uvRoot(`dependencies = [{ name = "b" }]`), "PYPI-LOCK-SYNTAX", ":4"},
		"other version":   {uvHead + uvRoot(`dependencies = [{ name = "a", version = "3" }]`) + uvPackageText("a", "1"), "PYPI-LOCK-SYNTAX", ":4"},
		"marker":          {uvHead + uvRoot(`dependencies = [{ name = "a", marker = "nope" }]`) + uvPackageText("a", "1"), "PYPI-LOCK-SYNTAX", ":4"},
		"fork":            {uvHead + uvRoot() + uvPackageText("a", "1", `resolution-markers = ["("]`), "PYPI-LOCK-SYNTAX", ":9"},
		"no root":         {uvHead + uvPackageText("a", "1"), "PYPI-LOCK-SYNTAX", "uv.lock"},
		"lost member":     {uvHead + "[manifest]\nmembers = [\"a\"]\n" + uvPackageText("a", "1"), "PYPI-LOCK-SYNTAX", "uv.lock"},
		"other project":   {uvHead + uvRoot() + strings.Replace(uvPackageText("a", "1"), "/a-1", "/b-1", 1), "PYPI-LOCK-FILE", ":9"},
		"escape":          {uvHead + uvRoot() + strings.Replace(uvPackageText("a", "1"), "/a-1", "/..%2fa-1", 1), "PYPI-LOCK-FILE", ":9"},
		"short hash":      {uvHead + uvRoot() + strings.Replace(uvPackageText("a", "1"), hashA, "aa", 1), "PYPI-LOCK-FILE", ":9"},
		"many versions":   {uvHead + uvRoot() + many, "PYPI-LOCK-LIMIT", "uv.lock"},
		"requires-python": {"version = 1\nrequires-python = \"three\"", "PYPI-LOCK-SYNTAX", "uv.lock"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseUVLock([]byte(c.text), "uv.lock")
			wantRefusal(t, err, ErrLock, c.code, c.where)
		})
	}
}

// A lock whose every package depends on every version of every other must not
// cost what it suggests.
func TestUVLockManyEdges(t *testing.T) {
	deps := strings.Repeat(`{ name = "a" },`, maxUVEdges/maxVersionsOf+1)
	text := uvHead + uvRoot("dependencies = ["+deps+"]")
	for i := range maxVersionsOf {
		text += uvPackageText("a", fmt.Sprint(i))
	}
	_, err := parseUVLock([]byte(text), "uv.lock")
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-LIMIT", "uv.lock")
}

// A name in a URL is decoded once: what is left of a second encoding is no
// version.
func TestUVLockDecodedOnce(t *testing.T) {
	l := mustUV(t, uvHead+uvRoot(`dependencies = [{ name = "a" }]`)+strings.Replace(uvPackageText("a", "1"), "a-1-py3", "a-1%252B2-py3", 1))
	if len(l.Pins) != 1 || len(l.Pins[0].Files) != 0 || l.Pins[0].Files == nil {
		t.Errorf("%+v", l.Pins)
	}
}

func TestUVLockRevision(t *testing.T) {
	l := mustUV(t, strings.Replace(uvHead, "revision = 3", "revision = 4", 1)+uvRoot())
	if !strings.Contains(strings.Join(l.Notes, "\n"), "revision 4 is newer than 3") {
		t.Errorf("notes: %q", l.Notes)
	}
}

func TestReadUVLockByName(t *testing.T) {
	dir := folder(t, map[string]string{"uv.lock": uvHead + uvRoot(`dependencies = [{ name = "a" }]`) + uvPackageText("a", "1")})
	l, err := ReadLock(filepath.Join(dir, "uv.lock"))
	if err != nil || len(l.Pins) != 1 || l.Pins[0].Name != "a" {
		t.Fatalf("%+v %v", l, err)
	}
	err = l.Choose(Choice{Extras: []string{"gpu"}})
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-CHOICE", "uv.lock")
}

func TestDecideMarker(t *testing.T) {
	chosen := func(_, name string) packaging.Truth {
		return map[string]packaging.Truth{"gone": packaging.False, "some": packaging.Maybe, "here": packaging.True}[name]
	}
	target := mustTarget(t, "cp312-win_amd64")
	for text, want := range map[string]string{
		"extra == 'some'":                                     "maybe",
		"extra != 'some'":                                     "maybe",
		"extra == 'gone'":                                     "false",
		"extra != 'gone'":                                     "true",
		"extra == 'here'":                                     "true",
		"'here' not in extras":                                "false",
		`"gone" == extra`:                                     "false",
		"'some' in extras":                                    "maybe",
		"'gone' in extras":                                    "false",
		"'gone' not in dependency_groups":                     "true",
		"(extra=='some' or os_name=='nt')":                    "true",
		"extra == 'some' and os_name == 'posix'":              "false",
		"extra == 'some' and extra == 'gone'":                 "false",
		"os_name != \"extra == 'gone'\"":                      "true",
		"os_name == \"extra == 'gone'\" or extra == 'gone'":   "false",
		"python_version >= '3.9' and 'gone' not in extras":    "true",
		"sys_platform == 'win32' and ('some' in extras)":      "maybe",
		"platform_release >= '5' and extra == 'gone'":         "false",
		"'' in os_name and extra != 'gone' and extra!='some'": "maybe",
	} {
		m, err := decideMarker(text, chosen)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := [3]string{"false", "maybe", "true"}[m.Eval(&target.Env)]; got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestChooseOfPylock(t *testing.T) {
	l, err := parsePylock([]byte(pylockHead+"extras = [\"x\"]\ndependency-groups = [\"dev\"]\n"+
		"[[packages]]\nname = \"a\"\nversion = \"1\"\nmarker = \"'x' in extras\"\nwheels = [{name = \"a-1-py3-none-any.whl\", hashes = {sha256 = \""+hashA+"\"}}]\n"+
		"[[packages]]\nname = \"b\"\nversion = \"1\"\nmarker = \"'dev' in dependency_groups\"\nwheels = [{name = \"b-1-py3-none-any.whl\", hashes = {sha256 = \""+hashA+"\"}}]\n"), "pylock.toml")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Choose(Choice{Extras: []string{"X"}, Groups: []string{}}); err != nil {
		t.Fatal(err)
	}
	pins, err := l.forTarget(mustTarget(t, "cp312-win_amd64"))
	if d := cmp.Diff([]string{"a 1"}, pinNames(pins)); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}
