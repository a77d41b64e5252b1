package oci

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/helm"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// What is done with layers whose bytes lie outside the registry.
const (
	foreignFail  = "fail"
	foreignFetch = "fetch"
	foreignSkip  = "skip"
)

// Which referrers cross.
const (
	referrersAll  = "all"
	referrersNone = "none"
)

// defaultWait is the longest Retry-After that is waited for. Registries that
// count per hour or per six hours ask for more; then the next run goes on.
const defaultWait = 2 * time.Minute

// A Config is one source of images as the outside configures it: a registry, a
// classic Helm repository, a local OCI layout or a docker archive.
type Config struct {
	Name string `yaml:"name" required:"true" doc:"name of the source: platform makes it oci/platform"`

	Registry string `yaml:"registry" doc:"the registry: a host, registry.example, or an address with a scheme"`
	Helm     string `yaml:"helm" doc:"in place of registry: the address of a classic Helm repository, the folder of its index.yaml"`
	Layout   string `yaml:"layout" doc:"in place of registry: a folder that is an OCI image layout"`
	Archive  string `yaml:"archive" doc:"in place of registry: a file made by docker save, or an OCI layout in a tar"`

	// Host is the first part of the repositories' names inside.
	Host   string   `yaml:"host" doc:"the registry's name as users write it before an image, where that is not its address; for a layout or an archive the name that its images get"`
	Images []string `yaml:"images" doc:"images, charts and other artifacts: library/nginx:1.27, team/app@sha256:..., or both"`
	Select []Select `yaml:"select" doc:"tags to choose from what the registry lists"`

	Platforms     []string `yaml:"platforms" doc:"carry only these platforms of an image, as linux/amd64; the index is then written anew (default: all)"`
	AllowRewrite  bool     `yaml:"allow_rewrite" doc:"let platforms write an index anew although a digest in images, or a signature, names the original"`
	Referrers     string   `yaml:"referrers" default:"all" enum:"all|none" doc:"signatures, attestations, SBOMs and whatever else refers to an image"`
	ReferrerTypes []string `yaml:"referrer_types" doc:"carry only referrers of these artifact types (default: all types)"`
	ForeignLayers string   `yaml:"foreign_layers" default:"fail" enum:"fail|fetch|skip" doc:"layers that the registry does not hold itself: refuse the image, fetch them from where they are, or leave them out"`

	AllowHosts   []string      `yaml:"allow_hosts" doc:"further hosts of the registry: of its tokens, of its blobs"`
	AllowHTTP    bool          `yaml:"allow_http" doc:"allow plain http"`
	CAFile       string        `yaml:"ca_file" doc:"certificates to trust beside the system's, PEM"`
	User         string        `yaml:"user" doc:"user name at the registry"`
	PasswordFile string        `yaml:"password_file" doc:"file with the password or token"`
	DockerConfig string        `yaml:"docker_config" doc:"a docker config.json to take the login from, credential helpers included"`
	MaxWait      time.Duration `yaml:"max_wait" doc:"the longest that a busy registry may make us wait; asked for more, the run ends and the next goes on (default: 2 min)"`
	MinRemaining int           `yaml:"min_remaining" doc:"stop when the registry says that fewer requests are left"`
}

// A Select chooses tags of one repository. What is set must hold together.
type Select struct {
	Repository string   `yaml:"repository" required:"true" doc:"repository, or name of the chart"`
	Tags       []string `yaml:"tags" doc:"tags by name"`
	Glob       []string `yaml:"glob" doc:"patterns, as 1.27*; one must match the whole tag"`
	Regex      string   `yaml:"regex" doc:"regular expression for the whole tag"`
	Semver     string   `yaml:"semver" doc:"range of versions, as \">=1.25 <1.28\""`
	Prerelease bool     `yaml:"prerelease" doc:"let semver match versions with a suffix, as 1.27.1-alpine"`
	Exclude    []string `yaml:"exclude" doc:"patterns of tags that are not wanted"`
	Newest     int      `yaml:"newest" doc:"only so many of the highest versions"`
	Optional   bool     `yaml:"optional" doc:"an empty result is no error"`
}

// kinds of upstream.
func (c *Config) kinds() (set []string) {
	for _, k := range []struct{ key, value string }{
		{"registry", c.Registry}, {"helm", c.Helm}, {"layout", c.Layout}, {"archive", c.Archive},
	} {
		if k.value != "" {
			set = append(set, k.key)
		}
	}
	return set
}

// local reports whether the source is a folder or a file.
func (c *Config) local() bool { return c.Layout != "" || c.Archive != "" }

