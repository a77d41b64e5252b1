package files

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

const (
	// ecosystem is what the names of these sources begin with.
	ecosystem = "files/"
	// maxVersion bounds a version, which becomes a folder's name.
	maxVersion = 64
)

// A Config is one source as the outside configures it.
type Config struct {
	Name string `yaml:"name" required:"true" doc:"name of the source: databases makes it files/databases"`
	Sets []Set  `yaml:"sets" required:"true" doc:"files that belong together: each set is one artifact"`

	AllowHosts   []string `yaml:"allow_hosts" doc:"further hosts that downloads may be redirected to"`
	AllowHTTP    bool     `yaml:"allow_http" doc:"allow plain http"`
	CAFile       string   `yaml:"ca_file" doc:"certificates to trust beside the system's, PEM"`
	User         string   `yaml:"user" doc:"name to log in with; all addresses are then of one host"`
	PasswordFile string   `yaml:"password_file" doc:"file with the password"`
}

// A Set is files that belong together: those of a folder, or those of some
// addresses.
type Set struct {
	Name    string   `yaml:"name" required:"true" doc:"name of the set, its folder in what is served"`
	Version string   `yaml:"version" doc:"version of the set, whose files then never change (default: told from the content)"`
	Folder  string   `yaml:"folder" doc:"a folder of this host, as the one that freshclam fills"`
	Match   []string `yaml:"match" doc:"patterns of the wanted files, as *.cvd or drivers/**/*.run; ** stands for any folders (default: all files)"`
	// MaxAge is against an updater that has stopped.
	MaxAge time.Duration `yaml:"max_age" doc:"refuse the folder if its newest file is older than that, as 72h"`
	URLs   []Pinned      `yaml:"urls" doc:"in place of folder: files at addresses"`
}

// A Pinned is a file at an address, with the digest that it must have.
type Pinned struct {
	URL    string `yaml:"url" required:"true" doc:"address of the file"`
	SHA256 string `yaml:"sha256" required:"true" doc:"SHA-256 of the file, 64 hex digits"`
	Size   int64  `yaml:"size" doc:"size in bytes (default: what the server says)"`
	Path   string `yaml:"path" doc:"path in the set (default: the last part of the address)"`
}

// A PublishConfig is one source as the inside configures it.
type PublishConfig struct {
	Name      string       `yaml:"name" required:"true" doc:"name of the source, as outside"`
	Folder    string       `yaml:"folder" doc:"a folder that programs read, as clamd's database directory: it gets the files of all sets that have no folder of their own; without it they are only served"`
	Versioned bool         `yaml:"versioned" doc:"in folder, put each version into a folder of its own, and move the link current when all files are there"`
	Sets      []PublishSet `yaml:"sets" doc:"sets with a folder of their own"`
	Mode      string       `yaml:"mode" default:"0644" enum:"0600|0640|0644" doc:"mode of the files in folders"`
	Last      []string     `yaml:"last" doc:"names or patterns of files that name others and come after them (default: **/metadata.json)"`
}

// A PublishSet is a set with a folder of its own.
type PublishSet struct {
	Name      string `yaml:"name" required:"true" doc:"name of the set, as outside"`
	Folder    string `yaml:"folder" required:"true" doc:"a folder that programs read"`
	Versioned bool   `yaml:"versioned" doc:"put each version into a folder of its own, and move the link current when all files are there"`
}

// Addresses lists the addresses of the files, without those that share a host
// with one before: those whose hosts a client must be let to.
func (c *Config) Addresses() []string {
	var list []string
	seen := make(map[string]bool)
	for i := range c.Sets {
		for _, p := range c.Sets[i].URLs {
			if host, err := fetch.Host(p.URL); err == nil && !seen[host] {
				seen[host] = true
				list = append(list, p.URL)
			}
		}
	}
	return list
}

// Fetch is the configuration of the source's client, without the hosts of
// [Config.Addresses].
func (c *Config) Fetch(name string) fetch.Config {
	return fetch.Config{
		Name: name, Hosts: slices.Clone(c.AllowHosts), AllowHTTP: c.AllowHTTP, CAFile: c.CAFile,
		User: c.User, PasswordFile: c.PasswordFile,
	}
}

// digest is the pinned digest, with or without "sha256:" before it.
func (p *Pinned) digest() (artifact.Digest, error) {
	return artifact.ParseHex(strings.TrimPrefix(p.SHA256, "sha256:"))
}

