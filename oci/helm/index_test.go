package helm_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/helm"
)

const hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

const index = `apiVersion: v1
generated: "2024-01-02T03:04:05.678901234Z"
serverInfo: {contextPath: /}
entries:
  web:
  - {name: web, version: 1.9.0, digest: ` + hexA + `, urls: [web-1.9.0.tgz]}
  - apiVersion: v2
    appVersion: 1.10
    created: "2024-01-02T03:04:05.678901234Z"
    deprecated: true
    description: |
      A "web" server:
      é
    digest: sha256:` + hexA + `
    kubeVersion: '>=1.20'
    name: web
    type: application
    urls:
    - https://files.example/web-1.10.0.tgz
    - web-1.10.0.tgz
    version: 1.10.0
    maintainers:
    - name: Ann
  - {name: web, version: 1.10.0-rc.2, created: yesterday}
  - {name: web, version: 1.10.0-rc.10, digest: sha1:00}
  - {name: web, version: 1.10.0+b}
  - {name: web, version: v1.10.0}
  db:
  - {name: db, version: 1.0.0}
  none: []
  null:
`

func versions(x *helm.Index, name string) []string {
	var out []string
	for _, e := range x.Versions(name) {
		out = append(out, e.Version)
	}
	return out
}

func TestParseIndex(t *testing.T) {
	x, err := helm.ParseIndex([]byte(index))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"db", "web"}, x.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	want := []string{"1.10.0", "1.10.0+b", "v1.10.0", "1.10.0-rc.10", "1.10.0-rc.2", "1.9.0"}
	if diff := cmp.Diff(want, versions(x, "web")); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	a, err := artifact.ParseHex(hexA)
	if err != nil {
		t.Fatal(err)
	}
	all := x.Versions("web")
	if diff := cmp.Diff(helm.Entry{
		Name: "web", Version: "1.10.0", AppVersion: "1.1", Digest: a,
		URLs:       []string{"https://files.example/web-1.10.0.tgz", "web-1.10.0.tgz"},
		APIVersion: "v2", Description: "A \"web\" server:\né\n", KubeVersion: ">=1.20", Type: "application",
		Created: "2024-01-02T03:04:05.678901234Z", Deprecated: true,
	}, all[0]); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	if all[5].Digest != a || !all[3].Digest.IsZero() || all[4].Created != "" {
		t.Errorf("digests and dates: got %v", all[3:])
	}
	if len(x.Skipped) != 0 {
		t.Errorf("skipped: %v", x.Skipped)
	}
	all[0].Version = "changed"
	if got := x.Versions("web")[0].Version; got != "1.10.0" {
		t.Errorf("the caller changed the index: %s", got)
	}
	if x.Versions("other") != nil {
		t.Error("versions of a chart that is not there")
	}
}

