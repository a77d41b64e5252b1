package trivy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// gathered are files and what they tell.
var gathered = []struct {
	name string
	path []string
	text string
	want scan.Evidence
}{
	{
		"wheel",
		[]string{"my_app-1.0-py3-none-any.whl", "my_app-1.0.dist-info/METADATA"},
		"Metadata-Version: 2.4\nName: My.App\nVersion: 1.0\nLicense-Expression: MIT OR Apache-2.0\nAuthor-email: A <a@b.example>\nProject-URL: Homepage, https://my.example\nRequires-Dist: x\n\nName: in the text\n",
		scan.Evidence{Form: "dist-info", Packages: []scan.Package{{
			Type: "pypi", Name: "My.App", Version: "1.0", Licences: []string{"MIT OR Apache-2.0"}, Maintainer: "A <a@b.example>", Homepage: "https://my.example",
		}}},
	},
	{
		"licence classifiers",
		[]string{"layer", "", "./opt/venv/lib/x-1.dist-info/METADATA"},
		"Name: x\nVersion: 1\nLicense: UNKNOWN\nClassifier: Programming Language :: Python\nClassifier: License :: OSI Approved :: Apache Software License\nHome-page: https://x.example\n",
		scan.Evidence{Form: "dist-info", Packages: []scan.Package{{Type: "pypi", Name: "x", Version: "1", Licences: []string{"Apache-2.0"}, Homepage: "https://x.example"}}},
	},
	{
		"vendored",
		[]string{"a.whl", "a/_vendor/b-2.dist-info/METADATA"},
		"Name: b\nVersion: 2\n",
		scan.Evidence{Form: "dist-info", Packages: []scan.Package{{Type: "pypi", Name: "b", Version: "2"}}},
	},
	{
		"egg-info",
		[]string{"layer", "usr/lib/python3/dist-packages/b.egg-info/PKG-INFO"},
		"Name: b\nVersion: 2\n",
		scan.Evidence{Form: "egg-info", Packages: []scan.Package{{Type: "pypi", Name: "b", Version: "2"}}},
	},
	{
		"egg-info file",
		[]string{"layer", "usr/lib/python3/dist-packages/b-2.egg-info"},
		"Name: b\nVersion: 2\n",
		scan.Evidence{Form: "egg-info", Packages: []scan.Package{{Type: "pypi", Name: "b", Version: "2"}}},
	},
	{
		"egg",
		[]string{"b.egg", "EGG-INFO/PKG-INFO"},
		"Name: b\nVersion: 2\n",
		scan.Evidence{Form: "egg-info", Packages: []scan.Package{{Type: "pypi", Name: "b", Version: "2"}}},
	},
	{
		"sdist",
		[]string{"b-2.tar.gz", "", "b-2/PKG-INFO"},
		"Name: b\nVersion: 2\n",
		scan.Evidence{Form: "sdist", Packages: []scan.Package{{Type: "pypi", Name: "b", Version: "2"}}},
	},
	{
		"control",
		[]string{"b.deb", "control.tar.xz", "", "./control"},
		"Package: libb1\nSource: b (2:1.0-1)\nVersion: 2:1.0-1+b1\nArchitecture: amd64\nMaintainer: M <m@b.example>\nHomepage: https://b.example\nDescription: x\n y\n",
		scan.Evidence{Form: "control", Packages: []scan.Package{{
			Type: "deb", Name: "libb1", Version: "2:1.0-1+b1", Arch: "amd64", SrcName: "b", SrcVer: "2:1.0-1", Maintainer: "M <m@b.example>", Homepage: "https://b.example",
		}}},
	},
	{
		"dpkg status",
		[]string{"layer", "", "var/lib/dpkg/status"},
		krb5,
		scan.Evidence{Form: "dpkg", Packages: []scan.Package{{
			Type: "deb", Name: "libkrb5-3", Version: "1.20.1-2+deb12u3", Arch: "amd64", SrcName: "krb5", SrcVer: "1.20.1-2+deb12u3", Maintainer: "Sam <sam@debian.example>",
		}}},
	},
	{
		"distroless",
		[]string{"layer", "./var/lib/dpkg/status.d/tzdata"},
		"Package: tzdata\nVersion: 2024a-0+deb12u1\n",
		scan.Evidence{Form: "dpkg", Packages: []scan.Package{{Type: "deb", Name: "tzdata", Version: "2024a-0+deb12u1", SrcName: "tzdata", SrcVer: "2024a-0+deb12u1"}}},
	},
	{
		"os-release",
		[]string{"layer", "usr/lib/os-release"},
		osRelease,
		scan.Evidence{Form: "os-release", OSFamily: "debian", OSVersion: "12"},
	},
	{
		"apk",
		[]string{"layer", "lib/apk/db/installed"},
		"C:Q1x=\nP:busybox\nV:1.36.1-r2\nA:x86_64\nL:GPL-2.0-only\no:bb\nm:M <m@a.example>\nF:bin\nR:busybox\n\nP:musl\nV:1.2.4-r1\n\n",
		scan.Evidence{Form: "apk", Packages: []scan.Package{
			{Type: "apk", Name: "busybox", Version: "1.36.1-r2", Arch: "x86_64", SrcName: "bb", SrcVer: "1.36.1-r2", Licences: []string{"GPL-2.0-only"}, Maintainer: "M <m@a.example>"},
			{Type: "apk", Name: "musl", Version: "1.2.4-r1", SrcName: "musl", SrcVer: "1.2.4-r1"},
		}},
	},
	{
		"copyright",
		[]string{"b.deb", "data.tar.xz", "", "./usr/share/doc/libb1/copyright"},
		"Format: https://www.example/copyright-format/1.0/\nFiles: *\nCopyright: me\nLicense: GPL-2+ or Expat\n text\n\nFiles: x\nLicense: Expat\n",
		scan.Evidence{Form: "copyright", Packages: []scan.Package{{Type: "deb", Name: "libb1", Licences: []string{"GPL-2.0-or-later", "MIT"}}}},
	},
	{
		"old copyright",
		[]string{"layer", "usr/share/doc/b/copyright"},
		"It is free, see /usr/share/common-licenses/GPL-3.\n",
		scan.Evidence{Form: "copyright", Packages: []scan.Package{{Type: "deb", Name: "b", Licences: []string{"GPL-3.0-only"}}}},
	},
	{
		"requirements",
		[]string{"requirements.txt"},
		"a==1.0  # note\nb>=2\nc[x]==3 ; python_version > '3' --hash=sha256:00\n",
		scan.Evidence{Form: "requirements.txt", Packages: []scan.Package{{Type: "pypi", Name: "a", Version: "1.0"}, {Type: "pypi", Name: "c", Version: "3"}}},
	},
	{
		"poetry",
		[]string{"repo.tar", "x/poetry.lock"},
		"[[package]]\nname = \"a\"\nversion = \"1.0\"\n[metadata]\nlock-version = \"2.0\"\n",
		scan.Evidence{Form: "poetry.lock", Packages: []scan.Package{{Type: "pypi", Name: "a", Version: "1.0"}}},
	},
	{
		"uv",
		[]string{"repo.tar", "uv.lock"},
		"version = 1\n[[package]]\nname = \"root\"\nversion = \"0\"\nsource = { virtual = \".\" }\ndependencies = [{ name = \"a\" }]\n[[package]]\nname = \"a\"\nversion = \"1.0\"\nsource = { registry = \"https://index.example\" }\n",
		scan.Evidence{Form: "uv.lock", Packages: []scan.Package{{Type: "pypi", Name: "a", Version: "1.0"}}},
	},
	{
		"pylock",
		[]string{"repo.tar", "pylock.dev.toml"},
		"lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nversion = \"1.0\"\n",
		scan.Evidence{Form: "pylock.toml", Packages: []scan.Package{{Type: "pypi", Name: "a", Version: "1.0"}}},
	},
	{
		"pipenv",
		[]string{"repo.tar", "Pipfile.lock"},
		`{"_meta":{},"default":{"a":{"version":"==1.0"}},"develop":{}}`,
		scan.Evidence{Form: "Pipfile.lock", Packages: []scan.Package{{Type: "pypi", Name: "a", Version: "1.0"}}},
	},
	{
		"npm 3",
		[]string{"repo.tar", "package-lock.json"},
		`{"lockfileVersion":3,"packages":{"":{"name":"root","version":"0"},"node_modules/@s/a":{"version":"1.0.0"}}}`,
		scan.Evidence{Form: "package-lock.json", Packages: []scan.Package{{Type: "npm", Name: "@s/a", Version: "1.0.0"}}},
	},
	{
		"npm 1",
		[]string{"repo.tar", "npm-shrinkwrap.json"},
		`{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0"}}}`,
		scan.Evidence{Form: "npm-shrinkwrap.json", Packages: []scan.Package{{Type: "npm", Name: "a", Version: "1.0.0"}}},
	},
	{
		"yarn",
		[]string{"repo.tar", "yarn.lock"},
		"# yarn lockfile v1\n\n\na@^1.0.0:\n  version \"1.0.0\"\n  resolved \"https://npm.example/a\"\n",
		scan.Evidence{Form: "yarn.lock", Packages: []scan.Package{{Type: "npm", Name: "a", Version: "1.0.0"}}},
	},
	{
		"pnpm",
		[]string{"repo.tar", "pnpm-lock.yaml"},
		"lockfileVersion: '9.0'\nimporters:\n  .:\n    dependencies:\n      a:\n        specifier: ^1\n        version: 1.0.0\npackages:\n  a@1.0.0:\n    resolution: {integrity: sha512-x}\nsnapshots:\n  a@1.0.0: {}\n",
		scan.Evidence{Form: "pnpm-lock.yaml", Packages: []scan.Package{{Type: "npm", Name: "a", Version: "1.0.0"}}},
	},
	{
		"unreadable lock",
		[]string{"repo.tar", "poetry.lock"},
		"[[[",
		scan.Evidence{Form: "poetry.lock (unreadable)"},
	},
	{
		"node",
		[]string{"layer", "app/node_modules/a/package.json"},
		`{"name":"a","version":"1.0.0","license":"MIT"}`,
		scan.Evidence{Form: "package.json", Packages: []scan.Package{{Type: "npm", Name: "a", Version: "1.0.0", Licences: []string{"MIT"}}}},
	},
	{
		"rpm", []string{"layer", "var/lib/rpm/Packages"}, "\x00binary", scan.Evidence{Form: "rpm"},
	},
}

