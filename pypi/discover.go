package pypi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxOutput bounds what pip prints, and a uv.toml.
	maxOutput = 1 << 20
	// maxAsk is how long an interpreter may take to start and answer.
	maxAsk = 30 * time.Second
)

// Found is an index that this host already uses.
type Found struct {
	Origin     string // "/etc/pip.conf", "PIP_INDEX_URL", "pip's built-in default"
	Index      string // without credentials
	AllowHosts []string
	CAFile     string
	Note       string // what the operator has to know or decide
}

// Discover asks the host's pip and reads uv's settings. env is what
// os.Environ returns. No index is known to this program: where pip has none
// configured, pip itself is asked for its default. Credentials are dropped,
// with a note.
func Discover(ctx context.Context, env []string) ([]Found, error) {
	d := &discovery{env: env}
	errPip := d.pip(ctx)
	errUV := d.uv()
	return d.found, errors.Join(errPip, errUV)
}

type discovery struct {
	env   []string
	found []Found
}

// lookup returns an environment variable; the last of equal names counts.
func (d *discovery) lookup(name string) string {
	for _, e := range slices.Backward(d.env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// add records an index URL without its credentials.
func (d *discovery) add(f Found, raw string) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		f.Note = join2(f.Note, "its URL cannot be read")
		d.found = append(d.found, f)
		return
	}
	if u.User != nil {
		u.User = nil
		f.Note = join2(f.Note, "credentials were dropped: set user and password_file")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		u.RawQuery, u.Fragment = "", ""
		f.Note = join2(f.Note, "the query of its URL was dropped")
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		f.Note = join2(f.Note, "not an index over HTTP; it cannot be read from here")
		d.found = append(d.found, f)
		return
	}
	if u.Scheme == "http" {
		f.Note = join2(f.Note, "plain http: needs allow_http")
	}
	f.Index = u.String()
	d.found = append(d.found, f)
}

func join2(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// program finds an executable by the PATH of env, absolute folders only.
func (d *discovery) program(name string) string {
	for _, dir := range filepath.SplitList(d.lookup("PATH")) {
		if !filepath.IsAbs(dir) {
			continue
		}
		full := filepath.Join(dir, name)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full
		}
	}
	return ""
}

// ask runs the interpreter from the root folder: Python takes modules from
// the working folder first, and a pip.py might lie there.
func (d *discovery) ask(ctx context.Context, python string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, maxAsk)
	defer cancel()
	var out, diag bounded
	cmd := exec.CommandContext(ctx, python, args...) //nolint:gosec // the host's own interpreter, no shell, fixed arguments
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", d.env, &out, &diag
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w", python, args[0], err) // its output may hold a password
	}
	return out.String(), nil
}

// bounded keeps the first maxOutput bytes.
type bounded struct{ bytes.Buffer }

// Write never fails: the rest is dropped.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// defaultScript prints pip's built-in index and the host of its files.
const defaultScript = "from pip._internal.models.index import PyPI; print(PyPI.simple_url); print(PyPI.file_storage_domain)"

// pip asks the host's pip for its merged settings and its default index.
func (d *discovery) pip(ctx context.Context) error {
	python := d.program("python3")
	if python == "" {
		return nil
	}
	list, err := d.ask(ctx, python, "-m", "pip", "config", "list")
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return nil // no pip: nothing to find, and no reason to fail
	}
	conf := parsePipConfig(list)
	// Where a key was set is for people; without it the key itself is named.
	files, err := d.ask(ctx, python, "-m", "pip", "config", "debug")
	if err != nil {
		files = ""
	}
	simple, storage := "", ""
	if text, err := d.ask(ctx, python, "-c", defaultScript); err == nil {
		simple, storage, _ = strings.Cut(strings.TrimSpace(text), "\n")
		simple, storage = strings.TrimSpace(simple), strings.TrimSpace(storage)
	}
	base := Found{CAFile: conf.get("cert")}
	if v := conf.get("trusted-host"); v != "" {
		base.Note = "pip does not verify TLS for " + plain(v) + " (trusted-host); this program always does: set ca_file"
	}
	if v := conf.get("client-cert"); v != "" {
		base.Note = join2(base.Note, "pip uses a client certificate, which is not carried over")
	}
	index := conf.get("index-url")
	if index == "" && conf.get("no-index") == "" {
		f := base
		f.Origin = "pip's built-in default"
		if simple != "" {
			f.AllowHosts = storageHosts(simple, simple, storage)
			d.add(f, simple)
		}
	}
	for _, key := range []string{"index-url", "extra-index-url"} {
		for value := range strings.FieldsSeq(conf.get(key)) {
			f := base
			f.Origin = pipOrigin(files, conf.where(key))
			f.AllowHosts = storageHosts(value, simple, storage)
			if key == "extra-index-url" {
				f.Note = join2(f.Note, "an extra index: make it a source of its own")
			}
			d.add(f, value)
		}
	}
	return nil
}

// storageHosts names the file host of pip's default index, if index is on the
// default's host.
func storageHosts(index, simple, storage string) []string {
	u, err := url.Parse(index)
	v, err2 := url.Parse(simple)
	if err != nil || err2 != nil || simple == "" || u.Host != v.Host || checkHost(storage) != nil || storage == u.Host {
		return nil
	}
	return []string{storage}
}

// pipConfig holds the keys of `pip config list`, such as "global.index-url".
type pipConfig map[string]string

// sections in the order in which pip lets them win.
func sections() []string { return []string{":env:", "install", "download", "global"} }

func (c pipConfig) where(key string) string {
	for _, s := range sections() {
		if c[s+"."+key] != "" {
			return s + "." + key
		}
	}
	return ""
}

func (c pipConfig) get(key string) string { return c[c.where(key)] }

// parsePipConfig reads lines of the form KEY='VALUE', the value as Python
// writes a string.
func parsePipConfig(s string) pipConfig {
	c := make(pipConfig)
	for line := range strings.Lines(s) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok {
			c[key] = pythonString(value)
		}
	}
	return c
}

// pythonString undoes the quotes and the escapes that matter in a URL.
func pythonString(s string) string {
	if len(s) < 2 || s[0] != '\'' && s[0] != '"' || s[len(s)-1] != s[0] {
		return s
	}
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\r`, "\r", `\'`, `'`, `\"`, `"`).Replace(s[1 : len(s)-1])
}

// pipOrigin finds the file that sets key in the output of `pip config debug`:
// each file's line ends in "exists: True", and its keys follow.
func pipOrigin(debug, key string) string {
	if name, ok := strings.CutPrefix(key, ":env:."); ok {
		return "PIP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
	}
	origin, file := "", ""
	for line := range strings.Lines(debug) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutSuffix(line, ", exists: True"); ok {
			file = name
		} else if strings.HasPrefix(line, key+":") && file != "" {
			origin = file // later files win
		}
	}
	if origin == "" {
		return "pip's settings (" + key + ")"
	}
	return origin
}