// parse reads an image. The version of a chart may have a "+", for which a tag
// has "_".
func (c *Config) parse(s string) (spec.Reference, error) {
	if c.Helm != "" {
		s = helm.Tag(s)
	}
	return spec.ParseReference(s)
}

// Address is the upstream's address with a scheme; empty for a local one.
func (c *Config) Address() string { return withScheme(c.Registry + c.Helm) }

// withScheme reads an address without a scheme as https.
func withScheme(address string) string {
	if address == "" || strings.Contains(address, "://") {
		return strings.TrimSuffix(address, "/")
	}
	return "https://" + strings.TrimSuffix(address, "/")
}

// root is the first part of the names inside.
func (c *Config) root() string {
	if c.Host != "" {
		return c.Host
	}
	u, err := url.Parse(c.Address())
	if err != nil {
		return ""
	}
	host := strings.ReplaceAll(strings.ToLower(u.Host), ":", "-")
	return strings.Trim(host+strings.TrimSuffix(u.Path, "/"), "/")
}

// Fetch is the configuration of the source's client. The login at a registry
// is not part of it: tokens are the registry client's business.
func (c *Config) Fetch(name string) fetch.Config {
	fc := fetch.Config{Name: name, Hosts: slices.Clone(c.AllowHosts), AllowHTTP: c.AllowHTTP, CAFile: c.CAFile, MaxWait: cmp.Or(c.MaxWait, defaultWait)}
	if c.Helm != "" {
		fc.User, fc.PasswordFile = c.User, c.PasswordFile
	}
	return fc
}

// Validate joins every problem, each starting with the field it concerns.
func (c *Config) Validate() error {
	p := &problems{}
	p.name(c.Name)
	switch kinds := c.kinds(); {
	case len(kinds) == 0:
		p.add("registry", "missing; helm, layout or archive in its place name other upstreams")
	case len(kinds) > 1:
		p.add(kinds[1], "a source has one upstream, and %s is set already", kinds[0])
	case !c.local():
		p.address(kinds[0], c.Registry+c.Helm, c.AllowHTTP, c.Helm != "")
	case c.Host == "":
		p.add("host", "missing: the images of a %s need a name inside, as local/apps", kinds[0])
	}
	if root := c.root(); root != "" && (c.Host != "" || !c.local()) {
		if err := spec.CheckName(root); err != nil {
			p.add("host", "%v", err)
		}
	}
	for i, s := range c.Images {
		r, err := c.parse(s)
		switch {
		case err != nil && c.Helm != "":
			p.add(at("images", i), "%q: want a chart and its version, as qdrant:0.9.1", s)
		case err != nil:
			p.add(at("images", i), "%v", err)
		case c.Helm != "" && r.Digest != "":
			p.add(at("images", i), "%q: a chart of a classic repository has no manifest to pin", s)
		}
	}
	for i := range c.Select {
		c.Select[i].validate(p, at("select", i)+".", c.local())
	}
	for i, s := range c.Platforms {
		if _, err := parsePlatform(s); err != nil {
			p.add(at("platforms", i), "%v", err)
		}
	}
	p.choice("referrers", c.Referrers, referrersAll, referrersNone)
	p.choice("foreign_layers", c.ForeignLayers, foreignFail, foreignFetch, foreignSkip)
	p.hosts(c.AllowHosts)
	p.login(c.User, c.PasswordFile, c.DockerConfig)
	if c.MaxWait < 0 {
		p.add("max_wait", "must not be negative")
	}
	if c.MinRemaining < 0 {
		p.add("min_remaining", "must not be negative")
	}
	return p.err()
}

func (s *Select) validate(p *problems, prefix string, local bool) {
	if err := spec.CheckName(s.Repository); err != nil && !local {
		p.add(prefix+"repository", "%v", err)
	}
	for i, t := range s.Tags {
		if err := spec.CheckTag(strings.ReplaceAll(t, "+", "_")); err != nil {
			p.add(at(prefix+"tags", i), "%v", err)
		}
	}
	for key, list := range map[string][]string{"glob": s.Glob, "exclude": s.Exclude} {
		for i, g := range list {
			if err := checkGlob(g); err != nil {
				p.add(at(prefix+key, i), "%v", err)
			}
		}
	}
	if _, err := regexp.Compile(s.Regex); err != nil {
		p.add(prefix+"regex", "%v", err)
	}
	if s.Semver != "" {
		if _, err := constraint(s.Semver, s.Prerelease); err != nil {
			p.add(prefix+"semver", "%v", err)
		}
	}
	if s.Newest < 0 {
		p.add(prefix+"newest", "must not be negative")
	}
	if len(s.Tags) == 0 && len(s.Glob) == 0 && s.Regex == "" && s.Semver == "" && s.Newest == 0 {
		p.add(prefix+"glob", "nothing is chosen; \"*\" takes every tag")
	}
}

