package apt

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Config is one source as the outside configures it.
type Config struct {
	Name string `yaml:"name"`
	// Architectures are the targets, "amd64". The first is the main one.
	Architectures []string `yaml:"architectures"`
	// Packages are the seeds: "name", "name:arch" or "name (op version)". One
	// without an architecture is wanted for each.
	Packages []string `yaml:"packages"`
	// Recommends follows Recommends too, where they can be had.
	Recommends bool `yaml:"recommends"`
	// Essential adds the packages that nothing depends on: "none" (or empty),
	// "required", or "bootstrap" for what debootstrap installs first.
	Essential string    `yaml:"essential"`
	Archives  []Archive `yaml:"archives"`

	// AllowHosts are further hosts that an archive may redirect to.
	AllowHosts []string `yaml:"allow_hosts"`
	// AllowHTTP lets URLs be plain http. Signatures protect the content, but
	// the line shows what is fetched.
	AllowHTTP    bool   `yaml:"allow_http"`
	CAFile       string `yaml:"ca_file"`
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
}

// An Archive is one signed repository with its own keys.
type Archive struct {
	// Name is the folder inside; empty means the last segment of URL.
	Name       string   `yaml:"name"`
	URL        string   `yaml:"url"`
	Suites     []string `yaml:"suites"`
	Components []string `yaml:"components"`
	// SignedBy are keyring files, armored or binary. One good signature by one
	// of their keys is required.
	SignedBy []string `yaml:"signed_by"`
	// CheckValidUntil refuses a Release that has expired; nil means true. A
	// dated snapshot of an archive has always expired.
	CheckValidUntil *bool `yaml:"check_valid_until"`
}

func (a *Archive) name() string {
	if a.Name != "" {
		return a.Name
	}
	u, err := url.Parse(a.URL)
	if err != nil {
		return ""
	}
	return path.Base(strings.TrimSuffix(u.Path, "/"))
}

func (a *Archive) checksValidUntil() bool { return a.CheckValidUntil == nil || *a.CheckValidUntil }

