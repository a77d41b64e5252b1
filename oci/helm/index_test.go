package helm_test

import (
	"bytes"
	"fmt"
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

// partsTail follows the entries of partsIndex.
const partsTail = "generated: now\n"

// partsIndex is an index in Helm's layout, of 7 charts with 400 versions each;
// pad is how much longer each version is.
func partsIndex(pad int) string {
	var b strings.Builder
	b.WriteString("# by a tool\napiVersion: v1\nentries:\n")
	for c := range 7 {
		fmt.Fprintf(&b, "  chart%d:\n  # newest first\n", c)
		for v := range 400 {
			fmt.Fprintf(&b, "  - name: chart%d\n    version: 1.%d.0\n    urls:\n    - c-%d.tgz\n", c, v, v)
			b.WriteString("    description: |\n      entries:\n        - name: x\n\n      # end\n    home: a\n      b\n")
			b.WriteString("    x: \"" + strings.Repeat("y", pad) + "\"\n\n")
		}
	}
	return b.String() + partsTail
}

// An index that is read in parts is the same as one that is read whole, as it
// is where a comment makes it look otherwise than Helm writes it.
func TestParseIndexInParts(t *testing.T) {
	text := partsIndex(400)
	if len(text) < 1<<20 {
		t.Fatalf("%d bytes may be one part", len(text))
	}
	inParts, err := helm.ParseIndex([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := helm.ParseIndex([]byte(strings.Replace(text, "entries:", "entries: # all", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(inParts.Names()); n != 7 {
		t.Fatalf("%d charts, want 7", n)
	}
	for _, name := range inParts.Names() {
		if n := len(inParts.Versions(name)); n != 400 {
			t.Errorf("%s: %d versions, want 400", name, n)
		}
		if diff := cmp.Diff(whole.Versions(name), inParts.Versions(name)); diff != "" {
			t.Errorf("%s (-whole +in parts):\n%s", name, diff)
		}
	}
}

// Where an index is too large to be read whole, what is wrong in any part of it
// counts.
func TestParseIndexRefusesParts(t *testing.T) {
	text := partsIndex(3_000)
	if len(text) < 8<<20 {
		t.Fatalf("%d bytes are read whole", len(text))
	}
	if x, err := helm.ParseIndex([]byte(text)); err != nil || len(x.Names()) != 7 {
		t.Fatalf("unchanged: got %v", err)
	}
	for name, c := range map[string]struct{ old, text, want string }{
		"chart twice":      {"  chart2:\n", "  chart0:\n", `key "chart0" stands twice`},
		"chart again":      {"  chart1:\n", "  chart0:\n", `key "chart0" stands twice`},
		"alias":            {"home: a\n      b\n", "home: *a\n", "unknown anchor"},
		"quote":            {"home: a\n", "home: \"a\n", "cannot be read"},
		"name elsewhere":   {"  chart1:\n", " chart1:\n", "want a chart's name"},
		"entries twice":    {partsTail, "entries:\n", "not of the usual layout"},
		"two documents":    {partsTail, "---\na: b\n", "cannot be read"},
		"not a list":       {"  chart1:\n", "  other: {a: b}\n  chart1:\n", `entries of "other": want a list`},
		"no charts":        {"  chart0:\n", "  - chart0:\n", "want a chart's name"},
		"much around":      {partsTail, "x: " + strings.Repeat("y", 9<<20), "around the entries"},
		"large version":    {"home: a\n", "home: " + strings.Repeat("y", 9<<20) + "\n", "one piece of"},
		"other apiVersion": {"apiVersion: v1", "apiVersion: v9", `want v1, got "v9"`},
	} {
		t.Run(name, func(t *testing.T) {
			broken := strings.Replace(text, c.old, c.text, 1)
			if broken == text {
				t.Fatal("nothing was replaced")
			}
			_, err := helm.ParseIndex([]byte(broken))
			wantRefusal(t, err, artifact.ErrUnavailable, helm.CodeIndex, c.want)
		})
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

// partsSeed is how much of an index is enough of a seed: no part ends in it.
const partsSeed = 2_000

func FuzzParseIndex(f *testing.F) {
	seeds := []string{
		index, partsIndex(0)[:partsSeed], `{"apiVersion":"v1","entries":{"web":[{"name":"web","version":"1.0.0","urls":["a"]}]}}`,
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