// What a publisher does with a tag that points elsewhere.
const (
	tagsMove       = "move"
	tagsKeep       = "keep"
	tagsFail       = "fail"
	tagsDigestOnly = "digest-only"
)

// How a publisher looks at what the target has.
const (
	verifyQuick = "quick"
	verifyFull  = "full"
)

// How repositories are named in a target.
const (
	pathsFull  = "full"
	pathsPlain = "plain"
)

// A PublishConfig is how images are published inside: by the embedded server
// always, and into a registry or Harbor beside it.
type PublishConfig struct {
	Name     string `yaml:"name" required:"true" doc:"name of the source, as outside"`
	Registry string `yaml:"registry" doc:"a registry to publish into, with a prefix for the names: registry.example/mirror"`
	Harbor   string `yaml:"harbor" doc:"in place of registry: a Harbor project, as harbor.example/platform"`

	Models   string `yaml:"models" doc:"publish the models of this source as artifacts, in place of images of a bundle: llm for models/llm"`
	Modelcar bool   `yaml:"modelcar" doc:"models: also as images with the files under /models, for KServe and image volumes; needs as much room again"`

	Paths  string `yaml:"paths" default:"full" enum:"full|plain" doc:"names in the target: with the upstream's host, or without"`
	Tags   string `yaml:"tags" default:"move" enum:"move|keep|fail|digest-only" doc:"what to do with a tag that points elsewhere: move it, keep it, fail, or push no tags at all"`
	Verify string `yaml:"verify" default:"quick" enum:"quick|full" doc:"how to look at what is there already: ask for each blob, or read it again"`

	AllowHosts   []string `yaml:"allow_hosts" doc:"further hosts of the target: of its tokens, of its uploads"`
	AllowHTTP    bool     `yaml:"allow_http" doc:"allow plain http"`
	CAFile       string   `yaml:"ca_file" doc:"certificates to trust beside the system's, PEM"`
	User         string   `yaml:"user" doc:"user name at the target; of a robot account in Harbor"`
	PasswordFile string   `yaml:"password_file" doc:"file with the password or token"`
	DockerConfig string   `yaml:"docker_config" doc:"a docker config.json to take the login from"`

	Project Project `yaml:"project" doc:"Harbor: the project and what is kept there beside the images"`
}

// A Project is what is done in Harbor beside pushing.
type Project struct {
	Create       *bool  `yaml:"create" default:"true" doc:"make the project where there is none"`
	Public       bool   `yaml:"public" doc:"let everybody pull from a project that is made"`
	Labels       bool   `yaml:"labels" doc:"label each image with the bundle that brought it and with its verdict"`
	Scan         bool   `yaml:"scan" doc:"have Harbor scan what arrives"`
	Immutable    bool   `yaml:"immutable" doc:"make a rule that tags, signatures apart, never move"`
	Allowlist    bool   `yaml:"allowlist" doc:"let the findings that our waivers allow pass Harbor's pull prevention too"`
	StorageLimit string `yaml:"storage_limit" doc:"quota of a project that is made, as 500GiB (default: none)"`
}

// Creates reports whether a missing project is made.
func (p *Project) Creates() bool { return p.Create == nil || *p.Create }