func TestGather(t *testing.T) {
	s := gathering(t)
	for _, c := range gathered {
		t.Run(c.name, func(t *testing.T) {
			c.want.Path = c.path[1:]
			if diff := cmp.Diff(c.want, gather(t, s, c.text, c.path...), cmp.Transformer("empty", func(l []string) string { return strings.Join(l, "|") })); diff != "" {
				t.Errorf("evidence (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGatherLeavesOtherFilesAlone(t *testing.T) {
	s := gathering(t)
	for _, p := range [][]string{
		{"a.whl"},
		{"a.whl", "METADATA"},
		{"a.whl", "a-1.dist-info/RECORD"},
		{"a.whl", "a/METADATA"},
		{"a.tar.gz", "", "a-1/docs/PKG-INFO"},
		{"layer", "control"},
		{"layer", "opt/var/lib/dpkg/status"},
		{"layer", "var/lib/dpkg/status.d/x.md5sums"},
		{"layer", "opt/etc/os-release"},
		{"layer", "usr/share/doc/x/changelog"},
		{"b.deb", "control.tar.gz", "", "postinst"},
	} {
		if ev, err := s.Gather(t.Context(), walk.NewFile(walk.Text, []byte("Name: a\nVersion: 1\n"), p...)); ev != nil || err != nil {
			t.Errorf("%v: %+v, %v, want nothing", p, ev, err)
		}
	}
	link := walk.NewFile(walk.Text, []byte(osRelease), "layer", "etc/os-release")
	link.Mode, link.Link = fs.ModeSymlink, "../usr/lib/os-release"
	if ev, err := s.Gather(t.Context(), link); ev != nil || err != nil {
		t.Errorf("a symlink: %+v, %v, want nothing", ev, err)
	}
	for _, text := range []string{`{"type":"module"}`, `{"name":`, `[]`, `{"name":1,"version":2}`} {
		if ev, err := s.Gather(t.Context(), walk.NewFile(walk.JSON, []byte(text), "layer", "x/package.json")); ev != nil || err != nil {
			t.Errorf("package.json %s: %+v, %v, want nothing", text, ev, err)
		}
	}
}

// Trap 4: what tells of a package and cannot be read is never dropped.
func TestMalformedIsAnError(t *testing.T) {
	s := gathering(t)
	distInfo := []string{"a.whl", "a-1.dist-info/METADATA"}
	control := []string{"a.deb", "control.tar.xz", "", "./control"}
	status := []string{"layer", "var/lib/dpkg/status"}
	for name, c := range map[string]struct {
		path []string
		text string
		want string
	}{
		"empty":                  {distInfo, "", "name or version is empty"},
		"no name":                {distInfo, "Metadata-Version: 2.1\nVersion: 1\n", "name or version is empty"},
		"no version":             {distInfo, "Name: a\n\nVersion: 1\n", "name or version is empty"},
		"two names":              {distInfo, "Name: a\nVersion: 1\nName: b\n", `2 fields "Name"`},
		"two versions":           {distInfo, "Name: a\nVersion: 1\nVersion: 2\n", `2 fields "Version"`},
		"blank name":             {distInfo, "Name:  \nVersion: 1\n", "name or version is empty"},
		"no header":              {distInfo, "\x00\x01\x02", "malformed"},
		"name after a bad line":  {distInfo, "no colon here\nName: a\nVersion: 1\n", "malformed"},
		"control characters":     {distInfo, "Name: a\x1b[31m\nVersion: 1\n", "malformed"},
		"endless name":           {distInfo, "Name: " + strings.Repeat("a", 300) + "\nVersion: 1\n", "name of 300 bytes"},
		"egg-info":               {[]string{"l", "x.egg-info/PKG-INFO"}, "x", "malformed"},
		"sdist":                  {[]string{"l", "x-1/PKG-INFO"}, "x", "malformed"},
		"control without fields": {control, "\n", "0 paragraphs"},
		"control twice":          {control, "Package: a\nVersion: 1\n\nPackage: b\nVersion: 1\n", "2 paragraphs"},
		"control without name":   {control, "Version: 1\n", "want both"},
		"second field":           {control, "Package: a\nPackage: b\nVersion: 1\n", "second field"},
		"no field":               {control, "Package: a\nVersion: 1\nnonsense\n", "line 3: no field"},
		"continues nothing":      {control, " x\nPackage: a\n", "continues nothing"},
		"NUL":                    {control, "Package: a\nVersion: 1\n\x00", "NUL"},
		"odd version":            {control, "Package: a\nVersion: one\n", `version "one"`},
		"odd source":             {control, "Package: a\nVersion: 1\nSource: a (b (c))\n", "source"},
		"odd source version":     {control, "Package: a\nVersion: 1\nSource: a (x)\n", `version "x"`},
		"dpkg without version":   {status, "Package: a\nStatus: install ok installed\n", "want both"},
		"apk without version":    {[]string{"l", "lib/apk/db/installed"}, "P:a\n\n", "want both"},
		"apk garbage":            {[]string{"l", "lib/apk/db/installed"}, "garbage\n", "no field"},
	} {
		t.Run(name, func(t *testing.T) {
			ev, err := s.Gather(t.Context(), walk.NewFile(walk.Text, []byte(c.text), c.path...))
			if err == nil || !strings.Contains(err.Error(), c.want) || ev != nil {
				t.Fatalf("Gather = %+v, %v, want an error with %q", ev, err, c.want)
			}
			if errors.Is(err, scan.ErrEngine) {
				t.Errorf("%v ends the run", err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q holds control characters", err)
			}
		})
	}
}

func TestGatherIsBounded(t *testing.T) {
	s := gathering(t)
	for _, p := range [][]string{{"layer", "var/lib/dpkg/status"}, {"a.whl", "a-1.dist-info/METADATA"}, {"requirements.txt"}} {
		f := walk.NewFile(walk.Text, nil, p...)
		f.Size = maxList + 1
		if ev, err := s.Gather(t.Context(), f); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxList)) {
			t.Errorf("%v: %+v, %v, want an error with the limit", p, ev, err)
		}
	}
}

func FuzzGather(f *testing.F) {
	if len(gathered) == 0 {
		f.Fatal("no seeds")
	}
	for i, c := range gathered {
		f.Add(i, []byte(c.text))
	}
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, n int, text []byte) {
		c := gathered[uint(n)%uint(len(gathered))]
		ev, err := s.Gather(t.Context(), walk.NewFile(walk.Text, text, c.path...))
		if err != nil {
			if ev != nil {
				t.Errorf("evidence %+v beside %v", ev, err)
			}
			return
		}
		if ev == nil {
			return
		}
		for _, p := range ev.Packages {
			if p.Name == "" || p.Version == "" && ev.Form != formCopyright || len(p.Name) > maxField || len(p.Licences) > maxLicences {
				t.Errorf("package %+v of %s", p, ev.Form)
			}
		}
	})
}