// Hosts lists every host that the source may contact: those of its archives
// and AllowHosts.
func (c *Config) Hosts() []string {
	hosts := slices.Clone(c.AllowHosts)
	for i := range c.Archives {
		if u, err := url.Parse(c.Archives[i].URL); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// Validate joins every problem of the configuration. Each begins with the
// field that it is about.
func (c *Config) Validate() error {
	p := &problems{}
	if err := artifact.CheckSource("apt/" + c.Name); err != nil {
		p.add("name", "%q: want lower-case letters, digits, '.', '_' and '-'", c.Name)
	}
	if len(c.Architectures) == 0 {
		p.add("architectures", "none; amd64, say")
	}
	for i, a := range c.Architectures {
		switch {
		case !archOK(a) || a == "any" || a == "source":
			p.add(at("architectures", i), "%q is not an architecture", a)
		case a == "all":
			p.add(at("architectures", i), "all comes with the others")
		case slices.Contains(c.Architectures[:i], a):
			p.add(at("architectures", i), "%q is there twice", a)
		}
	}
	c.validateSeeds(p)
	if len(c.Archives) == 0 {
		p.add("archives", "none: no archive is built in")
	}
	names := make(map[string]bool)
	for i := range c.Archives {
		c.Archives[i].validate(p, at("archives", i)+".", c.AllowHTTP, names)
	}
	if (c.User == "") != (c.PasswordFile == "") {
		p.add("password_file", "user and password_file go together")
	}
	return p.err()
}

func (c *Config) validateSeeds(p *problems) {
	switch c.Essential {
	case "", essentialNone, essentialRequired, essentialBootstrap:
	default:
		p.add("essential", "%q: want none, required or bootstrap", c.Essential)
	}
	for i, s := range c.Packages {
		sd, err := parseSeed(s)
		switch {
		case err != nil:
			p.add(at("packages", i), "%v", err)
		case sd.rel.qualifier != "" && !slices.Contains(c.Architectures, sd.rel.qualifier):
			p.add(at("packages", i), "%q is not among architectures", sd.rel.qualifier)
		}
	}
}

func (a *Archive) validate(p *problems, prefix string, allowHTTP bool, names map[string]bool) {
	if why := urlProblem(a.URL, allowHTTP); why != "" {
		p.add(prefix+"url", "%s", why)
	}
	name := a.name()
	switch {
	case artifact.CheckSource("apt/"+name) != nil:
		p.add(prefix+"name", "%q: want lower-case letters, digits, '.', '_' and '-'", name)
	case names[name]:
		p.add(prefix+"name", "%q is there twice", name)
	}
	names[name] = true
	if len(a.Suites) == 0 {
		p.add(prefix+"suites", "none")
	}
	for i, s := range a.Suites {
		switch {
		case strings.HasSuffix(s, "/") || s == ".":
			p.add(at(prefix+"suites", i), "%q is a flat repository, which is not supported", s)
		case artifact.CheckPath(s) != nil:
			p.add(at(prefix+"suites", i), "%q is not a suite", s)
		case slices.Contains(a.Suites[:i], s):
			p.add(at(prefix+"suites", i), "%q is there twice", s)
		}
	}
	if len(a.Components) == 0 {
		p.add(prefix+"components", "none; main, say")
	}
	for i, s := range a.Components {
		if artifact.CheckPath(s) != nil || slices.Contains(a.Components[:i], s) {
			p.add(at(prefix+"components", i), "%q is not a component, or there twice", s)
		}
	}
	validateKeyrings(p, prefix, a.SignedBy)
}

func validateKeyrings(p *problems, prefix string, files []string) {
	if len(files) == 0 {
		p.add(prefix+"signed_by", "no keyring: an archive without pinned keys is not read")
	}
	for i, f := range files {
		if !filepath.IsAbs(f) {
			p.add(at(prefix+"signed_by", i), "%q is not an absolute path", f)
		}
	}
}

func urlProblem(raw string, allowHTTP bool) string {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return "missing: no archive is built in"
	case err != nil:
		return "not a URL"
	case u.User != nil:
		return "holds a login; use user and password_file"
	case u.Scheme == "http" && !allowHTTP:
		return "plain http needs allow_http"
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Sprintf("scheme %q, want https", u.Scheme)
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return "want https://HOST/PATH"
	}
	return ""
}

// A PublishConfig is one source as the inside configures it.
type PublishConfig struct {
	Name string `yaml:"name"`
	// Tree is the folder that clients or a web server read; empty means
	// "tree" in the publisher's own folder.
	Tree string `yaml:"tree"`
	// SigningKey is an armored OpenPGP private key without passphrase. Empty
	// means signing-key.asc in the publisher's own folder, which the first
	// publication makes.
	SigningKey string `yaml:"signing_key"`
	// ValidFor is how long clients believe a publication; 0 means for ever. A
	// late bundle stops clients once it has passed.
	ValidFor time.Duration `yaml:"valid_for"`
	// AllowIdentityChange lets Origin, Label or Codename change. apt-get on
	// every client then stops until someone agrees to it.
	AllowIdentityChange bool             `yaml:"allow_identity_change"`
	Archives            []PublishArchive `yaml:"archives"`
}

// A PublishArchive pins upstream's keys inside.
type PublishArchive struct {
	Name     string   `yaml:"name"`
	SignedBy []string `yaml:"signed_by"`
	// Origin and Label, where set, must be upstream's.
	Origin string `yaml:"origin"`
	Label  string `yaml:"label"`
}

// Validate joins every problem of the configuration. Each begins with the
// field that it is about.
func (c *PublishConfig) Validate() error {
	p := &problems{}
	if err := artifact.CheckSource("apt/" + c.Name); err != nil {
		p.add("name", "%q: want lower-case letters, digits, '.', '_' and '-'", c.Name)
	}
	for _, f := range []struct{ field, path string }{{"tree", c.Tree}, {"signing_key", c.SigningKey}} {
		if f.path != "" && !filepath.IsAbs(f.path) {
			p.add(f.field, "%q is not an absolute path", f.path)
		}
	}
	const day = 24 * time.Hour
	if c.ValidFor != 0 && c.ValidFor < day {
		p.add("valid_for", "%v is shorter than a day", c.ValidFor)
	}
	if len(c.Archives) == 0 {
		p.add("archives", "none: upstream's keys must be pinned here too")
	}
	names := make(map[string]bool)
	for i, a := range c.Archives {
		prefix := at("archives", i) + "."
		if artifact.CheckSource("apt/"+a.Name) != nil || names[a.Name] {
			p.add(prefix+"name", "%q is not a name, or there twice", a.Name)
		}
		names[a.Name] = true
		validateKeyrings(p, prefix, a.SignedBy)
	}
	return p.err()
}

// problems collects what is wrong with a configuration.
type problems struct{ all []error }

func (p *problems) add(field, format string, a ...any) {
	p.all = append(p.all, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, a...)))
}

func (p *problems) err() error { return errors.Join(p.all...) }

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
