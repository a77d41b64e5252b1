package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files again")

const outsideYAML = `# outside
version: 1
role: outside
state_dir: state
signing_key: exporter.key
volume_size: 4GiB-1
expires_after: 14d
link_rate: 200Mbit/s
limits: {per_host: 4, bandwidth: 80Mbit/s}
scan:
  block:
    - artifact: pypi/main examplelib 2.3.1
      reason: SEC-412
  waivers:
    - artifact: apt/bookworm jq
      finding: CVE-0000-2222
      owner: ops
      reason: not reachable
      expires: 2026-12-31
pypi:
  - name: main
    index: https://index.example/simple
    allow_hosts: [files.example]
    targets: [cp312-manylinux_2_28_x86_64]
    password_file: secrets/index
    user: mirror
    locks:
      - file: requirements.txt
apt:
  - name: bookworm
    architectures: [amd64]
    packages: [jq, "tini (>= 0.19)"]
    archives:
      - name: debian
        url: https://mirror.example/debian
        suites: [bookworm, bookworm-updates]
        components: [main]
        signed_by: [keys/debian.gpg]
        check_valid_until: false
models:
  - name: llm
    hub: https://hub.example
    token_file: secrets/hub
    repositories: [team/model, datasets/team/questions@v1.0]
    select:
      - {repository: team/small-GGUF, profile: gguf:Q4_K_M}
  - name: local
    cache: /srv/hf
    repositories: [team/other]
`

const insideYAML = `version: 1
role: inside
inbox: [/media/stick, inbox]
trust: [exporter.pub]
pypi:
  - name: main
apt:
  - name: 10.04
    valid_for: 720h
    archives:
      - name: debian
        signed_by: [/usr/share/keyrings/archive.gpg]
models:
  - name: llm
    folder: models
    access:
      - repositories: [team/secret-*]
        tokens: [{name: a, file: secrets/a}]
oci:
  - name: artifacts
    models: llm
serve:
  listen: 0.0.0.0:8443
  certificate: tls.crt
  key_file: tls.key
`

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "darkmirror.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func load(t *testing.T, text string) (*Config, string) {
	t.Helper()
	name := write(t, text)
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return c, filepath.Dir(name)
}

func TestLoadOutside(t *testing.T) {
	c, dir := load(t, outsideYAML)
	for name, pair := range map[string][2]any{
		"role":         {c.Role, Outside},
		"stream":       {c.Stream, "main"},
		"state_dir":    {c.StateDir, filepath.Join(dir, "state")},
		"outbox":       {c.Outbox, filepath.Join(dir, "state", "outbox")},
		"signing_key":  {c.SigningKey, filepath.Join(dir, "exporter.key")},
		"volume_size":  {c.VolumeSize.Bytes(), int64(4<<30 - 1)},
		"expires":      {c.ExpiresAfter.Duration(), 14 * 24 * time.Hour},
		"link_rate":    {c.LinkRate.BitsPerSecond(), int64(200e6)},
		"limits":       {c.Limits, Limits{PerHost: 4, Total: 16, Bandwidth: 80_000_000}},
		"hub":          {c.Models[0].Name + " " + c.Models[0].Hub, "llm https://hub.example"},
		"hub's token":  {c.Models[0].TokenFile, filepath.Join(dir, "secrets", "hub")},
		"cache":        {c.Models[1].Cache, "/srv/hf"},
		"pypi":         {c.PyPI[0].Name + " " + c.PyPI[0].Index, "main https://index.example/simple"},
		"password":     {c.PyPI[0].PasswordFile, filepath.Join(dir, "secrets", "index")},
		"lock":         {c.PyPI[0].Locks[0].File, filepath.Join(dir, "requirements.txt")},
		"apt":          {c.Apt[0].Name, "bookworm"},
		"keyring":      {c.Apt[0].Archives[0].SignedBy[0], filepath.Join(dir, "keys", "debian.gpg")},
		"check_valid":  {*c.Apt[0].Archives[0].CheckValidUntil, false},
		"waiver":       {c.Scan.Waivers[0].Expires, "2026-12-31"},
		"block":        {c.Scan.Block[0].Reason, "SEC-412"},
		"other role's": {c.Gap + c.Serve.Listen, ""},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %v, want %v", name, pair[0], pair[1])
		}
	}
}