func TestParseIndexTakes(t *testing.T) {
	for name, text := range map[string]string{
		"JSON":       `{"apiVersion":"v1","entries":{"web":[{"name":"web","version":"1.0.0"}]}}`,
		"repeated":   "apiVersion: v1\nentries:\n  web:\n  - {name: web, version: 1.0.0}\n  - {name: web, version: 1.0.0}\n",
		"indented":   "apiVersion: v1\nentries:\n    web:\n      - name: web\n        version: 1.0.0\n",
		"first line": "---\napiVersion: v1\nentries:\n  web:\n  - {name: web, version: 1.0.0}\n",
	} {
		t.Run(name, func(t *testing.T) {
			x, err := helm.ParseIndex([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"1.0.0"}, versions(x, "web")); diff != "" {
				t.Errorf("versions (-want +got):\n%s", diff)
			}
		})
	}
	for _, text := range []string{"apiVersion: v1\nentries: {}\n", "apiVersion: v1\nentries:\n"} {
		x, err := helm.ParseIndex([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Names()) != 0 {
			t.Errorf("%q: names %v", text, x.Names())
		}
	}
}

func TestParseIndexSkips(t *testing.T) {
	for name, c := range map[string]struct{ entry, reason string }{
		"null":         {"~", "not an entry"},
		"word":         {"web", "not an entry"},
		"other name":   {"{name: db, version: 2.0.0}", `calls itself "db"`},
		"no name":      {"{version: 2.0.0}", `calls itself ""`},
		"no version":   {"{name: web}", "version: "},
		"no semver":    {"{name: web, version: newest}", "version: "},
		"long version": {"{name: web, version: 2.0.0-" + strings.Repeat("a", 130) + "}", "version: "},
		"wrong kind":   {"{name: web, version: 2.0.0, urls: {a: b}}", "urls: not the kind of value"},
		"empty url":    {"{name: web, version: 2.0.0, urls: ['']}", "an address of 0 characters"},
		"long url":     {"{name: web, version: 2.0.0, urls: [" + strings.Repeat("a", 9000) + "]}", "an address of 9000 characters"},
		"no url":       {`{name: web, version: 2.0.0, urls: ["http://u:secret@ x/"]}`, "not an address"},
		"many urls":    {"{name: web, version: 2.0.0, urls: [" + strings.Repeat("a,", 17) + "]}", "17 addresses"},
		"two digests":  {"{name: web, version: 2.0.0, digest: " + hexA + "}\n  - {name: web, version: 2.0.0}", "with two digests"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := helm.ParseIndex([]byte("apiVersion: v1\nentries:\n  web:\n  - {name: web, version: 1.0.0}\n  - " + c.entry + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"1.0.0"}, versions(x, "web")); diff != "" {
				t.Errorf("versions (-want +got):\n%s", diff)
			}
			if len(x.Skipped) != 1 || !strings.Contains(x.Skipped[0].Reason, c.reason) || x.Skipped[0].Name != "web" {
				t.Errorf("skipped: got %+v, want one with %q", x.Skipped, c.reason)
			}
			if len(x.Skipped) > 0 && strings.Contains(x.Skipped[0].Reason, "secret") {
				t.Error("the reason tells a password")
			}
		})
	}
	for _, name := range []string{"Web", "a/b", ".."} {
		x, err := helm.ParseIndex([]byte("apiVersion: v1\nentries:\n  " + name + ":\n  - {name: " + name + ", version: 1.0.0}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Versions(name)) != 0 || len(x.Skipped) != 1 {
			t.Errorf("%s: versions %v, skipped %v", name, x.Versions(name), x.Skipped)
		}
	}
}

func TestParseIndexRefuses(t *testing.T) {
	const head = "apiVersion: v1\nentries:\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "cannot be read"},
		"a page":          {"<html>", "want keys and values"},
		"not YAML":        {head + "  web: [", "cannot be read"},
		"two documents":   {head + "---\n" + head, "cannot be read"},
		"no apiVersion":   {"entries: {}\n", `apiVersion: want v1, got ""`},
		"apiVersion":      {"apiVersion: v2\nentries: {}\n", `apiVersion: want v1, got "v2"`},
		"no entries":      {"apiVersion: v1\n", "entries: missing"},
		"entries a list":  {"apiVersion: v1\nentries: []\n", "entries: want charts by name"},
		"chart a map":     {head + "  web: {name: web}\n", `entries of "web": want a list`},
		"anchor":          {head + "  web: &a\n  - {name: web, version: 1.0.0}\n", "line 3: anchors and aliases"},
		"alias":           {"x: &a [1]\n" + head + "  web: *a\n", "anchors and aliases"},
		"merge key":       {head + "  web:\n  - <<: {name: web}\n", "merge keys"},
		"tag":             {head + "  web:\n  - name: !!str web\n", "is not taken"},
		"own tag":         {head + "  web: !x\n  - a\n", "is not taken"},
		"chart twice":     {head + "  web: []\n  web: []\n", `key "web" stands twice`},
		"entries twice":   {head + "  web: []\nentries: {}\n", `key "entries" stands twice`},
		"field twice":     {head + "  web:\n  - {name: web, version: 1.0.0, version: 2.0.0}\n", `key "version" stands twice`},
		"unknown twice":   {head + "  web:\n  - {name: web, x: {y: 1, y: 2}}\n", `key "y" stands twice`},
		"key of a map":    {head + "  ? {a: b}\n  : []\n", "a key must be a word"},
		"deep":            {head + "  web: " + strings.Repeat("[", 60) + strings.Repeat("]", 60) + "\n", "nested deeper"},
		"very deep":       {head + "  web: " + strings.Repeat("[", 200_000), "cannot be read"},
		"too large":       {strings.Repeat("#", helm.MaxIndex+1), "at most"},
		"control letters": {head + "  web: \x01\n", "cannot be read"},
		"not UTF-8":       {head + "  web: \xff\n", "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := helm.ParseIndex([]byte(c.text))
			if x != nil {
				t.Error("an index beside the error")
			}
			wantRefusal(t, err, artifact.ErrUnavailable, helm.CodeIndex, c.want)
		})
	}
}

