package pypi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	hashA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hashB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func mustTarget(t *testing.T, s string) *packaging.Target {
	t.Helper()
	target, err := packaging.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// folder writes files into a new folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wantRefusal checks code and place of a refusal, and its class.
func wantRefusal(t *testing.T, err, class error, code, subject string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		t.Fatalf("got %v, want a refusal %s", err, code)
	}
	if r.Code != code || !errors.Is(err, class) || !strings.Contains(r.Subject, subject) {
		t.Fatalf("got %v (%v), want %s at %q (%v)", err, r.Class, code, subject, class)
	}
}

func TestReadRequirements(t *testing.T) {
	dir := folder(t, map[string]string{
		"requirements.txt": "\ufeff# made by a tool\n--index-url https://user:secret@index.example/simple\n--extra-index-url=https://index.example/x\n" +
			"Foo_Bar[extra1,extra2]==1.0 ; python_version < \"3.13\" \\\n    --hash=sha256:" + hashA + " \\\n    --hash=sha256:" + strings.ToUpper(hashB) + "\n    # via baz\n" +
			"\r\nbaz===2.0 --hash sha256:" + hashB + " --hash=sha512:00\r\n-r sub/more.txt\n-c constraints.txt\n--require-hashes\n--no-binary :none:\n",
		"sub/more.txt":    "more==3 --hash=sha256:" + hashA + "\n-r deep.txt",
		"sub/deep.txt":    "deep==4 --hash=sha256:" + hashA,
		"constraints.txt": "more>=2\nother<5\n",
	})
	l, err := ReadLock(filepath.Join(dir, "requirements.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range l.Pins {
		got = append(got, p.Where+" "+p.Name+" "+p.Version.String()+" "+p.Marker.String())
	}
	want := []string{`requirements.txt:4 foo-bar 1.0 python_version < "3.13"`, "requirements.txt:9 baz 2.0 ", "sub/more.txt:1 more 3 ", "sub/deep.txt:1 deep 4 "}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(l.Pins[0].Digests); n != 2 {
		t.Errorf("%d hashes, want 2", n)
	}
	notes := strings.Join(l.Notes, "\n")
	if !strings.Contains(notes, "requirements.txt:2: --index-url is ignored") || strings.Contains(notes, "secret") || strings.Contains(notes, "index.example") {
		t.Errorf("notes: %s", notes)
	}
	pins, err := l.forTarget(mustTarget(t, "cp313-win_amd64"))
	if err != nil || len(pins) != 3 {
		t.Errorf("cp313: %d pins, %v", len(pins), err)
	}
}

func TestRequirementsRefused(t *testing.T) {
	hash := " --hash=sha256:" + hashA
	for name, c := range map[string]struct{ text, code, where string }{
		"unpinned":          {"\nfoo>=1" + hash, "PYPI-LOCK-UNPINNED", "requirements.txt:2"},
		"wildcard":          {"foo==1.*" + hash, "PYPI-LOCK-UNPINNED", ":1"},
		"bare":              {"foo" + hash, "PYPI-LOCK-UNPINNED", ":1"},
		"two clauses":       {"foo==1,!=2" + hash, "PYPI-LOCK-UNPINNED", ":1"},
		"unhashed":          {"foo==1", "PYPI-LOCK-UNHASHED", ":1"},
		"only sha512":       {"foo==1 --hash=sha512:00", "PYPI-LOCK-UNHASHED", ":1"},
		"md5":               {"foo==1 --hash=md5:00", "PYPI-LOCK-HASH", ":1"},
		"short hash":        {"foo==1 --hash=sha256:00", "PYPI-LOCK-HASH", ":1"},
		"url":               {"foo @ https://files.example/foo-1.0.tar.gz" + hash, "PYPI-LOCK-URL", ":1"},
		"bare url":          {"https://files.example/foo-1.0.tar.gz" + hash, "PYPI-LOCK-SYNTAX", ":1"},
		"path":              {"./foo-1.0.tar.gz" + hash, "PYPI-LOCK-SYNTAX", ":1"},
		"editable":          {"-e .", "PYPI-LOCK-EDITABLE", ":1"},
		"option":            {"--install-magic", "PYPI-LOCK-OPTION", ":1"},
		"option behind":     {"foo==1" + hash + " --global-option=x", "PYPI-LOCK-HASH", ":1"},
		"escape":            {"-r ../x.txt", "PYPI-LOCK-INCLUDE", ":1"},
		"absolute":          {"-r /etc/passwd", "PYPI-LOCK-INCLUDE", ":1"},
		"include url":       {"-r https://files.example/r.txt", "PYPI-LOCK-INCLUDE", ":1"},
		"missing":           {"\n\n-rnone.txt", "PYPI-LOCK-INCLUDE", ":3"},
		"itself":            {"--requirement=requirements.txt", "PYPI-LOCK-INCLUDE", ":1"},
		"symlink out":       {"-r link.txt", "PYPI-LOCK-INCLUDE", ":1"},
		"not utf-8":         {"foo==1\xff", "PYPI-LOCK-SYNTAX", "requirements.txt"},
		"bad marker":        {"foo==1 ; os_name" + hash, "PYPI-LOCK-SYNTAX", ":1"},
		"comment cuts":      {"foo==1 \\\n# via x\n" + hash[1:], "PYPI-LOCK-UNHASHED", ":1"},
		"bad version":       {"foo==one" + hash, "PYPI-LOCK-SYNTAX", ":1"},
		"arbitrary version": {"foo===one" + hash, "PYPI-LOCK-UNPINNED", ":1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{"requirements.txt": c.text})
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.txt")); err != nil {
				t.Fatal(err)
			}
			_, err := ReadLock(filepath.Join(dir, "requirements.txt"))
			wantRefusal(t, err, ErrLock, c.code, c.where)
			if strings.Contains(err.Error(), dir) {
				t.Errorf("the text names a folder of this host: %v", err)
			}
		})
	}
}