func TestLoadInside(t *testing.T) {
	c, dir := load(t, insideYAML)
	for name, pair := range map[string][2]any{
		"role":      {c.Role, Inside},
		"state_dir": {c.StateDir, "/var/lib/darkmirror"},
		"inbox":     {strings.Join(c.Inbox, " "), "/media/stick " + filepath.Join(dir, "inbox")},
		"trust":     {strings.Join(c.Trust, " "), filepath.Join(dir, "exporter.pub")},
		"gap":       {c.Gap, GapRefuse},
		"max_age":   {c.MaxAge.Duration(), 8 * 24 * time.Hour},
		"listen":    {c.Serve.Listen, "0.0.0.0:8443"},
		"key_file":  {c.Serve.KeyFile, filepath.Join(dir, "tls.key")},
		"pypi":      {c.PyPI[0].Name, "main"},
		"apt":       {c.Apt[0].Name + " " + c.Apt[0].Publish.Name, "10.04 10.04"}, // a name, not the number 10.04
		"valid_for": {c.Apt[0].Publish.ValidFor, 720 * time.Hour},
		"folder":    {c.Models[0].Publish.Folder, filepath.Join(dir, "models")},
		"token":     {c.Models[0].Publish.Access[0].Tokens[0].File, filepath.Join(dir, "secrets", "a")},
		"artifacts": {c.OCI[0].Publish.Models, "llm"},
		"outbox":    {c.Outbox + c.Stream, ""},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %v, want %v", name, pair[0], pair[1])
		}
	}
}

func TestLoadMinimal(t *testing.T) {
	c, _ := load(t, "version: 1\nrole: inside\nserve:\npypi:\n")
	if c.Serve.Listen != "127.0.0.1:8080" || c.Gap != GapRefuse {
		t.Errorf("defaults below an empty key: %+v, gap %q", c.Serve, c.Gap)
	}
	c, _ = load(t, "version: 1\nrole: outside\n")
	if c.VolumeSize != 1<<30 || c.ExpiresAfter.Duration() != 30*24*time.Hour || c.Limits != (Limits{PerHost: 10, Total: 16}) {
		t.Errorf("defaults: volume_size %s, expires_after %s, limits %+v", c.VolumeSize, c.ExpiresAfter, c.Limits)
	}
}

// Each file of testdata/problems is a configuration; beside it lies what is
// said of it, which a person has read.
func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no file (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("darkmirror.yaml", data)
			ps, ok := errors.AsType[Problems](err)
			if !ok || len(ps) == 0 {
				t.Fatalf("got %v, want problems", err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), ps.Error()+"\n"); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if strings.Contains(ps.Error(), "hunter2") {
				t.Error("a secret is repeated")
			}
		})
	}
}

func TestLoadFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "absent.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v, want fs.ErrNotExist", err)
	}
	if _, err := Load(t.TempDir()); err == nil || errors.As(err, new(Problems)) {
		t.Errorf("a folder: %v, want an error of the file", err)
	}
	_, err := Load(write(t, "version: 1\nrole: outside\n"+strings.Repeat("#\n", MaxFile/2)))
	if ps, ok := errors.AsType[Problems](err); !ok || len(ps) != 1 {
		t.Errorf("over the limit: %v, want one problem", err)
	}
}