// path is the file's path in its set.
func (p *Pinned) path() string {
	if p.Path != "" {
		return p.Path
	}
	u, err := url.Parse(p.URL)
	if err != nil || strings.HasSuffix(u.Path, "/") {
		return ""
	}
	if name := path.Base(u.Path); name != "." {
		return name
	}
	return ""
}

// Validate joins every problem, each starting with the field it concerns.
func (c *Config) Validate() error {
	p := &problems{}
	p.name("name", c.Name)
	switch {
	case len(c.Sets) == 0:
		p.add("sets", "none: nothing is carried")
	case len(c.Sets) > maxSets:
		p.add("sets", "%d, at most %d are carried by one source", len(c.Sets), maxSets)
	}
	names := make(map[string]bool)
	for i := range c.Sets {
		s, field := &c.Sets[i], at("sets", i)
		p.setName(field+".name", s.Name)
		if names[s.Name] {
			p.add(field+".name", "%q is there twice", s.Name)
		}
		names[s.Name] = true
		s.validate(p, field, c.AllowHTTP)
	}
	p.sizes(c.Sets)
	for i, h := range c.AllowHosts {
		if strings.Contains(h, "/") {
			p.add(at("allow_hosts", i), "%q: want a host, or a host and a port, without a scheme", h)
		} else if _, err := fetch.Host("https://" + h); err != nil {
			p.add(at("allow_hosts", i), "%v", err)
		}
	}
	p.absolute("ca_file", c.CAFile)
	p.absolute("password_file", c.PasswordFile)
	switch {
	case (c.User == "") != (c.PasswordFile == ""):
		p.add("password_file", "user and password_file go together")
	case c.User != "" && len(c.Addresses()) > 1:
		p.add("user", "the addresses are of several hosts, and a password is for one: make it several sources")
	}
	return p.err()
}

func (s *Set) validate(p *problems, field string, allowHTTP bool) {
	if s.Version != "" {
		if err := checkVersion(s.Version); err != nil {
			p.add(field+".version", "%v", err)
		} else if isDerived(s.Version) {
			p.add(field+".version", "%q looks like one that is told from the content", s.Version)
		}
	}
	switch {
	case s.Folder == "" && len(s.URLs) == 0:
		p.add(field+".folder", "missing; urls in its place names files at addresses")
	case s.Folder != "" && len(s.URLs) > 0:
		p.add(field+".urls", "a set is of a folder or of addresses, and folder is set already")
	case s.Folder != "":
		p.absolute(field+".folder", s.Folder)
	case len(s.Match) > 0:
		p.add(field+".match", "chooses files of a folder")
	case s.MaxAge != 0:
		p.add(field+".max_age", "is about the files of a folder; a pinned file does not age")
	}
	if s.MaxAge < 0 {
		p.add(field+".max_age", "%v is below zero", s.MaxAge)
	}
	if _, err := parsePatterns(s.Match); err != nil {
		p.add(field+".match", "%v", err)
	}
	if len(s.URLs) > maxSetFiles {
		p.add(field+".urls", "%d files, at most %d are carried in one set", len(s.URLs), maxSetFiles)
		return
	}
	paths := make(map[string]bool)
	for i := range s.URLs {
		u, field := &s.URLs[i], at(field+".urls", i)
		u.validate(p, field, allowHTTP)
		key := strings.ToLower(u.path())
		if paths[key] {
			p.add(field+".path", "%q is there twice", u.path())
		}
		paths[key] = true
	}
}

func (p *Pinned) validate(all *problems, field string, allowHTTP bool) {
	if why := urlProblem(p.URL, allowHTTP); why != "" {
		all.add(field+".url", "%s", why)
	} else if err := artifact.CheckPath(p.path()); err != nil {
		all.add(field+".path", "%v", err)
	}
	if _, err := p.digest(); err != nil {
		all.add(field+".sha256", "want the 64 lower-case hex digits that sha256sum prints")
	}
	if p.Size < 0 || p.Size > maxSetBytes {
		all.add(field+".size", "%d, want 1 to %d, or nothing", p.Size, int64(maxSetBytes))
	}
}

