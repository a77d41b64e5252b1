package pypi

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// maxPage bounds a project's index page unless the configuration says
	// otherwise. The largest known is about 40 MiB.
	maxPage = 256 << 20
	// mostPerHost is what package indexes ask for: more connections at once
	// count as unreasonable.
	mostPerHost = 10
	// defaultPerHost is used where the configuration says nothing.
	defaultPerHost = 8
)

// Config is one package index outside, and what is wanted of it.
type Config struct {
	// Index is the root of the Simple API: "https://index.example/simple/".
	Index string `yaml:"index"`
	// AllowHosts are further hosts (or host:port) that files may come from;
	// the index's own is always allowed.
	AllowHosts []string `yaml:"allow_hosts,omitempty"`
	// AllowHTTP allows plain http, for an index on a trusted network.
	AllowHTTP bool `yaml:"allow_http,omitempty"`
	// CAFile holds certificates to trust beside the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// User and PasswordFile are sent to the index's host only.
	User         string `yaml:"user,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	// Targets are presets such as "cp312-manylinux_2_28_x86_64".
	Targets []string `yaml:"targets,omitempty"`
	// Locks are the files that say what is wanted. There may be none yet: a
	// new configuration starts so, and a run notes that nothing is wanted.
	Locks []LockConfig `yaml:"locks"`
	// AllowSdist takes a source archive where no wheel fits. Whoever installs
	// it runs its build.
	AllowSdist bool `yaml:"allow_sdist,omitempty"`
	// MaxPerHost bounds the connections to one host; 0 is 8.
	MaxPerHost int `yaml:"max_per_host,omitempty"`
	// MaxPage bounds an index page in bytes; 0 is 256 MiB.
	MaxPage int64 `yaml:"max_page,omitempty"`
}

// LockConfig is one lock file.
type LockConfig struct {
	// File is a requirements file with hashes, or a pylock.toml.
	File string `yaml:"file"`
	// Targets, if any, replace the source's targets for this file.
	Targets []string `yaml:"targets,omitempty"`
}

// PublishConfig is a package index inside. There is nothing to set yet.
type PublishConfig struct{}

// Validate joins the problems of a PublishConfig.
func (c *PublishConfig) Validate() error { return nil }

// Validate joins every problem; the text of each starts with its field and a
// colon.
func (c *Config) Validate() error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if err := checkIndex(c.Index, c.AllowHTTP); err != nil {
		add("index", "%w", err)
	}
	for i, h := range c.AllowHosts {
		if err := checkHost(h); err != nil {
			add(fmt.Sprintf("allow_hosts[%d]", i), "%w", err)
		}
	}
	if c.User != "" && c.PasswordFile == "" {
		add("password_file", "missing, though user is set")
	}
	if c.User == "" && c.PasswordFile != "" {
		add("user", "missing, though password_file is set")
	}
	checkTargets(c.Targets, "targets", add)
	for i, l := range c.Locks {
		field := fmt.Sprintf("locks[%d]", i)
		if l.File == "" {
			add(field+".file", "missing")
		}
		if len(l.Targets) == 0 && len(c.Targets) == 0 {
			add("targets", "none for %s; name at least one, such as cp312-manylinux_2_28_x86_64", field)
		}
		checkTargets(l.Targets, field+".targets", add)
	}
	if c.MaxPerHost < 0 || c.MaxPerHost > mostPerHost {
		add("max_per_host", "%d, want 1 to %d", c.MaxPerHost, mostPerHost)
	}
	if c.MaxPage < 0 || c.MaxPage > 1<<40 {
		add("max_page", "%d bytes", c.MaxPage)
	}
	return errors.Join(errs...)
}

func checkTargets(targets []string, field string, add func(string, string, ...any)) {
	seen := make(map[string]bool)
	for i, t := range targets {
		at := fmt.Sprintf("%s[%d]", field, i)
		if _, err := packaging.ParseTarget(t); err != nil {
			add(at, "%w", err)
		} else if seen[t] {
			add(at, "%q is there twice", t)
		}
		seen[t] = true
	}
}

func checkIndex(s string, http bool) error {
	if s == "" {
		return errors.New("missing; no index is built in")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("malformed URL") // the text of err may hold a password
	case u.User != nil:
		return errors.New("must not hold credentials; use user and password_file")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return fmt.Errorf("%q: want https://HOST/PATH/", clip(s))
	case u.Scheme == "http" && !http:
		return fmt.Errorf("%q: plain http needs allow_http", clip(s))
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return fmt.Errorf("%q: must not have a query or a fragment", clip(s))
	}
	return nil
}

// checkHost accepts HOST and HOST:PORT.
func checkHost(s string) error {
	u, err := url.Parse("https://" + s)
	if err != nil || s == "" || u.Host != s || u.User != nil || u.Hostname() == "" || strings.ContainsAny(s, " *") {
		return fmt.Errorf("%q: want a host or host:port", clip(s))
	}
	if _, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q: port %q", clip(s), port)
		}
	}
	return nil
}

// Fetch is the configuration of the client that this source needs. The
// caller adds the user agent, the logger and the progress function.
func (c *Config) Fetch(name string) fetch.Config {
	fc := fetch.Config{
		Name: name, AllowHTTP: c.AllowHTTP, CAFile: c.CAFile,
		User: c.User, PasswordFile: c.PasswordFile,
	}
	if u, err := url.Parse(c.Index); err == nil && u.Host != "" {
		fc.Hosts = append(fc.Hosts, u.Host)
		if c.User != "" {
			fc.CredentialHost = u.Host
		}
	}
	fc.Hosts = append(fc.Hosts, c.AllowHosts...)
	return fc
}

// PerHost is how many connections to one host are wanted.
func (c *Config) PerHost() int {
	if c.MaxPerHost == 0 {
		return defaultPerHost
	}
	return c.MaxPerHost
}