func TestShow(t *testing.T) {
	c, dir := load(t, outsideYAML)
	got := make(map[string]Setting)
	for _, s := range Show(c) {
		if _, dup := got[s.Key]; dup {
			t.Errorf("%s is shown twice", s.Key)
		}
		got[s.Key] = s
		if s.Origin == "default" && strings.Contains(s.Value, ".example") {
			t.Errorf("%s: a host is a default", s.Key)
		}
	}
	for _, want := range []Setting{
		{"version", "1", "darkmirror.yaml:2"},
		{"stream", "main", "default"},
		{"outbox", filepath.Join(dir, "state", "outbox"), "default"},
		{"volume_size", "4294967295B", "darkmirror.yaml:6"},
		{"expires_after", "14d", "darkmirror.yaml:7"},
		{"limits.per_host", "4", "darkmirror.yaml:9"},
		{"limits.total", "16", "default"},
		{"scan.waivers[0].expires", "2026-12-31", "darkmirror.yaml:19"},
		{"pypi[0].index", "https://index.example/simple", "darkmirror.yaml:22"},
		{"apt[0].packages", "[jq, tini (>= 0.19)]", "darkmirror.yaml:32"},
		{"apt[0].archives[0].signed_by", "[" + filepath.Join(dir, "keys", "debian.gpg") + "]", "darkmirror.yaml:38"},
		{"apt[0].archives[0].check_valid_until", "false", "darkmirror.yaml:39"},
	} {
		if diff := cmp.Diff(want, got[want.Key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Key, diff)
		}
	}
	for key := range got {
		if strings.HasPrefix(key, "serve") || key == "inbox" {
			t.Errorf("%s belongs to the other role", key)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"pythons", "python", 1}, {"kitten", "sitting", 3}, {"ulr", "url", 1}, {"abcd", "badc", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
	if got := closest("zzz", []string{"index", "name"}); got != "" {
		t.Errorf("closest(zzz) = %q, want none", got)
	}
}

// FuzzParse: never panics; a problem lies within the file; what is accepted
// can be shown, and no secret comes back.
func FuzzParse(f *testing.F) {
	seeds := []string{
		outsideYAML, insideYAML, "", "- a", "role: [", "a: &x 1\nb: *x\n", "version: 1\nrole: outside\npypi:\n  - 3\n  - name: a\n",
		"role: outside\npypi: [{<<: {name: a}, ~: 3, [a]: 4}]", "role: inside\nversion: 1\napt: [{archives: [{signed_by: [~]}]}]\n",
		"version: 1\r\nrole: outside\r\nlimits: {per_host: 0}\r\n", "version: 1\rrole: outside\rgap: {", "role: outside\npypi: {a: 'https://u:hunter2@h/'}\n---\n",
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.yaml", data)
		if err == nil {
			if len(Show(c)) < 3 {
				t.Error("an accepted file shows nothing")
			}
			return
		}
		ps, ok := errors.AsType[Problems](err)
		if !ok || len(ps) == 0 || c != nil {
			t.Fatalf("got %v beside %v, want problems", err, c)
		}
		lines := 1
		for _, r := range string(data) {
			if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
				lines++
			}
		}
		for _, p := range ps {
			if p.Line < 0 || p.Line > lines+1 || p.Text == "" || strings.Contains(p.String(), "\x1b") {
				t.Errorf("bad problem %+v", p)
			}
		}
	})
}

// What a file can cost is bounded, whatever it holds.
func TestParseIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"deep lists":    "version: 1\nrole: outside\npypi: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"deep keys":     "version: 1\nrole: outside\n" + strings.Repeat("{a: ", 2000),
		"many problems": "version: 1\nrole: outside\n" + strings.Repeat("- \n", 10) + strings.Repeat("k\n", 1000),
		"many keys":     "version: 1\nrole: inside\ninbox: [" + strings.Repeat("~,", 100_000) + "]",
		"long key":      "version: 1\nrole: inside\n" + strings.Repeat("k", 500_000) + ": 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("f.yaml", []byte(text))
			ps, ok := errors.AsType[Problems](err)
			if !ok || len(ps) == 0 || len(ps) > maxProblems || len(ps.Error()) > 100_000 {
				t.Errorf("%d problems in %d bytes, want 1 to %d", len(ps), len(ps.Error()), maxProblems)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// The README's examples are what people start from.
func TestReadmeExamples(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, block := range strings.Split(string(text), "```yaml\n") {
		example, _, ok := strings.Cut(block, "```")
		if i == 0 || !ok || !strings.Contains(example, "version:") {
			continue
		}
		n++
		if _, err := Parse("README.md", []byte(example)); err != nil {
			t.Errorf("example %d:\n%v", n, err)
		}
	}
	if n < 2 {
		t.Errorf("%d examples, want one a role", n)
	}
}

// Every default fits its field: one that does not would leave a limit at zero,
// which is no limit.
func TestDefaultsFit(t *testing.T) {
	n := 0
	var look func(v reflect.Value, at string)
	look = func(v reflect.Value, at string) {
		for _, f := range fieldsOf(v.Type()) {
			fv := v.FieldByIndex(f.Index)
			text, ok := f.Tag.Lookup("default")
			if ok && f.Type.Kind() != reflect.Pointer { // those are for the schema; nil means it
				n++
				if setText(fv, text); fv.IsZero() {
					t.Errorf("%s: the default %q does not fit %s", at+f.key, text, f.Type)
				}
			}
			e := f.Type
			if e.Kind() == reflect.Slice {
				e = e.Elem()
			}
			if e.Kind() == reflect.Struct && !isText(e) {
				look(reflect.New(e).Elem(), at+f.key+".")
			}
		}
	}
	for _, r := range roles() {
		look(reflect.New(r.file).Elem(), r.name+": ")
	}
	if n < 20 {
		t.Errorf("%d defaults were looked at", n)
	}
}
