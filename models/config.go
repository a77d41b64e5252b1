package models

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/repo"
)

const (
	// defaultWait is the longest Retry-After that is waited for: the hub
	// counts in windows of five minutes.
	defaultWait = 6 * time.Minute
	// defaultConnections share a line whose single connections are slow, and
	// stay below the 64 that the hub's own client opens for large files.
	defaultConnections = 32
	maxConnections     = 64
	// window is what max_requests counts in.
	window = 5 * time.Minute
)

// A Config is one source of models as the outside configures it: a hub, a
// folder or a cache of huggingface_hub.
type Config struct {
	Name string `yaml:"name" required:"true" doc:"name of the source: llm makes it models/llm"`

	Hub    string `yaml:"hub" doc:"the hub's address"`
	Folder string `yaml:"folder" doc:"in place of hub: a folder with a folder ORGANISATION/NAME for each repository"`
	Cache  string `yaml:"cache" doc:"in place of hub: a cache folder of huggingface_hub, as HF_HUB_CACHE names it"`

	Repositories []string `yaml:"repositories" doc:"team/model, team/model@v1.0, datasets/team/name; without a revision it is main"`
	Select       []Select `yaml:"select" doc:"repositories with a profile or patterns of their own"`
	Profile      string   `yaml:"profile" default:"all" doc:"which files of a repository: all, vllm, st (sentence-transformers), gguf:QUANT as gguf:Q4_K_M, onnx"`
	WithDeps     bool     `yaml:"with_deps" doc:"carry also the repositories that loading these asks for"`

	TokenFile   string        `yaml:"token_file" doc:"file with the hub's access token; sent to the hub's own host alone"`
	AllowHosts  []string      `yaml:"allow_hosts" doc:"further hosts: those that hold the large files"`
	AllowHTTP   bool          `yaml:"allow_http" doc:"allow plain http"`
	CAFile      string        `yaml:"ca_file" doc:"certificates to trust beside the system's, PEM"`
	Connections int           `yaml:"connections" doc:"connections at once to one host (default: 32)"`
	MaxRequests int           `yaml:"max_requests" doc:"requests to the hub in five minutes, as its rate limits count (default: no bound of ours)"`
	MaxWait     time.Duration `yaml:"max_wait" doc:"the longest that a busy hub may make us wait; asked for more, the run ends and the next goes on (default: 6 min)"`
}

// A Select asks for one repository in its own way.
type Select struct {
	Repository string   `yaml:"repository" required:"true" doc:"team/model, or team/model@v1.0"`
	Profile    string   `yaml:"profile" doc:"which of its files (default: that of the source)"`
	Include    []string `yaml:"include" doc:"patterns of further files, as *.md or onnx/*"`
	Exclude    []string `yaml:"exclude" doc:"patterns of files that are not wanted"`
}

// Kinds of upstream.
func (c *Config) kinds() (set []string) {
	for _, k := range []struct{ key, value string }{{"hub", c.Hub}, {"folder", c.Folder}, {"cache", c.Cache}} {
		if k.value != "" {
			set = append(set, k.key)
		}
	}
	return set
}

// PerHost is how many connections go to one host.
func (c *Config) PerHost() int { return cmp.Or(c.Connections, defaultConnections) }

// Fetch is the configuration of the source's client. The token is not part of
// it: that is the hub client's business.
func (c *Config) Fetch(name string) fetch.Config {
	fc := fetch.Config{
		Name: name, Hosts: slices.Clone(c.AllowHosts), AllowHTTP: c.AllowHTTP, CAFile: c.CAFile,
		MaxWait: cmp.Or(c.MaxWait, defaultWait),
	}
	if host, err := fetch.Host(c.Hub); err == nil && c.MaxRequests > 0 {
		fc.Budget = fetch.NewBudget(c.MaxRequests, window, host)
	}
	return fc
}