// sizes refuses one digest with two sizes.
func (p *problems) sizes(sets []Set) {
	sizes := make(map[string]int64)
	for i := range sets {
		for j, u := range sets[i].URLs {
			key := strings.TrimPrefix(u.SHA256, "sha256:")
			if old := sizes[key]; old != 0 && u.Size != 0 && old != u.Size {
				p.add(at(at("sets", i)+".urls", j)+".size", "%d: the same digest has size %d above", u.Size, old)
			}
			sizes[key] = cmp.Or(u.Size, sizes[key])
		}
	}
}

func urlProblem(raw string, allowHTTP bool) string {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return "missing: no address is built in"
	case err != nil:
		return "not a URL"
	case u.User != nil:
		return "holds a login; use user and password_file"
	case u.Scheme == "http" && !allowHTTP:
		return "plain http; allow_http: true allows it"
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Sprintf("%q is neither https nor http", u.Scheme)
	case u.Fragment != "":
		return "an address of a file has no fragment"
	}
	if _, err := fetch.Host(raw); err != nil {
		return err.Error()
	}
	return ""
}

// Validate joins every problem, each starting with the field it concerns.
func (c *PublishConfig) Validate() error {
	p := &problems{}
	p.name("name", c.Name)
	var folders []string
	folder := func(field, dir string) {
		p.absolute(field, dir)
		dir = filepath.Clean(dir)
		for _, other := range folders {
			if within(dir, other) || within(other, dir) {
				p.add(field, "%q and %q are not apart", dir, other)
			}
		}
		folders = append(folders, dir)
	}
	if c.Folder != "" {
		folder("folder", c.Folder)
	} else if c.Versioned {
		p.add("versioned", "is about folder, which is not set")
	}
	names := make(map[string]bool)
	for i, s := range c.Sets {
		field := at("sets", i)
		p.setName(field+".name", s.Name)
		if names[s.Name] {
			p.add(field+".name", "%q is there twice", s.Name)
		}
		names[s.Name] = true
		if s.Folder == "" {
			p.add(field+".folder", "missing")
			continue
		}
		folder(field+".folder", s.Folder)
	}
	if _, ok := fileMode(c.Mode); !ok {
		p.add("mode", "%q: want 0600, 0640 or 0644", c.Mode)
	}
	if _, err := parsePatterns(c.Last); err != nil {
		p.add("last", "%v", err)
	}
	return p.err()
}

// within reports whether dir is other or below it, by their names.
func within(dir, other string) bool {
	rel, err := filepath.Rel(other, dir)
	return err == nil && filepath.IsLocal(rel)
}

// checkVersion accepts what can be a folder's name beside the link.
func checkVersion(v string) error {
	switch {
	case v == "" || len(v) > maxVersion:
		return fmt.Errorf("version %s: want 1 to %d characters", strconv.Quote(clip(v)), maxVersion)
	case strings.EqualFold(v, linkName):
		return fmt.Errorf("version %q is what the link is called", v)
	}
	for i, c := range []byte(v) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && strings.IndexByte("._+-", c) >= 0:
		default:
			return fmt.Errorf("version %s: want letters, digits, '.', '_', '+' and '-'", strconv.Quote(clip(v)))
		}
	}
	return nil
}

// checkSetName accepts a set's name, which is the first part of what its
// files are served as.
func checkSetName(name string) error {
	if artifact.CheckSource(ecosystem+name) != nil {
		return fmt.Errorf("%s: want lower-case letters, digits, '.', '_' and '-'", strconv.Quote(clip(name)))
	}
	if name == indexName || strings.EqualFold(name, sumsName) {
		return fmt.Errorf("%q is the name of a listing", name)
	}
	return nil
}

// problems collects what is wrong with a configuration.
type problems struct{ all []error }

func (p *problems) add(field, format string, a ...any) {
	p.all = append(p.all, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, a...)))
}

func (p *problems) name(field, name string) {
	if artifact.CheckSource(ecosystem+name) != nil {
		p.add(field, "%q: want lower-case letters, digits, '.', '_' and '-'", name)
	}
}

func (p *problems) setName(field, name string) {
	if err := checkSetName(name); err != nil {
		p.add(field, "%v", err)
	}
}

// absolute refuses a relative path: the reader of the configuration has made
// them absolute.
func (p *problems) absolute(field, name string) {
	if name != "" && !filepath.IsAbs(name) {
		p.add(field, "%q is not an absolute path", name)
	}
}

func (p *problems) err() error { return errors.Join(p.all...) }

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// clip shortens outside text for a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