// Address is the target's address with a scheme, without the prefix or
// project; empty where there is no target.
func (c *PublishConfig) Address() string {
	u, err := url.Parse(withScheme(c.Registry + c.Harbor))
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// HarborProject is the project's name, empty without a Harbor.
func (c *PublishConfig) HarborProject() string {
	if c.Harbor == "" {
		return ""
	}
	return c.prefix()
}

// prefix is the part of the target's address after the host.
func (c *PublishConfig) prefix() string {
	u, err := url.Parse(withScheme(c.Registry + c.Harbor))
	if err != nil {
		return ""
	}
	return strings.Trim(u.Path, "/")
}

// Fetch is the configuration of the target's client, without the login.
func (c *PublishConfig) Fetch(name string) fetch.Config {
	return fetch.Config{Name: name, Hosts: slices.Clone(c.AllowHosts), AllowHTTP: c.AllowHTTP, CAFile: c.CAFile}
}

// Validate joins every problem, each starting with the field it concerns.
func (c *PublishConfig) Validate() error {
	p := &problems{}
	p.name(c.Name)
	key, address := "registry", c.Registry
	if c.Harbor != "" {
		key, address = "harbor", c.Harbor
	}
	switch {
	case c.Registry != "" && c.Harbor != "":
		p.add("harbor", "registry is set already; a source has one target")
	case address != "":
		p.address(key, address, c.AllowHTTP, true)
	case c.User != "" || c.PasswordFile != "" || c.DockerConfig != "":
		p.add("user", "there is no target to log in to: registry or harbor is missing")
	}
	prefix := c.prefix()
	switch {
	case prefix != "" && spec.CheckName(prefix) != nil:
		p.add(key, "%v", spec.CheckName(prefix))
	case c.Harbor != "" && (prefix == "" || strings.Contains(prefix, "/")):
		p.add("harbor", "want the address of one project, as https://harbor.example/platform")
	}
	if c.Modelcar && c.Models == "" {
		p.add("modelcar", "is for models only")
	}
	if c.Models != "" && c.Paths == pathsPlain {
		p.add("paths", "the names of models begin with their organisation, which plain would take away")
	}
	p.choice("paths", c.Paths, pathsFull, pathsPlain)
	p.choice("tags", c.Tags, tagsMove, tagsKeep, tagsFail, tagsDigestOnly)
	p.choice("verify", c.Verify, verifyQuick, verifyFull)
	p.hosts(c.AllowHosts)
	p.login(c.User, c.PasswordFile, c.DockerConfig)
	if c.Harbor == "" && c.Project != (Project{}) {
		p.add("project", "is for harbor only")
	}
	if c.Project.StorageLimit != "" {
		if _, err := parseSize(c.Project.StorageLimit); err != nil {
			p.add("project.storage_limit", "%v", err)
		}
	}
	return p.err()
}

// parseSize reads "500GiB".
func parseSize(s string) (int64, error) {
	var n int64
	var unit string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err != nil || n <= 0 || n > 1<<20 {
		return 0, fmt.Errorf("%q: want a size like 500GiB", s)
	}
	for u, shift := range map[string]int{"MiB": 20, "GiB": 30, "TiB": 40} {
		if u == unit {
			return n << shift, nil
		}
	}
	return 0, fmt.Errorf("%q: want a size like 500GiB", s)
}

// parsePlatform reads "linux/arm64" or "linux/arm/v7".
func parsePlatform(s string) (spec.Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return spec.Platform{}, fmt.Errorf("%q: want os/architecture or os/architecture/variant, as linux/amd64", s)
	}
	p := spec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

// problems collects what is wrong with a configuration.
type problems struct{ errs []error }

func (p *problems) add(field, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
}

func (p *problems) err() error { return errors.Join(p.errs...) }

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// name checks a source's name, which is the first part of its repositories'
// names inside.
func (p *problems) name(name string) {
	if name != "" && spec.CheckName(name) != nil {
		p.add("name", "%q cannot begin the name of a repository: want lower-case letters and digits, joined by '.', '_' or '-'", name)
	}
}

func (p *problems) choice(field, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		p.add(field, "%q: want %s", value, strings.Join(allowed, ", "))
	}
}

func (p *problems) address(field, raw string, allowHTTP, path bool) {
	u, err := url.Parse(withScheme(raw))
	switch {
	case err != nil || u.Host == "":
		p.add(field, "%q is no address, as https://registry.example", fetch.Redact(raw))
	case u.User != nil:
		p.add(field, "credentials do not belong into an address: use user and password_file")
	case u.Scheme != "https" && u.Scheme != "http":
		p.add(field, "%q is neither https nor http", u.Scheme)
	case u.Scheme == "http" && !allowHTTP:
		p.add(field, "plain http; allow_http: true allows it")
	case u.RawQuery != "" || u.Fragment != "":
		p.add(field, "an address has no query and no fragment")
	case !path && strings.Trim(u.Path, "/") != "":
		p.add(field, "a path does not belong here: repositories stand under images")
	}
}

func (p *problems) hosts(list []string) {
	for i, h := range list {
		if strings.Contains(h, "/") {
			p.add(at("allow_hosts", i), "%q: want a host, or a host and a port, without a scheme", h)
			continue
		}
		if _, err := fetch.Host("https://" + h); err != nil {
			p.add(at("allow_hosts", i), "%v", err)
		}
	}
}

func (p *problems) login(user, passwordFile, dockerConfig string) {
	if (user == "") != (passwordFile == "") {
		p.add("password_file", "user and password_file go together")
	}
	if user != "" && dockerConfig != "" {
		p.add("docker_config", "user is set already; one login is enough")
	}
}