func TestLockForTarget(t *testing.T) {
	hash := " --hash=sha256:" + hashA + "\n"
	for name, c := range map[string]struct{ text, code string }{
		"two versions":     {"foo==1" + hash + "foo==2" + hash, "PYPI-LOCK-CONFLICT"},
		"same twice":       {"foo==1" + hash + "foo==1.0" + hash, ""},
		"split by marker":  {"foo==1 ; python_version < '3.12'" + hash + "foo==2 ; python_version >= '3.12'" + hash, ""},
		"constraint":       {"foo==1" + hash + "-c c.txt\n", "PYPI-LOCK-CONSTRAINT"},
		"other constraint": {"fool==1" + hash + "-c c.txt\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{"r.in": c.text, "c.txt": "foo>1"})
			l, err := ReadLock(filepath.Join(dir, "r.in"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.forTarget(mustTarget(t, "cp312-win_amd64"))
			if c.code != "" {
				wantRefusal(t, err, ErrLock, c.code, "r.in:")
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

const pylockHead = "lock-version = \"1.0\"\ncreated-by = \"test\"\nrequires-python = \">=3.9\"\nenvironments = [\"sys_platform == 'linux'\", \"sys_platform == 'win32'\"]\n"

func TestParsePylock(t *testing.T) {
	l, err := parsePylock([]byte(pylockHead+`
extras = ["x"]
[[packages]]
name = "torch"
version = "2.1.0+cu130"
marker = "'x' in extras"
index = "https://index.example/simple"
wheels = [
  { url = "https://files.example/torch-2.1.0%2Bcu130-cp312-cp312-win_amd64.whl", upload-time = 2026-01-01T00:00:00Z, size = 12, hashes = { sha256 = "`+hashA+`" } },
  { name = "torch-2.1.0+cu130-py3-none-any.whl", path = "wheels/x.whl", hashes = { sha256 = "`+hashB+`", md5 = "x" } },
]
[[packages]]
name = "six"
version = "1.17.0"
sdist = { url = "https://files.example/six-1.17.0.tar.gz", hashes = { sha256 = "`+hashA+`" } }
[packages.tool.x]
y = 1
[[packages.dependencies]]
name = "torch"
[tool.x]
z = 1
`), "pylock.toml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range l.Pins {
		for _, f := range p.Files {
			got = append(got, p.Where+" "+p.Name+" "+p.Version.String()+" "+f.Name+" "+f.Digest.Hex()[:2])
		}
	}
	want := []string{
		"pylock.toml:7 torch 2.1.0+cu130 torch-2.1.0+cu130-cp312-cp312-win_amd64.whl aa",
		"pylock.toml:7 torch 2.1.0+cu130 torch-2.1.0+cu130-py3-none-any.whl bb",
		"pylock.toml:16 six 1.17.0 six-1.17.0.tar.gz aa",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if l.Pins[0].Files[0].Size != 12 || l.Pins[0].Files[1].Size != -1 {
		t.Errorf("sizes: %+v", l.Pins[0].Files)
	}
	if pins, err := l.forTarget(mustTarget(t, "cp312-win_amd64")); err != nil || len(pins) != 2 {
		t.Errorf("%d pins, %v", len(pins), err)
	}
	_, err = l.forTarget(mustTarget(t, "cp312-macosx_13_0_arm64"))
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-ENVIRONMENT", "pylock.toml")
	_, err = l.forTarget(mustTarget(t, "cp38-win_amd64"))
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-PYTHON", "pylock.toml")
}

func TestPylockRefused(t *testing.T) {
	file := func(name string) string {
		return "wheels = [{ name = \"" + name + "\", hashes = { sha256 = \"" + hashA + "\" } }]\n"
	}
	good := file("x-1-py3-none-any.whl")
	for name, c := range map[string]struct{ text, code, where string }{
		"no version key":  {"", "PYPI-LOCK-VERSION", "pylock.toml"},
		"major":           {"lock-version = \"2.0\"", "PYPI-LOCK-VERSION", "pylock.toml"},
		"not toml":        {"lock-version = \"1.0\"\n[[packages", "PYPI-LOCK-SYNTAX", "pylock.toml:2"},
		"type":            {"lock-version = 1.0", "PYPI-LOCK-SYNTAX", "pylock.toml:1"},
		"no version":      {pylockHead + "[[packages]]\nname = \"x\"\n" + good, "PYPI-LOCK-UNPINNED", ":5"},
		"vcs":             {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\n[packages.vcs]\ntype = \"git\"", "PYPI-LOCK-URL", ":5"},
		"directory":       {pylockHead + "[[packages]]\nname = \"x\"\n[packages.directory]\npath = \".\"", "PYPI-LOCK-URL", ":5"},
		"archive":         {pylockHead + "[[packages]]\nname = \"x\"\narchive = { url = \"https://files.example/x.zip\" }", "PYPI-LOCK-URL", ":5"},
		"name":            {pylockHead + "[[packages]]\nname = \"X_y\"\nversion = \"1\"\n" + good, "PYPI-LOCK-SYNTAX", ":5"},
		"no files":        {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"", "PYPI-LOCK-SYNTAX", ":5"},
		"no hash":         {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\nwheels = [{name = \"x-1-py3-none-any.whl\", hashes = {md5 = \"0\"}}]", "PYPI-LOCK-UNHASHED", ":5"},
		"other project":   {pylockHead + "[[packages]]\nname = \"y\"\nversion = \"1\"\n" + good, "PYPI-LOCK-FILE", ":5"},
		"other version":   {pylockHead + "\n[[packages]]\nname = \"x\"\nversion = \"2\"\n" + good, "PYPI-LOCK-FILE", ":6"},
		"escape":          {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\n" + file("../x-1-py3-none-any.whl"), "PYPI-LOCK-FILE", ":5"},
		"decoded twice":   {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\nwheels = [{url = \"https://files.example/..%2fx-1-py3-none-any.whl\", hashes = {sha256 = \"" + hashA + "\"}}]", "PYPI-LOCK-FILE", ":5"},
		"name and url":    {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\nwheels = [{name = \"x-1-py3-none-any.whl\", url = \"https://files.example/x-2-py3-none-any.whl\", hashes = {sha256 = \"" + hashA + "\"}}]", "PYPI-LOCK-FILE", ":5"},
		"marker":          {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\nmarker = \"nope\"\n" + good, "PYPI-LOCK-SYNTAX", ":5"},
		"requires-python": {pylockHead + "[[packages]]\nname = \"x\"\nversion = \"1\"\nrequires-python = \"three\"\n" + good, "PYPI-LOCK-SYNTAX", ":5"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsePylock([]byte(c.text), "pylock.toml")
			wantRefusal(t, err, ErrLock, c.code, c.where)
		})
	}
}

func TestReadLockMissing(t *testing.T) {
	_, err := ReadLock(filepath.Join(t.TempDir(), "none.txt"))
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-READ", "none.txt")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}