func TestTag(t *testing.T) {
	for version, want := range map[string]string{"1.2.3": "1.2.3", "1.2.3+a.b": "1.2.3_a.b", "v1.0.0-rc.1+x": "v1.0.0-rc.1_x"} {
		if got := helm.Tag(version); got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}

func TestStaticIndex(t *testing.T) {
	x, err := helm.ParseIndex([]byte(index))
	if err != nil {
		t.Fatal(err)
	}
	var all []helm.Entry
	for _, name := range x.Names() {
		all = append(all, x.Versions(name)...)
	}
	text := helm.StaticIndex(all)
	back, err := helm.ParseIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range x.Names() {
		if diff := cmp.Diff(x.Versions(name), back.Versions(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	slices.Reverse(all)
	if again := helm.StaticIndex(all); !bytes.Equal(text, again) {
		t.Errorf("the order of the entries changed the bytes:\n%s\n%s", text, again)
	}
	if got := string(helm.StaticIndex(nil)); got != "apiVersion: v1\nentries: {}\n" {
		t.Errorf("without entries: %q", got)
	}
}

func TestStaticIndexText(t *testing.T) {
	const want = `apiVersion: v1
entries:
  "no":
  - apiVersion: "v2"
    appVersion: "1.10"
    description: "say \"\u00e9\"\n\x7f"
    digest: "` + hexA + `"
    name: "no"
    urls:
    - "no-1.10.0.tgz"
    version: "1.10.0"
  - name: "no"
    version: "1.9.0"
`
	d, err := artifact.ParseHex(hexA)
	if err != nil {
		t.Fatal(err)
	}
	got := helm.StaticIndex([]helm.Entry{
		{Name: "no", Version: "1.9.0"},
		{Name: "no", Version: "1.10.0", AppVersion: "1.10", APIVersion: "v2", Description: "say \"é\"\n\x7f", Digest: d, URLs: []string{"no-1.10.0.tgz"}},
	})
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzParseIndex(f *testing.F) {
	seeds := []string{
		index, `{"apiVersion":"v1","entries":{"web":[{"name":"web","version":"1.0.0","urls":["a"]}]}}`,
		"apiVersion: v1\nentries: &a {b: *a}\n", "apiVersion: v1\nentries:\n  web:\n  - {name: web, version: 1.0.0, description: \"\\x85\\u2028\"}\n",
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := helm.ParseIndex(b)
		if err != nil {
			if x != nil {
				t.Error("an index beside the error")
			}
			return
		}
		var all []helm.Entry
		for _, name := range x.Names() {
			all = append(all, x.Versions(name)...)
		}
		back, err := helm.ParseIndex(helm.StaticIndex(all))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		for _, name := range x.Names() {
			if diff := cmp.Diff(x.Versions(name), back.Versions(name)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		if len(back.Skipped) != 0 {
			t.Errorf("skipped: %v", back.Skipped)
		}
	})
}