// A want is one revision that a user asks for.
type want struct {
	repo     hub.Repo
	revision string
	profile  repo.Profile
	include  []string
	exclude  []string
	why      string
}

// wants lists what is asked for, in the order of the configuration.
func (c *Config) wants() ([]want, error) {
	std, err := repo.ParseProfile(cmp.Or(c.Profile, "all"))
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	everything, err := repo.ParseProfile("all")
	if err != nil {
		return nil, err
	}
	var list []want
	add := func(field, s string, p repo.Profile, include, exclude []string) error {
		name, revision := hub.SplitRevision(s)
		r, err := hub.ParseRepo(name)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if strings.Contains(s, "@") {
			if err := hub.CheckRevision(revision); err != nil {
				return fmt.Errorf("%s: %w", field, err)
			}
		} else {
			revision = mainBranch
		}
		if r.Kind == hub.Dataset {
			p = everything // profiles are about weights
		}
		list = append(list, want{r, revision, p, include, exclude, field + ": " + s})
		return nil
	}
	for i, s := range c.Repositories {
		if err := add(at("repositories", i), s, std, nil, nil); err != nil {
			return nil, err
		}
	}
	for i, s := range c.Select {
		p := std
		if s.Profile != "" {
			if p, err = repo.ParseProfile(s.Profile); err != nil {
				return nil, fmt.Errorf("%s.profile: %w", at("select", i), err)
			}
		}
		if err := add(at("select", i)+".repository", s.Repository, p, s.Include, s.Exclude); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Validate joins every problem, each starting with the field it concerns.
func (c *Config) Validate() error {
	p := &problems{}
	p.name(c.Name)
	switch kinds := c.kinds(); {
	case len(kinds) == 0:
		p.add("hub", "missing; folder or cache in its place name local models")
	case len(kinds) > 1:
		p.add(kinds[1], "a source has one upstream, and %s is set already", kinds[0])
	case c.Hub != "":
		p.address("hub", c.Hub, c.AllowHTTP)
	case c.TokenFile != "":
		p.add("token_file", "a local %s asks for no token", kinds[0])
	}
	if _, err := repo.ParseProfile(cmp.Or(c.Profile, "all")); err != nil {
		p.add("profile", "%v", err)
	}
	seen := make(map[string]bool)
	check := func(field, s string) {
		name, revision := hub.SplitRevision(s)
		r, err := hub.ParseRepo(name)
		if err != nil {
			p.add(field, "%v", err)
		}
		if strings.Contains(s, "@") {
			if err := hub.CheckRevision(revision); err != nil {
				p.add(field, "%v", err)
			}
		}
		key := r.String() + "@" + cmp.Or(revision, mainBranch)
		if seen[key] {
			p.add(field, "%s is asked for already", key)
		}
		seen[key] = true
	}
	for i, s := range c.Repositories {
		check(at("repositories", i), s)
	}
	for i, s := range c.Select {
		field := at("select", i) + "."
		check(field+"repository", s.Repository)
		if s.Profile != "" {
			if _, err := repo.ParseProfile(s.Profile); err != nil {
				p.add(field+"profile", "%v", err)
			}
		}
		p.patterns(field+"include", s.Include)
		p.patterns(field+"exclude", s.Exclude)
	}
	p.hosts(c.AllowHosts)
	p.between("connections", c.Connections, maxConnections)
	p.between("max_requests", c.MaxRequests, 1_000_000)
	if c.MaxWait < 0 {
		p.add("max_wait", "must not be negative")
	}
	return p.err()
}

// How a cache folder holds its files.
const (
	LinksRelative = "relative"
	LinksNone     = "none"
)

// A PublishConfig is how models are published inside: by the embedded hub
// always, and into further places beside it.
type PublishConfig struct {
	Name string `yaml:"name" required:"true" doc:"name of the source, as outside"`
	// KeepRevisions is a pointer, since 0 is a choice.
	KeepRevisions *int     `yaml:"keep_revisions" default:"1" doc:"how many revisions of a repository stay served by their commit after its branch has moved"`
	Access        []Access `yaml:"access" doc:"who may read what; a repository that no entry names is open to all"`

	Cache  CacheConfig  `yaml:"cache" doc:"a cache folder of huggingface_hub"`
	Folder string       `yaml:"folder" doc:"a folder with plain files: FOLDER/ORGANISATION/NAME"`
	Ollama OllamaConfig `yaml:"ollama" doc:"a models folder of Ollama, for repositories with GGUF files"`
	S3     S3Config     `yaml:"s3" doc:"an object store"`
}

// An Access rule names who may read some repositories.
type Access struct {
	Repositories []string `yaml:"repositories" required:"true" doc:"names or patterns: team/model, team/*, datasets/team/*"`
	Tokens       []Token  `yaml:"tokens" doc:"tokens that may read them; none: nobody may"`
	Ask          string   `yaml:"ask" doc:"whom to ask for access; shown to those who are refused"`
}

// A Token is a secret by which a client is known.
type Token struct {
	Name string `yaml:"name" required:"true" doc:"who holds it, for the audit log"`
	File string `yaml:"file" required:"true" doc:"file with the token"`
}

// A CacheConfig is a cache folder to publish into.
type CacheConfig struct {
	Dir     string `yaml:"dir" doc:"the folder, as HF_HUB_CACHE names it"`
	Links   string `yaml:"links" default:"relative" enum:"relative|none" doc:"how files lie there: symbolic links to blobs as huggingface_hub makes them, or plain files for file systems and clients without links"`
	NoExist bool   `yaml:"no_exist" doc:"also note which optional files a model has not, for older transformers without a network"`
}

// An OllamaConfig is a models folder to publish into.
type OllamaConfig struct {
	Dir  string `yaml:"dir" doc:"the folder, as OLLAMA_MODELS names it"`
	Host string `yaml:"host" doc:"the first part of the models' names there, as models.example"`
}

// An S3Config is an object store to publish into.
type S3Config struct {
	Endpoint      string   `yaml:"endpoint" doc:"the store's address, with its scheme"`
	Bucket        string   `yaml:"bucket" doc:"the bucket; it is never created"`
	Prefix        string   `yaml:"prefix" doc:"first part of the objects' names"`
	Region        string   `yaml:"region" default:"us-east-1" doc:"the region that the store calls itself"`
	AccessKeyFile string   `yaml:"access_key_file" doc:"file with the access key"`
	SecretKeyFile string   `yaml:"secret_key_file" doc:"file with the secret key"`
	VirtualHost   bool     `yaml:"virtual_host" doc:"put the bucket into the host's name, not into the path"`
	AllowHosts    []string `yaml:"allow_hosts" doc:"further hosts of the store"`
	AllowHTTP     bool     `yaml:"allow_http" doc:"allow plain http"`
	CAFile        string   `yaml:"ca_file" doc:"certificates to trust beside the system's, PEM"`
	Verify        string   `yaml:"verify" default:"quick" enum:"quick|full" doc:"how to look at what is there already: by size and recorded digest, or by reading it again"`
}

// Fetch is the configuration of the object store's client.
func (c *S3Config) Fetch(name string) fetch.Config {
	fc := fetch.Config{Name: name, Hosts: slices.Clone(c.AllowHosts), AllowHTTP: c.AllowHTTP, CAFile: c.CAFile}
	if host, err := fetch.Host(c.Endpoint); err == nil && c.VirtualHost {
		fc.Hosts = append(fc.Hosts, c.Bucket+"."+host)
	}
	return fc
}

// Keep is how many former revisions of a repository stay.
func (c *PublishConfig) Keep() int {
	if c.KeepRevisions == nil {
		return 1
	}
	return *c.KeepRevisions
}

// Validate joins every problem, each starting with the field it concerns.
func (c *PublishConfig) Validate() error {
	p := &problems{}
	p.name(c.Name)
	p.between("keep_revisions", c.Keep(), 1000)
	for i, a := range c.Access {
		field := at("access", i) + "."
		if len(a.Repositories) == 0 {
			p.add(field+"repositories", "missing")
		}
		p.patterns(field+"repositories", a.Repositories)
		for j, t := range a.Tokens {
			if t.Name == "" {
				p.add(at(field+"tokens", j)+".name", "missing")
			}
			if t.File == "" {
				p.add(at(field+"tokens", j)+".file", "missing")
			}
		}
	}
	p.choice("cache.links", c.Cache.Links, LinksRelative, LinksNone)
	if c.Cache.Dir == "" && c.Cache != (CacheConfig{Links: c.Cache.Links}) {
		p.add("cache.dir", "missing")
	}
	if c.Ollama.Dir != "" && c.Ollama.Host == "" {
		p.add("ollama.host", "missing: models are called HOST/ORGANISATION/NAME there")
	}
	if c.Ollama.Host != "" && c.Ollama.Dir == "" {
		p.add("ollama.dir", "missing")
	}
	c.S3.validate(p)
	return p.err()
}

func (c *S3Config) validate(p *problems) {
	if c.Endpoint == "" {
		if c.Bucket+c.Prefix+c.AccessKeyFile+c.SecretKeyFile != "" {
			p.add("s3.endpoint", "missing")
		}
		return
	}
	p.address("s3.endpoint", c.Endpoint, c.AllowHTTP)
	if c.Bucket == "" || strings.Contains(c.Bucket, "/") {
		p.add("s3.bucket", "want the name of one bucket")
	}
	if c.Prefix != "" && (path.Clean(c.Prefix) != c.Prefix || strings.HasPrefix(c.Prefix, "/") || strings.HasPrefix(c.Prefix, "..")) {
		p.add("s3.prefix", "%q: want a relative path, as models/llm", c.Prefix)
	}
	if (c.AccessKeyFile == "") != (c.SecretKeyFile == "") {
		p.add("s3.secret_key_file", "access_key_file and secret_key_file go together")
	}
	p.choice("s3.verify", c.Verify, "quick", "full")
	for i, h := range c.AllowHosts {
		if _, err := fetch.Host("https://" + h); err != nil {
			p.add(at("s3.allow_hosts", i), "%v", err)
		}
	}
}

// problems collects what is wrong with a configuration.
type problems struct{ errs []error }

func (p *problems) add(field, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
}

func (p *problems) err() error { return errors.Join(p.errs...) }

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// name checks a source's name, which is a part of the addresses inside.
func (p *problems) name(name string) {
	if name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		p.add("name", "%q: want lower-case letters, digits, '-', '_' and '.'", name)
	}
}

func (p *problems) choice(field, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		p.add(field, "%q: want %s", value, strings.Join(allowed, ", "))
	}
}

func (p *problems) between(field string, n, most int) {
	if n < 0 || n > most {
		p.add(field, "%d: want 0 to %d", n, most)
	}
}

func (p *problems) patterns(field string, list []string) {
	for i, s := range list {
		if _, err := path.Match(s, ""); err != nil || s == "" {
			p.add(at(field, i), "%q is no pattern", s)
		}
	}
}

func (p *problems) address(field, raw string, allowHTTP bool) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		p.add(field, "%q is no address, as https://hub.example", fetch.Redact(raw))
	case u.User != nil:
		p.add(field, "credentials do not belong into an address")
	case u.Scheme != "https" && u.Scheme != "http":
		p.add(field, "%q is neither https nor http", u.Scheme)
	case u.Scheme == "http" && !allowHTTP:
		p.add(field, "plain http; allow_http: true allows it")
	case u.RawQuery != "" || u.Fragment != "":
		p.add(field, "an address has no query and no fragment")
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
