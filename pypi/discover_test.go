package pypi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// host is a PATH with a python3 that answers as pip would, and a home.
type host struct {
	dir string
	env []string
}

// newHost makes a python3 that prints list for `pip config list`, debug for
// `pip config debug`, and a default index for -c.
func newHost(t *testing.T, list, debug string) *host {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
[ "$PWD" = / ] || exit 9
case "$*" in
"-m pip config list") cat <<'EOF'
` + list + `
EOF
;;
"-m pip config debug") cat <<'EOF'
` + debug + `
EOF
;;
"-c from pip"*) echo https://default.example/simple; echo files.default.example ;;
*) exit 8 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return &host{dir: dir, env: []string{"PATH=" + dir + ":/usr/bin:/bin", "HOME=" + dir, "XDG_CONFIG_DIRS=" + filepath.Join(dir, "xdg")}}
}

func (h *host) discover(t *testing.T) []Found {
	t.Helper()
	found, err := Discover(t.Context(), h.env)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDiscoverDefault(t *testing.T) {
	got := newHost(t, "global.cert='/etc/ca.pem'\n:env:.timeout='9'", "").discover(t)
	want := []Found{{Origin: "pip's built-in default", Index: "https://default.example/simple", AllowHosts: []string{"files.default.example"}, CAFile: "/etc/ca.pem"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDiscoverPip(t *testing.T) {
	got := newHost(t, `global.index-url='https://me:s3cret@index.example/simple?token=t0ken'
global.extra-index-url='https://two.example/a\nhttp://default.example/b'
global.trusted-host='two.example'
site.index-url='https://wrong.example/'`, `env:
global:
  /etc/xdg/pip/pip.conf, exists: False
  /etc/pip.conf, exists: True
    global.index-url: https://index.example/simple
user:
  /home/x/.pip/pip.conf, exists: False
  /home/x/.config/pip/pip.conf, exists: True
    global.extra-index-url: https://two.example/a`).discover(t)
	if len(got) != 3 {
		t.Fatalf("got %+v", got)
	}
	if got[0].Origin != "/etc/pip.conf" || got[0].Index != "https://index.example/simple" || !strings.Contains(got[0].Note, "credentials were dropped") || got[0].AllowHosts != nil {
		t.Errorf("got %+v", got[0])
	}
	if got[1].Origin != "/home/x/.config/pip/pip.conf" || got[1].Index != "https://two.example/a" || !strings.Contains(got[1].Note, "trusted-host") {
		t.Errorf("got %+v", got[1])
	}
	if cmp.Diff([]string{"files.default.example"}, got[2].AllowHosts) != "" || !strings.Contains(got[2].Note, "allow_http") {
		t.Errorf("got %+v", got[2])
	}
	for _, f := range got {
		if text := f.Origin + f.Index + f.Note; strings.Contains(text, "s3cret") || strings.Contains(text, "t0ken") || strings.Contains(text, "wrong") {
			t.Errorf("a secret is passed on: %+v", f)
		}
	}
}

func TestDiscoverEnvironmentWins(t *testing.T) {
	got := newHost(t, "global.index-url='https://file.example/'\n:env:.index-url='https://env.example/'", "").discover(t)
	if len(got) != 1 || got[0].Origin != "PIP_INDEX_URL" || got[0].Index != "https://env.example/" {
		t.Errorf("got %+v", got)
	}
}

func TestDiscoverUV(t *testing.T) {
	h := newHost(t, ":env:.no-index='1'", "")
	for name, body := range map[string]string{
		".config/uv/uv.toml": "[[index]]\nname = \"main\"\nurl = \"https://u:s3cret@index.example/simple\"\ndefault = true\n[[index]]\nurl = \"https://extra.example/\"\n[pip]\nindex-url = \"https://pip.example/\"\n[other]\nx = 1\n",
		"xdg/uv/uv.toml":     "index-url = \"https://system.example/\"\n",
	} {
		name = filepath.Join(h.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.env = append(h.env, "UV_DEFAULT_INDEX=https://env.example/x?a=b", "UV_INDEX=one=https://one.example/ https://two.example/?q=1", "SSL_CERT_FILE=/ca.pem")
	var got []string
	for _, f := range h.discover(t) {
		got = append(got, filepath.Base(f.Origin)+" "+f.Index+" "+f.CAFile)
		if strings.Contains(f.Index+f.Note, "s3cret") {
			t.Errorf("a secret is passed on: %+v", f)
		}
	}
	want := []string{
		"UV_DEFAULT_INDEX https://env.example/x /ca.pem", "UV_INDEX https://one.example/ /ca.pem", "UV_INDEX https://two.example/ /ca.pem",
		"uv.toml https://pip.example/ /ca.pem", "uv.toml https://index.example/simple /ca.pem", "uv.toml https://extra.example/ /ca.pem", "uv.toml https://system.example/ /ca.pem",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	h.env = append(h.env, "UV_NO_CONFIG=1")
	if n := len(h.discover(t)); n != 3 {
		t.Errorf("UV_NO_CONFIG: %d found", n)
	}
}

func TestDiscoverNothing(t *testing.T) {
	found, err := Discover(t.Context(), []string{"PATH=relative:" + t.TempDir(), "XDG_CONFIG_DIRS=" + t.TempDir()})
	if err != nil || len(found) != 0 {
		t.Errorf("got %v, %v", found, err)
	}
	h := newHost(t, "", "")
	name := filepath.Join(h.dir, "uv.toml")
	if err := os.WriteFile(name, []byte("[[index"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.env = append(h.env, "UV_CONFIG_FILE="+name)
	if found, err := Discover(t.Context(), h.env); err == nil || !strings.Contains(err.Error(), name) || len(found) != 1 {
		t.Errorf("a broken file: %v, %v", found, err)
	}
}
